"""What every design does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.batching import take
from pcr_jax.elicitation import Belief

DESIGNS = {
    "random": pcr.RandomDesign,
    "random, wide": lambda: pcr.RandomDesign(-5.0, 5.0),
}
GRAPH = pcr.Graph.from_edges(list("abcde"), ["ab", "bd", "ad", "cd"])
KEY = jax.random.key(0)
X = jnp.arange(30.0).reshape(6, 5)


@pytest.fixture(params=list(DESIGNS))
def design(request):
    return DESIGNS[request.param]()


@pytest.fixture(scope="module")
def belief():
    scm = pcr.linear_scm(GRAPH, jnp.ones(4))
    history = pcr.elicit(KEY, pcr.SimulatedUser(scm, num_draws=3), X, num_queries=2)
    return Belief(pcr.linear_surrogate(GRAPH), history)


def test_it_asks_everybody_one_question_that_can_be_answered(design, belief):
    questions = design.ask(KEY, belief)
    assert questions.node.shape == questions.shift.shape == questions.individual.shape == (6,)
    assert GRAPH.descendants[np.asarray(questions.node)].any(1).all()
    assert np.isfinite(questions.shift).all()


def test_the_same_key_asks_the_same_and_another_something_else(design, belief):
    first, same = design.ask(KEY, belief), design.ask(KEY, belief)
    jax.tree.map(np.testing.assert_array_equal, first, same)
    assert (first.shift != design.ask(jax.random.key(1), belief).shift).any()


def test_a_users_question_does_not_depend_on_the_others(design, belief):
    alone = design.ask(KEY, belief._replace(history=take(belief.history, slice(1))))
    of_all = take(design.ask(KEY, belief), slice(1))
    jax.tree.map(np.testing.assert_array_equal, alone, of_all)


def test_it_leads_through_an_elicitation(design, belief):
    posteriors = (lambda key, history: None) if design.needs_posterior else None
    user = pcr.SimulatedUser(pcr.linear_scm(GRAPH, jnp.ones(4)), num_draws=3)
    history = pcr.elicit(
        KEY,
        user,
        X,
        num_queries=1,
        design=design,
        surrogate=belief.surrogate,
        posteriors=posteriors,
    )
    np.testing.assert_array_equal(history.num_queries, 1)
