"""A store, an engine and a conversation for the pages' tests: quick, and true to the interface."""

import copy
import json
import secrets
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pandas as pd

import pcr_jax as pcr
from pcr_jax.frontends.answers import AnswerError, read_answer
from pcr_jax.frontends.conversation import Mistakes
from pcr_jax.frontends.effects import Learnt
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.store.store import Conflict
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

FEATURES = {
    "age": pcr.Integer(immutable=True, unit="years"),
    "job": pcr.Levels(["none", "part time", "full time"], direction="increase"),
    "home": pcr.Nominal(["rent", "own", "free"]),
    "income": pcr.Real(low=0, high=9000, step=50, unit="euros", label="monthly income"),
    "savings": pcr.Real(low=0, high=90000, step=500, unit="euros"),
}
APPLICANT = {"age": 35, "job": "none", "home": "rent", "income": 2350.0, "savings": 4000.0}
EDGES = [("age", "income"), ("job", "income"), ("income", "savings"), ("age", "savings")]
QUESTIONS = 3


@dataclass
class Participant:
    id: int
    study_id: int
    arm: str
    position: int
    applicant: dict
    key: list
    versions: dict
    enrolled: float


class Store:
    """Everything in memory."""

    def __init__(self):
        self.lock = threading.RLock()
        self.people, self.tokens, self.lists, self.logins = {}, {}, {}, []

    def enrol(self, study_id, arm, applicant, key, position, versions):
        with self.lock:
            token, number = secrets.token_urlsafe(32), len(self.lists) + 1
            own = (number, study_id, arm, position, applicant, key, versions, time.time())
            self.people[number] = Participant(*own)
            self.tokens[token], self.lists[number] = number, []
            return self.people[number], token

    def by_token(self, token):
        return self.people.get(self.tokens.get(token))

    def participant(self, number):
        return self.people.get(number)

    def participants(self, study_id):
        return [one for one in self.people.values() if one.study_id == study_id]

    def events(self, number, after=-1):
        with self.lock:
            return copy.deepcopy(self.lists[number][after + 1 :])

    def append(self, number, seq, kind, payload, at=None):
        with self.lock:
            if seq != len(self.lists[number]):
                raise Conflict
            payload = json.loads(json.dumps(payload, allow_nan=False))
            event = Event(seq, time.time() if at is None else at, kind, payload)
            self.lists[number].append(event)
            return event

    def counts(self, study_id):
        found = {}
        for one in self.participants(study_id):
            kinds = [event.kind for event in self.lists[one.id]]
            own = found.setdefault(
                one.arm,
                dict.fromkeys(("enrolled", "consented", "answers", "finished", "withdrawn"), 0),
            )
            own["enrolled"] += 1
            own["consented"] += "consented" in kinds
            own["answers"] += kinds.count("answered") - kinds.count("back")
            own["finished"] += "feedback" in kinds
            own["withdrawn"] += "withdrawn" in kinds
        return found

    def delete(self, number):
        with self.lock:
            self.people.pop(number)
            self.tokens = {t: n for t, n in self.tokens.items() if n != number}
            self.lists[number] = []

    def export_of(self, number):
        events = [event._asdict() for event in self.events(number)]
        return {"applicant": self.people[number].applicant, "events": events}

    def note_login(self, ok, where):
        self.logins.append((time.time(), ok, where))

    def recent_failures(self, seconds):
        begin = time.time() - seconds
        return sum(1 for at, ok, _ in self.logins if not ok and at > begin)


class Conversation:
    """Says things that depend on the events and on nothing else."""

    def __init__(self, features, row, events):
        self.features, self.row, self.events = features, row, events
        self.columns = list(features)
        self.latest = {event.kind: event.payload for event in events}
        self.asked, self.given, self.ended = None, [], False
        for event in events:
            if event.kind == "asked":
                self.asked = event.payload
            elif event.kind == "answered":
                self.given.append((self.asked, event.payload))
                self.asked = None
            elif event.kind == "back":
                self.asked, _ = self.given.pop()
                self.ended = False
            elif event.kind == "profile":
                self.asked = None
            elif event.kind == "ended":
                self.ended = True

    @property
    def stage(self):
        if "withdrawn" in self.latest:
            return "withdrawn"
        for kind, stage in (("consented", "consent"), ("profile", "profile")):
            if kind not in self.latest:
                return stage
        return "plan" if self.ended else "question"

    @property
    def can_go_back(self):
        return bool(self.given)

    def now(self, column):
        entry = pd.Series([self.row[column]])
        return float(self.features[column].encode(entry, column)[0])

    def seen(self, column):
        feature, now = self.features[column], self.now(column)
        names = tuple(feature.shown(j) for j in range(len(getattr(feature, "names", ()))))
        unit = getattr(feature, "unit", None)
        name = feature.name(column)
        return Effect(column, name, feature.kind, unit, now, feature.shown(now), names)

    def controls(self):
        own = self.latest.get("profile", {"locked": [], "limits": {}, "weights": {}})
        return tuple(
            Control(
                *self.seen(column)[:6],
                *feature.grid[:2],
                getattr(feature, "step", None),
                self.seen(column).names,
                getattr(feature, "direction", None),
                column in own["locked"],
                own["limits"].get(column),
                own["weights"].get(column, 1.0),
            )
            for column, feature in self.features.items()
            if feature.acted
        )

    def profiled(self, locked=(), limits=None, weights=None):
        own = {"locked": list(locked), "limits": dict(limits), "weights": dict(weights)}
        return {**own, "was": self.latest.get("profile")}

    def following(self):
        if self.stage != "question" or self.asked is not None:
            return None
        number = len(self.given)
        if number >= QUESTIONS:
            return "ended", {"why": "enough"}
        cause, effects = [
            (self.columns[1], [self.columns[3], self.columns[4]]),
            (self.columns[3], [self.columns[4]]),
            (self.columns[4], [self.columns[1]]),
        ][number % 3]
        feature, now = self.features[cause], self.now(cause)
        shift = 500.0 if feature.kind == "real" else 1.0
        change = feature.change(now, now + shift, cause)
        names = " and ".join(self.features[c].name(c) for c in effects)
        taught = None
        if self.given:
            column = self.given[-1][0]["effects"][0]
            name = self.features[column].name(column)
            taught = f"We now expect your {name} to rise by about 300 (100 to 500)."
        return "asked", {
            "number": number,
            "kind": "effect",
            "text": f"Suppose you {change}. What would your {names} become?",
            "column": cause,
            "shift": shift,
            "individual": True,
            "effects": effects,
            "shown": {c: self.seen(c).now_text for c in effects},
            "taught": taught,
            "design": "fake",
            "utility": None,
        }

    def question(self):
        if self.asked is None or self.ended:
            return None
        names = ("number", "kind", "text", "column", "shift", "individual")
        asked = self.asked
        effects = tuple(map(self.seen, asked["effects"]))
        left = QUESTIONS - len(self.given)
        return Question(*(asked[name] for name in names), effects, left, asked["taught"])

    def read(self, typed):
        wrong, values, widths = {}, {}, {}
        for column, text in typed.items():
            try:
                found = read_answer(text, self.features[column], column, self.now(column))
            except AnswerError as error:
                wrong[column] = str(error)
                continue
            values[column], widths[column] = found.value, found.half_width
        if wrong:
            raise Mistakes(wrong)
        said = {"typed": dict(typed), "values": values, "half_width": widths}
        return {"number": self.asked["number"], **said}

    def taken_back(self):
        return {name: self.given[-1][1][name] for name in ("number", "typed")}

    def understood(self):
        names = {c: feature.name(c) for c, feature in self.features.items()}
        edges = [(self.columns[a], self.columns[b]) for a, b in _edges()]
        effects = tuple(
            Learnt(
                a,
                b,
                "rises by 500",
                *(300.0 - 400 * i, 100.0 - 400 * i, 520.0 - 400 * i),
                *(250.0, -300.0, 800.0),
                0.4,
                f"If only your {names[a]} rises by 500, we expect your {names[b]} to rise by 300.",
            )
            for i, (a, b) in enumerate(edges)
        )
        return Understanding(effects, _drawing(names, edges))

    def what_if(self, values):
        chance = min(0.99, 0.1 + 0.2 * len(values))
        said = tuple(f"expect your {self.features[c].name(c)} to stay" for c in values)
        words = f"in {100 * chance:.0f} of 100 cases"
        return Outcome(False, chance, words, int(20 * chance), said, 1.0)

    def plans(self):
        label = self.features[self.columns[3]].name(self.columns[3])
        plans = tuple(
            PlanView(
                (f"raise your {label} by {300 * i} euros, from 2,350 to {2350 + 300 * i:,}",),
                ("expect your savings to become about 5,000 (4,000 to 6,000)",),
                "",
                0.97 - 0.02 * i,
                f"in {97 - 2 * i} of 100 cases",
                19 - (i > 1),
                1.0 * i,
                "found",
            )
            for i in (1, 2, 3)
        )
        price = (
            Price(0.5, 0.4, f"Raise your {label} by 100."),
            Price(0.9, 1.0, f"Raise your {label} by 300."),
            Price(0.99, None, "Nothing that you can change was found to be enough."),
        )
        letter = f"Dear applicant,\n\nYou can do this:\n  - Raise your {label} by 300.\n"
        payload = {
            "plans": [plan._asdict() for plan in plans],
            "price": [one._asdict() for one in price],
            "letter": letter,
            "versions": {},
            "posterior": "0" * 64,
        }
        return Plans(plans, price, letter, payload)


def _edges():
    columns = list(FEATURES)
    return [(columns.index(a), columns.index(b)) for a, b in EDGES]


def _drawing(names, edges):
    """As the report places nodes: causes to the left."""
    depth = {}
    for column in names:
        depth[column] = 1 + max((depth[a] for a, b in edges if b == column), default=-1)
    rows, nodes = {}, {}
    for column in names:
        row = rows[depth[column]] = rows.get(depth[column], -1) + 1
        place = {"x": 150 * depth[column] + 75, "y": 50 * row + 25, "half": 60}
        nodes[column] = {**place, "name": names[column], "acted": False, "column": column}
    lines = [{"ends": (0, 0, 0, 0), "cause": a, "effect": b} for a, b in edges]
    return {"nodes": list(nodes.values()), "lines": lines, "width": 450, "height": 150}


class Engine:
    """Runs at once, in the thread that asks."""

    def __init__(self, store, features=None):
        self.store, self.forgotten, self.ready = store, [], threading.Event()
        self.ready.set()
        self.task = SimpleNamespace(features=dict(FEATURES if features is None else features))

    def run(self, number, function):
        applicant = self.store.participant(number).applicant
        return function(Conversation(self.task.features, applicant, self.store.events(number)))

    def forget(self, name):
        self.forgotten.append(name)


def relabelled(label, names=None):
    """The features, all called so; ``names`` instead of the job's levels."""
    found = {
        c: replace(feature, label=f"{label} {i}") for i, (c, feature) in enumerate(FEATURES.items())
    }
    if names is not None:
        found["job"] = replace(found["job"], names=names)
    return found


def enrol(store, arm="one", **entries):
    """A participant and their token."""
    applicant = {**APPLICANT, **entries}
    return store.enrol(1, arm, applicant, [0, 0], len(store.lists), {})
