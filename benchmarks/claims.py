"""The claims of sections 5.1-5.4 of the paper, checked on our own runs.

Every claim is a figure with one value per repetition and a range that the claim asserts for its
mean. It holds if the 95 % t-interval lies in that range, does not hold if the interval lies
outside, and else the repetitions cannot tell: a claim that is just false passes in 1 of 40 runs.
Repetitions of section 5.1 are respondents, the same ones at every point of a sweep; those of 5.2
and 5.3 are populations with classifiers of their own. Where the paper says "close" the margin is
ours: 0.1 in validity, 15 % in cost, 0.05 in absolute error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from scipy import stats

from benchmarks.records import show, tables_of, write_record
from pcr_jax.experiments import PAPER, RELEASED

LEVEL = 0.95


@dataclass(frozen=True)
class Claim:
    """What the paper says, what we measured, and where that must lie for the claim to hold.

    Attributes
    ----------
    section, text, figure : str
    values : array
        One per repetition; NaN where it is not defined.
    low, high : float
        The range of the mean that the claim asserts.
    level : float
        Of the interval.
    """

    section: str
    text: str
    figure: str
    values: np.ndarray
    low: float = 0.0
    high: float = np.inf
    level: float = LEVEL

    def row(self) -> dict:
        """Mean, interval and verdict."""
        values = self.values[np.isfinite(self.values)]
        mean = values.mean() if len(values) else np.nan
        below = above = mean
        if len(values) > 1:
            half = stats.sem(values) * stats.t.ppf((1 + self.level) / 2, len(values) - 1)
            below, above = mean - half, mean + half
        if len(values) < 2:
            verdict = "cannot tell"
        elif self.low < below and above < self.high:
            verdict = "holds"
        elif above <= self.low or below >= self.high:
            verdict = "does not hold"
        else:
            verdict = "cannot tell"
        asserted = f"> {self.low:g}" if np.isinf(self.high) else f"in ({self.low:g}, {self.high:g})"
        return {
            "section": self.section,
            "claim": self.text,
            "figure": f"{self.figure} {asserted}",
            "mean": float(mean),
            "low": float(below),
            "high": float(above),
            "repetitions": len(values),
            "verdict": verdict,
        }


def _errors(estimation, scm: str, sweep: str, column="absolute_error") -> pd.DataFrame:
    """Mean over coefficients; a row per respondent, a column per point; NaN without posterior."""
    chosen = estimation[(estimation["scm"] == scm) & (estimation["sweep"] == sweep)]
    grouped = chosen.groupby(["repetition", "value"])[column]
    return grouped.mean().unstack()


def estimation_claims(estimation: pd.DataFrame) -> list[Claim]:
    """Section 5.1."""
    queries = {scm: _errors(estimation, scm, "num_queries") for scm in ("m1", "m2", "m3")}
    relative = {
        scm: errors / _errors(estimation, scm, "num_queries", "prior_error").mean()
        for scm, errors in queries.items()
    }
    prior = _errors(estimation, "m1", "alpha_beta", "prior_error").mean(axis=None)
    t = queries["m1"]
    both = _errors(estimation, "m1", "alpha_beta")
    steps = both.diff(axis=1).iloc[:, 1:]
    worst = steps.mean().idxmin()
    fixed = _errors(estimation, "m1", "alpha")
    sigma = _errors(estimation, "m1", "sigma")
    spread = _errors(estimation, "m1", "sigma", "posterior_sd")
    gains = estimation.assign(gain=estimation["prior_error"] - estimation["absolute_error"])
    at_ten = gains[(gains["sweep"] == "num_queries") & (gains["value"] == 10)]

    def gain(scm, coefficients):
        chosen = at_ten[(at_ten["scm"] == scm) & at_ten["coefficient"].isin(coefficients)]
        return chosen.groupby("repetition")["gain"].mean().to_numpy()

    return [
        Claim(
            "5.1", "M1: error falls with T", "error at T=1 minus T=15", (t[1] - t[15]).to_numpy()
        ),
        Claim(
            "5.1",
            "M1: most of it by 5-6 queries",
            "(error at T=1 minus T=6) minus half of (T=1 minus T=15)",
            (t[1] - t[6] - (t[1] - t[15]) / 2).to_numpy(),
        ),
        Claim(
            "5.1",
            "M1: error rises with alpha (beta = alpha)",
            "error at alpha=0.9 minus alpha=0",
            (both[0.9] - both[0.0]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M1: and does so monotonically (beta = alpha)",
            "least change between neighbouring alphas",
            steps[worst].to_numpy(),
            low=-0.05,
            level=1 - (1 - LEVEL) / steps.shape[1],
        ),
        Claim(
            "5.1",
            "M1: converges to the prior's as alpha -> 1 (beta = alpha)",
            "error at alpha=1 minus the prior's",
            (both[1.0] - prior).to_numpy(),
            -0.05,
            0.05,
        ),
        Claim(
            "5.1",
            "M1: converges to the prior's as alpha -> 1 (beta = 0.1)",
            "error at alpha=1 minus the prior's",
            (fixed[1.0] - prior).to_numpy(),
            -0.05,
            0.05,
        ),
        Claim(
            "5.1",
            "M1: a small sigma is infeasible",
            "share of empty posteriors at sigma=0.1",
            sigma[0.1].isna().to_numpy(float),
            low=0.5,
        ),
        Claim(
            "5.1",
            "M1: a moderate sigma is best",
            "error at sigma=1 minus sigma=0.5",
            (sigma[1.0] - sigma[0.5]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M1: a large sigma is noisier",
            "posterior sd at sigma=1 minus sigma=0.5",
            (spread[1.0] - spread[0.5]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M2 is estimated worse than M1",
            "error at T=10, M2 minus M1",
            (queries["m2"][10] - queries["m1"][10]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M2 is estimated worse than M1, relative to the prior",
            "error at T=10 over the prior's, M2 minus M1",
            (relative["m2"][10] - relative["m1"][10]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M2: downstream coefficients are partly recovered",
            "prior's error minus error at T=10, coefficients of X3",
            gain("m2", ["X3 <- X1", "X3 <- X2"]),
        ),
        Claim(
            "5.1",
            "M3 is estimated worse still",
            "error at T=10 (M3: to its linear projection), M3 minus M2",
            (queries["m3"][10] - queries["m2"][10]).to_numpy(),
        ),
        Claim(
            "5.1",
            "M3 is estimated worse still, relative to the prior",
            "error at T=10 over the prior's, M3 minus M2",
            (relative["m3"][10] - relative["m2"][10]).to_numpy(),
        ),
    ]


def _pivot(recourse: pd.DataFrame, scm: str, epsilon: float, measure: str) -> dict:
    """Per variant, a frame with a row per repetition and a column per learning rate."""
    chosen = recourse[(recourse["scm"] == scm) & (recourse["epsilon"] == epsilon)]
    table = chosen.pivot_table(
        measure, "seed", ["variant", "learning_rate"], dropna=False, sort=True
    )
    return {variant: table[variant] for variant in ("ground_truth", "estimated", "prior")}


def recourse_claims(recourse: pd.DataFrame) -> list[Claim]:
    """Sections 5.2 and 5.4."""
    scms = ("m1", "m2", "m3")
    v = {(s, e): _pivot(recourse, s, e, "validity") for s in scms for e in (0.0, 0.1)}
    robust = {s: _pivot(recourse, s, 0.1, "robust_validity") for s in scms}
    cost = {(s, e): _pivot(recourse, s, e, "cost_mean_common") for s in scms for e in (0.0, 0.1)}
    labels = {"ground_truth": "ground truth", "estimated": "estimated", "prior": "prior"}

    def mean(table):
        """Over learning rates, of every repetition."""
        return table.mean(axis=1).to_numpy()

    def gap(scm, epsilon, first="ground_truth", second="estimated"):
        return mean(v[scm, epsilon][first] - v[scm, epsilon][second])

    def cost_ratio(scm, epsilon):
        pair = cost[scm, epsilon]
        return mean(pair["estimated"] / pair["ground_truth"]) - 1

    def spread(scm, epsilon):
        """Of the mean cost across learning rates."""
        return cost[scm, epsilon]["estimated"].std(axis=1).to_numpy()

    high_rates = [rate for rate in cost["m3", 0.0]["prior"].columns if rate >= 0.5]
    m3 = cost["m3", 0.0]
    claims = [
        Claim(
            "5.2",
            "M1: estimated close to ground truth at eps 0",
            "validity, ground truth minus estimated",
            gap("m1", 0.0),
            -0.1,
            0.1,
        ),
        Claim(
            "5.2",
            "M1: estimated above prior at eps 0",
            "validity, estimated minus prior",
            gap("m1", 0.0, "estimated", "prior"),
        ),
        Claim(
            "5.2",
            "M1: estimated close to ground truth in cost at eps 0",
            "cost on common users, estimated / ground truth - 1",
            cost_ratio("m1", 0.0),
            -0.15,
            0.15,
        ),
        Claim(
            "5.2",
            "M1: prior needs larger interventions at eps 0",
            "cost on common users, prior minus estimated",
            mean(cost["m1", 0.0]["prior"] - cost["m1", 0.0]["estimated"]),
        ),
        *(
            Claim(
                "5.2",
                f"M1: all lower at eps 0.1 ({labels[variant]})",
                "validity at eps 0 minus eps 0.1",
                mean(v["m1", 0.0][variant] - v["m1", 0.1][variant]),
            )
            for variant in labels
        ),
        Claim(
            "5.2",
            "M1: gap to ground truth stays narrow at eps 0.1",
            "validity, ground truth minus estimated",
            gap("m1", 0.1),
            -0.1,
            0.1,
        ),
        Claim(
            "5.2",
            "M2: estimated above prior at eps 0 over a wide range of rates",
            "rates of six at which it is",
            (v["m2", 0.0]["estimated"] > v["m2", 0.0]["prior"]).sum(axis=1).to_numpy(float),
            low=3,
        ),
        Claim(
            "5.2",
            "M2: gap between estimated and prior narrows at eps 0.1",
            "(estimated minus prior) at eps 0 minus eps 0.1",
            gap("m2", 0.0, "estimated", "prior") - gap("m2", 0.1, "estimated", "prior"),
        ),
        Claim(
            "5.2",
            "M2: cost varies more across rates at eps 0.1",
            "sd over rates of the estimated's cost, eps 0.1 minus eps 0",
            spread("m2", 0.1) - spread("m2", 0.0),
        ),
        Claim(
            "5.2",
            "M3: estimated has lower validity",
            "validity at eps 0, ground truth minus estimated",
            gap("m3", 0.0),
        ),
        Claim(
            "5.2",
            "M3: its cost is close to ground truth",
            "cost on common users, estimated / ground truth - 1",
            cost_ratio("m3", 0.0),
            -0.15,
            0.15,
        ),
        Claim(
            "5.2",
            "M3: prior is dearer at high rates",
            "cost on common users at rates >= 0.5, prior minus estimated",
            mean((m3["prior"] - m3["estimated"])[high_rates]),
        ),
    ]
    for scm in scms:
        for variant, label in labels.items():
            claims.append(
                Claim(
                    "5.4",
                    f"{scm.upper()}: robustness lowers validity ({label})",
                    "validity at eps 0 minus robust validity at eps 0.1",
                    mean(v[scm, 0.0][variant] - robust[scm][variant]),
                )
            )
    for scm in scms:
        missed = 1 - v[scm, 0.0]["ground_truth"]
        # Smaller rates end before they arrive, which is another reason.
        unsolved = missed[0.5].where(missed[0.5] > 1e-6)
        flat = _pivot(recourse, scm, 0.0, "zero_gradient")["ground_truth"][0.5]
        reachable = _pivot(recourse, scm, 0.0, "reachable")["ground_truth"]
        claims += [
            Claim(
                "5.4",
                f"{scm.upper()}: ground-truth recourse is not always found",
                "share of users without, at rate 0.5",
                missed[0.5].to_numpy(),
                low=0.01,
            ),
            Claim(
                "5.4",
                f"{scm.upper()}: because gradients are zero",
                "share of those whose gradient is exactly 0, at rate 0.5",
                (flat / unsolved).to_numpy(),
                low=0.5,
            ),
            Claim(
                "5.4",
                f"{scm.upper()}: not because recourse does not exist",
                "share of users for whom an action exists (optimal solver)",
                mean(reachable),
                low=0.99,
                high=1.01,
            ),
        ]
    return claims


def pattern_distance(interventions: pd.DataFrame, scm: str, variant: str) -> pd.Series:
    """Total variation distance to ground truth's intervention pattern, one per repetition.

    Between shares of intervention sets, at epsilon 0 and the learning rate of Fig. 4 and 5.
    """
    chosen = interventions[
        (interventions["scm"] == scm)
        & (interventions["epsilon"] == 0)
        & (interventions["learning_rate"] == 0.75)
    ]
    shares = chosen.pivot_table("share", ["variant", "seed"], "intervention_set", fill_value=0.0)
    gap = (shares.loc[variant] - shares.loc["ground_truth"]).abs()
    return gap.sum(axis=1, skipna=False) / 2


def pattern_claims(interventions: pd.DataFrame) -> list[Claim]:
    """Section 5.3."""
    return [
        Claim(
            "5.3",
            f"{scm.upper()}: estimated intervenes more like ground truth than the prior does",
            "total variation distance to ground truth, prior minus estimated",
            (
                pattern_distance(interventions, scm, "prior")
                - pattern_distance(interventions, scm, "estimated")
            ).to_numpy(),
        )
        for scm in ("m1", "m2")
    ]


def claims_of(tables: dict[str, pd.DataFrame]) -> list[Claim]:
    """Every claim that the tables of a run can tell something about."""
    claims = [*recourse_claims(tables["recourse"]), *pattern_claims(tables["interventions"])]
    if len(tables["estimation"]):
        claims = [*estimation_claims(tables["estimation"]), *claims]
    return sorted(claims, key=lambda claim: claim.section)


def first(tables: dict[str, pd.DataFrame], seeds: int, respondents: int) -> dict:
    """The run as it would have been with fewer repetitions and respondents."""
    return {
        "recourse": tables["recourse"].query(f"seed < {seeds}"),
        "interventions": tables["interventions"].query(f"seed < {seeds}"),
        "estimation": tables["estimation"].query(f"repetition < {respondents}"),
    }


def page(record: dict[str, list[dict]]) -> str:
    """The verdicts side by side, in Markdown."""
    rows: dict[tuple, dict] = {}
    for name, told in record.items():
        for row in told:
            mean = "{mean:.3f} [{low:.3f}, {high:.3f}] ({repetitions})".format(**row)
            key = (row["section"], row["claim"], row["figure"])
            rows.setdefault(key, {})[name] = f"**{row['verdict']}** {mean}"
    lines = [
        "# The paper's claims",
        "",
        "Written by `python -m benchmarks claims`. A verdict, the mean over repetitions of the",
        "figure, its 95 % interval and, in brackets, the number of repetitions that define it.",
        "",
        "| section | claim | figure, and the range that the claim asserts | "
        + " | ".join(record)
        + " |",
        "|---" * (3 + len(record)) + "|",
    ]
    for key, told in rows.items():
        lines.append(f"| {' | '.join([*key, *(told.get(name, '-') for name in record)])} |")
    return "\n".join(lines) + "\n"


def measure(paper: Path, released: Path, repetitions: int, jobs: int, out: Path) -> None:
    """Run or read both experiments, print the verdicts and record them."""
    console = Console(width=200)
    many = replace(PAPER, seeds=repetitions, sweep_respondents=repetitions)
    tables = tables_of(paper, many, jobs, console)
    theirs = tables_of(released, replace(RELEASED, seeds=repetitions), jobs, console)
    checked = {
        f"paper, {PAPER.seeds} repetitions": first(tables, PAPER.seeds, PAPER.sweep_respondents),
        f"paper, {repetitions} repetitions": tables,
        f"released, {repetitions} repetitions": theirs,
    }
    record = {}
    for name, chosen in checked.items():
        record[name] = [claim.row() for claim in claims_of(chosen)]
        show(console, name, record[name])
    write_record(out / "claims.json", record)
    (out / "claims.md").write_text(page(record))
