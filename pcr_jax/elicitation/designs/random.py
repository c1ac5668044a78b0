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

    The node is uniform over those that have descendants, the shift uniform on ``[low, high]``
    (natural units).
    """

    low: float = 0.0
    high: float = 1.0

    needs_posterior = False

    def __post_init__(self):
        low, high = (_checks.finite(getattr(self, end), end, ()) for end in ("low", "high"))
        if not high - low >= np.finfo(np.asarray(low).dtype).tiny:
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")

    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        """
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        causes = jnp.asarray(np.flatnonzero(belief.surrogate.graph.descendants.any(1)))
        return _ask(key, causes, float(self.low), float(self.high), belief.history.num_users)


@partial(jax.jit, static_argnames="num_users")
def _ask(key, causes, low, high, num_users):
    def one(key):
        k_node, k_shift = jax.random.split(key)
        node = jax.random.choice(k_node, causes)
        return Questions(node, jax.random.uniform(k_shift, (), float, low, high))

    return jax.vmap(one)(user_keys(key, num_users))
