"""The path from a problem to a plan: search, write, verify, search on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action, Constraints
from pcr_jax.batching import chunks_of, map_users, take
from pcr_jax.recourse.algorithm1 import Algorithm1
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal import Optimal
from pcr_jax.recourse.plan import Plan, PlanStatus
from pcr_jax.recourse.problem import Problem, has_model, per_user, pose, worlds_of
from pcr_jax.recourse.requirements import Verified
from pcr_jax.recourse.rounding import written
from pcr_jax.recourse.search import Found, Solver
from pcr_jax.recourse.verify import outcomes
from pcr_jax.scm import SCM
from pcr_jax.scores import on_host, raises_as_itself, refuse_probabilities, shown

SOLVERS: dict[str, Callable[[], Solver]] = {"optimal": Optimal, "paper": Algorithm1}
"""The solvers that have a name."""

# How often an action that a perturbation breaks when it is verified is sought anew, and one more.
_ATTEMPTS = 12
# Users who are planned for before progress is told, and of a model on the host.
_GROUP, _HOST_GROUP = 4096, 16
# Users whose actions are judged at once under many draws.
_OVER_DRAWS = 32


@raises_as_itself
def find_recourse(
    score: Callable[[Array], Array],
    worlds: SCM,
    x: Array,
    *,
    scale: Array,
    epsilon: float = 0.0,
    norm: str = "l2",
    level: float | None = None,
    cost: str = "l1",
    weights: Array | None = None,
    constraints: Constraints | None = None,
    intervention: str = "soft",
    max_set_size: int | None = None,
    solver: str | Solver = "optimal",
    learning_rate: float | Array | None = None,
    digits: int | None = 3,
    key: Array | None = None,
    on_user: Callable[[], None] | None = None,
) -> Plan:
    """Recommend every user the cheapest intervention after which the score is favourable.

    Solves Eq. 1 (``epsilon=0``) or Eq. 2 of the paper, all users in compiled programs with work on
    the host between them: it is not to be called inside `jax.jit`, `jax.vmap` or `jax.grad`.

    Parameters
    ----------
    score : callable
        x (d,), natural units -> logit (); at or above 0 is the favourable decision. For models
        that are not JAX functions see `pcr_jax.outside_model`. Features come in the order of
        ``scm.graph.nodes``; a score with ``names`` has to have these. It is compiled once, with
        all that it refers to: pass a new one when that has changed.
    worlds : SCM
        One for all users, or with leading axis (num_users,), as from `Posteriors.scms`; or, with
        a ``level``, several draws for each user, leading axes (num_users, draws): 200 at least,
        of which 100 are searched, and the more the better judged. Without a level the mean of
        their coefficients is taken.
    x : Array or DataFrame
        Shape (num_users, d), natural units. Tables, and Series of ``scale`` and ``weights``, are
        put into the order of ``scm.graph.nodes``.
    scale : Array
        Shape (d,), natural units: the unit in which cost and epsilon are counted, by default
        in the experiments one population standard deviation.
    epsilon : float
        Radius of the ball of perturbations to withstand, in units of ``scale``.
    norm : {"l2", "linf"}
        Of that ball.
    level : float, optional
        The action is to be favourable with this probability over the draws of the user's SCM; with
        an ``epsilon``, for all perturbations at once. See `pcr_jax.recourse.Chance`.
    cost : {"l1", "l2"}
        The norm of an action in units of ``scale`` that is to be small.
    weights : Array, optional
        Shape (d,) or (num_users, d), positive: what a move of one unit costs; 1 by default.
    constraints : Constraints, optional
    intervention : {"soft", "hard"}
        Whether an action shifts features, or sets them and cuts their causes.
    max_set_size : int, optional
        The largest number of features to intervene on.
    solver : str or Solver
        ``"optimal"``: the cheapest valid action to a tolerance, with or without gradients, see
        `pcr_jax.recourse.optimal`. ``"paper"``: Algorithm 1 of Dominguez-Olmedo et al. (2022),
        for soft interventions, L1 cost without weights and the L2 ball. Or one with settings,
        or of your own (`pcr_jax.recourse.Solver`).
    learning_rate : float or Array, optional
        Of Algorithm 1, in units of ``scale``; shape () or (num_users,); 0.5 by default.
    digits : int, optional
        Actions are given in so many digits of ``scale``, or more where that saves more than 0.2 %
        of the cost, and are verified as they are written. None: as the search ended.
    key : Array, optional
        Of the perturbations with which robust plans are verified; the same ones by default.
    on_user : callable, optional
        Called once for each user who is done, for progress bars; users are then taken in groups.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If shapes or names disagree, a value is not finite, the score is NaN for a user or looks
        like a probability (see `pcr_jax.scores.refuse_probabilities`), ``scale`` or
        ``weights`` or ``learning_rate`` is not positive, ``epsilon < 0``, not ``0 < level < 1``,
        there is a level and not enough draws, a bound excludes a present value, no node is
        actionable, an option is unknown, or the solver lacks it.
    TypeError
        If ``score`` is not callable, an argument is of another type, or one is being traced.
    """
    arguments = (score, worlds, x, scale, epsilon, weights, constraints, learning_rate)
    _checks.untraced("find_recourse", *arguments)
    _checks.instance(worlds, SCM, "worlds", " See pcr_jax.linear_scm and posterior_scms.")
    problem = pose(
        score,
        worlds.graph,
        x,
        scale=scale,
        epsilon=epsilon,
        norm=norm,
        level=level,
        cost=cost,
        weights=weights,
        constraints=constraints,
        intervention=intervention,
        max_set_size=max_set_size,
        learning_rate=learning_rate,
        digits=digits,
    )
    return recommend(problem, worlds, solver=solver, key=key, on_user=on_user)


def recommend(
    problem: Problem,
    worlds: SCM,
    *,
    solver: str | Solver = "optimal",
    key: Array | None = None,
    on_user: Callable[[], None] | None = None,
) -> Plan:
    """`find_recourse` for a problem that was posed before.

    Parameters
    ----------
    problem : Problem
    worlds, solver, key, on_user
        See `find_recourse`.

    Returns
    -------
    Plan
    """
    if isinstance(solver, str):
        _checks.choice(solver, SOLVERS, "solver")
        solver = SOLVERS[solver]()
    _checks.capable(solver, Solver, "solver", "Optimal()")
    if on_user is not None:
        _checks.function(on_user, "on_user", "() -> None")
    key = jax.random.key(0) if key is None else key
    _checks.key(key)
    worlds = worlds_of(problem, worlds, "worlds")
    modelled = has_model(worlds)
    worlds = _finite(worlds)
    _check_score(problem, worlds)
    solver.check(problem)
    if on_user is None:
        return _plan(key, solver, problem, worlds, modelled)
    parts, size = [], _HOST_GROUP if on_host(problem.score) else _GROUP
    for group, _ in chunks_of(np.arange(len(problem.x)), size):
        some = take((problem, worlds, modelled), group)
        parts.append(jax.block_until_ready(_plan(key, solver, *some)))
        for _ in group:
            on_user()
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@jax.jit
def _finite(worlds: SCM) -> SCM:
    """With 0 in place of what is not a number."""
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), worlds)


def _check_score(problem: Problem, worlds: SCM) -> None:
    """Raise if it looks like a probability, or is NaN for a user."""
    nothing = Action.soft(jnp.asarray(np.zeros(problem.x.shape, problem.x.dtype)))
    some = per_user(worlds, len(problem.x))
    _, before = outcomes(problem.score, some, problem.x, nothing)
    refuse_probabilities(problem.score, problem.x, problem.scale, before)
    undefined = int(np.isnan(before).sum())
    if undefined:
        raise ValueError(
            f"Expected score to be a number at every user's features; got NaN for {undefined} of "
            f"{len(before)} users from {shown(problem.score)}."
        )


class _Judged(NamedTuple):
    """What was found, as it is written down and judged; users first."""

    action: Action
    decimals: np.ndarray  # (n, d)
    after: Array  # (n, d)
    logit: Array  # (n,) if all goes as expected
    fresh: Verified


def _plan(key: Array, solver: Solver, problem: Problem, worlds: SCM, modelled: Array) -> Plan:
    """Search, write down, verify; search on for those whom the verification breaks."""
    found, judged = _tried(key, solver, problem, worlds, np.asarray(modelled))
    if problem.requirement.easier:
        lacking = np.asarray(modelled & ~judged.action.intervened.any(1) & (judged.logit < 0))
        judged = _easier(key, solver, problem, worlds, judged, lacking)
    return Plan(
        **_concluded(problem.price(), problem.x, found._replace(state=None), judged, modelled),
        num_evaluations=found.evaluations,
        num_perturbations=jnp.asarray(judged.fresh.num_scenarios),
        decimals=jnp.asarray(judged.decimals),
        problem=problem,
        worlds=worlds,
    )


@jax.jit
def _concluded(cost: Cost, x: Array, found: Found, judged: _Judged, modelled: Array) -> dict:
    """What a plan says of every user."""
    valid = (judged.logit >= 0) & modelled
    fresh, acts = judged.fresh, judged.action.intervened.any(1)
    given = valid | (modelled & acts & (fresh.share > 0))  # no share without draws
    action = Action(
        jnp.where(given[:, None], judged.action.value, 0.0), judged.action.hard & given[:, None]
    )
    acts = action.intervened.any(1)
    robust_valid = valid & (fresh.logit >= 0)
    price = map_users(lambda cost, action, x: cost(action, x), cost, action, x)
    return {
        "action": action,
        "x_counterfactual": jnp.where(acts[:, None], judged.after, x),
        "cost": jnp.where(given, price, jnp.inf),
        "valid": valid,
        "robust_valid": robust_valid,
        "certified": robust_valid & fresh.certified,
        "p_valid": jnp.where(given, fresh.share, jnp.nan),
        "status": _status(found, modelled, valid, robust_valid, acts),
    }


def _tried(
    key: Array, solver: Solver, problem: Problem, worlds: SCM, modelled: np.ndarray
) -> tuple[Found, _Judged]:
    """The last of the attempts."""
    searched, judging = problem.requirement.split(worlds)
    found = solver.search(problem, searched)
    over_draws = problem.requirement.over_draws
    judge = _judged_in_groups if over_draws else _judged
    pending, judged = modelled, None
    for attempt in range(_ATTEMPTS):
        k_verify = jax.random.fold_in(key, attempt)
        now = judge(k_verify, problem, searched, judging, found, pending)
        judged = now if judged is None else _where(pending, now, judged)
        broken = (np.asarray(judged.fresh.logit) < 0) & (np.asarray(judged.logit >= 0) | over_draws)
        pending = pending & np.asarray(found.going_on) & broken
        if not pending.any() or attempt == _ATTEMPTS - 1:
            break
        found = solver.go_on(problem, searched, found, pending, judged.fresh.scenario)
    assert judged is not None
    return found, judged


@jax.jit
def _where(users, new, old):
    """The rows of either, in the host's or the device's memory."""

    def choose(new, old):
        return jnp.where(users.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old)

    return jax.tree.map(choose, new, old)


def _judged(key, problem, searched, judging, found, pending) -> _Judged:
    """Write down all that was found; verify that of those who are pending."""
    requirement = problem.requirement
    action, decimals = written(problem, searched, found)
    after, logit = outcomes(problem.score, judging, problem.x, action, requirement)
    fresh = requirement.verify(
        *(key, problem.score, judging, problem.x, action, problem.scale, logit, pending)
    )
    return _Judged(action, decimals, after, logit, fresh)


def _judged_in_groups(key, problem, searched, judging, found, pending) -> _Judged:
    """The same under many draws: of those alone who are pending, some at a time."""
    num_users, rows = len(pending), np.flatnonzero(pending)
    if num_users <= _OVER_DRAWS or not rows.size:
        return _judged(key, problem, searched, judging, found, pending)
    parts = []
    for some, padded in chunks_of(rows, _OVER_DRAWS):
        arguments = [take(part, padded) for part in (problem, searched, judging, found, pending)]
        judged = _judged(key, *arguments)
        parts.append(take(judged, slice(len(some))))
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    places = np.zeros(num_users, int)  # the others' rows are of no use
    places[rows] = np.arange(len(rows))
    return jax.tree.map(jnp.asarray, take(together, places))


def _easier(
    key: Array,
    solver: Solver,
    problem: Problem,
    worlds: SCM,
    judged: _Judged,
    lacking: np.ndarray,
) -> _Judged:
    """What is found for those who lack an action if less is asked for: the most that can be."""
    lacking = lacking.copy()
    for requirement in problem.requirement.easier:
        rows = np.flatnonzero(lacking)
        if not rows.size:
            break
        some, theirs = take((problem, worlds), rows)
        some = replace(some, requirement=requirement)
        _, less = _tried(key, solver, some, theirs, np.ones(len(rows), bool))
        acts = np.asarray(less.action.intervened.any(1))
        rows, less = rows[acts], take(less, acts)
        # By what was asked for first, they fall short.
        none = jnp.full(len(rows), -jnp.inf)
        less = less._replace(logit=none, fresh=less.fresh._replace(logit=none))
        judged = jax.tree.map(
            lambda of_all, new, rows=rows: jnp.asarray(of_all).at[rows].set(new), judged, less
        )
        lacking[rows] = False
    return judged


def _status(found: Found, modelled, valid, robust_valid, acts) -> Array:
    """Every user's `PlanStatus`, shape (num_users,)."""
    return jnp.select(
        [
            ~modelled,
            robust_valid & ~acts,
            robust_valid,
            found.exhausted & (valid | ~acts),
            valid,
            acts,
            found.flat,
        ],
        [
            PlanStatus.no_model,
            PlanStatus.already_favourable,
            PlanStatus.found,
            PlanStatus.budget,
            PlanStatus.not_robust,
            PlanStatus.not_likely,
            PlanStatus.zero_gradient,
        ],
        PlanStatus.not_found,
    )
