"""Personalized causal recourse in JAX."""

from pcr_jax import library
from pcr_jax.actions import Action, Constraints, intervention_sets
from pcr_jax.classifiers import MLP, Classifier, train_mlp
from pcr_jax.elicitation import Belief, RandomDesign, SimulatedUser, elicit
from pcr_jax.evaluation import Report, evaluate, intervention_pattern
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions, tell
from pcr_jax.inference import (
    Ess,
    ExactPosterior,
    Nuts,
    Posteriors,
    PosteriorStatus,
    PosteriorWarning,
    Sampler,
    Samples,
    Smc,
    Target,
    Zeus,
    diagnose,
    exact_posterior,
    infer,
    numpyro_model,
    posterior_scms,
    read_netcdf,
    write_netcdf,
)
from pcr_jax.likelihoods import Likelihood, Relaxed, Tolerance, relaxed, tolerance
from pcr_jax.mechanisms import Mechanism
from pcr_jax.population import Population, refused_population, sample_labels
from pcr_jax.recourse import Algorithm1, Optimal, Plan, PlanStatus, find_recourse
from pcr_jax.scm import SCM, inverted, linear_scm, non_causal
from pcr_jax.scores import outside_model, with_threshold
from pcr_jax.surrogates import (
    Box,
    LinearSurrogate,
    Prior,
    Surrogate,
    learned_prior,
    linear_surrogate,
)

__all__ = [
    "MLP",
    "SCM",
    "Action",
    "Algorithm1",
    "Belief",
    "Box",
    "Classifier",
    "Constraints",
    "Ess",
    "ExactPosterior",
    "Graph",
    "History",
    "Likelihood",
    "LinearSurrogate",
    "Mechanism",
    "Nuts",
    "Optimal",
    "Plan",
    "PlanStatus",
    "Population",
    "PosteriorStatus",
    "PosteriorWarning",
    "Posteriors",
    "Prior",
    "Questions",
    "RandomDesign",
    "Relaxed",
    "Report",
    "Sampler",
    "Samples",
    "SimulatedUser",
    "Smc",
    "Surrogate",
    "Target",
    "Tolerance",
    "Zeus",
    "diagnose",
    "elicit",
    "evaluate",
    "exact_posterior",
    "find_recourse",
    "infer",
    "intervention_pattern",
    "intervention_sets",
    "inverted",
    "learned_prior",
    "library",
    "linear_scm",
    "linear_surrogate",
    "non_causal",
    "numpyro_model",
    "outside_model",
    "posterior_scms",
    "read_netcdf",
    "refused_population",
    "relaxed",
    "sample_labels",
    "tell",
    "tolerance",
    "train_mlp",
    "with_threshold",
    "write_netcdf",
]
