"""The SCMs of Majumdar and Valera (2024).

"CARMA: A practical framework to generate recommendations for causal algorithmic recourse at scale".
S is a protected attribute of 0 or 1. U1 ~ 1/2 N(-2, 1.5) + 1/2 N(1.5, 1), U2, U3 ~ N(0, 1), of
variances; that of U2 is 0.1 in `triangle_curved` and `collider_curved`.
"""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import nn

from pcr_jax.graph import Graph
from pcr_jax.library.parts import logistic_effect, normal, two_gaussians
from pcr_jax.mechanisms import Mechanism
from pcr_jax.scm import SCM, linear_scm

_PROTECTED = ("S", "X1", "X2", "X3")
_TRIANGLE = Graph.from_edges(
    _PROTECTED, [("S", "X1"), ("X1", "X2"), ("S", "X3"), ("X1", "X3"), ("X2", "X3")]
)
_COLLIDER = Graph.from_edges(
    _PROTECTED, [("S", "X1"), ("S", "X2"), ("S", "X3"), ("X1", "X3"), ("X2", "X3")]
)
_CHAIN = Graph.from_edges(
    _PROTECTED, [("S", "X1"), ("S", "X2"), ("X1", "X2"), ("S", "X3"), ("X2", "X3")]
)


def _of_protected(second=1.0):
    """The noise of Majumdar and Valera's nodes; U2 has this variance."""
    mixture = two_gaussians((-2.0, 1.5**0.5), (1.5, 1.0))
    return (dist.Bernoulli(probs=0.5), mixture, normal(second**0.5), normal())


def _with_squares(coefficients, parents):
    """Each parent but the first, S, squared."""
    squared = jnp.concatenate([parents[..., :1], parents[..., 1:] ** 2], -1)
    return (coefficients * squared).sum(-1)


def _with_first_squared(coefficients, parents):
    """A S + b x_1^2 + c x_2."""
    a, b, c = jnp.moveaxis(coefficients, -1, 0)
    return a * parents[..., 0] + b * parents[..., 1] ** 2 + c * parents[..., 2]


def _logistic_and_protected(coefficients, parents):
    """A S + b / (1 + exp(-c x))."""
    a, b, c = jnp.moveaxis(coefficients, -1, 0)
    return a * parents[..., 0] + b * nn.sigmoid(c * parents[..., 1])


def triangle() -> SCM:
    """X1 := S + U1, X2 := X1 + U2, X3 := S + 0.25 X1 + 0.5 X2 + U3."""
    return linear_scm(_TRIANGLE, jnp.array([1.0, 1.0, 1.0, 0.25, 0.5]), _of_protected())


def triangle_curved() -> SCM:
    """X1 := S + U1, X2 := -1 + 3 / (1 + exp(-2 X1)) + U2, X3 := S + 0.25 X1^2 + 0.5 X2 + U3."""
    mechanisms = (
        Mechanism(jnp.zeros(0)),
        Mechanism(jnp.array([1.0])),
        Mechanism(jnp.array([-1.0, 3.0, 2.0]), logistic_effect),
        Mechanism(jnp.array([1.0, 0.25, 0.5]), _with_first_squared),
    )
    return SCM(_TRIANGLE, mechanisms, _of_protected(0.1))


def collider() -> SCM:
    """X1 := S + U1, X2 := 0.5 S + U2, X3 := 0.05 S + 0.25 X1 + 0.25 X2 + U3."""
    return linear_scm(_COLLIDER, jnp.array([1.0, 0.5, 0.05, 0.25, 0.25]), _of_protected())


def collider_curved() -> SCM:
    """X1 := 0.5 S + U1, X2 := 0.5 S + U2, X3 := 0.25 S + 0.25 X1^2 + 0.25 X2^2 + U3."""
    mechanisms = (
        Mechanism(jnp.zeros(0)),
        Mechanism(jnp.array([0.5])),
        Mechanism(jnp.array([0.5])),
        Mechanism(jnp.array([0.25, 0.25, 0.25]), _with_squares),
    )
    return SCM(_COLLIDER, mechanisms, _of_protected(0.1))


def chain() -> SCM:
    """X1 := S + U1, X2 := S + 0.5 X1 + U2, X3 := 0.25 S + 0.5 X2 + U3."""
    return linear_scm(_CHAIN, jnp.array([1.0, 1.0, 0.5, 0.25, 0.5]), _of_protected())


def chain_curved() -> SCM:
    """X1 := S + U1, X2 := S + 3 / (1 + exp(-2 X1)) + U2, X3 := 0.25 S + X2^2 + U3."""
    mechanisms = (
        Mechanism(jnp.zeros(0)),
        Mechanism(jnp.array([1.0])),
        Mechanism(jnp.array([1.0, 3.0, 2.0]), _logistic_and_protected),
        Mechanism(jnp.array([0.25, 1.0]), _with_squares),
    )
    return SCM(_CHAIN, mechanisms, _of_protected())
