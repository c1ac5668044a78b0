"""The table that is fitted to, checked: numbers, with levels counted from 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pcr_jax import _checks

KINDS = ("real", "integer", "levels", "nominal")
_LEAST_ROWS = 20


def kinds_of(features: Mapping[str, Any] | None, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Each node's kind."""
    if features is None:
        return ("real",) * len(nodes)
    _checks.instance(features, Mapping, "features")
    unknown = [name for name in features if name not in nodes]
    if unknown:
        raise ValueError(f"Expected features of {list(nodes)}; got {unknown}.")
    kinds: list[Any] = []
    for node in nodes:
        kind = getattr(features[node], "kind", None) if node in features else "real"
        _checks.choice(kind, KINDS, f"the kind of {node!r}")
        kinds.append(kind)
    return tuple(kinds)


def rows_of(
    data: Any, nodes: tuple[str, ...], kinds: tuple[str, ...], imputer: Any
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Rows (n, d), and how many levels each node has; 0 of a number."""
    if not isinstance(data, pd.DataFrame):
        _checks.reported(data, "data")
        data = np.asarray(data, np.float64)
        if data.ndim != 2 or data.shape[1] != len(nodes):
            raise ValueError(f"Expected data of shape (n, {len(nodes)}); got {data.shape}.")
        data = pd.DataFrame(data, columns=list(nodes))
    repeated = data.columns[data.columns.duplicated()]
    lacking = [node for node in nodes if node not in data.columns]
    if lacking or any(name in nodes for name in repeated):
        said = f"no {lacking}" if lacking else f"{sorted(set(repeated))} twice"
        raise ValueError(f"Expected data with the columns {list(nodes)}, each once; got {said}.")
    if len(data) < _LEAST_ROWS:
        raise ValueError(f"Expected data of at least {_LEAST_ROWS} rows; got {len(data)}.")
    columns = {node: _numbers(data[node], node) for node in nodes}
    rows = np.column_stack([columns[node] for node in nodes])
    if imputer is not None:
        if not hasattr(imputer, "fit_transform"):
            raise TypeError(f"Expected imputer with fit_transform; got {_checks.shown(imputer)}.")
        rows = np.asarray(imputer.fit_transform(rows), np.float64)
        if rows.shape != (len(data), len(nodes)):
            raise ValueError(
                f"Expected imputer.fit_transform to give shape {(len(data), len(nodes))}; got "
                f"{rows.shape}."
            )
    with np.errstate(over="ignore"):
        finite = np.isfinite(rows.astype(np.float32))
    lost = dict(zip(nodes, (~finite).sum(0).tolist(), strict=True))
    lost = {node: count for node, count in lost.items() if count}
    if lost:
        said = ", ".join(f"{count} of {len(rows)} in {node!r}" for node, count in lost.items())
        raise ValueError(
            f"Expected no missing or infinite values in data; got {said}. Drop these rows, or pass "
            "imputer=, such as sklearn.impute.SimpleImputer(strategy='most_frequent')."
        )
    levels = tuple(
        0 if kind in KINDS[:2] else _num_levels(column, node)
        for node, kind, column in zip(nodes, kinds, rows.T, strict=True)
    )
    return rows, levels


def _numbers(column: pd.Series, node: str) -> np.ndarray:
    """A column's values, categories as their positions; NaN where missing."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy(np.float64)
        return np.where(codes < 0, np.nan, codes)
    kinds = pd.api.types
    if not kinds.is_numeric_dtype(column.dtype) or kinds.is_complex_dtype(column.dtype):
        raise TypeError(
            f"Expected numbers, or pandas' categorical, in column {node!r} of data; got "
            f"{column.dtype}."
        )
    return column.to_numpy(np.float64, na_value=np.nan)


def _num_levels(column: np.ndarray, node: str) -> int:
    """How many levels there are, of 0, 1, ...; each is seen."""
    seen = np.unique(column)
    if len(seen) < 2 or not np.array_equal(seen, np.arange(len(seen))):
        raise ValueError(
            f"Expected levels 0, 1, ... in column {node!r} of data, two at least and each seen; "
            f"got {seen[:10].tolist()}."
        )
    return len(seen)
