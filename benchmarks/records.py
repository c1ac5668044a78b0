"""Recorded files, the machine's description in them, and tables on the terminal."""

import json
import math
import os
import subprocess
from argparse import Namespace
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import pandas as pd
from rich.console import Console
from rich.table import Table

import pcr_jax

RESULTS = Path("benchmarks/results")
PACKAGES = (
    *("jax", "jaxlib", "numpy", "scipy", "numpyro", "blackjax", "flax", "optax", "arviz"),
    *("zeus-mcmc", "emcee", "torch", "dice-ml", "scikit-learn"),
)


def commit() -> str:
    """The commit of the package that is measured, with a plus where files differ from it."""
    checkout = Path(pcr_jax.__file__).parents[1]

    def git(*arguments):
        command = ["git", "-C", checkout, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(subprocess.CalledProcessError):
        tracked = ("--untracked-files=no", "--", "pcr_jax", "benchmarks/*.py")
        changed = git("status", "--porcelain", *tracked)
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    return "none"


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


def write_record(path: Path, record: dict) -> None:
    """Write a record as JSON, under the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_standard({**header(), **record}), indent=1, allow_nan=False)
    path.write_text(text + "\n")


def write_file(path: Path, found: Any) -> None:
    """Write a text, a table or a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(found, str):
        path.write_text(found)
    elif isinstance(found, pd.DataFrame):
        found.to_csv(path, index=False, float_format="%.4g")
    else:
        found.savefig(path, dpi=150)


def recorded_parts(path: Path, options: Namespace) -> dict:
    """What is recorded besides the parts that are asked for, if it was recorded at this size."""
    before = json.loads(path.read_text()) if path.exists() else {}
    lists = {name: rows for name, rows in before.items() if isinstance(rows, list)}
    if before.get("quick") != options.quick:
        return {}
    return {name: rows for name, rows in lists.items() if name not in options.part}


def show(console: Console, title: str, found: Any) -> None:
    """Print rows as a table, and anything else as it is."""
    rows = found if isinstance(found, list) else [found]
    if not all(isinstance(row, dict) for row in rows):
        console.print(f"{title}: {found}")
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, title=title, box=None, padding=(0, 1))
    for row in rows:
        cells = []
        for name in columns:
            value = row.get(name, "")
            numbers = value if isinstance(value, list | tuple) else [value]
            cells.append(" ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers))
        table.add_row(*cells)
    console.print(table)
