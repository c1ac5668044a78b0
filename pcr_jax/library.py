"""The named SCMs of the paper's experiments.

M2 and M3 come from Karimi et al. (2020), "Algorithmic recourse under imperfect causal
knowledge", with the numbers of the paper's released code: the second argument of N is a standard
deviation (theirs is a variance), theta_21 of M2 is -0.99 (theirs -1), and the X2^2 term of M3 is
positive, as in both papers' text (Karimi's code has -0.25).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import nn

from pcr_jax import _checks
from pcr_jax.graph import Graph
from pcr_jax.mechanisms.additive import Mechanism
from pcr_jax.scm import SCM, linear_scm

_GRAPH = Graph.fully_connected(3)


def _normal(sd=1.0):
    return dist.Normal(0.0, sd)


def _two_gaussians():
    """1/2 N(-2, 1.5) + 1/2 N(1, 1); its mean is -0.5."""
    return dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])),
        dist.Normal(jnp.array([-2.0, 1.0]), jnp.array([1.5, 1.0])),
    )


def _logistic_effect(coefficients, parents):
    """A + b / (1 + exp(-c x))."""
    a, b, c = jnp.moveaxis(coefficients, -1, 0)
    return a + b * nn.sigmoid(c * parents[..., 0])


def _linear_quadratic(coefficients, parents):
    """A x_1 + b x_2^2."""
    a, b = jnp.moveaxis(coefficients, -1, 0)
    return a * parents[..., 0] + b * parents[..., 1] ** 2


def m1() -> SCM:
    """Linear, Gaussian: theta = (-0.99, 0.99, 0.99)."""
    return linear_scm(_GRAPH, jnp.array([-0.99, 0.99, 0.99]))


def m2() -> SCM:
    """Linear with a mixture of Gaussians at the root: theta = (-0.99, 0.05, 0.25)."""
    return linear_scm(
        _GRAPH, jnp.array([-0.99, 0.05, 0.25]), [_two_gaussians(), _normal(), _normal()]
    )


def m3() -> SCM:
    """Non-linear: X2 := -1 + 3 / (1 + exp(-2 X1)) + N(0, 0.1), X3 := -0.05 X1 + 0.25 X2^2 + U3."""
    return SCM(
        _GRAPH,
        (
            Mechanism(jnp.zeros(0)),
            Mechanism(jnp.array([-1.0, 3.0, 2.0]), _logistic_effect),
            Mechanism(jnp.array([-0.05, 0.25]), _linear_quadratic),
        ),
        (_two_gaussians(), _normal(0.1), _normal()),
    )


def theta_star() -> SCM:
    """The paper's source of wrong answers: Gaussian, linear, theta* = (0.5, -0.5, -0.5)."""
    return linear_scm(_GRAPH, jnp.array([0.5, -0.5, -0.5]))


SCMS: dict[str, Callable[[], SCM]] = {"m1": m1, "m2": m2, "m3": m3}


def get(name: str) -> SCM:
    """The SCM of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    _checks.choice(name, SCMS, "scm")
    return SCMS[name]()
