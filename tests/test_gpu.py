"""On a GPU: the same results as on the CPU, to rounding. ``pytest -m gpu -n 0`` runs these."""

import jax
import numpy as np
import pytest
from problems import answers_to

import pcr_jax as pcr

pytestmark = pytest.mark.gpu
TRUTH = pcr.library.m1()


@pytest.fixture(autouse=True)
def _gpu():
    if jax.default_backend() != "gpu":
        pytest.skip(f"no GPU: JAX found {jax.devices()[0].device_kind}")
    if jax.device_count() > 1:
        pytest.skip("compared with the CPU, which needs a single GPU: set CUDA_VISIBLE_DEVICES=0")


def on_cpu(function):
    """What the CPU says."""
    with jax.default_device(jax.devices("cpu")[0]):
        return function()


def population():
    """Score, users and scale, each made where JAX is told to."""
    return pcr.refused_population(jax.random.key(0), TRUTH, num_users=200)


def histories():
    """What 64 respondents answered."""
    return answers_to(jax.random.key(1), TRUTH, np.zeros((64, 3)), 10)


def test_counterfactuals():
    def moved():
        x = TRUTH.sample(jax.random.key(0), 1000)
        return np.asarray(TRUTH.counterfactual(x, pcr.Action.soft(0.5 * x)))

    np.testing.assert_allclose(moved(), on_cpu(moved), atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_recourse_is_as_valid_and_as_cheap(epsilon):
    def plan_of():
        score, x, scale = population()
        plan = pcr.find_recourse(score, TRUTH, x, scale=scale, epsilon=epsilon)
        valid = plan.robust_valid if epsilon else plan.valid
        return np.asarray(valid).mean(), np.asarray(plan.cost)[np.asarray(valid)].mean()

    (validity, cost), (cpu_validity, cpu_cost) = plan_of(), on_cpu(plan_of)
    assert validity >= cpu_validity - 0.01
    assert cost == pytest.approx(cpu_cost, rel=0.02)


def test_actions_are_valid_at_the_precision_of_the_cpu():
    score, x, scale = population()
    plan = pcr.find_recourse(score, TRUTH, x, scale=scale)
    given = jax.device_get((score, x, plan.action.value, plan.valid))

    def valid():
        score, x, value, _ = given
        return np.asarray(score(TRUTH.counterfactual(x, pcr.Action.soft(value)))) >= 0

    agree = on_cpu(valid) == given[3]
    # A logit within rounding of 0 may fall on the other side.
    assert agree.mean() >= 0.98


@pytest.mark.parametrize("sampler", ["ess", "smc"])
def test_posteriors_are_exact_ones(sampler):
    surrogate, likelihood = pcr.linear_surrogate(TRUTH.graph), pcr.tolerance(0.5, 0.1)
    history = histories()
    posteriors = pcr.infer(
        jax.random.key(2), surrogate, history, likelihood=likelihood, sampler=sampler
    )
    exact = pcr.exact_posterior(jax.random.key(3), surrogate, history, likelihood)
    mean = posteriors.draws.mean((1, 2))
    known = np.isfinite(mean).all(1) & (exact.effective_draws > 1000)
    assert known.sum() > 32
    assert np.sqrt(np.mean((mean - exact.mean)[known] ** 2)) < 0.03


def test_a_user_does_not_depend_on_the_batch():
    score, x, scale = population()
    all_, some = (
        pcr.find_recourse(score, TRUTH, users, scale=scale, epsilon=0.1) for users in (x, x[:20])
    )
    np.testing.assert_array_equal(all_.action.value[:20], some.action.value)
