"""Questions about the action that is best under one draw of the person's SCM (Thompson 1933)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.elicitation.designs.moves import Means, Purpose, moves_of, proposals
from pcr_jax.elicitation.designs.people import (
    asked_for,
    candidates,
    check_belief,
    check_settings,
    for_each,
    people_of,
)
from pcr_jax.history import Questions

# Draws of a posterior that one is taken from.
_DRAWS = 512


@dataclass(frozen=True)
class ThompsonDesign:
    """What would follow from the action that is best under a draw?

    Of actions of one feature each. Under a draw for which that is one that nothing follows from, or
    under which none serves, the next is taken; of ``num_draws`` in vain, the question is at random.
    Nodes that a person cannot act on are not asked about, nor shifts beyond their bounds.

    Parameters
    ----------
    reach : float
        The largest shift asked about, in units of the surrogate's scale (natural units without
        one).
    num_draws : int
        Tried for each person, until one proposes what can be asked.
    individual : bool
        Whether people are asked about themselves, or about people like them on average.
    report : {"all", "one"}
        Whether people are asked for all that follows, or for one outcome at random.

    Raises
    ------
    TypeError
        If a setting is of another type.
    ValueError
        If a number is not positive.
    """

    reach: float = 2.0
    num_draws: int = 16
    individual: bool = True
    report: str = "all"

    needs_posterior = True
    needs_problem = True

    def __post_init__(self):
        check_settings(self)

    @nan_is_a_value
    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If there are no posteriors or no problem, or they are of other users.
        """
        _checks.key(key)
        check_belief(belief, self)
        problem = belief.problem
        people = people_of(belief, self.reach, _DRAWS)
        static = self.num_draws, self.individual, self.report, problem.hard
        ask = partial(_ask, *static, key, Purpose.of(problem))
        return for_each(ask, people, Means.of(problem))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _ask(num_tried, individual, report, hard, key, purpose, people, means):
    def one(person, means):
        key_of = jax.random.fold_in(key, person.number)
        k_draws, k_grid = jax.random.split(key_of)
        node, shift = candidates(k_grid, person.low, person.high, 1)
        some = jax.random.permutation(k_draws, len(person.draws))[:num_tried]
        person = person._replace(draws=person.draws[some])
        at, by, good = proposals(moves_of(purpose, means, person, hard), person)
        good &= person.known
        first = jnp.argmax(good)
        node = jnp.where(good.any(), at[first], node[0])
        shift = jnp.where(good.any(), by[first], shift[0]) * person.unit[node]
        graph = person.surrogates[1].graph
        outcome = asked_for(jax.random.fold_in(key_of, 0), graph, node, report)
        return Questions(node, shift, jnp.asarray(individual), outcome)

    return jax.vmap(one)(people, means)
