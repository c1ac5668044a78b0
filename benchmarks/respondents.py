"""Posteriors and recourse of 300 respondents per SCM, instead of one per repetition.

Posteriors are exact up to Monte-Carlo error, from a million prior draws per respondent.
Respondents are the same ones at every error rate and number of queries.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.records import show, write_record
from pcr_jax.batching import take
from pcr_jax.evaluation import optimum_cost
from pcr_jax.experiments import PAPER, RELEASED
from pcr_jax.experiments.estimation import (
    ask_respondents,
    experiment_key,
    linear_projection,
    scm_index,
    surrogate_of,
)
from pcr_jax.experiments.variants import population_of
from pcr_jax.inference import log_density

NUM_RESPONDENTS = 300
ROOM = 15
LEARNING_RATE = 0.5
USERS_PER_RESPONDENT = 10

# Of the released code, by dense uniform draws for 300 simulated users.
RELEASED_MEANS = {
    "m1": (-0.454, 0.148, 0.499),
    "m2": (0.100, -0.160, 0.118),
    "m3": (0.683, 0.186, 0.396),
}
RELEASED_CONTAINS = {"m1": 0.81, "m2": 0.06}
RELEASED_EMPTY = {  # (SCM, T, alpha = beta, sigma)
    ("m1", 5, 0.1, 0.5): 0.09,
    ("m1", 9, 0.1, 0.5): 0.29,
    ("m1", 10, 0.1, 0.5): 0.06,
    ("m1", 15, 0.1, 0.5): 0.17,
    ("m1", 10, 0.0, 0.4): 0.05,
    ("m2", 10, 0.0, 0.4): 0.71,
    ("m3", 10, 0.0, 0.4): 0.56,
}


@partial(jax.jit, static_argnums=0)
def possible(surrogate, likelihood, history, thetas):
    """Whether each user's posterior contains the coefficients (num_users, num_coefficients)."""
    one = partial(log_density, surrogate, likelihood)
    return jax.vmap(one)(history, thetas) > -jnp.inf


def histories(scm: str, alpha: float, num_queries: int) -> pcr.History:
    """What the respondents answered."""
    key = experiment_key(scm_index(scm), 4)
    return ask_respondents(key, pcr.library.get(scm), alpha, NUM_RESPONDENTS, num_queries, ROOM)


def posterior_means(surrogate, likelihood, history) -> np.ndarray:
    """Posterior mean of every respondent; NaN where the posterior is empty."""
    return pcr.exact_posterior(jax.random.key(1), surrogate, history, likelihood).mean


def mean_and_error(values: np.ndarray) -> tuple[list, list]:
    """Mean over respondents with a posterior, and its standard error."""
    values = values[np.isfinite(values).all(1)]
    return values.mean(0).tolist(), (values.std(0, ddof=1) / np.sqrt(len(values))).tolist()


def posterior_rows() -> list[dict]:
    """With E[U] as in the released code, and 0."""
    rows = []
    for scm in pcr.library.SCMS:
        truth = pcr.library.get(scm)
        history = histories(scm, PAPER.alpha, PAPER.num_queries)
        likelihood = pcr.tolerance(dict(PAPER.sigma)[scm], PAPER.beta)
        if scm == "m3":  # no coefficients of its own: the linear projection on the same queries
            surrogate, key = surrogate_of(PAPER, truth), jax.random.key(2)
            true = [
                linear_projection(key, truth, surrogate, take(history, r))
                for r in range(NUM_RESPONDENTS)
            ]
        else:
            own = np.concatenate([m.coefficients for m in truth.mechanisms])
            true = [own] * NUM_RESPONDENTS
        for noise_mean, protocol in {"U-bar": RELEASED, "0": PAPER}.items():
            surrogate = surrogate_of(protocol, truth)
            means = posterior_means(surrogate, likelihood, history)
            inside = np.asarray(
                possible(surrogate, likelihood, history, jnp.asarray(np.array(true)))
            )
            mean, error = mean_and_error(means)
            row = {
                "scm": scm,
                "noise_mean": noise_mean,
                "empty": float(np.isnan(means[:, 0]).mean()),
                "contains_true": float(inside.mean()),
                "mean": mean,
                "standard_error": error,
                "released_mean": list(RELEASED_MEANS[scm]),
                "released_contains_true": RELEASED_CONTAINS.get(scm, float("nan")),
            }
            # Both are means over 300 respondents.
            gap = np.subtract(mean, RELEASED_MEANS[scm]) / (np.sqrt(2) * np.array(error))
            rows.append({**row, "z": gap.tolist()})
    return rows


def empty_rows() -> list[dict]:
    """Shares of empty posteriors, with E[U] as in the released code."""
    rows = []
    for (scm, num_queries, alpha, sigma), theirs in RELEASED_EMPTY.items():
        surrogate = surrogate_of(RELEASED, pcr.library.get(scm))
        history = histories(scm, alpha, num_queries)
        means = posterior_means(surrogate, pcr.tolerance(sigma, alpha), history)
        empty = float(np.isnan(means[:, 0]).mean())
        rows.append(
            {
                "scm": scm,
                "num_queries": num_queries,
                "alpha": alpha,
                "sigma": sigma,
                "empty": empty,
                "standard_error": float(np.sqrt(empty * (1 - empty) / NUM_RESPONDENTS)),
                "released_empty": theirs,
            }
        )
    return rows


def recourse_rows() -> list[dict]:
    """Validity and cost against error rate (= beta) and number of queries, at one learning rate.

    Every respondent's SCM serves 10 users of one of the protocol's populations.
    """
    rows = []
    for scm in pcr.library.SCMS:
        truth = pcr.library.get(scm)
        surrogate = surrogate_of(PAPER, truth)
        populations = [population_of(PAPER, scm, seed) for seed in range(PAPER.seeds)]
        for alpha in (0.0, 0.1, 0.3, 0.5):
            for num_queries in (3, 5, 10):
                history = histories(scm, alpha, num_queries)
                likelihood = pcr.tolerance(dict(PAPER.sigma)[scm], alpha)
                means = posterior_means(surrogate, likelihood, history)
                rows.append(
                    {
                        "scm": scm,
                        "alpha": alpha,
                        "num_queries": num_queries,
                        "empty": float(np.isnan(means[:, 0]).mean()),
                        **recourse_of(truth, populations, means),
                    }
                )
    return rows


def recourse_of(truth: pcr.SCM, populations, means: np.ndarray) -> dict:
    """Validity and cost, in the mean over respondents, with its standard error."""
    valid, cost, best = [], [], []
    for i, population in enumerate(populations):
        mine = means[i :: len(populations)]
        mine = mine[np.isfinite(mine).all(1)]
        if not len(mine):
            continue
        users = population.users[:USERS_PER_RESPONDENT]
        x = jnp.tile(users, (len(mine), 1))
        scms = jax.vmap(partial(pcr.linear_scm, truth.graph))(
            jnp.repeat(jnp.asarray(mine), len(users), axis=0)
        )
        settings = {"scale": population.scale}
        plan = pcr.find_recourse(
            population.score, scms, x, learning_rate=LEARNING_RATE, solver="paper", **settings
        )
        optimum = optimum_cost(population.score, truth, users, **settings)
        report = pcr.evaluate(
            population.score, truth, x, plan, optimum=jnp.tile(optimum, len(mine)), **settings
        )
        good = np.asarray(report.valid)
        valid.append(good.reshape(len(mine), len(users)).mean(1))
        cost.append(np.asarray(report.cost)[good])
        best.append(np.asarray(report.optimum)[good])
    share = np.concatenate(valid)  # of every respondent
    cost, best = np.concatenate(cost).mean(), np.concatenate(best).mean()
    return {
        "validity": float(share.mean()),
        "validity_error": float(share.std(ddof=1) / np.sqrt(len(share))),
        "cost": float(cost),
        "cost_ratio": float(cost / best),
    }


def measure(out: Path) -> None:
    """Measure, print and record."""
    console = Console(width=200)
    posterior = posterior_rows()
    show(console, f"Posteriors of {NUM_RESPONDENTS} respondents", posterior)
    empty = empty_rows()
    show(console, "Empty posteriors", empty)
    recourse = recourse_rows()
    show(console, "Recourse of those with a posterior", recourse)
    settings = {
        "num_respondents": NUM_RESPONDENTS,
        "users_per_respondent": USERS_PER_RESPONDENT,
        "learning_rate": LEARNING_RATE,
    }
    record = {"settings": settings, "posterior": posterior, "empty": empty, "recourse": recourse}
    write_record(out / "respondents.json", record)
