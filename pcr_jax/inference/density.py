"""The posterior of one user: log density, and a search of the prior for starting points.

The mathematics is written for one user. An answered history enters as an argument, so that
nothing is compiled again for the next user.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.batching import take
from pcr_jax.elicitation.history import History
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate

BLOCK = 2**14
"""Prior draws evaluated at once, per user."""


@pytree(static=("surrogate",))
class Posterior:
    """What samplers sample: one user's posterior, ``P(theta | D)`` of section 4 of the paper.

    Called with thetas (n, num_coefficients) it gives their log densities (n,).

    Attributes
    ----------
    surrogate : LinearSurrogate
    likelihood : Tolerance
    history : History
        Of one user: ``node`` and ``shift`` of shape (T,), ``answer`` of shape (T, d).
    """

    surrogate: LinearSurrogate
    likelihood: Tolerance
    history: History

    def __call__(self, thetas: Array) -> Array:
        """Log densities, compiled once per shape."""
        return batch_log_density(self.surrogate, self.likelihood, self.history, thetas)

    def log_density(self, theta: Array) -> Array:
        """Of one theta (num_coefficients,), up to a constant; shape ()."""
        return log_density(self.surrogate, self.likelihood, self.history, theta)

    def path(self, theta: Array) -> Array:
        """The log likelihood where there is any, and a finite slope towards it elsewhere; ()."""
        return self.likelihood.path(self._expected(theta), self.history.answer)

    def log_likelihood(self, theta: Array) -> Array:
        """Log likelihood of the answers; shape ()."""
        return self.likelihood.log_prob(self._expected(theta), self.history.answer)

    def _expected(self, theta):
        return self.surrogate.expected_answers(theta, self.history.node, self.history.shift)


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
    expected = surrogate.expected_answers(theta, history.node, history.shift)
    return surrogate.log_prior(theta) + likelihood.log_prob(expected, history.answer)


@partial(jax.jit, static_argnums=0)
def batch_log_density(surrogate, likelihood, history, thetas: Array) -> Array:
    """`log_density` of many thetas (n, num_coefficients) for one user; shape (n,)."""
    return jax.vmap(partial(log_density, surrogate, likelihood, history))(thetas)


def rotations(keys: Array, num_coefficients: int) -> Array:
    """Each user's place in the unit cube, shape (num_users, num_coefficients)."""
    return jax.vmap(lambda key: jax.random.uniform(key, (num_coefficients,)))(keys)


def prior_block(key: Array, surrogate: LinearSurrogate, rotation: Array) -> Array:
    """A block of prior draws for each user, shape (num_users, BLOCK, num_coefficients).

    Random numbers are the dear part, so that users share them: ``rotation`` (num_users,
    num_coefficients) is added to the ranks modulo 1, which leaves every user's draws independent
    and uniform.
    """
    unit = jax.random.uniform(key, (BLOCK, surrogate.num_coefficients)) + rotation[:, None]
    return surrogate.quantile(jnp.where(unit < 1, unit, unit - 1))


class PriorSearch(NamedTuple):
    """What independent draws from the prior found for one user.

    A draw is possible if the likelihood, or the indicator that it relaxes, allows it.

    Attributes
    ----------
    draws : Array
        Shape (num_wanted, num_coefficients): the first possible draws, exact independent draws
        from the posterior under an indicator likelihood; rows from ``num_found`` on are not
        meaningful.
    num_found : Array
        At most num_wanted.
    num_accepted, num_drawn : Array
        How many of the draws made were possible.
    best_agreement : Array
        The largest share of answers with which any draw agreed (1.0 without answers).
    """

    draws: Array
    num_found: Array
    num_accepted: Array
    num_drawn: Array
    best_agreement: Array


@partial(jax.jit, static_argnums=(1, 5, 6))
def search_priors(
    key: Array,
    surrogate: LinearSurrogate,
    likelihood: Tolerance,
    history: History,
    rotation: Array,
    num_wanted: int,
    max_draws: int,
) -> PriorSearch:
    """`search_prior` of several users at once, all leaves with a leading user axis.

    A user who is done is left alone while others go on. See `prior_block` for ``rotation``.
    """

    def evaluate(history, theta):
        expected = surrogate.expected_answers(theta, history.node, history.shift)
        agreeing, answered = likelihood.agreement(expected, history.answer)
        share = jnp.where(answered > 0, agreeing / jnp.maximum(answered, 1), 1.0)
        return likelihood.possible(expected, history.answer), share

    def place(draws, accepted, possible, thetas):
        position = jnp.where(possible, accepted + jnp.cumsum(possible) - 1, num_wanted)
        return draws.at[position].set(thetas, mode="drop")

    def unfinished(accepted, drawn):
        return (accepted < num_wanted) & (drawn < max_draws)

    def block(carry):
        i, found = carry
        thetas = prior_block(jax.random.fold_in(key, i), surrogate, rotation)
        possible, agreement = jax.vmap(jax.vmap(evaluate, (None, 0)))(history, thetas)
        going = unfinished(found.num_accepted, found.num_drawn)
        possible &= going[:, None]
        draws = jax.lax.cond(
            possible.any(),
            lambda: jax.vmap(place)(found.draws, found.num_accepted, possible, thetas),
            lambda: found.draws,
        )
        accepted = found.num_accepted + possible.sum(1)
        best = jnp.where(going, agreement.max(1), 0.0)
        return i + 1, PriorSearch(
            draws,
            jnp.minimum(accepted, num_wanted),
            accepted,
            found.num_drawn + BLOCK * going,
            jnp.maximum(found.best_agreement, best),
        )

    def any_unfinished(carry):
        return unfinished(carry[1].num_accepted, carry[1].num_drawn).any()

    users = len(rotation)
    none = jnp.zeros(users, int)
    draws = jnp.zeros((users, num_wanted, surrogate.num_coefficients))
    nothing = PriorSearch(draws, none, none, none, jnp.zeros(users))
    return jax.lax.while_loop(any_unfinished, block, (0, nothing))[1]


def search_prior(
    key: Array,
    surrogate: LinearSurrogate,
    likelihood: Tolerance,
    history: History,
    num_wanted: int,
    max_draws: int,
) -> PriorSearch:
    """Draw from the prior, in blocks, until ``num_wanted`` draws are possible.

    Stops after ``max_draws`` draws (rounded up to whole blocks of 16,384), found or not.
    """
    one = take(history, None)
    rotation = jnp.zeros((1, surrogate.num_coefficients))
    found = search_priors(key, surrogate, likelihood, one, rotation, num_wanted, max_draws)
    return take(found, 0)
