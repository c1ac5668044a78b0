"""A queue of iterative problems on a fixed number of lanes.

A lane that has ended its problem takes the next one that waits, so that nothing is evaluated for
problems that have ended; and every problem's arithmetic is that of one fixed shape, so that its
result does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax.batching import take


def run(
    num_lanes: int,
    step: Callable[[Any, Any], tuple[Any, Array, Any]],
    begin: Callable[[Any], Any],
    problem_of: Callable[[Array], Any],
    ids: Array,
    num_waiting: Array | int,
    results: Any,
) -> Any:
    """Solve the problems ``ids[:num_waiting]`` to their ends.

    Parameters
    ----------
    num_lanes : int
        How many problems are advanced at once.
    step : callable
        (problem, state) -> (state, ended () bool, result); the result counts when it has ended.
    begin : callable
        problem -> the state to begin with.
    problem_of : callable
        id () -> problem, a pytree.
    ids : Array
        Shape (num_problems,): distinct rows of ``results``.
    num_waiting : Array or int
    results : pytree
        Leaves of shape (num_problems, ...); the rows of problems that do not wait stay.
    """
    last = len(ids) - 1

    def load(place):
        return jax.vmap(problem_of)(ids[jnp.minimum(place, last)])

    def body(carry):
        next_place, place, ended, state, results = carry
        successor = next_place + jnp.cumsum(ended) - 1
        place = jnp.where(ended, jnp.minimum(successor, num_waiting), place)
        problem = load(place)
        state = jax.tree.map(
            lambda new, now: jnp.where(ended.reshape(-1, *[1] * (now.ndim - 1)), new, now),
            jax.vmap(begin)(problem),
            state,
        )
        next_place += ended.sum()
        # Between the barriers nothing depends on the number of problems, rounding included.
        inputs = jax.lax.optimization_barrier((problem, state))
        state, ended, result = jax.lax.optimization_barrier(jax.vmap(step)(*inputs))
        done = ended & (place < num_waiting)
        row = jnp.where(done, ids[jnp.minimum(place, last)], last + 1)
        results = jax.tree.map(
            lambda all_, new: all_.at[row].set(new, mode="drop"), results, result
        )
        return next_place, place, ended, state, results

    def unfinished(carry):
        next_place, place, ended, *_ = carry
        return (next_place < num_waiting) | jnp.any(~ended & (place < num_waiting))

    place = jnp.zeros(num_lanes, int)
    shapes = jax.eval_shape(lambda: jax.vmap(begin)(load(place)))
    unset = jax.tree.map(jnp.zeros_like, shapes)  # every lane begins by loading a problem
    carry = (jnp.asarray(0), place, jnp.ones(num_lanes, bool), unset, results)
    return jax.lax.while_loop(unfinished, body, carry)[-1]


def once(num_lanes: int, function: Callable, chosen: Array, per_user: tuple, unset: Any) -> Any:
    """``function(*user)`` for the ``chosen`` (num_users,) alone, ``num_lanes`` of them at a time.

    ``per_user`` and ``unset``, what the others keep, are pytrees with a leading axis (num_users,).
    """

    def step(problem, _):
        return (), jnp.asarray(True), function(*problem)

    ids = jnp.argsort(~chosen, stable=True)
    return run(num_lanes, step, lambda _: (), lambda i: take(per_user, i), ids, chosen.sum(), unset)
