"""Seconds and peak memory, measured the same way everywhere."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, float]]:
    """The result; seconds of a first call, which compiles, and the median of later ones.

    ``cpu_seconds`` are those of all threads of this process.
    """
    spent, result = [], None
    for _ in range(1 + repeats):
        began = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(function())
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, cpu_seconds = np.median(spent[1:] or spent, axis=0)
    return result, {
        "compile_seconds": max(0.0, spent[0][0] - float(seconds)),
        "seconds": float(seconds),
        "cpu_seconds": float(cpu_seconds),
    }


def peak_memory() -> float:
    """The largest memory of this process so far, GiB: the accelerator's, or the host's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # where the other figure would begin with the parent's
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def apart(module: str, cell: dict) -> dict:
    """``module.measure_cell(cell)`` in a process of its own, so that peak memory is its own."""
    code = (
        "import json, sys; from importlib import import_module; "
        f"print(json.dumps(import_module({module!r}).measure_cell(json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {cell}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
