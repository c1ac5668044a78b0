"""What happens to a participant, as it is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

KINDS = (
    *("consented", "profile", "asked", "answered", "back", "ended"),
    *("viewed", "whatif", "planned", "feedback", "withdrawn"),
)


class Event(NamedTuple):
    """Something that happened.

    Attributes
    ----------
    seq : int
        Its number among the participant's events, from 0.
    at : float
        When, in seconds since 1970.
    kind : str
        One of `KINDS`.
    payload : dict
        Strict JSON.
    """

    seq: int
    at: float
    kind: str
    payload: dict[str, Any]
