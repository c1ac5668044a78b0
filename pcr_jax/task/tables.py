"""Rows of a table to an SCM's numbers and back, and what a model says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.features import Feature
from pcr_jax.scores import on_host


def checked(rows: Any, columns: Sequence[Any], name: str, dtypes: Any = None) -> pd.DataFrame:
    """These columns of a table, one row of it, or a dictionary, in this order.

    Parameters
    ----------
    rows : DataFrame, Series or Mapping
    columns : sequence
    name : str
        Of the argument.
    dtypes : Series, optional
        What entries without a type of their own are, by column.

    Raises
    ------
    TypeError
        If ``rows`` is none of these.
    ValueError
        If a column lacks or is there twice, or there is no row.
    """
    if isinstance(rows, pd.Series):
        rows = rows.to_frame().T
    elif isinstance(rows, Mapping):
        rows = pd.DataFrame([rows])
    _checks.instance(rows, pd.DataFrame, name)
    labels = list(rows.columns)
    twice = [column for column in columns if labels.count(column) > 1]
    missing = [column for column in columns if column not in labels]
    for what, found in (("repeated", twice), ("missing", missing)):
        if found:
            raise ValueError(
                f"Expected {name} to have each of the columns {list(columns)} once; got {what} "
                f"{found}."
            )
    if not len(rows):
        raise ValueError(f"Expected at least one row in {name}; got none.")
    rows = rows[list(columns)]
    return rows if dtypes is None else rows.assign(**_typed(rows, dtypes))


def _typed(rows: pd.DataFrame, dtypes: Any) -> dict[Any, pd.Series]:
    """The columns that have to be of another type, as a single row's or a category's."""
    found = {}
    for column, dtype in dtypes.items():
        if column not in rows or rows[column].dtype == dtype:
            continue
        categories = isinstance(dtype, pd.CategoricalDtype)
        if categories or rows[column].dtype == object:
            values = rows[column].astype(object)
            unknown = values.notna() & ~values.isin(dtype.categories) if categories else None
            if unknown is not None and unknown.any():
                row = rows.index[np.flatnonzero(unknown)[0]]
                raise ValueError(
                    f"Expected column {column!r} to be one of {dtype.categories.tolist()}; got "
                    f"{values[unknown].iloc[0]!r} in row {row!r}."
                )
            found[column] = _as(values, dtype, column)
    return found


def _as(values: pd.Series, dtype: Any, column: Any) -> pd.Series:
    try:
        return values.astype(dtype)
    except (TypeError, ValueError):
        raise TypeError(
            f"Expected column {column!r} to be of type {dtype}, as in data; got "
            f"{_checks.shown(values.iloc[0])} in row {values.index[0]!r}."
        ) from None


def encoded(rows: pd.DataFrame, features: Mapping[Any, Feature]) -> np.ndarray:
    """The numbers (n, d) of the features' columns, in JAX's precision."""
    codes = [feature.encode(rows[column], column) for column, feature in features.items()]
    return np.stack(codes, 1).astype(jnp.result_type(float))


def decoded(
    codes: np.ndarray,
    features: Mapping[Any, Feature],
    rows: pd.DataFrame,
    own: np.ndarray | None,
) -> pd.DataFrame:
    """Rows with other numbers (n, d) in the features' columns.

    Parameters
    ----------
    codes : ndarray
    features : Mapping
    rows : DataFrame
        Of n rows, or one.
    own : ndarray, optional
        The numbers of these rows: where they are the same, the entry is that of the row.
    """
    if len(rows) != len(codes):
        rows = rows.iloc[np.zeros(len(codes), int)]
    rows = rows.reset_index(drop=True)
    columns: dict[Any, Any] = {column: rows[column] for column in rows}
    for j, (column, feature) in enumerate(features.items()):
        same = np.zeros(len(codes), bool) if own is None else codes[:, j] == own[:, j]
        if same.all():
            continue
        new = feature.decode(codes[:, j], rows[column].dtype)
        if feature.kind == "real":  # all else is what it was to the last digit
            new = new.where(~same, rows[column].to_numpy(float))
        columns[column] = new
    return pd.DataFrame(columns)


class Decoded:
    """A model of rows as a model of their numbers, all else being as in ``rows``.

    Parameters
    ----------
    model : object
        With ``predict_proba`` of a table.
    features : Mapping
        Feature by column, in the order of the numbers.
    rows : DataFrame
        As many as are asked for, or one.
    columns : sequence
        Of the model, in its order.
    exact : bool
        Whether entries that are as in ``rows`` are taken from there.
    """

    def __init__(self, model, features, rows, columns, exact: bool = True):
        self.model, self.features, self.rows, self.columns = model, features, rows, columns
        self.own = encoded(rows, features) if exact else None
        if getattr(model, "classes_", None) is not None:
            self.classes_ = model.classes_

    def predict_proba(self, x: np.ndarray) -> Any:
        """As the model's."""
        return self.model.predict_proba(
            decoded(x, self.features, self.rows, self.own)[self.columns]
        )


@pytree(static=("places", "nodes"))
class Bound:
    """A JAX score of all of its features as one of some, the others being as they are.

    Attributes
    ----------
    score : callable
    others : ndarray
        Shape (k,): the numbers of all.
    places, nodes : tuple of int
        Which of them are given, and where: the places in ``others`` and in what is given.
    """

    score: Any
    others: Any
    places: tuple[int, ...]
    nodes: tuple[int, ...]

    def __call__(self, x):
        """The logit of features (d,)."""
        others = jnp.asarray(self.others)
        return self.score(others.at[np.array(self.places)].set(x[np.array(self.nodes)]))


@jax.jit
def _logits(score, x):
    return jax.vmap(score)(x)


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (n, d) differ, the first of each kind, and for every row which of these it is."""
    bits = np.ascontiguousarray(rows).view(f"u{rows.itemsize}").astype(np.uint64)
    odd = np.random.default_rng(0).integers(1, 2**63, rows.shape[1], np.uint64) * np.uint64(2) + 1
    mixed = (bits * odd).sum(1, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * odd[0]
    places, _ = pd.factorize(mixed)
    first = np.zeros(places.max(initial=-1) + 1, int)
    first[places[::-1]] = np.arange(len(rows))[::-1]
    if (rows[first][places] != rows).any():  # two kinds of one mixture, or NaN
        _, first, places = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, places.reshape(-1)


_ROWS = 256, 4096  # at once: few shapes are compiled


def margins(score: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """A score as a function of many rows in NumPy: (n, d) -> (n,)."""
    if on_host(score):
        return score.host  # type: ignore[attr-defined]

    def of(x: np.ndarray) -> np.ndarray:
        size, parts = _ROWS[len(x) > _ROWS[0]], []
        for start in range(0, len(x), size):
            rows = np.minimum(np.arange(start, start + size), len(x) - 1)
            parts.append(np.asarray(_logits(score, x[rows]))[: len(x) - start])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return of


def is_forbidden(forbidden: Any, rows: pd.DataFrame) -> np.ndarray:
    """Which rows are in a forbidden combination; boolean."""
    if callable(forbidden):
        found = np.asarray(forbidden(rows))
        if found.shape != (len(rows),) or found.dtype != bool:
            raise ValueError(
                f"Expected forbidden to return {len(rows)} times True or False; got "
                f"{found.dtype} of shape {found.shape}."
            )
        return found
    found = np.zeros(len(rows), bool)
    for combination in forbidden:
        members = np.ones(len(rows), bool)
        for column, value in combination.items():
            values = value if isinstance(value, list | tuple | set | frozenset) else [value]
            members &= rows[column].isin(list(values)).to_numpy()
        found |= members
    return found
