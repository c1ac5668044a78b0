"""A study as a researcher writes it down: ``study.toml``."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pcr_jax._checks import shown
from pcr_jax.frontends.terms import Terms

_MAX_BYTES = 1_000_000
_MOST_PEOPLE = 100_000
_MOST_QUESTIONS = 100
_NAME = 60  # characters of a name, at most
FILES = (".csv", ".json", ".parquet")
"""Of what kinds a file of applicants can be."""
_NEEDED = ("name", "task", "arms", "applicants", "consent")
_ALL = (*_NEEDED, "title", "database", "block", "seed")


class SettingsError(ValueError):
    """A study's file says something that cannot be."""


@dataclass(frozen=True)
class StudySettings:
    """A study's settings.

    Attributes
    ----------
    name : str
        Letters, digits, ``-`` and ``_``: of the study in the database.
    title : str
        What participants read.
    task : str
        ``module:task``, or ``file.py:task`` beside the study's file.
    database : str
        Its URL; by default a file of SQLite beside the study's file.
    arms : dict
        By name, `Terms`.
    block : int
        So many people in a row are divided evenly over the arms.
    synthetic : int or None
        How many applicants are drawn from those that the task's model refuses in its data.
    file : Path or None
        Of a table of applicants, in one of `FILES`.
    consent : str
        What participants agree to; blank lines divide paragraphs.
    seed : int
        Everything random follows from it.
    """

    name: str
    title: str
    task: str
    database: str
    arms: dict[str, Terms]
    block: int
    synthetic: int | None
    file: Path | None
    consent: str
    seed: int

    def as_json(self) -> dict[str, Any]:
        """What a study cannot change once it has begun, for the database."""
        kept = {name: getattr(self, name) for name in ("name", "title", "block", "seed", "consent")}
        arms = {name: terms_as_json(terms) for name, terms in self.arms.items()}
        return {**kept, "task": self.task.rpartition(":")[2], "arms": arms}


def terms_as_json(terms: Terms) -> dict[str, Any]:
    """An arm's settings, for the database."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(terms).items()
    }


def read_settings(path: str | os.PathLike) -> StudySettings:
    """A study's settings from its file.

    Parameters
    ----------
    path : path
        Of a file in TOML.

    Raises
    ------
    SettingsError
        If it cannot be read, or says something that cannot be: names the key, what was expected
        and what came.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise SettingsError(f"Expected {path} of at most {_MAX_BYTES:,} bytes; got more.")
        found = tomllib.loads(text.decode())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"Expected {path} in TOML; {error}.") from None
    return _settings(found, path)


def _settings(found: dict[str, Any], path: Path) -> StudySettings:
    at = _At(path.name)
    at.keys(found, "", _NEEDED, _ALL)
    name = at.text(found["name"], "name", _NAME)
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        at.refuse("name", "letters, digits, - and _", name)
    task = at.text(found["task"], "task", 300)
    place, colon, attribute = task.rpartition(":")
    if not (place and colon and attribute.isidentifier()):
        at.refuse("task", '"MODULE:TASK" or "FILE.py:TASK"', task)
    if place.endswith(".py"):
        task = f"{path.parent / place}:{attribute}"
    arms = _arms(found["arms"], at)
    synthetic, file = _applicants(found["applicants"], path, at)
    default = f"sqlite:///{path.parent / path.stem}.sqlite"
    block = at.whole(found.get("block", 2 * len(arms)), "block", 1, _MOST_PEOPLE)
    if block % len(arms):
        at.refuse("block", f"a multiple of the {len(arms)} arms", block)
    return StudySettings(
        name,
        at.text(found.get("title", name), "title", 200),
        task,
        at.text(found.get("database", default), "database", 1000),
        arms,
        block,
        synthetic,
        file,
        at.text(found["consent"], "consent", 20_000),
        at.whole(found.get("seed", 0), "seed", 0, 2**31 - 1),
    )


def _arms(found: Any, at: _At) -> dict[str, Terms]:
    if not isinstance(found, dict) or not found:
        at.refuse("arms", "tables such as [arms.NAME], one at least", found)
    return {name: _terms(of, at.arm(name), at) for name, of in found.items()}


def _terms(found: Any, where: str, at: _At) -> Terms:
    if not isinstance(found, dict):
        at.refuse(where, "a table of settings", found)
    known = [field.name for field in fields(Terms)]
    at.keys(found, f"{where}.", (), known)
    hints = get_type_hints(Terms)
    most = at.whole(
        found.get("max_questions", Terms.max_questions),
        *(f"{where}.max_questions", 1, _MOST_QUESTIONS),
    )
    read: dict[Any, Callable[[Any, str], Any]] = {
        str: lambda value, key: at.text(value, key, 60),
        bool: at.truth,
        float: at.share,
        int: lambda value, key: at.whole(value, key, 1, _MOST_QUESTIONS),
        tuple[int, ...]: lambda value, key: at.numbers(value, key, most),
    }
    settings = {name: read[hints[name]](value, f"{where}.{name}") for name, value in found.items()}
    try:
        return Terms(**settings)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{at.file}: {where}: {error}") from None


def _applicants(found: Any, path: Path, at: _At) -> tuple[int | None, Path | None]:
    if not isinstance(found, dict) or len(found) != 1 or not set(found) <= {"synthetic", "file"}:
        at.refuse("applicants", 'a table with "synthetic = NUMBER" or "file = NAME"', found)
    if "synthetic" in found:
        return at.whole(found["synthetic"], "applicants.synthetic", 1, _MOST_PEOPLE), None
    file = path.parent / at.text(found["file"], "applicants.file", 300)
    if file.suffix.lower() not in FILES:
        at.refuse("applicants.file", f"a file that ends with one of {', '.join(FILES)}", file.name)
    if not file.is_file():
        at.refuse("applicants.file", f"a file beside {path.name}", f"{file}, which is not there")
    return None, file


@dataclass(frozen=True)
class _At:
    """Checks of what a file says; ``key`` is where."""

    file: str

    def refuse(self, key: str, wanted: str, came: Any):
        """Raise."""
        raise SettingsError(f"{self.file}: Expected {key} to be {wanted}; got {shown(came)}.")

    def keys(self, found: Mapping, prefix: str, needed: Any, known: Any) -> None:
        """Raise unless all that is needed is there, and nothing that is not known."""
        for name in found:
            if name not in known:
                raise SettingsError(
                    f"{self.file}: Expected keys of {', '.join(known)}; got {shown(prefix + name)}."
                )
        for name in needed:
            if name not in found:
                raise SettingsError(f"{self.file}: Expected key {prefix}{name}; it is not there.")

    def arm(self, name: str) -> str:
        """Where an arm is."""
        good = name and len(name) <= _NAME and name.isprintable() and name == name.strip()
        if not good:
            self.refuse("arms", f"tables with names of 1 to {_NAME} characters", name)
        return f"arms.{name}"

    def text(self, value: Any, key: str, most: int) -> str:
        """Text that says something."""
        good = isinstance(value, str) and value.strip() and len(value) <= most
        if not good or "\0" in value:
            self.refuse(key, f"text of 1 to {most:,} characters", value)
        return value.strip()

    def truth(self, value: Any, key: str) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.refuse(key, "true or false", value)
        return value

    def whole(self, value: Any, key: str, least: int, most: int) -> int:
        """An integer in a range."""
        if type(value) is not int or not least <= value <= most:
            self.refuse(key, f"an integer from {least} to {most}", value)
        return value

    def share(self, value: Any, key: str) -> float:
        """A number between 0 and 1."""
        good = type(value) in (int, float) and math.isfinite(value) and 0 < value < 1
        if not good:
            self.refuse(key, "a number between 0 and 1", value)
        return float(value)

    def numbers(self, value: Any, key: str, most: int) -> tuple[int, ...]:
        """Numbers of questions, in their order."""
        good = isinstance(value, list) and all(type(n) is int and 0 <= n < most for n in value)
        if not good or len(set(value)) != len(value):
            self.refuse(key, f"a list of different numbers of questions, 0 to {most - 1}", value)
        return tuple(sorted(value))
