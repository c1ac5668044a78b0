"""Recourse under the released code's settings, beside what that code published.

The published table has validity and cost for every SCM, epsilon, learning rate and variant, mean
and standard deviation over 5 runs. Ours are judged by the same yardstick: validity as the released
code counts it (under its own attack for the true SCM at epsilon > 0, unperturbed otherwise), cost
over the users valid under all three SCMs.
"""

import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from pcr_jax import library
from pcr_jax.experiments import PAPER, RELEASED, Protocol, run
from pcr_jax.plots import VARIANTS

OPTIONS = {
    "--repetitions": {"type": int, "default": 20, "metavar": "N", "help": "of both experiments"},
    "--jobs": {"type": int, "default": os.cpu_count(), "metavar": "N"},
    "--runs": {
        "type": Path,
        "default": Path("out"),
        "metavar": "DIR",
        "help": "where both experiments are, or are to be, run (claims-paper, claims-released)",
    },
}
KEYS = ["scm", "epsilon", "learning_rate", "variant"]


def published() -> pd.DataFrame:
    """The published table, 90 rows."""
    table = pd.read_csv(files("benchmarks") / "data" / "published_recourse.csv", comment="#")
    return table.assign(scm=table["scm"].str.lower())


def experiments(options) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], Protocol]:
    """The tables of the paper's and the released settings, run or finished first; the former."""
    found = []
    for protocol in (PAPER, RELEASED):
        many = replace(protocol, seeds=options.repetitions)
        if protocol.sweep_respondents:
            many = replace(many, sweep_respondents=options.repetitions)
        folder = options.runs / f"claims-{protocol.name}"
        if options.quick:
            many = replace(many, num_users=50, seeds=2, sweep_respondents=0)
            folder = options.runs / f"claims-{protocol.name}-quick"
        run(folder, many, list(library.SCMS), "zeus", options.jobs, Console(width=200))
        found.append({path.stem: pd.read_csv(path) for path in folder.glob("*.csv")})
    return *found, many


def compare(recourse: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Both tables side by side; ``z`` is the difference in standard errors of the difference."""
    ours = recourse.groupby(KEYS, sort=False).agg(
        repetitions=("seed", "count"),
        validity=("validity", "mean"),
        validity_sd_ours=("validity", "std"),
        robust_validity=("robust_validity", "mean"),
        cost=("cost_mean_common", "mean"),
        cost_sd_ours=("cost_mean_common", "std"),
        cost_count=("cost_mean_common", "count"),
        zero_gradient=("zero_gradient", "mean"),
    )
    both = theirs.merge(ours, on=KEYS, how="left", validate="one_to_one")
    for name, count in (("validity", "repetitions"), ("cost", "cost_count")):
        variance = (
            both[f"{name}_sd"] ** 2 / both["runs"] + both[f"{name}_sd_ours"] ** 2 / both[count]
        )
        both[f"{name}_z"] = (both[name] - both[f"{name}_mean"]) / np.sqrt(variance)
    return both


def within(both: pd.DataFrame) -> pd.DataFrame:
    """Per SCM, epsilon and variant: of how many rates |z| <= 2."""
    near = both.assign(
        validity_within=both["validity_z"].abs() <= 2, cost_within=both["cost_z"].abs() <= 2
    )
    return near.groupby(["scm", "epsilon", "variant"], sort=False, as_index=False).agg(
        rates=("learning_rate", "count"),
        validity_within=("validity_within", "sum"),
        cost_within=("cost_within", "sum"),
        published_validity=("validity_mean", "mean"),
        validity=("validity", "mean"),
        published_cost=("cost_mean", "mean"),
        cost=("cost", "mean"),
        zero_gradient=("zero_gradient", "mean"),
    )


def figure(both: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Validity at epsilon 0 against the learning rate: published, and both protocols of ours."""
    drawn = Figure(figsize=(9, 3.4), layout="constrained")
    axes = drawn.subplots(1, 3, sharey=True)
    means = paper.groupby(KEYS, as_index=False)["validity"].mean()
    for axis, scm in zip(axes, ("m1", "m2", "m3"), strict=True):
        for variant, (label, colour, marker) in VARIANTS.items():
            chosen = f"scm == '{scm}' and epsilon == 0 and variant == '{variant}'"
            theirs, ours = both.query(chosen), means.query(chosen)
            rate, error = theirs["learning_rate"], theirs["validity_sd"] / np.sqrt(theirs["runs"])
            style = {"color": colour, "label": f"{label}, published \u00b1 2 SE", "fmt": marker}
            axis.errorbar(rate, theirs["validity_mean"], 2 * error, **style)
            axis.plot(rate, theirs["validity"], color=colour, label=f"{label}, released settings")
            style = {"color": colour, "label": f"{label}, the paper's settings", "ls": "--"}
            axis.plot(ours["learning_rate"], ours["validity"], **style)
        axis.set(title=scm.upper(), xlabel="learning rate", ylim=(0, 1.05))
    axes[0].set_ylabel("validity under the true SCM")
    drawn.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7
    )
    return drawn


def measure(options):
    """The released settings beside the published table; the figure has the paper's too."""
    paper, released, protocol = experiments(options)
    both = compare(released["recourse"], published())
    yield "repetitions", protocol.seeds
    yield "within_two_standard_errors", within(both).to_dict("records")
    yield "published.csv", both
    yield "published.png", figure(both, paper["recourse"])
