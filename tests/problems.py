"""Small problems that many tests use."""

import jax.numpy as jnp
import numpy as np

from pcr_jax.history import History, Questions


def history_of(node, shift, answer):
    """A history of population questions, made by hand, of people whose features are 0."""
    *users, _, num_nodes = np.shape(answer)
    return History(Questions(node, shift), answer, jnp.zeros((*users, num_nodes)))


def arrays_of(history):
    """Node, shift and answer of a history in NumPy."""
    questions = history.questions
    return tuple(map(np.asarray, (questions.node, questions.shift, history.answer)))
