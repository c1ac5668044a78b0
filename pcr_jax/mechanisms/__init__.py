"""Mechanisms: how a node's value comes from its causes and its noise."""

from pcr_jax.mechanisms.additive import Mechanism, linear
from pcr_jax.mechanisms.base import Assignment
from pcr_jax.mechanisms.within import Within

__all__ = ["Assignment", "Mechanism", "Within", "linear"]
