"""Questions whose answers tell most of a person's SCM.

Expected information gain by nested Monte Carlo over stored draws (Foster et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.elicitation.designs.people import (
    Sizes,
    asked_for,
    candidates,
    check_belief,
    check_generative,
    check_settings,
    chosen,
    for_each,
    foreseen,
    information,
    people_of,
)
from pcr_jax.history import Questions


@dataclass(frozen=True)
class InformationDesign:
    """The question whose answer is expected to tell most, whatever is to be decided.

    Of the SCM, and of how the person answers. Candidates are spread over what can be asked; where
    there is a problem, nodes that a person cannot act on are not asked about, nor shifts beyond
    their bounds.

    Parameters
    ----------
    reach : float
        The largest shift asked about, in units of the surrogate's scale (natural units without
        one).
    num_draws : int
        Of each posterior, evenly taken. Their logarithm is the most that can be told apart.
    num_candidates : int
        Questions that are compared.
    num_truths : int
        Draws under which answers to each are simulated.
    individual : bool
        Whether people are asked about themselves, or about people like them on average.
    report : {"all", "one"}
        Whether people are asked for all that follows, or for one outcome, of which candidates have
        random ones.

    Raises
    ------
    TypeError
        If a setting is of another type.
    ValueError
        If a number is not positive.
    """

    reach: float = 2.0
    num_draws: int = 512
    num_candidates: int = 24
    num_truths: int = 24
    individual: bool = True
    report: str = "all"

    needs_posterior = True

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
            If there are no posteriors, they or the problem are of other users, or answers cannot
            be simulated under the likelihood.
        """
        _checks.key(key)
        check_belief(belief, self)
        likelihood = belief.posteriors.likelihood
        check_generative(likelihood, self)
        people = people_of(belief, self.reach, self.num_draws)
        return for_each(partial(_ask, Sizes.of(self), key, likelihood), people)


@partial(jax.jit, static_argnums=0)
def _ask(sizes, key, likelihood, people):
    def one(person):
        key_of = jax.random.fold_in(key, person.number)
        k_grid, k_truths, k_answers = jax.random.split(key_of, 3)
        k_outcome = jax.random.fold_in(key_of, 0)
        node, shift = candidates(k_grid, person.low, person.high, sizes.num_candidates)
        outcome = asked_for(k_outcome, person.surrogates[1].graph, node, sizes.report)
        questions = Questions(node, shift, jnp.full(node.shape, sizes.individual), outcome)
        truths = jax.random.permutation(k_truths, len(person.draws))[: sizes.num_truths]
        log_p = foreseen(k_answers, likelihood, person, questions, truths)
        best = jnp.argmax(jnp.where(person.known, information(log_p, truths), 0.0))
        return chosen(questions, best, person)

    return jax.vmap(one)(people)
