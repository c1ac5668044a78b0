"""Recourse: the cheapest action that flips a user's decision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action, Constraints, intervention_sets
from pcr_jax.batching import map_users
from pcr_jax.classifiers import as_score
from pcr_jax.recourse import algorithm1
from pcr_jax.recourse.adversary import worst_outcome
from pcr_jax.recourse.algorithm1 import Algorithm1, Problem
from pcr_jax.recourse.cost import l1_cost
from pcr_jax.recourse.plan import Plan, PlanStatus
from pcr_jax.scm import SCM

__all__ = ["Algorithm1", "Plan", "PlanStatus", "find_recourse", "l1_cost", "worst_outcome"]

SOLVERS: dict[str, Callable[[], Algorithm1]] = {"paper": Algorithm1}


def check_problem(score, scm: SCM, x, scale, epsilon):
    """Check what recourse and its evaluation have in common; the score as a pytree, and arrays."""
    if np.shape(x)[:1] == (0,):
        raise ValueError("Expected at least one user in x; got none.")
    _checks.features(x, scm.num_nodes, ndim=2)
    if np.shape(scale) != (scm.num_nodes,):
        raise ValueError(f"Expected scale of shape ({scm.num_nodes},); got {np.shape(scale)}.")
    _checks.positive(scale, "scale")
    _checks.non_negative(epsilon, "epsilon")
    if np.shape(epsilon):
        raise ValueError(f"Expected epsilon of shape (); got {np.shape(epsilon)}.")
    if scm.batch_shape not in ((), (len(x),)):
        raise ValueError(
            f"Expected one SCM, or one for each of the {len(x)} users; "
            f"got a batch of shape {scm.batch_shape}."
        )
    return as_score(score, scm.num_nodes), jnp.asarray(x, float), jnp.asarray(scale, float)


def ball(epsilon: float) -> Array | None:
    """The radius of the ball of perturbations; None, which compiles to nothing, for 0."""
    return None if float(epsilon) == 0 else jnp.asarray(epsilon, float)


def per_user(scm: SCM, num_users: int) -> SCM:
    """The mechanisms with a leading axis (num_users,), without the noise's distributions.

    Counterfactuals do not need those, and SCMs that differ in them share compiled programs.
    """
    bare = SCM(scm.graph, scm.mechanisms, (None,) * scm.num_nodes)  # type: ignore[arg-type]
    if scm.batch_shape:
        return bare
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_users, *leaf.shape)), bare)


def has_model(scms: SCM) -> Array:
    """Which users' SCMs have finite coefficients, shape (num_users,)."""
    flags = [jnp.isfinite(m.coefficients).all(-1) for m in scms.mechanisms]
    return jnp.stack(flags).all(0)


@partial(jax.jit, static_argnums=0)
def _search(settings, score, scms, x, sets, scale, epsilon, low, high, learning_rate):
    """Algorithm 1 for all users and intervention sets; cheapest valid shift per user."""
    num_users, num_nodes = x.shape
    num_sets = len(sets)

    def problem_of(p):
        user = p // num_sets
        members = sets[p % num_sets]
        return Problem(
            jax.tree.map(lambda leaf: leaf[user], scms),
            x[user],
            members,
            low[user],
            high[user],
            learning_rate[user],
        )

    shift, valid, flat = algorithm1.solve(
        settings, score, scale, epsilon, problem_of, num_users * num_sets, num_nodes
    )
    shift = shift.reshape(num_users, num_sets, num_nodes)
    valid = valid.reshape(num_users, num_sets)
    flat = flat.reshape(num_users, num_sets)
    cost = jnp.where(valid, jnp.abs(shift).sum(-1), jnp.inf)
    best = jnp.take_along_axis(shift, cost.argmin(1)[:, None, None], axis=1)[:, 0]
    return best * scale, valid.any(1), flat.all(1)


@jax.jit
def outcomes(score, scms, x, action, scale, epsilon):
    """Counterfactual features, logits, worst logits in the ball, costs."""

    def one(scm, x, action):
        x_counterfactual = scm.counterfactual(x, action)
        logit = score(x_counterfactual)
        worst = logit
        if epsilon is not None:
            attacked = worst_outcome(score, scm, x, action, scale, epsilon)
            worst = jnp.minimum(logit, attacked)
        return x_counterfactual, logit, worst, l1_cost(action, x, scale)

    return map_users(one, scms, x, action)


def find_recourse(
    score: Callable[[Array], Array],
    scm: SCM,
    x: Array,
    *,
    scale: Array,
    epsilon: float = 0.0,
    constraints: Constraints | None = None,
    solver: str | Algorithm1 = "paper",
    learning_rate: float | Array = 0.5,
    max_set_size: int | None = None,
) -> Plan:
    """Recommend every user a cheap soft intervention after which the score is favourable.

    Solves Eq. 1 (``epsilon=0``) or Eq. 2 of the paper, all users and all intervention sets in one
    compiled program.

    Parameters
    ----------
    score : callable
        x (d,), natural units -> logit (); at or above 0 is the favourable decision.
    scm : SCM
        One for all users, or with leading axis (num_users,), as from `posterior_scms`.
    x : Array
        Shape (num_users, d), natural units.
    scale : Array
        Shape (d,), natural units: the unit in which cost and epsilon are counted, by default
        in the experiments one population standard deviation.
    epsilon : float
        Radius of the L2 ball of perturbations to withstand, in units of ``scale``.
    constraints : Constraints, optional
    solver : str or Algorithm1
        ``"paper"``: Algorithm 1 of Dominguez-Olmedo et al. (2022); or an object with settings.
    learning_rate : float or Array
        gamma, in units of ``scale``; shape () or (num_users,).
    max_set_size : int, optional
        Leave out larger intervention sets.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, ``scale <= 0``, ``epsilon < 0``,
        ``learning_rate <= 0``, a bound excludes a present value, no node is actionable, or the
        solver is unknown.
    TypeError
        If ``score`` is not callable.
    """
    if isinstance(solver, str):
        _checks.choice(solver, SOLVERS, "solver")
        solver = SOLVERS[solver]()
    score, x, scale = check_problem(score, scm, x, scale, epsilon)
    _checks.positive(learning_rate, "learning_rate")
    if np.shape(learning_rate) not in ((), (len(x),)):
        raise ValueError(
            f"Expected learning_rate of shape () or ({len(x)},); got {np.shape(learning_rate)}."
        )
    low, high = (Constraints() if constraints is None else constraints).shift_bounds(x)
    movable = np.asarray((low < 0) | (high > 0)).any(0)
    if not movable.any():
        raise ValueError("Expected constraints that let some node move; got none actionable.")
    if max_set_size is not None:
        _checks.count(max_set_size, "max_set_size")
    sets = intervention_sets(scm.num_nodes, max_set_size)
    sets = sets[~sets[:, ~movable].any(1)]

    scms = per_user(scm, len(x))
    modelled = has_model(scms)
    scms = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), scms)
    radius = ball(epsilon)
    rates = jnp.broadcast_to(jnp.asarray(learning_rate, float), len(x))
    bounds = (low / scale, high / scale)
    shift, found, flat = _search(
        solver, score, scms, x, jnp.asarray(sets, float), scale, radius, *bounds, rates
    )
    action = Action.soft(jnp.where((found & modelled)[:, None], shift, 0.0))
    x_counterfactual, logit, worst, cost = outcomes(score, scms, x, action, scale, radius)
    valid = (logit >= 0) & modelled
    status = jnp.select(
        [~modelled, valid & ~action.intervened.any(1), valid, flat],
        [
            PlanStatus.no_model,
            PlanStatus.already_favourable,
            PlanStatus.found,
            PlanStatus.zero_gradient,
        ],
        PlanStatus.not_found,
    )
    cost = jnp.where(found & modelled, cost, jnp.inf)
    return Plan(action, x_counterfactual, cost, valid, (worst >= 0) & modelled, status)
