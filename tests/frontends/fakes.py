"""A store, an engine and a conversation for the pages' tests: quick, and true to the interface."""

import copy
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pandas as pd

import pcr_jax as pcr
from pcr_jax.frontends.answers import AnswerError, read_answer
from pcr_jax.frontends.store.store import Conflict, Event

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
            event = Event(seq, time.time() if at is None else at, kind, copy.deepcopy(payload))
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
        events = [event.__dict__ for event in self.events(number)]
        return {"applicant": self.people[number].applicant, "events": events}

    def note_login(self, ok, where):
        self.logins.append((time.time(), ok, where))

    def recent_failures(self, seconds):
        begin = time.time() - seconds
        return sum(1 for at, ok, _ in self.logins if not ok and at > begin)


@dataclass
class Shown:
    """A control, an effect that is asked for, or any other thing with names."""

    column: str
    label: str
    kind: str
    now: float
    now_text: str
    low: float
    high: float
    step: float | None
    names: list | None
    unit: str | None
    direction: str | None = None
    locked: bool = False
    limits: Any = None
    weight: float = 1.0


@dataclass
class Question:
    number: int
    kind: str
    text: str
    column: str
    effects: list
    about_left: int
    payload: dict = field(default_factory=dict)


class Conversation:
    """Says things that depend on the events and on nothing else."""

    def __init__(self, features, row, events):
        self.features, self.row, self.events = features, row, events
        self.columns = list(features)
        self.given = []
        self.latest = {}
        for event in events:
            self.latest[event.kind] = event.payload
            if event.kind == "answered":
                self.given.append(event.payload)
            elif event.kind == "back":
                self.given.pop()

    @property
    def stage(self):
        if "withdrawn" in self.latest:
            return "withdrawn"
        for kind, stage in (("consented", "consent"), ("profile", "profile")):
            if kind not in self.latest:
                return stage
        return "plan" if len(self.given) >= QUESTIONS else "question"

    def now(self, column):
        entry = pd.Series([self.row[column]])
        return float(self.features[column].encode(entry, column)[0])

    def shown(self, column):
        feature, now = self.features[column], self.now(column)
        low, high, _ = feature.grid
        own = self.latest.get("profile", {"locked": [], "limits": {}, "weights": {}})
        return Shown(
            column=column,
            label=feature.name(column),
            kind=feature.kind,
            now=now,
            now_text=feature.shown(now),
            low=low,
            high=high,
            step=getattr(feature, "step", None),
            names=[feature.shown(j) for j in range(len(getattr(feature, "names", ())))] or None,
            unit=getattr(feature, "unit", None),
            direction=getattr(feature, "direction", None),
            locked=column in own["locked"],
            limits=own["limits"].get(column),
            weight=own["weights"].get(column, 1.0),
        )

    def controls(self):
        return [self.shown(c) for c, feature in self.features.items() if feature.acted]

    def question(self):
        if self.stage != "question":
            return None
        number = len(self.given)
        cause, effects = [
            (self.columns[1], [self.columns[3], self.columns[4]]),
            (self.columns[3], [self.columns[4]]),
            (self.columns[4], [self.columns[1]]),
        ][number % 3]
        feature, now = self.features[cause], self.now(cause)
        shift = 500.0 if feature.kind == "real" else 1.0
        change = feature.change(now, now + shift, cause)
        names = " and ".join(self.features[c].name(c) for c in effects)
        text = f"Suppose you {change}. What would your {names} become?"
        shown = {c: self.shown(c).now_text for c in effects}
        payload = {
            "number": number,
            "kind": "effect",
            "text": text,
            "column": cause,
            "shift": shift,
            "individual": True,
            "effects": effects,
            "shown": shown,
            "design": "fake",
            "utility": None,
        }
        left, effects = QUESTIONS - number, [self.shown(c) for c in effects]
        return Question(number, "effect", text, cause, effects, left, payload)

    def read(self, typed):
        problems, values, widths = {}, {}, {}
        for column, text in typed.items():
            try:
                found = read_answer(text, self.features[column], column, self.now(column))
            except AnswerError as error:
                problems |= error.messages
                continue
            values[column], widths[column] = found.value, found.half_width
        if problems:
            raise AnswerError(problems)
        column = next(iter(typed))
        name = self.features[column].name(column)
        return {
            "number": len(self.given),
            "typed": dict(typed),
            "values": values,
            "half_width": widths,
            "seconds": 0.0,
            "taught": f"We now expect your {name} to rise by about 300 (100 to 500).",
        }

    def understood(self):
        names = {c: feature.name(c) for c, feature in self.features.items()}
        edges = [(self.columns[a], self.columns[b]) for a, b in _edges()]
        effects = [
            SimpleNamespace(
                cause=names[a],
                effect=names[b],
                change="500 more",
                middle=300.0 - 400 * i,
                low=100.0 - 400 * i,
                high=520.0 - 400 * i,
                people_middle=250.0,
                people_low=-300.0,
                people_high=800.0,
                taught=0.4,
                sentence=f"if your {names[a]} changes, your {names[b]} changes by about 300",
            )
            for i, (a, b) in enumerate(edges)
        ]
        return SimpleNamespace(effects=effects, drawing=_drawing(names, edges))

    def what_if(self, values):
        chance = min(0.99, 0.1 + 0.2 * len(values))
        return SimpleNamespace(
            chance=chance,
            chance_text=f"this is enough in {100 * chance:.0f} of 100 cases",
            consequences=[f"expect your {self.features[c].name(c)} to stay" for c in values],
            cost=1.0,
            favourable=chance > 0.5,
        )

    def plans(self):
        label = self.features[self.columns[3]].name(self.columns[3])
        plans = [
            {
                "steps": [f"raise your {label} by {300 * i} euros, from 2,350 to {2350 + 300 * i}"],
                "consequences": ["expect your savings to become about 5,000 (4,000 to 6,000)"],
                "chance": 0.97 - 0.02 * i,
                "dots": 19,
                "chance_text": f"this is enough in {97 - 2 * i} of 100 cases",
                "cost": 1.0 * i,
                "status": "found",
            }
            for i in (1, 2, 3)
        ]
        price = [[0.5, 0.4, f"raise your {label} by 100"], [0.9, 1.0, f"raise your {label} by 300"]]
        letter = f"Dear applicant,\n\nyou can do this:\n  - Raise your {label} by 300.\n"
        payload = {
            "plans": plans,
            "letter": letter,
            "price": price,
            "versions": {},
            "posterior": "0" * 64,
        }
        return SimpleNamespace(plans=plans, price=price, letter=letter, payload=payload)


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
        nodes[column] = {
            "x": 150 * depth[column] + 75,
            "y": 50 * row + 25,
            "half": 60,
            "name": names[column],
            "acted": column == "income",
        }
    lines = [
        (nodes[a]["x"] + 60, nodes[a]["y"], nodes[b]["x"] - 60, nodes[b]["y"]) for a, b in edges
    ]
    return {"nodes": list(nodes.values()), "lines": lines, "width": 450, "height": 150}


class Engine:
    """Runs at once, in the thread that asks."""

    def __init__(self, store, features=None):
        self.store = store
        self.task = SimpleNamespace(features=dict(FEATURES if features is None else features))

    def run(self, number, call):
        row = self.store.participant(number).applicant
        return call(Conversation(self.task.features, row, self.store.events(number)))


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
