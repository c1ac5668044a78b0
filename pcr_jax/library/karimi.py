"""The SCMs of Karimi et al. (2020), "Algorithmic recourse under imperfect causal knowledge".

The second argument of N is a variance.
"""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import nn

from pcr_jax.graph import Graph
from pcr_jax.library.parts import (
    THREE,
    affine,
    linear_quadratic,
    logistic_effect,
    normal,
    two_gaussians,
)
from pcr_jax.mechanisms import Invertible, Mechanism, bounded
from pcr_jax.scm import SCM, linear_scm


def lin() -> SCM:
    """Karimi's LIN: X2 := -X1 + U2, X3 := 0.05 X1 + 0.25 X2 + U3."""
    noise = [two_gaussians((-2.0, 1.5**0.5)), normal(), normal()]
    return linear_scm(THREE, jnp.array([-1.0, 0.05, 0.25]), noise)


def anm() -> SCM:
    """Karimi's ANM: X2 := -1 + 3 / (1 + exp(-2 X1)) + U2, X3 := -0.05 X1 - 0.25 X2^2 + U3."""
    return SCM(
        THREE,
        (
            Mechanism(jnp.zeros(0)),
            Mechanism(jnp.array([-1.0, 3.0, 2.0]), logistic_effect),
            Mechanism(jnp.array([-0.05, -0.25]), linear_quadratic),
        ),
        (two_gaussians((-2.0, 1.5**0.5)), normal(0.1**0.5), normal()),
    )


# What is observed has noise of either sign, and not of 0.
_TINY = 1e-30


def _sign(value):
    return jnp.where(value < 0, -1.0, 1.0)


def _square_times_noise(coefficients, parents, noise):
    """A sgn(u) x^2 (1 + u^2)."""
    return coefficients[..., 0] * _sign(noise) * parents[..., 0] ** 2 * (1 + noise**2)


def _noise_of_square(coefficients, parents, value):
    size = jnp.abs(value) / (coefficients[..., 0] * parents[..., 0] ** 2)
    return _sign(value) * jnp.sqrt(jnp.maximum(size - 1, _TINY))


def _squares_by_sign(coefficients, parents, noise):
    """A + b sgn(u) (x_1^2 + x_2^2) + u."""
    a, b = jnp.moveaxis(coefficients, -1, 0)
    return a + b * _sign(noise) * (parents**2).sum(-1) + noise


def _noise_by_sign(coefficients, parents, value):
    a, b = jnp.moveaxis(coefficients, -1, 0)
    size = jnp.abs(value - a) - b * (parents**2).sum(-1)
    return _sign(value - a) * jnp.maximum(size, _TINY)


def gen() -> SCM:
    """Karimi's non-additive GEN.

    X2 := 0.25 sgn(U2) X1^2 (1 + U2^2), X3 := -1 + 0.1 sgn(U3) (X1^2 + X2^2) + U3.
    """
    return SCM(
        THREE,
        (
            Mechanism(jnp.zeros(0)),
            Invertible(jnp.array([0.25]), _square_times_noise, _noise_of_square),
            Invertible(jnp.array([-1.0, 0.1]), _squares_by_sign, _noise_by_sign),
        ),
        (two_gaussians((-2.5, 1.0), (2.5, 1.0)), normal(0.5), normal(0.25)),
    )


_LOAN_NODES = ("G", "A", "E", "L", "D", "I", "S")  # gender, age, education, ..., savings
_LOAN_CAUSES = {"E": "GA", "L": "GA", "D": "GAL", "I": "GAE", "S": "I"}


def _education(coefficients, parents):
    """A + b G + s(c A)."""
    a, b, c = jnp.moveaxis(coefficients, -1, 0)
    return a + b * parents[..., 0] + nn.sigmoid(c * parents[..., 1])


def _amount(coefficients, parents):
    """A + b G + c (A - d)^2."""
    a, b, c, d = jnp.moveaxis(coefficients, -1, 0)
    return a + b * parents[..., 0] + c * (parents[..., 1] - d) ** 2


def _income(coefficients, parents):
    """A + b G + c A + d G E."""
    a, b, c, d = jnp.moveaxis(coefficients, -1, 0)
    gender, age, education = jnp.moveaxis(parents, -1, 0)
    return a + b * gender + c * age + d * gender * education


def _savings(coefficients, parents):
    """A + b max(I, 0)."""
    a, b = jnp.moveaxis(coefficients, -1, 0)
    return a + b * jnp.maximum(parents[..., 0], 0.0)


def loan() -> SCM:
    """The loan: gender, age, education, amount, duration, income, savings; see `loan_logit`.

    G ~ Bernoulli(0.5); A := -35 + Gamma(10, 3.5);
    E := -0.5 + s(-1 + 0.5 G + s(0.1 A) + N(0, 0.25));
    L := 1 - 0.01 (A - 5)^2 + G + N(0, 4); D := -1 + 0.1 A + 2 G + L + N(0, 9);
    I := -4 + 0.1 (A + 35) + 2 G + G E + N(0, 4); S := -4 + 1.5 max(I, 0) + N(0, 25);
    with variances, and the logistic function s.
    """
    edges = [(cause, node) for node, causes in _LOAN_CAUSES.items() for cause in causes]
    root = Mechanism(jnp.zeros(0))
    return SCM(
        Graph.from_edges(_LOAN_NODES, edges),
        (
            root,
            Mechanism(jnp.array([-35.0]), affine),
            bounded(jnp.array([-1.0, 0.5, 0.1]), -0.5, 0.5, _education),
            Mechanism(jnp.array([1.0, 1.0, -0.01, 5.0]), _amount),
            Mechanism(jnp.array([-1.0, 2.0, 0.1, 1.0]), affine),
            Mechanism(jnp.array([-0.5, 2.0, 0.1, 1.0]), _income),
            Mechanism(jnp.array([-4.0, 1.5]), _savings),
        ),
        (
            dist.Bernoulli(probs=0.5),
            dist.Gamma(10.0, 1 / 3.5),
            *map(normal, (0.5, 2.0, 3.0, 2.0, 5.0)),
        ),
    )


def loan_logit(x):
    """Of the loan being granted, 0.3 (-L - D + I + S + I S); shape (...) of features (..., 7)."""
    _, _, _, amount, duration, income, savings = jnp.moveaxis(x, -1, 0)
    return 0.3 * (-amount - duration + income + savings + income * savings)
