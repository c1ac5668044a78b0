"""The contract of solvers: what they are given, and what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array

from pcr_jax.scm import SCM

if TYPE_CHECKING:
    from pcr_jax.recourse.problem import Problem


class Task(NamedTuple):
    """One user's problem. Moves are in units of ``scale``."""

    scm: SCM
    x: Array  # (d,), natural units
    low: Array  # (d,), the smallest move
    high: Array  # (d,)
    weights: Array  # (d,)


class Found(NamedTuple):
    """What a search found for every user.

    Attributes
    ----------
    move : Array
        Shape (num_users, d), units of ``scale``; 0 where nothing was found, or is needed.
    scenarios : pytree
        States of the problem's requirement, users first: what the moves withstand.
    going_on : Array
        Shape (num_users,): whether the search can go on for this user if it should not do.
    exhausted, flat : Array
        Shape (num_users,): the search ended for its budget, for a gradient of exactly 0.
    evaluations : Array
        Shape (num_users,).
    state : pytree
        The search's own.
    """

    move: Array
    scenarios: Any
    going_on: Array
    exhausted: Array
    flat: Array
    evaluations: Array
    state: Any = None


@runtime_checkable
class Solver(Protocol):
    """What looks for the cheapest move that meets the requirement; a value, with its settings.

    Its moves are written in few digits, verified with fresh scenarios and, where these break them
    and it can go on, sought anew (`pcr_jax.recourse.find`). One that tries the same shift of one
    feature for everybody:

    >>> import jax.numpy as jnp, pcr_jax as pcr
    >>> from pcr_jax.recourse.search import Found
    >>> class OneShift:
    ...     def check(self, problem):
    ...         if problem.hard:
    ...             raise ValueError("Expected soft interventions; got hard ones.")
    ...     def search(self, problem, worlds):
    ...         move = jnp.zeros_like(problem.x).at[:, 0].set(2.0)
    ...         none = jnp.zeros(len(move), bool)
    ...         met = problem.begin()
    ...         return Found(move, met, none, none, none, jnp.ones(len(move), int))
    ...     def go_on(self, problem, worlds, found, broken, scenario):
    ...         return found
    >>> plan = pcr.find_recourse(
    ...     lambda x: x[0] - 1.0, pcr.library.m1(), jnp.zeros((1, 3)), scale=jnp.ones(3),
    ...     solver=OneShift(),
    ... )
    >>> print(plan.action.value[0].tolist(), plan)
    [2.0, 0.0, 0.0] Plan(1 users: 1 found)
    """

    def check(self, problem: Problem) -> None:
        """Raise ValueError for a problem that it does not solve, naming what does."""

    def search(self, problem: Problem, worlds: SCM) -> Found:
        """The cheapest move of every user, under SCMs with a leading axis (num_users,)."""

    def go_on(
        self, problem: Problem, worlds: SCM, found: Found, broken: np.ndarray, scenario: Array
    ) -> Found:
        """The same for the users who are ``broken`` (num_users,), each by a ``scenario``.

        Only those who were ``going_on`` are; the others' moves stay.
        """
