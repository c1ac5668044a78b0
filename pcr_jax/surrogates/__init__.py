"""The families of SCMs among which a user's own is sought, and their priors."""

from pcr_jax.surrogates.base import Surrogate, check_surrogate, check_users, for_users, in_scale
from pcr_jax.surrogates.basis import BasisSurrogate, basis_surrogate
from pcr_jax.surrogates.learned import learned_prior
from pcr_jax.surrogates.linear import LinearSurrogate, linear_surrogate
from pcr_jax.surrogates.priors import Box, NormalMixture, Prior, normal_prior

__all__ = [
    "BasisSurrogate",
    "Box",
    "LinearSurrogate",
    "NormalMixture",
    "Prior",
    "Surrogate",
    "basis_surrogate",
    "check_surrogate",
    "check_users",
    "for_users",
    "in_scale",
    "learned_prior",
    "linear_surrogate",
    "normal_prior",
]
