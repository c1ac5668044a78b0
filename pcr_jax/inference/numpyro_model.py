"""One user's posterior as a NumPyro model, to run or extend with NumPyro's own tools."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from pcr_jax.history import History, check_history
from pcr_jax.likelihoods import Likelihood, check_likelihood
from pcr_jax.surrogates import Prior, Surrogate, check_surrogate, in_scale


def numpyro_model(
    surrogate: Surrogate, history: History, likelihood: Likelihood
) -> Callable[[], Array]:
    """A NumPyro model of one user, with one site per number, such as ``"X2 <- X1"``.

    Numbers of a prior that is no box and has no ``sites`` of its own, such as `NormalMixture`, are
    deterministic functions of one site of real numbers, with the prior's density as a factor.

    Parameters
    ----------
    surrogate : Surrogate
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    likelihood : Likelihood
        `mixture`, or `relaxed`, for samplers that need a gradient. Its log probability is the
        factor ``"answers"``; its unknowns have sites as well.

    Returns
    -------
    callable
        The model, without arguments; it returns the surrogate's numbers (k,), in units of its
        scale, so that a model of your own can call it and go on from them.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the history is of several users, or at odds with the graph (see `check_history`).
    """
    check_likelihood(likelihood)
    check_surrogate(surrogate)
    surrogate, history = in_scale(surrogate, check_history(history, surrogate.graph, num_axes=1))

    own = likelihood.bound(surrogate, history)

    def model():
        theta = _sites("surrogate", surrogate.names, surrogate.prior)
        unknowns = _sites("likelihood", likelihood.names, likelihood.prior)
        expected = surrogate.expected(theta, history.questions, history.x)
        numpyro.factor("answers", own.log_prob(unknowns, expected, history.answer))
        return theta

    return model


def _sites(whose: str, names: tuple[str, ...], prior: Prior | None) -> Array:
    """A site for each name, of whatever prior; (len(names),)."""
    if prior is None:
        return jnp.zeros(0)
    each = getattr(prior, "sites", None)
    if prior.box is not None:
        ends = zip(*prior.box, strict=True)
        each = [dist.Uniform(a, b) if a < b else dist.Delta(a) for a, b in ends]
    if each is not None:
        sites = zip(names, each, strict=True)
        return jnp.stack([numpyro.sample(name, of_it) for name, of_it in sites])
    anywhere = dist.ImproperUniform(dist.constraints.real, (), (len(names),))
    numbers, log_density = prior.from_real(numpyro.sample(f"{whose}, real numbers", anywhere))
    numpyro.factor(f"{whose}, prior", log_density)
    for name, number in zip(names, numbers, strict=True):
        numpyro.deterministic(name, number)
    return numbers
