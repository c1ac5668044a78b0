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


def stage_rows(quick: bool) -> list[dict]:
    """The table."""
    rows = pipeline_rows(1 if quick else 5)
    sizes = (32, 2, 1) if quick else (NUM_USERS, 20, 3)
    for row in inference_rows(*sizes):
        quality = (
            f"mean off by {row['rms_error_of_mean']:.4f}, worth "
            f"{row['independent_draws_worth']:.0f} independent draws"
        )
        seconds = NUM_USERS * row["ms_per_user"] / 1e3
        measured = (row["users"], row["compile_seconds"])
        rows.append(_stage("posteriors, M1", row["sampler"], seconds, quality, *measured))
    released = NUM_USERS * RELEASED_POSTERIOR_SECONDS
    rows.append(
        _stage(
            "posteriors, M1", "released code (recorded)", released, "mean off by .030 to .052", 1
        )
    )
    for epsilon, seconds in RELEASED_RECOURSE_SECONDS.items():
        stage = f"recourse, M1, epsilon {epsilon:g}"
        for row in peer_rows("m1", epsilon, *sizes):
            quality = (
                f"validity {row['validity']:.3f}, cost {row['cost_ratio_to_best']:.3f} of the best"
            )
            measured = (row["users"], row["compile_seconds"])
            rows.append(_stage(stage, row["method"], row["seconds_500_users"], quality, *measured))
        rows.append(_stage(stage, "released code (recorded)", seconds, "validity .70 to .87"))
    seconds = {
        row["stage"]: row["seconds_500_users"]
        for row in rows
        if row["method"] in ("pcr_jax ess", "pcr_jax optimal", "pcr_jax")
    }
    for row in rows:
        row["times_ours"] = row["seconds_500_users"] / seconds[row["stage"]]
    return rows


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    rows = stage_rows(quick)
    show(Console(width=200), "500 users, stage by stage", rows)
    write_record(out / "stages.json", {"quick": quick, "rows": rows})
