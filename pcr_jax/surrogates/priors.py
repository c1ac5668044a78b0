"""What is believed of numbers before anybody is asked: the contract of priors, and the box."""

from __future__ import annotations

from functools import reduce
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree


class Prior(Protocol):
    """A distribution of k independent numbers; a pytree, whose parameters are leaves.

    Independent exponential numbers:

    >>> from dataclasses import dataclass
    >>> import jax, jax.numpy as jnp
    >>> @jax.tree_util.register_dataclass
    ... @dataclass(frozen=True)
    ... class Exponential:
    ...     mean: jax.Array
    ...     box = None
    ...     batch_shape = property(lambda self: self.mean.shape[:-1])
    ...
    ...     def log_prob(self, theta):
    ...         inside = jnp.where(theta >= 0, 0.0, -jnp.inf)
    ...         return jnp.sum(inside - theta / self.mean - jnp.log(self.mean))
    ...
    ...     def from_unit(self, unit):
    ...         return -self.mean * jnp.log1p(-unit)
    ...
    ...     def from_real(self, real):
    ...         theta = jnp.exp(real)
    ...         return theta, self.log_prob(theta) + real.sum()
    ...
    ...     def to_real(self, theta):
    ...         return jnp.log(theta)
    >>> bool(jnp.isclose(Exponential(jnp.ones(1)).from_unit(0.5), jnp.log(2.0)))
    True

    Attributes
    ----------
    batch_shape : tuple of int
        () for one prior, (num_users,) for one per user, through `jax.vmap` all of them.
    box : Array or None
        Shape (..., 2, k): the ends of the box on which it is uniform; None if it is another.
    """

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the parameters."""

    @property
    def box(self) -> Array | None:
        """The ends of the box on which it is uniform, if it is."""

    def log_prob(self, theta: Array) -> Array:
        """Log density of ``theta`` (k,), -inf where it is impossible; shape ()."""

    def from_unit(self, unit: Array) -> Array:
        """Draws, from ``unit`` (..., k) uniform in the unit cube; shape (..., k)."""

    def from_real(self, real: Array) -> tuple[Array, Array]:
        """The point at ``real`` (k,), any numbers, and the prior's log density *of ``real``*.

        That is `log_prob` and the logarithm of the Jacobian together, which computed apart may be
        infinite where rounding ends on the border.
        """

    def to_real(self, theta: Array) -> Array:
        """The inverse of `from_real`'s point, at a finite place for points on the border too."""


def from_unit(box: Array, unit: Array) -> Array:
    """The point of ``box`` (2, k) at ``unit`` (..., k) of the unit cube."""
    return box[0] + (box[1] - box[0]) * unit


def is_inside(box: Array, theta: Array) -> Array:
    """Whether ``theta`` (k,) lies in ``box`` (2, k); number by number, as in likelihoods; ()."""
    sides = zip(*map(jnp.unstack, (box[0], theta, box[1])), strict=True)
    return reduce(jnp.logical_and, [(low <= t) & (t <= high) for low, t, high in sides])


@pytree()
class Box:
    """Uniform between ``low`` and ``high`` for each number, a `Prior`.

    Parameters
    ----------
    low, high : Array
        Shape (k,), or (num_users, k) for a prior per user.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If they are not finite, of different shapes, or not ``low < high``.
    """

    low: Array
    high: Array

    def __post_init__(self):
        low = _checks.on_host(self.low, "low")
        high = _checks.on_host(self.high, "high", low.shape)
        if low.ndim not in (1, 2):
            raise ValueError(f"Expected low of shape (k,) or (num_users, k); got {low.shape}.")
        ends = _checks.concrete(low), _checks.concrete(high)
        if all(end is not None for end in ends) and not (ends[0] < ends[1]).all():
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes: (), or (num_users,)."""
        return np.shape(self.low)[:-1]

    @property
    def box(self) -> Array:
        """Both ends, shape (..., 2, k); NumPy's where they are, so that no backend need start."""
        stack: Any = np.stack if isinstance(self.low, np.ndarray) else jnp.stack
        return stack([self.low, self.high], -2)

    def log_prob(self, theta: Array) -> Array:
        """Log density of ``theta`` (k,), -inf outside; ()."""
        log_volume = jnp.sum(jnp.log(jnp.asarray(self.high) - jnp.asarray(self.low)))
        return jnp.where(is_inside(self.box, theta), -log_volume, -jnp.inf)

    def from_unit(self, unit: Array) -> Array:
        """The point at ``unit`` (..., k) of the unit cube."""
        return from_unit(jnp.asarray(self.box), unit)

    def from_real(self, real: Array) -> tuple[Array, Array]:
        """The logistic function's, and the log density (of the logistic distribution); ()."""
        log_density = jnp.sum(jax.nn.log_sigmoid(real) + jax.nn.log_sigmoid(-real))
        return self.from_unit(jax.nn.sigmoid(real)), log_density

    def to_real(self, theta: Array) -> Array:
        """The logit; a millionth of the box inside of its border for points there."""
        unit = (theta - self.low) / (jnp.asarray(self.high) - self.low)
        return jax.scipy.special.logit(jnp.clip(unit, 1e-6, 1 - 1e-6))
