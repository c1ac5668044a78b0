"""Studies, participants and what happened, in a database.

A participant is a list of events that grows at its end, and nothing else about them is kept. Every
call is one short transaction; what it returned from is on disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Select,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from pcr_jax import _checks
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.store.schema import as_url, engine_of, forget, strict, upgrade
from pcr_jax.frontends.store.tables import LENGTH, EventRow, LoginRow, ParticipantRow, StudyRow

_LARGEST = 1_000_000  # characters of JSON in one place
_MOST = 2**31 - 1  # of whole numbers
COUNTS = ("enrolled", "consented", "answers", "finished", "withdrawn")


class Conflict(Exception):
    """Somebody else was first."""


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes
    ----------
    id : int
    name : str
    settings : dict
        As it began with them.
    created : float
        Unix seconds.
    """

    id: int
    name: str
    settings: dict[str, Any]
    created: float


@dataclass(frozen=True)
class Participant:
    """Somebody who takes part.

    Attributes
    ----------
    id, study_id : int
    arm : str
    position : int
        In the study, from 0.
    applicant : dict
        Their row: entries by column.
    key : list of int
        The data of their random key.
    versions : dict
        Of the libraries, when they were enrolled.
    enrolled : float
        Unix seconds.
    """

    id: int
    study_id: int
    arm: str
    position: int
    applicant: dict[str, Any]
    key: list[int]
    versions: dict[str, Any]
    enrolled: float


def _text(value: Any, name: str) -> str:
    """Text that every database holds."""
    _checks.instance(value, str, name)
    if not value or len(value) > LENGTH or "\0" in value or not _encodes(value):
        raise ValueError(
            f"Expected {name} to be 1 to {LENGTH} characters without NUL; got "
            f"{_checks.shown(value[:LENGTH])}."
        )
    return value


def _encodes(text: str) -> bool:
    """Whether text is Unicode, without halves of pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_names(value: Any) -> bool:
    """Whether all keys are text, which JSON would make them."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _has_names(v) for k, v in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_names, value))


def _json(value: Any, name: str, kind: Any = dict) -> Any:
    """A value as it comes back from strict JSON."""
    _checks.instance(value, kind, name)
    try:
        written = strict(value)
        good = _has_names(value) and _encodes(written)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected {name} to be what strict JSON holds; got other ({error})."
        ) from None
    if not good or len(written) > _LARGEST:
        raise ValueError(
            f"Expected {name} to be strict JSON of at most {_LARGEST:,} characters with text for "
            f"names; got {len(written):,} characters, or other."
        )
    return json.loads(written)


def _whole(value: Any, name: str) -> int:
    """A whole number that every database holds."""
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(
            f"Expected {name} to be an integer from 0 to {_MOST}; got {_checks.shown(value)}."
        )
    return value


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


_OF_PERSON = [getattr(ParticipantRow, field.name) for field in fields(Participant)]


class Store:
    """What there is of studies and participants. See `open`.

    Threads may share one; every process opens its own.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        # SQLite has one writer at a time, and lets the others try again and again, in no order.
        one_writes = engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager = threading.Lock() if one_writes else nullcontext()

    @classmethod
    def open(cls, url: str) -> Store:
        """The store in a database, whose tables are made, or brought up to date.

        Parameters
        ----------
        url : str
            ``"sqlite:///PATH"``, a file that only its owner may read if it is made; or
            ``"postgresql+psycopg://USER@HOST/NAME"``.

        Raises
        ------
        TypeError
            If ``url`` is no text.
        ValueError
            If it is no such database, or one whose schema a newer version of this library made.
        OSError
            If it cannot be reached; a password is not shown.
        ModuleNotFoundError
            If the database's driver is not installed.
        """
        address = as_url(url)
        engine = engine_of(address)
        try:
            upgrade(engine)
        except (DBAPIError, sqlite3.Error) as error:
            engine.dispose()
            why = " ".join(f"{getattr(error, 'orig', error)}".split())
            raise OSError(f"Expected a database at {address.render_as_string()}; {why}.") from None
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that writes, committed at its end."""
        with self._turn, self._writer.begin() as connection:
            yield connection

    def _rows(self, query: Select) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())

    def new_study(self, name: str, settings: dict[str, Any]) -> Study:
        """Begin a study.

        Raises
        ------
        Conflict
            If there is one of that name.
        """
        row = {
            "name": _text(name, "name"),
            "settings": _json(settings, "settings"),
            "created": time.time(),
        }
        try:
            with self._writing() as connection:
                added = insert(StudyRow).values(row).returning(StudyRow.id)
                number = connection.execute(added).scalar_one()
        except IntegrityError:
            raise Conflict(f"Expected name of a new study; got {name!r}, which there is.") from None
        return Study(number, **row)

    def study(self, name: str) -> Study | None:
        """The study of that name."""
        return next((study for study in self.studies() if study.name == name), None)

    def studies(self) -> list[Study]:
        """All studies, in the order in which they began."""
        columns = [getattr(StudyRow, field.name) for field in fields(Study)]
        return [Study(*row) for row in self._rows(select(*columns).order_by(StudyRow.id))]

    def enrol(
        self,
        study_id: int,
        arm: str,
        applicant: dict[str, Any],
        key: list[int],
        position: int,
        versions: dict[str, Any],
    ) -> tuple[Participant, str]:
        """Somebody new, and the token that their link has: only its SHA-256 is kept.

        Raises
        ------
        Conflict
            If the position is taken.
        LookupError
            If there is no such study.
        """
        token = secrets.token_urlsafe(32)
        row = {
            "study_id": _whole(study_id, "study_id"),
            "arm": _text(arm, "arm"),
            "position": _whole(position, "position"),
            "applicant": _json(applicant, "applicant"),
            "key": _json(key, "key", list),
            "versions": _json(versions, "versions"),
            "enrolled": time.time(),
        }
        try:
            with self._writing() as connection:
                found = connection.scalar(select(StudyRow.id).where(StudyRow.id == study_id))
                if found is None:
                    raise LookupError(f"Expected study_id of a study; got {study_id}.")
                more = {"token": _digest(token), "deleted": False}
                added = insert(ParticipantRow).values(row | more).returning(ParticipantRow.id)
                number = connection.execute(added).scalar_one()
        except IntegrityError:
            raise Conflict(f"Expected position to be free; got {position}, which is not.") from None
        return Participant(number, **row), token

    def by_token(self, token: str) -> Participant | None:
        """Whose link has this token."""
        if not isinstance(token, str):
            return None
        return self._one(ParticipantRow.token == _digest(token))

    def participant(self, participant_id: int) -> Participant | None:
        """The participant, who was not deleted."""
        if not _is_id(participant_id):
            return None
        return self._one(ParticipantRow.id == participant_id)

    def _one(self, condition: Any) -> Participant | None:
        there = condition, ParticipantRow.deleted.is_(False)
        found = self._rows(select(*_OF_PERSON).where(*there))
        return Participant(*found[0]) if found else None

    def participants(self, study_id: int) -> list[Participant]:
        """Those of a study who were not deleted, by position."""
        if not _is_id(study_id):
            return []
        there = ParticipantRow.study_id == study_id, ParticipantRow.deleted.is_(False)
        query = select(*_OF_PERSON).where(*there).order_by(ParticipantRow.position)
        return [Participant(*row) for row in self._rows(query)]

    def num_positions(self, study_id: int) -> int:
        """How many positions of a study are taken, those of deleted participants too."""
        taken = func.coalesce(func.max(ParticipantRow.position), -1) + 1
        return int(self._rows(select(taken).where(ParticipantRow.study_id == study_id))[0][0])

    def events(self, participant_id: int, after: int = -1) -> list[Event]:
        """What happened, after one event."""
        if not _is_id(participant_id):
            return []
        query = (
            select(EventRow.seq, EventRow.at, EventRow.kind, EventRow.payload)
            .where(EventRow.participant_id == participant_id, EventRow.seq > after)
            .order_by(EventRow.seq)
        )
        return [Event(*row) for row in self._rows(query)]

    def append(
        self,
        participant_id: int,
        seq: int,
        kind: str,
        payload: dict[str, Any],
        at: float | None = None,
    ) -> Event:
        """Add an event; when this returns, it is on disk.

        Parameters
        ----------
        participant_id : int
        seq : int
            The number of events before it.
        kind : str
        payload : dict
            Strict JSON.
        at : float, optional
            Unix seconds; now by default.

        Raises
        ------
        Conflict
            If there is an event of that number.
        ValueError
            If there are fewer events than that, or an argument is not what every database holds.
        LookupError
            If there is no such participant, or they were deleted.
        """
        at = time.time() if at is None else float(at)
        if not math.isfinite(at):
            raise ValueError(f"Expected at to be finite; got {at}.")
        _whole(participant_id, "participant_id")
        _whole(seq, "seq")
        row = {"at": at, "kind": _text(kind, "kind"), "payload": _json(payload, "payload")}
        try:
            with self._writing() as connection:
                _hold(connection, participant_id)
                whose = EventRow.participant_id == participant_id
                last = connection.scalar(select(func.max(EventRow.seq)).where(whose))
                there = 0 if last is None else last + 1
                if seq > there:
                    raise ValueError(f"Expected seq of the next event, {there}; got {seq}.")
                if seq == there:
                    place = {"participant_id": participant_id, "seq": seq}
                    connection.execute(insert(EventRow).values(place | row))
                    return Event(seq, **row)
        except IntegrityError:
            pass
        raise Conflict(f"Expected seq of the next event; got {seq}, which there is.")

    def counts(self, study_id: int) -> dict[str, dict[str, int]]:
        """How many people and answers there are in each arm.

        Returns
        -------
        dict
            By arm: ``enrolled``; who ``consented``; ``answers`` that were not taken back; who
            ``finished``, which is to have given feedback; who has ``withdrawn``, or was deleted.
        """
        if not _is_id(study_id):
            return {}
        own = ParticipantRow.study_id == study_id
        gone = func.sum(case((ParticipantRow.deleted, 1), else_=0)).cast(Integer)
        found: dict[str, dict[str, int]] = {}
        query = select(ParticipantRow.arm, func.count(), gone).where(own)
        for arm, enrolled, deleted in self._rows(query.group_by(ParticipantRow.arm)):
            found[arm] = {**dict.fromkeys(COUNTS, 0), "enrolled": enrolled, "withdrawn": deleted}
        arm_of_events = select(ParticipantRow.arm, EventRow.kind)
        many = func.count(EventRow.participant_id.distinct())
        numbers = arm_of_events.add_columns(func.count(), many).join(
            EventRow, EventRow.participant_id == ParticipantRow.id
        )
        for arm, kind, events, people in self._rows(
            numbers.where(own).group_by(ParticipantRow.arm, EventRow.kind)
        ):
            _add(found[arm], kind, events, people)
            found[arm]["withdrawn"] += people * (kind == "withdrawn")
        remains = select(ParticipantRow.arm, ParticipantRow.remains)
        for arm, kinds in self._rows(remains.where(own, ParticipantRow.deleted)):
            for kind, number in kinds.items():
                _add(found[arm], kind, number, 1)
        return found

    def delete(self, participant_id: int) -> None:
        """Delete all that is known of a participant: row, token, key and events.

        Their arm and position stay, and how many events of each kind there were, for the counts.

        Raises
        ------
        LookupError
            If there is no such participant, or they were deleted before.
        """
        _whole(participant_id, "participant_id")
        whose = EventRow.participant_id == participant_id
        with self._writing() as connection:
            _hold(connection, participant_id)
            kinds = select(EventRow.kind, func.count()).where(whose).group_by(EventRow.kind)
            remains = dict(connection.execute(kinds).all())
            connection.execute(delete(EventRow).where(whose))
            connection.execute(
                update(ParticipantRow)
                .where(ParticipantRow.id == participant_id)
                .values(
                    **dict.fromkeys(("token", "applicant", "key", "versions")),
                    deleted=True,
                    remains=remains,
                )
            )
        forget(self._engine)

    def export_of(self, participant_id: int) -> dict[str, Any]:
        """All that is known of one participant, as strict JSON, for themselves.

        Raises
        ------
        LookupError
            If there is no such participant, or they were deleted.
        """
        person = self.participant(participant_id)
        if person is None:
            raise LookupError(
                f"Expected participant_id of a participant; got {participant_id!r}, who is not "
                "there."
            )
        name = next(study.name for study in self.studies() if study.id == person.study_id)
        return {
            "study": name,
            "participant": person.id,
            "arm": person.arm,
            "enrolled": person.enrolled,
            "applicant": person.applicant,
            "key": person.key,
            "versions": person.versions,
            "events": [event._asdict() for event in self.events(participant_id)],
        }

    def note_login(self, ok: bool, where: str) -> None:
        """Note an attempt at the researcher's password, from some address."""
        row = {"at": time.time(), "ok": bool(ok), "place": _text(where, "where")}
        with self._writing() as connection:
            connection.execute(insert(LoginRow).values(row))

    def recent_failures(self, seconds: float) -> int:
        """How many attempts failed in the last seconds."""
        recent = LoginRow.at > time.time() - seconds, LoginRow.ok.is_(False)
        return int(self._rows(select(func.count()).select_from(LoginRow).where(*recent))[0][0])


def _hold(connection: Connection, participant_id: int) -> None:
    """Let nobody else change a participant until the transaction ends."""
    whose = ParticipantRow.id == participant_id, ParticipantRow.deleted.is_(False)
    if connection.scalar(select(ParticipantRow.id).where(*whose).with_for_update()) is None:
        raise LookupError(
            f"Expected participant_id of a participant; got {participant_id}, who is not there."
        )


def _add(counts: dict[str, int], kind: str, events: int, people: int) -> None:
    """Count events of one kind, which so many people have."""
    counts["consented"] += people * (kind == "consented")
    counts["answers"] += events * ((kind == "answered") - (kind == "back"))
    counts["finished"] += people * (kind == "feedback")
