"""What every prior promises."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Exponential

from pcr_jax.surrogates import Box, priors

pytestmark = pytest.mark.x64
PRIORS = {
    "box": lambda: Box([-1.0, 2.0, 0.0], [1.0, 2.5, 100.0]),
    "exponential": lambda: Exponential(jnp.array([0.5, 2.0])),
}
UNIT = np.random.default_rng(0).uniform(0.01, 0.99, (50, 3)).astype(np.float32)


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]()


def draws_of(prior):
    unit = UNIT[:, : jax.tree.leaves(prior)[0].shape[-1]]
    return unit, prior.from_unit(unit)


def test_the_density_is_that_of_the_draws(prior):
    unit, theta = draws_of(prior)
    slopes = jax.vmap(jax.jacfwd(prior.from_unit))(unit)
    _, log_volume = np.linalg.slogdet(slopes)
    np.testing.assert_allclose(jax.vmap(prior.log_prob)(theta), -log_volume, rtol=1e-4, atol=1e-4)
    assert prior.log_prob(theta[0] - 1000.0) == -jnp.inf


def test_the_reals_and_back(prior):
    _, theta = draws_of(prior)
    real = jax.vmap(prior.to_real)(theta)
    again, log_density = jax.vmap(prior.from_real)(real)
    np.testing.assert_allclose(again, theta, rtol=1e-4, atol=1e-4)
    slopes = jax.vmap(jax.jacfwd(lambda r: prior.from_real(r)[0]))(real)
    _, log_jacobian = np.linalg.slogdet(slopes)
    expected = jax.vmap(prior.log_prob)(theta) + log_jacobian
    np.testing.assert_allclose(log_density, expected, rtol=1e-4, atol=1e-3)
    # Anywhere in the reals there is a density with a slope.
    far = jnp.full(theta.shape[1], 30.0)
    for place in (far, -far):
        assert np.isfinite(prior.from_real(place)[1])
        assert np.isfinite(jax.grad(lambda r: prior.from_real(r)[1])(place)).all()


def test_a_box_is_what_it_says(prior):
    _, theta = draws_of(prior)
    if prior.box is None:
        return
    low, high = prior.box
    assert ((low <= theta) & (theta <= high)).all()
    assert len(np.unique(jax.vmap(prior.log_prob)(theta))) == 1
    assert np.isfinite(prior.to_real(low)).all()
    assert prior.log_prob(high + 1) == prior.log_prob(low - 1) == -jnp.inf


def test_a_prior_per_user_is_the_same_with_a_leading_axis(prior):
    unit, theta = draws_of(prior)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), prior)
    assert (prior.batch_shape, many.batch_shape) == ((), (2,))
    both = jax.vmap(lambda own: own.from_unit(unit))(many)
    np.testing.assert_array_equal(both, np.stack([theta, theta]))


def test_boxes_that_make_no_sense_are_refused():
    for low, high, message in [
        ([0.0], [0.0], "low < high"),
        ([0.0, 1.0], [1.0], r"high of shape \(2,\); got \(1,\)"),
        ([0.0], [np.inf], "finite values for high"),
        (0.0, 1.0, r"low of shape \(k,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            Box(low, high)


def test_the_example_works():
    failed, tried = doctest.testmod(priors)
    assert tried
    assert not failed
