"""zeus: ensemble slice sampling, as the paper uses it.

Karamanis & Beutler (2020), "Ensemble slice sampling"; Karamanis, Beutler & Peacock (2021), the
package zeus-mcmc. The package runs on the host, one user at a time, and is optional.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.inference.density import Posterior
from pcr_jax.inference.samplers import Samples


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

    def __post_init__(self):
        _checks.count(self.num_walkers, "num_walkers", minimum=2)
        _checks.count(self.num_steps, "num_steps")
        _checks.count(self.num_ensembles, "num_ensembles")
        if self.num_walkers % 2:
            raise ValueError(f"Expected an even num_walkers; got {self.num_walkers}.")
        if not 0 < self.keep <= 1:
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

    def check(self, num_coefficients: int) -> None:
        """Raise ValueError unless the ensemble is large enough for that many coefficients."""
        _checks.walkers(self.num_walkers, num_coefficients)

    def run(self, key: Array, posterior: Posterior, starts: Array) -> Samples | None:
        """Sample one user's posterior; None if zeus gives up on it.

        Parameters
        ----------
        key : Array
            Seeds zeus, which draws from the global generators of `numpy.random` and `random`;
            both are restored afterwards.
        posterior : Posterior
            Evaluated for all walkers at once, compiled for that shape.
        starts : Array
            Shape (num_starts, num_coefficients), distinct, of positive density.
        """

        def padded(thetas):
            # zeus asks for some 30 batch sizes up to num_walkers; one shape, one compilation.
            full = np.zeros((self.num_walkers, thetas.shape[1]), np.float32)
            full[: len(thetas)] = thetas
            return np.asarray(posterior(full))[: len(thetas)]

        states = np.random.get_state(), random.getstate()  # noqa: NPY002
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            ensembles = [
                self._ensemble(seeds, padded, start)
                for seeds, start in zip(
                    np.asarray(jax.random.bits(key, (self.num_ensembles, 2))),
                    np.split(np.asarray(starts, float), self.num_ensembles),
                    strict=True,
                )
            ]
        except RuntimeError:  # a slice was expanded or shrunk 10,000 times
            return None
        finally:
            np.random.set_state(states[0])  # noqa: NPY002
            random.setstate(states[1])
            root.handlers[:], root.level = handlers, level
        chain = np.stack([sampler.get_chain() for sampler in ensembles]).astype(np.float32)
        log_density = np.stack([sampler.get_log_prob() for sampler in ensembles])
        warmup = self.num_steps - max(1, round(self.keep * self.num_steps))
        return Samples(
            draws=chain[:, warmup:],
            log_density=log_density[:, warmup:].astype(np.float32),
            warmup=chain[:, :warmup],
            num_evaluations=sum(int(sampler.ncall) for sampler in ensembles),
        )

    def _ensemble(self, seeds, log_density, starts):
        import zeus

        np.random.seed(seeds[0])  # noqa: NPY002
        random.seed(int(seeds[1]))
        sampler = zeus.EnsembleSampler(
            self.num_walkers, starts.shape[1], log_density, vectorize=True, verbose=False
        )
        sampler.run_mcmc(starts, self.num_steps, progress=False)
        return sampler
