"""One node's mechanism and noise from its rows: regressions whose weights have a posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats
from scipy.optimize import minimize

from pcr_jax._extras import extra
from pcr_jax.fitting.designs import Design
from pcr_jax.mechanisms import Categorical, Mechanism, Ordered
from pcr_jax.mechanisms.base import Assignment
from pcr_jax.mechanisms.invertible import location_scale
from pcr_jax.mechanisms.sums import PerLevel, Within

# Of a distribution that is not normal, so many normals at quantiles of the residuals.
_NUM_NORMALS = 100
_LEAST_P = 0.01
"""Of Shapiro and Wilk's test, for residuals to be taken as normal."""
_ROUNDS = 2  # of location and spread, each given the other
_LEAST = 1e-6  # of a residual, by the spread of all


class Fitted(NamedTuple):
    """One node's.

    Attributes
    ----------
    mechanism : Assignment
    draws : callable
        ``draws(rng, n)`` gives a mechanism with leading axis (n,): draws of what the rows leave.
    loss : callable
        ``loss(parents, values)`` gives each row's negative log probability, (n,).
    """

    mechanism: Assignment
    draws: Callable[[np.random.Generator, int], Any]
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Weights(NamedTuple):
    """A regression's intercept () and weights (M,), and their normal posterior."""

    intercept: float
    mean: np.ndarray
    factor: np.ndarray  # (M, M) whose square is the covariance

    def at(self, columns):
        """Its values (n,)."""
        return self.intercept + columns @ self.mean

    def drawn(self, rng, num):
        """Draws (num, M)."""
        return self.mean + rng.normal(size=(num, len(self.mean))) @ self.factor.T


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A matrix whose square it is; it may be singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


def _ridge(columns, response, sample_weight=None) -> Weights:
    """Bayesian ridge regression: shrinkage and noise by evidence (MacKay 1992)."""
    with extra("fit"):
        from sklearn.linear_model import BayesianRidge
    if not columns.shape[1]:
        mean = np.average(response, weights=sample_weight)
        return Weights(float(mean), np.zeros(0), np.zeros((0, 0)))
    unit = max(float(response.std()), np.finfo(float).tiny)
    model = BayesianRidge().fit(columns, response / unit, sample_weight)
    return Weights(model.intercept_ * unit, model.coef_ * unit, _factor(model.sigma_) * unit)


def fit_number(
    parents: np.ndarray, levels: tuple[int, ...], values: np.ndarray, curved: bool, spread: bool
) -> Fitted:
    """``X := f(Pa) + U``, f curved or lines; or with ``spread`` ``f(Pa) + exp(h(Pa)) U``."""
    design, of_size = (Design(parents, levels, bent) for bent in (curved, True))
    columns, of_sizes = design.columns(parents), of_size.columns(parents)
    location, log_scale = _ridge(columns, values), None
    for _ in range(_ROUNDS * spread):
        residual = np.abs(values - location.at(columns))
        size = np.log(np.maximum(residual, _LEAST * residual.std() + np.finfo(float).tiny))
        log_scale = _ridge(of_sizes, size)
        h = log_scale.at(of_sizes)
        # Nothing is said of spreads beyond those that were seen.
        ends = h.min(), h.max()
        location = _ridge(columns, values, np.exp(2 * (h.mean() - h)))

    def of_spread(columns):
        return 0.0 if log_scale is None else np.clip(log_scale.at(columns), *ends)

    noise = (values - location.at(columns)) / np.exp(of_spread(of_sizes))
    sd = max(float(np.sqrt(np.mean(noise**2))), np.finfo(float).tiny)

    def loss(parents, values):
        h = of_spread(of_size.columns(parents))
        return -stats.norm.logpdf(values, location.at(design.columns(parents)), sd * np.exp(h))

    def mechanism_of(intercepts, weights, spreads):
        coefficients = jnp.asarray(design.coefficients(intercepts, weights), float)
        if log_scale is None and design.function.is_linear:
            return Mechanism(coefficients[..., 1:])  # the intercept is the noise's mean
        if log_scale is None:
            return Mechanism(coefficients, design.function)
        own = of_size.coefficients(log_scale.intercept, spreads)
        own = np.concatenate([np.broadcast_to(ends, (*own.shape[:-1], 2)), own], -1)
        functions = design.function, Within(of_size.function)
        return location_scale(coefficients, jnp.asarray(own, float), *functions)

    def draws(rng, num):
        spreads = None if log_scale is None else log_scale.drawn(rng, num)
        return mechanism_of(location.intercept, location.drawn(rng, num), spreads)

    spreads = None if log_scale is None else log_scale.mean
    mechanism = mechanism_of(location.intercept, location.mean, spreads)
    return Fitted(mechanism, draws, loss)


def noise_of(residuals: np.ndarray) -> tuple[dist.Distribution, float]:
    """Their distribution: normal, or a mixture; and the p-value of Shapiro and Wilk's test."""
    values, counts = np.unique(residuals, return_counts=True)
    if len(values) <= 1 or len(values) <= len(residuals) / 10:
        shares = dist.Categorical(probs=jnp.asarray(counts / counts.sum(), float))
        return dist.MixtureSameFamily(shares, dist.Delta(jnp.asarray(values, float))), np.nan
    p = float(stats.shapiro(residuals[:5000]).pvalue)
    mean, sd = residuals.mean(), residuals.std()
    if p >= _LEAST_P:
        return dist.Normal(float(mean), float(sd)), p
    num = min(_NUM_NORMALS, len(residuals))
    places = np.quantile(residuals, (np.arange(num) + 0.5) / num)
    # Silverman's bandwidth, and the places drawn in so that mean and variance are the residuals'.
    width = 0.9 * min(sd, stats.iqr(residuals) / 1.34 + 1e-3 * sd) * len(residuals) ** -0.2
    inward = np.sqrt(max(sd**2 - width**2, 0.0)) / max(places.std(), np.finfo(float).tiny)
    places = mean + (places - places.mean()) * inward
    shares = dist.Categorical(probs=jnp.full(num, 1 / num))
    widths = jnp.full(num, float(width))
    return dist.MixtureSameFamily(shares, dist.Normal(jnp.asarray(places, float), widths)), p


def _cuts(free):
    """Increasing, from a first one and the logarithms of distances; (...)."""
    first, rest = free[..., :1], jnp.exp(free[..., 1:])
    return jnp.concatenate([first, first + jnp.cumsum(rest, -1)], -1)


def _ordered(theta, columns, num):
    """Log probabilities (n, num) of the ordered logit, from weights and then cuts."""
    size = columns.shape[1]
    latent = (columns * theta[:size]).sum(-1, keepdims=True)
    below = jax.nn.sigmoid(_cuts(theta[size:]) - latent)
    below = jnp.pad(below, ((0, 0), (1, 0)))
    below = jnp.pad(below, ((0, 0), (0, 1)), constant_values=1.0)
    return jnp.log(jnp.maximum(jnp.diff(below, axis=1), 1e-9))


def _nominal(theta, columns, num):
    """Those of the multinomial logit, from an intercept and weights of each level."""
    numbers = theta.reshape(num, -1)
    return jax.nn.log_softmax(numbers[:, 0] + columns @ numbers[:, 1:].T, -1)


@partial(jax.jit, static_argnums=(0, 4))
def _losses(model, theta, columns, level, num):
    """Every row's negative log probability."""
    return -jnp.take_along_axis(model(theta, columns, num), level[:, None], 1)[:, 0]


def _objective(model, theta, columns, level, num):
    """The negative log posterior, weights and cuts N(0, 1)."""
    return (theta**2).sum() / 2 + _losses(model, theta, columns, level, num).sum()


_with_slope = jax.jit(jax.value_and_grad(_objective, 1), static_argnums=(0, 4))
_curvature = jax.jit(jax.hessian(_objective, 1), static_argnums=(0, 4))


def fit_levels(
    parents: np.ndarray,
    levels: tuple[int, ...],
    values: np.ndarray,
    num: int,
    nominal: bool,
) -> Fitted:
    """The ordered or the multinomial logit, with weights N(0, 1) of the columns.

    The posterior is normal about its mode (Laplace).
    """
    design = Design(parents, levels, curved=False)
    columns, level = jnp.asarray(design.columns(parents), float), jnp.asarray(values, int)
    size, model = columns.shape[1], _nominal if nominal else _ordered

    def with_slope(theta):
        loss, slope = _with_slope(model, jnp.asarray(theta, float), columns, level, num)
        return float(loss), np.asarray(slope, np.float64)

    start = np.zeros(num * (1 + size) if nominal else size + num - 1)
    mode = minimize(with_slope, start, jac=True, method="L-BFGS-B").x

    def mechanism_of(theta):
        if nominal:
            numbers = theta.reshape(*theta.shape[:-1], num, 1 + size)
            coefficients = design.coefficients(numbers[..., 0], numbers[..., 1:])
            return Categorical(jnp.asarray(coefficients, float), PerLevel(design.function))
        coefficients = design.coefficients(0.0, theta[..., :size])
        cuts = _cuts(jnp.asarray(theta[..., size:], float))
        return Ordered(jnp.asarray(coefficients, float), cuts, design.function)

    def loss(parents, values):
        columns = jnp.asarray(design.columns(parents), float)
        found = _losses(model, jnp.asarray(mode, float), columns, jnp.asarray(values, int), num)
        return np.asarray(found, np.float64)

    def draws(rng, many):
        curvature = _curvature(model, jnp.asarray(mode, float), columns, level, num)
        values, vectors = np.linalg.eigh(np.asarray(curvature, np.float64))
        z = rng.normal(size=(many, len(mode))) / np.sqrt(np.maximum(values, 1.0))
        return mechanism_of(mode + z @ vectors.T)

    return Fitted(mechanism_of(mode), draws, loss)
