"""Seconds and peak memory against users, nodes, queries and draws, a process for each cell.

Recourse is at epsilon 0, robust recourse at 0.1, inference by `Ess`.
"""

import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

import pcr_jax as pcr
from benchmarks.optimality import population, random_scm
from benchmarks.posterior import histories
from benchmarks.records import other_parts, show, write_record
from benchmarks.timing import apart, peak_memory, timed
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import ask_respondents, surrogate_of

KEY = jax.random.key(0)
SIGMA = dict(PAPER.sigma)["m1"]
QUICK = {"users": (100, 1000), "nodes": (3, 6), "queries": (5, 10), "draws": (256, 1024)}
FULL = {
    "users": (100, 1000, 10_000, 100_000, 1_000_000),
    "nodes": (3, 8, 16, 32, 64),
    "queries": (5, 10, 25, 50, 100),
    "draws": (256, 1024, 10_240),
}
# A cell is left out, by name, if the one before says that it would take longer.
LIMIT_SECONDS = {True: 60.0, False: 400.0}


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
        score, x, scale = population("m1", 0, min(users, 1000))
        x = jnp.resize(x, (users, 3))
    else:
        truth = random_scm(nodes, "linear")
        score, x, scale = pcr.refused_population(KEY, truth, num_users=users, rho="mean_abs")
    return lambda: pcr.find_recourse(score, truth, x, scale=scale, epsilon=epsilon)


def _inference(users=256, queries=10, draws=1024):
    truth = pcr.library.m1()
    history = histories("m1", users)
    if queries != 10:
        history = ask_respondents(KEY, truth, PAPER.alpha, users, queries, queries)
    settings = {"likelihood": pcr.tolerance(SIGMA, PAPER.beta), "sampler": keeping(draws)}
    return lambda: pcr.infer(KEY, surrogate_of(PAPER, truth), history, **settings).attrs["seconds"]


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


def scale_rows(stage: str, sizes: dict, repeats: int, limit: float, console: Console) -> list[dict]:
    """A stage along each of its axes, from small to large."""
    rows = []
    for axis in STAGES[stage][1]:
        last = None
        for size in sizes[axis]:
            row = {"stage": stage, "axis": axis, "size": size}
            expected = 0.0 if last is None else last["seconds"] * size / last["size"]
            if expected > limit:
                console.print(f"{stage}, {size} {axis}: left out, {expected:.0f} s expected")
                rows.append({**row, "left_out_expected_seconds": expected})
                continue
            # Long runs are measured once, after the call that compiles.
            cell = {**row, "repeats": repeats if expected < limit / 10 else 1}
            try:
                last = {**row, **apart("benchmarks.scale", cell)}
            except RuntimeError as error:  # short of memory, say
                rows.append({**row, "failed": str(error)[-200:]})
                break
            rows.append(last)
            console.print_json(json.dumps(last), indent=None)
    return rows


def slopes(rows: list[dict]) -> list[dict]:
    """Of log seconds against log size, over the whole range and over its last two sizes."""
    found = []
    for stage, axis in dict.fromkeys((row["stage"], row["axis"]) for row in rows):
        mine = [r for r in rows if (r["stage"], r["axis"]) == (stage, axis) and "seconds" in r]
        if len(mine) > 1:
            size, seconds = (np.log([r[name] for r in mine]) for name in ("size", "seconds"))
            found.append(
                {
                    "stage": stage,
                    "axis": axis,
                    "slope": float(np.polyfit(size, seconds, 1)[0]),
                    "last_slope": float(np.polyfit(size[-2:], seconds[-2:], 1)[0]),
                    "largest_peak_memory_GiB": max(r["peak_memory_GiB"] for r in mine),
                }
            )
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


def measure(out: Path, quick: bool, parts: list[str]) -> None:
    """Measure, print, record and plot; what is done is recorded before the next stage begins.

    Stages that are not asked for stay as they were recorded, if they were at this size.
    """
    console, path = Console(width=160), out / "scale.json"
    sizes, repeats = (QUICK, 1) if quick else (FULL, 3)
    record: dict = {"quick": quick, **other_parts(path, quick, [*parts, "slopes"])}
    for stage in parts:
        record[stage] = scale_rows(stage, sizes, repeats, LIMIT_SECONDS[quick], console)
        rows = [row for name in STAGES for row in record.get(name, [])]
        write_record(path, {**record, "slopes": slopes(rows)})
    show(console, "Slopes of log seconds against log size", slopes(rows))
    plot(rows).savefig(out / "scale.png", dpi=150)
