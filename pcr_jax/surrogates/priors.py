"""What is believed of numbers before anybody is asked: priors.

Their contract; the box; and normals, of which each block of numbers may have one of several.
"""

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
    """A distribution of k numbers; a pytree, whose parameters are leaves.

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


def place_in(box: Array, theta: Array) -> Array:
    """The inverse of `from_unit`; 1/2 for numbers that are known."""
    low, high = jnp.asarray(box)
    return jnp.where(high > low, (theta - low) / jnp.where(high > low, high - low, 1.0), 0.5)


def log_widths(box: Array) -> Array:
    """Logarithms of a box's widths, 0 for numbers that are known; (k,)."""
    low, high = jnp.asarray(box)
    return jnp.log(jnp.where(high > low, high - low, 1.0))


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
        Shape (k,), or (num_users, k) for a prior per user. Where they are the same, the number is
        known, and the density is that of the others.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If they are not finite, of different shapes, not ``low <= high``, or the same for all
        numbers of a user.
    """

    low: Array
    high: Array

    def __post_init__(self):
        low = _checks.on_host(self.low, "low")
        high = _checks.on_host(self.high, "high", low.shape)
        if low.ndim not in (1, 2):
            raise ValueError(f"Expected low of shape (k,) or (num_users, k); got {low.shape}.")
        ends = _checks.concrete(low), _checks.concrete(high)
        if all(end is not None for end in ends):
            free = ends[0] < ends[1]
            if (ends[0] > ends[1]).any() or (free.size and not free.any(-1).all()):
                raise ValueError(
                    "Expected low < high, or for some numbers low == high; got "
                    f"low={self.low}, high={self.high}."
                )
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
        log_volume = log_widths(self.box).sum()
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
        unit = place_in(self.box, theta)
        return jax.scipy.special.logit(jnp.clip(unit, 1e-6, 1 - 1e-6))


@pytree(static=("blocks",))
class NormalMixture:
    """Numbers in blocks, each block from one of several normals; a `Prior`. See `normal_prior`.

    With one normal that is wide and one that is narrow it is "spike and slab" (George & McCulloch
    1993): how free a mechanism is, is then averaged by evidence.

    Parameters
    ----------
    weights : Array
        Shape (C,): how probable each normal is.
    mean : Array
        Shape (C, k).
    factor : Array
        Shape (C, k, k), lower triangular: times its transpose the covariance, which is 0 between
        blocks.
    blocks : tuple of int
        Of each number its block's, counted from 0.

    Every array may have a leading axis of users.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If their shapes disagree, they are not finite, weights are negative or do not add up to 1,
        a factor has no positive diagonal, is not lower triangular, or ties blocks together.
    """

    weights: Array
    mean: Array
    factor: Array
    blocks: tuple[int, ...]

    box = None

    def __post_init__(self):
        blocks = self.blocks
        if not isinstance(blocks, tuple) or not all(isinstance(block, int) for block in blocks):
            raise TypeError(f"Expected blocks to be a tuple of int; got {_checks.shown(blocks)}.")
        k = len(blocks)
        factor = _checks.on_host(self.factor, "factor")
        if factor.ndim not in (3, 4) or factor.shape[-2:] != (k, k):
            raise ValueError(
                f"Expected factor of shape (C, {k}, {k}), or (num_users, C, {k}, {k}), for {k} "
                f"blocks; got {factor.shape}."
            )
        weights = _checks.on_host(self.weights, "weights", factor.shape[:-2])
        mean = _checks.on_host(self.mean, "mean", factor.shape[:-1])
        if sorted(set(self.blocks)) != list(range(max(self.blocks) + 1)):
            raise ValueError(f"Expected blocks counted from 0; got {self.blocks}.")
        entries = _checks.concrete(factor), _checks.concrete(weights)
        if all(entry is not None for entry in entries):
            if (entries[1] < 0).any() or not np.allclose(entries[1].sum(-1), 1, atol=1e-5):
                raise ValueError(f"Expected weights that add up to 1; got {self.weights}.")
            apart = np.not_equal.outer(self.blocks, self.blocks) | np.triu(np.ones((k, k), bool), 1)
            if (entries[0][..., apart] != 0).any():
                raise ValueError(
                    "Expected factor to be lower triangular, and 0 between blocks; got other "
                    "numbers there."
                )
            if not (np.diagonal(entries[0], axis1=-2, axis2=-1) > 0).all():
                raise ValueError("Expected factor with a positive diagonal.")
        for name, value in (("factor", factor), ("weights", weights), ("mean", mean)):
            object.__setattr__(self, name, value)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes: (), or (num_users,)."""
        return np.shape(self.weights)[:-1]

    def log_prob(self, theta: Array) -> Array:
        """Log density of ``theta`` (k,); ()."""
        factor = jnp.asarray(self.factor)
        eye = jnp.broadcast_to(jnp.eye(factor.shape[-1]), factor.shape)
        # Of many thetas, inverted once: XLA solves one triangular system after the other.
        inverse = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
        z = jnp.einsum("cij,cj->ci", inverse, theta - jnp.asarray(self.mean))
        log_diagonal = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
        each = jax.scipy.stats.norm.logpdf(z) - log_diagonal
        of_blocks = each @ np.eye(max(self.blocks) + 1)[list(self.blocks)]
        log_weights = jnp.log(jnp.asarray(self.weights))[:, None]
        return jax.nn.logsumexp(log_weights + of_blocks, axis=0).sum()

    def from_unit(self, unit: Array) -> Array:
        """Draws (..., k): the first ``unit`` of a block also says which normal it is of."""
        weights, blocks = jnp.asarray(self.weights), np.array(self.blocks)
        first = np.unique(blocks, return_index=True)[1]
        ends = jnp.cumsum(weights)

        def one(unit):
            which = jnp.clip(jnp.searchsorted(ends, unit[first], side="right"), 0, len(ends) - 1)
            rest = (unit[first] - (ends - weights)[which]) / weights[which]
            least = jnp.finfo(rest.dtype).eps
            z = jax.scipy.special.ndtri(jnp.clip(unit.at[first].set(rest), least, 1 - least))
            mine = which[blocks]
            rows = jnp.asarray(self.factor)[mine, np.arange(len(blocks))]
            return jnp.asarray(self.mean)[mine, np.arange(len(blocks))] + rows @ z

        return jnp.vectorize(one, signature="(k)->(k)")(unit)

    def from_real(self, real: Array) -> tuple[Array, Array]:
        """The numbers themselves, and their log density; ()."""
        return real, self.log_prob(real)

    def to_real(self, theta: Array) -> Array:
        """The numbers themselves."""
        return theta


def normal_prior(mean, sd) -> NormalMixture:
    """Independent normal numbers.

    Parameters
    ----------
    mean, sd : sequence of float
        Shape (k,), or (num_users, k) for a prior per user.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If they have other shapes, or not ``sd > 0``.
    """
    mean, sd = _checks.on_host(mean, "mean"), _checks.on_host(sd, "sd")
    if mean.ndim not in (1, 2) or mean.size == 0:
        raise ValueError(f"Expected mean of shape (k,) or (num_users, k); got {mean.shape}.")
    if sd.shape != mean.shape:
        raise ValueError(f"Expected mean and sd of one shape; got {mean.shape} and {sd.shape}.")
    _checks.positive(sd, "sd")
    factor = sd[..., None] * np.eye(mean.shape[-1], dtype=sd.dtype)
    weights: Any = np.ones((*mean.shape[:-1], 1), sd.dtype)
    blocks = tuple(range(mean.shape[-1]))
    return NormalMixture(weights, mean[..., None, :], factor[..., None, :, :], blocks)
