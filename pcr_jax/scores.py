"""What a score is: any callable ``x (d,) -> logit ()`` in natural units, favourable from 0 on.

`pcr_jax.Classifier` is such a callable and a pytree, so that compiled functions take it as an
argument and are not compiled again for every trained network. Any other callable is compiled once,
with all that it refers to: one that was changed since is to be passed as a new one. Models that are
not JAX functions are called on the host (`outside_model`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree

# What is larger JAX copies in the background before it calls the host; where there is one core, the
# call itself occupies the thread that would do so, and both wait for ever.
_CALL_BYTES = 100_000


def _said(score, name: str, default):
    """What a score says of itself, be it inside a `Partial`."""
    return getattr(score, name, getattr(getattr(score, "func", None), name, default))


def differentiable(score: Callable[[Array], Array]) -> bool:
    """Whether a score has a gradient: JAX functions do, unless they say otherwise."""
    return _said(score, "differentiable", True)


def names_of(score: Callable[[Array], Array]) -> tuple[str, ...] | None:
    """The names of the features that a score takes, in order; None if it has none."""
    return _said(score, "names", None)


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

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of its features."""
        return names_of(self.score)

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
        If ``score`` is not callable, or an `outside_model`.
    ValueError
        If ``threshold`` is outside (0, 1).
    """
    _checks.function(score, "score", _SCORE)
    if isinstance(score, OutsideModel):
        raise TypeError(
            f"Expected score to be a logit; got {score}, which is none. Say "
            "outside_model(model, threshold=...) instead."
        )
    _checks.between_0_and_1(threshold, "threshold")
    share = jnp.asarray(threshold, float)
    return Threshold(_as_pytree(score), jnp.log(share) - jnp.log1p(-share))


@pytree(static=("host",))
class OutsideModel:
    """A score computed on the host, many users at a time. See `outside_model`."""

    host: _Host

    differentiable = False
    on_host = True

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of its features."""
        return self.host.names

    def __repr__(self):
        return repr(self.host)

    def __call__(self, x: Array) -> Array:
        """The score (...) of features (..., d) in natural units."""
        if not _checks.traced(x):
            found = np.asarray(_checks.array(x, "x", names=self.names))
            _checks.features(found, found.shape[-1] if found.ndim else 0)
            rows = found.reshape(-1, found.shape[-1])
            return jnp.asarray(self.host(rows).reshape(found.shape[:-1]))

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
        return jax.pure_callback(
            lambda rows: self.host(np.asarray(rows)),
            jax.ShapeDtypeStruct(rows.shape[:1], rows.dtype),
            rows,
        )


def outside_model(
    model: Any,
    *,
    favourable: Any = None,
    threshold: float | None = None,
    names: Sequence[str] | None = None,
) -> OutsideModel:
    """A score from a fitted model that is not a JAX function, such as one of scikit-learn.

    It has no gradient, which the solver ``"optimal"`` does not need. The model is asked anew each
    time, so that one that is fitted again gives its new answers.

    Parameters
    ----------
    model : object
        With ``predict_proba`` or, for two classes, ``decision_function``, of features (n, d) in
        natural units; or a callable (n, d) -> (n,), favourable from the threshold on.
    favourable : optional
        The class that is asked for, one of ``model.classes_``; to be named unless these are 0 and
        1, or False and True, of which it is 1. A model without ``classes_`` has 0 and 1.
    threshold : float, optional
        The least favourable value: a probability of that class (0.5 by default), or a decision
        value in its favour (0).
    names : sequence of str, optional
        Of the features that the score gets, in this order: ``graph.nodes``. To be given if the
        model has ``feature_names_in_``, whose order it is then asked in.

    Raises
    ------
    TypeError
        If ``model`` is neither.
    ValueError
        If ``threshold`` is a probability outside (0, 1), ``favourable`` is not a class of the
        model or has to be named, or ``names`` are not the model's.
    """
    methods = ("predict_proba", "decision_function", "__call__")
    method = next((name for name in methods if hasattr(model, name)), None)
    if method is None or isinstance(model, type):
        raise TypeError(
            "Expected model with predict_proba or decision_function, or a callable (n, d) -> (n,); "
            f"got {_checks.shown(model)}."
        )
    if method == "predict_proba":
        least = 0.5 if threshold is None else threshold
        _checks.between_0_and_1(least, "threshold")
    else:
        least = 0.0 if threshold is None else threshold
        _checks.finite(least, "threshold", ())
    least = float(least)  # as it was given, not in JAX's precision
    if method == "__call__" and favourable is not None:
        raise ValueError(
            f"Expected no favourable class for a callable, which has none; got {favourable!r}. "
            "It is favourable from the threshold on."
        )
    given = None if names is None else _checks.names(names, "names")
    host = _Host(model, method, favourable, least, given)
    host.position()
    host.order()
    return OutsideModel(host)


class _Host:
    """A model's method above a threshold; equal, and compiled once, for the same object."""

    def __init__(self, model, method: str, favourable, least: float, names):
        self.model, self.method, self.favourable = model, method, favourable
        self.least, self.names = least, names

    def _rest(self):
        return self.method, self.favourable, self.least, self.names

    def __eq__(self, other):
        same = isinstance(other, _Host) and self.model is other.model
        return same and self._rest() == other._rest()

    def __hash__(self):  # the model is alive as long as this is
        return hash((id(self.model), self.method, self.least, self.names))

    def __repr__(self):
        said = [type(self.model).__name__]
        if self.method != "__call__":
            _, classes = self.classes()
            said.append(f"favourable={classes[self.position()]!r}")
        return f"outside_model({', '.join([*said, f'threshold={self.least:g}'])})"

    def classes(self) -> tuple[bool, list]:
        """Whether the model names its classes, and them."""
        given = getattr(self.model, "classes_", None)
        classes = [0, 1] if given is None else np.asarray(given).tolist()
        return given is not None, classes

    def position(self) -> int:
        """The favourable class's among the model's."""
        if self.method == "__call__":
            return 0
        _, classes = self.classes()
        if self.method == "decision_function" and len(classes) != 2:
            raise ValueError(
                f"Expected two classes of a model with decision_function; got {classes}. Pass a "
                "callable (n, d) -> (n,) instead."
            )
        favourable = self.favourable
        if favourable is None:
            if sorted(classes, key=str) not in ([0, 1], [False, True]):
                raise ValueError(
                    f"Expected favourable=, one of the classes {classes} of the model, which are "
                    "not 0 and 1; got none."
                )
            favourable = 1
        if not np.isscalar(favourable) or favourable not in classes:
            raise ValueError(
                f"Expected favourable to be one of the classes {classes} of the model; "
                f"got {_checks.shown(favourable)}."
            )
        return classes.index(favourable)

    def order(self) -> list[str] | None:
        """The names of the model's features in its own order; None if it has none."""
        expected = getattr(self.model, "feature_names_in_", None)
        if expected is None:
            number = getattr(self.model, "n_features_in_", None)
            if None not in (number, self.names) and len(self.names) != number:
                raise ValueError(
                    f"Expected names of the {number} features of the model; got {len(self.names)}."
                )
            return None
        if self.names is None:
            raise ValueError(
                f"Expected names= of the features that the score gets, in order, such as "
                f"graph.nodes, for a model of the features {list(expected)}; got none."
            )
        _checks.same_names(self.names, expected, "names")
        return list(expected)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        try:
            return self._above(x)
        except Exception as error:
            _raised.append(error)
            raise

    def _above(self, x: np.ndarray) -> np.ndarray:
        order, position = self.order(), self.position()
        asked = x if order is None else _checks.table(x, self.names, order)
        values = getattr(self.model, self.method)(asked)
        source = "the result of model" + ("" if self.method == "__call__" else f".{self.method}")
        shape: tuple[int, ...] = (len(x),)
        if self.method == "predict_proba":
            shape = (len(x), len(self.classes()[1]))
        values = np.asarray(values)
        if values.dtype == bool:
            values = values.astype(float)
        if values.shape != shape:
            raise ValueError(f"Expected {source} of shape {shape}; got {values.shape}.")
        if values.dtype.kind not in "fiu":
            raise TypeError(f"Expected {source} to be numbers; got {values.dtype}.")
        if np.isnan(values).any():
            count = int(np.isnan(values).reshape(len(x), -1).any(1).sum())
            raise ValueError(f"Expected {source} to be numbers; got NaN for {count} of {len(x)}.")
        if self.method == "predict_proba":
            values = values[:, position]
        elif self.method == "decision_function" and position == 0:
            values = -values
        values = values - self.least
        with np.errstate(over="ignore", under="ignore"):
            rounded = values.astype(x.dtype)
        # What is below the threshold stays below it when rounded.
        return np.where(values < 0, np.minimum(rounded, -np.finfo(x.dtype).tiny), rounded)


# What models raised of late. JAX reports it in an error of its own, and in its log.
_raised: deque[Exception] = deque(maxlen=16)
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and record.exc_info[1] in _raised)
)


def shown(score: Callable[[Array], Array]) -> str:
    """A score in words: of an outside model, its favourable class and threshold."""
    if isinstance(score, jax.tree_util.Partial) and not score.args and not score.keywords:
        return repr(score.func)
    return repr(score)


def raises_as_itself(function: Callable) -> Callable:
    """The function, from which what an outside model raises comes as it was."""

    @wraps(function)
    def run(*args, **kwargs):
        try:
            return jax.block_until_ready(function(*args, **kwargs))
        except jax.errors.JaxRuntimeError as failure:
            told = str(failure)
            for error in reversed(_raised):
                if type(error).__name__ in told and str(error) in told:
                    _raised.remove(error)
                    own = error
                    break
            else:
                raise
        raise own

    return run


def _as_pytree(score: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """``score`` as something that can be passed to compiled functions."""
    leaves = jax.tree.leaves(score)
    is_pytree = not (len(leaves) == 1 and leaves[0] is score)
    return score if is_pytree else jax.tree_util.Partial(score)


# Compiled, so that a score is traced once, not at every call.
@jax.jit
def _logit(score, x):
    return score(x)


@jax.jit
def _slope(score, x):
    return jax.grad(score)(x)


_SCORE = "x (d,) -> logit ()"


def as_score(score: Callable[[Array], Array], num_nodes: int) -> Callable[[Array], Array]:
    """``score`` as a pytree that can be passed to compiled functions, after a trial evaluation.

    Raises
    ------
    TypeError
        If ``score`` is not callable.
    ValueError
        If it does not map features of shape (d,) to one logit of shape (), a floating-point number,
        or has no gradient and does not say so.
    """
    _checks.function(score, "score", f"{_SCORE}, or pcr_jax.outside_model(...) of one")
    score = _as_pytree(score)
    like = jax.ShapeDtypeStruct((num_nodes,), jnp.zeros(0).dtype)
    out = jax.eval_shape(_logit, score, like)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != ():
        raise ValueError(
            f"Expected score to map features of shape ({num_nodes},) to a logit of shape (); "
            f"got {jax.tree.map(lambda leaf: leaf.shape, out)}."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"Expected score to be a logit, favourable from 0 on; got {out.dtype}.")
    if differentiable(score):
        try:
            jax.eval_shape(_slope, score, like)
        except Exception as error:
            raise ValueError(
                f"Expected a gradient of score; got {type(error).__name__}: {error} Set "
                "score.differentiable = False if it has none."
            ) from error
    return score


@jax.jit
def _logits(score, x):
    return jax.vmap(score)(x)


def refuse_probabilities(score: Any, x, scale, logits) -> None:
    """Raise if ``score``, cut at 0, is a probability: in [0, 1] everywhere.

    Everywhere is at ``x`` (n, d), where it is ``logits`` (n,), and 1, 10 and 100 times ``scale``
    from the first eight users, along every axis and all at once.

    Raises
    ------
    ValueError
        If it varies there and never leaves [0, 1].
    """
    if isinstance(score, Threshold):
        score, logits = score.score, logits + score.logit
    seen = np.asarray(logits)
    if not ((seen >= 0) & (seen <= 1)).all():
        return
    steps = np.concatenate([np.eye(len(scale)), np.ones((1, len(scale)))])
    moves = np.concatenate([sign * size * steps for sign in (-1, 1) for size in (1, 10, 100)])
    around = np.resize(np.asarray(x), (8, len(scale)))[:, None] + moves * np.asarray(scale)
    around = _logits(score, jnp.asarray(around.reshape(-1, len(scale)), float))
    seen = np.concatenate([seen, np.asarray(around)])
    if ((seen >= 0) & (seen <= 1)).all() and seen.min() < seen.max():
        raise ValueError(
            f"Expected score to be a logit, favourable from 0 on; got {seen.min():.3g} to "
            f"{seen.max():.3g} at the users and all around them, as of a probability. Subtract the "
            "threshold, or pass outside_model(model, threshold=...)."
        )
