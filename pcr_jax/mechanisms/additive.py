"""Mechanisms with additive noise, whose inverse comes for free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree


def linear(coefficients: Array, parents: Array) -> Array:
    """``sum_p coefficients[p] * parents[p]``, over the last axis."""
    # Term by term: XLA fuses that into the caller's loop, which it does not do with a reduction.
    pairs = zip(jnp.unstack(coefficients, axis=-1), jnp.unstack(parents, axis=-1), strict=True)
    terms = [coefficient * parent for coefficient, parent in pairs]
    return sum(terms, start=jnp.zeros(jnp.broadcast_shapes(coefficients.shape, parents.shape)[:-1]))


@pytree(static=("function",))
class Mechanism:
    """The deterministic part f_j of ``X_j := f_j(Pa_j) + U_j``.

    Parameters
    ----------
    coefficients : Array
        Shape (k,); leading axes for a batch of SCMs.
    function : callable
        ``function(coefficients, parents) -> value``, with parents of shape (..., num_parents)
        and value of shape (...). Define it once at module level: its identity is part of what
        `jax.jit` caches on.

    Raises
    ------
    TypeError
        If ``coefficients`` are no numbers, or ``function`` is not callable.
    ValueError
        If ``coefficients`` have no axis.
    """

    coefficients: Array
    function: Callable[[Array, Array], Array] = linear

    def __post_init__(self):
        coefficients = _checks.reported(self.coefficients, "coefficients")
        if not coefficients.ndim:
            raise ValueError("Expected coefficients of shape (k,); got ().")
        object.__setattr__(self, "coefficients", coefficients)
        _checks.function(self.function, "function", "(coefficients, parents) -> value")

    invertible = True

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients."""
        return self.coefficients.shape[:-1]

    @property
    def linear(self) -> bool:
        """Whether it is a sum of the parents times the coefficients."""
        return self.function is linear

    def check(self, num_parents: int, node: str) -> None:
        """Raise unless a linear one has a coefficient for every parent."""
        num = self.coefficients.shape[-1]
        if self.linear and num != num_parents:
            raise ValueError(
                f"Expected coefficients for each of the {num_parents} parents of node {node!r}, "
                f"whose mechanism is linear; got {num}."
            )

    def __call__(self, parents: Array) -> Array:
        """f_j of ``parents`` (..., num_parents); shape (...)."""
        return self.function(self.coefficients, parents)

    def assign(self, parents: Array, noise: Array) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        return self(parents) + noise

    def abduct(self, parents: Array, value: Array, unit: Array | None = None) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        return value - self(parents)

    def inverted(self) -> Mechanism:
        """The mechanism -f_j."""
        return Mechanism(self.coefficients, Negated(self.function))


@dataclass(frozen=True)
class Negated:
    """The function with the opposite sign."""

    function: Callable

    def __call__(self, coefficients, parents):
        """Its value."""
        return -self.function(coefficients, parents)


@dataclass(frozen=True)
class Opposite:
    """The function of parents with the opposite signs."""

    function: Callable

    def __call__(self, coefficients, parents, *noise):
        """Its value."""
        return self.function(coefficients, -parents, *noise)
