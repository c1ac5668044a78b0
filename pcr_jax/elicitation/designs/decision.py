"""Questions whose answers make the recommended action cheaper.

The expected cost of the plan after the answer, one step ahead: a knowledge gradient (Frazier, Powell
and Dayanik 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import map_users
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.elicitation.designs.moves import REACH, Means, Purpose, cheapest, moves_of
from pcr_jax.elicitation.designs.people import (
    away,
    candidates,
    check_generative,
    check_problem,
    foreseen,
    information,
    people_of,
)
from pcr_jax.history import Questions


@dataclass(frozen=True)
class DecisionDesign:
    level: float = 0.95
    reach: float = 2.0
    num_draws: int = 256
    num_candidates: int = 24
    num_truths: int = 24
    num_proposals: int = 12
    curiosity: float = 0.02
    levels: tuple = (1.0,)
    individual: bool = True

    needs_posterior = True
    needs_problem = True

    @nan_is_a_value
    def ask(self, key: Array, belief: Belief) -> Questions:
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        check_problem(belief, self)
        people = people_of(key, belief, self, self.num_draws)
        likelihood, problem = belief.posteriors.likelihood, belief.problem
        check_generative(likelihood, self)
        means = Means(*problem.bounds, problem.weights)
        purpose = Purpose(problem.score, problem.scale)
        node, shift = _ask(self, problem.hard, likelihood, purpose, people, means)[:2]
        return Questions(node, shift, jnp.full(len(node), self.individual))


@partial(jax.jit, static_argnums=(0, 1))
def _ask(design, hard, likelihood, purpose, people, means):
    def one(person, means):
        k_draws, k_grid, k_truths, k_answers = jax.random.split(person.key, 4)
        moves = moves_of(purpose, means, person, hard)
        num_draws = len(person.draws)
        order = jax.random.permutation(k_draws, num_draws)
        node, shift = candidates(k_grid, person.low, person.high, design.num_candidates)
        if design.num_proposals:
            some = order[: design.num_proposals]
            best, there = cheapest(moves._replace(serves=moves.serves[some]))
            at, by = moves.node[best], moves.shift[best] / person.unit[moves.node[best]]
            low, high = person.low[at], person.high[at]
            good = there & (low < high)
            num = len(some)
            node = node.at[:num].set(jnp.where(good, at, node[:num]))
            shift = shift.at[:num].set(jnp.where(good, away(by, low, high), shift[:num]))
        truths = jax.random.permutation(k_truths, num_draws)[: design.num_truths]
        log_p = foreseen(k_answers, likelihood, person, node, shift, truths, design.individual)
        info = information(log_p, truths)
        weights = jax.nn.softmax(log_p, -1)
        serves = moves.serves.astype(weights.dtype)
        p_after = weights @ serves
        p_now = serves.mean(0)
        far = jnp.max(jnp.where(jnp.isfinite(moves.cost), moves.cost, 0.0))

        def plan_cost(p):
            total = 0.0
            for share in design.levels:
                level = design.level * share
                cost = jnp.min(jnp.where(p >= level, moves.cost, jnp.inf), -1)
                total += jnp.where(jnp.isfinite(cost), cost, far * (1.0 + level - p.max(-1)))
            return total / len(design.levels)

        now, after = plan_cost(p_now), plan_cost(p_after).mean(-1)
        value = (now - after) / jnp.maximum(now, 1e-6) + design.curiosity * info
        best = jnp.argmax(jnp.where(person.known, value, 0.0))
        asked = node[best]
        return asked, shift[best] * person.unit[asked], value[best], info[best]

    return map_users(one, people, means, chunk=1)
