"""Checks of arguments, made before anything is traced.

`array` turns what users pass into an array; the others ask more of it. Every message names the
argument, what was expected and what came. The values of what JAX is tracing cannot be inspected
and pass; their shapes and types are checked.
"""

import numbers
from collections.abc import Iterable, Mapping
from contextlib import suppress

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

_MEANT = {float: "numbers", int: "integers", bool: "True and False"}
_ALLOWED = {
    float: (np.floating, np.integer),
    int: (np.integer,),
    bool: (np.bool_,),
}
_ELEMENTS = {float: numbers.Real, int: numbers.Integral, bool: bool | np.bool_}


def shown(value) -> str:
    """A short description of a value, for messages."""
    text = repr(value)
    if value is None or isinstance(value, bool | int | float | complex | str):
        return text if len(text) <= 60 else f"{text[:57]}..."
    kind = type(value).__name__
    return f"{text} ({kind})" if len(text) <= 60 and "\n" not in text else f"a {kind}"


def traced(value) -> bool:
    """Whether ``value`` is, or holds, something that JAX is tracing."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def concrete(value):
    """``value`` as a NumPy array, or None while it is traced."""
    return None if traced(value) else np.asarray(value)


def untraced(function, *values):
    """Raise if ``function`` is called by something that JAX is tracing."""
    if traced(values) or isinstance(jnp.zeros(()), jax.core.Tracer):
        raise TypeError(
            f"Expected {function} to be called outside jax.jit, jax.vmap and jax.grad; got values "
            "that are being traced. It takes all users at once and compiles its own programs, with "
            "work on the host between them."
        )


def _float():
    """The precision that JAX computes in."""
    return jnp.result_type(float)


def _refuse(name, kind, came):
    raise TypeError(f"Expected {name} to be {_MEANT[kind]}; got {came}.")


def _column(value: pd.Series, name, kind) -> np.ndarray:
    """The entries of a Series, NaN where they are missing."""
    if value.dtype == object:
        return entries_of(value.to_numpy(), name, kind)
    is_bool = pd.api.types.is_bool_dtype(value.dtype)
    if kind is float and (is_bool or pd.api.types.is_any_real_numeric_dtype(value.dtype)):
        return value.to_numpy(float, na_value=np.nan)
    if value.hasnans:
        raise ValueError(f"Expected no missing values in {name}; got {int(value.isna().sum())}.")
    if kind is bool and is_bool:
        return value.to_numpy(bool)
    if kind is int and pd.api.types.is_integer_dtype(value.dtype):
        return value.to_numpy(int)
    return _refuse(name, kind, f"{value.dtype}")


def entries_of(value, name, kind) -> np.ndarray:
    """``value`` as a NumPy array of ``kind``."""
    if isinstance(value, pd.DataFrame):
        columns = [
            _column(value.iloc[:, j], f"column {label!r} of {name}", kind)
            for j, label in enumerate(value.columns)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(value), 0), kind)
    if isinstance(value, pd.Series):
        return _column(value, name, kind)
    if isinstance(value, pd.api.extensions.ExtensionArray | pd.Index):
        return _column(pd.Series(value), name, kind)
    if value is None or isinstance(value, str | bytes | Mapping | set):
        _refuse(name, kind, shown(value))
    if hasattr(value, "columns") or hasattr(value, "coords"):
        raise TypeError(
            f"Expected {name} to be a pandas.DataFrame; got {shown(value)}, whose names would be "
            "lost. Call its to_pandas()."
        )
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise ValueError(f"Expected no masked values in {name}; got {int(value.mask.sum())}.")
    try:
        found = np.asarray(value)
    except Exception as error:
        if "inhomogeneous" in str(error):
            raise ValueError(
                f"Expected {name} to be an array of {_MEANT[kind]}; got rows of different lengths."
            ) from None
        _refuse(name, kind, shown(value))
    if found.dtype == object:
        for entry in found.flat:
            if isinstance(entry, bool | np.bool_) != (kind is bool) or not isinstance(
                entry, _ELEMENTS[kind]
            ):
                _refuse(name, kind, shown(entry))
        try:
            return found.astype(kind)
        except OverflowError:
            raise ValueError(
                f"Expected {name} in the range of {jnp.result_type(kind)}; got more."
            ) from None
    if not found.size and kind is not float:
        return found.astype(kind)  # an empty list, of whatever
    if not any(jnp.issubdtype(found.dtype, allowed) for allowed in _ALLOWED[kind]):
        entry = found.flat[0].item() if found.size else found.dtype
        _refuse(name, kind, shown(entry) if found.dtype.kind in "US" else f"{found.dtype}")
    return found


def listed(value, name) -> list:
    """``value`` as a list."""
    if isinstance(value, Iterable) and not isinstance(value, dict):
        with suppress(TypeError):
            return list(value)
    raise TypeError(f"Expected {name} to be a sequence; got {shown(value)}.")


def names(value, name) -> tuple:
    """``value`` as names, which are strings or numbers, no two the same."""
    found = tuple(listed(value, name))
    if isinstance(value, set | frozenset | bytes):
        raise TypeError(f"Expected {name} to be names in an order; got {shown(value)}.")
    if not found:
        raise ValueError(f"Expected names for {name}; got none.")
    for label in found:
        is_name = isinstance(label, str | numbers.Real) and not isinstance(label, bool | np.bool_)
        if not is_name or label != label:
            raise TypeError(f"Expected {name} to be names; got {shown(label)}.")
    if len(set(found)) != len(found):
        raise ValueError(f"Expected distinct names for {name}; got {list(found)}.")
    return found


def unnamed(value, name):
    """Raise if ``value`` has names, which there is nothing here to compare with."""
    labelled = isinstance(value, pd.Series) and not _plain(value.index)
    if labelled or names_of(value) is not None:
        raise TypeError(
            f"Expected {name} without names, in the order of graph.nodes; got a "
            f"{type(value).__name__} with names. Put it into that order and pass its to_numpy()."
        )


def same_names(came, names, name):
    """Raise unless ``came`` are ``names``, in whatever order."""
    came, names = list(came), list(names)
    twice = sorted({str(label) for label in came if came.count(label) > 1})
    missing = [label for label in names if label not in came]
    unknown = [label for label in came if label not in names]
    if twice or missing or unknown:
        wrong = {"missing": missing, "unknown": unknown, "repeated": twice}
        said = ", ".join(f"{what} {labels}" for what, labels in wrong.items() if labels)
        raise ValueError(f"Expected {name} to have the names {names}; got {said}.")


def _plain(labels) -> bool:
    """Whether labels are those that pandas gives to what has none."""
    return isinstance(labels, pd.RangeIndex) and labels.start == 0 and labels.step == 1


def names_of(value):
    """The labels of the columns of a table; None if it has none."""
    labelled = isinstance(value, pd.DataFrame) and not _plain(value.columns)
    return tuple(value.columns) if labelled else None


def rows_of(value):
    """The labels of the rows of a table; None if it has none."""
    labelled = isinstance(value, pd.DataFrame) and not _plain(value.index)
    return value.index if labelled else None


def table(x, names, order) -> pd.DataFrame:
    """``x`` (n, d), of the features ``names``, as a table in another order."""
    return pd.DataFrame(x, columns=list(names))[order]


def _in_order(value, name, names, rows):
    """A table or a Series with its columns in the order of ``names``; its rows are compared."""
    if names is not None and isinstance(value, Mapping):
        value = pd.Series(value, dtype=None if value else float)
    if not isinstance(value, pd.DataFrame | pd.Series):
        return value
    is_table = isinstance(value, pd.DataFrame)
    if names is not None:
        labels = value.columns if is_table else value.index
        if not (_plain(labels) and set(labels) != set(names)):
            same_names(labels, names, name)
            value = value[list(names)] if is_table else value.loc[list(names)]
    if rows is not None and (is_table or names is None) and not _plain(value.index):
        if not value.index.is_unique or set(value.index) != set(rows) or not rows.is_unique:
            if not value.index.equals(rows):
                raise ValueError(f"Expected the index of {name} to be that of x; got another.")
        else:
            value = value.loc[rows]
    return value


def _fits(shape, shapes, name):
    def matches(wanted):
        return len(wanted) == len(shape) and all(
            isinstance(size, str) or size == came for size, came in zip(wanted, shape, strict=True)
        )

    def written(wanted):
        return f"({', '.join(map(str, wanted))}{',' if len(wanted) == 1 else ''})"

    if shapes and not any(map(matches, shapes)):
        wanted = " or ".join(map(written, dict.fromkeys(shapes)))
        raise ValueError(f"Expected {name} of shape {wanted}; got {tuple(shape)}.")


def _entries(value, name, shapes, kind, names=None, rows=None):
    """The entries in NumPy, in JAX's precision."""
    entries = entries_of(_in_order(value, name, names, rows), name, kind)
    _fits(entries.shape, shapes, name)
    if kind is not bool:
        dtype = jnp.result_type(kind)
        if kind is float and not np.issubdtype(entries.dtype, np.floating):
            entries = entries.astype(float)
        largest = (np.finfo if kind is float else np.iinfo)(dtype).max
        if entries.dtype != dtype:
            beyond = ~np.isinf(entries) & (np.abs(entries) > largest)
            if beyond.any():
                raise ValueError(
                    f"Expected {name} in the range of {dtype}, up to {largest:.2g}; got "
                    f"{entries[beyond][0]:g}. Use larger units, or JAX's x64 mode."
                )
            entries = entries.astype(dtype)
    return entries


def _checked(value, name, shapes=(), kind=float, names=None, rows=None):
    """The array, and its entries in NumPy (None while traced); see `array`."""
    if traced(value):
        found = jnp.asarray(value)
        if not any(jnp.issubdtype(found.dtype, allowed) for allowed in _ALLOWED[kind]):
            _refuse(name, kind, f"{found.dtype}")
        _fits(found.shape, shapes, name)
        return found.astype(_float()) if kind is float else found, None
    entries = _entries(value, name, shapes, kind, names, rows)
    same = isinstance(value, jax.Array) and value.dtype == entries.dtype
    if same or not entries.ndim:  # a number is left to JAX, whose backend it need not start
        return value if same else entries[()], entries
    return jnp.asarray(entries), entries


def array(value, name, *shapes, kind=float, names=None, rows=None):
    """``value`` as an array in JAX's precision.

    Parameters
    ----------
    value
        An array, a number, nested lists, a DataFrame or a Series, or traced.
    name : str
        Of the argument.
    *shapes : tuple
        One of which it has to have, any if none is given; a str is a size that may be any.
    kind : {float, int, bool}
        What the entries are: booleans are no numbers, but a table may have columns of them.
    names : sequence of str, optional
        Of the last axis: a DataFrame's columns, a Series' index or a dictionary's keys are put
        into this order.
    rows : pandas.Index, optional
        Of the first axis, for DataFrames, and Series without ``names``: put into this order.

    Raises
    ------
    TypeError
        If the entries are of another kind.
    ValueError
        If the shape, the names or the rows are others, or a number is out of the range of JAX's
        precision.
    """
    return _checked(value, name, shapes, kind, names, rows)[0]


def _where(entries, bad, value, names) -> str:
    """The columns of bad entries, where columns have names."""
    if not isinstance(value, pd.DataFrame) or bad.ndim != 2:
        return ""
    labels = [*(value.columns if names is None else names)]
    return f", in column {', '.join(repr(labels[j]) for j in np.flatnonzero(bad.any(0)))}"


def _all_finite(entries, value, name, names=None):
    """Raise unless all entries are."""
    if not (good := np.isfinite(entries)).all():
        where = _where(entries, ~good, value, names)
        raise ValueError(
            f"Expected finite values for {name}; got {int((~good).sum())} NaN or infinite{where}."
        )


def finite(value, name, *shapes, names=None, rows=None):
    """The array; raise unless every entry is a finite number."""
    found, entries = _checked(value, name, shapes, float, names, rows)
    if entries is not None:
        _all_finite(entries, value, name, names)
    return found


def on_host(value, name, *shapes):
    """`finite`, as NumPy's array, for which JAX's backend need not start; traced ones pass."""
    if traced(value):
        return finite(value, name, *shapes)
    entries = _entries(value, name, shapes, float)
    _all_finite(entries, value, name)
    return entries


def reported(value, name, *shapes):
    """The array; raise unless every entry is finite, or NaN where nothing is known."""
    unnamed(value, name)
    found, entries = _checked(value, name, shapes)
    if entries is not None and np.isinf(entries).any():
        raise ValueError(f"Expected {name} to be finite, or NaN where unknown; got infinity.")
    return found


def positive(value, name, *shapes, names=None, rows=None, or_zero=False):
    """The array; raise unless every entry is finite and > 0 (or 0), in JAX's precision too."""
    found, entries = _checked(value, name, shapes, float, names, rows)
    if entries is not None:
        least = np.finfo(_float()).tiny
        in_range = (entries >= least) | (or_zero & (entries == 0))
        if not np.all(np.isfinite(entries) & in_range):
            bound, other = (">= 0", "0, or ") if or_zero else ("> 0", "")
            raise ValueError(
                f"Expected {name} {bound} ({other}at least {least:.2g}, the smallest {_float()}); "
                f"got {value}."
            )
    return found


def probability(value, name, *shapes):
    """The array; raise unless every entry lies in [0, 1]."""
    found, entries = _checked(value, name, shapes)
    if entries is not None and not np.all((entries >= 0) & (entries <= 1)):
        raise ValueError(f"Expected {name} in [0, 1]; got {value}.")
    return found


def features(x, num_nodes, name="x", ndim=None, *, names=None, rows=None):
    """The array; raise unless it is finite with trailing dimension ``num_nodes`` (``ndim`` axes).

    ``names`` and ``rows`` are as in `array`.
    """
    shape = np.shape(x) if hasattr(x, "shape") else array(x, name, names=names).shape
    if not shape or shape[-1] != num_nodes:
        if names is not None and isinstance(x, pd.DataFrame):
            _in_order(x, name, names, None)  # says which
        raise ValueError(
            f"Expected trailing dimensions matching ({num_nodes},) for {name}; got shape {shape}."
        )
    if ndim is not None and len(shape) != ndim:
        axes = "(num_users, num_nodes)" if ndim == 2 else "(num_nodes,)"
        raise ValueError(f"Expected {name} of shape {axes}; got shape {shape}.")
    return finite(x, name, names=names, rows=rows)


def count(value, name, minimum=1):
    """Raise unless ``value`` is an integer >= ``minimum`` that JAX can count to."""
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_count or not minimum <= value < 2**31:
        most = "" if is_count and value < minimum else " and < 2**31"
        raise ValueError(f"Expected an integer {name} >= {minimum}{most}; got {shown(value)}.")


def choice(value, options, name):
    """Raise unless ``value`` is one of ``options``."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"Expected {name} to be one of {sorted(options)}; got {shown(value)}.")


def instance(value, kind, name, remedy=""):
    """Raise unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        wanted = getattr(kind, "__name__", kind)
        raise TypeError(f"Expected {name} to be a {wanted}; got {shown(value)}.{remedy}")


def capable(value, contract, name, such_as):
    """Raise unless ``value`` has what a Protocol, the ``contract``, asks for."""
    asked = {*contract.__annotations__, *(a for a in vars(contract) if not a.startswith("_"))}
    if isinstance(value, type) or not all(hasattr(value, a) for a in asked):
        raise TypeError(
            f"Expected {name} to be a {contract.__name__}, such as {such_as}; got {shown(value)}."
        )


def key(value, name="key"):
    """Raise unless ``value`` is one of JAX's random keys."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if isinstance(value, jax.Array) and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if shape == ():
            return
        raise ValueError(f"Expected one {name}; got {shape} of them. See jax.random.split.")
    if not hasattr(value, "dtype") or dtype != np.uint32 or len(shape) != 1:
        raise TypeError(
            f"Expected {name} to be a random key, as from jax.random.key(0); got {shown(value)}."
        )


def function(value, name, signature):
    """Raise unless ``value`` is callable."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"Expected {name} to be callable, {signature}; got {shown(value)}.")


def number(value, name):
    """Raise unless ``value`` is one real number; traced ones pass."""
    if isinstance(value, jax.core.Tracer):
        return
    try:
        found = entries_of(value, name, float)
    except (TypeError, ValueError):
        found = None
    if found is None or found.shape != ():
        raise TypeError(f"Expected {name} to be one number; got {shown(value)}.")


def between_0_and_1(value, name):
    """Raise unless ``value`` is one number strictly between, in JAX's precision too."""
    number(value, name)
    found = None if traced(value) else _float().type(value)
    if found is not None and not np.finfo(found.dtype).tiny <= found < 1:
        raise ValueError(f"Expected {name} in (0, 1); got {value}.")


def walkers(num_walkers, num_coefficients):
    """Raise unless an ensemble has at least two walkers for each coefficient."""
    if num_walkers < 2 * num_coefficients:
        raise ValueError(
            f"Expected num_walkers >= 2 * num_coefficients = {2 * num_coefficients}; "
            f"got {num_walkers}."
        )
