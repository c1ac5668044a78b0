"""Actions (soft and hard interventions) and the constraints on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
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

    Raises
    ------
    TypeError
        If ``value`` is no numbers, or ``hard`` is not boolean.
    ValueError
        If their shapes differ, or a value is not finite.
    """

    value: Array
    hard: Array

    def __post_init__(self):
        _checks.unnamed(self.value, "the action's value")
        value = _checks.finite(self.value, "the action's value")
        hard = _checks.array(self.hard, "the action's hard", value.shape, kind=bool)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "hard", hard)

    @classmethod
    def soft(cls, shift: Array) -> Action:
        """Shift every node by ``shift`` (..., d); 0 where nothing is done."""
        _checks.unnamed(shift, "shift")
        shift = _checks.finite(shift, "shift")
        return cls(shift, jnp.asarray(np.zeros(shift.shape, bool)))

    @classmethod
    def shift_node(cls, node: Array, shift: Array, num_nodes: int) -> Action:
        """Shift one node by ``shift`` (); ``node`` () is its position, or -1 for none."""
        _checks.count(num_nodes, "num_nodes")
        node = _checks.array(node, "node", (), kind=int)
        if not _checks.traced(node) and not -1 <= node < num_nodes:
            raise ValueError(f"Expected node in -1, ..., {num_nodes - 1}; got {node}.")
        shift = _checks.finite(shift, "shift", ())
        return cls.soft(jnp.where(node == jnp.arange(num_nodes), shift, 0.0))

    @classmethod
    def do(cls, value: Array, nodes: Array) -> Action:
        """Set the nodes where ``nodes`` (..., d) is True to ``value`` (..., d)."""
        _checks.unnamed(value, "value")
        _checks.unnamed(nodes, "nodes")
        hard = _checks.array(nodes, "nodes", kind=bool)
        value = _checks.finite(value, "value", (), hard.shape)
        return cls(jnp.where(hard, value, 0.0), hard)

    @classmethod
    def by(cls, x: Array, shift: Array, hard: bool) -> Action:
        """Move features ``x`` by ``shift``, both (..., d), with hard or soft interventions."""
        x = _checks.finite(x, "x")
        shift = _checks.finite(shift, "shift", x.shape)
        _checks.instance(hard, bool, "hard")
        return cls.do(x + shift, shift != 0) if hard else cls.soft(shift)

    @classmethod
    def empty(cls, num_nodes: int) -> Action:
        """Do nothing."""
        _checks.count(num_nodes, "num_nodes")
        return cls.soft(jnp.asarray(np.zeros(num_nodes), float))

    @property
    def intervened(self) -> Array:
        """Which nodes are intervened on, shape (..., d), boolean."""
        return self.hard | (self.value != 0)


_FIELDS: dict[str, type] = {
    "actionable": bool,
    "lower": float,
    "upper": float,
    "increase_only": bool,
    "decrease_only": bool,
}


@pytree()
class Constraints:
    """What a user can do. Every field has shape (d,), or (num_users, d) to differ by user.

    A Series or dictionary by name, or a table, is put into the order of the graph's nodes.

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

    Raises
    ------
    TypeError
        If a field is of another kind: 0 and 1, or ``"False"``, are not boolean.
    """

    actionable: Array | None = None
    lower: Array | None = None
    upper: Array | None = None
    increase_only: Array | None = None
    decrease_only: Array | None = None

    def __post_init__(self):
        for name, kind in _FIELDS.items():
            value = getattr(self, name)
            if value is not None:
                names = tuple(value) if isinstance(value, Mapping) else None
                _checks.array(value, f"constraints.{name}", kind=kind, names=names)

    def shift_bounds(
        self, x: Array, names: Sequence[str] | None = None, rows: pd.Index | None = None
    ) -> tuple[Array, Array]:
        """The smallest and largest shift of each feature, each of the shape of ``x`` (..., d).

        Parameters
        ----------
        x : Array
            Shape (..., d), natural units.
        names : sequence of str, optional
            Of the d features: ``graph.nodes``, which named fields are compared with.
        rows : pandas.Index, optional
            Of the users, which the rows of tables are compared with.

        Raises
        ------
        ValueError
            If a field does not broadcast against ``x`` or has other names, or bounds exclude a
            present value.
        """
        x = _checks.finite(x, "x")
        shape = x.shape
        if not shape:
            raise ValueError("Expected x of shape (..., d); got ().")
        if names is not None and len(_checks.names(names, "names")) != shape[-1]:
            raise ValueError(f"Expected names of the {shape[-1]} features in x; got {len(names)}.")
        _checks.instance(rows, pd.Index | None, "rows")

        def field(name, default):
            value, kind = getattr(self, name), _FIELDS[name]
            if value is None:
                return jnp.asarray(default, kind)
            said = f"constraints.{name}"
            value = _checks.array(
                value, said, (), shape[-1:], shape, kind=kind, names=names, rows=rows
            )
            array = _checks.concrete(value)
            if array is not None and np.isnan(array).any():
                raise ValueError(f"Expected no NaN in {said}; got {array}.")
            return value

        lower, upper = field("lower", -jnp.inf), field("upper", jnp.inf)
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
        actionable = field("actionable", True)
        up, down = field("increase_only", False), field("decrease_only", False)
        return _room(x, lower, upper, actionable, up, down)


@jax.jit
def _room(x, lower, upper, actionable, increase_only, decrease_only) -> tuple[Array, Array]:
    """How far each feature may move down (at most 0) and up."""
    low = jnp.where(actionable & ~increase_only, lower - x, 0.0)
    return low, jnp.where(actionable & ~decrease_only, upper - x, 0.0)


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
            if len(sets) == 4095 or num_nodes > 4095:
                raise ValueError(
                    f"Expected at most 4095 intervention sets; got more for num_nodes={num_nodes}, "
                    f"max_size={max_size}. Lower max_size."
                )
            sets.append([j in members for j in range(num_nodes)])
    return np.array(sets)


def set_name(members: Sequence[bool], nodes: Sequence[str]) -> str:
    """A set's name, such as ``"X1+X3"``; ``"none"`` if it is empty."""
    return "+".join(f"{n}" for n, member in zip(nodes, members, strict=True) if member) or "none"
