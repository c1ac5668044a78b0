"""Computing for many participants at once: what waits is gathered and inferred together."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.frontends.conversation import Conversation
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.terms import Terms
from pcr_jax.inference import infer_each
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task

T = TypeVar("T")

_AT_ONCE = 32  # participants inferred together
_KEPT = 1000  # conversations in memory
_THREADS = 2  # that ask designs and look for plans


class _Waiting(NamedTuple):
    conversation: Conversation
    future: Future


class _Kept(NamedTuple):
    lock: Any
    conversation: Conversation


class Engine:
    """Conversations of one task, and the threads that compute for them.

    Parameters
    ----------
    task : Task
    arms : list of Terms
        Which `warm_up` is for.
    """

    def __init__(self, task: Task, arms: list[Terms]):
        self.task, self.arms = task, arms
        self._surrogates: dict[bool, Surrogate] = {}
        self._kept: OrderedDict[Any, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(_THREADS, "pcr-jax")
        self._thread = threading.Thread(target=self._infer, name="pcr-jax-infer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the threads."""
        self._queue.put(None)
        self._thread.join()
        self._pool.shutdown()

    def surrogate(self, terms: Terms) -> Surrogate:
        """What is believed of everybody, fitted once."""
        with self._lock:
            if terms.curved not in self._surrogates:
                self._surrogates[terms.curved] = self.task.fit(curved=terms.curved)
            return self._surrogates[terms.curved]

    def conversation(
        self, name: Any, applicant: Any, terms: Terms, key: Any, events: Callable[[int], list]
    ) -> _Kept:
        """A participant's conversation, brought up to date, and the lock that it is used under.

        Parameters
        ----------
        name : hashable
            Whose it is.
        applicant, terms, key
            See `Conversation`; the key as the numbers of `jax.random.key_data`.
        events : callable
            Gives the events after a number.
        """
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            key = jax.random.wrap_key_data(jnp.array(key, jnp.uint32))
            made = Conversation(self.task, self.surrogate(terms), applicant, terms, key)
            with self._lock:
                kept = self._kept.setdefault(name, _Kept(threading.RLock(), made))
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
        with kept.lock:
            for event in events(len(kept.conversation.events) - 1):
                kept.conversation.take(event)
        return kept

    def forget(self, name: Any) -> None:
        """Keep nothing of a participant in memory."""
        with self._lock:
            self._kept.pop(name, None)

    def run(self, conversation: Conversation, function: Callable[[Conversation], T]) -> T:
        """What a function finds of a conversation whose posterior is there.

        Called by many threads, each of which waits.
        """
        if conversation.job() is not None:
            future: Future = Future()
            self._queue.put(_Waiting(conversation, future))
            future.result()
        return self._pool.submit(function, conversation).result()

    def _infer(self) -> None:
        """Infer whatever waits, together."""
        while True:
            waiting = [self._queue.get()]
            while len(waiting) < _AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get())
            ends = None in waiting
            self._together([one for one in waiting if one is not None])
            if ends:
                return

    def _together(self, waiting: list[_Waiting]) -> None:
        groups: dict[Any, list] = {}
        for one in waiting:
            try:
                job = one.conversation.job()
                if job is None:
                    one.future.set_result(None)
                    continue
                shape = np.shape(job.history.answer)[1:]
                exact = job.history.half_width is None
                kind = id(job.surrogate), repr(job.likelihood), shape, exact
                groups.setdefault(kind, []).append((one, job))
            except BaseException as error:
                one.future.set_exception(error)
        for group in groups.values():
            try:
                jobs = [job for _, job in group]
                keys = jnp.stack([job.key for job in jobs])
                history = jax.tree.map(
                    lambda *leaves: np.concatenate(list(map(np.asarray, leaves))),
                    *[job.history for job in jobs],
                )
                found = infer_each(keys, jobs[0].surrogate, history, jobs[0].likelihood)
                for (one, _), posteriors in zip(group, found, strict=True):
                    one.conversation.know(posteriors)
                    one.future.set_result(None)
            except BaseException as error:
                for one, _ in group:
                    if not one.future.done():
                        one.future.set_exception(error)

    def warm_up(self, report: Callable[[str], None]) -> None:
        """Compile all that participants will wait for, arm by arm."""
        for terms in {repr(asdict(terms)): terms for terms in self.arms}.values():
            self._rehearse(terms, report)

    def _rehearse(self, terms: Terms, report: Callable[[str], None]) -> None:
        """One conversation with nobody."""
        report("learning from the table")
        surrogate = self.surrogate(terms)
        rows = self.task.data.iloc[:50]
        refused = rows[~self.task.check(rows).favourable.to_numpy(bool)]
        row = (refused if len(refused) else rows).iloc[[0]]
        talk = Conversation(self.task, surrogate, row, terms, jax.random.key(0))

        def happens(kind: str, payload: dict[str, Any]) -> None:
            talk.take(Event(len(talk.events), 0.0, kind, payload))

        happens("consented", {})
        happens("profile", talk.profiled())
        report("the first question")
        for _ in range(2):
            following = self.run(talk, Conversation.following)
            if following is None or following[0] != "asked":
                break
            happens(*following)
            question = talk.question()
            assert question is not None
            values = {f"{effect.column}": effect.now for effect in question.effects}
            said = {"number": question.number, "typed": {}, "values": values, "half_width": {}}
            happens("answered", said)
            report("what an answer teaches")
        self.run(talk, Conversation.following)
        report("what was understood")
        self.run(talk, Conversation.understood)
        report("what if")
        self.run(talk, lambda talk: talk.what_if({}))
        report("plans")
        self.run(talk, Conversation.plans)
        report("ready")
