"""The measures, recomputed by hand from their definitions; the optimum against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import linear_network

import pcr_jax as pcr
from pcr_jax import Action, Plan, PlanStatus, Report, evaluate, intervention_pattern, library
from pcr_jax.evaluation import optimum_cost
from pcr_jax.recourse import pose
from pcr_jax.recourse.problem import per_user
from pcr_jax.recourse.verify import outcomes

NAN, INF = float("nan"), float("inf")
COST = 77.0
NUM_USERS = 20
RNG = np.random.default_rng(0)
SCALE = np.array([1.0, 1.4, 0.6], np.float32)
WEIGHT, BIAS = np.array([0.8, -1.5, 0.4], np.float32), np.float32(-0.2)


def linear_score(weight, bias=BIAS):
    layer = {"kernel": jnp.asarray(weight, jnp.float32)[:, None], "bias": jnp.array([bias])}
    return pcr.Classifier(pcr.MLP(()), {"params": {"Dense_0": layer}}, jnp.zeros(3), jnp.ones(3))


SCORE = linear_score(WEIGHT)
TRUTH = library.m1()
SEVEN = jax.vmap(pcr.linear_surrogate(TRUTH.graph).scm)(jnp.ones((7, 3)))
# What shifting each node does to the features in all, by hand.
EFFECTS = np.linalg.inv(np.eye(3) - np.array([[0, 0, 0], [-0.99, 0, 0], [0.99, 0.99, 0]]))
SLOPE = WEIGHT @ EFFECTS * SCALE  # of the logit, by the shift of each node in units of the scale


def report(valid, robust_valid, cost, optimum):
    return Report(
        np.array(valid, bool), np.array(robust_valid, bool), np.array(cost), np.array(optimum)
    )


A = report([1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1.0, 2.0, 4.0, 0.5, INF], [0.5, 2.0, INF, 0.1, 3.0])
B = report([1, 0, 1, 1, 0], [1, 0, 1, 0, 0], [2.0, 9.0, 3.0, 1.0, INF], [0.5, 2.0, INF, 0.1, 3.0])
NOBODY = report([0] * 5, [0] * 5, [INF] * 4 + [1.0], [0.5] * 5)


def test_measures_are_those_of_the_protocol():
    assert A.validity == pytest.approx(3 / 5)  # of all users, found or not
    assert A.robust_validity == pytest.approx(1 / 5)
    assert A.cost_mean == pytest.approx((1 + 2 + 4) / 3)  # of the valid only
    assert A.cost_mean_common([A, B]) == pytest.approx((1 + 4) / 2)
    assert B.cost_mean_common([A, B]) == pytest.approx((2 + 3) / 2)
    assert A.regret_mean(B) == pytest.approx(((1 - 2) + (4 - 3)) / 2)
    assert A.regret_to_optimum_mean == pytest.approx(((1 - 0.5) + (2 - 2)) / 2)
    assert B.regret_to_optimum_mean == pytest.approx(((2 - 0.5) + (1 - 0.1)) / 2)


def test_regret_is_positive_for_whoever_pays_more_than_the_reference():
    cheap = report([1], [1], [1.0], [1.0])
    dear = report([1], [1], [1.5], [1.0])
    assert dear.regret_mean(cheap) == dear.regret_to_optimum_mean == 0.5
    assert cheap.regret_mean(dear) == -0.5
    assert cheap.regret_mean(cheap) == 0


def test_means_over_nobody_are_nan_and_say_so_without_a_warning():
    assert NOBODY.validity == 0
    assert np.isnan(NOBODY.cost_mean)
    assert np.isnan(A.cost_mean_common([A, NOBODY]))
    assert np.isnan(A.regret_mean(NOBODY))
    assert np.isnan(NOBODY.regret_to_optimum_mean)
    assert "validity 0.000" in str(NOBODY)
    assert str(A).startswith("5 users: validity 0.600, robust validity 0.200, cost 2.333")


def plan_of(shift, x=None, status=None, score=SCORE, **settings):
    """A plan with these actions, its own opinion of them deliberately worthless."""
    x = np.zeros_like(shift) if x is None else x
    problem = pose(score, TRUTH.graph, x, scale=SCALE, **settings)
    status = np.zeros(len(shift), int) if status is None else status
    wrong = np.zeros(len(shift), bool)
    nowhere = jnp.full(jnp.shape(shift), 7.0)
    without = (PlanStatus.not_found, PlanStatus.zero_gradient, PlanStatus.no_model)
    cost, spent = np.where(np.isin(status, without), INF, COST), np.zeros(len(shift), int)
    stated = np.full(len(shift), np.nan)
    verified = (wrong, wrong, wrong, stated, status, spent, spent, np.zeros(np.shape(shift), int))
    worlds = per_user(TRUTH, len(shift))
    return Plan(Action.soft(shift), nowhere, cost, *verified, problem, worlds)


def test_actions_are_judged_under_the_true_scm_whatever_the_plan_says():
    x = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    shift = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    logit = (x + shift @ EFFECTS.T) @ WEIGHT + BIAS
    dual = {"l2": np.linalg.norm(SLOPE), "linf": np.abs(SLOPE).sum()}
    worst = {norm: logit - 0.3 * length for norm, length in dual.items()}
    kinds = zip(logit >= 0, worst["l2"] >= 0, worst["linf"] >= 0, strict=True)
    assert len(set(kinds)) == 4
    for epsilon, norm in ((0.0, "l2"), (0.3, "l2"), (0.3, "linf")):
        judged = evaluate(plan_of(shift, x, epsilon=epsilon, norm=norm), TRUTH)
        np.testing.assert_array_equal(judged.valid, logit >= 0)
        np.testing.assert_array_equal(judged.robust_valid, (worst[norm] if epsilon else logit) >= 0)
        np.testing.assert_array_equal(judged.cost, COST)  # in the plan's norm and weights
        assert judged.validity == pytest.approx(np.mean(logit >= 0))
        assert judged.cost_mean == COST
        assert judged.optimum is None


def test_a_user_without_an_action_counts_as_invalid_even_where_the_score_is_favourable():
    x = np.broadcast_to(WEIGHT, (NUM_USERS, 3))
    status = np.resize([int(s) for s in PlanStatus], NUM_USERS)
    plan = plan_of(np.zeros_like(x), x, status, epsilon=0.3)
    judged = evaluate(plan, TRUTH)
    acted = np.isfinite(plan.cost)
    assert 0 < acted.mean() < 1
    np.testing.assert_array_equal(judged.valid, acted)
    np.testing.assert_array_equal(judged.robust_valid, acted)
    np.testing.assert_array_equal(judged.cost, np.where(acted, COST, INF))
    assert judged.validity == pytest.approx(acted.mean())
    assert judged.cost_mean == COST


def test_each_user_may_have_a_true_scm_of_their_own_and_an_optimum_may_be_passed():
    thetas = jnp.asarray(RNG.uniform(-1, 1, (NUM_USERS, 3)), jnp.float32)
    truths = jax.vmap(pcr.linear_surrogate(TRUTH.graph).scm)(thetas)
    x = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    shift = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    known = np.arange(NUM_USERS, dtype=np.float32)
    judged = evaluate(plan_of(shift, x), truths, optimum=known)
    np.testing.assert_array_equal(judged.optimum, known)
    for i in range(NUM_USERS):
        t21, t31, t32 = np.asarray(thetas[i], float)
        theta = np.array([[0, 0, 0], [t21, 0, 0], [t31, t32, 0]])
        after = x[i] + np.linalg.solve(np.eye(3) - theta, shift[i])
        assert bool(judged.valid[i]) == (after @ WEIGHT + BIAS >= 0)


@pytest.mark.parametrize("steepest", [1.5, -1.5])
@pytest.mark.parametrize("node", [0, 1, 2])
@pytest.mark.parametrize("norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)])
def test_the_optimum_of_a_linear_score_is_the_closed_form(norm, node, steepest):
    """In the L1 norm the cheapest action moves the one feature with the steepest slope."""
    slope = np.where(np.arange(3) == node, steepest, [0.9, -0.6, 0.4])
    weight = slope / SCALE @ np.linalg.inv(EFFECTS)
    score = linear_network(weight, BIAS, size=1e-4)
    x = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    distance = -(x @ weight + BIAS) / 1.5
    # A perturbation costs the logit what its steepest direction is worth.
    steepness = np.linalg.norm(slope, 2 if norm == "l2" else 1) / 1.5
    for epsilon in (0, 0.3):
        margin = epsilon * steepness
        best = np.maximum(distance + margin, 0)
        assert (best < 10).all()
        cost = optimum_cost(score, TRUTH, x, scale=SCALE, epsilon=epsilon, norm=norm)
        assert (cost >= best - 1e-4).all()  # never better than the optimum
        np.testing.assert_allclose(cost, best, rtol=5e-3, atol=1e-3 if epsilon == 0 else 5e-3)


def test_the_optimum_is_infinite_where_nothing_within_reach_is_favourable():
    x = np.full((NUM_USERS, 3), 0.0, np.float32)
    x[:, 1] = np.linspace(0, 40, NUM_USERS)
    best = -(x @ WEIGHT + BIAS) / np.abs(SLOPE).max()
    score = linear_network(WEIGHT, BIAS, size=1e-4)
    cost = np.asarray(optimum_cost(score, TRUTH, x, scale=SCALE))
    reach = pcr.Optimal().max_cost
    assert np.isfinite(cost[best < 0.99 * reach]).all()
    assert np.isinf(cost[best > 1.1 * reach]).all()
    assert (best > 1.1 * reach).any()
    assert (best < 0.99 * reach).any()


def test_intervention_patterns_are_shares_of_the_counted_users():
    action = Action(
        jnp.array([[1.0, 0, 0], [0, 0, 0], [2, 0, -3], [0.5, 0, 0], [0, 1, 0], [0, 0, 0]]),
        jnp.zeros((6, 3), bool).at[5, 1].set(True),  # do(B = 0)
    )
    users = np.array([1, 1, 1, 1, 0, 1], bool)
    pattern = intervention_pattern(action, ["A", "B", "C"], users)
    assert pattern == {"A": 0.4, "A+C": 0.2, "B": 0.2, "none": 0.2}
    assert list(pattern) == sorted(pattern)
    assert sum(pattern.values()) == pytest.approx(1)
    assert intervention_pattern(action, ["A", "B", "C"], np.zeros(6, bool)) == {}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"plan": plan_of(np.zeros((5, 3))), "problem": plan_of(np.zeros((20, 3))).problem},
            ValueError,
            r"problem of x of shape \(5, 3\).*; got \(20, 3\)",
        ),
        ({"truth": pcr.linear_scm(TRUTH.graph, [NAN, 0, 0])}, ValueError, "truth with finite"),
        ({"truth": SEVEN}, ValueError, r"20 users.*shape \(7,\)"),
        ({"problem": "robust"}, TypeError, "problem to be a Problem"),
        ({"optimum": np.zeros(5)}, ValueError, r"optimum of shape \(20,\)"),
    ],
)
def test_misuse_raises_and_names_the_argument(wrong, error, message):
    good = {
        "plan": plan_of(np.zeros((NUM_USERS, 3))),
        "truth": TRUTH,
        "optimum": np.zeros(NUM_USERS),
    }
    with pytest.raises(error, match=message):
        evaluate(**{**good, **wrong})


def verified(plan, worlds):
    """Logits if all goes as expected, and what fresh perturbations find."""
    problem = plan.problem
    _, logit = outcomes(problem.score, worlds, problem.x, plan.action)
    every = np.ones(len(logit), bool)
    users = (problem.score, worlds, problem.x, plan.action, problem.scale, logit, every)
    return logit, problem.requirement.verify(jax.random.key(1), *users)


def test_another_problem_than_the_plans_own_may_be_asked_about():
    x = np.zeros((NUM_USERS, 3), np.float32)
    shift = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)
    plan = plan_of(shift, x)
    for epsilon, other in ((0.3, x), (0.0, x - WEIGHT)):
        problem = pose(SCORE, TRUTH.graph, other, scale=SCALE, epsilon=epsilon)
        judged = evaluate(plan, TRUTH, problem=problem)
        own = evaluate(plan_of(shift, other, epsilon=epsilon), TRUTH)
        jax.tree.map(np.testing.assert_array_equal, judged, own)
    assert judged.validity < evaluate(plan, TRUTH).validity


@pytest.mark.slow
def test_a_user_is_judged_the_same_alone_and_in_a_crowd():
    """Bitwise, with a network wide enough that matrix products depend on the batch."""
    rng = np.random.default_rng(1)
    layers = {
        f"Dense_{i}": {
            "kernel": jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(n), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=m), jnp.float32),
        }
        for i, (n, m) in enumerate([(3, 16), (16, 16), (16, 1)])
    }
    layers["Dense_2"]["bias"] -= 1.0
    score = pcr.Classifier(pcr.MLP((16, 16)), {"params": layers}, jnp.zeros(3), jnp.ones(3))
    x = rng.normal(size=(500, 3)).astype(np.float32)
    shift = rng.normal(size=(500, 3)).astype(np.float32)
    plan = plan_of(shift, x, score=score, epsilon=0.1)
    known = np.arange(500.0)
    crowd = evaluate(plan, TRUTH, optimum=known)
    places = rng.permutation(500)[:NUM_USERS]
    some = jax.tree.map(lambda leaf: leaf[places], plan)
    few = evaluate(some, TRUTH, optimum=known[places])
    jax.tree.map(np.testing.assert_array_equal, few, jax.tree.map(lambda a: a[places], crowd))
    # The logits behind the decisions, which show a difference in the last bit.
    logits, again = (verified(p, per_user(TRUTH, len(p.cost))) for p in (plan, some))
    jax.tree.map(np.testing.assert_array_equal, again, jax.tree.map(lambda a: a[places], logits))
    assert 0 < few.validity < 1
