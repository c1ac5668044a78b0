"""Respondents: who answers the questions."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.batching import map_users, user_keys
from pcr_jax.history import Questions
from pcr_jax.scm import SCM, Graph, inverted


class Respondent(Protocol):
    """Answers the questions, for all users at once.

    People who say that nothing but the shifted node itself would change:

    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> class Stubborn:
    ...     graph = pcr.library.m1().graph
    ...
    ...     def answer(self, key, questions, x):
    ...         reported = jnp.asarray(self.graph.descendants)[questions.node]
    ...         return jnp.where(reported, x, jnp.nan)
    >>> history = pcr.elicit(jax.random.key(0), Stubborn(), jnp.ones((2, 3)), num_queries=4)
    >>> bool(jnp.nanmin(history.answer) == 1)
    True

    """

    @property
    def graph(self) -> Graph:
        """The nodes that are asked about."""

    def answer(self, key: Array, questions: Questions, x: Array) -> Array:
        """Answers (num_users, d) to questions (num_users,), natural units; NaN: not reported.

        ``x`` (num_users, d) are the users' features.
        """


@pytree(static=("num_draws", "report"))
class SimulatedUser:
    """Answers from an SCM, sometimes from a wrong one (Eq. 4 of the paper).

    Parameters
    ----------
    scm : SCM
        The user's own; with a leading axis to give every user another.
    error_rate : float
        alpha: the probability that an answer comes from ``wrong``.
    wrong : SCM, optional
        The source of wrong answers (theta* of Eq. 4); by default ``scm`` with all effects inverted.
    num_draws : int
        A population question's answer is the mean of this many draws from the intervened SCM; an
        individual one's the counterfactual of the user's own features.
    noise : float
        Standard deviation of Gaussian noise added to every reported number, natural units.
    report : {"all", "one"}
        Whether all descendants of the shifted node are reported, or one of them at random.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``error_rate`` is outside [0, 1], ``num_draws < 1``, ``noise < 0``, ``report`` is
        unknown, or ``wrong`` has other nodes.
    """

    scm: SCM
    error_rate: float = 0.1
    wrong: SCM | None = None
    num_draws: int = 100
    noise: float = 0.0
    report: str = "all"

    def __post_init__(self):
        _checks.instance(self.scm, SCM, "scm")
        rate = _checks.probability(self.error_rate, "error_rate", ())
        object.__setattr__(self, "error_rate", rate)
        _checks.count(self.num_draws, "num_draws")
        noise = _checks.positive(self.noise, "noise", (), or_zero=True)
        object.__setattr__(self, "noise", noise)
        _checks.choice(self.report, ("all", "one"), "report")
        if self.wrong is None:
            object.__setattr__(self, "wrong", inverted(self.scm))
        _checks.instance(self.wrong, SCM, "wrong")
        if self.wrong.num_nodes != self.scm.num_nodes:
            raise ValueError(
                f"Expected wrong to have {self.scm.num_nodes} nodes; got {self.wrong.num_nodes}."
            )
        if self.wrong.graph.nodes != self.scm.graph.nodes:
            raise ValueError(
                f"Expected wrong to have the nodes {list(self.scm.graph.nodes)}, in this order; "
                f"got {list(self.wrong.graph.nodes)}."
            )

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
        for name in ("scm", "wrong"):
            batch_shape = getattr(self, name).batch_shape
            if batch_shape not in ((), (len(x),)):
                raise ValueError(
                    f"Expected one SCM, or one for each of the {len(x)} users, in {name} of the "
                    f"respondent; got a batch of shape {batch_shape}."
                )
        return _answer(self, user_keys(key, len(x)), questions, x)


def _answer_one(user, key, question, x, scm: SCM, wrong: SCM) -> Array:
    k_error, k_right, k_wrong, k_noise, k_one = jax.random.split(key, 5)
    num_nodes = user.scm.num_nodes
    action = Action.shift_node(question.node, question.shift, num_nodes)

    def answer(scm, key):
        on_average = scm.sample(key, user.num_draws, action).mean(0)
        return jnp.where(question.individual, scm.counterfactual(x, action), on_average)

    right, other = answer(scm, k_right), answer(wrong, k_wrong)
    mean = jnp.where(jax.random.bernoulli(k_error, user.error_rate), other, right)
    mean = mean + user.noise * jax.random.normal(k_noise, (num_nodes,))
    reported = jnp.asarray(scm.graph.descendants)[question.node]
    if user.report == "one":
        chosen = jax.random.categorical(k_one, jnp.where(reported, 0.0, -jnp.inf))
        reported &= jnp.arange(num_nodes) == chosen
    return jnp.where(reported, mean, jnp.nan)


@jax.jit
def _answer(user, keys, questions, x):
    sources = {"scm": user.scm, "wrong": user.wrong}
    own = {name: scm for name, scm in sources.items() if scm.batch_shape}
    shared = {name: scm for name, scm in sources.items() if not scm.batch_shape}

    def one(own, key, question, x):
        return _answer_one(user, key, question, x, **shared, **own)

    return map_users(one, own, keys, questions, x)
