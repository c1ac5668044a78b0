"""What an action costs."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action


@pytree(static=("norm",))
class Cost:
    """Weighted L1 or L2 norm of an action in units of ``scale``, ``c(x, a)`` of the paper.

    A soft intervention costs its shift, a hard one the distance from the present value.

    Parameters
    ----------
    scale : Array
        Shape (d,), natural units.
    weights : Array
        Shape (d,) or (num_users, d), positive.
    norm : {"l1", "l2"}

    Raises
    ------
    ValueError
        If ``norm`` is another.
    """

    scale: Array
    weights: Array
    norm: str = "l1"

    def __post_init__(self):
        _checks.choice(self.norm, ("l1", "l2"), "norm")

    def of_weighted(self, weighted: Array) -> Array:
        """The norm of weighted moves (..., d); shape (...)."""
        if self.norm == "l1":
            return jnp.abs(weighted).sum(-1)
        return jnp.sqrt(jnp.square(weighted).sum(-1))

    def __call__(self, action: Action, x: Array) -> Array:
        """Cost (...) of an action (..., d) for features ``x`` (..., d), natural units."""
        moved = jnp.where(action.hard, action.value - x, action.value)
        return self.of_weighted(self.weights * moved / self.scale)
