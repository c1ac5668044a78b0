"""Actions (soft and hard interventions) and the constraints on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree


@pytree()
class Action:
    """An intervention on any subset of the nodes (section 2 of the paper).

    A node with ``hard`` False gets the soft intervention ``do(X_j = x_j + value_j)``: its
    mechanism is kept and the value is added (0 leaves it alone). A node with ``hard`` True gets
    ``do(X_j = value_j)``: its mechanism is replaced.

    Parameters
    ----------
    value : Array
        Shape (..., d), natural units.
    hard : Array
        Shape (..., d), boolean.
    """

    value: Array
    hard: Array

    @classmethod
    def soft(cls, shift: Array) -> Action:
        """Shift every node by ``shift`` (..., d); 0 where nothing is done."""
        shift = jnp.asarray(shift, float)
        return cls(shift, jnp.zeros(shift.shape, bool))

    @classmethod
    def shift_node(cls, node: Array, shift: Array, num_nodes: int) -> Action:
        """Shift one node by ``shift`` (); ``node`` () is its position, or -1 for none."""
        return cls.soft(jnp.where(node == jnp.arange(num_nodes), shift, 0.0))

    @classmethod
    def do(cls, value: Array, nodes: Array) -> Action:
        """Set the nodes where ``nodes`` (..., d) is True to ``value`` (..., d)."""
        hard = jnp.asarray(nodes, bool)
        return cls(jnp.where(hard, jnp.asarray(value, float), 0.0), hard)

    @classmethod
    def by(cls, x: Array, shift: Array, hard: bool) -> Action:
        """Move features ``x`` by ``shift``, both (..., d), with hard or soft interventions."""
        return cls.do(x + shift, shift != 0) if hard else cls.soft(shift)

    @classmethod
    def empty(cls, num_nodes: int) -> Action:
        """Do nothing."""
        return cls.soft(jnp.zeros(num_nodes))

    @property
    def intervened(self) -> Array:
        """Which nodes are intervened on, shape (..., d), boolean."""
        return self.hard | (self.value != 0)


@pytree()
class Constraints:
    """What a user can do. Every field has shape (d,), or (num_users, d) to differ by user.

    Parameters
    ----------
    actionable : array of bool, optional
        Nodes that can be intervened on; all by default.
    lower, upper : array, optional
        The range, in natural units, that a feature may be moved to by the intervention on it
        (its later reaction to interventions on its causes is not an action and is not bounded).
        Unbounded by default.
    increase_only, decrease_only : array of bool, optional
        Directions; both on one node make it immutable.
    """

    actionable: Array | None = None
    lower: Array | None = None
    upper: Array | None = None
    increase_only: Array | None = None
    decrease_only: Array | None = None

    def shift_bounds(self, x: Array) -> tuple[Array, Array]:
        """The smallest and largest shift of each feature, each of the shape of ``x`` (..., d).

        Raises
        ------
        ValueError
            If a field does not broadcast against ``x``, or bounds exclude a present value.
        """
        shape = np.shape(x)

        def field(name, default, dtype):
            value = getattr(self, name)
            value = jnp.asarray(default if value is None else value, dtype)
            array = _checks.concrete(value)
            if array is not None and np.isnan(array).any():
                raise ValueError(f"Expected no NaN in constraints.{name}; got {array}.")
            if value.shape not in ((), shape[-1:], shape):
                raise ValueError(
                    f"Expected constraints.{name} of shape {shape[-1:]} or {shape}; "
                    f"got shape {value.shape}."
                )
            return value

        lower, upper = field("lower", -jnp.inf, float), field("upper", jnp.inf, float)
        x_value, low_value, high_value = map(_checks.concrete, (x, lower, upper))
        if x_value is not None and low_value is not None and high_value is not None:
            outside = (x_value < low_value) | (x_value > high_value)
            if outside.any():
                at = tuple(int(i) for i in np.argwhere(outside)[0])
                raise ValueError(
                    "Expected constraints.lower <= x <= constraints.upper (bounds must contain "
                    f"the present value); got x{list(at)} = {x_value[at]} outside "
                    f"[{np.broadcast_to(low_value, shape)[at]}, "
                    f"{np.broadcast_to(high_value, shape)[at]}]."
                )
        actionable = field("actionable", True, bool)
        low = jnp.where(actionable & ~field("increase_only", False, bool), lower - x, 0.0)
        high = jnp.where(actionable & ~field("decrease_only", False, bool), upper - x, 0.0)
        return low, high


def intervention_sets(num_nodes: int, max_size: int | None = None) -> np.ndarray:
    """All non-empty subsets of the nodes, smallest first, as a boolean matrix (num_sets, d).

    Parameters
    ----------
    num_nodes : int
    max_size : int, optional
        Leave out larger sets.

    Raises
    ------
    ValueError
        If ``max_size < 1``, or there would be more than 4095 sets.
    """
    _checks.count(num_nodes, "num_nodes")
    if max_size is not None:
        _checks.count(max_size, "max_size")
    largest = num_nodes if max_size is None else min(max_size, num_nodes)
    sets: list[list[bool]] = []
    for size in range(1, largest + 1):
        for members in combinations(range(num_nodes), size):
            sets.append([j in members for j in range(num_nodes)])
            if len(sets) > 4095:
                raise ValueError(
                    f"Expected at most 4095 intervention sets; got more for num_nodes={num_nodes}, "
                    f"max_size={max_size}. Lower max_size."
                )
    return np.array(sets)


def set_name(members: Sequence[bool], nodes: Sequence[str]) -> str:
    """A set's name, such as ``"X1+X3"``; ``"none"`` if it is empty."""
    return "+".join(n for n, member in zip(nodes, members, strict=True) if member) or "none"
