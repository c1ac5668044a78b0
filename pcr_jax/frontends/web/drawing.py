"""What was understood, as places and lengths on the page."""

from __future__ import annotations

import textwrap
from typing import Any

_WIDTH, _HEIGHT, _HALF, _TALL = 158, 92, 70, 21  # a node's place, half its width and height
_LETTERS = 17  # of a line in a node
_BAND, _EDGE = 300, 10  # the width of a band's picture, and of its margins


def picture(drawing: dict[str, Any], effects: list[Any]) -> dict[str, Any]:
    """The graph from the top down, so that it fits on a narrow page.

    Parameters
    ----------
    drawing : dict
        As `pcr_jax.task.report` draws it, from the left to the right: ``nodes`` and ``lines``,
        which go from a node's right side to another's left side.
    effects : list
        With ``cause``, ``effect`` and ``middle``, which say where a line goes up or down.
    """
    nodes = drawing["nodes"]
    ranks = {x: rank for rank, x in enumerate(sorted({node["x"] for node in nodes}))}
    rows: list[list[int]] = [[] for _ in ranks]
    for j in sorted(range(len(nodes)), key=lambda j: nodes[j]["y"]):
        rows[ranks[nodes[j]["x"]]].append(j)
    most = max(map(len, rows), default=1)
    width, places = max(2, most) * _WIDTH, {}
    for rank, row in enumerate(rows):
        # Rows of one are put aside in turn: lines between others would run through them.
        shift = (-1) ** rank * _WIDTH / 4 if len(row) == 1 and most < 3 else 0
        left = (width - len(row) * _WIDTH) / 2 + shift
        for at, j in enumerate(row):
            places[j] = (left + (at + 0.5) * _WIDTH, (rank + 0.5) * _HEIGHT)
    begin = {(node["x"] + node["half"], node["y"]): j for j, node in enumerate(nodes)}
    end = {(node["x"] - node["half"], node["y"]): j for j, node in enumerate(nodes)}
    signs = {(effect.cause, effect.effect): effect.middle for effect in effects}
    lines = []
    for x1, y1, x2, y2 in drawing["lines"]:
        cause, effect = begin[x1, y1], end[x2, y2]
        middle = signs.get((nodes[cause]["name"], nodes[effect]["name"]))
        kind = "none" if not middle else "up" if middle > 0 else "down"
        lines.append({"path": _path(places[cause], places[effect], width), "kind": kind})
    return {
        "width": width,
        "height": _HEIGHT * len(rows),
        "half": _HALF,
        "tall": _TALL,
        "lines": lines,
        "nodes": [
            {"x": places[j][0], "y": places[j][1], "lines": _split(node["name"]), **_whole(node)}
            for j, node in enumerate(nodes)
        ],
    }


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    return {"name": node["name"], "acted": node["acted"]}


def _split(name: str) -> list[str]:
    """A name in two lines at most."""
    return textwrap.wrap(name, _LETTERS, max_lines=2, placeholder="\N{HORIZONTAL ELLIPSIS}")


def _path(cause: tuple[float, float], effect: tuple[float, float], width: float) -> str:
    """A curve from the foot of one node to the head of another, aside of what is between."""
    (x1, y1), (x2, y2) = (cause[0], cause[1] + _TALL), (effect[0], effect[1] - _TALL - 7)
    far = (effect[1] - cause[1]) / _HEIGHT
    bend = 0.0 if far <= 1 else (30 + 18 * far) * (1 if x1 + x2 >= width else -1)
    middle = (y2 - y1) / 2
    return (
        f"M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1 + middle:.0f} "
        f"{x2 + bend:.0f} {y2 - middle:.0f} {x2:.0f} {y2:.0f}"
    )


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
