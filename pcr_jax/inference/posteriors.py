"""What inference finds: every user's draws, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from pcr_jax.batching import chunks_of, take, width
from pcr_jax.history import History
from pcr_jax.surrogates import LinearSurrogate

_CHUNK = 32  # users whose predictions are made at once, for each unit of `width`
_NUM_PREDICTED = 20  # draws per user whose predictions are made, at most


@dataclass(frozen=True)
class Posteriors:
    """Every user's posterior, as NumPy's arrays with users first.

    A chain is an independent chain, ensemble or run, with walkers folded into draws, step by step.
    Draws of a user without a posterior are NaN.

    Attributes
    ----------
    draws : array
        Shape (num_users, chain, draw, num_coefficients).
    log_density : array
        Shape (num_users, chain, draw).
    warmup : array
        Shape (num_users, chain, warm-up draw, num_coefficients).
    statistics : dict of array
        What else the sampler says of each draw, shape (num_users, chain, draw).
    status : array
        Shape (num_users,): see `PosteriorStatus`.
    best_agreement : array
        Shape (num_users,): the largest share of answers with which any point looked at agreed.
    prior_acceptance : array
        Shape (num_users,): the estimated share of the prior that is possible.
    num_evaluations : array
        Shape (num_users,): how often the sampler evaluated the log density.
    figures : dict of array
        What else the sampler says of each user, shape (num_users,).
    prior : array
        Shape (num_draws, num_coefficients): draws from any user's prior.
    surrogate : LinearSurrogate
    history : History
    info : dict
        Of all users: sampler, likelihood, key and seconds of search and sampling.
    """

    draws: np.ndarray
    log_density: np.ndarray
    warmup: np.ndarray
    statistics: dict[str, np.ndarray]
    status: np.ndarray
    best_agreement: np.ndarray
    prior_acceptance: np.ndarray
    num_evaluations: np.ndarray
    figures: dict[str, np.ndarray]
    prior: np.ndarray
    surrogate: LinearSurrogate
    history: History
    info: dict[str, Any]

    def predictions(self) -> np.ndarray:
        """Expected answers under some of the draws, evenly taken; NaN where nothing was said.

        Returns
        -------
        array
            Shape (num_users, chain, some draws, T, d).
        """
        _, chains, draws, _ = self.draws.shape
        thinned = self.draws[:, :, :: max(1, -(-draws * chains // _NUM_PREDICTED))]
        answer = np.asarray(self.history.answer)
        shape = (*thinned.shape[:3], *answer.shape[1:])
        out = np.full(shape, np.nan, self.draws.dtype)
        with_draws = np.flatnonzero(np.isfinite(thinned[:, 0, 0, 0]))
        for users, padded in chunks_of(with_draws, _CHUNK * width()):
            flat = thinned[padded].reshape(len(padded), -1, thinned.shape[-1])
            expected = np.asarray(_expected(self.surrogate, take(self.history, padded), flat))
            expected = np.where(np.isnan(answer[padded])[:, None], np.nan, expected)[: len(users)]
            out[users] = expected.reshape(len(users), *shape[1:])
        return out


@partial(jax.jit, static_argnums=0)
def _expected(surrogate, history, thetas):
    """Expected answers under users' thetas (user, draw, coefficient)."""

    def one(history, theta):
        return surrogate.expected(theta, history.questions, history.x)

    return jax.vmap(jax.vmap(one, (None, 0)))(history, thetas)
