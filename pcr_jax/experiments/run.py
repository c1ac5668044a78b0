"""The whole experiment: units of work, each finished once, collected into tables and figures.

A unit is one SCM's posteriors, one repetition of the recourse experiment, or one point of a
sweep. Its result is written to ``OUT/parts`` in one step when it is complete; a run that is
started again with the same ``OUT`` does the units that are missing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import jax
import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pcr_jax import library, plots
from pcr_jax.experiments.estimation import (
    estimated_coefficients,
    first_alike,
    posterior,
    sweep_points,
    sweep_rows,
)
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.experiments.variants import recourse_rows
from pcr_jax.inference import read_netcdf, write_netcdf

TABLES = {
    "recourse": [
        "scm",
        "epsilon",
        "learning_rate",
        "variant",
        "seed",
        "num_users",
        "validity",
        "robust_validity",
        "cost_mean",
        "cost_mean_common",
        "regret_mean",
        "regret_to_optimum_mean",
        "zero_gradient",
        "reachable",
    ],
    "interventions": [
        "scm",
        "epsilon",
        "learning_rate",
        "variant",
        "seed",
        "intervention_set",
        "share",
    ],
    "estimation": [
        "scm",
        "sweep",
        "value",
        "repetition",
        "coefficient",
        "true",
        "posterior_mean",
        "posterior_sd",
        "absolute_error",
        "prior_error",
        "status",
    ],
}


class OutputError(Exception):
    """The output folder cannot be used; nothing in it has been touched."""


@dataclass(frozen=True)
class Unit:
    """One piece of work; ``index`` is the repetition, or the position among the sweep points."""

    stage: str
    scm: str
    index: int = 0

    @property
    def name(self) -> str:
        """Its file in ``OUT/parts``."""
        return f"{self.stage}_{self.scm}_{self.index}.json"


def _write(path: Path, text: str) -> None:
    """Write a file in one step: there is the whole of it, or none."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text)
    unfinished.replace(path)


def _work(out: Path, protocol: Protocol, sampler: str, unit: Unit) -> None:
    began = time.perf_counter()
    tables: dict[str, list[dict]] = {}
    nc = out / f"posterior_{unit.scm}.nc"
    if unit.stage == "posterior":
        unfinished = nc.with_name(f"{nc.name}.{os.getpid()}.tmp")
        write_netcdf(posterior(protocol, unit.scm, sampler), unfinished)
        unfinished.replace(nc)
    elif unit.stage == "recourse":
        coefficients = estimated_coefficients(protocol, read_netcdf(nc), unit.index)
        recourse, interventions = recourse_rows(protocol, unit.scm, unit.index, coefficients)
        tables = {"recourse": recourse, "interventions": interventions}
    else:
        points = sweep_points(protocol, unit.scm)
        point, first = points[unit.index], first_alike(points, unit.index)
        if first == unit.index:
            rows = sweep_rows(protocol, unit.scm, point, sampler)
        else:
            same = json.loads((out / "parts" / replace(unit, index=first).name).read_text())
            label = {"sweep": point.sweep, "value": point.value}
            rows = [{**row, **label} for row in same["tables"]["estimation"]]
        tables = {"estimation": rows}
    part = {"seconds": time.perf_counter() - began, "tables": tables}
    _write(out / "parts" / unit.name, json.dumps(part))


def _start_worker() -> None:
    """End with the parent, and leave interruption to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _finished(work: Callable[[Unit], None], units: list[Unit], jobs: int) -> Iterator[Unit]:
    """Do the units, in ``jobs`` processes, yielding each as it ends."""
    if jobs == 1:
        for unit in units:
            work(unit)
            yield unit
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
        futures = {pool.submit(work, unit): unit for unit in units}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _settings(protocol: Protocol, scms: list[str], sampler: str) -> dict:
    """What a run is, beside the time it takes: runs that differ here cannot share a folder."""
    described = {
        "scms": scms,
        "sampler": sampler,
        "protocol": asdict(protocol),
        "device": str(jax.devices()[0].device_kind),
        "versions": {
            name: version(name)
            for name in (
                "pcr-jax",
                "jax",
                "jaxlib",
                "numpyro",
                "blackjax",
                "optax",
                "flax",
                "arviz",
                "numpy",
            )
        },
    }
    return json.loads(json.dumps(described))


def _open(out: Path, settings: dict) -> dict:
    """The record of the run in ``out``, new or resumed.

    Raises
    ------
    OutputError
        If the folder cannot be written or holds a run with other settings.
    """
    record = out / "run.json"
    try:
        if not record.exists():
            out.mkdir(parents=True, exist_ok=True)
            _write(record, json.dumps({"settings": settings}, indent=2))
        run = json.loads(record.read_text())
        held = run["settings"]
        held_protocol = dict(held["protocol"])
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{record} is not the record of a run; choose another folder") from None
    if held != settings:
        pairs = {**settings, **settings["protocol"]}.items()
        names = [k for k, v in pairs if k != "protocol" and {**held, **held_protocol}.get(k) != v]
        raise OutputError(
            f"{out} holds a run with other settings ({', '.join(names)}); choose another folder"
        )
    (out / "parts").mkdir(exist_ok=True)
    return run


def _collect(out: Path, units: list[Unit]) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """The tables of all units, in the units' order, and the seconds of each stage."""
    rows: dict[str, list[dict]] = {name: [] for name in TABLES}
    seconds: dict[str, float] = {}
    for unit in units:
        part = json.loads((out / "parts" / unit.name).read_text())
        seconds[unit.stage] = seconds.get(unit.stage, 0.0) + part["seconds"]
        for name, part_rows in part["tables"].items():
            rows[name] += part_rows
    tables = {name: pd.DataFrame(rows[name], columns=TABLES[name]) for name in TABLES}
    return tables, seconds


def _draw(out: Path, protocol: Protocol, scms: list[str], tables: dict[str, pd.DataFrame]) -> None:
    """The figures, as PNG and PDF."""
    rates = protocol.learning_rates
    rate = 0.75 if 0.75 in rates else rates[0]  # that of the paper's Fig. 4 and 5
    for scm in scms:
        idata, truth = read_netcdf(out / f"posterior_{scm}.nc"), library.get(scm)
        plots.save(plots.posterior(idata, truth), out / f"posterior_{scm}")
        for epsilon in protocol.epsilons:
            figure = plots.recourse(tables["recourse"], scm, epsilon)
            plots.save(figure, out / f"recourse_{scm}_eps{epsilon:g}")
            figure = plots.interventions(tables["interventions"], scm, epsilon, rate)
            plots.save(figure, out / f"interventions_{scm}_eps{epsilon:g}")
    for sweep in tables["estimation"]["sweep"].unique():
        plots.save(plots.estimation(tables["estimation"], sweep), out / f"estimation_{sweep}")


def _table(title: str, columns: str, rows: list[list[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns.split()):
        table.add_column(
            column.replace("_", " "), justify="left" if i == 0 else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*row)
    return table


def summary(tables: dict[str, pd.DataFrame]) -> list[Table]:
    """Tables for the terminal: recourse at one learning rate, and the ends of the sweeps."""
    recourse, estimation = tables["recourse"], tables["estimation"]
    rate = min(recourse["learning_rate"].unique(), key=lambda r: abs(r - 0.5))
    chosen = recourse[recourse["learning_rate"] == rate]
    measures = ["validity", "robust_validity", "cost_mean", "regret_mean", "regret_to_optimum_mean"]
    rows = []
    for (scm, epsilon, variant), group in chosen.groupby(["scm", "epsilon", "variant"], sort=False):
        cells = [f"{group[m].mean():.2f}±{group[m].std():.2f}" for m in measures]
        rows.append([f"{scm} {epsilon:g} {variant}", *cells])
    shown = [
        _table(
            f"Recourse at learning rate {rate:g}: mean ± sd over repetitions",
            "SCM,_epsilon,_variant validity robust cost regret to_optimum",
            rows,
        )
    ]
    if len(estimation):
        rows = []
        for (scm, sweep), group in estimation.groupby(["scm", "sweep"], sort=False):
            errors = group.groupby("value")["absolute_error"].mean().dropna()
            prior = f"{group['prior_error'].mean():.2f}"
            empty = f"{group['posterior_mean'].isna().mean():.0%}"
            ends = [errors.index[0], errors.idxmin(), errors.index[-1]] if len(errors) else []
            cells = [f"{errors[v]:.2f} at {v:g}" for v in ends] or ["-", "-", "-"]
            rows.append([f"{scm} {sweep}", *cells, prior, empty])
        title = "Estimation: mean absolute error of the posterior mean"
        shown.append(_table(title, "SCM,_sweep first least last prior empty", rows))
    return shown


def run(
    out: Path, protocol: Protocol, scms: list[str], sampler: str, jobs: int, console: Console
) -> None:
    """Do or finish the experiment in ``out``: tables, posteriors, figures, ``run.json``.

    Parameters
    ----------
    out : Path
        Created if need be.
    protocol : Protocol
    scms : list of str
        Names in `pcr_jax.library`.
    sampler : str
    jobs : int
        Worker processes.
    console : rich.console.Console
        Where progress and the closing tables go.

    Raises
    ------
    OutputError
        If ``out`` cannot be written or holds a run with other settings.
    """
    began = time.perf_counter()
    settings = _settings(protocol, scms, sampler)
    record = _open(out, settings)
    stages = {
        "posterior": [Unit("posterior", scm) for scm in scms],
        "recourse": [Unit("recourse", scm, i) for scm in scms for i in range(protocol.seeds)],
        "sweep": [
            Unit("sweep", scm, i) for scm in scms for i in range(len(sweep_points(protocol, scm)))
        ],
    }
    work = partial(_work, out, protocol, sampler)
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars, missing = {}, {}
        for stage, units in stages.items():
            missing[stage] = [u for u in units if not (out / "parts" / u.name).exists()]
            done = len(units) - len(missing[stage])
            bars[stage] = progress.add_task(stage, total=len(units), completed=done)
        points = {scm: sweep_points(protocol, scm) for scm in scms}
        copied = [u for u in missing["sweep"] if first_alike(points[u.scm], u.index) != u.index]
        rest = missing["recourse"] + [u for u in missing["sweep"] if u not in copied]
        processes = max(1, min(jobs, len(rest)))
        # Recourse needs the posteriors, and copies their originals.
        for unit in chain(
            _finished(work, missing["posterior"], 1),
            _finished(work, rest, processes),
            _finished(work, copied, 1),
        ):
            progress.advance(bars[unit.stage])

    drawing = time.perf_counter()
    tables, seconds = _collect(out, [unit for units in stages.values() for unit in units])
    for name, table in tables.items():
        _write(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    _draw(out, protocol, scms, tables)
    seconds["figures"] = time.perf_counter() - drawing
    record = {
        "settings": settings,
        "seconds": seconds,
        "wall_seconds": [*record.get("wall_seconds", []), time.perf_counter() - began],
        "jobs": jobs,
    }
    _write(out / "run.json", json.dumps(record, indent=2))
    for abandoned in out.rglob("*.tmp"):  # by a run that was killed while it wrote
        abandoned.unlink()
    for table in summary(tables):
        console.print(table)
    times = ", ".join(f"{stage} {s:.0f} s" for stage, s in seconds.items())
    console.print(f"Work by stage (summed over processes): {times}.")
    console.print(f"{record['wall_seconds'][-1]:.0f} s in all; results in {out}.")
