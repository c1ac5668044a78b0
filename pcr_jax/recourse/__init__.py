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
from pcr_jax.batching import chunks_of, map_users, take
from pcr_jax.classifiers import (
    as_score,
    differentiable,
    names_of,
    on_host,
    raises_as_itself,
    refuse_probabilities,
)
from pcr_jax.recourse import algorithm1, optimal
from pcr_jax.recourse.adversary import NORMS, Ball
from pcr_jax.recourse.algorithm1 import Algorithm1
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal import Optimal
from pcr_jax.recourse.plan import Plan, PlanStatus
from pcr_jax.recourse.rounding import written
from pcr_jax.recourse.search import Task
from pcr_jax.recourse.verify import outcomes, withstand
from pcr_jax.scm import SCM

__all__ = ["Algorithm1", "Cost", "Optimal", "Plan", "PlanStatus", "find_recourse"]

# How often an action that a perturbation breaks when it is verified is sought anew, and one more.
_ATTEMPTS = 12
# Users who are planned for before progress is told, and of a model on the host.
_GROUP, _HOST_GROUP = 4096, 16

SOLVERS: dict[str, Callable[[], Algorithm1 | Optimal]] = {"optimal": Optimal, "paper": Algorithm1}


def check_problem(score, scm: SCM, name, x, scale, epsilon):
    """Check what recourse and its evaluation have in common; the score as a pytree, and arrays.

    ``name`` is that of the argument ``scm``.
    """
    _checks.instance(scm, SCM, name, " See pcr_jax.linear_scm and posterior_scms.")
    nodes = scm.graph.nodes
    x = _checks.features(x, scm.num_nodes, ndim=2, names=nodes)
    if not len(x):
        raise ValueError("Expected at least one user in x; got none.")
    scale = _checks.positive(scale, "scale", (scm.num_nodes,), names=nodes)
    _checks.positive(epsilon, "epsilon", (), or_zero=True)
    if scm.batch_shape not in ((), (len(x),)):
        raise ValueError(
            f"Expected {name} to be one SCM, or one for each of the {len(x)} users; "
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
    score, x, scale = check_problem(score, scm, "scm", x, scale, epsilon)
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
    if digits is not None:
        _checks.count(digits, "digits")
    if on_user is not None:
        _checks.function(on_user, "on_user", "() -> None")
    key = jax.random.key(0) if key is None else key
    _checks.key(key)
    region = ball(epsilon, norm)
    scms = per_user(scm, num_users)
    modelled = has_model(scms)
    scms = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), scms)
    nothing = Action.soft(jnp.zeros(x.shape))
    _, before = outcomes(score, scms, x, nothing)
    refuse_probabilities(score, x, scale, before)
    undefined = int(jnp.isnan(before).sum())
    if undefined:
        raise ValueError(
            f"Expected score to be a number at every user's features; got NaN for {undefined} of "
            f"{num_users} users from {given!r}."
        )

    weights = jnp.broadcast_to(weights, x.shape)
    tasks = Task(scms, x, low / scale, high / scale, weights)
    hard = intervention == "hard"
    search: algorithm1.Search | optimal.Search
    if isinstance(solver, Algorithm1):
        _check_algorithm1(cost, weights, norm, intervention, score)
        chosen = intervention_sets(int(movable.sum()), max_set_size)
        sets = np.zeros((len(chosen), num_nodes))
        sets[:, movable] = chosen
        search = algorithm1.Search(solver, score, scale, region, jnp.asarray(sets, float))
        rate = 0.5 if learning_rate is None else learning_rate
    else:
        if learning_rate is not None:
            raise ValueError("Expected no learning_rate with the optimal solver; got one.")
        size = num_nodes if max_set_size is None else min(max_set_size, num_nodes)
        unit = Cost(scale, jnp.ones(num_nodes), cost)
        search = optimal.Search(solver, score, unit, region, hard, size)
        rate = 0.0
    rates = jnp.broadcast_to(jnp.asarray(rate, float), num_users)
    shared = (key, search, score, scale, region, cost, hard, digits, nodes, repr(given))
    users = (tasks, (low, high), rates, modelled)
    if on_user is None:
        return _plan(*shared, *users)
    parts = []
    for group, _ in chunks_of(np.arange(num_users), _HOST_GROUP if on_host(score) else _GROUP):
        parts.append(jax.block_until_ready(_plan(*shared, *take(users, group))))
        for _ in group:
            on_user()
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _plan(
    key: Array,
    search: algorithm1.Search | optimal.Search,
    score: Callable,
    scale: Array,
    region: Ball | None,
    norm: str,
    hard: bool,
    digits: int | None,
    nodes: tuple[str, ...],
    said: str,
    tasks: Task,
    bounds: tuple[Array, Array],
    rates: Array,
    modelled: Array,
) -> Plan:
    """Search, write down, verify; search on for those whom the verification breaks."""
    scms, x = tasks.scm, tasks.x
    num_users = len(x)
    price = Cost(jnp.broadcast_to(scale, x.shape), tasks.weights, norm)
    write = partial(written, score, tasks, scale, bounds, price, region is not None, hard, digits)
    found = search.begin(tasks, rates)
    lowest, num_perturbations = np.full(num_users, np.nan), np.zeros(num_users, int)
    proved = np.zeros(num_users, bool)
    pending = np.asarray(modelled)
    for attempt in range(_ATTEMPTS):
        action, decimals = write(found.move, found.deltas)
        after, logit = outcomes(score, scms, x, action)
        if region is None:
            lowest = np.asarray(logit)
            break
        key_now = jax.random.fold_in(key, attempt)
        tried = withstand(key_now, score, scms, x, action, scale, region, logit, pending)
        lowest = np.where(pending, tried.logit, lowest)
        proved = np.where(pending, tried.certified, proved)
        num_perturbations = np.where(pending, tried.num_perturbations, num_perturbations)
        pending = pending & np.asarray(found.going_on & (logit >= 0)) & (lowest < 0)
        if not pending.any() or attempt == _ATTEMPTS - 1:
            break
        found = search.go_on(tasks, found, pending, tried.delta)

    valid = (logit >= 0) & modelled
    kept = valid[:, None]
    action = Action(jnp.where(kept, action.value, 0.0), action.hard & kept)
    acts = action.intervened.any(1)
    robust_valid = valid & (lowest >= 0)
    status = jnp.select(
        [~modelled, robust_valid & ~acts, robust_valid, found.exhausted, valid, found.flat],
        [
            PlanStatus.no_model,
            PlanStatus.already_favourable,
            PlanStatus.found,
            PlanStatus.budget,
            PlanStatus.not_robust,
            PlanStatus.zero_gradient,
        ],
        PlanStatus.not_found,
    )
    return Plan(
        action=action,
        x_counterfactual=jnp.where(acts[:, None], after, x),
        cost=jnp.where(valid, _costs(price, action, x), jnp.inf),
        valid=valid,
        robust_valid=robust_valid,
        certified=robust_valid & proved,
        status=status,
        num_evaluations=found.evaluations,
        num_perturbations=jnp.asarray(num_perturbations),
        decimals=jnp.asarray(decimals),
        x=x,
        nodes=nodes,
        score=said,
    )


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
