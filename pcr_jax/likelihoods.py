"""How well a surrogate's expected answers must match what the user said."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree


@pytree(static=("norm",))
class Tolerance:
    """The paper's indicator likelihood (section 4). See `tolerance`."""

    sigma: Array | float
    beta: Array | float
    norm: str = "each"

    def agreement(self, expected: Array, answer: Array) -> tuple[Array, Array]:
        """How many queries agree, and how many were answered.

        Parameters
        ----------
        expected, answer : Array
            Shape (T, d), natural units; NaN in ``answer`` where nothing was reported.

        Returns
        -------
        agreeing, answered : Array
            Integers, shape ().
        """
        reported = ~jnp.isnan(answer)
        gap = jnp.abs(jnp.where(reported, expected - answer, 0.0))
        distance = gap.max(-1) if self.norm == "each" else jnp.sqrt(jnp.sum(gap**2, -1))
        answered = reported.any(-1)
        return jnp.sum(answered & (distance <= self.sigma)), jnp.sum(answered)

    def log_prob(self, expected: Array, answer: Array) -> Array:
        """0 if at most a share ``beta`` of the answers is missed, else -inf; shape ()."""
        agreeing, answered = self.agreement(expected, answer)
        # The slack keeps rounding from forbidding a miss: 0.7 * 10 must allow 7.
        allowed = jnp.floor(self.beta * answered.astype(float) + 1e-4).astype(int)
        return jnp.where(answered - agreeing <= allowed, 0.0, -jnp.inf)


def tolerance(sigma: float, beta: float, *, norm: str = "each") -> Tolerance:
    """At least a share ``1 - beta`` of the answers lies within ``sigma`` of the expectation.

    Parameters
    ----------
    sigma : float
        Tolerance, natural units.
    beta : float
        Share of the answers that may deviate; of T answers floor(beta T) may.
    norm : {"each", "joint"}
        Whether each reported descendant must lie within ``sigma`` (the paper's experiments), or
        the Euclidean norm over them (its formula).

    Raises
    ------
    ValueError
        If ``sigma <= 0``, ``beta`` is outside [0, 1], or ``norm`` is unknown.
    """
    _checks.positive(sigma, "sigma")
    _checks.probability(beta, "beta")
    _checks.choice(norm, ("each", "joint"), "norm")
    return Tolerance(sigma, beta, norm)
