"""Every stage for 500 users, beside its peers and the released code, with quality.

Seconds, wall and CPU, of a first call, which compiles, and of later ones. Peers that take a user at
a time are measured on fewer users, and their seconds multiplied. Every action is judged by the
library's own verification under the true SCM.
"""

from functools import partial
from importlib.util import find_spec

import numpy as np

import pcr_jax as pcr
from benchmarks import peers
from benchmarks.problems import Case, lowest_logits, population
from benchmarks.speed.inference import inference_rows
from benchmarks.timing import timed
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import ask_respondents, experiment_key

NUM_USERS = 500
PACKAGES = ("torch", "dice_ml", "zeus", "emcee")
# CPU seconds of the paper's released code as recorded on its own, one process: one posterior by 50
# walkers of 100 steps; and recourse for 500 users, one SCM variant, one learning rate. Its validity
# was .70 to .87, its zeus erred by .03 to .05 per coefficient.
RELEASED = "released code (recorded)"
RELEASED_POSTERIOR_SECONDS = 40.0
RELEASED_RECOURSE_SECONDS = {0.0: 6.6, 0.1: 12.0}
UNKNOWN = dict.fromkeys(
    ("first_seconds", "first_cpu_seconds", "compile_seconds", "seconds"), np.nan
)


def _stage(stage: str, method: str, users: int, measured: dict, quality: str) -> dict:
    """A row: those of a first call as measured, later ones' as if of all 500 users."""
    return {
        "stage": stage,
        "method": method,
        "measured_users": users,
        "first_call_seconds": measured["first_seconds"],
        "first_call_cpu_seconds": measured["first_cpu_seconds"],
        "compile_seconds": measured["compile_seconds"],
        "seconds_500_users": NUM_USERS / users * measured["seconds"],
        "cpu_seconds_500_users": NUM_USERS / users * measured["cpu_seconds"],
        "quality": quality,
    }


def pipeline_rows(repeats: int) -> list[dict]:
    """The stages that have no peer here."""
    draw = partial(population, "m1", NUM_USERS)
    (score, x, scale), training = timed(lambda: tuple(draw()), repeats)
    truth = pcr.library.m1()
    ask = partial(ask_respondents, experiment_key(0), truth, PAPER.alpha, NUM_USERS, 10, 10)
    _, asking = timed(ask, repeats)
    plan = pcr.find_recourse(score, truth, x, scale=scale, epsilon=0.1)
    evaluate = partial(pcr.evaluate, plan, truth)
    report, evaluating = timed(lambda: evaluate(optimum=np.asarray(plan.cost)), repeats)
    validity = f"validity {report.robust_validity:.3f}"
    return [
        _stage("population and classifier", "pcr_jax", NUM_USERS, training, ""),
        _stage("elicitation, 10 queries", "pcr_jax", NUM_USERS, asking, ""),
        _stage("evaluation, epsilon 0.1", "pcr_jax", NUM_USERS, evaluating, validity),
    ]


def posterior_rows(*sizes: int) -> list[dict]:
    """Samplers; sizes as of `inference_rows`."""
    rows = []
    for row, measured in inference_rows(*sizes):
        quality = (
            f"mean off by {row['rms_error_of_mean']:.4f}, worth "
            f"{row['independent_draws_worth']:.0f} independent draws"
        )
        rows.append(_stage("posteriors", row["sampler"], row["users"], measured, quality))
    measured = UNKNOWN | {"cpu_seconds": RELEASED_POSTERIOR_SECONDS}
    return [*rows, _stage("posteriors", RELEASED, 1, measured, "mean off by .030 to .052")]


def recourse_rows(epsilon: float, num_users: int, num_slow_users: int, repeats: int) -> list[dict]:
    """Solvers and peers, the slow ones on the first users only.

    Costs are compared user by user with the cheapest valid action that any method found.
    """
    score, x, scale = population("m1", num_users)
    truth, some = pcr.library.m1(), x[:num_slow_users]
    find = partial(pcr.find_recourse, score, truth, x, scale=scale, epsilon=epsilon)
    methods = {
        f"pcr_jax {solver}": lambda solver=solver: find(solver=solver).action.value / scale
        for solver in ("optimal", "paper")
    }
    for settings in peers.TORCH_SETTINGS if find_spec("torch") else ():
        search = partial(peers.torch_optimiser, score, "m1", x, scale, epsilon, *settings)
        methods["PyTorch, {} x {} steps".format(*settings)] = search
    runs = peers.SCIPY_RUNS
    by_user = peers.scipy_multi_start(score, truth, scale, epsilon, runs)
    slow = {f"SciPy, {runs} starts": partial(by_user, some)}
    if find_spec("dice_ml"):
        slow["DiCE (non-causal)"] = partial(peers.dice_actions(score, truth, scale), some)
    stage, results = f"recourse, epsilon {epsilon:g}", {}
    best = np.full(num_users, np.inf)
    for name, method in (methods | slow).items():
        moves, measured = timed(method, 1 if name in slow else repeats)
        moves = np.asarray(moves, np.float32)
        case = Case("well-trained", "m1", score, x[: len(moves)], scale)
        action = pcr.Action.soft(moves * scale)
        valid = moves.any(1) & (lowest_logits(case, action, epsilon) >= 0)
        cost = np.where(valid, np.abs(moves).sum(1), np.inf)
        best[: len(cost)] = np.minimum(best[: len(cost)], cost)
        results[name] = (cost, measured)
    rows = []
    for name, (cost, measured) in results.items():
        valid = np.isfinite(cost)
        ratio = cost[valid].sum() / best[: len(cost)][valid].sum() if valid.any() else np.nan
        quality = f"validity {valid.mean():.3f}, cost {ratio:.3f} of the best"
        rows.append(_stage(stage, name, len(cost), measured, quality))
    measured = UNKNOWN | {"cpu_seconds": RELEASED_RECOURSE_SECONDS[epsilon]}
    return [*rows, _stage(stage, RELEASED, NUM_USERS, measured, "validity .70 to .87")]


def markdown(rows: list[dict]) -> list[str]:
    """Recorded rows as the README has them, of two significant digits."""

    def seconds(value):
        return "not recorded" if value is None else f"{float(f'{value:.2g}'):,g}"

    return [
        f"| {row['stage']} | {row['method']} | {seconds(row['seconds_500_users'])} | "
        f"{seconds(row['cpu_seconds_500_users'])} | {row['quality']} |"
        for row in rows
    ]


def measure(options):
    """The way there and back, recourse at both radii, posteriors."""
    sizes = (32, 2, 1) if options.quick else (NUM_USERS, 20, 7)
    yield "skipped", peers.absent(PACKAGES)
    for part in (
        partial(pipeline_rows, 1 if options.quick else 5),
        partial(recourse_rows, 0.0, *sizes),
        partial(recourse_rows, 0.1, *sizes),
        partial(posterior_rows, *sizes),
    ):
        rows = part()
        for row in rows:
            own = next(r for r in rows if r["stage"] == row["stage"])  # the first is ours
            for column in ("seconds_500_users", "cpu_seconds_500_users"):
                row[f"{column}_over_ours"] = row[column] / own[column]
        yield "rows", rows
