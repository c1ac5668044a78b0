"""One participant: all that they are asked and told, as a function of a key and of what happened.

What happened is a list of events, each a kind and strict JSON. Questions, posteriors and plans
follow from task, applicant, terms, key and events, to the last bit, on whichever machine of a kind.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from pcr_jax.features import plain
from pcr_jax.frontends.answers import AnswerError, read_answer
from pcr_jax.frontends.effects import learnt
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.terms import Terms
from pcr_jax.frontends.views import (
    Control,
    Effect,
    Outcome,
    Plans,
    PlanView,
    Price,
    Question,
    Understanding,
)
from pcr_jax.frontends.words import taught_sentence
from pcr_jax.history import History
from pcr_jax.inference import Posteriors, infer_each
from pcr_jax.likelihoods import Likelihood
from pcr_jax.recourse.mixed import Advice, outcome
from pcr_jax.recourse.plan import PlanStatus
from pcr_jax.session_json import versions
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task, TaskPlan, TaskSession
from pcr_jax.task.people import person_of, worlds_of
from pcr_jax.task.report import drawing, in_cases

DOTS = 20
"""In which a chance is drawn."""
LEVELS = (0.5, 0.8, 0.95)
"""Probabilities that the price of is told, beside that of the terms."""
_ATTENTION_SHIFT = 0.5  # of a scale, from what is now to what a participant is asked to type


class Mistakes(ValueError):
    """What was typed cannot be understood.

    Attributes
    ----------
    messages : dict
        What is expected, by column.
    """

    def __init__(self, messages: dict[str, str]):
        super().__init__("; ".join(messages.values()))
        self.messages = messages


class _Turn(NamedTuple):
    asked: dict[str, Any]
    answered: dict[str, Any] | None


class Job(NamedTuple):
    """What has to be inferred: arguments of `infer_each` of one user."""

    key: Array
    surrogate: Surrogate
    history: History
    likelihood: Likelihood


def alone(job: Job) -> Posteriors:
    """The posterior of one participant."""
    return infer_each(job.key[None], *job[1:])[0]


class _Telling:
    """A design that keeps what it expects of its question."""

    def __init__(self, design: Any):
        self.design, self.needs_posterior = design, design.needs_posterior
        self.utility: float | None = None

    def ask(self, key, belief):
        """See `Design`."""
        if not hasattr(self.design, "outlook"):
            return self.design.ask(key, belief)
        found = self.design.outlook(key, belief)
        self.utility = float(found.saving[0])
        return found.questions


def digest(posteriors: Posteriors) -> str:
    """A number that stands for all draws, to the last bit."""
    found = hashlib.sha256()
    for draws in (posteriors.draws, posteriors.unknowns):
        found.update(np.ascontiguousarray(draws).tobytes())
    return found.hexdigest()


class Conversation:
    """One participant.

    Parameters
    ----------
    task : Task
    surrogate : Surrogate
        As ``task.fit`` gives it.
    applicant : DataFrame, Series or dict
        One row of the task's table.
    terms : Terms
    key : Array
    events : iterable of Event
        What happened so far.
    infer : callable
        Finds the posteriors of a `Job`, together with others' perhaps.
    gate, plans_gate : context manager
        Within which other computing is done, and the search for plans, which takes longer.

    Raises
    ------
    TypeError, ValueError
        If the applicant is no row of the task.
    """

    def __init__(
        self,
        task: Task,
        surrogate: Surrogate,
        applicant: Any,
        terms: Terms,
        key: Array,
        events: Iterable[Event] = (),
        *,
        infer: Callable[[Job], Posteriors] = alone,
        gate: AbstractContextManager = nullcontext(),  # noqa: B008 - it has no state
        plans_gate: AbstractContextManager = nullcontext(),  # noqa: B008
    ):
        self._infer, self._gate, self._plans_gate = infer, gate, plans_gate
        self.task, self.surrogate, self.terms, self.key = task, surrogate, terms, key
        self.row = task.rows(applicant, "applicant").set_axis(["applicant"])
        self.x = task.encode(self.row)
        self.events: list[Event] = []
        self.consented = self.withdrawn = self.ended = False
        self.profile: dict[str, Any] | None = None
        self.turns: list[_Turn] = []
        self._session: TaskSession | None = None
        self._taken_up: tuple | None = None
        self._telling = _Telling(terms.asks())
        self._known: dict[tuple, Posteriors] = {}
        self._worlds: dict[tuple, Any] = {}
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """Let something have happened."""
        if event.seq != len(self.events):
            raise ValueError(f"Expected event {len(self.events)}; got {event.seq}.")
        kind, payload = event.kind, event.payload
        if kind == "consented":
            self.consented = True
        elif kind == "withdrawn":
            self.withdrawn = True
        elif kind == "profile":
            self.profile, self._session = payload, None
            self._telling = _Telling(self.terms.asks())
            self.turns = [turn for turn in self.turns if turn.answered is not None]
        elif kind == "asked":
            self.turns.append(_Turn(payload, None))
        elif kind == "answered":
            self.turns[-1] = _Turn(self.turns[-1].asked, payload)
        elif kind == "back":
            self._back()
        elif kind == "ended":
            self.ended = True
        self.events.append(event)

    def _back(self) -> None:
        """Take back the last answer: its question is open again."""
        self.turns = [turn for turn in self.turns if turn.answered is not None]
        self.turns[-1] = _Turn(self.turns[-1].asked, None)
        self.ended = False

    @property
    def stage(self) -> str:
        """What comes next: ``consent``, ``profile``, ``question``, ``plan``, or ``withdrawn``."""
        if self.withdrawn:
            return "withdrawn"
        if not self.consented:
            return "consent"
        if self.profile is None:
            return "profile"
        return "plan" if self.ended else "question"

    @property
    def can_go_back(self) -> bool:
        """Whether there is an answer to take back."""
        return any(turn.answered is not None for turn in self.turns)

    @property
    def personal(self) -> Task:
        """The task, with what the person says of what they can do."""
        return self.session.task

    @property
    def session(self) -> TaskSession:
        """The conversation as the library has it."""
        if self._session is None:
            task = self.task
            if self.profile is not None:
                limits = self._entries(self.profile["limits"])
                own = {"locked": self.profile["locked"], "weights": self.profile["weights"]}
                task = task.personal(**own, limits=limits)
            settings = {"design": self._telling, "max_questions": self.terms.max_questions}
            self._taken_up = None
            self._session = task.session(self.row, self.surrogate, key=self.key, **settings)
        turns = self._effects()
        if self._taken_up != (now := (self._told, len(turns))):
            self._session.resume([_turn_of(turn, self.task.graph.nodes) for turn in turns])
            self._taken_up = now
        return self._session

    def _effects(self) -> list[_Turn]:
        """The turns that are inferred from."""
        return [turn for turn in self.turns if turn.asked["kind"] == "effect"]

    @property
    def _told(self) -> tuple:
        """Which answers the posterior is of."""
        return tuple(
            (turn.asked["number"], id(turn.answered))
            for turn in self._effects()
            if turn.answered is not None
        )

    def job(self) -> Job | None:
        """What has to be inferred to know what the answers teach; None if that is known."""
        if self._told in self._known:
            return None
        session = self.session
        return Job(session.inference_key, session.surrogate, session.history, session.likelihood)

    def know(self, posteriors: Posteriors) -> None:
        """Be given what `job` asks for."""
        kept = dict(list(self._known.items())[-2:])
        self._known = {**kept, self._told: posteriors}

    @property
    def posteriors(self) -> Posteriors:
        """What the answers teach. It computes."""
        if (job := self.job()) is not None:
            self.know(self._infer(job))
        return self._known[self._told]

    def controls(self) -> tuple[Control, ...]:
        """The features that the person can act on."""
        said = self.profile or {"locked": [], "limits": {}, "weights": {}}
        return tuple(
            Control(
                *self._seen(column)[:5],
                self._seen(column).now_text,
                *self._ends(j, feature),
                getattr(feature, "step", None),
                self._seen(column).names,
                getattr(feature, "direction", None),
                column in said["locked"],
                said["limits"].get(column),
                said["weights"].get(column, 1.0),
            )
            for j, (column, feature) in enumerate(self.task.features.items())
            if feature.acted
        )

    def _ends(self, j: int, feature: Any) -> tuple[float, float]:
        """The least and the largest number that a feature can be set to."""
        now, seen = float(self.x[0, j]), tuple(map(float, self.task.seen[j]))
        if feature.continuous:
            return feature.reach(now, seen) or (now, now)
        values = [now, *feature.moves(now, seen).tolist()]
        return min(values), max(values)

    def _seen(self, column: Any, individual: bool = True) -> Effect:
        """A feature as the person sees it: their own, or that of people on average."""
        feature = self.task.features[column]
        now = float(self.x[0, list(self.task.features).index(column)])
        if not individual and (average := self.session.average(column)) is not None:
            now = average
        names = tuple(feature.shown(j) for j in range(len(getattr(feature, "names", ()))))
        unit = getattr(feature, "unit", None)
        return Effect(
            column, feature.name(column), feature.kind, unit, now, feature.shown(now), names
        )

    def question(self) -> Question | None:
        """The question that is open; None if there is none."""
        if not self.turns or self.turns[-1].answered is not None or self.ended:
            return None
        asked = self.turns[-1].asked
        return Question(
            asked["number"],
            asked["kind"],
            asked["text"],
            asked["column"],
            asked["shift"],
            asked["individual"],
            tuple(self._seen(column, asked["individual"]) for column in asked["effects"]),
            self._about_left(),
            asked["taught"],
        )

    def _about_left(self) -> int:
        """How many questions there will be from the open one on, at most."""
        terms, done = self.terms, sum(turn.answered is not None for turn in self.turns)
        whole = terms.max_questions + len(terms.attention) + len(terms.retest)
        return max(1, whole - done)

    def following(self) -> tuple[str, dict[str, Any]] | None:
        """The event that comes by itself: the next question, or the end of them; None if none.

        It computes.
        """
        if self.stage != "question" or self.question() is not None:
            return None
        self._learn()
        with self._gate:
            return self._following()

    def _learn(self) -> None:
        """Have the session know what the answers teach."""
        posteriors = self.posteriors
        self.session.know(posteriors)

    def _following(self) -> tuple[str, dict[str, Any]]:
        effects = self._effects()
        checks = [t.asked["before"] for t in self.turns if t.asked["kind"] == "attention"]
        again = [t.asked["of"] for t in self.turns if t.asked["kind"] == "retest"]
        if len(effects) in self.terms.attention and len(effects) not in checks:
            return "asked", self._attention(len(effects))
        session, number = self.session, len(effects)
        self._telling.utility = None
        if number < self.terms.max_questions and not session.done[0]:
            return "asked", self._asked()
        for place in self.terms.retest:
            if place < len(effects) and place not in again:
                return "asked", self._retest(place, effects[place].asked)
        return "ended", {"why": session.ended[0]}

    def _common(
        self, kind: str, text: str, effects: list, *, individual: bool, **more
    ) -> dict[str, Any]:
        seen = [self._seen(column, individual) for column in effects]
        return {
            "number": len(self.turns),
            "kind": kind,
            "text": text,
            "effects": effects,
            "individual": individual,
            "shown": {f"{effect.column}": effect.now_text for effect in seen},
            "taught": self._taught(),
            "design": repr(self._telling.design),
            "utility": None,
            **more,
        }

    def _asked(self) -> dict[str, Any]:
        """The design's next question."""
        session = self.session
        questions, text = session.ask(), session.sentences()[0]
        assert text is not None
        node, graph = int(questions.node[0]), self.task.graph
        effects = [graph.nodes[j] for j in np.flatnonzero(questions.outcomes(graph)[0])]
        utility = self._telling.utility
        one = int(questions.outcome[0])
        more = {} if one < 0 else {"outcome": graph.nodes[one]}
        return self._common(
            "effect",
            text,
            effects,
            column=graph.nodes[node],
            shift=float(questions.shift[0]),
            individual=bool(questions.individual[0]),
            utility=utility if utility is None or math.isfinite(utility) else None,
            versions=versions(),
            **more,
        )

    def _attention(self, before: int) -> dict[str, Any]:
        """A question that shows whether questions are read."""
        reacts = np.flatnonzero(self.task.graph.descendants.any(0))
        j = int(reacts[0])
        column = self.task.graph.nodes[j]
        feature, now = self.task.features[column], float(self.x[0, j])
        low, high, _ = feature.grid
        if getattr(feature, "names", None):
            wanted = low if now > low else high
        else:
            size = _ATTENTION_SHIFT * float(self.task.scale[j])
            wanted = float(f"{now + size if now + size <= high else now - size:.1g}")
        text = (
            f"This question is here to see whether questions are read. As your "
            f"{feature.name(column)}, please give {feature.shown(wanted)}."
        )
        more: dict[str, Any] = {"column": column, "shift": 0.0, "individual": True}
        return self._common("attention", text, [column], **more, before=before, wanted=wanted)

    def _retest(self, of: int, asked: dict[str, Any]) -> dict[str, Any]:
        """A question once more."""
        text = f"You were asked this before; please answer it once more. {asked['text']}"
        same = {name: asked[name] for name in ("column", "shift", "individual")}
        return self._common("retest", text, asked["effects"], **same, of=of)

    def _taught(self) -> str | None:
        """What the last answer changed."""
        effects = self._effects()
        last = effects[-1] if effects else None
        if last is None or last.answered is None or self.turns[-1] is not last:
            return None
        before = self._known.get(self._told[:-1])
        if before is None or all(value is None for value in last.answered["values"].values()):
            return None
        return taught_sentence(self.task, self.x[0], last.asked, before, self.posteriors)

    def read(self, typed: Mapping[str, str]) -> dict[str, Any]:
        """What a person typed in answer to the open question, as the payload of ``answered``.

        Parameters
        ----------
        typed : Mapping
            Texts by column.

        Raises
        ------
        Mistakes
            If a text says nothing that can be understood; what is expected, by column.
        ValueError
            If no question is open.
        """
        question = self.question()
        if question is None:
            raise ValueError("Expected an open question; got none.")
        values: dict[str, float | None] = {}
        widths: dict[str, float] = {}
        wrong: dict[str, str] = {}
        for effect in question.effects:
            name, feature = f"{effect.column}", self.task.features[effect.column]
            try:
                found = read_answer(typed.get(name, ""), feature, effect.column, effect.now)
            except AnswerError as error:
                wrong[name] = str(error)
                continue
            values[name] = found.value
            if found.half_width:
                widths[name] = found.half_width
        if wrong:
            raise Mistakes(wrong)
        said = {f"{e.column}": typed.get(f"{e.column}", "") for e in question.effects}
        return {"number": question.number, "typed": said, "values": values, "half_width": widths}

    def profiled(
        self,
        locked: Iterable[Any] = (),
        limits: Mapping[Any, tuple[float, float]] | None = None,
        weights: Mapping[Any, float] | None = None,
    ) -> dict[str, Any]:
        """What a person says that they can do, as the payload of ``profile``.

        Raises
        ------
        TypeError, ValueError
            See `Task.personal`.
        """
        limits, weights = dict(limits or {}), dict(weights or {})
        self.task.personal(locked=tuple(locked), limits=self._entries(limits), weights=weights)
        return {
            "locked": list(locked),
            "limits": {column: list(map(float, ends)) for column, ends in limits.items()},
            "weights": {column: float(weight) for column, weight in weights.items()},
            "was": self.profile,
        }

    def _entries(self, limits: Mapping[Any, Sequence[float]]) -> dict[Any, tuple]:
        """Limits in numbers as `Task.personal` takes them: levels by their names."""
        names: dict[Any, Any] = {
            column: getattr(feature, "names", None)
            for column, feature in self.task.features.items()
        }
        return {
            column: tuple(names[column][round(end)] if names[column] else end for end in ends)
            for column, ends in limits.items()
        }

    def taken_back(self) -> dict[str, Any]:
        """The payload of ``back``.

        Raises
        ------
        ValueError
            If there is no answer.
        """
        answered = [turn.answered for turn in self.turns if turn.answered is not None]
        if not answered:
            raise ValueError("Expected an answer to take back; got none yet.")
        return {"number": answered[-1]["number"], "typed": answered[-1]["typed"]}

    def _person(self):
        """What can be done, in the SCMs that are believed: see `pcr_jax.recourse.mixed.Person`."""
        if self._told not in self._worlds:
            made = partial(worlds_of, level=self.terms.level, draws=self.session.draws)
            worlds, units = made(self.task, self.posteriors, self.x, key=jax.random.key(0))
            own = jax.tree.map(lambda leaf: leaf[0], worlds)
            unit = None if units is None else units[0]
            self._worlds = {self._told: (own, unit)}
        worlds, unit = self._worlds[self._told]
        return person_of(self.personal, self.row, self.x[0], worlds, unit, self.terms.level)

    def understood(self) -> Understanding:
        """What was understood of the person, beside what is believed of everybody."""
        self._learn()
        with self._gate:
            return self._understood()

    def _understood(self) -> Understanding:
        person = self._person()
        draws, key = self.session.draws, jax.random.key(0)
        everybody, units = worlds_of(
            self.task, self.surrogate, self.x, self.terms.level, draws, key
        )
        people = jax.tree.map(lambda leaf: np.asarray(leaf[0]), everybody)
        effects = learnt(self.task, self.x[0], person, people, units)
        return Understanding(effects, drawing(self.task))

    def what_if(self, values: Mapping[Any, float]) -> Outcome:
        """What would follow if features were set to ``values``, as numbers of the task.

        Raises
        ------
        ValueError
            If a feature cannot be acted on, or set to that.
        """
        self._learn()
        with self._gate:
            return self._what_if(values)

    def _what_if(self, values: Mapping[Any, float]) -> Outcome:
        person, controls = self._person(), {c.column: c for c in self.controls()}
        value, acted = self.x[0].astype(float), np.zeros(self.x.shape[1], bool)
        for column, number in values.items():
            control = controls.get(column)
            if control is None or control.locked:
                raise ValueError(f"Expected columns that can be acted on; got {column!r}.")
            low, high = control.limits or (control.low, control.high)
            if not (isinstance(number, int | float) and low <= number <= high):
                raise ValueError(
                    f"Expected {control.label} from {plain(low)} to {plain(high)}; got {number}."
                )
            j = list(self.task.features).index(column)
            if number != self.x[0, j]:
                value[j], acted[j] = number, True
        after, works = outcome(person, value, acted)
        costs = [
            feature.distance(value[j], float(self.x[0, j])) / float(person.scale[j])
            for j, feature in enumerate(self.task.features.values())
            if acted[j]
        ]
        share, cost = float(works.mean()), float(sum(costs))
        advice = Advice(PlanStatus.found, value, acted, cost, share, after, 1)
        told = TaskPlan(self.personal, self.row, ([advice],), self.terms.level, None, {})
        favourable = bool(person.margin(self.x[0][None])[0] >= 0)
        said = tuple(told.consequences(0, advice))
        return Outcome(favourable, share, in_cases(share), math.floor(DOTS * share), said, cost)

    def plans(self) -> Plans:
        """What the person is recommended, as things stand. It computes."""
        self._learn()
        with self._plans_gate:
            return self._plans()

    def _plans(self) -> Plans:
        session = self.session
        plan = session.recommend(level=self.terms.level, k=self.terms.plans)
        found = plan.advice[0]
        views = tuple(self._view(plan, advice) for advice in ([None] if found is None else found))
        price: tuple[Price, ...] = ()
        if found is not None and found[0].acted.any():
            levels = sorted({*LEVELS, self.terms.level})
            table = plan.price_of_certainty(levels).to_dict("records")
            price = tuple(
                Price(level, _finite(entry["cost"]), entry["sentence"])
                for level, entry in zip(levels, table, strict=True)
            )
        letter = plan.letter()
        payload = {
            "plans": [view._asdict() for view in views],
            "price": [one._asdict() for one in price],
            "letter": letter,
            "versions": versions(),
            "posterior": digest(self.posteriors),
        }
        return Plans(views, price, letter, payload)

    def _view(self, plan: TaskPlan, advice: Advice | None) -> PlanView:
        sentence = plan.phrase(0, advice)
        if advice is None:
            return PlanView((), (), sentence, None, None, 0, None, PlanStatus.no_model.name)
        some = bool(advice.acted.any())
        share = float(advice.p_valid) if math.isfinite(advice.p_valid) else None
        return PlanView(
            tuple(plan.steps(0, advice)),
            tuple(plan.consequences(0, advice)) if some else (),
            sentence,
            share,
            None if share is None else in_cases(share),
            0 if share is None else math.floor(DOTS * share),
            _finite(advice.cost),
            advice.status.name,
            {
                f"{column}": float(advice.value[j])
                for j, column in enumerate(plan.task.features)
                if advice.acted[j]
            },
        )


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _turn_of(turn: _Turn, nodes: tuple) -> dict[str, Any]:
    """As `TaskSession.resume` takes it up."""
    asked, answered = turn
    told: dict[str, Any] = {"answer": None, "half_width": None}
    if answered is not None:
        values = [answered["values"].get(f"{node}") for node in nodes]
        if any(value is not None for value in values):
            told["answer"] = values
        if answered["half_width"]:
            told["half_width"] = [answered["half_width"].get(f"{node}", 0.0) for node in nodes]
    kept = {name: asked[name] for name in ("shift", "individual", "text")}
    if "outcome" in asked:
        kept["outcome"] = asked["outcome"]
    person = {"node": asked["column"], **kept, **told}
    return {"told": answered is not None, "people": [person]}
