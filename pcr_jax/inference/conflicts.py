"""Answers that do not fit a person's other answers, or what is known of everybody."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pcr_jax import _checks
from pcr_jax._nans import nan_is_a_value
from pcr_jax.inference.posteriors import Posteriors

# Draws over which probabilities are averaged, at most.
_NUM_DRAWS = 256
# Of being wrong, from which an answer is worth asking for again: of two that contradict each
# other, one at least is.
_DOUBTFUL = 1 / 3


@nan_is_a_value
def conflicts(posteriors: Posteriors) -> pd.DataFrame:
    """How probably each answer is wrong, given all answers: z_t of Eq. 4 of the paper.

    Parameters
    ----------
    posteriors : Posteriors
        Under a likelihood that knows wrong answers, such as `mixture`.

    Returns
    -------
    pandas.DataFrame
        One row for each answer of a user with a posterior, the most probably wrong first: ``user``;
        ``question``, counted from 0; ``node``, the name of what was to rise by ``shift``, natural
        units; ``wrong``, the posterior probability that the answer is wrong.

    Raises
    ------
    TypeError
        If ``posteriors`` are none, or their likelihood knows no wrong answers.
    """
    _checks.instance(posteriors, Posteriors, "posteriors", " See infer.")
    likelihood = posteriors.likelihood
    if not hasattr(likelihood, "wrong_probability"):
        raise TypeError(
            "Expected posteriors under a likelihood that knows wrong answers, such as mixture(); "
            f"got {_checks.shown(likelihood)}."
        )
    num = min(_NUM_DRAWS, posteriors.flat.shape[1])
    wrong = posteriors.of_answers("wrong_probability", num).mean(1)
    user, question = np.nonzero(~np.isnan(wrong))
    questions = posteriors.history.questions
    node = np.asarray(questions.node)[user, question]
    table = pd.DataFrame(
        {
            "user": user,
            "question": question,
            "node": np.array(posteriors.surrogate.graph.nodes, object)[node],
            "shift": np.asarray(questions.shift)[user, question],
            "wrong": wrong[user, question],
        }
    )
    return table.sort_values("wrong", ascending=False, kind="stable", ignore_index=True)


def ask_again(posteriors: Posteriors, user: int) -> str | None:
    """The answer that a user had better think about again, in one sentence.

    Parameters
    ----------
    posteriors : Posteriors
        As `conflicts` takes them.
    user : int

    Returns
    -------
    str or None
        None where no answer is wrong with a probability of a third. Questions are counted from 1.

    Raises
    ------
    TypeError
        If ``posteriors`` are none, or their likelihood knows no wrong answers.
    ValueError
        If there is no such user.
    """
    _checks.instance(posteriors, Posteriors, "posteriors", " See infer.")
    _checks.count(user, "user", minimum=0)
    if user >= (num_users := posteriors.history.num_users):
        raise ValueError(f"Expected user < {num_users}; got {user}.")
    table = conflicts(posteriors)
    own = table[(table["user"] == user) & (table["wrong"] > _DOUBTFUL)]
    if own.empty:
        return None
    history, worst = posteriors.history, own.iloc[0]
    t, nodes = int(worst["question"]), posteriors.surrogate.graph.nodes
    answer = np.asarray(history.answer)[user, t]
    half = np.zeros_like(answer)
    if history.half_width is not None:
        half = np.asarray(history.half_width)[user, t]
    said: list[str] = []
    for name, value, width in zip(nodes, answer, half, strict=True):
        if np.isnan(value):
            continue
        number = _written(value)
        if width > 0:
            number = f"between {_written(value - width)} and {_written(value + width)}"
        said.append(f"{name} would become {number}" if not said else f"{name} {number}")
    *others, last = said
    reported = f"{', '.join(others)} and {last}" if others else last
    whose, average, theirs = "", "", ""
    if not np.asarray(history.questions.individual)[user, t]:
        whose, average, theirs = "for people like you ", ", on average,", " for them"
    moved = "rose" if worst["shift"] >= 0 else "fell"
    return (
        f"Your answer to question {t + 1}, that {whose}{reported}{average} if {worst['node']} "
        f"{moved} by {_written(abs(worst['shift']))}{theirs}, does not fit your other answers: "
        "please think about it again."
    )


def _written(value) -> str:
    """A number in five digits, as people write it."""
    return f"{float(f'{value:.5g}'):,.10g}"
