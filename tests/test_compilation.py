"""What is compiled, and that a search does not come back to the host."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import curved_network

import pcr_jax as pcr
from pcr_jax.recourse import algorithm1, pose
from pcr_jax.recourse.optimal import solve
from pcr_jax.recourse.problem import per_user


def problem(seed, num_users):
    """A score of its own, users and scale; 3 nodes."""
    x = np.asarray(pcr.library.m1().sample(jax.random.key(seed), 100))
    score, scale = curved_network(x.std(0), seed), jnp.asarray(x.std(0))
    return score, jnp.asarray(x[np.asarray(score(x)) < 0][:num_users]), scale


def test_one_program_serves_every_score_scm_scale_epsilon_and_number_of_users_of_a_bucket():
    truths = (pcr.library.m1(), pcr.library.m2())
    compiled = None
    for seed, epsilon in ((0, 0.05), (1, 0.1)):
        score, x, scale = problem(seed, 5)
        for truth in truths:
            pcr.find_recourse(score, truth, x, scale=scale, epsilon=epsilon)
            compiled = compiled or solve.search._cache_size()
    several = pcr.find_recourse(score, truths[0], x, scale=scale, epsilon=0.1)
    alone = pcr.find_recourse(score, truths[0], x[:1], scale=scale, epsilon=0.1)
    assert solve.search._cache_size() == compiled
    np.testing.assert_array_equal(alone.action.value, several.action.value[:1])
    assert alone.num_evaluations == several.num_evaluations[:1]


def searches(x, score, scale):
    """Both searches as `find_recourse` calls them, everything on the device already."""
    truth = pcr.library.m1()
    problem = pose(score, truth.graph, x, scale=scale, epsilon=0.1)
    tasks, real = problem.tasks(per_user(truth, len(x))), jnp.ones(len(x), bool)
    sets = jnp.asarray(pcr.intervention_sets(3), float)
    solver = pcr.Optimal().solver(problem)
    robust = (solver, real, tasks, solve.begin(solver, tasks))
    radius, rates = jnp.asarray(0.1), jnp.full(len(x), 0.5)
    paper = (pcr.Algorithm1(), score, sets, scale, radius, real, tasks, rates)
    return {"optimal": (solve.search, robust), "paper": (algorithm1._search, paper)}


@pytest.mark.parametrize("solver", ["optimal", "paper"])
def test_a_search_makes_no_round_trip_to_the_host(solver):
    score, x, scale = problem(0, 8)
    search, args = searches(x, score, scale)[solver]
    expected = jax.block_until_ready(search(*args))
    with jax.transfer_guard("disallow"):
        found = jax.block_until_ready(search(*args))
        # The guard is awake.
        with pytest.raises(Exception, match=r"[Dd]isallowed"):
            jnp.asarray(x) + np.ones(3, np.float32)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    jaxpr = str(jax.make_jaxpr(search, static_argnums=() if solver == "optimal" else 0)(*args))
    assert "callback" not in jaxpr


def test_importing_the_package_does_not_import_what_few_need():
    heavy = ["arviz", "blackjax", "matplotlib", "networkx", "zeus"]
    code = f"import sys, pcr_jax; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"
