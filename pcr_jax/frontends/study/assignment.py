"""Who is in which arm, and with which random key: functions of the seed and the position alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def _number(*parts: object) -> int:
    """256 bits that follow from these."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest(), "big")


def arm_of(seed: int, position: int, arms: Sequence[str], block: int) -> str:
    """The arm of the person at a position: arms are evenly spread over every block, in some order.

    Parameters
    ----------
    seed : int
    position : int
        From 0.
    arms : sequence of str
        Their order does not matter.
    block : int
        A multiple of their number.

    Raises
    ------
    ValueError
        If it is none, or the position is negative.

    Examples
    --------
    >>> [arm_of(7, position, ["a", "b"], 4) for position in range(8)]
    ['a', 'b', 'b', 'a', 'b', 'b', 'a', 'a']
    """
    arms = sorted(arms)
    if not arms or block < 1 or block % len(arms):
        raise ValueError(f"Expected block to be a multiple of {len(arms)} arms; got {block}.")
    if position < 0:
        raise ValueError(f"Expected position to be 0 or more; got {position}.")
    which, place = divmod(position, block)
    order = sorted(range(block), key=lambda slot: _number("block", seed, which, slot))
    return arms[order[place] % len(arms)]


def key_of(seed: int, position: int) -> list[int]:
    """The data of the person's random key, see `jax.random.wrap_key_data`."""
    found = _number("key", seed, position)
    return [found & 0xFFFFFFFF, (found >> 32) & 0xFFFFFFFF]


def order_of(seed: int, number: int, position: int) -> int:
    """Which of a number of rows the person at a position has: each once, before any comes again."""
    time, place = divmod(position, number)
    order = sorted(range(number), key=lambda row: _number("rows", seed, time, row))
    return order[place]
