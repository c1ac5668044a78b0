"""Every stage for 500 users, beside its peers and the released code, with quality.

Peers that take a user at a time are measured on fewer users, and their seconds multiplied.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.inference import inference_rows
from benchmarks.records import show, write_record
from benchmarks.recourse_peers import peer_rows
from benchmarks.timing import timed
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import ask_respondents, experiment_key

NUM_USERS = 500
# CPU seconds of the paper's released code as recorded on its own, one process: one posterior by 50
# walkers of 100 steps; and recourse for 500 users, one SCM variant, one learning rate. Its validity
# was .70 to .87, its zeus erred by .03 to .05 per coefficient.
RELEASED = "released code (recorded)"
RELEASED_POSTERIOR_SECONDS = 40.0
RELEASED_RECOURSE_SECONDS = {0.0: 6.6, 0.1: 12.0}


def _stage(stage, method, seconds, quality, measured_users=NUM_USERS, compile_seconds=0.0) -> dict:
    return {
        "stage": stage,
        "method": method,
        "measured_users": measured_users,
        "compile_seconds": compile_seconds,
        "seconds_500_users": seconds,
        "quality": quality,
    }


def pipeline_rows(repeats: int) -> list[dict]:
    """The stages that have no peer here."""
    truth = pcr.library.m1()
    population = partial(pcr.refused_population, jax.random.key(0), truth, num_users=NUM_USERS)
    (score, x, scale), training = timed(lambda: tuple(population()), repeats)
    ask = partial(ask_respondents, experiment_key(0), truth, PAPER.alpha, NUM_USERS, 10, 10)
    _, asking = timed(ask, repeats)
    plan = pcr.find_recourse(score, truth, x, scale=scale, epsilon=0.1)
    evaluate = partial(pcr.evaluate, score, truth, x, plan, scale=scale, epsilon=0.1)
    report, evaluating = timed(lambda: evaluate(optimum=np.asarray(plan.cost)), repeats)
    return [
        _stage(
            stage, "pcr_jax", measured["seconds"], quality, NUM_USERS, measured["compile_seconds"]
        )
        for stage, measured, quality in (
            ("population and classifier", training, ""),
            ("elicitation, 10 queries", asking, ""),
            ("evaluation, epsilon 0.1", evaluating, f"validity {report.robust_validity:.3f}"),
        )
    ]


def posterior_rows(*sizes: int) -> list[dict]:
    """Samplers; sizes as of `inference_rows`."""
    rows = []
    for row in inference_rows(*sizes):
        quality = (
            f"mean off by {row['rms_error_of_mean']:.4f}, worth "
            f"{row['independent_draws_worth']:.0f} independent draws"
        )
        seconds = NUM_USERS * row["ms_per_user"] / 1e3
        measured = (row["users"], row["compile_seconds"])
        rows.append(_stage("posteriors", row["sampler"], seconds, quality, *measured))
    seconds = NUM_USERS * RELEASED_POSTERIOR_SECONDS
    recorded = _stage("posteriors", RELEASED, seconds, "mean off by .030 to .052", 1)
    return [*rows, recorded]


def recourse_rows(epsilon: float, *sizes: int) -> list[dict]:
    """Solvers; sizes as of `peer_rows`."""
    stage, rows = f"recourse, epsilon {epsilon:g}", []
    for row in peer_rows("m1", epsilon, *sizes):
        quality = (
            f"validity {row['validity']:.3f}, cost {row['cost_ratio_to_best']:.3f} of the best"
        )
        measured = (row["users"], row["compile_seconds"])
        rows.append(_stage(stage, row["method"], row["seconds_500_users"], quality, *measured))
    seconds = RELEASED_RECOURSE_SECONDS[epsilon]
    return [*rows, _stage(stage, RELEASED, seconds, "validity .70 to .87")]


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record; what is done is recorded before the next stage begins."""
    console = Console(width=200)
    sizes = (32, 2, 1) if quick else (NUM_USERS, 20, 2)
    parts = {
        "The way there and back": partial(pipeline_rows, 1 if quick else 5),
        "Recourse, epsilon 0": partial(recourse_rows, 0.0, *sizes),
        "Recourse, epsilon 0.1": partial(recourse_rows, 0.1, *sizes),
        "Posteriors": partial(posterior_rows, *sizes),
    }
    rows: list[dict] = []
    for title, part in parts.items():
        done = part()
        for row in done:
            # The first of a stage is ours.
            own = next(r for r in done if r["stage"] == row["stage"])
            row["times_ours"] = row["seconds_500_users"] / own["seconds_500_users"]
        show(console, f"{title}: M1, {NUM_USERS} users", done)
        rows += done
        write_record(out / "stages.json", {"quick": quick, "rows": rows})
