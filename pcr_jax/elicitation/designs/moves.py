"""What single features could be moved by, what that costs, and under which draws it serves."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.elicitation.designs.people import Person

REACH = 6.0
"""The largest move, in units of the problem's scale."""
_LOOKED_AT, _BETWEEN = 24, 4
"""Moves along each direction whose logits are computed, and into how many each step is divided."""
_MAPPED = 64
"""Draws under which they are computed at once."""


class Purpose(NamedTuple):
    """What all people's problems have in common."""

    score: Any
    scale: Array


class Means(NamedTuple):
    """What one person can do: the smallest and largest shift, natural units, and weights; (d,)."""

    low: Array
    high: Array
    weights: Array


class Moves(NamedTuple):
    """One person's candidate actions, A of them, of one feature each.

    Attributes
    ----------
    node, shift, cost : Array
        Shape (A,); shifts in natural units, infinite costs where the person cannot.
    serves : Array
        Shape (S, A), boolean: under which draws the decision is favourable after which.
    """

    node: Array
    shift: Array
    cost: Array
    serves: Array


def moves_of(purpose: Purpose, means: Means, person: Person, hard: bool) -> Moves:
    """Every direction's moves, ever longer; logits between those looked at are interpolated."""
    score, scale = purpose
    d, surrogate, k = person.x.size, person.surrogates[0], person.num_numbers
    nodes, signs = np.tile(np.arange(d), 2), np.repeat([-1.0, 1.0], d)
    length = REACH * (np.arange(_LOOKED_AT + 1) / _LOOKED_AT) ** 1.5
    fine = np.interp(np.arange(_LOOKED_AT * _BETWEEN + 1) / _BETWEEN, np.arange(25), length)[1:]
    between = np.stack([np.interp(fine, length, row) for row in np.eye(len(length))])
    per_length = jnp.asarray(signs) * scale[nodes]  # (2d,)
    shifts = per_length[:, None] * length[1:]
    each = jnp.where(jnp.arange(d) == nodes[:, None, None], shifts[..., None], 0.0)
    actions = Action.by(jnp.broadcast_to(person.x, each.shape), each, hard)

    def logits(z):
        after = surrogate.scm(z[:k]).counterfactual(person.x, actions)
        return jax.vmap(jax.vmap(score))(after)

    along = jax.lax.map(logits, person.draws, batch_size=min(_MAPPED, len(person.draws)))
    now = jnp.broadcast_to(score(person.x), (*along.shape[:2], 1))
    logit = jnp.einsum("sal,lf->saf", jnp.concatenate([now, along], -1), between, precision="high")
    shift = per_length[:, None] * fine
    within = (shift >= means.low[nodes][:, None]) & (shift <= means.high[nodes][:, None])
    cost = jnp.where(within, means.weights[nodes][:, None] * fine, jnp.inf).ravel()
    serves = (logit.reshape(len(along), -1) >= 0) & jnp.isfinite(cost)
    return Moves(jnp.repeat(jnp.asarray(nodes), len(fine)), shift.ravel(), cost, serves)


def cheapest(moves: Moves) -> tuple[Array, Array]:
    """The cheapest move that serves under each draw, and whether there is one; (S,)."""
    cost = jnp.where(moves.serves, moves.cost, jnp.inf)
    return jnp.argmin(cost, -1), moves.serves.any(-1)
