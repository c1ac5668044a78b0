"""Mechanisms whose values stay in a range, and on whole numbers where those are all there are."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.mechanisms.base import Assignment


@pytree()
class Within:
    """Another mechanism, rounded to multiples of a step and clipped to a range.

    Of the noises that give a value, that with which it is neither rounded nor clipped is taken.

    Parameters
    ----------
    mechanism : Assignment
    low, high : Array
        Shape (...,), natural units, with the mechanism's leading axes.
    step : Array
        Shape (...,); 0 where any number will do.
    """

    mechanism: Any
    low: Array
    high: Array
    step: Array

    linear = False

    @classmethod
    def of(cls, mechanism: Assignment, low: float, high: float, step: float) -> Within:
        """With the same numbers for all of a batch."""
        shape, dtype = mechanism.batch_shape, jnp.result_type(float)
        return cls(mechanism, *(np.full(shape, value, dtype) for value in (low, high, step)))  # type: ignore[arg-type]

    @property
    def invertible(self) -> bool:
        """Whether the mechanism is."""
        return self.mechanism.invertible

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The mechanism's."""
        return self.mechanism.batch_shape

    def check(self, num_parents: int, node: str) -> None:
        """As the mechanism does."""
        self.mechanism.check(num_parents, node)

    def assign(self, parents: Array, noise: Array) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        value = self.mechanism.assign(parents, noise)
        step = jnp.where(self.step > 0, self.step, 1.0)
        value = jnp.where(self.step > 0, jnp.round(value / step) * step, value)
        return jnp.clip(value, self.low, self.high)

    def abduct(self, parents: Array, value: Array, unit: Array | None = None) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        return self.mechanism.abduct(parents, value, unit)

    def inverted(self) -> Within:
        """The same range of the mechanism's inverse."""
        return Within(self.mechanism.inverted(), self.low, self.high, self.step)
