"""Sums of functions of the parents, one of each, and of products of two: what regressions fit."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Sum:
    """The function of a `Mechanism`: an intercept, a part for each parent, and products.

    Its coefficients are the intercept, then each part's numbers, then of each product the two
    centres and a weight.

    Parameters
    ----------
    parts : tuple of (str, int)
        For each parent ``("line", 0)``, whose number is its slope; ``("spline", m)``, a cubic
        spline with m knots between its ends, beyond which it is a line: a slope, the lower end, the
        distance to the upper one, the knots' places between 0 and 1, the coefficients of the first
        three powers, and the changes of the third at the knots; or ``("levels", K)``, with the
        effects of levels 1, ..., K - 1.
    products : tuple of (int, int)
        Parents by position.
    """

    parts: tuple[tuple[str, int], ...]
    products: tuple[tuple[int, int], ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether there are lines alone."""
        return not self.products and all(kind == "line" for kind, _ in self.parts)

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Of parents (..., num_parents); shape (...)."""
        numbers = iter(jnp.unstack(coefficients, axis=-1))
        columns = jnp.unstack(parents, axis=-1)
        total = next(numbers)
        for (kind, size), x in zip(self.parts, columns, strict=True):
            if kind == "line":
                total = total + next(numbers) * x
            elif kind == "levels":
                effects = [next(numbers) for _ in range(size - 1)]
                level = jnp.round(x)
                for k, effect in enumerate(effects, 1):
                    total = total + jnp.where(level == k, effect, 0.0)
            else:
                total = total + _spline(numbers, size, x)
        for a, b in self.products:
            first, second, weight = (next(numbers) for _ in range(3))
            total = total + weight * (columns[a] - first) * (columns[b] - second)
        return total


def _spline(numbers, num_knots: int, x: Array) -> Array:
    """One parent's spline; ``numbers`` are its coefficients and those after it."""
    slope, low, width = (next(numbers) for _ in range(3))
    knots = [next(numbers) for _ in range(num_knots)]
    first, second, third = (next(numbers) for _ in range(3))
    changes = [next(numbers) for _ in range(num_knots)]
    place = (x - low) / width
    t = jnp.clip(place, 0.0, 1.0)
    value = t * (first + t * (second + t * third))
    steep = first + t * (2 * second + 3 * t * third)
    for knot, change in zip(knots, changes, strict=True):
        past = jnp.maximum(t - knot, 0.0)
        value = value + change * past**3
        steep = steep + 3 * change * past**2
    return slope * x + value + steep * (place - t)


@dataclass(frozen=True)
class PerLevel:
    """The same function for every level of a `Categorical`."""

    function: Sum

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Of coefficients (..., K, k) and parents (..., num_parents); shape (..., K)."""
        return self.function(coefficients, parents[..., None, :])


@dataclass(frozen=True)
class Within:
    """A function that is kept within two numbers, the first of its coefficients."""

    function: Sum

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Shape (...)."""
        value = self.function(coefficients[..., 2:], parents)
        return jnp.clip(value, coefficients[..., 0], coefficients[..., 1])
