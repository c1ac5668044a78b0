"""A person's pages, from consent to the end.

What a person has done is the list of their events; each page is made from it. Forms bring along how
many events there were when their page was made: one that came too late changes nothing.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from pcr_jax.frontends.answers import AnswerError, expected, read_answer, read_entry
from pcr_jax.frontends.conversation import Mistakes
from pcr_jax.frontends.store.store import Conflict
from pcr_jax.frontends.web.drawing import band, picture
from pcr_jax.frontends.web.security import MAX_ANSWER, PERSON, Refused, form, same

VERDICTS = {"would do": "I would do this", "might": "I might do this", "would not": "I would not"}
WEIGHTS = {0.5: "Easy", 1.0: "Medium", 2.0: "Hard", 4.0: "Very hard", 8.0: "Extremely hard"}
STEPS = {
    "consent": "Welcome",
    "profile": "About you",
    "question": "Questions",
    "understood": "What we understood",
    "advice": "What you can do",
}
_NOTES = {
    "stale": "This was answered already in another window. Here is where you are now.",
    "back": "Your last answer was taken back. You can give another one.",
}
_MOVES = {
    *("consented", "profile", "asked", "answered", "back", "ended"),
    *("planned", "feedback", "withdrawn"),
}
_MONTH = 30 * 24 * 3600
_MAX_TEXT = 2000

router = APIRouter()
Form = Annotated[dict[str, str], Depends(form)]


class Stale(Exception):
    """A form of a page that is of the past."""


class Visit:
    """One request of one participant."""

    def __init__(self, request: Request):
        self.request, self.site = request, request.app.state.site
        cookie = request.cookies.get(PERSON)
        if cookie is None:
            raise Refused(403, "Please use your link", _LINK)
        token = self.site.keys.token(cookie)
        participant = None if token is None else self.site.store.by_token(token)
        if participant is None:
            raise Refused(403, "Please use your link", _LINK, forget=True)
        self.token, self.participant = token, participant
        self.site.limit(self.site.persons, participant.id)
        self.events = list(self.site.store.events(participant.id))

    def run(self, call: Callable[[Any], Any]) -> Any:
        """What the person's conversation says."""
        return self.site.engine.run(self.participant.id, call)

    def last(self, *kinds: str) -> Any:
        """The last event of these kinds; None if there is none."""
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    def check(self, fields: Mapping[str, str]) -> int:
        """How many events a form's page was made from.

        Raises
        ------
        Refused
            If the form is not from a page of this person.
        Stale
            If the person has gone on since.
        """
        self.check_sender(fields)
        seq = fields.get("seq", "")
        if not (seq.isascii() and seq.isdecimal() and len(seq) < 10):
            raise Refused(400, "Not readable", "This form could not be read.")
        self._current(int(seq))
        return int(seq)

    def check_sender(self, fields: Mapping[str, str]) -> None:
        """Refuse a form that is not from a page of this person."""
        wanted, came = self.site.keys.csrf(self.participant.id), fields.get("csrf", "")
        if not same(wanted, came):
            text = "This form is not from your own page. Please go back, reload and try again."
            raise Refused(403, "Not from your page", text)

    def _current(self, seq: int) -> None:
        if any(event.seq >= seq and event.kind in _MOVES for event in self.events):
            raise Stale

    def move(self, seq: int, kind: str, payload: dict[str, Any]) -> None:
        """Add an event that the person goes on by, unless they have gone on since ``seq``."""
        while True:
            self._current(seq)
            if self._added(kind, payload):
                return

    def note(self, kind: str, payload: dict[str, Any]) -> None:
        """Add an event that changes nothing."""
        while not self._added(kind, payload):
            pass

    def _added(self, kind: str, payload: dict[str, Any]) -> bool:
        store, there = self.site.store, len(self.events)
        try:
            self.events.append(store.append(self.participant.id, there, kind, payload))
        except Conflict:
            self.events += store.events(self.participant.id, after=there - 1)
            if len(self.events) == there:
                raise
            return False
        return True

    def viewed(self, page: str) -> None:
        """Note that a page is seen, once for several times in a row."""
        last = self.events[-1] if self.events else None
        if last is None or (last.kind, last.payload) != ("viewed", {"page": page}):
            self.note("viewed", {"page": page})

    def page(self, name: str, status: int = 200, **content: Any) -> HTMLResponse:
        """One of the person's pages."""
        return self.site.page(
            f"{name}.html",
            status,
            **{"problems": {}, **content},
            steps=STEPS,
            note=_NOTES.get(self.request.query_params.get("note", "")),
            csrf=self.site.keys.csrf(self.participant.id),
            seq=len(self.events),
            link=f"{self.request.url.scheme}://{self.request.url.netloc}/join/{self.token}",
        )

    def is_in(self, *kinds: str, without: tuple[str, ...] = ()) -> bool:
        """Whether these events are there and those are not."""
        return all(map(self.last, kinds)) and not any(map(self.last, without))


_LINK = "To see your page, open the link that you were given."
Visiting = Annotated[Visit, Depends(Visit)]


def _to(path: str, note: str | None = None) -> RedirectResponse:
    return RedirectResponse(path + (f"?note={note}" if note else ""), 303)


def _place(visit: Visit) -> str:
    """The page that a person is at."""
    for kind, path in (
        ("withdrawn", "/left"),
        ("feedback", "/done"),
        ("planned", "/advice"),
    ):
        if visit.last(kind):
            return path
    stage = visit.run(lambda conversation: conversation.stage) if visit.events else "consent"
    return {"plan": "/understood", "withdrawn": "/left"}.get(stage, f"/{stage}")


@router.get("/")
def start(request: Request) -> Response:
    """Where a person is; for somebody new the way in."""
    if PERSON in request.cookies:
        visit = Visit(request)
        return _to(_place(visit), request.query_params.get("note") and "stale")
    site = request.app.state.site
    token = site.keys.form("try") if site.settings.enrol else None
    return site.page("start.html", form=token, consent=site.settings.consent)


@router.post("/try")
def try_it(request: Request, fields: Form) -> Response:
    """Add a participant who came by themselves."""
    site = request.app.state.site
    if site.settings.enrol is None:
        raise Refused(404, "Not found", "There is no page at this address.")
    if not site.keys.of_form(fields.get("form", ""), "try"):
        raise Refused(403, "Too late", "This page was opened long ago. Please reload it.")
    return _joined(request, site.settings.enrol())


@router.get("/join/{token}")
def join(request: Request, token: str) -> Response:
    """The link of a participant."""
    if len(token) > MAX_ANSWER or request.app.state.site.store.by_token(token) is None:
        text = "This link is of nobody who takes part. Please check that you copied all of it."
        raise Refused(403, "We do not know this link", text)
    return _joined(request, token)


def _joined(request: Request, token: str) -> Response:
    response = _to("/")
    response.set_cookie(
        PERSON,
        request.app.state.site.keys.cookie(token),
        max_age=_MONTH,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.get("/consent")
def consent(visit: Visiting) -> Response:
    """What the person agrees to."""
    if visit.is_in("consented"):
        return _to("/")
    return visit.page("consent", consent=visit.site.settings.consent)


@router.post("/consent")
def agree(visit: Visiting, fields: Form) -> Response:
    """The person agrees."""
    visit.move(visit.check(fields), "consented", {})
    return _to("/profile")


@router.get("/profile")
def profile(visit: Visiting) -> Response:
    """What is so now, and what cannot change."""
    if not visit.is_in("consented", without=("planned", "withdrawn")):
        return _to("/")
    controls, others = _about(visit)
    return visit.page("profile", controls=controls, others=others, typed={}, weights=WEIGHTS)


def _about(visit: Visit) -> tuple[Sequence[Any], list[tuple[str, str]]]:
    """What a person can change, and what is so else: its name and what it is."""
    controls = visit.run(lambda conversation: conversation.controls())
    shown, row = {control.column for control in controls}, visit.participant.applicant
    others = []
    for column, feature in visit.site.engine.task.features.items():
        if column not in shown:
            code = feature.encode(pd.Series([row[f"{column}"]]), column)[0]
            others.append((feature.name(column), feature.shown(code)))
    return controls, others


@router.post("/profile")
def save_profile(visit: Visiting, fields: Form) -> Response:
    """The person's own limits."""
    seq = visit.check(fields)
    if not visit.is_in("consented", without=("planned", "withdrawn")):
        return _to("/")
    controls, others = _about(visit)
    said, problems = _wishes(visit, controls, fields)
    if problems:
        content = {"problems": problems, "typed": fields, "weights": WEIGHTS}
        return visit.page("profile", 422, controls=controls, others=others, **content)
    payload = visit.run(lambda conversation: conversation.profiled(**said))
    visit.move(seq, "profile", payload)
    return _to("/")


def _wishes(
    visit: Visit, controls: Sequence[Any], fields: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a person says that they can do, and what is wrong by field."""
    locked, limits, weights = [], {}, {}
    problems: dict[str, str] = {}
    for i, control in enumerate(controls):
        if f"locked-{i}" in fields:
            locked.append(control.column)
        if control.kind != "nominal":
            ends = fields.get(f"low-{i}", ""), fields.get(f"high-{i}", "")
            own, wrong = _range(visit, control, *ends)
            problems |= {f"{end}-{i}": text for end, text in wrong.items()}
            if own is not None and control.column not in locked:
                limits[control.column] = own
        weight = {f"{weight:g}": weight for weight in WEIGHTS}.get(fields.get(f"weight-{i}", "1"))
        if weight is None:
            problems[f"weight-{i}-1"] = "Please choose one of the five."
        elif weight != 1:
            weights[control.column] = weight
    if len(locked) == len(controls):
        problems["locked-0"] = "Please leave one thing at least that you could change."
    return {"locked": locked, "limits": limits, "weights": weights}, problems


def _range(
    visit: Visit, control: Any, low: str, high: str
) -> tuple[list[float] | None, dict[str, str]]:
    """A person's own range within the feature's; None where it is all of it."""
    whole = [control.low, control.high]
    ends, problems = dict(zip(("low", "high"), whole, strict=True)), {}
    for end, text in (("low", low), ("high", high)):
        try:
            ends[end] = _entry(visit, control, text, whole) if text.strip() else ends[end]
        except AnswerError as error:
            problems[end] = f"{error}"
    if not problems and not ends["low"] < ends["high"]:
        problems["low"] = "The least has to be less than the most."
    own = list(ends.values())
    return (None if problems or own == whole else own), problems


def _entry(visit: Visit, control: Any, text: str, ends: Sequence[float]) -> float:
    """A value of a feature as typed, in a range.

    Raises
    ------
    AnswerError
        If it is none.
    """
    feature = visit.site.engine.task.features[control.column]
    value = read_entry(text, feature, control.column)
    low, high = ends
    if not low <= value <= high:
        shown = f"{feature.shown(low)} to {feature.shown(high)}"
        raise AnswerError({control.column: f"Please type something from {shown}."})
    return value


@router.get("/question")
def question(visit: Visiting) -> Response:
    """The next question."""
    if not visit.is_in("consented", "profile", without=("planned", "withdrawn")):
        return _to("/")
    if (response := _not_ready(visit)) is not None:
        return response
    following, asked = visit.run(lambda own: (own.following(), own.question()))
    if following is not None:
        try:
            visit.move(len(visit.events), *following)
        except Stale:
            return _to("/")
        asked = visit.run(lambda conversation: conversation.question())
    return _to("/") if asked is None else _question(visit, asked)


def _not_ready(visit: Visit) -> Response | None:
    """A page that goes on by itself, until the program has warmed up."""
    if visit.site.engine.ready.is_set():
        return None
    response = visit.page("waiting")
    response.headers["Refresh"] = "2"
    return response


def _question(visit: Visit, asked: Any, status: int = 200, **content: Any) -> Response:
    about = {
        "column": asked.column,
        "shift": asked.shift,
        "individual": asked.individual,
        "kind": asked.kind,
        "effects": [effect.column for effect in asked.effects],
    }
    features = visit.site.engine.task.features
    return visit.page(
        "question",
        status,
        question=asked,
        about=json.dumps(about),
        individual=asked.individual,
        hints=[expected(features[effect.column], effect.now) for effect in asked.effects],
        **{"typed": {}, **content},
    )


@router.post("/question")
def answer(visit: Visiting, fields: Form) -> Response:
    """The person answers."""
    seq = visit.check(fields)
    asked = visit.run(lambda conversation: conversation.question())
    if asked is None or visit.is_in("planned"):
        return _to("/")
    quick = {"unknown": "?", "none": "no effect"}.get(fields.get("quick", ""))
    columns = [f"{effect.column}" for effect in asked.effects]
    typed = {
        column: fields.get(f"answer-{i}", "").strip() if quick is None else quick
        for i, column in enumerate(columns)
    }
    problems = {c: said for c, text in typed.items() if (said := _unreadable(text)) is not None}
    if not problems:
        try:
            payload = visit.run(lambda conversation: conversation.read(typed))
        except Mistakes as mistakes:
            problems = mistakes.messages
    if problems:
        shown = {f"answer-{i}": problems[c] for i, c in enumerate(columns) if c in problems}
        again = {f"answer-{i}": fields.get(f"answer-{i}", "") for i in range(len(columns))}
        return _question(visit, asked, 422, problems=shown, typed=again)
    payload["seconds"] = round(time.time() - visit.last("asked", "back").at, 3)
    visit.move(seq, "answered", payload)
    return _to("/question")


def _unreadable(text: str) -> str | None:
    """What is wrong with an answer before it is read."""
    if not text:
        return "Please type what you expect, or say that you do not know."
    if len(text) > MAX_ANSWER:
        return f"Please use {MAX_ANSWER} characters at most."
    return None


@router.post("/back")
def back(visit: Visiting, fields: Form) -> Response:
    """The person takes the last answer back."""
    seq = visit.check(fields)
    if visit.is_in("planned") or not visit.run(lambda conversation: conversation.can_go_back):
        return _to("/")
    visit.move(seq, "back", visit.run(lambda conversation: conversation.taken_back()))
    return _to("/question", "back")


@router.post("/check")
def check_answer(visit: Visiting, fields: Form) -> Response:
    """What an answer is understood as, while it is typed."""
    visit.check_sender(fields)
    text, column = fields.get("text", "").strip(), fields.get("column", "")
    feature = visit.site.engine.task.features.get(column)
    if feature is None:
        raise Refused(400, "Not readable", "This form could not be read.")
    now = feature.encode(pd.Series([visit.participant.applicant[f"{column}"]]), column)[0]
    try:
        said = _understood_as(read_answer(text, feature, column, now), feature)
    except AnswerError as error:
        return JSONResponse({"good": False, "text": f"{error}"})
    return JSONResponse({"good": True, "text": said})


def _understood_as(said: Any, feature: Any) -> str:
    if said.value is None:
        return "You do not know."
    low, high = (feature.shown(said.value + sign * said.half_width) for sign in (-1, 1))
    return f"We read: {low}." if low == high else f"We read: {low} to {high}."


@router.get("/understood")
def understood(visit: Visiting) -> Response:
    """What the answers taught."""
    if not visit.is_in("profile", without=("withdrawn",)):
        return _to("/")
    if (response := _not_ready(visit)) is not None:
        return response
    stage, found = visit.run(lambda own: (own.stage, own.understood()))
    visit.viewed("understood")
    features = visit.site.engine.task.features
    return visit.page(
        "understood",
        found=found,
        labels={column: feature.name(column) for column, feature in features.items()},
        drawing=picture(found.drawing, found.effects),
        bands=[band(effect) for effect in found.effects],
        ready=stage == "plan",
        planned=visit.is_in("planned"),
        answers=sum({"answered": 1, "back": -1}.get(event.kind, 0) for event in visit.events),
    )


@router.get("/what-if")
def what_if(visit: Visiting) -> Response:
    """Sliders, and what would follow."""
    if not visit.is_in("profile", without=("withdrawn",)):
        return _to("/")
    if (response := _not_ready(visit)) is not None:
        return response
    tried = visit.last("whatif")
    return _what_if(visit, {} if tried is None else tried.payload["values"])


def _what_if(visit: Visit, values: Mapping[str, float], status: int = 200, **content: Any):
    stage, controls, outcome = visit.run(
        lambda conversation: (
            conversation.stage,
            conversation.controls(),
            conversation.what_if(values) if values else None,
        )
    )
    visit.viewed("what-if")
    return visit.page(
        "whatif",
        status,
        controls=[control for control in controls if not control.locked],
        values=values,
        outcome=outcome,
        ready=stage == "plan",
        planned=visit.is_in("planned"),
        **{"typed": {}, **content},
    )


@router.post("/what-if")
def try_values(visit: Visiting, fields: Form) -> Response:
    """Try values without JavaScript."""
    _, problems = _tried(visit, fields)
    if problems:
        return _what_if(visit, {}, 422, problems=problems, typed=fields)
    return _to("/what-if#outcome")


@router.post("/what-if/outcome")
def try_values_live(visit: Visiting, fields: Form) -> Response:
    """What would follow, as a part of the page."""
    values, problems = _tried(visit, fields)
    if problems:
        return visit.site.page("wrong.html", problems=problems)
    outcome = visit.run(lambda conversation: conversation.what_if(values)) if values else None
    return visit.site.page("outcome.html", outcome=outcome)


def _tried(visit: Visit, fields: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """The values that are not what is so now, which are noted; and what is wrong by field."""
    visit.check_sender(fields)
    if not visit.is_in("profile", without=("withdrawn",)):
        raise Stale
    values, problems = {}, {}
    controls = visit.run(lambda conversation: conversation.controls())
    for i, control in enumerate([control for control in controls if not control.locked]):
        text = fields.get(f"value-{i}", "")
        try:
            ends = control.limits or (control.low, control.high)
            value = _entry(visit, control, text, ends) if text.strip() else control.now
        except AnswerError as error:
            problems[f"value-{i}"] = f"{error}"
            continue
        if value != control.now:
            values[control.column] = value
    if not problems:
        outcome = visit.run(lambda conversation: conversation.what_if(values)) if values else None
        chance = None if outcome is None else outcome.chance
        visit.note("whatif", {"values": values, "chance": chance})
    return values, problems


@router.post("/advice")
def plan(visit: Visiting, fields: Form) -> Response:
    """Make the plans."""
    seq = visit.check(fields)
    if visit.run(lambda conversation: conversation.stage) != "plan":
        return _to("/")
    found = visit.run(lambda conversation: conversation.plans())
    visit.move(seq, "planned", found.payload)
    return _to("/advice")


@router.get("/advice")
def advice(visit: Visiting) -> Response:
    """The plans, as they were made."""
    planned = visit.last("planned")
    if planned is None or visit.is_in("withdrawn"):
        return _to("/")
    visit.viewed("advice")
    given = visit.is_in("feedback")
    return visit.page("advice", found=planned.payload, given=given, typed={}, verdicts=VERDICTS)


@router.post("/feedback")
def feedback(visit: Visiting, fields: Form) -> Response:
    """What the person thinks of the plans."""
    seq, planned = visit.check(fields), visit.last("planned")
    if planned is None or visit.is_in("feedback"):
        return _to("/")
    verdict, text = fields.get("verdict", ""), _printable(fields.get("text", "")).strip()
    problems = {}
    if verdict not in VERDICTS:
        problems["verdict-0"] = "Please choose one of the three."
    if len(text) > _MAX_TEXT:
        problems["text"] = f"Please use {_MAX_TEXT:,} characters at most; you used {len(text):,}."
    if problems:
        content = {"given": False, "typed": fields, "verdicts": VERDICTS, "problems": problems}
        return visit.page("advice", 422, found=planned.payload, **content)
    visit.move(seq, "feedback", {"verdict": verdict, "text": text})
    return _to("/done")


def _printable(text: str) -> str:
    """A text without control characters; lines stay."""
    text = text.replace("\r\n", "\n")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs"))


@router.get("/done")
def done(visit: Visiting) -> Response:
    """The end, and what can be taken along."""
    planned = visit.last("planned")
    if planned is None or not visit.is_in("feedback", without=("withdrawn",)):
        return _to("/")
    visit.viewed("done")
    return visit.page("done", letter=planned.payload["letter"])


@router.get("/letter.txt")
def letter(visit: Visiting) -> Response:
    """The letter, to be kept."""
    return _file("letter.txt", _planned(visit)["letter"] + "\n", "text/plain; charset=utf-8")


@router.get("/advice.json")
def advice_json(visit: Visiting) -> Response:
    """The plans, for machines."""
    return _file("advice.json", _json(_planned(visit)), "application/json")


def _planned(visit: Visit) -> dict[str, Any]:
    planned = visit.last("planned")
    if planned is None:
        raise Refused(404, "Not there yet", "There is no advice yet. Please go on first.")
    return planned.payload


@router.get("/data")
def data(visit: Visiting) -> Response:
    """What is stored of a person, and how to leave."""
    return visit.page("data", number=len(visit.events), withdrawn=visit.is_in("withdrawn"))


@router.get("/data.json")
def data_json(visit: Visiting) -> Response:
    """All that is stored of a person."""
    own = visit.site.store.export_of(visit.participant.id)
    return _file("my-data.json", _json(own), "application/json")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, indent=1, ensure_ascii=False, default=str)


def _file(name: str, text: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=kind, headers=headers)


@router.post("/leave")
def leave(visit: Visiting, fields: Form) -> Response:
    """Stop, and keep or delete what is stored."""
    visit.check_sender(fields)
    choice = fields.get("choice")
    if choice == "delete":
        visit.site.store.delete(visit.participant.id)
        visit.site.engine.forget(visit.participant.id)
        response: Response = visit.site.page("deleted.html")
        response.delete_cookie(PERSON)
        return response
    if choice != "stop":
        problems = {"choice-stop": "Please choose one of the two."}
        content = {"number": len(visit.events), "withdrawn": visit.is_in("withdrawn")}
        return visit.page("data", 422, problems=problems, **content)
    if not visit.is_in("withdrawn"):
        visit.note("withdrawn", {})
    return _to("/left")


@router.get("/left")
def left(visit: Visiting) -> Response:
    """After a person has stopped."""
    return visit.page("left") if visit.is_in("withdrawn") else _to("/")
