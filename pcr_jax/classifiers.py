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
import pandas as pd
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree

# What is larger JAX copies in the background before it calls the host; where there is one core, the
# call itself occupies the thread that would do so, and both wait for ever.
_CALL_BYTES = 100_000


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


def differentiable(score: Callable[[Array], Array]) -> bool:
    """Whether a score has a gradient: JAX functions do, unless they say otherwise."""
    return getattr(score, "differentiable", True)


def on_host(score: Callable[[Array], Array]) -> bool:
    """Whether a score is computed outside JAX, as an `OutsideModel` is."""
    return getattr(score, "on_host", False)


@pytree()
class Threshold:
    """A score whose favourable decision begins at another logit. See `with_threshold`."""

    score: Any
    logit: Array

    @property
    def differentiable(self) -> bool:
        """Whether the score has a gradient."""
        return differentiable(self.score)

    def __call__(self, x: Array) -> Array:
        """The logit above the threshold's."""
        return self.score(x) - self.logit


def with_threshold(score: Callable[[Array], Array], threshold: float) -> Threshold:
    """A score that is favourable where its probability is at least ``threshold``.

    Parameters
    ----------
    score : callable
        x (d,) -> logit (), a JAX function.
    threshold : float
        In (0, 1); 0.5 leaves the decision as it is.

    Raises
    ------
    TypeError
        If ``score`` is not callable.
    ValueError
        If ``threshold`` is outside (0, 1).
    """
    if not callable(score):
        raise TypeError(f"Expected score to be callable, x (d,) -> logit (); got {score!r}.")
    if not 0 < threshold < 1:
        raise ValueError(f"Expected threshold in (0, 1); got {threshold}.")
    return Threshold(_as_pytree(score), jnp.log(threshold) - jnp.log1p(-threshold))


@pytree(static=("function",))
class OutsideModel:
    """A score computed on the host, many users at a time. See `outside_model`."""

    function: Callable[[np.ndarray], np.ndarray]

    differentiable = False
    on_host = True

    def __call__(self, x: Array) -> Array:
        """The score (...) of features (..., d) in natural units."""

        @jax.custom_batching.custom_vmap
        def score(x):
            rows = x.reshape(-1, x.shape[-1])
            most = max(1, _CALL_BYTES // (x.shape[-1] * x.dtype.itemsize))
            starts = range(0, max(1, len(rows)), most)
            parts = [self._on_host(rows[start : start + most]) for start in starts]
            return jnp.concatenate(parts).reshape(x.shape[:-1])

        @score.def_vmap
        def batched(axis_size, in_batched, x):
            return score(x), True

        return score(x)

    def _on_host(self, rows: Array) -> Array:
        """The score (n,) of rows (n, d)."""

        def host(rows):
            return np.asarray(self.function(np.asarray(rows)), rows.dtype)

        return jax.pure_callback(host, jax.ShapeDtypeStruct(rows.shape[:1], rows.dtype), rows)


def outside_model(model: Any, *, threshold: float | None = None) -> OutsideModel:
    """A score from a fitted model that is not a JAX function, such as one of scikit-learn.

    It has no gradient, which the solver ``"optimal"`` does not need.

    Parameters
    ----------
    model : object
        With ``predict_proba`` (the last column is the favourable class) or
        ``decision_function``, of features (n, d) in natural units; or a callable (n, d) -> (n,).
    threshold : float, optional
        The least favourable value: a probability (0.5 by default), or a decision value (0).

    Raises
    ------
    TypeError
        If ``model`` is neither.
    ValueError
        If ``threshold`` is a probability outside (0, 1).
    """
    if hasattr(model, "predict_proba"):
        least = 0.5 if threshold is None else threshold
        if not 0 < least < 1:
            raise ValueError(f"Expected threshold in (0, 1) for probabilities; got {threshold}.")
        return OutsideModel(_Host(model, "predict_proba", least))
    least = 0.0 if threshold is None else threshold
    if hasattr(model, "decision_function"):
        return OutsideModel(_Host(model, "decision_function", least))
    if callable(model):
        return OutsideModel(_Host(model, "__call__", least))
    raise TypeError(
        "Expected model with predict_proba or decision_function, or a callable (n, d) -> (n,); "
        f"got {model!r}."
    )


class _Host:
    """A model's method above a threshold; equal, and compiled once, for the same model."""

    def __init__(self, model, method: str, least: float):
        self.model, self.key = model, (id(model), method, least)

    def __eq__(self, other):
        return isinstance(other, _Host) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        _, method, least = self.key
        names = getattr(self.model, "feature_names_in_", None)
        values = getattr(self.model, method)(x if names is None else pd.DataFrame(x, columns=names))
        return (values[:, -1] if method == "predict_proba" else values) - least


def _as_pytree(score: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """``score`` as something that can be passed to compiled functions."""
    leaves = jax.tree.leaves(score)
    is_pytree = not (len(leaves) == 1 and leaves[0] is score)
    return score if is_pytree else jax.tree_util.Partial(score)


@jax.jit  # so that a score is traced once, not at every call
def _logit(score, x):
    return score(x)


def as_score(score: Callable[[Array], Array], num_nodes: int) -> Callable[[Array], Array]:
    """``score`` as a pytree that can be passed to compiled functions, after a trial evaluation.

    Raises
    ------
    TypeError
        If ``score`` is not callable.
    ValueError
        If it does not map features of shape (d,) to one logit of shape (), a floating-point number.
    """
    if not callable(score):
        raise TypeError(f"Expected score to be callable, x (d,) -> logit (); got {score!r}.")
    score = _as_pytree(score)
    out = jax.eval_shape(_logit, score, jax.ShapeDtypeStruct((num_nodes,), jnp.zeros(0).dtype))
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != ():
        raise ValueError(
            f"Expected score to map features of shape ({num_nodes},) to a logit of shape (); "
            f"got {jax.tree.map(lambda leaf: leaf.shape, out)}."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"Expected score to be a logit, favourable from 0 on; got {out.dtype}.")
    return score
