"""Whether plans are what they say: independent attacks, a dense search, sentences followed."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.problems import DATA, Case, drawn, recorded
from benchmarks.quality.brute_force import cheapest, dense_ball
from benchmarks.timing import timed

OPTIONS = DATA
EPSILON = 0.1
POINTS, DESCENTS, STEPS = 20_000, 50, 50
KINDS = ("recorded", "well-trained", "saturated", "tree", "steps")


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


@partial(jax.jit, static_argnums=7)
def _descended(score, truth, scale, x, action, starts, epsilon, box: bool):
    """The lowest logits of descents from starts (num_users, n, d); shape (num_users,)."""
    norm = jnp.linalg.norm

    def one(user):
        *user, starts = user
        logit = partial(_logit, score, truth, scale, *user)

        def descend(start):
            def step(carry, i):
                delta, lowest = carry
                value, slope = jax.value_and_grad(logit)(delta)
                way = jnp.sign(slope) if box else slope / jnp.maximum(norm(slope), 1e-30)
                delta = delta - 0.3 * epsilon * 0.92**i * way
                size = jnp.maximum(norm(delta), 1e-30)
                inside = delta * jnp.minimum(1.0, epsilon / size)
                inside = jnp.clip(delta, -epsilon, epsilon) if box else inside
                return (inside, jnp.minimum(lowest, value)), None

            (end, lowest), _ = jax.lax.scan(step, (start, jnp.inf), jnp.arange(STEPS))
            return jnp.minimum(lowest, logit(end))

        return jax.vmap(descend)(starts).min()

    return jax.lax.map(one, (x, action, starts))


def attacked(case: Case, action, epsilon: float = EPSILON, norm: str = "l2") -> np.ndarray:
    """The lowest logits (num_users,) that an attack of code of its own finds."""
    rng = np.random.default_rng(5)
    deltas = rng.normal(size=(POINTS, 3))
    deltas /= np.linalg.norm(deltas, axis=1, keepdims=True, ord=np.inf if norm == "linf" else 2)
    deltas[POINTS // 2 :] *= rng.random((POINTS - POINTS // 2, 1)) ** (1 / 3)
    deltas = jnp.asarray(epsilon * deltas, jnp.float32)
    problem = (case.score, case.truth, case.scale, case.x, action)
    lowest, worst = _sampled(*problem, deltas)
    if getattr(case.score, "differentiable", True):
        descended = _descended(*problem, deltas[worst], epsilon, norm == "linf")
        lowest = jnp.minimum(lowest, descended)
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
    truth = case.truth
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
    settings = {"resolution": 12, "near": 24, "step": 0.05}
    for name, num_points in {"deltas": 100, "more_deltas": 2000}.items():
        settings[name] = dense_ball(EPSILON, "l2", num_points).astype(np.float32)
    return cheapest(case.score, case.truth, case.x[users], case.scale, **settings)


def row_of(case: Case) -> dict:
    """One population: claims, what breaks them, cost, and CPU seconds of a second call."""
    find = partial(pcr.find_recourse, case.score, case.truth, case.x, scale=case.scale)
    plan, measured = timed(partial(find, epsilon=EPSILON), 1)
    robust = np.asarray(plan.robust_valid)
    broken = robust & (attacked(case, plan.action) < 0)
    unserved = np.flatnonzero(~robust | broken)
    served = np.isfinite(dense(case, unserved)).sum() if len(unserved) else 0
    told = np.asarray(plan.status) == pcr.PlanStatus.found
    plain = jax.block_until_ready(find())
    row = {"kind": case.kind, "scm": case.scm, "users": len(case.x)}
    row |= {"claimed": int(robust.sum()), "broken": int(broken.sum())}
    row["certified"] = int(np.sum(getattr(plan, "certified", 0)))
    row["found_but_not_robust"] = int((told & ~robust).sum())
    row["served_by_dense_search_only"] = int(served)
    row["cost_sum"] = float(np.asarray(plan.cost)[robust].sum())
    row["cpu_seconds"] = measured["cpu_seconds"]
    row["first_call_cpu_seconds"] = measured["first_cpu_seconds"]
    row["evaluations_most"] = int(np.max(plan.num_evaluations))
    row["plain_valid"] = int(np.sum(plain.valid))
    row["plain_cost_sum"] = float(np.asarray(plain.cost)[np.asarray(plain.valid)].sum())
    return row | sentences_row(case, plain)


def summary(rows: list[dict]) -> list[dict]:
    """Sums over the populations of a kind, and over all."""
    found = []
    for kind in (*KINDS, "all"):
        some = [row for row in rows if kind in ("all", row["kind"])]
        if not some:
            continue
        names = [n for n in some[0] if n not in ("kind", "scm", "evaluations_most")]
        sums = {name: sum(row[name] for row in some) for name in names}
        sums["cost"] = sums["cost_sum"] / sums["claimed"]
        sums["plain_cost"] = sums["plain_cost_sum"] / sums["plain_valid"]
        sums["cpu_seconds_a_user"] = sums["cpu_seconds"] / sums["users"]
        sums["evaluations_most"] = max(row["evaluations_most"] for row in some)
        found.append({"kind": kind, **sums})
    return found


def measure(options):
    """Kind by kind; then the sums."""
    sizes = {"well-trained": (100, 5), "saturated": (100, 5), "tree": (30, 2), "steps": (60, 2)}
    if options.quick:
        sizes = dict.fromkeys(sizes, (10, 1))
    rows = []
    for kind in KINDS:
        cases = recorded(options.data) if kind == "recorded" else drawn(kind, *sizes[kind])
        most = 10 if options.quick else None
        if found := [row_of(case._replace(x=case.x[:most])) for case in cases]:
            yield "rows", found
            rows += found
    yield "sums", summary(rows)
