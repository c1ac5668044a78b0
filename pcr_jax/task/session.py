"""A conversation about a task, with one person, in the words of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pcr_jax.features import as_written, decimals, without_ends
from pcr_jax.history import Questions
from pcr_jax.session import Session
from pcr_jax.task.people import Settable, settable

if TYPE_CHECKING:
    from pcr_jax.task.plan import TaskPlan
    from pcr_jax.task.task import Task


class TaskSession(Session):
    """A `pcr_jax.Session` whose questions, answers and advice are those of a `Task`.

    Questions are about features that can be acted on, and about what they can be set to.

    Attributes
    ----------
    task : Task
    row : DataFrame
        The person.
    """

    task: Task
    row: pd.DataFrame

    def tell(self, answer: Any, half_width: Any = None) -> None:
        """The person's answer to the question that `ask` returned last.

        Parameters
        ----------
        answer : dict, Series or array
            Entries by column, such as ``{"savings": 900, "job": "full time"}``: what is not
            reported lacks. Or an array (1, d) as in `pcr_jax.Session.tell`.
        half_width : array, optional
        """
        if isinstance(answer, Mapping | pd.Series):
            answer = self._numbers_of(dict(answer))
        super().tell(answer, half_width)

    def recommend(self, *, level: float | None = None, **settings) -> TaskPlan:  # type: ignore[override]
        """What the person is advised, as things stand: see `Task.recourse`."""
        settings = {"draws": self.draws, **settings}
        return self.task.recourse(self.row, self, level=level, **settings)

    def conversation(self) -> dict[str, Any]:
        """The key, and the questions so far as they were put, with the answers' entries."""
        questions = []
        for turn in self._state.told:
            answer = {
                column: feature.decode(turn.answer[0, [j]], self.task.dtypes[column]).iloc[0]
                for j, (column, feature) in enumerate(self.task.features.items())
                if turn.answer is not None and not np.isnan(turn.answer[0, j])
            }
            questions.append({"question": turn.texts[0], "answer": answer})
        return {"key": self.key, "questions": questions}

    def _numbers_of(self, answer: dict) -> np.ndarray:
        found = np.full((1, len(self.task.features)), np.nan)
        for j, (column, feature) in enumerate(self.task.features.items()):
            if column in answer:
                entry = pd.Series([answer.pop(column)], index=["answer"])
                found[0, j] = feature.encode(entry, column)[0]
        if answer:
            raise ValueError(
                f"Expected answer about {list(self.task.features)}; got {list(answer)}."
            )
        return found

    def _checked(self, questions: Any) -> Any:
        questions = super()._checked(questions)
        x, node = np.asarray(self.problem.x), np.array(questions.node)
        shift = np.array(questions.shift)
        for i in np.flatnonzero(node >= 0):
            own = int(node[i]), float(x[i, node[i]]), float(shift[i])
            shift[i] = self._askable(*own, settable(self.task, x[i]))
            node[i] = node[i] if shift[i] else -1  # less than what is written
        return replace(questions, node=node, shift=shift)

    def _askable(self, node: int, now: float, shift: float, can: Settable) -> float:
        """The nearest shift that leads to what the feature can be set to."""
        if node in can.values:
            shifts = as_written(can.values[node] - now)
            there = shifts[np.sign(shifts) == np.sign(shift)]
            shifts = there if there.size else shifts
            return float(shifts[np.abs(shifts - shift).argmin()])
        if node in can.ranges:
            unit = 10.0 ** -float(self._decimals()[node])
            low, high = ((end - now) / unit for end in can.ranges[node])
            low, high = np.ceil(low) * unit, np.floor(high) * unit
            return float(np.clip(shift, low, high) or np.clip(-shift, low, high))
        raise ValueError(
            "Expected design to ask about features that can be acted on; got "
            f"{self.problem.names[node]!r}."
        )

    def _decimals(self) -> np.ndarray:
        found = super()._decimals()
        for j, feature in enumerate(self.task.features.values()):
            step = getattr(feature, "step", None) or feature.grid[2]
            found[j] = max(found[j], decimals(step)) if step else found[j]
        return found

    def _worded(self, questions: Questions) -> tuple[str | None, ...]:
        features, graph = self.task.features, self.surrogate.graph
        names = [feature.name(column) for column, feature in features.items()]
        texts: list[str | None] = []
        asked = questions.node, questions.shift, questions.individual, questions.outcomes(graph)
        for node, shift, individual, nodes, now in zip(
            *asked, np.asarray(self.problem.x), strict=True
        ):
            if node < 0:
                texts.append(None)
                continue
            column = graph.nodes[node]
            begin, end = float(now[node]), float(as_written(now[node] + shift))
            effects = [names[j] for j in np.flatnonzero(nodes)]
            together = " and ".join([", ".join(effects[:-1]), effects[-1]][len(effects) < 2 :])
            change = features[column].change(begin, end, column)
            if individual:
                texts.append(f"Suppose you {change}. What would your {together} become?")
            else:
                act = without_ends(change).replace("your ", "their ", 1)
                texts.append(
                    f"Suppose people like you {act}. What would their {together} become, on "
                    f"average?{self._averages(np.flatnonzero(nodes))}"
                )
        return tuple(texts)

    def average(self, column: Any) -> float | None:
        """What people's feature is on average, in the numbers of questions; None if unknown.

        What is answered of people on average is held against it.
        """
        centre = getattr(self.surrogate, "centre", None)
        if centre is None:
            return None
        j = self.surrogate.graph.nodes.index(column)
        return round(float(np.asarray(centre)[j]), int(self._decimals()[j]))

    def _averages(self, nodes: np.ndarray) -> str:
        """A sentence of what they are now; none where that is not known."""
        of_each = []
        for column in (self.surrogate.graph.nodes[j] for j in nodes):
            value, feature = self.average(column), self.task.features[column]
            if value is None:
                return ""
            of_each.append(f"{feature.name(column)} {feature.shown(value)}")
        return f" Now, on average: {', '.join(of_each)}."
