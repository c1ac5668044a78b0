"""What an answer changed, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pcr_jax.actions import Action
from pcr_jax.features import Feature, as_written, counted, plain, without_ends
from pcr_jax.inference import Posteriors
from pcr_jax.scm import SCM
from pcr_jax.task import Task

_DRAWS = 1000  # at most
WITHIN = (0.05, 0.95)
"""The quantiles over draws that a range of what is expected lies between: it has 90 of 100."""


class Spread(NamedTuple):
    """What is believed of a number: its median, and the range of most draws."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: np.ndarray) -> Spread:
        """Of draws (n,)."""
        return cls(*np.quantile(np.asarray(draws, float), (0.5, *WITHIN)).tolist())

    def __round__(self, places: int) -> Spread:  # type: ignore[override]
        return Spread(*(round(value, places) + 0.0 for value in self))


@jax.jit
def _effects(scms, x, node, shift):
    action = Action.shift_node(node, shift, len(x))
    return jax.vmap(lambda scm: scm.counterfactual(x, action) - x)(scms)


def effects_of(scms: SCM, x: np.ndarray, node: int, shift: float) -> np.ndarray:
    """By how much each feature of a person changes if one does, under draws of their SCM.

    Parameters
    ----------
    scms : SCM
        Of batch shape (draws,).
    x : ndarray
        Shape (d,), natural units: the person's features.
    node : int
        What changes.
    shift : float
        By how much, natural units.

    Returns
    -------
    ndarray
        Shape (draws, d), natural units; not rounded or kept in the features' ranges. NaN of an SCM
        that is not known.
    """
    return np.asarray(_effects(scms, x, node, shift))


def taught_sentence(
    task: Task, x: np.ndarray, asked: Mapping[str, Any], before: Posteriors, after: Posteriors
) -> str:
    """What the answer to a question changed: about the effect of which most else is believed.

    Parameters
    ----------
    task : Task
    x : ndarray
        Shape (d,), natural units: the person's features.
    asked : mapping
        ``column`` and ``shift`` of the question, and ``effects``: the columns that the sentence may
        be about.
    before, after : Posteriors
        Of this person, without the answer and with it.
    """
    columns = list(task.features)
    node, shift = columns.index(asked["column"]), float(asked["shift"])
    old, new = (effects_of(_draws_of(posteriors), x, node, shift) for posteriors in (before, after))
    effect = most_changed(old, new, [columns.index(column) for column in asked["effects"]])
    return effect_sentence(
        *(task, columns[node], columns[effect], float(x[node]), shift),
        *(new[:, effect], old[:, effect]),
    )


def _draws_of(posteriors: Posteriors) -> SCM:
    """Draws of one person's SCM, as the surrogate has them."""
    flat = posteriors.draws[0].reshape(-1, posteriors.draws.shape[-1])
    num = min(_DRAWS, len(flat))
    return _scms(posteriors.surrogate, flat[(np.arange(num) * len(flat)) // num])


@jax.jit
def _scms(surrogate, thetas):
    return jax.vmap(surrogate.scm)(thetas)


def most_changed(before: np.ndarray, after: np.ndarray, nodes: Sequence[int]) -> int:
    """Of which of these nodes other effects are believed than before, by their spreads before.

    Parameters
    ----------
    before, after : ndarray
        Shape (draws, d), see `effects_of`.
    nodes : sequence of int
    """

    def change(node):
        old, new = Spread.of(before[:, node]), Spread.of(after[:, node])
        differs = max(abs(b - a) for b, a in zip(old, new, strict=True))
        return differs / max(old.high - old.low, 1e-12)

    return max(nodes, key=change)


def effect_sentence(
    task: Task,
    cause: Any,
    effect: Any,
    now: float,
    shift: float,
    after: np.ndarray,
    before: np.ndarray | None = None,
) -> str:
    """What is expected of one feature if another is changed, and what was expected before.

    Parameters
    ----------
    task : Task
    cause, effect : object
        Their columns.
    now : float
        What the cause is, in natural units.
    shift : float
        By how much it is changed, natural units.
    after, before : ndarray
        Shape (draws,): by how much the effect then changes, see `effects_of`.
    """
    features = task.features
    feature = features[effect]
    name = feature.name(effect)
    if not np.isfinite(after).all():
        return f"From the answers so far we cannot say what would become of your {name}."
    new = Spread.of(after)
    old = None if before is None or not np.isfinite(before).all() else Spread.of(before)
    places = _places([new] if old is None else [new, old], _scale(task, effect))
    new = round(new, places)
    then = float(as_written(now + shift))
    change = features[cause].change(float(as_written(now)), then, cause)
    act = without_ends(change)
    said = f"We now expect your {name} {_expected(new, feature, places)} if you {act}"
    if old is None:
        return f"{said}."
    old = round(old, places)
    if old == new:
        return f"{said}, as before."
    return f"{said}; before: {_before(old, new, places)}."


def _scale(task: Task, column: Any) -> float:
    return float(task.scale[list(task.features).index(column)])


def _places(spreads: list[Spread], scale: float) -> int:
    """Decimals, in which the narrowest of the ranges has several numbers."""
    widths = [spread.high - spread.low for spread in spreads if spread.high > spread.low]
    unit = min(widths) / 4 if widths else scale / 100
    return -int(np.floor(np.log10(max(unit, scale * 1e-5))))


def _number(value: float, places: int) -> str:
    return plain(float(as_written(abs(value))), places)


def _counted(value: float, feature: Feature, places: int) -> str:
    """The size of a change, with what it is counted in."""
    number = _number(value, places)
    if feature.kind == "levels" and len(feature.names) == 2:  # type: ignore[attr-defined]
        return f"{number} of the way from {feature.shown(0)} to {feature.shown(1)}"
    if feature.kind in ("levels", "nominal"):
        return f"{number} level{'s' * (number != '1')}"
    return counted(number, getattr(feature, "unit", None))


def _expected(spread: Spread, feature: Feature, places: int) -> str:
    """A change in words, such as ``"to rise by about 800 euros (500 to 1,100)"``."""
    if not any(spread):
        return "to stay as now"
    if not spread.middle:
        return f"to stay about as now ({_range(spread, places)})"
    verb = "rise" if spread.middle > 0 else "fall"
    size = _counted(spread.middle, feature, places)
    if spread.low == spread.high:
        return f"to {verb} by {size}"
    return f"to {verb} by about {size} ({_range(spread, places)})"


def _before(spread: Spread, after: Spread, places: int) -> str:
    """The same of what was expected before, without what the change is counted in."""
    middle = _signed(spread.middle, places)
    if spread.middle * after.middle > 0:
        middle = _number(spread.middle, places)
    return middle if spread.low == spread.high else f"{middle} ({_range(spread, places)})"


def _signed(value: float, places: int) -> str:
    if not value:
        return "no change"
    return f"a {'rise' if value > 0 else 'fall'} of {_number(value, places)}"


def _range(spread: Spread, places: int) -> str:
    """The range, in the direction of its middle where all of it is."""
    ends = (spread.low, spread.high)
    if spread.middle and all(end * spread.middle >= 0 for end in ends):
        near, far = sorted(map(abs, ends))
        return f"{_number(near, places)} to {_number(far, places)}"
    return f"{_signed(spread.low, places)} to {_signed(spread.high, places)}"
