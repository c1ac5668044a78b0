"""The No-U-Turn sampler (Hoffman & Gelman 2014), NumPyro's, in unconstrained space."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import NUTS

from pcr_jax import _checks
from pcr_jax.inference.density import Posterior
from pcr_jax.inference.samplers import Samples

_FIELDS = ("diverging", "num_steps", "accept_prob")


@dataclass(frozen=True)
class Nuts:
    """NUTS on the `relaxed` likelihood, the box mapped to all reals by a logit.

    Parameters
    ----------
    num_chains : int
    num_warmup : int
        Steps in which step size and mass matrix are tuned; dropped.
    num_steps : int
        Draws kept of each chain, after thinning.
    thin : int
        Every so many steps one is kept.
    target_accept : float
        Acceptance that the step size is tuned for.
    max_tree_depth : int
        A trajectory has at most 2 ** max_tree_depth - 1 steps.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    num_chains: int = 4
    num_warmup: int = 300
    num_steps: int = 512
    thin: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 6

    name = "nuts"
    needs_gradient = True
    host_only = False
    num_walkers = 1

    def __post_init__(self):
        for field in ("num_chains", "num_warmup", "num_steps", "thin", "max_tree_depth"):
            _checks.count(getattr(self, field), field)
        if not 0 < self.target_accept < 1:
            raise ValueError(f"Expected target_accept in (0, 1); got {self.target_accept}.")

    @property
    def num_starts(self) -> int:
        """One per chain."""
        return self.num_chains

    def check(self, num_coefficients: int) -> None:
        """Any number of coefficients will do."""

    def run(self, key: Array, posterior: Posterior, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        low, high = posterior.surrogate.low, posterior.surrogate.high

        def constrained(z):
            return low + (high - low) * jax.nn.sigmoid(z)

        def potential(z):
            log_jacobian = jnp.sum(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))
            return -posterior.log_likelihood(constrained(z)) - log_jacobian

        def chain(key, start):
            kernel = NUTS(
                potential_fn=potential,
                target_accept_prob=self.target_accept,
                max_tree_depth=self.max_tree_depth,
                dense_mass=True,
            )
            unit = jnp.clip((start - low) / (high - low), 1e-4, 1 - 1e-4)
            state = kernel.init(key, self.num_warmup, jax.scipy.special.logit(unit), (), {})

            def steps(num, carry):
                def step(_, carry):
                    state, spent = carry
                    state = kernel.sample(state, (), {})
                    return state, spent + state.num_steps

                return jax.lax.fori_loop(0, num, step, carry)

            def kept(carry, num):
                state, spent = steps(num, carry)
                statistics = {field: getattr(state, field) for field in _FIELDS}
                return (state, spent), (constrained(state.z), statistics)

            thinning = jnp.full(self.num_steps, self.thin).at[0].add(self.num_warmup)
            (_, spent), (draws, statistics) = jax.lax.scan(kept, (state, 0), thinning)
            return draws, statistics, spent

        keys = jax.random.split(key, self.num_chains)
        draws, statistics, spent = jax.vmap(chain)(keys, starts)
        log_density = jax.vmap(jax.vmap(posterior.log_density))(draws)
        folded = jax.tree.map(lambda leaf: leaf[:, :, None], (draws, log_density, statistics))
        draws, log_density, statistics = folded
        return Samples(draws, log_density, draws[:, :0], spent.sum(), statistics)
