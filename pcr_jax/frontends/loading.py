"""What a command line names: a task in a module, a person in a file. Mistakes are one line each."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from pcr_jax._checks import shown
from pcr_jax.task import Task

_MAX_BYTES = 1_000_000  # of one person's row


class LoadError(ValueError):
    """What was named cannot be used."""


def load_task(name: str) -> Task:
    """The task that is named as ``module:attribute`` or ``path/to/file.py:attribute``.

    Parameters
    ----------
    name : str
        The attribute is a `Task`, or a function without arguments that returns one. Modules are
        looked for in the working directory too.

    Raises
    ------
    LoadError
        If there is none of that name, or getting it fails.
    """
    place, colon, attribute = name.rpartition(":")
    if not (place and colon and attribute):
        raise LoadError(f"Expected MODULE:TASK, such as mybank.loan:task; got {shown(name)}.")
    module = _run(lambda: _module(place), f"{place} cannot be imported")
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise LoadError(f"Expected {attribute!r} in {place}; there is no such name.") from None
    if callable(found) and not isinstance(found, Task):
        found = _run(found, f"{name} was called without arguments and failed")
    if not isinstance(found, Task):
        raise LoadError(
            f"Expected {name} to be a pcr_jax.Task, or a function that returns one; got "
            f"{shown(found)}."
        )
    return found


def load_applicant(path: str | os.PathLike, task: Task) -> pd.DataFrame:
    """One person, of a file in strict JSON: an object with an entry for each of the task's columns.

    Parameters
    ----------
    path : path
    task : Task

    Returns
    -------
    DataFrame
        Of one row, called ``applicant``, with the task's columns.

    Raises
    ------
    LoadError
        If the file cannot be read, is no such object, or the task cannot take its entries.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise LoadError(f"{os.fspath(path)} cannot be read: {why}.") from None
    return row_of(read_object(text, path), task, f"{os.fspath(path)}")


def read_object(text: bytes, path: str | os.PathLike) -> dict[str, Any]:
    """The object that a file has in strict JSON: no name twice, no NaN, no nested entries.

    Raises
    ------
    LoadError
        If it has none.
    """

    def once(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{shown(twice)} is there twice")
        return dict(pairs)

    def number(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{shown(text)} is too large")
        return value

    def no_number(text):
        raise ValueError(f"{text} is no number in JSON")

    hooks: dict[str, Any] = {
        "object_pairs_hook": once,
        "parse_float": number,
        "parse_constant": no_number,
    }
    try:
        if len(text) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES:,} bytes")
        found = json.loads(text.decode("utf-8-sig"), **hooks)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{os.fspath(path)} is not strict JSON: {error}.") from None
    if not isinstance(found, dict):
        raise LoadError(
            f"Expected {os.fspath(path)} to be one person, an object with an entry for each "
            f"column; got {shown(found)}."
        )
    nested = [name for name, entry in found.items() if isinstance(entry, dict | list)]
    if nested:
        raise LoadError(f"Expected {os.fspath(path)} to have plain entries; got some in {nested}.")
    return found


def row_of(entries: dict[str, Any], task: Task, name: str) -> pd.DataFrame:
    """A person's entries by column as a row that the task can take; ``name`` says whose they are.

    Raises
    ------
    LoadError
        If the task cannot take them.
    """
    names = {str(column): column for column in task.columns}
    missing = [column for column in names if column not in entries]
    if missing:
        unknown = [column for column in entries if column not in names]
        also = f", but {unknown}, which the task does not know" if unknown else ""
        raise LoadError(f"{name} lacks {missing} of the columns {list(names)}{also}.")
    row = pd.DataFrame([{c: entries[n] for n, c in names.items()}], index=["applicant"])

    def checked():
        rows = task.rows(row)
        task.problem(rows)
        task.check(rows)
        return rows

    return _run(checked, f"The task cannot take {name}")


def _module(place: str) -> Any:
    """A module by its name, or by its path."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    if f"{path.parent}" not in sys.path:
        sys.path.insert(0, f"{path.parent}")
    name = f"_{path.stem}_of_the_command_line"  # not that of another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _run(function: Any, failed: str) -> Any:
    """What somebody else's function returns; its failure as a `LoadError`."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        why = " ".join(f"{error}".split()) or "it says no more"
        raise LoadError(f"{failed}: {kind}{why}") from error
