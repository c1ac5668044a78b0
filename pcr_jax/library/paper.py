"""The SCMs of the paper's experiments.

M2 and M3 come from Karimi et al. (2020), "Algorithmic recourse under imperfect causal
knowledge", with the numbers of the paper's released code: the second argument of N is a standard
deviation (theirs is a variance), theta_21 of M2 is -0.99 (theirs -1), and the X2^2 term of M3 is
positive, as in both papers' text (Karimi's code has -0.25).
"""

import jax.numpy as jnp

from pcr_jax.library.parts import THREE, linear_quadratic, logistic_effect, normal, two_gaussians
from pcr_jax.mechanisms import Mechanism
from pcr_jax.scm import SCM, linear_scm


def m1() -> SCM:
    """Linear, Gaussian: theta = (-0.99, 0.99, 0.99)."""
    return linear_scm(THREE, jnp.array([-0.99, 0.99, 0.99]))


def m2() -> SCM:
    """Linear with a mixture of Gaussians at the root: theta = (-0.99, 0.05, 0.25)."""
    return linear_scm(THREE, jnp.array([-0.99, 0.05, 0.25]), [two_gaussians(), normal(), normal()])


def m3() -> SCM:
    """Non-linear: X2 := -1 + 3 / (1 + exp(-2 X1)) + N(0, 0.1), X3 := -0.05 X1 + 0.25 X2^2 + U3."""
    return SCM(
        THREE,
        (
            Mechanism(jnp.zeros(0)),
            Mechanism(jnp.array([-1.0, 3.0, 2.0]), logistic_effect),
            Mechanism(jnp.array([-0.05, 0.25]), linear_quadratic),
        ),
        (two_gaussians(), normal(0.1), normal()),
    )


def theta_star() -> SCM:
    """The paper's source of wrong answers: Gaussian, linear, theta* = (0.5, -0.5, -0.5)."""
    return linear_scm(THREE, jnp.array([0.5, -0.5, -0.5]))
