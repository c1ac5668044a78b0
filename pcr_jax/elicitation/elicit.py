"""Elicitation: ask the users, tell the history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation.designs.base import Belief, Design, check_problem
from pcr_jax.elicitation.designs.random import RandomDesign
from pcr_jax.elicitation.respondents import Respondent
from pcr_jax.graph import Graph
from pcr_jax.history import History, check_history, tell
from pcr_jax.surrogates import Surrogate, check_surrogate, linear_surrogate


@nan_is_a_value
def elicit(
    key: Array,
    respondent: Respondent,
    x: Array,
    *,
    num_queries: int,
    design: Design | None = None,
    history: History | None = None,
    surrogate: Surrogate | None = None,
    posteriors: Callable[[Array, History], Any] | None = None,
    problem: Any = None,
) -> History:
    """Ask every user ``num_queries`` questions, one after the other.

    Parameters
    ----------
    key : Array
    respondent : Respondent
        Answers for all users, such as a `SimulatedUser`.
    x : Array
        Shape (num_users, d), natural units: one respondent per row.
    num_queries : int
        T, the number of questions to each user.
    design : Design, optional
        What is asked; `RandomDesign` by default.
    history : History, optional
        To go on from; with room for ``num_queries`` more. Question t is drawn from ``key`` and t
        alone, so that a longer elicitation begins like a shorter one.
    surrogate : Surrogate, optional
        What is believed to be asked about; by default `linear_surrogate` of ``respondent.graph``.
    posteriors : callable, optional
        (key, history) -> the users' posteriors, for designs that need them: such as `infer` with
        its other arguments given.
    problem : Problem, optional
        What the users want decided, see `pcr_jax.recourse.pose`, for designs that need it.

    Returns
    -------
    History
        A user whom the design stops asking (``node`` -1) is asked no more: `History.num_queries`
        of such a user is smaller.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``x`` is not finite or not of shape (num_users, d), ``num_queries < 1``, the
        respondent has SCMs for another number of users, ``history`` is not one of these users
        (see `check_history`), or the design needs ``posteriors`` or ``problem``.
    """
    _checks.key(key)
    for name, value, attributes, such_as in (
        ("respondent", respondent, ("answer", "graph"), "a SimulatedUser"),
        ("design", design, ("ask", "needs_posterior"), "RandomDesign()"),
    ):
        given = value is not None or name == "respondent"
        if given and not all(hasattr(value, a) for a in attributes):
            raise TypeError(
                f"Expected {name} to be one, such as {such_as}; got {_checks.shown(value)}."
            )
    graph = respondent.graph
    _checks.instance(graph, Graph, "the graph of respondent")
    x = _checks.features(x, graph.num_nodes, ndim=2, names=graph.nodes)
    _checks.count(num_queries, "num_queries")
    surrogate = linear_surrogate(graph) if surrogate is None else surrogate
    check_surrogate(surrogate)
    if surrogate.graph.nodes != graph.nodes:
        raise ValueError(
            f"Expected surrogate of the nodes of respondent, {list(graph.nodes)}; got one of "
            f"{list(surrogate.graph.nodes)}."
        )
    design = RandomDesign() if design is None else design
    if posteriors is not None:
        _checks.function(posteriors, "posteriors", "(key, history) -> posteriors")
    elif design.needs_posterior:
        raise ValueError(
            f"Expected posteriors=, (key, history) -> posteriors, for {design}; got none."
        )
    if problem is not None or getattr(design, "needs_problem", False):
        check_problem(problem, x.shape, graph, design)
    history = _with_room(history, x, num_queries, graph)
    stopped = np.zeros(len(x), bool)
    for t in range(num_queries):
        k_ask, k_answer = jax.random.split(jax.random.fold_in(key, t))
        belief = Belief(surrogate, history, problem=problem)
        if posteriors is not None and design.needs_posterior:
            k_ask, k_infer = jax.random.split(k_ask)
            belief = belief._replace(posteriors=posteriors(k_infer, history))
        questions = design.ask(k_ask, belief)
        if (node := _checks.concrete(questions.node)) is not None:
            stopped = stopped | (node < 0)
            if stopped.all():
                break
            if stopped.any():
                questions = replace(questions, node=jnp.where(stopped, -1, questions.node))
        history = tell(history, questions, respondent.answer(k_answer, questions, x))
    return history


def _with_room(history: History | None, x: Array, num_queries: int, graph: Graph) -> History:
    """The history to go on from, checked."""
    if history is None:
        return History.empty(x, num_queries)
    history = check_history(history, graph)
    if history.num_users != len(x):
        raise ValueError(f"Expected a history of {len(x)} users; got {history.num_users}.")
    asked = _checks.concrete(history.num_queries)
    room = history.questions.node.shape[1] - (0 if asked is None else asked.max())
    if room < num_queries:
        raise ValueError(
            f"Expected room for {num_queries} more questions in history; got {room}. See "
            "History.empty."
        )
    return history
