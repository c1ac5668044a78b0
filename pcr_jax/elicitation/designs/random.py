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
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.history import Questions


@dataclass(frozen=True)
class RandomDesign:
    """Random soft interventions, as in the paper.

    The node is uniform over those that have descendants, the shift uniform on ``[low, high]``, in
    units of the surrogate's scale (natural units without one). The paper's questions are
    ``RandomDesign(0.0, 1.0, individual=False)``.

    Parameters
    ----------
    low, high : float
    individual : bool
        Whether people are asked about themselves, or about people like them on average.

    Raises
    ------
    TypeError
        If ``low`` or ``high`` is no number, or ``individual`` no boolean.
    ValueError
        If not ``low < high``.
    """

    low: float = -2.0
    high: float = 2.0
    individual: bool = True

    needs_posterior = False

    def __post_init__(self):
        low, high = (_checks.finite(getattr(self, end), end, ()) for end in ("low", "high"))
        if not high - low >= np.finfo(np.asarray(low).dtype).tiny:
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")
        _checks.instance(self.individual, bool, "individual")

    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        """
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        graph, num_users = belief.surrogate.graph, belief.history.num_users
        causes = jnp.asarray(np.flatnonzero(graph.descendants.any(1)))
        node, shift = _ask(key, causes, float(self.low), float(self.high), num_users)
        scale = getattr(belief.surrogate, "scale", None)
        if scale is not None:
            units = jnp.broadcast_to(jnp.asarray(scale), (num_users, graph.num_nodes))
            shift = shift * units[jnp.arange(num_users), node]
        return Questions(node, shift, jnp.full(num_users, self.individual))


@partial(jax.jit, static_argnames="num_users")
def _ask(key, causes, low, high, num_users):
    def one(key):
        k_node, k_shift = jax.random.split(key)
        node = jax.random.choice(k_node, causes)
        return node, jax.random.uniform(k_shift, (), float, low, high)

    return jax.vmap(one)(user_keys(key, num_users))
