"""What a GPU is for: recourse for a million users, posteriors for a hundred thousand.

Runs on whatever device JAX finds; ``--quick`` is the same at a thousandth of the size.
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.optimality import population
from benchmarks.posterior import SCALED, histories
from benchmarks.records import show, write_record
from benchmarks.scale import SIGMA
from benchmarks.timing import peak_memory, timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import surrogate_of
from pcr_jax.recourse import ball, per_user
from pcr_jax.recourse.verify import judge

PRECISIONS = ("default", "high", "highest")


def recourse_row(num_users: int, epsilon: float, precision: str) -> dict:
    """Recourse at one precision of matrix products, judged at the highest."""
    truth = pcr.library.m1()
    score, x, scale = population("m1", 0, 1000)
    x = jnp.resize(x, (num_users, 3))
    find = partial(pcr.find_recourse, score, truth, x, scale=scale, epsilon=epsilon)
    with jax.default_matmul_precision(precision):
        plan, measured = timed(find, 1)
    with jax.default_matmul_precision("highest"):
        scms = per_user(truth, num_users)
        region = ball(epsilon, "l2")
        logit, worst = judge(jax.random.key(1), score, scms, x, plan.action, scale, region)
    valid, robust = np.asarray(plan.valid), np.asarray(plan.robust_valid)
    return {
        "work": f"recourse, epsilon {epsilon:g}",
        "users": num_users,
        "matmul_precision": precision,
        **measured,
        "valid": float(valid.mean()),
        "valid_at_highest_precision": float(np.mean(valid & (np.asarray(logit) >= 0))),
        "robust_valid": float(robust.mean()),
        "robust_valid_at_highest_precision": float(np.mean(robust & (np.asarray(worst) >= 0))),
        "cost": float(np.mean(np.asarray(plan.cost)[valid])),
        "peak_memory_so_far_GiB": peak_memory(),
    }


def inference_row(num_users: int) -> dict:
    """Posteriors by ``ess``."""
    surrogate, history = surrogate_of(PAPER, pcr.library.m1()), histories("m1", num_users)
    likelihood = pcr.tolerance(SIGMA, PAPER.beta)
    settings = {"likelihood": likelihood, "sampler": SCALED}
    seconds = []
    for users in (min(num_users, 4096), num_users):  # enough to need every program
        some = take(history, slice(users))
        run = partial(pcr.infer, jax.random.key(1), surrogate, some, **settings)
        idata, measured = timed(run, 0)
        seconds.append(measured["seconds"])
    status = idata.constant_data["status"].to_numpy()
    return {
        "work": "posteriors, ess",
        "users": num_users,
        "first_users_seconds": seconds[0],
        "seconds": seconds[1],
        "ok": float(np.mean(status == pcr.PosteriorStatus.ok)),
        "peak_memory_so_far_GiB": peak_memory(),
    }


def measure(out: Path, quick: bool, profile: Path | None) -> None:
    """Measure, print and record; with ``profile`` also a trace for XProf or Perfetto."""
    console = Console(width=160)
    rows = []
    with nullcontext() if profile is None else jax.profiler.trace(str(profile)):
        for epsilon in (0.0, 0.1):
            # On a CPU all precisions are the same.
            for precision in PRECISIONS if jax.default_backend() != "cpu" else ("highest",):
                rows.append(recourse_row(1000 if quick else 1_000_000, epsilon, precision))
        show(console, "Recourse", rows)
        posteriors = inference_row(100 if quick else 100_000)
        show(console, "Posteriors", [posteriors])
    write_record(out / "large.json", {"quick": quick, "recourse": rows, "inference": posteriors})
