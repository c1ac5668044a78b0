"""The loop over the stages, for all users, and the solver that it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.batching import by_bucket, map_users, over_devices, take, width
from pcr_jax.recourse import lanes
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal.moves import Moves
from pcr_jax.recourse.optimal.settings import (
    ADDED,
    ATTACKED,
    CLIMBERS,
    FIRST_CUTS,
    HOST_POINTS,
    MAX_ROUNDS,
    PARTS,
    POINTS,
    PUSH_LENGTHS,
    SCOUTS,
    Settings,
)
from pcr_jax.recourse.optimal.solver import Solver, State
from pcr_jax.recourse.optimal.stages import Climb, Push, Refine, Scan, Sweep, camp, first, narrow
from pcr_jax.recourse.problem import Problem
from pcr_jax.recourse.search import Found, Task
from pcr_jax.scm import SCM
from pcr_jax.scores import on_host


def _lanes(solver: Solver, points: int) -> int:
    """How many users at once, of whom so many points are looked at each."""
    most = HOST_POINTS if on_host(solver.score) else POINTS * width()
    return max(1, most // points)


class Sought(NamedTuple):
    """What one round has found so far, users first."""

    starts: Array  # (users, d) the cheapest favourable moves
    reached: Array  # (users,) whom the sweep, or a scan, has found something favourable
    sought: Array  # (users,) the same but for those who are favourable already
    spent: Array  # (users,) evaluations of ascents and scans
    each: Array | int  # those of the crossings and camps of a user who is sought


class Round(NamedTuple):
    """The stages of one round, for the users who are ``pending``; all leaves users first."""

    solver: Solver
    tasks: Task

    def lanes_of(self, num_moves: int) -> int:
        """How many users at once, of whom so many moves are judged each."""
        return _lanes(self.solver, self.solver.requirement.width(num_moves))

    def of(self, state: State, *more) -> Callable[[Array], tuple]:
        """Every user's task, state and more, by the user's number."""
        return lambda i: (*take((self.tasks, state), i), *(leaf[i] for leaf in more))

    def sweep(self, state: State, pending: Array) -> State:
        """1, for all who are pending."""
        # The furthest from being favourable, whose margins are the largest, take longest: first.
        ids = jnp.argsort(jnp.where(pending, -state.margin, 1.0), stable=True)
        return lanes.run(
            self.lanes_of(self.solver.num_rays),
            lambda problem, inner: inner.step(self.solver, problem[0]),
            lambda problem: Sweep(problem[1]),
            self.of(state),
            ids,
            pending.sum(),
            state,
        )

    def climb(self, state: State, pending: Array, reached: Array) -> tuple[Sought, Array]:
        """2 and 3, from what the sweep has reached; and who is scanned for want of a slope."""
        solver = self.solver
        num_users, num_nodes = self.tasks.x.shape
        num_fixed, num_hits, num_cuts = solver.moves.num_fixed, state.hits.shape[1], len(FIRST_CUTS)
        num_scouts, num_climbers = (num_cuts * min(n, num_fixed) for n in (SCOUTS, CLIMBERS))
        sought = reached & (state.level != 0)  # who is at 0 is favourable already
        still, nobody = jnp.zeros((num_users, num_nodes)), jnp.zeros(num_users, bool)
        users = (self.tasks, state)
        num = self.lanes_of(4 * num_hits)
        crossings = lanes.once(num, partial(narrow, solver), sought, users, still)
        unset = (
            jnp.zeros((num_users, num_climbers, num_nodes)),
            jnp.zeros((num_users, num_climbers)),
            nobody,
        )
        num = self.lanes_of(num_fixed + num_scouts)
        camps, costs, flat = lanes.once(
            num, partial(camp, solver), sought, (*users, crossings), unset
        )
        starts, climbed = lanes.run(
            self.lanes_of(2 * num_climbers),
            lambda problem, inner: inner.step(solver, *problem[:2]),
            lambda problem: Climb.begin(*problem[2:]),
            self.of(state, crossings, costs, camps),
            jnp.argsort(~sought, stable=True),
            sought.sum(),
            (crossings, jnp.zeros(num_users, int)),
        )
        spent = solver.spent(state, 4 * num_hits) + solver.spent(state, num_fixed)
        spent += solver.spent(state, num_scouts) + num_scouts * solver.has_slope
        first_time = solver.requirement.is_first(state.scenarios)
        unseen = sought & flat & starts.any(1) & first_time
        return Sought(starts, reached, sought, climbed, spent), unseen

    def scan(self, state: State, lost: Array, unseen: Array, found: Sought) -> Sought:
        """5, for those who are lost to the sweep, and those whom ascents saw nothing of."""
        solver, scanned = self.solver, lost | unseen
        starts = found.starts
        band = jnp.where(lost, Scan.band_of(solver), 0.0)
        top = jnp.where(lost, band, solver.moves.cost.of_weighted(starts * self.tasks.weights))
        better = lanes.run(
            _lanes(solver, solver.moves.num_scanned),
            lambda problem, inner: inner.step(solver, *problem[:2]),
            lambda problem: Scan(jnp.asarray(0.0), *problem[2:]),
            self.of(state, top, band),
            jnp.argsort(~scanned, stable=True),
            scanned.sum(),
            jnp.zeros_like(starts),
        )
        some = better.any(1)
        return Sought(
            starts=jnp.where(some[:, None], better, starts),
            reached=found.reached | some,
            sought=found.sought | some,
            spent=found.spent + scanned * solver.spent(state, solver.moves.num_scanned),
            each=found.each,
        )

    def refine(self, state: State, found: Sought) -> tuple[Array, Array]:
        """4: the moves, and the evaluations it took."""
        solver = self.solver
        return lanes.run(
            self.lanes_of(1 + len(PARTS) * solver.moves.num_targets(solver.has_slope)),
            lambda problem, inner: inner.step(solver, *problem[:2]),
            lambda problem: Refine.begin(problem[2]),
            self.of(state, found.starts),
            jnp.argsort(~found.sought, stable=True),
            found.sought.sum(),
            (found.starts, jnp.zeros(len(found.starts), int)),
        )

    def run(self, state: State, pending: Array) -> tuple[State, Array]:
        """One round: the states, and who is pending still."""
        solver = self.solver
        state = self.sweep(state, pending)
        reached = pending & jnp.isfinite(state.cost)
        at_once = reached & (state.level == 0)
        found, unseen = self.climb(state, pending, reached)
        if not solver.closer:
            found = self.scan(state, pending & ~reached, unseen, found)
        move, refined = self.refine(state, found)
        size = solver.moves.cost.of_weighted(move * self.tasks.weights)
        size = jnp.where(move.any(1), size, jnp.inf)
        cost = jnp.where(at_once, 0.0, jnp.where(found.reached, size, state.cost))
        crossed = found.reached & jnp.isfinite(cost)
        state = state._replace(
            move=jnp.where(crossed[:, None], move, state.move),
            cost=cost,
            solved=state.solved | (crossed & (not solver.requirement.grows)),
            evaluations=state.evaluations + found.spent + found.sought * found.each + refined,
            # Rounding can hide the crossing that the sweep has seen: it goes on.
            level=jnp.where(found.reached & ~crossed, state.level + 1, state.level),
        )
        if solver.requirement.grows:
            num = _lanes(solver, ATTACKED)
            state = lanes.once(num, solver.attack, crossed, (self.tasks, state), state)
        pending = found.reached & ~state.solved & (state.level < len(solver.levels))
        pending &= state.evaluations < solver.settings.max_evaluations
        if not solver.closer and solver.requirement.grows:
            pending &= ~solver.requirement.stuck(state.scenarios)
        return state, pending

    def push(self, state: State, short: Array) -> State:
        """8, for those who fell short."""
        solver = self.solver
        size = solver.moves.cost.of_weighted(state.move * self.tasks.weights)
        return lanes.run(
            self.lanes_of(len(PUSH_LENGTHS) * solver.num_rays),
            lambda problem, inner: inner.step(solver, problem[0]),
            lambda problem: Push(problem[1], problem[2], jnp.asarray(0)),
            self.of(state, size),
            jnp.argsort(~short, stable=True),
            short.sum(),
            state,
        )


def solve(solver: Solver, pending: Array, tasks: Task, state: State) -> State:
    """Search on for the users who are ``pending`` (num_users,); the others' states stay.

    ``tasks`` and ``state`` have a leading axis (num_users,). A user ends solved, stuck (of whom the
    requirement is to look closer), or with the best so far in ``move``.
    """
    stages = Round(solver, tasks)

    def one_round(carry):
        state, pending, number = carry
        return *stages.run(state, pending), number + 1

    def unfinished(carry):
        _, pending, number = carry
        return pending.any() & (number < MAX_ROUNDS)

    wanted = pending
    pending = pending & (state.evaluations < solver.settings.max_evaluations)
    state, _, _ = jax.lax.while_loop(unfinished, one_round, (state, pending, jnp.asarray(0)))
    if not solver.closer:
        return state
    return stages.push(state, wanted & ~state.solved & state.move.any(1))


@jax.jit
def begin(solver: Solver, tasks: Task) -> State:
    """What is known of all users before the search."""

    def first_of(solver, tasks):
        return map_users(partial(first, solver), tasks)

    return over_devices(first_of, solver, tasks)


@jax.jit
def search(solver: Solver, pending: Array, tasks: Task, state: State) -> State:
    """Go on from ``state`` for the users who are ``pending`` (num_users,)."""
    if solver.closer:
        closer = solver.requirement.closer(tasks.x.shape[1])
        assert closer is not None
        solver = replace(solver, requirement=closer)
    return over_devices(solve, solver, pending, tasks, state)


@jax.jit
def _add(solver, pending, tasks, state, scenario):
    """One more scenario to withstand for the users who are ``pending``."""

    def add(solver, pending, *users):
        return lanes.once(_lanes(solver, ADDED), solver.add, pending, users, users[1])

    return over_devices(add, solver, pending, tasks, state, scenario)


@dataclass(frozen=True)
class Optimal(Settings):
    """The cheapest valid action, to a tolerance; see `pcr_jax.recourse.optimal`.

    Parameters
    ----------
    max_cost, first_level, growth, tolerance, max_evaluations
        See `Settings`.
    """

    def check(self, problem: Problem) -> None:
        """Raise for a learning rate, which is Algorithm 1's."""
        if problem.learning_rate is not None:
            raise ValueError("Expected no learning_rate with the optimal solver; got one.")

    def search(self, problem: Problem, worlds: SCM) -> Found:
        """The cheapest action of every user that the search itself cannot break."""
        solver, tasks = self.solver(problem), problem.tasks(worlds)
        everybody = np.ones(len(tasks.x), bool)
        state = by_bucket(lambda _, tasks: begin(solver, tasks), tasks)
        state = self._run(solver, everybody, tasks, state)
        return self._closer(solver, everybody, tasks, state)

    def go_on(
        self, problem: Problem, worlds: SCM, found: Found, broken: np.ndarray, scenario: Array
    ) -> Found:
        """Search on for the users who are ``broken`` (num_users,) by ``scenario``."""
        solver, tasks = self.solver(problem), problem.tasks(worlds)
        state = by_bucket(
            lambda real, broken, *users: _add(solver, real & broken, *users),
            *(broken, tasks, found.state, scenario),
        )
        return self._closer(solver, broken, tasks, state, again=True)

    def solver(self, problem: Problem) -> Solver:
        """What all users have in common."""
        num_nodes = len(problem.scale)
        unit = Cost(problem.scale, jnp.ones(num_nodes), problem.cost)
        size = num_nodes if problem.max_set_size is None else problem.max_set_size
        moves = Moves(unit, problem.hard, min(size, num_nodes))
        return Solver(self, problem.score, moves, problem.requirement)

    def _run(self, solver, pending, tasks, state):
        """`search`, for few numbers of users."""
        return by_bucket(
            lambda real, pending, *users: search(solver, real & pending, *users),
            *(pending, tasks, state),
        )

    def _closer(self, solver, pending, tasks, state, again=False):
        """Look closer at those who are stuck, or, ``again``, at all who are pending."""
        requirement = solver.requirement
        if not again:
            pending = pending & np.asarray(requirement.stuck(state.scenarios))
        if requirement.grows and pending.any():
            closer = requirement.closer(tasks.x.shape[1]) is not None
            state = self._run(replace(solver, closer=closer), pending, tasks, state)
        exhausted = state.evaluations >= self.max_evaluations
        return Found(
            move=state.move,
            scenarios=state.scenarios,
            going_on=state.solved & requirement.grows,
            exhausted=exhausted,
            flat=jnp.zeros_like(exhausted),
            evaluations=state.evaluations,
            state=state,
        )
