"""The geometry of moves: where to look, at what cost, within which bounds.

Moves (d,) are in units of ``scale``; a task's bounds and weights are too.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal.settings import (
    HOLD,
    MAX_DIRECTIONS,
    PROBES,
    SCANNED_COSTS,
    SCANNED_FEATURES,
    SHARES,
)
from pcr_jax.recourse.search import Task


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
        if len(finer) > MAX_DIRECTIONS:
            break
        chosen = np.unique(np.concatenate([axes * norm, finer]), axis=0)
    return chosen


@pytree(static=("hard", "max_set_size"))
class Moves:
    """What can be done, and what it costs.

    Attributes
    ----------
    cost : Cost
        With a scale of shape (d,) and weights of 1: users' own weights come with their tasks.
    hard : bool
        Whether moves are hard interventions.
    max_set_size : int
        The most features that a move may change, at most d.
    """

    cost: Cost
    hard: bool
    max_set_size: int

    @property
    def num_nodes(self) -> int:
        """The number d of features."""
        return len(self.cost.scale)

    def action(self, task: Task, move: Array) -> Action:
        """The action (d,) of a move (d,)."""
        return Action.by(task.x, move * self.cost.scale, self.hard)

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

    def axes(self, task: Task) -> Array:
        """Moves of cost 1 of one feature each, (d, d)."""
        return jnp.eye(self.num_nodes) / task.weights

    # To sweep

    @property
    def num_fixed(self) -> int:
        """How many `fixed` directions there are."""
        return len(directions(self.num_nodes, self.max_set_size))

    def fixed(self, task: Task) -> Array:
        """The fixed directions, shape (n, d)."""
        return jnp.asarray(directions(self.num_nodes, self.max_set_size)) / task.weights

    def path_ends(self, task: Task, path: Array, step: Array) -> Array:
        """The path's end (d,), prolonged by ``step`` along every signed axis; shape (2d, d)."""
        axes = self.axes(task)
        ends = path + step * jnp.concatenate([axes, -axes])
        return jnp.clip(ends, task.low, task.high)

    @property
    def num_around(self) -> int:
        """How many directions there are `around` a move."""
        return 1 + PROBES + 4 * self.num_nodes

    def around(self, task: Task, move: Array, level: Array, num_levels: int) -> list[Array]:
        """Directions (n, d) of a move (d,) and near it, others at every level."""
        length = self.size(task, move) / task.weights
        axes = length * jnp.eye(self.num_nodes)
        shape = (num_levels, PROBES, self.num_nodes)
        noise = np.random.default_rng(1).normal(size=shape)
        probes = 0.15 * length * jnp.asarray(noise, length.dtype)[level]
        rays = [move[None], move + probes]
        return rays + [move + part * axes for part in (-0.3, -0.1, 0.1, 0.3)]

    # To refine

    def targets(self, task: Task, move: Array, gain: Array | None) -> Array:
        """Moves to go towards: less of each node, more of each, the linearised optimum.

        ``gain`` (d,) is the slope of the score by the cost of each node, None if it has none.
        """
        size = self.size(task, move)
        axes = size * jnp.eye(self.num_nodes) / task.weights
        without = move * (1 - jnp.eye(self.num_nodes))
        chosen = [without, axes, -axes]
        if self.hard:  # to set a feature to what it is keeps its causes from changing it
            chosen.append(jnp.where(move == 0, HOLD * size / task.weights, move)[None])
        if self.max_set_size < self.num_nodes:  # one node in place of another
            spent = jnp.abs(move * task.weights)[:, None, None]
            other = spent * jnp.eye(self.num_nodes) / task.weights
            for swapped in (without[:, None] + other, without[:, None] - other):
                chosen.append(swapped.reshape(-1, self.num_nodes))
        if gain is not None:
            chosen.append(self._linearised(task, gain, size)[None])
        targets = jnp.clip(jnp.concatenate(chosen), task.low, task.high)
        return self.at_cost(task, targets, size)

    def _linearised(self, task, gain, size):
        """The move (d,) of cost ``size`` that gains the most, were the score linear."""
        if self.cost.norm == "l2":
            return gain / task.weights
        room = jnp.where(gain > 0, task.high, -task.low) * task.weights
        room = jnp.minimum(room, size)
        order = jnp.argsort(-jnp.abs(gain))
        spent = jnp.cumsum(room[order]) - room[order]
        part = jnp.clip(size - spent, 0.0, room[order])
        filled = jnp.zeros_like(part).at[order].set(part)
        return jnp.sign(gain) * filled / task.weights

    def num_targets(self, differentiable: bool) -> int:
        """How many `targets` there are."""
        swaps = 2 * self.num_nodes**2 * (self.max_set_size < self.num_nodes)
        return 3 * self.num_nodes + swaps + self.hard + differentiable

    # To scan

    def pairs(self, features: Array) -> Array:
        """Directions (n, d) between any two of the features' axes (m, d), in many proportions."""
        shares = jnp.linspace(0.0, 1.0, SHARES)[:, None, None]
        num = len(features)
        first, second = np.array(list(combinations(range(num), 2)), int).reshape(-1, 2).T
        pairs = [
            sign * (1 - shares) * features[first] + other * shares * features[second]
            for sign, other in product((1, -1), repeat=2)
        ]
        return jnp.concatenate(pairs).reshape(-1, self.num_nodes)

    @property
    def num_scanned(self) -> int:
        """How many moves a scan looks at."""
        pairs = comb(min(SCANNED_FEATURES, self.num_nodes), 2)
        return SCANNED_COSTS * (4 * SHARES * pairs + 2 * self.num_nodes) + 2 * self.num_nodes
