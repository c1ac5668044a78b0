"""Sequential Monte Carlo: BlackJAX's adaptive tempering, from the prior to the posterior.

Del Moral, Doucet & Jasra (2006), "Sequential Monte Carlo samplers". An indicator cannot be
tempered: its log is 0 or -inf at every temperature. What is tempered instead is the likelihood's
`path`, which falls with the tolerance that would have been needed; the last step weighs by the
likelihood itself. The only file that imports blackjax, and only where it samples: importing that
package starts JAX's backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate


@cache
def _blackjax():
    """Its modules ``random_walk``, ``adaptive_tempered`` and ``resampling``."""
    with jax.ensure_compile_time_eval():  # imported while a program is traced
        from blackjax.mcmc import random_walk
        from blackjax.smc import adaptive_tempered, resampling
    return random_walk, adaptive_tempered, resampling


def _random_walk(key, state, log_density, factor):
    """One Metropolis step whose proposal has covariance ``factor @ factor.T``."""

    def random_step(key, position):
        noise = jnp.unstack(jax.random.normal(key, position.shape))
        return sum(n * column for n, column in zip(noise, jnp.unstack(factor, axis=1), strict=True))

    random_walk, _, _ = _blackjax()
    return random_walk.build_additive_step()(key, state, log_density, random_step)


def _proposal_factor(particles, weights, width):
    """A Cholesky factor of the particles' covariance, times 2.38 / sqrt(dimension).

    ``width`` (dimension,) is the unit of each.
    """
    centred = (particles - weights @ particles) / jnp.where(width > 0, width, 1.0)
    covariance = centred.T @ (weights[:, None] * centred)
    dimension = particles.shape[1]
    ridge = 1e-6 * jnp.trace(covariance) / dimension
    factor = jnp.linalg.cholesky(covariance + ridge * jnp.eye(dimension))
    return 2.38 / dimension**0.5 * width[:, None] * factor


@dataclass(frozen=True)
class Smc:
    """Adaptive tempered sequential Monte Carlo; needs neither a start nor a gradient.

    Parameters
    ----------
    num_runs : int
        Independent runs per user, one chain each.
    num_particles : int
        Of each run; its draws.
    num_moves : int
        Random-walk Metropolis steps of each particle at every temperature.
    num_last_moves : int
        The same after the last resampling.
    target_ess : float
        The share of the particles' effective number that a new temperature leaves.
    max_levels : int
        Temperatures after which a run gives up.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    num_runs: int = 4
    num_particles: int = 384
    num_moves: int = 4
    num_last_moves: int = 8
    target_ess: float = 0.5
    max_levels: int = 100

    name = "smc"
    needs_gradient = False
    host_only = False
    needs_exact_starts = False
    num_walkers = 1
    num_starts = 0

    def __post_init__(self):
        for field in ("num_runs", "num_moves", "num_last_moves", "max_levels"):
            _checks.count(getattr(self, field), field)
        _checks.count(self.num_particles, "num_particles", minimum=2)
        _checks.between_0_and_1(self.target_ess, "target_ess")

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Any will do."""

    def run(self, key: Array, target: Target, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`.

        ``figures`` has the log of the evidence, the mean over runs, and its standard error.
        """
        runs = jax.vmap(lambda key: self._one(key, target))(jax.random.split(key, self.num_runs))
        particles, log_density, log_evidence, levels = runs
        top = log_evidence.max()
        relative = jnp.exp(log_evidence - top)
        spread = relative.std(ddof=1) if self.num_runs > 1 else jnp.array(jnp.nan)
        moves = levels.sum() * (self.num_moves + 3) + self.num_runs * (self.num_last_moves + 2)
        return Samples(
            draws=particles[:, :, None],
            log_density=log_density[:, :, None],
            warmup=particles[:, :0, None],
            num_evaluations=moves * self.num_particles,
            figures={
                "log_evidence": top + jnp.log(relative.mean()),
                "log_evidence_error": spread / self.num_runs**0.5 / relative.mean(),
            },
        )

    def _one(self, key, target):
        random_walk, adaptive_tempered, resampling = _blackjax()
        width, num = target.scale, self.num_particles
        k_start, k_levels, k_resample, k_moves = jax.random.split(key, 4)
        kernel = adaptive_tempered.build_kernel(
            target.log_prior,
            target.path,
            _random_walk,
            random_walk.init,
            resampling.systematic,
            self.target_ess,
        )

        def unfinished(carry):
            state, _, level = carry
            return (state.tempering_param < 1) & (level < self.max_levels)

        def temper(carry):
            state, log_evidence, level = carry
            factor = _proposal_factor(state.particles, state.weights, width)
            key = jax.random.fold_in(k_levels, level)
            state, info = kernel(key, state, self.num_moves, {"factor": factor[None]})
            return state, log_evidence + info.log_likelihood_increment, level + 1

        unit = jax.random.uniform(k_start, (num, target.dim))
        state = adaptive_tempered.init(target.from_unit(unit))
        state = state._replace(tempering_param=jnp.zeros(()))
        state, log_evidence, levels = jax.lax.while_loop(
            unfinished, temper, (state, jnp.zeros(()), 0)
        )

        # From the path to the likelihood: what is still outside of an indicator falls out.
        path, log_likelihood = jax.vmap(lambda z: (target.path(z), target.log_likelihood(z)))(
            state.particles
        )
        log_weights = jnp.log(state.weights) + log_likelihood - path
        log_weights = jnp.where(state.tempering_param < 1, -jnp.inf, log_weights)
        log_sum = jax.scipy.special.logsumexp(log_weights)
        weights = jnp.where(log_sum > -jnp.inf, jnp.exp(log_weights - log_sum), state.weights)
        factor = _proposal_factor(state.particles, weights, width)
        particles = state.particles[resampling.systematic(k_resample, weights, num)]

        def last_moves(key, z):
            def move(state, key):
                return _random_walk(key, state, target.log_density, factor)[0], None

            start = random_walk.init(z, target.log_density)
            return jax.lax.scan(move, start, jax.random.split(key, self.num_last_moves))[0]

        last = jax.vmap(last_moves)(jax.random.split(k_moves, num), particles)
        log_density = jnp.where(log_sum > -jnp.inf, last.logdensity, -jnp.inf)
        return last.position, log_density, target.log_share + log_evidence + log_sum, levels
