"""Estimating the respondents' SCMs: the posteriors of every repetition, and the sweeps.

Section 5.1 of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import least_squares

from pcr_jax import library
from pcr_jax.actions import Action
from pcr_jax.batching import take
from pcr_jax.elicitation import RandomDesign, SimulatedUser, elicit
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.history import History
from pcr_jax.inference import SAMPLERS, PosteriorStatus, Zeus, infer
from pcr_jax.inference.arviz_data import coefficients_of
from pcr_jax.likelihoods import Likelihood, relaxed, tolerance
from pcr_jax.scm import SCM
from pcr_jax.surrogates import LinearSurrogate, linear_surrogate


def experiment_key(*path: int) -> Array:
    """The random key of one part of the experiment, a function of the part alone."""
    key = jax.random.key(0)
    for index in path:
        key = jax.random.fold_in(key, index)
    return key


def scm_index(name: str) -> int:
    """The position of an SCM in the library, for keys."""
    return list(library.SCMS).index(name)


def surrogate_of(protocol: Protocol, truth: SCM) -> LinearSurrogate:
    """The surrogate that the protocol infers."""
    return linear_surrogate(truth.graph, noise_mean=protocol.noise_mean)


def sampler_of(protocol: Protocol, scm: str, name: str):
    """The sampler of that name: zeus with the protocol's settings for this SCM."""
    if name == "zeus":
        return Zeus(*dict(protocol.zeus)[scm])
    return SAMPLERS[name]()


def likelihood_of(sampler, sigma: float, beta: float) -> Likelihood:
    """The paper's likelihood, relaxed for a sampler that needs a gradient."""
    return (relaxed if sampler.needs_gradient else tolerance)(sigma, beta)


def ask_respondents(
    key: Array, truth: SCM, alpha: float, num_respondents: int, num_queries: int, room: int
) -> History:
    """Histories of simulated respondents who err with theta* (Eq. 4), padded to ``room``."""
    respondent = SimulatedUser(truth, error_rate=alpha, wrong=library.theta_star())
    # Population questions are about nobody's features in particular.
    x = jnp.zeros((num_respondents, truth.num_nodes))
    room_left = History.empty(x, room)
    design = RandomDesign(0.0, 1.0, individual=False)
    return elicit(key, respondent, x, num_queries=num_queries, design=design, history=room_left)


def posterior(protocol: Protocol, scm: str, sampler: str):
    """The posteriors of all repetitions' respondents, as ArviZ data.

    User = repetition * respondents + r.
    """
    truth, chosen = library.get(scm), sampler_of(protocol, scm, sampler)
    k_ask, k_infer = jax.random.split(experiment_key(scm_index(scm), 0))
    num_respondents = protocol.seeds * protocol.respondents
    num_queries = protocol.num_queries
    history = ask_respondents(
        k_ask, truth, protocol.alpha, num_respondents, num_queries, num_queries
    )
    return infer(
        k_infer,
        surrogate_of(protocol, truth),
        history,
        likelihood=likelihood_of(chosen, dict(protocol.sigma)[scm], protocol.beta),
        sampler=chosen,
    ).to_arviz()


def estimated_coefficients(protocol: Protocol, idata, seed: int) -> np.ndarray:
    """The posterior mean of one repetition, over its respondents who have a posterior."""
    means = coefficients_of(idata).mean((0, 1))  # (user, coefficient)
    mine = means[seed * protocol.respondents : (seed + 1) * protocol.respondents]
    mine = mine[np.isfinite(mine).all(1)]
    return mine.mean(0) if len(mine) else np.full(means.shape[1], np.nan)


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep of section 5.1."""

    sweep: str
    value: float
    alpha: float
    beta: float
    sigma: float
    num_queries: int


def sweep_points(protocol: Protocol, scm: str) -> list[SweepPoint]:
    """Every point of the protocol's sweeps; none without sweep respondents."""
    if not protocol.sweep_respondents:
        return []
    sigma, beta, queries = dict(protocol.sigma)[scm], protocol.beta, protocol.num_queries
    wide = protocol.sweep_alpha_sigma
    return [
        *(SweepPoint("alpha_beta", a, a, a, wide, queries) for a in protocol.sweep_alpha),
        *(SweepPoint("alpha", a, a, beta, wide, queries) for a in protocol.sweep_alpha),
        *(SweepPoint("sigma", s, protocol.alpha, beta, s, queries) for s in protocol.sweep_sigma),
        *(
            SweepPoint("num_queries", t, protocol.alpha, beta, sigma, t)
            for t in protocol.sweep_num_queries
        ),
    ]


def first_alike(points: list[SweepPoint], index: int) -> int:
    """The first point with the settings of that one: sweeps cross, and posteriors are dear."""

    def settings(point):
        return replace(point, sweep="", value=0.0)

    return [settings(point) for point in points].index(settings(points[index]))


@jax.jit
def _noiseless_answers(truth: SCM, noise: Array, history: History) -> Array:
    def one(node, shift):
        return truth.predict(noise, Action.shift_node(node, shift, truth.num_nodes)).mean(0)

    return jax.vmap(one)(history.questions.node, history.questions.shift)


@jax.jit
def _misfit(surrogate: LinearSurrogate, theta: Array, history: History, answers: Array) -> Array:
    expected = surrogate.expected(theta, history.questions, history.x)
    return jnp.where(jnp.isnan(history.answer), 0.0, expected - answers).ravel()


_misfit_jacobian = jax.jit(jax.jacfwd(_misfit, argnums=1))


def _middle(surrogate: LinearSurrogate) -> np.ndarray:
    """The prior's medians, (num_coefficients,)."""
    return np.asarray(surrogate.prior.from_unit(jnp.full(len(surrogate.names), 0.5)))


def linear_projection(
    key: Array, truth: SCM, surrogate: LinearSurrogate, history: History
) -> np.ndarray:
    """Coefficients, within the prior's box, that fit one user's noiseless answers best.

    The yardstick of an SCM without coefficients of its own: least squares between the
    surrogate's expected answers and the true SCM's (means of 20,000 draws) to the same queries.
    """
    answers = _noiseless_answers(truth, truth.sample_noise(key, 20_000), history)
    fit = least_squares(
        lambda theta: np.asarray(_misfit(surrogate, theta, history, answers), float),
        _middle(surrogate),
        jac=lambda theta: np.asarray(_misfit_jacobian(surrogate, theta, history, answers), float),
        bounds=tuple(np.asarray(surrogate.prior.box, float)),
    )
    return fit.x


def sweep_rows(protocol: Protocol, scm: str, point: SweepPoint, sampler: str) -> list[dict]:
    """One row of estimation.csv per respondent and coefficient.

    The same respondents answer at every point, so that points are compared in pairs.
    """
    truth = library.get(scm)
    surrogate = surrogate_of(protocol, truth)
    k_ask, k_infer, k_projection = jax.random.split(experiment_key(scm_index(scm), 1), 3)
    room = max(protocol.num_queries, *protocol.sweep_num_queries)
    num_respondents = protocol.sweep_respondents
    chosen = sampler_of(protocol, scm, sampler)
    history = ask_respondents(k_ask, truth, point.alpha, num_respondents, point.num_queries, room)
    posteriors = infer(
        k_infer,
        surrogate,
        history,
        likelihood=likelihood_of(chosen, point.sigma, point.beta),
        sampler=chosen,
    )
    draws, middle = posteriors.draws, _middle(surrogate)
    rows = []
    for r in range(num_respondents):
        one = take(history, r)
        true = (
            truth.coefficients
            if truth.linear
            else linear_projection(k_projection, truth, surrogate, one)
        )
        for c, name in enumerate(surrogate.names):
            mean, sd = draws[r, :, :, c].mean(), draws[r, :, :, c].std()
            rows.append(
                {
                    "scm": scm,
                    "sweep": point.sweep,
                    "value": point.value,
                    "repetition": r,
                    "coefficient": name,
                    "true": float(true[c]),
                    "posterior_mean": float(mean),
                    "posterior_sd": float(sd),
                    "absolute_error": float(abs(mean - true[c])),
                    "prior_error": float(abs(middle[c] - true[c])),
                    "status": PosteriorStatus(posteriors.status[r]).name,
                }
            )
    return rows
