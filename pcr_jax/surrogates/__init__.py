"""The families of SCMs among which a user's own is sought, and their priors."""

from pcr_jax.surrogates.base import Surrogate, check_surrogate, check_users, for_users, in_scale
from pcr_jax.surrogates.linear import LinearSurrogate, linear_surrogate
from pcr_jax.surrogates.priors import Box, Prior

__all__ = [
    "Box",
    "LinearSurrogate",
    "Prior",
    "Surrogate",
    "check_surrogate",
    "check_users",
    "for_users",
    "in_scale",
    "linear_surrogate",
]
