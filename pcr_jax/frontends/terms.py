"""What a participant is asked and promised: an arm of a study."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pcr_jax import _checks
from pcr_jax.elicitation import (
    DecisionDesign,
    Design,
    InformationDesign,
    RandomDesign,
    ThompsonDesign,
)

DESIGNS = ("random", "information", "thompson", "decision")


@dataclass(frozen=True)
class Terms:
    """The settings of a conversation.

    Parameters
    ----------
    design : str
        One of `DESIGNS`: which questions are asked.
    curved : bool
        Whether mechanisms may be curved, see `pcr_jax.Task.fit`.
    individual : bool
        Whether people are asked about themselves, or about people like them on average.
    report : {"all", "one"}
        Whether a question asks for all that follows, or for one number.
    level : float
        The probability that a recommended action is to work with.
    max_questions : int
    plans : int
        Up to so many are recommended.
    attention : tuple of int
        Before these questions, counted from 0, comes one that shows whether questions are read.
    retest : tuple of int
        These questions are asked once more at the end; nothing is inferred from the answers.

    Raises
    ------
    TypeError
        If a setting is of another type.
    ValueError
        If one is out of range.
    """

    design: str = "decision"
    curved: bool = False
    individual: bool = True
    report: str = "all"
    level: float = 0.9
    max_questions: int = 6
    plans: int = 3
    attention: tuple[int, ...] = ()
    retest: tuple[int, ...] = ()

    def __post_init__(self):
        _checks.choice(self.design, DESIGNS, "design")
        _checks.choice(self.report, ("all", "one"), "report")
        for name in ("curved", "individual"):
            _checks.instance(getattr(self, name), bool, name)
        _checks.between_0_and_1(self.level, "level")
        for name in ("max_questions", "plans"):
            _checks.count(getattr(self, name), name)
        for name in ("attention", "retest"):
            numbers = tuple(_checks.listed(getattr(self, name), name))
            if not all(type(n) is int and 0 <= n < self.max_questions for n in numbers):
                raise ValueError(
                    f"Expected {name} to be numbers of questions, from 0 to "
                    f"{self.max_questions - 1}; got {list(numbers)}."
                )
            object.__setattr__(self, name, tuple(sorted(set(numbers))))

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Terms:
        """Those that a dictionary has, such as one of `dataclasses.asdict`.

        Raises
        ------
        TypeError, ValueError
            If there is no such setting, or it is out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise ValueError(f"Expected settings of {known}; got {unknown}.")
        return cls(**settings)

    def asks(self) -> Design:
        """The design."""
        settings: dict[str, Any] = {"individual": self.individual, "report": self.report}
        if self.design == "decision":
            return DecisionDesign(level=self.level, **settings)
        kinds = {
            "random": RandomDesign,
            "information": InformationDesign,
            "thompson": ThompsonDesign,
        }
        return kinds[self.design](**settings)
