"""NaN is a value in this library: an answer not given, a user without a posterior.

JAX's debugging flag ``jax_debug_nans`` takes every NaN for a mistake.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def nan_is_a_value(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, within which ``jax_debug_nans`` is off."""

    @wraps(function)
    def allowing(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.debug_nans(False):
            return function(*args, **kwargs)

    return allowing
