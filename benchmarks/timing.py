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

import pcr_jax


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, float]]:
    """The result; seconds of a first call, which compiles, and the median of later ones.

    Wall and CPU seconds, the latter of all threads of this process; ``compile_seconds`` is the
    difference of the former.
    """
    spent, result = [], None
    for _ in range(1 + repeats):
        began = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(function())
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, cpu_seconds = (float(value) for value in np.median(spent[1:] or spent, axis=0))
    return result, {
        "first_seconds": spent[0][0],
        "first_cpu_seconds": spent[0][1],
        "compile_seconds": max(0.0, spent[0][0] - seconds),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
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


def process(code: str, *arguments: str) -> list[str]:
    """The command of a process that has the package and the benchmarks of this one."""
    package, here = (str(Path(file).resolve().parents[1]) for file in (pcr_jax.__file__, __file__))
    begin = f"import sys; sys.path.insert(0, {package!r}); import pcr_jax; "
    return [sys.executable, "-c", begin + f"sys.path.insert(0, {here!r}); {code}", *arguments]


def apart(module: str, cell: dict) -> dict:
    """``module.measure_cell(cell)`` in a process of its own, so that peak memory is its own."""
    code = (
        "import json; from importlib import import_module; "
        f"print(json.dumps(import_module({module!r}).measure_cell(json.loads(sys.argv[1]))))"
    )
    command = process(code, json.dumps(cell))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {cell}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
