"""The classifier whose decisions are to be overturned: a network, and how it is trained.

For what else can be a score see `pcr_jax.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree


@jax.custom_jvp
def tanh(x: Array) -> Array:
    """The hyperbolic tangent, whose slope is 0 only where its rounded value is 1.

    XLA's is 1, and its slope 0, from 7.9 on; the tangent, rounded to single precision, from 9.0 on.
    """
    return jnp.tanh(x)


@tanh.defjvp
def _slope_of_tanh(primals, tangents):
    (x,), (along,) = primals, tangents
    value = tanh(x)
    rest = jnp.exp(-2 * jnp.abs(x))
    rounded = jnp.where(jnp.abs(x) > 7, 1 - 2 * rest / (1 + rest), jnp.abs(value))
    return value, (1 - rounded) * (1 + rounded) * along


def widths(hidden) -> tuple[int, ...]:
    """Of the hidden layers, checked."""
    found = _checks.entries_of(hidden, "hidden", int)
    if found.ndim != 1:
        raise ValueError(f"Expected hidden of shape (num_layers,); got {found.shape}.")
    for width in found:
        _checks.count(width, "width in hidden")
    return tuple(found.tolist())


class MLP(nn.Module):
    """A multi-layer perceptron with tanh units and one output, the logit."""

    hidden: tuple[int, ...] = (100, 100)

    def __post_init__(self):
        widths(self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(self, x):
        """Logits (...) of features (..., d)."""
        # In full precision, which accelerators give only if asked: an action found with less
        # would not be valid with more.
        dense = partial(nn.Dense, param_dtype=jnp.result_type(float), precision="highest")
        for width in self.hidden:
            x = tanh(dense(width)(x))
        return dense(1)(x)[..., 0]


@pytree(static=("module", "names"))
class Classifier:
    """A flax module with its parameters, applied to standardised features.

    Parameters
    ----------
    module : flax.linen.Module
        Maps (..., d) to logits (...).
    params : pytree
        Its variables.
    loc, scale : Array
        Shape (d,), natural units: the module sees ``(x - loc) / scale``.
    names : tuple of str, optional
        Of the features, in this order; recourse compares them with the nodes of the graph.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If shapes disagree, ``loc`` is not finite, ``scale`` not positive, ``params`` are not the
        module's, or it has not one logit.
    """

    module: Any
    params: Any
    loc: Array
    scale: Array
    names: tuple[str, ...] | None = None

    def __post_init__(self):
        _checks.instance(self.module, nn.Module, "module")
        names = None if self.names is None else _checks.names(self.names, "names")
        if names is None:
            _checks.unnamed(self.loc, "loc")
            _checks.unnamed(self.scale, "scale")
        loc = _checks.finite(self.loc, "loc", ("d",), names=names)
        scale = _checks.positive(self.scale, "scale", loc.shape, names=names)
        if names is not None and len(names) != len(loc):
            raise ValueError(f"Expected names of {len(loc)} features; got {len(names)}.")
        try:
            logit = jax.eval_shape(self.module.apply, self.params, loc)
        except Exception as error:
            raise ValueError(
                f"Expected params of the module, for {len(loc)} features; got "
                f"{_checks.shown(self.params)}, of which it says: {error}"
            ) from None
        if getattr(logit, "shape", None) != ():
            raise ValueError(f"Expected a module with one logit, of shape (); got {logit}.")
        for name, value in (("loc", loc), ("scale", scale), ("names", names)):
            object.__setattr__(self, name, value)

    def __call__(self, x: Array) -> Array:
        """The logit (...) of features (..., d) in natural units."""
        return self.module.apply(self.params, (x - self.loc) / self.scale)


@partial(jax.jit, static_argnames=("module", "epochs"))
def _fit(key, module, x, y, learning_rate, epochs):
    params = module.init(key, x)
    optimiser = optax.adam(learning_rate)

    def loss(params):
        return optax.sigmoid_binary_cross_entropy(module.apply(params, x), y).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), length=epochs)
    return params


def train_mlp(
    key: Array,
    x: Array,
    y: Array,
    *,
    hidden: Sequence[int] = (100, 100),
    learning_rate: float = 0.01,
    epochs: int = 500,
) -> Classifier:
    """Train an MLP with full-batch Adam on the binary cross-entropy.

    Parameters
    ----------
    key : Array
        Random key of the initial weights.
    x : Array or DataFrame
        Shape (num_samples, d), natural units; standardised by their own mean and standard
        deviation. The columns of a table are the `Classifier`'s names.
    y : Array
        Shape (num_samples,), 0 or 1, or boolean.
    hidden, learning_rate, epochs
        The paper's classifier has two hidden layers; the rest is in its released code
        (which uses ``learning_rate=0.5, epochs=100`` and saturates).

    Raises
    ------
    TypeError
        If ``key`` is none, or ``x`` or ``y`` are no numbers.
    ValueError
        If ``x`` is not finite or a feature is constant, ``y`` is not 0/1 or of another length,
        or a setting is out of range.
    """
    _checks.key(key)
    names = _checks.names_of(x)
    rows = _checks.rows_of(x)
    x = _checks.finite(x, "x", ("num_samples", "d"))
    if isinstance(y, np.ndarray | Array) and y.dtype == np.bool_:
        y = y.astype(float)
    y = _checks.array(y, "y", x.shape[:1], rows=rows)
    if not np.all(np.isin(np.asarray(y), (0.0, 1.0))):
        raise ValueError("Expected y to be 0 or 1; got other values.")
    learning_rate = _checks.positive(learning_rate, "learning_rate", ())
    _checks.count(epochs, "epochs")
    module = MLP(widths(hidden))
    loc, scale = x.mean(0), x.std(0)
    _checks.positive(scale, "the standard deviation of every feature of x")
    params = _fit(key, module, (x - loc) / scale, y, learning_rate, epochs)
    return Classifier(module, params, loc, scale, names)
