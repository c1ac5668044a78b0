"""Wrong answers: what people say when they err."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.graph import Graph
from pcr_jax.history import Questions
from pcr_jax.scm import SCM, inverted


class Asked(NamedTuple):
    """A question to one person, and what there is to be wrong about.

    Attributes
    ----------
    scm : SCM
        The person's own.
    question : Questions
        Of shape ().
    x : Array
        Shape (d,), natural units: the person's features.
    num_draws : int
        The mean of so many draws answers a population question.
    right : Array
        Shape (d,): the right answer.
    present : Array
        Shape (d,): what is without the shift. ``x`` if the question is individual; else E[X], from
        the draws that gave ``right``.
    """

    scm: SCM
    question: Questions
    x: Array
    num_draws: int
    right: Array
    present: Array


class Wrong(Protocol):
    """Gives one person's wrong answers; a pytree whose numbers are leaves.

    Someone who thinks by association, for whom everything moves with what moves (Rehder 2014):

    >>> from dataclasses import dataclass
    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> @jax.tree_util.register_dataclass
    ... @dataclass(frozen=True)
    ... class Associating(pcr.Wrong):
    ...     share: jax.Array
    ...
    ...     def answer(self, key, asked):
    ...         return asked.present + self.share * asked.question.shift
    >>> wrong = Associating(jnp.asarray(0.5))
    >>> user = pcr.SimulatedUser(pcr.library.m1(), error_rate=1.0, wrong=wrong)
    >>> questions = pcr.Questions(jnp.array([0]), jnp.array([2.0]), jnp.array([True]))
    >>> user.answer(jax.random.key(0), questions, jnp.array([[1.0, 5.0, 3.0]])).tolist()
    [[nan, 6.0, 4.0]]

    Attributes
    ----------
    batch_shape : tuple of int
        Leading axes of the leaves: () for all users, (num_users,) for one per user.
    """

    batch_shape: tuple[int, ...] = ()

    def check(self, graph: Graph) -> None:
        """Raise ValueError if it is not for these nodes; by default it is for any."""

    def answer(self, key: Array, asked: Asked) -> Array:
        """The wrong answer, natural units, for every node whether it is reported or not; (d,)."""


def told(
    key: Array,
    scm: SCM,
    question: Questions,
    x: Array,
    num_draws: int,
    predict: Callable[[SCM, Array, Action], Array] = SCM.predict,
) -> Array:
    """What ``scm`` answers to a question: a counterfactual, or a mean of draws; shape (d,)."""
    action = Action.shift_node(question.node, question.shift, scm.num_nodes)
    on_average = predict(scm, scm.sample_noise(key, num_draws), action).mean(0)
    return jnp.where(question.individual, predict(scm, scm.abduct(x), action), on_average)


@pytree()
class FromSCM(Wrong):
    """Answers from another SCM: theta* of Eq. 4 of the paper, such as inverted effects.

    One and the same for all answers of a person, who is wrong in a coherent way, as people with a
    mental model of their own are (Vosniadou and Brewer 1992).

    Parameters
    ----------
    scm : SCM
        With a leading axis to give every user another.
    """

    scm: SCM

    @property
    def batch_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of the SCM."""
        return self.scm.batch_shape

    def check(self, graph: Graph) -> None:
        """Raise ValueError unless the SCM has these nodes."""
        if self.scm.num_nodes != graph.num_nodes:
            raise ValueError(
                f"Expected wrong to have the {graph.num_nodes} nodes of scm; got "
                f"{self.scm.num_nodes}."
            )
        if self.scm.graph.nodes != graph.nodes:
            raise ValueError(
                f"Expected wrong to have the nodes of scm, {list(graph.nodes)}, in this order; "
                f"got {list(self.scm.graph.nodes)}."
            )

    def answer(self, key: Array, asked: Asked) -> Array:
        """See `Wrong`."""
        return told(key, self.scm, asked.question, asked.x, asked.num_draws)


def _per_user(value: Any, name: str) -> Array:
    """A number in [0, 1], or one per user."""
    return _checks.probability(value, name, (), ("num_users",))


@pytree()
class Anchored(Wrong):
    """Every number is pulled from the right answer towards the present one, which was shown.

    Tversky and Kahneman (1974); by .2-.5 of the distance (Jacowitz and Kahneman 1995 measure it).
    The anchor is ``x`` of individual questions, E[X] of population questions.

    Parameters
    ----------
    pull : float
        Share of the distance, in [0, 1]; shape (num_users,) to differ by user.

    Raises
    ------
    TypeError
        If ``pull`` is no number.
    ValueError
        If it is outside [0, 1].
    """

    pull: Array | float = 0.35

    def __post_init__(self):
        object.__setattr__(self, "pull", _per_user(self.pull, "pull"))

    @property
    def batch_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of ``pull``."""
        return np.shape(self.pull)

    def answer(self, key: Array, asked: Asked) -> Array:
        """See `Wrong`."""
        return asked.right + self.pull * (asked.present - asked.right)


def _weaker(factor: Array | float, scm: SCM, noise: Array, action: Action) -> Array:
    """`SCM.predict` under a shift, where causes change their effects ``factor`` times as much."""
    before = jnp.unstack(scm.predict(noise), axis=-1)
    after: list[Array] = []
    for j, (mechanism, pa) in enumerate(zip(scm.mechanisms, scm.graph.parents, strict=True)):
        parents = jnp.stack([after[p] for p in pa], -1) if pa else jnp.zeros(0)
        change = mechanism.assign(parents, noise[..., j]) - before[j]
        after.append(before[j] + factor * change + action.value[j])
    return jnp.stack(after, -1)


@pytree()
class TooWeak(Wrong):
    """Every cause changes its effects by a fraction of what is right.

    So people judge who are not as sensitive to the strength of causes as they should be (Rottman
    and Hastie 2014). Unlike `Anchored`, what is passed on over several edges loses at each.

    Parameters
    ----------
    factor : float
        In [0, 1]; shape (num_users,) to differ by user.

    Raises
    ------
    TypeError
        If ``factor`` is no number.
    ValueError
        If it is outside [0, 1].
    """

    factor: Array | float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "factor", _per_user(self.factor, "factor"))

    @property
    def batch_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Of ``factor``."""
        return np.shape(self.factor)

    def answer(self, key: Array, asked: Asked) -> Array:
        """See `Wrong`."""
        weaker = partial(_weaker, self.factor)
        return told(key, asked.scm, asked.question, asked.x, asked.num_draws, weaker)


@pytree()
class Broad(Wrong):
    """Guesses: normal around the present values, whatever the effect.

    The lapses of psychophysics, errors that do not depend on what was asked (Wichmann and Hill
    2001).

    Parameters
    ----------
    sd : float
        Standard deviation, natural units; shape (d,) to differ by node, (num_users, d) by user.

    Raises
    ------
    TypeError
        If ``sd`` is no number.
    ValueError
        If it is not positive, or in a respondent of another number of nodes.
    """

    sd: Array | float

    def __post_init__(self):
        _checks.unnamed(self.sd, "sd")
        sd = _checks.positive(self.sd, "sd", (), ("d",), ("num_users", "d"))
        object.__setattr__(self, "sd", sd)

    @property
    def batch_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Leading axes of ``sd``."""
        return np.shape(self.sd)[:-1]

    def check(self, graph: Graph) -> None:
        """Raise ValueError unless ``sd`` is for so many nodes."""
        width = np.shape(self.sd)[-1:]
        if width not in ((), (graph.num_nodes,)):
            raise ValueError(
                f"Expected sd of wrong answers for {graph.num_nodes} nodes; got {width[0]}."
            )

    def answer(self, key: Array, asked: Asked) -> Array:
        """See `Wrong`."""
        return asked.present + self.sd * jax.random.normal(key, asked.present.shape)


def as_wrong(wrong: Any, scm: SCM) -> Wrong:
    """What gives the wrong answers of someone with ``scm``: by default all effects inverted."""
    wrong = inverted(scm) if wrong is None else wrong
    wrong = FromSCM(wrong) if isinstance(wrong, SCM) else wrong
    _checks.capable(wrong, Wrong, "wrong", "an SCM or Anchored(0.35)")
    wrong.check(scm.graph)
    return wrong
