"""People who are simulated and take part in a whole study through its pages.

They do what a browser without JavaScript would: they read a page, fill in its form and send it, and
follow where that leads. Each has an SCM of their own, drawn from what is believed of everybody, and
types its answers as text.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx
import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.elicitation import SimulatedUser
from pcr_jax.features import Feature, plain
from pcr_jax.frontends.study.assignment import key_of
from pcr_jax.history import Questions
from pcr_jax.scm import SCM
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task

_PAGES = 300  # that somebody looks at before they give up
_PATIENCE = 60.0  # seconds in which a server that fails is tried again
_WAIT = 0.5  # seconds between
_DONE = "done"
_WAITING = "waiting"  # the step of the page while a server gets ready


class Field(NamedTuple):
    """Something that a form sends."""

    tag: str
    name: str
    value: str
    attributes: Mapping[str, str | None]


@dataclass
class Form:
    """A form that leads on."""

    step: str
    action: str
    method: str
    fields: list[Field] = field(default_factory=list)


class Page(HTMLParser):
    """What a browser sees of a page.

    Attributes
    ----------
    step : str or None
        Of ``main``.
    question : dict or None
        What the page says of the question on it.
    form : Form or None
        The one that leads on.
    text : str
    """

    def __init__(self, html: str):
        super().__init__()
        self.step: str | None = None
        self.question: dict[str, Any] | None = None
        self.form: Form | None = None
        self._open: Form | None = None
        self._area: str | None = None
        self._select: str | None = None
        self._texts: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `html.parser`."""
        at = dict(attrs)
        if tag == "main":
            self.step = at.get("data-step")
            self.question = json.loads(at["data-question"] or "") if "data-question" in at else None
        elif tag == "form" and at.get("data-step"):
            if self.form is not None:
                raise ValueError("two forms that lead on")
            method = (at.get("method") or "get").lower()
            self.form = self._open = Form(at["data-step"] or "", at.get("action") or "", method)
        elif self._open is not None:
            self._handle_field(tag, at, self._open)

    def _handle_field(self, tag: str, at: dict[str, str | None], form: Form) -> None:
        name, value = at.get("name") or "", at.get("value") or ""
        if tag == "textarea":
            self._area = name
            form.fields.append(Field(tag, name, "", at))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            first = all(of.name != self._select for of in form.fields)
            if first or "selected" in at:
                form.fields = [of for of in form.fields if of.name != self._select]
                form.fields.append(Field("select", self._select, value, at))
        elif tag == "button" or (tag == "input" and name):
            form.fields.append(Field(tag, name, value, at))

    def handle_endtag(self, tag: str) -> None:
        """See `html.parser`."""
        if tag == "form":
            self._open = None
        elif tag == "textarea":
            self._area = None
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        """See `html.parser`."""
        if self._area is not None and self._open is not None:
            last = self._open.fields[-1]
            self._open.fields[-1] = last._replace(value=last.value + data)
        self._texts.append(data)


def filled(form: Form, typed: Mapping[str, str]) -> dict[str, str]:
    """What a form sends if these texts are typed, or chosen, and its first button is pressed."""
    sent: dict[str, str] = {}
    pressed = False
    for of in form.fields:
        kind = (of.attributes.get("type") or ("submit" if of.tag == "button" else "text")).lower()
        if kind in ("submit", "button", "reset", "image"):
            if kind == "submit" and not pressed and "formaction" not in of.attributes:
                sent |= {of.name: of.value} if of.name else {}
                pressed = True
        elif kind == "radio":
            chosen = typed[of.name] == of.value if of.name in typed else "checked" in of.attributes
            if chosen:
                sent[of.name] = of.value
        elif kind == "checkbox":
            if of.name in typed or "checked" in of.attributes or "required" in of.attributes:
                sent[of.name] = of.value or "on"
        else:
            sent[of.name] = typed.get(of.name, of.value)
    return sent


def as_typed(feature: Feature, number: float) -> str:
    """An answer as somebody types it: in three digits, an entry that the feature can have; or ?."""
    if not np.isfinite(number):
        return "?"
    low, high, _ = feature.grid
    if feature.kind in ("levels", "nominal"):
        return feature.shown(round(float(np.clip(number, low, high))))
    whole = feature.kind == "integer"
    number = float(np.clip(float(f"{round(number) if whole else number:.3g}"), low, high))
    return f"{round(number)}" if whole else plain(number)


class Truth(NamedTuple):
    """Somebody who is simulated.

    Attributes
    ----------
    numbers : ndarray
        Shape (k,): what their SCM is, in the surrogate's numbers.
    scm : SCM
    """

    numbers: np.ndarray
    scm: SCM


def truth_of(surrogate: Surrogate, seed: int, position: int) -> Truth:
    """The true SCM of the person at a position: a draw from the surrogate's prior."""
    key = jax.random.wrap_key_data(jnp.array(key_of(seed, position), jnp.uint32))
    unit = jax.random.uniform(jax.random.fold_in(key, 1), (len(surrogate.names),))
    numbers = surrogate.prior.from_unit(unit)
    return Truth(np.asarray(numbers), surrogate.scm(numbers))


@dataclass
class Outcome:
    """What somebody met with.

    Attributes
    ----------
    participant : int
    finished : bool
        Whether they came to the last page.
    answers : int
        That were accepted.
    seconds : list of (str, float)
        For every answer: what came next (``question`` or ``plan``), and the seconds until then.
    errors : list of str
    """

    participant: int
    finished: bool = False
    answers: int = 0
    seconds: list[tuple[str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Person(NamedTuple):
    """Who is to take part: number, link, row in numbers (d,), and the SCM they have."""

    participant: int
    link: str
    x: np.ndarray
    scm: SCM


class _Visitor:
    """One simulated person before one server."""

    def __init__(self, person: Person, task: Task, think: float, seed: int, client: httpx.Client):
        self.person, self.task, self.think, self.client = person, task, think, client
        self.rng = np.random.default_rng([seed, person.participant])
        self.user = SimulatedUser(person.scm, error_rate=0.1, relative_noise=0.1)
        self.names = {f"{column}": j for j, column in enumerate(task.features)}
        self.outcome = Outcome(person.participant)

    def go(self) -> Outcome:
        """Take part from the link to the last page."""
        try:
            page, url, _ = self.seen("GET", self.person.link)
            for _ in range(_PAGES):
                if page.step == _DONE:
                    self.outcome.finished = True
                    return self.outcome
                if page.form is None:
                    raise ValueError(f"a page {page.step!r} that leads nowhere")
                form, sent = page.form, filled(page.form, self.typed(page))
                if self.think:
                    time.sleep(self.rng.exponential(self.think))
                began = time.perf_counter()
                page, url, straight = self.seen(
                    form.method.upper(), urljoin(url, form.action), sent
                )
                if form.step == "question" and straight:
                    self.note(page, time.perf_counter() - began)
            raise ValueError(f"no end after {_PAGES} pages")
        except Exception as error:
            self.outcome.errors.append(f"{type(error).__name__}: {error}")
        return self.outcome

    def note(self, page: Page, seconds: float) -> None:
        """Note an answer that led straight to a page."""
        self.outcome.answers += 1
        follows = "question" if page.question is not None else "plan"
        self.outcome.seconds.append((follows, seconds))

    def seen(
        self, method: str, url: str, sent: Mapping[str, str] | None = None
    ) -> tuple[Page, str, bool]:
        """The page that a request leads to, where it is, and whether it led there straight.

        Somebody whom a server fails opens their link again, which leads to where they are.
        """
        until, straight = time.monotonic() + _PATIENCE, True
        while True:
            try:
                response = self.client.request(method, url, data=sent)  # type: ignore[arg-type]
                failed = response.status_code == 429 or response.status_code >= 500
            except httpx.TransportError as error:
                self.failed(f"{type(error).__name__}: {error}", until)
            else:
                if not failed and response.status_code < 400:
                    page = Page(response.text)
                    if page.step != _WAITING:
                        return page, f"{response.url}", straight
                    time.sleep(_WAIT)
                    method, url, sent, straight = "GET", f"{response.url}", None, False
                    continue
                said = f"{response.status_code} of {_masked(f'{response.url}')}"
                if not failed:
                    raise ValueError(f"{said}: {Page(response.text).text[:300]}")
                self.failed(said, until)
                time.sleep(min(_PATIENCE, float(response.headers.get("retry-after", _WAIT))))
            time.sleep(_WAIT)
            method, url, sent, straight = "GET", self.person.link, None, False

    def failed(self, said: str, until: float) -> None:
        """Note a failure; too many end it."""
        self.outcome.errors.append(said)
        if time.monotonic() > until:
            raise ValueError(f"no page within {_PATIENCE:g} seconds")

    def typed(self, page: Page) -> dict[str, str]:
        """What they type, or choose, on a page."""
        assert page.form is not None
        if page.form.step == "feedback":
            radios = [of for of in page.form.fields if of.attributes.get("type") == "radio"]
            chosen = radios[int(self.rng.integers(len(radios)))]
            areas = {of.name: "I am simulated." for of in page.form.fields if of.tag == "textarea"}
            return {chosen.name: chosen.value, **areas}
        if page.form.step != "question" or page.question is None:
            return {}
        entries = {
            of.name: of.attributes["data-column"] or ""
            for of in page.form.fields
            if "data-column" in of.attributes
        }
        if page.question["kind"] == "attention":
            wanted = re.search(r"please (?:give|type) (.+?)\.(?:\s|$)", page.text, re.I)
            return dict.fromkeys(entries, wanted[1] if wanted else "?")
        answer = self.answer(page.question)
        features = list(self.task.features.values())
        return {
            name: as_typed(features[self.names[column]], answer[self.names[column]])
            for name, column in entries.items()
        }

    def answer(self, question: Mapping[str, Any]) -> np.ndarray:
        """Their answer in numbers, (d,)."""
        asked = Questions(
            jnp.array([self.names[f"{question['column']}"]]),
            jnp.array([float(question["shift"])]),
            jnp.array([bool(question["individual"])]),
        )
        key = jax.random.key(int(self.rng.integers(2**31)))
        return np.asarray(self.user.answer(key, asked, jnp.asarray(self.person.x)[None]))[0]


def _masked(url: str) -> str:
    return re.sub(r"/join/.*", "/join/...", urlsplit(url).path)


def simulate(
    people: Sequence[Person],
    task: Task,
    *,
    concurrency: int = 10,
    think: float = 0.0,
    seed: int = 0,
    timeout: float = 120.0,
    client: Callable[[], httpx.Client] | None = None,
    on_end: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Let people take part, so many at once.

    Parameters
    ----------
    people : sequence of Person
    task : Task
    concurrency : int
        At once.
    think : float
        Seconds that they think before they send a form: the mean of an exponential distribution.
    seed : int
        Of thinking, errors and verdicts.
    timeout : float
        Seconds until somebody gives a request up.
    client : callable, optional
        Makes somebody's browser, which follows redirects and keeps cookies.
    on_end : callable, optional
        Called with each outcome, for progress.

    Returns
    -------
    list of Outcome
        In the order of ``people``.
    """
    lock = threading.Lock()

    def one(person: Person) -> Outcome:
        with made() as browser:
            outcome = _Visitor(person, task, think, seed, browser).go()
        if on_end is not None:
            with lock:
                on_end(outcome)
        return outcome

    def made() -> httpx.Client:
        if client is not None:
            return client()
        return httpx.Client(follow_redirects=True, timeout=timeout)

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, people))


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How it went: people, finished, answers, errors, and quantiles of the seconds by what came."""
    found: dict[str, Any] = {
        "people": len(outcomes),
        "finished": sum(outcome.finished for outcome in outcomes),
        "answers": sum(outcome.answers for outcome in outcomes),
        "errors": sum(len(outcome.errors) for outcome in outcomes),
    }
    for what in ("question", "plan"):
        seconds = [s for outcome in outcomes for kind, s in outcome.seconds if kind == what]
        for name, share in (("median", 0.5), ("p95", 0.95), ("most", 1.0)):
            found[f"{what}_{name}"] = float(np.quantile(seconds, share)) if seconds else None
    return found
