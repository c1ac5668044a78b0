"""Actions in numbers as people write them, which are the numbers that are verified.

A search ends on the decision boundary, and a number rounded to the nearest lands on either side of
it. Moves are therefore rounded outwards, or inwards where that is favourable too, to as few digits
as cost next to nothing; and what is evaluated is what is written: "raise income by 310, from 2,100
to 2,410" is tried both as 310 more and as 2,410.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.actions import Action
from pcr_jax.batching import by_bucket, map_users, over_devices, take
from pcr_jax.recourse.problem import Problem
from pcr_jax.recourse.requirements import Case
from pcr_jax.recourse.search import Found
from pcr_jax.scm import SCM

EXACT = 127
"""Decimals of a number that is not rounded."""

_FINER = 4  # grids, each ten times as fine as the one before
_VARIED = 3  # the longest moves, which are rounded either way
_CHUNK = 16  # users judged at once
_GROUP = 4096  # users whose ways are held in memory
_ALLOWANCE = 2e-3  # share of the cost that rounding may add
_PUSHES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # what an exact move may be longer, for rounding of logits


class Written(NamedTuple):
    """Several ways to write users' moves.

    Attributes
    ----------
    shift, target : ndarray
        Shape (num_users, num_ways, d), natural units: what is added, and what is reached. 0 and the
        present value where nothing is to move.
    decimals : ndarray
        Shape (num_users, num_ways, d).
    """

    shift: np.ndarray
    target: np.ndarray
    decimals: np.ndarray


def decimals_of(scale: np.ndarray, digits: int) -> np.ndarray:
    """How many decimals show that many digits of ``scale`` (d,); negative before the point."""
    return digits - 1 - np.floor(np.log10(np.asarray(scale, float))).astype(int)


def _on_grid(value: np.ndarray, decimals: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Multiples of ``10 ** -decimals`` next to ``value``, up where ``way`` > 0, else down.

    What is a multiple already, to the rounding of 32-bit numbers, stays.
    """
    unit = 10.0 ** -decimals.astype(float)
    k = value / unit
    nearest = np.round(k)
    there = np.abs(k - nearest) <= 1e-4 + 4e-7 * np.abs(k)
    return np.where(there, nearest, np.where(way > 0, np.ceil(k), np.floor(k))) * unit


def present(x: np.ndarray, shift: np.ndarray, decimals: np.ndarray) -> np.ndarray:
    """The present values as they are shown: rounded in the direction of the move, so that the
    value to reach is no nearer than by the shift; float64, natural units.
    """
    x = np.asarray(x, float)
    exact = decimals == EXACT
    return np.where(exact, x, _on_grid(x, np.where(exact, 0, decimals), np.asarray(shift)))


def ways(x: np.ndarray, shift: np.ndarray, scale: np.ndarray, digits: int | None) -> Written:
    """How the shifts (num_users, d) can be written; the coarsest first, the exact ones last.

    Parameters
    ----------
    x, shift : ndarray
        Shape (num_users, d), natural units.
    scale : ndarray
        Shape (d,), natural units.
    digits : int or None
        Of ``scale``, on the coarsest grid; None for exact ones alone.
    """
    dtype = np.asarray(shift).dtype
    x, shift = np.asarray(x, float), np.asarray(shift, float)
    moved = shift != 0
    order = np.argsort(np.argsort(-np.abs(shift / scale), axis=1, kind="stable"), axis=1)
    shifts, targets, decimals = [], [], []
    grids = [] if digits is None else [decimals_of(scale, digits) + k for k in range(_FINER)]
    for grid in grids:
        grid = np.broadcast_to(grid, shift.shape)
        outer, inner = (_on_grid(np.abs(shift), grid, np.array(way)) for way in (1, -1))
        for choice in product((True, False), repeat=_VARIED):
            outwards = np.ones(shift.shape, bool)
            for place, out in enumerate(choice):
                outwards &= (order != place) | out
            written = np.sign(shift) * np.where(outwards, outer, inner)
            shifts.append(np.where(moved, written, 0.0))
            targets.append(np.where(moved, present(x, shift, grid) + written, x))
            decimals.append(grid)
    for longer in _PUSHES:
        exact = np.asarray(shift * (1 + longer), dtype).astype(float)
        shifts.append(exact)
        targets.append(np.where(moved, x + exact, x))
        decimals.append(np.full(shift.shape, EXACT))
    return Written(*(np.stack(part, 1) for part in (shifts, targets, decimals)))


def chosen_way(valid: np.ndarray, cost: np.ndarray, exact_cost: np.ndarray) -> np.ndarray:
    """The place of the way to take: of the coarsest grid with one that works and costs enough less.

    Parameters
    ----------
    valid, cost : ndarray
        Shape (num_users, num_ways).
    exact_cost : ndarray
        Shape (num_users,): what the move costs before it is rounded.

    Returns
    -------
    ndarray
        Shape (num_users,). Where no way works, the unrounded one.
    """
    num_ways = valid.shape[1]
    group = np.arange(num_ways) // 2**_VARIED
    first_exact = num_ways - len(_PUSHES)
    group[first_exact:] = np.arange(num_ways, num_ways + len(_PUSHES))
    affordable = valid & (cost <= (1 + _ALLOWANCE) * exact_cost[:, None] + 1e-12)
    affordable[:, first_exact:] = valid[:, first_exact:]
    coarsest = np.where(affordable, group, np.iinfo(int).max).min(1)
    there = affordable & (group == coarsest[:, None])
    best = np.where(there, cost, np.inf).argmin(1)
    return np.where(there.any(1), best, first_exact)


@jax.jit
def _judge(score, scale, requirement, tasks, met, by, to):
    """Lowest logit of every way to write every user's action, shape (num_users, num_ways).

    As a value if all goes as expected, as a shift also in the scenarios ``met``.
    """

    def judge(shared, *users):
        score, scale, requirement = shared

        def one(task, met, by, to):
            def plain(action):
                return requirement.plain(Case(score, task.scm, task.x, action, scale), met)

            def under(action):
                return requirement.lowest(Case(score, task.scm, task.x, action, scale), met)

            return jnp.minimum(jax.vmap(under)(by), jax.vmap(plain)(to))

        return map_users(one, *users, chunk=_CHUNK)

    return over_devices(judge, (score, scale, requirement), tasks, met, by, to)


def written(problem: Problem, worlds: SCM, found: Found) -> tuple[Action, np.ndarray]:
    """The actions as they are to be written, and their decimals (num_users, d).

    The moves' numbers are those that meet the requirement in the scenarios that they were found to.
    """
    values, places = [], []
    move, met = found.move, found.scenarios
    for start in range(0, len(move), _GROUP):
        some = slice(start, start + _GROUP)
        value, decimals = _written(*take((problem, worlds, move, met), some))
        values.append(value)
        places.append(decimals)
    moved = move != 0
    value = jnp.asarray(np.concatenate(values))
    action = Action.do(value, moved) if problem.hard else Action.soft(value)
    return action, np.concatenate(places)


def _written(problem, worlds, move, met):
    """`written` for some users: the values of their actions, and the decimals."""
    x, scale, tasks = np.asarray(problem.x), problem.scale, problem.tasks(worlds)
    shift = np.asarray(move * scale)
    drafts = ways(x, shift, np.asarray(scale), problem.digits)
    by, to = (np.asarray(part, x.dtype) for part in drafts[:2])
    low, high = (np.asarray(bound)[:, None] for bound in problem.bounds)
    slack = 4e-7 * np.abs(x)[:, None]
    reached = to - x[:, None]
    moved = np.broadcast_to(shift[:, None] != 0, to.shape)
    allowed = (by >= low) & (by <= high) & (reached >= low - slack) & (reached <= high + slack)

    def action(shift, target):
        return Action.do(target, moved) if problem.hard else Action.soft(shift)

    actions = (action(by, x[:, None] + by), action(reached, to))
    logit = by_bucket(
        lambda _, *users: _judge(problem.score, scale, problem.requirement, *users),
        *(tasks, met, *actions),
    )
    length = reached if problem.hard else by
    price, weights = problem.price(), np.asarray(problem.weights)[:, None]
    cost = np.asarray(price.of_weighted(weights * length / np.asarray(scale)))
    exact = np.asarray(price.of_weighted(weights[:, 0] * np.asarray(move)))
    valid = np.asarray(logit >= 0) & allowed.all(2)
    rows, way = np.arange(len(x)), chosen_way(valid, cost, exact)
    return (to if problem.hard else by)[rows, way], drafts.decimals[rows, way]
