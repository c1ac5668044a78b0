"""Elicitation: who is asked what."""

from pcr_jax.elicitation.designs import Belief, Design, RandomDesign
from pcr_jax.elicitation.elicit import elicit
from pcr_jax.elicitation.respondents import (
    Anchored,
    Asked,
    Broad,
    Respondent,
    SimulatedUser,
    TooWeak,
    Wrong,
    sample_error_rates,
)

__all__ = [
    "Anchored",
    "Asked",
    "Belief",
    "Broad",
    "Design",
    "RandomDesign",
    "Respondent",
    "SimulatedUser",
    "TooWeak",
    "Wrong",
    "elicit",
    "sample_error_rates",
]
