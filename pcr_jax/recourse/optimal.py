"""The cheapest valid action, to a stated tolerance, whether or not the score has gradients.

Per user, in units of cost:

1. *Sweep.* At rising levels of cost, the score is evaluated at the points where fixed directions
   (signed axes and a lattice between them) and a path of steepest ascent meet that level, until
   one is favourable.
2. *Narrow.* Where the directions found favourable cross the boundary, to a quarter of the level.
3. *Climb.* Favourable regions thinner than the gaps between the directions: ascents on the score at
   costs just below, and well below, that of the cheapest crossing, along the directions that are
   best just below it; lower still, as often as an ascent becomes favourable.
4. *Refine.* From the cheapest move so far, descent on the cost within the favourable region: at a
   cost lower by a share delta, moves towards and away from every axis and, where the score has a
   gradient, towards the optimum of the linearised problem; delta shrinks where none is favourable.
5. *Attack.* With a ball of perturbations (Eq. 2 of the paper), "favourable" means so for every
   perturbation of a working set, at first the centre. An attack on the refined action adds the
   perturbation that breaks it, and the sweep goes on from there, until the attack fails. These are
   cutting planes: every relaxed problem's optimum is a lower bound on the robust one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action
from pcr_jax.batching import map_users, take, width
from pcr_jax.classifiers import differentiable
from pcr_jax.recourse import lanes
from pcr_jax.recourse.adversary import Ball, attack, unit
from pcr_jax.recourse.cost import Cost
from pcr_jax.scm import SCM

_MAX_DIRECTIONS = 60
_POINTS = 4096  # evaluated at once, for each unit of `width`
_PROBES = 8  # random directions around the last solution
_HITS = 8  # directions followed to the boundary
# Shares of the cost that ascents have less, at first and after a success. Just below the cost they
# see the most regions, far below it those that are much cheaper.
_FIRST_CUTS, _CUTS = (0.02, 0.1, 0.2), (0.02, 0.05, 0.1)
_SCOUTS = 8  # for each cut, directions from which the score is climbed by one step
_CLIMBERS = 3  # of them climb on
_CLIMBS = 12  # steps without success
_FIRST_CLIMB, _LAST_CLIMB = 0.3, 0.006  # lengths of steps, of the cost
_PARTS = (0.03, 0.2, 1.0)  # of the way to a target
_MAX_STEPS = 60
_FIRST_SHARE = 0.03
_HOLD = 1e-3  # of the cost, for an intervention that moves nothing
_FEW = 4  # perturbations to withstand before the ball is outlined
_OUTLINE = 128  # random points of its surface, besides poles or corners
_OUTLINE_INFLATION = 1.08  # so that nothing of the ball sticks out between them, for 3 nodes
_WORKING_SET = 16  # perturbations besides
_MAX_ROUNDS = 40
_MARGIN = 1e-5
_INFLATION = 1.005  # of the ball, so that later, stronger attacks fail as well


@dataclass(frozen=True)
class Optimal:
    """Settings of the solver; see the module.

    Parameters
    ----------
    max_cost : float
        Dearer actions are not looked for.
    first_level, growth : float
        Levels of cost are ``first_level`` apart, from where it is more by this share of the cost.
    tolerance : float
        Refinement ends where no move lowers the cost by this share.
    """

    max_cost: float = 12.0
    first_level: float = 0.1
    growth: float = 0.08
    tolerance: float = 3e-3

    def __post_init__(self):
        for name in ("max_cost", "first_level", "growth", "tolerance"):
            _checks.positive(getattr(self, name), name)

    def levels(self) -> np.ndarray:
        """The levels of cost, from 0 on; shape (num_levels,)."""
        levels = [0.0]
        while levels[-1] < self.max_cost:
            step = max(self.first_level, self.growth * levels[-1])
            levels.append(min(levels[-1] + step, self.max_cost))
        return np.array(levels, np.float32)


def lattice(num_nodes: int, norm: int, max_set_size: int) -> np.ndarray:
    """Integer vectors of L1 norm ``norm`` with at most that many entries; shape (n, d)."""
    vectors = []
    for size in range(1, min(norm, num_nodes, max_set_size) + 1):
        for members in combinations(range(num_nodes), size):
            for cuts in combinations(range(1, norm), size - 1):
                parts = np.diff([0, *cuts, norm])
                for signs in product((1, -1), repeat=size):
                    vector = np.zeros(num_nodes)
                    vector[list(members)] = parts * signs
                    vectors.append(vector)
    return np.array(vectors)


def directions(num_nodes: int, max_set_size: int) -> np.ndarray:
    """Signed axes and, as long as they are not too many, ever finer lattices between them."""
    chosen = axes = lattice(num_nodes, 1, 1)
    for norm in range(2, 6):
        finer = lattice(num_nodes, norm, max_set_size)
        if len(finer) > _MAX_DIRECTIONS:
            break
        chosen = np.unique(np.concatenate([axes * norm, finer]), axis=0)
    return chosen.astype(np.float32)


class Task(NamedTuple):
    """One user's problem. Moves are in units of ``scale``."""

    scm: SCM
    x: Array  # (d,), natural units
    low: Array  # (d,), the smallest move
    high: Array  # (d,)
    weights: Array  # (d,)


class State(NamedTuple):
    """What is known about one user."""

    level: Array  # () the level of cost that the sweep has come to
    path: Array  # (d,) end of the steepest ascent
    move: Array  # (d,) the last solution
    cost: Array  # () its cost; infinite where there is none
    hits: Array  # (hits, d) favourable moves of the last level, the deepest first; 0 for none
    deltas: Array  # (working set, d) perturbations to withstand, those of the outline aside
    num_deltas: Array  # () of those to withstand, with the outline
    margin: Array  # () favourable means a logit of at least this
    solved: Array  # () bool
    evaluations: Array  # () of the score or its gradient


class Solver(NamedTuple):
    """What all users have in common."""

    settings: Optimal
    score: Callable
    cost: Cost
    ball: Ball | None
    hard: bool
    max_set_size: int
    num_nodes: int
    outline: Array  # (n, d) perturbations that outline the ball, the same for all users

    @property
    def levels(self) -> Array:
        """The levels of cost, from 0 on; shape (num_levels,)."""
        return jnp.asarray(self.settings.levels())

    def delta(self, state: State, number: Array) -> Array:
        """Perturbations (..., d) by their number (...): a few, the outline, those found since."""
        if self.ball is None:
            return state.deltas[number]
        of_outline, size = number - _FEW, len(self.outline)
        own = state.deltas[jnp.where(of_outline < size, number, number - size)]
        outlining = (of_outline >= 0) & (of_outline < size)
        return jnp.where(outlining[..., None], self.outline[of_outline], own)

    def action(self, task: Task, move: Array) -> Action:
        """The action (d,) of a move (d,) in units of ``scale``."""
        return Action.by(task.x, move * self.cost.scale, self.hard)

    def value(self, task: Task, state: State, move: Array, delta: Array) -> Array:
        """Logit, above the margin, after the perturbation ``delta`` (d,), then ``move`` (d,)."""
        x = task.x
        if self.ball is not None:
            x = task.scm.counterfactual(x, Action.soft(delta * self.cost.scale))
        logit = self.score(task.scm.counterfactual(x, self.action(task, move)))
        allowed = (move != 0).sum() <= self.max_set_size
        return jnp.where(jnp.isnan(logit) | ~allowed, -jnp.inf, logit - state.margin)

    def values(self, task: Task, state: State, moves: Array) -> tuple[Array, Array]:
        """Lowest `value` of moves (n, d) over the working set, and where; shapes (n,)."""

        def under(number):
            delta = self.delta(state, number)
            return jax.vmap(lambda move: self.value(task, state, move, delta))(moves)

        def another(carry):
            number, lowest, worst = carry
            values = under(number)
            worst = jnp.where(values < lowest, number, worst)
            return number + 1, jnp.minimum(lowest, values), worst

        nowhere = jnp.zeros(len(moves), int)
        if self.ball is None:
            return under(0), nowhere
        first = (jnp.asarray(0), jnp.full(len(moves), jnp.inf), nowhere)
        # As many as there are, not as there is room for.
        return jax.lax.while_loop(lambda carry: carry[0] < state.num_deltas, another, first)[1:]

    def size(self, task: Task, moves: Array) -> Array:
        """Cost of moves (..., d); shape (...)."""
        return self.cost.of_weighted(moves * task.weights)

    def at_cost(self, task: Task, moves: Array, cost: Array) -> Array:
        """The largest entries of ``moves`` (n, d), stretched to that cost, within the bounds."""
        moves = self.largest(task, moves)
        size = self.size(task, moves)
        factor = cost / jnp.where(size > 0, size, jnp.inf)
        return jnp.clip(moves * factor[:, None], task.low, task.high)

    def within(self, task: Task, moves: Array, costs: Array) -> Array:
        """Of at most those costs (n,), nearest to the largest entries of ``moves`` (n, d)."""
        project = optax.projections.projection_l1_ball
        if self.cost.norm == "l2":
            project = optax.projections.projection_l2_ball
        weighted = self.largest(task, jnp.clip(moves, task.low, task.high)) * task.weights
        nearest = jax.vmap(project)(weighted, costs) / task.weights
        return jnp.clip(nearest, task.low, task.high)

    def largest(self, task: Task, moves: Array) -> Array:
        """As many entries of ``moves`` (n, d) as features may be intervened on; 0 elsewhere."""
        if self.max_set_size == self.num_nodes:
            return moves
        weighted = jnp.abs(moves * task.weights)
        least = jax.lax.top_k(weighted, self.max_set_size)[0][:, -1:]
        return jnp.where(weighted >= least, moves, 0.0)

    # 1. Sweep

    def rays(self, task: Task, state: State) -> Array:
        """Directions (n, d) to sweep: the path's neighbours, the fixed, those of the solution."""
        rays = [self.path_ends(task, state), self.fixed(task)]
        if self.ball is not None:  # the robust optimum is not far from one of less perturbations
            length = self.size(task, state.move) / task.weights
            axes = length * jnp.eye(self.num_nodes)
            # Others at every level: perturbations added together may bind together.
            shape = (len(self.levels), _PROBES, self.num_nodes)
            noise = np.random.default_rng(1).normal(size=shape)
            probes = 0.15 * length * jnp.asarray(noise, length.dtype)[state.level]
            rays += [state.move[None], state.move + probes]
            rays += [state.move + part * axes for part in (-0.3, -0.1, 0.1, 0.3)]
        return jnp.concatenate(rays)

    def fixed(self, task: Task) -> Array:
        """The fixed directions, shape (n, d)."""
        return jnp.asarray(directions(self.num_nodes, self.max_set_size)) / task.weights

    def path_ends(self, task: Task, state: State) -> Array:
        """The path prolonged along every signed axis to the next level; shape (2d, d)."""
        levels = self.levels
        step = levels[state.level] - levels[jnp.maximum(state.level - 1, 0)]
        axes = jnp.eye(self.num_nodes) / task.weights
        ends = state.path + step * jnp.concatenate([axes, -axes])
        return jnp.clip(ends, task.low, task.high)

    def sweep(self, task: Task, state: State) -> tuple[State, Array, State]:
        """Judge one level of cost; ends at the first with a favourable point, or the last."""
        levels = self.levels
        moves = self.at_cost(task, self.rays(task, state), levels[state.level])
        values, _ = self.values(task, state, moves)
        state = state._replace(evaluations=state.evaluations + len(moves) * state.num_deltas)
        deepest, chosen = jax.lax.top_k(values, len(state.hits))
        favourable = deepest >= 0
        hit = favourable.any()  # of all: XLA sorts everything where the deepest is taken alone
        judged = state._replace(
            cost=jnp.where(hit, levels[state.level], jnp.inf),
            hits=jnp.where(favourable[:, None], moves[chosen], 0.0),
        )
        steepest = moves[jnp.argmax(values[: 2 * self.num_nodes])]
        onward = state._replace(level=state.level + 1, path=steepest)
        return onward, hit | (state.level == len(levels) - 1), judged

    # 2. Narrow

    def narrow(self, task: Task, state: State) -> Array:
        """The cheapest crossing along the hits; shape (d,); 0 if there is none."""
        levels = self.levels
        level, below = levels[state.level], levels[jnp.maximum(state.level - 1, 0)]
        parts = [below + part * (level - below) for part in (0.25, 0.5, 0.75, 1.0)]
        moves = jnp.concatenate([self.at_cost(task, state.hits, part) for part in parts])
        favourable = (self.values(task, state, moves)[0] >= 0) & moves.any(1)
        cost = jnp.where(favourable, self.size(task, moves), jnp.inf)
        cheapest = jnp.argmin(cost)
        return jnp.where(favourable[cheapest], moves[cheapest], 0.0)

    # 3. Climb

    def camp(self, task: Task, state: State, crossing: Array) -> tuple[Array, Array]:
        """Where ascents begin: a step up from the best directions, (climbers, d); their costs."""
        costs = (1 - jnp.array(_FIRST_CUTS)) * self.size(task, crossing)
        rays = self.fixed(task)
        values, bindings = self.values(task, state, self.at_cost(task, rays, costs[0]))
        best = jax.lax.top_k(values, min(_SCOUTS, len(rays)))[1]
        which = jnp.tile(best, len(_FIRST_CUTS))
        costs = jnp.repeat(costs, len(best))
        moves = self.at_cost(task, rays[which], costs)
        ways, _ = self.ways(self.slopes(task, state, moves, bindings[which])[1], 0)
        above = self.step(task, moves, ways, costs, 0)
        values = self.values(task, state, above)[0].reshape(-1, len(best))
        highest = jax.lax.top_k(values, min(_CLIMBERS, len(best)))[1]
        highest += len(best) * jnp.arange(len(values))[:, None]
        return above[highest.ravel()], costs[highest.ravel()]

    def slopes(self, task: Task, state: State, moves: Array, bindings: Array) -> tuple:
        """Values (n,) of moves (n, d) under a perturbation each; slopes (n, d), 0 if unknown."""
        deltas = self.delta(state, bindings)
        if not differentiable(self.score):
            values = jax.vmap(self.value, (None, None, 0, 0))(task, state, moves, deltas)
            return values, jnp.zeros_like(moves)
        both = jax.vmap(jax.value_and_grad(self.value, argnums=2), (None, None, 0, 0))
        values, slopes = both(task, state, moves, deltas)
        return values, jnp.nan_to_num(slopes / task.weights)

    def ways(self, slopes: Array, number) -> tuple[Array, Array]:
        """Where the score rises (n, d), and where that is unknown: there, fixed random ways."""
        noise = np.random.default_rng(0).normal(size=(_CLIMBS + 1, *slopes.shape))
        flat = ~slopes.any(1)
        return jnp.where(flat[:, None], jnp.asarray(noise, slopes.dtype)[number], slopes), flat

    def step(self, task: Task, moves: Array, ways: Array, costs: Array, number) -> Array:
        """Moves (n, d) further along ``ways``, of at most those costs; steps become shorter."""
        lengths = costs * _FIRST_CLIMB * (_LAST_CLIMB / _FIRST_CLIMB) ** (number / _CLIMBS)
        steps = lengths[:, None] * jax.vmap(unit)(ways) / task.weights
        return self.within(task, moves + steps, costs)

    def climb(self, task: Task, state: State, inner: tuple) -> tuple[tuple, Array, tuple]:
        """One step of the ascents; see the module."""
        best, costs, moves, values, proposals, number, evaluations = inner
        if self.ball is None:  # in one pass
            proposed, slopes = self.slopes(task, state, proposals, jnp.zeros(len(moves), int))
            evaluations += len(moves)
        else:
            proposed, bindings = self.values(task, state, proposals)
            _, slopes = self.slopes(task, state, proposals, bindings)
            evaluations += len(moves) * (state.num_deltas + differentiable(self.score))
        ways, flat = self.ways(slopes, number)
        back = flat & (proposed < values)  # where no slope leads on, only better moves are kept
        moves = jnp.where(back[:, None], moves, proposals)
        values = jnp.where(back, values, proposed)
        favourable = jnp.where(values >= 0, self.size(task, moves), jnp.inf)
        cheapest = jnp.argmin(favourable)
        hit = values[cheapest] >= 0
        best = jnp.where(hit, moves[cheapest], best)
        ended = (~hit & (number == _CLIMBS)) | ~best.any()
        cuts = jnp.repeat(jnp.array(_CUTS), len(moves) // len(_CUTS))
        costs = jnp.where(hit, (1 - cuts) * self.size(task, best), costs)
        values = jnp.where(hit, -jnp.inf, values)
        number = jnp.where(hit, 0, number + 1)
        proposals = self.step(task, moves, ways, costs, number)
        inner = (best, costs, moves, values, proposals, number, evaluations)
        return inner, ended, (best, evaluations)

    # 4. Refine

    def targets(self, task: Task, state: State, move: Array, binding: Array) -> Array:
        """Moves to go towards: less of each node, more of each, the linearised optimum."""
        size = self.size(task, move)
        axes = size * jnp.eye(self.num_nodes) / task.weights
        without = move * (1 - jnp.eye(self.num_nodes))
        chosen = [without, axes, -axes]
        if self.hard:  # to set a feature to what it is keeps its causes from changing it
            chosen.append(jnp.where(move == 0, _HOLD * size / task.weights, move)[None])
        if self.max_set_size < self.num_nodes:  # one node in place of another
            spent = jnp.abs(move * task.weights)[:, None, None]
            other = spent * jnp.eye(self.num_nodes) / task.weights
            for swapped in (without[:, None] + other, without[:, None] - other):
                chosen.append(swapped.reshape(-1, self.num_nodes))
        if differentiable(self.score):
            delta = self.delta(state, binding)
            gradient = jax.grad(self.value, argnums=2)(task, state, move, delta)
            gain = jnp.nan_to_num(gradient / task.weights)
            if self.cost.norm == "l2":
                chosen.append(gain[None] / task.weights)
            else:
                room = jnp.where(gain > 0, task.high, -task.low) * task.weights
                room = jnp.minimum(room, size)
                order = jnp.argsort(-jnp.abs(gain))
                spent = jnp.cumsum(room[order]) - room[order]
                part = jnp.clip(size - spent, 0.0, room[order])
                filled = jnp.zeros_like(part).at[order].set(part)
                chosen.append((jnp.sign(gain) * filled / task.weights)[None])
        targets = jnp.clip(jnp.concatenate(chosen), task.low, task.high)
        return self.at_cost(task, targets, size)

    @property
    def num_targets(self) -> int:
        """How many `targets` there are."""
        swaps = 2 * self.num_nodes**2 * (self.max_set_size < self.num_nodes)
        return 3 * self.num_nodes + swaps + self.hard + differentiable(self.score)

    def refine(self, task: Task, state: State, inner: tuple) -> tuple[tuple, Array, tuple]:
        """One step of the descent on the cost; see the module."""
        move, binding, share, evaluations = inner
        targets = self.targets(task, state, move, binding)
        parts = jnp.array(_PARTS)
        near = move + parts[:, None, None] * (targets - move)
        moves = jnp.concatenate([move[None], near.reshape(-1, self.num_nodes)])
        moves = self.at_cost(task, moves, (1 - share) * self.size(task, move))
        values, bindings = self.values(task, state, moves)
        evaluations += len(moves) + differentiable(self.score)
        deepest = jnp.argmax(values)
        better = values[deepest] >= 0
        moved = jnp.where(better, moves[deepest], move)
        binding = jnp.where(better, bindings[deepest], binding)
        ended = (~better & (share <= self.settings.tolerance)) | (
            evaluations >= _MAX_STEPS * len(moves)
        )
        ended |= ~move.any()
        share = jnp.where(better, jnp.minimum(2 * share, 0.3), share / 3)
        return (moved, binding, share, evaluations), ended, (moved, evaluations * state.num_deltas)

    # 5. Attack

    def withstand(self, task: Task, state: State) -> State:
        """Attack the solution: solved if it withstands, one more perturbation if not."""
        assert self.ball is not None
        wider = Ball(_INFLATION * self.ball.radius, self.ball.norm)
        action = self.action(task, state.move)
        scale = self.cost.scale
        delta, logit = attack(self.score, task.scm, task.x, action, scale, wider)
        withstands = logit >= 0
        # Perturbations that come one by one take long to outline the ball to a score that is flat
        # here, and attacks on it see little.
        flat = jnp.asarray(True)
        if differentiable(self.score):
            slope = jax.grad(self.value, argnums=2)(task, state, state.move, delta)
            flat = ~slope.any()
        size, room = len(self.outline), len(state.deltas)
        outlined = state.num_deltas >= _FEW + size
        outline = ~outlined & jnp.where(withstands, flat, state.num_deltas == _FEW)
        num_own = jnp.where(outline, _FEW, state.num_deltas - outlined * size)
        # A full working set gives up the perturbation that binds least, of those added since.
        each = jax.vmap(lambda d: self.value(task, state, state.move, d))(state.deltas[_FEW:])
        place = jnp.where(num_own == room, _FEW + jnp.argmax(each), num_own)
        solved = withstands & ~outline
        levels = self.levels
        # The robust optimum costs no less than this relaxed one.
        level = jnp.clip((levels < state.cost).sum(), 1, len(levels) - 1)
        broken = state._replace(
            deltas=state.deltas.at[place].set(delta),
            num_deltas=jnp.minimum(num_own + 1, room) + (outlined | outline) * size,
            level=level,
            solved=jnp.asarray(False),
        )
        return jax.tree.map(
            lambda a, b: jnp.where(solved, a, b), state._replace(solved=solved), broken
        )


def outline(ball: Ball | None, num_nodes: int) -> Array:
    """Perturbations that outline the ball, shape (n, d); none without a ball."""
    if ball is None:
        return jnp.zeros((0, num_nodes))
    return _OUTLINE_INFLATION * ball.surface(_OUTLINE, num_nodes)


def _lanes(points: int) -> int:
    return max(1, _POINTS * width() // points)


def solve(
    solver: Solver, real: Array, scms: SCM, x: Array, low: Array, high: Array, weights: Array
):
    """The cheapest favourable move of every user, and whether there is one.

    Parameters
    ----------
    real : Array
        Shape (num_users,): for whom to look; the others are there to fill up.
    scms : SCM
        With leading axis (num_users,).
    x, low, high, weights : Array
        Shape (num_users, d); ``low`` and ``high`` in units of ``scale``.

    Returns
    -------
    move : Array
        Shape (num_users, d), units of ``scale``; 0 where none was found.
    found, evaluations : Array
        Shape (num_users,); evaluations of the score or its gradient, those of attacks aside.
    """
    num_users, num_nodes = x.shape
    tasks = Task(scms, x, low, high, weights)
    robust = solver.ball is not None
    zero = jnp.asarray(0)
    room = _FEW + _WORKING_SET if robust else 1
    num_fixed = len(directions(num_nodes, solver.max_set_size))
    num_cuts = len(_FIRST_CUTS)
    num_scouts, num_climbers = (num_cuts * min(n, num_fixed) for n in (_SCOUTS, _CLIMBERS))
    num_rays = num_fixed + 2 * num_nodes + (1 + _PROBES + 4 * num_nodes) * robust
    num_hits = min(_HITS, num_rays)

    def begin(task):
        still = jnp.zeros(num_nodes)
        logit = solver.score(task.x)
        return State(
            level=jnp.where(logit >= 0, 0, 1),
            path=still,
            move=still,
            cost=jnp.asarray(jnp.inf),
            deltas=jnp.zeros((room, num_nodes)),
            num_deltas=jnp.asarray(1),
            margin=jnp.where(logit >= 0, 0.0, _MARGIN * (1 + jnp.abs(logit))),
            hits=jnp.zeros((num_hits, num_nodes)),
            solved=jnp.asarray(False),
            evaluations=zero,
        )

    def of(state):
        """Every user's task and state, by the user's number."""
        return partial(take, (tasks, state))

    def once(function):
        """A step at which every problem ends."""
        return lambda problem, _: ((), jnp.asarray(True), function(*problem))

    def nothing(_):
        return ()

    def one_round(carry):
        state, pending, number = carry
        # The furthest from being favourable, whose margins are the largest, take longest: first.
        ids = jnp.argsort(jnp.where(pending, -state.margin, 1.0), stable=True)
        count = pending.sum()
        state = lanes.run(
            _lanes(num_rays),
            lambda problem, state: solver.sweep(problem[0], state),
            lambda problem: problem[1],
            of(state),
            ids,
            count,
            state,
        )
        reached = pending & jnp.isfinite(state.cost)
        at_once = reached & (state.level == 0)  # favourable already
        sought = reached & ~at_once
        ids, count = jnp.argsort(~sought, stable=True), sought.sum()
        crossings = lanes.run(
            _lanes(4 * num_hits),
            once(solver.narrow),
            nothing,
            of(state),
            ids,
            count,
            jnp.zeros((num_users, num_nodes)),
        )
        camps, costs = lanes.run(
            _lanes(num_fixed + num_scouts),
            once(solver.camp),
            nothing,
            lambda i: (*of(state)(i), crossings[i]),
            ids,
            count,
            (jnp.zeros((num_users, num_climbers, num_nodes)), jnp.zeros((num_users, num_climbers))),
        )
        unknown = jnp.full(num_climbers, -jnp.inf)
        starts, climbed = lanes.run(
            _lanes(2 * num_climbers),
            lambda problem, inner: solver.climb(*problem[:2], inner),
            lambda problem: (*problem[2:], unknown, problem[4], zero, zero),
            lambda i: (*of(state)(i), crossings[i], costs[i], camps[i]),
            ids,
            count,
            (crossings, jnp.zeros(num_users, int)),
        )
        move, refined = lanes.run(
            _lanes(1 + len(_PARTS) * solver.num_targets),
            lambda problem, inner: solver.refine(*problem[:2], inner),
            lambda problem: (problem[2], zero, jnp.asarray(_FIRST_SHARE), zero),
            lambda i: (*of(state)(i), starts[i]),
            ids,
            count,
            (starts, jnp.zeros(num_users, int)),
        )
        spent = (4 * num_hits + num_fixed + num_scouts) * state.num_deltas
        spent += num_scouts * differentiable(solver.score)
        spent = climbed + refined + sought * spent
        size = solver.cost.of_weighted(move * weights)
        size = jnp.where(move.any(1), size, jnp.inf)
        cost = jnp.where(at_once, 0.0, jnp.where(reached, size, state.cost))
        crossed = reached & jnp.isfinite(cost)
        state = state._replace(
            move=jnp.where(crossed[:, None], move, state.move),
            cost=cost,
            solved=state.solved | (crossed & (not robust)),
            evaluations=state.evaluations + spent,
            # Rounding can hide the crossing that the sweep has seen: it goes on.
            level=jnp.where(reached & ~crossed, state.level + 1, state.level),
        )
        if robust:
            ids, count = jnp.argsort(~crossed, stable=True), crossed.sum()
            withstand = once(solver.withstand)
            state = lanes.run(_lanes(200), withstand, nothing, of(state), ids, count, state)
        pending = reached & ~state.solved & (state.level < len(solver.levels))
        return state, pending, number + 1

    def unfinished(carry):
        _, pending, number = carry
        return pending.any() & (number < _MAX_ROUNDS)

    carry = (map_users(begin, tasks), real, jnp.asarray(0))
    state, _, _ = jax.lax.while_loop(unfinished, one_round, carry)
    found = jnp.isfinite(state.cost)
    return jnp.where(found[:, None], state.move, 0.0), found, state.evaluations
