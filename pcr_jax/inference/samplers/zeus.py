"""zeus: ensemble slice sampling, as the paper uses it.

Karamanis & Beutler (2020), "Ensemble slice sampling"; Karamanis, Beutler & Peacock (2021), the
package zeus-mcmc. The package runs on the host, one user at a time, and is optional.
"""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate

_one_at_a_time = Lock()


class _Numpy:
    """NumPy with a generator of its own in place of the process's."""

    def __init__(self, seed):
        self.random = np.random.RandomState(seed)

    def __getattr__(self, name):
        return getattr(np, name)


@contextmanager
def _draws_from(seeds):
    """Within, zeus draws from generators with these two seeds, and loggers are left alone.

    zeus draws from the generators of the process, which other threads draw from as well, and
    removes the handlers of the root logger.
    """
    from zeus import ensemble, moves

    root = logging.getLogger()
    with _one_at_a_time:
        handlers, level = root.handlers[:], root.level
        ensemble.np, moves.random = _Numpy(int(seeds[0])), random.Random(int(seeds[1]))
        try:
            yield
        finally:
            ensemble.np, moves.random = np, random
            root.handlers[:], root.level = handlers, level


@dataclass(frozen=True)
class Zeus:
    """The paper's sampler; one ensemble per user, as there, unless more are asked for.

    Parameters
    ----------
    num_walkers : int
        Even, at least twice the number of coefficients.
    num_steps : int
        Steps of each walker.
    keep : float
        The last share of the steps that is kept; the rest is warm-up.
    num_ensembles : int
        Independent ensembles per user, one chain each. R-hat takes at least two.

    Raises
    ------
    ImportError
        If zeus-mcmc is not installed.
    ValueError
        If a setting is out of range.
    """

    num_walkers: int = 50
    num_steps: int = 100
    keep: float = 0.3
    num_ensembles: int = 1

    name = "zeus"
    needs_gradient = False
    host_only = True
    needs_exact_starts = False

    def __post_init__(self):
        _checks.count(self.num_walkers, "num_walkers", minimum=2)
        _checks.count(self.num_steps, "num_steps")
        _checks.count(self.num_ensembles, "num_ensembles")
        if self.num_walkers % 2:
            raise ValueError(f"Expected an even num_walkers; got {self.num_walkers}.")
        _checks.number(self.keep, "keep")
        _checks.positive(self.keep, "keep")
        if not self.keep <= 1:
            raise ValueError(f"Expected keep in (0, 1]; got {self.keep}.")
        try:
            import zeus  # noqa: F401
        except ImportError:
            raise ImportError(
                "sampler='zeus' needs the optional package zeus-mcmc (GPL-3): "
                "pip install 'pcr-jax[zeus]'."
            ) from None

    @property
    def num_starts(self) -> int:
        """One per walker."""
        return self.num_ensembles * self.num_walkers

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Raise ValueError unless an ensemble is large enough for their unknown numbers."""
        _checks.walkers(self.num_walkers, len(surrogate.names) + len(likelihood.names))

    def run(self, key: Array, target: Target, starts: Array) -> Samples | None:
        """Sample one user's posterior; None if zeus gives up on it.

        Parameters
        ----------
        key : Array
            Seeds zeus, one run at a time in a process.
        target : Target
            Evaluated for all walkers at once, compiled for that shape.
        starts : Array
            Shape (num_starts, dim), distinct, of positive density.
        """

        def padded(zs):
            # zeus asks for some 30 batch sizes up to num_walkers; one shape, one compilation.
            full = np.zeros((self.num_walkers, zs.shape[1]), dtype)
            full[: len(zs)] = zs
            return np.asarray(target(full))[: len(zs)]

        dtype = jnp.result_type(float)
        seeds = np.asarray(jax.random.bits(key, (self.num_ensembles, 2), np.uint32))
        parts = np.split(np.asarray(starts, float), self.num_ensembles)
        try:
            ensembles = [self._ensemble(*one, padded) for one in zip(seeds, parts, strict=True)]
        except RuntimeError:  # a slice was expanded or shrunk 10,000 times
            return None
        chain = np.stack([sampler.get_chain() for sampler in ensembles]).astype(dtype)
        log_density = np.stack([sampler.get_log_prob() for sampler in ensembles])
        warmup = self.num_steps - max(1, round(self.keep * self.num_steps))
        return Samples(
            draws=chain[:, warmup:],
            log_density=log_density[:, warmup:].astype(dtype),
            warmup=chain[:, :warmup],
            num_evaluations=sum(int(sampler.ncall) for sampler in ensembles),
        )

    def _ensemble(self, seeds, starts, log_density):
        import zeus

        with _draws_from(seeds):
            sampler = zeus.EnsembleSampler(
                self.num_walkers, starts.shape[1], log_density, vectorize=True, verbose=False
            )
            sampler.run_mcmc(starts, self.num_steps, progress=False)
        return sampler
