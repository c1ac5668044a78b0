"""What samplers sample: the log density of one user's posterior.

An answered history enters as an argument, so that nothing is compiled again for the next user.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.history import History
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate


def check_model(surrogate: LinearSurrogate, likelihood: Tolerance) -> None:
    """Raise TypeError unless both are what their names say."""
    _checks.instance(surrogate, LinearSurrogate, "surrogate")
    _checks.instance(likelihood, Tolerance, "likelihood")


def prior_box(surrogate: LinearSurrogate) -> Array:
    """The lowest and the highest value of each coefficient, shape (2, num_coefficients)."""
    ends = jnp.array([surrogate.low, surrogate.high], float)
    return jnp.tile(ends[:, None], (1, surrogate.num_coefficients))


def from_unit(box: Array, unit: Array) -> Array:
    """The point of ``box`` (2, k) at ``unit`` (..., k) of the unit cube."""
    return box[0] + (box[1] - box[0]) * unit


@pytree(static=("surrogate",))
class Target:
    """What samplers sample: one user's posterior, ``P(theta | D)`` of section 4 of the paper.

    Called with thetas (n, num_coefficients) it gives their log densities (n,).

    Attributes
    ----------
    surrogate : LinearSurrogate
    likelihood : Tolerance
    history : History
        Of one user: ``node`` and ``shift`` of shape (T,), ``answer`` of shape (T, d).
    box : Array, optional
        Shape (2, num_coefficients): a part of the prior's box outside of which there is no
        posterior, or next to none; all of it by default. Samplers look nowhere else.
    """

    surrogate: LinearSurrogate
    likelihood: Tolerance
    history: History
    box: Array | None = None

    def __call__(self, thetas: Array) -> Array:
        """Log densities, compiled once per shape."""
        return _batch_log_density(self, thetas)

    @property
    def reach(self) -> Array:
        """``box``, or the prior's."""
        return prior_box(self.surrogate) if self.box is None else self.box

    def log_prior(self, theta: Array) -> Array:
        """Of one theta (num_coefficients,): the prior's log density, -inf outside `reach`; ()."""
        log_prior = self.surrogate.log_prior(theta)
        if self.box is None:
            return log_prior
        sides = zip(*map(jnp.unstack, (self.box[0], theta, self.box[1])), strict=True)
        inside = reduce(jnp.logical_and, [(low <= t) & (t <= high) for low, t, high in sides])
        return jnp.where(inside, log_prior, -jnp.inf)

    def log_density(self, theta: Array) -> Array:
        """Of one theta (num_coefficients,), up to a constant; shape ()."""
        return self.log_prior(theta) + self.log_likelihood(theta)

    def path(self, theta: Array) -> Array:
        """The log likelihood where there is any, and a finite slope towards it elsewhere; ()."""
        return self.likelihood.path(self._expected(theta), self.history.answer)

    def log_likelihood(self, theta: Array) -> Array:
        """Log likelihood of the answers; shape ()."""
        return self.likelihood.log_prob(self._expected(theta), self.history.answer)

    def _expected(self, theta):
        return self.surrogate.expected(theta, self.history.questions, self.history.x)


def log_density(
    surrogate: LinearSurrogate, likelihood: Tolerance, history: History, theta: Array
) -> Array:
    """Log posterior density, up to a constant: ``P(theta | D)`` of section 4 of the paper.

    Parameters
    ----------
    surrogate : LinearSurrogate
    likelihood : Tolerance
    history : History
        Of one user: ``node`` and ``shift`` of shape (T,), ``answer`` of shape (T, d).
    theta : Array
        Shape (num_coefficients,).

    Returns
    -------
    Array
        Shape (); -inf outside the prior's box.
    """
    return Target(surrogate, likelihood, history).log_density(theta)


@jax.jit
def _batch_log_density(target, thetas):
    return jax.vmap(target.log_density)(thetas)
