"""One participant's conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """An arm's settings."""

    design: str = "decision"
    curved: bool = False
    individual: bool = True
    level: float = 0.9
    max_questions: int = 6
    plans: int = 3
    attention: tuple[int, ...] = ()
    retest: tuple[int, ...] = ()
