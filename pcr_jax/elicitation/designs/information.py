"""Questions whose answers tell most of a person's SCM."""

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
from pcr_jax.elicitation.designs.people import (
    candidates,
    check_generative,
    foreseen,
    information,
    people_of,
)
from pcr_jax.history import Questions


@dataclass(frozen=True)
class InformationDesign:
    reach: float = 2.0
    num_draws: int = 512
    num_candidates: int = 24
    num_truths: int = 24
    individual: bool = True

    needs_posterior = True

    @nan_is_a_value
    def ask(self, key: Array, belief: Belief) -> Questions:
        _checks.key(key)
        _checks.instance(belief, Belief, "belief")
        people = people_of(key, belief, self, self.num_draws)
        likelihood = belief.posteriors.likelihood
        check_generative(likelihood, self)
        node, shift = _ask(self, likelihood, people)
        return Questions(node, shift, jnp.full(len(node), self.individual))


@partial(jax.jit, static_argnums=0)
def _ask(design, likelihood, people):
    def one(person):
        k_grid, k_truths, k_answers = jax.random.split(person.key, 3)
        node, shift = candidates(k_grid, person.low, person.high, design.num_candidates)
        truths = jax.random.permutation(k_truths, len(person.draws))[: design.num_truths]
        log_p = foreseen(k_answers, likelihood, person, node, shift, truths, design.individual)
        best = jnp.argmax(jnp.where(person.known, information(log_p, truths), 0.0))
        return node[best], shift[best] * person.unit[node[best]]

    return map_users(one, people, chunk=1)
