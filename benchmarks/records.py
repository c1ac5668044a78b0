"""What every benchmark needs: the machine's description, tables on the terminal, recorded files."""

import json
import math
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import pandas as pd
from rich.console import Console
from rich.table import Table

from pcr_jax import library
from pcr_jax.experiments import Protocol, run

RESULTS = Path("benchmarks/results")
PACKAGES = (
    *("jax", "jaxlib", "numpy", "scipy", "numpyro", "blackjax", "flax", "optax", "arviz"),
    *("zeus-mcmc", "emcee", "torch", "dice-ml", "scikit-learn"),
)


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "pcr_jax", "benchmarks/*.py"
    )
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def header() -> dict:
    """Commit, date, devices, how busy they are; versions, of optional packages those installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "commit": commit(),
        "date": date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "compilation_cache": jax.config.jax_compilation_cache_dir is not None,
        "versions": versions,
    }


def _standard(value):
    """NaN, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {key: _standard(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_standard(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_record(out: Path, record: dict) -> None:
    """Write a record as JSON, under the header."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_standard({**header(), **record}), indent=1, allow_nan=False)
    out.write_text(text + "\n")


def other_parts(path: Path, quick: bool, parts: Iterable[str]) -> dict:
    """What is recorded besides ``parts``, if it was recorded at this size."""
    before = json.loads(path.read_text()) if path.exists() else {}
    lists = {name: rows for name, rows in before.items() if isinstance(rows, list)}
    return {n: rows for n, rows in lists.items() if before["quick"] == quick and n not in parts}


def show(console: Console, title: str, rows: list[dict]) -> None:
    """Print rows as a table."""
    table = Table(*rows[0], title=title, box=None, padding=(0, 1))
    for row in rows:
        cells = []
        for value in row.values():
            numbers = value if isinstance(value, list) else [value]
            cells.append(" ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers))
        table.add_row(*cells)
    console.print(table)


def tables_of(
    folder: Path, protocol: Protocol, jobs: int, console: Console
) -> dict[str, pd.DataFrame]:
    """The tables of the experiment in ``folder``, run or finished first if need be."""
    run(folder, protocol, list(library.SCMS), "zeus", jobs, console)
    return {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
