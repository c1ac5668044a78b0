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
from benchmarks.recourse import peer_rows
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


def _stage(stage, method, users, compiling, seconds, cpu_seconds, quality) -> dict:
    """A row; seconds are of all 500 users, as if all had been measured."""
    return {
        "stage": stage,
        "method": method,
        "measured_users": users,
        "compile_seconds": compiling,
        "seconds_500_users": seconds,
        "cpu_seconds_500_users": cpu_seconds,
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
        _stage(stage, "pcr_jax", NUM_USERS, *measured.values(), quality)
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
        seconds = [NUM_USERS * row[name] / 1e3 for name in ("ms_per_user", "cpu_ms_per_user")]
        measured = (row["users"], row["compile_seconds"], *seconds)
        rows.append(_stage("posteriors", row["sampler"], *measured, quality))
    seconds = NUM_USERS * RELEASED_POSTERIOR_SECONDS
    measured = (1, np.nan, np.nan, seconds)
    return [*rows, _stage("posteriors", RELEASED, *measured, "mean off by .030 to .052")]


def recourse_rows(epsilon: float, *sizes: int) -> list[dict]:
    """Solvers; sizes as of `peer_rows`."""
    stage, rows = f"recourse, epsilon {epsilon:g}", []
    for row in peer_rows("m1", epsilon, *sizes):
        quality = (
            f"validity {row['validity']:.3f}, cost {row['cost_ratio_to_best']:.3f} of the best"
        )
        names = ("users", "compile_seconds", "seconds_500_users", "cpu_seconds_500_users")
        rows.append(_stage(stage, row["method"], *(row[name] for name in names), quality))
    seconds = RELEASED_RECOURSE_SECONDS[epsilon]
    measured = (NUM_USERS, np.nan, np.nan, seconds)
    return [*rows, _stage(stage, RELEASED, *measured, "validity .70 to .87")]


def markdown(rows: list[dict]) -> list[str]:
    """Recorded rows as the README has them, of two significant digits."""

    def seconds(value):
        return "not recorded" if value is None else f"{float(f'{value:.2g}'):,g}"

    return [
        f"| {row['stage']} | {row['method']} | {seconds(row['seconds_500_users'])} | "
        f"{seconds(row['cpu_seconds_500_users'])} | {row['quality']} |"
        for row in rows
    ]


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record; what is done is recorded before the next stage begins."""
    console = Console(width=200)
    sizes = (32, 2, 1) if quick else (NUM_USERS, 20, 7)
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
            for column in ("seconds_500_users", "cpu_seconds_500_users"):
                row[f"{column}_over_ours"] = row[column] / own[column]
        show(console, f"{title}: M1, {NUM_USERS} users", done)
        rows += done
        write_record(out / "stages.json", {"quick": quick, "rows": rows})
