"""Respondents: who answers the questions, and how they err."""

from pcr_jax.elicitation.respondents.base import Respondent
from pcr_jax.elicitation.respondents.simulated import SimulatedUser, sample_error_rates
from pcr_jax.elicitation.respondents.wrong import Anchored, Asked, Broad, TooWeak, Wrong

__all__ = [
    "Anchored",
    "Asked",
    "Broad",
    "Respondent",
    "SimulatedUser",
    "TooWeak",
    "Wrong",
    "sample_error_rates",
]
