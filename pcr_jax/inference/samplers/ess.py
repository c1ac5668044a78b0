"""Ensemble slice sampling in JAX: zeus's algorithm as NumPyro has it.

Karamanis & Beutler (2020), "Ensemble slice sampling".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import ESS

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate

# A slice shrinks to the walker itself, to rounding, in some 50 steps; this ends what would not.
_MAX_SHRINKS = 200

# Steps at least before the first kept, from points that are no draws from the posterior.
_WARMING_UP = 200


@dataclass(frozen=True)
class Ess:
    """Ensemble slice sampling: independent ensembles of walkers, no gradient, no tuning.

    Parameters
    ----------
    num_ensembles : int
        Independent ensembles per user, one chain each.
    num_walkers : int
        Of each ensemble; even, at least twice the number of coefficients.
    num_warmup : int
        Steps dropped, where the starting points of `infer` are draws from the posterior already;
        200 at least where they are not.
    num_steps : int
        Steps kept, after thinning.
    thin : int
        Every so many steps one is kept.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    num_ensembles: int = 4
    num_walkers: int = 64
    num_warmup: int = 2
    num_steps: int = 24
    thin: int = 1

    name = "ess"
    needs_gradient = False
    host_only = False
    needs_exact_starts = True

    def __post_init__(self):
        for field in ("num_ensembles", "num_warmup", "num_steps", "thin"):
            _checks.count(getattr(self, field), field)
        _checks.count(self.num_walkers, "num_walkers", minimum=4)
        if self.num_walkers % 2:
            raise ValueError(f"Expected an even num_walkers; got {self.num_walkers}.")

    @property
    def num_starts(self) -> int:
        """One per walker."""
        return self.num_ensembles * self.num_walkers

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Raise ValueError unless an ensemble is large enough for their unknown numbers."""
        _checks.walkers(self.num_walkers, len(surrogate.names) + len(likelihood.names))

    def warming_up(self) -> Ess:
        """The same from any points of positive density."""
        return replace(self, num_warmup=max(self.num_warmup, _WARMING_UP))

    def run(self, key: Array, target: Target, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        starts = starts.reshape(self.num_walkers, self.num_ensembles, -1).swapaxes(0, 1)
        keys = jax.random.split(key, self.num_ensembles)

        def ensemble(key, start):
            def potential(z):
                return -target.log_density(z)

            # Walkers keep their places, so that each can be followed through the steps; and a
            # slice's length is not tuned: tuning never ends in NumPyro, and one difference of
            # two walkers is a good length.
            kernel = ESS(
                potential_fn=potential,
                randomize_split=False,
                tune_mu=False,
                max_iter=_MAX_SHRINKS,
            )

            def steps(state, num):
                return jax.lax.fori_loop(0, num, lambda _, s: kernel.sample(s, (), {}), state)

            def kept(state, num):
                state = steps(state, num)
                return state, state.z

            state = kernel.init(jax.random.split(key, self.num_walkers), 0, start)
            thinning = jnp.full(self.num_steps, self.thin).at[0].add(self.num_warmup)
            state, draws = jax.lax.scan(kept, state, thinning)
            # Beside these, every update of a walker looks at its height, at both ends of the
            # first slice, and at the point accepted.
            searched = state.inner_state.n_expansions + state.inner_state.n_contractions
            return draws, searched + 4 * self.num_walkers * thinning.sum()

        draws, spent = jax.vmap(ensemble)(keys, starts)
        log_density = jax.vmap(jax.vmap(jax.vmap(target.log_density)))(draws)
        return Samples(draws, log_density, draws[:, :0], spent.sum())
