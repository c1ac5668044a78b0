"""Whether every user's posterior can be trusted."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from pcr_jax.inference.arviz_data import coefficients_of, rhat_and_ess
from pcr_jax.inference.mixing import MAX_RHAT
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.status import PosteriorStatus

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
        Counting and naming the users with an R-hat above 1.01, those without a posterior, and those
        who answered nothing.
    """
    if isinstance(posteriors, Posteriors):
        unknown = np.concatenate([posteriors.draws, posteriors.unknowns], -1)
        users, codes = np.arange(len(unknown)), posteriors.status
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
            rhat, bulk, tail = rhat_and_ess(draws, num_walkers)
            row |= {"rhat": rhat.max(), "ess_bulk": bulk.min(), "ess_tail": tail.min()}
        rows.append(row)
    columns = ["status", "rhat", "ess_bulk", "ess_tail"]
    table = pd.DataFrame(rows, index=pd.Index(users, name="user"), columns=columns)
    kinds = {
        "have no posterior": ~np.isfinite(unknown).all((1, 2, 3)),
        "answered nothing, so that their posterior is the prior": (
            codes == PosteriorStatus.prior_only
        ),
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
