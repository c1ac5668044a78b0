"""What a person types about a feature, as numbers: read strictly, never guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pcr_jax.features import Feature, as_written, decimals, plain

MAX_CHARACTERS = 200

_LISTED = 12  # names, at most
_UNKNOWN = {
    *("", "?", "don't know", "dont know", "do not know", "i don't know", "i dont know"),
    *("i do not know", "not sure", "no idea"),
}
_SAME = {
    *("no effect", "same", "the same", "no change", "unchanged", "stays the same"),
    *("as now", "nothing"),
}
_MORE = {"more": 1.0, "higher": 1.0, "less": -1.0, "fewer": -1.0, "lower": -1.0}
# Ways to write a unit; of others there are the unit itself and its singular.
_UNITS = (
    ("euros", "euro", "eur", "€"),
    ("dollars", "dollar", "usd", "$"),
    ("pounds", "pound", "gbp", "£"),
    ("percent", "per cent", "%"),
)
_PLAIN = str.maketrans(
    "\u2010\u2011\u2212\u2012\u2014\u2015\u2019",  # hyphens, minus, dashes, apostrophe
    "---\u2013\u2013\u2013'",
)
_DIGITS = "|".join(rf"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+" for mark in (",", " ", "'"))
_NUMBER = rf"(?:(?:{_DIGITS}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_APART = re.compile(r" ?[-\u2013] ?| to ")


class Answer(NamedTuple):
    """An answer about one feature, in the numbers of an SCM.

    Attributes
    ----------
    value : float or None
        None for "I don't know"; of a range, its middle.
    half_width : float
        Half of the range's length; 0 of one number.
    """

    value: float | None
    half_width: float = 0.0


class AnswerError(ValueError):
    """What was typed cannot be read.

    Parameters
    ----------
    messages : mapping
        By column: a sentence that says what is expected.
    """

    def __init__(self, messages: Mapping[Any, str]):
        super().__init__(" ".join(messages.values()))
        self.messages = dict(messages)


class _Refused(Exception):
    """With a sentence, which lacks its column yet."""


def read_answer(text: str, feature: Feature, column: Any, now: float | None = None) -> Answer:
    """What was typed about a feature.

    >>> import pcr_jax as pcr
    >>> income = pcr.Real(low=0.0, high=9000.0, unit="euros")
    >>> read_answer("3,500-4,300", income, "income", 2400.0)
    Answer(value=3900.0, half_width=400.0)
    >>> read_answer("200 less", income, "income", 2400.0)
    Answer(value=2200.0, half_width=0.0)

    Parameters
    ----------
    text : str
        A number, a range, more or less than now, a name, ``"no effect"`` or ``"?"``.
    feature : Feature
    column : object
        The feature's, by which messages are kept.
    now : float, optional
        The feature's present number; without one there is nothing that could be the same, or more.

    Returns
    -------
    Answer
        Finite and in the feature's range.

    Raises
    ------
    AnswerError
        If the text is no answer, or could be read in two ways.
    """
    try:
        return _read(text, feature, now)
    except _Refused as refused:
        raise AnswerError({column: f"{refused}"}) from None


def read_entry(text: str, feature: Feature, column: Any) -> float:
    """What was typed for a feature's present value: one number or name.

    Raises
    ------
    AnswerError
        If it is none.
    """
    answer = read_answer(text, feature, column)
    if answer.value is None or answer.half_width:
        raise AnswerError({column: expected(feature)})
    return answer.value


def is_name(text: str, feature: Feature) -> bool:
    """Whether a text is one of the feature's names, to the letter."""
    return _named(text, feature) is not None


def expected(feature: Feature, now: float | None = None) -> str:
    """A sentence that says what can be typed."""
    names = _shown_names(feature)
    if now is None:
        return f"Please type {_listed(names)}." if names else f"Please type {_one(feature)}."
    unknown = "? if you do not know"
    if not names:
        number, both = _examples(feature, now)
        return f"Please type a number such as {number}, a range such as {both}, or {unknown}."
    if feature.kind == "levels" and len(names) > 2:
        both = f"{names[0]} to {names[1]}"
        return f"Please type {_listed(names)}, a range such as {both}, or {unknown}."
    return f"Please type {_listed(names)}, or {unknown}."


def _read(text: str, feature: Feature, now: float | None) -> Answer:
    if len(text) > MAX_CHARACTERS:
        raise _Refused(f"Please type at most {MAX_CHARACTERS} characters.")
    named = _named(text, feature)
    if named is not None:
        return Answer(named)
    said = text.strip().casefold()
    if any(unicodedata.category(c).startswith("C") for c in said):
        raise _Refused("Please type letters, digits and signs that can be seen.")
    said = "".join(" " if unicodedata.category(c) == "Zs" else c for c in said)
    said = " ".join(said.translate(_PLAIN).split())
    words = said.rstrip(".!") or said
    if words in _UNKNOWN:
        return Answer(None)
    if words in _SAME:
        return Answer(_present(now))
    return _read_names(said, feature, now) if _names(feature) else _read_numbers(said, feature, now)


def _present(now: float | None) -> float:
    if now is None:
        raise _Refused(
            "Please type it in full: there is no value yet that it could be compared to."
        )
    return float(now)


def _shown_names(feature: Feature) -> list[str]:
    """The names of levels or categories, as they are shown."""
    return [feature.shown(j) for j in range(len(getattr(feature, "names", ())))]


def _named(text: str, feature: Feature) -> float | None:
    """The number of the name that a text is, to the letter."""
    shown = _shown_names(feature)
    if shown.count(text.strip()) == 1:
        return float(shown.index(text.strip()))
    return _names(feature).get(text.strip().casefold())


def _names(feature: Feature) -> dict[str, float]:
    """Number by name in small letters; not of names that differ in capitals only."""
    names = [name.strip().casefold() for name in _shown_names(feature)]
    found = {name: float(j) for j, name in enumerate(names) if names.count(name) == 1}
    if set(getattr(feature, "names", ())) == {False, True} and set(found) == {"no", "yes"}:
        found |= {"false": found["no"], "true": found["yes"]}
    return found


def _listed(names: list[str]) -> str:
    if len(names) > _LISTED:
        return f"one of the {len(names)} names, such as {names[0]} or {names[1]}"
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _read_names(said: str, feature: Feature, now: float | None) -> Answer:
    names = {" ".join(name.translate(_PLAIN).split()): j for name, j in _names(feature).items()}
    for find in (_exactly, _by_its_beginning):
        alone = find(said, names)
        if len(alone) > 1:
            could = [feature.shown(j) for j in sorted(alone)]
            raise _Refused(f"That could be {_listed(could)}. Please type more of it.")
        if alone:
            return Answer(alone.pop())
        ranges = {
            (low, high)
            for one, other in _halves(said)
            for low in find(one, names)
            for high in find(other, names)
        }
        if ranges and feature.kind != "levels":
            raise _Refused(f"Please type one of them: {_listed(_shown_names(feature))}.")
        if len(ranges) == 1:
            return _between(*ranges.pop())
        if ranges:
            raise _Refused("That could be several ranges. Please type the names in full.")
    raise _Refused(expected(feature, now))


def _exactly(said: str, names: dict[str, float]) -> set[float]:
    return {names[said]} if said in names else set()


def _by_its_beginning(said: str, names: dict[str, float]) -> set[float]:
    return {j for name, j in names.items() if said and name.startswith(said)}


def _halves(said: str) -> list[tuple[str, str]]:
    """What a range of names may be between."""
    found = [(said[: at.start()], said[at.end() :]) for at in _APART.finditer(said)]
    for at in re.finditer(" and ", said if said.startswith("between ") else ""):
        found.append((said[len("between ") : at.start()], said[at.end() :]))
    return [(one.strip(), other.strip()) for one, other in found]


def _between(low: float, high: float) -> Answer:
    if low > high:
        raise _Refused("Please put the lower end of the range first.")
    return Answer((low + high) / 2, (high - low) / 2)


def _read_numbers(said: str, feature: Feature, now: float | None) -> Answer:
    unit = _unit_pattern(feature)
    foreign = [c for c in said if c.isnumeric() and not c.isascii()]
    if any(c not in (getattr(feature, "unit", None) or "") for c in foreign):
        raise _Refused("Please use the digits 0 to 9.")
    entry = rf"(?:{unit} ?)?([+-]?) ?(?:{unit} ?)?({_NUMBER})(?: ?{unit})?"
    ways = "|".join(_MORE)
    about = r"(?:(?:about|around|roughly) |~ ?)?"
    alone = re.fullmatch(rf"{about}{entry}(?: ({ways}))?", said)
    if alone:
        sign, digits, way = alone.groups()
        value = _valued(sign, digits, way, feature, now)
        return Answer(_allowed(value, feature, now))
    both = re.fullmatch(rf"(?:from )?{entry}( ?- ?| ?\u2013 ?| to ){entry}(?: ({ways}))?", said)
    both = both or re.fullmatch(rf"between {entry}( and ){entry}(?: ({ways}))?", said)
    if not both:
        raise _Refused(_why_no_number(said, feature, now))
    sign, digits, apart, other_sign, other_digits, way = both.groups()
    if sign == "-" and apart.strip() == "-" and not other_sign:
        raise _Refused('Please write the range with "to", such as -6 to -5.')
    if (sign == "+") != (other_sign == "+"):
        raise _Refused("Please put a + before both numbers of the range, or before none.")
    ends = [
        _valued(sign, digits, way, feature, now),
        _valued(other_sign, other_digits, way, feature, now),
    ]
    low, high = ends[::-1] if _MORE.get(way, 1.0) < 0 else ends
    if low > high:
        example = "" if now is None else f", such as {_examples(feature, now)[1]}"
        raise _Refused(f"Please put the smaller number of the range first{example}.")
    return _between(_allowed(low, feature, now), _allowed(high, feature, now))


def _unit_pattern(feature: Feature) -> str:
    """Of the ways to write a feature's unit; of nothing where it has none."""
    unit = " ".join((getattr(feature, "unit", None) or "").casefold().split())
    ways = {unit, unit.removesuffix("s")}
    for same in _UNITS:
        ways |= set(same) if unit in same else set()
    # A unit that begins with a digit could be taken for a number's end.
    ways = {way for way in ways if way and not way[0].isnumeric() and way[0] not in "+-.,"}
    return (
        f"(?:{'|'.join(map(re.escape, sorted(ways, key=len, reverse=True)))})" if ways else "(?!)"
    )


def _valued(sign: str, digits: str, way: str | None, feature: Feature, now: float | None) -> float:
    """The number that is meant."""
    if way and sign:
        raise _Refused(f'Please type a + or - or the word "{way}", not both.')
    size = _number_of(digits, feature, now)
    if way or sign == "+":
        return _present(now) + _MORE.get(way or "", 1.0) * size
    if sign == "-" and feature.grid[0] >= 0:
        least = plain(as_written(feature.grid[0]))
        less = f' For {digits} less than now, type "{digits} less".' if now is not None else ""
        raise _Refused(f"It cannot be below {least}.{less}")
    return -size if sign == "-" else size


def _number_of(digits: str, feature: Feature, now: float | None) -> float:
    """The number that is written, if only one can be meant."""
    mark = re.fullmatch(r"([1-9][0-9]{0,2})([.,])([0-9]{3})", digits)
    if mark:
        whole, point, rest = mark.groups()
        # Who sees a small number with decimals writes such ones, and others thousands.
        small = now is not None and abs(now) < 1000 and decimals(float(as_written(now))) > 0
        other = float(f"{whole}.{rest}") if small else float(whole + rest)
        if (point == ",") == small and feature.grid[0] <= other <= feature.grid[1]:
            decimal = f"{whole}.{rest.rstrip('0')}" if rest.rstrip("0") else whole
            decimal = f"{decimal}0" if decimal == f"{whole}.{rest}" else decimal
            raise _Refused(f"That could be {decimal} or {whole}{rest}. Please type one of these.")
    return float(re.sub("[, ']", "", digits))


def _why_no_number(said: str, feature: Feature, now: float | None) -> str:
    """What is expected instead."""
    bare = re.sub(_unit_pattern(feature), "", said)
    if (
        re.search("[0-9]", bare)
        and re.search("[.,']", bare)
        and not re.search("[^0-9.,' +-]", bare)
    ):
        return "Please write thousands with a comma and decimals with a point, as in 4,100.5."
    return expected(feature, now)


def _one(feature: Feature) -> str:
    """A number in the feature's range, in words."""
    low, high, whole = feature.grid
    kind = "a whole number" if whole else "a number"
    most = float(np.finfo(jnp.result_type(float)).max)
    least, largest = (plain(as_written(end)) for end in (low, high))
    if low > -most and high < most:
        return f"{kind} from {least} to {largest}"
    if low > -most:
        return f"{kind} of at least {least}"
    return f"{kind} of at most {largest}" if high < most else kind


def _allowed(value: float, feature: Feature, now: float | None) -> float:
    """A number that the feature can have."""
    precision = np.finfo(jnp.result_type(float))
    low, high, whole = feature.grid
    if whole and not value % 1 == 0:
        raise _Refused(f"Please type {_one(feature)}.")
    if abs(value) > (2.0 ** (precision.nmant + 1) if whole else float(precision.max)):
        raise _Refused("That number is too large. Please type a smaller one.")
    if not low <= value <= high:
        raise _Refused(f"Please type {_one(feature)}.")
    return value


def _examples(feature: Feature, now: float) -> tuple[str, str]:
    """A number and a range such as may be typed."""
    low, high, whole = feature.grid
    tenth = 10.0 ** np.floor(np.log10(max(abs(now), 1e-30))) if now else 1.0
    by = max(tenth / 10, getattr(feature, "step", None) or 0.0, whole)
    places = max(0, -int(np.floor(np.log10(by))))
    begin = float(np.clip(round(now - by, places), low, high))
    end = float(np.clip(round(now + by, places), low, high))
    least, number, most = (plain(as_written(value)) for value in (begin, now, end))
    return number, f"{least} to {most}" if begin < 0 else f"{least}-{most}"
