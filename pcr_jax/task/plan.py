"""What people are advised, in their table's entries and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pcr_jax.actions import set_name
from pcr_jax.batching import take
from pcr_jax.features import Feature, as_written, counted, plain
from pcr_jax.recourse.mixed import Advice
from pcr_jax.recourse.plan import PlanStatus, checked_levels, share_variance
from pcr_jax.scm import SCM
from pcr_jax.task.report import Report, letter, report

if TYPE_CHECKING:
    from pcr_jax.task.task import Task

_WITHIN = (0.05, 0.95)  # the range of what is expected, as quantiles over the draws
_UNABLE = {
    PlanStatus.already_favourable: "Nothing needs to change: the decision is favourable.",
    PlanStatus.not_found: "Nothing that you can change was found to be enough.",
    PlanStatus.budget: "The search was ended before it found a change that is enough.",
    PlanStatus.no_model: "No advice: the answers did not lead to a causal model.",
}


@dataclass(frozen=True, eq=False)
class TaskPlan:
    """Advice for each person. Made by `Task.recourse`.

    Attributes
    ----------
    task : Task
    rows : DataFrame
        The people.
    advice : tuple
        For each a list of `pcr_jax.recourse.mixed.Advice`, the cheapest first; None for somebody
        without an SCM.
    level : float, optional
    by : object
        What people's SCMs were.
    settings : dict
        Of `Task.recourse`.
    conversation : dict, optional
        The key of the session that ``by`` comes from, and its questions and answers.
    """

    task: Task
    rows: pd.DataFrame
    advice: tuple[list[Advice] | None, ...]
    level: float | None
    by: Any
    settings: dict[str, Any]
    conversation: dict[str, Any] | None = None

    @property
    def first(self) -> list[Advice | None]:
        """Each person's cheapest plan."""
        return [None if plans is None else plans[0] for plans in self.advice]

    def to_frame(self) -> pd.DataFrame:
        """Each person's cheapest plan, indexed as the rows came.

        Returns
        -------
        DataFrame
            ``status`` (see `pcr_jax.PlanStatus`), ``cost``, with a level ``p_valid`` and
            ``p_valid_error``, ``acts_on``; for every feature what it is ``(now)``, is set to
            ``(action)``, None where it is not, and is ``(expected)`` to be; and ``sentence``.
        """
        return pd.DataFrame(
            [self._row(i, advice) for i, advice in enumerate(self.first)], index=self.rows.index
        )

    def alternatives(self) -> pd.DataFrame:
        """All plans, the same columns, indexed by row and ``plan`` (0 is the cheapest)."""
        found, index = [], []
        for i, plans in enumerate(self.advice):
            for rank, advice in enumerate([None] if plans is None else plans):
                found.append(self._row(i, advice))
                index.append((self.rows.index[i], rank))
        names = [self.rows.index.name or "row", "plan"]
        return pd.DataFrame(found, index=pd.MultiIndex.from_tuples(index, names=names))

    def price_of_certainty(self, levels: Sequence[float]) -> pd.DataFrame:
        """What actions cost that work with other probabilities.

        Parameters
        ----------
        levels : sequence of float
            In (0, 1).

        Returns
        -------
        DataFrame
            Indexed by row and ``level``: ``status``, ``cost``, ``p_valid``, ``sentence``.

        Raises
        ------
        ValueError
            If there is no level, or one is out of (0, 1).
        """
        plans = self.task.at_levels(self, checked_levels(levels))
        said = ["status", "cost", "p_valid", "sentence"]
        parts = {plan.level: plan.to_frame()[said] for plan in plans}
        together = pd.concat(parts, names=["level", self.rows.index.name or "row"]).swaplevel()
        return together.iloc[np.arange(len(together)).reshape(len(parts), -1).T.ravel()]

    def only(self, row: int) -> TaskPlan:
        """That of the person at one position of the rows."""
        by = self.by
        if hasattr(by, "scms") and len(self.rows) > 1:
            by = by.scms(None if self.level is None else self.settings["draws"])
        if isinstance(by, SCM) and by.batch_shape:
            by = take(by, slice(row, row + 1))
        return replace(self, rows=self.rows.iloc[[row]], advice=self.advice[row : row + 1], by=by)

    def letter(self, row: Any = None) -> str:
        """Half a page of plain text for one person.

        Parameters
        ----------
        row : optional
            The person's label in the rows' index; may lack if there is one person.
        """
        return letter(self, self._position(row))

    def report(self, row: Any = None) -> Report:
        """One page about one person, in HTML, and the same in strict JSON.

        What causes what, what was asked and answered and what that taught (of advice that comes
        from a session), plans with their probabilities, what certainty costs, versions and keys.

        Parameters
        ----------
        row : optional
            See `letter`.

        Raises
        ------
        ModuleNotFoundError
            If jinja2 is not installed.
        """
        return report(self, self._position(row))

    def _position(self, row: Any) -> int:
        index = self.rows.index
        if row is None and len(index) == 1:
            return 0
        places = [] if row is None else np.flatnonzero(index == row).tolist()
        if len(places) != 1:
            raise ValueError(
                f"Expected row to be one of {index[:10].tolist()}, there once; got {row!r}."
            )
        return int(places[0])

    def __repr__(self):
        counts = pd.Series([_status(advice).name for advice in self.first]).value_counts()
        said = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"TaskPlan({len(self.rows)} people: {said})"

    @cached_property
    def _numbers(self) -> np.ndarray:
        """What the people are now, (people, d)."""
        return self.task.encode(self.rows)

    def _row(self, i: int, advice: Advice | None) -> dict[str, Any]:
        features, now = self.task.features, self._numbers[i]
        columns: dict[str, Any] = {
            "status": _status(advice).name,
            "cost": np.inf if advice is None else advice.cost,
        }
        if self.level is not None:
            columns["p_valid"] = np.nan if advice is None else advice.p_valid
            columns["p_valid_error"] = np.nan if advice is None else _error(advice)
        acted = np.zeros(len(features), bool) if advice is None else advice.acted
        columns["acts_on"] = set_name(acted.tolist(), list(features))
        for j, (column, feature) in enumerate(features.items()):
            columns[f"{column} (now)"] = self.rows[column].iloc[i]
            is_set = advice is not None and acted[j]
            columns[f"{column} (action)"] = _entry(feature, advice.value[j]) if is_set else None  # type: ignore[union-attr]
            middle = now[j] if advice is None else _middle(feature, advice.after[:, j])[0]
            columns[f"{column} (expected)"] = _entry(feature, middle)
        columns["sentence"] = self.phrase(i, advice)
        return columns

    def phrase(self, i: int, advice: Advice | None) -> str:
        """All that one person is told, in a sentence."""
        status = _status(advice)
        if advice is None or not advice.acted.any():
            return _UNABLE[status]
        said = "; ".join([" and ".join(self.steps(i, advice)), *self.consequences(i, advice)])
        less = " This is not as likely to be enough as was asked for."
        return f"{said[0].upper()}{said[1:]}.{less * (status == PlanStatus.not_likely)}"

    def steps(self, row: int, advice: Advice) -> list[str]:
        """What to do, a phrase for each feature that is acted on."""
        now = self._numbers[row]
        return [
            feature.change(float(now[j]), float(advice.value[j]), column)
            for j, (column, feature) in enumerate(self.task.features.items())
            if advice.acted[j]
        ]

    def consequences(self, row: int, advice: Advice) -> list[str]:
        """What to expect of what reacts, a phrase for each feature."""
        now, phrases = self._numbers[row], []
        for j, (column, feature) in enumerate(self.task.features.items()):
            reached = advice.after[:, j]
            if advice.acted[j] or (reached == now[j]).all():
                continue
            middle, low, high = (
                _shown(feature, value, float(self.task.scale[j]))
                for value in _middle(feature, reached)
            )
            if len(reached) == 1 or low == high:
                if middle != _shown(feature, now[j], float(self.task.scale[j])):
                    phrases.append(f"expect your {feature.name(column)} to become {middle}")
            else:
                phrases.append(
                    f"expect your {feature.name(column)} to become about {middle} ({low} to {high})"
                    if feature.kind != "nominal"
                    else f"expect your {feature.name(column)} to become {middle}, most likely"
                )
        return phrases


def _status(advice: Advice | None) -> PlanStatus:
    return PlanStatus.no_model if advice is None else advice.status


def _error(advice: Advice) -> float:
    """Standard error of `p_valid`, as `pcr_jax.Plan.p_valid_error`."""
    return float(np.sqrt(share_variance(advice.p_valid, len(advice.after))))


def _entry(feature: Feature, code: float) -> Any:
    return feature.decode(np.array([code])).iloc[0]


def _middle(feature: Feature, codes: np.ndarray) -> tuple[float, float, float]:
    """What is most to be expected of draws, and the range of most of them."""
    if feature.kind == "nominal":
        values, counts = np.unique(codes, return_counts=True)
        return (float(values[counts.argmax()]), float(values[0]), float(values[-1]))
    shares = (0.5, *_WITHIN)
    found = np.quantile(codes, shares, method="nearest")
    return (float(found[0]), float(found[1]), float(found[2]))


def _shown(feature: Feature, code: float, scale: float) -> str:
    """A consequence in words, to three digits of the scale."""
    if feature.kind != "real":
        return feature.shown(float(code))
    places = 2 - int(np.floor(np.log10(scale)))
    unit = getattr(feature, "unit", None)
    return counted(plain(as_written(code), places), unit)
