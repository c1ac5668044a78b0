"""Advice on features of all kinds against exhaustive search: random tables, SCMs and models.

Each task is a table of three to six columns (reals with and without steps, integers, levels,
booleans, categories), a random linear SCM whose nodes keep to their columns, a model of
scikit-learn, a forbidden combination, and one person who is refused. The search that it is judged
by tries all values of up to three columns, of reals without steps a fine grid, and computes what
follows by itself, in NumPy. With a level, draws of the person's SCM judge: the search needs the
share of all of them, and what is advised is judged by others, which nobody has seen.
"""

import time
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd

import pcr_jax as pcr

PARTS = ("known", "level")
KINDS = ("logistic", "network", "boosting")
LEVEL, DRAWS, FRESH = 0.9, 400, 4000
SPREAD = 0.15  # of coefficients over draws, in standard deviations of child and parent
FINE = 400  # values of a real without steps
EDGES = {  # X4, X6 and X5 of the last have none, so that they can be categories
    3: ["X1 -> X2", "X1 -> X2 -> X3 <- X1"],
    4: ["X1 -> X2 -> X3", "X1 -> X2 <- X3"],
    5: ["X1 -> X2 -> X3 -> X4", "X1 -> {X2 X3} -> X4"],
    6: ["X1 -> X2 -> X3 -> X4 <- X1", "X1 -> X2 -> X4 <- X3 <- X1"],
}
CATEGORIES, LEVELS = ["red", "green", "blue", "grey"], ["none", "little", "some", "much", "all"]


@dataclass
class Drawn:
    """One random task, and what is known of it by hand."""

    task: pcr.Task
    person: pd.DataFrame
    effects: dict  # (cause, effect): coefficient
    forbidden: tuple  # ((column, entry), (column, entry))


def columns(rng, graph: pcr.Graph, continuous: bool) -> dict:
    """A feature for each node; of reals without steps one at most, or none."""
    kinds, features = ["real", "stepped", "integer", "levels", "boolean"], {}
    alone = ~graph.descendants.any(0) & ~graph.descendants.any(1)
    for j, node in enumerate(graph.nodes):
        kind = rng.choice(["nominal", *kinds] if not alone[j] else ["nominal", "nominal", *kinds])
        if kind == "nominal" and not alone[j]:
            kind = "stepped"
        if kind == "real" and (not continuous or any(f.continuous for f in features.values())):
            kind = "integer"
        way = {"direction": rng.choice([None, None, "increase", "decrease"])}
        features[node] = {
            "real": lambda way=way: pcr.Real(low=-3.0, high=3.0, **way),
            "stepped": lambda way=way: pcr.Real(low=-2.0, high=2.0, step=0.25, **way),
            "integer": lambda way=way: pcr.Integer(low=0, high=6, **way),
            "levels": lambda way=way: pcr.Levels(LEVELS, **way),
            "boolean": lambda: pcr.Levels([False, True]),
            "nominal": lambda: pcr.Nominal(CATEGORIES, forbidden=[("red", "blue")]),
        }[kind]()
    return features


def _spread(feature) -> float:
    return {"real": 1.0, "integer": 1.5, "levels": 1.2, "nominal": 1.0}[feature.kind] * (
        0.5 if feature.grid[1] == 1 else 1.0
    )


def random_task(seed: int, kind: str) -> Drawn:
    """A table, an SCM and a model of that kind, and the first of those whom it refuses."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(seed)
    num = 3 + seed % 4
    which = int(rng.integers(2))
    text = EDGES[num][which]
    nodes = " ".join(f"X{j + 1};" for j in range(num))
    graph = pcr.task.as_graph(f"dag {{ {nodes} {text} }}")
    features = columns(rng, graph, continuous=not which)  # few programs are compiled
    effects = {
        (graph.nodes[p], graph.nodes[c]): float(rng.uniform(0.4, 1.0) * rng.choice([-1, 1]))
        * _spread(features[graph.nodes[c]])
        / _spread(features[graph.nodes[p]])
        for p, c in graph.edges
    }
    codes = pd.DataFrame(index=range(500))
    for node, parents in zip(graph.nodes, graph.parents, strict=True):
        low, high, _ = features[node].grid
        middle = 0.0 if features[node].kind == "real" else (low + high) / 2
        total = middle + _spread(features[node]) * rng.normal(size=len(codes))
        for parent in (graph.nodes[p] for p in parents):
            total += effects[parent, node] * (codes[parent] - codes[parent].mean())
        codes[node] = on_grid(total, features[node])
    table = pd.DataFrame({n: f.decode(codes[n].to_numpy()) for n, f in features.items()})
    table = table[list(rng.permutation(graph.nodes))].assign(town="here")
    table = table.set_index(pd.Index([f"p{i}" for i in range(len(table))]))
    standard = (codes - codes.mean()) / codes.std().clip(lower=1e-3)
    merit = (standard * rng.normal(size=num)).sum(axis=1)
    for node, feature in features.items():
        if feature.kind == "nominal":
            merit += codes[node].map(dict(enumerate(rng.normal(size=4)))) - standard[node]
    merit += 0.3 * rng.normal(size=len(table))
    label = np.where(merit > np.quantile(merit, 0.65), "yes", "no")
    classifier = {
        "logistic": lambda: LogisticRegression(max_iter=2000),
        "network": lambda: MLPClassifier((16, 16), max_iter=150, tol=0.0, random_state=0),
        "boosting": lambda: GradientBoostingClassifier(n_estimators=40, random_state=0),
    }[kind]()
    encode = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network may have gone on
        model = make_pipeline(encode, classifier).fit(table, label)
    refused = table[model.predict(table) == "no"]
    one, two = rng.choice(graph.nodes, 2, replace=False)
    forbidden = tuple((node, table[node].value_counts().index[0]) for node in (one, two))
    task = pcr.Task(
        model=model,
        favourable="yes",
        data=table,
        graph=graph,
        features=features,
        forbidden=[dict(forbidden)],
    )
    return Drawn(task, refused.iloc[:1], effects, forbidden)


def on_grid(value, feature):
    """Rounded and clipped as the column's entries are."""
    low, high, step = feature.grid
    value = np.round(value) if step else value
    return np.clip(value, low, high)


def followed(drawn: Drawn, now: dict, acted: dict, effects: dict) -> dict:
    """What follows from actions, by node; in NumPy, so many at once.

    ``acted``: for each node (n,), NaN where it is not acted on; ``effects``: numbers or (m, 1).
    """
    after: dict = {}
    for node in drawn.task.graph.nodes:
        moved = 0.0
        for (cause, effect), size in effects.items():
            if effect == node:
                moved = moved + size * (after[cause] - now[cause])
        reached = on_grid(now[node] + moved, drawn.task.features[node])
        reached = np.where(np.asarray(moved) == 0, now[node], reached)
        after[node] = np.where(np.isnan(acted[node]), reached, acted[node])
    return after


def favourable(drawn: Drawn, after: dict) -> np.ndarray:
    """Where outcomes (...) by node are favourable, and not forbidden; asked of the model itself."""
    shape = np.broadcast_shapes(*(np.shape(value) for value in after.values()))
    flat = np.stack([np.broadcast_to(after[n], shape).ravel() for n in drawn.task.features], 1)
    flat, places = np.unique(flat, axis=0, return_inverse=True)
    entries = pd.DataFrame(
        {n: f.decode(flat[:, j]) for j, (n, f) in enumerate(drawn.task.features.items())}
    ).assign(town="here")
    model = drawn.task.model
    share = model.predict_proba(entries[list(model.feature_names_in_)])
    good = share[:, list(model.classes_).index("yes")] >= 0.5
    good &= ~np.logical_and(*((entries[n] == e).to_numpy() for n, e in drawn.forbidden))
    return good[places.ravel()].reshape(shape)


def values(drawn: Drawn, node: str, now: float) -> np.ndarray:
    """What a node can be set to, written down from the columns."""
    feature = drawn.task.features[node]
    low, high, _ = feature.grid
    if feature.kind == "real":
        size = feature.step
        grid = np.linspace(low, high, FINE) if size is None else now + size * np.arange(-100, 101)
        grid = grid[(grid >= low - 1e-6) & (grid <= high + 1e-6)]
    else:
        grid = np.arange(low, high + 1)
    direction = getattr(feature, "direction", None)
    if direction is not None:
        grid = grid[grid > now] if direction == "increase" else grid[grid < now]
    for before, after in getattr(feature, "forbidden", ()):
        if feature.names[int(now)] == before:
            grid = grid[grid != feature.names.index(after)]
    return grid[np.abs(grid - now) > 1e-9]


def exhaustive(drawn: Drawn, effects: dict | None = None) -> float:
    """The least cost of all actions on up to three nodes; infinite where there is none.

    ``effects`` (draws, 1) with a level: those whose share of draws reaches it.
    """
    nodes = drawn.task.graph.nodes
    now = dict(zip(nodes, drawn.task.encode(drawn.person)[0].astype(float), strict=True))
    grids = {node: values(drawn, node, now[node]) for node in nodes}
    scale = dict(zip(nodes, drawn.task.scale.astype(float), strict=True))
    best = np.inf
    for size in (1, 2, 3):
        for chosen in combinations(nodes, size):
            moves = np.array(list(product(*(grids[node] for node in chosen)))).reshape(-1, size)
            cost = np.zeros(len(moves))
            for j, node in enumerate(chosen):
                nominal = drawn.task.features[node].kind == "nominal"
                distance = np.ones(len(moves)) if nominal else np.abs(moves[:, j] - now[node])
                cost += distance / scale[node]
            order = np.argsort(cost, kind="stable")
            moves, cost = moves[order], cost[order]
            for start in range(0, len(moves), part := 20_000 if effects is None else 200):
                if cost[start] >= best:
                    break
                some = slice(start, start + part)
                acted = dict.fromkeys(nodes, np.full(len(moves[some]), np.nan))
                acted |= {node: moves[some, j] for j, node in enumerate(chosen)}
                after = followed(drawn, now, acted, effects or drawn.effects)
                good = favourable(drawn, after)
                works = good if effects is None else good.mean(0) >= LEVEL - 1e-9
                works = np.broadcast_to(works, cost[some].shape)
                if works.any():
                    best = min(best, cost[some][works.argmax()])
                    break
    return best


def draws_of(drawn: Drawn, seed: int, num: int) -> dict:
    """Effects over draws of the person's SCM, (num, 1) each."""
    rng, features = np.random.default_rng(seed), drawn.task.features
    return {
        (a, b): size
        + SPREAD * _spread(features[b]) / _spread(features[a]) * rng.normal(size=(num, 1))
        for (a, b), size in drawn.effects.items()
    }


def scm_of(drawn: Drawn, effects: dict) -> pcr.SCM:
    """The SCM, or draws of batch shape (1, draws)."""
    graph = drawn.task.graph
    order = [(graph.nodes[p], graph.nodes[c]) for p, c in graph.edges]
    numbers = np.stack([np.ravel(effects[edge]) for edge in order], -1).astype(np.float32)
    noise = [dist.Normal(0.0, 1.0)] * graph.num_nodes
    if len(numbers) == 1:
        return pcr.linear_scm(graph, numbers[0], noise)
    return jax.vmap(jax.vmap(partial(pcr.linear_scm, graph, noise=noise)))(numbers[None])


def found(seed: int, kind: str, level: float | None) -> dict:
    """One task: what is advised, and what could have been."""
    drawn = random_task(seed, kind)
    task, nodes = drawn.task, drawn.task.graph.nodes
    effects = None if level is None else draws_of(drawn, seed, DRAWS)
    began = time.perf_counter()
    scm = scm_of(drawn, drawn.effects if effects is None else effects)
    plan = task.recourse(drawn.person, scm, level=level)
    seconds = time.perf_counter() - began
    row, advice = plan.to_frame().iloc[0], plan.first[0]
    best = exhaustive(drawn, effects)
    now = dict(zip(nodes, task.encode(drawn.person)[0].astype(float), strict=True))
    record = {"best": best, "cost": row.cost, "seconds": seconds, "status": row.status}
    record |= {"valid": False, "misplaced": False, "share": np.nan, "p_valid": np.nan}
    if np.isfinite(row.cost):
        told = {node: row[f"{node} (action)"] for node in nodes}
        acted = {
            node: np.nan
            if told[node] is None or told[node] is np.nan
            else float(task.features[node].encode(pd.Series([told[node]]), node)[0])
            for node in nodes
        }
        fresh = drawn.effects if level is None else draws_of(drawn, seed + 10**6, FRESH)
        after = followed(drawn, now, {n: np.array([v]) for n, v in acted.items()}, fresh)
        good = favourable(drawn, after)
        record["share"] = float(good.mean())
        record["valid"] = bool(good.mean() >= (1.0 if level is None else LEVEL))
        record["p_valid"] = np.nan if level is None else row.p_valid
        record["misplaced"] = (
            any(
                np.abs(values(drawn, n, now[n]) - v).min(initial=np.inf)
                > (6.1 / FINE if task.features[n].continuous else 1e-5)
                for n, v in acted.items()
                if not np.isnan(v)
            )
            or int(advice.acted.sum()) > 3
        )
    return record


def summary(kind: str, level: float | None, records: list[dict]) -> dict:
    """Of the tasks that exhaustive search solves."""
    table = pd.DataFrame(records)
    feasible = table[np.isfinite(table.best)]
    ratio = (feasible.cost / feasible.best)[np.isfinite(feasible.cost)]
    return {
        "model": kind,
        "level": level,
        "tasks": len(table),
        "feasible": len(feasible),
        "validity": float(feasible.valid.mean()),
        "cost_ratio": float(ratio.mean()),
        "cost_ratio_max": float(ratio.max()),
        "advised_though_infeasible": int((np.isfinite(table.cost) & np.isinf(table.best)).sum()),
        "misplaced": int(table.misplaced.sum()),
        "share": float(table.share.mean()),
        "p_valid": float(table.p_valid.mean()),
        "share_min": float(table.share.min()),
        "seconds": float(table.seconds.median()),
    }


def measure(options):
    """Models by requirement: 200 tasks where the SCM is known, and 60 with a level.

    The latter are of four and six columns.
    """
    numbers = dict(zip(KINDS, (67, 67, 66), strict=True))
    for first, kind in enumerate(KINDS if "known" in options.part else ()):
        seeds = range(1000 * first, 1000 * first + (2 if options.quick else numbers[kind]))
        yield "known", [summary(kind, None, [found(seed, kind, None) for seed in seeds])]
    for first, kind in enumerate(KINDS if "level" in options.part else ()):
        seeds = range(1000 * first + 101, 1000 * first + (103 if options.quick else 141), 2)
        yield "level", [summary(kind, LEVEL, [found(seed, kind, LEVEL) for seed in seeds])]
