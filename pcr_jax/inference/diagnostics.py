"""Whether every user's posterior can be trusted."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.inference.arviz_data import coefficients_of, rhat_and_ess
from pcr_jax.inference.mixing import MAX_RHAT
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.surrogates import for_users, in_scale
from pcr_jax.surrogates.learned import prior_draws
from pcr_jax.surrogates.regression import is_regression

PRIOR_ONLY = 0.1
"""What answers must have taught of a number at least: below, see `taught`, it is prior only."""

_NAMED = 10


class PosteriorWarning(UserWarning):
    """Some users' posteriors are missing or cannot be trusted; see `diagnose`."""


def _name(users) -> str:
    shown = ", ".join(str(user) for user in users[:_NAMED])
    return shown + (f" and {len(users) - _NAMED} more" if len(users) > _NAMED else "")


def diagnose(posteriors) -> pd.DataFrame:
    """One row per user: did inference end well, and do the chains agree?

    Parameters
    ----------
    posteriors
        From `infer`, or what their `to_arviz` or `read_netcdf` returned.

    Whose answers fit no SCM of the surrogate, for a curve or an edge that it lacks, is
    ``poorly_fitting``: more probably so than not, by the Bayes factor of the surrogate against
    itself with these (`pcr_jax.inference.fit`), where `Gibbs` suits surrogate and likelihood. Of
    128 people of M1 and M2 with ten answers, a tenth of them wrong, nobody is called so; of 64 of
    M3 84 %, and where the graph lacks an edge of M1 70 %: who is not may still be ill served.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``user``: ``status``; ``rhat``, the largest R-hat over coefficients (NaN for a
        single chain); ``ess_bulk`` and ``ess_tail``, the smallest effective sample sizes. NaN for
        a user without a posterior. As ArviZ computes them (Vehtari et al. 2021); the ESS of an
        ensemble follows each walker.

    Raises
    ------
    TypeError
        If ``posteriors`` are none.

    Warns
    -----
    PosteriorWarning
        Counting and naming the users with an R-hat above 1.01, those without a posterior, those
        who answered nothing, and those whose answers fit poorly.
    """
    if isinstance(posteriors, Posteriors):
        unknown = np.concatenate([posteriors.draws, posteriors.unknowns], -1)
        users, codes = np.arange(len(unknown)), posteriors.status
        misfit = posteriors.fit.poor
        codes = np.where(misfit, PosteriorStatus.poorly_fitting, codes)
        num_walkers = posteriors.info["num_walkers"]
    else:
        unknown = np.moveaxis(coefficients_of(posteriors), 2, 0)
        users = posteriors.posterior["user"].to_numpy()
        codes = posteriors.constant_data["status"].to_numpy()
        num_walkers = int(posteriors.attrs["num_walkers"])
    rows = []
    for code, draws in zip(codes, unknown, strict=True):
        row = {"status": PosteriorStatus(code).name}
        if np.isfinite(draws).all():
            differs = (draws != draws[0, 0]).any((0, 1))  # a fixed edge does not
            rhat, bulk, tail = rhat_and_ess(draws[..., differs | ~differs.any()], num_walkers)
            row |= {"rhat": rhat.max(), "ess_bulk": bulk.min(), "ess_tail": tail.min()}
        rows.append(row)
    columns = ["status", "rhat", "ess_bulk", "ess_tail"]
    table = pd.DataFrame(rows, index=pd.Index(users, name="user"), columns=columns)
    kinds = {
        "have no posterior": ~np.isfinite(unknown).all((1, 2, 3)),
        "answered nothing, so that their posterior is the prior": (
            codes == PosteriorStatus.prior_only
        ),
        "gave answers that no SCM of the surrogate fits": codes == PosteriorStatus.poorly_fitting,
        f"have R-hat > {MAX_RHAT}": (table["rhat"] > MAX_RHAT).to_numpy(),
    }
    parts = [
        f"{flag.sum()} of {len(users)} users {what} (user {_name(users[flag])})"
        for what, flag in kinds.items()
        if flag.any()
    ]
    if parts:
        warnings.warn("; ".join(parts) + ".", PosteriorWarning, stacklevel=2)
    return table


@nan_is_a_value
def taught(posteriors: Posteriors) -> pd.DataFrame:
    """How much each user's answers taught of each effect: the share of its variance that is gone.

    Parameters
    ----------
    posteriors : Posteriors

    Returns
    -------
    pandas.DataFrame
        Indexed by ``user``, with a column for each edge, such as ``"X2 <- X1"``, and for each
        unknown of the likelihood: 1 less the posterior's variance over the prior's. 1: known; 0:
        as before, and below 0 where what was believed is in doubt. An edge's effect is what the
        child rises by, directly, if the parent goes from one scale below the person's to one
        above: in linear mechanisms the coefficient. Where mechanisms are no sums over features
        there is a column for each number in place of edges. NaN for users without a posterior.
        ``taught(posteriors) < PRIOR_ONLY`` says what is prior only.

    Raises
    ------
    TypeError
        If ``posteriors`` are none.
    """
    _checks.instance(posteriors, Posteriors, "posteriors", " See infer.")
    surrogate, history = in_scale(posteriors.surrogate, posteriors.history)
    likelihood, num_users = posteriors.likelihood, posteriors.history.num_users
    names, k = surrogate.names, len(surrogate.names)
    effects = jnp.broadcast_to(jnp.eye(k), (num_users, k, k))
    surrogates = for_users(surrogate, num_users)
    if is_regression(surrogate):
        names = surrogate.graph.edge_names
        effects = jax.jit(jax.vmap(_effects))(surrogates, jnp.asarray(history.x))

    def spread(of_user):
        own, effects = of_user
        return jnp.var(prior_draws(own.prior, k) @ effects.T, 0)

    before = np.asarray(jax.jit(lambda users: jax.lax.map(spread, users))((surrogates, effects)))
    draws = posteriors.draws.reshape(num_users, -1, k)
    after = np.stack(
        [(own @ by.T).var(0) for own, by in zip(draws, np.asarray(effects), strict=True)]
    )
    if likelihood.prior is not None:
        of_unknowns = np.asarray(prior_draws(likelihood.prior, len(likelihood.names))).var(0)
        before = np.concatenate([before, np.tile(of_unknowns, (num_users, 1))], -1)
        after = np.concatenate([after, posteriors.unknowns.var((1, 2))], -1)
    index = pd.Index(np.arange(num_users), name="user")
    left = np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    return pd.DataFrame(1 - left, index, [*names, *likelihood.names])


def _effects(surrogate, x):
    """What the k numbers are multiplied by in each edge's effect about ``x`` (d,); (edges, k)."""
    graph, blocks = surrogate.graph, surrogate.blocks
    rows = []
    for parent, child in graph.edges:
        j, step = graph.index(child), jnp.zeros(len(x)).at[graph.index(parent)].set(1.0)
        rise = surrogate.features(j, x + step) - surrogate.features(j, x - step)
        there = blocks[j] >= 0
        rows.append(jnp.zeros(len(surrogate.names)).at[blocks[j][there]].set(rise[there]))
    return jnp.stack(rows)
