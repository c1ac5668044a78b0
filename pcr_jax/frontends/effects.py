"""Effects of one feature on another, as a person's SCMs have them, in sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.actions import Action
from pcr_jax.features import Feature, as_written, plain
from pcr_jax.scm import SCM

_BAND = (0.05, 0.5, 0.95)
_STEP = 0.5  # of a scale: by what features without a step are said to change


class Learnt(NamedTuple):
    """What one feature does to another, directly, of a person and of people like them.

    Attributes
    ----------
    cause, effect : column
    change : str
        By what the cause changes, such as ``"rises by 100 euros"``.
    middle, low, high : float
        By what the effect then does, of this person: the median, and what 90 of 100 draws are in.
    people_middle, people_low, people_high : float
        The same before any answer.
    taught : float
        The share of the variance that the answers took away.
    sentence : str
    """

    cause: Any
    effect: Any
    change: str
    middle: float
    low: float
    high: float
    people_middle: float
    people_low: float
    people_high: float
    taught: float
    sentence: str


@jax.jit
def _reached(worlds: SCM, units: Any, x, value, acted):
    """What follows from actions (m, d) in draws (n,); (m, n, d)."""

    def one(value, acted):
        action = Action(jnp.where(acted, value, 0.0), acted)
        if units is None:
            return jax.vmap(lambda scm: scm.counterfactual(x, action))(worlds)
        return jax.vmap(lambda scm, unit: scm.counterfactual(x, action, unit))(worlds, units)

    return jax.vmap(one)(value, acted)


def changes(worlds: SCM, units: Any, x: np.ndarray, value, acted) -> np.ndarray:
    """By what features change after actions (m, d), in draws (n,) of an SCM; (m, n, d)."""
    found = _reached(worlds, units, x, np.asarray(value, x.dtype), np.asarray(acted, bool))
    return np.asarray(found) - x


def step_of(feature: Feature, now: float, scale: float) -> float:
    """A change that one can imagine, upward unless that leads out of the range."""
    own = getattr(feature, "step", None) or feature.grid[2]
    if own:
        size = own * max(1.0, float(f"{_STEP * scale / own:.0g}"))
        size = own * round(size / own)
    else:
        size = float(f"{_STEP * scale:.1g}")
    return float(as_written(size if now + size <= feature.grid[1] else -size))


def amount(feature: Feature, number: float, scale: float, signed: bool = False) -> str:
    """A difference in a feature's units, to two digits of its scale."""
    places = 1 if feature.kind == "levels" else 1 - int(np.floor(np.log10(scale)))
    text = plain(as_written(number), places)
    unit = "levels" if feature.kind == "levels" else getattr(feature, "unit", None)
    plus = "+" if signed and not text.startswith("-") and text != "0" else ""
    return plus + text + (f" {counted(unit, text)}" if unit else "")


def counted(unit: str, number: str) -> str:
    """A unit as it is written after a number: one month, two months."""
    return unit[:-1] if number.lstrip("+-") == "1" and unit.endswith("s") else unit


def _would(feature: Feature, band: np.ndarray, scale: float) -> str:
    """By what something is expected to change: the middle, and the range."""
    low, middle, high = band
    mixed = low * high < 0
    ends = [low, high] if mixed else sorted(map(abs, (low, high)))
    least, most = (amount(feature, end, scale, signed=mixed) for end in ends)
    said = amount(feature, abs(middle), scale)
    within = "" if least == most == said else f" ({least.partition(' ')[0]} to {most})"
    if said.split(" ")[0] == "0":
        return f"to hardly change{within}"
    return f"to {'rise' if middle > 0 else 'fall'} by about {said}{within}"


def learnt(task: Any, x: np.ndarray, person: Any, people: SCM, units: Any) -> tuple[Learnt, ...]:
    """All effects whose cause can change, in the order of the graph's edges.

    Parameters
    ----------
    task : Task
    x : ndarray
        Shape (d,): the person.
    person : pcr_jax.recourse.mixed.Person
        With draws of the person's SCM.
    people, units
        Draws of the SCMs of people like them, and their units.
    """
    graph, features = task.graph, list(task.features.values())
    edges = [
        (p, c)
        for p, c in graph.edges
        if not features[p].fixed and "nominal" not in (features[p].kind, features[c].kind)
    ]
    if not edges:
        return ()
    value, acted = np.tile(x.astype(float), (len(edges), 1)), np.zeros((len(edges), len(x)), bool)
    steps = []
    for row, (p, c) in enumerate(edges):
        steps.append(step_of(features[p], float(x[p]), float(task.scale[p])))
        value[row, p] += steps[-1]
        acted[row, list(graph.parents[c])] = True
    own = changes(person.worlds, person.units, x, value, acted)
    others = changes(people, None if units is None else units[0], x, value, acted)
    found = []
    for row, (p, c) in enumerate(edges):
        mine, theirs = own[row, :, c], others[row, :, c]
        band, wide = np.quantile(mine, _BAND), np.quantile(theirs, _BAND)
        before = float(theirs.var())
        size, scale = steps[row], float(task.scale[c])
        moved = "rises" if size > 0 else "falls"
        change = f"{moved} by {amount(features[p], abs(size), min(abs(size), task.scale[p]))}"
        sentence = (
            f"If only your {features[p].name(graph.nodes[p])} {change}, we expect your "
            f"{features[c].name(graph.nodes[c])} {_would(features[c], band, scale)}. For people "
            f"like you: {_would(features[c], wide, scale)}."
        )
        found.append(
            Learnt(
                graph.nodes[p],
                graph.nodes[c],
                change,
                float(band[1]),
                float(band[0]),
                float(band[2]),
                float(wide[1]),
                float(wide[0]),
                float(wide[2]),
                1 - float(mine.var()) / before if before > 0 else 0.0,
                sentence,
            )
        )
    return tuple(found)


def taught_sentence(
    task: Any, x: np.ndarray, asked: dict[str, Any], before: SCM, after: SCM
) -> str:
    """What an answer changed, of the effect of which it taught most.

    Parameters
    ----------
    task : Task
    x : ndarray
        Shape (d,): the person.
    asked : dict
        The question, see `Question`: ``column``, ``shift`` and ``effects``.
    before, after : SCM
        Draws of batch shape (n,), of what was believed without and with the answer.
    """
    nodes, features = list(task.graph.nodes), list(task.features.values())
    cause = nodes.index(asked["column"])
    effects = [nodes.index(c) for c in asked["effects"] if task.features[c].kind != "nominal"]
    if not effects:
        return ""
    value, acted = x[None].astype(float), np.zeros((1, len(x)), bool)
    value[0, cause] += asked["shift"]
    acted[0, cause] = True
    old, new = (
        np.quantile(changes(worlds, None, x, value, acted)[0][:, effects], _BAND, axis=0)
        for worlds in (before, after)
    )
    narrowed = ((old[2] - old[0]) - (new[2] - new[0])) / task.scale[effects]
    k = int(np.argmax(narrowed))
    j, scale = effects[k], float(task.scale[effects[k]])
    moved, size = ("rose" if asked["shift"] > 0 else "fell"), abs(asked["shift"])
    by = amount(features[cause], size, min(size, float(task.scale[cause])))
    return (
        f"If your {features[cause].name(nodes[cause])} {moved} by {by}, we now expect your "
        f"{features[j].name(nodes[j])} {_would(features[j], new[:, k], scale)}. Before your "
        f"answer: {_would(features[j], old[:, k], scale)}."
    )
