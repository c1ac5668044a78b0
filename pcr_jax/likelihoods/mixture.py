"""Right answers with noise, and now and then a wrong one: Eq. 4 of the paper as a likelihood.

An answer is right with probability ``1 - error_rate``: what the person's SCM says, and Gaussian
noise. Otherwise it is wrong, as a whole: what another SCM says, or anything. Which answers are
wrong, z_t of Eq. 4, is summed out. Everything is counted in units of the surrogate's scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import log_ndtr, ndtri
from jax.scipy.stats import norm

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.history import History
from pcr_jax.likelihoods.base import Likelihood
from pcr_jax.surrogates import Surrogate


@pytree()
class HowPeopleAnswer:
    """Error rate ~ Beta(1, rarity), noise ~ LogNormal(log median, spread^2); a `Prior`.

    Errors are concentrated in some people, so that a rate is a person's.

    Attributes
    ----------
    rarity : Array or None
        Shape (): of wrong answers; the mean rate is ``1 / (1 + rarity)``. None if it is known.
    median, spread : Array or None
        Shape (): of the noise's standard deviation, and of its logarithm. None if it is known.
    """

    rarity: Array | None
    median: Array | None
    spread: Array | None

    box = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes: (), or (num_users,)."""
        return np.shape(jax.tree.leaves(self)[0])

    @property
    def sites(self) -> list[dist.Distribution]:
        """Of each number, for NumPyro."""
        of_rate = [] if self.rarity is None else [dist.Beta(1.0, self.rarity)]
        if self.median is None:
            return of_rate
        return [*of_rate, dist.LogNormal(jnp.log(self.median), self.spread)]

    def _of_each(self, numbers, of_rate, of_noise):
        """What there is to say of the last axis' numbers."""
        columns = iter(jnp.unstack(numbers, axis=-1))
        said = [] if self.rarity is None else [of_rate(next(columns))]
        return said if self.median is None else [*said, of_noise(next(columns))]

    def _log_rate(self, log_right):
        """Log density of a rate, given the logarithm of what it leaves."""
        return jnp.log(self.rarity) + (self.rarity - 1) * log_right

    def _log_noise(self, log_noise):
        """Log density of the noise's logarithm."""
        return norm.logpdf(log_noise, jnp.log(self.median), self.spread)

    def log_prob(self, numbers: Array) -> Array:
        """Log density; -inf for a rate outside of (0, 1) or noise that is not positive; ()."""

        def rate(value):
            inside = (value > 0) & (value < 1)
            return jnp.where(
                inside, self._log_rate(jnp.log1p(-jnp.where(inside, value, 0.5))), -jnp.inf
            )

        def noise(value):
            log = jnp.log(jnp.where(value > 0, value, 1.0))
            return jnp.where(value > 0, self._log_noise(log) - log, -jnp.inf)

        return sum(self._of_each(numbers, rate, noise), start=jnp.zeros(()))

    def from_unit(self, unit: Array) -> Array:
        """Draws from ``unit`` (..., dim)."""
        least = jnp.finfo(unit.dtype).eps
        unit = jnp.clip(unit, least, 1 - least)

        def rate(unit):
            return -jnp.expm1(jnp.log1p(-unit) / self.rarity)

        def noise(unit):
            return self.median * jnp.exp(self.spread * ndtri(unit))

        return jnp.stack(self._of_each(unit, rate, noise), -1)

    def from_real(self, real: Array) -> tuple[Array, Array]:
        """The logistic function's and the exponential's; the log density of ``real``, ()."""

        def rate(real):
            log_density = self._log_rate(jax.nn.log_sigmoid(-real))
            least = jnp.finfo(real.dtype).tiny
            inside = jnp.clip(jax.nn.sigmoid(real), least, 1 - jnp.finfo(real.dtype).eps)
            return inside, log_density + jax.nn.log_sigmoid(real) + jax.nn.log_sigmoid(-real)

        def noise(real):
            return jnp.exp(jnp.clip(real, -60.0, 60.0)), self._log_noise(real)

        values, log_densities = zip(*self._of_each(real, rate, noise), strict=True)
        return jnp.stack(values, -1), sum(log_densities, start=jnp.zeros(()))

    def to_real(self, numbers: Array) -> Array:
        """The inverse of `from_real`'s numbers."""
        least = jnp.finfo(numbers.dtype).tiny

        def rate(value):
            return jax.scipy.special.logit(jnp.clip(value, 1e-30, 1 - jnp.finfo(value.dtype).eps))

        def noise(value):
            return jnp.log(jnp.maximum(value, least))

        return jnp.stack(self._of_each(numbers, rate, noise), -1)


class _About(NamedTuple):
    """What wrong answers are about: one user's, in units of the scale.

    ``reference`` (T, d): no change at all; ``wrong`` (T, d) or None: what wrong answers are
    expected to be; ``half_width`` (T, d) or None: of intervals.
    """

    reference: Array
    wrong: Array | None
    half_width: Array | None


class Augmented(NamedTuple):
    """What `Mixture.augment` draws.

    Attributes
    ----------
    unknowns : Array
        Shape (len(names),): error rate and noise anew.
    weights : Array
        Shape (T, d): the inverse of the noise's variance where a number is right; 0 elsewhere.
    answer : Array
        Shape (T, d): a number for each that was reported, drawn within its interval.
    """

    unknowns: Array
    weights: Array
    answer: Array


@pytree()
class Mixture(Likelihood):
    """Right answers with noise, and wrong ones. See `mixture`."""

    noise: Array | None
    error_rate: Array | None
    broad: Array
    wrong: Array | None
    prior: HowPeopleAnswer | None
    about: Any = None

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of what is inferred."""
        pairs = (("error_rate", self.error_rate), ("noise", self.noise))
        return tuple(name for name, known in pairs if known is None)

    def bound(self, surrogate: Surrogate, history: History) -> Mixture:
        """The likelihood of one user's answers, wrong ones being about the user's features."""
        if self.about is not None:
            return self
        if self.noise is not None and np.shape(self.noise) not in ((), (d := np.shape(history.x))):
            raise ValueError(f"Expected noise of shape () or {d}; got {np.shape(self.noise)}.")
        questions = history.questions
        on_average: Any = getattr(surrogate, "centre", None)
        if on_average is None:
            on_average = getattr(surrogate, "noise_mean", jnp.zeros(()))
        own = jnp.asarray(questions.individual)[:, None]
        reference = jnp.where(own, history.x, on_average)
        wrong = None
        if self.wrong is not None:
            wrong = surrogate.expected(jnp.asarray(self.wrong), questions, history.x)
        about = _About(reference, wrong, history.half_width)
        return Mixture(self.noise, self.error_rate, self.broad, self.wrong, self.prior, about)

    def split(self, unknowns: Array) -> tuple[Array, Array]:
        """Error rate () and noise, () or (d,)."""
        columns = iter(jnp.unstack(unknowns))
        rate = next(columns) if self.error_rate is None else self.error_rate
        return rate, next(columns) if self.noise is None else self.noise

    def _numbers(self, gap, sd):
        """Log probability of each reported number, (T, d), that is ``gap`` off."""
        density = norm.logpdf(gap, 0.0, sd)
        half_width = self.about.half_width
        if half_width is None:
            return density
        is_interval = half_width > 0
        half = jnp.where(is_interval, half_width, 1.0)
        near, far = (half - jnp.abs(gap)) / sd, (-half - jnp.abs(gap)) / sd
        top = log_ndtr(near)
        inside = top + jnp.log(-jnp.expm1(jnp.minimum(log_ndtr(far) - top, -1e-7)))
        return jnp.where(is_interval, inside, density)

    def wrong_numbers(self, unknowns: Array, answer: Array) -> Array:
        """Log probability of each number of a wrong answer, 0 if not reported; (T, d)."""
        _, noise = self.split(unknowns)
        known = self.about.wrong is not None
        centre, sd = (self.about.wrong, noise) if known else (self.about.reference, self.broad)
        reported = ~jnp.isnan(answer)
        gap = jnp.where(reported, answer - centre, 0.0)
        return jnp.where(reported, self._numbers(gap, sd), 0.0)

    def _right(self, unknowns, expected, answer):
        """Log probability of each answer if it is right, (T,)."""
        _, noise = self.split(unknowns)
        reported = ~jnp.isnan(answer)
        gap = jnp.where(reported, answer - expected, 0.0)
        return jnp.where(reported, self._numbers(gap, noise), 0.0).sum(-1)

    def _both(self, unknowns, expected, answer):
        """Log probabilities of each answer with being right, and with being wrong; (T,)."""
        rate, _ = self.split(unknowns)
        right = jnp.log1p(-rate) + self._right(unknowns, expected, answer)
        return right, jnp.log(rate) + self.wrong_numbers(unknowns, answer).sum(-1)

    def pointwise(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Log probability of each answer, 0 where there is none; (T,)."""
        answered = ~jnp.isnan(answer).all(-1)
        both = jnp.logaddexp(*self._both(unknowns, expected, answer))
        return jnp.where(answered, both, 0.0)

    def log_prob(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Log probability of all answers; ()."""
        return self.pointwise(unknowns, expected, answer).sum()

    def wrong_probability(self, unknowns: Array, expected: Array, answer: Array) -> Array:
        """Of each answer, that it is wrong; 0 where there is none; (T,)."""
        right, wrong = self._both(unknowns, expected, answer)
        answered = ~jnp.isnan(answer).all(-1)
        return jnp.where(answered, jax.nn.sigmoid(wrong - right), 0.0)

    def simulate(self, key: Array, unknowns: Array, expected: Array) -> Array:
        """Answers (T, d), every number of them reported; the other way of `pointwise`."""
        rate, noise = self.split(unknowns)
        k_wrong, k_noise = jax.random.split(key)
        is_wrong = jax.random.bernoulli(k_wrong, rate, expected.shape[:1])[:, None]
        known = self.about.wrong is not None
        other, sd = (self.about.wrong, noise) if known else (self.about.reference, self.broad)
        centre = jnp.where(is_wrong, other, expected)
        unit = jax.random.normal(k_noise, expected.shape, expected.dtype)
        return centre + jnp.where(is_wrong, sd, noise) * unit

    def augment(self, key: Array, unknowns: Array, expected: Array, answer: Array) -> Augmented:
        """Which answers are wrong, and given that error rate and noise; see `Augmented`."""
        num, size = len(answer), answer.size
        # All at once: of a program, random numbers are what takes longest to compile.
        is_told_between = self.about.half_width is not None
        lengths = np.cumsum([num, num + 1, 3, size * is_told_between])
        unit = jax.random.uniform(key, (int(lengths[-1]),), minval=jnp.finfo(expected.dtype).tiny)
        of_wrong, of_rate, of_noise, of_answer = jnp.split(unit, lengths[:-1])
        is_wrong = of_wrong < self.wrong_probability(unknowns, expected, answer)
        reported = ~jnp.isnan(answer)
        answered = reported.any(-1)
        _, noise = self.split(unknowns)
        right = reported & ~is_wrong[:, None]
        if is_told_between:
            of_answer = of_answer.reshape(answer.shape)
            answer = self._within(of_answer, noise, expected, answer, right)
        renewed = []
        if self.error_rate is None:
            num_wrong, num_right = jnp.sum(answered & is_wrong), jnp.sum(answered & ~is_wrong)
            renewed.append(self._rate(of_rate, num_wrong, num_right))
        if self.noise is None:
            gap, numbers = jnp.where(right, answer - expected, 0.0), right
            if self.about.wrong is not None:
                also = reported & is_wrong[:, None]
                gap, numbers = jnp.where(also, answer - self.about.wrong, gap), reported
            noise = self._noise(of_noise, noise, numbers.sum(), jnp.sum(gap**2))
            renewed.append(noise)
        weights = jnp.where(right, 1.0 / noise**2, 0.0)
        return Augmented(jnp.stack(renewed) if renewed else unknowns, weights, answer)

    def _rate(self, unit, num_wrong, num_right):
        """The error rate, given how many answers are wrong and right; ().

        A draw of Beta(1 + num_wrong, rarity + num_right). What it leaves of 1 is a product of
        numbers of Beta(rarity + num_right + i, 1), i from 0 to num_wrong.
        """
        i = np.arange(len(unit))
        logs = jnp.log(unit) / (self.prior.rarity + num_right + i)
        rate = -jnp.expm1(jnp.sum(jnp.where(i <= num_wrong, logs, 0.0)))
        return jnp.minimum(rate, 1 - jnp.finfo(rate.dtype).eps)

    def _noise(self, unit, noise, num, squares):
        """A Metropolis step of the noise, given squares of ``num`` gaps; ().

        Proposed nearly as under a flat prior of its logarithm, where the sum of squares over the
        variance is chi-square: by the cube root of that over ``num``, which is nearly normal
        (Wilson & Hilferty 1931). Or, of no gap, from the prior.
        """
        some = (num > 0) & (squares > 0)
        of_root, of_prior, of_step = jnp.unstack(unit)
        number, squares = jnp.where(some, num, 1), jnp.where(some, squares, 1.0)
        spread = 2 / (9 * number)
        root = 1 - spread + jnp.sqrt(spread) * ndtri(of_root)
        fitted = jnp.sqrt(squares / (number * jnp.maximum(root, 1e-3) ** 3))
        from_prior = self.prior.median * jnp.exp(self.prior.spread * ndtri(of_prior))
        proposed = jnp.where(some, fitted, from_prior)
        log_prior = self.prior._log_noise

        def advantage(noise):
            """Log density over the proposal's, of the cube root; up to a constant."""
            root = (squares / (number * noise**2)) ** (1 / 3)
            log_density = (1.5 * number - 1) * jnp.log(root) - number * root**3 / 2
            return log_density + (root - 1 + spread) ** 2 / (2 * spread) + log_prior(jnp.log(noise))

        ratio = jnp.where(some, advantage(proposed) - advantage(noise), 0.0)
        accepted = (jnp.log(of_step) < ratio) & ((root > 1e-3) | ~some)
        return jnp.where(accepted & jnp.isfinite(proposed) & (proposed > 0), proposed, noise)

    def _within(self, unit, noise, expected, answer, right):
        """The answers, those that are intervals drawn from what is expected within them."""
        half_width = self.about.half_width
        sd = jnp.broadcast_to(noise, answer.shape)
        low, high = ((answer + side * half_width - expected) / sd for side in (-1, 1))
        inside = truncated_normal(unit, low, high)
        drawn = jnp.clip(expected + sd * inside, answer - half_width, answer + half_width)
        return jnp.where(right & (half_width > 0), drawn, answer)


def truncated_normal(unit: Array, low: Array, high: Array) -> Array:
    """Standard normal draws between ``low`` and ``high``, from ``unit`` uniform in (0, 1).

    By inversion of the distribution function. Where only a tail beyond four standard deviations is
    allowed, of which the inverse has no precision, by that of the exponential distribution which
    touches it there: its density is 3 % off one of its lengths away, and less further out.
    """
    flip = low > -high
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    below, above = jax.scipy.special.ndtr(a), jax.scipy.special.ndtr(b)
    middle = ndtri(below + unit * (above - below))
    steep = jnp.maximum(-b, 1.0)
    share = -jnp.expm1(jnp.maximum(steep * (a - b), -80.0))
    tail = b + jnp.log1p(-share * unit) / steep
    x = jnp.clip(jnp.where(b < -4, tail, middle), a, b)
    return jnp.where(flip, -x, x)


def mixture(
    noise=None,
    error_rate=None,
    *,
    broad: float = 2.0,
    wrong=None,
    noise_prior: tuple[float, float] = (0.1, 1.0),
    rarity: float = 9.0,
) -> Mixture:
    """An answer is right, with Gaussian noise, or wrong as a whole (Eq. 4 of the paper).

    The one likelihood of this library with a generative story: its posteriors can be calibrated.
    Everything with a unit is in units of the surrogate's ``scale``.

    Parameters
    ----------
    noise : float or sequence of float, optional
        Standard deviation of right answers, for all nodes or each. None, the default: inferred for
        each person, one number.
    error_rate : float, optional
        alpha, the probability that an answer is wrong. None, the default: inferred for each person.
    broad : float
        Standard deviation of wrong answers about no change at all, where ``wrong`` is not known.
    wrong : sequence of float, optional
        Shape (k,): the surrogate's numbers for the SCM that wrong answers come from, theta* of the
        paper.
    noise_prior : pair of float
        Median of the noise, and standard deviation of its logarithm, where it is inferred.
    rarity : float
        Of wrong answers, where their rate is inferred: Beta(1, rarity), with mean
        ``1 / (1 + rarity)``.

    Raises
    ------
    TypeError
        If something is no number.
    ValueError
        If ``noise``, ``broad``, ``rarity`` or a number of ``noise_prior`` is not positive, or
        ``error_rate`` is outside of [0, 1].
    """
    if noise is not None:
        _checks.unnamed(noise, "noise")
        noise = _checks.positive(noise, "noise")
        if noise.ndim > 1 or noise.size == 0:
            raise ValueError(f"Expected noise of shape () or (d,); got {noise.shape}.")
    if error_rate is not None:
        error_rate = _checks.probability(error_rate, "error_rate", ())
    of_wrong: Any = _checks.positive(broad, "broad", ())
    of_rate: Any = _checks.positive(rarity, "rarity", ())
    median, spread = _checks.positive(noise_prior, "noise_prior", (2,))
    if wrong is not None:
        _checks.unnamed(wrong, "wrong")
        wrong = _checks.finite(wrong, "wrong", ("k",))
        if not len(wrong):
            raise ValueError("Expected wrong of shape (k,); got (0,).")
    prior = None
    if noise is None or error_rate is None:
        of_noise = (median, spread) if noise is None else (None, None)
        prior = HowPeopleAnswer(of_rate if error_rate is None else None, *of_noise)
    return Mixture(noise, error_rate, of_wrong, wrong, prior)
