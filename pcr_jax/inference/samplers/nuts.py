"""The No-U-Turn sampler (Hoffman & Gelman 2014), NumPyro's, in unconstrained space.

Where some answers may be missed, the posterior can be a union of regions with next to nothing
between them, which trajectories do not cross. Draws are therefore followed by independence
Metropolis steps (Tierney 1994), which propose draws from the prior where bounds on the expected
answers leave some likelihood (see `possible_cells`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import NUTS

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.search import cell_of, numbers_of, possible_cells, uniform_over
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Relaxed

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
    num_jumps : int
        Independence Metropolis steps before each draw kept.

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
    num_jumps: int = 32

    name = "nuts"
    needs_gradient = True
    host_only = False
    num_walkers = 1

    def __post_init__(self):
        for field in (
            "num_chains",
            "num_warmup",
            "num_steps",
            "thin",
            "max_tree_depth",
            "num_jumps",
        ):
            _checks.count(getattr(self, field), field)
        _checks.number(self.target_accept, "target_accept")
        if not 0 < self.target_accept < 1:
            raise ValueError(f"Expected target_accept in (0, 1); got {self.target_accept}.")

    @property
    def num_starts(self) -> int:
        """One per chain."""
        return self.num_chains

    def check(self, num_coefficients: int) -> None:
        """Any number of coefficients will do."""

    def run(self, key: Array, target: Target, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        box = target.reach
        low, high = box

        def constrained(z):
            return low + (high - low) * jax.nn.sigmoid(z)

        def unconstrained(theta):
            unit = jnp.clip((theta - low) / (high - low), 1e-6, 1 - 1e-6)
            return jax.scipy.special.logit(unit)

        def potential(z):
            log_jacobian = jnp.sum(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))
            return -target.log_likelihood(constrained(z)) - log_jacobian

        likelihood = target.likelihood
        assert isinstance(likelihood, Relaxed)
        cells, _ = possible_cells(
            target.surrogate, likelihood, target.history, likelihood.nearly_possible, box
        )
        order = numbers_of(cells)

        def jump(key, state):
            """Independence Metropolis steps with uniform proposals from the cells."""
            k_propose, k_accept = jax.random.split(key)
            unit = jax.random.uniform(
                k_propose, (self.num_jumps, 1 + target.surrogate.num_coefficients)
            )
            proposals = uniform_over(box, order, cells.sum(), unit)
            offered = jax.vmap(target.log_likelihood)(proposals)
            limits = jnp.log(jax.random.uniform(k_accept, (self.num_jumps,)))
            theta = constrained(state.z)
            # From outside the cells, what is proposed could not be jumped back from.
            inside = cells[cell_of(box, theta)]

            def consider(present, offer):
                proposed, log_likelihood, limit = offer
                accepted = inside & (limit < log_likelihood - present[1])
                return jax.tree.map(
                    lambda new, old: jnp.where(accepted, new, old),
                    (proposed, log_likelihood, True),
                    present,
                ), None

            present = (theta, target.log_likelihood(theta), False)
            (theta, _, moved), _ = jax.lax.scan(consider, present, (proposals, offered, limits))
            z = jnp.where(moved, unconstrained(theta), state.z)
            energy, gradient = jax.value_and_grad(potential)(z)
            return state._replace(z=z, potential_energy=energy, z_grad=gradient)

        def chain(key, start):
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
                num, key = inputs
                state, spent = steps(num, carry)
                state = jump(key, state)
                statistics = {field: getattr(state, field) for field in _FIELDS}
                return (state, spent + self.num_jumps + 2), (constrained(state.z), statistics)

            thinning = jnp.full(self.num_steps, self.thin).at[0].add(self.num_warmup)
            inputs = (thinning, jax.random.split(k_jumps, self.num_steps))
            (_, spent), (draws, statistics) = jax.lax.scan(kept, (state, 0), inputs)
            return draws, statistics, spent

        keys = jax.random.split(key, self.num_chains)
        draws, statistics, spent = jax.vmap(chain)(keys, starts)
        log_density = jax.vmap(jax.vmap(target.log_density))(draws)
        folded = jax.tree.map(lambda leaf: leaf[:, :, None], (draws, log_density, statistics))
        draws, log_density, statistics = folded
        return Samples(draws, log_density, draws[:, :0], spent.sum(), statistics)
