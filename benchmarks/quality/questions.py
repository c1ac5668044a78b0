"""Ask well: which questions make the recommended action safe and cheap, and how fast they are chosen.

People are refused by a well-trained classifier, answer individual questions with noise of .05
standard deviations, a tenth of the answers wrong (theta*). After T of them: the share of actions that
are valid under the person's true SCM, and what they cost, in optima under it. Actions are the
cheapest of one feature that are favourable with probability .95 or .99 over the posterior's draws,
by search along every feature.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.quality.people import NOISE, population, sparse
from pcr_jax.elicitation import Belief
from pcr_jax.recourse import pose

K_POP, K_ASK, K_INFER = jax.random.split(jax.random.key(17), 3)
DESIGNS = {
    "random": pcr.RandomDesign(),
    "information": pcr.InformationDesign(),
    "thompson": pcr.ThompsonDesign(),
    "decision": pcr.DecisionDesign(),
}
LEVELS = (0.95, 0.99)
DRAWS = 512
# Costs along every direction: looked at first, and then about what was found.
COSTS = 6 * (np.arange(1, 61) / 60) ** 1.4
ABOUT = np.linspace(0.8, 1.2, 161)


def cheapest(share, costs, level):
    """Direction and cost of the cheapest action of a ``share`` (2d, C) >= level; infinite if none."""
    price = jnp.where(share >= level, costs, jnp.inf)
    return jnp.argmin(price.min(1)), price.min()


@jax.jit
def plans(score, scale, scms, truth, x):
    """Every person's costs, by level, whether these are valid, and their optimum.

    ``scms`` have leading axes of users and draws.
    """
    d = x.shape[1]
    nodes, signs = np.tile(np.arange(d), 2), np.repeat([-1.0, 1.0], d)

    def after(scm, x, nodes, signs, costs):
        shift = (signs * scale[nodes])[:, None] * costs
        each = jnp.where(jnp.arange(d) == nodes[:, None, None], shift[..., None], 0.0)
        return jax.vmap(jax.vmap(score))(scm.counterfactual(x, pcr.Action.soft(each))) >= 0

    def one(person):
        scms, x = person
        of_truth = partial(after, truth, x)

        def of_draws(*actions):
            return jax.vmap(lambda scm: after(scm, x, *actions))(scms).mean(0)

        def settled(serving, share, level):
            direction, cost = cheapest(share, COSTS, level)
            there = jnp.isfinite(cost)
            near = jnp.where(there, cost, 1.0) * ABOUT
            along = (jnp.asarray(nodes)[direction][None], jnp.asarray(signs)[direction][None], near)
            cost = cheapest(serving(*along), near, level)[1]
            valid = of_truth(*along)[0, jnp.argmin(jnp.abs(near - cost))]
            return jnp.where(there, cost, jnp.inf), valid & there

        share = of_draws(nodes, signs, COSTS)
        found = [settled(of_draws, share, level) for level in LEVELS]
        optimum = settled(of_truth, of_truth(nodes, signs, COSTS), 1)[0]
        return *map(jnp.stack, zip(*found, strict=True)), optimum

    return jax.lax.map(one, (scms, x))


def models(truth, curved: bool):
    """Surrogate, with priors that know nothing of the population but its units."""
    units = population(truth)
    make = pcr.basis_surrogate if curved else pcr.linear_surrogate
    return make(truth.graph, **units)


def asked_rows(scm: str, num_people: int, after: tuple[int, ...]) -> list[dict]:
    """Each design after so many questions."""
    truth = pcr.library.get(scm)
    score, x, scale = pcr.refused_population(K_POP, truth, num_users=num_people)
    problem, surrogate = pose(score, truth.graph, x, scale=scale), models(truth, scm == "m3")
    settings = {"wrong": pcr.library.theta_star(), "noise": NOISE * np.asarray(scale)}
    user = pcr.SimulatedUser(truth, error_rate=0.1, **settings)

    def infer(key, history):
        return pcr.infer(key, surrogate, history, pcr.mixture())

    def bare(scm):
        return pcr.SCM(scm.graph, scm.mechanisms, (None,) * scm.num_nodes)

    rows = []
    for name, design in DESIGNS.items():
        history = pcr.History.empty(x, max(after))
        for num, t in zip(np.diff([0, *after]), after, strict=True):
            history = pcr.elicit(
                jax.random.fold_in(K_ASK, t),
                *(user, x),
                num_queries=int(num),
                design=design,
                history=history,
                surrogate=surrogate,
                posteriors=infer,
                problem=problem,
            )
            scms = infer(K_INFER, history).scms(draws=DRAWS)
            found = plans(problem.score, problem.scale, bare(scms), bare(truth), x)
            costs, valid, optimum = map(np.asarray, found)
            for level, cost, works in zip(LEVELS, costs.T, valid.T, strict=True):
                row = {"scm": scm, "design": name, "questions": t, "level": level}
                row |= {"people": num_people, "valid": float(works.mean())}
                ratio = cost[works] / optimum[works]
                row["mean_cost"] = float(cost[works].mean() / optimum[works].mean())
                rows.append(row | {"median_ratio": float(np.median(ratio))})
    return rows


def second_rows(sizes: tuple[int, ...], numbers: tuple[int, ...]) -> list[dict]:
    """Seconds per question of so many people, programs compiled; without inference."""
    rows = []
    for num_nodes in sizes:
        graph = pcr.library.m1().graph if num_nodes == 3 else sparse(num_nodes)
        units = {"scale": np.ones(num_nodes), "centre": np.zeros(num_nodes)}
        made = pcr.linear_surrogate(graph, **units), pcr.basis_surrogate(graph, **units)
        for kind, surrogate in zip(("linear", "basis"), made, strict=True):
            for num_people in numbers:
                x = -jnp.ones((num_people, num_nodes))
                history = pcr.History.empty(x, 2)
                posteriors = pcr.infer(K_INFER, surrogate, history, pcr.mixture())
                problem = pose(lambda x: x.sum() - 1.0, graph, x, scale=jnp.ones(num_nodes))
                belief = Belief(surrogate, history, posteriors, problem)
                row = {"nodes": num_nodes, "surrogate": kind, "people": num_people}
                rows.append(row | {name: seconds(d, belief) for name, d in DESIGNS.items()})
    return rows


def seconds(design, belief) -> float:
    """Of one question to everybody, the median of three."""
    spent = []
    for seed in range(4):
        began = time.perf_counter()
        jax.block_until_ready(design.ask(jax.random.key(seed), belief).shift)
        spent.append(time.perf_counter() - began)
    return float(np.median(spent[1:]))


PARTS = ("asked", "seconds")


def measure(options):
    """Part by part."""
    if "asked" in options.part:
        for scm in pcr.library.SCMS:
            yield "asked", asked_rows(scm, 16 if options.quick else 64, (3, 5, 10))
    if "seconds" in options.part:
        sizes, numbers = ((3,), (1, 64)) if options.quick else ((3, 7, 20), (1, 64))
        yield "seconds", second_rows(sizes, numbers)
