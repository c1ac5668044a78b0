"""Every sampler against exact posteriors: accuracy, speed, temperature, impossible users, DAGs.

The answers are those of simulated respondents of the paper's protocol. Draws from the box,
weighted by the likelihood, are the yardstick. Speed is of `infer` as a whole, the search for
starting points included, after a first call that compiles.
"""

import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.optimality import random_graph
from benchmarks.records import other_parts, show, write_record
from benchmarks.timing import peak_memory, timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import (
    ask_respondents,
    experiment_key,
    likelihood_of,
    scm_index,
    surrogate_of,
)
from pcr_jax.inference import Target as Posterior
from pcr_jax.inference.arviz_data import coefficients_of

# Zeus, where it is installed, at the paper's setting and where it is as accurate as the others.
ZEUS = {}
if find_spec("zeus"):
    ZEUS = {
        "zeus (paper)": pcr.Zeus(),
        "zeus": pcr.Zeus(num_steps=100, keep=0.8, num_ensembles=2),
    }
JAX_SAMPLERS = {"ess": pcr.Ess(), "smc": pcr.Smc(), "nuts": pcr.Nuts()}
# The same work as by default, but few enough draws for 100,000 users' to fit in memory.
SCALED = pcr.Ess(num_steps=3, thin=8)
TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
KEY = jax.random.key(0)
NUM_REFERENCE = 2**19


def histories(scm: str, num_users: int) -> pcr.History:
    """What the respondents answered."""
    key = experiment_key(scm_index(scm), 5)
    return ask_respondents(key, pcr.library.get(scm), PAPER.alpha, num_users, 10, 10)


def kolmogorov(surrogate, likelihood, history, theta) -> np.ndarray:
    """Distances (user, coefficient) of the 1-D marginals of draws (user, draw, coefficient)."""
    reference = surrogate.prior.sample(jax.random.key(7), (NUM_REFERENCE,))

    @jax.jit
    def weigh(one):
        return jnp.exp(jax.vmap(Posterior(surrogate, likelihood, one).log_likelihood)(reference))

    order = np.argsort(np.asarray(reference), axis=0)
    ordered = np.take_along_axis(np.asarray(reference), order, 0)
    distances = np.full((len(theta), surrogate.num_coefficients), np.nan)
    for i, draws in enumerate(theta):
        if not np.isfinite(draws).all():
            continue
        weights = np.asarray(weigh(take(history, i)), float)
        for c in range(draws.shape[1]):
            cdf = np.concatenate([[0.0], np.cumsum(weights[order[:, c]])])
            own = np.sort(draws[:, c])
            at_own = cdf[np.searchsorted(ordered[:, c], own, side="right")] / cdf[-1]
            steps = np.arange(len(own) + 1) / len(own)
            distances[i, c] = max(np.max(steps[1:] - at_own), np.max(at_own - steps[:-1]))
    return distances


def accuracy_row(scm: str, name: str, sampler, num_users: int) -> dict:
    """One sampler on one SCM's users."""
    surrogate = surrogate_of(PAPER, pcr.library.get(scm))
    history, likelihood = (
        histories(scm, num_users),
        likelihood_of(sampler, dict(PAPER.sigma)[scm], PAPER.beta),
    )
    settings = {"likelihood": likelihood, "sampler": sampler}
    idata = pcr.infer(jax.random.key(1), surrogate, history, **settings)
    theta = np.moveaxis(coefficients_of(idata), 2, 0)
    flat = theta.reshape(num_users, -1, theta.shape[-1])
    exact = pcr.exact_posterior(jax.random.key(2), surrogate, history, likelihood)
    # The yardstick's own error must be small beside the tolerances.
    known = np.isfinite(flat).all((1, 2)) & (exact.effective_draws > 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcr.PosteriorWarning)
        table = pcr.diagnose(idata)
    sampled = table[table["ess_bulk"].notna()]
    error = flat.mean(1) - exact.mean
    return {
        "scm": scm,
        "sampler": name,
        "users": num_users,
        "compared": int(known.sum()),
        "rms_mean": np.sqrt(np.mean(error[known] ** 2, 0)).tolist(),
        "sd_off": float(np.mean(np.abs(flat.std(1) / exact.sd - 1)[known])),
        "ks": float(np.nanmean(kolmogorov(surrogate, likelihood, history, flat)[known])),
        "rhat_above_1.01": float((sampled["rhat"] > 1.01).mean()),
        "rhat_max": float(sampled["rhat"].max()),
        "ess_median": float(sampled["ess_bulk"].median()),
        "ess_min": float(sampled["ess_bulk"].min()),
        "evaluations": float(idata.constant_data["num_evaluations"].to_numpy()[known].mean()),
        "statuses": table["status"].value_counts().to_dict(),
        "settings": repr(sampler),
    }


def speed_rows(num_users: int, num_zeus_users: int) -> list[dict]:
    """Users per second of every sampler on M1, after a first call that compiles."""
    surrogate, rows = surrogate_of(PAPER, pcr.library.m1()), []
    for name, sampler in {**ZEUS, **JAX_SAMPLERS}.items():
        count = num_zeus_users if sampler.host_only else num_users
        history = histories("m1", count)
        likelihood = likelihood_of(sampler, dict(PAPER.sigma)["m1"], PAPER.beta)
        settings = {"likelihood": likelihood, "sampler": sampler}
        _, measured = timed(partial(pcr.infer, KEY, surrogate, history, **settings), 2)
        rows.append(
            {
                "sampler": name,
                "users": count,
                **measured,
                "users_per_second": count / measured["seconds"],
                "settings": repr(sampler),
            }
        )
    zeus = [row["users_per_second"] for row in rows if row["sampler"] == "zeus"] or [np.nan]
    return [{**row, "times_zeus": row["users_per_second"] / zeus[0]} for row in rows]


def temperature_rows(num_users: int) -> list[dict]:
    """Bias of `relaxed` against `tolerance`, exact posteriors of both."""
    rows = []
    for scm in pcr.library.SCMS:
        surrogate, history = surrogate_of(PAPER, pcr.library.get(scm)), histories(scm, num_users)
        sigma = dict(PAPER.sigma)[scm]
        hard = pcr.exact_posterior(KEY, surrogate, history, pcr.tolerance(sigma, PAPER.beta))
        known = hard.effective_draws > 1000
        for temperature in TEMPERATURES:
            likelihood = pcr.relaxed(sigma, PAPER.beta, temperature)
            soft = pcr.exact_posterior(KEY, surrogate, history, likelihood)
            bias = (soft.mean - hard.mean)[known]
            rows.append(
                {
                    "scm": scm,
                    "temperature": temperature,
                    "users": int(known.sum()),
                    "rms_bias": np.sqrt(np.mean(bias**2, 0)).tolist(),
                    "sd_ratio": np.median((soft.sd / hard.sd)[known], 0).tolist(),
                }
            )
    return rows


def impossible_rows(num_users: int, samplers: dict) -> list[dict]:
    """Users who contradict themselves: the same question, answered far apart by turns."""
    surrogate = surrogate_of(PAPER, pcr.library.m1())
    answer = np.full((num_users, 10, 3), np.nan)
    answer[:, ::2, 1], answer[:, 1::2, 1] = -0.8, 0.8
    nodes = jnp.zeros((num_users, 10), int)
    history = pcr.History(nodes, jnp.ones((num_users, 10)), jnp.asarray(answer, jnp.float32))
    rows = []
    for name, sampler in samplers.items():
        settings = {
            "likelihood": likelihood_of(sampler, dict(PAPER.sigma)["m1"], PAPER.beta),
            "sampler": sampler,
        }
        jax.clear_caches()
        began = time.perf_counter()
        idata = pcr.infer(KEY, surrogate, history, **settings)
        empty = idata.constant_data["status"].to_numpy() == pcr.PosteriorStatus.empty
        seconds = time.perf_counter() - began
        rows.append(
            {
                "sampler": name,
                "users": num_users,
                "reported_empty": int(empty.sum()),
                "best_agreement": float(idata.constant_data["best_agreement"].max()),
                "seconds_with_compilation": seconds,
            }
        )
    return rows


def scaling_rows(counts: tuple[int, ...]) -> list[dict]:
    """Seconds and memory against the number of users."""
    surrogate = surrogate_of(PAPER, pcr.library.m1())
    settings = {
        "likelihood": likelihood_of(SCALED, dict(PAPER.sigma)["m1"], PAPER.beta),
        "sampler": SCALED,
    }
    pcr.infer(KEY, surrogate, histories("m1", 64), **settings)
    rows = []
    for count in counts:
        history = histories("m1", count)
        _, measured = timed(partial(pcr.infer, KEY, surrogate, history, **settings), 0)
        rows.append(
            {
                "settings": repr(SCALED),
                "users": count,
                "seconds": measured["seconds"],
                "users_per_second": count / measured["seconds"],
                "peak_memory_gib": peak_memory(),
            }
        )
    return rows


def dag_rows(num_nodes: int, num_users: int, samplers: dict) -> list[dict]:
    """A random DAG; three queries per node; no errors."""
    rng = np.random.default_rng(num_nodes)
    graph = random_graph(rng, num_nodes)
    surrogate = pcr.linear_surrogate(graph)
    theta = jnp.asarray(rng.uniform(-0.8, 0.8, surrogate.num_coefficients))
    user = pcr.SimulatedUser(pcr.linear_scm(graph, theta), error_rate=0.0)
    num_queries = 3 * num_nodes
    history = pcr.elicit(KEY, user, jnp.zeros((num_users, num_nodes)), num_queries=num_queries)
    rows = []
    for name, sampler in samplers.items():
        likelihoods = [pcr.relaxed(0.5, 0.1)]
        if not sampler.needs_gradient:
            likelihoods.insert(0, pcr.tolerance(0.5, 0.1))
        for likelihood in likelihoods:
            idata = pcr.infer(KEY, surrogate, history, likelihood=likelihood, sampler=sampler)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pcr.PosteriorWarning)
                table = pcr.diagnose(idata)
            mixed = table["rhat"] <= 1.01
            rows.append(
                {
                    "nodes": num_nodes,
                    "coefficients": surrogate.num_coefficients,
                    "sampler": name,
                    "likelihood": type(likelihood).__name__.lower(),
                    "users": num_users,
                    "rhat_at_most_1.01": int(mixed.sum()),
                    "rhat_median": float(table["rhat"].median()),
                    "rhat_max": float(table["rhat"].max()),
                    "ess_median": float(table["ess_bulk"].median()),
                    "statuses": table["status"].value_counts().to_dict(),
                    "seconds_with_compilation": idata.attrs["seconds"],
                }
            )
    return rows


PARTS = ("temperature", "accuracy", "speed", "impossible", "scaling", "dags")


def measure(out: Path, quick: bool, parts: list[str]) -> None:
    """Measure, print and record; what is done is recorded before the next part begins.

    Parts that are not asked for stay as they were recorded, if they were at this size.
    """
    console, path = Console(width=220), out / "posterior.json"
    record: dict = {"quick": quick, **other_parts(path, quick, parts)}

    def done(part: str, title: str, rows: list[dict]):
        record[part] = record.get(part, []) + rows
        show(console, title, rows)
        write_record(path, record)

    num_users = 32 if quick else 300
    few, num_zeus = (4, 4) if quick else (20, 300)
    hard = ("m1",) if quick else tuple(pcr.library.SCMS)
    if "temperature" in parts:
        done("temperature", "Bias of the relaxed likelihood", temperature_rows(num_users))
    for scm in hard if "accuracy" in parts else ():
        for name, sampler in JAX_SAMPLERS.items():
            done("accuracy", f"{name} on {scm}", [accuracy_row(scm, name, sampler, num_users)])
        for name, sampler in ZEUS.items():
            done("accuracy", f"{name} on {scm}", [accuracy_row(scm, name, sampler, num_zeus)])
    if "accuracy" in parts:
        done("accuracy", "As few draws", [accuracy_row("m1", "ess (scaled)", SCALED, num_users)])
    if "speed" in parts:
        done("speed", "Users per second", speed_rows(num_users, 4 if quick else 20))
    everyone = {**JAX_SAMPLERS, **ZEUS}
    everyone.pop("zeus", None)
    for name, sampler in everyone.items() if "impossible" in parts else ():
        rows = impossible_rows(100 if sampler.host_only else 1000, {name: sampler})
        done("impossible", "Impossible answers", rows)
    counts = (1, 10, 100, 1000) if quick else (1, 10, 100, 1000, 10_000, 100_000)
    for count in counts if "scaling" in parts else ():
        done("scaling", "Seconds against users", scaling_rows((count,)))
    for num_nodes in (5,) if quick else (5, 7, 10):
        # An ensemble needs two walkers for each of up to 45 coefficients.
        samplers = {**JAX_SAMPLERS, "ess": pcr.Ess(num_walkers=96, num_warmup=200, thin=20)}
        for name, sampler in samplers.items() if "dags" in parts else ():
            rows = dag_rows(num_nodes, few, {name: sampler})
            done("dags", f"Random DAG of {num_nodes} nodes, {name}", rows)
