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
    """A NumPyro model of one user, with one site per coefficient, such as ``"X2 <- X1"``.

    Parameters
    ----------
    surrogate : Surrogate
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    likelihood : Likelihood
        `relaxed` for samplers that need a gradient. Its log probability is the factor
        ``"answers"``.

    Returns
    -------
    callable
        The model, without arguments; it returns the coefficients (num_coefficients,), so that a
        model of your own can call it and go on from them.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the history is of several users, or at odds with the graph (see `check_history`), or a
        prior is not uniform on a box.
    """
    check_likelihood(likelihood)
    check_surrogate(surrogate)
    surrogate, history = in_scale(surrogate, check_history(history, surrogate.graph, num_axes=1))

    for name, prior in (("surrogate", surrogate.prior), ("likelihood", likelihood.prior)):
        if prior is not None and prior.box is None:
            raise ValueError(f"Expected {name} with a prior that is uniform on a box; got another.")

    def model():
        theta = _sites(surrogate.names, surrogate.prior)
        unknowns = _sites(likelihood.names, likelihood.prior)
        expected = surrogate.expected(theta, history.questions, history.x)
        numpyro.factor("answers", likelihood.log_prob(unknowns, expected, history.answer))
        return theta

    return model


def _sites(names: tuple[str, ...], prior: Prior | None) -> Array:
    """A site for each name, uniform on the prior's box; (len(names),)."""
    if prior is None or prior.box is None:
        return jnp.zeros(0)
    low, high = prior.box
    sites = zip(names, low, high, strict=True)
    return jnp.stack([numpyro.sample(name, dist.Uniform(a, b)) for name, a, b in sites])
