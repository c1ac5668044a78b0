"""Mechanisms whose noise follows from the value, however it enters: a function and its inverse.

The noise may be bent (`bounded`), be a factor (`multiplicative`), or be spread differently by the
causes (`location_scale`). Where the value rises with the noise, counterfactuals are those of any
other noise of which this holds (Lu et al. 2020, "Sample-efficient reinforcement learning via
counterfactual-based data augmentation").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logit

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.mechanisms.additive import Opposite, linear

_LEAST = 1e-6  # of a bounded value's distance to its bounds, by that between them


@pytree(static=("forward", "inverse"))
class Invertible:
    """``X_j := f_j(Pa_j, U_j)``, of which f and its inverse in the noise are given.

    >>> import jax.numpy as jnp, pcr_jax as pcr
    >>> def forward(coefficients, parents, noise):
    ...     return coefficients[..., 0] * parents[..., 0] + jnp.sinh(noise)
    >>> def inverse(coefficients, parents, value):
    ...     return jnp.arcsinh(value - coefficients[..., 0] * parents[..., 0])
    >>> heavy = pcr.Invertible(jnp.array([0.5]), forward, inverse)
    >>> noise = heavy.abduct(jnp.array([2.0]), jnp.array(4.0))
    >>> round(float(heavy.assign(jnp.array([2.0]), noise)), 3)
    4.0

    Parameters
    ----------
    coefficients : Array
        Shape (k,); leading axes for a batch of SCMs.
    forward : callable
        ``forward(coefficients, parents, noise) -> value``, with parents of shape
        (..., num_parents), and noise and value of shape (...). Like ``inverse`` to be defined once
        at module level: its identity is part of what `jax.jit` caches on.
    inverse : callable
        ``inverse(coefficients, parents, value) -> noise``.

    Raises
    ------
    TypeError
        If ``coefficients`` are no numbers, or a function is not callable.
    ValueError
        If ``coefficients`` have no axis.
    """

    coefficients: Array
    forward: Callable[[Array, Array, Array], Array]
    inverse: Callable[[Array, Array, Array], Array]

    invertible, linear = True, False

    def __post_init__(self):
        coefficients = _checks.reported(self.coefficients, "coefficients")
        if not coefficients.ndim:
            raise ValueError("Expected coefficients of shape (k,); got ().")
        object.__setattr__(self, "coefficients", coefficients)
        _checks.function(self.forward, "forward", "(coefficients, parents, noise) -> value")
        _checks.function(self.inverse, "inverse", "(coefficients, parents, value) -> noise")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients."""
        return self.coefficients.shape[:-1]

    def check(self, num_parents: int, node: str) -> None:
        """Raise ValueError unless both functions take so many parents, and give a number."""
        dtype = self.coefficients.dtype
        shapes = self.coefficients.shape[-1:], (num_parents,), ()
        arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        for name in ("forward", "inverse"):
            try:
                came: object = jax.eval_shape(getattr(self, name), *arguments).shape
            except Exception as error:
                came = f"{type(error).__name__}: {error}"
            if came != ():
                raise ValueError(
                    f"Expected {name} of node {node!r} to give a number of shape () from "
                    f"{shapes[0][0]} coefficients and {num_parents} parents; got {came}."
                )

    def assign(self, parents: Array, noise: Array) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        return self.forward(self.coefficients, parents, noise)

    def abduct(self, parents: Array, value: Array, unit: Array | None = None) -> Array:
        """See `pcr_jax.mechanisms.base.Assignment`."""
        return self.inverse(self.coefficients, parents, value)

    def inverted(self) -> Invertible:
        """The mechanism with the causes' signs changed; even functions of them stay the same."""
        return Invertible(self.coefficients, Opposite(self.forward), Opposite(self.inverse))


@dataclass(frozen=True)
class _Bounded:
    function: Callable

    def __call__(self, coefficients, parents, noise):
        low, high = coefficients[..., 0], coefficients[..., 1]
        level = self.function(coefficients[..., 2:], parents) + noise
        return low + (high - low) * jax.nn.sigmoid(level)


@dataclass(frozen=True)
class _FromBounded:
    function: Callable

    def __call__(self, coefficients, parents, value):
        low, high = coefficients[..., 0], coefficients[..., 1]
        share = jnp.clip((value - low) / (high - low), _LEAST, 1 - _LEAST)
        return logit(share) - self.function(coefficients[..., 2:], parents)


def bounded(coefficients, low: float, high: float, function=linear) -> Invertible:
    """``X_j := low + (high - low) s(f_j(Pa_j) + U_j)`` with the logistic function s.

    A value that is observed outside the bounds is taken for the nearest within.

    Parameters
    ----------
    coefficients : Array
        Shape (k,); leading axes for a batch of SCMs.
    low, high : float
        Natural units.
    function : callable
        f_j as of `Mechanism`.

    Raises
    ------
    ValueError
        If not ``low < high``.
    """
    low, high = (float(_checks.finite(v, n, ())) for v, n in ((low, "low"), (high, "high")))
    if not low < high:
        raise ValueError(f"Expected low < high; got {low} and {high}.")
    coefficients = _checks.reported(coefficients, "coefficients")
    ends = jnp.broadcast_to(jnp.array([low, high], float), (*coefficients.shape[:-1], 2))
    both = jnp.concatenate([ends, coefficients], -1)
    return Invertible(both, _Bounded(function), _FromBounded(function))


@dataclass(frozen=True)
class _Times:
    function: Callable

    def __call__(self, coefficients, parents, noise):
        return self.function(coefficients, parents) * noise


@dataclass(frozen=True)
class _Divided:
    function: Callable

    def __call__(self, coefficients, parents, value):
        return value / self.function(coefficients, parents)


def multiplicative(coefficients, function=linear) -> Invertible:
    """``X_j := f_j(Pa_j) U_j``; nothing can be abducted where f_j is 0.

    Parameters
    ----------
    coefficients : Array
        Shape (k,); leading axes for a batch of SCMs.
    function : callable
        f_j as of `Mechanism`.
    """
    return Invertible(coefficients, _Times(function), _Divided(function))


@dataclass(frozen=True)
class _Spread:
    location: Callable
    scale: Callable
    num: int

    def __call__(self, coefficients, parents, noise):
        scale = self.scale(coefficients[..., self.num :], parents)
        return self.location(coefficients[..., : self.num], parents) + scale * noise


@dataclass(frozen=True)
class _Standardised:
    location: Callable
    scale: Callable
    num: int

    def __call__(self, coefficients, parents, value):
        scale = self.scale(coefficients[..., self.num :], parents)
        return (value - self.location(coefficients[..., : self.num], parents)) / scale


def location_scale(coefficients, scale_coefficients, location=linear, *, scale) -> Invertible:
    """``X_j := f_j(Pa_j) + h_j(Pa_j) U_j``; nothing can be abducted where h_j is 0.

    Parameters
    ----------
    coefficients, scale_coefficients : Array
        Of f_j and of h_j; shape (k,) and (l,), leading axes for a batch of SCMs.
    location, scale : callable
        f_j and h_j as of `Mechanism`.
    """
    named = {"coefficients": coefficients, "scale_coefficients": scale_coefficients}
    first, second = (_checks.reported(value, name) for name, value in named.items())
    _checks.function(location, "location", "(coefficients, parents) -> value")
    _checks.function(scale, "scale", "(coefficients, parents) -> value")
    functions = location, scale, first.shape[-1]
    both = jnp.concatenate([first, second], -1)
    return Invertible(both, _Spread(*functions), _Standardised(*functions))
