"""What users were asked and what they answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax._pytree import pytree
from pcr_jax.graph import Graph


@pytree()
class Questions:
    """What would follow if ``node`` rose by ``shift``, a soft intervention?

    Attributes
    ----------
    node : Array
        Shape (...), positions in the graph; -1 where nothing is asked.
    shift : Array
        Shape (...), natural units.
    individual : Array, optional
        Shape (...), boolean. False, the default: "on average, for people like you". True: "for you,
        as you are", whose answer is the person's own counterfactual.
    outcome : Array, optional
        Shape (...), position of the one descendant of ``node`` whose value is asked for; -1, the
        default, where those of all are.
    """

    node: Array
    shift: Array
    individual: Array = None  # type: ignore[assignment]
    outcome: Array = None  # type: ignore[assignment]

    def __post_init__(self):
        shape = np.shape(self.node)
        if self.individual is None:
            object.__setattr__(self, "individual", np.zeros(shape, bool))
        if self.outcome is None:
            object.__setattr__(self, "outcome", np.full(shape, -1))

    def outcomes(self, graph: Graph) -> Array:
        """Whose values are asked for, shape (..., d), boolean."""
        xp = self.node.__array_namespace__()
        node, one = self.node[..., None], self.outcome[..., None]
        possible = xp.asarray(graph.descendants)[self.node]
        return (node >= 0) & possible & ((one < 0) | (one == xp.arange(graph.num_nodes)))


@pytree()
class History:
    """Questions to all users and their answers, padded to the same number T of questions.

    Attributes
    ----------
    questions : Questions
        Of shape (num_users, T).
    answer : Array
        Shape (num_users, T, d), natural units; NaN where a node was not reported.
    x : Array
        Shape (num_users, d), natural units: the users' features, which individual questions are
        about.
    half_width : Array, optional
        Shape of ``answer``, natural units, at least 0: where an interval was reported, such as
        "between 3,500 and 4,300", half of its length, and ``answer`` is its middle. 0 where a
        number was. None, the default: numbers only.
    """

    questions: Questions
    answer: Array
    x: Array
    half_width: Array | None = None

    @classmethod
    @nan_is_a_value
    def empty(cls, x: Array, max_queries: int) -> History:
        """Room for ``max_queries`` questions to each user with features ``x`` (num_users, d)."""
        _checks.unnamed(x, "x")
        x = _checks.finite(x, "x", ("num_users", "d"))
        _checks.count(max_queries, "max_queries", minimum=0)
        shape = (len(x), max_queries)
        nothing = np.full(shape, -1)
        none = nothing, np.zeros(shape, x.dtype), np.zeros(shape, bool), nothing
        answer = np.full((*shape, x.shape[1]), np.nan, x.dtype)
        return cls(Questions(*map(jnp.asarray, none)), jnp.asarray(answer), x)

    def standardised(self, scale: Array) -> History:
        """The same in units of ``scale`` (d,), or (num_users, d) of a scale per user.

        On the host, whose division does not depend on how many users there are.
        """
        told = jax.tree.map(np.asarray, self)
        each: Any = np.asarray(scale)
        node = told.questions.node
        units = np.broadcast_to(each, (*node.shape[:-1], each.shape[-1]))
        shift = told.questions.shift / np.take_along_axis(units, node, -1)
        row = each[..., None, :]
        return History(
            replace(told.questions, shift=shift),
            told.answer / row,
            told.x / each,
            None if told.half_width is None else told.half_width / row,
        )

    @property
    def num_users(self) -> int:
        """The number of users."""
        return self.answer.shape[0]

    @property
    def num_queries(self) -> Array:
        """How many questions each user was asked, shape (num_users,)."""
        return jnp.sum(self.questions.node >= 0, axis=1)


def check_history(history: History, graph: Graph, num_axes: int = 2) -> History:
    """A history, made by hand or by `elicit`, as arrays that say something about ``graph``.

    ``num_axes`` of the questions are 2 for several users, 1 for one.

    Raises
    ------
    TypeError
        If ``history`` or its questions are none, or its fields are no numbers, its nodes no
        integers, or ``individual`` is not boolean.
    ValueError
        If the shapes of its fields do not agree with each other and the graph; there is no user; a
        node does not exist, or has no descendants to ask about; an outcome is none of them; a
        question comes after one that was not asked, or one that was not asked is answered; a shift
        or a feature is not finite, or an answer is infinite.
    """
    _checks.instance(history, History, "history", " See History.empty and tell.")
    _checks.instance(history.questions, Questions, "history.questions")
    num_nodes = graph.num_nodes
    node = _checks.array(history.questions.node, "questions.node", kind=int)
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
    shift = _checks.finite(history.questions.shift, "questions.shift", node.shape)
    individual = _checks.array(
        history.questions.individual, "questions.individual", node.shape, kind=bool
    )
    outcome = _checks.array(history.questions.outcome, "questions.outcome", node.shape, kind=int)
    answer = _checks.reported(history.answer, "history.answer", (*node.shape, num_nodes))
    x = _checks.finite(history.x, "history.x", (*node.shape[:-1], num_nodes), names=graph.nodes)
    half_width = _checked_width(history.half_width, "history.half_width", answer.shape)
    nodes = _checks.concrete(node)
    if nodes is not None:
        _existing(nodes, "questions.node", num_nodes)
        asked = nodes >= 0
        mute = asked & np.logical_not(graph.descendants.any(1))[nodes]
        if mute.any():
            at = nodes[mute][0]
            raise ValueError(
                f"Expected questions.node to be nodes with descendants; got {at} "
                f"({graph.nodes[at]!r}), which has none to ask about. Positions begin at 0."
            )
        if (asked[..., 1:] & ~asked[..., :-1]).any():
            raise ValueError(
                "Expected what was asked in questions.node to come first; got -1 (not asked) "
                "before a question."
            )
        said = _checks.concrete(answer)
        if said is not None and (~np.isnan(said).all(-1) & ~asked).any():
            raise ValueError(
                "Expected no history.answer where questions.node is -1 (not asked); got numbers."
            )
        outcomes = _checks.concrete(outcome)
        if outcomes is not None:
            _existing(outcomes, "questions.outcome", num_nodes)
            unmoved = (outcomes >= 0) & ~graph.descendants[nodes, outcomes]
            if unmoved.any():
                raise ValueError(
                    "Expected questions.outcome to be descendants of questions.node, or -1; got "
                    f"{outcomes[unmoved][0]} of {nodes[unmoved][0]}."
                )
    return History(Questions(node, shift, individual, outcome), answer, x, half_width)


def _checked_width(half_width, name: str, shape: tuple[int, ...]) -> Array | None:
    """None, or finite numbers that are not negative."""
    if half_width is None:
        return None
    _checks.unnamed(half_width, name)
    return _checks.positive(half_width, name, shape, or_zero=True)


def _existing(nodes: np.ndarray, name: str, num_nodes: int) -> None:
    """Raise unless nodes are positions in the graph, or -1."""
    wrong = (nodes < -1) | (nodes >= num_nodes)
    if wrong.any():
        raise ValueError(
            f"Expected {name} in -1, ..., {num_nodes - 1}; got {nodes[wrong][0]}. Positions begin "
            "at 0."
        )


@nan_is_a_value
def tell(
    history: History, questions: Questions, answer: Array, half_width: Array | None = None
) -> History:
    """The history with one more question and answer for every user.

    Parameters
    ----------
    history : History
    questions : Questions
        Of shape (num_users,). A user with ``node`` -1 was not asked and keeps the old history.
    answer : Array
        Shape (num_users, d); NaN where a node was not reported.
    half_width : Array, optional
        Shape (num_users, d): of the intervals reported, see `History`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``answer`` has another shape or an infinite number, a node does not exist, a shift is not
        finite, or a history is full.
    """
    _checks.instance(history, History, "history", " See History.empty.")
    _checks.instance(questions, Questions, "questions")
    if np.ndim(history.answer) != 3:
        raise ValueError(
            f"Expected history.answer of shape (num_users, T, d); got {np.shape(history.answer)}."
        )
    num_users, max_queries, num_nodes = np.shape(history.answer)
    answer = _checks.reported(answer, "answer", (num_users, num_nodes))
    shape = (num_users,)
    shift = _checks.finite(questions.shift, "questions.shift", shape)
    node = _checks.array(questions.node, "questions.node", shape, kind=int)
    individual = _checks.array(questions.individual, "questions.individual", shape, kind=bool)
    outcome = _checks.array(questions.outcome, "questions.outcome", shape, kind=int)
    for name, of in (("node", node), ("outcome", outcome)):
        if (positions := _checks.concrete(of)) is not None:
            _existing(positions, f"questions.{name}", num_nodes)
    half_width = _checked_width(half_width, "half_width", answer.shape)
    if half_width is None and history.half_width is not None:
        half_width = jnp.zeros(answer.shape)
    elif half_width is not None and history.half_width is None:
        history = replace(history, half_width=jnp.zeros(np.shape(history.answer)))
    asked = Questions(node, shift, individual, outcome)
    told, full = _tell(history, asked, answer, half_width)
    array = _checks.concrete(full)
    if array is not None and array.any():
        raise ValueError(
            f"Expected room for one more question in history; got {max_queries} asked already."
        )
    return told


@jax.jit
def _tell(history, questions, answer, half_width):
    """The longer history, and whose was full."""
    num_users, max_queries, _ = history.answer.shape
    asked, position = questions.node >= 0, history.num_queries
    rows = jnp.arange(num_users)
    column = jnp.where(asked, position, max_queries)  # out of range: dropped

    def put(old, new):
        return jnp.asarray(old).at[rows, column].set(new, mode="drop")

    told = History(
        jax.tree.map(put, history.questions, questions),
        put(history.answer, answer),
        history.x,
        jax.tree.map(put, history.half_width, half_width),
    )
    return told, asked & (position >= max_queries)
