"""Questions at random, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import user_keys
from pcr_jax.elicitation.designs.base import Belief, check_problem
from pcr_jax.elicitation.designs.people import (
    askable,
    asked_for,
    candidates,
    check_asking,
    unit_of,
)
from pcr_jax.history import Questions


@dataclass(frozen=True)
class RandomDesign:
    """Random soft interventions, as in the paper.

    The node is uniform over those that have descendants, the shift uniform on ``[low, high]``, in
    units of the surrogate's scale (natural units without one). Where there is a problem, nodes that
    a person cannot act on are not asked about, nor shifts beyond their bounds, and smaller shifts
    than a quarter are made a quarter, as far as the bounds allow. The paper's questions are
    ``RandomDesign(0.0, 1.0, individual=False)``, without a problem.

    Parameters
    ----------
    low, high : float
    individual : bool
        Whether people are asked about themselves, or about people like them on average.
    report : {"all", "one"}
        Whether people are asked for all that follows, or for one outcome at random.

    Raises
    ------
    TypeError
        If ``low`` or ``high`` is no number, or ``individual`` no boolean.
    ValueError
        If not ``low < high``, or ``report`` is unknown.
    """

    low: float = -2.0
    high: float = 2.0
    individual: bool = True
    report: str = "all"

    needs_posterior = False

    def __post_init__(self):
        low, high = (_checks.finite(getattr(self, end), end, ()) for end in ("low", "high"))
        if not high - low >= np.finfo(np.asarray(low).dtype).tiny:
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")
        check_asking(self)

    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If the problem is of other users.
        """
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        if belief.problem is not None:
            return self._ask_within(key, belief)
        graph, num_users = belief.surrogate.graph, belief.history.num_users
        causes = jnp.asarray(np.flatnonzero(graph.descendants.any(1)))
        ends = float(self.low), float(self.high)
        node, shift, outcome = _ask(graph, self.report, num_users, key, causes, *ends)
        scale = getattr(belief.surrogate, "scale", None)
        if scale is not None:
            units = jnp.broadcast_to(jnp.asarray(scale), (num_users, graph.num_nodes))
            shift = shift * units[jnp.arange(num_users), node]
        return Questions(node, shift, jnp.full(num_users, self.individual), outcome)

    def _ask_within(self, key: Array, belief: Belief) -> Questions:
        """`ask` of what each person can do."""
        history, graph = belief.history, belief.surrogate.graph
        check_problem(belief.problem, np.shape(history.x), graph, self)
        ends = askable(belief, float(self.low), float(self.high))
        low, high = (jnp.asarray(end, float) for end in ends)
        keys = user_keys(key, history.num_users)
        node, shift, outcome = _ask_each(graph, self.report, keys, low, high)
        shift = shift * jnp.asarray(unit_of(belief), float)[jnp.arange(len(node)), node]
        return Questions(node, shift, jnp.full(len(node), self.individual), outcome)


@partial(jax.jit, static_argnums=(0, 1))
def _ask_each(graph, report, keys, low, high):
    def one(key, low, high):
        node, shift = candidates(key, low, high, 1)
        outcome = asked_for(jax.random.fold_in(key, 0), graph, node, report)
        return node[0], shift[0], outcome[0]

    return jax.vmap(one)(keys, low, high)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _ask(graph, report, num_users, key, causes, low, high):
    def one(key):
        k_node, k_shift = jax.random.split(key)
        node = jax.random.choice(k_node, causes)
        outcome = asked_for(jax.random.fold_in(key, 0), graph, node, report)
        return node, jax.random.uniform(k_shift, (), float, low, high), outcome

    return jax.vmap(one)(user_keys(key, num_users))
