"""A letter of half a page, and a report of one page with strict JSON beside it."""

from __future__ import annotations

import json
import math
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from pcr_jax._extras import extra
from pcr_jax.inference import taught
from pcr_jax.recourse.plan import PlanStatus
from pcr_jax.session_json import versions

if TYPE_CHECKING:
    from pcr_jax.recourse.mixed import Advice
    from pcr_jax.task.plan import TaskPlan
    from pcr_jax.task.task import Task

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Probabilities that the report has the price of."""
_WIDTH, _HEIGHT = 150, 50  # of a node's place in the drawing


class Report(NamedTuple):
    """One person's report.

    Attributes
    ----------
    html : str
        One page, which needs no other file.
    json : str
        The same, in strict JSON.
    """

    html: str
    json: str


def letter(plan: TaskPlan, row: int) -> str:
    """See `TaskPlan.letter`; ``row`` is a position."""
    plans = plan.advice[row]
    lines = [f"Dear {plan.rows.index[row]},", ""]
    if plans is None or not plans[0].acted.any():
        return "\n".join([*lines, *_wrapped(plan.phrase(row, None if plans is None else plans[0]))])
    lines += _wrapped(
        "you asked what you can do so that the decision about you becomes favourable. This is what "
        "we found."
    )
    for rank, advice in enumerate(plans):
        lines += ["", "You can do this:" if not rank else "Or, instead:"]
        lines += [f"  - {_sentence(step)}" for step in plan.steps(row, advice)]
        expected = [_sentence(phrase) for phrase in plan.consequences(row, advice)]
        lines += ["", *_wrapped(" ".join(expected))] if expected else []
        lines += _wrapped(_worth(plan, advice))
    lines += [
        "",
        *_wrapped(
            "All else stays as it is now, and the way of deciding too: if these change, the advice "
            "may no longer hold."
        ),
    ]
    return "\n".join(lines)


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 78)


def in_cases(share: float) -> str:
    """A probability that was found by draws, as people are told it: never more than it is."""
    if share >= 1:
        return "in more than 99 of 100 cases"
    return f"in {math.floor(100 * share)} of 100 cases"


def _worth(plan: TaskPlan, advice: Advice) -> str:
    """How sure it is that it is enough."""
    if plan.level is None:
        return "By what is believed of you, this is enough; how sure it is was not worked out."
    less = advice.status == PlanStatus.not_likely
    wanted = f", less than the {100 * plan.level:g} % that were asked for" if less else ""
    return f"By what is known of you, this is enough {in_cases(advice.p_valid)}{wanted}."


def report(plan: TaskPlan, row: int) -> Report:
    """See `TaskPlan.report`; ``row`` is a position."""
    with extra("report"):
        import jinja2

    content = _content(plan, row)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pcr_jax.task", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    plans = plan.advice[row]
    drawn = drawing(plan.task, None if plans is None else plans[0].acted)
    html = environment.get_template("report.html").render(content, drawing=drawn)
    text = json.dumps(content, allow_nan=False, indent=1, ensure_ascii=False)
    return Report(html, text)


def _strict(value: Any) -> Any:
    """As strict JSON has it: entries of tables and arrays as plain ones, no NaN."""
    if isinstance(value, dict):
        return {str(name): _strict(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def _content(plan: TaskPlan, row: int) -> dict[str, Any]:
    """All that the report says."""
    task, plans = plan.task, plan.advice[row]
    alone = plan.only(row)
    table = alone.alternatives()
    kept = ["status", "cost", *["p_valid", "p_valid_error"] * (plan.level is not None)]
    stated = {"p_valid": None, "p_valid_error": None}
    advised = []
    for advice, (_, found) in zip(
        [None] if plans is None else plans, table.iterrows(), strict=True
    ):
        acted = [] if advice is None else np.flatnonzero(advice.acted).tolist()
        entries = {task.graph.nodes[j]: found[f"{task.graph.nodes[j]} (action)"] for j in acted}
        own = {"sentence": found.sentence, "set_to": entries}
        advised.append({**stated, **found[kept].to_dict(), **own})
    price = []
    if plan.level is not None and plans is not None and plans[0].acted.any():
        levels = sorted({*LEVELS, plan.level})
        found = alone.price_of_certainty(levels)
        price = [
            {"level": at, **entry}
            for at, entry in zip(levels, found.to_dict("records"), strict=True)
        ]
    learnt: dict[str, float] = {}
    if plan.conversation is not None:
        learnt = taught(plan.by).iloc[0].to_dict()
    check = task.check(plan.rows.iloc[[row]]).iloc[0].to_dict()
    least = 0.5 if task.threshold is None else task.threshold
    wanted = "" if task.favourable is None else f" {task.favourable!r}"
    now = f" It is {check['probability']:.2f} now." if "probability" in check else ""
    seeds = {"draws": plan.settings["key"]}
    if plan.conversation is not None:
        seeds["session"] = plan.conversation["key"]
    return _strict(
        {
            "title": f"Advice for {plan.rows.index[row]}",
            "decision": f"The decision{wanted} is made from a probability of {least:g} on.{now}",
            "level": plan.level,
            "person": plan.rows.iloc[row].to_dict(),
            "graph": {"nodes": task.graph.nodes, "edges": task.graph.edge_names},
            "plans": advised,
            "questions": [] if plan.conversation is None else plan.conversation["questions"],
            "taught": learnt,
            "price": price,
            "versions": versions(),
            "seeds": {
                name: np.asarray(jax.random.key_data(k)).tolist() for name, k in seeds.items()
            },
        }
    )


def drawing(task: Task, acted: np.ndarray | None = None) -> dict[str, Any]:
    """Where nodes and edges are: causes to the left of what they cause.

    Nodes of no edge are left out, unless they are ``acted`` on (d,).
    """
    graph, features = task.graph, task.features
    acted = np.zeros(graph.num_nodes, bool) if acted is None else acted
    depth: list[int] = []
    for parents in graph.parents:
        depth.append(1 + max((depth[p] for p in parents), default=-1))
    of_edges = {end for edge in graph.edges for end in edge}
    shown = [j for j in range(graph.num_nodes) if j in of_edges]
    shown += [j for j in range(graph.num_nodes) if j not in of_edges and acted[j]]
    places, rows = {}, dict.fromkeys(depth, 0)
    for j in shown:
        places[j] = (_WIDTH * depth[j] + _WIDTH // 2, _HEIGHT * rows[depth[j]] + _HEIGHT // 2)
        rows[depth[j]] += 1
    names = [feature.name(column) for column, feature in features.items()]
    half = {j: min(_WIDTH // 2 - 14, 8 + 4 * len(names[j])) for j in shown}
    nodes = [
        {
            "x": x,
            "y": y,
            "half": half[j],
            "name": names[j],
            "acted": bool(acted[j]),
            "column": graph.nodes[j],
        }
        for j, (x, y) in places.items()
    ]
    lines = [
        {
            "ends": (places[p][0] + half[p], places[p][1], places[c][0] - half[c], places[c][1]),
            "cause": graph.nodes[p],
            "effect": graph.nodes[c],
        }
        for p, c in graph.edges
    ]
    width, height = _WIDTH * (1 + max(depth)), _HEIGHT * max(1, *rows.values())
    return {"nodes": nodes, "lines": lines, "width": width, "height": height}
