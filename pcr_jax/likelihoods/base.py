"""The contract of likelihoods."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

from jax import Array

from pcr_jax import _checks
from pcr_jax.history import History
from pcr_jax.surrogates import Prior, Surrogate


class Likelihood(Protocol):
    """The probability of a user's answers given what a surrogate leads to be expected; a pytree.

    A class that derives from it has no unknowns of its own, a gradient, and the `path` of any
    likelihood that is positive everywhere. Answers with normal noise:

    >>> from dataclasses import dataclass
    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> @jax.tree_util.register_dataclass
    ... @dataclass(frozen=True)
    ... class Gaussian(pcr.Likelihood):
    ...     sd: float
    ...
    ...     def log_prob(self, unknowns, expected, answer):
    ...         gap = (expected - jnp.where(jnp.isnan(answer), expected, answer)) / self.sd
    ...         each = -(gap**2) / 2 - jnp.log(self.sd * jnp.sqrt(2 * jnp.pi))
    ...         return jnp.sum(jnp.where(jnp.isnan(answer), 0.0, each))
    >>> user = pcr.SimulatedUser(pcr.library.m1())
    >>> history = pcr.elicit(jax.random.key(0), user, jnp.zeros((1, 3)), num_queries=3)
    >>> surrogate = pcr.linear_surrogate(user.graph)
    >>> exact = pcr.exact_posterior(jax.random.key(1), surrogate, history, Gaussian(0.3))
    >>> exact.mean.shape
    (1, 3)

    Attributes
    ----------
    names : tuple of str
        Of its unknowns, which are inferred with the surrogate's.
    prior : Prior or None
        Of the unknowns; None without any.
    differentiable : bool
        Whether gradients of `log_prob` lead anywhere.
    """

    names: tuple[str, ...] = ()
    prior: Prior | None = None
    differentiable: bool = True

    def bound(self, surrogate: Surrogate, history: History) -> Likelihood:
        """The likelihood of one user's answers, if more than those matters: itself by default.

        All in units of the surrogate's scale.
        """
        return self

    def log_prob(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Log probability of ``answer`` (T, d), NaN where nothing was reported; shape ().

        Parameters
        ----------
        unknowns : Array
            Shape (len(names),).
        expected, answer : Array
            Shape (T, d), in units of the surrogate's scale, which are natural units without one.
        """

    def path(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Finite everywhere, equal to `log_prob` where that is: what tempering follows; ()."""
        return self.log_prob(unknowns, expected, answer)


class HardSupport(Likelihood, Protocol):
    """A likelihood that asks so many answers to lie within a distance, or relaxes that.

    Starting points can then be searched for, and be proved not to exist.

    Attributes
    ----------
    sigma : float
        The distance, natural units.
    norm : {"each", "joint"}
        Of every reported number, or of all numbers of an answer together.
    """

    sigma: Array | float
    norm: str

    def needed(self, answered: Array) -> Array:
        """How many of ``answered`` answers must agree."""

    def agreement(self, expected: Array, answer: Array) -> tuple[Array, Array]:
        """How many answers agree, and how many there are; integers, shape ()."""

    def possible(self, expected: Array, answer: Array) -> Array:
        """Whether enough answers agree; boolean, shape ()."""

    def nearly_possible(self, expected: Array, answer: Array) -> Array:
        """Whether there is likelihood worth going to; boolean, shape ()."""

    def reach(self, answered: int, log_share: float) -> tuple[float, int] | None:
        """Where the posterior is: so many answers agree within so much. None if anywhere.

        ``log_share`` is the logarithm of the share of the prior that is `possible`.
        """


def has_hard_support(likelihood: Any) -> TypeGuard[HardSupport]:
    """Whether it is a `HardSupport`."""
    return hasattr(likelihood, "possible")


def check_likelihood(likelihood: Any) -> None:
    """Raise TypeError unless it is a `Likelihood`."""
    _checks.capable(likelihood, Likelihood, "likelihood", "tolerance(sigma, beta)")
