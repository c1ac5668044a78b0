"""Seconds until there is something to see: importing the package, and the quickstart.

Each in a fresh process; the quickstart with nothing compiled before, then with its programs in a
persistent cache.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.records import show, write_record

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.py"


def seconds_of(arguments: list[str], cache: str | None = None) -> float:
    """Of a Python process, from its start to its end."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def start_rows(repeats: int) -> list[dict]:
    """Medians over repeats; the quickstart once without programs, then with them."""
    medians = {
        package: float(np.median([seconds_of(["-c", f"import {package}"]) for _ in range(repeats)]))
        for package in ("jax", "pcr_jax")
    }
    rows = [{"what": f"import {name}", "seconds": seconds} for name, seconds in medians.items()]
    with tempfile.TemporaryDirectory() as cache:
        cold = seconds_of([str(QUICKSTART)], cache)
        warm = [seconds_of([str(QUICKSTART)], cache) for _ in range(repeats)]
    return [
        *rows,
        {"what": "pcr_jax beyond jax", "seconds": medians["pcr_jax"] - medians["jax"]},
        {"what": "examples/quickstart.py", "seconds": cold},
        {"what": "the same, programs cached", "seconds": float(np.median(warm))},
    ]


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    rows = start_rows(1 if quick else 5)
    show(Console(width=120), "Time to a first result", rows)
    write_record(out / "start.json", {"quick": quick, "rows": rows})
