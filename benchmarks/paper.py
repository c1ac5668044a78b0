"""Seconds of ``pcr-jax reproduce``, whole and by stage."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.records import show, write_record


def reproduce_row(quick: bool) -> dict:
    """One fresh run in a process of its own; seconds by stage are summed over its workers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pcr_jax.cli", "reproduce", "--out", folder]
        began = time.perf_counter()
        done = subprocess.run(
            command + ["--quick"] * quick, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-2000:])
        run = json.loads((Path(folder) / "run.json").read_text())
    return {
        "run": "quick" if quick else "full",
        "jobs": run["jobs"],
        "seconds": seconds,
        **{f"{stage}_work_seconds": work for stage, work in run["seconds"].items()},
    }


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    rows = [reproduce_row(True)]
    if not quick:
        rows.append(reproduce_row(False))
    show(Console(width=160), "pcr-jax reproduce", rows)
    write_record(out / "paper.json", {"quick": quick, "rows": rows})
