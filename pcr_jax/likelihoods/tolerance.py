"""At least a share of the answers lies within a tolerance: the paper's likelihood."""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.likelihoods.base import HardSupport

TEMPERATURE = 0.05
"""Of `relaxed`, by default; chosen in ``benchmarks/quality/posterior.py``."""

# Slope of the path on which samplers approach the indicator, per tolerance of distance.
_PATH_SLOPE = 200.0

# What `Relaxed.reach` leaves out weighs exp(-15) of what is possible, were the likelihood of that
# 1 throughout; it may be smaller by some powers of e.
_NEGLIGIBLE = 15.0


def _distances(norm: str, expected: Array, answer: Array) -> tuple[list[Array], list[Array]]:
    """Of each query, the distance of the answer from ``expected``, and whether it was answered.

    Number by number: XLA fuses that, over a batch of ``expected``, into one loop, some thirty
    times faster than reductions over axes as short as these.
    """
    expected = _checks.finite(expected, "expected", ("T", "d"))
    answer = _checks.reported(answer, "answer", expected.shape)
    distances, answered = [], []
    for row, said in zip(jnp.unstack(expected), jnp.unstack(answer), strict=True):
        numbers = list(zip(jnp.unstack(row), jnp.unstack(said), strict=True))
        reported = [~jnp.isnan(s) for _, s in numbers]
        # Gradients pass through both sides of a `where`: neither may be NaN.
        gaps = [
            jnp.where(r, e, 0.0) - jnp.where(r, s, 0.0)
            for r, (e, s) in zip(reported, numbers, strict=True)
        ]
        if norm == "each":
            distance = reduce(jnp.maximum, map(jnp.abs, gaps))
        else:
            square = sum(gap**2 for gap in gaps)
            distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        distances.append(distance)
        answered.append(reduce(jnp.logical_or, reported))
    return distances, answered


def _count(flags: list[Array]) -> Array:
    return sum((flag.astype(int) for flag in flags), start=jnp.zeros((), int))


@pytree(static=("norm",))
class Tolerance(HardSupport):
    """The paper's indicator likelihood (section 4). See `tolerance`."""

    sigma: Array | float
    beta: Array | float
    norm: str = "each"

    differentiable = False

    def __post_init__(self):
        _checks.number(self.sigma, "sigma")
        _checks.number(self.beta, "beta")
        _checks.positive(self.sigma, "sigma")
        _checks.probability(self.beta, "beta")
        _checks.choice(self.norm, ("each", "joint"), "norm")

    def agreement(self, expected: Array, answer: Array) -> tuple[Array, Array]:
        """How many queries agree, and how many were answered.

        Parameters
        ----------
        expected, answer : Array
            Shape (T, d), natural units; NaN in ``answer`` where nothing was reported.

        Returns
        -------
        agreeing, answered : Array
            Integers, shape ().
        """
        distances, answered = _distances(self.norm, expected, answer)
        agreeing = [a & (d <= self.sigma) for d, a in zip(distances, answered, strict=True)]
        return _count(agreeing), _count(answered)

    def needed(self, answered: Array) -> Array:
        """How many of ``answered`` queries must agree."""
        # The slack keeps rounding from forbidding a miss: 0.7 * 10 must allow 7.
        return answered - jnp.floor(self.beta * answered.astype(float) + 1e-4).astype(int)

    def reach(self, answered: int, log_share: float) -> tuple[float, int] | None:
        """Where the posterior is: so many answers agree within so much.

        Parameters
        ----------
        answered : int
            How many queries were answered.
        log_share : float
            Of the prior, the logarithm of the share that is `possible`.

        Returns
        -------
        sigma : float
        needed : int
            Where fewer than ``needed`` answers agree within ``sigma``, there is no posterior, or
            next to none. None if it may be anywhere.
        """
        return float(self.sigma), int(self.needed(jnp.asarray(answered)))

    def possible(self, expected: Array, answer: Array) -> Array:
        """Whether at most a share ``beta`` of the answers is missed; boolean, shape ()."""
        agreeing, answered = self.agreement(expected, answer)
        return agreeing >= self.needed(answered)

    def nearly_possible(self, expected: Array, answer: Array) -> Array:
        """`possible`: there is no likelihood elsewhere; boolean, shape ()."""
        return self.possible(expected, answer)

    def log_prob(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """0 if at most a share ``beta`` of the answers is missed, else -inf; shape ()."""
        return jnp.where(self.possible(expected, answer), 0.0, -jnp.inf)

    def path(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Finite everywhere, equal to `log_prob` where that is: what tempering can follow; ().

        Falls with the tolerance that would have been needed instead of ``sigma``.
        """
        distances, answered = _distances(self.norm, expected, answer)
        needed = self.needed(_count(answered))
        away = [jnp.where(a, d, jnp.inf) for d, a in zip(distances, answered, strict=True)]
        enough = [jnp.where(_count([d <= r for d in away]) >= needed, r, jnp.inf) for r in away]
        radius = jnp.where(needed > 0, reduce(jnp.minimum, enough), 0.0)
        return -_PATH_SLOPE * jnp.maximum(radius / self.sigma - 1.0, 0.0)


@pytree(static=("norm",))
class Relaxed(Tolerance):
    """`Tolerance` with sigmoids in place of both indicators. See `relaxed`."""

    temperature: Array | float = TEMPERATURE

    differentiable = True

    def __post_init__(self):
        super().__post_init__()
        _checks.number(self.temperature, "temperature")
        _checks.positive(self.temperature, "temperature")

    def nearly_possible(self, expected: Array, answer: Array) -> Array:
        """Whether there is likelihood worth going to; boolean, shape ().

        One answer more than allowed may be missed, each by more than ``sigma``: by what lowers
        its sigmoid to 0.02.
        """
        wider = Tolerance(self.sigma * (1 + 4 * self.temperature), self.beta, self.norm)
        agreeing, answered = wider.agreement(expected, answer)
        return agreeing >= self.needed(answered) - 1

    def reach(self, answered: int, log_share: float) -> tuple[float, int] | None:
        """Where the posterior is, see `Tolerance.reach`: all but a share of 1e-4 or less.

        What is possible has a likelihood of about 1. All else together must weigh less, although
        there is ``exp(-log_share)`` times as much of it.
        """
        temperature = float(self.temperature)
        least = int(self.needed(jnp.asarray(answered)))
        # An answer missed by more than the wider sigma counts for exp(-10) at most.
        beside = answered * math.exp(-10.0)
        more = math.ceil((_NEGLIGIBLE - log_share) * temperature + beside - 0.5)
        if more >= least:
            return None
        return float(self.sigma) * (1 + 10 * temperature), least - max(more, 0)

    def log_prob(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Log of the outer sigmoid; finite, as is its gradient; shape ()."""
        distances, answered = _distances(self.norm, expected, answer)
        agreeing = sum(
            jnp.where(a, jax.nn.sigmoid((1.0 - d / self.sigma) / self.temperature), 0.0)
            for d, a in zip(distances, answered, strict=True)
        )
        # Half way between the last count that is too small and the first that suffices.
        threshold = self.needed(_count(answered)) - 0.5
        return jax.nn.log_sigmoid((agreeing - threshold) / self.temperature)

    def path(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """`log_prob` itself; shape ()."""
        return self.log_prob(unknowns, expected, answer)


def tolerance(sigma: float, beta: float, *, norm: str = "each") -> Tolerance:
    """At least a share ``1 - beta`` of the answers lies within ``sigma`` of the expectation.

    Parameters
    ----------
    sigma : float
        Tolerance, natural units; one for all nodes.
    beta : float
        Share of the answers that may deviate; of T answers floor(beta T) may.
    norm : {"each", "joint"}
        Whether each reported descendant must lie within ``sigma`` (the paper's experiments), or
        the Euclidean norm over them (its formula).

    Raises
    ------
    TypeError
        If ``sigma`` or ``beta`` is not one number.
    ValueError
        If ``sigma <= 0`` or out of the range of JAX's precision, ``beta`` is outside [0, 1], or
        ``norm`` is unknown.
    """
    return Tolerance(sigma, beta, norm)


def relaxed(
    sigma: float, beta: float, temperature: float = TEMPERATURE, *, norm: str = "each"
) -> Relaxed:
    """`tolerance` with gradients: a sigmoid in place of either indicator.

    With distance d_t of answer t from its expectation, ``s_t = sigmoid((1 - d_t / sigma) /
    temperature)`` says how well the query agrees, and ``sigmoid((sum_t s_t - m + 1/2) /
    temperature)`` is the likelihood, where m queries must agree. As the temperature falls to 0
    it tends to `tolerance`. A user whose answers no coefficients can meet under that `tolerance`
    is reported as empty under its relaxation too.

    Parameters
    ----------
    sigma, beta, norm
        Of `tolerance`.
    temperature : float
        In units of ``sigma`` for the distance, of one query for the count.

    Raises
    ------
    TypeError, ValueError
        If ``temperature`` is not one number > 0, or as for `tolerance`.
    """
    return Relaxed(sigma, beta, norm, temperature)
