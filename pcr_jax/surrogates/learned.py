"""Priors that a population's rows teach: what holds on average, and how far people are from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.surrogates.base import check_surrogate
from pcr_jax.surrogates.priors import NormalMixture, Prior
from pcr_jax.surrogates.regression import Regression, is_regression, padded_parents

# Prior draws whose moments are taken: variances to about 1 %.
_NUM_DRAWS = 2**14
# Residual variance, at least, as a share of all: mechanisms may fit to rounding.
_LEAST = 1e-8


def check_regression(surrogate: Any, example: str) -> Regression:
    """Raise unless mechanisms are sums of numbers times features, under one prior for all users."""
    check_surrogate(surrogate)
    if not is_regression(surrogate):
        raise TypeError(
            f"Expected surrogate with mechanisms that are sums over features, such as {example}; "
            f"got {_checks.shown(surrogate)}."
        )
    if surrogate.prior.batch_shape:
        raise ValueError(
            f"Expected surrogate with one prior for all users; got {surrogate.prior.batch_shape}."
        )
    return surrogate


def check_free(surrogate: Any) -> None:
    """Raise ValueError where the prior's box fixes a number."""
    if surrogate.prior.box is None:
        return
    low, high = np.asarray(surrogate.prior.box)
    fixed = [name for name, known in zip(surrogate.names, low == high, strict=True) if known]
    if fixed:
        raise ValueError(f"Expected surrogate with no edge fixed; got low == high for {fixed}.")


def with_normal(surrogate: Any, mean: Any, covariance: np.ndarray) -> Any:
    """A `Regression` with one normal as its prior.

    ``mean`` (k,); ``covariance`` (k, k), of which the part within each mechanism is taken.
    """
    blocks = surrogate.blocks
    of_number = np.zeros(len(mean), int)
    mechanisms = [row[row >= 0] for row in blocks if (row >= 0).any()]
    for block, numbers in enumerate(mechanisms):
        of_number[numbers] = block
    within = np.equal.outer(of_number, of_number)
    factor: Any = np.linalg.cholesky(np.where(within, covariance, 0.0))[None]
    weights: Any = np.ones(1)
    normal = NormalMixture(weights, mean[None], factor, tuple(of_number.tolist()))
    return replace(surrogate, prior=normal)


def prior_draws(prior: Prior, k: int) -> Array:
    """Always the same draws of a prior's k numbers, with their mirror images; (n, k)."""
    unit = np.random.default_rng(0).uniform(size=(_NUM_DRAWS // 2, k))
    return prior.from_unit(jnp.asarray(np.concatenate([unit, 1 - unit]), float))


def prior_moments(prior: Prior, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a prior's k numbers; (k,)."""
    draws = np.asarray(prior_draws(prior, k), np.float64)
    return draws.mean(0), draws.std(0)


def _normals(prior: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (C, k) of the prior's normals, or of one with its moments."""
    if not hasattr(prior, "factor"):
        mean, sd = prior_moments(prior, k)
        return mean[None], sd[None]
    mean, factor = np.asarray(prior.mean, np.float64), np.asarray(prior.factor, np.float64)
    return mean, np.sqrt((factor**2).sum(-1))


def _regressed(features, response, mean, sd):
    """Moments of the weights of a linear regression with an intercept: (M,), (M, M); evidence.

    Conjugate: weights are N(mean, sd^2) beforehand, and the residual variance is that of least
    squares. The evidence is the logarithm, up to a constant.
    """
    features, response = features - features.mean(0), response - response.mean()
    fitted, _, rank, _ = np.linalg.lstsq(features, response)
    residual = response - features @ fitted
    variance = residual @ residual / (len(response) - rank - 1)
    variance = max(variance, _LEAST * np.mean(response**2), np.finfo(float).tiny)
    ridge = np.sqrt(variance) / sd
    design = np.concatenate([features, np.diag(ridge)])
    target = np.concatenate([response, ridge * mean])
    orthogonal, upper = np.linalg.qr(design)
    weights = np.linalg.solve(upper, orthogonal.T @ target)
    inverse = np.linalg.inv(upper)
    squares = np.sum((target - design @ weights) ** 2) / variance
    evidence = np.log(ridge / np.abs(np.diag(upper))).sum() - squares / 2
    return weights, variance * inverse @ inverse.T, evidence


def learned_prior(surrogate: Any, rows, *, deviation: float = 0.3) -> Any:
    """The surrogate with what the rows of a population teach as its prior.

    Every mechanism is regressed on the features of its parents, with an intercept, by Bayesian
    linear regression under the surrogate's own prior (Gelman et al., "Bayesian Data Analysis",
    ch. 14), of which means and variances count: of several normals those of the one for which the
    evidence is largest. People are the population on average, and deviate from it: the prior is
    the weights' normal with the deviation's variance added.

    Parameters
    ----------
    surrogate : Surrogate
        `linear_surrogate` or `basis_surrogate`, or another whose mechanisms are sums over features
        (see `pcr_jax.surrogates.regression.Regression`).
    rows : array or pandas.DataFrame
        Shape (n, d), natural units: of anybody, refused or not. They have to come from an SCM on
        the surrogate's graph, without hidden common causes.
    deviation : float
        Standard deviation, over people, of a linear effect, in units of ``scale``; of every other
        term so many of its own standard deviations. Of terms for which the chosen normal leaves
        little room, as little is left. `refit_prior` learns it from people's answers.

    Returns
    -------
    Surrogate
        With a `NormalMixture` of one normal, whose blocks are the mechanisms.

    Raises
    ------
    TypeError
        If an argument is of another type, or mechanisms are no sums over features.
    ValueError
        If ``rows`` are not finite, of another shape, or no more than a mechanism's weights and 1,
        ``deviation`` is negative, edges are fixed, or users have priors of their own.
    """
    surrogate = check_regression(surrogate, "linear_surrogate(graph)")
    graph, blocks, k = surrogate.graph, surrogate.blocks, len(surrogate.names)
    rows = _checks.features(rows, graph.num_nodes, "rows", ndim=2, names=graph.nodes)
    deviation = float(_checks.positive(deviation, "deviation", (), or_zero=True))
    if len(rows) <= (least := int((blocks >= 0).sum(1).max()) + 1):
        raise ValueError(
            f"Expected more than {least} rows, for the {least - 1} weights of a mechanism and an "
            f"intercept; got {len(rows)}."
        )
    scale = getattr(surrogate, "scale", None)
    if scale is not None:
        rows, surrogate_in_scale = rows / scale, surrogate.standardised()
    else:
        surrogate_in_scale = surrogate
    features = jax.vmap(surrogate_in_scale.features, (0, None))(np.arange(len(blocks)), rows)
    features, rows = (np.asarray(values, np.float64) for values in (features, rows))
    check_free(surrogate)
    before, sd = _normals(surrogate.prior, k)
    room = np.where(sd > 0, sd / sd.max(0), 1.0)
    mean, covariance = np.zeros(k), np.zeros((k, k))
    is_linear = np.arange(blocks.shape[1]) < padded_parents(graph).shape[1]
    for j, row in enumerate(blocks):
        if not (there := row >= 0).any():
            continue
        numbers = row[there]
        given = features[j][:, there], rows[:, j]
        normals = zip(before[:, numbers], sd[:, numbers], strict=True)
        found = [_regressed(*given, *normal) for normal in normals]
        best = int(np.argmax([evidence for *_, evidence in found]))
        mean[numbers], of_weights, _ = found[best]
        personal = deviation * np.where(is_linear[there], room[best, numbers], sd[best, numbers])
        covariance[np.ix_(numbers, numbers)] = of_weights + np.diag(personal**2)
    return with_normal(surrogate, mean, covariance)
