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
from pcr_jax.scm import Graph


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
        _checks.count(num_users, "num_users")
        _checks.count(max_queries, "max_queries", minimum=0)
        _checks.count(num_nodes, "num_nodes")
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


def check_history(history: History, graph: Graph, num_axes: int = 2) -> History:
    """A history, made by hand or by `elicit`, as arrays that say something about ``graph``.

    ``num_axes`` of ``node`` are 2 for several users, 1 for one.

    Raises
    ------
    TypeError
        If ``history`` is none, or its fields are no numbers, or its nodes no integers.
    ValueError
        If the shapes of its fields do not agree with each other and the graph; there is no user; a
        node does not exist, or has no descendants to ask about; a query comes after one that was
        not asked, or one that was not asked is answered; a shift is not finite, or an answer is
        infinite.
    """
    _checks.instance(history, History, "history", " See History.empty and tell.")
    num_nodes = graph.num_nodes
    node = _checks.array(history.node, "history.node", kind=int)
    if node.ndim != num_axes:
        whose = ("one user, with node of shape (T,)", "is the first user's.")
        way_out = "jax.tree.map(lambda leaf: leaf[0], history)"
        if num_axes == 2:
            whose = ("several users, with node of shape (num_users, T)", "makes one user several.")
            way_out = "jax.tree.map(lambda leaf: leaf[None], history)"
        raise ValueError(
            f"Expected history of {whose[0]}; got shape {node.shape}. {way_out} {whose[1]}"
        )
    if num_axes == 2 and not len(node):
        raise ValueError("Expected at least one user in history; got none.")
    shift = _checks.finite(history.shift, "history.shift", node.shape)
    answer = _checks.reported(history.answer, "history.answer", (*node.shape, num_nodes))
    nodes = _checks.concrete(node)
    if nodes is not None:
        _existing(nodes, "history.node", num_nodes)
        asked = nodes >= 0
        mute = asked & np.logical_not(graph.descendants.any(1))[nodes]
        if mute.any():
            at = nodes[mute][0]
            raise ValueError(
                f"Expected history.node to be nodes with descendants; got {at} "
                f"({graph.nodes[at]!r}), which has none to ask about. Positions begin at 0."
            )
        if (asked[..., 1:] & ~asked[..., :-1]).any():
            raise ValueError(
                "Expected the queries in history.node to come first; got -1 (not asked) before one."
            )
        said = _checks.concrete(answer)
        if said is not None and (~np.isnan(said).all(-1) & ~asked).any():
            raise ValueError(
                "Expected no history.answer where history.node is -1 (not asked); got numbers."
            )
    return History(node, shift, answer)


def _existing(nodes: np.ndarray, name: str, num_nodes: int) -> None:
    """Raise unless nodes are positions in the graph, or -1."""
    wrong = (nodes < -1) | (nodes >= num_nodes)
    if wrong.any():
        raise ValueError(
            f"Expected {name} in -1, ..., {num_nodes - 1}; got {nodes[wrong][0]}. Positions begin "
            "at 0."
        )


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
    TypeError
        If an argument is of another type.
    ValueError
        If ``answer`` has another shape or an infinite number, a node of ``query`` does not exist,
        a shift is not finite, or a history is full.
    """
    _checks.instance(history, History, "history", " See History.empty.")
    _checks.instance(query, Query, "query")
    if np.ndim(history.answer) != 3:
        raise ValueError(
            f"Expected history.answer of shape (num_users, T, d); got {np.shape(history.answer)}."
        )
    num_users, max_queries, num_nodes = np.shape(history.answer)
    answer = _checks.reported(answer, "answer", (num_users, num_nodes))
    shift = _checks.finite(query.shift, "query.shift", (num_users,))
    node = _checks.array(query.node, "query.node", (num_users,), kind=int)
    if (nodes := _checks.concrete(node)) is not None:
        _existing(nodes, "query.node", num_nodes)
    query = Query(node, shift)
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
