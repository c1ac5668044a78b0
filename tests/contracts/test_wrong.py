"""What every way of erring does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.elicitation.respondents.wrong import Asked, FromSCM

M1, KEY = pcr.library.m1(), jax.random.key(0)
WRONG = {
    "another SCM": lambda: FromSCM(pcr.library.theta_star()),
    "everyone's own": lambda: FromSCM(pcr.population_of_scms(KEY, M1, 4, 0.3)),
    "anchored": lambda: pcr.Anchored(0.35),
    "anchored, each differently": lambda: pcr.Anchored(jnp.array([0.2, 0.3, 0.4, 0.5])),
    "too weak": lambda: pcr.TooWeak(0.5),
    "too weak, each differently": lambda: pcr.TooWeak(jnp.array([0.2, 0.3, 0.4, 0.5])),
    "guesses": lambda: pcr.Broad(2.0),
    "guesses, by node": lambda: pcr.Broad(jnp.array([1.0, 2.0, 3.0])),
    "guesses, by person and node": lambda: pcr.Broad(jnp.ones((4, 3))),
}


@pytest.fixture(params=list(WRONG))
def wrong(request):
    return WRONG[request.param]()


def asked(individual):
    question = pcr.Questions(jnp.array(0), jnp.array(0.7), jnp.array(individual))
    numbers = (jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3))
    return Asked(M1, question, jnp.zeros(3), 20, *numbers)


def test_it_is_a_pytree_of_arrays_with_its_batch_in_front_and_for_these_nodes(wrong):
    leaves, structure = jax.tree.flatten(wrong)
    batch = wrong.batch_shape
    wrong.check(M1.graph)
    assert batch in ((), (4,))
    assert all(np.shape(leaf)[: len(batch)] == batch for leaf in leaves)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure


@pytest.mark.parametrize("individual", [False, True])
def test_one_persons_answer_has_a_number_for_every_node(wrong, individual):
    one = jax.tree.map(lambda leaf: leaf[1], wrong) if wrong.batch_shape else wrong
    answer = jax.jit(lambda wrong: wrong.answer(KEY, asked(individual)))
    found = np.asarray(answer(one))
    assert found.shape == (3,)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, answer(one))
    assert np.abs(found - asked(individual).right).max() > 0.01
