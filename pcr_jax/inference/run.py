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
from pcr_jax.inference.arviz_data import to_arviz
from pcr_jax.inference.cover import seek
from pcr_jax.inference.mixing import MAX_RHAT, rank_rhat
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.samplers import SAMPLERS, Sampler, Samples, Smc
from pcr_jax.inference.search import evaluate, rotations, search_priors, users_cells
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target, check_model, prior_box
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate

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


@partial(jax.jit, static_argnums=(0, 1))
def _run_chunk(sampler, surrogate, likelihood, histories, boxes, keys, starts) -> Samples:
    """The sampler on several users, all leaves with a leading user axis."""

    def run(likelihood, *users):
        def one(history, box, key, starts):
            return sampler.run(key, Target(surrogate, likelihood, history, box), starts)

        return jax.vmap(one)(*users)

    return over_devices(run, likelihood, histories, boxes, keys, starts)


@partial(jax.jit, static_argnums=(1, 6))
def _search_chunk(key, surrogate, likelihood, histories, cells, rotation, num_wanted, max_draws):
    """`search_priors` of several users."""

    def search(shared, *users):
        key, likelihood, max_draws = shared
        return search_priors(key, surrogate, likelihood, *users, num_wanted, max_draws)

    return over_devices(search, (key, likelihood, max_draws), histories, cells, rotation)


def _max_rhat(draws: np.ndarray) -> np.ndarray:
    """The largest R-hat of users' draws (user, chain, step, walker, coefficient); (user,)."""
    users, chains, *_, k = draws.shape
    return rank_rhat(np.moveaxis(draws.reshape(users, chains, -1, k), 3, 1)).max(1)


class _Starts(NamedTuple):
    """Starting points of some users, filled in step by step.

    ``points`` (user, wanted, coefficient), of which the first ``num`` (user,) are there;
    ``excluded`` (user,): nothing is possible.
    """

    points: np.ndarray
    num: np.ndarray
    excluded: np.ndarray


class _Inference:
    """Searches and samples all users, and gathers what comes of it; host memory only.

    ``users`` are indices of some users, ``keys`` theirs.
    """

    def __init__(self, surrogate, likelihood, history, sampler, max_prior_draws):
        self.surrogate, self.likelihood, self.history = surrogate, likelihood, history
        self.sampler, self.max_prior_draws = sampler, max_prior_draws
        n = history.num_users
        self.dtype = jnp.result_type(float)
        self.boxes = np.repeat(np.asarray(prior_box(surrogate))[None], n, axis=0)
        self.arrays: dict[str, np.ndarray] = {}
        self.figures: dict[str, np.ndarray] = {}
        self.status = np.full(n, PosteriorStatus.ok)
        self.silent = np.isnan(np.asarray(history.answer)).all((1, 2))
        self.num_evaluations = np.zeros(n, int)
        self.prior_acceptance, self.best_agreement = np.zeros(n), np.zeros(n)

    def starts(self, key, keys, users) -> tuple[np.ndarray, np.ndarray]:
        """Which of the users can be sampled, and their starting points; settles the others."""
        k_search, k_temper = (jax.vmap(partial(jax.random.fold_in, data=i))(keys) for i in (0, 1))
        found, cells = self.search_cells(users)
        short = self.search_priors(key, k_search, users, cells, found)
        for i in short:
            self.search_cover(k_search[i], users[i], i, found)
        wanted = self.sampler.num_starts
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

    def search_cells(self, users) -> tuple[_Starts, np.ndarray]:
        """No starting points yet, but who is proved to have none; each user's possible cells."""
        found = []
        for some, padded in chunks_of(users, _CHUNK * width()):
            cells = users_cells(self.surrogate, self.likelihood, take(self.history, padded))
            found.append(take(jax.device_get(cells), slice(len(some))))
        in_reach, best = map(np.concatenate, zip(*found, strict=True))
        self.best_agreement[users] = best
        shape = (len(users), max(self.sampler.num_starts, 1), self.surrogate.num_coefficients)
        none = np.zeros(shape, self.dtype), np.zeros(len(users), int)
        return _Starts(*none, np.asarray(~in_reach.any(1))), in_reach

    def search_priors(self, key, keys, users, in_reach, found: _Starts) -> np.ndarray:
        """Possible prior draws of each user; the places of those whom they do not serve."""
        wanted = found.points.shape[1]
        rotation = rotations(keys, self.surrogate.num_coefficients + 1)
        cells = in_reach, self.best_agreement[users]
        pending = np.flatnonzero(~found.excluded)
        for limit in (min(_FIRST_DRAWS, self.max_prior_draws), self.max_prior_draws):
            for some, padded in chunks_of(pending, _on_all_devices(_SEARCHED)):
                of_users = (take(self.history, users[padded]), *take((cells, rotation), padded))
                search = (self.surrogate, self.likelihood, *of_users, wanted, limit)
                prior = take(jax.device_get(_search_chunk(key, *search)), slice(len(some)))
                found.points[some], found.num[some] = prior.draws, prior.num_found
                self.prior_acceptance[users[some]] = prior.acceptance
                self.best_agreement[users[some]] = prior.best_agreement
            pending = pending[found.num[pending] < wanted]
        return pending

    def search_cover(self, key, user, i, found: _Starts) -> None:
        """Draws of one user, ``found``'s i-th, from a cover of what is possible."""
        row, wanted = take(self.history, user), found.points.shape[1]
        key = jax.random.fold_in(key, 0)
        sought = seek(key, self.surrogate, self.likelihood, row, wanted, self.max_prior_draws)
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
        """`_run_chunk` of users; ``starts`` (user, num_starts, coefficient)."""
        rows, boxes = take(self.history, users), self.boxes[users]
        return _run_chunk(sampler, self.surrogate, self.likelihood, rows, boxes, keys, starts)

    def tempered_starts(self, keys, users) -> Iterator[tuple[int, np.ndarray]]:
        """For each user, distinct points of positive density at the end of a tempered run."""
        wanted = self.sampler.num_starts
        smc = Smc(num_runs=1, num_particles=max(_START_PARTICLES, 2 * wanted))
        chunk = _on_all_devices(_CHUNK)
        nothing = jnp.zeros((chunk, 0, self.surrogate.num_coefficients))
        for some, padded in chunks_of(np.arange(len(users)), chunk):
            run = self.run_chunk(smc, users[padded], take(keys, padded), nothing)
            draws, log_density = np.asarray(run.draws), np.asarray(run.log_density)
            for i in range(len(some)):
                particles = draws[i, 0, :, 0][np.isfinite(log_density[i, 0, :, 0])]
                first = np.sort(np.unique(particles, axis=0, return_index=True)[1])
                spread = np.linspace(0, len(first) - 1, min(wanted, len(first))).astype(int)
                yield some[i], particles[first[spread]]

    def sample(self, keys, users, starts) -> Iterator[np.ndarray]:
        """Sample the users, yielding those that are done."""
        sample = self.sample_one_by_one if self.sampler.host_only else self.sample_chunks
        return sample(keys, users, starts)

    def sample_one_by_one(self, keys, users, starts) -> Iterator[np.ndarray]:
        """`sample` with a sampler that runs in Python."""
        for user, key, start in zip(users, keys, starts, strict=True):
            row, box = take(self.history, user), self.boxes[user]
            target = Target(self.surrogate, self.likelihood, row, box)
            run = self.sampler.run(key, target, start)
            one = np.array([user])
            if run is None:
                self.status[one] = PosteriorStatus.failed
            else:
                self.keep(one, take(jax.tree.map(np.asarray, run), None))
            yield one

    def sample_chunks(self, keys, users, starts) -> Iterator[np.ndarray]:
        """`sample` with a sampler that is a JAX function."""
        running: list[tuple] = []
        for some, padded in chunks_of(np.arange(len(users)), _on_all_devices(_CHUNK)):
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
            row = take(self.history, users[i])
            _, share = evaluate(self.surrogate, self.likelihood, row, last)
            best = max(self.best_agreement[users[i]], float(share.max()))
            self.best_agreement[users[i]] = best
        ended = np.where(unfound, PosteriorStatus.no_start, PosteriorStatus.failed)
        self.status[users[~good]] = ended[~good]

    def store(self, users, run: Samples, good) -> None:
        """What the sampler says of users, walkers folded into draws."""
        self.num_evaluations[users] = run.num_evaluations
        by_draw = {"theta": run.draws, "lp": run.log_density, "warmup": run.warmup}
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

    def posteriors(self, prior, info) -> Posteriors:
        """What was gathered; where nobody has a posterior, one draw of NaN says so."""
        n, k = self.history.num_users, self.surrogate.num_coefficients
        arrays = dict(self.arrays)
        return Posteriors(
            draws=arrays.pop("theta", np.full((n, 1, 1, k), np.nan, self.dtype)),
            log_density=arrays.pop("lp", np.full((n, 1, 1), np.nan, self.dtype)),
            warmup=arrays.pop("warmup", np.zeros((n, 1, 0, k), self.dtype)),
            statistics=arrays,
            status=self.status,
            best_agreement=self.best_agreement,
            prior_acceptance=self.prior_acceptance,
            num_evaluations=self.num_evaluations,
            figures=self.figures,
            prior=prior,
            surrogate=self.surrogate,
            history=self.history,
            info=info,
        )


def sample_posteriors(
    key: Array,
    surrogate: LinearSurrogate,
    history: History,
    likelihood: Tolerance,
    sampler: Sampler,
    max_prior_draws: int,
    on_user: Callable[[], None] | None,
) -> Posteriors:
    """`infer`, its arguments checked, before ArviZ."""
    began = time.perf_counter()
    k_users, k_search, k_prior = jax.random.split(key, 3)
    num_users = history.num_users
    keys = user_keys(k_users, num_users)
    run = _Inference(surrogate, likelihood, history, sampler, max_prior_draws)

    def report(num_done):
        for _ in range(num_done if on_user is not None else 0):
            on_user()

    for group, _ in chunks_of(np.arange(num_users), max(_GROUP, _on_all_devices(_CHUNK))):
        ready, starts = run.starts(k_search, keys[group], group)
        report(len(group) - len(ready))
        k_run = jax.vmap(partial(jax.random.fold_in, data=2))(keys[group[ready]])
        for done in run.sample(k_run, group[ready], starts):
            report(len(done))

    unit = jax.random.uniform(k_prior, (_NUM_PRIOR, surrogate.num_coefficients))
    info = {
        "sampler": sampler.name,
        "sampler_settings": repr(sampler),
        "num_walkers": sampler.num_walkers,
        "likelihood": repr(likelihood),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "max_prior_draws": max_prior_draws,
        "seconds": time.perf_counter() - began,
    }
    return run.posteriors(np.asarray(surrogate.quantile(unit)), info)


def _checked_sampler(sampler, surrogate, likelihood) -> Sampler:
    """The sampler that is named or given, unless it does not suit the model."""
    if isinstance(sampler, str):
        _checks.choice(sampler, SAMPLERS, "sampler")
        sampler = SAMPLERS[sampler]()
    if isinstance(sampler, type) or not hasattr(sampler, "run"):
        raise TypeError(
            f"Expected sampler to be a name of {list(SAMPLERS)} or a sampler such as Ess(); "
            f"got {sampler!r}."
        )
    sampler.check(surrogate.num_coefficients)
    if sampler.needs_gradient and not likelihood.differentiable:
        raise ValueError(
            f"Expected a likelihood with a gradient for sampler {sampler.name!r}; got "
            f"{likelihood}, whose gradient is 0 wherever it exists. Use pcr.relaxed(sigma, beta) "
            "in its place, or a sampler that needs no gradient ('ess', 'smc')."
        )
    return sampler


@nan_is_a_value
def infer(
    key: Array,
    surrogate: LinearSurrogate,
    history: History,
    likelihood: Tolerance,
    *,
    sampler: str | Sampler = "ess",
    max_prior_draws: int = 2**20,
    on_user: Callable[[], None] | None = None,
):
    """Every user's posterior over the coefficients of the surrogate (section 4 of the paper).

    Parameters
    ----------
    key : Array
    surrogate : LinearSurrogate
    history : History
        Of num_users users.
    likelihood : Tolerance
        From `tolerance` or `relaxed`; ``"nuts"`` needs the latter.
    sampler : str or Sampler
        ``"ess"``, ``"smc"``, ``"nuts"``, ``"zeus"`` (the paper's), or an object with settings of
        your own (`Ess`, `Smc`, `Nuts`, `Zeus`).
    max_prior_draws : int
        How many prior draws may be searched for starting points, per user; whom they do not serve
        is given as many from boxes that cover what is possible.
    on_user : callable, optional
        Called once for each user who is done, for progress bars.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        ``posterior`` (and ``warmup_posterior``) with ``theta`` of dims (chain, draw, user,
        coefficient), a chain being an independent chain, ensemble or run, with walkers folded
        into draws, step by step; ``sample_stats`` with ``lp`` and what else the sampler says;
        ``prior`` with draws of ``theta`` for any user; ``posterior_predictive`` with the expected
        ``answer`` under some of the draws; ``observed_data`` with the answers; ``constant_data``
        with the queries, and per user ``status`` (see `PosteriorStatus`), ``best_agreement`` and
        ``prior_acceptance`` (the estimated share of the prior that is possible),
        ``num_evaluations``, and the
        ``log_evidence`` where the sampler finds it. Draws of a user without a posterior are NaN.
        Attributes tell the graph, sampler, likelihood, versions and seconds.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``history`` is at odds with the graph (see `check_history`), the sampler is unknown or
        unsuited, it needs a gradient that ``likelihood`` lacks.
    ImportError
        If the sampler's package is not installed.
    """
    _checks.key(key)
    check_model(surrogate, likelihood)
    history = check_history(history, surrogate.graph)
    if on_user is not None and not callable(on_user):
        raise TypeError(f"Expected on_user to be callable or None; got {on_user!r}.")
    sampler = _checked_sampler(sampler, surrogate, likelihood)
    _checks.count(max_prior_draws, "max_prior_draws")
    return to_arviz(
        sample_posteriors(key, surrogate, history, likelihood, sampler, max_prior_draws, on_user)
    )
