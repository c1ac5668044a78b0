"""Gibbs sampling: which answers are wrong, then one mechanism after the other.

Given which answers are wrong (z_t of Eq. 4 of the paper), the noise, and all other mechanisms, the
answers are affine in the numbers of one linear mechanism: its conditional is a normal, drawn from
exactly (Geman & Geman 1984; Tanner & Wong 1987 for z_t). In what a curved mechanism leads to down
the graph they are not: a draw from the regression linearised about the present is then accepted or
rejected by Metropolis & Hastings (1970). Every answer is held to what *all* mechanisms together
say, so that errors in reported parents are where they belong, in the likelihood.

Walkers start from a filter that takes one answer at a time, mechanism by mechanism with numbers
summed out and wrong answers drawn (a Rao-Blackwellised particle filter: Doucet, de Freitas, Murphy
& Russell 2000; parents as they were reported, with the noise of that allowed for). So they are in
the right places, where answers contradict each other, in about the right proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from pcr_jax import _checks
from pcr_jax.history import History, Questions
from pcr_jax.inference.samplers.base import Samples
from pcr_jax.inference.samplers.linear_sweeps import Linear
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood
from pcr_jax.surrogates import Surrogate
from pcr_jax.surrogates.regression import is_regression, padded_parents

# Particles that take the answers in one order.
_IN_ORDER = 32
# Times the numbers that are reported, what particles there are by default, within limits; of curved
# mechanisms, whose particles are larger.
_PARTICLE_NUMBERS, _FEWEST, _MOST, _MOST_CURVED = 2**18, 128, 2048, 512
# Sweeps that are dropped of walkers that were draws before the last answers.
_WARMUP_OF_RESUMED = 2
# Draws for each walker, of which those in the prior's box are chosen, if there are any: others
# weigh so many powers of e less.
_DRAWN = 4
_OUTSIDE = 30.0
# Of numbers that are known, for the filter.
_LEAST_SD = 1e-3


class _Normals(NamedTuple):
    """The prior of the mechanisms' weights: mixtures of C normals, mechanism by mechanism.

    ``log_weights`` (C,); ``mean`` (C, d, M); ``precision`` (C, d, M, M), with ones on the diagonal
    where there is no weight; ``log_det`` (C, d): half of the logarithm of its determinant.
    """

    log_weights: Array
    mean: Array
    precision: Array
    log_det: Array


def _normals(target: Target, blocks: np.ndarray) -> _Normals:
    """The prior's, or those with a box's moments."""
    prior: Any = target.reach
    there = blocks >= 0
    eye = jnp.eye(blocks.shape[1])
    if prior.box is not None:
        low, high = jnp.asarray(prior.box)
        mean, sd = (low + high) / 2, jnp.maximum((high - low) / 12**0.5, _LEAST_SD)
        mean, factor, weights = mean[None], jnp.diag(sd)[None], jnp.ones(1)
    else:
        mean, factor, weights = map(jnp.asarray, (prior.mean, prior.factor, prior.weights))
    both = there[:, :, None] & there[:, None, :]
    own = factor[:, blocks[:, :, None], blocks[:, None, :]]
    own = jnp.where(both, own, eye)
    log_det = -jnp.log(jnp.diagonal(own, axis1=-2, axis2=-1)).sum(-1)
    precision = jax.vmap(jax.vmap(lambda factor: cho_solve((factor, True), eye)))(own)
    return _Normals(jnp.log(weights), jnp.where(there, mean[:, blocks], 0.0), precision, log_det)


class _Walker(NamedTuple):
    """``weights`` (d, M) of the mechanisms; ``unknowns`` of the likelihood; ``x`` (T, d): what all
    of that leads to be expected; ``precision`` and ``answer`` (T, d): see `Augmented`.
    """

    weights: Array
    unknowns: Array
    x: Array
    precision: Array
    answer: Array


class _Particles(NamedTuple):
    """``mean`` (N, d, M) and ``covariance`` (N, d, M, M) of weights; ``unknowns`` (N, u);
    ``pattern`` (N,): a number for each set of answers that are right.
    """

    mean: Array
    covariance: Array
    unknowns: Array
    pattern: Array


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
        """Of mechanism j: its features' matrix (M, M) and vector (M,), as if all were affine."""
        features = self.features(j, walker.x)
        gains = self.gains(j, walker.weights, walker.x)
        gap = walker.answer - walker.x
        size = jnp.sum(walker.precision * gains**2, -1)
        pull = jnp.sum(walker.precision * gains * gap, -1)
        matrix = features.T @ (size[:, None] * features)
        return matrix, features.T @ pull + matrix @ walker.weights[j], features

    def normals(self, j, matrix, vector):
        """The conditional's C normals: log weights, means, factors of precisions."""
        log_weights, *of_all = self.prior
        prior_mean, precision, prior_log_det = (leaf[:, j] for leaf in of_all)
        pulled = jnp.einsum("cmn,cn->cm", precision, prior_mean)
        factor = jnp.linalg.cholesky(precision + matrix)
        mean = jax.vmap(lambda f, v: cho_solve((f, True), v))(factor, pulled + vector)
        log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        fit = jnp.sum(mean * (pulled + vector), -1) - jnp.sum(prior_mean * pulled, -1)
        return log_weights + prior_log_det - log_det + fit / 2, mean, factor

    def update(self, unit, j, walker: _Walker) -> _Walker:
        """Mechanism j drawn from its conditional; ``unit`` (M + 2,) is uniform in (0, 1)."""
        matrix, vector, features = self.regression(j, walker)
        log_weights, mean, factor = self.normals(j, matrix, vector)
        ends = jnp.cumsum(jax.nn.softmax(log_weights))
        which = jnp.minimum(jnp.searchsorted(ends, unit[-2]), len(ends) - 1)
        normal = ndtri(unit[:-2])
        drawn = mean[which] + solve_triangular(factor[which], normal, lower=True, trans=1)
        drawn = jnp.where(jnp.asarray(self.blocks >= 0)[j], drawn, 0.0)
        weights = walker.weights.at[j].set(drawn)
        rise = features @ drawn + self.base[:, j]
        x = self.expected(weights, put(walker.x, j, rise), after=j)
        other = walker._replace(weights=weights, x=x)
        matrix_back, vector_back, _ = self.regression(j, other)
        back, _, _ = self.normals(j, matrix_back, vector_back)

        def offered(weights, matrix, vector, log_weights):
            quadratic = vector @ weights - weights @ matrix @ weights / 2
            return quadratic - jax.nn.logsumexp(log_weights)

        ratio = self.fit(other) - self.fit(walker)
        ratio += offered(walker.weights[j], matrix_back, vector_back, back)
        ratio -= offered(drawn, matrix, vector, log_weights)
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
        unit = jax.random.uniform(key, (num, most + 2), minval=jnp.finfo(x.dtype).tiny)
        return self.each(lambda j, walker: self.update(unit[j], j, walker), walker)

    def zs(self, walkers: _Walker) -> Array:
        """All that is unknown, flat: as a `Target` has it; (W, dim)."""
        return flat(self.blocks, walkers.weights, walkers.unknowns)

    def reported(self) -> tuple[Array, Array, Array]:
        """Values (T, d) as they were reported, which of them tell of their own mechanism (T, d),
        given those of its parents, and its features under them; (d, T, M).
        """
        reported = ~jnp.isnan(self.answer)
        values = jnp.where(self.descends & reported, self.answer, self.base)
        known = ~self.descends | reported
        has = self.parents >= 0
        usable = reported & self.descends & (known[:, self.parents] | ~has).all(-1)
        return values, usable, jax.vmap(lambda j: self.features(j, values))(np.arange(len(has)))

    def filtered(self, key, num_particles: int, names=0.0) -> tuple[_Particles, Array]:
        """Particles after all answers, one at a time in some order, and their log evidence.

        They are of equal weight; their pattern adds the ``names`` (T,) of right answers. What the
        first answers in an order make unlikely may have died out when the last ones speak for it:
        filters of several orders are to be weighed by their evidence.
        """
        history, questions = self.history, self.history.questions
        values, usable, features = self.reported()
        of_parents = jnp.asarray(self.parents)
        has = of_parents >= 0
        noisy = self.descends[:, of_parents] & has
        gaps = jnp.where(usable, values - self.base, 0.0)
        # Here nodes come last: XLA's loops are over them.
        features = features.transpose(1, 2, 0)
        slopes = jax.vmap(self.surrogate.slopes, (0, -1, None), -1)
        k_init, k_unknown, k_steps, k_order = jax.random.split(key, 4)
        nodes, most = np.arange(len(has)), self.blocks.shape[1]
        which = jax.random.categorical(
            k_init, self.prior.log_weights, shape=(num_particles, len(has))
        )
        covariance = jnp.linalg.inv(self.prior.precision) if most else self.prior.precision
        unit = jax.random.uniform(k_unknown, (num_particles, len(self.own.names)))
        start = _Particles(
            self.prior.mean[which, nodes].swapaxes(-1, -2),
            covariance[which, nodes].transpose(0, 2, 3, 1),
            unit if self.own.prior is None else self.own.prior.from_unit(unit),
            jnp.zeros(num_particles),
        )

        def weigh(particle: _Particles, row, psi, gap, usable, noisy, value):
            own = self.own.bound(self.surrogate, row)
            rate, noise = own.split(particle.unknowns)
            noise = jnp.broadcast_to(noise, gap.shape)
            steep = slopes(nodes, particle.mean, value)
            from_parents = sum(
                jnp.where(noisy[:, p], steep[p] * noise[of_parents[:, p]], 0.0) ** 2
                for p in range(has.shape[1])
            )
            gain = sum(particle.covariance[:, m] * psi[m] for m in range(most))
            variance = noise**2 + from_parents + sum(gain[m] * psi[m] for m in range(most))
            length = jnp.ones_like(variance)
            if row.half_width is not None:  # as if uniform within
                variance += row.half_width[0] ** 2 / 3
                length = jnp.where(row.half_width[0] > 0, 2 * row.half_width[0], 1.0)
            residual = gap - sum(psi[m] * particle.mean[m] for m in range(most))
            right = norm.logpdf(residual, 0.0, jnp.sqrt(variance)) + jnp.log(length)
            right = jnp.where(usable, right, 0.0).sum()
            wrong = own.wrong_numbers(particle.unknowns, row.answer)[0]
            wrong = jnp.where(usable, wrong, 0.0).sum()
            right, wrong = jnp.log1p(-rate) + right, jnp.log(rate) + wrong
            step = jnp.where(usable, 1.0 / variance, 0.0) * gain
            mean = particle.mean + step * residual
            covariance = particle.covariance - step[:, None] * gain
            return jnp.logaddexp(right, wrong), jax.nn.sigmoid(right - wrong), mean, covariance

        def step(particles, inputs):
            key, t = inputs
            k_right, k_keep = jax.random.split(key)
            at = jax.tree.map(lambda leaf: leaf[t][None], (questions, history.answer))
            width = None if history.half_width is None else history.half_width[t][None]
            row = History(Questions(*jax.tree.leaves(at[0])), at[1], history.x, width)
            of_answer = features[t], gaps[t], usable[t], noisy[t], values[t]
            log_weight, is_right, mean, covariance = jax.vmap(
                lambda particle: weigh(particle, row, *of_answer)
            )(particles)
            right = jax.random.uniform(k_right, is_right.shape) < is_right
            updated = _Particles(
                jnp.where(right[:, None, None], mean, particles.mean),
                jnp.where(right[:, None, None, None], covariance, particles.covariance),
                particles.unknowns,
                particles.pattern + jnp.where(right, names[t], 0.0),
            )
            kept = systematic(k_keep, log_weight, num_particles)
            evidence = jax.nn.logsumexp(log_weight)
            return jax.tree.map(lambda leaf: leaf[kept], updated), evidence

        num_answers = len(self.answer)
        names = jnp.broadcast_to(jnp.asarray(names), (num_answers,))
        order = jax.random.permutation(k_order, num_answers)
        particles, evidence = jax.lax.scan(
            step, start, (jax.random.split(k_steps, num_answers), order)
        )
        mean, covariance = particles.mean, particles.covariance
        mean, covariance = mean.swapaxes(-1, -2), covariance.transpose(0, 3, 1, 2)
        return particles._replace(mean=mean, covariance=covariance), evidence.sum()

    def boxed(self, key, weights, unknowns, num_walkers: int):
        """So many of the draws, resampled from the filter's normal prior to the box."""
        low, high = (end[self.blocks] for end in jnp.asarray(self.target.reach.box))
        there = jnp.asarray(self.blocks >= 0)
        width = jnp.where(high > low, high - low, 1.0)
        away = jnp.where(high > low, (weights - (low + high) / 2) / width, 0.0)
        # The logarithm of what the box has more than the normal, whose variance is its 12th part.
        gained = jnp.where(there, 6 * jnp.minimum(away**2, 0.25), 0.0).sum((-2, -1))
        is_out = (there & (jnp.abs(away) > 0.5)).any((-2, -1))
        kept = systematic(key, gained - _OUTSIDE * is_out, num_walkers)
        inside = jnp.where(there, jnp.clip(weights, low, high), 0.0)
        return inside[kept], unknowns[kept]

    def begun(self, key, num_particles: int, num_walkers: int) -> tuple[Array, Array]:
        """Walkers from the filter's particles, to be swept: weights (W, d, M), unknowns (W, u)."""
        k_filter, k_names, k_keep, k_draw = jax.random.split(key, 4)
        num_orders = max(1, num_particles // _IN_ORDER)
        each = num_particles // num_orders
        keys = jax.random.split(k_filter, num_orders)
        names = jax.random.uniform(k_names, (len(self.answer),))
        particles, evidence = jax.vmap(lambda key: self.filtered(key, each, names))(keys)
        boxed = self.target.reach.box is not None
        num_drawn = _DRAWN * num_walkers if boxed else num_walkers
        # Each set of answers that may be right gets its share of the walkers.
        rank = jnp.argsort(particles.pattern.ravel())
        some = rank[systematic(k_keep, jnp.repeat(evidence, each)[rank], num_drawn)]
        places = some // each, some % each
        mean, covariance, unknowns, _ = jax.tree.map(lambda leaf: leaf[places], particles)
        spread = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        ridge = 1e-6 * jnp.maximum(spread, 1e-8)[..., None] * jnp.eye(spread.shape[-1])
        factor = jnp.linalg.cholesky((covariance + covariance.swapaxes(-1, -2)) / 2 + ridge)
        factor = jnp.where(jnp.isfinite(factor), factor, 0.0)
        normal = jax.random.normal(k_draw, mean.shape)
        weights = mean + jnp.einsum("wjmn,wjn->wjm", factor, normal)
        weights = jnp.where(self.blocks >= 0, weights, 0.0)
        if boxed:
            k_box = jax.random.fold_in(k_keep, 1)
            weights, unknowns = self.boxed(k_box, weights, unknowns, num_walkers)
        return weights, unknowns


def flat(blocks: np.ndarray, weights: Array, unknowns: Array) -> Array:
    """Weights (W, d, M) where there are some, and unknowns (W, u), as a `Target` has them."""
    there = blocks >= 0
    theta = jnp.zeros((len(weights), there.sum())).at[:, blocks[there]].set(weights[:, there])
    return jnp.concatenate([theta, unknowns], -1)


def apart(blocks: np.ndarray, z: Array) -> tuple[Array, Array]:
    """The inverse of `flat`."""
    k = np.sum(blocks >= 0)
    return jnp.where(blocks >= 0, z[:, :k][:, blocks], 0.0), z[:, k:]


def put(x, j, column):
    """``x`` (T, d) with another column j, which may be traced."""
    return jax.lax.dynamic_update_index_in_dim(x, column, j, 1)


def systematic(key: Array, log_weight: Array, num: int) -> Array:
    """Systematic resampling: ``num`` places among those that are weighed; (num,)."""
    ends = jnp.cumsum(jax.nn.softmax(log_weight))
    places = (jax.random.uniform(key) + jnp.arange(num)) / num
    return jnp.clip(jnp.searchsorted(ends, places), 0, len(ends) - 1)


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
            begun = jax.vmap(lambda key: person.begun(key, num_particles, each))(k_begin)
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
