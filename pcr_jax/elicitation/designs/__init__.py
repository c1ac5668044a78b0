"""Designs: which question to ask next."""

from pcr_jax.elicitation.designs.base import Belief, Design
from pcr_jax.elicitation.designs.decision import DecisionDesign, Outlook
from pcr_jax.elicitation.designs.information import InformationDesign
from pcr_jax.elicitation.designs.random import RandomDesign
from pcr_jax.elicitation.designs.thompson import ThompsonDesign

__all__ = [
    "Belief",
    "DecisionDesign",
    "Design",
    "InformationDesign",
    "Outlook",
    "RandomDesign",
    "ThompsonDesign",
]
