"""Inference of all users: sampling from where they start, and what comes of it.

Users are sampled in chunks; what is found is kept in the host's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import chunks_of, fold_in_each, take, user_keys
from pcr_jax.history import History, check_history
from pcr_jax.inference.chunks import CHUNK, at_once, on_all_devices
from pcr_jax.inference.mixing import MAX_RHAT, rank_rhat
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.samplers import SAMPLERS, Gibbs, Sampler, Samples
from pcr_jax.inference.search import can_search, evaluate
from pcr_jax.inference.starts import Starting
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import Likelihood, check_likelihood
from pcr_jax.surrogates import Surrogate, check_surrogate, check_users, in_scale

# Users whose starting points are held in memory, at least.
_GROUP = 4096
_NUM_PRIOR = 1000


def _max_rhat(draws: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The largest R-hat of users' draws (user, chain, step, walker, dim); (user,).

    Numbers that are ``fixed`` (user, number of coefficients) do not count.
    """
    users, chains, *_, dim = draws.shape
    by_number = np.moveaxis(draws.reshape(users, chains, -1, dim), 3, 1)
    rhat = rank_rhat(by_number)
    num = fixed.shape[-1]
    rhat[:, :num] = np.where(fixed, 1.0, rhat[:, :num])
    return rhat.max(1)


class _Inference(Starting):
    """Samples all users from where they start, and gathers what comes of it."""

    def __init__(self, surrogate, history, likelihood, sampler, max_prior_draws, earlier):
        super().__init__(surrogate, history, likelihood, sampler, max_prior_draws, earlier)
        self.arrays: dict[str, np.ndarray] = {}
        self.figures: dict[str, np.ndarray] = {}
        self.silent = np.isnan(np.asarray(history.answer)).all((1, 2))
        self.num_evaluations = np.zeros(history.num_users, int)

    def sample(self, keys, users, starts) -> Iterator[np.ndarray]:
        """Sample the users, yielding those that are done."""
        if self.earlier is not None and hasattr(self.sampler, "resumes"):
            k_resume = fold_in_each(keys, 3)
            resumed, points = self.resumed(k_resume, users)
            yield from self.sample_chunks(keys[resumed], users[resumed], points)
            left = np.setdiff1d(np.arange(len(users)), resumed)
            keys, users, starts = keys[left], users[left], starts[left]
        sample = self.sample_one_by_one if self.sampler.host_only else self.sample_chunks
        yield from sample(keys, users, starts)

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
        chunk = on_all_devices(at_once(self.sampler))
        for some, padded in chunks_of(np.arange(len(users)), chunk):
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

    def fixed(self, users) -> np.ndarray:
        """Which coefficients the users' priors leave no choice; (user, k)."""
        k, box = len(self.surrogate.names), self.surrogate.prior.box
        if box is None:
            return np.zeros((len(users), k), bool)
        low, high = np.moveaxis(np.asarray(box), -2, 0)
        same = np.broadcast_to(low == high, (len(self.silent), k))
        return same[users]

    def settle(self, users, run: Samples, good) -> None:
        """How inference ended for users, of whom the ``good`` (user,) have draws."""
        if run.draws.shape[1] > 1:
            disagree = good & ~(_max_rhat(run.draws, self.fixed(users)) <= MAX_RHAT)
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


class _Keys(NamedTuple):
    """Of all that is random: the users' own (num_users,), the search's and the prior's."""

    users: Array
    search: Array
    prior: Array

    @classmethod
    def of(cls, key: Array, num_users: int) -> _Keys:
        """Those that follow from one key."""
        k_users, k_search, k_prior = jax.random.split(key, 3)
        return cls(user_keys(k_users, num_users), k_search, k_prior)


@jax.jit
def _keys_alone(keys: Array) -> _Keys:
    """Those of users who are alone with a key each, users first."""
    found = jax.vmap(partial(_Keys.of, num_users=1))(keys)
    return found._replace(users=found.users[:, 0])


def _sampled(
    keys: _Keys, surrogate, history, likelihood, sampler, max_prior_draws, on_user, earlier
) -> _Inference:
    """All users, settled."""
    num_users = history.num_users
    inside = in_scale(surrogate, history)
    run = _Inference(*inside, likelihood, sampler, max_prior_draws, earlier)
    if sampler.needs_exact_starts and (earlier is not None or not run.searches):
        run.sampler = sampler.warming_up()

    def report(num_done):
        for _ in range(num_done if on_user is not None else 0):
            on_user()

    for group, _ in chunks_of(np.arange(num_users), max(_GROUP, on_all_devices(CHUNK))):
        ready, starts = run.starts(keys.search, keys.users[group], group)
        report(len(group) - len(ready))
        k_run = fold_in_each(keys.users[group[ready]], 2)
        for done in run.sample(k_run, group[ready], starts):
            report(len(done))
    return run


def _prior_draws(key: Array, surrogate: Surrogate) -> np.ndarray | None:
    """Draws of any user's prior; None if users have priors of their own."""
    if surrogate.prior.batch_shape:
        return None
    return np.asarray(_from_prior(key, surrogate))


@jax.jit
def _from_prior(key, surrogate):
    unit = jax.random.uniform(key, (_NUM_PRIOR, len(surrogate.names)))
    return surrogate.prior.from_unit(unit)


def _info(key: Array, run: _Inference, seconds: float) -> dict[str, Any]:
    """What `Posteriors` tell of how they came about."""
    sampler = run.sampler
    return {
        "sampler": sampler.name,
        "sampler_settings": repr(sampler),
        "num_walkers": sampler.num_walkers,
        "likelihood": repr(run.likelihood),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "max_prior_draws": run.max_prior_draws,
        "seconds": seconds,
    }


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
        ``"gibbs"`` goes on from draws, weighted by up to four answers that are new, where those
        are no surprise to them.
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
    began = time.perf_counter()
    keys = _Keys.of(key, history.num_users)
    run = _sampled(keys, surrogate, history, likelihood, sampler, max_prior_draws, on_user, starts)
    prior = _prior_draws(keys.prior, surrogate)
    info = _info(key, run, time.perf_counter() - began)
    return run.posteriors(surrogate, history, prior, info)


@nan_is_a_value
def infer_each(
    keys: Array,
    surrogate: Surrogate,
    history: History,
    likelihood: Likelihood,
    *,
    sampler: str | Sampler | None = None,
) -> list[Posteriors]:
    """Posteriors of users who have nothing to do with each other, computed together.

    Parameters
    ----------
    keys : Array
        Shape (num_users,).
    surrogate, history, likelihood, sampler
        See `infer`; the surrogate's prior is one for all.

    Returns
    -------
    list of Posteriors
        Of one user each: what `infer` finds of them alone, with their key, bit for bit.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        As of `infer`; or if users have priors of their own, there is not one key for each, or
        starting points are searched for, which is done of several users at once.
    """
    if not (isinstance(keys, Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"Expected keys as jax.random.split gives them; got {_checks.shown(keys)}.")
    check_likelihood(likelihood)
    check_surrogate(surrogate)
    history = check_history(history, surrogate.graph)
    sampler = _checked_sampler(sampler, surrogate, likelihood)
    if keys.shape != (history.num_users,):
        raise ValueError(f"Expected keys of shape ({history.num_users},); got {keys.shape}.")
    if surrogate.prior.batch_shape or can_search(surrogate, likelihood):
        raise ValueError(
            "Expected a surrogate with one prior for all, and a likelihood without hard support; "
            f"got {_checks.shown(surrogate)} and {_checks.shown(likelihood)}."
        )
    began = time.perf_counter()
    alone = _keys_alone(keys)
    run = _sampled(alone, surrogate, history, likelihood, sampler, 2**20, None, None)
    seconds = time.perf_counter() - began
    found = []
    for i, key in enumerate(keys):
        one = slice(i, i + 1)
        prior = _prior_draws(alone.prior[i], surrogate)
        of_one = run.posteriors(surrogate, history, prior, _info(key, run, seconds))
        found.append(of_one.only(one))
    return found
