"""The contract of samplers."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jax import Array

from pcr_jax.inference.target import Target


class Samples(NamedTuple):
    """One user's draws. A chain is an independent chain, ensemble or run.

    Attributes
    ----------
    draws : array
        Shape (chain, step, walker, num_coefficients), after warm-up.
    log_density : array
        Shape (chain, step, walker).
    warmup : array
        Shape (chain, warm-up step, walker, num_coefficients).
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
    `infer` maps over users.

    Attributes
    ----------
    name : str
    needs_gradient : bool
        Whether the log density must be differentiable.
    host_only : bool
        Whether it runs in Python, one user at a time.
    num_starts : int
        How many starting points it takes; 0 if it finds its own.
    num_walkers : int
        Of each chain; they are folded into draws.
    """

    name: str
    needs_gradient: bool
    host_only: bool

    @property
    def num_starts(self) -> int:
        """How many starting points it takes; 0 if it finds its own."""

    @property
    def num_walkers(self) -> int:
        """Of each chain."""

    def check(self, num_coefficients: int) -> None:
        """Raise ValueError if the settings do not suit that many coefficients."""

    def run(self, key: Array, target: Target, starts: Array) -> Samples | None:
        """Sample from ``starts`` (num_starts, num_coefficients), distinct and possible.

        There is nothing to look for outside of ``target.reach``.

        A sampler that gives up returns None, or draws whose log density is not finite.
        """
