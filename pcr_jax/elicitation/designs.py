"""Designs: which question to ask next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import user_keys
from pcr_jax.elicitation.history import History, Query
from pcr_jax.scm import Graph


@dataclass(frozen=True)
class RandomDesign:
    """Random soft interventions, as in the paper.

    The node is uniform over those that have descendants, the shift uniform on ``[low, high]``
    (natural units).
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        _checks.finite(self.low, "low", ())
        _checks.finite(self.high, "high", ())
        if not self.low < self.high:
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")

    def ask(self, key: Array, graph: Graph, history: History) -> Query:
        """The next query for each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If no node of ``graph`` has descendants.
        """
        _checks.key(key)
        _checks.instance(graph, Graph, "graph")
        _checks.instance(history, History, "history")
        causes = jnp.asarray(np.flatnonzero(graph.descendants.any(1)))
        if not causes.size:
            raise ValueError("Expected a graph in which some node has descendants; got no edge.")

        return _ask(key, causes, self.low, self.high, history.num_users)


@partial(jax.jit, static_argnames="num_users")
def _ask(key, causes, low, high, num_users):
    def one(key):
        k_node, k_shift = jax.random.split(key)
        node = jax.random.choice(k_node, causes)
        return Query(node, jax.random.uniform(k_shift, (), float, low, high))

    return jax.vmap(one)(user_keys(key, num_users))
