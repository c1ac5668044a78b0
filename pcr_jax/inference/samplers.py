"""The contract of samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from jax import Array


class Samples(NamedTuple):
    """One user's draws. A chain is an independent chain or ensemble.

    Attributes
    ----------
    draws : array
        Shape (chain, step, walker, num_coefficients), after warm-up.
    log_density : array
        Shape (chain, step, walker).
    warmup : array
        Shape (chain, warm-up step, walker, num_coefficients).
    num_evaluations : int
        Evaluations of the log density.
    """

    draws: np.ndarray
    log_density: np.ndarray
    warmup: np.ndarray
    num_evaluations: int


class Sampler(Protocol):
    """Draws from one user's posterior, given its log density and starting points.

    Attributes
    ----------
    name : str
    needs_gradient : bool
        Whether the log density must be differentiable.
    host_only : bool
        Whether it runs in Python, one user at a time.
    num_walkers : int
        How many starting points it takes.
    num_steps : int
    """

    name: str
    needs_gradient: bool
    host_only: bool

    @property
    def num_walkers(self) -> int:
        """How many starting points it takes."""

    def check(self, num_coefficients: int) -> None:
        """Raise ValueError if the settings do not suit that many coefficients."""

    def run(
        self, key: Array, log_density: Callable[[np.ndarray], Array], starts: np.ndarray
    ) -> Samples | None:
        """Sample; None if the sampler gives up."""
