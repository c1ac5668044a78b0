"""Batching that leaves a user's result untouched by who else is in the batch.

Matrix products are not bitwise equal across batch sizes, so users are computed in chunks of one
fixed, padded size; and a user's random key comes from the user's own index. Several devices share
the users between them.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec


def take(tree, users):
    """The rows ``users`` (an index, indices or a slice) of every leaf."""
    if isinstance(users, np.ndarray) and users.dtype != bool:
        # What lies in the device's memory by one program, not by several for every leaf.
        leaves, structure = jax.tree.flatten(tree)
        device = [leaf for leaf in leaves if isinstance(leaf, Array)]
        taken = iter(_taken(device, users))
        found = [next(taken) if isinstance(leaf, Array) else leaf[users] for leaf in leaves]
        return jax.tree.unflatten(structure, found)
    return jax.tree.map(lambda leaf: leaf[users], tree)


@jax.jit
def _taken(leaves: list[Array], users: Array) -> list[Array]:
    return [leaf[users] for leaf in leaves]


def user_keys(key: Array, num_users: int) -> Array:
    """One key per user, a function of ``key`` and the user's index only."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_users))


@jax.jit
def fold_in_each(keys: Array, data: int) -> Array:
    """Users' keys (num_users,) for one of several purposes."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


# One program each, in place of an operation for every leaf.
_padded = jax.jit(take)
_first = jax.jit(lambda tree, number: take(tree, slice(number)), static_argnums=1)

_BYTES = 2**29  # of an accelerator's memory for each unit of `width`
_USERS = 256  # mapped at once, for each unit of `width`
_MAX_WIDTH = 4096


@cache
def width() -> int:
    """How many times as much as on a CPU is computed at once: what the device's memory allows.

    On a CPU, whose caches matter more, 1. The environment variable ``PCR_JAX_WIDTH`` takes
    precedence; it is read once.

    Raises
    ------
    ValueError
        If that variable is not a positive integer, or more than 4096.
    """
    given = os.environ.get("PCR_JAX_WIDTH")
    if given is not None:
        number = int(given[:9]) if given[:9].isdecimal() else 0
        limits = "a positive integer" if number < 1 else f"at most {_MAX_WIDTH}"
        if not 1 <= number <= _MAX_WIDTH or not given.isdecimal():
            raise ValueError(
                f"Expected PCR_JAX_WIDTH to be {limits}; got {given[:20]!r}. Without this "
                "environment variable the width follows from the device's memory."
            )
        return number
    statistics = jax.local_devices()[0].memory_stats() or {}
    return max(1, statistics.get("bytes_limit", 0) // _BYTES)


def _rows(num_users: int, size: int) -> np.ndarray:
    """The users' rows, and the first one's in place of those that lack to ``size``; (size,)."""
    rows = np.arange(size)
    return np.where(rows < num_users, rows, 0)


def map_users(function: Callable, *per_user, chunk: int = _USERS):
    """``jax.vmap(function)(*per_user)``, computed in padded chunks of ``chunk`` users a `width`."""
    chunk = chunk * width()
    num_users = len(jax.tree.leaves(per_user)[0])
    num_chunks = -(-num_users // chunk)
    rows = _rows(num_users, num_chunks * chunk).reshape(num_chunks, chunk)

    def one_chunk(rows):
        # Between the barriers nothing depends on the number of users, rounding included.
        args = jax.lax.optimization_barrier(take(per_user, rows))
        return jax.lax.optimization_barrier(jax.vmap(function)(*args))

    chunks = jax.lax.map(one_chunk, rows)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_users], chunks)


def by_bucket(function: Callable, *per_user):
    """``function(real, *per_user)`` for one of few numbers of users, so that few are compiled.

    Users are padded by repeating the first, to the next of 8, 10, 12, 14, 16, 20, 24, 28, 32, ...;
    ``real``, shape (padded users,), says who is not padding. The results of those are returned.
    """
    num_users = len(jax.tree.leaves(per_user)[0])
    step = 2 ** max(0, (num_users - 1).bit_length() - 3)
    size = max(8, step * -(-num_users // step))
    if size > num_users:
        per_user = _padded(per_user, _rows(num_users, size))
    found = function(jnp.arange(size) < num_users, *per_user)
    return _first(found, num_users) if size > num_users else found


def chunks_of(users: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The users in chunks, and each chunk padded to ``chunk`` users by repeating its first.

    For loops on the host, which can stop, report and drop users in between.
    """
    for start in range(0, len(users), chunk):
        some = users[start : start + chunk]
        yield some, some[_rows(len(some), chunk)]


def over_devices(function: Callable, shared, *per_user):
    """``function(shared, *per_user)``, each of JAX's devices computing an equal part of the users.

    To be traced inside `jax.jit`. ``function`` gets all of ``shared`` and some users' rows of
    ``per_user``, and returns rows of the same users; what it computes of a user must not depend
    on the others. Users are padded, by repeating the first, to a multiple of the devices.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return function(shared, *per_user)
    num_users = len(jax.tree.leaves(per_user)[0])
    rows = _rows(num_users, -(-num_users // len(devices)) * len(devices))
    mesh = Mesh(np.array(devices), ("users",))
    users = PartitionSpec("users")
    run = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(), *[users] * len(per_user)),
        out_specs=users,
        check_vma=False,
    )
    return take(run(shared, *take(per_user, rows)), slice(num_users))
