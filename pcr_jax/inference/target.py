"""What samplers sample: the log density of one user's posterior.

An answered history enters as an argument, so that nothing is compiled again for the next user.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.history import History
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Prior, Surrogate, in_scale
from pcr_jax.surrogates.priors import Box, is_inside, log_widths


@pytree()
class Target:
    """One user's posterior, ``P(theta | D)`` of section 4 of the paper, of one flat ``z``.

    ``z`` holds the surrogate's numbers and after them the likelihood's unknowns. Called with zs
    (n, dim) it gives their log densities (n,).

    Attributes
    ----------
    surrogate : Surrogate
        Without a scale, as is ``history``: see `in_scale`.
    likelihood : Likelihood
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    box : Array, optional
        Shape (2, k): a part of the box of the surrogate's prior outside of which there is no
        posterior, or next to none; all of it by default. Samplers look nowhere else.
    """

    surrogate: Surrogate
    likelihood: Likelihood
    history: History
    box: Array | None = None

    def __call__(self, zs: Array) -> Array:
        """Log densities, compiled once per shape."""
        return _batch_log_density(self, zs)

    @property
    def dim(self) -> int:
        """How many numbers ``z`` has."""
        return len(self.surrogate.names) + len(self.likelihood.names)

    def split(self, z: Array) -> tuple[Array, Array]:
        """The surrogate's numbers (..., k) and the likelihood's unknowns (..., dim - k)."""
        k = len(self.surrogate.names)
        return z[..., :k], z[..., k:]

    @property
    def reach(self) -> Prior:
        """The prior of the surrogate's numbers, or what ``box`` leaves of it."""
        return self.surrogate.prior if self.box is None else Box(self.box[0], self.box[1])

    @property
    def log_share(self) -> Array:
        """The logarithm of the share of the prior that ``box`` leaves; shape ()."""
        whole = self.surrogate.prior.box
        if self.box is None or whole is None:
            return jnp.zeros(())
        return (log_widths(self.box) - log_widths(whole)).sum()

    @property
    def scale(self) -> Array:
        """A unit for each number: about its spread under the prior, 0 if it is known; (dim,).

        Twice the distance between the quartiles, for numbers whose draws follow their own rank.
        """
        if self.surrogate.prior.box is None:
            spread = np.random.default_rng(0).uniform(size=(64, self.dim))
            return self.from_unit(jnp.asarray(spread, float)).std(0)
        low, high = (self.from_unit(jnp.full(self.dim, unit)) for unit in (0.25, 0.75))
        return 2 * (high - low)

    def from_unit(self, unit: Array) -> Array:
        """Draws of rank ``unit`` (..., dim) in the unit cube, of what ``box`` leaves."""
        theta, unknowns = self.split(unit)
        return self._joined(self.reach.from_unit(theta), lambda p: p.from_unit(unknowns))

    def from_real(self, real: Array) -> tuple[Array, Array]:
        """The ``z`` at ``real`` (dim,), and the prior's log density of ``real``; see `Prior`."""
        theta, unknowns = self.split(real)
        theta, log_density = self.reach.from_real(theta)
        if self.likelihood.prior is None:
            return theta, log_density
        unknowns, more = self.likelihood.prior.from_real(unknowns)
        return jnp.concatenate([theta, unknowns]), log_density + more

    def to_real(self, z: Array) -> Array:
        """The inverse of `from_real`'s ``z``."""
        theta, unknowns = self.split(z)
        return self._joined(self.reach.to_real(theta), lambda p: p.to_real(unknowns))

    def _joined(self, theta, of_prior):
        """What the surrogate's prior and the likelihood's, if there is one, have to say."""
        if self.likelihood.prior is None:
            return theta
        return jnp.concatenate([theta, of_prior(self.likelihood.prior)], -1)

    def log_prior(self, z: Array) -> Array:
        """Of one ``z`` (dim,): the prior's log density, -inf outside of ``box``; ()."""
        theta, unknowns = self.split(z)
        log_prior = self.surrogate.prior.log_prob(theta)
        if self.likelihood.prior is not None:
            log_prior += self.likelihood.prior.log_prob(unknowns)
        if self.box is None:
            return log_prior
        return jnp.where(is_inside(self.box, theta), log_prior, -jnp.inf)

    def log_density(self, z: Array) -> Array:
        """Of one ``z`` (dim,), up to a constant; -inf where the prior has none; shape ()."""
        log_prior = self.log_prior(z)
        # Of what the prior excludes, such as a negative noise, a likelihood may not know.
        return jnp.where(log_prior > -jnp.inf, log_prior + self.log_likelihood(z), -jnp.inf)

    def path(self, z: Array) -> Array:
        """The log likelihood where there is any, and a finite slope towards it elsewhere; ()."""
        _, unknowns = self.split(z)
        return self.own.path(unknowns, self.expected(z), self.history.answer)

    def log_likelihood(self, z: Array) -> Array:
        """Log likelihood of the answers; shape ()."""
        _, unknowns = self.split(z)
        return self.own.log_prob(unknowns, self.expected(z), self.history.answer)

    @property
    def own(self) -> Likelihood:
        """The likelihood of this user's answers."""
        return self.likelihood.bound(self.surrogate, self.history)

    def expected(self, z: Array) -> Array:
        """The answers that ``z`` leads to be expected; (T, d)."""
        theta, _ = self.split(z)
        return self.surrogate.expected(theta, self.history.questions, self.history.x)


def log_density(surrogate: Surrogate, likelihood: Likelihood, history: History, z: Array) -> Array:
    """Log posterior density, up to a constant: ``P(theta | D)`` of section 4 of the paper.

    Parameters
    ----------
    surrogate : Surrogate
    likelihood : Likelihood
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    z : Array
        Shape (dim,): the surrogate's numbers, and the likelihood's unknowns if it has some.

    Returns
    -------
    Array
        Shape (); -inf where the prior has none.
    """
    surrogate, history = in_scale(surrogate, history)
    return Target(surrogate, likelihood, history).log_density(z)


@jax.jit
def _batch_log_density(target, zs):
    return jax.vmap(target.log_density)(zs)
