"""Sweeps of `gibbs` over linear mechanisms: all walkers at once.

The effect of a change on an answer goes through a mechanism as a product: what the change does to
the mechanism's parents, and what its node does to what is reported. Mechanisms are drawn in the
order of the graph, so the latter depends on those alone that are not drawn yet, and stays as it is
until its turn. Walkers are the last axis of every array: what is summed, over answers and nodes, is
summed for many walkers with one instruction.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri

from pcr_jax.likelihoods.mixture import truncated_normal

# Mechanisms are drawn in so many loops at most, each over what can differ from 0 in it.
_LOOPS = 4
_NODES_OF_A_LOOP = 5
# Terms that are added one by one, at most: each is compiled.
_FEW = 32


class Walkers(NamedTuple):
    """W walkers: ``weights`` (d, M, W) of the mechanisms; ``unknowns`` (W, u) of the likelihood;
    ``effects`` (d, d, W): what every node rises by if the one of a row rises by one; ``x``
    (W, T, d): what is expected.
    """

    weights: Array
    unknowns: Array
    effects: Array
    x: Array


class Linear:
    """One user's walkers, of whose mechanisms none is curved."""

    def __init__(self, person: Any):
        self.person = person
        self.there = jnp.asarray(person.blocks >= 0)
        self.parents = jnp.asarray(np.maximum(person.parents, 0))
        factor = person.prior.factor
        inverse = jnp.linalg.inv(factor)
        self.precision = inverse.swapaxes(-1, -2) @ inverse
        self.log_det = -jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        num_answers, num_nodes = person.answer.shape
        # Answers to questions about one node then count as one, if no other number is passed on.
        self.by_node = person.surrogate.centre is not None and num_answers > num_nodes

    def walkers(self, weights, unknowns) -> Walkers:
        """From weights (W, d, M)."""
        weights = jnp.moveaxis(weights, 0, -1)
        effects = self.effects(weights)
        return Walkers(weights, unknowns, effects, self.expected(effects))

    def zs(self, walkers: Walkers) -> Array:
        """All that is unknown, flat: as a `Target` has it; (W, dim)."""
        blocks, weights = self.person.blocks, walkers.weights
        there = blocks >= 0
        theta = jnp.zeros((there.sum(), weights.shape[-1])).at[blocks[there]].set(weights[there])
        return jnp.concatenate([theta.T, walkers.unknowns], -1)

    def effects(self, weights):
        """See `Walkers`."""
        num, _, num_walkers = weights.shape
        start = jnp.broadcast_to(jnp.eye(num)[..., None], (num, num, num_walkers))

        def body(j, effects):
            passed = jnp.sum(weights[j] * effects[:, self.parents[j]], 1)
            return effects.at[:, j].add(passed)

        return self.person.each(body, start)

    def expected(self, effects):
        """What is expected; (W, T, d)."""
        person, effects = self.person, jnp.moveaxis(effects, -1, 0)
        if not self.by_node:
            return person.begin + jnp.einsum("tn,wni->wti", person.passed, effects)
        node = jnp.asarray(person.history.questions.node)
        return person.begin + person.passed.sum(1)[:, None] * effects[:, node]

    def rows(self, precision, gap):
        """Answers (W, T, d) and their precision as regressions on what was changed.

        Of R rows, answers, or all those about one node: precision, and precision times what each
        node rose by; (d, R, W).
        """
        pull = precision * gap
        if self.by_node:
            passed = self.person.passed
            precision = jnp.einsum("tr,wti->wri", passed**2, precision)
            pull = jnp.einsum("tr,wti->wri", passed, pull)
        return precision.transpose(2, 1, 0), pull.transpose(2, 1, 0)

    def sweep(self, keys, walkers: Walkers) -> Walkers:
        """What is unknown of the answers, then every mechanism; ``keys`` (W,)."""
        person = self.person
        k_augment, k_draw = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        unknowns, precision, answer = jax.vmap(person.own.augment, (0, 0, 0, None))(
            k_augment, walkers.unknowns, walkers.x, person.answer
        )
        gap = jnp.where(precision > 0, answer - person.begin, 0.0)
        size, pull = self.rows(precision, gap)
        num, most = self.there.shape
        tiny = jnp.finfo(size.dtype).tiny
        shape = num, (2 * most if person.boxed else most) + 1
        unit = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=tiny))(k_draw)
        unit = jnp.moveaxis(unit, 0, -1)
        effects = rose = walkers.effects
        start = jnp.eye(num)
        if not self.by_node:
            start, rose = person.passed, jnp.einsum("tn,niw->tiw", person.passed, effects)
        left = pull - size * rose.swapaxes(0, 1)
        weights = walkers.weights
        for nodes in np.array_split(person.order, max(1, min(_LOOPS, num // _NODES_OF_A_LOOP))):
            first, last = nodes[0], nodes[-1] if self.by_node else len(rose)
            below, numbers = num - first, jnp.asarray(nodes)
            size, left = size[-below:], left[-below:]
            own, gains = size[:, :last], effects[nodes, first:]
            strength = dot(own[:, None], gains.swapaxes(0, 1)[:, :, None] ** 2)

            def body(i, carry, own=own, gains=gains, strength=strength, last=last, numbers=numbers):
                weights, rose, left, pull = carry
                j = numbers[i]
                parents = jnp.where(self.there[j][:, None], rose[:last, self.parents[j]], 0.0)
                drawn, changed = self.drawn(j, unit[j], weights[j], parents, strength[i], pull)
                rise = sum(changed[m] * parents[:, m] for m in range(most))
                left = left - own * rise * gains[i][:, None]
                pull = dot(left, gains[jnp.minimum(i + 1, len(numbers) - 1), :, None])
                now = sum(drawn[m] * parents[:, m] for m in range(most)) + start[:last, j, None]
                return weights.at[j].set(drawn), rose.at[:last, j].set(now), left, pull

            carry = weights, rose, left[:, :last], dot(left[:, :last], gains[0][:, None])
            weights, rose, done, _ = jax.lax.fori_loop(0, len(nodes), body, carry)
            left = jnp.concatenate([done, left[:, last:]], 1)
        effects = rose if self.by_node else self.effects(weights)
        return Walkers(weights, unknowns, effects, self.expected(effects))

    def drawn(self, j, unit, weights, parents, strength, pull):
        """Mechanism j's weights (M, W) from their conditional, and what they changed by.

        The change is what is drawn: next to what many answers say of the weights, single precision
        has no room for what is left to say.
        """
        matrix = dot(parents[:, None], parents[:, :, None], strength[:, None, None])
        vector = dot(parents, pull[:, None])
        there = self.there[j][:, None]
        if self.person.boxed:
            drawn = self.in_box(unit, j, weights, matrix, vector)
        else:
            drawn = weights + self.normal(unit, j, weights, matrix, vector)
            drawn = jnp.where(there, drawn, 0.0)
        return drawn, jnp.where(there, drawn - weights, 0.0)

    def normal(self, unit, j, weights, matrix, vector):
        """A change, to a mixture of normals."""
        log_weights = self.person.prior.log_weights
        of_all = self.person.prior.mean, self.precision, self.log_det
        mean, precision, log_det = (leaf[:, j] for leaf in of_all)
        away = mean[:, None] - weights.T
        pulled = jnp.einsum("cmn,cwn->cwm", precision, away)
        matrices = jnp.moveaxis(precision, 0, -1)[..., None] + matrix[:, :, None]
        sides = jnp.moveaxis(pulled, -1, 0) + vector[:, None]
        drawn, half, log_dets = solutions(matrices, sides, ndtri(unit[:-1])[:, None])
        if len(log_weights) == 1:
            return drawn[:, 0]
        fit = (half**2).sum(0) - jnp.sum(away * pulled, -1)
        log_weights = (log_weights + log_det)[:, None] - log_dets + fit / 2
        ends = jnp.cumsum(jax.nn.softmax(log_weights, 0), 0)
        which = jnp.minimum(jnp.sum(ends < unit[-1], 0), len(ends) - 1)
        return jnp.take_along_axis(drawn, which[None, None], 1)[:, 0]

    def in_box(self, unit, j, weights, matrix, vector):
        """One by one, each within the prior's box; then all along a line."""
        low, high = (
            jnp.where(self.there[j], end[jnp.asarray(self.person.blocks)[j]], 0.0)[:, None]
            for end in jnp.asarray(self.person.target.reach.box)
        )
        before, num = weights, len(weights)
        for m in range(num):
            done = sum(matrix[m, n] * (weights[n] - before[n]) for n in range(m))
            reach = low[m] - before[m], high[m] - before[m]
            drawn = before[m] + moved(unit[m], matrix[m, m], vector[m] - done, *reach)
            weights = weights.at[m].set(jnp.clip(drawn, low[m], high[m]))
        if num == 1:
            return weights
        # What answers say of several weights together leaves each alone little room: a direction in
        # which there is more, whatever the weights are (hit-and-run: Smith 1984).
        wide = high > low
        least = 12 / jnp.where(wide, high - low, 1.0) ** 2 + 1e-5 * jnp.einsum("mmw->mw", matrix)
        room = matrix + least[:, None] * jnp.eye(num)[..., None]
        way, _, _ = solutions(room, jnp.zeros_like(weights), ndtri(unit[num:-1]))
        way = jnp.where(wide & jnp.isfinite(way).all(0), way, 0.0)
        size = jnp.einsum("mw,mnw,nw->w", way, matrix, way)
        left = vector - jnp.einsum("mnw,nw->mw", matrix, weights - before)
        rests = way == 0
        ends = jnp.stack([low - weights, high - weights]) / jnp.where(rests, 1.0, way)
        first = jnp.where(rests, -jnp.inf, ends.min(0)).max(0)
        last = jnp.where(rests, jnp.inf, ends.max(0)).min(0)
        far = moved(unit[-1], size, jnp.sum(way * left, 0), first, last)
        return jnp.clip(weights + jnp.where(rests.all(0), 0.0, far) * way, low, high)


def moved(unit, size, pull, low, high):
    """From 0 to a draw between ``low`` and ``high`` of density exp(pull x - size x^2 / 2)."""
    size = jnp.maximum(size, 1e-12)
    sd, mean = 1 / jnp.sqrt(size), pull / size
    drawn = mean + sd * truncated_normal(unit, (low - mean) / sd, (high - mean) / sd)
    # Of what no answer tells anything, the ends alone do.
    return jnp.where(sd > 1e2 * (high - low), low + unit * (high - low), drawn)


def solutions(matrix, side, normal) -> tuple[Array, Array, Array]:
    """Draws (M, ...) from normals of precision ``matrix`` (M, M, ...), times their mean ``side``.

    ``normal`` are standard normals. And what half of the way gives: the side over the matrix's
    root, and half of the log det (...). Cholesky's decomposition of all at once, where LAPACK takes
    one after the other.
    """
    columns, halves, roots = [], [], []
    num = len(side)
    for _ in range(num):
        root = jnp.sqrt(matrix[0, 0])
        column = matrix[1:, 0] / root
        half = side[0] / root
        matrix = matrix[1:, 1:] - column[:, None] * column
        side = side[1:] - column * half
        roots.append(root)
        columns.append(column)
        halves.append(half)
    drawn: list[Array] = []
    for k in reversed(range(num)):
        known = sum(columns[k][m] * drawn[m] for m in range(num - k - 1))
        drawn.insert(0, (halves[k] + normal[k] - known) / roots[k])
    log_det = jnp.log(jnp.stack(roots)).sum(0)
    return jnp.stack(drawn), jnp.stack(halves), log_det


def dot(*factors: Array) -> Array:
    """The sum over the first axis of a product, term by term.

    As one reduction within a sweep, XLA (jaxlib 0.10.2, on a CPU) got it wrong for 64 nodes and 256
    walkers: right with 64 walkers, with other compilation of the same, and in double precision.
    """
    num = len(factors[0])
    if num <= _FEW:
        first, *others = (math.prod(each) for each in zip(*factors, strict=True))
        return sum(others, first)
    start = dot(*(factor[: num % _FEW or _FEW] for factor in factors))

    def body(i, total):
        part = [jax.lax.dynamic_slice_in_dim(f, num - (i + 1) * _FEW, _FEW) for f in factors]
        return total + dot(*part)

    return jax.lax.fori_loop(0, (num - 1) // _FEW, body, start)
