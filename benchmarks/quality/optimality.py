"""Recourse: the optimal solver against brute force, SciPy and Algorithm 1, in quality and time."""

from functools import partial
from itertools import product

import jax
import numpy as np

import pcr_jax as pcr
from benchmarks.peers import scipy_multi_start
from benchmarks.problems import DATA, Case, drawn, population, random_scm, recorded
from benchmarks.quality.brute_force import cheapest, dense_ball, single_feature_cost
from benchmarks.quality.honesty import attacked
from benchmarks.timing import timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER

OPTIONS, PARTS = DATA, ("optimum", "nodes", "robust")


def quality(plan: pcr.Plan, best: np.ndarray) -> dict:
    """Validity over the users for whom ``best`` is finite, and cost over ``best``."""
    reachable = np.isfinite(best)
    both = reachable & np.asarray(plan.valid)
    cost, best_cost = np.asarray(plan.cost)[both], best[both]
    return {
        "reachable": float(reachable.mean()),
        "validity": float(np.asarray(plan.valid)[reachable].mean()),
        "cost_ratio": float(cost.sum() / best_cost.sum()),
        "ratio_p99": float(np.quantile(cost / best_cost, 0.99)),
        "evaluations": float(np.mean(plan.num_evaluations)),
    }


def optimum_rows(cases: list[Case]) -> list[dict]:
    """The optimal solver and Algorithm 1 at every rate, against brute force and single features.

    One population after the other; trees have no gradient for Algorithm 1.
    """
    rows = []
    for case in cases:
        best = cheapest(case.score, case.truth, case.x, case.scale)
        find = partial(pcr.find_recourse, case.score, case.truth, case.x, scale=case.scale)
        plans = {"optimal": find()}
        for rate in PAPER.learning_rates if case.kind != "tree" else ():
            plans[f"paper, rate {rate:g}"] = find(solver="paper", learning_rate=rate)
        labels = {"kind": case.kind, "scm": case.scm, "users": len(case.x)}
        single = single_feature_cost(case.score, case.truth, case.x, case.scale)
        labels["single_feature_cost"] = single
        rows += [{**labels, "solver": name, **quality(plan, best)} for name, plan in plans.items()]
    return rows


def robust_rows(scm: str, norm: str, num_users: int, num_points: int = 2000) -> list[dict]:
    """Robust actions against a dense search, and under a stronger attack.

    The dense search sweeps with 60 points of the ball and refines with ``num_points``; with few of
    them it finds what is not robust, and cheaper.
    """
    case, rows = Case("well-trained", scm, *population(scm, num_users)), []
    problem, scale = (case.score, case.truth, case.x), case.scale
    plain = pcr.find_recourse(*problem, scale=scale)
    for epsilon in (0.05, 0.1, 0.3, 0.5):
        plan = pcr.find_recourse(*problem, scale=scale, epsilon=epsilon, norm=norm)
        robust = np.asarray(plan.robust_valid)
        settings = {"resolution": 10, "near": 24, "step": 0.05}
        for name, count in {"deltas": 60, "more_deltas": num_points}.items():
            settings[name] = dense_ball(epsilon, norm, count)
        best = cheapest(*problem, scale, start=np.asarray(plain.cost) / 1.02, **settings)
        found = np.isfinite(best)
        both = robust & found
        worst = attacked(case, plan.action, epsilon, norm)
        row = {"scm": scm, "norm": norm, "epsilon": epsilon, "num_points": num_points}
        row |= {"dense_found": float(found.mean()), "robust_valid": float(robust.mean())}
        row |= {"robust_of_found": float(robust[found].mean()), "claimed": int(robust.sum())}
        row["broken"] = int(np.sum(worst[robust] < 0))
        row["cost_ratio"] = float(np.asarray(plan.cost)[both].sum() / best[both].sum())
        rows.append(row | {"evaluations": float(np.mean(plan.num_evaluations))})
    return rows


def node_rows(num_nodes: int, kind: str, num_users: int, num_runs: int) -> list[dict]:
    """A random SCM against SciPy, and the time for 500 users."""
    truth = random_scm(num_nodes, kind)
    settings = {"num_users": 500, "rho": "mean_abs"}
    score, x, scale = pcr.refused_population(jax.random.key(0), truth, **settings)
    plan, measured = timed(lambda: pcr.find_recourse(score, truth, x, scale=scale), 1)
    moves = scipy_multi_start(score, truth, scale, 0.0, num_runs)(x[:num_users])
    best = np.where(moves.any(1), np.abs(moves).sum(1), np.inf)
    labels = {"num_nodes": num_nodes, "kind": kind, "seconds_500_users": measured["seconds"]}
    return [{**labels, **quality(take(plan, slice(num_users)), best)}]


def measure(options):
    """Part by part: users of our own and recorded ones, random graphs, robust actions."""
    quick = options.quick
    if "optimum" in options.part:
        sizes = {"well-trained": (100, 5), "saturated": (100, 5), "tree": (50, 1)}
        for kind, size in sizes.items():
            yield "optimum", optimum_rows(list(drawn(kind, *((10, 1) if quick else size))))
        some = slice(10 if quick else None)
        yield "optimum", optimum_rows([c._replace(x=c.x[some]) for c in recorded(options.data)])
    if "nodes" in options.part:
        for num_nodes in (3, 7) if quick else (3, 5, 7, 10, 20):
            for kind in ("linear", "additive noise"):
                yield "nodes", node_rows(num_nodes, kind, *((5, 3) if quick else (50, 20)))
    if "robust" in options.part:
        for scm, norm in product(pcr.library.SCMS, ("l2", "linf")):
            yield "robust", robust_rows(scm, norm, 5 if quick else 50)
