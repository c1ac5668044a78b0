"""Frozen dataclasses that are pytrees."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def pytree(static: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass and a pytree; the fields in ``static`` are not leaves.

    Rebuilding from leaves skips ``__post_init__``: checks see what users pass, never tracers or
    the placeholders of JAX's transformations.
    """

    def register(cls):
        cls = dataclass(frozen=True)(cls)
        names = [f.name for f in fields(cls)]
        data = [n for n in names if n not in static]

        def flatten_with_keys(obj):
            keyed = [(jax.tree_util.GetAttrKey(n), getattr(obj, n)) for n in data]
            return keyed, tuple(getattr(obj, n) for n in static)

        def unflatten(aux, leaves):
            obj = object.__new__(cls)
            for name, value in zip((*data, *static), (*leaves, *aux), strict=True):
                object.__setattr__(obj, name, value)
            return obj

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
        return cls

    return register
