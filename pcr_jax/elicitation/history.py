"""What users were asked and what they answered."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax._pytree import pytree


class Query(NamedTuple):
    """One population question to every user: "what follows, on average, if `node` rose by `shift`?"

    Attributes
    ----------
    node : Array
        Shape (num_users,), positions in the graph.
    shift : Array
        Shape (num_users,), natural units; a soft intervention.
    """

    node: Array
    shift: Array


@pytree()
class History:
    """Queries and answers of all users, in arrays padded to the same number of queries T.

    Attributes
    ----------
    node : Array
        Shape (num_users, T), the intervened node; -1 where no query was asked.
    shift : Array
        Shape (num_users, T), natural units.
    answer : Array
        Shape (num_users, T, d), natural units; NaN where a node was not reported.
    """

    node: Array
    shift: Array
    answer: Array

    @classmethod
    @nan_is_a_value
    def empty(cls, num_users: int, max_queries: int, num_nodes: int) -> History:
        """Room for ``max_queries`` queries to each user."""
        return cls(
            jnp.full((num_users, max_queries), -1),
            jnp.zeros((num_users, max_queries)),
            jnp.full((num_users, max_queries, num_nodes), jnp.nan),
        )

    @property
    def num_users(self) -> int:
        """The number of users."""
        return self.node.shape[0]

    @property
    def num_queries(self) -> Array:
        """How many queries each user was asked, shape (num_users,)."""
        return jnp.sum(self.node >= 0, axis=1)


@nan_is_a_value
def tell(history: History, query: Query, answer: Array) -> History:
    """The history with one more query and answer for every user.

    Parameters
    ----------
    history : History
    query : Query
        A user with ``node`` -1 was not asked and keeps the old history.
    answer : Array
        Shape (num_users, d); NaN where a node was not reported.

    Raises
    ------
    ValueError
        If ``answer`` has another shape or an infinite number, a node of ``query`` does not exist,
        a shift is not finite, or a history is full.
    """
    num_users, max_queries, num_nodes = history.answer.shape
    if np.shape(answer) != (num_users, num_nodes):
        raise ValueError(
            f"Expected answer of shape {(num_users, num_nodes)}; got {np.shape(answer)}."
        )
    if (array := _checks.concrete(answer)) is not None and np.isinf(array).any():
        raise ValueError("Expected answer to be finite, or NaN where not reported; got infinity.")
    _checks.finite(query.shift, "query.shift")
    nodes = _checks.concrete(query.node)
    if nodes is not None and ((nodes < -1) | (nodes >= num_nodes)).any():
        raise ValueError(f"Expected query.node in -1, ..., {num_nodes - 1}; got {nodes}.")
    told, full = _tell(history, query, answer)
    array = _checks.concrete(full)
    if array is not None and array.any():
        raise ValueError(f"Expected room for one more query; got {max_queries} asked already.")
    return told


@jax.jit
def _tell(history, query, answer):
    """The longer history, and whose was full."""
    num_users, max_queries, _ = history.answer.shape
    asked, position = query.node >= 0, history.num_queries
    rows = jnp.arange(num_users)
    column = jnp.where(asked, position, max_queries)  # out of range: dropped
    told = History(
        history.node.at[rows, column].set(query.node, mode="drop"),
        history.shift.at[rows, column].set(query.shift, mode="drop"),
        history.answer.at[rows, column].set(answer, mode="drop"),
    )
    return told, asked & (position >= max_queries)
