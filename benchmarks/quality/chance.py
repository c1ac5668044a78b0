"""The solver with a level: against a dense grid of actions, its seconds, and SciPy on many nodes.

Draws are of posteriors after five individual questions with noise of .05 and a tenth of wrong
answers; level .95. The grid knows the draws that the search has seen.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import pcr_jax as pcr
from benchmarks.quality.brute_force import sphere
from benchmarks.quality.people import NOISE, population, sparse, surrogates
from pcr_jax.recourse import Optimal, pose
from pcr_jax.recourse.problem import worlds_of

LEVEL = 0.95
DRAWS = 200
K_POP, K_ASK, K_INFER = jax.random.split(jax.random.key(18), 3)


def case(scm: str, num_people: int):
    """Score, features and draws of people's SCMs."""
    truth = pcr.library.get(scm)
    score, x, scale = pcr.refused_population(K_POP, truth, num_users=num_people)
    model = surrogates(truth.graph, population(truth))["basis" if scm == "m3" else "linear"]
    wrong = pcr.library.theta_star()
    user = pcr.SimulatedUser(truth, error_rate=0.1, wrong=wrong, noise=NOISE * scale)
    history = pcr.elicit(K_ASK, user, x, num_queries=5, surrogate=model)
    return score, x, scale, pcr.infer(K_INFER, model, history, pcr.mixture())


@jax.jit
def cheaper(score, scms, x, scale, rays, costs):
    """The least share of ``costs`` (num_users,) at which a ray serves with the level; or 1."""

    def user(person):
        scm, x, cost = person

        def at(share):
            def serves(ray):
                action = pcr.Action.soft(ray * share * cost * scale)
                logits = jax.vmap(lambda scm: score(scm.counterfactual(x, action)))(scm)
                return jnp.sum(logits >= 0) >= jnp.ceil(LEVEL * len(logits) - 1e-3)

            return jnp.where(jax.vmap(serves)(rays).any(), share, 1.0)

        return jax.lax.map(at, jnp.linspace(0.6, 0.9999, 60)).min()

    return jax.lax.map(user, (scms, x, costs))


def seconds(run) -> float:
    """CPU seconds of a call, programs compiled; the median of three."""
    run()
    spent = []
    for _ in range(3):
        began = time.process_time()
        jax.block_until_ready(run())
        spent.append(time.process_time() - began)
    return float(np.median(spent))


def grid_row(scm: str, num_people: int) -> dict:
    """The search's cost by the cheapest of the grid's; and seconds beside the mean SCM's plan."""
    score, x, scale, posteriors = case(scm, num_people)
    worlds, mean = posteriors.scms(DRAWS), posteriors.scms()
    problem = pose(score, worlds.graph, x, scale=scale, level=LEVEL)
    searched, _ = problem.requirement.split(worlds_of(problem, worlds, "worlds"))
    cost = jnp.abs(Optimal().search(problem, searched).move).sum(1)
    rays = jnp.asarray(sphere("l1", 12), cost.dtype)
    least = np.asarray(cheaper(problem.score, searched, x, scale, rays, cost))
    own = seconds(lambda: pcr.find_recourse(score, worlds, x, scale=scale, level=LEVEL))
    plain = seconds(lambda: pcr.find_recourse(score, mean, x, scale=scale))
    row = {"scm": scm, "people": num_people, "cost_ratio": float(np.mean(1 / least))}
    row |= {"worst_ratio": float((1 / least).max()), "cpu_seconds": own}
    return row | {"by_the_mean_scm": own / plain}


def scipy_rows(num_people: int) -> list[dict]:
    """Twenty nodes, linear SCMs: the cost by the best of twenty runs of SLSQP on a smooth quantile.

    The quantile is the search's own of the draws that it sees; runs begin at random actions and at
    the search's, and end where no shorter action along their way serves.
    """
    d = 20
    graph = sparse(d)
    rng = np.random.default_rng(0)
    mean = rng.uniform(-0.8, 0.8, len(graph.edges))
    effects = mean + 0.1 * rng.normal(size=(num_people, DRAWS, len(graph.edges)))
    worlds = jax.vmap(jax.vmap(lambda b: pcr.linear_scm(graph, b)))(jnp.asarray(effects, float))
    x = jnp.asarray(rng.normal(size=(num_people, d)), float)
    slope = rng.normal(size=d) / d**0.5
    score = jax.tree_util.Partial(_plane, jnp.asarray(slope, float))
    problem = pose(score, graph, x, scale=jnp.ones(d), level=LEVEL)
    searched, _ = problem.requirement.split(worlds_of(problem, worlds, "worlds"))
    move = np.asarray(Optimal().search(problem, searched).move, float)
    ratios = []
    for user in np.flatnonzero(np.abs(move).sum(1) > 0):
        gains = _gains(jax.tree.map(lambda leaf, u=user: leaf[u], searched), slope)
        base = float(score(x[user]))
        best = min(
            _slsqp(gains, base, at)
            for at in [move[user], *(2 * rng.normal(size=(19, d)) * (rng.random((19, d)) < 0.3))]
        )
        ratios.append(np.abs(move[user]).sum() / best)
    return [
        {
            "nodes": d,
            "people": len(ratios),
            "cost_ratio": float(np.mean(ratios)),
            "worst_ratio": float(np.max(ratios)),
        }
    ]


def _plane(slope, x):
    """A linear score that refuses most."""
    return x @ slope - 2.0


def _gains(scms, slope):
    """What the logit rises by for each node's shift, under each draw; (draws, d)."""
    d = len(slope)
    eye = jnp.eye(d)

    def one(scm):
        return jax.vmap(lambda e: scm.counterfactual(jnp.zeros(d), pcr.Action.soft(e)))(eye) @ slope

    return np.asarray(jax.vmap(one)(scms), float)


def _slsqp(gains, base, start) -> float:
    """The cost at which one run ends, brought to where the level is met; infinite if nowhere."""
    d = gains.shape[1]
    needed = int(np.ceil(LEVEL * len(gains) - 1e-3))

    def quantile(move):
        return np.sort(base + gains @ move)[len(gains) - needed]

    def slope(both):
        order = np.argsort(base + gains @ (both[:d] - both[d:]))[len(gains) - needed]
        return np.concatenate([gains[order], -gains[order]])

    found = scipy.optimize.minimize(
        np.sum,
        np.concatenate([np.maximum(start, 0), np.maximum(-start, 0)]),
        jac=np.ones_like,
        bounds=[(0, None)] * (2 * d),
        constraints={"type": "ineq", "fun": lambda b: quantile(b[:d] - b[d:]), "jac": slope},
        method="SLSQP",
        options={"maxiter": 300},
    )
    move = found.x[:d] - found.x[d:]
    stretches = np.linspace(0.8, 1.6, 801)
    serving = [s for s in stretches if quantile(s * move) >= 0]
    return min(serving) * np.abs(move).sum() if serving and move.any() else np.inf


PARTS = ("grid", "scipy")


def measure(options):
    """Part by part."""
    num = 8 if options.quick else 50
    if "grid" in options.part:
        for scm in pcr.library.SCMS:
            yield "grid", [grid_row(scm, num)]
    if "scipy" in options.part:
        yield "scipy", scipy_rows(num)
