"""Points to start sampling from: earlier draws, searches of the prior, tempered runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.batching import chunks_of, over_devices, take, width
from pcr_jax.inference.chunks import CHUNK, on_all_devices, run_chunk
from pcr_jax.inference.cover import seek
from pcr_jax.inference.samplers import Samples, Smc
from pcr_jax.inference.search import can_search, evaluate, rotations, search_priors, users_cells
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import has_hard_support
from pcr_jax.surrogates import for_users

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
        k_search, k_temper = (jax.vmap(partial(jax.random.fold_in, data=i))(keys) for i in (0, 1))
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
