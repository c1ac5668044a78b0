"""The samplers that a name stands for."""

from collections.abc import Callable

from pcr_jax.inference.samplers.base import Sampler
from pcr_jax.inference.samplers.ess import Ess
from pcr_jax.inference.samplers.gibbs import Gibbs
from pcr_jax.inference.samplers.nuts import Nuts
from pcr_jax.inference.samplers.smc import Smc
from pcr_jax.inference.samplers.zeus import Zeus

SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "ess": Ess,
    "smc": Smc,
    "nuts": Nuts,
    "gibbs": Gibbs,
    "zeus": Zeus,
}
