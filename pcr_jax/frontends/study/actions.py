"""What ``pcr-jax study`` does."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from pcr_jax._extras import extra
from pcr_jax._stop import stop
from pcr_jax.frontends.loading import LoadError, load_task
from pcr_jax.frontends.store.store import COUNTS, Conflict, Store, Study
from pcr_jax.frontends.study.export import export, replay
from pcr_jax.frontends.study.people import applicants, enrol, fit_surrogates, terms_of
from pcr_jax.frontends.study.settings import (
    SettingsError,
    StudySettings,
    read_settings,
    terms_as_json,
)
from pcr_jax.session_json import difference
from pcr_jax.task import Task

_LINK = ("participant", "link")


def act(args: argparse.Namespace) -> int:
    """Do what the arguments of `commands` say; returns the exit status.

    Exits with 2 for a mistake, 1 for a failure, 130 if interrupted, each with one line.
    """
    actions = {
        "new": _new,
        "status": _status,
        "export": _export,
        "replay": _replay,
        "delete": _delete,
        "simulate": _simulate,
    }
    try:
        settings = read_settings(args.study)
        with _opened(settings) as store:
            return actions[args.action](args, settings, store)
    except (SettingsError, LoadError, FileExistsError, ModuleNotFoundError) as error:
        stop(2, f"error: {error}")
    except (Conflict, LookupError, OSError) as error:
        stop(1, f"error: {error}")
    except KeyboardInterrupt:
        stop(130, "stopped")


@contextmanager
def _opened(settings: StudySettings) -> Iterator[Store]:
    try:
        store = Store.open(settings.database)
    except ValueError as error:
        raise SettingsError(f"{error}") from None
    try:
        yield store
    finally:
        store.close()


def begun(store: Store, settings: StudySettings) -> Study:
    """The study in the database, if it began with these settings.

    Raises
    ------
    SettingsError
        If it did not begin, or its file says something else now.
    """
    study = store.study(settings.name)
    if study is None:
        raise SettingsError(
            f"Expected study {settings.name!r} in its database; it is not there. See "
            "pcr-jax study new."
        )
    arms = {name: terms_as_json(terms) for name, terms in terms_of(study.settings).items()}
    found = difference({**study.settings, "arms": arms}, settings.as_json(), "settings")
    if found is not None:
        name, before, now = found
        raise SettingsError(
            f"Expected {name.removeprefix('settings.')} as the study began with, {before!r}; got "
            f"{now!r}. A study that has begun does not change; give the new one another name."
        )
    return study


def _console() -> Console:
    return Console(highlight=False)


def _links(args: argparse.Namespace) -> Path:
    return args.links or args.study.parent / "links.csv"


def _new(args: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    task = load_task(settings.task)
    rows = applicants(settings, task)
    number = args.participants or settings.synthetic or len(rows)
    if settings.file is not None and number > len(rows):
        raise SettingsError(
            f"Expected at most as many participants as {settings.file.name} has applicants, "
            f"{len(rows)}; got {number}."
        )
    if store.study(settings.name) is None:
        store.new_study(settings.name, settings.as_json())
    study = begun(store, settings)
    there = store.num_positions(study.id)
    path = _links(args)
    with _private(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(_LINK)
        for position in range(there, number):
            person, token = enrol(store, study.id, settings, rows, position)
            writer.writerow([person.id, f"{args.base_url}/join/{token}"])
            file.flush()
        os.fsync(file.fileno())
    more = max(0, number - there)
    _console().print(
        f"Study {settings.name}: {more} people enrolled, {max(there, number)} in all. Their links "
        f"are in {path}, which only you can read. They are nowhere else: keep it.",
        markup=False,
    )
    return 0


@contextmanager
def _private(path: Path) -> Iterator[Any]:
    """A file to add to, for its owner alone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "a", newline="", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.seek(0, os.SEEK_END)
        yield file


def _status(_: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    study = begun(store, settings)
    counts = store.counts(study.id)
    table = Table(title=f"Study {settings.name}")
    table.add_column("arm")
    for name in COUNTS:
        table.add_column(name, justify="right")
    for arm in settings.arms:
        table.add_row(arm, *(f"{counts.get(arm, {}).get(name, 0)}" for name in COUNTS))
    sums = (f"{sum(of[name] for of in counts.values())}" for name in COUNTS)
    table.add_section()
    table.add_row("all", *sums)
    _console().print(table)
    return 0


def _fitted(settings: StudySettings, study: Study) -> tuple[Task, dict[str, Any]]:
    task = load_task(settings.task)
    return task, fit_surrogates(task, terms_of(study.settings))


def _export(args: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    study = begun(store, settings)
    if os.path.lexists(args.out):
        raise FileExistsError(f"Expected --out to be a new folder; there is {args.out}.")
    task, surrogates = _fitted(settings, study)
    files = export(store, study, task, surrogates, args.out)
    names = ", ".join(file.name for file in files)
    _console().print(f"Wrote {names} into {args.out}.", markup=False)
    return 0


def _replay(_: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    study = begun(store, settings)
    task, surrogates = _fitted(settings, study)
    same, other = 0, []
    for person in store.participants(study.id):
        found = replay(store, person, task, surrogates)
        same += found is True
        other += [person.id] if found is False else []
    console = _console()
    console.print(f"{same} people's plans follow from their events, bit for bit.")
    if other:
        console.print(
            f"{len(other)} people's do not, on this machine and with these versions: "
            f"{', '.join(map(str, other))}."
        )
    return 1 if other else 0


def _delete(args: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    study = begun(store, settings)
    person = store.participant(args.participant)
    if person is None or person.study_id != study.id:
        raise LookupError(
            f"Expected PARTICIPANT of study {settings.name}; got {args.participant}, who is not "
            "there."
        )
    store.delete(person.id)
    _console().print(
        f"All that was known of participant {person.id} is deleted, but for the counts. Exports "
        "and copies that were made before have it still."
    )
    return 0


def read_links(path: Path) -> list[tuple[int, str]]:
    """Participants and their links, as ``study new`` wrote them.

    Raises
    ------
    SettingsError
        If the file is none.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError) as error:
        raise SettingsError(f"Expected a file of links; {path} cannot be read: {error}.") from None
    if not rows or tuple(rows[0]) != _LINK or any(len(row) != 2 for row in rows):
        raise SettingsError(f"Expected {path} to have the columns {', '.join(_LINK)}.")
    return [(int(number), link) for number, link in rows[1:]]


def _simulate(args: argparse.Namespace, settings: StudySettings, store: Store) -> int:
    with extra("study"):
        from pcr_jax.frontends.study.simulate import Person, figures, simulate, truth_of

    study = begun(store, settings)
    links = read_links(_links(args))[: args.participants]
    task, surrogates = _fitted(settings, study)
    people, truths = [], []
    for number, link in links:
        person = store.participant(number)
        if person is None:
            continue
        truth = truth_of(surrogates[person.arm], args.seed, person.position)
        x = task.encode(task.rows(person.applicant))[0]
        people.append(Person(person.id, link, x, truth.scm))
        names = surrogates[person.arm].names
        truths.append({"participant": person.id, **dict(zip(names, truth.numbers, strict=True))})
    console, ended = _console(), 0

    def on_end(_: Any) -> None:
        nonlocal ended
        ended += 1
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{ended} of {len(people)}", end="", file=sys.stderr, flush=True)

    outcomes = simulate(
        people,
        task,
        concurrency=args.concurrency,
        think=args.think,
        seed=args.seed,
        on_end=on_end,
    )
    truth_file = args.study.parent / "truth.csv"
    pd.DataFrame(truths).to_csv(truth_file, index=False)
    found = figures(outcomes)
    console.print(
        f"{found['finished']} of {found['people']} simulated people finished, with "
        f"{found['answers']} answers and {found['errors']} errors. What their SCMs are is in "
        f"{truth_file}.",
        markup=False,
    )
    for what in ("question", "plan"):
        if found[f"{what}_median"] is not None:
            median, p95, most = (found[f"{what}_{name}"] for name in ("median", "p95", "most"))
            console.print(
                f"From answer to {what}: median {median:.2f} s, 95 % within {p95:.2f} s, longest "
                f"{most:.2f} s."
            )
    for outcome in outcomes:
        for error in outcome.errors[:3]:
            console.print(f"Participant {outcome.participant}: {error}", markup=False)
    return 0 if found["finished"] == found["people"] else 1
