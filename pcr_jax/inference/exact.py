"""The yardstick for few coefficients: draws from the prior, weighted by the likelihood."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import chunks_of, take, user_keys, width
from pcr_jax.history import History, check_history
from pcr_jax.inference.search import rotations, shared_uniforms
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood, check_likelihood
from pcr_jax.surrogates import Surrogate, check_surrogate, check_users, for_users, in_scale

_MAX_COEFFICIENTS = 4
_BLOCK = 2**14
_MIN_BLOCKS = 16
_CHUNK = 16


class ExactPosterior(NamedTuple):
    """Moments of every user's posterior, with standard errors.

    Attributes
    ----------
    mean, sd : array
        Shape (num_users, dim): of the surrogate's numbers and the likelihood's unknowns. NaN for
        a user none of whose draws is possible.
    mean_error, sd_error : array
        Their standard errors, by the jackknife over blocks of draws; same shape.
    evidence : array
        Shape (num_users,): the mean of the likelihood over the prior.
    evidence_error : array
        Its standard error; same shape.
    effective_draws : array
        Shape (num_users,): the squared sum of the weights over the sum of their squares.
    """

    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray
    sd_error: np.ndarray
    evidence: np.ndarray
    evidence_error: np.ndarray
    effective_draws: np.ndarray


@partial(jax.jit, static_argnums=5)
def _block_sums(key, surrogates, likelihood, history, rotation, num_blocks):
    """Per user and block: sums of weights, of their squares, and of weighted powers of z.

    A user's weights are relative to the largest of the first block, whose logarithm is returned as
    well: squares of small likelihoods would be 0.
    """

    def weigh(surrogate, history, unit):
        target = Target(surrogate, likelihood, history)
        zs = target.from_unit(unit)
        return zs, jax.vmap(target.log_likelihood)(zs)

    def block(unit_log, i):
        unit = shared_uniforms(jax.random.fold_in(key, i), rotation, _BLOCK)
        zs, log_weights = jax.vmap(weigh)(surrogates, history, unit)
        largest = log_weights.max(1)
        unit_log = jnp.where((i == 0) & jnp.isfinite(largest), largest, unit_log)
        weights = jnp.exp(log_weights - unit_log[:, None])
        columns = jnp.unstack(zs, axis=-1)
        first = [jnp.sum(weights * column, -1) for column in columns]
        second = [jnp.sum(weights * column**2, -1) for column in columns]
        sums = [weights.sum(-1), jnp.sum(weights**2, -1), *first, *second]
        return unit_log, jnp.stack(sums, -1)

    unit_log = jnp.zeros(history.num_users)
    unit_log, sums = jax.lax.scan(block, unit_log, jnp.arange(num_blocks))
    return sums.swapaxes(0, 1), unit_log


@nan_is_a_value
def exact_posterior(
    key: Array,
    surrogate: Surrogate,
    history: History,
    likelihood: Likelihood,
    *,
    num_draws: int = 2**20,
) -> ExactPosterior:
    """Every user's posterior by importance sampling from the prior.

    The honest choice for up to three coefficients: no tuning, no convergence to judge, and an
    error estimate. Exact as ``num_draws`` grows.

    Parameters
    ----------
    key : Array
    surrogate : Surrogate
    history : History
        Of num_users users.
    likelihood : Likelihood
        Together with the surrogate it has at most 4 unknown numbers.
    num_draws : int
        Per user, rounded up to whole blocks of 16,384 and to 16 blocks at least.

    Returns
    -------
    ExactPosterior

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``history`` is at odds with the graph (see `check_history`), or there are more
        coefficients than draws from a box can serve.
    """
    _checks.key(key)
    check_likelihood(likelihood)
    check_surrogate(surrogate)
    history = check_history(history, surrogate.graph)
    check_users(surrogate, history.num_users)
    k = len(surrogate.names) + len(likelihood.names)
    if k > _MAX_COEFFICIENTS:
        raise ValueError(
            f"Expected at most {_MAX_COEFFICIENTS} unknown numbers in surrogate; got {k}, in which "
            "draws from the prior find next to nothing. Use infer(..., sampler='smc')."
        )
    _checks.count(num_draws, "num_draws")
    num_blocks = max(-(-num_draws // _BLOCK), _MIN_BLOCKS)
    k_draws, k_users = jax.random.split(key)
    rotation = rotations(user_keys(k_users, history.num_users), k)
    surrogate, history = in_scale(surrogate, history)
    own = for_users(surrogate, history.num_users)
    sums = np.zeros((history.num_users, num_blocks, 2 + 2 * k))
    unit_log = np.zeros(history.num_users)
    for users, padded in chunks_of(np.arange(history.num_users), _CHUNK * width()):
        rows = take(history, padded)
        found = _block_sums(
            k_draws, take(own, padded), likelihood, rows, rotation[padded], num_blocks
        )
        sums[users], unit_log[users] = take(jax.device_get(found), slice(len(users)))

    def moments(sums):
        weight = sums[..., :1]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums[..., 2 : 2 + k] / weight
            variance = sums[..., 2 + k :] / weight - mean**2
        return mean, np.sqrt(np.maximum(variance, 0.0)), weight[..., 0]

    def error(without):
        """Jackknife: from the values without each of the blocks."""
        return np.sqrt((num_blocks - 1) * without.var(axis=1))

    total = sums.sum(1)
    mean, sd, weight = moments(total)
    mean_without, sd_without, weight_without = moments(total[:, None] - sums)
    unit, drawn = np.exp(unit_log), num_blocks * _BLOCK
    with np.errstate(invalid="ignore"):
        effective = np.nan_to_num(weight**2 / total[:, 1])
    return ExactPosterior(
        mean,
        sd,
        error(mean_without),
        error(sd_without),
        unit * weight / drawn,
        unit * error(weight_without) / (drawn - _BLOCK),
        effective,
    )
