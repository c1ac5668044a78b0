"""What inference finds: every user's draws, and how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.batching import chunks_of, take, width
from pcr_jax.history import History
from pcr_jax.likelihoods import Likelihood
from pcr_jax.scm import SCM
from pcr_jax.surrogates import Surrogate, for_users, in_scale

if TYPE_CHECKING:
    from pcr_jax.inference.fit import Fit

_CHUNK = 32  # users whose predictions are made at once, for each unit of `width`
_MAPPED = 64  # draws of each of them whose answers are looked at at once
_NUM_PREDICTED = 20  # draws per user whose predictions are made, at most


@dataclass(frozen=True)
class Posteriors:
    """Every user's posterior, as NumPy's arrays with users first.

    A chain is an independent chain, ensemble or run, with walkers folded into draws, step by step.
    Draws of a user without a posterior are NaN.

    Attributes
    ----------
    draws : array
        Shape (num_users, chain, draw, k), of the surrogate's numbers.
    unknowns : array
        Shape (num_users, chain, draw, number of the likelihood's unknowns).
    log_density : array
        Shape (num_users, chain, draw).
    warmup : array
        Shape (num_users, chain, warm-up draw, k).
    statistics : dict of array
        What else the sampler says of each draw, shape (num_users, chain, draw).
    status : array
        Shape (num_users,): see `PosteriorStatus`.
    best_agreement : array
        Shape (num_users,): the largest share of answers with which any point looked at agreed; NaN
        if the likelihood has no hard support.
    prior_acceptance : array
        Shape (num_users,): the estimated share of the prior that is possible; NaN if it was not
        searched.
    num_evaluations : array
        Shape (num_users,): how often the sampler evaluated the log density.
    figures : dict of array
        What else the sampler says of each user, shape (num_users,).
    prior : array or None
        Shape (num_draws, k): draws from any user's prior; None if users have priors of their own.
    surrogate : Surrogate
    likelihood : Likelihood
    history : History
    info : dict
        Of all users: sampler, likelihood, key and seconds of search and sampling.
    """

    draws: np.ndarray
    unknowns: np.ndarray
    log_density: np.ndarray
    warmup: np.ndarray
    statistics: dict[str, np.ndarray]
    status: np.ndarray
    best_agreement: np.ndarray
    prior_acceptance: np.ndarray
    num_evaluations: np.ndarray
    figures: dict[str, np.ndarray]
    prior: np.ndarray | None
    surrogate: Surrogate
    likelihood: Likelihood
    history: History
    info: dict[str, Any]

    @property
    def flat(self) -> np.ndarray:
        """Draws of all that is unknown, (num_users, n, dim): by chain, walker and step."""
        z = np.concatenate([self.draws, self.unknowns], -1)
        return _by_walker(z, self.info["num_walkers"])

    @cached_property
    def fit(self) -> Fit:
        """How probably no SCM of the surrogate fits each user's answers, see `Fit`."""
        from pcr_jax.inference.fit import judged  # which imports what imports this module

        return judged(self)

    @nan_is_a_value
    def scms(self, draws: int | None = None) -> SCM:
        """The users' SCMs under their posteriors.

        Parameters
        ----------
        draws : int, optional
            How many per user, evenly taken over chains, walkers and steps. None, the default: one
            SCM per user, with the posterior mean of the surrogate's numbers. Of users whose answers
            no SCM of the surrogate fits, so many are moved as that is probable (`fit`), each to
            answer one question at random as an SCM that fits.

        Returns
        -------
        SCM
            Leaves with leading axes (num_users,), or (num_users, draws). A user without a posterior
            has NaN coefficients, which `find_recourse` reports as a status.

        Raises
        ------
        ValueError
            If ``draws`` is no number of draws that there are.
        """
        theta = reduced(self.draws, self.info["num_walkers"], draws)
        if draws is not None and self.fit.poor.any():
            from pcr_jax.inference.fit import with_misfit  # which imports what imports this module

            theta = with_misfit(self, theta)

        def one(surrogate, theta):
            return surrogate.scm(theta)

        each = one if draws is None else jax.vmap(one, (None, 0))
        return jax.vmap(each)(for_users(self.surrogate, len(theta)), theta)

    def only(self, users: slice) -> Posteriors:
        """Those of some of the users."""
        told = ("status", "best_agreement", "prior_acceptance", "num_evaluations", "log_density")
        by_user = (*told, "draws", "unknowns", "warmup", "statistics", "figures", "history")
        return replace(self, **{name: take(getattr(self, name), users) for name in by_user})

    def to_arviz(self, users: Sequence[int] | None = None):
        """All that is known, as ArviZ data.

        Parameters
        ----------
        users : sequence of int, optional
            What to call them; 0, 1, ... by default.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            ``posterior`` (and ``warmup_posterior``) with ``theta`` of dims (chain, draw, user,
            coefficient), a chain being an independent chain, ensemble or run, with walkers folded
            into draws, step by step, and what is unknown to the likelihood under its names;
            ``sample_stats`` with ``lp`` and what else the sampler says; ``prior`` with draws of
            ``theta`` for any user; ``posterior_predictive`` with the expected ``answer`` under some
            of the draws; ``log_likelihood`` of each ``answer``, NaN where there is none, if the
            likelihood has one (`az.loo` takes one user's); ``observed_data`` with the answers;
            ``constant_data`` with the questions, half the widths of intervals where there are some,
            the users' features, and per user ``status`` (see `PosteriorStatus`),
            ``best_agreement``, ``prior_acceptance``, ``num_evaluations``, and the ``log_evidence``
            where the sampler finds it. Attributes tell the graph, sampler, likelihood, versions
            and seconds.
        """
        from pcr_jax.inference.arviz_data import to_arviz  # which imports this module

        return to_arviz(self, users)

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
        surrogates = for_users(self.surrogate, len(answer))
        with_draws = np.flatnonzero(np.isfinite(thinned[:, 0, 0, 0]))
        for users, padded in chunks_of(with_draws, _CHUNK * width()):
            flat = thinned[padded].reshape(len(padded), -1, thinned.shape[-1])
            expected = np.asarray(_expected(*take((surrogates, self.history), padded), flat))
            expected = np.where(np.isnan(answer[padded])[:, None], np.nan, expected)[: len(users)]
            out[users] = expected.reshape(len(users), *shape[1:])
        return out

    def of_answers(self, what: str, draws: int | None = None) -> np.ndarray:
        """A method of the likelihood that tells something of each answer, under draws.

        Parameters
        ----------
        what : str
            Such as ``"pointwise"``: (unknowns, expected, answer) -> (T,).
        draws : int, optional
            How many, evenly taken; all by default, chain by chain.

        Returns
        -------
        array
            Shape (num_users, draws, T); NaN where there is no answer, or no posterior.
        """
        z = np.concatenate([self.draws, self.unknowns], -1)
        z = z.reshape(len(z), -1, z.shape[-1])
        if draws is not None:
            z = self.flat[:, (np.arange(draws) * z.shape[1]) // draws]
        answered = ~np.isnan(np.asarray(self.history.answer)).all(-1)
        out = np.full((*z.shape[:2], answered.shape[1]), np.nan, z.dtype)
        model = in_scale(self.surrogate, self.history)
        model = for_users(model[0], len(z)), model[1]
        with_draws = np.flatnonzero(np.isfinite(z[:, 0, 0]))
        for users, padded in chunks_of(with_draws, _CHUNK * width()):
            found = _of_answers(what, self.likelihood, *take(model, padded), z[padded])
            kept = np.asarray(found)[: len(users)]
            out[users] = np.where(answered[users][:, None], kept, np.nan)
        return out


@partial(jax.jit, static_argnums=0)
def _of_answers(what, likelihood, surrogates, histories, zs):
    """What the likelihood's method tells of users' answers under zs (user, draw, dim)."""

    def one(surrogate, history, zs):
        tell, k = getattr(likelihood.bound(surrogate, history), what), len(surrogate.names)

        def under(z):
            expected = surrogate.expected(z[:k], history.questions, history.x)
            return tell(z[k:], expected, history.answer)

        return jax.lax.map(under, zs, batch_size=_MAPPED)

    return jax.vmap(one)(surrogates, histories, zs)


@jax.jit
def _expected(surrogates, history, thetas):
    """Expected answers under users' thetas (user, draw, k)."""

    def one(surrogate, history, theta):
        return surrogate.expected(theta, history.questions, history.x)

    return jax.vmap(jax.vmap(one, (None, None, 0)))(surrogates, history, thetas)


def _by_walker(draws: np.ndarray, num_walkers: int) -> np.ndarray:
    """Draws (user, chain, draw, k), walkers folded in, as (user, n, k), walker by walker."""
    users, chains, num, k = draws.shape
    walkers = num_walkers if num % num_walkers == 0 else 1  # one draw of NaN: nobody has any
    apart = draws.reshape(users, chains, num // walkers, walkers, k)
    return apart.swapaxes(2, 3).reshape(users, chains * num, k)


def reduced(draws: np.ndarray, num_walkers: int, num: int | None) -> Array:
    """The mean (user, k) of draws (user, chain, draw, k), or ``num`` of them (user, num, k).

    Those are evenly taken over chains, walkers and steps.
    """
    if num is None:
        return jnp.asarray(draws.reshape(len(draws), -1, draws.shape[-1])).mean(1)
    _checks.count(num, "draws")
    flat = _by_walker(draws, num_walkers)
    if np.isnan(flat).all():
        return jnp.full((len(flat), num, flat.shape[-1]), jnp.nan)
    if num > flat.shape[1]:
        raise ValueError(f"Expected draws of at most {flat.shape[1]} per user; got {num}.")
    return jnp.asarray(flat[:, (np.arange(num) * flat.shape[1]) // num])
