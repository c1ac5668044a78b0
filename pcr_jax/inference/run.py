"""Inference of all users: starting points, sampling, and what comes of them.

Users are searched and sampled in chunks; what is found is kept in the host's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import chunks_of, over_devices, take, user_keys, width
from pcr_jax.history import History, check_history
from pcr_jax.inference.cover import seek
from pcr_jax.inference.mixing import MAX_RHAT, rank_rhat
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.samplers import SAMPLERS, Gibbs, Sampler, Samples, Smc
from pcr_jax.inference.search import can_search, evaluate, rotations, search_priors, users_cells
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood, check_likelihood, has_hard_support
from pcr_jax.surrogates import Surrogate, check_surrogate, check_users, for_users, in_scale

# Users sampled at once, and users searched, by each device, for each unit of `width`. More share
# the random numbers of a search and keep the cores busy; but all wait for the slowest, and padding
# costs as much as users do.
_CHUNK = 32
_SEARCHED = 16
# Users whose starting points are held in memory, at least.
_GROUP = 4096
# Every user is given so many prior draws, and whom they do not serve as many as are allowed: those
# are few, take long, and would keep others waiting.
_FIRST_DRAWS = 2**13
_START_PARTICLES = 512
_NUM_PRIOR = 1000


def _on_all_devices(num_users: int) -> int:
    """How many users all devices compute at once, if that is so many for each unit of `width`."""
    return num_users * width() * jax.device_count()


def at_once(sampler: Sampler) -> int:
    """How many users a device samples at once, for each unit of `width`."""
    return getattr(sampler, "users_at_once", _CHUNK)


@partial(jax.jit, static_argnums=0)
def _run_chunk(sampler, likelihood, users, keys, starts) -> Samples:
    """The sampler on several ``users``: surrogates, histories and boxes; leaves users first."""

    def run(likelihood, *users):
        def one(user, key, starts):
            surrogate, history, box = user
            return sampler.run(key, Target(surrogate, likelihood, history, box), starts)

        if at_once(sampler) == 1 and width() == 1:
            return jax.lax.map(lambda user: one(*user), users)
        return jax.vmap(one)(*users)

    return over_devices(run, likelihood, users, keys, starts)


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


def _max_rhat(draws: np.ndarray) -> np.ndarray:
    """The largest R-hat of users' draws (user, chain, step, walker, dim); (user,)."""
    users, chains, *_, k = draws.shape
    return rank_rhat(np.moveaxis(draws.reshape(users, chains, -1, k), 3, 1)).max(1)


class _Starts(NamedTuple):
    """Starting points of some users, filled in step by step.

    ``points`` (user, wanted, dim), of which the first ``num`` (user,) are there;
    ``excluded`` (user,): nothing is possible.
    """

    points: np.ndarray
    num: np.ndarray
    excluded: np.ndarray


class _Inference:
    """Searches and samples all users, and gathers what comes of it; host memory only.

    ``users`` are indices of some users, ``keys`` theirs.
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
        self.arrays: dict[str, np.ndarray] = {}
        self.figures: dict[str, np.ndarray] = {}
        self.status = np.full(n, PosteriorStatus.ok)
        self.silent = np.isnan(np.asarray(history.answer)).all((1, 2))
        self.num_evaluations = np.zeros(n, int)
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
        for some, padded in chunks_of(has_some, _CHUNK * width()):
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
        for some, padded in chunks_of(np.arange(len(places)), _on_all_devices(_CHUNK)):
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
        for some, padded in chunks_of(users, _CHUNK * width()):
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
            for some, padded in chunks_of(pending, _on_all_devices(_SEARCHED)):
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
        """`_run_chunk` of users; ``starts`` (user, num_starts, dim)."""
        return _run_chunk(sampler, self.likelihood, self.of(users), keys, starts)

    def tempered_starts(self, keys, users) -> Iterator[tuple[int, np.ndarray]]:
        """For each user, distinct points of positive density at the end of a tempered run."""
        wanted = self.sampler.num_starts
        smc = Smc(num_runs=1, num_particles=max(_START_PARTICLES, 2 * wanted))
        chunk = _on_all_devices(_CHUNK)
        nothing = jnp.zeros((chunk, 0, self.dim))
        for some, padded in chunks_of(np.arange(len(users)), chunk):
            run = self.run_chunk(smc, users[padded], take(keys, padded), nothing)
            draws, log_density = np.asarray(run.draws), np.asarray(run.log_density)
            for i in range(len(some)):
                particles = draws[i, 0, :, 0][np.isfinite(log_density[i, 0, :, 0])]
                yield some[i], _spread(particles, wanted)

    def sample(self, keys, users, starts) -> Iterator[np.ndarray]:
        """Sample the users, yielding those that are done."""
        sample = self.sample_one_by_one if self.sampler.host_only else self.sample_chunks
        return sample(keys, users, starts)

    def sample_one_by_one(self, keys, users, starts) -> Iterator[np.ndarray]:
        """`sample` with a sampler that runs in Python."""
        for user, key, start in zip(users, keys, starts, strict=True):
            surrogate, row, box = self.of(user)
            run = self.sampler.run(key, Target(surrogate, self.likelihood, row, box), start)
            one = np.array([user])
            if run is None:
                self.status[one] = PosteriorStatus.failed
            else:
                self.keep(one, take(jax.tree.map(np.asarray, run), None))
            yield one

    def sample_chunks(self, keys, users, starts) -> Iterator[np.ndarray]:
        """`sample` with a sampler that is a JAX function."""
        running: list[tuple] = []
        for some, padded in chunks_of(
            np.arange(len(users)), _on_all_devices(at_once(self.sampler))
        ):
            # Dispatched before the last chunk is stored, so that the device does not wait.
            run = self.run_chunk(self.sampler, users[padded], take(keys, padded), starts[padded])
            running.append((users[some], run))
            if len(running) > 1:
                yield self.keep(*running.pop(0))
        for ended in running:
            yield self.keep(*ended)

    def keep(self, users, run: Samples) -> np.ndarray:
        """Settle the users and store the draws of those who have some; the users."""
        run = take(jax.device_get(run), slice(len(users)))
        good = np.isfinite(run.log_density).all((1, 2, 3))
        self.settle(users, run, good)
        self.store(users, run, good)
        return users

    def settle(self, users, run: Samples, good) -> None:
        """How inference ended for users, of whom the ``good`` (user,) have draws."""
        if run.draws.shape[1] > 1:
            disagree = good & ~(_max_rhat(run.draws) <= MAX_RHAT)
            self.status[users[disagree]] = PosteriorStatus.poorly_mixed
        silent = self.silent[users] & (self.status[users] == PosteriorStatus.ok)
        self.status[users[silent]] = PosteriorStatus.prior_only
        unfound = self.prior_acceptance[users] == 0
        for i in np.flatnonzero(good & unfound):
            last = run.draws[i, :, -1].reshape(-1, run.draws.shape[-1])
            surrogate, row, _ = self.of(users[i])
            _, share = evaluate(surrogate, self.likelihood, row, last)
            best = max(self.best_agreement[users[i]], float(share.max()))
            self.best_agreement[users[i]] = best
        ended = np.where(unfound, PosteriorStatus.no_start, PosteriorStatus.failed)
        self.status[users[~good]] = ended[~good]

    def store(self, users, run: Samples, good) -> None:
        """What the sampler says of users, walkers folded into draws."""
        self.num_evaluations[users] = run.num_evaluations
        by_draw = {"z": run.draws, "lp": run.log_density, "warmup": run.warmup}
        for name, values in {**by_draw, **run.statistics}.items():
            _, chains, steps, walkers, *rest = values.shape
            folded = values.reshape(len(users), chains, steps * walkers, *rest)
            if name not in self.arrays:
                shape = (self.history.num_users, *folded.shape[1:])
                self.arrays[name] = np.full(shape, np.nan, self.dtype)
            self.arrays[name][users[good]] = folded[good]
        for name, values in run.figures.items():
            if name not in self.figures:
                self.figures[name] = np.full(self.history.num_users, np.nan)
            self.figures[name][users[good]] = values[good]

    def posteriors(self, surrogate, history, prior, info) -> Posteriors:
        """What was gathered, with the model in natural units.

        Where nobody has a posterior, one draw of NaN says so.
        """
        n, k = self.history.num_users, len(self.surrogate.names)
        arrays = dict(self.arrays)
        z = arrays.pop("z", np.full((n, 1, 1, self.dim), np.nan, self.dtype))
        return Posteriors(
            draws=z[..., :k],
            unknowns=z[..., k:],
            log_density=arrays.pop("lp", np.full((n, 1, 1), np.nan, self.dtype)),
            warmup=arrays.pop("warmup", np.zeros((n, 1, 0, k), self.dtype))[..., :k],
            statistics=arrays,
            status=self.status,
            best_agreement=self.best_agreement,
            prior_acceptance=self.prior_acceptance,
            num_evaluations=self.num_evaluations,
            figures=self.figures,
            prior=prior,
            surrogate=surrogate,
            likelihood=self.likelihood,
            history=history,
            info=info,
        )


def sample_posteriors(
    key: Array,
    surrogate: Surrogate,
    history: History,
    likelihood: Likelihood,
    sampler: Sampler,
    max_prior_draws: int,
    on_user: Callable[[], None] | None,
    earlier: Posteriors | None,
) -> Posteriors:
    """`infer`, its arguments checked."""
    began = time.perf_counter()
    k_users, k_search, k_prior = jax.random.split(key, 3)
    num_users = history.num_users
    keys = user_keys(k_users, num_users)
    inside = in_scale(surrogate, history)
    run = _Inference(*inside, likelihood, sampler, max_prior_draws, earlier)
    if sampler.needs_exact_starts and (earlier is not None or not run.searches):
        run.sampler = sampler = sampler.warming_up()  # type: ignore[attr-defined]

    def report(num_done):
        for _ in range(num_done if on_user is not None else 0):
            on_user()

    for group, _ in chunks_of(np.arange(num_users), max(_GROUP, _on_all_devices(_CHUNK))):
        ready, starts = run.starts(k_search, keys[group], group)
        report(len(group) - len(ready))
        k_run = jax.vmap(partial(jax.random.fold_in, data=2))(keys[group[ready]])
        for done in run.sample(k_run, group[ready], starts):
            report(len(done))

    prior = None
    if not surrogate.prior.batch_shape:
        unit = jax.random.uniform(k_prior, (_NUM_PRIOR, len(surrogate.names)))
        prior = np.asarray(surrogate.prior.from_unit(unit))
    info = {
        "sampler": sampler.name,
        "sampler_settings": repr(sampler),
        "num_walkers": sampler.num_walkers,
        "likelihood": repr(likelihood),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "max_prior_draws": max_prior_draws,
        "seconds": time.perf_counter() - began,
    }
    return run.posteriors(surrogate, history, prior, info)


def _checked_sampler(sampler, surrogate, likelihood) -> Sampler:
    """The sampler that is named or given, unless it does not suit the model."""
    if sampler is None:
        sampler = "ess" if Gibbs().unsuited(surrogate, likelihood) else "gibbs"
    if isinstance(sampler, str):
        _checks.choice(sampler, SAMPLERS, "sampler")
        sampler = SAMPLERS[sampler]()
    if isinstance(sampler, type) or not hasattr(sampler, "run"):
        raise TypeError(
            f"Expected sampler to be a name of {list(SAMPLERS)} or a sampler such as Ess(); "
            f"got {sampler!r}."
        )
    sampler.check(surrogate, likelihood)
    return sampler


def _check_earlier(starts, surrogate, likelihood, history) -> None:
    """Raise unless ``starts`` are posteriors of the same users and unknowns."""
    if starts is None:
        return
    _checks.instance(starts, Posteriors, "starts", " See infer.")
    before = (starts.history.num_users, *starts.surrogate.names, *starts.likelihood.names)
    now = (history.num_users, *surrogate.names, *likelihood.names)
    if before != now:
        raise ValueError(
            f"Expected starts of {now[0]} users with the unknowns {list(now[1:])}; got {before[0]} "
            f"users with {list(before[1:])}."
        )


@nan_is_a_value
def infer(
    key: Array,
    surrogate: Surrogate,
    history: History,
    likelihood: Likelihood,
    *,
    sampler: str | Sampler | None = None,
    starts: Posteriors | None = None,
    max_prior_draws: int = 2**20,
    on_user: Callable[[], None] | None = None,
) -> Posteriors:
    """Every user's posterior over the surrogate's numbers (section 4 of the paper).

    Where the likelihood has hard support, the surrogate is affine in each number and its prior a
    box, possible points to start from are searched for, which are draws from the posterior, or are
    proved not to exist. Elsewhere samplers start from draws of the prior, those that follow a
    gradient, which far from the posterior leads nowhere, from the end of a tempered run.

    Parameters
    ----------
    key : Array
    surrogate : Surrogate
        Such as from `linear_surrogate`. Its prior is one for all users, or one for each, see
        `Surrogate`.
    history : History
        Of num_users users.
    likelihood : Likelihood
        Such as from `mixture` or `tolerance`; ``"nuts"`` needs one with a gradient.
    sampler : str or Sampler, optional
        ``"gibbs"``, ``"ess"``, ``"smc"``, ``"nuts"``, ``"zeus"`` (the paper's), or an object with
        settings of your own (`Gibbs`, `Ess`, `Smc`, `Nuts`, `Zeus`). By default ``"gibbs"`` where
        it suits the model, such as for `mixture`, and ``"ess"`` elsewhere.
    starts : Posteriors, optional
        Earlier posteriors of the same users, as before their last answers. Draws that are possible
        still are the starting points, and nothing is searched for users for whom they suffice.
    max_prior_draws : int
        How many prior draws may be searched for starting points, per user; whom they do not serve
        is given as many from boxes that cover what is possible.
    on_user : callable, optional
        Called once for each user who is done, for progress bars.

    Returns
    -------
    Posteriors

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``history`` is at odds with the graph (see `check_history`), the sampler is unknown or
        unsuited, it needs a gradient that ``likelihood`` lacks, or ``starts`` are of other users or
        unknowns.
    ImportError
        If the sampler's package is not installed.
    """
    _checks.key(key)
    check_likelihood(likelihood)
    check_surrogate(surrogate)
    history = check_history(history, surrogate.graph)
    check_users(surrogate, history.num_users)
    if on_user is not None and not callable(on_user):
        raise TypeError(f"Expected on_user to be callable or None; got {on_user!r}.")
    sampler = _checked_sampler(sampler, surrogate, likelihood)
    _check_earlier(starts, surrogate, likelihood, history)
    _checks.count(max_prior_draws, "max_prior_draws")
    return sample_posteriors(
        key, surrogate, history, likelihood, sampler, max_prior_draws, on_user, starts
    )
