"""Whether a user's chains agree: rank-normalised split R-hat.

Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), "Rank-normalization, folding, and
localization: an improved R-hat". ArviZ has it for one variable at a time; here are all users'.
"""

import numpy as np
from scipy.special import ndtri

MAX_RHAT = 1.01
"""Chains with a larger R-hat do not agree."""


def _split_rhat(halves: np.ndarray) -> np.ndarray:
    """Of halves (..., num_halves, num_draws)."""
    num = halves.shape[-1]
    within = halves.var(-1, ddof=1).mean(-1)
    between = halves.mean(-1).var(-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((num - 1) / num + between / within)


def _normal_scores(halves: np.ndarray) -> np.ndarray:
    """Of the ranks among all of a parameter's draws; equal ones share the mean of theirs."""
    pooled = halves.reshape(*halves.shape[:-2], -1)
    num = pooled.shape[-1]
    order = np.argsort(pooled, axis=-1)
    ordered = np.take_along_axis(pooled, order, -1)
    differs = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*pooled.shape[:-1], 1), bool)
    place = np.arange(num, dtype=np.int32)
    first = np.where(np.concatenate([edge, differs], -1), place, 0)
    last = np.where(np.concatenate([differs, edge], -1), place, num)[..., ::-1]
    twice = np.maximum.accumulate(first, -1) + np.minimum.accumulate(last, -1)[..., ::-1]
    score = ndtri((np.arange(2 * num - 1) / 2 + 1 - 3 / 8) / (num + 1 / 4)).astype(np.float32)
    scores = np.empty(pooled.shape, np.float32)
    np.put_along_axis(scores, order, score[twice], -1)
    return scores.reshape(halves.shape)


def rank_rhat(chains: np.ndarray) -> np.ndarray:
    """R-hat of draws (..., num_chains, num_draws): the larger of location's and spread's; (...).

    NaN for fewer than two chains, or constant draws.
    """
    num_chains, num_draws = chains.shape[-2:]
    if num_chains < 2 or num_draws < 4:
        return np.full(chains.shape[:-2], np.nan)
    half = num_draws // 2
    halves = np.concatenate([chains[..., :half], chains[..., -half:]], axis=-2)
    folded = np.abs(halves - np.median(halves, axis=(-2, -1), keepdims=True))
    location, spread = (_split_rhat(_normal_scores(h)) for h in (halves, folded))
    return np.maximum(location, spread)
