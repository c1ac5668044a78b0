"""Whether plans are what they say: independent attacks, a dense search, sentences followed.

Runs on other checkouts too, to put their figures beside: ``PYTHONPATH=CHECKOUT python
benchmarks/honesty.py --out DIR`` has the package of CHECKOUT and this file.
"""

import argparse
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr

EPSILON = 0.1
POINTS, DESCENTS, STEPS = 20_000, 50, 50
SCMS = ("m1", "m2", "m3")
KINDS = ("recorded", "well-trained", "saturated", "tree", "steps")
CLASSIFIERS = {"saturated": {"learning_rate": 0.5, "epochs": 100}}


class Case(NamedTuple):
    """Users refused by one score."""

    kind: str
    scm: str
    score: object
    x: jax.Array
    scale: jax.Array


def stepped(score, x):
    """A score of few values."""
    return jnp.floor(2 * score(x)) / 2


def recorded(data: Path) -> Iterator[Case]:
    """The users and saturated classifiers of the paper's released code."""
    for path in sorted(data.glob("recourse_*_eps0.1_seed0.npz")):
        found = np.load(path)
        layers = {
            f"Dense_{i}": {"kernel": jnp.asarray(found[f"W{i}"].T), "bias": found[f"b{i}"]}
            for i in range(3)
        }
        mean, sd = jnp.asarray(found["mean_true"]), jnp.asarray(found["std_true"])
        score = pcr.Classifier(pcr.MLP(), {"params": layers}, mean, sd)
        x = jnp.asarray(found["X_explain"]) * sd + mean
        yield Case("recorded", path.stem.split("_")[1].lower(), score, x, sd)


def drawn(kind: str, num_users: int, seeds: int) -> Iterator[Case]:
    """Populations of our own."""
    for scm in SCMS:
        truth = pcr.library.get(scm)
        for seed in range(seeds):
            key = jax.random.key(100 + seed)
            settings = CLASSIFIERS.get(kind, {})
            score, x, scale = pcr.refused_population(key, truth, num_users=num_users, **settings)
            if kind == "steps":
                score = jax.tree_util.Partial(stepped, score)
            elif kind == "tree":
                score, x = tree(score, truth, seed, num_users)
            yield Case(kind, scm, score, x[np.asarray(jax.vmap(score)(x)) < 0], scale)


def tree(score, truth, seed: int, num_users: int):
    """A decision tree fitted to a score's decisions, and whom it refuses."""
    from sklearn.tree import DecisionTreeClassifier

    x = np.asarray(truth.sample(jax.random.key(seed + 7), 3000))
    model = DecisionTreeClassifier(max_leaf_nodes=20, random_state=0)
    fitted = pcr.outside_model(model.fit(x, (np.asarray(score(jnp.asarray(x))) >= 0).astype(int)))
    users = truth.sample(jax.random.key(seed + 9), 6 * num_users)
    return fitted, users[np.asarray(fitted(users)) < 0][:num_users]


def _logit(score, truth, scale, x, action, delta):
    perturbed = truth.counterfactual(x, pcr.Action.soft(delta * scale))
    return score(truth.counterfactual(perturbed, action))


@jax.jit
def _sampled(score, truth, scale, x, action, deltas):
    """The lowest logits over deltas (n, d), shape (num_users,), and where the worst of them are."""

    def one(user):
        values = jax.lax.map(partial(_logit, score, truth, scale, *user), deltas, batch_size=2000)
        return values.min(), jax.lax.top_k(-values, DESCENTS)[1]

    return jax.lax.map(one, (x, action))


@jax.jit
def _descended(score, truth, scale, x, action, starts):
    """The lowest logits of descents from starts (num_users, n, d); shape (num_users,)."""

    def one(user):
        *user, starts = user
        logit = partial(_logit, score, truth, scale, *user)

        def descend(start):
            def step(carry, i):
                delta, lowest = carry
                value, slope = jax.value_and_grad(logit)(delta)
                way = slope / jnp.maximum(jnp.linalg.norm(slope), 1e-30)
                delta = delta - 0.3 * EPSILON * 0.92**i * way
                size = jnp.maximum(jnp.linalg.norm(delta), 1e-30)
                return (delta * jnp.minimum(1.0, EPSILON / size), jnp.minimum(lowest, value)), None

            (end, lowest), _ = jax.lax.scan(step, (start, jnp.inf), jnp.arange(STEPS))
            return jnp.minimum(lowest, logit(end))

        return jax.vmap(descend)(starts).min()

    return jax.lax.map(one, (x, action, starts))


def attacked(case: Case, action) -> np.ndarray:
    """The lowest logits (num_users,) that an attack of code of its own finds."""
    truth, rng = pcr.library.get(case.scm), np.random.default_rng(5)
    deltas = rng.normal(size=(POINTS, 3))
    deltas /= np.linalg.norm(deltas, axis=1, keepdims=True)
    deltas[POINTS // 2 :] *= rng.random((POINTS - POINTS // 2, 1)) ** (1 / 3)
    deltas = jnp.asarray(EPSILON * deltas, jnp.float32)
    problem = (case.score, truth, case.scale, case.x, action)
    lowest, worst = _sampled(*problem, deltas)
    if getattr(case.score, "differentiable", True):
        lowest = jnp.minimum(lowest, _descended(*problem, deltas[worst]))
    return np.asarray(lowest)


_MOVE = re.compile(
    r"([Rr]aise|[Ll]ower) (\w+) by ([\d.,]+), from [-\d.,]+ to ([-\d.,]+?)(?= |;|\.$)"
)


def followed(sentence: str, nodes, x, to_value: bool) -> np.ndarray:
    """The shift (d,) of somebody who does what a sentence says, by the change or to the value."""
    shift = np.zeros(len(nodes), np.float32)
    for verb, name, by, to in _MOVE.findall(sentence):
        j = nodes.index(name)
        change = float(by.replace(",", "")) * (1 if verb.lower() == "raise" else -1)
        shift[j] = float(to.replace(",", "")) - float(x[j]) if to_value else change
    return shift


def sentences_row(case: Case, plan) -> dict:
    """Share of users for whom doing what the sentence says works."""
    truth = pcr.library.get(case.scm)
    told = plan.to_frame(list(truth.graph.nodes), case.x).sentence
    row = {}
    for how in ("by", "to"):
        shifts = [
            followed(text, truth.graph.nodes, x, how == "to")
            for text, x in zip(told, np.asarray(case.x), strict=True)
        ]
        after = truth.counterfactual(case.x, pcr.Action.soft(jnp.asarray(np.stack(shifts))))
        row[f"favourable_{how}"] = int((np.asarray(jax.vmap(case.score)(after)) >= 0).sum())
    return row


def dense(case: Case, users: np.ndarray) -> np.ndarray:
    """Cost of a robust action that a dense search finds for the users, infinite for none."""
    from benchmarks.brute_force import cheapest
    from benchmarks.optimality import dense_ball

    settings = {
        "deltas": dense_ball(EPSILON, "l2", 100).astype(np.float32),
        "more_deltas": dense_ball(EPSILON, "l2", 2000).astype(np.float32),
        "resolution": 12,
        "near": 24,
        "step": 0.05,
    }
    truth = pcr.library.get(case.scm)
    return cheapest(case.score, truth, case.x[users], case.scale, **settings)


def row_of(case: Case, with_dense: bool) -> dict:
    """One population: claims, what breaks them, cost, and CPU seconds of a second call."""
    truth = pcr.library.get(case.scm)
    find = partial(pcr.find_recourse, case.score, truth, case.x, scale=case.scale)
    began = time.process_time()
    jax.block_until_ready(find(epsilon=EPSILON))
    first = time.process_time() - began
    began = time.process_time()
    plan = jax.block_until_ready(find(epsilon=EPSILON))
    seconds = time.process_time() - began
    robust = np.asarray(plan.robust_valid)
    broken = robust & (attacked(case, plan.action) < 0)
    unserved = np.flatnonzero(~robust | broken)
    served = np.isfinite(dense(case, unserved)).sum() if with_dense and len(unserved) else 0
    told = np.asarray(plan.status) == pcr.PlanStatus.found
    plain = jax.block_until_ready(find())
    return {
        "kind": case.kind,
        "scm": case.scm,
        "users": len(case.x),
        "claimed": int(robust.sum()),
        "broken": int(broken.sum()),
        "certified": int(np.sum(getattr(plan, "certified", 0))),
        "found_but_not_robust": int((told & ~robust).sum()),
        "served_by_dense_search_only": int(served),
        "cost_sum": float(np.asarray(plan.cost)[robust].sum()),
        "cpu_seconds": seconds,
        "first_call_cpu_seconds": first,
        "evaluations_most": int(np.max(plan.num_evaluations)),
        "plain_valid": int(np.sum(plain.valid)),
        "plain_cost_sum": float(np.asarray(plain.cost)[np.asarray(plain.valid)].sum()),
        **sentences_row(case, plain),
    }


def summary(rows: list[dict]) -> list[dict]:
    """Sums over the populations of a kind, and over all."""
    found = []
    for kind in (*KINDS, "all"):
        some = [row for row in rows if kind in ("all", row["kind"])]
        if some:
            sums = {
                name: sum(row[name] for row in some)
                for name in some[0]
                if name not in ("kind", "scm", "evaluations_most")
            }
            users, claimed = sums["users"], sums["claimed"]
            found.append(
                {
                    "kind": kind,
                    **sums,
                    "cost": sums["cost_sum"] / claimed,
                    "plain_cost": sums["plain_cost_sum"] / sums["plain_valid"],
                    "cpu_seconds_a_user": sums["cpu_seconds"] / users,
                    "evaluations_most": max(row["evaluations_most"] for row in some),
                }
            )
    return found


def measure(data: Path, out: Path, quick: bool, with_dense: bool = True) -> None:
    """Measure, print and record."""
    from rich.console import Console

    from benchmarks.records import show, write_record

    console = Console(width=240)
    sizes = {"well-trained": (100, 5), "saturated": (100, 5), "tree": (30, 2), "steps": (60, 2)}
    if quick:
        sizes = dict.fromkeys(sizes, (10, 1))
    rows = []
    for kind in KINDS:
        cases = recorded(data) if kind == "recorded" else drawn(kind, *sizes[kind])
        rows += [row_of(case, with_dense) for case in cases]
        show(console, kind, [row for row in rows if row["kind"] == kind] or [{"kind": kind}])
    show(console, "Sums", summary(rows))
    write_record(out / "honesty.json", {"quick": quick, "sums": summary(rows), "rows": rows})


if __name__ == "__main__":
    import sys

    sys.path.append(str(Path(__file__).parents[1]))
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/reference"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    measure(options.data, options.out, options.quick)
