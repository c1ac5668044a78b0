"""Questions whose answers make the recommended action cheaper.

What a question is worth is seen one step ahead (a knowledge gradient, Frazier, Powell and Dayanik
2008): answers to it are simulated under some draws, all draws are weighted by how well they predict
each, and the cheapest action that serves with the probability asked for is looked up anew. Only
products of matrices: which draws an action serves under is computed once.

Often no single answer makes a difference to the plan where two would, since either might be wrong.
What an answer settles counts therefore as well: how far draws disagree about the actions that are
cheaper than the plan. Both are costs. Ties go to the answer that tells most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation.designs.base import Belief
from pcr_jax.elicitation.designs.moves import (
    REACH,
    Means,
    Moves,
    Purpose,
    cheapest,
    moves_of,
    proposals,
)
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

# What a nat is worth, as a share of the plan's cost.
_CURIOSITY = 0.002


class Outlook(NamedTuple):
    """What is known of the users' next questions, (num_users,) each.

    Attributes
    ----------
    questions : Questions
        With ``node`` -1 for whom there is nothing worth asking.
    cost : Array
        Of the cheapest action of one feature that serves with the probability asked for; infinite
        where none does.
    saving : Array
        The share of it that the answer is expected to save.
    at_most : Array
        The share of it that knowing the person's SCM would be expected to save.
    """

    questions: Questions
    cost: Array
    saving: Array
    at_most: Array


@dataclass(frozen=True)
class DecisionDesign:
    """The question after whose answer the recommended action is expected to be cheapest.

    Of actions of one feature each. Candidates are spread over what can be asked, half of them
    replaced by the actions that are best under some draws; all of them, however far they go, where
    the surrogate is ``curved``, of which an answer teaches little elsewhere. Nodes that a person
    cannot act on are not asked about, nor shifts beyond their bounds.

    Parameters
    ----------
    level : float
        With which probability the action is to serve, where the problem does not say.
    least_saving : float
        Who is not expected to save this share of the plan's cost, even by answering everything, is
        asked no more (``node`` -1). 0: all are asked.
    reach : float
        The largest shift asked about, in units of the surrogate's scale (natural units without
        one); actions that are asked about where that is ``curved`` may go farther.
    num_draws : int
        Of each posterior, evenly taken.
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
        If a number is not positive, or ``level`` or ``least_saving`` outside of (0, 1) or [0, 1].
    """

    level: float = 0.95
    least_saving: float = 0.0
    reach: float = 2.0
    num_draws: int = 256
    num_candidates: int = 24
    num_truths: int = 24
    individual: bool = True
    report: str = "all"

    needs_posterior = True
    needs_problem = True

    def __post_init__(self):
        check_settings(self)
        _checks.between_0_and_1(self.level, "level")
        _checks.probability(self.least_saving, "least_saving", ())

    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If there are no posteriors or no problem, they are of other users, or answers cannot be
            simulated under the likelihood.
        """
        return self.outlook(key, belief).questions

    @nan_is_a_value
    def outlook(self, key: Array, belief: Belief) -> Outlook:
        """The next question to each user, and what there is to be saved; see `ask`."""
        _checks.key(key)
        check_belief(belief, self)
        problem, likelihood = belief.problem, belief.posteriors.likelihood
        check_generative(likelihood, self)
        level = getattr(problem.requirement, "level", None)
        level = self.level if level is None else level
        numbers = [jnp.asarray(a, float) for a in (level, self.least_saving, self.reach)]
        purpose = Purpose.of(problem)
        curved = getattr(belief.surrogate, "curved", False)
        proposed = self.num_candidates if curved else self.num_candidates // 2
        static = Sizes.of(self), proposed, problem.hard
        look = partial(_outlook, *static, key, *numbers, likelihood, purpose)
        people = people_of(belief, REACH if curved else self.reach, self.num_draws)
        return Outlook(*for_each(look, people, Means.of(problem)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _outlook(
    sizes, num_proposals, hard, key, level, least_saving, reach, likelihood, purpose, people, means
):
    def one(person, means):
        key_of = jax.random.fold_in(key, person.number)
        k_some, k_grid, k_truths, k_answers = jax.random.split(key_of, 4)
        k_outcome = jax.random.fold_in(key_of, 0)
        moves = moves_of(purpose, means, person, hard)
        ends = jnp.maximum(person.low, -reach), jnp.minimum(person.high, reach)
        node, shift = candidates(k_grid, *ends, sizes.num_candidates)
        num = len(person.draws)
        some = jax.random.permutation(k_some, num)[:num_proposals]
        at, by, good = proposals(moves._replace(serves=moves.serves[some]), person)
        first = slice(len(some))
        node = node.at[first].set(jnp.where(good, at, node[first]))
        shift = shift.at[first].set(jnp.where(good, by, shift[first]))
        outcome = asked_for(k_outcome, person.surrogates[1].graph, node, sizes.report)
        questions = Questions(node, shift, jnp.full(node.shape, sizes.individual), outcome)
        truths = jax.random.permutation(k_truths, num)[: sizes.num_truths]
        log_p = foreseen(k_answers, likelihood, person, questions, truths)
        serves = moves.serves.astype(log_p.dtype)
        now = _Plan.of(moves, serves.mean(0), level)
        after = _Plan.of(moves, jax.nn.softmax(log_p, -1) @ serves, level)
        unit = jnp.maximum(now.cost, jnp.finfo(log_p.dtype).tiny)
        saving = (now.cost - after.cost.mean(-1)) / unit
        settled = now.disagreement(now.cost) - after.disagreement(now.cost).mean(-1)
        worth = saving + settled / unit + _CURIOSITY * information(log_p, truths)
        best = jnp.argmax(jnp.where(person.known, worth, 0.0))
        asked = chosen(questions, best, person)
        index, there = cheapest(moves)
        ideal = jnp.where(there, moves.cost[index], now.cost).mean()
        at_most = jnp.where(person.known, 1 - jnp.minimum(ideal, now.cost) / unit, 1.0)
        ended = at_most < least_saving
        node, outcome = (jnp.where(ended, -1, of) for of in (asked.node, asked.outcome))
        asked = replace(asked, node=node, outcome=outcome)
        cost = jnp.where(now.served, now.cost, jnp.inf)
        return asked, cost, saving[best], at_most

    return jax.vmap(one)(people, means)


class _Plan(NamedTuple):
    """The cheapest of one person's moves of sufficient probability."""

    moves: Moves
    probability: Array  # (..., A)
    cost: Array  # (...), more than the dearest where none is; the more, the less probable
    served: Array  # (...)

    @classmethod
    def of(cls, moves: Moves, probability: Array, level: Array) -> _Plan:
        """The plan where moves serve with this ``probability`` (..., A)."""
        cheap = jnp.min(jnp.where(probability >= level, moves.cost, jnp.inf), -1)
        dearest = jnp.max(jnp.where(jnp.isfinite(moves.cost), moves.cost, 0.0))
        lacking = dearest * (1 + level - probability.max(-1))
        served = jnp.isfinite(cheap)
        return cls(moves, probability, jnp.where(served, cheap, lacking), served)

    def disagreement(self, cost: Array) -> Array:
        """Of draws about all moves up to a cost, ``p (1 - p)`` added up over costs; (...)."""
        step = jnp.where(self.moves.cost <= cost, self.moves.step, 0.0)
        return (self.probability * (1 - self.probability)) @ step
