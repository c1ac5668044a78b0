"""A conversation that can be broken off: people are asked, answer, and are recommended an action.

All of it is a function of one key and of the answers so far. Question t is drawn from the key and
t, and what is inferred and recommended from streams of their own. So it makes no difference when an
answer was given, in which process, or what was taken back before.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._files import write
from pcr_jax._nans import nan_is_a_value
from pcr_jax.elicitation import Belief, Design, RandomDesign
from pcr_jax.elicitation.designs.people import askable
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions, tell
from pcr_jax.inference import SAMPLERS, Posteriors, Sampler, infer
from pcr_jax.likelihoods import Likelihood, check_likelihood, mixture
from pcr_jax.recourse import Plan, Problem, Solver, recommend
from pcr_jax.recourse.rounding import decimals_of
from pcr_jax.session_json import (
    FORMAT,
    SCHEMA,
    Turn,
    as_key,
    as_turn,
    described,
    difference,
    has_parts,
    of_key,
    of_turn,
    opened,
    sealed,
    versions,
)
from pcr_jax.surrogates import Surrogate, check_surrogate, check_users
from pcr_jax.wording import rounded, sentences

# Logits that differ by less are those of the same score on another machine.
_SAME_LOGIT = 2e-3


class _State(NamedTuple):
    """All that changes: the turns told, the one that is open, and the history of the former."""

    told: tuple[Turn, ...]
    turn: Turn | None
    history: History


@jax.jit
def _logits(score, x):
    """The score at features (num_users, d); (num_users,)."""
    return jax.vmap(score)(x)


def _of_those(asked: Array, values: Any, other: float) -> np.ndarray:
    """The rows of those who were asked, ``other`` elsewhere; in JAX's precision."""
    return np.where(asked[:, None], np.asarray(values, jnp.result_type(float)), other)


def _who_can_be_asked_about(graph: Graph) -> list[int]:
    """Nodes with descendants, and -1 for no question."""
    return [-1, *np.flatnonzero(graph.descendants.any(1)).tolist()]


def _same_logits(before: Any, now: list) -> bool:
    """Whether logits, as they are written, are those of one score."""
    if not isinstance(before, list) or len(before) != len(now):
        return False
    for old, new in zip(before, now, strict=True):
        numbers = type(old) is float and type(new) is float
        if not (abs(old - new) <= _SAME_LOGIT * max(1.0, abs(old)) if numbers else old == new):
            return False
    return True


class Session:
    """Questions to one person or many, their answers, and what follows from them.

    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> graph, x = pcr.library.m1().graph, jnp.zeros((1, 3))
    >>> problem = pcr.pose(lambda x: x.sum() - 1.0, graph, x, scale=jnp.ones(3))
    >>> surrogate = pcr.linear_surrogate(graph, scale=jnp.ones(3))
    >>> session = pcr.Session(jax.random.key(0), problem, surrogate)
    >>> session.ask().node.tolist(), session.sentences()[0]
    ([0], 'Suppose your X1 fell by 1.6, from 0.0 to -1.6. What would X2 and X3 become for you?')
    >>> session.tell(jnp.array([[jnp.nan, 1.5, jnp.nan]]))
    >>> session
    Session(1 person, 1 of 10 questions told)

    Parameters
    ----------
    key : Array
        Everything random follows from it.
    problem : Problem
        The people and the decision that they want, see `pose`.
    surrogate : Surrogate
        The SCMs that are believed possible, on a graph with the problem's nodes.
    likelihood : Likelihood, optional
        `mixture` by default.
    design : Design, optional
        What is asked; `RandomDesign` by default. Who gets node -1 is done, for good.
    sampler : str or Sampler, optional
        See `infer`.
    max_questions : int
        To each person.
    draws : int
        Of each person's SCM, for what is asked of them together; where the problem has no ``level``
        the posterior mean serves.
    digits : int
        Shifts are rounded to so many digits of the problem's scale, so that the numbers that
        people read are those that are inferred from.
    path : path, optional
        Of a new file, which holds the session from the first question on: it is replaced in one
        step before each call returns.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If the surrogate has other nodes or users than the problem, a number is out of range, or
        the sampler is unknown or unsuited.
    FileExistsError
        If there is a file at ``path``: `from_json` goes on with it.
    """

    def __init__(
        self,
        key: Array,
        problem: Problem,
        surrogate: Surrogate,
        *,
        likelihood: Likelihood | None = None,
        design: Design | None = None,
        sampler: str | Sampler | None = None,
        max_questions: int = 10,
        draws: int = 1000,
        digits: int = 2,
        path: str | os.PathLike | None = None,
    ):
        _checks.untraced("Session", key, problem)
        _checks.key(key)
        _checks.instance(problem, Problem, "problem", " See pcr_jax.pose.")
        check_surrogate(surrogate)
        if surrogate.graph.nodes != problem.names:
            raise ValueError(
                f"Expected surrogate of the features {list(problem.names)}; got one of "
                f"{list(surrogate.graph.nodes)}."
            )
        check_users(surrogate, len(problem.x))
        likelihood = mixture() if likelihood is None else likelihood
        check_likelihood(likelihood)
        design = RandomDesign() if design is None else design
        _checks.capable(design, Design, "design", "RandomDesign()")
        if isinstance(sampler, str):
            _checks.choice(sampler, SAMPLERS, "sampler")
            sampler = SAMPLERS[sampler]()
        if sampler is not None:
            _checks.capable(sampler, Sampler, "sampler", "Gibbs()")
            sampler.check(surrogate, likelihood)
        _checks.count(max_questions, "max_questions")
        _checks.count(draws, "draws")
        _checks.count(digits, "digits")
        if path is not None:
            _checks.instance(path, str | os.PathLike, "path")
            if os.path.lexists(path):
                raise FileExistsError(
                    f"Expected path of a new file; got {os.fspath(path)!r}, which there is. "
                    "Session.from_json goes on with it."
                )
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            key = jax.random.wrap_key_data(key)
        self.key, self.problem, self.surrogate = key, problem, surrogate
        self.likelihood, self.design, self.sampler = likelihood, design, sampler
        self.max_questions, self.draws, self.digits = max_questions, draws, digits
        self.path = path
        self._k_ask, self._k_infer, self._k_recommend = jax.random.split(key, 3)
        self._state = _State((), None, self._history_of(()))
        self._posteriors: Posteriors | None = None
        self._logit: list | None = None

    @property
    def num_users(self) -> int:
        """The number of people."""
        return len(self.problem.x)

    @property
    def history(self) -> History:
        """What was told so far, with room for ``max_questions``."""
        return self._state.history

    @property
    def inference_key(self) -> Array:
        """Of `infer`, which finds what `belief` has."""
        return self._k_infer

    @property
    def belief(self) -> Belief:
        """What the answers so far teach; inferred once, when it is first asked for."""
        return Belief(self.surrogate, self.history, self._inferred(), self.problem)

    @property
    def done(self) -> np.ndarray:
        """Who is asked nothing more; shape (num_users,)."""
        return np.asarray(self._open().questions.node) < 0

    @property
    def ended(self) -> tuple[str | None, ...]:
        """Why each person is asked nothing more, in words; None for those who are asked.

        All ``max_questions`` were asked, nothing can be asked within the person's bounds, or the
        design found no question worth asking.
        """
        low, high = askable(Belief(self.surrogate, self.history, problem=self.problem), -1.0, 1.0)
        cases = (
            (~self.done, None),
            (
                np.asarray(self.history.num_queries) == self.max_questions,
                "all questions were asked",
            ),
            ((low == high).all(1), "there is nothing that can be asked"),
        )
        which = np.select([case for case, _ in cases], range(len(cases)), len(cases))
        words = (*(said for _, said in cases), "no question is worth asking")
        return tuple(words[i] for i in which)

    def ask(self) -> Questions:
        """The next question to each person, shape (num_users,): the same until an answer is told.

        ``node`` is -1 for those who are `done`.

        Raises
        ------
        TypeError
            If what the design returns is no `Questions`.
        ValueError
            If its questions cannot be asked.
        """
        return self._open().questions

    def sentences(self) -> tuple[str | None, ...]:
        """The next question to each person in words, natural units; None for those who are done."""
        return self._open().texts

    def tell(self, answer: Array, half_width: Array | None = None) -> None:
        """Each person's answer to the question that `ask` returned last.

        Parameters
        ----------
        answer : Array
            Shape (num_users, d), natural units; NaN where a node was not reported, all NaN for "I
            don't know". Those who are done have none, whatever is given.
        half_width : Array, optional
            Shape (num_users, d), natural units: of the intervals reported, see `History`.

        Raises
        ------
        TypeError
            If an argument is no array of numbers.
        ValueError
            If no question was asked, everybody is done, or an argument has another shape, an
            infinite number or a negative width.
        OSError
            If the file cannot be written; the answer then counts as not told.
        """
        told, turn, history = self._state
        if turn is None:
            raise ValueError("Expected ask() before tell(); got an answer to no question.")
        asked = turn.questions.node >= 0
        if not asked.any():
            raise ValueError("Expected answer while somebody is asked; got one after all are done.")
        history = tell(history, turn.questions, answer, half_width)
        turn = turn._replace(answer=_of_those(asked, answer, np.nan))
        if half_width is not None:
            turn = turn._replace(half_width=_of_those(asked, half_width, 0.0))
        self._become(_State((*told, turn), None, history))

    def undo(self) -> None:
        """Take back the answers told last: the same question is asked again.

        Raises
        ------
        ValueError
            If none was told.
        OSError
            If the file cannot be written; nothing is then taken back.
        """
        if not self._state.told:
            raise ValueError("Expected an answer to take back; got none yet.")
        *told, last = self._state.told
        turn = Turn(last.questions, last.texts)
        self._become(_State(tuple(told), turn, self._history_of(told)))

    def recommend(self, solver: str | Solver = "optimal") -> Plan:
        """What each person is recommended, as things stand.

        Under draws of their SCMs where the problem has a ``level``, and else under the posterior
        means.

        Parameters
        ----------
        solver : str or Solver
            See `find_recourse`.
        """
        level = getattr(self.problem.requirement, "level", None)
        worlds = self._inferred().scms(None if level is None else self.draws)
        return recommend(self.problem, worlds, solver=solver, key=self._k_recommend)

    def resume(self, turns: list[dict[str, Any]]) -> None:
        """Take up what was asked and told elsewhere, in place of what was here.

        Parameters
        ----------
        turns : list of dict
            As `to_json` writes them; the last may be open.

        Raises
        ------
        ValueError
            If they are no turns of these people.
        """
        self._become(self._state_of(turns))

    def know(self, posteriors: Posteriors) -> None:
        """Be given what `belief` would infer, by `infer_each` of many sessions at once."""
        self._posteriors = posteriors

    def to_json(self) -> str:
        """All of it, in strict JSON, but for what has to be passed to `from_json` again.

        Key, settings, people, questions as they were worded, and answers; versions and a checksum.
        """
        return self._written(self._state)

    def save(self, path: str | os.PathLike) -> None:
        """Write `to_json` to a file in one step: there is the whole of it, or what was before.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        _checks.instance(path, str | os.PathLike, "path")
        write(path, self.to_json().encode())

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        problem: Problem,
        surrogate: Surrogate,
        *,
        likelihood: Likelihood | None = None,
        design: Design | None = None,
        sampler: str | Sampler | None = None,
        path: str | os.PathLike | None = None,
    ) -> Session:
        """The session that `to_json` wrote: the same question comes next, and the same plan.

        Parameters
        ----------
        text : str or bytes
        problem, surrogate, likelihood, design, sampler
            As the session began with: they are compared with what is written of them, functions by
            name, and the score by its logits at the people's features.
        path : path, optional
            Of a file that holds the session from the next question on, such as the one that
            ``text`` comes from.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If ``text`` is no session, or was changed, or an argument is another than the session
            began with.

        Warns
        -----
        UserWarning
            If libraries have other versions, under which questions and posteriors may be others.
        """
        content = opened(text)
        session = cls(
            as_key(content["key"]),
            problem,
            surrogate,
            likelihood=likelihood,
            design=design,
            sampler=sampler,
            max_questions=content["max_questions"],
            draws=content["draws"],
            digits=content["digits"],
        )
        if path is not None:
            _checks.instance(path, str | os.PathLike, "path")
        session._compare(content)
        session.resume(content["turns"])
        session.path = path
        return session

    def __repr__(self):
        people = "1 person" if self.num_users == 1 else f"{self.num_users} people"
        told = f"{len(self._state.told)} of {self.max_questions} questions told"
        return f"Session({people}, {told})"

    def _open(self) -> Turn:
        """The turn that is open, begun if there is none."""
        if self._state.turn is None:
            self._become(self._state._replace(turn=self._next()))
        turn = self._state.turn
        assert turn is not None
        return turn

    def _become(self, state: _State) -> None:
        """Save another state, then be in it."""
        if self.path is not None:
            write(self.path, self._written(state).encode())
        if state.history is not self._state.history:
            self._posteriors = None
        self._state = state

    @nan_is_a_value
    def _next(self) -> Turn:
        """The next turn; nobody who is done is asked."""
        told = self._state.told
        going_on = np.full(self.num_users, len(told) < self.max_questions)
        if told:
            going_on &= told[-1].questions.node >= 0
        node: Any = np.full(self.num_users, -1)
        outcome: Any = node
        shift: Any = np.zeros(self.num_users)
        individual: Any = np.zeros(self.num_users, bool)
        if going_on.any():
            posteriors = self._inferred() if self.design.needs_posterior else None
            belief = Belief(self.surrogate, self.history, posteriors, self.problem)
            questions = self.design.ask(jax.random.fold_in(self._k_ask, len(told)), belief)
            chosen = self._checked(questions)
            asked = going_on & (chosen.node >= 0)
            node, outcome = (np.where(asked, of, -1) for of in (chosen.node, chosen.outcome))
            shift = np.where(asked, rounded(chosen.shift, self._decimals()[node]), 0.0)
            individual = asked & chosen.individual
        questions = Questions(node, shift.astype(jnp.result_type(float)), individual, outcome)
        return Turn(questions, self._worded(questions))

    def _worded(self, questions: Questions) -> tuple[str | None, ...]:
        """Each person's question in words."""
        x, graph = np.asarray(self.problem.x), self.surrogate.graph
        return sentences(questions, x, graph, self._decimals())

    def _checked(self, questions: Any) -> Any:
        """A design's questions, which can be asked; in NumPy."""
        shape, graph = (self.num_users,), self.surrogate.graph
        _checks.instance(questions, Questions, "questions of design")
        node = _checks.array(questions.node, "node of design", shape, kind=int)
        shift = _checks.finite(questions.shift, "shift of design", shape)
        individual = _checks.array(questions.individual, "individual of design", shape, kind=bool)
        possible = _who_can_be_asked_about(graph)
        if not np.isin(node, possible).all():
            raise ValueError(
                f"Expected design to ask about nodes with descendants, one of {possible} each; got "
                f"{sorted(set(np.asarray(node).tolist()))}."
            )
        outcome = _checks.array(questions.outcome, "outcome of design", shape, kind=int)
        checked: Any = jax.tree.map(np.asarray, Questions(node, shift, individual, outcome))
        if (checked.outcomes(graph).any(-1) != (checked.node >= 0)).any():
            raise ValueError(
                "Expected design to ask for descendants of the nodes, or -1 for all; got outcomes "
                f"{checked.outcome.tolist()} of nodes {checked.node.tolist()}."
            )
        return checked

    def _decimals(self) -> np.ndarray:
        """Of the numbers in which each node's questions are written; (d,)."""
        return decimals_of(np.asarray(self.problem.scale), self.digits)

    def _inferred(self) -> Posteriors:
        """The posteriors after the answers so far."""
        if self._posteriors is None:
            self._posteriors = infer(
                self._k_infer, self.surrogate, self.history, self.likelihood, sampler=self.sampler
            )
        return self._posteriors

    def _history_of(self, turns) -> History:
        """The history of turns that were told."""
        history = History.empty(self.problem.x, self.max_questions)
        for turn in turns:
            history = tell(history, turn.questions, turn.answer, turn.half_width)
        return history

    def _settings(self) -> dict[str, Any]:
        """What can be told of all that has to be passed again."""
        problem = {name: value for name, value in vars(self.problem).items() if name != "score"}
        others = ("surrogate", "likelihood", "design", "sampler")
        return {
            "problem": {name: described(value) for name, value in problem.items()},
            **{name: described(getattr(self, name)) for name in others},
        }

    def _logits(self) -> list:
        """The score at the people's features, in four digits."""
        if self._logit is None:
            found = np.asarray(_logits(self.problem.score, self.problem.x), float)
            self._logit = described(np.array([float(f"{value:.4g}") for value in found]))
        return self._logit

    def _written(self, state: _State) -> str:
        """A state as `to_json` has it."""
        turns = list(state.told)
        if state.turn is not None and (state.turn.questions.node >= 0).any():
            turns.append(state.turn)
        return sealed(
            {
                "format": FORMAT,
                "schema": SCHEMA,
                "versions": versions(),
                "precision": str(jnp.result_type(float)),
                "key": of_key(self.key),
                "max_questions": int(self.max_questions),
                "draws": int(self.draws),
                "digits": int(self.digits),
                "settings": self._settings(),
                "logit": self._logits(),
                "turns": [of_turn(turn, self.problem.names) for turn in turns],
            }
        )

    def _compare(self, content: dict[str, Any]) -> None:
        """Raise unless this session has the precision, settings and score of a content."""
        precision = str(jnp.result_type(float))
        if content["precision"] != precision:
            raise ValueError(
                f"Expected JAX in the precision of the session in text, "
                f"{_checks.shown(content['precision'])}; got {precision}. See jax_enable_x64."
            )
        found = difference(content["settings"], self._settings(), "settings")
        if found is not None:
            name, before, now = found
            raise ValueError(
                f"Expected {name.removeprefix('settings.')} as the session in text began with, "
                f"{_checks.shown(before)}; got {_checks.shown(now)}."
            )
        before, now = content["logit"], self._logits()
        if not _same_logits(before, now):
            raise ValueError(
                "Expected problem with the score that the session in text began with, whose logits "
                f"at x are {_checks.shown(before)}; got {_checks.shown(now)}."
            )
        if content["versions"] != versions():
            warnings.warn(
                f"The session began with {content['versions']}, and goes on with {versions()}: "
                "questions and posteriors may be others than those would have been.",
                stacklevel=3,
            )

    def _state_of(self, turns: Any) -> _State:
        """The state whose turns `to_json` wrote."""
        if not isinstance(turns, list) or len(turns) > self.max_questions:
            raise ValueError(
                f"Expected turns of the session in text to be at most {self.max_questions}; got "
                f"{_checks.shown(turns)}."
            )
        read: list[Turn] = []
        going_on: Any = np.ones(self.num_users, bool)
        for t, turn in enumerate(turns):
            where = f"turns[{t}]"
            has_parts(turn, {"told", "people"}, where)
            last = t == len(turns) - 1
            if turn["told"] is not True and not (turn["told"] is False and last):
                raise ValueError(
                    f"Expected {where}.told of the session in text to be true, or false of the "
                    f"last; got {_checks.shown(turn['told'])}."
                )
            read.append(as_turn(turn, self.problem.names, self.num_users, where))
            questions: Any = read[-1].questions
            asked = questions.node >= 0
            possible = questions.outcomes(self.surrogate.graph).any(-1) == asked
            if not possible.all() or not asked.any() or (asked & ~going_on).any():
                raise ValueError(
                    f"Expected {where} of the session in text to ask some of those who were asked "
                    "before, about nodes with descendants, for one of these or all (-1); got nodes "
                    f"{questions.node.tolist()} and outcomes {questions.outcome.tolist()}."
                )
            going_on = asked
        told = [turn for turn in read if turn.answer is not None]
        is_open = len(told) < len(read)
        return _State(tuple(told), read[-1] if is_open else None, self._history_of(told))
