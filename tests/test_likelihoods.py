from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from math import floor, log, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from problems import history_of
from scipy.stats import beta, kstest

from pcr_jax.history import History, Questions
from pcr_jax.inference import log_density
from pcr_jax.likelihoods import Tolerance, mixture, relaxed, tolerance
from pcr_jax.scm import Graph
from pcr_jax.surrogates import linear_surrogate

pytestmark = pytest.mark.x64
NOISE_MEAN = (0.1, -0.2, 0.3)
SURROGATE = linear_surrogate(Graph.fully_connected(3), noise_mean=NOISE_MEAN)
BETAS = [Fraction(k, 10) for k in range(11)] + [Fraction(1, 3), Fraction(2, 3), Fraction(1, 7)]
T = 12
NONE = jnp.zeros(0)  # unknowns of the likelihood's own


def log_probs(likelihood):
    return jax.vmap(partial(likelihood.log_prob, NONE))


def brute_force(theta, sigma, beta, norm, node, shift, answer):
    """Whether the history is possible under theta, and how near the closest call was."""
    theta21, theta31, theta32 = theta
    missed = answered = 0
    margin = float("inf")
    for n, v, reported in zip(node, shift, answer, strict=True):
        x1 = NOISE_MEAN[0] + (v if n == 0 else 0)
        x2 = theta21 * x1 + NOISE_MEAN[1] + (v if n == 1 else 0)
        x3 = theta31 * x1 + theta32 * x2 + NOISE_MEAN[2] + (v if n == 2 else 0)
        gaps = [abs(e - r) for e, r in zip((x1, x2, x3), reported, strict=True) if r == r]
        if not gaps:
            continue
        distance = max(gaps) if norm == "each" else sqrt(sum(gap**2 for gap in gaps))
        answered += 1
        missed += distance > sigma
        margin = min(margin, abs(distance - sigma))
    inside = all(-1 <= coefficient <= 1 for coefficient in theta)
    return inside and missed <= floor(beta * answered), margin


@pytest.mark.parametrize("norm", ["each", "joint"])
def test_log_density_equals_a_brute_force_copy(norm):
    num = 5_000  # for each norm
    rng = np.random.default_rng(0)
    theta = rng.uniform(-1.02, 1.02, (num, 3))  # some outside of the box
    sigma = rng.uniform(0.1, 1.5, num)
    betas = [BETAS[i] for i in rng.integers(len(BETAS), size=num)]
    asked = np.arange(T) < rng.integers(0, T + 1, num)[:, None]
    node = np.where(asked, rng.integers(0, 3, (num, T)), -1)
    shift = np.where(asked, rng.uniform(-1, 1, (num, T)), 0)
    reported = asked[..., None] & (rng.random((num, T, 3)) < 0.6)
    answer = np.where(reported, rng.normal(0, 0.7, (num, T, 3)), np.nan)
    # What float32 makes of them is what both copies see.
    theta, sigma, shift, answer = (a.astype(np.float32) for a in (theta, sigma, shift, answer))

    def density(theta, sigma, beta, *history):
        return log_density(SURROGATE, Tolerance(sigma, beta, norm), history_of(*history), theta)

    beta = np.array(betas, np.float32)
    actual = jax.jit(jax.vmap(density))(theta, sigma, beta, node, shift, answer)
    rows = zip(theta, sigma, betas, node, shift, answer, strict=True)
    as_python = (
        (t.tolist(), float(s), b, norm, n.tolist(), v.tolist(), a.tolist())
        for t, s, b, n, v, a in rows
    )
    possible, margin = np.transpose([brute_force(*row) for row in as_python])
    clear = margin > 1e-5
    assert (~clear).sum() < 10
    expected = np.where(possible, -3 * log(2), -np.inf)
    np.testing.assert_allclose(actual[clear], expected[clear], rtol=1e-6)
    assert 0.2 < possible.mean() < 0.8


def log_prob_after_misses(likelihood, misses, answered, length):
    """Of ``answered`` answers the first ``misses`` are wrong; NaN up to ``length``."""
    t = jnp.arange(length)[:, None]
    answer = jnp.where(t < misses, 10.0, jnp.where(t < answered, 0.0, jnp.nan))
    return likelihood.log_prob(NONE, jnp.zeros((length, 1)), answer)


def test_allowed_misses_are_exact_for_every_number_of_answers_and_every_tenth():
    cases = [(m, n, b) for n in range(31) for m in range(n + 1) for b in range(11)]
    misses, answered, tenths = np.transpose(cases)

    def log_prob(misses, answered, beta):
        return log_prob_after_misses(Tolerance(0.5, beta), misses, answered, 30)

    actual = jax.vmap(log_prob)(misses, answered, tenths / 10)
    allowed = np.array([floor(Fraction(int(b), 10) * int(n)) for _, n, b in cases])
    np.testing.assert_array_equal(actual, np.where(misses <= allowed, 0.0, -np.inf))


@pytest.mark.parametrize(
    ("beta", "answered", "allowed"),
    [
        (0.7, 10, 7),
        (1 / 3, 3, 1),
        (0.1, 9, 0),
        (0.1, 10, 1),
        (0.0, 5, 0),
        (1, 5, 5),
        (7 / 23, 23, 7),  # in single precision 7 / 23 * 23 < 7
        (0.53, 100, 53),
    ],
)
def test_a_share_beta_of_the_answers_may_be_missed(beta, answered, allowed):
    likelihood = tolerance(sigma=0.5, beta=beta)
    assert log_prob_after_misses(likelihood, allowed, answered, 100) == 0.0
    if allowed < answered:
        assert log_prob_after_misses(likelihood, allowed + 1, answered, 100) == -jnp.inf


def test_a_distance_of_exactly_sigma_agrees():
    expected, answer = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    for norm, sigma, agrees in [
        ("each", 4, 1),
        ("each", 3.99, 0),
        ("joint", 5, 1),
        ("joint", 4, 0),
    ]:
        agreeing, answered = tolerance(sigma, 0.1, norm=norm).agreement(expected, answer)
        assert (agreeing, answered) == (agrees, 1)


def test_what_was_not_reported_counts_neither_for_nor_against():
    nan = jnp.nan
    answer = jnp.array([[0.1, nan], [nan, 9.0], [nan, nan]])
    agreeing, answered = tolerance(0.5, 0.5).agreement(jnp.zeros((3, 2)), answer)
    assert (agreeing, answered) == (1, 2)
    assert tolerance(0.5, 0.0).log_prob(NONE, jnp.zeros((3, 2)), jnp.full((3, 2), nan)) == 0


def test_expected_answers_are_predictions_from_the_noise_mean():
    theta, node, shift = jnp.array([0.5, -0.25, 2.0]), jnp.array([0, 1, 2, -1]), jnp.full(4, 2.0)
    direct = np.array([[0, 0, 0], [0.5, 0, 0], [-0.25, 2.0, 0]])
    total = np.linalg.inv(np.eye(3) - direct)
    expected = [total @ (NOISE_MEAN + 2.0 * (np.arange(3) == int(n))) for n in node]
    history = history_of(node, shift, jnp.zeros((4, 3)))
    actual = SURROGATE.expected(theta, history.questions, history.x)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_prior_is_uniform_on_the_box():
    surrogate = linear_surrogate(Graph.fully_connected(3), low=-2, high=3)
    history = history_of(jnp.array([-1]), jnp.zeros(1), jnp.full((1, 3), jnp.nan))
    for theta, value in [([-2.0, 3, 0], -3 * log(5)), ([-2.1, 0, 0], -jnp.inf)]:
        density = jax.jit(partial(log_density, surrogate, tolerance(1, 0), history))
        actual = density(jnp.array(theta, float))
        np.testing.assert_allclose(actual, value, rtol=1e-6)
    assert surrogate.names == ("X2 <- X1", "X3 <- X1", "X3 <- X2")
    draws = surrogate.prior.from_unit(jax.random.uniform(jax.random.key(0), (10_000, 3)))
    assert draws.shape == (10_000, 3)
    assert abs(float(draws.mean()) - 0.5) < 5 * 5 / sqrt(12 * 30_000)  # 6 in 10 million


def strict():
    stack = ExitStack()
    stack.enter_context(jax.numpy_rank_promotion("raise"))
    stack.enter_context(jax.numpy_dtype_promotion("strict"))
    return stack


def test_expected_answers_never_promote_ranks_or_dtypes():
    questions = Questions(jnp.array([0, 1]), jnp.ones(2))
    with strict():
        jax.eval_shape(SURROGATE.expected, jnp.ones(3), questions, jnp.ones(3))


@pytest.mark.parametrize("norm", ["each", "joint"])
def test_likelihood_never_promotes_ranks_or_dtypes(norm):
    with strict():
        one = jnp.ones((2, 3))
        jax.eval_shape(tolerance(0.5, 0.5, norm=norm).log_prob, NONE, one, one)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sigma": 0}, "sigma > 0 .*; got 0"),
        ({"sigma": -1}, "sigma > 0 .*; got -1"),
        ({"sigma": float("nan")}, "sigma > 0"),
        ({"sigma": float("inf")}, "sigma > 0"),
        ({"beta": -0.01}, r"beta in \[0, 1\]; got -0.01"),
        ({"beta": 1.01}, r"beta in \[0, 1\]"),
        ({"beta": float("nan")}, r"beta in \[0, 1\]"),
        ({"norm": "l2"}, r"norm to be one of \['each', 'joint'\]; got 'l2'"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        tolerance(**{"sigma": 0.5, "beta": 0.1, **setting})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"graph": Graph.fully_connected(1)}, "graph with at least one edge"),
        ({"low": 1}, "low < high"),
        ({"high": float("inf")}, "finite values for high"),
        ({"noise_mean": (0, 0)}, r"noise_mean of shape \(3,\); got \(2,\)"),
        ({"noise_mean": (0, 0, float("nan"))}, "finite values for noise_mean"),
    ],
)
def test_surrogates_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        linear_surrogate(**{"graph": Graph.fully_connected(3), **setting})


def _random_queries(num, seed=0):
    rng = np.random.default_rng(seed)
    expected = rng.normal(0, 0.5, (num, 6, 3)).astype(np.float32)
    answer = rng.normal(0, 0.5, (num, 6, 3)).astype(np.float32)
    answer[rng.random(answer.shape) < 0.4] = np.nan
    return jnp.asarray(expected), jnp.asarray(answer)


@pytest.mark.parametrize("norm", ["each", "joint"])
def test_relaxed_tends_to_tolerance(norm):
    expected, answer = _random_queries(2000)
    hard = jax.vmap(tolerance(0.6, 0.4, norm=norm).possible)(expected, answer)
    assert 0.1 < hard.mean() < 0.9
    wrong = []
    for temperature in (0.5, 0.05, 0.0005):
        soft = log_probs(relaxed(0.6, 0.4, temperature, norm=norm))(expected, answer)
        assert (soft <= 0).all()
        wrong.append(float(jnp.abs(jnp.exp(soft) - hard).mean()))
    assert wrong[0] > wrong[1] > wrong[2]
    assert wrong[2] < 2e-3


@pytest.mark.parametrize("norm", ["each", "joint"])
@pytest.mark.parametrize("temperature", [1.0, 0.05, 1e-3])
def test_relaxed_has_finite_gradients_everywhere(norm, temperature):
    expected, answer = _random_queries(50)
    likelihood = relaxed(0.6, 0.2, temperature, norm=norm)
    gradient = jax.vmap(jax.grad(partial(likelihood.log_prob, NONE)))
    for scale in (0.0, 1.0, 1e4):
        assert np.isfinite(gradient(scale * expected, answer)).all()
    # On the very answer, and where nothing was said.
    assert np.isfinite(gradient(jnp.nan_to_num(answer), answer)).all()
    silent = jnp.full_like(answer, jnp.nan)
    assert (gradient(expected, silent) == 0).all()
    assert np.isfinite(log_probs(likelihood)(expected, silent)).all()
    moved = gradient(expected, answer)
    assert (moved[np.isnan(answer)] == 0).all()
    if temperature == 1.0:
        assert (jnp.abs(moved).max((1, 2)) > 0).mean() > 0.9


@pytest.mark.parametrize("norm", ["each", "joint"])
@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_the_path_is_finite_zero_where_possible_and_falls_with_the_distance(norm, beta):
    expected, answer = _random_queries(500)
    likelihood = tolerance(0.6, beta, norm=norm)
    path = jax.vmap(partial(likelihood.path, NONE))(expected, answer)
    possible = jax.vmap(likelihood.possible)(expected, answer)
    np.testing.assert_array_equal(path == 0, possible)
    assert (np.isfinite(path) & (path <= 0)).all()
    # A wider tolerance is needed exactly where the path is lower.
    wider = tolerance(1.0, beta, norm=norm)
    enough = jax.vmap(wider.possible)(expected, answer)
    if not enough.all():
        assert path[~enough].max() <= path[enough].min()


def test_temperatures_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"temperature > 0 .*; got 0"):
        relaxed(0.5, 0.1, 0.0)
    with pytest.raises(ValueError, match="sigma > 0"):
        relaxed(0.0, 0.1)


def test_noise_of_another_number_of_nodes_is_refused():
    history = jax.tree.map(lambda leaf: leaf[0], History.empty(np.zeros((1, 3)), 2))
    with pytest.raises(ValueError, match=r"noise of shape \(\) or \(3,\); got \(7,\)"):
        mixture(np.full(7, 0.1)).bound(SURROGATE, history)
    with pytest.raises(TypeError, match="noise without names"):
        mixture(pd.Series({"X1": 0.1, "X2": 0.2}))


@pytest.mark.parametrize(("rarity", "wrong", "right"), [(9.0, 0, 0), (9.0, 1, 3), (2.5, 4, 6)])
def test_error_rates_given_how_many_are_wrong_are_of_a_beta_distribution(rarity, wrong, right):
    # False alarms: 1 in 1,000 each.
    likelihood = mixture(noise=0.1, rarity=rarity).bound(SURROGATE, _answered(wrong + right))
    expected = jnp.zeros((wrong + right, 3))
    answer = jnp.where(np.arange(wrong + right)[:, None] < wrong, 30.0, expected)
    keys = jax.random.split(jax.random.key(0), 4000)
    augment = jax.vmap(likelihood.augment, (0, None, None, None))
    rates = augment(keys, jnp.array([0.5]), expected, answer).unknowns[:, 0]
    assert kstest(rates, beta(1 + wrong, rarity + right).cdf).pvalue > 1e-3


def test_error_rates_are_never_all_of_1():
    # Of which the prior has no density: of a rarity so small most draws round to it.
    likelihood = mixture(noise=0.1, rarity=0.02).bound(SURROGATE, _answered(0))
    keys = jax.random.split(jax.random.key(0), 100)
    augment = jax.vmap(likelihood.augment, (0, None, None, None))
    drawn = augment(keys, jnp.array([0.5]), jnp.zeros((0, 3)), jnp.zeros((0, 3))).unknowns
    assert np.isfinite(jax.vmap(likelihood.prior.log_prob)(drawn)).all()


def _answered(num):
    return jax.tree.map(lambda leaf: leaf[0], History.empty(np.zeros((1, 3)), num))
