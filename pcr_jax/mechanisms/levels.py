"""Nodes of a few levels 0, 1, ..., K - 1, whose noise does not follow from the value.

Many noises lead to one level, so that abduction leaves a distribution over them. A scenario is one
draw of it: see `pcr_jax.scm.scenarios`. Values between levels are taken for the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import expit, logit
from scipy.stats import qmc

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.mechanisms.additive import Negated, Opposite, linear

_INSIDE = 1e-4  # of the way between the noises of two neighbouring levels, that is kept to both
_DRAWS = 500  # of Gumbel noise that can be drawn


def _level(value: Array, num_levels: int) -> Array:
    """The nearest level, an integer; (...)."""
    return jnp.clip(jnp.round(value), 0, num_levels - 1).astype(int)


@pytree(static=("function",))
class Ordered:
    """Levels in order: how many cut points lie below ``f_j(Pa_j) + U_j``, U_j logistic.

    The ordered logit, or proportional odds model (McCullagh 1980).

    Parameters
    ----------
    coefficients : Array
        Shape (k,), of f_j; leading axes for a batch of SCMs.
    cuts : Array
        Shape (K - 1,), increasing; leading axes as of ``coefficients``.
    function : callable
        f_j as of `Mechanism`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``cuts`` do not increase, or shapes disagree.
    """

    coefficients: Array
    cuts: Array
    function: Callable[[Array, Array], Array] = linear

    invertible, linear = False, False

    def __post_init__(self):
        for name in ("coefficients", "cuts"):
            value = _checks.reported(getattr(self, name), name)
            if not value.ndim:
                raise ValueError(f"Expected {name} of shape (k,); got ().")
            object.__setattr__(self, name, value)
        if self.coefficients.shape[:-1] != self.cuts.shape[:-1] or not self.cuts.shape[-1]:
            raise ValueError(
                "Expected cuts, one at least, with the leading axes of coefficients; got shapes "
                f"{self.cuts.shape} and {self.coefficients.shape}."
            )
        cuts = _checks.concrete(self.cuts)
        if cuts is not None and (np.diff(cuts) <= 0).any():
            raise ValueError(f"Expected increasing cuts; got {cuts}.")
        _checks.function(self.function, "function", "(coefficients, parents) -> value")

    @property
    def noise(self) -> dist.Distribution:
        """The distribution of U_j."""
        return dist.Logistic(0.0, 1.0)

    @property
    def num_levels(self) -> int:
        """K."""
        return self.cuts.shape[-1] + 1

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients."""
        return self.coefficients.shape[:-1]

    def check(self, num_parents: int, node: str) -> None:
        """Raise unless a linear f_j has a coefficient for every parent."""
        num = self.coefficients.shape[-1]
        if self.function is linear and num != num_parents:
            raise ValueError(
                f"Expected coefficients for each of the {num_parents} parents of node {node!r}; "
                f"got {num}."
            )

    def assign(self, parents: Array, noise: Array) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        latent = self.function(self.coefficients, parents) + noise
        below = [(latent >= cut).astype(latent.dtype) for cut in jnp.unstack(self.cuts, axis=-1)]
        return sum(below, start=jnp.zeros_like(latent))

    def abduct(self, parents: Array, value: Array, unit: Any = None) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`; ``unit`` is the rank among what fits."""
        level = _level(value, self.num_levels)
        far = jnp.full((*self.cuts.shape[:-1], 1), jnp.inf)
        ends = jnp.concatenate([-far, self.cuts, far], -1)
        effect = self.function(self.coefficients, parents)
        low, high = (
            jnp.take_along_axis(
                jnp.broadcast_to(ends, (*level.shape, ends.shape[-1])), at[..., None], -1
            )[..., 0]
            - effect
            for at in (level, level + 1)
        )
        # From the side where the probabilities are small, which are exact there.
        mirrored = low > 0
        near, other = jnp.where(mirrored, -high, low), jnp.where(mirrored, -low, high)
        rank = jnp.where(mirrored, 1 - unit, unit)
        below, above = expit(near), expit(other)
        noise = logit(below + rank * (above - below))
        between = jnp.isfinite(other - near)
        room = _INSIDE * jnp.where(between, other - near, 1 + jnp.abs(effect))
        noise = jnp.clip(noise, near + room, other - room)
        return jnp.where(mirrored, -noise, noise)

    def inverted(self) -> Ordered:
        """The mechanism with -f_j."""
        return Ordered(self.coefficients, self.cuts, Negated(self.function))


@cache
def _gumbels(num_levels: int) -> np.ndarray:
    """Noise of every level, (_DRAWS + num_levels, num_levels); in the last rows one is sure."""
    points = qmc.Halton(num_levels, rng=0).random(_DRAWS)
    gumbels = -np.log(-np.log(np.clip(points, 1e-9, 1 - 1e-9)))
    sure = np.where(np.eye(num_levels) > 0, 1e6, 0.0)
    return np.concatenate([gumbels, sure])


def affine(coefficients: Array, parents: Array) -> Array:
    """Each level's ``a + sum_p b_p parents[p]``; coefficients (..., K, 1 + P), shape (..., K)."""
    first, rest = coefficients[..., 0], coefficients[..., 1:]
    pairs = zip(jnp.unstack(rest, axis=-1), jnp.unstack(parents, axis=-1), strict=True)
    return sum((b * parent[..., None] for b, parent in pairs), start=first)


@pytree(static=("function",))
class Categorical:
    """Levels without order: the one whose ``logit + Gumbel noise`` is the largest.

    What is known of counterfactuals without order: a level becomes another only if the odds turned
    in favour of that one (Oberst & Sontag 2019, "Counterfactual off-policy evaluation with
    Gumbel-max structural causal models"). The noise, uniform, chooses among 500 points of a Halton
    sequence in the levels' noises, and K more that each lead to one level whatever the causes.

    Parameters
    ----------
    coefficients : Array
        Shape (K, k), of all logits; leading axes for a batch of SCMs.
    function : callable
        ``function(coefficients, parents) -> logits``, with parents of shape (..., num_parents) and
        logits of shape (..., K). By default `affine`, of k = 1 + num_parents.

    Raises
    ------
    TypeError
        If ``coefficients`` are no numbers, or ``function`` is not callable.
    ValueError
        If ``coefficients`` have less than two axes or levels.
    """

    coefficients: Array
    function: Callable[[Array, Array], Array] = affine

    invertible, linear = False, False

    def __post_init__(self):
        coefficients = _checks.reported(self.coefficients, "coefficients")
        if coefficients.ndim < 2 or coefficients.shape[-2] < 2:
            raise ValueError(
                f"Expected coefficients of shape (K, k), K >= 2; got {coefficients.shape}."
            )
        object.__setattr__(self, "coefficients", coefficients)
        _checks.function(self.function, "function", "(coefficients, parents) -> logits")

    @property
    def noise(self) -> dist.Distribution:
        """The distribution of U_j."""
        return dist.Uniform(0.0, 1.0)

    @property
    def num_levels(self) -> int:
        """K."""
        return self.coefficients.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients."""
        return self.coefficients.shape[:-2]

    def check(self, num_parents: int, node: str) -> None:
        """Raise unless affine logits have a coefficient for every parent, and one more."""
        num = self.coefficients.shape[-1]
        if self.function is affine and num != 1 + num_parents:
            raise ValueError(
                f"Expected {1 + num_parents} coefficients for each level, the first and those of "
                f"the parents of node {node!r}; got {num}."
            )

    def _logits(self, parents):
        return self.function(self.coefficients, parents)

    def assign(self, parents: Array, noise: Array) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        gumbels = jnp.asarray(_gumbels(self.num_levels), float)
        rows = jnp.clip((noise * len(gumbels)).astype(int), 0, len(gumbels) - 1)
        return jnp.argmax(self._logits(parents) + gumbels[rows], -1).astype(gumbels.dtype)

    def abduct(self, parents: Array, value: Array, unit: Any = None) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`; ``unit`` is the rank among what fits."""
        gumbels = jnp.asarray(_gumbels(self.num_levels), float)
        won = jnp.argmax(self._logits(parents)[..., None, :] + gumbels, -1)
        fits = jnp.cumsum(won == _level(value, self.num_levels)[..., None], -1)
        rank = jnp.ceil(unit * fits[..., -1])
        row = jnp.argmax(fits >= jnp.maximum(rank, 1)[..., None], -1)
        return (row + 0.5) / len(gumbels)

    def inverted(self) -> Categorical:
        """The mechanism with the causes' signs changed."""
        return Categorical(self.coefficients, Opposite(self.function))
