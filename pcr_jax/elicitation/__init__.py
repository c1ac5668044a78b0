"""Elicitation: ask the users, tell the history."""

from __future__ import annotations

import jax
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation.designs import RandomDesign
from pcr_jax.elicitation.history import History, Query, check_history, tell
from pcr_jax.elicitation.respondents import SimulatedUser

__all__ = ["History", "Query", "RandomDesign", "SimulatedUser", "elicit", "tell"]


@nan_is_a_value
def elicit(
    key: Array,
    respondent: SimulatedUser,
    x: Array,
    *,
    num_queries: int,
    design: RandomDesign | None = None,
    history: History | None = None,
) -> History:
    """Ask every user ``num_queries`` questions, one after the other.

    Parameters
    ----------
    key : Array
    respondent : SimulatedUser
        Answers for all users.
    x : Array
        Shape (num_users, d), natural units: one respondent per row.
    num_queries : int
        T, the number of queries to each user.
    design
        What is asked; `RandomDesign` by default.
    history : History, optional
        To go on from; with room for ``num_queries`` more. Query t is drawn from ``key`` and t
        alone, so that a longer elicitation begins like a shorter one.

    Returns
    -------
    History

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``x`` is not finite or not of shape (num_users, d), ``num_queries < 1``, the
        respondent has SCMs for another number of users, or ``history`` is not one of these users
        (see `check_history`).
    """
    _checks.key(key)
    for method in ("answer", "scm", "wrong"):
        if not hasattr(respondent, method):
            raise TypeError(
                f"Expected respondent to be one, such as a SimulatedUser; got "
                f"{_checks.shown(respondent)}."
            )
    graph = respondent.scm.graph
    x = _checks.features(x, graph.num_nodes, ndim=2, names=graph.nodes)
    _checks.count(num_queries, "num_queries")
    for name in ("scm", "wrong"):
        batch_shape = getattr(respondent, name).batch_shape
        if batch_shape not in ((), (len(x),)):
            raise ValueError(
                f"Expected one SCM, or one for each of the {len(x)} users, in respondent.{name}; "
                f"got a batch of shape {batch_shape}."
            )
    design = RandomDesign() if design is None else design
    if not hasattr(design, "ask"):
        raise TypeError(
            f"Expected design to be one, such as RandomDesign(); got {_checks.shown(design)}."
        )
    if history is None:
        history = History.empty(len(x), num_queries, graph.num_nodes)
    history = check_history(history, graph)
    if history.num_users != len(x):
        raise ValueError(f"Expected a history of {len(x)} users; got {history.num_users}.")
    asked = _checks.concrete(history.num_queries)
    room = history.node.shape[1] - (0 if asked is None else asked.max())
    if room < num_queries:
        raise ValueError(
            f"Expected room for {num_queries} more queries in history; got {room}. See "
            "History.empty."
        )
    for t in range(num_queries):
        k_ask, k_answer = jax.random.split(jax.random.fold_in(key, t))
        query = design.ask(k_ask, graph, history)
        history = tell(history, query, respondent.answer(k_answer, query))
    return history
