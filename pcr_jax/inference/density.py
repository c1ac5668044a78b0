"""The posterior of one user: log density, and a search of the prior for starting points.

Everything here is written for one user. An answered history enters as an argument, so that
nothing is compiled again for the next user.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax.elicitation.history import History
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate

_BLOCK = 2**16  # prior draws evaluated at once


def log_density(
    surrogate: LinearSurrogate, likelihood: Tolerance, history: History, theta: Array
) -> Array:
    """Log posterior density, up to a constant: ``P(theta | D)`` of section 4; shape ().

    Parameters
    ----------
    history : History
        Of one user: ``node`` and ``shift`` of shape (T,), ``answer`` of shape (T, d).
    theta : Array
        Shape (num_coefficients,).
    """
    inside = surrogate.prior.support(theta)
    expected = surrogate.expected_answers(theta, history.node, history.shift)
    log_prob = likelihood.log_prob(expected, history.answer)
    return jnp.where(inside, surrogate.prior.log_prob(theta) + log_prob, -jnp.inf)


@partial(jax.jit, static_argnums=0)
def batch_log_density(surrogate, likelihood, history, thetas: Array) -> Array:
    """`log_density` of many thetas (n, num_coefficients) for one user; shape (n,)."""
    return jax.vmap(partial(log_density, surrogate, likelihood, history))(thetas)


class PriorSearch(NamedTuple):
    """What independent draws from the prior found for one user.

    Attributes
    ----------
    draws : Array
        Shape (num_wanted, num_coefficients): the first draws of positive posterior density,
        exact independent draws from the posterior under an indicator likelihood; rows from
        ``num_found`` on are not meaningful.
    num_found : Array
        At most num_wanted.
    num_accepted, num_drawn : Array
        How many of the draws made had positive posterior density.
    best_agreement : Array
        The largest share of answers with which any draw agreed (1.0 without answers).
    """

    draws: Array
    num_found: Array
    num_accepted: Array | int
    num_drawn: Array | int
    best_agreement: Array


@partial(jax.jit, static_argnums=(1, 4, 5))
def search_prior(
    key: Array,
    surrogate: LinearSurrogate,
    likelihood: Tolerance,
    history: History,
    num_wanted: int,
    max_draws: int,
) -> PriorSearch:
    """Draw from the prior, in blocks, until ``num_wanted`` draws have positive posterior density.

    Stops after ``max_draws`` draws (rounded up to whole blocks of 65,536), found or not.
    """

    def evaluate(theta):
        expected = surrogate.expected_answers(theta, history.node, history.shift)
        agreeing, answered = likelihood.agreement(expected, history.answer)
        feasible = likelihood.log_prob(expected, history.answer) > -jnp.inf
        return feasible, jnp.where(answered > 0, agreeing / jnp.maximum(answered, 1), 1.0)

    def block(carry):
        i, draws, accepted, best = carry
        thetas = surrogate.prior.sample(jax.random.fold_in(key, i), (_BLOCK,))
        feasible, agreement = jax.vmap(evaluate)(thetas)
        position = jnp.where(feasible, accepted + jnp.cumsum(feasible) - 1, num_wanted)
        draws = draws.at[position].set(thetas, mode="drop")
        return i + 1, draws, accepted + feasible.sum(), jnp.maximum(best, agreement.max())

    def unfinished(carry):
        i, _, accepted, _ = carry
        return (accepted < num_wanted) & (i * _BLOCK < max_draws)

    empty = jnp.zeros((num_wanted, surrogate.num_coefficients))
    i, draws, accepted, best = jax.lax.while_loop(unfinished, block, (0, empty, 0, jnp.zeros(())))
    return PriorSearch(draws, jnp.minimum(accepted, num_wanted), accepted, i * _BLOCK, best)
