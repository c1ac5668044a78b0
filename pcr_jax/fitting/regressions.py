"""One node's mechanism and noise from its rows: regressions whose weights have a posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats
from scipy.optimize import minimize

from pcr_jax.fitting.designs import Design
from pcr_jax.mechanisms import Categorical, Mechanism, Ordered
from pcr_jax.mechanisms.base import Assignment
from pcr_jax.mechanisms.invertible import location_scale
from pcr_jax.mechanisms.sums import Clipped, PerLevel

# Of a distribution that is not normal, so many normals at quantiles of the residuals.
_NUM_NORMALS = 100
_LEAST_P = 0.01
"""Of Shapiro and Wilk's test, for residuals to be taken as normal."""
# Standard deviations of weights by that of the noise: of lines, and those that are tried of others.
_FREE, _SIZES = 100.0, np.geomspace(0.03, 30, 8)
_ROUNDS = 2  # of location and spread, each given the other
_HEAVY = 4  # degrees of freedom: few people who are far off do not decide between forms
_LEAST = 1e-6  # of the variance that is left, by all
_LEAST_SPREAD, _MOST_SPREAD = 0.05, 3.0  # by that in the mean, and by the largest of those seen


class Fitted(NamedTuple):
    """One node's.

    Attributes
    ----------
    mechanism : callable
        ``mechanism()``: the most probable one.
    draws : callable
        ``draws(rng, n)`` gives a mechanism with leading axis (n,): draws of what the rows leave.
    loss : callable
        ``loss(parents, values)`` gives each row's negative log probability, (n,).
    """

    mechanism: Callable[[], Assignment]
    draws: Callable[[np.random.Generator, int], Any]
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Weights(NamedTuple):
    """A regression's weights (M,) under each of some priors.

    Attributes
    ----------
    middle : ndarray
        Shape (M,): of the columns.
    of_response : float
        The mean response.
    share : ndarray
        Shape (n,): of each prior, by evidence.
    means, factors : ndarray
        Shapes (n, M) and (n, M, M): under each, means and factors of the covariance.
    freedom : int
        Of the noise's variance.
    """

    middle: np.ndarray
    of_response: float
    share: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    freedom: int

    @property
    def mean(self):
        """The posterior's, (M,)."""
        return self.share @ self.means

    def intercept(self, weights):
        """What goes with weights (..., M)."""
        return self.of_response - weights @ self.middle

    def at(self, columns):
        """Its values (n,)."""
        return self.of_response + (columns - self.middle) @ self.mean

    def drawn(self, rng, num):
        """Draws (num, M)."""
        which = rng.choice(len(self.share), num, p=self.share)
        size = np.sqrt(self.freedom / rng.chisquare(self.freedom, num))
        steps = np.einsum("nij,nj->ni", self.factors[which], rng.normal(size=(num, len(self.mean))))
        return self.means[which] + size[:, None] * steps


def _regressed(columns, kinds, response, importance=None) -> Weights:
    """Bayesian linear regression (Gelman et al., "Bayesian Data Analysis", ch. 14).

    Weights are N(0, s^2 v) with the noise's variance s^2: v is large for lines and levels, and for
    what bends unknown, one for squares and products and one for splines (``kinds`` (M,): 0, 1, 2),
    each about as probable at any size.
    """
    n, m = columns.shape
    importance = np.ones(n) if importance is None else importance / importance.mean()
    middle = importance @ columns / n
    mean = float(importance @ response / n)
    root = np.sqrt(importance)[:, None]
    x, y = root * (columns - middle), root[:, 0] * (response - mean)
    unit = max(float(np.sqrt(y @ y / n)), np.finfo(float).tiny)
    y = y / unit
    gram, slope, freedom = x.T @ x, x.T @ y, n - 1
    bent = [_SIZES if (kinds == kind).any() else _SIZES[:1] for kind in (1, 2)]
    logs, means, factors = [], [], []
    for first, second in product(*bent):
        sd = np.array([_FREE, first, second])[kinds]
        inverse = np.linalg.inv(gram + np.diag(sd**-2.0))
        weights = inverse @ slope
        left = max(float(y @ y - weights @ slope), _LEAST * n)
        sign_and_log = np.linalg.slogdet(np.eye(m) + sd[:, None] * gram * sd)
        logs.append(-sign_and_log[1] / 2 - freedom / 2 * np.log(left))
        means.append(unit * weights)
        factors.append(
            unit * np.sqrt(left / freedom) * np.linalg.cholesky((inverse + inverse.T) / 2)
        )
    share = np.exp(np.array(logs) - max(logs))
    return Weights(middle, mean, share / share.sum(), np.array(means), np.array(factors), freedom)


def fit_number(
    parents: np.ndarray, levels: tuple[int, ...], values: np.ndarray, curved: bool, spread: bool
) -> Fitted:
    """``X := f(Pa) + U``, f curved or lines; or with ``spread`` ``f(Pa) + h(Pa) U``.

    The spread h, curved, is the regression of the residuals' sizes (Glejser 1969).
    """
    design, of_size = (Design(parents, levels, bent) for bent in (curved, True))
    columns, of_sizes = design.columns(parents), of_size.columns(parents)
    location, scale, h = _regressed(columns, design.kinds, values), None, np.ones(len(values))
    for _ in range(_ROUNDS * spread):
        size = np.abs(values - location.at(columns))
        size = size / max(size.mean(), np.finfo(float).tiny)
        ends = _LEAST_SPREAD, size.max()
        scale = _regressed(of_sizes, of_size.kinds, size, h**-2)
        h = np.clip(scale.at(of_sizes), *ends)
        ends = ends[0], _MOST_SPREAD * h.max()
        location = _regressed(columns, design.kinds, values, h**-2)

    def of_spread(parents):
        if scale is None:
            return 1.0
        return np.clip(scale.at(of_size.columns(parents)), *ends)

    noise = (values - location.at(columns)) / h
    sd = max(float(np.sqrt(np.mean(noise**2))), np.finfo(float).tiny)

    def loss(parents, values):
        centre = location.at(design.columns(parents))
        return -stats.t.logpdf(values, _HEAVY, centre, sd * of_spread(parents))

    def mechanism_of(weights, spreads):
        intercepts = location.intercept(weights)
        coefficients = jnp.asarray(design.coefficients(intercepts, weights), float)
        if scale is not None:
            own = of_size.coefficients(scale.intercept(spreads), spreads)
            own = np.concatenate([np.broadcast_to(ends, (*own.shape[:-1], 2)), own], -1)
            own, clipped = jnp.asarray(own, float), Clipped(of_size.function)
            return location_scale(coefficients, own, design.function, scale=clipped)
        if design.function.is_linear:
            return Mechanism(coefficients[..., 1:])  # the intercept is the noise's mean
        return Mechanism(coefficients, design.function)

    def draws(rng, num):
        spreads = None if scale is None else scale.drawn(rng, num)
        return mechanism_of(location.drawn(rng, num), spreads)

    def mechanism():
        return mechanism_of(location.mean, None if scale is None else scale.mean)

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

    return Fitted(lambda: mechanism_of(mode), draws, loss)
