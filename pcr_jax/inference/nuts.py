"""The No-U-Turn sampler (Hoffman & Gelman 2014), NumPyro's, in unconstrained space.

Where some answers may be missed, the posterior can be a union of regions with next to nothing
between them, which trajectories do not cross. Each is therefore followed by an independence
Metropolis step (Tierney 1994), which proposes a draw from the prior among what the indicator
allows: what the search for starting points found.
"""

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
    num_warmup: int = 100
    num_steps: int = 512
    thin: int = 1
    target_accept: float = 0.8
    max_tree_depth: int = 4

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

    @property
    def num_proposals(self) -> int:
        """One for each draw kept."""
        return self.num_chains * self.num_steps

    def check(self, num_coefficients: int) -> None:
        """Any number of coefficients will do."""

    def run(self, key: Array, posterior: Posterior, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        low, high = posterior.surrogate.low, posterior.surrogate.high

        def constrained(z):
            return low + (high - low) * jax.nn.sigmoid(z)

        def unconstrained(theta):
            unit = jnp.clip((theta - low) / (high - low), 1e-6, 1 - 1e-6)
            return jax.scipy.special.logit(unit)

        def potential(z):
            log_jacobian = jnp.sum(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))
            return -posterior.log_likelihood(constrained(z)) - log_jacobian

        def jump(key, state, proposed):
            """Accept or reject a draw from the prior among what is possible."""
            theta = constrained(state.z)
            gain = posterior.log_likelihood(proposed) - posterior.log_likelihood(theta)
            accepted = jnp.log(jax.random.uniform(key)) < gain
            accepted &= posterior.possible(theta)  # or it could not be jumped back to
            z = jnp.where(accepted, unconstrained(proposed), state.z)
            energy, gradient = jax.value_and_grad(potential)(z)
            return state._replace(z=z, potential_energy=energy, z_grad=gradient)

        def chain(key, start, proposals):
            k_chain, k_jumps = jax.random.split(key)
            kernel = NUTS(
                potential_fn=potential,
                target_accept_prob=self.target_accept,
                max_tree_depth=self.max_tree_depth,
                dense_mass=True,
            )
            state = kernel.init(k_chain, self.num_warmup, unconstrained(start), (), {})

            def steps(num, carry):
                def step(_, carry):
                    state, spent = carry
                    state = kernel.sample(state, (), {})
                    return state, spent + state.num_steps

                return jax.lax.fori_loop(0, num, step, carry)

            def kept(carry, inputs):
                num, key, proposed = inputs
                state, spent = steps(num, carry)
                state = jump(key, state, proposed)
                statistics = {field: getattr(state, field) for field in _FIELDS}
                return (state, spent + 1), (constrained(state.z), statistics)

            thinning = jnp.full(self.num_steps, self.thin).at[0].add(self.num_warmup)
            inputs = (thinning, jax.random.split(k_jumps, self.num_steps), proposals)
            (_, spent), (draws, statistics) = jax.lax.scan(kept, (state, 0), inputs)
            return draws, statistics, spent

        keys = jax.random.split(key, self.num_chains)
        starts, proposals = jnp.split(starts, [self.num_chains])
        proposals = proposals.reshape(self.num_chains, self.num_steps, -1)
        draws, statistics, spent = jax.vmap(chain)(keys, starts, proposals)
        log_density = jax.vmap(jax.vmap(posterior.log_density))(draws)
        folded = jax.tree.map(lambda leaf: leaf[:, :, None], (draws, log_density, statistics))
        draws, log_density, statistics = folded
        return Samples(draws, log_density, draws[:, :0], spent.sum(), statistics)
