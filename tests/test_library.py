import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcr_jax import library
from pcr_jax.actions import Action

pytestmark = pytest.mark.x64
SIGMOID_2 = 1 / (1 + np.exp(-2.0))


@pytest.mark.parametrize(
    ("name", "noise", "expected"),
    [
        # X2 = -.99 X1 + U2, X3 = .99 X1 + .99 X2 + U3
        ("m1", [1, 2, 3], [1, 1.01, 0.99 + 0.99 * 1.01 + 3]),
        ("m1", [-2, 0, 0], [-2, 1.98, -1.98 + 0.99 * 1.98]),
        # X2 = -.99 X1 + U2, X3 = .05 X1 + .25 X2 + U3
        ("m2", [1, 2, 3], [1, 1.01, 0.05 + 0.25 * 1.01 + 3]),
        ("m2", [-2, 0, 0], [-2, 1.98, -0.1 + 0.25 * 1.98]),
        # X2 = -1 + 3 / (1 + exp(-2 X1)) + U2, X3 = -.05 X1 + .25 X2^2 + U3
        ("m3", [0, 0, 0], [0, 0.5, 0.0625]),
        ("m3", [1, 0.5, 3], [1, 3 * SIGMOID_2 - 0.5, 2.95 + 0.25 * (3 * SIGMOID_2 - 0.5) ** 2]),
        ("m3", [-1, 0, 0], [-1, 2 - 3 * SIGMOID_2, 0.05 + 0.25 * (2 - 3 * SIGMOID_2) ** 2]),
        # theta* = (.5, -.5, -.5)
        ("theta_star", [1, 0, 0], [1, 0.5, -0.75]),
        ("theta_star", [0, 1, 2], [0, 1, 1.5]),
    ],
)
def test_mechanisms_have_the_values_of_the_paper(name, noise, expected):
    scm = getattr(library, name)()
    np.testing.assert_allclose(scm.predict(jnp.array(noise, float)), expected, atol=1e-6)
    np.testing.assert_allclose(scm.abduct(jnp.array(expected)), noise, atol=1e-6)


# E[U1], E[(U1 - E[U1])^2] and E[(U1 - E[U1])^4] of 1/2 N(-2, 1.5) + 1/2 N(1, 1), by hand: the
# components lie 1.5 to either side of the mean, and E[(d + s Z)^4] = d^4 + 6 d^2 s^2 + 3 s^4.
MIXTURE = (-0.5, (2.25 + 4 + 1 + 1) / 2 - 0.25, (50.625 + 21.5625) / 2)


def gaussian(sd):
    return 0.0, sd**2, 3 * sd**4


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("m1", [gaussian(1), gaussian(1), gaussian(1)]),
        ("m2", [MIXTURE, gaussian(1), gaussian(1)]),
        ("m3", [MIXTURE, gaussian(0.1), gaussian(1)]),
        ("theta_star", [gaussian(1), gaussian(1), gaussian(1)]),
    ],
)
def test_noise_has_the_moments_of_the_paper(name, moments):
    # 36 comparisons at 5 standard errors: one false alarm in 50,000 seeds.
    scm = getattr(library, name)()
    num = 200_000
    noise = np.asarray(scm.sample_noise(jax.random.key(0), num), float)
    mean, variance, fourth = np.transpose(moments)
    assert (np.abs(noise.mean(0) - mean) < 5 * np.sqrt(variance / num)).all()
    error = np.abs(((noise - mean) ** 2).mean(0) - variance)
    assert (error < 5 * np.sqrt((fourth - variance**2) / num)).all()
    np.testing.assert_allclose(scm.noise_mean, mean, atol=1e-6)
    correlation = np.corrcoef(noise.T) - np.eye(3)
    assert (np.abs(correlation) < 5 / np.sqrt(num)).all()


def test_mixture_is_skewed_to_the_left():
    # P(U1 < -1/2) = (Phi(1) + Phi(-1.5)) / 2; swapped weights or components give another.
    noise = library.m2().sample_noise(jax.random.key(1), 200_000)[:, 0]
    below = (0.841345 + 0.066807) / 2
    share = float((noise < -0.5).mean())
    assert abs(share - below) < 5 * np.sqrt(below * (1 - below) / 200_000)  # 6 in 10 million


@pytest.mark.parametrize("name", library.SCMS)
def test_every_scm_of_the_library_meets_the_contract(name):
    scm = library.get(name)
    x = scm.sample(jax.random.key(2), 100)
    assert x.shape == (100, scm.num_nodes)
    assert x.dtype == scm.noise_mean.dtype
    np.testing.assert_allclose(scm.predict(scm.abduct(x)), x, atol=1e-5)
    np.testing.assert_allclose(scm.counterfactual(x, Action.empty(scm.num_nodes)), x, atol=1e-5)
    shift = Action.soft(jax.random.normal(jax.random.key(3), x.shape))
    vmapped = jax.vmap(scm.counterfactual)(x, shift)
    np.testing.assert_allclose(scm.counterfactual(x, shift), vmapped, atol=1e-5)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(jax.vmap(scm.counterfactual), x, shift).dtype == x.dtype


def test_an_unknown_scm_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"scm to be one of \['m1', 'm2', 'm3'.*got 'm4'"):
        library.get("m4")
