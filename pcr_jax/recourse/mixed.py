"""Actions on features of all kinds: whole steps, levels, categories, and real numbers.

What has a grid is enumerated: values of up to so many features, the cheapest together first, until
an action meets the requirement. What has none is left to `find_recourse`, which is asked for every
combination of the others that is cheaper than the best action so far, unless nothing comes of
amounts that are tried all over the room that is left. Interventions are hard: a feature is set to
the value that is named, and what it causes reacts.

A requirement is a favourable score, or a probability of one over draws of the person's SCM: then
some draws are searched, and what is found is judged by the others, as in
`pcr_jax.recourse.requirements.chance`.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice, product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import qmc

from pcr_jax._pytree import pytree
from pcr_jax.actions import Action, Constraints
from pcr_jax.batching import take
from pcr_jax.recourse.find import find_recourse
from pcr_jax.recourse.plan import PlanStatus
from pcr_jax.recourse.requirements import Chance
from pcr_jax.scm import SCM
from pcr_jax.scores import outside_model

_ATTEMPTS = 12  # at what the judging draws refuse
_RAISED = 0.5  # of what lacks to the level, so much more is asked of the searched draws
_WIDE = 256  # candidates at once under some of the draws
_DEEP = 16  # candidates at once under all draws
_REAL_USERS = 4  # combinations at once that real numbers are sought for
_TRIED = {1: 128, 2: 1024, 3: 4096}  # amounts of so many real numbers that are tried before
_APART = {1: 0.02, 2: 0.1, 3: 0.25}  # by how much of the room for them these differ
_TRIED_DRAWS, _HOPELESS = 16, 0.25  # draws they are tried in, and what may lack to the level


class Choice(NamedTuple):
    """The values that one feature can be set to.

    Attributes
    ----------
    node : int
    values, costs : ndarray
        Shape (k,), the cheapest first.
    """

    node: int
    values: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True, eq=False)
class Person:
    """One person's features, and what can be done about them.

    Attributes
    ----------
    x, scale : ndarray
        Shape (d,), natural units.
    choices : tuple of Choice
        Of the features that have a grid.
    ranges : dict
        For every node without one, the least and the largest number that it can be set to.
    margin : callable
        Features (n, d) -> (n,), at least 0 where the outcome is favourable (and allowed).
    worlds : SCM
        Draws of the person's SCM, of batch shape (draws,).
    units : Array, optional
        Shape (draws, d), in (0, 1): which of the noises that fit is taken, see `SCM.abduct`.
    level : float, optional
        The probability that is asked for. Without one there is one draw.
    max_acted : int
        On how many features at once people can act.
    max_candidates : int
        How many actions are looked at.
    """

    x: np.ndarray
    scale: np.ndarray
    choices: tuple[Choice, ...]
    ranges: dict[int, tuple[float, float]]
    margin: Callable[[np.ndarray], np.ndarray]
    worlds: SCM
    units: Any
    level: float | None
    max_acted: int
    max_candidates: int


class Advice(NamedTuple):
    """What one person is advised.

    Attributes
    ----------
    status : PlanStatus
    value : ndarray
        Shape (d,), natural units: what the features are set to.
    acted : ndarray
        Shape (d,), boolean: which are.
    cost : float
        Infinite where there is no action.
    p_valid : float
        The share of the draws that judge in which the action works; NaN without a level.
    after : ndarray
        Shape (draws, d): what follows in those.
    num_candidates : int
        How many actions were looked at.
    """

    status: PlanStatus
    value: np.ndarray
    acted: np.ndarray
    cost: float
    p_valid: float
    after: np.ndarray
    num_candidates: int


class _Candidate(NamedTuple):
    cost: float
    value: np.ndarray
    acted: np.ndarray


def by_cost(choices: tuple[Choice, ...], max_acted: int) -> Iterator[tuple[float, tuple, tuple]]:
    """All values of up to so many features: costs, nodes and values, the cheapest first.

    Of equally dear ones those of fewer features come first.
    """
    heap: list[tuple] = []
    for size in range(1, max_acted + 1):
        for members in combinations(range(len(choices)), size):
            first = (0,) * size
            heap.append((_cost(choices, members, first), size, members, first, 0))
    heapq.heapify(heap)
    while heap:
        cost, size, members, at, place = heapq.heappop(heap)
        nodes = tuple(choices[m].node for m in members)
        yield cost, nodes, tuple(choices[m].values[a] for m, a in zip(members, at, strict=True))
        for p in range(place, size):  # each combination has one predecessor
            if at[p] + 1 < len(choices[members[p]].values):
                then = (*at[:p], at[p] + 1, *at[p + 1 :])
                heapq.heappush(heap, (_cost(choices, members, then), size, members, then, p))


def _cost(choices, members, at) -> float:
    return round(float(sum(choices[m].costs[a] for m, a in zip(members, at, strict=True))), 9)


@jax.jit
def _after(worlds, units, x, value, acted):
    """What follows from actions (m, d) in worlds (n,); (m, n, d)."""
    descendants = jnp.asarray(worlds.graph.descendants)

    def one(value, acted):
        action = Action(jnp.where(acted, value, 0.0), acted)
        if units is None:
            reached = jax.vmap(lambda scm: scm.counterfactual(x, action))(worlds)
        else:
            reached = jax.vmap(lambda scm, u: scm.counterfactual(x, action, u))(worlds, units)
        reacts = (acted[:, None] & descendants).any(0)
        return jnp.where(acted, value, jnp.where(reacts, reached, x))

    return jax.vmap(one)(value, acted)


def _outcomes(person: Person, draws: Any, value: np.ndarray, acted: np.ndarray, size: int):
    """The same in NumPy, of some draws of the person's SCM; padded to a size."""
    worlds, units = take((person.worlds, person.units), draws)
    rows = np.minimum(np.arange(size), len(value) - 1)
    after = _after(worlds, units, person.x, value[rows].astype(person.x.dtype), acted[rows])
    return np.asarray(after)[: len(value)]


def outcome(
    person: Person, value: np.ndarray, acted: np.ndarray, draws: Any = slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    """What follows from an action (d,) in draws of the person's SCM, (n, d), and where it works."""
    num = person.worlds.batch_shape[0]
    size = _WIDE if num == 1 else _DEEP
    after = _outcomes(person, draws, value[None], acted[None], size)
    return after[0], _favourable(person, after)[0]


def _favourable(person: Person, after: np.ndarray) -> np.ndarray:
    """Where outcomes (m, n, d) are; (m, n)."""
    shape = after.shape[:-1]
    rows, places = np.unique(after.reshape(-1, after.shape[-1]), axis=0, return_inverse=True)
    return (person.margin(rows) >= 0)[places.reshape(-1)].reshape(shape)


@pytree()
class _Held:
    """Another mechanism, whose value is a given number where it is held."""

    mechanism: Any
    held: Array
    value: Array

    linear = False
    invertible = property(lambda self: self.mechanism.invertible)
    batch_shape = property(lambda self: self.mechanism.batch_shape)

    def check(self, num_parents, node):
        self.mechanism.check(num_parents, node)

    def assign(self, parents, noise):
        return jnp.where(self.held > 0, self.value, self.mechanism.assign(parents, noise))

    def abduct(self, parents, value, unit=None):
        return self.mechanism.abduct(parents, value, unit)

    def inverted(self):
        return _Held(self.mechanism.inverted(), self.held, self.value)


class _Called:
    """What searches for real numbers call: one object for all people, so that they share programs.

    Favourable margins are raised beyond what a probability can be, as they may be one.
    """

    margin: Callable[[np.ndarray], np.ndarray]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        margin = self.margin(x)
        return np.where(margin >= 0, margin + 2.0, margin)


_called, _calling = _Called(), threading.Lock()


def _with_reals(
    person: Person,
    draws: np.ndarray,
    begun: list[_Candidate],
    blocked: frozenset[int],
    most: float,
) -> list[_Candidate]:
    """What is found by acting on real numbers after actions on other features, below a cost."""
    reals = [node for node in person.ranges if node not in blocked]
    size = min(person.max_acted, len(reals))
    users: list[tuple[_Candidate, tuple[int, ...]]] = []
    for candidate in (candidate for candidate in begun if candidate.cost < most):
        room = min(person.max_acted - int(candidate.acted.sum()), size)
        users += [(candidate, nodes) for nodes in combinations(reals, room)] if room else []
    least = np.zeros(len(users))
    if np.isfinite(most):
        least = _least(person, draws, users, most)
    found: list[_Candidate] = []
    order = [int(i) for i in np.argsort(least, kind="stable")]
    while order and least[order[0]] < most:
        some, order = order[:_REAL_USERS], order[_REAL_USERS:]
        new = _sought(person, [users[i] for i in some if least[i] < most], size, most)
        found += new
        most = min([most, *(candidate.cost for candidate in new)])
    return found


@cache
def _amounts(num: int) -> np.ndarray:
    """Points that fill the L1 ball of so many dimensions; (n, num)."""
    if num == 1:
        return np.linspace(-1.0, 1.0, _TRIED[1] + 1)[:, None]
    points = 2 * qmc.Halton(num, scramble=False).random(_TRIED[num]) - 1
    return points[np.abs(points).sum(1) <= 1]


def _least(person: Person, draws: np.ndarray, users: list, most: float) -> np.ndarray:
    """What real numbers may bring the costs (n,) of actions down to; infinite where none will do.

    That is by trial of amounts that are spread over what leaves the costs below ``most``, and then
    over what is around the best of these.
    """
    begun = np.array([candidate.cost for candidate, _ in users])
    apart = np.array([_APART[len(nodes)] for _, nodes in users])
    centres = [np.zeros(len(nodes)) for _, nodes in users]
    least, open_users = np.full(len(users), np.inf), np.arange(len(users))
    for radius in (np.ones(len(users)), apart):
        tried = [(i, centres[i] + radius[i] * _amounts(len(centres[i]))) for i in open_users]
        for i, points, works in _tried(person, draws, users, tried, most):
            sizes = np.abs(points).sum(1)
            if works.any() and sizes[works].min() < least[i]:
                best = np.where(works, sizes, np.inf).argmin()
                least[i], centres[i] = sizes[best], points[best]
        open_users = np.flatnonzero(np.isfinite(least))
    return begun + (least - apart**2) * (most - begun)  # each begun is below most


def _tried(person: Person, draws: np.ndarray, users: list, tried: list, most: float):
    """For users, by number, and amounts in units of their rooms: those in range, and which work."""
    points, values, acts = [], [], []
    for i, amounts in tried:
        (candidate, nodes), reach = users[i], np.abs(amounts).sum(1) <= 1
        at, unit = list(nodes), (most - candidate.cost) * person.scale[list(nodes)].astype(float)
        ends = np.array([person.ranges[node] for node in nodes])
        reached = person.x[at] + amounts * unit
        reach &= ((reached >= ends[:, 0]) & (reached <= ends[:, 1])).all(1)
        value = np.tile(candidate.value, (int(reach.sum()), 1))
        value[:, at] = reached[reach]
        acted = np.tile(candidate.acted, (len(value), 1))
        acted[:, at] = True
        points.append(amounts[reach])
        values.append(value)
        acts.append(acted)
    if not sum(map(len, points)):
        return []
    value, acted = np.concatenate(values), np.concatenate(acts)
    some = draws[:: max(1, len(draws) // _TRIED_DRAWS)][:_TRIED_DRAWS]
    parts = [
        _outcomes(person, some, value[start : start + _WIDE], acted[start : start + _WIDE], _WIDE)
        for start in range(0, len(value), _WIDE)
    ]
    share = _favourable(person, np.concatenate(parts)).mean(1)
    works = share >= (1.0 if person.level is None else person.level - _HOPELESS)
    each = np.split(works, np.cumsum([len(amounts) for amounts in points])[:-1])
    return [(i, *found) for (i, _), *found in zip(tried, points, each, strict=True)]


def _sought(person, users, size, most) -> list[_Candidate]:
    num_users = len(users)
    x = np.tile(person.x, (num_users, 1))
    actionable = np.zeros(x.shape, bool)
    low, high = np.full(x.shape, -np.inf), np.full(x.shape, np.inf)
    for i, (candidate, nodes) in enumerate(users):
        for node in nodes:
            actionable[i, node] = True
            room, now = (most - candidate.cost) * person.scale[node], person.x[node]
            least, largest = person.ranges[node]
            low[i, node], high[i, node] = max(least, now - room), min(largest, now + room)
    low, high = (bound.astype(x.dtype) for bound in (low, high))
    low, high = np.minimum(low, x), np.maximum(high, x)  # to rounding
    if not (actionable & ((low < x) | (high > x))).any():
        return []
    shape = (num_users, person.worlds.batch_shape[0])
    each = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_users, *leaf.shape)), person.worlds.mechanisms
    )
    held = np.stack([candidate.acted for candidate, _ in users]).astype(x.dtype)[:, None]
    value = np.stack([candidate.value for candidate, _ in users]).astype(x.dtype)[:, None]
    holds = [jnp.broadcast_to(part, (*shape, x.shape[1])) for part in (held, value)]
    mechanisms = tuple(_Held(m, *(part[..., j] for part in holds)) for j, m in enumerate(each))
    worlds = SCM(person.worlds.graph, mechanisms, person.worlds.noise)
    if person.level is None:
        worlds = jax.tree.map(lambda leaf: leaf[:, 0], worlds)
    with _calling:
        _called.margin = person.margin
        plan = find_recourse(
            outside_model(_called),
            worlds,
            x,
            scale=person.scale,
            level=person.level,
            constraints=Constraints(actionable, low, high),  # type: ignore[arg-type]
            intervention="hard",
            max_set_size=size,
        )
    status, hard = np.asarray(plan.status), np.asarray(plan.action.hard)
    to, cost = np.asarray(plan.action.value), np.asarray(plan.cost, float)
    found = []
    for i, (candidate, _) in enumerate(users):
        if status[i] == PlanStatus.found and hard[i].any():
            together = np.where(hard[i], to[i], candidate.value)
            acted = candidate.acted | hard[i]
            found.append(_Candidate(candidate.cost + cost[i], together, acted))
    return [candidate for candidate in found if candidate.cost < most]


class _Found(NamedTuple):
    best: _Candidate | None
    number: int
    ended: bool  # for there were too many candidates


def _first_that_works(person, draws, needed, candidates) -> int | None:
    """The place of the first candidate that is favourable in so many of the searched draws."""
    value = np.stack([candidate.value for candidate in candidates])
    acted = np.stack([candidate.acted for candidate in candidates])
    few = draws[: len(draws) - needed + _DEEP]  # so many that some candidates are out
    good = _favourable(person, _outcomes(person, few, value, acted, _WIDE))
    left = np.flatnonzero((~good).sum(1) <= len(draws) - needed)
    if len(few) == len(draws):
        return int(left[0]) if left.size else None
    for start in range(0, len(left), _DEEP):
        some = left[start : start + _DEEP]
        good = _favourable(person, _outcomes(person, draws, value[some], acted[some], _DEEP))
        works = np.flatnonzero(good.sum(1) >= needed)
        if works.size:
            return int(some[works[0]])
    return None


def _search(person: Person, draws: np.ndarray, asked: float, blocked: frozenset[int]) -> _Found:
    """The cheapest action that works in a share of the searched draws."""
    needed = int(np.ceil(asked * len(draws) - 1e-3))
    nothing = _Candidate(0.0, np.zeros_like(person.x), np.zeros(len(person.x), bool))
    best: _Candidate | None = None
    number = 0
    open_reals = any(node not in blocked for node in person.ranges)

    def cheaper(found):
        return min([*found, *([] if best is None else [best])], key=lambda c: c.cost, default=None)

    def most():
        return np.inf if best is None else best.cost

    if open_reals:
        best = cheaper(_with_reals(person, draws, [nothing], blocked, most()))
    choices = tuple(choice for choice in person.choices if choice.node not in blocked)
    ordered = by_cost(choices, person.max_acted)
    while batch := list(islice(ordered, _WIDE)):
        candidates = []
        for cost, nodes, values in batch:
            if cost < most():
                value, acted = nothing.value.copy(), nothing.acted.copy()
                value[list(nodes)], acted[list(nodes)] = values, True
                candidates.append(_Candidate(cost, value, acted))
        if not candidates:
            return _Found(best, number, False)
        number += len(candidates)
        first = _first_that_works(person, draws, needed, candidates)
        if first is not None:
            best = candidates[first]
        if open_reals:
            begun = [c for c in candidates[:first] if c.acted.sum() < person.max_acted]
            best = cheaper(_with_reals(person, draws, begun, blocked, most()))
        if first is not None or len(candidates) < len(batch):
            return _Found(best, number, False)
        if number >= person.max_candidates:
            return _Found(best, number, True)
    return _Found(best, number, False)


def advise(person: Person, blocked: frozenset[int] = frozenset()) -> Advice:
    """The cheapest action, judged by draws that its search has not seen.

    Parameters
    ----------
    person : Person
    blocked : frozenset of int
        Nodes that are not to be acted on.
    """
    num = person.worlds.batch_shape[0]
    searched = judging = np.arange(num)
    if person.level is not None:
        seen = Chance(person.level).seen(num)  # type: ignore[arg-type]
        searched, judging = np.flatnonzero(seen), np.flatnonzero(~seen)
    if person.margin(person.x[None])[0] >= 0:
        return _nothing(person, PlanStatus.already_favourable)
    asked, total, last = (1.0 if person.level is None else person.level), 0, None
    for _ in range(_ATTEMPTS):
        found = _search(person, searched, min(asked, 1.0), blocked)
        total += found.number
        if found.best is None:
            break
        cost, value, acted = found.best
        after, works = outcome(person, value, acted, judging)
        share = float(works.mean())
        met = share >= (1.0 if person.level is None else person.level)
        status = PlanStatus.found if met else PlanStatus.not_likely
        if met and found.ended:
            status = PlanStatus.budget
        stated = np.nan if person.level is None else share
        last = Advice(status, value, acted, cost, stated, after, total)
        if met or person.level is None or asked >= 1.0:
            break
        asked += max(_RAISED * (person.level - share), 1 / len(searched))
    if last is None:
        none = PlanStatus.budget if found.ended else PlanStatus.not_found
        return _nothing(person, none)._replace(num_candidates=total)
    return last


def _nothing(person: Person, status: PlanStatus) -> Advice:
    """No action."""
    none, free = np.zeros(len(person.x), bool), status == PlanStatus.already_favourable
    cost = 0.0 if free else np.inf
    return Advice(status, person.x, none, cost, np.nan, person.x[None], 0)


def alternatives(person: Person, k: int) -> list[Advice]:
    """Up to ``k`` plans, the cheapest first, none of which acts on all that another acts on."""
    known: dict[frozenset[int], Advice] = {}

    def best(blocked):
        if blocked not in known:
            known[blocked] = advise(person, blocked)
        return known[blocked]

    plans = [best(frozenset())]
    while len(plans) < k and plans[-1].status == PlanStatus.found and plans[-1].acted.any():
        sets = [np.flatnonzero(plan.acted).tolist() for plan in plans]
        found = [best(frozenset(nodes)) for nodes in product(*sets)]
        found = [plan for plan in found if plan.status == PlanStatus.found]
        if not found:
            break
        plans.append(min(found, key=lambda plan: plan.cost))
    return plans
