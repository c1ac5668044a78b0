"""Points to start sampling from: earlier draws, searches of the prior, tempered runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.batching import chunks_of, fold_in_each, over_devices, take, width
from pcr_jax.inference.chunks import CHUNK, at_once, on_all_devices, run_chunk
from pcr_jax.inference.cover import seek
from pcr_jax.inference.samplers import Samples, Smc
from pcr_jax.inference.samplers.filter import systematic
from pcr_jax.inference.search import can_search, evaluate, rotations, search_priors, users_cells
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import has_hard_support
from pcr_jax.surrogates import for_users, in_scale

# Earlier draws are weighted by so many new answers at most, and go on if they are worth such a
# share of independent ones, and no new answer is so probably wrong: it may be right where earlier
# ones are wrong, of which there may be no draw.
_NEW = 4
_LEAST_SHARE = 0.25
_MOST_WRONG = 0.2
# Users searched at once by each device, for each unit of `width`, who share random numbers.
_SEARCHED = 16
# Every user is given so many prior draws, and whom they do not serve as many as are allowed: those
# are few, take long, and would keep others waiting.
_FIRST_DRAWS = 2**13
_START_PARTICLES = 512


@partial(jax.jit, static_argnums=5)
def _search_chunk(key, likelihood, users, cells, rotation, num_wanted, max_draws):
    """`search_priors` of several ``users``: surrogates and histories."""

    def search(shared, users, cells, rotation):
        key, likelihood, max_draws = shared
        surrogates, histories = users
        return search_priors(
            key, surrogates, likelihood, histories, cells, rotation, num_wanted, max_draws
        )

    return over_devices(search, (key, likelihood, max_draws), users, cells, rotation)


@jax.jit
def _judge_chunk(likelihood, users, zs):
    """Log densities of several users' points (user, n, dim), and whether they are a start.

    With hard support a start is possible, and the share of answers that agree is told as well.
    """

    def one(user, zs):
        surrogate, history, box = user
        target = Target(surrogate, likelihood, history, box)
        good = jnp.isfinite(jax.vmap(target.log_density)(zs))
        if not has_hard_support(likelihood):
            return good, jnp.nan
        possible, share = evaluate(surrogate, likelihood, history, jax.vmap(target.split)(zs)[0])
        return good & possible, jnp.max(share, initial=0.0, where=good)

    return jax.vmap(one)(users, zs)


@partial(jax.jit, static_argnums=3)
def _prior_chunk(likelihood, users, keys, num):
    """Independent prior draws of several users; (user, num, dim)."""

    def one(user, key):
        surrogate, history, box = user
        target = Target(surrogate, likelihood, history, box)
        return target.from_unit(jax.random.uniform(key, (num, target.dim)))

    return jax.vmap(one)(users, keys)


@partial(jax.jit, static_argnums=(5, 6))
def _weighed_chunk(likelihood, users, news, zs, keys, chains, walkers):
    """Several users' draws zs (user, n, dim) after new answers, a sequential Monte Carlo step.

    ``news`` are histories of those alone. Walkers (user, chains * walkers, dim), each chain's from
    its own part of the draws; what share of the draws is left in weight; and how probably the most
    doubtful answer is wrong.
    """

    def one(user, new, zs, key):
        surrogate, history, box = user
        target = Target(surrogate, likelihood, replace(history, **new), box)

        def told(z):
            _, unknowns = target.split(z)
            of_answers = unknowns, target.expected(z), target.history.answer
            return target.own.log_prob(*of_answers), target.own.wrong_probability(*of_answers)

        log_weights, wrong = jax.vmap(told)(zs)
        weights = jax.nn.softmax(log_weights)
        by_chain = log_weights.reshape(chains, -1)
        kept = jax.vmap(systematic, (0, 0, None))(jax.random.split(key, chains), by_chain, walkers)
        kept += by_chain.shape[1] * jnp.arange(chains)[:, None]
        return zs[kept.ravel()], 1 / jnp.sum(weights**2) / len(zs), (weights @ wrong).max()

    return jax.vmap(one)(users, news, zs, keys)


def _same(one, other) -> bool:
    """Whether two pytrees are equal."""
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    if structure != other_structure:  # type: ignore[operator]
        return False
    return all(map(np.array_equal, leaves, others))


def _rows(history) -> np.ndarray:
    """All that is asked and told, one row for each answer; (user, T, numbers)."""
    answer, half_width = np.asarray(history.answer), history.half_width
    questions = [np.asarray(leaf)[..., None] for leaf in jax.tree.leaves(history.questions)]
    width = np.zeros_like(answer) if half_width is None else np.asarray(half_width)
    return np.concatenate([answer, *questions, width], -1)


def new_answers(before, now) -> tuple[np.ndarray, np.ndarray]:
    """Which answers a later history has more: rows (user, _NEW), T for none; and whose are no more.

    Nothing else may differ; (user,).
    """
    num_users, num, d = np.shape(now.answer)
    known, rows = _rows(before), _rows(now)
    if known.shape[1] > num:
        return np.full((num_users, _NEW), num), np.zeros(num_users, bool)
    nobody = np.full((num_users, num - known.shape[1], known.shape[2]), np.nan)
    known = np.concatenate([known, nobody], 1)
    was, is_now = (~np.isnan(of[..., :d]).all(-1) for of in (known, rows))
    equal = ((known == rows) | (np.isnan(known) & np.isnan(rows))).all(-1)
    new = is_now & ~was
    order = np.argsort(~new, axis=1, kind="stable")[:, :_NEW]
    order = np.where(np.take_along_axis(new, order, 1), order, num)
    padded = np.full((num_users, _NEW), num)
    padded[:, : order.shape[1]] = order
    alike = (np.asarray(before.x) == np.asarray(now.x)).all(-1)
    return padded, alike & (equal | ~was).all(1) & (new.sum(1) <= _NEW)


def _told(history, rows) -> dict:
    """Questions, answers and their half widths of users' ``rows``; T: nothing was said."""
    num = history.answer.shape[1]
    there, rows = rows < num, np.minimum(rows, num - 1)

    def of(leaf):
        leaf = np.asarray(leaf)
        return np.take_along_axis(leaf, rows.reshape(*rows.shape, *[1] * (leaf.ndim - 2)), 1)

    told = {"questions": jax.tree.map(of, history.questions), "half_width": history.half_width}
    if history.half_width is not None:
        told["half_width"] = of(history.half_width)
    return told | {"answer": np.where(there[..., None], of(history.answer), np.nan)}


def _spread(points: np.ndarray, wanted: int) -> np.ndarray:
    """At most so many distinct points of some (n, dim), evenly taken."""
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    return points[first[np.linspace(0, len(first) - 1, min(wanted, len(first))).astype(int)]]


class _Starts(NamedTuple):
    """Starting points of some users, filled in step by step.

    ``points`` (user, wanted, dim), of which the first ``num`` (user,) are there;
    ``excluded`` (user,): nothing is possible.
    """

    points: np.ndarray
    num: np.ndarray
    excluded: np.ndarray


class Starting:
    """All users' models, and what the searches for points to start from found; host memory only.

    ``users`` are indices of some users, ``keys`` theirs.

    Attributes
    ----------
    status, best_agreement, prior_acceptance : array
        Shape (num_users,): as of `Posteriors`, as far as it is known.
    """

    def __init__(self, surrogate, history, likelihood, sampler, max_prior_draws, earlier):
        self.likelihood, self.history, self.earlier = likelihood, history, earlier
        self.sampler, self.max_prior_draws = sampler, max_prior_draws
        n = history.num_users
        self.surrogate, self.surrogates = surrogate, for_users(surrogate, n)
        self.dim = len(surrogate.names) + len(likelihood.names)
        self.dtype = jnp.result_type(float)
        self.boxes = None
        if surrogate.prior.box is not None:
            self.boxes = np.array(self.surrogates.prior.box)
        self.searches = can_search(surrogate, likelihood)
        self.status = np.full(n, PosteriorStatus.ok)
        unknown = 0.0 if self.searches else np.nan
        self.prior_acceptance, self.best_agreement = np.full(n, unknown), np.full(n, unknown)

    def of(self, users) -> tuple:
        """The surrogates, histories and boxes of some users, or of one."""
        return take((self.surrogates, self.history, self.boxes), users)

    def starts(self, key, keys, users) -> tuple[np.ndarray, np.ndarray]:
        """Which of the users can be sampled, and their starting points; settles the others."""
        k_search, k_temper = (fold_in_each(keys, i) for i in (0, 1))
        wanted = self.sampler.num_starts
        shape = (len(users), max(wanted, 1), self.dim)
        none = np.zeros(shape, self.dtype), np.zeros(len(users), int), np.zeros(len(users), bool)
        found, left = _Starts(*none), np.arange(len(users))
        if self.earlier is not None and wanted:
            left = self.reuse(users, found)
        if self.searches:
            part = take(found, left)
            self.search(key, take(k_search, left), users[left], part)
            for whole, own in zip(found, part, strict=True):
                whole[left] = own
        elif wanted and not self.sampler.needs_gradient:
            self.draw_priors(take(k_search, left), users, left, found)
        self.status[users[found.excluded]] = PosteriorStatus.empty
        hopeless = found.excluded | (self.status[users] == PosteriorStatus.no_start)
        short = np.flatnonzero((found.num < wanted) & ~hopeless)
        for i, points in self.tempered_starts(take(k_temper, short), users[short]):
            found.num[short[i]] = len(points)
            found.points[short[i], : len(points)] = points
        lacking = (found.num < wanted) & ~hopeless
        self.status[users[lacking]] = PosteriorStatus.no_start
        ready = ~hopeless & ~lacking
        return np.flatnonzero(ready), found.points[ready, :wanted]

    def reuse(self, users, found: _Starts) -> np.ndarray:
        """Earlier draws that are possible still; the places of users whom they do not serve."""
        wanted = found.points.shape[1]
        zs = self.earlier.flat[users]
        has_some = np.flatnonzero(np.isfinite(zs).all((1, 2)))
        for some, padded in chunks_of(has_some, CHUNK * width()):
            judged = _judge_chunk(self.likelihood, self.of(users[padded]), zs[padded])
            good, best = take(jax.device_get(judged), slice(len(some)))
            for i, mine, share in zip(some, good, best, strict=True):
                points = _spread(zs[i][mine], wanted)
                if len(points) == wanted:
                    found.points[i], found.num[i] = points, wanted
                    self.best_agreement[users[i]] = share
                    self.prior_acceptance[users[i]] = np.nan
        return np.flatnonzero(found.num < wanted)

    def draw_priors(self, keys, users, places, found: _Starts) -> None:
        """Prior draws of positive density for the users at some ``places``."""
        wanted = found.points.shape[1]
        for some, padded in chunks_of(np.arange(len(places)), on_all_devices(CHUNK)):
            chunk = self.of(users[places[padded]])
            zs = _prior_chunk(self.likelihood, chunk, take(keys, padded), wanted)
            good, _ = _judge_chunk(self.likelihood, chunk, zs)
            for i, mine, points in zip(
                places[some], np.asarray(good), np.asarray(zs), strict=False
            ):
                found.num[i] = mine.sum()
                found.points[i, : found.num[i]] = points[mine]

    def resumed(self, keys, users) -> tuple[np.ndarray, np.ndarray]:
        """Whose earlier draws, weighted by what was answered since, are walkers; and those.

        For samplers that need none, but can go on from some, ``sampler.resumes``.
        """
        chains, walkers = self.sampler.resumes
        nobody = np.zeros(0, int), np.zeros((0, chains * walkers, self.dim), self.dtype)
        if self.earlier is None or self.earlier.draws.shape[1] != chains:
            return nobody
        before = in_scale(self.earlier.surrogate, self.earlier.history)
        model = (self.surrogate, self.likelihood), (before[0], self.earlier.likelihood)
        if not _same(*model) or not hasattr(self.likelihood, "wrong_probability"):
            return nobody
        rows, serves = new_answers(before[1], self.history)
        zs = self.earlier.flat
        serves &= np.isfinite(zs).all((1, 2))
        new = _told(self.history, rows)
        places, points = [], []
        able = np.flatnonzero(serves[users])
        for some, padded in chunks_of(able, on_all_devices(at_once(self.sampler))):
            chunk = users[padded]
            found = _weighed_chunk(
                self.likelihood,
                self.of(chunk),
                take(new, chunk),
                zs[chunk],
                keys[padded],
                chains,
                walkers,
            )
            walk, share, wrong = take(jax.device_get(found), slice(len(some)))
            good = (share >= _LEAST_SHARE) & (wrong <= _MOST_WRONG)
            places.append(some[good])
            points.append(walk[good])
        return (np.concatenate(places), np.concatenate(points)) if places else nobody

    def search(self, key, keys, users, found: _Starts) -> None:
        """Possible draws of each user, or the proof that there are none."""
        if not len(users):
            return
        cells = self.search_cells(users, found)
        for i in self.search_priors(key, keys, users, cells, found):
            self.search_cover(keys[i], users[i], i, found)

    def search_cells(self, users, found: _Starts) -> np.ndarray:
        """Each user's possible cells; who has none is excluded."""
        cells = []
        for some, padded in chunks_of(users, CHUNK * width()):
            surrogates, histories, _ = self.of(padded)
            chunk = users_cells(surrogates, self.likelihood, histories)
            cells.append(take(jax.device_get(chunk), slice(len(some))))
        in_reach, best = map(np.concatenate, zip(*cells, strict=True))
        self.best_agreement[users] = best
        found.excluded[:] = ~in_reach.any(1)
        return in_reach

    def search_priors(self, key, keys, users, in_reach, found: _Starts) -> np.ndarray:
        """Possible prior draws of each user; the places of those whom they do not serve."""
        wanted = found.points.shape[1]
        rotation = rotations(keys, len(self.surrogate.names) + 1)
        cells = in_reach, self.best_agreement[users]
        pending = np.flatnonzero(~found.excluded)
        for limit in (min(_FIRST_DRAWS, self.max_prior_draws), self.max_prior_draws):
            for some, padded in chunks_of(pending, on_all_devices(_SEARCHED)):
                of_users = (self.of(users[padded])[:2], *take((cells, rotation), padded))
                search = _search_chunk(key, self.likelihood, *of_users, wanted, limit)
                prior = take(jax.device_get(search), slice(len(some)))
                found.points[some], found.num[some] = prior.draws, prior.num_found
                self.prior_acceptance[users[some]] = prior.acceptance
                self.best_agreement[users[some]] = prior.best_agreement
            pending = pending[found.num[pending] < wanted]
        return pending

    def search_cover(self, key, user, i, found: _Starts) -> None:
        """Draws of one user, ``found``'s i-th, from a cover of what is possible."""
        surrogate, row, _ = self.of(user)
        wanted, key = found.points.shape[1], jax.random.fold_in(key, 0)
        sought = seek(key, surrogate, self.likelihood, row, wanted, self.max_prior_draws)
        num = len(sought.draws)
        self.best_agreement[user] = max(self.best_agreement[user], sought.best_agreement)
        if sought.is_empty:
            found.excluded[i] = found.num[i] == 0
        elif sought.box is None:
            self.status[user] = PosteriorStatus.no_start
        else:
            self.boxes[user] = sought.box
            if num > found.num[i]:
                found.points[i, :num], found.num[i] = sought.draws, num
                self.prior_acceptance[user] = sought.acceptance

    def run_chunk(self, sampler, users, keys, starts) -> Samples:
        """`chunks.run_chunk` of users; ``starts`` (user, num_starts, dim)."""
        return run_chunk(sampler, self.likelihood, self.of(users), keys, starts)

    def tempered_starts(self, keys, users) -> Iterator[tuple[int, np.ndarray]]:
        """For each user, distinct points of positive density at the end of a tempered run."""
        wanted = self.sampler.num_starts
        smc = Smc(num_runs=1, num_particles=max(_START_PARTICLES, 2 * wanted))
        chunk = on_all_devices(CHUNK)
        nothing = jnp.zeros((chunk, 0, self.dim))
        for some, padded in chunks_of(np.arange(len(users)), chunk):
            run = self.run_chunk(smc, users[padded], take(keys, padded), nothing)
            draws, log_density = np.asarray(run.draws), np.asarray(run.log_density)
            for i in range(len(some)):
                particles = draws[i, 0, :, 0][np.isfinite(log_density[i, 0, :, 0])]
                yield some[i], _spread(particles, wanted)
