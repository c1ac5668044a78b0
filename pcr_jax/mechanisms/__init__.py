"""Mechanisms: how a node's value comes from its causes and its noise."""

from pcr_jax.mechanisms.additive import Mechanism, linear
from pcr_jax.mechanisms.base import Assignment
from pcr_jax.mechanisms.invertible import Invertible, bounded, location_scale, multiplicative
from pcr_jax.mechanisms.levels import Categorical, Ordered, affine
from pcr_jax.mechanisms.within import Within

__all__ = [
    "Assignment",
    "Categorical",
    "Invertible",
    "Mechanism",
    "Ordered",
    "Within",
    "affine",
    "bounded",
    "linear",
    "location_scale",
    "multiplicative",
]
