"""How a session is written: strict JSON (RFC 8259), which proves that nothing of it has changed.

A file holds values only: no code, and NaN as null. What it cannot hold, such as a score, is passed
again when it is read; its description is held against the one in the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Set
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._checks import shown
from pcr_jax.history import Questions

FORMAT = "pcr_jax session"
SCHEMA = 1
_CONTENT = {
    *("format", "schema", "versions", "precision", "key", "max_questions", "draws", "digits"),
    *("settings", "logit", "turns"),
}
_PERSON = {"node", "shift", "individual", "text", "answer", "half_width"}
_ONE = {"outcome"}  # of a question for one number
_SEAL = "sha256"


class Turn(NamedTuple):
    """One question to each person, and the answers.

    Attributes
    ----------
    questions : Questions
        Of shape (num_users,), in NumPy.
    texts : tuple of str or None
        Of length num_users: as they were put; None where nothing was asked.
    answer : ndarray or None
        Shape (num_users, d), natural units; None until it is told.
    half_width : ndarray or None
        Shape (num_users, d), natural units; None where no intervals were told.
    """

    questions: Questions
    texts: tuple[str | None, ...]
    answer: np.ndarray | None = None
    half_width: np.ndarray | None = None


def _number(value: float) -> float | str | None:
    """As strict JSON has it."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def _entries(array: np.ndarray) -> Any:
    """The entries as nested lists."""
    if array.dtype.kind == "f":
        flat = [_number(value) for value in array.ravel().tolist()]
        return np.array([*flat, None], object)[:-1].reshape(array.shape).tolist()
    return array.tolist() if array.dtype.kind in "biu" else array.astype(str).tolist()


def described(value: Any) -> Any:
    """A value as JSON: arrays by their entries, objects by their class and fields.

    Of a function the name is all that can be told.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (str, int, float):  # subclasses, such as np.float64, are as good
        if isinstance(value, plain):
            return _number(plain(value)) if plain is float else plain(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        return _entries(np.asarray(value))
    if isinstance(value, Mapping):
        return [[described(name), described(entry)] for name, entry in value.items()]
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return [described(entry) for entry in value]
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(value, "_fields"):
        names = list(value._fields)
    elif hasattr(value, "__qualname__"):
        return {"name": value.__qualname__}
    else:
        own = getattr(value, "__dict__", {})
        names = [name for name in own if not isinstance(vars(kind).get(name), cached_property)]
    return {
        "class": kind.__qualname__,
        **{name: described(getattr(value, name)) for name in names},
    }


def difference(before: Any, now: Any, name: str) -> tuple[str, Any, Any] | None:
    """The first place where two descriptions differ, and what is there; None if they do not."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(f"{name}.{key}", before.get(key), now.get(key)) for key in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    else:
        same = type(before) is type(now) and before == now
        return None if same else (name, before, now)
    return next((found for pair in pairs if (found := difference(*pair[1:], pair[0]))), None)


def _digest(content: dict) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def sealed(content: dict) -> str:
    """The text of a content, with a checksum."""
    return json.dumps({**content, _SEAL: _digest(content)}, allow_nan=False, ensure_ascii=False)


def _refuse(wanted: str, came: Any):
    raise ValueError(f"Expected text of a session, {wanted}; got {came}.")


def _object(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a name twice among {[name for name, _ in pairs]}")
    return found


def _constant(literal: str):
    raise ValueError(literal)


def opened(text: str | bytes) -> dict:
    """The content of a text from `sealed`, its checksum compared and its parts there.

    Raises
    ------
    TypeError
        If ``text`` is no text.
    ValueError
        If it is not what `sealed` wrote, or of another schema.
    """
    if not isinstance(text, str | bytes):
        raise TypeError(f"Expected text to be a str or bytes; got {shown(text)}.")
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        content = json.loads(plain, object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        content = _refuse("as to_json writes it, which is strict JSON", error)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        _refuse(f"with format {FORMAT!r}", shown(content))
    if type(content.get("schema")) is not int or content["schema"] != SCHEMA:
        _refuse(
            f"of schema {SCHEMA}, which this version of pcr_jax reads", shown(content.get("schema"))
        )
    seal = content.pop(_SEAL, None)
    try:
        right = _digest(content)
    except ValueError:
        right = None  # a number beyond what a float holds
    if right is None or seal != right:
        _refuse(f"with the {_SEAL} of its content", "another: something of it was changed")
    has_parts(content, _CONTENT, "it")
    return content


def has_parts(value: Any, parts: set[str], where: str, more: Set[str] = frozenset()) -> None:
    """Raise unless a part of a content, ``where`` it is, has these parts, some of ``more`` too."""
    if not isinstance(value, dict) or set(value) - more != parts:
        came = sorted(value) if isinstance(value, dict) else shown(value)
        _refuse(f"with {sorted(parts)} in {where}", came)


@cache
def _version(name: str) -> str:
    return version(name)


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {name: _version(name) for name in ("pcr-jax", "jax", "numpyro")}


def of_key(key: Array) -> dict[str, Any]:
    """A random key as JSON."""
    data = np.asarray(jax.random.key_data(key)).tolist()
    return {"impl": str(jax.random.key_impl(key)), "data": data}


def as_key(value: Any) -> Array:
    """The random key of `of_key`."""
    has_parts(value, {"impl", "data"}, "key")
    impl, data = value["impl"], value["data"]
    good = isinstance(data, list) and all(type(n) is int and 0 <= n < 2**32 for n in data)
    if not good or not isinstance(impl, str):
        _refuse("with a random key", shown(value))
    try:
        return jax.random.wrap_key_data(jnp.array(data, jnp.uint32), impl=impl)
    except (TypeError, ValueError) as error:
        return _refuse("with a random key that JAX knows", error)


def of_turn(turn: Turn, names: tuple) -> dict[str, Any]:
    """A turn as JSON: for each person what was asked and said; null where nothing was asked."""

    def row(values, i):
        known = values is not None and not np.isnan(values[i]).all()
        return _entries(values[i]) if known else None

    questions = turn.questions
    people: list[dict | None] = []
    for i, text in enumerate(turn.texts):
        if text is None:
            people.append(None)
            continue
        asked = {
            "node": described(names[questions.node[i]]),
            "shift": float(questions.shift[i]),
            "individual": bool(questions.individual[i]),
            "text": text,
        }
        if questions.outcome[i] >= 0:
            asked["outcome"] = described(names[questions.outcome[i]])
        said = {"answer": row(turn.answer, i), "half_width": row(turn.half_width, i)}
        people.append({**asked, **said})
    return {"told": turn.answer is not None, "people": people}


def _is_number(value: Any) -> bool:
    """Whether it is one that JAX's precision holds."""
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    return type(value) in (int, float) and abs(value) <= largest


def _row(value: Any, num_nodes: int, where: str) -> np.ndarray | None:
    """Numbers, NaN for null."""
    if value is None:
        return None
    good = isinstance(value, list) and all(v is None or _is_number(v) for v in value)
    if not good or len(value) != num_nodes:
        _refuse(f"with {num_nodes} numbers, or null, in {where}", shown(value))
    return np.array([math.nan if v is None else v for v in value], float)


def as_turn(turn: dict[str, Any], names: tuple, num_users: int, where: str) -> Turn:
    """The turn of `of_turn`; ``where`` it is, for messages."""
    people, told = turn["people"], turn["told"]
    if not isinstance(people, list) or len(people) != num_users:
        _refuse(f"with a list of {num_users} people in {where}", shown(people))
    position = {json.dumps(described(name)): j for j, name in enumerate(names)}
    node: Any = np.full(num_users, -1)
    outcome: Any = np.full(num_users, -1)
    shift: Any = np.zeros(num_users)
    individual: Any = np.zeros(num_users, bool)
    answer = np.full((num_users, len(names)), np.nan)
    half_width, has_width = np.zeros(answer.shape), False
    texts: list[str | None] = []
    for i, person in enumerate(people):
        if person is None:
            texts.append(None)
            continue
        place = f"{where}[{i}]"
        has_parts(person, _PERSON, place, _ONE)
        for part, of in (("node", node), ("outcome", outcome)):
            if part in person and (named := json.dumps(person[part])) not in position:
                _refuse(f"with one of {list(names)} for {part} in {place}", shown(person[part]))
            of[i] = position[named] if part in person else -1
        if not _is_number(person["shift"]):
            _refuse(f"with a number for shift in {place}", shown(person["shift"]))
        if type(person["individual"]) is not bool or not isinstance(person["text"], str):
            _refuse(f"with true or false for individual, and a text, in {place}", shown(person))
        texts.append(person["text"])
        shift[i], individual[i] = person["shift"], person["individual"]
        said = _row(person["answer"], len(names), f"{place}.answer")
        width = _row(person["half_width"], len(names), f"{place}.half_width")
        if not told and (said is not None or width is not None):
            _refuse(f"without an answer in {place}, which was not told", shown(person))
        answer[i] = np.nan if said is None else said
        if width is not None:
            half_width[i], has_width = width, True
    dtype = jnp.result_type(float)
    questions = Questions(node, shift.astype(dtype), individual, outcome)
    if not told:
        return Turn(questions, tuple(texts))
    return Turn(questions, tuple(texts), answer, half_width if has_width else None)
