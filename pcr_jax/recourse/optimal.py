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
5. *Scan.* Where the score has no slope, of which steps and saturated units leave none, ascents see
   nothing: pairs of features in many proportions at many costs below the cheapest found.
6. *Attack.* With a ball of perturbations (Eq. 2 of the paper), "favourable" means so for every
   perturbation of a working set, at first the centre. An attack on the refined action adds the
   perturbation that breaks it, and the sweep goes on from there, until the attack fails. These are
   cutting planes: every relaxed problem's optimum is a lower bound on the robust one.
7. *Crowd.* Whom a few perturbations do not settle, and whose score is flat at the solution, go on
   with fixed points that outline the ball. A move must first withstand the perturbations found so
   far; of those that do, the deepest are held against the outline.
8. *Push.* Whom that does not settle either, within `max_evaluations` or before the levels end, are
   given the cheapest of longer moves that withstands the same attack: it works, and may be dear.

A move counts as favourable from a margin of rounding on, relative to how much the score varies
around the user; a logit of exactly 0, which a score in steps can have, needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action
from pcr_jax.batching import by_bucket, map_users, over_devices, take, width
from pcr_jax.classifiers import differentiable, on_host
from pcr_jax.recourse import lanes
from pcr_jax.recourse.adversary import Ball, attack, unit
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.search import Found, Task

_MAX_DIRECTIONS = 60
_POINTS = 4096  # evaluated at once, for each unit of `width`
_HOST_POINTS = 512  # the same of a model on the host, which pays for lanes that idle
_ATTACKED = 200  # points that an attack looks at together
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
_WORKING_SET = 20  # perturbations besides the outline
_LOOKED_AT = 9  # moves, of those that withstand the working set, held against the outline
_MAX_ROUNDS = 40
_MARGIN = 1e-5  # of the score's variation around the user
INFLATION = 1.005
"""Of the ball that is searched, so that later, stronger attacks fail as well."""
_SHARES = 16  # proportions of two features in a scan
_SCANNED_COSTS = 32  # costs in a scan
_SCANNED_FEATURES = 4  # those whose pairs are scanned
_BANDS = 8  # of costs, scanned one by one for those to whom the sweep finds nothing
_PUSHES = 24  # longer moves that are attacked, one after the other
_PUSHED = 32  # of which so many are held against the outline at a time
_PUSH_LENGTHS = (1.0, 1.01, 1.025, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.75, 2.0, 3.0)  # of the cost


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
    max_evaluations : int
        Of the score or its gradient, per user: the search ends, with the best so far, in the round
        in which it has made so many.
    """

    max_cost: float = 12.0
    first_level: float = 0.1
    growth: float = 0.08
    tolerance: float = 3e-3
    max_evaluations: int = 1_000_000

    def __post_init__(self):
        for name in ("max_cost", "first_level", "growth", "tolerance"):
            _checks.positive(getattr(self, name), name, ())
        _checks.count(self.max_evaluations, "max_evaluations")

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


class State(NamedTuple):
    """What is known about one user."""

    level: Array  # () the level of cost that the sweep has come to
    path: Array  # (d,) end of the steepest ascent
    move: Array  # (d,) the last solution
    cost: Array  # () its cost; infinite where there is none
    hits: Array  # (hits, d) favourable moves of the last level, the deepest first; 0 for none
    deltas: Array  # (working set, d) perturbations to withstand, those of the outline aside
    num_deltas: Array  # () how many of them there are
    margin: Array  # () favourable means a logit of at least this, or of exactly 0
    solved: Array  # () bool
    crowded: Array  # () bool: a few perturbations do not settle it
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
    outline: Array  # (n, d) perturbations that outline the ball, for the crowded; else n is 0

    @property
    def crowded(self) -> bool:
        """Whether the users are those whom a few perturbations do not settle."""
        return len(self.outline) > 0

    @property
    def levels(self) -> Array:
        """The levels of cost, from 0 on; shape (num_levels,)."""
        return jnp.asarray(self.settings.levels())

    def delta(self, state: State, number: Array) -> Array:
        """Perturbations (..., d) by their number (...): the working set's, then the outline's."""
        room = len(state.deltas)
        own = state.deltas[jnp.minimum(number, room - 1)]
        if not self.crowded:
            return own
        outlining = self.outline[jnp.maximum(number - room, 0)]
        return jnp.where((number < room)[..., None], own, outlining)

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
        value = jnp.where(logit == 0, 0.0, logit - state.margin)
        return jnp.where(jnp.isnan(logit) | ~allowed, -jnp.inf, value)

    def under(self, task: Task, state: State, moves: Array, deltas: Array) -> tuple[Array, Array]:
        """Lowest `value` of moves (n, d) under perturbations (m, d), and whose it is; (n,)."""

        def of(delta):
            return jax.vmap(lambda move: self.value(task, state, move, delta))(moves)

        values = jax.vmap(of)(deltas)
        return values.min(0), values.argmin(0)

    def own_values(self, task: Task, state: State, moves: Array) -> tuple[Array, Array]:
        """Lowest `value` of moves (n, d) over the working set, and where; shapes (n,)."""
        if self.ball is None:
            return self.under(task, state, moves, state.deltas)
        if self.crowded:
            real = jnp.arange(len(state.deltas)) < state.num_deltas
            return self.under(
                task, state, moves, jnp.where(real[:, None], state.deltas, state.deltas[0])
            )

        def another(carry):
            number, lowest, worst = carry
            values, _ = self.under(task, state, moves, state.deltas[number][None])
            worst = jnp.where(values < lowest, number, worst)
            return number + 1, jnp.minimum(lowest, values), worst

        first = (jnp.asarray(0), jnp.full(len(moves), jnp.inf), jnp.zeros(len(moves), int))
        # As many as there are, not as there is room for.
        return jax.lax.while_loop(lambda carry: carry[0] < state.num_deltas, another, first)[1:]

    def values(self, task: Task, state: State, moves: Array) -> tuple[Array, Array]:
        """Lowest `value` of moves (n, d) over all perturbations, and where; shapes (n,).

        Only the deepest moves are held against the outline; others are not favourable.
        """
        own, bindings = self.own_values(task, state, moves)
        if not self.crowded:
            return own, bindings
        deepest = jax.lax.top_k(own, min(_LOOKED_AT, len(moves)))[1]
        far, where = self.under(task, state, moves[deepest], self.outline)
        unknown = jnp.minimum(own, -jnp.finfo(own.dtype).tiny)
        values = unknown.at[deepest].set(jnp.minimum(own[deepest], far))
        outlined = jnp.where(far < own[deepest], len(state.deltas) + where, bindings[deepest])
        return values, bindings.at[deepest].set(outlined)

    def spent(self, state: State, num_moves: int) -> Array | int:
        """How many evaluations `values` takes."""
        if self.crowded:
            return num_moves * len(state.deltas) + min(_LOOKED_AT, num_moves) * len(self.outline)
        return num_moves * state.num_deltas

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

    @property
    def num_rays(self) -> int:
        """How many `rays` there are."""
        probes = (1 + _PROBES + 4 * self.num_nodes) * (self.ball is not None)
        return len(directions(self.num_nodes, self.max_set_size)) + 2 * self.num_nodes + probes

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
        state = state._replace(evaluations=state.evaluations + self.spent(state, len(moves)))
        deepest, chosen = jax.lax.top_k(values, len(state.hits))
        favourable = deepest >= 0
        hit = favourable.any()  # of all: XLA sorts everything where the deepest is taken alone
        judged = state._replace(
            cost=jnp.where(hit, levels[state.level], jnp.inf),
            hits=jnp.where(favourable[:, None], moves[chosen], 0.0),
        )
        steepest = moves[jnp.argmax(values[: 2 * self.num_nodes])]
        onward = state._replace(level=state.level + 1, path=steepest)
        exhausted = state.evaluations >= self.settings.max_evaluations
        return onward, hit | exhausted | (state.level == len(levels) - 1), judged

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

    def camp(self, task: Task, state: State, crossing: Array) -> tuple[Array, Array, Array]:
        """Where ascents begin: a step up from the best directions, (climbers, d); their costs.

        And whether the score is flat somewhere there.
        """
        costs = (1 - jnp.array(_FIRST_CUTS)) * self.size(task, crossing)
        rays = self.fixed(task)
        values, bindings = self.values(task, state, self.at_cost(task, rays, costs[0]))
        best = jax.lax.top_k(values, min(_SCOUTS, len(rays)))[1]
        which = jnp.tile(best, len(_FIRST_CUTS))
        costs = jnp.repeat(costs, len(best))
        moves = self.at_cost(task, rays[which], costs)
        ways, flat = self.ways(self.slopes(task, state, moves, bindings[which])[1], 0)
        above = self.step(task, moves, ways, costs, 0)
        values = self.values(task, state, above)[0].reshape(-1, len(best))
        highest = jax.lax.top_k(values, min(_CLIMBERS, len(best)))[1]
        highest += len(best) * jnp.arange(len(values))[:, None]
        return above[highest.ravel()], costs[highest.ravel()], flat.any()

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
            evaluations += self.spent(state, len(moves)) + len(moves) * differentiable(self.score)
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
        move, binding, share, number, evaluations = inner
        targets = self.targets(task, state, move, binding)
        parts = jnp.array(_PARTS)
        near = move + parts[:, None, None] * (targets - move)
        moves = jnp.concatenate([move[None], near.reshape(-1, self.num_nodes)])
        moves = self.at_cost(task, moves, (1 - share) * self.size(task, move))
        values, bindings = self.values(task, state, moves)
        evaluations += self.spent(state, len(moves)) + differentiable(self.score)
        deepest = jnp.argmax(values)
        better = values[deepest] >= 0
        moved = jnp.where(better, moves[deepest], move)
        binding = jnp.where(better, bindings[deepest], binding)
        ended = (~better & (share <= self.settings.tolerance)) | (number == _MAX_STEPS)
        ended |= ~move.any()
        share = jnp.where(better, jnp.minimum(2 * share, 0.3), share / 3)
        return (moved, binding, share, number + 1, evaluations), ended, (moved, evaluations)

    # 5. Scan

    def scan(self, task: Task, state: State, inner: tuple) -> tuple[tuple, Array, Array]:
        """The cheapest favourable pair at costs from ``low`` to ``high``; goes on by ``step``."""
        low, high, step = inner
        axes = jnp.eye(self.num_nodes) / task.weights
        ends = self.at_cost(task, jnp.concatenate([axes, -axes]), high)
        depth = self.own_values(task, state, ends)[0].reshape(2, -1).max(0)
        num = min(_SCANNED_FEATURES, self.num_nodes)
        features = axes[jax.lax.top_k(depth, num)[1]]
        shares = jnp.linspace(0.0, 1.0, _SHARES)[:, None, None]
        first, second = np.array(list(combinations(range(num), 2)), int).reshape(-1, 2).T
        pairs = [
            sign * (1 - shares) * features[first] + other * shares * features[second]
            for sign, other in product((1, -1), repeat=2)
        ]
        both = jnp.concatenate(pairs).reshape(-1, self.num_nodes)
        rays = jnp.concatenate([both, axes, -axes])
        costs = low + (high - low) * jnp.arange(1, _SCANNED_COSTS + 1) / _SCANNED_COSTS
        moves = jax.vmap(partial(self.at_cost, task, rays))(costs).reshape(-1, self.num_nodes)
        favourable = (self.own_values(task, state, moves)[0] >= 0) & moves.any(1)
        cost = jnp.where(favourable, self.size(task, moves), jnp.inf)
        best = jnp.where(favourable.any(), moves[jnp.argmin(cost)], 0.0)
        ended = favourable.any() | (step == 0) | (high >= self.settings.max_cost)
        return (high, high + step, step), ended, best

    @property
    def num_scanned(self) -> int:
        """How many moves a scan looks at."""
        pairs = comb(min(_SCANNED_FEATURES, self.num_nodes), 2)
        return _SCANNED_COSTS * (4 * _SHARES * pairs + 2 * self.num_nodes) + 2 * self.num_nodes

    # 6. Attack

    def withstand(self, task: Task, state: State) -> State:
        """Attack the solution: solved if it withstands, one more perturbation if not."""
        assert self.ball is not None
        wider = Ball(INFLATION * self.ball.radius, self.ball.norm)
        action = self.action(task, state.move)
        scale = self.cost.scale
        delta, logit = attack(self.score, task.scm, task.x, action, scale, wider)
        withstands = logit >= 0
        onward = self.add(task, state, delta, ~withstands)
        if self.crowded:
            solved = withstands
        else:
            # Perturbations that come one by one take long to outline the ball to a score that is
            # flat here, and attacks on it see little.
            flat = jnp.asarray(True)
            if differentiable(self.score):
                slope = jax.grad(self.value, argnums=2)(task, state, state.move, delta)
                flat = ~slope.any()
            solved = withstands & ~flat
            onward = onward._replace(crowded=withstands | (state.num_deltas >= _FEW))
        return jax.tree.map(
            lambda a, b: jnp.where(solved, a, b), state._replace(solved=solved), onward
        )

    def add(self, task: Task, state: State, delta: Array, new: Array | bool = True) -> State:
        """One more perturbation (d,) to withstand, if ``new``; back to the first level to look at.

        A full working set gives up the perturbation that binds least, of those added since a few.
        """
        room, num = len(state.deltas), state.num_deltas
        each = jax.vmap(lambda d: self.value(task, state, state.move, d))(state.deltas[_FEW:])
        place = jnp.where(num == room, _FEW + jnp.argmax(each), num)
        place = jnp.where(new, place, room)
        levels = self.levels
        return state._replace(
            deltas=state.deltas.at[place].set(delta, mode="drop"),
            num_deltas=jnp.minimum(num + new, room),
            # The robust optimum costs no less than this relaxed one.
            level=jnp.minimum((levels < state.cost).sum(), len(levels) - 1),
            solved=jnp.asarray(False),
        )

    # 8. Push

    def push(self, task: Task, state: State, inner: tuple) -> tuple[tuple, Array, State]:
        """Attack the cheapest of longer moves that withstands all perturbations so far."""
        state, base, number = inner
        # Others at every push, as the level decides on the probes.
        level = (state.level + number) % len(self.levels)
        rays = self.rays(task, state._replace(level=level))
        costs = base * jnp.array(_PUSH_LENGTHS)
        moves = jax.vmap(partial(self.at_cost, task, rays))(costs).reshape(-1, self.num_nodes)
        size = self.size(task, moves)
        own = self.own_values(task, state, moves)[0]
        size = jnp.where((own >= 0) & (size <= self.settings.max_cost), size, jnp.inf)
        cheapest = jax.lax.top_k(-size, _PUSHED)[1]
        far, where = self.under(task, state, moves[cheapest], self.outline)
        chosen = jnp.argmax((far >= 0) & jnp.isfinite(size[cheapest]))  # 0 if none
        there = jnp.isfinite(size[cheapest[chosen]])
        pushed = state._replace(move=moves[cheapest[chosen]], cost=size[cheapest[chosen]])
        attacked = self.withstand(task, pushed)
        # Where all that were looked at are broken by the outline: not by this point of it any more.
        excluded = self.add(task, pushed, self.outline[where[0]])
        onward = jax.tree.map(lambda a, b: jnp.where(far[chosen] >= 0, a, b), attacked, excluded)
        solved = there & onward.solved
        spent = len(moves) * len(state.deltas) + _PUSHED * len(self.outline)
        kept = jax.tree.map(
            lambda a, b: jnp.where(solved, a, b), onward, onward._replace(move=state.move)
        )
        kept = kept._replace(
            cost=jnp.where(solved, onward.cost, state.cost),
            solved=solved,
            evaluations=state.evaluations + spent,
        )
        return (kept, base, number + 1), solved | ~there | (number == _PUSHES), kept


def outline(ball: Ball | None, num_nodes: int) -> Array:
    """Perturbations that outline the ball, shape (n, d); none without a ball."""
    if ball is None:
        return jnp.zeros((0, num_nodes))
    return _OUTLINE_INFLATION * ball.surface(_OUTLINE, num_nodes)


def _lanes(points: int, solver: Solver) -> int:
    most = _HOST_POINTS if on_host(solver.score) else _POINTS * width()
    return max(1, most // points)


def begin(solver: Solver, tasks: Task) -> State:
    """What is known of every user before the search."""
    num_nodes = solver.num_nodes
    room = _FEW + _WORKING_SET if solver.ball is not None else 1
    num_hits = min(_HITS, solver.num_rays)

    def one(task):
        still = jnp.zeros(num_nodes)
        unset = State(
            level=jnp.asarray(1),
            path=still,
            move=still,
            cost=jnp.asarray(jnp.inf),
            hits=jnp.zeros((num_hits, num_nodes)),
            deltas=jnp.zeros((room, num_nodes)),
            num_deltas=jnp.asarray(1),
            margin=jnp.asarray(0.0),
            solved=jnp.asarray(False),
            crowded=jnp.asarray(False),
            evaluations=jnp.asarray(0),
        )
        axes = jnp.eye(num_nodes) / task.weights
        around = solver.at_cost(task, jnp.concatenate([axes, -axes]), jnp.asarray(1.0))
        logits, _ = solver.under(task, unset, jnp.concatenate([still[None], around]), still[None])
        logit = logits[0]
        known = jnp.isfinite(logits)
        variation = jnp.where(known, jnp.abs(logits - logit), 0.0).max()
        return unset._replace(
            level=jnp.where(logit >= 0, 0, 1),
            margin=jnp.where(logit >= 0, 0.0, _MARGIN * jnp.maximum(variation, jnp.abs(logit))),
            evaluations=jnp.asarray(len(logits)),
        )

    return map_users(one, tasks)


def solve(solver: Solver, pending: Array, tasks: Task, state: State) -> State:
    """Search on for the users who are ``pending`` (num_users,); the others' states stay.

    ``tasks`` and ``state`` have a leading axis (num_users,). A user ends solved, crowded (with a
    ball, for whom to go on with its outline), or with the best so far in ``move``.
    """
    num_users, num_nodes = tasks.x.shape
    robust = solver.ball is not None
    zero = jnp.asarray(0)
    num_fixed = len(directions(num_nodes, solver.max_set_size))
    num_cuts = len(_FIRST_CUTS)
    num_scouts, num_climbers = (num_cuts * min(n, num_fixed) for n in (_SCOUTS, _CLIMBERS))
    num_hits = state.hits.shape[1]
    # A working set in one batch is that many points more.
    each = state.deltas.shape[1] if solver.crowded else 1
    looked_at = _LOOKED_AT * len(solver.outline)

    def lanes_of(moves):
        return _lanes(moves * each + min(looked_at, moves * len(solver.outline)), solver)

    def of(state):
        """Every user's task and state, by the user's number."""
        return partial(take, (tasks, state))

    def one_round(carry):
        state, pending, number = carry
        # The furthest from being favourable, whose margins are the largest, take longest: first.
        ids = jnp.argsort(jnp.where(pending, -state.margin, 1.0), stable=True)
        state = lanes.run(
            lanes_of(solver.num_rays),
            lambda problem, state: solver.sweep(problem[0], state),
            lambda problem: problem[1],
            of(state),
            ids,
            pending.sum(),
            state,
        )
        reached = pending & jnp.isfinite(state.cost)
        at_once = reached & (state.level == 0)  # favourable already
        sought = reached & ~at_once
        still = jnp.zeros((num_users, num_nodes))
        num = lanes_of(4 * num_hits)
        crossings = lanes.once(num, solver.narrow, sought, (tasks, state), still)
        camps, costs, flat = lanes.once(
            lanes_of(num_fixed + num_scouts),
            solver.camp,
            sought,
            (tasks, state, crossings),
            (
                jnp.zeros((num_users, num_climbers, num_nodes)),
                jnp.zeros((num_users, num_climbers)),
                jnp.zeros(num_users, bool),
            ),
        )
        ids, count = jnp.argsort(~sought, stable=True), sought.sum()
        unknown = jnp.full(num_climbers, -jnp.inf)
        starts, climbed = lanes.run(
            lanes_of(2 * num_climbers),
            lambda problem, inner: solver.climb(*problem[:2], inner),
            lambda problem: (*problem[2:], unknown, problem[4], zero, zero),
            lambda i: (*of(state)(i), crossings[i], costs[i], camps[i]),
            ids,
            count,
            (crossings, jnp.zeros(num_users, int)),
        )
        scanned = jnp.zeros(num_users, bool)
        if not solver.crowded:
            lost = pending & ~reached
            scanned = lost | (sought & flat & starts.any(1) & (state.num_deltas == 1))
            highest = solver.settings.max_cost
            step = jnp.where(lost, highest / _BANDS, 0.0)
            top = jnp.where(lost, step, solver.cost.of_weighted(starts * tasks.weights))
            better = lanes.run(
                _lanes(solver.num_scanned, solver),
                lambda problem, inner: solver.scan(*problem[:2], inner),
                lambda problem: (jnp.asarray(0.0), *problem[2:]),
                lambda i: (*of(state)(i), top[i], step[i]),
                jnp.argsort(~scanned, stable=True),
                scanned.sum(),
                still,
            )
            starts = jnp.where(better.any(1, keepdims=True), better, starts)
            reached |= better.any(1)
            sought |= better.any(1)
            ids, count = jnp.argsort(~sought, stable=True), sought.sum()
        move, refined = lanes.run(
            lanes_of(1 + len(_PARTS) * solver.num_targets),
            lambda problem, inner: solver.refine(*problem[:2], inner),
            lambda problem: (problem[2], zero, jnp.asarray(_FIRST_SHARE), zero, zero),
            lambda i: (*of(state)(i), starts[i]),
            ids,
            count,
            (starts, jnp.zeros(num_users, int)),
        )
        spent = solver.spent(state, 4 * num_hits) + solver.spent(state, num_fixed)
        spent += solver.spent(state, num_scouts) + num_scouts * differentiable(solver.score)
        spent = climbed + refined + sought * spent
        spent += scanned * solver.num_scanned * state.num_deltas
        size = solver.cost.of_weighted(move * tasks.weights)
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
            num = _lanes(_ATTACKED, solver)
            state = lanes.once(num, solver.withstand, crossed, (tasks, state), state)
        pending = reached & ~state.solved & (state.level < len(solver.levels))
        pending &= state.evaluations < solver.settings.max_evaluations
        if not solver.crowded:
            pending &= ~state.crowded
        return state, pending, number + 1

    def unfinished(carry):
        _, pending, number = carry
        return pending.any() & (number < _MAX_ROUNDS)

    wanted = pending
    pending = pending & (state.evaluations < solver.settings.max_evaluations)
    state, _, _ = jax.lax.while_loop(unfinished, one_round, (state, pending, jnp.asarray(0)))
    if not solver.crowded:
        return state
    short = wanted & ~state.solved & state.move.any(1)
    size = solver.cost.of_weighted(state.move * tasks.weights)
    return lanes.run(
        lanes_of(len(_PUSH_LENGTHS) * solver.num_rays),
        lambda problem, inner: solver.push(problem[0], problem[1], inner),
        lambda problem: (*problem[1:], zero),
        lambda i: (*of(state)(i), size[i]),
        jnp.argsort(~short, stable=True),
        short.sum(),
        state,
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _search(settings, hard, max_set_size, crowded, score, cost, ball, pending, tasks, state):
    """For the users who are ``pending``: begin, or go on from ``state``."""
    num_nodes = tasks.x.shape[1]

    def search(shared, pending, tasks, state):
        score, cost, ball, outline = shared
        solver = Solver(settings, score, cost, ball, hard, max_set_size, num_nodes, outline)
        return solve(solver, pending, tasks, begin(solver, tasks) if state is None else state)

    shared = (score, cost, ball, outline(ball if crowded else None, num_nodes))
    return over_devices(search, shared, pending, tasks, state)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _add(settings, hard, max_set_size, score, cost, ball, pending, tasks, state, delta):
    """One more perturbation to withstand for the users who are ``pending``."""
    num_nodes = tasks.x.shape[1]

    def add(shared, pending, *users):
        nothing = outline(None, num_nodes)
        solver = Solver(settings, *shared, hard, max_set_size, num_nodes, nothing)
        return lanes.once(_lanes(_WORKING_SET, solver), solver.add, pending, users, users[1])

    return over_devices(add, (score, cost, ball), pending, tasks, state, delta)


class Search(NamedTuple):
    """The solver for one score, cost and ball."""

    settings: Optimal
    score: Callable
    cost: Cost
    ball: Ball | None
    hard: bool
    max_set_size: int

    def begin(self, tasks: Task, _: Array) -> Found:
        """The cheapest action of every user that the search itself cannot break."""
        everybody = np.ones(len(tasks.x), bool)
        state = self._run(False, everybody, tasks, None)
        return self._found(self._crowd(np.asarray(state.crowded), tasks, state))

    def go_on(self, tasks: Task, found: Found, broken: np.ndarray, delta: Array) -> Found:
        """Search on for the users who are ``broken`` (num_users,) by ``delta`` (num_users, d)."""
        assert self.ball is not None
        add = partial(_add, self.settings, self.hard, self.max_set_size, *self[1:4])
        state = by_bucket(
            lambda real, broken, *users: add(real & broken, *users),
            *(broken, tasks, found.state, INFLATION * delta),
        )
        return self._found(self._crowd(broken, tasks, state))

    def _run(self, crowded, pending, tasks, state):
        run = partial(_search, self.settings, self.hard, self.max_set_size, crowded, *self[1:4])
        return by_bucket(
            lambda real, pending, *users: run(real & pending, *users), pending, tasks, state
        )

    def _crowd(self, pending, tasks, state):
        return self._run(True, pending, tasks, state) if pending.any() else state

    def _found(self, state):
        exhausted = state.evaluations >= self.settings.max_evaluations
        return Found(
            move=state.move,
            deltas=state.deltas,
            going_on=state.solved & (self.ball is not None),
            exhausted=exhausted,
            flat=jnp.zeros_like(exhausted),
            evaluations=state.evaluations,
            state=state,
        )
