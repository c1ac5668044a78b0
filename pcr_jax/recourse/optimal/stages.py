"""The stages of the search for one user, in the order of `pcr_jax.recourse.optimal`.

Those that take steps are states with a ``begin`` and a ``step``: the next state, whether it has
ended, and what it found, which counts when it has. The others are functions, and 6, an attack, is
`Solver.attack`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.recourse.adversary import unit
from pcr_jax.recourse.optimal.moves import Moves
from pcr_jax.recourse.optimal.settings import (
    BANDS,
    CLIMBERS,
    CLIMBS,
    CUTS,
    FIRST_CLIMB,
    FIRST_CUTS,
    FIRST_SHARE,
    HITS,
    LAST_CLIMB,
    MARGIN,
    MAX_STEPS,
    PARTS,
    PUSH_LENGTHS,
    PUSHED,
    PUSHES,
    SCANNED_COSTS,
    SCANNED_FEATURES,
    SCOUTS,
)
from pcr_jax.recourse.optimal.solver import Solver, State
from pcr_jax.recourse.requirements.base import Closer
from pcr_jax.recourse.search import Task


def first(solver: Solver, task: Task) -> State:
    """What is known of a user before the search."""
    moves, num_nodes = solver.moves, solver.moves.num_nodes
    still = jnp.zeros(num_nodes)
    unset = State(
        level=jnp.asarray(1),
        path=still,
        move=still,
        cost=jnp.asarray(jnp.inf),
        hits=jnp.zeros((min(HITS, solver.num_rays), num_nodes)),
        scenarios=solver.requirement.begin(num_nodes),
        margin=jnp.asarray(0.0),
        solved=jnp.asarray(False),
        evaluations=jnp.asarray(0),
    )
    axes = moves.axes(task)
    around = moves.at_cost(task, jnp.concatenate([axes, -axes]), jnp.asarray(1.0))
    near = jnp.concatenate([still[None], around])
    expected = solver.requirement.scenario(unset.scenarios, jnp.zeros(1, int))
    logits = solver.under(task, unset, near)(expected).min(0)
    logit = logits[0]
    known = jnp.isfinite(logits)
    variation = jnp.where(known, jnp.abs(logits - logit), 0.0).max()
    return unset._replace(
        level=jnp.where(logit >= 0, 0, 1),
        margin=jnp.where(logit >= 0, 0.0, MARGIN * jnp.maximum(variation, jnp.abs(logit))),
        evaluations=jnp.asarray(len(logits)),
    )


class Sweep(NamedTuple):
    """1. The levels of cost, one after the other."""

    state: State

    def step(self, solver: Solver, task: Task) -> tuple[Sweep, Array, State]:
        """Judge one level; ends at the first with a favourable point, or the last."""
        state, levels = self.state, solver.levels
        moves = solver.moves.at_cost(task, solver.rays(task, state), levels[state.level])
        values, _ = solver.values(task, state, moves)
        state = state._replace(evaluations=state.evaluations + solver.spent(state, len(moves)))
        deepest, chosen = jax.lax.top_k(values, len(state.hits))
        favourable = deepest >= 0
        hit = favourable.any()  # of all: XLA sorts everything where the deepest is taken alone
        judged = state._replace(
            cost=jnp.where(hit, levels[state.level], jnp.inf),
            hits=jnp.where(favourable[:, None], moves[chosen], 0.0),
        )
        steepest = moves[jnp.argmax(values[: 2 * solver.moves.num_nodes])]
        onward = state._replace(level=state.level + 1, path=steepest)
        exhausted = state.evaluations >= solver.settings.max_evaluations
        return Sweep(onward), hit | exhausted | (state.level == len(levels) - 1), judged


def narrow(solver: Solver, task: Task, state: State) -> Array:
    """2. The cheapest crossing along the hits; shape (d,); 0 if there is none."""
    levels = solver.levels
    level, below = levels[state.level], levels[jnp.maximum(state.level - 1, 0)]
    parts = [below + part * (level - below) for part in (0.25, 0.5, 0.75, 1.0)]
    moves = jnp.concatenate([solver.moves.at_cost(task, state.hits, part) for part in parts])
    favourable = (solver.values(task, state, moves)[0] >= 0) & moves.any(1)
    cost = jnp.where(favourable, solver.moves.size(task, moves), jnp.inf)
    cheapest = jnp.argmin(cost)
    return jnp.where(favourable[cheapest], moves[cheapest], 0.0)


def camp(solver: Solver, task: Task, state: State, crossing: Array) -> tuple[Array, Array, Array]:
    """3. Where ascents begin: a step up from the best directions, (climbers, d); their costs.

    And whether the score is flat somewhere there.
    """
    costs = (1 - jnp.array(FIRST_CUTS)) * solver.moves.size(task, crossing)
    rays = solver.moves.fixed(task)
    values, bindings = solver.values(task, state, solver.moves.at_cost(task, rays, costs[0]))
    best = jax.lax.top_k(values, min(SCOUTS, len(rays)))[1]
    which = jnp.tile(best, len(FIRST_CUTS))
    costs = jnp.repeat(costs, len(best))
    moves = solver.moves.at_cost(task, rays[which], costs)
    ways, flat = _ways(solver.slopes(task, state, moves, bindings[which])[1], 0)
    above = _step(solver.moves, task, moves, ways, costs, 0)
    values = solver.values(task, state, above)[0].reshape(-1, len(best))
    highest = jax.lax.top_k(values, min(CLIMBERS, len(best)))[1]
    highest += len(best) * jnp.arange(len(values))[:, None]
    return above[highest.ravel()], costs[highest.ravel()], flat.any()


def _ways(slopes: Array, number) -> tuple[Array, Array]:
    """Where the score rises (n, d), and where that is unknown: there, fixed random ways."""
    noise = np.random.default_rng(0).normal(size=(CLIMBS + 1, *slopes.shape))
    flat = ~slopes.any(1)
    return jnp.where(flat[:, None], jnp.asarray(noise, slopes.dtype)[number], slopes), flat


def _step(space: Moves, task: Task, moves: Array, ways: Array, costs: Array, number) -> Array:
    """Moves (n, d) further along ``ways``, of at most those costs; steps become shorter."""
    lengths = costs * FIRST_CLIMB * (LAST_CLIMB / FIRST_CLIMB) ** (number / CLIMBS)
    steps = lengths[:, None] * jax.vmap(unit)(ways) / task.weights
    return space.within(task, moves + steps, costs)


class Climb(NamedTuple):
    """3. Ascents at a lower cost than the cheapest favourable move."""

    best: Array  # (d,) that move
    costs: Array  # (climbers,)
    moves: Array  # (climbers, d)
    values: Array  # (climbers,)
    proposals: Array  # (climbers, d) where the ascents go next
    number: Array  # () steps without success
    evaluations: Array  # ()

    @classmethod
    def begin(cls, crossing: Array, costs: Array, camps: Array) -> Climb:
        """At the camps (climbers, d)."""
        unknown, zero = jnp.full(len(costs), -jnp.inf), jnp.asarray(0)
        return cls(crossing, costs, camps, unknown, camps, zero, zero)

    def step(self, solver: Solver, task: Task, state: State) -> tuple[Climb, Array, tuple]:
        """One step of the ascents; found are the best move and the evaluations."""
        best, costs, moves, values, proposals, number, evaluations = self
        if not solver.requirement.grows:  # in one pass
            nothing = jnp.zeros(len(moves), int)
            proposed, slopes = solver.slopes(task, state, proposals, nothing)
            evaluations += solver.spent(state, len(moves))
        else:
            proposed, bindings = solver.values(task, state, proposals)
            _, slopes = solver.slopes(task, state, proposals, bindings)
            evaluations += solver.spent(state, len(moves)) + len(moves) * solver.has_slope
        ways, flat = _ways(slopes, number)
        back = flat & (proposed < values)  # where no slope leads on, only better moves are kept
        moves = jnp.where(back[:, None], moves, proposals)
        values = jnp.where(back, values, proposed)
        favourable = jnp.where(values >= 0, solver.moves.size(task, moves), jnp.inf)
        cheapest = jnp.argmin(favourable)
        hit = values[cheapest] >= 0
        best = jnp.where(hit, moves[cheapest], best)
        ended = (~hit & (number == CLIMBS)) | ~best.any()
        cuts = jnp.repeat(jnp.array(CUTS), len(moves) // len(CUTS))
        costs = jnp.where(hit, (1 - cuts) * solver.moves.size(task, best), costs)
        values = jnp.where(hit, -jnp.inf, values)
        number = jnp.where(hit, 0, number + 1)
        proposals = _step(solver.moves, task, moves, ways, costs, number)
        inner = Climb(best, costs, moves, values, proposals, number, evaluations)
        return inner, ended, (best, evaluations)


class Refine(NamedTuple):
    """4. Descent on the cost within the favourable region."""

    move: Array  # (d,)
    binding: Array  # () the scenario that binds it
    share: Array  # () of the cost, by which it is to become lower
    number: Array  # () steps
    evaluations: Array  # ()

    @classmethod
    def begin(cls, start: Array) -> Refine:
        """At the cheapest favourable move (d,)."""
        zero = jnp.asarray(0)
        return cls(start, zero, jnp.asarray(FIRST_SHARE), zero, zero)

    def step(self, solver: Solver, task: Task, state: State) -> tuple[Refine, Array, tuple]:
        """One step; found are the move and the evaluations."""
        move, binding, share, number, evaluations = self
        gain = None
        if solver.has_slope:
            scenario = solver.requirement.scenario(state.scenarios, binding)
            gradient = jax.grad(solver.value, argnums=2)(task, state, move, scenario)
            gain = jnp.nan_to_num(gradient / task.weights)
        targets = solver.moves.targets(task, move, gain)
        parts = jnp.array(PARTS)
        near = move + parts[:, None, None] * (targets - move)
        moves = jnp.concatenate([move[None], near.reshape(-1, len(move))])
        moves = solver.moves.at_cost(task, moves, (1 - share) * solver.moves.size(task, move))
        values, bindings = solver.values(task, state, moves)
        evaluations += solver.spent(state, len(moves)) + solver.has_slope
        deepest = jnp.argmax(values)
        better = values[deepest] >= 0
        moved = jnp.where(better, moves[deepest], move)
        binding = jnp.where(better, bindings[deepest], binding)
        ended = (~better & (share <= solver.settings.tolerance)) | (number == MAX_STEPS)
        ended |= ~move.any()
        share = jnp.where(better, jnp.minimum(2 * share, 0.3), share / 3)
        inner = Refine(moved, binding, share, number + 1, evaluations)
        return inner, ended, (moved, evaluations)


class Scan(NamedTuple):
    """5. Pairs of features in many proportions, at costs between two bounds."""

    low: Array  # ()
    high: Array  # ()
    band: Array  # () how much further the next ones go; 0 for no next ones

    @staticmethod
    def band_of(solver: Solver) -> float:
        """The band of users to whom the sweep finds nothing."""
        return solver.settings.max_cost / BANDS

    def step(self, solver: Solver, task: Task, state: State) -> tuple[Scan, Array, Array]:
        """Found is the cheapest favourable pair (d,), 0 for none."""
        low, high, band = self
        space, num_nodes = solver.moves, solver.moves.num_nodes
        axes = space.axes(task)
        ends = space.at_cost(task, jnp.concatenate([axes, -axes]), high)
        depth = solver.values(task, state, ends)[0].reshape(2, -1).max(0)
        features = axes[jax.lax.top_k(depth, min(SCANNED_FEATURES, num_nodes))[1]]
        rays = jnp.concatenate([space.pairs(features), axes, -axes])
        costs = low + (high - low) * jnp.arange(1, SCANNED_COSTS + 1) / SCANNED_COSTS
        moves = jax.vmap(partial(space.at_cost, task, rays))(costs).reshape(-1, num_nodes)
        favourable = (solver.values(task, state, moves)[0] >= 0) & moves.any(1)
        cost = jnp.where(favourable, space.size(task, moves), jnp.inf)
        best = jnp.where(favourable.any(), moves[jnp.argmin(cost)], 0.0)
        ended = favourable.any() | (band == 0) | (high >= solver.settings.max_cost)
        return Scan(high, high + band, band), ended, best


class Push(NamedTuple):
    """8. Longer moves than the cheapest known, attacked one after the other."""

    state: State
    base: Array  # () the cost of the move that is not enough
    number: Array  # () pushes

    def step(self, solver: Solver, task: Task) -> tuple[Push, Array, State]:
        """Attack the cheapest of longer moves that withstands all scenarios so far."""
        state, base, number = self
        requirement, space = cast(Closer, solver.requirement), solver.moves
        # Others at every push, as the level decides on the probes.
        level = (state.level + number) % len(solver.levels)
        rays = solver.rays(task, state._replace(level=level))
        costs = base * jnp.array(PUSH_LENGTHS)
        moves = jax.vmap(partial(space.at_cost, task, rays))(costs).reshape(-1, space.num_nodes)
        size = space.size(task, moves)
        own = requirement.own_margin(state.scenarios, solver.under(task, state, moves))[0]
        size = jnp.where((own >= 0) & (size <= solver.settings.max_cost), size, jnp.inf)
        cheapest = jax.lax.top_k(-size, PUSHED)[1]
        values_of = solver.under(task, state, moves[cheapest])
        far, where = requirement.outside(state.scenarios, values_of)
        chosen = jnp.argmax((far >= 0) & jnp.isfinite(size[cheapest]))  # 0 if none
        there = jnp.isfinite(size[cheapest[chosen]])
        pushed = state._replace(move=moves[cheapest[chosen]], cost=size[cheapest[chosen]])
        attacked = solver.attack(task, pushed)
        # Where all that were looked at are broken by the outline: not by this point of it any more.
        breaking = requirement.scenario(state.scenarios, where[0])
        excluded = solver.add(task, pushed, breaking)
        onward = jax.tree.map(lambda a, b: jnp.where(far[chosen] >= 0, a, b), attacked, excluded)
        solved = there & onward.solved
        spent = requirement.own_spent(state.scenarios, len(moves))
        spent += PUSHED * requirement.num_outside
        kept = jax.tree.map(
            lambda a, b: jnp.where(solved, a, b), onward, onward._replace(move=state.move)
        )
        kept = kept._replace(
            cost=jnp.where(solved, onward.cost, state.cost),
            solved=solved,
            evaluations=state.evaluations + spent,
        )
        return Push(kept, base, number + 1), solved | ~there | (number == PUSHES), kept
