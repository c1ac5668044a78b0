"""The classifier whose decisions are to be overturned.

A score is any callable ``x (d,) -> logit ()`` in natural units; at or above 0 the decision is
favourable. `Classifier` is such a callable and a pytree, so that compiled functions take it as an
argument and are not compiled again for every trained network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class MLP(nn.Module):
    """A multi-layer perceptron with tanh units and one output, the logit."""

    hidden: tuple[int, ...] = (100, 100)

    @nn.compact
    def __call__(self, x):
        """Logits (...) of features (..., d)."""
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(1)(x)[..., 0]


@pytree(static=("module",))
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
    """

    module: Any
    params: Any
    loc: Array
    scale: Array

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
    x : Array
        Shape (num_samples, d), natural units; standardised by their own mean and standard
        deviation.
    y : Array
        Shape (num_samples,), 0 or 1.
    hidden, learning_rate, epochs
        The paper's classifier has two hidden layers; the rest is in its released code
        (which uses ``learning_rate=0.5, epochs=100`` and saturates).

    Raises
    ------
    ValueError
        If ``x`` is not finite or a feature is constant, ``y`` is not 0/1 or of another length,
        or a setting is out of range.
    """
    x, y = jnp.asarray(x, float), jnp.asarray(y, float)
    _checks.features(x, x.shape[-1] if x.ndim else 0, ndim=2)
    if y.shape != x.shape[:1]:
        raise ValueError(f"Expected y of shape {x.shape[:1]}; got {y.shape}.")
    if not np.all(np.isin(np.asarray(y), (0.0, 1.0))):
        raise ValueError("Expected y to be 0 or 1; got other values.")
    _checks.positive(learning_rate, "learning_rate")
    _checks.count(epochs, "epochs")
    for width in hidden:
        _checks.count(width, "width in hidden")
    loc, scale = x.mean(0), x.std(0)
    _checks.positive(scale, "the standard deviation of every feature of x")
    module = MLP(tuple(hidden))
    params = _fit(key, module, (x - loc) / scale, y, learning_rate, epochs)
    return Classifier(module, params, loc, scale)


def as_score(score: Callable[[Array], Array], num_nodes: int) -> Callable[[Array], Array]:
    """``score`` as a pytree that can be passed to compiled functions, after a trial evaluation.

    Raises
    ------
    TypeError
        If ``score`` is not callable.
    ValueError
        If it does not map features of shape (d,) to one logit of shape ().
    """
    if not callable(score):
        raise TypeError(f"Expected score to be callable, x (d,) -> logit (); got {score!r}.")
    out = jax.eval_shape(score, jax.ShapeDtypeStruct((num_nodes,), jnp.zeros(0).dtype))
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != ():
        raise ValueError(
            f"Expected score to map features of shape ({num_nodes},) to a logit of shape (); "
            f"got {jax.tree.map(lambda leaf: leaf.shape, out)}."
        )
    leaves = jax.tree.leaves(score)
    is_pytree = not (len(leaves) == 1 and leaves[0] is score)
    return score if is_pytree else jax.tree_util.Partial(score)
