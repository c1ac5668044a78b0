"""Actions on features of all kinds: whole steps, levels, categories, and real numbers.

What has a grid is enumerated: values of up to so many features, the cheapest together first, until
an action meets the requirement. What has none is left to `find_recourse`, which is asked for every
combination of the others that is cheaper than the best action so far, unless nothing comes of
amounts that are tried all over the room that is left. Interventions are hard: a feature is set to
the value that is named, and what it causes reacts.

A requirement is a favourable score, or a probability of one over draws of the person's SCM: then
some draws are searched, and what is found is judged by the others, as in
`pcr_jax.recourse.requirements.chance`. What was computed of an action serves every search for the
person: for other plans, and for other probabilities.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations, count, product
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
_ROWS = 4096, 16384  # outcomes at once: few shapes are compiled
_WIDE = 256  # candidates at once where real numbers are left
_DEEP = 16  # candidates at first under all draws, and draws beyond those that may fail
_WIDER = 1.25  # how much dearer what is listed next is
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
    favourable : callable, optional
        Whether the margin of features (d,) is at least 0: a JAX function, if there is one, which is
        a pytree.
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
    favourable: Any = None


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


class Draws:
    """What follows from actions in draws of one person's SCM."""

    def __init__(self, person: Person):
        self.person, self.num = person, person.worlds.batch_shape[0]

    @cached_property
    def _on_device(self) -> tuple:
        worlds, units, x = jax.device_put((self.person.worlds, self.person.units, self.person.x))
        return worlds, _abducted(worlds, units, x), x

    def follow(
        self, draw: np.ndarray, value: np.ndarray, acted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What follows from actions (n, d) in one draw (n,) each, (n, d), and where it works."""
        size = _ROWS[len(draw) > _ROWS[0]]
        parts = []
        for start in range(0, len(draw), size):
            rows = np.minimum(np.arange(start, start + size), len(draw) - 1)
            actions = value[rows].astype(self.person.x.dtype), acted[rows]
            found = _after(self.person.favourable, *self._on_device, draw[rows], *actions)
            parts.append([np.asarray(each)[: len(draw) - start] for each in found])
        after, *works = (np.concatenate(each) for each in zip(*parts, strict=True))
        return after, works[0] if works else self.person.margin(after) >= 0


@jax.jit
def _abducted(worlds, units, x):
    """The noises (n, d) of a person in worlds (n,)."""
    if units is None:
        return jax.vmap(lambda scm: scm.abduct(x))(worlds)
    return jax.vmap(lambda scm, unit: scm.abduct(x, unit))(worlds, units)


@jax.jit
def _after(favourable, worlds, noise, x, draw, value, acted):
    """What follows from actions (m, d) in some of the worlds (m,), (m, d), and whether it works."""
    descendants = jnp.asarray(worlds.graph.descendants)

    def one(scm, noise, value, acted):
        reached = scm.predict(noise, Action(jnp.where(acted, value, 0.0), acted))
        reacts = (acted[:, None] & descendants).any(0)
        return jnp.where(acted, value, jnp.where(reacts, reached, x))

    after = jax.vmap(one)(*take((worlds, noise), draw), value, acted)
    return (after,) if favourable is None else (after, jax.vmap(favourable)(after))


def outcome(
    person: Person, value: np.ndarray, acted: np.ndarray, draws: Draws | None = None, at: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """What follows from an action (d,) in draws of the person's SCM, (n, d), and where it works.

    Parameters
    ----------
    person : Person
    value, acted : ndarray
    draws : Draws, optional
        The person's, if they are there already.
    at : ndarray, optional
        Which; all by default.
    """
    draws = Draws(person) if draws is None else draws
    at = np.arange(draws.num) if at is None else at
    each = (len(at), len(value))
    return draws.follow(at, np.broadcast_to(value, each), np.broadcast_to(acted, each))


def _counted(num: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each of some numbers, one after the other."""
    return np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)


class Pool:
    """All values of up to so many of a person's features that have a grid, the cheapest first.

    They are listed as far as searches get, and what they lead to in which draws is kept.

    Parameters
    ----------
    person : Person
        Whose level does not matter.
    """

    def __init__(self, person: Person):
        self.choices, self.draws = person.choices, Draws(person)
        self.searched = self.judging = np.arange(self.draws.num)
        if person.level is not None:
            seen = Chance(person.level).seen(self.draws.num)  # type: ignore[arg-type]
            self.searched, self.judging = np.flatnonzero(seen), np.flatnonzero(~seen)
        sizes = range(1, person.max_acted + 1)
        places = range(len(self.choices))
        self.sets = [members for size in sizes for members in combinations(places, size)]
        ends = np.array([(c.costs[0], c.costs[-1]) for c in self.choices]).reshape(-1, 2)
        self._ends = np.array([ends[list(members)].sum(0) for members in self.sets]).reshape(-1, 2)
        self._listed: dict[tuple[int, int], np.ndarray] = {}
        self.size = 0
        self.cost = np.zeros(0)
        self.value = np.zeros((0, len(person.x)), person.x.dtype)
        self.acted = np.zeros(self.value.shape, bool)
        self.bad = np.zeros(0, int)  # in how many of the draws that were looked at
        self.seen = np.zeros(0, int)  # in how many that was

    def _window(self, number: int) -> tuple[float, float]:
        """Costs above the first and up to the second are listed together."""
        # A factor that nobody's costs have, so that no cost is at the end but for rounding.
        first = 1.0618034 * max(self._ends[:, 0].min(), 1e-6)
        low, high = (first * _WIDER ** (number - 1), first * _WIDER**number)
        return (-np.inf if number == 0 else low), high

    def _list(self, number: int, place: int) -> np.ndarray:
        """Those of one set of features in one window: numbers, by their values' places."""
        if (number, place) in self._listed:
            return self._listed[number, place]
        low, high = self._window(number)
        members = [self.choices[m] for m in self.sets[place]]
        heads, at = np.zeros(1), np.zeros((1, 0), int)
        for choice in members[:-1]:
            some = choice.costs[choice.costs <= high]
            then = np.tile(np.arange(len(some)), len(at))
            at = np.column_stack([np.repeat(at, len(some), 0), then])
            heads = (heads[:, None] + some).ravel()
            at, heads = at[heads <= high], heads[heads <= high]
        last = members[-1].costs
        begin, end = (np.searchsorted(last, edge - heads, "right") for edge in (low, high))
        num = end - begin
        rows = np.repeat(np.arange(len(heads)), num)
        there = _counted(num) + begin[rows]
        at = np.column_stack([at[rows], there])
        found = self._add(np.round(heads[rows] + last[there], 9), members, at)
        self._listed[number, place] = found
        return found

    def _add(self, cost: np.ndarray, members: list[Choice], at: np.ndarray) -> np.ndarray:
        new = np.arange(self.size, self.size + len(cost))
        self.size += len(cost)
        if self.size > len(self.cost):
            for name in ("cost", "value", "acted", "bad", "seen"):
                array = getattr(self, name)
                more = np.zeros((max(self.size, 1024), *array.shape[1:]), array.dtype)
                setattr(self, name, np.concatenate([array, more]))
        self.cost[new] = cost
        for j, choice in enumerate(members):
            self.value[new, choice.node] = choice.values[at[:, j]]
            self.acted[new, choice.node] = True
        return new

    def batches(self, blocked: frozenset[int], size: int, largest: int) -> Iterator[np.ndarray]:
        """The numbers of those that act on nothing blocked, in the order of their cost.

        Of equally dear ones those of fewer features come first. As many at once as ``size``, and
        ever more, up to ``largest``.
        """
        free = [not blocked & {self.choices[m].node for m in members} for members in self.sets]
        places = np.flatnonzero(free)
        if not places.size:
            return
        ends, left = self._ends[places], np.zeros(0, int)
        for number in count():
            low, high = self._window(number)
            there = places[(ends[:, 0] <= high) & (ends[:, 1] * (1 + 1e-9) >= low)]
            listed = [self._list(number, int(place)) for place in there]
            new = np.concatenate([np.zeros(0, int), *listed])
            left = np.concatenate([left, new[np.argsort(self.cost[new], kind="stable")]])
            last = high >= ends[:, 1].max() * (1 + 1e-9)
            while len(left) >= size or (last and len(left)):
                yield left[:size]
                left, size = left[size:], min(2 * size, largest)
            if last:
                return

    def _look(self, numbers: np.ndarray, most: int) -> None:
        """Look at what follows in so many of the searched draws."""
        numbers = numbers[self.seen[numbers] < most]
        if not numbers.size:
            return
        num = most - self.seen[numbers]
        places = np.repeat(np.arange(len(numbers)), num)
        rows = numbers[places]
        draw = self.searched[_counted(num) + self.seen[rows]]
        _, good = self.draws.follow(draw, self.value[rows], self.acted[rows])
        self.bad[numbers] += np.bincount(places, ~good, len(numbers)).astype(int)
        self.seen[numbers] = most

    def first_that_works(self, numbers: np.ndarray, needed: int) -> int | None:
        """The place of the first that is favourable in so many of the searched draws."""
        num = len(self.searched)
        left, allowed = numbers, num - needed
        for more in (2, _DEEP):
            self._look(left, min(num, allowed + more))
            left = left[self.bad[left] <= allowed]
        size = _DEEP
        while left.size:
            some, left = left[:size], left[size:]
            self._look(some, num)
            works = some[self.bad[some] <= allowed]
            if works.size:
                return int(np.flatnonzero(numbers == works[0])[0])
            size = min(2 * size, max(_DEEP, _ROWS[1] // num))
        return None


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
    pool: Pool,
    person: Person,
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
        least = _least(pool, person, users, most)
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


def _least(pool: Pool, person: Person, users: list, most: float) -> np.ndarray:
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
        for i, points, works in _tried(pool, person, users, tried, most):
            sizes = np.abs(points).sum(1)
            if works.any() and sizes[works].min() < least[i]:
                best = np.where(works, sizes, np.inf).argmin()
                least[i], centres[i] = sizes[best], points[best]
        open_users = np.flatnonzero(np.isfinite(least))
    return begun + (least - apart**2) * (most - begun)  # each begun is below most


def _tried(pool: Pool, person: Person, users: list, tried: list, most: float):
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
    some = pool.searched[:: max(1, len(pool.searched) // _TRIED_DRAWS)][:_TRIED_DRAWS]
    rows = np.repeat(np.arange(len(value)), len(some))
    _, good = pool.draws.follow(np.tile(some, len(value)), value[rows], acted[rows])
    share = good.reshape(len(value), len(some)).mean(1)
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


def _search(pool: Pool, person: Person, asked: float, blocked: frozenset[int]) -> _Found:
    """The cheapest action that works in a share of the searched draws."""
    needed = int(np.ceil(asked * len(pool.searched) - 1e-3))
    nothing = _Candidate(0.0, np.zeros_like(person.x), np.zeros(len(person.x), bool))
    best: _Candidate | None = None
    number = 0
    open_reals = any(node not in blocked for node in person.ranges)

    def cheaper(found):
        return min([*found, *([] if best is None else [best])], key=lambda c: c.cost, default=None)

    def most():
        return np.inf if best is None else best.cost

    def candidate(i):
        return _Candidate(float(pool.cost[i]), pool.value[i].copy(), pool.acted[i].copy())

    if open_reals:
        best = cheaper(_with_reals(pool, person, [nothing], blocked, most()))
    draws = min(len(pool.searched), len(pool.searched) - needed + 2)
    sizes = [_WIDE, _WIDE] if open_reals else [rows // draws for rows in _ROWS]
    for batch in pool.batches(blocked, *sizes):
        some = batch[pool.cost[batch] < most()]
        number += len(some)
        first = pool.first_that_works(some, needed)
        if first is not None:
            best = candidate(some[first])
        if open_reals and len(some):
            begun = some[:first][pool.acted[some[:first]].sum(1) < person.max_acted]
            found = _with_reals(pool, person, [candidate(i) for i in begun], blocked, most())
            best = cheaper(found)
        if first is not None or len(some) < len(batch):
            return _Found(best, number, False)
        if number >= person.max_candidates:
            return _Found(best, number, True)
    return _Found(best, number, False)


def advise(
    person: Person, blocked: frozenset[int] = frozenset(), pool: Pool | None = None
) -> Advice:
    """The cheapest action, judged by draws that its search has not seen.

    Parameters
    ----------
    person : Person
    blocked : frozenset of int
        Nodes that are not to be acted on.
    pool : Pool, optional
        The person's, if it is there already.
    """
    if person.margin(person.x[None])[0] >= 0:
        return _nothing(person, PlanStatus.already_favourable)
    pool = Pool(person) if pool is None else pool
    asked, total, last = (1.0 if person.level is None else person.level), 0, None
    for _ in range(_ATTEMPTS):
        found = _search(pool, person, min(asked, 1.0), blocked)
        total += found.number
        if found.best is None:
            break
        cost, value, acted = found.best
        after, works = outcome(person, value, acted, pool.draws, pool.judging)
        share = float(works.mean())
        met = share >= (1.0 if person.level is None else person.level)
        status = PlanStatus.found if met else PlanStatus.not_likely
        if met and found.ended:
            status = PlanStatus.budget
        stated = np.nan if person.level is None else share
        last = Advice(status, value, acted, cost, stated, after, total)
        if met or person.level is None or asked >= 1.0:
            break
        asked += max(_RAISED * (person.level - share), 1 / len(pool.searched))
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
    pool = Pool(person)

    def best(blocked):
        if blocked not in known:
            known[blocked] = advise(person, blocked, pool)
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


def at_levels(person: Person, levels: Sequence[float]) -> list[Advice]:
    """The cheapest action for every one of some probabilities."""
    pool = Pool(person)
    return [advise(replace(person, level=level), pool=pool) for level in levels]
