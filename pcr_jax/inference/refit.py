"""People teach each other: what many people's posteriors say of people."""

from __future__ import annotations

from typing import Any

import numpy as np

from pcr_jax import _checks
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.surrogates.learned import check_free, check_regression, with_normal


def refit_prior(posteriors: Posteriors) -> Any:
    """The surrogate with the normal prior that many people's answers make most probable: one step.

    Empirical Bayes (Robbins 1956) by expectation and maximisation (Dempster, Laird & Rubin 1977):
    the new mean is that of all people's posteriors, the new covariance, of each mechanism, their
    mean square about it. How much people deviate, number by number, is so learnt from those whose
    answers tell; what nobody's answers tell anything about stays as it was. Each step raises the
    probability of all answers where the prior was a normal before, as from `learned_prior`; repeat
    it with posteriors under the new prior until it changes little, ten times or so:

        for key in jax.random.split(key, 10):
            posteriors = pcr.infer(key, surrogate, history, likelihood, sampler="gibbs")
            surrogate = pcr.refit_prior(posteriors)

    Parameters
    ----------
    posteriors : Posteriors
        Of a surrogate whose mechanisms are sums over features, under one prior for all users.
        Users without a posterior, or who answered nothing, do not count.

    Returns
    -------
    Surrogate
        With a `NormalMixture` of one normal, whose blocks are the mechanisms.

    Raises
    ------
    TypeError
        If ``posteriors`` are none, or of another surrogate.
    ValueError
        If users have priors of their own, fewer than two of them have a posterior, or edges are
        fixed.
    """
    _checks.instance(posteriors, Posteriors, "posteriors", " See infer.")
    surrogate = check_regression(posteriors.surrogate, "linear_surrogate(graph)")
    check_free(surrogate)
    draws = posteriors.draws.reshape(len(posteriors.draws), -1, posteriors.draws.shape[-1])
    telling = np.isfinite(draws).all((1, 2)) & (posteriors.status != PosteriorStatus.prior_only)
    if telling.sum() < 2:
        raise ValueError(
            f"Expected posteriors of at least two users who answered; got {telling.sum()}."
        )
    draws = draws[telling].astype(np.float64)
    mean = draws.mean((0, 1))
    gaps = (draws - mean).reshape(-1, len(mean))
    return with_normal(surrogate, mean, gaps.T @ gaps / len(gaps))
