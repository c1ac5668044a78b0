"""What is asked for: checked once, kept in the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Constraints
from pcr_jax.recourse.adversary import NORMS, Ball
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.requirements import Chance, Nominal, Requirement, Robust
from pcr_jax.recourse.search import Task
from pcr_jax.scm import SCM, Graph
from pcr_jax.scores import as_score, names_of


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Problem:
    """Users, the decision that they want, and what they can do. Made by `pose`.

    As a pytree it has the users' own arrays as leaves, so that users can be taken from it; what
    all of them share is part of its structure, and compared by value.

    Attributes
    ----------
    x : Array
        Shape (num_users, d), natural units.
    bounds : tuple of Array
        The smallest and largest shift, shape (num_users, d), natural units.
    weights : Array
        Shape (num_users, d).
    learning_rate : Array, optional
        Shape (num_users,): of solvers that descend.
    index : ndarray, optional
        Shape (num_users,): what the users are called, if ``x`` was a table.
    score : callable
        A pytree.
    scale : Array
        Shape (d,), natural units: the unit of cost, and of a requirement's radius.
    cost : {"l1", "l2"}
    requirement : Requirement
        `Nominal`, `Robust` to a radius, or `Chance` with a level; another by
        `dataclasses.replace`.
    hard : bool
        Whether interventions are.
    max_set_size : int, optional
    names : tuple of str
        Of the d features.
    digits : int, optional
    """

    x: Array
    bounds: tuple[Array, Array]
    weights: Array
    learning_rate: Array | None
    index: np.ndarray | None
    score: Callable
    scale: Array
    cost: str
    requirement: Requirement
    hard: bool
    max_set_size: int | None
    names: tuple[str, ...]
    digits: int | None

    def tree_flatten(self):
        """The users' own, and what they share."""
        fields = list(vars(self).values())
        return fields[:5], _Shared(tuple(fields[5:]))

    @classmethod
    def tree_unflatten(cls, shared, users):
        """From both."""
        return cls(*users, *shared.values)

    def tasks(self, worlds: SCM) -> Task:
        """Every user's problem, in units of ``scale``, under SCMs with a leading axis."""
        low, high = (bound / self.scale for bound in self.bounds)
        return Task(worlds, self.x, low, high, self.weights)

    def price(self) -> Cost:
        """What every user's actions cost; its leaves have a leading axis (num_users,)."""
        return Cost(jnp.broadcast_to(self.scale, self.x.shape), self.weights, self.cost)

    def begin(self) -> Any:
        """Every user's state of the requirement, of which nothing is known."""
        num_users, num_nodes = self.x.shape
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_users, *leaf.shape)),
            self.requirement.begin(num_nodes),
        )


class _Shared:
    """What users share: equal where all numbers are."""

    def __init__(self, values: tuple):
        self.values = values

    def __eq__(self, other):
        if not isinstance(other, _Shared):
            return NotImplemented
        (ours, own), (theirs, same) = map(jax.tree.flatten, (self.values, other.values))
        return own == same and all(map(np.array_equal, ours, theirs))

    def __hash__(self):
        return hash(_Shared)


def _score_of(score: Callable[[Array], Array], names: tuple[str, ...]) -> Callable:
    """A pytree, of the features of these names."""
    known = names_of(score)
    if known is not None and tuple(known) != names:
        raise ValueError(
            f"Expected a score of the features {list(names)}, in the order of the graph's nodes; "
            f"got one of {list(known)}."
        )
    return as_score(score, len(names))


def _rates_of(learning_rate: Any, num_users: int, rows: Any) -> Array:
    """Every user's learning rate, shape (num_users,); ``rows`` are what the users are called."""
    if rows is None:
        _checks.unnamed(learning_rate, "learning_rate")
    rates = _checks.positive(learning_rate, "learning_rate", (), (num_users,), rows=rows)
    return jnp.broadcast_to(jnp.asarray(rates, float), num_users)


def _requirement(epsilon: float, norm: str, level: float | None) -> Requirement:
    """What is asked for."""
    if level is not None:
        ball = Ball(jnp.asarray(epsilon, float), norm) if epsilon else None
        return Chance(level, ball)  # type: ignore[arg-type]
    return Robust(jnp.asarray(epsilon, float), norm) if epsilon else Nominal()


def pose(
    score: Callable[[Array], Array],
    graph: Graph,
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
    learning_rate: float | Array | None = None,
    digits: int | None = 3,
) -> Problem:
    """Check what is asked for; the arguments, and what is raised, are `find_recourse`'s.

    Parameters
    ----------
    graph : Graph
        Whose nodes are the features, in their order.

    Returns
    -------
    Problem
    """
    _checks.instance(graph, Graph, "graph")
    names, rows = graph.nodes, _checks.rows_of(x)
    num_nodes = len(names)
    x = _checks.features(x, num_nodes, ndim=2, names=names)
    if not len(x):
        raise ValueError("Expected at least one user in x; got none.")
    scale = _checks.positive(scale, "scale", (num_nodes,), names=names)
    _checks.positive(epsilon, "epsilon", (), or_zero=True)
    score = _score_of(score, names)
    _checks.choice(norm, NORMS, "norm")
    requirement = _requirement(float(epsilon), norm, level)
    _checks.choice(cost, ("l1", "l2"), "cost")
    _checks.choice(intervention, ("soft", "hard"), "intervention")
    weights = jnp.ones(num_nodes) if weights is None else weights
    weights = _checks.positive(weights, "weights", (num_nodes,), x.shape, names=names, rows=rows)
    constraints = Constraints() if constraints is None else constraints
    _checks.instance(constraints, Constraints, "constraints")
    low, high = constraints.shift_bounds(x, names, rows)
    if not (np.asarray(low) < 0).any() and not (np.asarray(high) > 0).any():
        raise ValueError("Expected constraints that let some node move; got none actionable.")
    if max_set_size is not None:
        _checks.count(max_set_size, "max_set_size")
    if learning_rate is not None:
        learning_rate = _rates_of(learning_rate, len(x), rows)
    if digits is not None:
        _checks.count(digits, "digits")
    return Problem(
        x=x,
        bounds=(low, high),
        weights=jnp.broadcast_to(weights, x.shape),
        learning_rate=learning_rate,
        index=None if rows is None else np.asarray(rows),
        score=score,
        scale=scale,
        cost=cost,
        requirement=requirement,
        hard=intervention == "hard",
        max_set_size=max_set_size,
        names=names,
        digits=digits,
    )


def worlds_of(problem: Problem, scm: SCM, name: str) -> SCM:
    """The users' SCMs with a leading axis (num_users,), without the noise's distributions.

    Counterfactuals do not need those, and SCMs that differ in them share compiled programs. Several
    draws for each user, with leading axes (num_users, draws), are kept if the requirement is over
    draws; else the mean of their coefficients is taken. ``name`` is the argument's.
    """
    _checks.instance(scm, SCM, name, " See pcr_jax.linear_scm and posterior_scms.")
    if scm.graph.nodes != problem.names:
        raise ValueError(
            f"Expected {name} of the features {list(problem.names)}; got {list(scm.graph.nodes)}."
        )
    num_users, shape = len(problem.x), scm.batch_shape
    if len(shape) > 2 or shape[:1] not in ((), (num_users,)):
        raise ValueError(
            f"Expected {name} to be one SCM, or one for each of the {num_users} users, or several "
            f"draws for each; got a batch of shape {shape}."
        )
    if not problem.requirement.over_draws:
        return per_user(scm, num_users)
    if len(shape) < 2:
        raise ValueError(
            f"Expected {name} to be several draws for each of the {num_users} users, of whose SCMs "
            f"a level is a probability; got a batch of shape {shape}. See "
            "Posteriors.scms(draws=)."
        )
    return bare(scm)


def bare(scm: SCM) -> SCM:
    """Without the noise's distributions."""
    return replace(scm, noise=(None,) * scm.num_nodes)  # type: ignore[arg-type]


def per_user(scm: SCM, num_users: int) -> SCM:
    """See `worlds_of`; unchecked."""
    scm = bare(scm)
    if len(scm.batch_shape) == 2:
        return jax.tree.map(lambda leaf: leaf.mean(1), scm)
    if scm.batch_shape:
        return scm
    return _repeated(scm, num_users)


@partial(jax.jit, static_argnums=1)
def _repeated(scm: SCM, num_users: int) -> SCM:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_users, *leaf.shape)), scm)


@jax.jit
def has_model(worlds: SCM) -> Array:
    """Which users' SCMs have finite coefficients, shape (num_users,)."""
    flags = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(worlds)]
    return jnp.stack(flags).all(0)
