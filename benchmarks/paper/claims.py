"""The claims of sections 5.1-5.4 of the paper, checked on our own runs.

Every claim is a figure with one value per repetition and a range that the claim asserts for its
mean. It holds if the 95 % t-interval lies in that range, does not hold if the interval lies
outside, and else the repetitions cannot tell: a claim that is just false passes in 1 of 40 runs.
Repetitions of section 5.1 are respondents, the same ones at every point of a sweep; those of 5.2
and 5.3 are populations with classifiers of their own. Where the paper says "close" the margin is
ours: 0.1 in validity, 15 % in cost, 0.05 in absolute error. ``data/claims.csv`` has their wording
and ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.resources import files

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.paper import published
from pcr_jax.experiments import PAPER

OPTIONS = published.OPTIONS
LEVEL = 0.95
CLAIMS = files("benchmarks") / "data" / "claims.csv"


@dataclass(frozen=True)
class Claim:
    """What the paper says, what we measured, and where that must lie for the claim to hold.

    Attributes
    ----------
    section, claim, figure : str
    values : array
        One per repetition; NaN where it is not defined.
    low, high : float
        The range of the mean that the claim asserts.
    level : float
        Of the interval.
    """

    section: str
    claim: str
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
        row = {"section": self.section, "claim": self.claim, "figure": f"{self.figure} {asserted}"}
        row |= {"mean": float(mean), "low": float(below), "high": float(above)}
        return row | {"repetitions": len(values), "verdict": verdict}


def _errors(estimation, scm: str, sweep: str, column="absolute_error") -> pd.DataFrame:
    """Mean over coefficients; a row per respondent, a column per point; NaN without posterior."""
    chosen = estimation[(estimation["scm"] == scm) & (estimation["sweep"] == sweep)]
    grouped = chosen.groupby(["repetition", "value"])[column]
    return grouped.mean().unstack()


def estimation_values(estimation: pd.DataFrame) -> dict[str, pd.Series | pd.DataFrame]:
    """Section 5.1."""
    queries = {scm: _errors(estimation, scm, "num_queries") for scm in ("m1", "m2", "m3")}
    relative = {
        scm: errors / _errors(estimation, scm, "num_queries", "prior_error").mean()
        for scm, errors in queries.items()
    }
    prior = _errors(estimation, "m1", "alpha_beta", "prior_error").mean(axis=None)
    t, both = queries["m1"], _errors(estimation, "m1", "alpha_beta")
    fixed, sigma = _errors(estimation, "m1", "alpha"), _errors(estimation, "m1", "sigma")
    spread = _errors(estimation, "m1", "sigma", "posterior_sd")
    gains = estimation.assign(gain=estimation["prior_error"] - estimation["absolute_error"])
    at_ten = gains[(gains["sweep"] == "num_queries") & (gains["value"] == 10)]
    downstream = at_ten["coefficient"].isin(["X3 <- X1", "X3 <- X2"])
    of_x3 = at_ten[(at_ten["scm"] == "m2") & downstream]
    return {
        "m1_queries": t[1] - t[15],
        "m1_few_queries": t[1] - t[6] - (t[1] - t[15]) / 2,
        "m1_alpha": both[0.9] - both[0.0],
        "m1_monotone": both.diff(axis=1).iloc[:, 1:],
        "m1_to_prior": both[1.0] - prior,
        "m1_to_prior_fixed": fixed[1.0] - prior,
        "m1_small_sigma": sigma[0.1].isna(),
        "m1_moderate_sigma": sigma[1.0] - sigma[0.5],
        "m1_large_sigma": spread[1.0] - spread[0.5],
        "m2_worse": queries["m2"][10] - queries["m1"][10],
        "m2_worse_relative": relative["m2"][10] - relative["m1"][10],
        "m2_downstream": of_x3.groupby("repetition")["gain"].mean(),
        "m3_worse": queries["m3"][10] - queries["m2"][10],  # M3: to its linear projection
        "m3_worse_relative": relative["m3"][10] - relative["m2"][10],
    }


def _pivot(recourse: pd.DataFrame, scm: str, epsilon: float, measure: str) -> dict:
    """Per variant, a frame with a row per repetition and a column per learning rate."""
    chosen = recourse[(recourse["scm"] == scm) & (recourse["epsilon"] == epsilon)]
    table = chosen.pivot_table(
        measure, "seed", ["variant", "learning_rate"], dropna=False, sort=True
    )
    return {variant: table[variant] for variant in ("ground_truth", "estimated", "prior")}


def recourse_values(recourse: pd.DataFrame) -> dict[str, pd.Series]:
    """Sections 5.2 and 5.4."""
    scms, variants = ("m1", "m2", "m3"), ("ground_truth", "estimated", "prior")
    v = {(s, e): _pivot(recourse, s, e, "validity") for s in scms for e in (0.0, 0.1)}
    cost = {(s, e): _pivot(recourse, s, e, "cost_mean_common") for s in scms for e in (0.0, 0.1)}
    m3 = cost["m3", 0.0]

    def mean(table):
        """Over learning rates, of every repetition."""
        return table.mean(axis=1)

    def gap(scm, epsilon, first="ground_truth", second="estimated"):
        return mean(v[scm, epsilon][first] - v[scm, epsilon][second])

    def cost_ratio(scm):
        return mean(cost[scm, 0.0]["estimated"] / cost[scm, 0.0]["ground_truth"]) - 1

    def spread(epsilon):
        """Of M2's mean cost across learning rates."""
        return cost["m2", epsilon]["estimated"].std(axis=1)

    dearer = m3["prior"] - m3["estimated"]
    found = {
        "m1_close": gap("m1", 0.0),
        "m1_above_prior": gap("m1", 0.0, "estimated", "prior"),
        "m1_cost_close": cost_ratio("m1"),
        "m1_prior_dearer": mean(cost["m1", 0.0]["prior"] - cost["m1", 0.0]["estimated"]),
        "m1_close_robust": gap("m1", 0.1),
        "m2_above_prior": (v["m2", 0.0]["estimated"] > v["m2", 0.0]["prior"]).sum(axis=1),
        "m2_narrows": gap("m2", 0.0, "estimated", "prior") - gap("m2", 0.1, "estimated", "prior"),
        "m2_cost_varies": spread(0.1) - spread(0.0),
        "m3_lower": gap("m3", 0.0),
        "m3_cost_close": cost_ratio("m3"),
        "m3_prior_dearer": mean(dearer[[rate for rate in dearer.columns if rate >= 0.5]]),
    }
    for variant in variants:
        found[f"m1_lower_{variant}"] = mean(v["m1", 0.0][variant] - v["m1", 0.1][variant])
    for scm in scms:
        robust = _pivot(recourse, scm, 0.1, "robust_validity")
        for variant in variants:
            found[f"{scm}_robust_{variant}"] = mean(v[scm, 0.0][variant] - robust[variant])
        # At smaller rates the search ends before it arrives, which is another reason.
        missed = 1 - v[scm, 0.0]["ground_truth"][0.5]
        flat = _pivot(recourse, scm, 0.0, "zero_gradient")["ground_truth"][0.5]
        found[f"{scm}_missed"] = missed
        found[f"{scm}_zero_gradient"] = flat / missed.where(missed > 1e-6)
        found[f"{scm}_reachable"] = mean(_pivot(recourse, scm, 0.0, "reachable")["ground_truth"])
    return found


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


def pattern_values(interventions: pd.DataFrame) -> dict[str, pd.Series]:
    """Section 5.3."""
    distance = partial(pattern_distance, interventions)
    return {
        f"{scm}_pattern": distance(scm, "prior") - distance(scm, "estimated")
        for scm in ("m1", "m2")
    }


def claims_of(tables: dict[str, pd.DataFrame]) -> list[Claim]:
    """Every claim that the tables of a run can tell something about.

    Of values in several columns it is about the lowest, at a level that allows for the choice.
    """
    values = recourse_values(tables["recourse"]) | pattern_values(tables["interventions"])
    if len(tables["estimation"]):
        values |= estimation_values(tables["estimation"])
    claims = []
    for row in pd.read_csv(CLAIMS, dtype={"section": str}).to_dict("records"):
        key, level = row.pop("key"), LEVEL
        if key not in values:
            continue
        chosen = values[key]
        if isinstance(chosen, pd.DataFrame):
            level = 1 - (1 - LEVEL) / chosen.shape[1]
            chosen = chosen[chosen.mean().idxmin()]
        claims.append(Claim(**row, values=chosen.to_numpy(float), level=level))
    return claims


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


def measure(options):
    """Verdicts under the paper's settings, of as few repetitions as it has and of all; released."""
    paper, released, protocol = published.experiments(options)
    seeds = min(PAPER.seeds, protocol.seeds)
    checked = {
        f"paper, {seeds} repetitions": first(paper, seeds, PAPER.sweep_respondents),
        f"paper, {protocol.seeds} repetitions": paper,
        f"released, {protocol.seeds} repetitions": released,
    }
    record = {name: [c.row() for c in claims_of(tables)] for name, tables in checked.items()}
    yield from record.items()
    yield "claims.md", page(record)
