"""Where walkers of `gibbs` start: a filter that takes one answer at a time.

Mechanism by mechanism, with weights summed out and wrong answers drawn (a Rao-Blackwellised
particle filter: Doucet, de Freitas, Murphy & Russell 2000); parents as they were reported, with the
noise of that allowed for. So walkers are in the right places, where answers contradict each other,
in about the right proportions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm

from pcr_jax.batching import take
from pcr_jax.history import History, Questions

# Particles that take the answers in one order.
_IN_ORDER = 32
# They are resampled when their effective number is less than this share of them.
_FEWEST_WORTH = 0.5
# Draws for each walker, of which those in the prior's box are chosen, if there are any: others
# weigh so many powers of e less.
_DRAWN = 4
_OUTSIDE = 30.0


class _Covariances:
    """What one particle does not know of d mechanisms' weights: covariances (M, M, d).

    ``prior`` (C, d, M, M) are those of the normals, of which it has ``which`` (d,). Nodes come
    last, and so in `_Gains`: XLA's loops are over them.
    """

    def __init__(self, prior: Array, features: Array):
        self.prior = prior.transpose(0, 2, 3, 1)

    def start(self, which):
        """Before any answer."""
        return jnp.take_along_axis(self.prior, which[None, None, None], 0)[0]

    def times(self, spread, which, t, features):
        """The covariance with what answer t tells of, weights times ``features`` (M, d)."""
        return sum(spread[:, m] * features[m] for m in range(len(features)))

    def less(self, spread, i, gain):
        """After the i-th answer, which explains ``gain`` (M, d) times its transpose."""
        return spread - gain[:, None] * gain

    def covariance(self, spread, which):
        """All of it; (d, M, M)."""
        return spread.transpose(2, 0, 1)


class _Gains:
    """The same where there are fewer answers than weights, as what each explained: (T, M, d)."""

    def __init__(self, prior: Array, features: Array):
        self.prior, self.num_answers = prior, len(features)
        self.of_answers = jnp.einsum("cjmn,tnj->ctmj", prior, features)

    def start(self, which):
        """See `_Covariances`; so the others."""
        return jnp.zeros((self.num_answers, *self.of_answers.shape[2:]))

    def times(self, spread, which, t, features):
        before = jnp.take_along_axis(self.of_answers[:, t], which[None, None], 0)[0]
        explained = jnp.sum(spread * features, 1)
        return before - jnp.sum(spread * explained[:, None], 0)

    def less(self, spread, i, gain):
        return spread.at[i].set(gain)

    def covariance(self, spread, which):
        own = self.prior[which, jnp.arange(len(which))]
        return own - jnp.einsum("tmj,tnj->jmn", spread, spread)


class _Particles(NamedTuple):
    """``mean`` (N, M, d) of weights; ``spread``: of `_Covariances` or `_Gains`; ``which`` (N, d)
    normal of the prior; ``unknowns`` (N, u); ``pattern`` (N,): a number for each set of answers
    that are right.
    """

    mean: Array
    spread: Array
    which: Array
    unknowns: Array
    pattern: Array


class Filter:
    """One user's, a `pcr_jax.inference.samplers.gibbs.Person`."""

    def __init__(self, person: Any):
        self.person = person
        self.told = ~jnp.isnan(person.answer)
        has = person.parents >= 0
        values = jnp.where(person.descends & self.told, person.answer, person.base)
        known = ~person.descends | self.told
        # What tells of its own mechanism, given what is reported of the parents.
        self.usable = self.told & person.descends & (known[:, person.parents] | ~has).all(-1)
        self.values, self.noisy = values, person.descends[:, person.parents] & has
        self.gaps = jnp.where(self.usable, values - person.base, 0.0)
        nodes = np.arange(len(has))
        features = jax.vmap(lambda j: person.features(j, values))(nodes)
        self.features = features.transpose(1, 2, 0)
        factor = person.prior.factor
        kind = _Gains if factor.shape[-1] > len(values) else _Covariances
        self.unknown = kind(factor @ factor.swapaxes(-1, -2), self.features)

    def run(self, key, num_particles: int, names=0.0) -> tuple[_Particles, Array]:
        """Particles after all answers, one at a time in some order, and their log weights (N,).

        Their pattern adds the ``names`` (T,) of right answers. What the first answers in an order
        make unlikely may have died out when the last ones speak for it: particles of several orders
        are to be weighed together.
        """
        person, own = self.person, self.person.own
        log_normals, mean, _ = person.prior
        k_init, k_unknown, k_steps, k_order = jax.random.split(key, 4)
        nodes = np.arange(mean.shape[1])
        which = jax.random.categorical(k_init, log_normals, shape=(num_particles, len(nodes)))
        unit = jax.random.uniform(k_unknown, (num_particles, len(own.names)))
        start = _Particles(
            mean[which, nodes].swapaxes(-1, -2),
            jax.vmap(self.unknown.start)(which),
            which,
            unit if own.prior is None else own.prior.from_unit(unit),
            jnp.zeros(num_particles),
        )
        num_answers = len(self.told)
        names = jnp.broadcast_to(jnp.asarray(names), (num_answers,))
        keys = jax.random.split(k_steps, num_answers)
        told = self.told.any(-1)
        order = jax.random.permutation(k_order, num_answers)
        order = order[jnp.argsort(~told[order])]  # those that were told come first

        def step(i, carry):
            particles, log_weights = carry
            t = order[i]
            k_right, k_keep = jax.random.split(keys[i])
            log_weight, is_right, gain, residual = jax.vmap(lambda one: self.weigh(one, t))(
                particles
            )
            right = jax.random.uniform(k_right, is_right.shape) < is_right
            gain = jnp.where(right[:, None, None], gain, 0.0)
            updated = particles._replace(
                mean=particles.mean + gain * residual[:, None],
                spread=jax.vmap(self.unknown.less, (0, None, 0))(particles.spread, i, gain),
                pattern=particles.pattern + jnp.where(right, names[t], 0.0),
            )
            log_weights += log_weight
            share = jax.nn.softmax(log_weights)
            few = 1 / jnp.sum(share**2) < _FEWEST_WORTH * num_particles
            kept = systematic(k_keep, log_weights, num_particles)
            kept = jnp.where(few, kept, np.arange(num_particles))
            average = jax.nn.logsumexp(log_weights) - np.log(num_particles)
            log_weights = jnp.where(few, average, log_weights)
            return take(updated, kept), log_weights

        return jax.lax.fori_loop(0, told.sum(), step, (start, jnp.zeros(num_particles)))

    def weigh(self, particle: _Particles, t):
        """Of one particle before answer t: log weight; how probably the answer is right; and if so

        what it explains of the weights (M, d), in units of its spread, and its distance (d,) in
        those.
        """
        person, history, questions = self.person, self.person.history, self.person.history.questions
        at = jax.tree.map(lambda leaf: leaf[t][None], (questions, history.answer))
        width = None if history.half_width is None else history.half_width[t][None]
        row = History(Questions(*jax.tree.leaves(at[0])), at[1], history.x, width)
        own = person.own.bound(person.surrogate, row)
        rate, noise = own.split(particle.unknowns)
        parents, features, usable = person.parents, self.features[t], self.usable[t]
        noise = jnp.broadcast_to(noise, usable.shape)
        slopes = jax.vmap(person.surrogate.slopes, (0, -1, None), -1)
        steep = slopes(np.arange(len(parents)), particle.mean, self.values[t])
        from_parents = sum(
            jnp.where(self.noisy[t][:, p], steep[p] * noise[parents[:, p]], 0.0) ** 2
            for p in range(parents.shape[1])
        )
        gain = self.unknown.times(particle.spread, particle.which, t, features)
        variance = noise**2 + from_parents + jnp.sum(gain * features, 0)
        length = jnp.ones_like(variance)
        if row.half_width is not None:  # as if uniform within
            variance += row.half_width[0] ** 2 / 3
            length = jnp.where(row.half_width[0] > 0, 2 * row.half_width[0], 1.0)
        residual = self.gaps[t] - jnp.sum(features * particle.mean, 0)
        right = norm.logpdf(residual, 0.0, jnp.sqrt(variance)) + jnp.log(length)
        right = jnp.where(usable, right, 0.0).sum()
        wrong = own.wrong_numbers(particle.unknowns, row.answer)[0]
        wrong = jnp.where(usable, wrong, 0.0).sum()
        right, wrong = jnp.log1p(-rate) + right, jnp.log(rate) + wrong
        root = jnp.where(usable, 1 / jnp.sqrt(variance), 0.0)
        chance = jax.nn.sigmoid(right - wrong)
        return jnp.logaddexp(right, wrong), chance, root * gain, root * residual

    def draws(self, key, particles: _Particles) -> Array:
        """Of each of some particles' weights; (N, d, M)."""
        covariance = jax.vmap(self.unknown.covariance)(particles.spread, particles.which)
        spread = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        ridge = 1e-6 * jnp.maximum(spread, 1e-8)[..., None] * jnp.eye(spread.shape[-1])
        factor = jnp.linalg.cholesky((covariance + covariance.swapaxes(-1, -2)) / 2 + ridge)
        factor = jnp.where(jnp.isfinite(factor), factor, 0.0)
        mean = particles.mean.swapaxes(-1, -2)
        return mean + jnp.einsum("njkm,njm->njk", factor, jax.random.normal(key, mean.shape))

    def walkers(self, key, num_particles: int, num_walkers: int) -> tuple[Array, Array]:
        """To be swept: weights (W, d, M), unknowns (W, u)."""
        person = self.person
        k_filter, k_names, k_keep, k_draw = jax.random.split(key, 4)
        num_orders = max(1, num_particles // _IN_ORDER)
        each = num_particles // num_orders
        keys = jax.random.split(k_filter, num_orders)
        names = jax.random.uniform(k_names, (len(self.told),))
        particles, log_weights = jax.vmap(lambda key: self.run(key, each, names))(keys)
        num_drawn = _DRAWN * num_walkers if person.boxed else num_walkers
        # Each set of answers that may be right gets its share of the walkers.
        rank = jnp.argsort(particles.pattern.ravel())
        some = rank[systematic(k_keep, log_weights.ravel()[rank], num_drawn)]
        places = some // each, some % each
        kept = take(particles, places)
        weights = jnp.where(person.blocks >= 0, self.draws(k_draw, kept), 0.0)
        if person.boxed:
            return self.boxed(jax.random.fold_in(k_keep, 1), weights, kept.unknowns, num_walkers)
        return weights, kept.unknowns

    def boxed(self, key, weights, unknowns, num_walkers: int):
        """So many of the draws, resampled from the filter's normal prior to the box."""
        blocks = self.person.blocks
        low, high = (end[blocks] for end in jnp.asarray(self.person.target.reach.box))
        there = jnp.asarray(blocks >= 0)
        width = jnp.where(high > low, high - low, 1.0)
        away = jnp.where(high > low, (weights - (low + high) / 2) / width, 0.0)
        # The logarithm of what the box has more than the normal, whose variance is its 12th part.
        gained = jnp.where(there, 6 * jnp.minimum(away**2, 0.25), 0.0).sum((-2, -1))
        is_out = (there & (jnp.abs(away) > 0.5)).any((-2, -1))
        kept = systematic(key, gained - _OUTSIDE * is_out, num_walkers)
        inside = jnp.where(there, jnp.clip(weights, low, high), 0.0)
        return inside[kept], unknowns[kept]


def systematic(key: Array, log_weight: Array, num: int) -> Array:
    """Systematic resampling: ``num`` places among those that are weighed; (num,)."""
    ends = jnp.cumsum(jax.nn.softmax(log_weight))
    places = (jax.random.uniform(key) + jnp.arange(num)) / num
    return jnp.clip(jnp.searchsorted(ends, places), 0, len(ends) - 1)
