"""Checks of arguments, made before anything is traced.

Every message names the argument, what was expected and what came. Values that are being traced
by JAX cannot be inspected and pass.
"""

import jax
import numpy as np


def concrete(value):
    """``value`` as a NumPy array, or None while it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def features(x, num_nodes, name="x", ndim=None):
    """Raise unless ``x`` is finite with trailing dimension ``num_nodes`` (and ``ndim`` axes)."""
    shape = np.shape(x)
    if not shape or shape[-1] != num_nodes:
        raise ValueError(
            f"Expected trailing dimensions matching ({num_nodes},) for {name}; got shape {shape}."
        )
    if ndim is not None and len(shape) != ndim:
        axes = "(num_users, num_nodes)" if ndim == 2 else "(num_nodes,)"
        raise ValueError(f"Expected {name} of shape {axes}; got shape {shape}.")
    finite(x, name)


def finite(value, name):
    """Raise unless every entry of ``value`` is finite."""
    array = concrete(value)
    if array is not None and not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise ValueError(f"Expected finite values for {name}; got {count} NaN or infinite.")


def positive(value, name):
    """Raise unless every entry of ``value`` is finite and > 0."""
    array = concrete(value)
    if array is not None and not np.all(np.isfinite(array) & (array > 0)):
        raise ValueError(f"Expected {name} > 0; got {value}.")


def non_negative(value, name):
    """Raise unless every entry of ``value`` is finite and >= 0."""
    array = concrete(value)
    if array is not None and not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(f"Expected {name} >= 0; got {value}.")


def probability(value, name):
    """Raise unless every entry of ``value`` lies in [0, 1]."""
    array = concrete(value)
    if array is not None and not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"Expected {name} in [0, 1]; got {value}.")


def count(value, name, minimum=1):
    """Raise unless ``value`` is an integer >= ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"Expected an integer {name} >= {minimum}; got {value!r}.")


def choice(value, options, name):
    """Raise unless ``value`` is one of ``options``."""
    if value not in options:
        raise ValueError(f"Expected {name} to be one of {sorted(options)}; got {value!r}.")


def instance(value, kind, name):
    """Raise unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"Expected {name} to be a {kind.__name__}; got {value!r}.")


def key(value, name="key"):
    """Raise unless ``value`` is one of JAX's random keys."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        if shape == ():
            return
        raise ValueError(f"Expected one {name}; got {shape} of them. See jax.random.split.")
    if dtype != np.uint32 or shape is None or len(shape) != 1:
        raise TypeError(
            f"Expected {name} to be a random key, as from jax.random.key(0); got {value!r}."
        )


def number(value, name):
    """Raise unless ``value`` is one real number; traced ones pass."""
    if isinstance(value, jax.core.Tracer):
        return
    if not isinstance(value, str | bytes | bool | np.bool_ | complex | None):
        array = np.asarray(value)
        if array.shape == () and array.dtype.kind in "fiu":
            return
        value = f"{type(value).__name__} of shape {array.shape}" if array.ndim else repr(value)
    else:
        value = repr(value)
    raise TypeError(f"Expected {name} to be one number; got {value}.")


def walkers(num_walkers, num_coefficients):
    """Raise unless an ensemble has at least two walkers for each coefficient."""
    if num_walkers < 2 * num_coefficients:
        raise ValueError(
            f"Expected num_walkers >= 2 * num_coefficients = {2 * num_coefficients}; "
            f"got {num_walkers}."
        )
