"""Designs: which question to ask next."""

from pcr_jax.elicitation.designs.base import Belief, Design
from pcr_jax.elicitation.designs.random import RandomDesign

__all__ = ["Belief", "Design", "RandomDesign"]
