"""Whether a user's chains agree: rank-normalised split R-hat.

Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), "Rank-normalization, folding, and
localization: an improved R-hat". ArviZ has it for one variable at a time; here are all users'.
"""

import jax
import jax.numpy as jnp
from jax import Array

MAX_RHAT = 1.01
"""Chains with a larger R-hat do not agree."""


def _split_rhat(chains: Array) -> Array:
    """Of halves (num_halves, num_draws)."""
    num = chains.shape[1]
    within = chains.var(1, ddof=1).mean()
    between = chains.mean(1).var(ddof=1)
    return jnp.sqrt((num - 1) / num + between / within)


def _normal_scores(chains: Array) -> Array:
    ordered = jnp.sort(chains.ravel())
    below = jnp.searchsorted(ordered, chains, side="left")
    up_to = jnp.searchsorted(ordered, chains, side="right")
    rank = (below + up_to + 1) / 2
    return jax.scipy.special.ndtri((rank - 3 / 8) / (chains.size + 1 / 4))


def rank_rhat(chains: Array) -> Array:
    """R-hat of draws (num_chains, num_draws): the larger of location's and spread's; shape ().

    NaN for constant draws or fewer than two chains.
    """
    num_chains, num_draws = chains.shape
    if num_chains < 2 or num_draws < 4:
        return jnp.array(jnp.nan)
    half = num_draws // 2
    halves = jnp.concatenate([chains[:, :half], chains[:, -half:]])
    folded = jnp.abs(halves - jnp.median(halves))
    return jnp.maximum(_split_rhat(_normal_scores(halves)), _split_rhat(_normal_scores(folded)))
