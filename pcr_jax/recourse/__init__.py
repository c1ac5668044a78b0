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
from pcr_jax.batching import by_bucket, map_users, over_devices, take
from pcr_jax.classifiers import (
    as_score,
    differentiable,
    names_of,
    raises_as_itself,
    refuse_probabilities,
)
from pcr_jax.recourse import algorithm1, optimal
from pcr_jax.recourse.adversary import NORMS, Ball, worst_outcome
from pcr_jax.recourse.algorithm1 import Algorithm1, Problem
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal import Optimal
from pcr_jax.recourse.plan import Plan, PlanStatus
from pcr_jax.scm import SCM

__all__ = ["Algorithm1", "Cost", "Optimal", "Plan", "PlanStatus", "find_recourse"]

SOLVERS: dict[str, Callable[[], Algorithm1 | Optimal]] = {"optimal": Optimal, "paper": Algorithm1}


def check_problem(score, scm: SCM, x, scale, epsilon):
    """Check what recourse and its evaluation have in common; the score as a pytree, and arrays."""
    _checks.instance(scm, SCM, "the SCM", " See pcr_jax.linear_scm and posterior_scms.")
    nodes = scm.graph.nodes
    x = _checks.features(x, scm.num_nodes, ndim=2, names=nodes)
    if not len(x):
        raise ValueError("Expected at least one user in x; got none.")
    scale = _checks.positive(scale, "scale", (scm.num_nodes,), names=nodes)
    _checks.non_negative(epsilon, "epsilon", ())
    if scm.batch_shape not in ((), (len(x),)):
        raise ValueError(
            f"Expected one SCM, or one for each of the {len(x)} users; "
            f"got a batch of shape {scm.batch_shape}."
        )
    names = names_of(score)
    if names is not None and tuple(names) != nodes:
        raise ValueError(
            f"Expected a score of the features {list(nodes)}, in the order of the graph's nodes; "
            f"got one of {list(names)}."
        )
    return as_score(score, scm.num_nodes), x, scale


def ball(epsilon: float, norm: str) -> Ball | None:
    """The ball of perturbations; None, which compiles to nothing, for radius 0."""
    _checks.choice(norm, NORMS, "norm")
    return None if float(epsilon) == 0 else Ball(jnp.asarray(epsilon, float), norm)


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
def _algorithm1(settings, score, sets, scale, epsilon, real, scms, x, low, high, learning_rate):
    """Algorithm 1 for all real users and intervention sets; cheapest valid move per user."""
    num_users, num_nodes = x.shape
    num_sets = len(sets)

    def problem_of(p):
        user = p // num_sets
        members = sets[p % num_sets]
        return Problem(
            take(scms, user),
            x[user],
            members,
            low[user],
            high[user],
            learning_rate[user],
        )

    move, valid, flat, steps = algorithm1.solve(
        settings,
        score,
        scale,
        epsilon,
        problem_of,
        num_users * num_sets,
        real.sum() * num_sets,
        num_nodes,
    )
    move = move.reshape(num_users, num_sets, num_nodes)
    valid = valid.reshape(num_users, num_sets)
    flat = flat.reshape(num_users, num_sets)
    cost = jnp.where(valid, jnp.abs(move).sum(-1), jnp.inf)
    best = jnp.take_along_axis(move, cost.argmin(1)[:, None, None], axis=1)[:, 0]
    return best, valid.any(1), flat.all(1), steps.reshape(num_users, num_sets).sum(1)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _optimal(settings, hard, max_set_size, score, cost, ball, real, scms, x, low, high, weights):
    def search(shared, *users):
        score, cost, ball, outline = shared
        solver = optimal.Solver(
            settings, score, cost, ball, hard, max_set_size, x.shape[1], outline
        )
        return optimal.solve(solver, *users)

    shared = (score, cost, ball, optimal.outline(ball, x.shape[1]))
    return over_devices(search, shared, real, scms, x, low, high, weights)


@jax.jit
def _outcomes(score, scale, ball, scms, x, action):
    def verify(shared, *users):
        score, scale, ball = shared

        def one(scm, x, action):
            x_counterfactual = scm.counterfactual(x, action)
            logit = score(x_counterfactual)
            worst = logit
            if ball is not None:
                worst = jnp.minimum(logit, worst_outcome(score, scm, x, action, scale, ball))
            return x_counterfactual, logit, worst

        return map_users(one, *users)

    return over_devices(verify, (score, scale, ball), scms, x, action)


def outcomes(score, scms, x, action, scale, ball):
    """Counterfactual features, logits and worst logits in the ball."""
    return by_bucket(lambda _, *users: _outcomes(score, scale, ball, *users), scms, x, action)


@jax.jit
def _costs(cost, action, x):
    return map_users(lambda c, a, x: c(a, x), cost, action, x)


@raises_as_itself
def find_recourse(
    score: Callable[[Array], Array],
    scm: SCM,
    x: Array,
    *,
    scale: Array,
    epsilon: float = 0.0,
    norm: str = "l2",
    cost: str = "l1",
    weights: Array | None = None,
    constraints: Constraints | None = None,
    intervention: str = "soft",
    max_set_size: int | None = None,
    solver: str | Optimal | Algorithm1 = "optimal",
    learning_rate: float | Array | None = None,
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
    scm : SCM
        One for all users, or with leading axis (num_users,), as from `posterior_scms`.
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
    cost : {"l1", "l2"}
        The norm of an action in units of ``scale`` that is to be small.
    weights : Array, optional
        Shape (d,) or (num_users, d), positive: what a move of one unit costs; 1 by default.
    constraints : Constraints, optional
    intervention : {"soft", "hard"}
        Whether an action shifts features, or sets them and cuts their causes.
    max_set_size : int, optional
        The largest number of features to intervene on.
    solver : str, Optimal or Algorithm1
        ``"optimal"``: the cheapest valid action to a tolerance, with or without gradients, see
        `pcr_jax.recourse.optimal`. ``"paper"``: Algorithm 1 of Dominguez-Olmedo et al. (2022),
        for soft interventions, L1 cost without weights and the L2 ball. Or an object with
        settings.
    learning_rate : float or Array, optional
        Of Algorithm 1, in units of ``scale``; shape () or (num_users,); 0.5 by default.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If shapes or names disagree, a value is not finite, the score is NaN for a user or looks
        like a probability (see `pcr_jax.classifiers.refuse_probabilities`), ``scale`` or
        ``weights`` or ``learning_rate`` is not positive, ``epsilon < 0``, a bound excludes a
        present value, no node is actionable, an option is unknown, or the solver lacks it.
    TypeError
        If ``score`` is not callable, an argument is of another type, or one is being traced.
    """
    arguments = (score, scm, x, scale, epsilon, weights, constraints, learning_rate)
    _checks.untraced("find_recourse", *arguments)
    if isinstance(solver, str):
        _checks.choice(solver, SOLVERS, "solver")
        solver = SOLVERS[solver]()
    _checks.instance(solver, Optimal | Algorithm1, "solver")
    given, rows = score, _checks.rows_of(x)
    score, x, scale = check_problem(score, scm, x, scale, epsilon)
    num_users, num_nodes = x.shape
    _checks.choice(cost, ("l1", "l2"), "cost")
    _checks.choice(intervention, ("soft", "hard"), "intervention")
    weights = jnp.ones(num_nodes) if weights is None else weights
    nodes = scm.graph.nodes
    weights = _checks.positive(weights, "weights", (num_nodes,), x.shape, names=nodes, rows=rows)
    constraints = Constraints() if constraints is None else constraints
    _checks.instance(constraints, Constraints, "constraints")
    low, high = constraints.shift_bounds(x, nodes, rows)
    movable = np.asarray((low < 0) | (high > 0)).any(0)
    if not movable.any():
        raise ValueError("Expected constraints that let some node move; got none actionable.")
    if max_set_size is not None:
        _checks.count(max_set_size, "max_set_size")
    if learning_rate is not None:
        learning_rate = _checks.positive(learning_rate, "learning_rate", (), (num_users,))
    region = ball(epsilon, norm)
    scms = per_user(scm, num_users)
    modelled = has_model(scms)
    scms = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), scms)
    nothing = Action.soft(jnp.zeros(x.shape))
    before = outcomes(score, scms, x, nothing, scale, None)[1]
    refuse_probabilities(score, x, scale, before)
    undefined = int(jnp.isnan(before).sum())
    if undefined:
        raise ValueError(
            f"Expected score to be a number at every user's features; got NaN for {undefined} of "
            f"{num_users} users from {given!r}."
        )

    bounds = (low / scale, high / scale)
    flat = jnp.zeros(num_users, bool)
    if isinstance(solver, Algorithm1):
        _check_algorithm1(cost, weights, norm, intervention, score)
        rates = jnp.asarray(0.5 if learning_rate is None else learning_rate, float)
        _checks.positive(rates, "learning_rate")
        if rates.shape not in ((), (num_users,)):
            raise ValueError(
                f"Expected learning_rate of shape () or ({num_users},); got {rates.shape}."
            )
        every = intervention_sets(num_nodes, max_set_size)
        sets = jnp.asarray(every[~every[:, ~movable].any(1)], float)
        radius = None if region is None else region.radius
        rates = jnp.broadcast_to(rates, num_users)
        search = partial(_algorithm1, solver, score, sets, scale, radius)
        move, found, flat, evaluations = by_bucket(search, scms, x, *bounds, rates)
    else:
        if learning_rate is not None:
            raise ValueError("Expected no learning_rate with the optimal solver; got one.")
        weights = jnp.broadcast_to(weights, x.shape)
        size = num_nodes if max_set_size is None else min(max_set_size, num_nodes)
        price = Cost(scale, jnp.ones(num_nodes), cost)
        search = partial(_optimal, solver, intervention == "hard", size, score, price, region)
        move, found, evaluations = by_bucket(search, scms, x, *bounds, weights)

    def taken(found):
        shift = jnp.where(found[:, None], move * scale, 0.0)
        return Action.by(x, shift, intervention == "hard")

    x_counterfactual, logit, worst = outcomes(score, scms, x, taken(found), scale, region)
    valid = (logit >= 0) & modelled
    action = taken(found & valid)
    acts = action.intervened.any(1)
    status = jnp.select(
        [~modelled, valid & ~acts, valid, flat],
        [
            PlanStatus.no_model,
            PlanStatus.already_favourable,
            PlanStatus.found,
            PlanStatus.zero_gradient,
        ],
        PlanStatus.not_found,
    )
    x_counterfactual = jnp.where(acts[:, None], x_counterfactual, x)
    price = Cost(jnp.broadcast_to(scale, x.shape), jnp.broadcast_to(weights, x.shape), cost)
    paid = jnp.where(valid, _costs(price, action, x), jnp.inf)
    robust_valid = (worst >= 0) & modelled
    return Plan(action, x_counterfactual, paid, valid, robust_valid, status, evaluations)


def _check_algorithm1(cost, weights, norm, intervention, score):
    """Raise for what Algorithm 1 does not do."""
    for name, wanted, came in (
        ("cost", "l1", cost),
        ("norm", "l2", norm),
        ("intervention", "soft", intervention),
        ("weights", "none", "none" if bool((weights == 1).all()) else "some"),
        ("a score", "with a gradient", "with a gradient" if differentiable(score) else "without"),
    ):
        if came != wanted:
            raise ValueError(
                f"Expected {name} {wanted!r} with solver='paper'; got {came!r}. "
                "Use solver='optimal'."
            )
