"""Elicitation: who is asked what."""

from pcr_jax.elicitation.designs import (
    Belief,
    DecisionDesign,
    Design,
    InformationDesign,
    Outlook,
    RandomDesign,
    ThompsonDesign,
)
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
    "DecisionDesign",
    "Design",
    "InformationDesign",
    "Outlook",
    "RandomDesign",
    "Respondent",
    "SimulatedUser",
    "ThompsonDesign",
    "TooWeak",
    "Wrong",
    "elicit",
    "sample_error_rates",
]
