"""What searches are given, and what they find."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array

from pcr_jax.scm import SCM


class Task(NamedTuple):
    """One user's problem. Moves are in units of ``scale``."""

    scm: SCM
    x: Array  # (d,), natural units
    low: Array  # (d,), the smallest move
    high: Array  # (d,)
    weights: Array  # (d,)


class Found(NamedTuple):
    """What a search found for every user.

    Attributes
    ----------
    move : Array
        Shape (num_users, d), units of ``scale``; 0 where nothing was found, or is needed.
    deltas : Array
        Shape (num_users, n, d), units of ``scale``: perturbations that it withstands.
    going_on : Array
        Shape (num_users,): whether the search can go on for this user if it should not do.
    exhausted, flat : Array
        Shape (num_users,): the search ended for its budget, for a gradient of exactly 0.
    evaluations : Array
        Shape (num_users,).
    state : pytree
        The search's own.
    """

    move: Array
    deltas: Array
    going_on: Array
    exhausted: Array
    flat: Array
    evaluations: Array
    state: Any = None
