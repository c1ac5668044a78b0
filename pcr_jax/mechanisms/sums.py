"""Sums of functions of the parents, one of each, and of products of two: what regressions fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Sum:
    """The function of a `Mechanism`: an intercept, a part for each parent, and products.

    Its coefficients are the intercept; the slopes of numbers; effects of levels but the first,
    parent by parent; of all cubic splines, which go on as lines beyond their ends, the lower ends,
    the distances to the upper ones, the places of the knots between them, from 0 to 1, spline by
    spline, the coefficients of the first, second and third powers, and the changes of the third at
    the knots, spline by spline; and of all products the first's and the second's centres, and the
    weights.

    Parameters
    ----------
    levels : tuple of int
        Of each parent; 0 of a number.
    bent : tuple of int
        Parents that have a spline beside their slope.
    num_knots : int
        Of each spline.
    products : tuple of (int, int)
    """

    levels: tuple[int, ...]
    bent: tuple[int, ...] = ()
    num_knots: int = 0
    products: tuple[tuple[int, int], ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether there are slopes alone."""
        return not (self.products or self.bent or any(self.levels))

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Of parents (..., num_parents); shape (...)."""
        begin = 0

        def numbers(*shape):
            nonlocal begin
            begin, end = begin + math.prod(shape), begin
            part = coefficients[..., end:begin]
            return part.reshape(*part.shape[:-1], *shape)

        def of(which):
            return parents[..., list(which)]

        total = numbers(1)[..., 0]
        if lines := [p for p, num in enumerate(self.levels) if not num]:
            total = total + (numbers(len(lines)) * of(lines)).sum(-1)
        for p, num in enumerate(self.levels):
            if num:
                is_level = jnp.round(parents[..., p, None]) == jnp.arange(1, num)
                total = total + (numbers(num - 1) * is_level).sum(-1)
        if num := len(self.bent):
            low, width, knots = numbers(num), numbers(num), numbers(num, self.num_knots)
            first, second, third = (numbers(num) for _ in range(3))
            changes = numbers(num, self.num_knots)
            place = (of(self.bent) - low) / width
            t = jnp.clip(place, 0.0, 1.0)
            past = jnp.maximum(t[..., None] - knots, 0.0)
            squares = changes * past**2
            value = t * (first + t * (second + t * third)) + (squares * past).sum(-1)
            steep = first + t * (2 * second + 3 * t * third) + 3 * squares.sum(-1)
            total = total + (value + steep * (place - t)).sum(-1)
        if num := len(self.products):
            first, second, weight = (numbers(num) for _ in range(3))
            a, b = zip(*self.products, strict=True)
            total = total + (weight * (of(a) - first) * (of(b) - second)).sum(-1)
        return total


@dataclass(frozen=True)
class PerLevel:
    """The same function for every level of a `Categorical`."""

    function: Sum

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Of coefficients (..., K, k) and parents (..., num_parents); shape (..., K)."""
        return self.function(coefficients, parents[..., None, :])


@dataclass(frozen=True)
class Clipped:
    """A function that is kept within two numbers, the first of its coefficients."""

    function: Sum

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """Shape (...)."""
        value = self.function(coefficients[..., 2:], parents)
        return jnp.clip(value, coefficients[..., 0], coefficients[..., 1])
