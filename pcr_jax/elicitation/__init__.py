"""Elicitation: who is asked what."""

from pcr_jax.elicitation.designs import Belief, Design, RandomDesign
from pcr_jax.elicitation.elicit import elicit
from pcr_jax.elicitation.respondents import Respondent, SimulatedUser

__all__ = ["Belief", "Design", "RandomDesign", "Respondent", "SimulatedUser", "elicit"]
