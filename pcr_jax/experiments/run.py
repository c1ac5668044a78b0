"""The whole experiment: units of work, each finished once, collected into tables and figures.

A unit is one SCM's posteriors, one repetition of the recourse experiment, or one point of a
sweep. Its result is written to ``OUT/parts`` in one step when it is complete; a run that is
started again with the same ``OUT`` does the units that are missing, or damaged.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import jax
import pandas as pd

from pcr_jax import library, plots
from pcr_jax._extras import extra
from pcr_jax._files import write
from pcr_jax.experiments.beyond import beyond_rows
from pcr_jax.experiments.estimation import (
    estimated_coefficients,
    first_alike,
    posterior,
    sweep_points,
    sweep_rows,
)
from pcr_jax.experiments.parts import (
    TABLES,
    Unit,
    finished_part,
    posterior_path,
    read_part,
    write_part,
)
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.experiments.variants import recourse_rows
from pcr_jax.inference import read_netcdf, write_netcdf

with extra("reproduce"):
    from rich import box
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text


class OutputError(Exception):
    """The output folder cannot be used; nothing in it has been touched."""


def _work(out: Path, protocol: Protocol, sampler: str, unit: Unit) -> None:
    began = time.perf_counter()
    tables: dict[str, list[dict]] = {}
    nc = posterior_path(out, unit.scm)
    if unit.stage == "posterior":
        write_netcdf(posterior(protocol, unit.scm, sampler), nc)
    elif unit.stage == "recourse":
        coefficients = estimated_coefficients(protocol, read_netcdf(nc), unit.index)
        recourse, interventions = recourse_rows(protocol, unit.scm, unit.index, coefficients)
        tables = {"recourse": recourse, "interventions": interventions}
    elif unit.stage == "beyond":
        rows, patterns = beyond_rows(protocol, unit.scm, unit.index)
        tables = {"beyond": rows, "beyond_interventions": patterns}
    else:
        points = sweep_points(protocol, unit.scm)
        point, first = points[unit.index], first_alike(points, unit.index)
        if first == unit.index:
            rows = sweep_rows(protocol, unit.scm, point, sampler)
        else:
            same = finished_part(out, protocol, replace(unit, index=first))
            label = {"sweep": point.sweep, "value": point.value}
            rows = [{**row, **label} for row in same["tables"]["estimation"]]
        tables = {"estimation": rows}
    write_part(out, unit, time.perf_counter() - began, tables)


def _start_worker() -> None:
    """End with the parent."""
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
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    try:
        # Workers inherit the mask: interruption is left to this process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures = {pool.submit(work, unit): unit for unit in units}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BaseException:  # nobody waits for what is begun
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


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
            write(record, json.dumps({"settings": settings}, indent=2).encode())
        run = json.loads(record.read_bytes())
        held = run["settings"]
        held_protocol = dict(held["protocol"])
        if not all(isinstance(s, float) for s in run.setdefault("wall_seconds", [])):
            raise TypeError
    except OSError as error:
        raise OutputError(f"cannot use {out}: {error.strerror}: {error.filename}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OutputError(f"{record} is not the record of a run; choose another folder") from None
    if held != settings:
        pairs = {**settings, **settings["protocol"]}.items()
        names = [k for k, v in pairs if k != "protocol" and {**held, **held_protocol}.get(k) != v]
        raise OutputError(
            f"{out} holds a run with other settings ({', '.join(names)}); choose another folder"
        )
    return run


@contextmanager
def _alone(parts: Path) -> Iterator[None]:
    """The folder of parts, for this process alone until it ends, in whatever way.

    On file systems that cannot lock nobody is kept out; there two runs do the same work twice.

    Raises
    ------
    OutputError
        If another run is at work there, or the folder cannot be written.
    """
    try:
        parts.mkdir(exist_ok=True)
        folder = os.open(parts, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot use {parts}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is at work in {parts.parent}") from None
        except OSError:
            pass
        yield
    finally:
        os.close(folder)


def _missing(out: Path, protocol: Protocol, units: list[Unit], console: Console) -> list[Unit]:
    """The units without a result; says so of those that have something else in its place.

    Raises
    ------
    OutputError
        If a file cannot be read.
    """
    missing = []
    for unit in units:
        try:
            if read_part(out, protocol, unit) is None:
                missing.append(unit)
        except ValueError as error:
            console.print(Text(f"{error}; it is done again."), soft_wrap=True)
            missing.append(unit)
        except OSError as error:
            raise OutputError(f"cannot read {error.filename}: {error.strerror}") from None
    return missing


def _collect(
    out: Path, protocol: Protocol, units: list[Unit]
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """The tables of all units, in the units' order, and the seconds of each stage."""
    rows: dict[str, list[dict]] = {name: [] for name in TABLES}
    seconds: dict[str, float] = {}
    for unit in units:
        part = finished_part(out, protocol, unit)
        seconds[unit.stage] = seconds.get(unit.stage, 0.0) + part["seconds"]
        for name, part_rows in part["tables"].items():
            rows[name] += part_rows
    names = [name for name in TABLES if protocol.beyond_people or not name.startswith("beyond")]
    tables = {name: pd.DataFrame(rows[name], columns=TABLES[name]) for name in names}
    return tables, seconds


def _draw(out: Path, protocol: Protocol, scms: list[str], tables: dict[str, pd.DataFrame]) -> None:
    """The figures, as PNG and PDF."""
    rates = protocol.learning_rates
    rate = 0.75 if 0.75 in rates else rates[0]  # that of the paper's Fig. 4 and 5
    for scm in scms:
        idata, truth = read_netcdf(posterior_path(out, scm)), library.get(scm)
        plots.save(plots.posterior(idata, truth), out / f"posterior_{scm}")
        for epsilon in protocol.epsilons:
            figure = plots.recourse(tables["recourse"], scm, epsilon)
            plots.save(figure, out / f"recourse_{scm}_eps{epsilon:g}")
            figure = plots.interventions(tables["interventions"], scm, epsilon, rate)
            plots.save(figure, out / f"interventions_{scm}_eps{epsilon:g}")
    if protocol.beyond_people:
        for (scm, prior), group in tables["beyond"].groupby(["scm", "prior"]):
            table = group.rename(columns={"validity": "valid", "cost_ratio": "cost"})
            figure = plots.cost_against_questions(table)
            plots.save(figure, out / f"beyond_{scm}_{prior}")
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


def summary(tables: dict[str, pd.DataFrame], plus_minus: str = "±") -> list[Table]:
    """Tables for the terminal: recourse at one learning rate, and the ends of the sweeps."""
    recourse, estimation = tables["recourse"], tables["estimation"]
    rate = min(recourse["learning_rate"].unique(), key=lambda r: abs(r - 0.5))
    chosen = recourse[recourse["learning_rate"] == rate]
    measures = ["validity", "robust_validity", "cost_mean", "regret_mean", "regret_to_optimum_mean"]
    rows = []
    for (scm, epsilon, variant), group in chosen.groupby(["scm", "epsilon", "variant"], sort=False):
        cells = [f"{group[m].mean():.2f}{plus_minus}{group[m].std():.2f}" for m in measures]
        rows.append([f"{scm} {epsilon:g} {variant}", *cells])
    shown = [
        _table(
            f"Recourse at learning rate {rate:g}: mean {plus_minus} sd over repetitions",
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
    if "beyond" in tables:
        rows = []
        for labels, group in tables["beyond"].groupby(["scm", "prior", "design"], sort=False):
            last = group[group["questions"] == group["questions"].max()]
            measures = ["served", "validity", "stated", "cost_ratio", "cost_ratio_median"]
            rows.append([" ".join(labels), *(f"{last[m].mean():.3f}" for m in measures)])
        most = tables["beyond"]["questions"].max()
        shown.append(
            _table(
                f"After {most} questions: actions that work, and what they cost by the optimum",
                "SCM,_prior,_method served validity stated cost median",
                rows,
            )
        )
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
        If ``out`` cannot be written, holds a run with other settings, or another run is at work
        there.
    OSError
        If a result cannot be written; what is finished is kept.
    RuntimeError
        If a worker process or the computation fails; what is finished is kept.
    """
    began = time.perf_counter()
    settings = _settings(protocol, scms, sampler)
    record = _open(out, settings)
    with _alone(out / "parts"):
        tables, seconds = _results(out, protocol, scms, sampler, jobs, console)
        drawing = time.perf_counter()
        for name, table in tables.items():
            text = table.to_csv(index=False, float_format="%.6g")
            write(out / f"{name}.csv", text.encode())
        _draw(out, protocol, scms, tables)
        seconds["figures"] = time.perf_counter() - drawing
        record = {
            "settings": settings,
            "seconds": seconds,
            "wall_seconds": [*record["wall_seconds"], time.perf_counter() - began],
            "jobs": jobs,
        }
        write(out / "run.json", json.dumps(record, indent=2).encode())
    plain = not console.encoding.startswith("utf")
    for table in summary(tables, "+-" if plain else "±"):
        console.print(table)
    times = ", ".join(f"{stage} {s:.0f} s" for stage, s in seconds.items())
    console.print(f"Work by stage (summed over processes): {times}.")
    last = f"{record['wall_seconds'][-1]:.0f} s in all; results in {out}."
    console.print(Text(last), soft_wrap=True)


def _results(
    out: Path, protocol: Protocol, scms: list[str], sampler: str, jobs: int, console: Console
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Do the units that are missing; the tables of all, and the seconds of each stage."""
    points = {scm: sweep_points(protocol, scm) for scm in scms}
    stages = {
        "posterior": [Unit("posterior", scm) for scm in scms],
        "recourse": [Unit("recourse", scm, i) for scm in scms for i in range(protocol.seeds)],
        "sweep": [Unit("sweep", scm, i) for scm in scms for i in range(len(points[scm]))],
    }
    if protocol.beyond_people:
        stages["beyond"] = [Unit("beyond", scm, i) for scm in scms for i in range(protocol.seeds)]
    missing = {stage: _missing(out, protocol, units, console) for stage, units in stages.items()}
    copied = [u for u in missing["sweep"] if first_alike(points[u.scm], u.index) != u.index]
    rest = missing["recourse"] + [u for u in missing["sweep"] if u not in copied]
    rest += missing.get("beyond", [])
    work = partial(_work, out, protocol, sampler)
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {
            stage: progress.add_task(
                stage, total=len(units), completed=len(units) - len(missing[stage])
            )
            for stage, units in stages.items()
        }
        # Recourse needs the posteriors, and copies their originals.
        for unit in chain(
            _finished(work, missing["posterior"], 1),
            _finished(work, rest, max(1, min(jobs, len(rest)))),
            _finished(work, copied, 1),
        ):
            progress.advance(bars[unit.stage])
    return _collect(out, protocol, [unit for units in stages.values() for unit in units])
