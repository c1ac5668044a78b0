"""Computing for many participants at once: what waits is gathered and inferred together."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.batching import width
from pcr_jax.frontends.conversation import Conversation, Job
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.terms import Terms
from pcr_jax.inference import Posteriors, infer_each
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task

T = TypeVar("T")

_AT_ONCE = 3  # participants inferred together, for each unit of `width`: all wait for the last
_INFERRING = 2  # threads that do
_KEPT = 1000  # conversations in memory
_COMPUTING = 2  # that ask designs, or are told what was understood, at once; plans have a gate of 1


class Participants(Protocol):
    """What an engine needs of a store."""

    def participant(self, number: int) -> Any:
        """With ``arm``, ``applicant`` and ``key``; None if there is none."""

    def events(self, number: int, after: int = -1) -> list[Event]:
        """The events after a number."""


@dataclass(frozen=True)
class _Kept:
    lock: Any
    conversation: Conversation


class _Waiting(NamedTuple):
    job: Job
    future: Future


class Engine:
    """Conversations of one task, and the threads that infer for them.

    Parameters
    ----------
    store : Participants
    task : Task
    arms : dict
        The `Terms` of each arm, by name.
    """

    def __init__(self, store: Participants, task: Task, arms: Mapping[str, Terms]):
        self.store, self.task, self.arms = store, task, dict(arms)
        self.ready = threading.Event()
        self._surrogates: dict[bool, Surrogate] = {}
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._lock, self._fitting = threading.Lock(), threading.Lock()
        self._gate = threading.BoundedSemaphore(_COMPUTING)
        self._plans_gate = threading.BoundedSemaphore(1)
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        for _ in range(_INFERRING):
            threading.Thread(target=self._serve, name="pcr-jax-infer", daemon=True).start()

    def run(self, number: int, function: Callable[[Conversation], T]) -> T:
        """What a function says of a participant's conversation, brought up to date.

        Called by many threads, of which those of one participant wait for each other.

        Raises
        ------
        KeyError
            If there is no such participant.
        """
        kept = self._conversation(number)
        with kept.lock:
            talk = kept.conversation
            for event in self.store.events(number, after=len(talk.events) - 1):
                talk.take(event)
            return function(talk)

    def forget(self, number: int) -> None:
        """Keep nothing of a participant in memory."""
        with self._lock:
            self._kept.pop(number, None)

    def surrogate(self, terms: Terms) -> Surrogate:
        """What is believed of everybody, fitted once."""
        with self._fitting:
            if terms.curved not in self._surrogates:
                self._surrogates[terms.curved] = self.task.fit(curved=terms.curved)
            return self._surrogates[terms.curved]

    def _conversation(self, number: int) -> _Kept:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        participant = self.store.participant(number)
        if participant is None:
            raise KeyError(f"Expected a participant; got none of number {number}.")
        key = jax.random.wrap_key_data(jnp.array(participant.key, jnp.uint32))
        made = self._talk(participant.applicant, self.arms[participant.arm], key)
        with self._lock:
            kept = self._kept.setdefault(number, _Kept(threading.RLock(), made))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return kept

    def _talk(self, applicant: Any, terms: Terms, key: Any) -> Conversation:
        surrogate = self.surrogate(terms)
        return Conversation(
            self.task,
            surrogate,
            applicant,
            terms,
            key,
            infer=self._infer,
            gate=self._gate,
            plans_gate=self._plans_gate,
        )

    def _infer(self, job: Job) -> Posteriors:
        """Wait for a job's posteriors."""
        waiting = _Waiting(job, Future())
        self._queue.put(waiting)
        return waiting.future.result()

    def _serve(self) -> None:
        """Infer whatever waits, together, for good."""
        while True:
            waiting = [self._queue.get()]
            with suppress(queue.Empty):
                while len(waiting) < _AT_ONCE * width():
                    waiting.append(self._queue.get_nowait())
            try:
                found = together([one.job for one in waiting])
            except Exception as error:  # whoever waits is told
                for one in waiting:
                    one.future.set_exception(error)
            else:
                for one, posteriors in zip(waiting, found, strict=True):
                    one.future.set_result(posteriors)

    def warm_up(self, report: Callable[[str], None]) -> None:
        """Compile what participants wait for, by conversations of each arm with nobody.

        The engine is ``ready`` when questions are; what comes later is compiled while they are
        answered, and last what is for those who answer by a range.

        Parameters
        ----------
        report : callable
            Told what is done next.
        """
        report("what the table teaches")
        arms = list(dict.fromkeys(self.arms.values()))
        talks = [self._rehearsed(terms, report, 0.0) for terms in arms]
        self.ready.set()
        for talk in talks:
            self._rehearse_the_end(talk, report)

        def of_ranges(said):
            report(f"{said}, of ranges")

        for terms in arms:
            self._rehearse_the_end(self._rehearsed(terms, of_ranges, 1.0), of_ranges)

    def _rehearsed(
        self, terms: Terms, report: Callable[[str], None], half_width: float
    ) -> Conversation:
        """A conversation to its second question; answers are ranges if of a ``half_width``."""
        rows = self.task.data.iloc[:50]
        refused = rows[~self.task.check(rows).favourable.to_numpy(bool)]
        row = (refused if len(refused) else rows).iloc[[0]]
        talk = self._talk(row, terms, jax.random.key(0))

        def happens(kind: str, payload: dict[str, Any]) -> None:
            talk.take(Event(len(talk.events), 0.0, kind, payload))

        happens("consented", {})
        happens("profile", talk.profiled())
        report("questions")
        while (following := talk.following()) is not None and following[0] == "asked":
            happens(*following)
            question = talk.question()
            assert question is not None
            told = {"number": question.number, "typed": {}}
            values = {f"{effect.column}": effect.now for effect in question.effects}
            widths = dict.fromkeys(values, half_width) if half_width else {}
            happens("answered", {**told, "values": values, "half_width": widths})
            if question.kind == "effect":
                break
        report("what answers teach")
        talk.following()
        return talk

    def _rehearse_the_end(self, talk: Conversation, report: Callable[[str], None]) -> None:
        report("what is understood")
        talk.understood()
        talk.what_if({})
        report("plans")
        talk.plans()


def _kind(job: Job) -> tuple:
    """Jobs of one kind are inferred together."""
    history = job.history
    shape, exact = np.shape(history.answer)[1:], history.half_width is None
    return id(job.surrogate), repr(job.likelihood), shape, exact


def together(jobs: list[Job]) -> list[Posteriors]:
    """What each job asks for, as if it were alone."""
    kinds: dict[tuple, list[int]] = {}
    for place, job in enumerate(jobs):
        kinds.setdefault(_kind(job), []).append(place)
    found: dict[int, Posteriors] = {}
    for places in kinds.values():
        some = [jobs[place] for place in places]
        history = jax.tree.map(
            lambda *leaves: np.concatenate(list(map(np.asarray, leaves))),
            *[job.history for job in some],
        )
        keys = jnp.stack([job.key for job in some])
        each = infer_each(keys, some[0].surrogate, history, some[0].likelihood)
        found.update(zip(places, each, strict=True))
    return [found[place] for place in range(len(jobs))]
