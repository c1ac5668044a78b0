"""What was understood, as places and lengths on the page."""

from __future__ import annotations

import textwrap
from typing import Any

_WIDTH, _HEIGHT, _HALF, _TALL = 158, 92, 70, 21  # a node's place, half its width and height
_GAP, _ASIDE = 26, 22  # between the ends of lines, and beside all nodes
_ACROSS = 2  # nodes beside each other
_LETTERS = 15  # of a line in a node
_BAND, _EDGE = 300, 10  # the width of a band's picture, and of its margins


def picture(drawing: dict[str, Any], effects: list[Any]) -> dict[str, Any]:
    """The graph from the top down, so that it fits on a narrow page.

    Parameters
    ----------
    drawing : dict
        As `pcr_jax.task.report.drawing` has it, from the left to the right.
    effects : list
        With ``cause``, ``effect`` and ``middle``, which say where a line goes up or down.
    """
    nodes = drawing["nodes"]
    rows = _rows(nodes)
    width, places = _ACROSS * _WIDTH, {}
    for rank, row in enumerate(rows):
        # Rows of one are put aside in turn: lines between others would run through them.
        shift = (-1) ** rank * _WIDTH / 4 if len(row) == 1 else 0
        left = (width - len(row) * _WIDTH) / 2 + shift
        for at, j in enumerate(row):
            places[j] = (left + (at + 0.5) * _WIDTH, (rank + 0.5) * _HEIGHT)
    of = {node["column"]: j for j, node in enumerate(nodes)}
    edges = [(of[line["cause"]], of[line["effect"]]) for line in drawing["lines"]]
    signs = {
        (of[effect.cause], of[effect.effect]): effect.middle
        * (-1 if effect.change.startswith("falls") else 1)
        for effect in effects
    }
    lines = []
    for cause, effect in edges:
        middle = signs.get((cause, effect))
        kind = "none" if not middle else "up" if middle > 0 else "down"
        # Where several lines leave or reach a node, they do so beside each other.
        left = _beside(places, cause, [e for c, e in edges if c == cause], effect)
        reached = _beside(places, effect, [c for c, e in edges if e == effect], cause)
        (_, y1), (_, y2) = places[cause], places[effect]
        between = [x for x, y in places.values() if y1 < y < y2]
        path = _path((left, y1 + _TALL), (reached, y2 - _TALL - 9), between)
        lines.append({"path": path, "kind": kind})
    return {
        "left": -_ASIDE,
        "width": width + 2 * _ASIDE,
        "height": _HEIGHT * len(rows),
        "half": _HALF,
        "tall": _TALL,
        "lines": lines,
        "nodes": [
            {"x": places[j][0], "y": places[j][1], "lines": _split(node["name"]), **_whole(node)}
            for j, node in enumerate(nodes)
        ],
    }


def _rows(nodes: list[dict[str, Any]]) -> list[list[int]]:
    """Nodes from the causes down, a few beside each other."""
    rows = []
    for x in sorted({node["x"] for node in nodes}):
        rank = [j for j, node in enumerate(nodes) if node["x"] == x]
        rank.sort(key=lambda j: nodes[j]["y"])
        rows += [rank[k : k + _ACROSS] for k in range(0, len(rank), _ACROSS)]
    return rows


def _beside(places: dict[int, tuple[float, float]], own: int, others: list[int], one: int) -> float:
    """Where on a node one of its lines ends: in the order of what is at their other ends."""
    order = sorted(others, key=lambda j: (places[j][0], places[j][1]))
    gap = min(_GAP, (2 * _HALF - 40) / max(1, len(order) - 1))
    return places[own][0] + gap * (order.index(one) - (len(order) - 1) / 2)


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    return {"name": node["name"], "acted": node["acted"]}


def _split(name: str) -> list[str]:
    """A name in two lines at most."""
    return textwrap.wrap(name, _LETTERS, max_lines=2, placeholder="\N{HORIZONTAL ELLIPSIS}")


def _path(begin: tuple[float, float], end: tuple[float, float], between: list[float]) -> str:
    """A curve from the foot of one node to the head of another, aside of what is between."""
    (x1, y1), (x2, y2) = begin, end
    middle, down = (x1 + x2) / 2, (y2 - y1) / 2
    first, second = x1, x2
    if any(abs(x - middle) < _HALF + 30 for x in between):
        sides = min(between) - _HALF - 14, max(between) + _HALF + 14
        side = min(sides, key=lambda x: abs(x - middle))
        # A cubic is at an eighth of its ends and three eighths of its handles in the middle.
        first = second = (side - middle / 4) / 0.75
    handles = f"{first:.0f} {y1 + down:.0f} {second:.0f} {y2 - down:.0f}"
    return f"M{x1:.0f} {y1:.0f} C{handles} {x2:.0f} {y2:.0f}"


def band(effect: Any) -> dict[str, float]:
    """Places of a person's and the people's ranges on one scale that has zero."""
    numbers = (effect.low, effect.high, effect.people_low, effect.people_high, 0.0)
    least, most = min(numbers), max(numbers)
    unit = (_BAND - 2 * _EDGE) / ((most - least) or 1.0)

    def place(value: float) -> float:
        return round(_EDGE + unit * (value - least), 1)

    return {
        "width": _BAND,
        "zero": place(0.0),
        "low": place(effect.low),
        "middle": place(effect.middle),
        "high": place(effect.high),
        "people_low": place(effect.people_low),
        "people_middle": place(effect.people_middle),
        "people_high": place(effect.people_high),
    }
