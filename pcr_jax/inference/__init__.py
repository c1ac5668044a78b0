"""Inference: from histories to posteriors, in ArviZ's terms."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import user_keys
from pcr_jax.elicitation.history import History
from pcr_jax.inference.arviz_data import (
    coefficients_of,
    graph_of,
    read_netcdf,
    to_arviz,
    write_netcdf,
)
from pcr_jax.inference.density import PriorSearch, batch_log_density, log_density, search_prior
from pcr_jax.inference.samplers import Sampler, Samples
from pcr_jax.inference.zeus import Zeus
from pcr_jax.likelihoods import Tolerance
from pcr_jax.scm import SCM, linear_scm
from pcr_jax.surrogates import LinearSurrogate

__all__ = [
    "PosteriorStatus",
    "Sampler",
    "Samples",
    "Zeus",
    "infer",
    "log_density",
    "posterior_scms",
    "read_netcdf",
    "search_prior",
    "write_netcdf",
]

SAMPLERS: dict[str, Callable[[], Sampler]] = {"zeus": Zeus}

# Up to this many coefficients, a million prior draws without success are taken as proof.
_MAX_COEFFICIENTS_PROVED = 3
_JITTER_ROUNDS = 100


class PosteriorStatus(IntEnum):
    """How inference ended for one user.

    ``empty``: none of the prior draws has positive posterior density. ``no_start``: the same, in
    so many dimensions that prior draws prove nothing; or the region found is too small to start
    in. ``failed``: the sampler gave up. The draws are NaN unless ``ok``.
    """

    ok = 0
    empty = 1
    no_start = 2
    failed = 3


def _starts(key, density, surrogate, search: PriorSearch) -> np.ndarray:
    """Distinct points of positive density: the prior draws found, then jittered copies of them.

    Fewer than asked for if there is none to begin with, or the region is too small to jitter in.
    """
    draws = np.asarray(search.draws)
    wanted = len(draws)
    found = draws[(np.arange(wanted) < search.num_found) & (np.asarray(density(draws)) > -np.inf)]
    # Some of these scales fits the region.
    scales = (surrogate.high - surrogate.low) / 2 * 0.5 ** np.arange(wanted)[:, None]
    for _ in range(_JITTER_ROUNDS):
        if not 0 < len(found) < wanted:
            break
        key, k_row, k_jitter = jax.random.split(key, 3)
        rows = np.asarray(jax.random.randint(k_row, (wanted,), 0, len(found)))
        jitter = scales * np.asarray(jax.random.normal(k_jitter, draws.shape))
        proposals = (found[rows] + jitter).astype(draws.dtype)
        good = np.asarray(density(proposals)) > -np.inf
        found = np.unique(np.concatenate([found, proposals[good]]), axis=0)
    return found[:wanted]


def infer(
    key: Array,
    surrogate: LinearSurrogate,
    history: History,
    x: Array | None = None,
    *,
    likelihood: Tolerance,
    sampler: str | Sampler = "zeus",
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
    sampler : str or Sampler
        ``"zeus"``, or an object with settings of your own.
    max_prior_draws : int
        How many prior draws may be searched for starting points, per user.
    on_user : callable, optional
        Called after each user, for progress bars.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        ``posterior`` (and ``warmup_posterior``) with ``theta`` of dims (chain, draw, user,
        coefficient), a chain being one ensemble with its walkers folded into draws, step by
        step; ``sample_stats`` with ``lp``; ``observed_data`` with the answers; ``constant_data``
        with the queries, and per user ``status`` (see `PosteriorStatus`), ``best_agreement`` and
        ``prior_acceptance`` among the prior draws made, ``num_evaluations``. Draws of a user
        without a posterior are NaN. Attributes tell the graph, sampler, likelihood, versions and
        seconds.

    Raises
    ------
    ValueError
        If the sampler is unknown or unsuited, or the shapes of ``history``, ``x`` and
        ``surrogate`` disagree.
    ImportError
        If the sampler's package is not installed.
    """
    graph = surrogate.graph
    if isinstance(sampler, str):
        _checks.choice(sampler, SAMPLERS, "sampler")
        sampler = SAMPLERS[sampler]()
    sampler.check(surrogate.num_coefficients)
    if history.answer.shape[-1] != graph.num_nodes:
        raise ValueError(
            f"Expected answers about {graph.num_nodes} nodes in history; "
            f"got {history.answer.shape[-1]}."
        )
    if x is not None:
        _checks.features(x, graph.num_nodes, ndim=2)
        if len(x) != history.num_users:
            raise ValueError(f"Expected x of {history.num_users} users; got {len(x)}.")
    _checks.count(max_prior_draws, "max_prior_draws")

    began = time.perf_counter()
    walkers, k = sampler.num_walkers, surrogate.num_coefficients
    unproved = k > _MAX_COEFFICIENTS_PROVED
    runs: dict[int, Samples] = {}
    found: dict[str, list] = {"status": [], "best_agreement": [], "prior_acceptance": []}
    for i, user_key in enumerate(user_keys(key, history.num_users)):
        k_search, k_start, k_run = jax.random.split(user_key, 3)
        row = jax.tree.map(lambda leaf, i=i: leaf[i], history)
        search = search_prior(k_search, surrogate, likelihood, row, walkers, max_prior_draws)
        density = partial(batch_log_density, surrogate, likelihood, row)
        starts = _starts(k_start, density, surrogate, search)
        if not len(starts):
            status = PosteriorStatus.no_start if unproved else PosteriorStatus.empty
        elif len(starts) < walkers:
            status = PosteriorStatus.no_start
        else:
            run = sampler.run(k_run, density, starts)
            status = PosteriorStatus.failed if run is None else PosteriorStatus.ok
            if run is not None:
                runs[i] = run
        found["status"].append(int(status))
        found["best_agreement"].append(float(search.best_agreement))
        found["prior_acceptance"].append(int(search.num_accepted) / int(search.num_drawn))
        if on_user is not None:
            on_user()

    def gather(field):
        """One field of all users' runs, user axis third, walkers folded into draws."""
        if not runs:  # nobody has a posterior: one draw of NaN says so
            return np.full(
                (1, 1, history.num_users, *([k] if field != "log_density" else [])), np.nan
            )
        shapes = [getattr(run, field).shape for run in runs.values()]
        chains, steps, walks, *rest = shapes[0]
        out = np.full((chains, steps * walks, history.num_users, *rest), np.nan, np.float32)
        for i, run in runs.items():
            out[:, :, i] = getattr(run, field).reshape(chains, steps * walks, *rest)
        return out

    evaluations = [runs[i].num_evaluations if i in runs else 0 for i in range(history.num_users)]
    constant = {
        "query_node": np.asarray(history.node),
        "query_shift": np.asarray(history.shift),
        "num_evaluations": np.array(evaluations),
        **{name: np.array(values) for name, values in found.items()},
    }
    if x is not None:
        constant["features"] = np.asarray(x)
    groups = {
        "posterior": {"theta": gather("draws")},
        "sample_stats": {"lp": gather("log_density")},
        "observed_data": {"answer": np.asarray(history.answer)},
        "constant_data": constant,
    }
    if (warmup := gather("warmup")).size:
        groups["warmup_posterior"] = {"theta": warmup}
    dims = {
        "theta": ["user", "coefficient"],
        "lp": ["user"],
        "answer": ["user", "query", "node"],
        "query_node": ["user", "query"],
        "query_shift": ["user", "query"],
        "features": ["user", "node"],
        **{name: ["user"] for name in ("num_evaluations", *found)},
    }
    coords = {
        "user": np.arange(history.num_users),
        "coefficient": list(surrogate.coefficient_names),
        "node": list(graph.nodes),
        "query": np.arange(history.node.shape[1]),
    }
    attrs = {
        "graph": {"nodes": graph.nodes, "parents": graph.parents},
        "prior": {"low": surrogate.low, "high": surrogate.high},
        "surrogate_noise_mean": surrogate.noise_mean,
        "sampler": sampler.name,
        "sampler_settings": repr(sampler),
        "num_walkers": walkers,
        "likelihood": repr(likelihood),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "status_codes": {status.name: int(status) for status in PosteriorStatus},
        "max_prior_draws": max_prior_draws,
        "seconds": time.perf_counter() - began,
        "versions": {name: version(name) for name in ("pcr-jax", "jax", "numpyro", "arviz")},
    }
    return to_arviz(groups, coords, dims, attrs)


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
    if reduce not in ("mean", None):
        raise ValueError(f"Expected reduce to be 'mean' or None; got {reduce!r}.")
    draws = np.moveaxis(coefficients_of(idata), 2, 0)  # (user, chain, draw, coefficient)
    theta = jnp.asarray(draws.reshape(len(draws), -1, draws.shape[-1]))
    one = partial(linear_scm, graph_of(idata))
    if reduce == "mean":
        return jax.vmap(one)(theta.mean(1))
    return jax.vmap(jax.vmap(one))(theta)
