"""What an action costs."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pcr_jax.actions import Action


def l1_cost(action: Action, x: Array, scale: Array) -> Array:
    """L1 norm of an action in units of ``scale``, ``c(x, a)`` of the paper; shape (...).

    A soft intervention costs its shift, a hard one the distance from the present value.

    Parameters
    ----------
    action : Action
        Of shape (..., d).
    x : Array
        Shape (..., d), natural units.
    scale : Array
        Shape (d,), natural units.
    """
    moved = jnp.where(action.hard, action.value - x, action.value)
    return jnp.sum(jnp.abs(moved) / scale, axis=-1)
