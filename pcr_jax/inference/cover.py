"""Boxes that cover the possible coefficients of one user, for those whom prior draws do not serve.

A branch-and-prune search in interval arithmetic, on the host and in double precision. A box of
coefficients bounds the features of every query, node by node; a query that agrees bounds the
features by the answer and, solved for one coefficient after the other, the coefficients by the
features (HC4: Benhamou, Goualard, Granvilliers & Puget 1999). As some answers may be missed, a
coefficient is kept where enough queries allow it (relaxed intersection: Jaulin 2009). Boxes that
too few queries allow are dropped, the others halved. No box left is a proof that nothing is
possible.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.history import History
from pcr_jax.inference.search import BLOCK, evaluate
from pcr_jax.likelihoods import HardSupport
from pcr_jax.surrogates import Surrogate

_PROBES = 4096  # points by which a cover is judged
_GOOD = 1 / 256  # the share of them that is possible in a cover that need not be refined
_HALVED = 1024  # boxes halved at once
_NUMBERS = 2**21  # that many probes or halves take at once
_MAX_BOXES = 2**15  # boxes looked at
_MAX_STEPS = 2**11  # rounds times coefficients
_LARGEST = 700.0  # exponents of double precision
_REPEATED = 50  # draws for each that is wanted, after which more will not be distinct


class Cover(NamedTuple):
    """Disjoint boxes that hold every possible theta.

    Attributes
    ----------
    low, high : array
        Shape (num_boxes, num_coefficients); no boxes if nothing is possible.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def hull(self) -> np.ndarray:
        """The smallest box around all, shape (2, num_coefficients)."""
        return np.stack([self.low.min(0), self.high.max(0)])

    def log_volume(self) -> float:
        """The logarithm of the volume of all boxes together."""
        volumes = _log_volumes(self.low, self.high)
        return float(volumes.max() + np.log(np.exp(volumes - volumes.max()).sum()))

    def draws(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Uniform draws from the boxes, shape (num, num_coefficients)."""
        volumes = _log_volumes(self.low, self.high)
        weights = np.exp(volumes - volumes.max())
        box = rng.choice(len(weights), num, p=weights / weights.sum())
        return rng.uniform(self.low[box], self.high[box])


def _log_volumes(low, high):
    return np.log(np.maximum(high - low, np.exp(-_LARGEST))).sum(-1)


class _Interval(NamedTuple):
    low: np.ndarray
    high: np.ndarray

    def times(self, other) -> _Interval:
        ends = [a * b for a in self for b in other]
        return _Interval(np.minimum.reduce(ends), np.maximum.reduce(ends))

    def over(self, other) -> _Interval:
        """The quotient; everything where ``other`` has a zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = [a / b for a in self for b in other]
        zero = (other.low <= 0) & (other.high >= 0)
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        return _Interval(np.where(zero, -np.inf, low), np.where(zero, np.inf, high))

    def within(self, other) -> _Interval:
        return _Interval(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def widened(self, by) -> _Interval:
        return _Interval(self.low - by, self.high + by)

    @property
    def size(self) -> np.ndarray:
        return np.maximum(np.abs(self.low), np.abs(self.high))


class _Problem:
    """One user's questions and answers, as constraints on boxes of coefficients.

    Boxes are intervals of shape (num_boxes, num_coefficients), features of one node intervals of
    shape (num_boxes, T). Unanswered queries are left out.
    """

    def __init__(self, surrogate, history, sigma, needed, joint):
        answer = np.asarray(history.answer, float)
        asked = ~np.isnan(answer).all(-1)
        questions = jax.tree.map(lambda leaf: np.asarray(leaf)[asked], history.questions)
        node, shift = questions.node, questions.shift
        begun = surrogate.about(questions.individual, history.x)
        own, mean = (np.asarray(of, float) for of in begun)
        self.answer = answer[asked] - own
        # Of what was said, not of the change, which may be small beside it.
        self.said = np.abs(np.nan_to_num(answer[asked])) + np.abs(own)
        self.surrogate, self.sigma, self.needed, self.joint = surrogate, sigma, needed, joint
        shifted = node[:, None] == np.arange(answer.shape[-1])
        self.base = mean + np.where(shifted, shift[:, None], 0.0)
        # Questions and answers are known to the precision of JAX's numbers, bounds to that of ours.
        self.rounding = max(2 * float(jnp.finfo(jnp.result_type(float)).eps), 1e-13)
        edges = surrogate.graph.edges
        self.causes: list[list[tuple[int, int]]] = [[] for _ in range(answer.shape[-1])]
        for e, (parent, child) in enumerate(edges):
            self.causes[child].append((e, parent))

    @cached_property
    def reported(self):
        return ~np.isnan(self.answer)

    def _term(self, box, e):
        return _Interval(box.low[:, e, None], box.high[:, e, None])

    def features(self, box, agreeing):
        """Bounds on every node, where asked for only as far as they agree with the answers.

        And how far rounding may move a node, shape (num_boxes, T).
        """
        nodes, sizes, slacks = [], [], []
        for j, causes in enumerate(self.causes):
            value = _Interval(self.base[None, :, j], self.base[None, :, j])
            size = np.abs(self.base[None, :, j])
            for e, p in causes:
                term = self._term(box, e).times(nodes[p])
                value = _Interval(value.low + term.low, value.high + term.high)
                size = size + self._term(box, e).size * sizes[p]
            said = np.where(self.reported[:, j], self.answer[:, j], 0.0)
            slack = self.rounding * (size + self.said[:, j])
            if agreeing:
                reach = np.where(self.reported[:, j], self.sigma + slack, np.inf)
                value = value.within(_Interval(said - reach, said + reach))
            nodes.append(value)
            sizes.append(size)
            slacks.append(slack)
        return nodes, slacks

    def distances(self, nodes):
        """The smallest and the largest distances of answers from features, (num_boxes, T, d)."""
        low, high = (np.stack(np.broadcast_arrays(*ends), -1) for ends in zip(*nodes, strict=True))
        away = np.maximum(np.maximum(low - self.answer, self.answer - high), 0.0)
        farthest = np.maximum(self.answer - low, high - self.answer)
        return (np.where(self.reported, part, 0.0) for part in (away, farthest))

    def _norm(self, distances):
        return np.sqrt((distances**2).sum(-1)) if self.joint else distances.max(-1)

    def inner(self, box):
        """Whether all of a box is possible, shape (num_boxes,)."""
        nodes, _ = self.features(box, agreeing=False)
        _, farthest = self.distances(nodes)
        return (self._norm(farthest) <= self.sigma).sum(-1) >= self.needed

    def contract(self, box):
        """The same boxes without what is impossible, less those of which nothing is left."""
        nodes, slacks = self.features(box, agreeing=True)
        away, _ = self.distances(nodes)
        slack = np.stack(np.broadcast_arrays(*slacks), -1)
        allowed = (self._norm(np.maximum(away - slack, 0.0)) <= self.sigma) & np.all(
            np.stack([np.broadcast_to(n.low <= n.high, away.shape[:2]) for n in nodes]), axis=0
        )
        solved: dict[int, _Interval] = {}
        for j in reversed(range(len(nodes))):
            causes = self.causes[j]
            terms = {e: self._term(box, e).times(nodes[p]) for e, p in causes}
            for e, p in causes:
                others = [term for other, term in terms.items() if other != e]
                rest = _Interval(
                    self.base[:, j] + sum(term.low for term in others),
                    self.base[:, j] + sum(term.high for term in others),
                )
                due = _Interval(nodes[j].low - rest.high, nodes[j].high - rest.low)
                due = due.widened(slacks[j])
                coefficient = self._term(box, e)
                solved[e] = due.over(nodes[p]).within(coefficient)
                nodes[p] = nodes[p].within(due.over(coefficient).widened(slacks[p]))
        low, high = box.low.copy(), box.high.copy()
        for e, interval in solved.items():
            kept = allowed & (interval.low <= interval.high)
            allowed = kept
            first = self._first(interval.low, interval.high, kept)
            last = -self._first(-interval.high, -interval.low, kept)
            low[:, e], high[:, e] = np.maximum(low[:, e], first), np.minimum(high[:, e], last)
        left = (allowed.sum(-1) >= self.needed) & (low <= high).all(-1)
        return _Interval(low[left], high[left])

    def contracted(self, box):
        """`contract`, until it gains little."""
        for _ in range(4 * len(self.causes)):
            before, box = box, self.contract(box)
            if not len(box.low) or (box.high - box.low >= 0.9 * (before.high - before.low)).all():
                break
        return box

    def _first(self, starts, ends, kept):
        """The first place that lies in enough of the intervals; infinite where none does."""
        starts = np.where(kept, starts, np.inf)
        ends = np.where(kept, ends, np.inf)
        starts, ends = np.broadcast_arrays(starts, ends)
        places = np.concatenate([starts, ends], -1)
        order = np.argsort(places, axis=-1, kind="stable")  # at one place, starts before ends
        places = np.take_along_axis(places, order, -1)
        steps = np.where(order < starts.shape[-1], 1, -1)
        enough = np.cumsum(steps, -1) >= self.needed
        found = np.take_along_axis(places, enough.argmax(-1)[:, None], -1)[:, 0]
        return np.where(enough.any(-1), found, np.inf)

    def halved(self, box):
        """Each box in two, along the coefficient that moves the reported features most."""
        nodes, _ = self.features(box, agreeing=True)
        effects: list[np.ndarray] = [self.reported[None, :, j] * 1.0 for j in range(len(nodes))]
        width = box.high - box.low
        moved = np.zeros(width.shape)
        for j in reversed(range(len(nodes))):
            for e, p in self.causes[j]:
                moved[:, e] = width[:, e] * (effects[j] * nodes[p].size).max(-1)
                effects[p] = np.maximum(effects[p], self._term(box, e).size * effects[j])
        # With nothing moved by more than another, the widest.
        axis = np.where(moved.max(-1) > 0, moved.argmax(-1), width.argmax(-1))
        rows = np.arange(len(axis))
        middle = (box.low[rows, axis] + box.high[rows, axis]) / 2
        low, high = box.low.copy(), box.high.copy()
        low[rows, axis] = high[rows, axis] = middle
        return _Interval(np.concatenate([box.low, low]), np.concatenate([high, box.high]))


def cover(
    rng: np.random.Generator,
    surrogate: Surrogate,
    history: History,
    sigma: float,
    needed: int,
    norm: str,
) -> Cover:
    """Boxes that hold every theta with which at least ``needed`` answers agree.

    Parameters
    ----------
    rng : numpy.random.Generator
        For probing how much of the boxes is possible, which ends the search.
    surrogate : Surrogate
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    sigma : float
    needed : int
        At least 1.
    norm : {"each", "joint"}
        See `tolerance`.
    """
    k = len(surrogate.names)
    problem = _Problem(surrogate, history, sigma, needed, norm == "joint")
    box = _Interval(*np.asarray(surrogate.prior.box, float)[:, None])
    if needed < 1:
        return Cover(*box)
    box = problem.contracted(box)
    inner = problem.inner(box)
    looked_at = 0
    num_queries, num_nodes = problem.answer.shape
    num_halved = max(16, min(_HALVED, _NUMBERS // (num_queries * k)))
    num_probes = max(256, min(_PROBES, _NUMBERS // (num_queries * num_nodes)))
    for _ in range(max(8, _MAX_STEPS // k)):
        if inner.all() or looked_at > _MAX_BOXES:
            break
        points = Cover(*box).draws(rng, num_probes)
        if problem.inner(_Interval(points, points)).mean() > _GOOD:
            break
        volumes = np.where(inner, -np.inf, _log_volumes(*box))
        order = np.argsort(-volumes, kind="stable")[: min(num_halved, (~inner).sum())]
        rest = np.ones(len(inner), bool)
        rest[order] = False
        halves = problem.halved(_Interval(*(end[order] for end in box)))
        halves = problem.contract(problem.contract(halves))
        looked_at += 2 * len(order)
        inner = np.concatenate([inner[rest], problem.inner(halves)])
        box = _Interval(*(np.concatenate([a[rest], b]) for a, b in zip(box, halves, strict=True)))
    return Cover(*box)


class Sought(NamedTuple):
    """What a cover found for one user.

    Attributes
    ----------
    draws : array
        Shape (at most num_wanted, num_coefficients): distinct independent draws from what is
        possible.
    box : array or None
        Shape (2, num_coefficients): outside of it there is no posterior, or next to none. None if
        there is no such box.
    is_empty : bool
        Whether it is proved that nothing is possible.
    acceptance : float
        The share of the prior that is possible, as the draws made tell.
    best_agreement : float
        The largest share of answers with which a draw agreed.
    """

    draws: np.ndarray
    box: np.ndarray | None
    is_empty: bool
    acceptance: float
    best_agreement: float


def seek(
    key: Array,
    surrogate: Surrogate,
    likelihood: HardSupport,
    history: History,
    num_wanted: int,
    max_draws: int,
) -> Sought:
    """Draw uniformly from a cover of one user's possible coefficients.

    Parameters
    ----------
    key : Array
    surrogate : Surrogate
    likelihood : HardSupport
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    num_wanted : int
    max_draws : int
        After so many, rounded up to whole blocks of 4,096, it ends.
    """
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), np.uint32)))
    answered = int((~np.isnan(np.asarray(history.answer))).any(-1).sum())
    sigma, needed = float(likelihood.sigma), int(likelihood.needed(jnp.asarray(answered)))
    found = cover(rng, surrogate, history, sigma, needed, likelihood.norm)
    dtype = jnp.result_type(float)
    draws = np.zeros((0, len(surrogate.names)), dtype)
    if not len(found.low):
        return Sought(draws, None, True, 0.0, 0.0)

    num_drawn = num_possible = 0
    best = 0.0
    while num_drawn < max_draws and len(draws) < num_wanted:
        thetas = found.draws(rng, BLOCK).astype(dtype)
        possible, share = map(np.asarray, evaluate(surrogate, likelihood, history, thetas))
        num_drawn, num_possible = num_drawn + BLOCK, num_possible + int(possible.sum())
        best = max(best, float(share.max()))
        draws = np.concatenate([draws, thetas[possible]])
        draws = draws[np.sort(np.unique(draws, axis=0, return_index=True)[1])]
        if num_possible > _REPEATED * num_wanted:
            break  # numbers of that precision lie too far apart
    whole = np.asarray(surrogate.prior.box)
    log_cover = found.log_volume() - float(_log_volumes(*whole.astype(float)))
    box = None
    if num_possible:
        log_share = log_cover + math.log(num_possible / num_drawn)
        reach = likelihood.reach(answered, log_share)
        if reach == (sigma, needed):
            box = found.hull
        elif reach is not None:
            box = cover(rng, surrogate, history, *reach, likelihood.norm).hull
    elif not likelihood.differentiable:
        box = found.hull
    if box is not None:  # outwards, in JAX's numbers
        outwards = np.array([[-np.inf], [np.inf]], dtype)
        box = np.nextafter(box.astype(dtype), outwards)
        box = np.clip(box, *whole)
    acceptance = math.exp(log_cover) * num_possible / num_drawn
    return Sought(draws[:num_wanted], box, False, acceptance, best)
