"""The clauses that every solver meets; one constructor each."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import curved_network

import pcr_jax as pcr
from pcr_jax.recourse import SOLVERS, Found, Solver, pose, recommend, search
from pcr_jax.recourse.problem import per_user

MAKE = {
    "optimal": pcr.Optimal,
    "paper": pcr.Algorithm1,
}
TRUTH, SCALE = pcr.library.m1(), np.array([1.0, 2.0, 0.5], np.float32)
SCORE = curved_network(SCALE)
PEOPLE = TRUTH.sample(jax.random.key(1), 200)
RANKED = np.asarray(PEOPLE)[np.argsort(SCORE(PEOPLE))]
X = np.concatenate([RANKED[20:80:10], RANKED[-1:]])  # the last is favourable already
NAN = pcr.linear_scm(TRUTH.graph, [np.nan, 0, 0])


def problem_of(x=X, epsilon=0.1, **settings):
    return pose(SCORE, TRUTH.graph, x, scale=SCALE, epsilon=epsilon, **settings)


@pytest.fixture(params=MAKE, scope="module")
def solver(request):
    return MAKE[request.param]()


@pytest.fixture(scope="module")
def found(solver):
    problem = problem_of()
    return problem, solver.search(problem, per_user(TRUTH, len(X)))


def test_every_solver_with_a_name_is_tried():
    assert set(MAKE) == set(SOLVERS)


def test_it_is_a_solver_and_a_value(solver):
    assert isinstance(solver, Solver)
    assert type(solver)() == solver
    assert hash(type(solver)()) == hash(solver)
    solver.check(problem_of())  # one that both solve


def test_moves_are_within_what_can_be_done_and_finite(found):
    problem, result = found
    assert isinstance(result, Found)
    assert result.move.shape == X.shape
    assert np.isfinite(result.move).all()
    low, high = (np.asarray(bound) / SCALE for bound in problem.bounds)
    assert ((np.asarray(result.move) >= low) & (np.asarray(result.move) <= high)).all()
    for flags in (result.going_on, result.exhausted, result.flat):
        assert flags.shape == (len(X),)
        assert flags.dtype == bool
    assert (np.asarray(result.evaluations) > 0).all()


def test_what_it_finds_meets_the_requirement_in_the_scenarios_that_it_met(found):
    problem, result = found
    shapes = jax.tree.map(jnp.shape, result.scenarios)
    assert shapes == jax.tree.map(jnp.shape, problem.begin())
    after = TRUTH.counterfactual(X, pcr.Action.soft(result.move * SCALE))
    assert (np.asarray(SCORE(after)) >= -1e-4).all()
    assert not np.asarray(result.move)[-1].any()


def test_going_on_leaves_the_others_as_they_are(solver, found):
    problem, result = found
    broken = np.arange(len(X)) < 2
    breaking = jnp.full(X.shape, -0.05)
    again = solver.go_on(problem, per_user(TRUTH, len(X)), result, broken, breaking)
    np.testing.assert_array_equal(again.move[~broken], result.move[~broken])
    assert np.isfinite(again.move).all()


def test_a_user_is_found_the_same_alone(solver, found):
    _, result = found
    alone = solver.search(problem_of(X[2:4]), per_user(TRUTH, 2))
    np.testing.assert_array_equal(alone.move, result.move[2:4])
    np.testing.assert_array_equal(alone.evaluations, result.evaluations[2:4])


def test_the_plan_says_what_became_of_everybody(solver):
    plan = recommend(problem_of(), TRUTH, solver=solver)
    told = [pcr.PlanStatus(s).name for s in np.asarray(plan.status)]
    assert told[-1] == "already_favourable"
    assert set(told[:-1]) == {"found"}
    nobody = recommend(problem_of(X[:2]), NAN, solver=solver)
    assert (np.asarray(nobody.status) == pcr.PlanStatus.no_model).all()


def test_of_several_draws_the_mean_is_taken(solver):
    thetas = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (len(X), 4, 3)), jnp.float32)
    scms = jax.vmap(jax.vmap(pcr.linear_surrogate(TRUTH.graph).scm))(thetas)
    means = jax.tree.map(lambda leaf: leaf.mean(1), scms)
    plan, own = (recommend(problem_of(), worlds, solver=solver) for worlds in (scms, means))
    jax.tree.map(np.testing.assert_array_equal, plan, own)
    with pytest.raises(ValueError, match=r"several draws.*shape \(3, 4\)"):
        recommend(problem_of(), jax.tree.map(lambda leaf: leaf[:3], scms), solver=solver)


def test_what_it_does_not_solve_it_refuses_and_names_what_does():
    rate = problem_of(learning_rate=0.5)
    with pytest.raises(ValueError, match="no learning_rate"):
        MAKE["optimal"]().check(rate)
    for settings in ({"cost": "l2"}, {"norm": "linf"}, {"intervention": "hard"}):
        with pytest.raises(ValueError, match="Use solver='optimal'"):
            MAKE["paper"]().check(problem_of(**settings))


def test_the_example_works():
    assert doctest.testmod(search).failed == 0
    assert doctest.testmod(search).attempted > 4
