"""What single features could be moved by, what that costs, and under which draws it serves."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.elicitation.designs.people import Person, away

REACH = 6.0
"""The largest move, in units of the problem's scale."""
_LENGTHS = REACH * (np.arange(25) / 24) ** 1.5
"""Moves along each direction whose logits are computed; between them they are interpolated."""
_COSTS = 96
"""Costs that are compared along each direction, geometrically between the least and the largest."""
_NEARLY_ALL = 0.995
"""Of the draws: what serves under so many is the dearest action that is looked at."""
_MAPPED = 64
"""Draws under which they are computed at once."""


class Purpose(NamedTuple):
    """What all people's problems have in common."""

    score: Any
    scale: Array
    ball: Any

    @classmethod
    def of(cls, problem: Any) -> Purpose:
        """That of a problem."""
        return cls(problem.score, problem.scale, getattr(problem.requirement, "ball", None))

    def logit(self, scm: Any, x: Array, action: Action) -> Array:
        """After an action; the lowest in the ball, nearly, where there is one."""
        if self.ball is None:
            return self.score(scm.counterfactual(x, action))
        return self.ball.lowest(self.score, scm, x, action, self.scale)


class Means(NamedTuple):
    """What one person can do: the smallest and largest shift, natural units, and weights; (d,)."""

    low: Array
    high: Array
    weights: Array

    @classmethod
    def of(cls, problem: Any) -> Means:
        """All users', on the host."""
        of_users: list[Any] = [np.asarray(a) for a in (*problem.bounds, problem.weights)]
        return cls(*of_users)


class Moves(NamedTuple):
    """One person's candidate actions, A of them, of one feature each.

    Attributes
    ----------
    node, shift, cost : Array
        Shape (A,); shifts in natural units, infinite costs where the person cannot.
    step : Array
        Shape (A,): how much less the next cheaper one in the same direction costs; 0 for the first.
    serves : Array
        Shape (S, A), boolean: under which draws the decision is favourable after which.
    """

    node: Array
    shift: Array
    cost: Array
    step: Array
    serves: Array


def moves_of(purpose: Purpose, means: Means, person: Person, hard: bool) -> Moves:
    """Moves in every direction, of all costs between which the person's draws are undecided."""
    scale = purpose.scale
    d, surrogate, k = person.x.size, person.surrogates[0], person.num_numbers
    nodes, signs = np.tile(np.arange(d), 2), np.repeat([-1.0, 1.0], d)
    unit, price = signs * scale[nodes], means.weights[nodes]

    def shifts(lengths):
        return unit[:, None] * lengths

    looked_at = shifts(jnp.asarray(_LENGTHS[1:]))[..., None]
    each = jnp.where(jnp.arange(d) == nodes[:, None, None], looked_at, 0.0)
    actions = Action.by(jnp.broadcast_to(person.x, each.shape), each, hard)

    def logits(some, z):
        of = partial(purpose.logit, surrogate.scm(z[:k]), person.x)
        return jax.vmap(jax.vmap(of))(jax.tree.map(lambda leaf: leaf[some], actions))

    # What follows from moving a node that has no descendants is the same under all draws.
    moving = surrogate.graph.descendants.any(1)[nodes] | (purpose.ball is not None)
    some, others = np.flatnonzero(moving), np.flatnonzero(~moving)
    along = jnp.zeros((len(person.draws), *each.shape[:2]))
    of_draws = partial(jax.lax.map, batch_size=min(_MAPPED, len(person.draws)))
    along = along.at[:, some].set(of_draws(partial(logits, some), person.draws))
    along = along.at[:, others].set(logits(others, person.draws[0]))
    now = jnp.broadcast_to(purpose.score(person.x), (*along.shape[:2], 1))
    along = jnp.concatenate([now, along], -1)  # (S, 2d, 25)

    def serving(costs):
        """Whether moves of these costs (C,) serve; (S, 2d, C)."""
        lengths = costs / price[:, None]
        shift = shifts(lengths)
        low, high = means.low[nodes][:, None], means.high[nodes][:, None]
        within = (lengths <= REACH) & (shift >= low) & (shift <= high)
        at = jnp.clip(jnp.searchsorted(jnp.asarray(_LENGTHS), lengths) - 1, 0, len(_LENGTHS) - 2)
        begin, end = jnp.asarray(_LENGTHS)[at], jnp.asarray(_LENGTHS)[at + 1]
        part = (lengths - begin) / (end - begin)
        before, after = (jnp.take_along_axis(along, i[None], -1) for i in (at, at + 1))
        return within & (before + part * (after - before) >= 0), within, shift

    every = REACH * price.max() * jnp.asarray((np.arange(1, _COSTS + 1) / _COSTS) ** 1.5)
    share = serving(every)[0].mean(0).max(0)  # of draws, in the best direction
    some, most = share > 0, share >= _NEARLY_ALL
    begin = jnp.where(some.any(), every[jnp.maximum(jnp.argmax(some) - 1, 0)], every[0])
    end = jnp.where(most.any(), every[jnp.argmax(most)], every[-1])
    costs = begin * (end / begin) ** jnp.linspace(0.0, 1.0, _COSTS)
    serves, within, shift = serving(costs)
    cost = jnp.where(within, costs, jnp.inf).ravel()
    node = jnp.repeat(jnp.asarray(nodes), _COSTS)
    step = jnp.tile(jnp.diff(costs, prepend=costs[:1]), 2 * d)
    return Moves(node, shift.ravel(), cost, step, serves.reshape(len(along), -1))


def cheapest(moves: Moves) -> tuple[Array, Array]:
    """The cheapest move that serves under each draw, and whether there is one; (S,)."""
    cost = jnp.where(moves.serves, moves.cost, jnp.inf)
    return jnp.argmin(cost, -1), moves.serves.any(-1)


def proposals(moves: Moves, person: Person) -> tuple[Array, Array, Array]:
    """Questions about the cheapest move under each draw, and whether they can be asked; (S,).

    Nodes, and shifts in units of the surrogate's scale.
    """
    best, there = cheapest(moves)
    node = moves.node[best]
    low, high = person.low[node], person.high[node]
    return node, away(moves.shift[best] / person.unit[node], low, high), there & (low < high)
