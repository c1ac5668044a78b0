"""Questions about the action that is best under one draw of the person's SCM (Thompson 1933)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import map_users
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.elicitation.designs.moves import Means, Purpose, cheapest, moves_of
from pcr_jax.elicitation.designs.people import away, candidates, check_problem, people_of
from pcr_jax.history import Questions


@dataclass(frozen=True)
class ThompsonDesign:
    reach: float = 2.0
    num_draws: int = 16
    individual: bool = True

    needs_posterior = True
    needs_problem = True

    @nan_is_a_value
    def ask(self, key: Array, belief: Belief) -> Questions:
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        check_problem(belief, self)
        people = people_of(key, belief, self, 512)
        problem = belief.problem
        means = Means(*problem.bounds, problem.weights)
        purpose = Purpose(problem.score, problem.scale)
        node, shift = _ask(self, problem.hard, purpose, people, means)
        return Questions(node, shift, jnp.full(len(node), self.individual))


@partial(jax.jit, static_argnums=(0, 1))
def _ask(design, hard, purpose, people, means):
    def one(person, means):
        k_draws, k_grid = jax.random.split(person.key)
        some = jax.random.permutation(k_draws, len(person.draws))[: design.num_draws]
        node, shift = candidates(k_grid, person.low, person.high, 1)
        moves = moves_of(purpose, means, person._replace(draws=person.draws[some]), hard)
        best, there = cheapest(moves)
        at = moves.node[best]
        low, high = person.low[at], person.high[at]
        by = away(moves.shift[best] / person.unit[at], low, high)
        good = there & (low < high) & person.known
        first = jnp.argmax(good)
        node = jnp.where(good.any(), at[first], node[0])
        shift = jnp.where(good.any(), by[first], shift[0])
        return node, shift * person.unit[node]

    return map_users(one, people, means, chunk=1)
