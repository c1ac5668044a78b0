"""Recourse: the optimal solver against brute force, SciPy and Algorithm 1, in quality and time."""

import time
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from scipy.optimize import minimize

import pcr_jax as pcr
from benchmarks.brute_force import cheapest
from benchmarks.records import other_parts, show, write_record
from benchmarks.reference import framed
from benchmarks.timing import timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER
from pcr_jax.recourse import algorithm1, optimal, per_user
from pcr_jax.recourse.adversary import Ball
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.search import Task

CLASSIFIERS = {"well-trained": {}, "saturated": {"learning_rate": 0.5, "epochs": 100}}
UNBOUNDED = jnp.inf


def population(scm: str, seed: int, num_users: int, classifier: str = "well-trained"):
    """Score, users and scale."""
    key = jax.random.key(seed)
    settings = CLASSIFIERS[classifier]
    return pcr.refused_population(key, pcr.library.get(scm), num_users=num_users, **settings)


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


def optimum_rows(num_users: int, seeds: int) -> list[dict]:
    """The optimal solver and Algorithm 1 at every rate, against brute force."""
    rows = []
    for classifier in CLASSIFIERS:
        for scm in pcr.library.SCMS:
            truth = pcr.library.get(scm)
            plans, bests = {}, []
            for seed in range(seeds):
                score, x, scale = population(scm, seed, num_users, classifier)
                bests.append(cheapest(score, truth, x, scale))
                find = partial(pcr.find_recourse, score, truth, x, scale=scale)
                plans.setdefault("optimal", []).append(find())
                for rate in PAPER.learning_rates:
                    plan = find(solver="paper", learning_rate=rate)
                    plans.setdefault(f"paper, rate {rate:g}", []).append(plan)
            best = np.concatenate(bests)
            for solver, parts in plans.items():
                plan = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
                labels = {"classifier": classifier, "scm": scm, "solver": solver}
                rows.append({**labels, **quality(plan, best)})
    return rows


def reference_rows(data: Path, users: slice = slice(None)) -> list[dict]:
    """The recorded users of the released code, true SCM, in their standardised units."""
    rows = []
    for path in sorted(data.glob("recourse_*.npz")):
        recorded = np.load(path)
        truth = pcr.library.get(path.stem.split("_")[1].lower())
        score, x, scale = framed(recorded, "true")
        x, epsilon = x[users], float(recorded["eps"])
        plan = pcr.find_recourse(score, truth, x, scale=scale, epsilon=epsilon)
        deltas = dense_ball(epsilon, "l2", 64) if epsilon else None
        resolution = 10 if epsilon else 40
        best = cheapest(score, truth, x, scale, deltas=deltas, resolution=resolution)
        rows.append(
            {
                "scm": path.stem.split("_")[1],
                "epsilon": epsilon,
                "num_users": len(x),
                "validity": float(np.mean(plan.valid)),
                "robust_validity": float(np.mean(plan.robust_valid)),
                "cost": float(np.mean(np.asarray(plan.cost)[np.asarray(plan.valid)])),
                "brute_force_found": float(np.isfinite(best).mean()),
                "brute_force_cost": float(best[np.isfinite(best)].mean()),
                "single_feature_cost": single_feature_cost(score, truth, x, scale),
                "released_cost_lr0.5": float(
                    recorded["lr0.5_true_cost"][recorded["lr0.5_true_valid"]].mean()
                ),
                "released_validity_lr0.5": float(np.mean(recorded["lr0.5_true_valid"])),
            }
        )
    return rows


def single_feature_cost(score, truth, x, scale) -> float:
    """Mean cost of the best single-feature action, on a grid of 0.002."""
    grid = np.arange(0.002, 8.0, 0.002, dtype=np.float32)
    axes = np.concatenate([np.eye(3), -np.eye(3)])

    @jax.jit
    def one(x):
        moves = pcr.Action.soft(grid[:, None, None] * axes * scale)
        return (score(truth.counterfactual(x, moves)) >= 0).any(1)

    costs = [grid[np.argmax(one(row))] if one(row).any() else np.nan for row in x]
    return float(np.nanmean(costs))


def dense_ball(epsilon: float, norm: str, num_points: int) -> np.ndarray:
    """The centre, the surface and the interior of the ball, other points than solvers use."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(num_points, 3))
    if norm == "l2":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    else:
        corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
        points = np.concatenate([corners, points / np.abs(points).max(1, keepdims=True)])
    points[::4] *= rng.random((len(points[::4]), 1))
    return epsilon * np.concatenate([np.zeros((1, 3)), points])


def strong_attack(score, truth, x, action, scale, epsilon, norm) -> np.ndarray:
    """Lowest logit over 20,000 random points and 64 descents of 60 steps; shape (num_users,).

    Ten times what verification spends, with code of its own.
    """
    surface = dense_ball(epsilon, norm, 20_000)
    starts = jnp.asarray(surface[:64])

    def project(delta):
        if norm == "linf":
            return jnp.clip(delta, -epsilon, epsilon)
        size = jnp.sqrt((delta**2).sum())
        return delta * jnp.minimum(1.0, epsilon / jnp.maximum(size, 1e-30))

    @jax.jit
    def one(x, action):
        def logit(delta):
            moved = truth.counterfactual(x, pcr.Action.soft(delta * scale))
            return score(truth.counterfactual(moved, action))

        def descend(start):
            def step(carry, i):
                delta, lowest = carry
                value, slope = jax.value_and_grad(logit)(delta)
                size = jnp.sqrt((slope**2).sum())
                way = jnp.sign(slope) if norm == "linf" else slope / jnp.maximum(size, 1e-30)
                delta = project(delta - epsilon * 0.5 * 0.93**i * way)
                return (delta, jnp.minimum(lowest, value)), None

            (delta, lowest), _ = jax.lax.scan(step, (start, jnp.inf), jnp.arange(60))
            return jnp.minimum(lowest, logit(delta))

        sampled = jax.lax.map(logit, jnp.asarray(surface), batch_size=2048).min()
        return jnp.minimum(sampled, jax.vmap(descend)(starts).min())

    return np.array([one(*take((x, action), i)) for i in range(len(x))])


def robust_rows(num_users: int, num_points: int = 2000) -> list[dict]:
    """Robust actions against a dense search, and under a stronger attack.

    The dense search sweeps with 60 points of the ball and refines with ``num_points``; with few of
    them it finds what is not robust, and cheaper.
    """
    rows = []
    for scm, norm in product(pcr.library.SCMS, ("l2", "linf")):
        truth = pcr.library.get(scm)
        score, x, scale = population(scm, 0, num_users)
        plain = pcr.find_recourse(score, truth, x, scale=scale)
        for epsilon in (0.05, 0.1, 0.3, 0.5):
            settings = {"scale": scale, "epsilon": epsilon, "norm": norm}
            plan = pcr.find_recourse(score, truth, x, **settings)
            robust = np.asarray(plan.robust_valid)
            best = cheapest(
                score,
                truth,
                x,
                scale,
                deltas=dense_ball(epsilon, norm, 60),
                more_deltas=dense_ball(epsilon, norm, num_points),
                resolution=10,
                near=24,
                start=np.asarray(plain.cost) / 1.02,
                step=0.05,
            )
            found = np.isfinite(best)
            both = robust & found
            worst = strong_attack(score, truth, x, plan.action, scale, epsilon, norm)
            row = {
                "scm": scm,
                "norm": norm,
                "epsilon": epsilon,
                "num_points": num_points,
                "dense_found": float(found.mean()),
                "robust_valid": float(robust.mean()),
                "robust_of_found": float(robust[found].mean()),
                "broken": int(np.sum(worst[robust] < 0)),
                "claimed": int(robust.sum()),
                "cost_ratio": float(np.asarray(plan.cost)[both].sum() / best[both].sum()),
                "evaluations": float(np.mean(plan.num_evaluations)),
            }
            rows.append(row)
    return rows


def _squashed(coefficients, parents):
    return 1.5 * jnp.tanh(jnp.sum(coefficients * parents, axis=-1))


def random_graph(rng: np.random.Generator, num_nodes: int) -> pcr.Graph:
    """A DAG with half of all edges."""
    nodes = [f"X{j + 1}" for j in range(num_nodes)]
    edges = [(a, b) for j, b in enumerate(nodes) for a in nodes[:j] if rng.random() < 0.5]
    return pcr.Graph.from_edges(nodes, edges)


def random_scm(num_nodes: int, kind: str) -> pcr.SCM:
    """On a random DAG; linear, or tanh of a linear effect."""
    rng = np.random.default_rng(num_nodes)
    graph = random_graph(rng, num_nodes)
    size = np.sqrt(num_nodes / 3)
    linear = pcr.linear_scm(graph, rng.uniform(-1, 1, len(graph.edges)) / size)
    if kind == "linear":
        return linear
    mechanisms = tuple(pcr.Mechanism(m.coefficients, _squashed) for m in linear.mechanisms)
    return pcr.SCM(graph, mechanisms, linear.noise)


def slsqp(rng: np.random.Generator, num_nodes: int, margin, slope, user):
    """One run of SciPy's SLSQP: the cheapest move, split into its signs, of positive margin."""
    start = np.abs(rng.normal(size=2 * num_nodes)) * (rng.random(2 * num_nodes) < 2 / num_nodes)
    return minimize(
        np.sum,
        start,
        jac=np.ones_like,
        bounds=[(0, None)] * (2 * num_nodes),
        constraints={"type": "ineq", "fun": margin, "jac": slope, "args": (user,)},
        method="SLSQP",
        options={"maxiter": 200},
    )


def scipy_cost(score, scm, x, scale, num_runs: int) -> np.ndarray:
    """Best of ``num_runs`` SLSQP runs from random starts, on the split of a move into its signs."""
    rng = np.random.default_rng(0)
    d = x.shape[1]

    @jax.jit
    @partial(jax.value_and_grad, argnums=1)
    def logit(x, move):
        return score(scm.counterfactual(x, pcr.Action.soft(move * scale)))

    def margin(both, user):
        return float(logit(user, jnp.asarray(both[:d] - both[d:], jnp.float32))[0])

    def slope(both, user):
        gradient = np.asarray(logit(user, jnp.asarray(both[:d] - both[d:], jnp.float32))[1])
        return np.concatenate([gradient, -gradient]).astype(float)

    costs = []
    for user in x:
        best = np.inf
        for _ in range(num_runs):
            found = slsqp(rng, d, margin, slope, user)
            if margin(found.x, user) >= -1e-4:
                best = min(best, found.fun)
        costs.append(best)
    return np.array(costs)


def node_rows(num_users: int, num_runs: int, sizes=(3, 5, 7, 10, 20)) -> list[dict]:
    """Random SCMs of many sizes against SciPy, and the time for 500 users."""
    rows = []
    for num_nodes in sizes:
        for kind in ("linear", "additive noise"):
            truth = random_scm(num_nodes, kind)
            score, x, scale = pcr.refused_population(
                jax.random.key(0), truth, num_users=500, rho="mean_abs"
            )
            find = partial(pcr.find_recourse, score, truth, scale=scale)
            plan, measured = timed(partial(find, x), 1)
            best = scipy_cost(score, truth, x[:num_users], scale, num_runs)
            some = take(plan, slice(num_users))
            labels = {
                "num_nodes": num_nodes,
                "kind": kind,
                "seconds_500_users": measured["seconds"],
            }
            rows.append({**labels, **quality(some, best)})
    return rows


@partial(jax.jit, static_argnums=0)
def _fixed_steps(settings, score, scms, x, sets, scale, epsilon, rate):
    """Algorithm 1 as released: every problem takes all 500 steps."""

    def one(scm, x, members):
        problem = algorithm1.Problem(scm, x, members, -UNBOUNDED, UNBOUNDED, rate)
        state = algorithm1.initial(settings, x.shape[0])

        def step(state, _):
            before = state.shift
            state, judged = algorithm1.step(settings, score, scale, epsilon, problem, state)
            return state, (before, judged.valid)

        _, (shifts, valid) = jax.lax.scan(step, state, length=settings.num_steps)
        first = jnp.argmax(valid)
        return jnp.where(valid.any(), jnp.abs(shifts[first]).sum(), jnp.inf)

    def user(args):
        scm, x = args
        return jax.vmap(lambda members: one(scm, x, members))(sets).min()

    return jax.lax.map(user, (scms, x), batch_size=64)


def speed_rows(num_users: int, repeats: int) -> list[dict]:
    """Seconds of the search alone: compiled before, verified after."""
    truth = pcr.library.m1()
    score, x, scale = population("m1", 0, num_users)
    scms, ones = per_user(truth, num_users), jnp.ones(x.shape)
    tasks = Task(scms, x, -UNBOUNDED * ones, UNBOUNDED * ones, ones)
    sets = jnp.asarray(pcr.intervention_sets(3), float)
    price, rates = Cost(scale, jnp.ones(3)), jnp.full(num_users, 0.5)
    paper, rows = pcr.Algorithm1(), []
    for epsilon in (0.0, 0.1):
        radius = jnp.asarray(epsilon) if epsilon else None
        ball = Ball(radius) if epsilon else None
        searches = {
            "optimal": partial(
                optimal.Search(pcr.Optimal(), score, price, ball, False, 3).begin, tasks, rates
            ),
            "paper": partial(
                algorithm1.Search(paper, score, scale, ball, sets).begin, tasks, rates
            ),
            "paper, 500 fixed steps": lambda radius=radius: _fixed_steps(
                paper, score, scms, x, sets, scale, radius, jnp.asarray(0.5)
            ),
        }
        for solver, search in searches.items():
            result, measured = timed(search, repeats)
            if solver == "paper, 500 fixed steps":
                costs = np.asarray(result)
                cost, validity = costs[np.isfinite(costs)].mean(), np.isfinite(costs).mean()
                evaluations = 7 * 500 * (2 if epsilon else 1)
            else:
                costs = np.abs(np.asarray(result.move)).sum(1)
                cost, validity = costs[costs > 0].mean(), (costs > 0).mean()
                evaluations = np.mean(result.evaluations)
            rows.append(
                {
                    "epsilon": epsilon,
                    "solver": solver,
                    **measured,
                    "cost": float(cost),
                    "validity": float(validity),
                    "evaluations_per_user": float(evaluations),
                }
            )
    return rows


def outside_rows(num_users: int) -> list[dict]:
    """A gradient-boosted classifier of scikit-learn."""
    from sklearn.ensemble import GradientBoostingClassifier

    rows = []
    for scm in pcr.library.SCMS:
        truth = pcr.library.get(scm)
        k_x, k_y, k_users = jax.random.split(jax.random.key(0), 3)
        x = truth.sample(k_x, 1500)
        y = pcr.sample_labels(k_y, x, rho="mean_abs")
        model = GradientBoostingClassifier(random_state=0).fit(np.asarray(x), np.asarray(y))
        score = pcr.outside_model(model)
        users = truth.sample(k_users, 10 * num_users)
        users = users[np.asarray(score(users)) < 0][:num_users]
        plan = pcr.find_recourse(score, truth, users, scale=x.std(0))
        best = cheapest(score, truth, users, x.std(0), resolution=20)
        rows.append({"scm": scm, **quality(plan, best)})
    return rows


PARTS = ("optimum", "outside", "nodes", "robust", "reference", "speed")


def measure(data: Path, quick: bool, out: Path, parts: list[str]) -> None:
    """Measure, print and record; what is done is recorded before the next part begins.

    Parts that are not asked for stay as they were recorded, if they were at this size.
    """
    console, path = Console(width=200), out / "optimality.json"
    rows_of = {
        "optimum": lambda: optimum_rows(*((20, 1) if quick else (100, 5))),
        "outside": lambda: outside_rows(10 if quick else 50),
        "nodes": lambda: node_rows(*((5, 3, (3, 7)) if quick else (50, 20))),
        "robust": lambda: robust_rows(5 if quick else 50),
        "reference": lambda: reference_rows(data, slice(10) if quick else slice(None)),
        "speed": lambda: speed_rows(500, 3 if quick else 7),
    }
    record: dict = {"quick": quick, **other_parts(path, quick, parts)}
    for part in PARTS:
        if part not in parts or (part == "reference" and not data.is_dir()):
            continue
        began = time.perf_counter()
        record[part] = rows_of[part]()
        show(console, f"{part} ({time.perf_counter() - began:.0f} s)", record[part])
        write_record(path, record)
