"""Every sampler against exact posteriors: accuracy, temperature, random DAGs.

The answers are those of simulated respondents of the paper's protocol. Draws from the box,
weighted by the likelihood, are the yardstick.
"""

import warnings
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.problems import (
    SCALED,
    SIGMA,
    histories,
    random_graph,
    surrogate,
)
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import likelihood_of

# Zeus, where it is installed, at the paper's setting and where it is as accurate as the others.
ZEUS = {}
if find_spec("zeus"):
    ZEUS = {
        "zeus (paper)": pcr.Zeus(),
        "zeus": pcr.Zeus(num_steps=100, keep=0.8, num_ensembles=2),
    }
JAX_SAMPLERS = {"ess": pcr.Ess(), "smc": pcr.Smc(), "nuts": pcr.Nuts()}
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
KEY = jax.random.key(0)


def diagnosed(posteriors) -> dict:
    """What `pcr.diagnose` says of all users together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcr.PosteriorWarning)
        table = pcr.diagnose(posteriors)
    sampled = table[table["ess_bulk"].notna()]
    return {
        "rhat_above_1.01": float((sampled["rhat"] > 1.01).mean()),
        "rhat_median": float(sampled["rhat"].median()),
        "rhat_max": float(sampled["rhat"].max()),
        "ess_median": float(sampled["ess_bulk"].median()),
        "ess_min": float(sampled["ess_bulk"].min()),
        "statuses": table["status"].value_counts().to_dict(),
    }


def accuracy_row(scm: str, name: str, sampler, num_users: int) -> dict:
    """One sampler on one SCM's users."""
    linear, history = surrogate(scm), histories(scm, num_users)
    likelihood = likelihood_of(sampler, SIGMA[scm], PAPER.beta)
    settings = {"likelihood": likelihood, "sampler": sampler}
    posteriors = pcr.infer(jax.random.key(1), linear, history, **settings)
    theta = posteriors.draws
    flat = theta.reshape(num_users, -1, theta.shape[-1])
    exact = pcr.exact_posterior(jax.random.key(2), linear, history, likelihood)
    # The yardstick's own error must be small beside the tolerances.
    known = np.isfinite(flat).all((1, 2)) & (exact.effective_draws > 1000)
    error = flat.mean(1) - exact.mean
    return {
        "scm": scm,
        "sampler": name,
        "users": num_users,
        "compared": int(known.sum()),
        "rms_mean": np.sqrt(np.mean(error[known] ** 2, 0)).tolist(),
        "sd_off": float(np.mean(np.abs(flat.std(1) / exact.sd - 1)[known])),
        **diagnosed(posteriors),
        "evaluations": float(posteriors.num_evaluations[known].mean()),
        "settings": repr(sampler),
    }


def temperature_rows(num_users: int) -> list[dict]:
    """Bias of `relaxed` against `tolerance`, exact posteriors of both."""
    rows = []
    for scm in pcr.library.SCMS:
        linear, history, sigma = surrogate(scm), histories(scm, num_users), SIGMA[scm]
        hard = pcr.exact_posterior(KEY, linear, history, pcr.tolerance(sigma, PAPER.beta))
        known = hard.effective_draws > 1000
        for temperature in TEMPERATURES:
            likelihood = pcr.relaxed(sigma, PAPER.beta, temperature)
            soft = pcr.exact_posterior(KEY, linear, history, likelihood)
            bias = (soft.mean - hard.mean)[known]
            row = {"scm": scm, "temperature": temperature, "users": int(known.sum())}
            row["rms_bias"] = np.sqrt(np.mean(bias**2, 0)).tolist()
            rows.append(row | {"sd_ratio": np.median((soft.sd / hard.sd)[known], 0).tolist()})
    return rows


def dag_rows(num_nodes: int, num_users: int, samplers: dict) -> list[dict]:
    """A random DAG; three queries per node; no errors."""
    rng = np.random.default_rng(num_nodes)
    graph = random_graph(rng, num_nodes)
    linear = pcr.linear_surrogate(graph)
    theta = jnp.asarray(rng.uniform(-0.8, 0.8, len(linear.names)))
    user = pcr.SimulatedUser(pcr.linear_scm(graph, theta), error_rate=0.0)
    num_queries = 3 * num_nodes
    design = pcr.RandomDesign(0.0, 1.0, individual=False)
    x = jnp.zeros((num_users, num_nodes))
    history = pcr.elicit(KEY, user, x, num_queries=num_queries, design=design)
    rows = []
    for name, sampler in samplers.items():
        likelihoods = [pcr.relaxed(0.5, 0.1)]
        if not sampler.needs_gradient:
            likelihoods.insert(0, pcr.tolerance(0.5, 0.1))
        for likelihood in likelihoods:
            posteriors = pcr.infer(KEY, linear, history, likelihood=likelihood, sampler=sampler)
            row = {"nodes": num_nodes, "coefficients": len(linear.names), "sampler": name}
            row |= {"likelihood": type(likelihood).__name__.lower(), "users": num_users}
            row |= diagnosed(posteriors)
            rows.append(row | {"seconds_with_compilation": posteriors.info["seconds"]})
    return rows


PARTS = ("temperature", "accuracy", "dags")


def measure(options):
    """Part by part."""
    quick, parts = options.quick, options.part
    num_users, num_zeus = (32, 4) if quick else (300, 300)
    if "temperature" in parts:
        yield "temperature", temperature_rows(num_users)
    if "accuracy" in parts:
        for scm in ("m1",) if quick else tuple(pcr.library.SCMS):
            for name, sampler in (JAX_SAMPLERS | ZEUS).items():
                users = num_zeus if sampler.host_only else num_users
                yield "accuracy", [accuracy_row(scm, name, sampler, users)]
        yield "accuracy", [accuracy_row("m1", "ess (scaled)", SCALED, num_users)]
    if "dags" in parts:
        # An ensemble needs two walkers for each of up to 45 coefficients.
        samplers = JAX_SAMPLERS | {"ess": pcr.Ess(num_walkers=96, num_warmup=200, thin=20)}
        for num_nodes in (5,) if quick else (5, 7, 10):
            for name, sampler in samplers.items():
                yield "dags", dag_rows(num_nodes, 4 if quick else 20, {name: sampler})
