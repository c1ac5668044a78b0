"""What every prior promises."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Exponential, mapped
from scipy.stats import multivariate_normal

from pcr_jax.likelihoods.mixture import HowPeopleAnswer
from pcr_jax.surrogates import Box, NormalMixture, normal_prior, priors

pytestmark = pytest.mark.x64
FACTORS = np.array([np.eye(3), [[2.0, 0.0, 0.0], [0.0, 0.5, 0.0], [-1.0, 0.0, 0.3]]])
# How many numbers each is of.
PRIORS = {
    "box": (3, lambda: Box([-1.0, 2.0, 0.0], [1.0, 2.5, 100.0])),
    "exponential": (2, lambda: Exponential(jnp.array([0.5, 2.0]))),
    "normal": (3, lambda: normal_prior([0.0, 10.0, -1.0], [1.0, 0.1, 3.0])),
    "one normal": (3, lambda: NormalMixture(np.ones(1), np.ones((1, 3)), FACTORS[1:], (0, 1, 0))),
    "two normals": (
        3,
        lambda: NormalMixture(
            np.array([0.25, 0.75]), np.array([[0.0, 1, 2], [1, 0, 0]]), FACTORS, (1, 0, 1)
        ),
    ),
    "how people answer": (2, lambda: HowPeopleAnswer(*jnp.array([9.0, 0.1, 1.0]))),
    "their error rate": (1, lambda: HowPeopleAnswer(jnp.asarray(9.0), None, None)),
    "their noise": (1, lambda: HowPeopleAnswer(None, jnp.asarray(0.1), jnp.asarray(0.5))),
}
UNIT = np.random.default_rng(0).uniform(0.01, 0.99, (50, 3)).astype(np.float32)


@pytest.fixture(params=PRIORS)
def case(request):
    """A prior, and draws of it from places in the unit cube."""
    k, make = PRIORS[request.param]
    prior = make()
    return prior, UNIT[:, :k], jax.jit(prior.from_unit)(UNIT[:, :k])


def test_the_density_is_that_of_the_draws(case):
    prior, unit, theta = case
    log_prob = mapped(prior.log_prob)(theta)
    if np.shape(getattr(prior, "weights", [1.0]))[-1] == 1:  # else the map is not one to one
        slopes = mapped(jax.jacfwd(prior.from_unit))(unit)
        _, log_volume = np.linalg.slogdet(slopes)
        np.testing.assert_allclose(log_prob, -log_volume, rtol=1e-4, atol=1e-4)
    assert prior.log_prob(theta[0] - 1000.0) < log_prob.min() - 1000


def test_draws_are_weighed_as_their_density_says(case):
    # Over draws, another density divided by theirs is 1 on average.
    prior, unit, _ = case
    many = np.random.default_rng(1).uniform(size=(2**16, unit.shape[1]))
    real = mapped(lambda unit: prior.to_real(prior.from_unit(unit)))(jnp.asarray(many, float))
    log_density = mapped(lambda r: prior.from_real(r)[1])(real)
    other = multivariate_normal(real.mean(0), 0.3 * np.atleast_2d(np.cov(real.T)))
    ratio = np.exp(other.logpdf(np.asarray(real)) - log_density)
    # At 5 standard errors: one false alarm in 1.7 million seeds.
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 2**8
    assert ratio.std() / 2**8 < 0.01


def test_the_reals_and_back(case):
    prior, _, theta = case
    real = mapped(prior.to_real)(theta)
    again, log_density = mapped(prior.from_real)(real)
    np.testing.assert_allclose(again, theta, rtol=1e-4, atol=1e-4)
    slopes = mapped(jax.jacfwd(lambda r: prior.from_real(r)[0]))(real)
    _, log_jacobian = np.linalg.slogdet(slopes)
    expected = mapped(prior.log_prob)(theta) + log_jacobian
    np.testing.assert_allclose(log_density, expected, rtol=1e-4, atol=1e-3)
    # Anywhere in the reals there is a density with a slope.
    far = jnp.full(theta.shape[1], 30.0)
    for place in (far, -far):
        assert np.isfinite(prior.from_real(place)[1])
        assert np.isfinite(jax.grad(lambda r: prior.from_real(r)[1])(place)).all()


def test_a_box_is_what_it_says(case):
    prior, _, theta = case
    if prior.box is None:
        return
    low, high = prior.box
    assert ((low <= theta) & (theta <= high)).all()
    assert len(np.unique(mapped(prior.log_prob)(theta))) == 1
    assert np.isfinite(prior.to_real(low)).all()
    assert prior.log_prob(high + 1) == prior.log_prob(low - 1) == -jnp.inf


def test_a_prior_per_user_is_the_same_with_a_leading_axis(case):
    prior, unit, theta = case
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), prior)
    assert (prior.batch_shape, many.batch_shape) == ((), (2,))
    both = mapped(lambda own: own.from_unit(unit))(many)
    np.testing.assert_allclose(both, np.stack([theta, theta]), rtol=1e-5)


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
