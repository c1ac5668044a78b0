"""Samplers: what draws from one user's posterior."""

from pcr_jax.inference.samplers.base import Sampler, Samples
from pcr_jax.inference.samplers.ess import Ess
from pcr_jax.inference.samplers.gibbs import Gibbs
from pcr_jax.inference.samplers.nuts import Nuts
from pcr_jax.inference.samplers.registry import SAMPLERS
from pcr_jax.inference.samplers.smc import Smc
from pcr_jax.inference.samplers.zeus import Zeus

__all__ = ["SAMPLERS", "Ess", "Gibbs", "Nuts", "Sampler", "Samples", "Smc", "Zeus"]
