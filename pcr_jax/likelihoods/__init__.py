"""How well a surrogate's expected answers must match what the user said."""

from pcr_jax.likelihoods.base import HardSupport, Likelihood, check_likelihood, has_hard_support
from pcr_jax.likelihoods.mixture import Mixture, mixture
from pcr_jax.likelihoods.tolerance import TEMPERATURE, Relaxed, Tolerance, relaxed, tolerance

__all__ = [
    "TEMPERATURE",
    "HardSupport",
    "Likelihood",
    "Mixture",
    "Relaxed",
    "Tolerance",
    "check_likelihood",
    "has_hard_support",
    "mixture",
    "relaxed",
    "tolerance",
]
