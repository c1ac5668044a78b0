"""Seconds and peak memory against users, nodes, queries and draws, a process for each cell.

Recourse is at epsilon 0, robust recourse at 0.1, inference by `Ess`.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import pcr_jax as pcr
from benchmarks.problems import SCALED, SIGMA, histories, population, random_scm, surrogate
from benchmarks.timing import apart, peak_memory, timed
from pcr_jax.experiments import PAPER

KEY = jax.random.key(0)
QUICK = {"users": (100, 1000), "nodes": (3, 6), "queries": (5, 10), "draws": (256, 1024)}
FULL = {
    "users": (100, 1000, 10_000, 100_000, 1_000_000),
    "nodes": (3, 8, 16, 32, 64),
    "queries": (5, 10, 25, 50, 100),
    "draws": (256, 1024, 10_240),
}
# A cell is left out, by name, if the one before says that it would take longer.
LIMIT_SECONDS = {True: 60.0, False: 200.0}


def keeping(draws: int) -> pcr.Ess:
    """So many draws of a user, every step of every walker kept."""
    return pcr.Ess(num_steps=draws // pcr.Ess().num_starts, thin=1)


def _counterfactual(users=1000, nodes=3):
    truth = random_scm(nodes, "linear")
    x = truth.sample(KEY, users)
    act = jax.jit(lambda x: truth.counterfactual(x, pcr.Action.soft(0.1 * jnp.ones(nodes))))
    return lambda: act(x)


def _recourse(epsilon, users=500, nodes=None):
    if nodes is None:
        truth = pcr.library.m1()
        score, x, scale = population("m1", min(users, 1000))
        x = jnp.resize(x, (users, 3))
    else:
        truth = random_scm(nodes, "linear")
        score, x, scale = pcr.refused_population(KEY, truth, num_users=users, rho="mean_abs")
    return lambda: pcr.find_recourse(score, truth, x, scale=scale, epsilon=epsilon)


def _inference(users=256, queries=10, draws=None):
    history, linear = histories("m1", users, queries), surrogate("m1")
    sampler = SCALED if draws is None else keeping(draws)
    settings = {"likelihood": pcr.tolerance(SIGMA["m1"], PAPER.beta), "sampler": sampler}
    return lambda: pcr.infer(KEY, linear, history, **settings).info["seconds"]


STAGES = {
    "counterfactual": (_counterfactual, ("users", "nodes")),
    "recourse": (partial(_recourse, 0.0), ("users", "nodes")),
    "robust recourse": (partial(_recourse, 0.1), ("users", "nodes")),
    "inference": (_inference, ("users", "queries", "draws")),
}


def measure_cell(cell: dict) -> dict:
    """One stage at one size, in this process; ``seconds`` is without compiling."""
    began = time.perf_counter()
    work = STAGES[cell["stage"]][0](**{cell["axis"]: cell["size"]})
    prepared = time.perf_counter() - began
    _, measured = timed(work, cell["repeats"])
    return {"setup_seconds": prepared, **measured, "peak_memory_GiB": peak_memory()}


def scale_rows(stage: str, sizes: dict, repeats: int, limit: float) -> list[dict]:
    """A stage along each of its axes, from small to large."""
    rows = []
    for axis in STAGES[stage][1]:
        last = None
        for size in sizes[axis]:
            row = {"stage": stage, "axis": axis, "size": size}
            expected = 0.0 if last is None else last["seconds"] * size / last["size"]
            if expected > limit:
                rows.append({**row, "left_out_expected_seconds": expected})
                continue
            # Long runs are measured once, after the call that compiles.
            cell = {**row, "repeats": repeats if expected < limit / 10 else 1}
            try:
                last = {**row, **apart(__name__, cell)}
            except RuntimeError as error:  # short of memory, say
                rows.append({**row, "failed": str(error)[-200:]})
                break
            rows.append(last)
    return rows


def slopes(rows: list[dict]) -> list[dict]:
    """Of log seconds against log size, over the whole range and over its last two sizes."""
    found = []
    for stage, axis in dict.fromkeys((row["stage"], row["axis"]) for row in rows):
        mine = [r for r in rows if (r["stage"], r["axis"]) == (stage, axis) and "seconds" in r]
        if len(mine) > 1:
            size, seconds = (np.log([r[name] for r in mine]) for name in ("size", "seconds"))
            row = {"stage": stage, "axis": axis, "slope": float(np.polyfit(size, seconds, 1)[0])}
            row["last_slope"] = float(np.polyfit(size[-2:], seconds[-2:], 1)[0])
            peak = max(r["peak_memory_GiB"] for r in mine)
            found.append(row | {"largest_peak_memory_GiB": peak})
    return found


def plot(rows: list[dict]) -> Figure:
    """Seconds against size, logarithmic, a panel per axis."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(4 * len(axes), 3.5), layout="constrained")
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for number, stage in enumerate(STAGES):
            mine = [r for r in rows if (r["stage"], r["axis"]) == (stage, axis) and "seconds" in r]
            if mine:
                columns = ([r[name] for r in mine] for name in ("size", "seconds"))
                panel.loglog(*columns, marker="o", label=stage, color=f"C{number}")
        panel.set_xticks(*[sorted({r["size"] for r in rows if r["axis"] == axis})] * 2)
        panel.xaxis.minorticks_off()
        panel.set_xlabel(axis)
        panel.set_ylabel("seconds")
        panel.legend(fontsize="small")
    return figure


PARTS = tuple(STAGES)


def measure(options):
    """Stage by stage; slopes and the plot are of all that are recorded, old and new."""
    sizes, repeats = (QUICK, 1) if options.quick else (FULL, 3)
    found = {name: rows for name, rows in options.recorded.items() if name in STAGES}
    options.recorded.pop("slopes", None)
    for stage in options.part:
        found[stage] = scale_rows(stage, sizes, repeats, LIMIT_SECONDS[options.quick])
        yield stage, found[stage]
    rows = [row for stage in STAGES for row in found.get(stage, [])]
    yield "slopes", slopes(rows)
    yield "scale.png", plot(rows)
