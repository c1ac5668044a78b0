"""A study's data as tables and as ArviZ data, and the proof that events alone lead to them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from pcr_jax._extras import extra
from pcr_jax.frontends.conversation import Conversation
from pcr_jax.frontends.engine import together
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.store.store import COUNTS, Participant, Store, Study
from pcr_jax.frontends.study.people import as_json, conversation_of, terms_of
from pcr_jax.history import History
from pcr_jax.inference import Posteriors, write_netcdf
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task

_TOGETHER = 64  # people whose posteriors are computed at once
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # with which text begins that spreadsheets run
TABLES = {
    "participants": {
        "participant": "number of the participant",
        "arm": "arm of the study",
        "position": "in the study, from 0; arm, key and applicant follow from it and the seed",
        "enrolled": "when their link was made, seconds since 1970",
        "consented": "when they agreed to take part; empty if they did not",
        "planned": "when they were first shown plans; empty if they were not",
        "finished": "when they first gave feedback; empty if they did not",
        "withdrawn": "when they withdrew; empty if they did not",
        "answers": "answers that were not taken back, attention and retest questions included",
        "taken_back": "answers that were taken back",
        "verdict": "what they last said of the plans: would do, might, would not",
        "text": "what they last wrote about the plans",
        "locked": "JSON: columns that they said cannot change",
        "limits": "JSON: by column, the range that they gave",
        "weights": "JSON: by column, how hard they said a change is; 1 where nothing is said",
        "key": "JSON: data of the random key",
        "versions": "JSON: libraries when they were enrolled",
    },
    "events": {
        "participant": "number of the participant",
        "seq": "number of the event among the participant's, from 0",
        "at": "seconds since 1970",
        "kind": "what happened",
        "payload": "JSON: all that is known of it",
    },
    "questions": {
        "participant": "number of the participant",
        "arm": "arm of the study",
        "number": "of the question among those to the participant, from 0",
        "kind": "effect (inferred from), attention, or retest (a question once more)",
        "of": "of a retest: the number of the question that it repeats",
        "wording": "as it was put",
        "column": "what was supposed to change",
        "shift": "by how much, in the column's unit (levels count from 0)",
        "individual": "whether it was about the person, or about people like them on average",
        "design": "what chose the question",
        "utility": "what the design expected of the answer, in units of cost; empty if it does not",
        "asked": "when it was put, seconds since 1970",
        "seconds": "from question to answer; empty if there is no answer",
        "answered": "whether there is an answer",
        "taken_back": "how many answers to it were taken back",
        "typed": "JSON: by column, the answer as it was typed",
        "values": "JSON: by column, the number that was understood; null for don't know",
        "right": "of an attention question: whether it was answered as it asked",
    },
    "answers": {
        "participant": "number of the participant",
        "arm": "arm of the study",
        "number": "of the question",
        "kind": "effect, attention or retest",
        "of": "of a retest: the number of the question that it repeats",
        "column": "what was asked for",
        "shown": "its present value, or people's on average, as it was shown",
        "typed": "the answer as it was typed",
        "value": "the number that was understood; empty for don't know",
        "half_width": "half the length of the range that was given; empty for one number",
        "scale": "what costs 1, in the column's unit: the unit to compare errors in",
    },
    "plans": {
        "participant": "number of the participant",
        "arm": "arm of the study",
        "shown": "when, seconds since 1970",
        "plan": "0 is the cheapest",
        "status": "see pcr_jax.PlanStatus",
        "chance": "the stated probability that the plan works",
        "level": "the probability that was asked for",
        "cost": "in units of the task's scale, with the person's weights",
        "sentence": "as it was put",
        "steps": "JSON: what to do",
        "set_to": "JSON: by column, the number that it is set to (levels count from 0)",
        "consequences": "JSON: what to expect",
        "posterior": "SHA-256 of the draws that the plans come from",
    },
}
"""What each column of each table is; applicants' columns come after those of participants."""


def plain_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula, with a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _at(events: list[Event], kind: str) -> float | None:
    """When something first happened."""
    return next((event.at for event in events if event.kind == kind), None)


def _last(events: list[Event], kind: str) -> dict[str, Any]:
    return next((event.payload for event in reversed(events) if event.kind == kind), {})


def _participant(person: Participant, events: list[Event]) -> dict[str, Any]:
    kinds = [event.kind for event in events]
    profile, feedback = _last(events, "profile"), _last(events, "feedback")
    back = kinds.count("back")
    own = {
        "participant": person.id,
        "arm": person.arm,
        "position": person.position,
        "enrolled": person.enrolled,
        "consented": _at(events, "consented"),
        "planned": _at(events, "planned"),
        "finished": _at(events, "feedback"),
        "withdrawn": _at(events, "withdrawn"),
        "answers": kinds.count("answered") - back,
        "taken_back": back,
        **{name: feedback.get(name) for name in ("verdict", "text")},
        **{n: as_json(profile[n]) if profile else None for n in ("locked", "limits", "weights")},
        "key": as_json(person.key),
        "versions": as_json(person.versions),
    }
    return own | {f"applicant: {column}": entry for column, entry in person.applicant.items()}


def _turns(events: list[Event]) -> list[dict[str, Any]]:
    """Questions as they stand in the end, each with its answer, and what was taken back of it."""
    turns: list[dict[str, Any]] = []
    for event in events:
        open_ = [turn for turn in turns if turn["answered"] is None]
        if event.kind == "asked":
            turns.append({"asked": event, "answered": None, "back": 0})
        elif event.kind == "answered" and open_:
            open_[-1]["answered"] = event
        elif event.kind in ("back", "profile"):
            turns = [turn for turn in turns if turn["answered"] is not None]
            if event.kind == "back" and turns:
                turns[-1] |= {"answered": None, "back": turns[-1]["back"] + 1}
    effects = [turn["asked"].payload for turn in turns if _kind(turn) == "effect"]
    for turn in turns:
        repeats = _kind(turn) == "retest"
        turn["of"] = effects[turn["asked"].payload["of"]]["number"] if repeats else None
    return turns


def _kind(turn: dict[str, Any]) -> str:
    return turn["asked"].payload["kind"]


def _question(person: Participant, turn: dict[str, Any]) -> dict[str, Any]:
    asked, answered = turn["asked"].payload, turn["answered"]
    said = {} if answered is None else answered.payload
    right = None
    if asked["kind"] == "attention" and answered is not None:
        right = said["values"].get(f"{asked['column']}") == asked["wanted"]
    return {
        "participant": person.id,
        "arm": person.arm,
        "number": asked["number"],
        "kind": asked["kind"],
        "of": turn["of"],
        "wording": asked["text"],
        "column": f"{asked['column']}",
        "shift": asked["shift"],
        "individual": asked["individual"],
        "design": asked["design"],
        "utility": asked["utility"],
        "asked": turn["asked"].at,
        "seconds": said.get("seconds"),
        "answered": answered is not None,
        "taken_back": turn["back"],
        "typed": as_json(said["typed"]) if said else None,
        "values": as_json(said["values"]) if said else None,
        "right": right,
    }


def _answers(task: Task, person: Participant, turn: dict[str, Any]) -> Iterable[dict[str, Any]]:
    asked, answered = turn["asked"].payload, turn["answered"]
    if answered is None:
        return
    scales = {f"{c}": float(s) for c, s in zip(task.features, task.scale, strict=True)}
    for column in map(str, asked["effects"]):
        yield {
            "participant": person.id,
            "arm": person.arm,
            "number": asked["number"],
            "kind": asked["kind"],
            "of": turn["of"],
            "column": column,
            "shown": asked["shown"][column],
            "typed": answered.payload["typed"].get(column),
            "value": answered.payload["values"].get(column),
            "half_width": answered.payload["half_width"].get(column),
            "scale": scales[column],
        }


def _plans(person: Participant, events: list[Event], level: float) -> Iterable[dict[str, Any]]:
    for event in events:
        if event.kind != "planned":
            continue
        for rank, plan in enumerate(event.payload["plans"]):
            yield {
                "participant": person.id,
                "arm": person.arm,
                "shown": event.at,
                "plan": rank,
                "level": level,
                **{name: plan[name] for name in ("status", "chance", "cost", "sentence")},
                **{name: as_json(plan[name]) for name in ("steps", "set_to", "consequences")},
                "posterior": event.payload["posterior"],
            }


def tables(store: Store, study: Study, task: Task) -> dict[str, pd.DataFrame]:
    """A study's tables by name, as `TABLES` describes them."""
    arms = terms_of(study.settings)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for person in store.participants(study.id):
        events = store.events(person.id)
        rows["participants"].append(_participant(person, events))
        rows["events"] += [
            {"participant": person.id, **event._asdict(), "payload": as_json(event.payload)}
            for event in events
        ]
        turns = _turns(events)
        rows["questions"] += [_question(person, turn) for turn in turns]
        for turn in turns:
            rows["answers"] += _answers(task, person, turn)
        rows["plans"] += _plans(person, events, arms[person.arm].level)
    return {name: _table(name, found) for name, found in rows.items()}


_TEXT = (
    *("arm", "verdict", "text", "locked", "limits", "weights", "key", "versions", "kind"),
    *("payload", "wording", "column", "design", "typed", "values", "shown", "status"),
    *("sentence", "steps", "set_to", "consequences", "posterior"),
)
_WHOLE = ("participant", "position", "answers", "taken_back", "seq", "number", "plan", "of")
_TRUTHS = ("individual", "answered", "right")


def _table(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table whose columns have the same types whatever is in it."""
    found = pd.DataFrame(rows)
    more = [column for column in found.columns if column not in TABLES[name]]
    found = found.reindex(columns=[*TABLES[name], *more])
    for column in TABLES[name]:
        kind = "Float64"
        if column in _TRUTHS:
            kind = "boolean"
        elif column in _WHOLE:
            kind = "Int64"
        elif column in _TEXT and (name, column) != ("plans", "shown"):
            kind = "string"
        found[column] = found[column].astype(kind)
    return found


def joined(parts: list[Posteriors]) -> Posteriors:
    """Posteriors of one person each, under one surrogate, as those of several."""
    longest = max(part.history.answer.shape[1] for part in parts)
    has_width = any(part.history.half_width is not None for part in parts)
    histories = [_padded(part.history, longest, has_width) for part in parts]
    told = ("status", "best_agreement", "prior_acceptance", "num_evaluations", "log_density")
    arrays = (*told, "draws", "unknowns", "warmup")
    first = parts[0]
    by_user: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays
    }
    for name in ("statistics", "figures"):
        own = [getattr(part, name) for part in parts]
        by_user[name] = {of: np.concatenate([one[of] for one in own]) for of in own[0]}
    history = jax.tree.map(lambda *leaves: np.concatenate(leaves), *histories)
    info = {name: value for name, value in first.info.items() if name != "key"}
    return replace(first, **by_user, history=history, info=info)


def _padded(history: History, longest: int, has_width: bool) -> History:
    """With room for so many questions."""
    lacks = longest - history.answer.shape[1]

    def more(leaf, value):
        wide = [(0, 0)] * np.ndim(leaf)
        wide[1] = (0, lacks)
        return np.pad(np.asarray(leaf), wide, constant_values=value)

    asked = history.questions
    questions = replace(
        asked,
        node=more(asked.node, -1),
        shift=more(asked.shift, 0.0),
        individual=more(asked.individual, False),
        outcome=more(asked.outcome, -1),
    )
    width: Any = history.half_width
    if has_width:
        width = more(np.zeros(history.answer.shape) if width is None else width, 0.0)
    answer = more(history.answer, np.nan)
    return History(questions, answer, history.x, width)


def infer_all(conversations: list[Conversation]) -> None:
    """Let conversations know their posteriors, many at once: the same ones as alone."""
    for begin in range(0, len(conversations), _TOGETHER):
        some = conversations[begin : begin + _TOGETHER]
        jobs = [(talk, job) for talk in some if (job := talk.job()) is not None]
        found = together([job for _, job in jobs])
        for (talk, _), posteriors in zip(jobs, found, strict=True):
            talk.know(posteriors)


def _before_plan(events: list[Event]) -> list[Event]:
    """What the last plans come from, and what was not said after them."""
    planned = [event.seq for event in events if event.kind == "planned"]
    return events[: planned[-1]] if planned else events


def replay(
    store: Store, person: Participant, task: Task, surrogates: Mapping[str, Surrogate]
) -> bool | None:
    """Whether the events alone lead to the posterior and the plans that were shown, bit for bit.

    Parameters
    ----------
    store : Store
    person : Participant
    task : Task
    surrogates : Mapping
        By arm, see `fit_surrogates`.

    Returns
    -------
    bool or None
        None if no plan was shown.
    """
    events = store.events(person.id)
    planned = [event for event in events if event.kind == "planned"]
    if not planned:
        return None
    study = next(study for study in store.studies() if study.id == person.study_id)
    arms = terms_of(study.settings)
    own = conversation_of(task, surrogates, arms, person, _before_plan(events))
    return json.loads(as_json(own.plans().payload)) == planned[-1].payload


def _posteriors(
    store: Store, study: Study, task: Task, surrogates: Mapping[str, Surrogate]
) -> dict[str, tuple[Posteriors, list[int]]]:
    """All posteriors by name of file, and whose they are."""
    arms = terms_of(study.settings)
    found: dict[str, tuple[list[Conversation], list[int]]] = {}
    for person in store.participants(study.id):
        events = store.events(person.id)
        if not any(turn["answered"] is not None for turn in _turns(events)):
            continue
        kept = [event for event in _before_plan(events) if event.kind != "withdrawn"]
        own = conversation_of(task, surrogates, arms, person, _numbered(kept))
        name = "posteriors-curved" if arms[person.arm].curved else "posteriors"
        conversations, people = found.setdefault(name, ([], []))
        conversations.append(own)
        people.append(person.id)
    for conversations, _ in found.values():
        infer_all(conversations)
    return {
        name: (joined([own.posteriors for own in conversations]), people)
        for name, (conversations, people) in found.items()
    }


def _numbered(events: list[Event]) -> list[Event]:
    """Numbered anew."""
    return [event._replace(seq=seq) for seq, event in enumerate(events)]


def export(
    store: Store,
    study: Study,
    task: Task,
    surrogates: Mapping[str, Surrogate],
    folder: str | os.PathLike,
) -> list[Path]:
    """Write all of a study into a new folder, in one step.

    Parameters
    ----------
    store : Store
    study : Study
    task : Task
    surrogates : Mapping
        By arm, see `fit_surrogates`.
    folder : path

    Returns
    -------
    list of Path
        The files: each table of `TABLES` in Parquet and CSV, posteriors (of curved mechanisms
        apart) in netCDF with participants as users, ``settings.json``, and ``README.md``, which
        says what all of it is.

    Raises
    ------
    FileExistsError
        If there is something at ``folder``.
    OSError
        If it cannot be written; nothing of it is then left.
    """
    with extra("study"):
        import pyarrow  # noqa: F401
    folder = Path(folder)
    if os.path.lexists(folder):
        raise FileExistsError(f"Expected a new folder; there is {folder}.")
    unfinished = Path(tempfile.mkdtemp(prefix=".pcr-jax-unfinished-", dir=folder.parent))
    try:
        counts = store.counts(study.id)
        found = tables(store, study, task)
        for name, table in found.items():
            table.to_parquet(unfinished / f"{name}.parquet", index=False)
            cells = table.astype(object).map(plain_cell)
            cells.columns = [plain_cell(column) for column in cells.columns]
            cells.to_csv(unfinished / f"{name}.csv", index=False, lineterminator="\n")
        people: dict[str, list[int]] = {}
        for name, (posteriors, users) in _posteriors(store, study, task, surrogates).items():
            write_netcdf(posteriors.to_arviz(users), unfinished / f"{name}.nc")
            people[name] = users
        settings = json.dumps(study.settings, indent=1, ensure_ascii=False, allow_nan=False)
        (unfinished / "settings.json").write_text(f"{settings}\n")
        (unfinished / "README.md").write_text(_readme(study, task, found, people, counts))
        os.chmod(unfinished, 0o700)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sorted(folder.iterdir())


def _cell(text: Any) -> str:
    """Text in a cell of a table in Markdown."""
    shown = " ".join(f"{text}".split())
    for mark in "\\`*_[]<>|&":
        shown = shown.replace(mark, f"\\{mark}")
    return shown


def _readme(
    study: Study,
    task: Task,
    found: Mapping[str, pd.DataFrame],
    people: Mapping[str, list[int]],
    counts: Mapping[str, Mapping[str, int]],
) -> str:
    """The data dictionary."""
    enrolled = sum(of["enrolled"] for of in counts.values())
    there = len(found["participants"])
    lines = [
        f"# Study {_cell(study.name)}",
        "",
        f"{enrolled} people were enrolled; {enrolled - there} of them were deleted since, and "
        "nothing of them is here. Settings are in `settings.json`.",
        "",
        f"| arm | {' | '.join(COUNTS)} |",
        f"| --- | {' | '.join(['---:'] * len(COUNTS))} |",
        *(f"| {_cell(arm)} | {' | '.join(map(str, of.values()))} |" for arm, of in counts.items()),
        "",
        "Each table is there as Parquet and as CSV. In CSV, text that a spreadsheet would run as a "
        "formula has a quote `'` before it. Times are seconds since 1970, UTC.",
    ]
    for name, table in found.items():
        lines += ["", f"## {name}", "", f"{len(table)} rows.", "", "| column | what it is |"]
        lines += ["| --- | --- |"]
        lines += [f"| `{column}` | {_cell(said)} |" for column, said in TABLES[name].items()]
        if name == "participants":
            lines += ["| `applicant: COLUMN` | their row of the task's table |"]
    lines += ["", "## Columns of the task", "", "| column | what it is | costs 1 |"]
    lines += ["| --- | --- | ---: |"]
    for (column, feature), scale in zip(task.features.items(), task.scale, strict=True):
        names = getattr(feature, "names", None)
        said = feature.kind if names is None else f"{feature.kind}: {', '.join(map(str, names))}"
        unit = getattr(feature, "unit", None)
        lines += [f"| {_cell(column)} | {_cell(said)} | {scale:.4g} {_cell(unit or '')} |"]
    for name, users in people.items():
        lines += [
            "",
            f"## {name}.nc",
            "",
            f"Posteriors of {len(users)} people over the surrogate's numbers, as "
            "`pcr_jax.read_netcdf` reads it (ArviZ data; `pcr_jax.Posteriors.to_arviz` says what "
            "is in it). `user` is the number of the participant. They are inferred from the "
            "answers before the last plans, attention and retest questions left out.",
        ]
    return "\n".join([*lines, ""])
