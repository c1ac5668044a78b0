"""Which questions designs choose, and why."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.batching import take
from pcr_jax.elicitation import Belief
from pcr_jax.elicitation.designs.people import LEAST, away, candidates
from pcr_jax.history import check_history
from pcr_jax.recourse import pose
from pcr_jax.recourse.adversary import Ball

KEY = jax.random.key(0)
# a -> b -> d, a -> d; c alone
GRAPH = pcr.Graph.from_edges("abcd", ["ab", "bd", "ad"])
SCALE = np.array([2.0, 0.5, 1.0, 10.0])
SURROGATE = pcr.linear_surrogate(GRAPH, scale=SCALE)
X = -np.ones((3, 4)) * SCALE
LIKELIHOOD = pcr.mixture(noise=0.05, error_rate=0.1)
DESIGNS = {
    "random": pcr.RandomDesign(),
    "information": pcr.InformationDesign(),
    "thompson": pcr.ThompsonDesign(),
    "decision": pcr.DecisionDesign(),
}


def score(x):
    return x[1] / 0.5 + x[3] / 10.0 + 0.5


def posed(**settings):
    return pose(score, GRAPH, X, scale=SCALE, **settings)


def posteriors(draws, likelihood=LIKELIHOOD, history=None):
    """Made by hand, of draws (num_users, n, 3) of the surrogate's numbers."""
    draws = np.asarray(draws, np.float32)[:, None]
    one = draws[..., 0]
    history = pcr.History.empty(jnp.asarray(X[: len(draws)]), 2) if history is None else history
    unknowns = np.full((*draws.shape[:3], len(likelihood.names)), 0.1, np.float32)
    nobody = np.full(len(draws), np.nan)
    return pcr.Posteriors(
        draws, unknowns, one, draws[:, :, :0], {}, np.zeros(len(draws), int), nobody, nobody,
        np.zeros(len(draws), int), {}, None, SURROGATE, likelihood, history, {"num_walkers": 1},
    )  # fmt: skip


def spread(num_users=3, **sds):
    """Draws of effects about 0.5, of these standard deviations; 256 of each user."""
    sd = np.array([sds.get(name, 0.01) for name in ("ab", "ad", "bd")])
    draws = 0.5 + sd * np.random.default_rng(0).normal(size=(256, 3))
    return np.broadcast_to(draws, (num_users, 256, 3))


def belief(draws, problem=None, likelihood=LIKELIHOOD):
    found = posteriors(draws, likelihood)
    return Belief(SURROGATE, found.history, found, problem)


@pytest.fixture(params=list(DESIGNS))
def design(request):
    return DESIGNS[request.param]


def asked(design, told, key=KEY):
    """Nodes, and shifts in units of the scale."""
    questions = design.ask(key, told)
    node = np.asarray(questions.node)
    return node, np.asarray(questions.shift) / SCALE[node]


def test_candidates_take_turns_over_what_may_be_asked():
    low, high = jnp.array([-2.0, 0.0, 0.0, -1.0]), jnp.array([2.0, 0.0, 0.5, 0.0])
    node, shift = jax.jit(candidates, static_argnums=3)(KEY, low, high, 24)
    assert sorted(np.bincount(node, minlength=4)) == [0, 8, 8, 8]
    for j, (least, most) in enumerate(zip(low, high, strict=True)):
        of_node = np.asarray(shift)[np.asarray(node) == j]
        assert ((of_node >= least) & (of_node <= most) & (np.abs(of_node) >= LEAST)).all()
    of_first = np.sort(np.asarray(shift)[np.asarray(node) == 0])
    assert (np.diff(of_first) < 1.1).all()
    none = jnp.zeros(4)
    nobody = jax.jit(candidates, static_argnums=3)(KEY, none, none, 24)[0]
    np.testing.assert_array_equal(nobody, -1)


@pytest.mark.parametrize(
    ("shift", "low", "high", "expected"),
    [
        (0.1, -2, 2, 0.25),
        (-0.1, -2, 2, -0.25),
        (1.0, -2, 2, 1.0),
        (0.0, -2, 0, -0.25),
        (0.0, 0, 2, 0.25),
        (0.01, 0, 0.1, 0.1),
        (-0.01, -0.1, 0, -0.1),
        (3.0, -2, 2, 2.0),
        (0.0, 0, 0, 0.0),
    ],
)
def test_small_shifts_are_enlarged_as_far_as_one_can(shift, low, high, expected):
    assert float(away(jnp.array(shift), jnp.array(low), jnp.array(high))) == pytest.approx(expected)


def test_what_is_unknown_is_asked_about():
    """Of the effect b -> d alone nothing is known: no answer about a tells it apart."""
    node, shift = asked(DESIGNS["information"], belief(spread(bd=0.5)))
    np.testing.assert_array_equal(node, 1)
    assert (np.abs(shift) > 1).all()  # the larger the shift, the less noise matters


def test_what_matters_to_the_decision_is_asked_about():
    """Nothing is known of a's effects on d; b is what moves the score."""
    unsure = spread(ad=0.4, bd=0.3)
    problem = posed(weights=np.array([50.0, 1.0, 1.0, 50.0]))
    node, _ = asked(DESIGNS["decision"], belief(unsure, problem))
    np.testing.assert_array_equal(node, 1)


def test_one_outcome_is_asked_for_where_people_report_one_number(design):
    one = replace(design, report="one")
    questions = one.ask(KEY, belief(spread(ab=0.3, bd=0.3), posed()))
    assert (np.asarray(questions.outcomes(GRAPH)).sum(1) == 1).all()


def test_the_outcome_that_tells_something_is_asked_for():
    """The effect a -> b is known: of a's outcomes only d tells anything."""
    problem = posed(constraints=pcr.Constraints(actionable=np.array([True, False, True, True])))
    for name in ("information", "decision"):
        design = replace(DESIGNS[name], report="one")
        questions = design.ask(KEY, belief(spread(ad=0.4), problem))
        np.testing.assert_array_equal(questions.node, 0)
        np.testing.assert_array_equal(questions.outcome, 3)


def test_thompson_asks_about_an_action_that_is_best_under_a_draw():
    told = belief(spread(), posed(weights=np.array([50.0, 1.0, 1.0, 50.0])))
    node, shift = asked(DESIGNS["thompson"], told)
    np.testing.assert_array_equal(node, 1)
    # -1 - 1 + .5 + shift * (1 + .5 * 1) = 0, of which interpolation is a little off
    np.testing.assert_allclose(shift, 1.0, rtol=0.05)


def test_protected_nodes_are_not_asked_about_nor_shifts_beyond_the_bounds(design):
    lower = np.tile(X, 1)
    lower[1] -= 0.4 * SCALE
    constraints = pcr.Constraints(
        actionable=np.array([True, False, True, True]), lower=lower, upper=X + 0.7 * SCALE
    )
    told = belief(spread(ab=0.5, bd=0.5, ad=0.5), posed(constraints=constraints))
    for seed in range(3):
        node, shift = asked(design, told, jax.random.key(seed))
        np.testing.assert_array_equal(node, 0)
        assert ((shift >= np.array([0, -0.401, 0])) & (shift <= 0.701)).all()


def test_who_can_do_nothing_that_anything_follows_from_is_not_asked(design):
    constraints = pcr.Constraints(actionable=np.array([False, False, True, True]))
    node, _ = asked(design, belief(spread(bd=0.5), posed(constraints=constraints)))
    np.testing.assert_array_equal(node, -1)


def test_who_has_no_posterior_is_asked_at_random(design):
    draws = np.array(spread(bd=0.5))
    draws[1] = np.nan
    whole, some = belief(spread(bd=0.5), posed()), belief(draws, posed())
    node, shift = asked(design, some)
    assert GRAPH.descendants[node].any(1).all()
    assert np.isfinite(shift).all()
    others = np.array([0, 2])
    np.testing.assert_array_equal(shift[others], asked(design, whole)[1][others])


def test_actions_withstand_the_ball_where_there_is_one():
    """Where effects are known, what they cost is what the solver finds, or a little less."""
    ball = {"epsilon": 0.3}
    certain = belief(spread(ab=1e-4, ad=1e-4, bd=1e-4), posed(level=0.9, **ball))
    found = DESIGNS["decision"].outlook(KEY, certain).cost
    half = jnp.full((3, 3), 0.5)
    one = {"scale": SCALE, "max_set_size": 1}
    least = pcr.find_recourse(score, jax.vmap(SURROGATE.scm)(half), X, **one, **ball).cost
    np.testing.assert_allclose(found, least, rtol=0.03)
    assert (least > pcr.find_recourse(score, jax.vmap(SURROGATE.scm)(half), X, **one).cost).all()


def test_a_ball_is_looked_at_along_the_axes_where_the_score_has_no_slope():
    def steps(x):
        return jnp.floor(4 * score(x))

    steps.differentiable = False
    truth, action = SURROGATE.scm(jnp.full(3, 0.5)), pcr.Action.soft(jnp.zeros(4))
    found = Ball(0.3).lowest(steps, truth, jnp.asarray(X[0]), action, SCALE)
    # 0.3 of b, by which d falls as well: from -1.5 to -1.5 - 0.3 - 0.3 * 0.5 * 0.5 / 10
    assert found == np.floor(4 * -1.8075)


def test_stopping_when_nothing_is_left_to_be_saved():
    known, unknown = spread(bd=0.001), spread(bd=0.4)
    told = belief(np.concatenate([known[:1], unknown[:2]]), posed())
    design = pcr.DecisionDesign(least_saving=0.05)
    outlook = design.outlook(KEY, told)
    np.testing.assert_array_equal(np.asarray(outlook.questions.node) < 0, [True, False, False])
    assert outlook.at_most[0] < 0.05 < outlook.at_most[1]
    assert (outlook.saving <= outlook.at_most + 0.1).all()
    # p_valid >= .95 for a slope of .5 * SCALE ...: dearer the less is known
    assert outlook.cost[0] < outlook.cost[1] < np.inf


def test_who_has_stopped_is_asked_no_more():
    class Stopping(pcr.RandomDesign):
        def ask(self, key, belief):
            questions = super().ask(key, belief)
            asked = belief.history.num_queries
            stop = (asked == 1) & (jnp.arange(3) == 1) | (jnp.arange(3) == 2) & (asked == asked[0])
            return replace(questions, node=jnp.where(stop, -1, questions.node))

    user = pcr.SimulatedUser(pcr.linear_scm(GRAPH, [0.5, 0.5, 0.5]))
    x = jnp.asarray(X)
    history = pcr.elicit(KEY, user, x, num_queries=3, design=Stopping(), surrogate=SURROGATE)
    np.testing.assert_array_equal(history.num_queries, [3, 1, 0])
    check_history(history, GRAPH)


def test_a_level_of_the_problem_comes_first():
    def cost(own, **settings):
        told = belief(spread(bd=0.4), posed(**settings))
        return np.asarray(pcr.DecisionDesign(level=own).outlook(KEY, told).cost)

    low, high = cost(0.6), cost(0.95)
    assert (low < high).all()
    np.testing.assert_array_equal(cost(0.6, level=0.95), high)


@pytest.mark.parametrize("settings", [{"wrong": [0.5, 0.5, -0.5]}, {"error_rate": None}])
def test_simulated_answers_are_distributed_as_the_likelihood_has_it(settings):
    likelihood = pcr.mixture(**({"noise": 0.1, "error_rate": 0.3} | settings))
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    questions = pcr.Questions(jnp.zeros(1, int), jnp.ones(1), jnp.ones(1, bool))
    history = pcr.History(questions, jnp.full((1, 4), jnp.nan), x)
    standard = SURROGATE.standardised()
    bound = likelihood.bound(standard, history)
    unknowns = jnp.full(len(likelihood.names), 0.3)
    right = standard.expected(jnp.array([0.5, 0.5, 0.5]), questions, x)
    keys = jax.random.split(KEY, 4000)
    answers = jax.vmap(bound.simulate, (0, None, None))(keys, unknowns, right)
    # Their density averages to that of the mixture: E[q / p] = 1 for any density q.
    told = jax.vmap(bound.pointwise, (None, None, 0))
    gap = told(unknowns, right + 0.02, answers) - told(unknowns, right, answers)
    wrong = x if bound.about.wrong is None else bound.about.wrong[0]
    # 5 comparisons at 5 standard errors: one false alarm in 300,000 seeds
    for found, expected in (
        (np.exp(np.asarray(gap, float)), 1.0),
        (np.asarray(answers[:, 0], float), 0.7 * right[0] + 0.3 * wrong),
    ):
        error = 5 * found.std(0) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - expected) < error).all()


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "random"])
def test_designs_say_what_they_lack(name):
    design = DESIGNS[name]
    told = belief(spread(), posed())
    cases = {
        "Expected posteriors in belief": told._replace(posteriors=None),
        "Expected posteriors of 3 users; got 2": told._replace(
            posteriors=posteriors(spread(2)), problem=None
        ),
        "Expected a problem with x of shape": told._replace(problem=take(told.problem, slice(2))),
    }
    if design != DESIGNS["information"]:
        cases["Expected problem="] = told._replace(problem=None)
    if design != DESIGNS["thompson"]:
        cases["answers can be simulated, such as mixture"] = belief(
            spread(), posed(), pcr.relaxed(1.0, 0.5)
        )
    for message, lacking in cases.items():
        with pytest.raises(ValueError, match=message):
            design.ask(KEY, lacking)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"reach": 0.0}, ValueError, "reach > 0"),
        ({"num_draws": 0}, ValueError, "num_draws >= 1"),
        ({"num_candidates": 2.5}, ValueError, "num_candidates"),
        ({"individual": 1}, TypeError, "individual"),
        ({"level": 1.0}, ValueError, "level"),
        ({"least_saving": -0.1}, ValueError, "least_saving"),
    ],
)
def test_misuse_of_settings(settings, error, message):
    with pytest.raises(error, match=message):
        pcr.DecisionDesign(**settings)


def test_an_elicitation_that_lacks_a_problem():
    user = pcr.SimulatedUser(pcr.library.m1())
    settings = {"num_queries": 1, "design": pcr.ThompsonDesign(), "posteriors": lambda k, h: None}
    with pytest.raises(ValueError, match=r"problem=.* for ThompsonDesign"):
        pcr.elicit(KEY, user, jnp.zeros((2, 3)), **settings)
    problem = posed()
    with pytest.raises(ValueError, match=r"problem with x of shape \(2, 3\)"):
        pcr.elicit(KEY, user, jnp.zeros((2, 3)), problem=problem, **settings)
