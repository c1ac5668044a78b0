"""What a person is shown, ready for a page or a terminal."""

from __future__ import annotations

from typing import Any, NamedTuple

from pcr_jax.frontends.effects import Learnt


class Control(NamedTuple):
    """A feature that the person can act on, and what they say of it."""

    column: Any
    label: str
    kind: str
    unit: str | None
    now: float
    now_text: str
    low: float
    high: float
    step: float | None
    names: tuple[str, ...]
    direction: str | None
    locked: bool
    limits: tuple[float, float] | None
    weight: float


class Effect(NamedTuple):
    """A feature that is asked for."""

    column: Any
    label: str
    kind: str
    unit: str | None
    now: float
    now_text: str
    names: tuple[str, ...]


class Question(NamedTuple):
    """What a person is asked; ``taught`` is what their last answer changed, in a sentence."""

    number: int
    kind: str
    text: str
    column: Any
    shift: float
    individual: bool
    effects: tuple[Effect, ...]
    about_left: int
    taught: str | None


class Outcome(NamedTuple):
    """What would follow from an action of the person's own."""

    favourable: bool
    chance: float
    chance_text: str
    dots: int
    consequences: tuple[str, ...]
    cost: float


class PlanView(NamedTuple):
    """One plan as it is shown; ``set_to`` are the numbers of its actions, by column."""

    steps: tuple[str, ...]
    consequences: tuple[str, ...]
    sentence: str
    chance: float | None
    chance_text: str | None
    dots: int
    cost: float | None
    status: str
    set_to: dict[str, float] | None = None


class Price(NamedTuple):
    """What it takes to be so sure."""

    level: float
    cost: float | None
    sentence: str


class Plans(NamedTuple):
    """What a person is recommended; ``payload`` is that of the event."""

    plans: tuple[PlanView, ...]
    price: tuple[Price, ...]
    letter: str
    payload: dict[str, Any]


class Understanding(NamedTuple):
    """What was understood of the person; ``drawing`` as `pcr_jax.task.report.drawing` has it."""

    effects: tuple[Learnt, ...]
    drawing: dict[str, Any]
