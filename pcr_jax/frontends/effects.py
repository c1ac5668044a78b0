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


def amount(feature: Feature, number: float, scale: float) -> str:
    """A difference in a feature's units, to two digits of its scale."""
    if feature.kind == "levels":
        return f"{plain(number, 1)} level{'s' * (abs(round(number, 1)) != 1)}"
    places = 1 - int(np.floor(np.log10(scale)))
    unit = getattr(feature, "unit", None)
    return plain(as_written(number), places) + (f" {unit}" if unit else "")


def _would(feature: Feature, band: np.ndarray, scale: float, unsure: bool = False) -> str:
    """By what something would change: the middle, and the range."""
    low, middle, high = band
    ends = sorted((low, high), key=abs) if low * high >= 0 else [low, high]
    if low * high < 0:
        said = f"change by about {_signed(feature, middle, scale)}"
        ends_said = f"{_signed(feature, low, scale)} to {_signed(feature, high, scale)}"
    else:
        said = f"{'rise' if middle >= 0 else 'fall'} by about {amount(feature, abs(middle), scale)}"
        ends_said = " to ".join(amount(feature, abs(end), scale) for end in ends)
    if amount(feature, middle, scale).split(" ")[0] == "0" and low * high >= 0:
        said = "hardly change"
    return f"{said} ({ends_said})"


def _signed(feature: Feature, number: float, scale: float) -> str:
    text = amount(feature, number, scale)
    return text if text.startswith("-") or number == 0 else f"+{text}"


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
            f"{features[c].name(graph.nodes[c])} to {_would(features[c], band, scale)}. For people "
            f"like you: to {_would(features[c], wide, scale)}."
        )
        found.append(
            Learnt(
                graph.nodes[p],
                graph.nodes[c],
                change,
                *(float(band[k]) for k in (1, 0, 2)),
                *(float(wide[k]) for k in (1, 0, 2)),
                1 - float(mine.var()) / before if before > 0 else 0.0,
                sentence,
            )
        )
    return tuple(found)
