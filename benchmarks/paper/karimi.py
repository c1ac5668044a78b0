"""Karimi et al.'s table: recourse from 250 people's rows, beside theirs.

Karimi et al. (2020), "Algorithmic recourse under imperfect causal knowledge": 100 people, hard
interventions, cost the L2 norm of an action in units of the features' ranges, times 100. Of the
loan G, A and D cannot be intervened on. ``fit`` says what is known: the true SCM; lines fitted to
the rows; splines, with a chance constraint over what the rows leave open; the same and ten
questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import pcr_jax as pcr
from pcr_jax._pytree import pytree
from pcr_jax.recourse import Optimal

ROWS, TRAINED_ON = 250, 10_000
LEVEL, DRAWS, QUESTIONS = 0.99, 600, 10
TREES, DEPTH = 50, 6
CASES = {
    "lin": ("logistic",),
    "anm": ("logistic",),
    "gen": ("logistic",),
    "loan": ("logistic", "mlp", "forest"),
}
# Validity in % and cost: of the truth, a linear fit, and Gaussian processes, probabilistic.
PUBLISHED = {
    ("lin", "logistic"): ((100, 10.9), (100, 11.0), (100, 12.2)),
    ("anm", "logistic"): ((100, 20.1), (54, 20.6), (100, 21.9)),
    ("gen", "logistic"): ((100, 13.2), (98, 14.0), (95, 13.4)),
    ("loan", "logistic"): ((100, 15.8), (19, 15.4), (100, 18.0)),
    ("loan", "mlp"): ((100, 11.0), (80, 11.0), (100, 11.7)),
    ("loan", "forest"): ((100, 15.2), (94, 15.6), (100, 16.3)),
}
FITS = ["truth", "linear", "splines", "splines, asked"]
SOLVER = Optimal(max_cost=4.0, first_level=0.02)


@pytree()
class Forest:
    """A fitted random forest as a JAX function: the mean of the leaves' shares, less a half."""

    feature: Array  # (trees, nodes), -1 in leaves
    threshold: Array
    children: Array  # (trees, nodes, 2)
    share: Array

    differentiable = False

    def __call__(self, x):
        """The score () of features (d,)."""

        def of_tree(feature, threshold, children, share):
            def step(_, node):
                goes_right = (x[feature[node]] > threshold[node]).astype(int)
                return jnp.where(feature[node] < 0, node, children[node, goes_right])

            return share[jax.lax.fori_loop(0, DEPTH, step, 0)]

        each = jax.vmap(of_tree)(self.feature, self.threshold, self.children, self.share)
        return each.mean() - 0.5


def forest(x, y) -> Forest:
    """A random forest."""
    model = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=0).fit(x, y)
    trees = [tree.tree_ for tree in model.estimators_]
    most = max(tree.node_count for tree in trees)

    def padded(arrays, dtype):
        rows = [np.pad(a, [(0, most - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays]
        return jnp.asarray(np.stack(rows), dtype)

    children = [np.stack([t.children_left, t.children_right], -1) for t in trees]
    shares = [t.value[:, 0, 1] / t.value[:, 0].sum(1) for t in trees]
    feature = padded([t.feature for t in trees], int)
    return Forest(
        feature,
        padded([t.threshold for t in trees], float),
        padded(children, int),
        padded(shares, float),
    )


def plane(slope, intercept, x):
    """A linear score."""
    return x @ slope + intercept


def trained(key, model: str, x, y):
    """A score of that kind."""
    if model == "mlp":
        return pcr.train_mlp(key, x, y)
    if model == "forest":
        return forest(np.asarray(x), np.asarray(y))
    unit = x.std(0)
    fitted = LogisticRegression(C=1e4, max_iter=1000).fit(np.asarray(x / unit), np.asarray(y))
    slope = jnp.asarray(fitted.coef_[0], float) / unit
    return jax.tree_util.Partial(plane, slope, jnp.asarray(fitted.intercept_[0], float))


class Setting:
    """Truth, score, refused people, and rows of others."""

    def __init__(self, scm: str, model: str, num_people: int, seed: int):
        key = jax.random.fold_in(jax.random.key(20), seed)
        k_train, k_label, k_fit, k_rows, k_people, self.key = jax.random.split(key, 6)
        self.truth = pcr.library.get(scm)
        train = self.truth.sample(k_train, TRAINED_ON)
        if scm == "loan":
            shares = jax.nn.sigmoid(pcr.library.loan_logit(train))
            labels = jax.random.bernoulli(k_label, shares).astype(float)
        else:
            labels = pcr.sample_labels(k_label, train, rho="mean_abs")
        self.score = trained(k_fit, model, train, labels)
        self.rows = self.truth.sample(k_rows, ROWS)
        self.scale = self.rows.max(0) - self.rows.min(0)
        people = self.truth.sample(k_people, 40 * num_people)
        logits = jax.jit(jax.vmap(self.score))(people)
        self.x = people[np.flatnonzero(np.asarray(logits) < 0)[:num_people]]
        assert len(self.x) == num_people
        free = np.array([node not in "GAD" for node in self.truth.graph.nodes])
        self.limits = pcr.Constraints(actionable=free)

    def plan(self, worlds, **settings):
        """Hard interventions, L2 cost."""
        settings = {"cost": "l2", "intervention": "hard", "solver": SOLVER} | settings
        settings |= {"constraints": self.limits, "scale": self.scale}
        return pcr.find_recourse(self.score, worlds, self.x, **settings)

    def asked(self, fitted) -> pcr.SCM:
        """Worlds after questions, from what the rows teach."""
        k_ask, k_infer = jax.random.split(jax.random.fold_in(self.key, 1))
        unit, centre = np.asarray(self.rows.std(0)), np.asarray(self.rows.mean(0))
        surrogate = pcr.basis_surrogate(self.truth.graph, scale=unit, centre=centre)
        surrogate = fitted.learned_prior(surrogate, deviation=0.05)
        user = pcr.SimulatedUser(self.truth, error_rate=0.1, noise=0.05 * unit)
        history = pcr.elicit(k_ask, user, self.x, num_queries=QUESTIONS, surrogate=surrogate)
        return pcr.infer(k_infer, surrogate, history, pcr.mixture()).scms(draws=DRAWS)


def rows_of(scm: str, model: str, num_people: int, seed: int, fits) -> Iterator[dict]:
    """A row for each of what is known."""
    setting = Setting(scm, model, num_people, seed)
    fitted = pcr.fit_scm(np.asarray(setting.rows), setting.truth.graph)
    lines = partial(pcr.fit_scm, np.asarray(setting.rows), setting.truth.graph, linear=True)
    made = {
        "truth": lambda: setting.plan(setting.truth),
        "linear": lambda: setting.plan(lines().scm),
        "splines": lambda: setting.plan(fitted.scms(setting.key, num_people, DRAWS), level=LEVEL),
        "splines, asked": lambda: setting.plan(setting.asked(fitted), level=LEVEL),
    }
    truths, of_lines, gaussian = PUBLISHED[scm, model]
    theirs = dict(zip(FITS, (truths, of_lines, gaussian, gaussian), strict=True))
    best = None
    for fit in fits:
        plan = made[fit]()
        report = pcr.evaluate(plan, setting.truth)
        cost, valid = 100 * np.asarray(plan.cost, float), np.asarray(report.valid)
        acted = np.isfinite(cost)
        best = cost if fit == "truth" else best
        row = {"scm": scm, "model": model, "seed": seed, "fit": fit, "people": num_people}
        row |= {"validity": float(valid.mean()), "cost": float(cost[acted].mean())}
        if best is not None:
            both = acted & np.isfinite(best)
            row["cost_by_truths"] = float(cost[both].mean() / best[both].mean())
        if fit.startswith("splines"):
            row["stated"] = float(np.nanmean(plan.p_valid))
        row |= {"acted": float(acted.mean()), "their_validity": theirs[fit][0] / 100}
        row["their_cost"] = theirs[fit][1]
        yield row


def measure(options):
    """Case by case."""
    num = 6 if options.quick else options.people
    for scm, models in CASES.items():
        for model in models:
            if f"{scm}-{model}" in options.case:
                for seed in range(options.seeds):
                    for row in rows_of(scm, model, num, seed, options.fit):
                        yield "table", [row]


NAMES = [f"{scm}-{model}" for scm, models in CASES.items() for model in models]
OPTIONS = {
    "--people": {"type": int, "default": 100, "help": "of each repetition"},
    "--seeds": {"type": int, "default": 1, "help": "repetitions"},
    "--case": {"nargs": "+", "default": NAMES, "choices": NAMES},
    "--fit": {"nargs": "+", "default": FITS, "choices": FITS, "help": "what is known"},
}
