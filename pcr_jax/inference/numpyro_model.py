"""One user's posterior as a NumPyro model, to run or extend with NumPyro's own tools."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from pcr_jax.history import History, check_history
from pcr_jax.inference.target import check_model
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate


def numpyro_model(
    surrogate: LinearSurrogate, history: History, likelihood: Tolerance
) -> Callable[[], Array]:
    """A NumPyro model of one user, with one site per coefficient, such as ``"X2 <- X1"``.

    Parameters
    ----------
    surrogate : LinearSurrogate
    history : History
        Of one user: ``node`` and ``shift`` of shape (T,), ``answer`` of shape (T, d).
    likelihood : Tolerance
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
        If the history is of several users, or at odds with the graph (see `check_history`).
    """
    check_model(surrogate, likelihood)
    history = check_history(history, surrogate.graph, num_axes=1)

    def model():
        box = dist.Uniform(surrogate.low, surrogate.high)
        theta = jnp.stack([numpyro.sample(name, box) for name in surrogate.coefficient_names])
        expected = surrogate.expected(theta, history.questions, history.x)
        numpyro.factor("answers", likelihood.log_prob(expected, history.answer))
        return theta

    return model
