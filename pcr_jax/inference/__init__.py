"""Inference: from histories to posteriors."""

from pcr_jax.inference.arviz_data import posterior_scms, read_netcdf, write_netcdf
from pcr_jax.inference.conflicts import ask_again, conflicts
from pcr_jax.inference.diagnostics import PRIOR_ONLY, PosteriorWarning, diagnose, taught
from pcr_jax.inference.exact import ExactPosterior, exact_posterior
from pcr_jax.inference.numpyro_model import numpyro_model
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.refit import refit_prior
from pcr_jax.inference.run import infer, infer_each
from pcr_jax.inference.samplers import SAMPLERS, Ess, Gibbs, Nuts, Sampler, Samples, Smc, Zeus
from pcr_jax.inference.search import search_prior
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target, log_density

__all__ = [
    "PRIOR_ONLY",
    "SAMPLERS",
    "Ess",
    "ExactPosterior",
    "Gibbs",
    "Nuts",
    "PosteriorStatus",
    "PosteriorWarning",
    "Posteriors",
    "Sampler",
    "Samples",
    "Smc",
    "Target",
    "Zeus",
    "ask_again",
    "conflicts",
    "diagnose",
    "exact_posterior",
    "infer",
    "infer_each",
    "log_density",
    "numpyro_model",
    "posterior_scms",
    "read_netcdf",
    "refit_prior",
    "search_prior",
    "taught",
    "write_netcdf",
]
