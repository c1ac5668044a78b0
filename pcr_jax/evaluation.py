"""What recourse is worth: its outcome under the true SCM.

The definitions are those of the experiments, the same for every variant that is compared:
validity, robust validity, cost, regret, intervention patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action, set_name
from pcr_jax.recourse.find import find_recourse
from pcr_jax.recourse.plan import Plan
from pcr_jax.recourse.problem import Problem, has_model, worlds_of
from pcr_jax.recourse.verify import outcomes
from pcr_jax.scm import SCM
from pcr_jax.scores import raises_as_itself, refuse_probabilities


def _mean_over(values: ArrayLike, users: ArrayLike) -> float:
    """Mean over the users where ``users`` is True; NaN if there are none."""
    chosen = np.asarray(values)[np.asarray(users)]
    return float(chosen.mean()) if chosen.size else float("nan")


@pytree()
class Report:
    """Outcome of a `Plan` under the true SCM, per user and in the mean.

    Attributes
    ----------
    valid, robust_valid : Array
        Shape (num_users,), boolean; False where no action was found.
    cost : Array
        Shape (num_users,): the plan's; infinite where no action was found.
    optimum : Array, optional
        Shape (num_users,): cost of the cheapest action under the true SCM; infinite where none
        was found.
    p_valid : Array, optional
        Shape (num_users,): the plan's, what it stated; NaN where it stated nothing.
    """

    valid: Array
    robust_valid: Array
    cost: Array
    optimum: Array | None = None
    p_valid: Array | None = None

    @property
    def validity(self) -> float:
        """Share of all users whose action is valid under the true SCM."""
        return float(np.mean(self.valid))

    @property
    def robust_validity(self) -> float:
        """Share of all users whose action is valid for every perturbation found in the ball."""
        return float(np.mean(self.robust_valid))

    @property
    def cost_mean(self) -> float:
        """Mean cost over the users whose action is valid; NaN if there are none."""
        return _mean_over(self.cost, self.valid)

    def cost_mean_common(self, others: Sequence[Report]) -> float:
        """Mean cost over the users whose action is valid here and in all ``others``."""
        _checks.instance(others, list | tuple, "others")
        for other in others:
            _same_users(self, other, "each of others")
        users = np.all([self.valid, *(other.valid for other in others)], axis=0)
        return _mean_over(self.cost, users)

    def regret_mean(self, reference: Report) -> float:
        """Mean of cost minus the reference's, over users valid in both (Definition 1)."""
        _same_users(self, reference, "reference")
        users = np.asarray(self.valid & reference.valid)
        gap = np.subtract(self.cost, reference.cost, where=users, out=np.zeros(len(users)))
        return _mean_over(gap, users)

    @property
    def regret_to_optimum_mean(self) -> float:
        """Mean of cost minus `optimum`, over valid users for whom an optimum is known.

        NaN if there are none, and without `optimum`.
        """
        if self.optimum is None:
            return float("nan")
        users = np.asarray(self.valid & jnp.isfinite(self.optimum))
        gap = np.subtract(self.cost, self.optimum, where=users, out=np.zeros(len(users)))
        return _mean_over(gap, users)

    def reliability(self, num_bins: int = 10) -> pd.DataFrame:
        """What the plan stated against what came of it; see `reliability`."""
        if self.p_valid is None:
            raise ValueError("Expected a report of a plan with p_valid; got none.")
        there = ~np.isnan(self.p_valid)
        return reliability(
            np.asarray(self.p_valid)[there], np.asarray(self.robust_valid)[there], num_bins
        )

    def __str__(self):
        said = (
            f"{len(self.valid)} users: validity {self.validity:.3f}, "
            f"robust validity {self.robust_validity:.3f}, cost {self.cost_mean:.3f}"
        )
        if self.optimum is None:
            return said
        return f"{said}, regret to the optimum {self.regret_to_optimum_mean:.3f}"


def _same_users(report, other, name):
    """Raise unless ``other`` is a report of as many users."""
    _checks.instance(other, Report, name)
    if np.shape(other.valid) != np.shape(report.valid):
        raise ValueError(
            f"Expected {name} to be of the same {len(report.valid)} users; got {len(other.valid)}."
        )


def reliability(stated: ArrayLike, realised: ArrayLike, num_bins: int = 10) -> pd.DataFrame:
    """Probabilities that were stated against how often it came so.

    The mean of ``abs(stated - realised)``, weighted by ``users``, is the expected calibration error
    (Naeini, Cooper & Hauskrecht 2015); of few users it is more than 0 by chance alone, about
    ``error`` in each bin.

    Parameters
    ----------
    stated : array
        Shape (num_users,), in [0, 1].
    realised : array
        Shape (num_users,), boolean.
    num_bins : int
        Of about as many users each, by what was stated; equal ones share a bin.

    Returns
    -------
    pandas.DataFrame
        One row per bin: the mean ``stated``, the share ``realised``, its standard ``error`` if what
        was stated is right, and the number of ``users``.

    Raises
    ------
    TypeError
        If ``realised`` is not boolean.
    ValueError
        If the shapes differ, a probability is out of [0, 1], or there is no user.
    """
    _checks.unnamed(stated, "stated")
    stated = np.asarray(_checks.probability(stated, "stated", ("num_users",)), float)
    realised = np.asarray(_checks.array(realised, "realised", ("num_users",), kind=bool))
    if realised.shape != stated.shape:
        raise ValueError(
            f"Expected realised of as many users as stated; got {len(realised)} and {len(stated)}."
        )
    _checks.count(num_bins, "num_bins")
    if not len(stated):
        raise ValueError("Expected at least one user in stated; got none.")
    ends = np.unique(np.quantile(stated, np.linspace(0, 1, num_bins + 1)))
    bins = np.clip(np.searchsorted(ends, stated, side="right"), 1, max(1, len(ends) - 1))
    table = pd.DataFrame({"stated": stated, "realised": realised})
    table["variance"] = stated * (1 - stated)
    groups = table.groupby(bins)
    found = groups[["stated", "realised"]].mean()
    found["users"] = groups.size()
    found["error"] = np.sqrt(groups["variance"].mean() / found["users"])
    return found.reset_index(drop=True)


def optimum_cost(
    score: Callable[[Array], Array], truth: SCM, x: Array, *, scale: Array, **settings
) -> Array:
    """Cost of the cheapest action under the true SCM, shape (num_users,); see `Report.optimum`.

    Parameters
    ----------
    score, truth, x, scale, **settings
        See `pcr_jax.find_recourse`.
    """
    plan = find_recourse(score, truth, x, scale=scale, **settings)
    return jnp.where(plan.robust_valid, plan.cost, jnp.inf)


@raises_as_itself
def evaluate(
    plan: Plan,
    truth: SCM,
    *,
    problem: Problem | None = None,
    optimum: Array | None = None,
    key: Array | None = None,
) -> Report:
    """Apply the plan's actions under the true SCM.

    Parameters
    ----------
    plan : Plan
        From `find_recourse`, under whichever SCM.
    truth : SCM
        One for all users, or with leading axis (num_users,).
    problem : Problem, optional
        Another than the plan was made for: other users, score or requirement, in the same number
        and features. From `pcr_jax.recourse.pose`, or `dataclasses.replace` of the plan's own.
    optimum : Array, optional
        Shape (num_users,), from `optimum_cost` with the settings of the plan. Without it there is
        no regret.
    key : Array, optional
        Of the perturbations that are tried; the same ones by default.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If an argument is of another type, or is being traced.
    ValueError
        If shapes or names disagree, a value is not finite, or the score looks like a probability.
    """
    _checks.untraced("evaluate", plan, truth, problem, optimum)
    _checks.instance(plan, Plan, "plan", " See pcr_jax.find_recourse.")
    problem = plan.problem if problem is None else problem
    _checks.instance(problem, Problem, "problem", " See pcr_jax.recourse.pose.")
    if plan.action.value.shape != problem.x.shape:
        raise ValueError(
            f"Expected a problem of x of shape {plan.action.value.shape}, for the users of the "
            f"plan; got {problem.x.shape}."
        )
    if optimum is not None:
        rows = None if problem.index is None else pd.Index(problem.index)
        optimum = _checks.array(optimum, "optimum", (len(problem.x),), rows=rows)
        if bool(jnp.isnan(optimum).any()):
            raise ValueError("Expected optimum to be costs, infinite where there is none; got NaN.")
    problem = replace(problem, requirement=problem.requirement.in_one_world)
    truths = worlds_of(problem, truth, "truth")
    if not bool(has_model(truths).all()):
        raise ValueError("Expected truth with finite coefficients; got NaN or infinite ones.")
    key = jax.random.key(1) if key is None else key
    _checks.key(key)
    score, x, scale = problem.score, problem.x, problem.scale
    _, logit = outcomes(score, truths, x, plan.action)
    everybody = np.ones(len(x), bool)
    fresh = problem.requirement.verify(key, score, truths, x, plan.action, scale, logit, everybody)
    refuse_probabilities(score, x, scale, logit)
    acted = jnp.isfinite(plan.cost)
    cost = jnp.where(acted, plan.cost, jnp.inf)
    robust_valid = acted & (fresh.logit >= 0)
    return Report(acted & (logit >= 0), robust_valid, cost, optimum, plan.p_valid)


def intervention_pattern(
    action: Action, nodes: Sequence[str], users: ArrayLike
) -> dict[str, float]:
    """How often each set of nodes is intervened on (Fig. 4 and 5 of the paper).

    Parameters
    ----------
    action : Action
        Of shape (num_users, d).
    nodes : sequence of str
        Names of the nodes.
    users : Array
        Shape (num_users,), boolean: whom to count.

    Returns
    -------
    dict
        Share of the counted users by set name such as ``"X1+X3"``, sorted by name.

    Raises
    ------
    TypeError
        If ``users`` is not boolean, or an argument is of another type.
    ValueError
        If shapes disagree.
    """
    _checks.instance(action, Action, "action")
    nodes = _checks.names(nodes, "nodes")
    intervened = np.asarray(action.intervened)
    if intervened.shape[1:] != (len(nodes),):
        raise ValueError(
            f"Expected an action of shape (num_users, {len(nodes)}), as many as nodes; "
            f"got {intervened.shape}."
        )
    chosen = intervened[np.asarray(_checks.array(users, "users", intervened.shape[:1], kind=bool))]
    sets, counts = np.unique(chosen, axis=0, return_counts=True)
    shares = {set_name(s, nodes): float(c) for s, c in zip(sets, counts / len(chosen), strict=True)}
    return dict(sorted(shares.items()))
