"""The contract of samplers."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jax import Array

from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate


class Samples(NamedTuple):
    """One user's draws. A chain is an independent chain, ensemble or run.

    Attributes
    ----------
    draws : array
        Shape (chain, step, walker, dim), after warm-up.
    log_density : array
        Shape (chain, step, walker).
    warmup : array
        Shape (chain, warm-up step, walker, dim).
    num_evaluations : int
        Evaluations of the log density (of its gradient, where the sampler needs that).
    statistics : dict of array
        What else is known of each draw, shape (chain, step, walker).
    figures : dict of array
        What else is known of the user, shape ().
    """

    draws: Any
    log_density: Any
    warmup: Any
    num_evaluations: Any
    statistics: Any = {}  # noqa: RUF012 (never written to)
    figures: Any = {}  # noqa: RUF012


class Sampler(Protocol):
    """Draws from one user's posterior.

    A sampler that is not ``host_only`` is hashable and its `run` is a pure JAX function, which
    `infer` maps over users. Importance resampling of draws from the prior:

    >>> from dataclasses import dataclass
    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> @dataclass(frozen=True)
    ... class Resampling:
    ...     num_draws: int = 512
    ...     name, needs_gradient, host_only, needs_exact_starts = "resampling", False, False, False
    ...     num_starts, num_walkers = 0, 1
    ...
    ...     def check(self, surrogate, likelihood):
    ...         pass
    ...
    ...     def run(self, key, target, starts):
    ...         k_draw, k_pick = jax.random.split(key)
    ...         z = target.from_unit(jax.random.uniform(k_draw, (8 * self.num_draws, target.dim)))
    ...         log_weights = jax.vmap(target.log_likelihood)(z)
    ...         share = jax.nn.softmax(log_weights)
    ...         pick = jax.random.choice(k_pick, len(z), (self.num_draws,), p=share)
    ...         draws = z[pick][None, :, None]
    ...         log_density = jax.vmap(target.log_density)(z[pick])[None, :, None]
    ...         return pcr.Samples(draws, log_density, draws[:, :0], len(z))
    >>> user = pcr.SimulatedUser(pcr.library.m1())
    >>> history = pcr.elicit(jax.random.key(0), user, jnp.zeros((2, 3)), num_queries=3)
    >>> surrogate, likelihood = pcr.linear_surrogate(user.graph), pcr.tolerance(0.5, 0.0)
    >>> key, settings = jax.random.key(1), {"sampler": Resampling()}
    >>> pcr.infer(key, surrogate, history, likelihood, **settings).draws.shape
    (2, 1, 512, 3)

    Attributes
    ----------
    name : str
    needs_gradient : bool
        Whether the likelihood must be differentiable.
    host_only : bool
        Whether it runs in Python, one user at a time.
    needs_exact_starts : bool
        Whether it begins with draws from the posterior. Where there are none, `infer` runs what its
        method ``warming_up()`` returns.
    num_starts : int
        How many starting points it takes; 0 if it finds its own.
    num_walkers : int
        Of each chain; they are folded into draws.
    """

    name: str
    needs_gradient: bool
    host_only: bool
    needs_exact_starts: bool

    @property
    def num_starts(self) -> int:
        """How many starting points it takes; 0 if it finds its own."""

    @property
    def num_walkers(self) -> int:
        """Of each chain."""

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Raise ValueError, naming the remedy, if it cannot sample their posteriors."""

    def run(self, key: Array, target: Target, starts: Array) -> Samples | None:
        """Sample from ``starts`` (num_starts, dim), distinct and of positive density.

        There is nothing to look for outside of ``target.reach``.

        A sampler that gives up returns None, or draws whose log density is not finite.
        """
