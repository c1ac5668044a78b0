"""Actions on features of all kinds, against exhaustive search."""

from itertools import combinations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.mechanisms import Within
from pcr_jax.recourse import mixed
from pcr_jax.recourse.mixed import Choice, Person, Pool, advise, alternatives, at_levels
from pcr_jax.recourse.plan import PlanStatus

GRAPH = pcr.Graph.from_edges(["a", "b", "c", "d"], [("a", "b"), ("b", "c")])


def worlds_of(key, num_draws, spread=0.1):
    """Draws of an SCM in which b, of whole numbers from 0 to 4, reacts to a, and c to b."""
    coefficients = jnp.array([0.8, 0.5]) + spread * jax.random.normal(key, (num_draws, 2))
    scm = jax.vmap(lambda own: pcr.linear_scm(GRAPH, own))(coefficients)
    mechanisms = list(scm.mechanisms)
    mechanisms[1] = Within.of(mechanisms[1], 0.0, 4.0, 1.0)
    return pcr.SCM(GRAPH, tuple(mechanisms), (None,) * 4)


def person_of(seed, num_draws=1, level=None, reals=(), max_acted=3):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, 4).astype(np.float32)
    weight, bias = rng.normal(size=4), rng.normal()
    choices = tuple(
        Choice(j, values := values_of(x[j]), np.abs(values - x[j]))
        for j in range(4)
        if j not in reals
    )
    bound = weight @ x + bias + 1.5

    def margin(rows):
        rows = np.asarray(rows, float)
        return rows @ weight + bias + 0.3 * np.sin(3 * rows).sum(-1) - bound

    worlds = worlds_of(jax.random.key(seed), num_draws)
    ranges = dict.fromkeys(reals, (-1.0, 5.0))
    one = np.ones(4, np.float32)
    return Person(x, one, choices, ranges, margin, worlds, None, level, max_acted, 10**6)


def values_of(now):
    values = np.arange(5.0)
    values = values[values != now]
    return values[np.argsort(np.abs(values - now), kind="stable")]


def exhaustive(person, share=1.0, reals=None):
    """The least cost on a grid of all values of up to three features."""
    grids = [np.array([np.nan, *c.values]) for c in person.choices]
    fine = np.array([np.nan, *np.arange(-1.0, 5.0, 0.02)])
    nodes = [c.node for c in person.choices] + list(person.ranges)
    actions = np.array(list(product(*grids, *[fine] * len(person.ranges))))
    actions = actions[(~np.isnan(actions)).sum(1) <= person.max_acted]
    value = np.full((len(actions), 4), np.nan)
    value[:, nodes] = actions
    acted = ~np.isnan(value)
    value = np.where(acted, value, 0.0).astype(np.float32)
    do = pcr.Action(jnp.asarray(value), jnp.asarray(acted))

    @jax.jit
    def under(scm):
        return jax.vmap(lambda a: scm.counterfactual(person.x, a))(do)

    good = np.zeros(len(value))
    for i in range(person.worlds.batch_shape[0]):
        after = under(jax.tree.map(lambda leaf, i=i: leaf[i], person.worlds))
        good += person.margin(np.asarray(after)) >= -1e-5
    works = good >= share * person.worlds.batch_shape[0]
    cost = np.where(acted, np.abs(value - person.x), 0.0).sum(1)
    return cost[works].min() if works.any() else np.inf


def listed(choices, max_acted, blocked=()):
    """What a pool lists: costs, nodes and values."""
    person = person_of(0, max_acted=max_acted)
    pool = Pool(Person(**{**vars(person), "choices": choices}))
    numbers = np.concatenate(list(pool.batches(frozenset(blocked), 2, 8)))
    nodes = [tuple(np.flatnonzero(pool.acted[i]).tolist()) for i in numbers]
    values = [tuple(pool.value[i, list(at)].tolist()) for i, at in zip(numbers, nodes, strict=True)]
    return list(zip(pool.cost[numbers].tolist(), nodes, values, strict=True))


def test_combinations_come_in_the_order_of_their_cost_each_once():
    choices = (
        Choice(0, np.array([1.0, -1.0, 2.0]), np.array([1.0, 1.0, 2.0])),
        Choice(2, np.array([5.0]), np.array([0.5])),
        Choice(3, np.array([7.0, 8.0]), np.array([0.2, 3.0])),
    )
    found = listed(choices, 2)
    costs = [cost for cost, _, _ in found]
    assert costs == sorted(costs)
    assert len({(nodes, values) for _, nodes, values in found}) == len(found) == 6 + 3 + 6 + 2
    assert found[0] == (0.2, (3,), (7.0,))
    assert [nodes for cost, nodes, _ in found if cost == 3.0] == [(3,)]
    assert len(listed(choices, 3)) == 17 + 6
    assert listed(choices, 3, {2}) == [entry for entry in listed(choices, 3) if 2 not in entry[1]]


@pytest.mark.parametrize("seed", range(3))
def test_no_combination_is_left_out_however_fine_the_grids(seed):
    rng = np.random.default_rng(seed)
    costs = [np.arange(1, n + 1) * step for n, step in ((40, 0.01), (7, 0.3), (25, 0.04))]
    costs.append(np.sort(rng.uniform(0, 2, 5)))
    choices = tuple(Choice(j, np.arange(1.0, len(c) + 1), c) for j, c in enumerate(costs))
    expected = []
    for size in (1, 2, 3):
        for nodes in combinations(range(4), size):
            for at in product(*(range(len(costs[n])) for n in nodes)):
                cost = np.round(sum(costs[n][a] for n, a in zip(nodes, at, strict=True)), 9)
                expected.append((cost, size, nodes, tuple(a + 1.0 for a in at)))
    found = listed(choices, 3)
    assert found == [(cost, nodes, values) for cost, _, nodes, values in sorted(expected)]


def test_what_was_looked_at_is_not_looked_at_again():
    person, rows = person_of(7, num_draws=400, level=0.9), []

    def margin(asked):
        rows.append(len(asked))
        return person.margin(asked)

    counting = Person(**{**vars(person), "margin": margin})
    apart = [advise(Person(**{**vars(counting), "level": level})) for level in (0.8, 0.9, 0.95)]
    alone, rows[:] = sum(rows), []
    together = at_levels(counting, (0.8, 0.9, 0.95))
    assert sum(rows) < 0.8 * alone
    for one, other in zip(apart, together, strict=True):
        assert (one.cost, one.p_valid, one.status) == (other.cost, other.p_valid, other.status)


@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_of_all_is_found(seed):
    person = person_of(seed)
    advice = advise(person)
    assert advice.cost == pytest.approx(exhaustive(person), abs=1e-5)
    if advice.status == PlanStatus.found:
        assert person.margin(advice.after)[0] >= 0
        moved = {c.node: [*c.values] for c in person.choices}
        assert all(advice.value[j] in moved[j] for j in np.flatnonzero(advice.acted))


def test_a_level_is_met_by_draws_that_the_search_has_not_seen():
    for seed in range(4):
        person = person_of(seed, num_draws=400, level=0.9)
        advice = advise(person)
        if advice.status == PlanStatus.found:
            assert 0.9 <= advice.p_valid <= 1
            assert len(advice.after) == 300
            assert advice.cost >= exhaustive(person, 0.85) - 1e-5
            assert advice.cost <= 1.2 * exhaustive(person, 0.95) + 1e-5
        assert seed != 0 or advice.status == PlanStatus.found


def test_nobody_acts_on_more_than_is_allowed_and_alternatives_differ():
    plans = alternatives(person_of(7), 3)
    sets = [set(np.flatnonzero(plan.acted)) for plan in plans]
    assert len(plans) == 3
    assert all(not a <= b for a in sets for b in sets if a is not b)
    assert [plan.cost for plan in plans] == sorted(plan.cost for plan in plans)
    assert advise(person_of(0, max_acted=1)).acted.sum() <= 1


def test_who_is_favourable_already_does_nothing():
    person = person_of(0)
    pleased = Person(**{**vars(person), "margin": lambda rows: np.ones(len(rows))})
    assert advise(pleased).status == PlanStatus.already_favourable
    hopeless = Person(**{**vars(person), "margin": lambda rows: -np.ones(len(rows))})
    assert advise(hopeless).status == PlanStatus.not_found
    given_up = Person(**{**vars(hopeless), "max_candidates": 200})
    assert advise(given_up).status == PlanStatus.budget


def test_no_room_for_real_numbers_is_no_problem_to_be_posed():
    person = person_of(0, reals=(3,))
    begun = mixed._Candidate(1.0, np.zeros(4), np.array([True, False, False, False]))
    assert mixed._sought(person, [(begun, (3,))], 1, 1.0) == []
    assert mixed._with_reals(Pool(person), person, [begun], frozenset(), 1.0) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_real_numbers_are_found_with_the_others(seed):
    person = person_of(seed, reals=(3,))
    advice, best = advise(person), exhaustive(person)
    assert advice.cost <= best + 1e-3
    if advice.status == PlanStatus.found:
        assert person.margin(advice.after)[0] >= 0
