"""Actions in numbers as people write them: what is written is what was verified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from benchmarks.quality.honesty import followed
from pcr_jax.recourse import rounding

pytestmark = pytest.mark.x64
M1 = pcr.library.m1()
RNG = np.random.default_rng(0)
SCALE = np.array([12_000.0, 0.35, 1.4], np.float32)
UNITS = SCALE / np.array([1.0, 1.4, 2.2], np.float32)


def in_units(score, x):
    return score(x / UNITS)


def steps(score, x):
    return jnp.floor(2 * score(x / UNITS)) / 2


def problem(kind, num_users):
    """Incomes of some 10,000 beside ratios of some .3, and a score of that kind."""
    score, x, _ = pcr.refused_population(
        jax.random.key(3), M1, num_train=300, num_users=num_users, epochs=60
    )
    effects = np.array([-0.99 * UNITS[1] / UNITS[0], 0.99 * UNITS[2] / UNITS[0]])
    scm = pcr.linear_scm(M1.graph, [*effects, 0.99 * UNITS[2] / UNITS[1]])
    own = jax.tree_util.Partial(steps if kind == "steps" else in_units, score)
    if kind == "tree":
        tree = pytest.importorskip("sklearn.tree").DecisionTreeClassifier(max_leaf_nodes=20)
        past = np.asarray(M1.sample(jax.random.key(4), 2000)) * UNITS
        own = pcr.outside_model(tree.fit(past, np.asarray(jax.vmap(own)(past)) >= 0))
    x = jnp.asarray(x * UNITS)
    return own, scm, x[np.asarray(jax.vmap(own)(x)) < 0]


@pytest.mark.parametrize("intervention", ["soft", pytest.param("hard", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["network", *(pytest.param(k, marks=pytest.mark.slow) for k in ("tree", "steps"))]
)
def test_whoever_does_what_the_sentence_says_is_served(kind, intervention):
    score, scm, x = problem(kind, 40)
    plan = pcr.find_recourse(score, scm, x, scale=SCALE, intervention=intervention)
    assert (np.asarray(plan.status) == pcr.PlanStatus.found).all()
    told = plan.to_frame().sentence
    for to_value in (False, True):
        pairs = zip(told, np.asarray(x), strict=True)
        shift = np.stack([followed(text, M1.graph.nodes, row, to_value) for text, row in pairs])
        assert shift.any(1).all()
        action = pcr.Action.soft(shift)
        if intervention == "hard":
            held = np.asarray(plan.action.hard) & (shift == 0)
            assert all("keep" in text for text in told[held.any(1)])
            action = pcr.Action.do(x + shift, (shift != 0) | held)
        after = scm.counterfactual(x, action)
        assert (np.asarray(jax.vmap(score)(after)) >= 0).all()
    # Not so if the same moves are rounded to the nearest.
    exact = pcr.find_recourse(score, scm, x, scale=SCALE, intervention=intervention, digits=None)
    assert np.mean(plan.cost) <= 1.003 * np.mean(exact.cost)
    if intervention == "soft" and kind == "network":
        grid = 10.0 ** -rounding.decimals_of(SCALE, 3)
        nearest = pcr.Action.soft(np.round(exact.action.value / grid) * grid)
        assert (np.asarray(jax.vmap(score)(scm.counterfactual(x, nearest))) < 0).mean() > 0.2


def test_a_move_on_the_grid_stays_and_others_go_outwards_first():
    x, scale = np.zeros((1, 2)), np.ones(2)
    shift = np.array([[0.25, -0.1234]])
    ways = rounding.ways(x, shift, scale, 3)
    np.testing.assert_allclose(ways.shift[0, 0], [0.25, -0.13])
    assert {tuple(way) for way in ways.shift[0, :8].round(6)} == {(0.25, -0.13), (0.25, -0.12)}
    np.testing.assert_array_equal(ways.decimals[0, 0], [2, 2])
    np.testing.assert_allclose(ways.shift[0, 8], [0.25, -0.124])
    assert (ways.decimals[0, -5:] == rounding.EXACT).all()
    np.testing.assert_allclose(ways.shift[0, -5], shift[0], rtol=1e-6)


def test_the_present_is_rounded_in_the_direction_of_the_move():
    x = np.array([2103.27, 2103.27, 2103.0, 0.1])
    shown = rounding.present(x, np.array([5.0, -5.0, 5.0, 0.3]), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(shown, [2104, 2103, 2103, 0.1])


def test_the_coarsest_way_that_works_and_costs_enough_less_is_taken():
    num = 4 * 8 + 5
    valid, cost = np.ones((3, num), bool), np.ones((3, num))
    cost[0, :8] = 1.01  # too dear on the coarsest grid
    valid[1, :32] = False  # none but the exact
    valid[2] = False  # none at all
    np.testing.assert_array_equal(rounding.chosen_way(valid, cost, np.ones(3)), [8, 32, 32])
