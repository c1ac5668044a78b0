"""What the columns of a table are: real numbers, integers, levels and categories.

An SCM's nodes are numbers. A real or an integer is its own; levels are 0, 1, 2, ... in their
order; categories are too, in no order: a code that no arithmetic is to be done with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pandas as pd

from pcr_jax import _checks

DIRECTIONS = ("increase", "decrease")
_COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def as_written(values: Any) -> np.ndarray:
    """Numbers in as many digits as JAX's precision holds: 2700.1, not 2700.10009765625."""
    values = np.asarray(values, float)
    digits = 7 if jnp.result_type(float).itemsize == 4 else 15
    size = np.abs(np.where(values == 0, 1.0, values))
    places = digits - 1 - np.floor(np.log10(size)).astype(int)
    finer, coarser = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
    return np.round(values * finer / coarser) / finer * coarser


def plain(value: Any, places: int | None = None) -> str:
    """A number as people write it: thousands apart, no zeros at its end."""
    value = float(value) if places is None else round(float(value), places)
    text = f"{value:,.{max(0, places)}f}" if places is not None else _shortest(value)
    whole, point, part = text.partition(".")
    text = whole + point + part.rstrip("0") if point else whole
    text = text.rstrip(".")
    return "0" if text == "-0" else text


def counted(number: str, unit: str | None) -> str:
    """A number and what it counts: ``"300 euros"``, ``"1 euro"``."""
    if unit is None:
        return number
    single = number.lstrip("+-") == "1" and re.search(r"[^isu]s$", unit)
    return f"{number} {unit[:-1] if single else unit}"


def without_ends(change: str) -> str:
    """What `Feature.change` says, without ", from ... to ..." where it ends in that."""
    return change.rpartition(", from ")[0] or change


def _shortest(value: float) -> str:
    whole, _, part = np.format_float_positional(value, trim="-").partition(".")
    return f"{int(whole):,}.{part}" if int(whole) else f"{whole}.{part}"


def decimals(value: float) -> int:
    """How many decimals a number has."""
    _, _, part = np.format_float_positional(float(value), trim="-").partition(".")
    return len(part)


def _at(values: pd.Series, bad: Any) -> str:
    """The first of the bad entries, and its row."""
    place = int(np.flatnonzero(np.asarray(bad, bool))[0])
    return f"{_checks.shown(values.iloc[place])} in row {values.index[place]!r}"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a column is, and what its people can do about it. See `Real` and the others.

    Parameters
    ----------
    label : str, optional
        What to call it when talking to people; the column's name by default.
    actionable : bool
        Whether people can act on it. What is not may still react to what they do.
    immutable : bool
        Whether it neither can be acted on nor reacts.
    protected : bool
        An immutable attribute by which results are to be compared.
    """

    label: str | None = None
    actionable: bool = True
    immutable: bool = False
    protected: bool = False

    kind: ClassVar[str]
    continuous: ClassVar[bool] = False

    def __post_init__(self):
        _checks.instance(self.label, str | None, "label")
        for name in ("actionable", "immutable", "protected"):
            _checks.instance(getattr(self, name), bool, name)

    @property
    def fixed(self) -> bool:
        """Whether it never changes."""
        return self.immutable or self.protected

    @property
    def acted(self) -> bool:
        """Whether people can act on it."""
        return self.actionable and not self.fixed

    def name(self, column: Any) -> str:
        """What to call it."""
        return str(column) if self.label is None else self.label

    def encode(self, values: pd.Series, column: Any) -> np.ndarray:
        """The numbers (n,) of a column's entries.

        Raises
        ------
        ValueError
            If an entry is missing, or none of this feature; names the column and the row.
        TypeError
            If the column is of another type.
        """
        missing = values.isna()
        if missing.any():
            raise ValueError(
                f"Expected no missing values in column {column!r}; got {int(missing.sum())}, the "
                f"first {_at(values, missing)}. Drop or impute them."
            )
        return self._codes(values, column)

    def _codes(self, values: pd.Series, column: Any) -> np.ndarray:
        raise NotImplementedError

    def decode(self, codes: np.ndarray, dtype: Any = None) -> pd.Series:
        """The entries (n,) of these numbers, of a column's ``dtype`` where that can be."""
        raise NotImplementedError

    def moves(self, now: float, seen: tuple[float, float] | None = None) -> np.ndarray:
        """The numbers that it can be set to, the nearest first; not if there is a continuum.

        ``seen`` are the least and the largest in the data, of which it is where it has no bounds.
        """
        raise NotImplementedError

    def distance(self, then: Any, now: Any) -> np.ndarray:
        """How far numbers are from each other, natural units."""
        return np.abs(np.asarray(then, float) - now)

    @property
    def grid(self) -> tuple[float, float, float]:
        """The least and the largest number that it can have, and what all are multiples of (0)."""
        raise NotImplementedError

    def shown(self, code: float) -> str:
        """A number's entry in words."""
        raise NotImplementedError

    def change(self, now: float, then: float, column: Any) -> str:
        """A change in words, such as ``"raise your income by 300, from 2,400 to 2,700"``."""
        name = self.name(column)
        return f"change your {name} from {self.shown(now)} to {self.shown(then)}"


@dataclass(frozen=True, kw_only=True)
class _Directed(Feature):
    """What has an order."""

    direction: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.direction is not None:
            _checks.choice(self.direction, DIRECTIONS, "direction")

    def _allowed(self, codes: np.ndarray, now: float) -> np.ndarray:
        """Those of the numbers that are in the direction, the nearest first."""
        there = {None: codes != now, "increase": codes > now, "decrease": codes < now}
        codes = codes[there[self.direction]]
        return codes[np.argsort(np.abs(codes - now), kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Real(_Directed):
    """A real number.

    >>> import pcr_jax as pcr
    >>> income = pcr.Real(low=0.0, high=9000.0, step=100.0, unit="euros", direction="increase")
    >>> income.change(2400.0, 2700.0, "income")
    'raise your income by 300 euros, from 2,400 to 2,700'

    Parameters
    ----------
    low, high : float, optional
        The range that it can be set to, and that it stays in when it reacts. By default it can be
        set to what the data have, and react without bounds.
    step : float, optional
        It is changed by multiples of this; by any amount without.
    unit : str, optional
        As people write it after a number: ``"euros"``.
    direction : {"increase", "decrease"}, optional
        In which it can be changed.
    label, actionable, immutable, protected
        See `Feature`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If not ``low < high``, a number is not finite, or ``step`` is not positive.
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    unit: str | None = None

    kind: ClassVar[str] = "real"

    def __post_init__(self):
        super().__post_init__()
        _checks.instance(self.unit, str | None, "unit")
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if value is not None:
                check = _checks.positive if name == "step" else _checks.on_host
                check(value, name, ())
                object.__setattr__(self, name, float(value))
        if None not in (self.low, self.high) and not self.low < self.high:  # type: ignore[operator]
            raise ValueError(f"Expected low < high; got low={self.low}, high={self.high}.")

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """Whether it is changed by any amount."""
        return self.step is None

    def _codes(self, values, column):
        if pd.api.types.is_bool_dtype(values.dtype):
            raise TypeError(
                f"Expected numbers in column {column!r}; got {values.dtype}. See "
                "pcr_jax.Levels([False, True])."
            )
        codes = _checks.entries_of(values, f"column {column!r}", float).astype(float)
        bad = ~np.isfinite(codes) | (np.abs(codes) > np.finfo(jnp.result_type(float)).max)
        if bad.any():
            raise ValueError(
                f"Expected finite numbers in column {column!r}; got {_at(values, bad)}."
            )
        return codes

    def decode(self, codes, dtype=None):
        """See `Feature.decode`."""
        return pd.Series(as_written(codes), dtype=dtype if _is_float(dtype) else float)

    def reach(
        self, now: float, seen: tuple[float, float] | None = None
    ) -> tuple[float, float] | None:
        """The least and the largest number that it can be set to; None if it cannot."""
        least, largest = (now, now) if seen is None else seen
        low = min(least, now) if self.low is None else self.low
        high = max(largest, now) if self.high is None else self.high
        low = now if self.direction == "increase" else low
        high = now if self.direction == "decrease" else high
        return (low, high) if low < high else None

    def moves(self, now, seen=None):
        """See `Feature.moves`."""
        reach = self.reach(now, seen)
        if reach is None or self.step is None:
            return np.zeros(0)
        first, last = ((end - now) / self.step for end in reach)
        steps = np.arange(np.ceil(first - 1e-6), np.floor(last + 1e-6) + 1)
        steps = self._allowed(steps, 0.0)
        return as_written(now + self.step * steps)

    @property
    def grid(self):
        """See `Feature.grid`."""
        most = float(np.finfo(jnp.result_type(float)).max)
        low, high = (-most if self.low is None else self.low), self.high
        return float(low), most if high is None else float(high), 0.0

    def shown(self, code):
        """See `Feature.shown`."""
        return counted(plain(as_written(code)), self.unit)

    def change(self, now, then, column):
        """See `Feature.change`."""
        verb = "raise" if then > now else "lower"
        now, then = float(as_written(now)), float(as_written(then))
        places = max(decimals(then), 0 if self.step is None else decimals(self.step))
        if self.step is not None:
            places = max(places, decimals(now))
        begin, end = round(now, places), round(then, places)
        by = counted(plain(abs(end - begin), places), self.unit)
        name = self.name(column)
        return f"{verb} your {name} by {by}, from {plain(begin, places)} to {plain(end, places)}"


def _is_float(dtype: Any) -> bool:
    return dtype is not None and pd.api.types.is_float_dtype(dtype)


@dataclass(frozen=True, kw_only=True)
class Integer(Real):
    """A whole number, changed by multiples of ``step``.

    Parameters
    ----------
    low, high, step, unit, direction, label, actionable, immutable, protected
        See `Real`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        As of `Real`, or if ``low``, ``high`` or ``step`` is not whole.
    """

    step: float | None = 1

    kind: ClassVar[str] = "integer"

    def __post_init__(self):
        super().__post_init__()
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if (value is None and name == "step") or (value is not None and value % 1):
                raise ValueError(f"Expected {name} to be whole; got {value}.")

    def _codes(self, values, column):
        codes = super()._codes(values, column)
        most = 2 ** (np.finfo(jnp.result_type(float)).nmant + 1)
        bad = (codes % 1 != 0) | (np.abs(codes) > most)
        if bad.any():
            raise ValueError(
                f"Expected whole numbers up to {most:,} in column {column!r}; got "
                f"{_at(values, bad)}."
            )
        return codes

    def decode(self, codes, dtype=None):
        """See `Feature.decode`."""
        return pd.Series(np.round(np.asarray(codes, float)).astype(int)).astype(dtype or int)

    @property
    def grid(self):
        """See `Feature.grid`."""
        low, high, _ = super().grid
        return low, high, 1.0


@dataclass(frozen=True)
class _Named(Feature):
    """What has names; a dataclass field of its own is to come first."""

    def _check_names(self, names: Any) -> tuple:
        found = tuple(_checks.listed(names, "names"))
        if not all(pd.api.types.is_scalar(name) for name in found):
            raise TypeError(f"Expected names to be entries of a column; got {found}.")
        if isinstance(names, str | bytes | set | frozenset) or len(found) < 2:
            raise ValueError(f"Expected two names at least; got {_checks.shown(names)}.")
        if len(set(found)) != len(found):
            raise ValueError(f"Expected distinct names; got {list(found)}.")
        if pd.isna(np.array(found, object)).any():
            raise ValueError(f"Expected names without a missing one; got {list(found)}.")
        return found

    def _codes(self, values, column):
        names = self.names  # type: ignore[attr-defined]
        codes = values.astype(object).map({name: j for j, name in enumerate(names)})
        unknown = codes.isna()
        if unknown.any():
            raise ValueError(
                f"Expected column {column!r} to be one of {list(names)}; got "
                f"{_at(values, unknown)}."
            )
        return codes.to_numpy(float)

    def decode(self, codes, dtype=None):
        """See `Feature.decode`."""
        names = pd.Series(list(self.names), dtype=dtype or object)  # type: ignore[attr-defined]
        places = np.round(np.asarray(codes, float)).astype(int)
        return names.take(places).reset_index(drop=True)

    @property
    def grid(self):
        """See `Feature.grid`."""
        return 0.0, len(self.names) - 1.0, 1.0  # type: ignore[attr-defined]

    def shown(self, code):
        """See `Feature.shown`."""
        name = self.names[round(float(code))]  # type: ignore[attr-defined]
        return {True: "yes", False: "no"}[bool(name)] if isinstance(name, bool) else f"{name}"


@dataclass(frozen=True)
class Levels(_Named, _Directed):
    """One of several levels, in order; ``Levels([False, True])`` for a boolean column.

    Parameters
    ----------
    names : sequence
        The entries of the column, from the lowest level to the highest.
    direction, label, actionable, immutable, protected
        See `Real`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there are fewer than two names, or two are the same.
    """

    names: Sequence[Any]

    kind: ClassVar[str] = "levels"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "names", self._check_names(self.names))

    def moves(self, now, seen=None):
        """See `Feature.moves`."""
        return self._allowed(np.arange(len(self.names), dtype=float), now)

    def change(self, now, then, column):
        """See `Feature.change`."""
        if len(self.names) == 2:
            return super().change(now, then, column)
        verb, by = ("raise" if then > now else "lower"), round(abs(then - now))
        said = _COUNTED[by - 1] if by <= len(_COUNTED) else f"{by}"
        return (
            f"{verb} your {self.name(column)} by {said} level{'s' * (by > 1)}, from "
            f"{self.shown(now)} to {self.shown(then)}"
        )


@dataclass(frozen=True)
class Nominal(_Named):
    """One of several categories, in no order.

    Parameters
    ----------
    names : sequence
        The entries of the column.
    forbidden : sequence of tuple, optional
        Pairs (from, to) of names: changes that nobody can make.
    label, actionable, immutable, protected
        See `Feature`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there are fewer than two names, two are the same, or ``forbidden`` are no pairs of them.
    """

    names: Sequence[Any]
    forbidden: Sequence[tuple[Any, Any]] = ()

    kind: ClassVar[str] = "nominal"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "names", self._check_names(self.names))
        pairs = [
            tuple(_checks.listed(pair, "each pair of forbidden"))
            for pair in _checks.listed(self.forbidden, "forbidden")
        ]
        for pair in pairs:
            known = all(pd.api.types.is_scalar(name) and name in self.names for name in pair)
            if len(pair) != 2 or not known:
                raise ValueError(f"Expected forbidden pairs of {list(self.names)}; got {pair}.")
        object.__setattr__(self, "forbidden", tuple(pairs))

    def moves(self, now, seen=None):
        """See `Feature.moves`."""
        own = self.names[round(now)]
        others = [j for j, name in enumerate(self.names) if (own, name) not in self.forbidden]
        return np.array([j for j in others if j != now], float)

    def distance(self, then, now):
        """1 for a change."""
        return (np.asarray(then, float) != now).astype(float)


def feature_of(values: pd.Series, column: Any) -> Feature:
    """What a column is by its dtype, not to be acted on."""
    dtype = values.dtype
    settings: dict[str, Any] = {"actionable": False}
    if pd.api.types.is_bool_dtype(dtype):
        return Levels((False, True), **settings)
    if pd.api.types.is_integer_dtype(dtype):
        return Integer(**settings)
    if pd.api.types.is_float_dtype(dtype):
        return Real(**settings)
    if isinstance(dtype, pd.CategoricalDtype):
        names = dtype.categories.tolist()
        ordered = bool(dtype.ordered)
    else:
        names, ordered = sorted(values.dropna().unique().tolist(), key=str), False
    if len(names) < 2:
        raise ValueError(f"Expected two categories at least in column {column!r}; got {names}.")
    return Levels(names, **settings) if ordered else Nominal(names, **settings)
