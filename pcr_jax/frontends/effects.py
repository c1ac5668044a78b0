"""Effects of one feature on another, as a person's SCMs have them, in sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax.actions import Action
from pcr_jax.features import Feature, as_written
from pcr_jax.frontends.words import Spread, effect_sentence
from pcr_jax.scm import SCM

_STEP = 0.5  # of a scale: by what features without a step are said to change


class Learnt(NamedTuple):
    """What one feature does to another, directly, of a person and of people like them.

    Attributes
    ----------
    cause, effect : column
    change : str
        Of the cause, such as ``"rises by 100 euros"``.
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
    reached = changes(person.worlds, person.units, x, value, acted)
    usual = changes(people, None if units is None else units[0], x, value, acted)
    found = []
    for row, (p, c) in enumerate(edges):
        mine, theirs = reached[row, :, c], usual[row, :, c]
        own, others, before = Spread.of(mine), Spread.of(theirs), float(theirs.var())
        names, now = (graph.nodes[p], graph.nodes[c]), float(x[p])
        said = features[p].change(now, now + steps[row], names[0]).rpartition(", from ")[0]
        by = said.rpartition(" by ")[2]
        change = f"{'rises' if steps[row] > 0 else 'falls'} by {by}" if said else "changes"
        sentence = effect_sentence(task, *names, now, steps[row], mine, theirs)
        found.append(
            Learnt(
                *names,
                change,
                *own,
                *others,
                taught=1 - float(mine.var()) / before if before > 0 else 0.0,
                sentence=sentence,
            )
        )
    return tuple(found)
