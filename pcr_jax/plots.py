"""The paper's figures and those of decisions, drawn from tables and from posteriors.

Every function returns a `matplotlib.figure.Figure` and none uses pyplot, so that neither a
display nor global state is needed.
"""

from __future__ import annotations

import io
import os
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from pcr_jax import _checks, evaluation
from pcr_jax._extras import extra
from pcr_jax._files import write
from pcr_jax.actions import Action
from pcr_jax.batching import take
from pcr_jax.inference import Posteriors, posterior_scms
from pcr_jax.inference.arviz_data import coefficients_of
from pcr_jax.scm import SCM

with extra("plots"):
    import matplotlib
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, PercentFormatter

# Label, colour and marker; the colours are of Okabe & Ito's set, made for colour-blind readers.
VARIANTS = {
    "ground_truth": ("ground truth", "#222222", "o"),
    "estimated": ("estimated", "#0072B2", "s"),
    "prior": ("prior", "#D55E00", "^"),
}
SWEEPS = {
    "alpha_beta": r"error rate $\alpha$ = tolerated share $\beta$",
    "alpha": r"error rate $\alpha$",
    "sigma": r"tolerance $\sigma$ (natural units)",
    "num_queries": "number of queries $T$",
}
# Of whatever else is compared; the rest of that set.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
_MARKERS = "os^Dv<>"
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
}
_LABELS = ("scm", "epsilon", "learning_rate", "variant", "seed")
_RARE = 0.01
_NUM_SAMPLES = 10_000
_NUM_DRAWS = 200
_NUM_BINS = 10


def _columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise unless ``table`` is a table with these columns."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"Expected table to be a pandas.DataFrame; got {type(table).__name__}.")
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"Expected table with the columns {missing}; got {list(table.columns)}.")


def _select(table: pd.DataFrame, **wanted) -> pd.DataFrame:
    """The rows with these values; ValueError if there are none."""
    for column, value in wanted.items():
        held = sorted(table[column].unique().tolist(), key=str)
        if value not in held:
            raise ValueError(f"Expected {column} to be one of {held}; got {value!r}.")
        table = table[table[column] == value]
    return table


def _message(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(5, 1.5))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _letter(ax, index: int, title: str = "") -> None:
    """Name a panel a, b, c, ..., with a title after the letter."""
    ax.set_title(rf"$\bf{{{chr(ord('a') + index)}}}$  {title}", loc="left")


def _spaced(rates: np.ndarray) -> list[str]:
    """A label for each rate, empty where it would run into the next on a logarithmic axis."""
    room = 0.05 * np.log(rates[-1] / rates[0])
    labels: list[str] = []
    last = np.inf
    for rate in rates[::-1]:
        fits = np.log(last / rate) > room
        labels.insert(0, f"{rate:g}" if fits else "")
        last = rate if fits else last
    return labels


@matplotlib.rc_context(_STYLE)
def recourse(table: pd.DataFrame, scm: str, epsilon: float) -> Figure:
    """Validity and cost against the learning rate, by variant (Fig. 2 and 3 of the paper).

    Points are means over seeds and error bars standard deviations (with ``n - 1``). Where nobody
    has a valid action the cost is NaN and left out.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per scm, epsilon, learning_rate, variant and seed, with validity,
        robust_validity and cost_mean.
    scm : str
    epsilon : float
        If positive, the robust validity is drawn too, dashed.

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    ValueError
        If it lacks a column or has no such rows.
    """
    _columns(table, *_LABELS, "validity", "robust_validity", "cost_mean")
    rows = _select(table, scm=scm, epsilon=epsilon)
    seeds = f"mean ± s.d. of {rows.seed.nunique()} seeds"
    figure = _figure(7.2, 3.1, rf"{scm}, $\epsilon$ = {epsilon:g}, {seeds}")
    validity, cost = figure.subplots(1, 2, sharex=True)
    curves = [(validity, "validity", "-"), (cost, "cost_mean", "-")]
    if epsilon > 0:
        curves.append((validity, "robust_validity", "--"))
    handles = []
    shown = [name for name in VARIANTS if name in set(rows.variant)]
    for k, name in enumerate(shown):
        label, colour, marker = VARIANTS[name]
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
        for ax, column, dash in curves:
            groups = rows[rows.variant == name].groupby("learning_rate")[column]
            stats = groups.agg(["mean", "std"]).dropna(subset="mean")
            ax.errorbar(
                stats.index * 1.04 ** (k - (len(shown) - 1) / 2),  # side by side
                stats["mean"],
                stats["std"],
                color=colour,
                marker=marker,
                markerfacecolor=colour if dash == "-" else "white",
                linestyle=dash,
                elinewidth=0.7,
                capsize=1.5,
            )
    if epsilon > 0:
        handles += [
            Line2D([], [], color="0.5", label="valid"),
            Line2D([], [], color="0.5", linestyle="--", label="robustly valid"),
        ]
    rates = np.sort(rows.learning_rate.unique())
    for k, ax in enumerate((validity, cost)):
        ax.set_xscale("log")
        ax.set_xticks(rates, _spaced(rates))
        ax.margins(x=0.03)
        ax.set_xticks([], minor=True)
        ax.set_xlabel(r"learning rate $\gamma$")
        _letter(ax, k)
    validity.set(ylabel="validity (share of users)", ylim=(0, 1.05))
    cost.set_ylabel("cost (L1, in population\nstandard deviations)")
    cost.set_ylim(bottom=0)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@matplotlib.rc_context(_STYLE)
def interventions(table: pd.DataFrame, scm: str, epsilon: float, learning_rate: float) -> Figure:
    """How often each set of nodes is intervened on, by variant (Fig. 4 and 5 of the paper).

    Bars are means over the seeds that a variant has rows for and error bars standard deviations
    (with ``n - 1``); a set absent for a seed has share 0. Sets below 1 % in every variant's mean
    are left out, and a note says how much they are in total. Without any rows (nobody was
    recommended an action) the figure says so.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per scm, epsilon, learning_rate, variant, seed and intervention_set (such as
        ``"X1+X3"``), with share.
    scm : str
    epsilon, learning_rate : float

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    ValueError
        If it lacks a column.
    """
    _columns(table, *_LABELS, "intervention_set", "share")
    setting = rf"{scm}, $\epsilon$ = {epsilon:g}, $\gamma$ = {learning_rate:g}"
    match = (table.scm == scm) & (table.epsilon == epsilon) & (table.learning_rate == learning_rate)
    rows = table[match]
    if rows.empty:
        return _message(f"{setting}: no action was recommended.")
    shares = rows.pivot_table("share", ["variant", "seed"], "intervention_set", fill_value=0.0)
    means, deviations = shares.groupby("variant").mean(), shares.groupby("variant").std()
    shown = [name for name in VARIANTS if name in means.index]
    ordered = sorted(means, key=lambda name: (name != "none", name.count("+"), name))
    frequent = [name for name in ordered if (means[name] >= _RARE).any()]
    rare = [name for name in ordered if name not in frequent]
    broken = max(map(len, frequent), default=0) > 12
    labels = [name.replace("+", "+\n") if broken else name for name in frequent]
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    width = max(4.0, 1.0 + len(frequent) * max(0.7, 0.075 * longest))

    figure = _figure(width, 3.0, f"{setting}, mean ± s.d. of {rows.seed.nunique()} seeds")
    ax = figure.subplots()
    bar = 0.8 / len(shown)
    for k, name in enumerate(shown):
        label, colour, _ = VARIANTS[name]
        ax.bar(
            np.arange(len(frequent)) + (k - (len(shown) - 1) / 2) * bar,
            means.loc[name, frequent],
            0.9 * bar,
            yerr=deviations.loc[name, frequent],
            facecolor=(colour, 0.55),
            edgecolor=colour,
            linewidth=0.7,
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": colour},
            label=label,
        )
    ax.set_xticks(np.arange(len(frequent)), labels)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylabel("share of recommended actions")
    ax.set_xlabel("nodes intervened on")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(shown))
    if rare:
        totals = [f"{VARIANTS[name][0]} {means.loc[name, rare].sum():.1%}" for name in shown]
        note = f"Not shown, each below {_RARE:.0%}: {', '.join(rare)} ({', '.join(totals)})."
        note = textwrap.fill(note, int(16 * width))
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


@matplotlib.rc_context(_STYLE)
def estimation(table: pd.DataFrame, sweep: str) -> Figure:
    """Error of the estimated coefficients along a sweep, one panel per SCM (section 5.1).

    The error of a repetition is its mean over coefficients; the line is the mean over the
    repetitions with a posterior and the band its standard error. The strip below shows the share
    of repetitions without a posterior.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per scm, sweep, value, repetition and coefficient, with absolute_error,
        prior_error and status ("ok" or the reason why there is no posterior).
    sweep : {"alpha_beta", "alpha", "sigma", "num_queries"}

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    ValueError
        If it lacks a column or has no such rows.
    """
    _columns(
        table, "scm", "sweep", "value", "repetition", "absolute_error", "prior_error", "status"
    )
    rows = _select(table, sweep=sweep)
    scms = list(rows.scm.unique())
    figure = _figure(max(4.0, 0.7 + 2.3 * len(scms)), 3.3, "mean ± s.e. over repetitions")
    axes = figure.subplots(
        2, len(scms), sharex=True, sharey="row", squeeze=False, height_ratios=[4, 1]
    )
    colour, marker = VARIANTS["estimated"][1:]
    for k, (scm, (error, strip)) in enumerate(zip(scms, axes.T, strict=True)):
        here = rows[rows.scm == scm]
        repetitions = here[here.status == "ok"].groupby(["value", "repetition"]).absolute_error
        stats = repetitions.mean().groupby("value").agg(["mean", "sem"])
        values = np.sort(here.value.unique())
        stats = stats.reindex(values)  # a gap where nobody has a posterior
        low, high = stats["mean"] - stats["sem"], stats["mean"] + stats["sem"]
        error.fill_between(values, low, high, color=colour, alpha=0.2, linewidth=0)
        error.plot(values, stats["mean"], color=colour, marker=marker, label="posterior mean")
        prior = here.groupby("value").prior_error.mean()
        error.plot(prior.index, prior, color="0.5", linestyle="--", label="prior mean")
        failed = (here.groupby(["value", "repetition"]).status.first() != "ok").groupby("value")
        step = np.diff(values).min() if len(values) > 1 else 1.0
        strip.bar(values, failed.mean(), 0.6 * step, color="0.6")
        strip.set_xlabel(SWEEPS.get(sweep, sweep))
        _letter(error, k, scm)
    error.xaxis.set_major_locator(MaxNLocator(6, integer=sweep == "num_queries"))
    axes[0, 0].set_ylabel("absolute error of a coefficient")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("without\nposterior")
    axes[1, 0].set_ylim(0, 1)
    axes[1, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(handles=error.get_legend_handles_labels()[0], loc="outside lower center", ncols=2)
    return figure


def _paths(group, user: int, num_walkers: int) -> np.ndarray:
    """One user's draws, shape (steps, chains * num_walkers, num_coefficients)."""
    theta = group["theta"].transpose("chain", "draw", "user", "coefficient").to_numpy()[:, :, user]
    chains, _, k = theta.shape
    theta = theta.reshape(chains, -1, num_walkers, k).swapaxes(0, 1)
    return theta.reshape(-1, chains * num_walkers, k)


def _panels(figure, count: int, xlabel: str, ylabel: str, **shared) -> np.ndarray:
    """``count`` panels in columns of at most five, labelled at the left and at the foot."""
    columns = -(-count // 5)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared)
    for ax in grid[:, 0]:
        ax.set_ylabel(ylabel)
    axes = grid.ravel()
    for ax in axes[count:]:
        ax.remove()
    for ax in axes[count - columns : count]:
        ax.set_xlabel(xlabel)
        ax.tick_params(labelbottom=True)
    return axes[:count]


def _walkers(figure, names, paths: np.ndarray, num_warmup: int, known) -> None:
    """Each coefficient along every walker, and its true value where that is ``known``."""
    true, colour = VARIANTS["ground_truth"][1], VARIANTS["estimated"][1]
    axes = _panels(figure, len(names), "step", "coefficient", sharex=True, sharey=True)
    for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
        if num_warmup:
            ax.axvspan(0, num_warmup + 0.5, color="0.92", linewidth=0)
            ax.axvline(num_warmup + 0.5, color="0.5", linewidth=0.7)
        steps = np.arange(1, len(paths) + 1)
        ax.plot(steps, paths[:, :, k], color=colour, linewidth=0.4, alpha=0.4)
        if known is not None:
            ax.axhline(known[k], color=true, linewidth=1.2, linestyle="--")
        ax.set_title(str(name).replace("<-", "←"), loc="left")
        ax.set_xlim(0, len(paths))
    handles: list[Artist] = [Line2D([], [], color=colour, linewidth=0.8, label="walker")]
    if num_warmup:
        handles.append(Patch(color="0.92", label="warm-up"))
    if known is not None:
        handles.append(Line2D([], [], color=true, linestyle="--", label="true coefficient"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _distributions(figure, truth: SCM, estimate: SCM) -> None:
    """Each node under both SCMs, sampled with the same noise key."""
    (label, colour, _), (label_estimate, colour_estimate, _) = (
        VARIANTS[name] for name in ("ground_truth", "estimated")
    )
    key, nodes = jax.random.key(0), truth.graph.nodes
    samples = [np.asarray(scm.sample(key, _NUM_SAMPLES)) for scm in (truth, estimate)]
    for j, ax in enumerate(_panels(figure, len(nodes), "value (natural units)", "density")):
        both = np.concatenate([sample[:, j] for sample in samples])
        bins = np.linspace(np.quantile(both, 0.001), np.quantile(both, 0.999), 61)
        ax.hist(samples[0][:, j], bins, density=True, color=(colour, 0.3))
        ax.hist(samples[1][:, j], bins, density=True, histtype="step", color=colour_estimate)
        ax.set_title(nodes[j], loc="left")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    handles = [
        Patch(color=(colour, 0.3), linewidth=0, label=label),
        Line2D([], [], color=colour_estimate, label=label_estimate),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


@matplotlib.rc_context(_STYLE)
def posterior(idata, truth: SCM) -> Figure:
    """Convergence of the walkers and the estimated distributions, for one user.

    The user is the first with a posterior. Left: each coefficient along every walker, with its
    true value if the true SCM is linear. Right: each node under the true SCM and under the
    posterior mean, sampled with the same noise key.

    Parameters
    ----------
    idata : arviz.InferenceData or xarray.DataTree
        From `Posteriors.to_arviz` or `read_netcdf`.
    truth : SCM
        One for all users, or with leading axis (num_users,).
    """
    theta = coefficients_of(idata)
    solved = np.flatnonzero(np.isfinite(theta).all((0, 1, 3)))
    if not len(solved):
        return _message(f"None of the {theta.shape[2]} users has a posterior.")
    user, nodes = int(solved[0]), truth.graph.nodes
    names = idata.posterior["coefficient"].to_numpy()
    if truth.batch_shape:
        truth = take(truth, user)
    estimate = take(posterior_scms(idata), user)
    walkers = int(idata.attrs["num_walkers"])
    paths, num_warmup = _paths(idata.posterior, user, walkers), 0
    if hasattr(idata, "warmup_posterior"):  # only zeus keeps it
        warmup = _paths(idata.warmup_posterior, user, walkers)
        paths, num_warmup = np.concatenate([warmup, paths]), len(warmup)
    known = truth.coefficients if truth.linear and len(truth.graph.edges) == len(names) else None

    columns = -(-len(names) // 5), -(-len(nodes) // 5)
    most = max(min(len(names), 5), min(len(nodes), 5))
    size = max(7.2, 2.8 * sum(columns)), 1.1 + 1.05 * most
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subfigures(
        1, 2, squeeze=False, width_ratios=[1.3 * columns[0], columns[1]]
    )[0]
    left.suptitle(f"user {idata.posterior['user'].to_numpy()[user]}, walkers", x=0.01, ha="left")
    _walkers(left, names, paths, num_warmup, known)
    right.suptitle("distribution of each node", x=0.01, ha="left")
    _distributions(right, truth, estimate)
    return figure


def _wilson(share: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of 95 % intervals of probabilities (Wilson 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * np.sqrt(share * (1 - share) / number + (z / (2 * number)) ** 2)
    half = half / (1 + z**2 / number)
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


@matplotlib.rc_context(_STYLE)
def reliability(stated, realised) -> Figure:
    """Whether what was stated to succeed with some probability did so as often.

    Points are means of at most ten bins with about as many plans each, error bars 95 % intervals of
    the share that succeeded (Wilson's). The title has the expected calibration error: how far
    points are from the diagonal, on average over plans.

    Parameters
    ----------
    stated : array
        Shape (n,): the probability stated with each plan, such as ``plan.p_valid``; NaN where
        there was no plan, which is left out.
    realised : array
        Shape (n,), boolean: whether it succeeded.

    Raises
    ------
    TypeError
        If ``stated`` are no numbers, or ``realised`` not boolean.
    ValueError
        If the shapes differ, or a probability is outside [0, 1].
    """
    stated = np.asarray(_checks.reported(stated, "stated", ("n",)), float)
    realised = np.asarray(_checks.array(realised, "realised", stated.shape, kind=bool))
    there = ~np.isnan(stated)
    stated, realised = stated[there], realised[there]
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError(
            f"Expected stated in [0, 1], or NaN; got {stated.min()} to {stated.max()}."
        )
    if not len(stated):
        return _message("No plan was stated to succeed with any probability.")
    bins = evaluation.reliability(stated, realised, _NUM_BINS)
    error = (bins.users * (bins.stated - bins.realised).abs()).sum() / len(stated)
    low, high = _wilson(bins.realised.to_numpy(), bins.users.to_numpy())
    figure = _figure(3.6, 3.4, f"{len(stated)} plans, expected calibration error {error:.3f}")
    ax = figure.subplots()
    least = max(0.0, min(low.min(), bins.stated.min()) - 0.03)
    ax.plot([least, 1], [least, 1], color="0.5", linestyle="--", linewidth=0.8)
    ax.errorbar(
        bins.stated,
        bins.realised,
        [bins.realised - low, high - bins.realised],
        color=_COLOURS[0],
        marker="o",
        elinewidth=0.7,
        capsize=1.5,
    )
    ax.set(xlim=(least, 1.01), ylim=(least, 1.01), aspect="equal")
    ax.set(xlabel="stated probability", ylabel="share that succeeded")
    return figure


@matplotlib.rc_context(_STYLE)
def cost_against_questions(table: pd.DataFrame) -> Figure:
    """What questions buy: validity and cost of the plans after them, by design.

    Left: the share of plans that are valid, with its standard error. Right: the mean cost with its
    standard error, and the median, dotted; who has no finite cost is left out.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per person, design and number of questions, with the columns design, questions,
        valid (boolean, or a share) and cost, such as in relation to the optimum.

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    ValueError
        If it lacks a column.
    """
    _columns(table, "design", "questions", "valid", "cost")
    if table.empty:
        return _message("There are no plans.")
    rows = table.assign(
        valid=table.valid.astype(float), cost=table.cost.where(np.isfinite(table.cost))
    )
    figure = _figure(7.2, 3.1, "mean ± s.e. over people")
    validity, cost = figure.subplots(1, 2, sharex=True)
    designs = list(rows.design.unique())
    for k, design in enumerate(designs):
        look = {"color": _COLOURS[k % 7], "marker": _MARKERS[k % 7]}
        of_design = rows[rows.design == design].groupby("questions")
        for ax, column in ((validity, "valid"), (cost, "cost")):
            stats = of_design[column].agg(["mean", "sem", "median"]).dropna(subset="mean")
            x = stats.index + 0.06 * (k - (len(designs) - 1) / 2)  # side by side
            ax.errorbar(
                *(x, stats["mean"], stats["sem"]),
                **look,
                elinewidth=0.7,
                capsize=1.5,
                label=f"{design}",
            )
            if column == "cost":
                ax.plot(x, stats["median"], color=look["color"], linestyle=":", linewidth=0.9)
    for k, ax in enumerate((validity, cost)):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("number of questions $T$")
        _letter(ax, k)
    validity.set(ylabel="validity (share of people)")
    validity.set_ylim(top=1.01)
    cost.set(ylabel="cost")
    handles: list[Artist] = [
        *validity.get_legend_handles_labels()[0],
        Line2D([], [], color="0.5", linestyle=":", label="median"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@matplotlib.rc_context(_STYLE)
def price_of_certainty(table: pd.DataFrame) -> Figure:
    """What it costs each person to be surer: cost and probability against the level asked for.

    Left: every person's cost, and the median of those who have a plan at that level. Right: the
    probability of success that was reached. A note says who has no plan, whose cost is not finite.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per person and level, with the columns user, level, cost and p_valid.

    Raises
    ------
    TypeError
        If ``table`` is not a table.
    ValueError
        If it lacks a column.
    """
    _columns(table, "user", "level", "cost", "p_valid")
    if table.empty:
        return _message("There are no plans.")
    rows = table.sort_values("level")
    served = np.isfinite(rows.cost)
    rows = rows.assign(cost=rows.cost.where(served), p_valid=rows.p_valid.where(served))
    figure = _figure(7.2, 3.1, f"{rows.user.nunique()} people")
    cost, reached = axes = figure.subplots(1, 2, sharex=True)
    for ax, column in ((cost, "cost"), (reached, "p_valid")):
        for _, own in rows.groupby("user"):
            ax.plot(own.level, own[column], color=_COLOURS[0], linewidth=0.6, alpha=0.4)
        median = rows.groupby("level")[column].median()
        ax.plot(median.index, median, color="#222222", marker="o", label="median")
        ax.set_xlabel("probability of success asked for")
    ends = [rows.level.min(), rows.level.max()]
    reached.plot(ends, ends, color="0.5", linestyle="--", linewidth=0.8, label="asked for")
    for k, ax in enumerate(axes):
        _letter(ax, k)
        ax.legend(loc="upper left")
    cost.set_ylabel("cost")
    cost.set_ylim(bottom=0)
    reached.set_ylabel("probability of success reached")
    lacking = (~served).groupby(rows.level).sum()
    if lacking.any():
        told = ", ".join(f"{number} at {level:g}" for level, number in lacking[lacking > 0].items())
        note = textwrap.fill(f"Without a plan: {told}.", 115)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


@jax.jit
def _responses(scms: SCM, x, shifts):
    """What ``x`` (d,) becomes under SCMs (draw,) and shifts (step, d); (draw, step, d)."""

    def one(scm):
        return jax.vmap(lambda shift: scm.counterfactual(x, Action.soft(shift)))(shifts)

    return jax.vmap(one)(scms)


@matplotlib.rc_context(_STYLE)
def counterfactual_band(posteriors: Posteriors, node, user: int = 0) -> Figure:
    """What would follow for one person if a node changed, as far as their answers tell.

    One panel for each descendant: the median over draws of the person's SCM, bands of 50 and 90 %,
    the present state, and what the person answered to such questions about themselves (where an
    interval was told, with its ends).

    Parameters
    ----------
    posteriors : Posteriors
    node : str
        One of the graph's nodes, with descendants. It is moved by up to two of the surrogate's
        scales, or as far as the person was asked.
    user : int

    Raises
    ------
    TypeError
        If ``posteriors`` are none.
    ValueError
        If there is no such node or user, or nothing follows from the node.
    """
    _checks.instance(posteriors, Posteriors, "posteriors", " See infer.")
    graph, history = posteriors.surrogate.graph, posteriors.history
    causes = [graph.nodes[j] for j in np.flatnonzero(graph.descendants.any(1))]
    if node not in causes:
        raise ValueError(
            f"Expected node to be one of {causes}, which have descendants; got {node!r}."
        )
    _checks.count(user, "user", minimum=0)
    if user >= history.num_users:
        raise ValueError(f"Expected user < {history.num_users}; got {user}.")
    if not np.isfinite(posteriors.draws[user]).all():
        return _message(f"User {user} has no posterior.")
    j = graph.nodes.index(node)
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[user], history)
    questions = own.questions
    asked = (questions.node == j) & questions.individual
    shift, answer = questions.shift[asked], own.answer[asked]
    half = np.zeros_like(answer) if own.half_width is None else own.half_width[asked]
    scale = getattr(posteriors.surrogate, "scale", None)
    unit = 1.0 if scale is None else np.broadcast_to(scale, history.x.shape)[user, j]
    far = max(2 * unit, np.abs(shift).max(initial=0.0))
    steps = np.linspace(-far, far, 41)
    draws = min(_NUM_DRAWS, posteriors.flat.shape[1])
    moves = steps[:, None] * (np.arange(graph.num_nodes) == j)
    scms = take(posteriors.scms(draws), user)
    after = np.asarray(_responses(scms, jnp.asarray(own.x), jnp.asarray(moves)))
    low, quarter, middle, three_quarters, high = np.quantile(
        after, [0.05, 0.25, 0.5, 0.75, 0.95], 0
    )

    effects = np.flatnonzero(graph.descendants[j])
    columns, rows = -(-len(effects) // 5), min(len(effects), 5)
    figure = _figure(max(4.0, 2.9 * columns), 1.0 + 1.7 * rows, f"user {user}")
    at = own.x[j] + steps
    axes = _panels(figure, len(effects), f"{node} (natural units)", "natural units", sharex=True)
    for ax, k in zip(axes, effects, strict=True):
        for *ends, alpha, label in (
            (low, high, 0.15, "90 %"),
            (quarter, three_quarters, 0.35, "50 %"),
        ):
            bounds = [end[:, k] for end in ends]
            ax.fill_between(at, *bounds, color=_COLOURS[0], alpha=alpha, linewidth=0, label=label)
        ax.plot(at, middle[:, k], color=_COLOURS[0], label="median")
        ax.plot(own.x[j], own.x[k], color="#222222", marker="o", linestyle="", label="now")
        said = ~np.isnan(answer[:, k])
        ax.errorbar(
            *(own.x[j] + shift[said], answer[said, k], half[said, k]),
            color=_COLOURS[1],
            marker="x",
            linestyle="",
            elinewidth=0.8,
            label="answers",
        )
        ax.set_title(f"{graph.nodes[k]}", loc="left")
    handles = axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


@matplotlib.rc_context(_STYLE)
def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write ``path.png`` (150 dpi) and ``path.pdf`` in one step, the same bytes every time."""
    options: dict[str, Any] = {"png": {"dpi": 150}, "pdf": {"metadata": {"CreationDate": None}}}
    for kind, option in options.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, **option)
        write(f"{os.fspath(path)}.{kind}", drawn.getvalue())
