"""Posteriors and recourse of 300 respondents per SCM, instead of one per repetition.

Posteriors are exact up to Monte-Carlo error, from a million prior draws per respondent.
Respondents are the same ones at every error rate and number of queries.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.problems import density
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
    densities = jax.vmap(lambda h, theta: density(surrogate, likelihood, h)(theta))
    return densities(history, thetas) > -jnp.inf


def histories(scm: str, alpha: float, num_queries: int, num: int) -> pcr.History:
    """What the respondents answered."""
    key = experiment_key(scm_index(scm), 4)
    return ask_respondents(key, pcr.library.get(scm), alpha, num, num_queries, ROOM)


def posterior_means(surrogate, likelihood, history) -> np.ndarray:
    """Posterior mean of every respondent; NaN where the posterior is empty."""
    return pcr.exact_posterior(jax.random.key(1), surrogate, history, likelihood).mean


def mean_and_error(values: np.ndarray) -> tuple[list, list]:
    """Mean over respondents with a posterior, and its standard error."""
    values = values[np.isfinite(values).all(1)]
    return values.mean(0).tolist(), (values.std(0, ddof=1) / np.sqrt(len(values))).tolist()


def posterior_rows(num: int) -> list[dict]:
    """With E[U] as in the released code, and 0."""
    rows = []
    for scm in pcr.library.SCMS:
        truth = pcr.library.get(scm)
        history = histories(scm, PAPER.alpha, PAPER.num_queries, num)
        likelihood = pcr.tolerance(dict(PAPER.sigma)[scm], PAPER.beta)
        if scm == "m3":  # no coefficients of its own: the linear projection on the same queries
            surrogate, key = surrogate_of(PAPER, truth), jax.random.key(2)
            true = [linear_projection(key, truth, surrogate, take(history, r)) for r in range(num)]
        else:
            own = np.concatenate([m.coefficients for m in truth.mechanisms])
            true = [own] * num
        for noise_mean, protocol in {"U-bar": RELEASED, "0": PAPER}.items():
            surrogate = surrogate_of(protocol, truth)
            means = posterior_means(surrogate, likelihood, history)
            inside = np.asarray(
                possible(surrogate, likelihood, history, jnp.asarray(np.array(true)))
            )
            mean, error = mean_and_error(means)
            row = {"scm": scm, "noise_mean": noise_mean}
            row["empty"] = float(np.isnan(means[:, 0]).mean())
            row |= {"contains_true": float(inside.mean()), "mean": mean, "standard_error": error}
            row["released_mean"] = list(RELEASED_MEANS[scm])
            row["released_contains_true"] = RELEASED_CONTAINS.get(scm, float("nan"))
            # Both are means over 300 respondents.
            gap = np.subtract(mean, RELEASED_MEANS[scm]) / (np.sqrt(2) * np.array(error))
            rows.append({**row, "z": gap.tolist()})
    return rows


def empty_rows(num: int) -> list[dict]:
    """Shares of empty posteriors, with E[U] as in the released code."""
    rows = []
    for (scm, num_queries, alpha, sigma), theirs in RELEASED_EMPTY.items():
        surrogate = surrogate_of(RELEASED, pcr.library.get(scm))
        history = histories(scm, alpha, num_queries, num)
        means = posterior_means(surrogate, pcr.tolerance(sigma, alpha), history)
        empty = float(np.isnan(means[:, 0]).mean())
        row = {"scm": scm, "num_queries": num_queries, "alpha": alpha, "sigma": sigma}
        row |= {"empty": empty, "standard_error": float(np.sqrt(empty * (1 - empty) / num))}
        rows.append(row | {"released_empty": theirs})
    return rows


def recourse_rows(scm: str, num: int) -> list[dict]:
    """Validity and cost against error rate (= beta) and number of queries, at one learning rate.

    Every respondent's SCM serves 10 users of one of the protocol's populations.
    """
    truth, rows = pcr.library.get(scm), []
    surrogate = surrogate_of(PAPER, truth)
    populations = [population_of(PAPER, scm, seed) for seed in range(PAPER.seeds)]
    for alpha, num_queries in product((0.0, 0.1, 0.3, 0.5), (3, 5, 10)):
        history = histories(scm, alpha, num_queries, num)
        likelihood = pcr.tolerance(dict(PAPER.sigma)[scm], alpha)
        means = posterior_means(surrogate, likelihood, history)
        row = {"scm": scm, "alpha": alpha, "num_queries": num_queries}
        row["empty"] = float(np.isnan(means[:, 0]).mean())
        rows.append(row | recourse_of(truth, populations, means))
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
        report = pcr.evaluate(plan, truth, optimum=jnp.tile(optimum, len(mine)))
        good = np.asarray(report.valid)
        valid.append(good.reshape(len(mine), len(users)).mean(1))
        cost.append(np.asarray(report.cost)[good])
        best.append(np.asarray(report.optimum)[good])
    share = np.concatenate(valid)  # of every respondent
    cost, best = np.concatenate(cost).mean(), np.concatenate(best).mean()
    row = {"validity": float(share.mean()), "cost": float(cost), "cost_ratio": float(cost / best)}
    return row | {"validity_error": float(share.std(ddof=1) / np.sqrt(len(share)))}


def measure(options):
    """All respondents, or a few with none of the recourse but M1's."""
    num = 30 if options.quick else 300
    names = ("num_respondents", "users_per_respondent", "learning_rate")
    yield "settings", dict(zip(names, (num, USERS_PER_RESPONDENT, LEARNING_RATE), strict=True))
    yield "posterior", posterior_rows(num)
    yield "empty", empty_rows(num)
    for scm in ("m1",) if options.quick else tuple(pcr.library.SCMS):
        yield "recourse", recourse_rows(scm, num)
