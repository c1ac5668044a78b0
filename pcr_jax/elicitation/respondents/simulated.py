"""People who are simulated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import brentq
from scipy.stats import beta

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.batching import map_users, user_keys
from pcr_jax.elicitation.respondents.wrong import Asked, Wrong, as_wrong, told
from pcr_jax.history import Questions
from pcr_jax.scm import SCM, Graph

_GRIDS = np.sort(np.outer([1.0, 5.0], 10.0 ** np.arange(-37, 38)).ravel())


@pytree(static=("num_draws", "report"))
class SimulatedUser:
    """Answers from an SCM, sometimes wrong ones (Eq. 4 of the paper).

    People are as uncertain of a number as its noise is large, ``noise + relative_noise * |change|``
    in natural units, where the change is what they say would follow. The more uncertain, the
    coarser they round and the less often they know.

    Parameters
    ----------
    scm : SCM
        The user's own; with a leading axis to give every user another.
    error_rate : float
        alpha: the probability that an answer is wrong. Shape (num_users,) to differ by user, see
        `sample_error_rates`; of 0 and 1, who errs always errs.
    wrong : SCM or Wrong, optional
        The source of wrong answers: theta* of Eq. 4, with a leading axis to give every user
        another, or a `Wrong` such as `Anchored`, `TooWeak` or `Broad`. By default ``scm`` with all
        effects inverted.
    num_draws : int
        A population question's answer is the mean of this many draws from the intervened SCM; an
        individual one's the counterfactual of the user's own features.
    noise : float
        Standard deviation of Gaussian noise added to every reported number, natural units; shape
        (d,) to differ by node.
    report : {"all", "one"}
        Whether all that is asked for is reported, or one number of it at random.
    relative_noise : float, optional
        Standard deviation added to ``noise`` for every unit of change (Weber's law: errors are in
        proportion to what is judged). None: 0.
    rounding : float, optional
        Numbers are rounded to multiples of the coarsest of 1, 5, 10, 50, ... and .5, .1, .05, ...
        that is at most ``rounding`` times the uncertainty, which makes people round (Ruud, Schunk
        and Winter 2014). None: never.
    dont_know : float, optional
        The uncertainty u, natural units, at which every second number is a "don't know", NaN; in
        general a share ``u / (u + dont_know)`` of them, since people say so where they do not know
        (Luskin and Bullock 2011). Shape (d,) to differ by node. None: never.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``error_rate`` is outside [0, 1], ``num_draws < 1``, a noise or ``rounding`` is negative,
        ``dont_know`` is not positive, ``report`` is unknown, or ``wrong`` has other nodes.
    """

    scm: SCM
    error_rate: Array | float = 0.1
    wrong: SCM | Wrong = None  # type: ignore[assignment]
    num_draws: int = 100
    noise: Array | float = 0.0
    report: str = "all"
    relative_noise: Array | float | None = None
    rounding: Array | float | None = None
    dont_know: Array | float | None = None

    def __post_init__(self):
        _checks.instance(self.scm, SCM, "scm")
        _checks.count(self.num_draws, "num_draws")
        _checks.choice(self.report, ("all", "one"), "report")
        shapes, nodes = ((), (self.scm.num_nodes,)), self.graph.nodes
        checked = {
            "error_rate": _checks.probability(self.error_rate, "error_rate", (), ("num_users",)),
            "wrong": as_wrong(self.wrong, self.scm),
            "noise": _checks.positive(self.noise, "noise", *shapes, names=nodes, or_zero=True),
        }
        for name in ("relative_noise", "rounding"):
            if (value := getattr(self, name)) is not None:
                checked[name] = _checks.positive(value, name, (), or_zero=True)
        if (value := self.dont_know) is not None:
            checked["dont_know"] = _checks.positive(value, "dont_know", *shapes, names=nodes)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def graph(self) -> Graph:
        """Of the SCM."""
        return self.scm.graph

    def answer(self, key: Array, questions: Questions, x: Array) -> Array:
        """Every user's answer, shape (num_users, d); NaN where nothing is reported.

        Parameters
        ----------
        key : Array
        questions : Questions
            Of shape (num_users,).
        x : Array
            Shape (num_users, d), natural units.
        """
        _checks.key(key)
        _checks.instance(questions, Questions, "questions")
        x = _checks.features(x, self.scm.num_nodes, ndim=2, names=self.graph.nodes)
        if not len(x):
            raise ValueError("Expected at least one user in x; got none.")
        for name, (_, shape) in _parts(self).items():
            if shape not in ((), (len(x),)):
                raise ValueError(
                    f"Expected one {name} in the respondent, or one for each of the {len(x)} "
                    f"users; got a batch of shape {shape}."
                )
        return _answer(self, user_keys(key, len(x)), questions, x)


def _parts(user):
    """What may differ by user, and the shape of the batch of it."""
    return {
        "scm": (user.scm, user.scm.batch_shape),
        "wrong": (user.wrong, user.wrong.batch_shape),
        "error_rate": (user.error_rate, np.shape(user.error_rate)),
    }


def _rounded(number: Array, most: Array) -> Array:
    """``number`` (d,) on grids of at most ``most`` (d,), as it is where that is 0."""
    at = jnp.searchsorted(_GRIDS, most, side="right") - 1
    grid = jnp.asarray(_GRIDS)[at]
    return jnp.where(at >= 0, grid * jnp.round(number / grid), number)


def _answer_one(
    user, key, question, x, reported, scm: SCM, wrong: Wrong, error_rate: Array
) -> Array:
    k_error, k_right, k_wrong, k_noise, k_one = jax.random.split(key, 5)
    right = told(k_right, scm, question, x, user.num_draws)
    on_average = scm.sample(k_right, user.num_draws).mean(0)
    present = jnp.where(question.individual, x, on_average)
    other = wrong.answer(k_wrong, Asked(scm, question, x, user.num_draws, right, present))
    mean = jnp.where(jax.random.bernoulli(k_error, error_rate), other, right)
    uncertainty = user.noise
    if user.relative_noise is not None:
        uncertainty += user.relative_noise * jnp.abs(mean - present)
    number = mean + uncertainty * jax.random.normal(k_noise, x.shape)
    if user.rounding is not None:
        number = _rounded(number, user.rounding * uncertainty)
    if user.report == "one":
        chosen = jax.random.categorical(k_one, jnp.where(reported, 0.0, -jnp.inf))
        reported &= jnp.arange(len(x)) == chosen
    if user.dont_know is not None:
        share = uncertainty / (uncertainty + user.dont_know)
        reported &= ~jax.random.bernoulli(jax.random.fold_in(key, 5), share, x.shape)
    return jnp.where(reported, number, jnp.nan)


@jax.jit
def _answer(user, keys, questions, x):
    parts = _parts(user)
    own = {name: part for name, (part, batch) in parts.items() if batch}
    shared = {name: part for name, (part, batch) in parts.items() if not batch}

    def one(own, key, question, x, reported):
        return _answer_one(user, key, question, x, reported, **shared, **own)

    return map_users(one, own, keys, questions, x, questions.outcomes(user.graph))


def sample_error_rates(
    key: Array, num_users: int, mean: float = 0.1, quarter: float = 0.6
) -> Array:
    """Error rates of people, of whom a quarter make most of the errors; shape (num_users,).

    From the beta distribution of this mean in which the quarter with the highest rates has a share
    ``quarter`` of the sum of all rates. Some 60 % of the erroneous inferences of Rehder (2014) are
    of about a quarter of the people.

    Parameters
    ----------
    key : Array
    num_users : int
    mean, quarter : float
        In (0, 1).

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``mean`` or ``quarter`` is outside (0, 1), or no beta distribution is as unequal, or as
        equal.
    """
    _checks.key(key)
    _checks.count(num_users, "num_users")
    _checks.between_0_and_1(mean, "mean")
    _checks.between_0_and_1(quarter, "quarter")
    ends = np.log(0.1), np.log(1e4)
    most, least = (_share_of_a_quarter(mean, end) for end in ends)
    if not least < quarter < most:
        raise ValueError(
            f"Expected quarter in ({least:.3f}, {most:.3f}) for a mean of {mean}; got {quarter}."
        )
    a, b = _shapes(mean, brentq(lambda end: _share_of_a_quarter(mean, end) - quarter, *ends))
    return jax.vmap(lambda key: jax.random.beta(key, a, b))(user_keys(key, num_users))


def _shapes(mean: float, log_size: float) -> np.ndarray:
    """Both parameters of a beta distribution, whose sum is its size."""
    return np.exp(log_size) * np.array([mean, 1 - mean])


def _share_of_a_quarter(mean: float, log_size: float) -> float:
    """Of the mean of a beta distribution, what its upper quarter contributes."""
    a, b = _shapes(float(mean), log_size)
    return beta.sf(beta.ppf(0.75, a, b), a + 1, b)
