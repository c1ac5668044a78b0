"""Gibbs sampling: which answers are wrong, then one mechanism after the other.

Given which answers are wrong (z_t of Eq. 4 of the paper), the noise, and all other mechanisms, the
answers are affine in the numbers of one linear mechanism: its conditional is a normal, drawn from
exactly (Geman & Geman 1984; Tanner & Wong 1987 for z_t). In what a curved mechanism leads to down
the graph they are not: a draw from the regression linearised about the present is then accepted or
rejected by Metropolis & Hastings (1970). Every answer is held to what *all* mechanisms together
say, so that errors in reported parents are where they belong, in the likelihood.

Where walkers start: `pcr_jax.inference.samplers.filter`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri

from pcr_jax import _checks
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.samplers.filter import Filter
from pcr_jax.inference.samplers.linear_sweeps import Linear
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate
from pcr_jax.surrogates.regression import is_regression, padded_parents

# Times the numbers that are reported, what particles there are by default, within limits; of curved
# mechanisms, whose particles are larger.
_PARTICLE_NUMBERS, _FEWEST, _MOST, _MOST_CURVED = 2**20, 256, 2048, 512
# Sweeps that are dropped of walkers that were draws before the last answers.
_WARMUP_OF_RESUMED = 2
# Of numbers that are known, for the filter.
_LEAST_SD = 1e-3


class _Normals(NamedTuple):
    """The prior of the mechanisms' weights: mixtures of C normals, mechanism by mechanism.

    ``log_weights`` (C,); ``mean`` (C, d, M); ``factor`` (C, d, M, M): times its transpose the
    covariance, which is 1 where there is no weight.
    """

    log_weights: Array
    mean: Array
    factor: Array


def _normals(target: Target, blocks: np.ndarray) -> _Normals:
    """The prior's, or those with a box's moments."""
    prior: Any = target.reach
    there = blocks >= 0
    if prior.box is not None:
        low, high = jnp.asarray(prior.box)
        mean, sd = (low + high) / 2, jnp.maximum((high - low) / 12**0.5, _LEAST_SD)
        mean, factor, weights = mean[None], jnp.diag(sd)[None], jnp.ones(1)
    else:
        mean, factor, weights = map(jnp.asarray, (prior.mean, prior.factor, prior.weights))
    both = there[:, :, None] & there[:, None, :]
    own = factor[:, blocks[:, :, None], blocks[:, None, :]]
    own = jnp.where(both, own, jnp.eye(blocks.shape[1]))
    return _Normals(jnp.log(weights), jnp.where(there, mean[:, blocks], 0.0), own)


class _Walker(NamedTuple):
    """``weights`` (d, M) of the mechanisms; ``unknowns`` of the likelihood; ``x`` (T, d): what all
    of that leads to be expected; ``precision`` and ``answer`` (T, d): see `Augmented`.
    """

    weights: Array
    unknowns: Array
    x: Array
    precision: Array
    answer: Array


class Person:
    """One user's answers as regressions."""

    def __init__(self, target: Target):
        self.target, self.history = target, target.history
        self.own: Any = target.own
        surrogate: Any = target.surrogate
        self.surrogate = surrogate
        history, graph = self.history, self.surrogate.graph
        self.answer = jnp.asarray(history.answer)
        self.blocks = self.surrogate.blocks
        self.order = np.flatnonzero((self.blocks >= 0).any(1))
        self.parents = padded_parents(graph)
        self.prior = _normals(target, self.blocks)
        self.boxed = target.reach.box is not None
        questions, centre = history.questions, self.surrogate.centre
        individual = jnp.asarray(questions.individual)[:, None]
        noise_mean = jnp.asarray(self.surrogate.noise_mean)
        if centre is None:
            reference = jnp.where(individual, history.x, 0.0)
            base, about = jnp.where(individual, history.x, noise_mean), individual
        else:
            base = reference = jnp.where(individual, history.x, jnp.asarray(centre))
            about = jnp.ones_like(individual)
        node = jnp.asarray(questions.node)[:, None]
        shifted = node == np.arange(graph.num_nodes)
        self.base = base + jnp.where(shifted, jnp.asarray(questions.shift)[:, None], 0.0)
        # What linear mechanisms pass on, and what that is added to.
        self.begin = jnp.where(about, reference, 0.0)
        self.passed = self.base - self.begin
        self.descends = jnp.asarray(graph.descendants)[node[:, 0]] & (node >= 0)
        everyone = np.arange(graph.num_nodes)
        features = jax.vmap(self.surrogate.features, (0, None))(everyone, reference)
        self.reference = jnp.where(about, features, 0.0)

    def each(self, body: Callable, carry, after=None):
        """``body(j, carry)`` for every mechanism, or those below mechanism ``after``."""
        nodes = jnp.asarray(self.order)
        start = 0 if after is None else jnp.searchsorted(nodes, after, side="right")
        return jax.lax.fori_loop(start, len(nodes), lambda i, c: body(nodes[i], c), carry)

    def features(self, j, x):
        """Node j's features, less those of the person as they are; (T, M)."""
        return self.surrogate.features(j, x) - self.reference[j]

    def expected(self, weights, x=None, after=None):
        """What is expected under ``weights``: where given, ``x`` but for what is ``after``."""

        def body(j, x):
            return put(x, j, self.base[:, j] + self.features(j, x) @ weights[j])

        return self.each(body, self.base if x is None else x, after)

    def gains(self, j, weights, x):
        """What each node rises by if node j rises by one, answer by answer; (T, d)."""
        parents = jnp.asarray(self.parents)

        def body(k, gains):
            slopes = self.surrogate.slopes(k, weights[k], x)
            return put(gains, k, jnp.sum(slopes * jnp.take(gains, parents[k], axis=-1), -1))

        return self.each(body, put(jnp.zeros_like(x), j, jnp.ones(len(x))), after=j)

    def regression(self, j, walker: _Walker):
        """Of mechanism j, as if all were affine: rows (T, M) on its weights, and their values (T,),

        with noise of variance 1; and its features.
        """
        features = self.features(j, walker.x)
        gains = self.gains(j, walker.weights, walker.x)
        gap = walker.answer - walker.x
        size = jnp.sum(walker.precision * gains**2, -1)
        pull = jnp.sum(walker.precision * gains * gap, -1)
        rows = jnp.sqrt(size)[:, None] * features
        value = jnp.where(size > 0, pull / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 0.0)
        return rows, value + rows @ walker.weights[j], features

    def normals(self, j, rows, value, normal):
        """The conditional's C normals: log weights, and a draw from each; (C,) and (C, M).

        ``normal`` (M + T,) are standard normals. The system that is solved is of the answers,
        which are mostly fewer than weights (Bhattacharya, Chakraborty & Mallick 2016).
        """
        log_weights, mean, factor = self.prior
        mean, factor = mean[:, j], factor[:, j]
        spread = jnp.einsum("tm,cmn->ctn", rows, factor)
        of_weights, of_answers = jnp.split(normal, [rows.shape[1]])
        apart = value - mean @ rows.T
        sides = jnp.stack([apart, apart - spread @ of_weights - of_answers], -1)
        system = jnp.eye(len(rows)) + spread @ spread.swapaxes(-1, -2)
        solved, log_det = jax.vmap(solve)(system, sides)
        drawn = of_weights + jnp.einsum("ctm,ct->cm", spread, solved[..., 1])
        log_weights += -log_det / 2 - jnp.sum(apart * solved[..., 0], -1) / 2
        return log_weights, mean + jnp.einsum("cmn,cn->cm", factor, drawn)

    def update(self, unit, j, walker: _Walker) -> _Walker:
        """Mechanism j drawn from its conditional; ``unit`` (M + T + 2,) is uniform in (0, 1)."""
        normal = ndtri(unit[:-2])
        rows, value, features = self.regression(j, walker)
        log_weights, draws = self.normals(j, rows, value, normal)
        ends = jnp.cumsum(jax.nn.softmax(log_weights))
        which = jnp.minimum(jnp.searchsorted(ends, unit[-2]), len(ends) - 1)
        drawn = jnp.where(jnp.asarray(self.blocks >= 0)[j], draws[which], 0.0)
        weights = walker.weights.at[j].set(drawn)
        rise = features @ drawn + self.base[:, j]
        x = self.expected(weights, put(walker.x, j, rise), after=j)
        other = walker._replace(weights=weights, x=x)
        rows_back, value_back, _ = self.regression(j, other)
        back, _ = self.normals(j, rows_back, value_back, normal)

        def offered(weights, rows, value, log_weights):
            return -jnp.sum((value - rows @ weights) ** 2) / 2 - jax.nn.logsumexp(log_weights)

        ratio = self.fit(other) - self.fit(walker)
        ratio += offered(walker.weights[j], rows_back, value_back, back)
        ratio -= offered(drawn, rows, value, log_weights)
        accepted = jnp.log(unit[-1]) < ratio
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), other, walker)

    def fit(self, walker: _Walker):
        """Log likelihood of what is right, but for a constant; ()."""
        gap = walker.answer - walker.x
        return -jnp.sum(walker.precision * gap**2) / 2

    def walkers(self, weights, unknowns) -> _Walker:
        """From weights (W, d, M)."""
        x = jax.vmap(self.expected)(weights)
        return _Walker(weights, unknowns, x, x, x)

    def sweep(self, keys, walkers: _Walker) -> _Walker:
        """What is unknown of the answers, then every mechanism; ``keys`` (W,)."""
        return jax.vmap(self.swept)(keys, walkers)

    def swept(self, key, walker: _Walker) -> _Walker:
        """One walker, see `sweep`."""
        x = self.expected(walker.weights)
        k_augment, key = jax.random.split(key)
        unknowns, precision, answer = self.own.augment(k_augment, walker.unknowns, x, self.answer)
        answer = jnp.where(precision > 0, answer, 0.0)
        walker = _Walker(walker.weights, unknowns, x, precision, answer)
        num, most = self.blocks.shape
        shape = num, most + len(x) + 2
        unit = jax.random.uniform(key, shape, minval=jnp.finfo(x.dtype).tiny)
        return self.each(lambda j, walker: self.update(unit[j], j, walker), walker)

    def zs(self, walkers: _Walker) -> Array:
        """All that is unknown, flat: as a `Target` has it; (W, dim)."""
        return flat(self.blocks, walkers.weights, walkers.unknowns)


def flat(blocks: np.ndarray, weights: Array, unknowns: Array) -> Array:
    """Weights (W, d, M) where there are some, and unknowns (W, u), as a `Target` has them."""
    there = blocks >= 0
    theta = jnp.zeros((len(weights), there.sum())).at[:, blocks[there]].set(weights[:, there])
    return jnp.concatenate([theta, unknowns], -1)


def apart(blocks: np.ndarray, z: Array) -> tuple[Array, Array]:
    """The inverse of `flat`."""
    k = np.sum(blocks >= 0)
    return jnp.where(blocks >= 0, z[:, :k][:, blocks], 0.0), z[:, k:]


def solve(system: Array, sides: Array) -> tuple[Array, Array]:
    """Solutions of ``system`` (n, n), of eigenvalues from 1 on, for ``sides`` (n, r); its log det.

    By Cholesky's decomposition, which leaves small residuals however long the system's rows are
    (Higham, "Accuracy and Stability of Numerical Algorithms", ch. 10), as Gauss and Jordan's
    elimination does not (ch. 14): what is off in a residual would be noise that answers do not
    have. Of many small systems at once, where LAPACK takes one after the other.
    """
    n = len(system)

    def down(k, carry):
        table, log_det = carry
        pivot = jnp.maximum(table[k, k], 1.0)
        row = table[k] / jnp.sqrt(pivot)
        below = jnp.where(jnp.arange(n) > k, row[:n], 0.0)
        return (table - below[:, None] * row).at[k].set(row), log_det + jnp.log(pivot)

    table = jnp.concatenate([system, sides], 1)
    table, log_det = jax.lax.fori_loop(0, n, down, (table, jnp.zeros((), table.dtype)))

    def up(i, solved):
        k = n - 1 - i
        return solved.at[k].set((table[k, n:] - table[k, :n] @ solved) / table[k, k])

    return jax.lax.fori_loop(0, n, up, jnp.zeros_like(sides)), log_det


def put(x, j, column):
    """``x`` (T, d) with another column j, which may be traced."""
    return jax.lax.dynamic_update_index_in_dim(x, column, j, 1)


@dataclass(frozen=True)
class Gibbs:
    """Gibbs sampling for `mixture` and mechanisms that are linear in their numbers.

    It finds its own starting points, or goes on from draws of ``infer(starts=)``.

    Parameters
    ----------
    num_chains : int
        Independent sets of walkers.
    num_walkers : int
        Of each chain.
    num_particles : int
        Of the filter that each chain's walkers begin with. None, the default: 2,048 (of curved
        mechanisms 512), or fewer where there are many answers about many nodes.
    num_warmup : int
        Sweeps of each walker that are dropped.
    num_steps : int
        Sweeps kept, after thinning.
    thin : int
        Every so many sweeps one is kept.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    num_chains: int = 4
    num_walkers: int = 64
    num_particles: int | None = None
    num_warmup: int = 6
    num_steps: int = 8
    thin: int = 1

    name = "gibbs"
    needs_gradient = False
    host_only = False
    needs_exact_starts = False
    num_starts = 0
    # A user's walkers are batch enough, and one person need not wait for others.
    users_at_once = 1

    @property
    def resumes(self) -> tuple[int, int]:
        """Chains, and walkers of each, that may start from earlier draws."""
        return self.num_chains, self.num_walkers

    def particles(self, num_numbers: int, curved: bool) -> int:
        """Of a filter over so many reported numbers."""
        if self.num_particles is not None:
            return self.num_particles
        ends = max(_FEWEST, self.num_walkers), _MOST_CURVED if curved else _MOST
        return int(np.clip(_PARTICLE_NUMBERS // num_numbers, *ends))

    def __post_init__(self):
        for field in ("num_chains", "num_walkers", "num_steps", "thin"):
            _checks.count(getattr(self, field), field)
        if self.num_particles is not None:
            _checks.count(self.num_particles, "num_particles", minimum=self.num_walkers)
        _checks.count(self.num_warmup, "num_warmup", minimum=0)

    def check(self, surrogate: Surrogate, likelihood: Likelihood) -> None:
        """Raise ValueError where conditionals are no regressions."""
        reason = self.unsuited(surrogate, likelihood)
        if reason:
            raise ValueError(
                f"Expected, for sampler {self.name!r}, {reason}. Use sampler 'nuts' or 'smc'."
            )

    def unsuited(self, surrogate: Surrogate, likelihood: Likelihood) -> str | None:
        """What is missing, if anything is."""
        if not hasattr(likelihood, "augment"):
            return f"a likelihood with augment(), such as mixture(); got {likelihood}"
        if not is_regression(surrogate):
            return f"mechanisms that are sums over features; got {type(surrogate).__name__}"
        prior: Any = surrogate.prior
        blocks = surrogate.blocks
        if prior.box is not None:
            if surrogate.curved:
                return "a prior of normals where mechanisms are curved; got a box"
            return None
        if not hasattr(prior, "factor"):
            return f"a prior of normals, or a box; got {type(prior).__name__}"
        mechanism = np.zeros(blocks.max() + 1, int)
        for j, row in enumerate(blocks):
            mechanism[row[row >= 0]] = j
        pairs = set(zip(prior.blocks, mechanism.tolist(), strict=True))
        several = np.shape(prior.weights)[-1] > 1
        if len({b for b, _ in pairs}) < len(pairs):
            return "a prior whose blocks are no larger than mechanisms"
        if several and len({j for _, j in pairs}) < len(pairs):
            return "one block of the prior for each mechanism"
        return None

    def run(self, key: Array, target: Target, starts: Array) -> Samples:
        """Sample one user's posterior; see `pcr_jax.inference.Sampler`."""
        person = Person(target)
        chains, each = self.num_chains, self.num_walkers
        k_begin, k_steps = jax.random.split(key)
        if len(starts):
            num_particles, num_warmup = 0, min(self.num_warmup, _WARMUP_OF_RESUMED)
            weights, unknowns = apart(person.blocks, starts)
        else:
            num_particles = self.particles(person.answer.size, person.surrogate.curved)
            num_warmup = self.num_warmup
            k_begin = jax.random.split(k_begin, chains)
            first = Filter(person)
            begun = jax.vmap(lambda key: first.walkers(key, num_particles, each))(k_begin)
            weights, unknowns = jax.tree.map(
                lambda leaf: leaf.reshape(chains * each, *leaf.shape[2:]), begun
            )
        model = person if person.surrogate.curved else Linear(person)
        log_likelihoods = jax.vmap(person.own.log_prob, (0, 0, None))

        def kept(walkers, inputs):
            key, num = inputs

            def body(i, walkers):
                keys = jax.random.split(jax.random.fold_in(key, i), chains * each)
                return model.sweep(keys, walkers)

            walkers = jax.lax.fori_loop(0, num, body, walkers)
            z = model.zs(walkers)
            fit = log_likelihoods(walkers.unknowns, walkers.x, person.answer)
            return walkers, (z, fit + jax.vmap(target.log_prior)(z))

        thinning = jnp.full(self.num_steps, self.thin).at[0].add(num_warmup)
        keys = jax.random.split(k_steps, self.num_steps)
        _, found = jax.lax.scan(kept, model.walkers(weights, unknowns), (keys, thinning))
        draws, log_density = (
            leaf.reshape(self.num_steps, chains, each, *leaf.shape[2:]).swapaxes(0, 1)
            for leaf in found
        )
        num_sweeps = num_warmup + self.num_steps * self.thin
        spent = chains * (each * num_sweeps + num_particles)
        return Samples(draws, log_density, draws[:, :0], jnp.asarray(spent))
