"""Whether arguments of inference go together."""

import jax
import numpy as np

from pcr_jax import _checks
from pcr_jax.elicitation.history import History
from pcr_jax.likelihoods import Tolerance
from pcr_jax.scm import Graph
from pcr_jax.surrogates import LinearSurrogate


def check_model(surrogate: LinearSurrogate, likelihood: Tolerance) -> None:
    """Raise TypeError unless both are what their names say, with numbers for parameters."""
    _checks.instance(surrogate, LinearSurrogate, "surrogate")
    _checks.instance(likelihood, Tolerance, "likelihood")
    for name in ("sigma", "beta"):
        _checks.number(getattr(likelihood, name), f"likelihood.{name}")


def check_history(history: History, graph: Graph, num_axes: int = 2) -> None:
    """Raise unless a history, made by hand or by `elicit`, is one of the graph's.

    Parameters
    ----------
    history : History
    graph : Graph
    num_axes : int
        Of ``node``: 2 for several users, 1 for one.

    Raises
    ------
    TypeError
        If ``history`` is no `History`, its fields are no numbers, or its nodes no integers.
    ValueError
        If the shapes of its fields disagree with each other or with the graph; there is no user; a
        node does not exist, or nothing follows from it that could be answered; something is
        answered that was not asked; a shift is not finite, or an answer infinite.
    """
    _checks.instance(history, History, "history")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(history)):
        return
    arrays = {}
    for name, kinds in (("node", "iu"), ("shift", "fiu"), ("answer", "fiu")):
        array = np.asarray(getattr(history, name))
        if array.dtype.kind not in kinds:
            wanted = "integers" if kinds == "iu" else "numbers"
            raise TypeError(f"Expected history.{name} to be {wanted}; got {array.dtype}.")
        arrays[name] = array
    node, shift, answer = arrays.values()
    if node.ndim != num_axes:
        whose = "several users, with node of shape (num_users, T)"
        way_out = "jax.tree.map(lambda leaf: leaf[None], history) makes one user several."
        if num_axes == 1:
            whose = "one user, with node of shape (T,)"
            way_out = "jax.tree.map(lambda leaf: leaf[0], history) is the first user's."
        raise ValueError(f"Expected history of {whose}; got shape {node.shape}. {way_out}")
    if not node.size:
        raise ValueError(f"Expected history of users who can be asked; got shape {node.shape}.")
    if shift.shape != node.shape or answer.shape[:-1] != node.shape:
        raise ValueError(
            f"Expected shift of shape {node.shape} and answer of shape (*{node.shape}, num_nodes) "
            f"in history, as node is; got {shift.shape} and {answer.shape}."
        )
    if answer.shape[-1] != graph.num_nodes:
        raise ValueError(
            f"Expected answers about {graph.num_nodes} nodes in history; got {answer.shape[-1]}."
        )
    wrong = (node < -1) | (node >= graph.num_nodes)
    if wrong.any():
        raise ValueError(
            f"Expected history.node in -1, ..., {graph.num_nodes - 1}, positions from 0, -1 where "
            f"nothing was asked; got {node[wrong][0]}."
        )
    mute = (node >= 0) & np.logical_not(graph.descendants.any(axis=1))[node]
    if mute.any():
        at = int(node[mute][0])
        raise ValueError(
            f"Expected history.node to have descendants; got {at} ({graph.nodes[at]!r}), which has "
            "none to ask about. Positions are from 0."
        )
    if not np.isfinite(shift).all():
        raise ValueError("Expected finite history.shift; got NaN or infinity.")
    if np.isinf(answer).any():
        raise ValueError(
            "Expected history.answer to be finite, or NaN where not reported; got infinity."
        )
    if (~np.isnan(answer).all(-1) & (node < 0)).any():
        raise ValueError(
            "Expected no history.answer where history.node is -1 (not asked); got numbers."
        )
