"""Actions that work with a stated probability over draws of the person's SCM."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.evaluation import reliability
from pcr_jax.recourse import Chance, Nominal, pose, recommend

GRAPH = pcr.Graph.from_edges(["X1", "X2"], [("X1", "X2")])
NUM_USERS, DRAWS, SEARCHED = 8, 1000, 100
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (NUM_USERS, 2)), jnp.float32)
SCALE = jnp.array([1.0, 1.0])


def draws_of(mean, sd, num=DRAWS, num_users=NUM_USERS):
    """Effects of X1 on X2, normal, the same for every user."""
    effects = mean + sd * np.random.default_rng(1).normal(size=(num_users, num, 1))
    return jax.vmap(jax.vmap(lambda b: pcr.linear_scm(GRAPH, b)))(jnp.asarray(effects, float))


def goal(x):
    """X2 is to reach 4, and moves through X1 alone: see `ONLY`."""
    return x[1] - 4.0


ONLY = pcr.Constraints(actionable=jnp.array([True, False]))
LIKELY = {"scale": SCALE, "constraints": ONLY, "digits": None}
WORLDS = draws_of(1.0, 0.2)


@pytest.fixture(scope="module")
def plan():
    return pcr.find_recourse(goal, WORLDS, X, level=0.9, **LIKELY)


def exact(level):
    """``x2 + effect * shift >= 4``: the shift for a normal effect."""
    quantile = 1.0 - 0.2 * math.sqrt(2) * jax.scipy.special.erfinv(2 * level - 1)
    return np.asarray((4.0 - X[:, 1]) / quantile)


def test_it_is_the_cheapest_action_of_the_level(plan):
    """Of 1,000 draws the quantile of .9 has an error of .017 * .2 / .175, 2 % of the effect."""
    assert (np.asarray(plan.status) == pcr.PlanStatus.found).all()
    np.testing.assert_allclose(plan.cost, exact(0.9), rtol=0.1)
    assert abs(float(np.mean(np.asarray(plan.cost) / exact(0.9))) - 1) < 0.03


def test_its_probability_is_that_of_the_draws_that_were_not_searched(plan):
    effects = np.asarray(WORLDS.coefficients)[..., 0]
    seen = np.zeros(DRAWS, bool)
    seen[(np.arange(SEARCHED) * DRAWS) // SEARCHED] = True
    shift = np.asarray(plan.action.value)[:, :1]
    works = np.asarray(X)[:, 1:] + effects * shift >= 4.0
    np.testing.assert_allclose(plan.p_valid, works[:, ~seen].mean(1), atol=2e-3)
    assert (np.asarray(plan.p_valid) >= 0.9 - 1e-6).all()
    assert (np.asarray(plan.num_perturbations) == DRAWS - SEARCHED).all()
    expected = np.sqrt(plan.p_valid * (1 - plan.p_valid) / (DRAWS - SEARCHED))
    np.testing.assert_allclose(plan.p_valid_error, expected, rtol=0.1)
    table = plan.to_frame()
    np.testing.assert_array_equal(table["p_valid"], plan.p_valid)


def test_what_it_says_is_what_further_draws_do():
    """The mean of eight users' stated and realised shares; false alarms: 1 in 10,000."""
    further = np.asarray(draws_of(1.0, 0.2, num=20_000).coefficients)[..., 0]
    for level in (0.7, 0.9, 0.98):
        plan = pcr.find_recourse(goal, WORLDS, X, level=level, **LIKELY)
        shift = np.asarray(plan.action.value)[:, :1]
        works = (np.asarray(X)[:, 1:] + further * shift >= 4.0).mean(1)
        error = math.sqrt(level * (1 - level) / (DRAWS - SEARCHED) / NUM_USERS)
        assert abs(float(np.mean(works - np.asarray(plan.p_valid)))) < 3.9 * error + 0.004


def test_a_user_is_the_same_alone(plan):
    some = jax.tree.map(lambda leaf: leaf[2:4], WORLDS)
    alone = pcr.find_recourse(goal, some, X[2:4], level=0.9, **LIKELY)
    for name in ("cost", "p_valid", "status"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(plan, name)[2:4])


def test_where_no_action_is_likely_enough_the_likeliest_is_told_as_such():
    """A third of the draws turn the effect round."""
    effects = jnp.where(jnp.arange(DRAWS) % 3 == 1, -1.0, 1.0)
    effects = jnp.broadcast_to(effects[None, :, None], (NUM_USERS, DRAWS, 1))
    worlds = jax.vmap(jax.vmap(lambda b: pcr.linear_scm(GRAPH, b)))(effects)
    plan = pcr.find_recourse(goal, worlds, X, level=0.9, **LIKELY)
    assert (np.asarray(plan.status) == pcr.PlanStatus.not_likely).all()
    assert not np.asarray(plan.valid).any()
    np.testing.assert_allclose(plan.p_valid, 2 / 3, atol=0.03)
    assert np.isfinite(plan.cost).all()
    assert plan.to_frame()["sentence"].str.endswith("as was asked for.").all()


def test_the_price_of_certainty_rises(plan):
    table = plan.price_of_certainty([0.6, 0.9])
    assert list(table.columns[:3]) == ["user", "level", "cost"]
    low, high = (table[table.level == level].set_index("user") for level in (0.6, 0.9))
    assert (low.cost < high.cost).all()
    np.testing.assert_allclose(low.cost, exact(0.6), rtol=0.1)
    np.testing.assert_array_equal(high.cost, plan.cost)


@pytest.mark.slow
def test_karimis_bound_is_the_mean_less_deviations():
    problem = pose(goal, GRAPH, X, level=0.9, **LIKELY)
    plan = recommend(replace(problem, requirement=Chance(0.9, gamma=1.5)), WORLDS)
    effects = np.asarray(WORLDS.coefficients)[..., 0]
    bound = (4.0 - np.asarray(X)[:, 1]) / (effects.mean(1) - 1.5 * effects.std(1))
    np.testing.assert_allclose(plan.cost, bound, rtol=0.08)
    assert (np.asarray(plan.status) == pcr.PlanStatus.found).all()


@pytest.mark.slow
def test_it_holds_in_the_whole_ball_for_the_share(plan):
    """Both perturbed, X2 by what X1 passes on too: the worst is ``-eps * |(effect, 1)|``."""
    robust = pcr.find_recourse(goal, WORLDS, X, level=0.9, epsilon=0.3, **LIKELY)
    assert (np.asarray(robust.status) == pcr.PlanStatus.found).all()
    assert (np.asarray(robust.cost) > np.asarray(plan.cost)).all()
    effects = np.asarray(WORLDS.coefficients)[..., 0]
    shift = np.asarray(robust.action.value)[:, :1]
    worst = np.asarray(X)[:, 1:] + effects * shift - 0.3 * np.hypot(effects, 1.0)
    share = (worst >= 4.0).mean(1)
    assert (np.abs(share - 0.9) < 0.06).all()


@pytest.mark.slow
def test_hard_interventions_and_models_without_gradients_are_served_too():
    def steps(x):
        return jnp.where(x[1] >= 4.0, 1.0, -1.0)

    plan = pcr.find_recourse(steps, WORLDS, X, level=0.9, intervention="hard", **LIKELY)
    assert (np.asarray(plan.p_valid) >= 0.9 - 1e-6).all()
    np.testing.assert_allclose(plan.cost, exact(0.9), rtol=0.1)


def test_evaluation_is_in_the_one_true_world(plan):
    truth = draws_of(1.0, 0.0, num=1)
    report = pcr.evaluate(plan, jax.tree.map(lambda leaf: leaf[:, 0], truth))
    assert report.validity == 1.0
    np.testing.assert_array_equal(report.p_valid, plan.p_valid)
    assert report.reliability(2)["users"].sum() == NUM_USERS


def test_reliability_is_right_of_what_is_calibrated_and_wrong_of_what_is_not():
    """False alarms: 1 in 10,000 by a normal approximation, of ten bins."""
    rng = np.random.default_rng(0)
    stated = rng.uniform(0.5, 1, 5000)
    table = reliability(stated, rng.uniform(size=5000) < stated)
    assert (np.abs(table.stated - table.realised) < 4.4 * table.error).all()
    wrong = reliability(stated, rng.uniform(size=5000) < stated - 0.1)
    assert (np.abs(wrong.stated - wrong.realised) > 4.4 * wrong.error).any()
    assert len(reliability(np.full(9, 0.9), np.ones(9, bool))) == 1


@pytest.mark.parametrize(
    ("worlds", "settings", "said"),
    [
        (pcr.linear_scm(GRAPH, [1.0]), {}, "several draws for each of the 8 users"),
        (draws_of(1.0, 0.2, num=150), {}, "at least 200 draws"),
        (WORLDS, {"level": 1.0}, "level"),
        (WORLDS, {"level": "high"}, "level"),
        (WORLDS, {"solver": "paper"}, "solver='optimal'"),
    ],
)
def test_misuse_is_refused(worlds, settings, said):
    with pytest.raises((ValueError, TypeError), match=said):
        pcr.find_recourse(goal, worlds, X, **{"level": 0.9, **LIKELY, **settings})


def test_a_price_needs_a_level(plan):
    plan = replace(plan, problem=replace(plan.problem, requirement=Nominal()))
    with pytest.raises(ValueError, match="level"):
        plan.price_of_certainty([0.5])
