"""One person's problem in numbers: their SCMs, what they can do, and when it is enough."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Constraints
from pcr_jax.features import as_written
from pcr_jax.mechanisms import Within
from pcr_jax.recourse.mixed import Choice, Person
from pcr_jax.recourse.problem import bare, per_user
from pcr_jax.recourse.verify import own_key
from pcr_jax.scm import SCM
from pcr_jax.task.tables import decoded, distinct, is_forbidden, margins

if TYPE_CHECKING:
    from pcr_jax.task.task import Task

_APART = 101  # values of a range without steps that does not begin where the person is


def worlds_of(
    task: Task, by: Any, x: np.ndarray, level: float | None, draws: int, key: Array
) -> tuple[SCM, Any]:
    """SCMs of batch shape (people, draws), whose nodes keep to their features, and their units.

    Parameters
    ----------
    task : Task
    by, level, draws, key
        See `Task.recourse`.
    x : ndarray
        Shape (people, d).
    """
    num = len(x)
    if hasattr(by, "scms"):
        by = by.scms(None if level is None else draws)
    elif hasattr(by, "prior") and hasattr(by, "scm"):
        by = _prior_scms(by, _own_keys(key, jnp.asarray(x)), draws)
    _checks.instance(by, SCM, "by", " Or pass Posteriors, a Session or a Surrogate.")
    if by.graph != task.graph:
        raise ValueError(
            f"Expected by of the task's graph, nodes {list(task.graph.nodes)}; got one of "
            f"{list(by.graph.nodes)} (and other edges, if these are the same)."
        )
    shape = by.batch_shape
    if len(shape) > 2 or shape[:1] not in ((), (num,)):
        raise ValueError(
            f"Expected by to be one SCM, or one for each of {num} people, or several draws for "
            f"each; got a batch of shape {shape}."
        )
    if level is not None and len(shape) == 2:
        worlds = bare(by)
    elif level is None or not by.invertible:  # of which units are the draws
        number = 1 if level is None else draws
        worlds = per_user(by, num)
        worlds = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], number, 1), worlds)
    else:
        raise ValueError(
            f"Expected by to be several draws for each of {num} people, of whose SCMs a level is a "
            f"probability; got a batch of shape {shape}. See Task.fit."
        )
    units = None
    if not by.invertible:
        size = (worlds.batch_shape[1], len(task.features))
        keys = _own_keys(key, jnp.asarray(x))
        units = jnp.stack([jax.random.uniform(own, size) for own in keys])
    return _in_range(task, worlds), units


@partial(jax.jit, static_argnames="draws")
def _prior_scms(surrogate: Any, keys: Array, draws: int) -> SCM:
    """Draws of everybody's SCM from a prior."""

    def one(key):
        unit = jax.random.uniform(key, (draws, len(surrogate.names)))
        return jax.vmap(surrogate.scm)(surrogate.prior.from_unit(unit))

    return jax.vmap(one)(keys)


@jax.jit
def _own_keys(key: Array, x: Array) -> Array:
    return jax.vmap(own_key, (None, 0))(key, x)


def _in_range(task: Task, worlds: SCM) -> SCM:
    """What reacts keeps to the features' ranges and grids."""
    mechanisms: list[Any] = list(worlds.mechanisms)
    most = float(np.finfo(jnp.result_type(float)).max)
    for j, feature in enumerate(task.features.values()):
        low, high, step = feature.grid
        if task.graph.parents[j] and (step or low > -most or high < most):
            mechanisms[j] = Within.of(mechanisms[j], low, high, step)
    return SCM(worlds.graph, tuple(mechanisms), worlds.noise)


class Settable(NamedTuple):
    """What one person can set features to, by node; what is in neither they cannot act on.

    Attributes
    ----------
    values : dict
        Of every node with a grid, the nearest first.
    ranges : dict
        Of every node without one, the least and the largest number.
    """

    values: dict[int, np.ndarray]
    ranges: dict[int, tuple[float, float]]

    def constraints(self, x: np.ndarray) -> Constraints:
        """On interventions on one person's features (d,), as the array API has them."""
        low, high, can = np.array(x), np.array(x), np.zeros(len(x), bool)
        for j, values in (self.values | self.ranges).items():
            low[j], high[j] = min(x[j], np.min(values)), max(x[j], np.max(values))
            can[j] = True
        return Constraints(can, low, high)  # type: ignore[arg-type]


def settable(task: Task, x: np.ndarray) -> Settable:
    """What the features (d,) of one person can be set to."""
    found = Settable({}, {})
    for j, (column, feature) in enumerate(task.features.items()):
        now, seen = float(x[j]), (float(task.seen[j, 0]), float(task.seen[j, 1]))
        if not feature.acted:
            continue
        low, high = task.limits.get(column, (-np.inf, np.inf))
        if not feature.continuous:
            values = feature.moves(now, seen)
            values = values[(low <= values) & (values <= high)]
            found.values.update({j: values} if len(values) else {})
            continue
        reach = feature.reach(now, seen)  # type: ignore[attr-defined]
        low, high = (now, now) if reach is None else (max(low, reach[0]), min(high, reach[1]))
        if low <= now <= high:
            found.ranges.update({j: (low, high)} if low < high else {})
        elif low <= high:  # beyond where the person is
            values = as_written(np.linspace(low, high, _APART if low < high else 1))
            found.values[j] = values if low > now else values[::-1]
    return found


@pytree()
class Favourable:
    """Whether a JAX score is, of features (d,) in the range that entries have."""

    score: Any
    low: Array
    high: Array

    def __call__(self, x: Array) -> Array:
        """A boolean."""
        return ((self.low <= x) & (x <= self.high)).all() & (self.score(x) >= 0)


def person_of(
    task: Task, row: pd.DataFrame, x: np.ndarray, worlds: SCM, units: Any, level: float | None
) -> Person:
    """One person's problem, without a limit of the search.

    Parameters
    ----------
    task : Task
    row : DataFrame
        Of one row, whose numbers are ``x`` (d,).
    worlds, units
        Of one person of `worlds_of`.
    level : float, optional
    """
    can, features = settable(task, x), list(task.features.values())
    scale = (task.scale / task.weights).astype(x.dtype)
    choices = [
        Choice(j, values, features[j].distance(values, float(x[j])) / float(scale[j]))
        for j, values in can.values.items()
    ]
    given, own = task.score_of(row), x[None]
    score = margins(given)
    ends = np.array([feature.grid[:2] for feature in features]).T.astype(x.dtype)
    alone = not task.is_table_model and task.forbidden is None

    def margin(rows):
        # Searches try numbers that no entry has, NaN among them: they lead to nothing favourable.
        low, high = ends
        some = ((low <= rows) & (rows <= high)).all(1)
        found = np.full(len(rows), -1.0, rows.dtype)
        if some.any():
            found[some] = of(rows[some])
        return found

    def of(rows):
        if alone:
            return score(rows)
        some, places = distinct(rows)  # of which the model is asked once
        rows = rows[some]
        found = np.asarray(score(rows))
        if task.forbidden is not None:
            banned = is_forbidden(task.forbidden, decoded(rows, task.features, row, own))
            found = np.where(banned, np.minimum(found, -1.0), found)
        return found[places]

    worlds, units = jax.tree.map(np.asarray, (worlds, units))
    return Person(
        *(x, scale, tuple(choices), can.ranges, margin, worlds, units, level, len(features), 2**31),
        favourable=Favourable(given, *ends) if alone else None,
    )
