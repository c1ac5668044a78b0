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
        # X2 = -X1 + U2, X3 = .05 X1 + .25 X2 + U3
        ("lin", [1, 3, 3], [1, 2, 0.05 + 0.5 + 3]),
        # X3 = -.05 X1 - .25 X2^2 + U3
        ("anm", [0, 0, 0], [0, 0.5, -0.0625]),
        # X2 = .25 sgn(U2) X1^2 (1 + U2^2), X3 = -1 + .1 sgn(U3) (X1^2 + X2^2) + U3
        ("gen", [2, 1, -0.5], [2, 2, -1 - 0.8 - 0.5]),
        ("gen", [-2, -0.5, 0.25], [-2, -1.25, -1 + 0.1 * (4 + 1.25**2) + 0.25]),
        # X1 = S + U1, X2 = X1 + U2, X3 = S + .25 X1 + .5 X2 + U3
        ("triangle", [1, 1, 1, 1], [1, 2, 3, 1 + 0.5 + 1.5 + 1]),
        ("triangle_curved", [1, -1, 1, 1], [1, 0, 1.5, 1 + 0.75 + 1]),
        ("collider", [1, 1, 0.5, 1], [1, 2, 1, 0.05 + 0.5 + 0.25 + 1]),
        ("collider_curved", [1, 1.5, 0.5, 1], [1, 2, 1, 0.25 + 1 + 0.25 + 1]),
        ("chain", [1, 1, 1, 1], [1, 2, 3, 0.25 + 1.5 + 1]),
        ("chain_curved", [1, -1, 0.5, 1], [1, 0, 3, 0.25 + 9 + 1]),
        # Married = .2286 + .4119 Male + .1262 age - .0664 US + U, and so on
        (
            "adult",
            [1, 0, 1, 0, 0, 0],
            *[[1, 0, 1, 0.5741, -0.07250 + 0.1847 * 0.5741, -0.0414 + 0.2569 * 0.5741]],
        ),
        ("compas", [1, 1, 0, 0], [1, 1, 0.45, -0.1 + 0.1477 + 0.2777 - 0.3293 * 0.45]),
    ],
)
def test_mechanisms_have_the_values_of_the_papers(name, noise, expected):
    scm = getattr(library, name)()
    np.testing.assert_allclose(scm.predict(jnp.array(noise, float)), expected, atol=1e-6)
    np.testing.assert_allclose(scm.abduct(jnp.array(expected)), noise, atol=1e-6)


def test_the_loan_is_as_published():
    # By hand at G = 1, A = -35 + 40 = 5, so that s(.1 A) = s(.5) and (A - 5)^2 = 0.
    def s(value):
        return 1 / (1 + np.exp(-value))

    education = -0.5 + s(-1 + 0.5 + s(0.5) + 0.3)
    income = -4 + 0.1 * 40 + 2 + education + 0.5
    expected = [1, 5, education, 3, -1 + 0.5 + 2 + 3 - 1, income, -4 + 1.5 * income + 2]
    noise = jnp.array([1, 40, 0.3, 1, -1, 0.5, 2])
    scm = library.loan()
    np.testing.assert_allclose(scm.predict(noise), expected, atol=2e-6)
    _, _, _, amount, duration, income, savings = expected
    logit = 0.3 * (income + savings + income * savings - amount - duration)
    np.testing.assert_allclose(library.loan_logit(scm.predict(noise)), logit, atol=1e-5)
    poor = scm.predict(jnp.array([0.0, 30.0, 0, 0, 0, -3, 0]))
    np.testing.assert_allclose(poor[5:], [-4, -4], atol=1e-6)  # max(I, 0)


def test_the_loan_has_the_spread_that_was_simulated():
    # Against figures of a simulation, of at least as many draws: 8 comparisons at 5 standard
    # errors of both, one false alarm in 200,000 seeds.
    num = 200_000
    x = np.asarray(library.loan().sample(jax.random.key(4), num), float)
    found = [0.5, 11.075, 0.137, 2.770, 4.540, 2.512, 5.576]
    z = (x - x.mean(0)) / x.std(0)
    error = x.std(0) * np.sqrt(((z**4).mean(0) - 1) / (4 * num))
    assert (np.abs(x.std(0) - found) < 5 * np.sqrt(2) * error + 5e-4).all()
    granted = np.asarray(jax.nn.sigmoid(library.loan_logit(jnp.asarray(x)))).mean()
    assert abs(granted - 0.518) < 5 * np.sqrt(2 * 0.25 / num) + 5e-4


# E[U1], E[(U1 - E[U1])^2] and E[(U1 - E[U1])^4] of 1/2 N(-2, 1.5) + 1/2 N(1, 1), by hand: the
# components lie 1.5 to either side of the mean, and E[(d + s Z)^4] = d^4 + 6 d^2 s^2 + 3 s^4.
MIXTURE = (-0.5, (2.25 + 4 + 1 + 1) / 2 - 0.25, (50.625 + 21.5625) / 2)

# The same of 1/2 N(-2, 1.5) + 1/2 N(1, 1) with variances, and of 1/2 N(-2.5, 1) + 1/2 N(2.5, 1).
VARIANCES = (-0.5, 1.25 + 2.25, (5.0625 + 13.5 * 1.5 + 6.75 + 5.0625 + 13.5 + 3) / 2)
APART = (0.0, 1 + 6.25, 6.25**2 + 6 * 6.25 + 3)


def gaussian(sd):
    return 0.0, sd**2, 3 * sd**4


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("m1", [gaussian(1), gaussian(1), gaussian(1)]),
        ("m2", [MIXTURE, gaussian(1), gaussian(1)]),
        ("m3", [MIXTURE, gaussian(0.1), gaussian(1)]),
        ("theta_star", [gaussian(1), gaussian(1), gaussian(1)]),
        ("lin", [VARIANCES, gaussian(1), gaussian(1)]),
        ("anm", [VARIANCES, gaussian(0.1**0.5), gaussian(1)]),
        ("gen", [APART, gaussian(0.5), gaussian(0.25)]),
    ],
)
def test_noise_has_the_moments_of_the_paper(name, moments):
    # 63 comparisons at 5 standard errors: one false alarm in 25,000 seeds.
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


@pytest.mark.parametrize("name", [*library.SCMS, *library.OTHERS])
def test_every_scm_of_the_library_meets_the_contract(name):
    scm = library.get(name)
    if name in ("adult", "compas"):
        x = jax.random.normal(jax.random.key(2), (100, scm.num_nodes))
    else:
        x = scm.sample(jax.random.key(2), 100)
        assert x.shape == (100, scm.num_nodes)
        assert x.dtype == scm.noise_mean.dtype
    size = np.maximum(np.abs(x), 1)
    same = scm.counterfactual(x, Action.empty(scm.num_nodes))
    assert (np.abs(scm.predict(scm.abduct(x)) - x) / size).max() <= 1e-5
    assert (np.abs(same - x) / size).max() <= 1e-5
    shift = Action.soft(jax.random.normal(jax.random.key(3), x.shape))
    vmapped = jax.vmap(scm.counterfactual)(x, shift)
    np.testing.assert_allclose(scm.counterfactual(x, shift), vmapped, rtol=1e-5, atol=1e-5)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(jax.vmap(scm.counterfactual), x, shift).dtype == x.dtype


def test_an_unknown_scm_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"scm to be one of .*'m1', 'm2', 'm3'.*got 'm4'"):
        library.get("m4")
