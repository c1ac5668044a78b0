"""The No-U-Turn sampler (Hoffman & Gelman 2014), NumPyro's, in unconstrained space.

Where some answers may be missed, the posterior can be a union of regions with next to nothing
between them, which trajectories do not cross. Draws are therefore followed by independence
Metropolis steps (Tierney 1994), which propose draws from the prior where bounds on the expected
answers leave some likelihood (see `possible_cells`), or from all of it where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import NUTS

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.search import proposals
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate

_FIELDS = ("diverging", "num_steps", "accept_prob")


def _potential(target: Target, real: Array) -> Array:
    """Minus the log density of the reals behind the prior."""
    z, log_prior = target.from_real(real)
    return -target.log_likelihood(z) - log_prior


@dataclass(frozen=True)
class Nuts:
    """NUTS on a likelihood with a gradient, such as `relaxed`, in the reals behind the prior.

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
    needs_exact_starts = False
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
        _checks.between_0_and_1(self.target_accept, "target_accept")

    @property
    def num_starts(self) -> int:
        """One per chain."""
        return self.num_chains

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Raise ValueError unless the likelihood has a gradient."""
        if not likelihood.differentiable:
            raise ValueError(
                f"Expected a likelihood with a gradient for sampler {self.name!r}; got "
                f"{likelihood}, whose gradient is 0 wherever it exists. Use pcr.relaxed(sigma, "
                "beta) in its place, or a sampler that needs no gradient ('ess', 'smc')."
            )

    def run(self, key: Array, target: Target, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        chain = partial(self._chain, target, proposals(target))
        keys = jax.random.split(key, self.num_chains)
        draws, statistics, spent = jax.vmap(chain)(keys, starts)
        log_density = jax.vmap(jax.vmap(target.log_density))(draws)
        folded = jax.tree.map(lambda leaf: leaf[:, :, None], (draws, log_density, statistics))
        draws, log_density, statistics = folded
        return Samples(draws, log_density, draws[:, :0], spent.sum(), statistics)

    def _chain(self, target, anywhere, key, start):
        """Draws (num_steps, dim), what is known of each, and the evaluations that they cost."""
        k_chain, k_jumps = jax.random.split(key)
        kernel = NUTS(
            potential_fn=partial(_potential, target),
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
            dense_mass=True,
        )
        state = kernel.init(k_chain, self.num_warmup, target.to_real(start), (), {})

        def step(_, carry):
            state, spent = carry
            state = kernel.sample(state, (), {})
            return state, spent + state.num_steps

        def kept(carry, inputs):
            num, key = inputs
            state, spent = jax.lax.fori_loop(0, num, step, carry)
            state = self._jump(target, anywhere, key, state)
            z, _ = target.from_real(state.z)
            statistics = {field: getattr(state, field) for field in _FIELDS}
            return (state, spent + self.num_jumps + 2), (z, statistics)

        thinning = jnp.full(self.num_steps, self.thin).at[0].add(self.num_warmup)
        inputs = (thinning, jax.random.split(k_jumps, self.num_steps))
        (_, spent), (draws, statistics) = jax.lax.scan(kept, (state, 0), inputs)
        return draws, statistics, spent

    def _jump(self, target, anywhere, key, state):
        """Independence Metropolis steps with proposals from a part of the prior."""
        k_propose, k_accept = jax.random.split(key)
        unit = jax.random.uniform(k_propose, (self.num_jumps, anywhere.num_columns))
        proposed = anywhere.draws(unit)
        offered = jax.vmap(target.log_likelihood)(proposed)
        limits = jnp.log(jax.random.uniform(k_accept, (self.num_jumps,)))
        z, _ = target.from_real(state.z)
        # From outside, what is proposed could not be jumped back from.
        inside = anywhere.covers(z)

        def consider(present, offer):
            proposed, log_likelihood, limit = offer
            accepted = inside & (limit < log_likelihood - present[1])
            return jax.tree.map(
                lambda new, old: jnp.where(accepted, new, old),
                (proposed, log_likelihood, True),
                present,
            ), None

        present = (z, target.log_likelihood(z), False)
        (z, _, moved), _ = jax.lax.scan(consider, present, (proposed, offered, limits))
        real = jnp.where(moved, target.to_real(z), state.z)
        energy, gradient = jax.value_and_grad(partial(_potential, target))(real)
        return state._replace(z=real, potential_energy=energy, z_grad=gradient)
