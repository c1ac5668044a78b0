"""Inference: from histories to posteriors, in ArviZ's terms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import chunks_of, over_devices, take, user_keys, width
from pcr_jax.history import History, check_history
from pcr_jax.inference.arviz_data import (
    coefficients_of,
    graph_of,
    read_netcdf,
    to_arviz,
    write_netcdf,
)
from pcr_jax.inference.checks import check_model
from pcr_jax.inference.cover import evaluate, seek
from pcr_jax.inference.density import (
    Posterior,
    log_density,
    prior_box,
    rotations,
    search_prior,
    search_priors,
    users_cells,
)
from pcr_jax.inference.diagnostics import PosteriorWarning, diagnose
from pcr_jax.inference.ess import Ess
from pcr_jax.inference.exact import ExactPosterior, exact_posterior
from pcr_jax.inference.mixing import MAX_RHAT, rank_rhat
from pcr_jax.inference.numpyro_model import numpyro_model
from pcr_jax.inference.nuts import Nuts
from pcr_jax.inference.samplers import Sampler, Samples
from pcr_jax.inference.smc import Smc
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.zeus import Zeus
from pcr_jax.likelihoods import Tolerance
from pcr_jax.scm import SCM, linear_scm
from pcr_jax.surrogates import LinearSurrogate

__all__ = [
    "Ess",
    "ExactPosterior",
    "Nuts",
    "Posterior",
    "PosteriorStatus",
    "PosteriorWarning",
    "Sampler",
    "Samples",
    "Smc",
    "Zeus",
    "diagnose",
    "exact_posterior",
    "infer",
    "log_density",
    "numpyro_model",
    "posterior_scms",
    "read_netcdf",
    "search_prior",
    "write_netcdf",
]

SAMPLERS: dict[str, Callable[[], Sampler]] = {"ess": Ess, "smc": Smc, "nuts": Nuts, "zeus": Zeus}

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
# Draws per user whose predictions are stored, at most.
_NUM_PREDICTED = 20


def _on_all_devices(num_users: int) -> int:
    """How many users all devices compute at once, if that is so many for each unit of `width`."""
    return num_users * width() * jax.device_count()


@partial(jax.jit, static_argnums=(0, 1))
def _run_chunk(sampler, surrogate, likelihood, histories, boxes, keys, starts) -> Samples:
    """The sampler on several users, all leaves with a leading user axis."""

    def run(likelihood, *users):
        def one(history, box, key, starts):
            return sampler.run(key, Posterior(surrogate, likelihood, history, box), starts)

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


@partial(jax.jit, static_argnums=0)
def _expected(surrogate, history, thetas):
    """Expected answers under users' thetas (user, draw, coefficient)."""

    def one(history, theta):
        return surrogate.expected(theta, history.questions, history.x)

    return jax.vmap(jax.vmap(one, (None, 0)))(history, thetas)


class _Inference:
    """Searches and samples all users, and gathers what comes of it; host memory only."""

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

    def cells(self, users) -> tuple[np.ndarray, np.ndarray]:
        """`possible_cells` of each user."""
        found = []
        for some, padded in chunks_of(users, _CHUNK * width()):
            cells = users_cells(self.surrogate, self.likelihood, take(self.history, padded))
            found.append(take(jax.device_get(cells), slice(len(some))))
        possible, best = zip(*found, strict=True)
        return np.concatenate(possible), np.concatenate(best)

    def search(self, key, keys, users) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Possible prior draws of each user, how many there are, and who is proved to have none.

        Of users whom prior draws do not serve, from a cover of what is possible.
        """
        k = self.surrogate.num_coefficients
        wanted = max(self.sampler.num_starts, 1)
        draws, num_found = np.zeros((len(users), wanted, k), self.dtype), np.zeros(len(users), int)
        rotation = rotations(keys, k + 1)
        cells = in_reach, self.best_agreement[users] = self.cells(users)
        excluded = np.asarray(~in_reach.any(1))
        pending = np.flatnonzero(~excluded)
        for limit in (min(_FIRST_DRAWS, self.max_prior_draws), self.max_prior_draws):
            for some, padded in chunks_of(pending, _on_all_devices(_SEARCHED)):
                of_users = (take(self.history, users[padded]), *take((cells, rotation), padded))
                search = (self.surrogate, self.likelihood, *of_users, wanted, limit)
                found = take(jax.device_get(_search_chunk(key, *search)), slice(len(some)))
                draws[some], num_found[some] = found.draws, found.num_found
                self.prior_acceptance[users[some]] = found.acceptance
                self.best_agreement[users[some]] = found.best_agreement
            pending = pending[num_found[pending] < wanted]
        for i in pending:
            row = take(self.history, users[i])
            settings = (wanted, self.max_prior_draws)
            key = jax.random.fold_in(keys[i], 0)
            found = seek(key, self.surrogate, self.likelihood, row, *settings)
            user, num = users[i], len(found.draws)
            best = max(self.best_agreement[user], found.best_agreement)
            self.best_agreement[user] = best
            if found.is_empty:
                excluded[i] = num_found[i] == 0
                continue
            if found.box is None:
                self.status[user] = PosteriorStatus.no_start
                continue
            self.boxes[user] = found.box
            if num > num_found[i]:
                draws[i, :num], num_found[i] = found.draws, num
                self.prior_acceptance[user] = found.acceptance
        return draws, num_found, excluded

    def tempered_starts(self, keys, users) -> Iterator[tuple[int, np.ndarray]]:
        """For each user, distinct points of positive density at the end of a tempered run."""
        wanted = self.sampler.num_starts
        smc = Smc(num_runs=1, num_particles=max(_START_PARTICLES, 2 * wanted))
        chunk = _on_all_devices(_CHUNK)
        nothing = jnp.zeros((chunk, 0, self.surrogate.num_coefficients))
        for some, padded in chunks_of(np.arange(len(users)), chunk):
            rows = take(self.history, users[padded])
            run = _run_chunk(
                smc,
                self.surrogate,
                self.likelihood,
                rows,
                self.boxes[users[padded]],
                take(keys, padded),
                nothing,
            )
            draws, log_density = np.asarray(run.draws), np.asarray(run.log_density)
            for i in range(len(some)):
                particles = draws[i, 0, :, 0][np.isfinite(log_density[i, 0, :, 0])]
                first = np.sort(np.unique(particles, axis=0, return_index=True)[1])
                spread = np.linspace(0, len(first) - 1, min(wanted, len(first))).astype(int)
                yield some[i], particles[first[spread]]

    def starts(self, key, keys, users) -> tuple[np.ndarray, np.ndarray]:
        """Which of the users can be sampled, and their starting points; settles the others."""
        k_search, k_temper = (jax.vmap(partial(jax.random.fold_in, data=i))(keys) for i in (0, 1))
        draws, num_found, hopeless = self.search(key, k_search, users)
        wanted = self.sampler.num_starts
        self.status[users[hopeless]] = PosteriorStatus.empty
        hopeless |= self.status[users] == PosteriorStatus.no_start
        short = np.flatnonzero((num_found < wanted) & ~hopeless)
        for i, points in self.tempered_starts(take(k_temper, short), users[short]):
            num_found[short[i]] = len(points)
            draws[short[i], : len(points)] = points
        lacking = (num_found < wanted) & ~hopeless
        self.status[users[lacking]] = PosteriorStatus.no_start
        ready = ~hopeless & ~lacking
        return np.flatnonzero(ready), draws[ready, :wanted]

    def sample(self, keys, users, starts) -> Iterator[np.ndarray]:
        """Sample the users, yielding those that are done."""
        if self.sampler.host_only:
            for user, key, start in zip(users, keys, starts, strict=True):
                row, box = take(self.history, user), self.boxes[user]
                posterior = Posterior(self.surrogate, self.likelihood, row, box)
                run = self.sampler.run(key, posterior, start)
                one = np.array([user])
                if run is None:
                    self.status[one] = PosteriorStatus.failed
                else:
                    self.keep(one, take(jax.tree.map(np.asarray, run), None))
                yield one
            return
        running: list[tuple] = []
        for some, padded in chunks_of(np.arange(len(users)), _on_all_devices(_CHUNK)):
            rows = take(self.history, users[padded])
            args = (
                self.surrogate,
                self.likelihood,
                rows,
                self.boxes[users[padded]],
                take(keys, padded),
                starts[padded],
            )
            # Dispatched before the last chunk is stored, so that the device does not wait.
            running.append((users[some], _run_chunk(self.sampler, *args)))
            if len(running) > 1:
                yield self.keep(*running.pop(0))
        for ended in running:
            yield self.keep(*ended)

    def keep(self, users, run: Samples) -> np.ndarray:
        """Store the draws of users who have some, walkers folded into draws; the users."""
        run = take(jax.device_get(run), slice(len(users)))
        rhat = _max_rhat(run.draws)
        num_chains = run.draws.shape[1]
        good = np.isfinite(run.log_density).all((1, 2, 3))
        if num_chains > 1:
            self.status[users[good & ~(rhat <= MAX_RHAT)]] = PosteriorStatus.poorly_mixed
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
        self.num_evaluations[users] = run.num_evaluations
        by_draw = {"theta": run.draws, "lp": run.log_density, "warmup": run.warmup}
        for name, values in {**by_draw, **run.statistics}.items():
            chains, steps, walkers, *rest = values.shape[1:]
            folded = np.moveaxis(values.reshape(len(users), chains, steps * walkers, *rest), 0, 2)
            shape = (*folded.shape[:2], self.history.num_users, *rest)
            if name not in self.arrays:
                self.arrays[name] = np.full(shape, np.nan, self.dtype)
            self.arrays[name][:, :, users[good]] = folded[:, :, good]
        for name, values in run.figures.items():
            if name not in self.figures:
                self.figures[name] = np.full(self.history.num_users, np.nan)
            self.figures[name][users[good]] = values[good]
        return users

    def predictions(self) -> np.ndarray:
        """Expected answers under some of the draws, evenly taken; NaN where nothing was said."""
        theta = self.arrays["theta"]
        chains, draws, num_users, _ = theta.shape
        step = max(1, -(-draws * chains // _NUM_PREDICTED))
        thinned = np.moveaxis(theta[:, ::step], 2, 0)
        answer = np.asarray(self.history.answer)
        num = thinned.shape[1] * thinned.shape[2]
        shape = (*thinned.shape[1:3], num_users, *answer.shape[1:])
        out = np.full(shape, np.nan, self.dtype)
        with_draws = np.flatnonzero(np.isfinite(thinned[:, 0, 0, 0]))
        for users, padded in chunks_of(with_draws, _CHUNK * width()):
            flat = thinned[padded].reshape(len(padded), num, -1)
            expected = np.asarray(_expected(self.surrogate, take(self.history, padded), flat))
            expected = np.where(np.isnan(answer[padded])[:, None], np.nan, expected)[: len(users)]
            shaped = expected.reshape(len(users), *thinned.shape[1:3], *answer.shape[1:])
            out[:, :, users] = np.moveaxis(shaped, 0, 2)
        return out


@nan_is_a_value
def infer(
    key: Array,
    surrogate: LinearSurrogate,
    history: History,
    x: Array | None = None,
    *,
    likelihood: Tolerance,
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
    x : Array, optional
        Shape (num_users, d), natural units: the users' features, recorded in the result.
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
        unsuited, it needs a gradient that ``likelihood`` lacks, or ``x`` is of other users.
    ImportError
        If the sampler's package is not installed.
    """
    _checks.key(key)
    check_model(surrogate, likelihood)
    graph = surrogate.graph
    history = check_history(history, graph)
    if on_user is not None and not callable(on_user):
        raise TypeError(f"Expected on_user to be callable or None; got {on_user!r}.")
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
    num_users, k = history.num_users, surrogate.num_coefficients
    if x is not None:
        _checks.features(x, graph.num_nodes, ndim=2)
        if len(x) != num_users:
            raise ValueError(f"Expected x of {num_users} users; got {len(x)}.")
    _checks.count(max_prior_draws, "max_prior_draws")

    began = time.perf_counter()
    k_users, k_search, k_prior = jax.random.split(key, 3)
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

    if not run.arrays:  # nobody has a posterior: one draw of NaN says so
        nan = np.full((1, 1, num_users), np.nan, run.dtype)
        run.arrays = {"theta": np.repeat(nan[..., None], k, axis=-1), "lp": nan}
    statistics = {n: v for n, v in run.arrays.items() if n not in ("theta", "warmup")}
    warmup = run.arrays.get("warmup", np.zeros(0))
    constant = {
        "query_node": np.asarray(history.node),
        "query_shift": np.asarray(history.shift),
        "status": run.status,
        "best_agreement": run.best_agreement,
        "prior_acceptance": run.prior_acceptance,
        "num_evaluations": run.num_evaluations,
        **run.figures,
    }
    per_user = [name for name in constant if not name.startswith("query_")]
    if x is not None:
        constant["features"] = np.asarray(x)
    groups = {
        "posterior": {"theta": run.arrays["theta"]},
        "sample_stats": statistics,
        "posterior_predictive": {"answer": run.predictions()},
        "observed_data": {"answer": np.asarray(history.answer)},
        "constant_data": constant,
    }
    if warmup.size:
        groups["warmup_posterior"] = {"theta": warmup}
    dims = {
        "theta": ["user", "coefficient"],
        "answer": ["user", "query", "node"],
        "query_node": ["user", "query"],
        "query_shift": ["user", "query"],
        "features": ["user", "node"],
        **{name: ["user"] for name in (*statistics, *per_user)},
    }
    coords = {
        "user": np.arange(num_users),
        "coefficient": list(surrogate.coefficient_names),
        "node": list(graph.nodes),
        "query": np.arange(history.node.shape[1]),
    }
    prior = surrogate.quantile(jax.random.uniform(k_prior, (1, _NUM_PRIOR, k)))
    attrs = {
        "graph": {"nodes": graph.nodes, "parents": graph.parents},
        "prior": {"low": surrogate.low, "high": surrogate.high},
        "surrogate_noise_mean": surrogate.noise_mean,
        "sampler": sampler.name,
        "sampler_settings": repr(sampler),
        "num_walkers": sampler.num_walkers,
        "likelihood": repr(likelihood),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "status_codes": {status.name: int(status) for status in PosteriorStatus},
        "max_prior_draws": max_prior_draws,
        "seconds": time.perf_counter() - began,
        "versions": {
            name: version(name) for name in ("pcr-jax", "jax", "numpyro", "blackjax", "arviz")
        },
    }
    return to_arviz(groups, np.asarray(prior), coords, dims, attrs)


@nan_is_a_value
def posterior_scms(idata, *, reduce: str | None = "mean") -> SCM:
    """The users' SCMs under their posteriors.

    Parameters
    ----------
    idata
        From `infer`.
    reduce : {"mean", None}
        ``"mean"``: one SCM per user, with the posterior mean of the coefficients. None: one per
        user and draw.

    Returns
    -------
    SCM
        Leaves with leading axes (num_users,), or (num_users, num_draws) where not reduced. A
        user without a posterior has NaN coefficients, which `find_recourse` reports as a status.
    """
    if not (reduce is None or (isinstance(reduce, str) and reduce == "mean")):
        raise ValueError(f"Expected reduce to be 'mean' or None; got {reduce!r}.")
    draws = np.moveaxis(coefficients_of(idata), 2, 0)  # (user, chain, draw, coefficient)
    theta = jnp.asarray(draws.reshape(len(draws), -1, draws.shape[-1]))
    one = partial(linear_scm, graph_of(idata))
    if reduce == "mean":
        return jax.vmap(one)(theta.mean(1))
    return jax.vmap(jax.vmap(one))(theta)
