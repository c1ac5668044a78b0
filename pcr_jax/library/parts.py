"""Parts that several SCMs have in common."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import nn

from pcr_jax.graph import Graph

THREE = Graph.fully_connected(3)


def normal(sd=1.0):
    """N(0, sd^2)."""
    return dist.Normal(0.0, sd)


def two_gaussians(first=(-2.0, 1.5), second=(1.0, 1.0)):
    """A half each of two means and standard deviations; by default the mean is -0.5."""
    means, sds = jnp.array([first, second]).T
    half = dist.Categorical(probs=jnp.array([0.5, 0.5]))
    return dist.MixtureSameFamily(half, dist.Normal(means, sds))


def logistic_effect(coefficients, parents):
    """A + b / (1 + exp(-c x))."""
    a, b, c = jnp.moveaxis(coefficients, -1, 0)
    return a + b * nn.sigmoid(c * parents[..., 0])


def linear_quadratic(coefficients, parents):
    """A x_1 + b x_2^2."""
    a, b = jnp.moveaxis(coefficients, -1, 0)
    return a * parents[..., 0] + b * parents[..., 1] ** 2


def affine(coefficients, parents):
    """The first coefficient, and the others times the parents."""
    return coefficients[..., 0] + (coefficients[..., 1:] * parents).sum(-1)
