"""Whether arguments of inference go together."""

from pcr_jax import _checks
from pcr_jax.likelihoods import Tolerance
from pcr_jax.surrogates import LinearSurrogate


def check_model(surrogate: LinearSurrogate, likelihood: Tolerance) -> None:
    """Raise TypeError unless both are what their names say."""
    _checks.instance(surrogate, LinearSurrogate, "surrogate")
    _checks.instance(likelihood, Tolerance, "likelihood")
