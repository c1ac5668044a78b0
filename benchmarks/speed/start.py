"""Seconds until there is something to see: importing the package, the quickstart, `reproduce`.

Each in a fresh process; the quickstart with nothing compiled before, then with its programs in a
persistent cache.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.py"


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


def reproduce_rows(quick: bool) -> list[dict]:
    """`pcr-jax reproduce`, whole; and by stage, summed over its workers."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "pcr_jax.cli", "reproduce", "--out", folder] + ["--quick"] * quick
        seconds = seconds_of(arguments)
        stages = json.loads((Path(folder) / "run.json").read_text())["seconds"]
    name = f"pcr-jax reproduce{' --quick' if quick else ''}"
    rows = [{"what": name, "seconds": seconds}]
    return rows + [{"what": f"{name}, {s}: work", "seconds": work} for s, work in stages.items()]


def measure(options):
    """The whole experiment last."""
    yield "rows", start_rows(1 if options.quick else 5)
    for quick in (True,) if options.quick else (True, False):
        yield "rows", reproduce_rows(quick)
