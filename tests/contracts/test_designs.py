"""What every design does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.batching import take
from pcr_jax.elicitation import Belief
from pcr_jax.recourse import pose

pytestmark = pytest.mark.x64
DESIGNS = {
    "random": pcr.RandomDesign,
    "random, wide": lambda: pcr.RandomDesign(-5.0, 5.0),
    "information": lambda: pcr.InformationDesign(num_candidates=6),
    "thompson": pcr.ThompsonDesign,
    "decision": lambda: pcr.DecisionDesign(num_candidates=6),
    "random, one number": lambda: pcr.RandomDesign(report="one"),
    "decision, one number": lambda: pcr.DecisionDesign(num_candidates=6, report="one"),
}
GRAPH = pcr.Graph.from_edges(list("abcde"), ["ab", "bd", "ad", "cd"])
KEY = jax.random.key(0)
X = jnp.arange(30.0).reshape(6, 5)


@pytest.fixture(params=list(DESIGNS))
def design(request):
    return DESIGNS[request.param]()


SCM, SURROGATE = pcr.linear_scm(GRAPH, jnp.ones(4)), pcr.linear_surrogate(GRAPH, high=2.0)
USER = pcr.SimulatedUser(SCM, num_draws=3)


PROBLEM = pose(lambda x: x.sum() - 200.0, GRAPH, X, scale=jnp.ones(5))


class Drawn(NamedTuple):
    """What designs see of posteriors."""

    flat: np.ndarray
    likelihood: pcr.Likelihood


def posteriors(key, history):
    shape = (history.num_users, 64, len(SURROGATE.names))
    draws = 1.0 + 0.3 * np.random.default_rng(0).normal(size=shape)
    return Drawn(draws, pcr.mixture(1.0, 0.1))


@pytest.fixture(scope="module")
def history():
    return pcr.elicit(KEY, USER, X, num_queries=2)


@pytest.fixture
def beliefs(design, history):
    """About all users, and about the first one alone."""
    groups = (history, PROBLEM), take((history, PROBLEM), slice(1))
    if not design.needs_posterior:
        return tuple(Belief(SURROGATE, h, problem=problem) for h, problem in groups)
    return tuple(Belief(SURROGATE, h, posteriors(KEY, h), problem) for h, problem in groups)


def test_it_asks_everybody_one_question_that_can_be_answered(design, beliefs):
    questions = design.ask(KEY, beliefs[0])
    assert questions.node.shape == questions.shift.shape == questions.individual.shape == (6,)
    asked_for = np.asarray(questions.outcomes(GRAPH))
    assert asked_for.any(1).all()
    assert ((asked_for.sum(1) == 1) | (np.asarray(questions.outcome) < 0)).all()
    assert np.isfinite(questions.shift).all()


def test_the_same_key_asks_the_same(design, beliefs):
    first, same = (design.ask(KEY, beliefs[0]) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, same)


def test_a_users_question_does_not_depend_on_the_others(design, beliefs):
    of_all, alone = (take(design.ask(KEY, belief), slice(1)) for belief in beliefs)
    jax.tree.map(np.testing.assert_array_equal, alone, of_all)


def test_it_leads_through_an_elicitation(design, history):
    more = {"design": design, "surrogate": SURROGATE, "posteriors": posteriors, "problem": PROBLEM}
    longer = pcr.elicit(KEY, USER, X, num_queries=1, **more)
    np.testing.assert_array_equal(longer.num_queries, 1)


def test_one_that_needs_posteriors_says_so():
    class Needy(pcr.RandomDesign):
        needs_posterior = True

    with pytest.raises(ValueError, match=r"posteriors=, .*Needy.*; got none"):
        pcr.elicit(KEY, USER, X, num_queries=1, design=Needy())
