"""The clauses that every requirement meets; one constructor each."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.recourse import Chance, Nominal, Requirement, Robust
from pcr_jax.recourse.adversary import Ball
from pcr_jax.recourse.problem import per_user
from pcr_jax.recourse.requirements import Case, base
from pcr_jax.recourse.verify import outcomes

REQUIREMENTS = {
    "nominal": Nominal,
    "robust, l2": lambda: Robust(jnp.asarray(0.2)),
    "robust, linf": lambda: Robust(jnp.asarray(0.2), "linf"),
    "robust, closer": lambda: Robust(jnp.asarray(0.2)).closer(3),
    "chance": lambda: Chance(0.9, searched=32),
    "chance, l2": lambda: Chance(0.9, Ball(jnp.asarray(0.2)), searched=32),
}
TRUTH, SCALE = pcr.library.m1(), jnp.array([1.0, 2.0, 0.5])
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
NONE = pcr.Action.empty(3)
DRAWS = pcr.population_of_scms(jax.random.key(3), TRUTH, 64, 0.1)


def score(x):
    return jnp.tanh(x @ jnp.array([1.0, -0.3, 0.4]))


def worlds_of(requirement):
    """Every user's worlds, those that a search sees and those that judge."""
    worlds = per_user(TRUTH, len(X))
    if requirement.over_draws:
        each = (len(X), *DRAWS.batch_shape)
        worlds = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*each, *leaf.shape[1:])), DRAWS)
    return requirement.split(worlds)


def case(requirement, shift, user=0):
    world = jax.tree.map(lambda leaf: leaf[user], worlds_of(requirement)[0])
    return Case(score, world, X[user], pcr.Action.soft(shift), SCALE)


SHIFTS = jnp.asarray(np.random.default_rng(1).normal(size=(12, 3)), jnp.float32)


@pytest.fixture(params=REQUIREMENTS)
def requirement(request):
    return REQUIREMENTS[request.param]()


@pytest.fixture
def traced_values(requirement):
    """The plain logits of shifts, as a solver hands them over."""

    def values(scenarios, which=None):
        some = SHIFTS if which is None else SHIFTS[which]
        each = jax.vmap(lambda s, d: requirement.logit(case(requirement, s), d), (0, None))
        return jax.vmap(each, (None, 0))(some, scenarios)

    return values


def test_it_is_a_requirement_and_a_pytree_of_arrays(requirement):
    assert isinstance(requirement, Requirement)
    leaves, structure = jax.tree.flatten(requirement)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert hash(structure) == hash(jax.tree.structure(requirement))


def test_the_margin_is_what_the_binding_scenario_gives(requirement, traced_values):
    state = requirement.begin(3)
    margin, binding = jax.jit(lambda: requirement.margin(state, traced_values))()
    assert margin.shape == binding.shape == (len(SHIFTS),)
    scenarios = requirement.scenario(state, binding)
    own = jax.vmap(lambda s, d: requirement.logit(case(requirement, s), d))(SHIFTS, scenarios)
    # Of moves that are not favourable anyway it may be known to be so only.
    held = np.asarray(margin >= 0)
    assert held.any()
    np.testing.assert_allclose(margin[held], own[held], rtol=1e-5, atol=1e-6)
    assert (np.asarray(margin - jax.vmap(expected)(SHIFTS)) <= 1e-6).all()


def expected(shift):
    return score(TRUTH.counterfactual(X[0], pcr.Action.soft(shift)))


def test_a_state_that_has_grown_is_met_by_no_more_moves(requirement, traced_values):
    state = requirement.begin(3)
    assert bool(requirement.is_first(state))
    before, _ = requirement.margin(state, traced_values)
    deepest = SHIFTS[jnp.argmax(jax.vmap(expected)(SHIFTS))]

    def value(scenario):
        return requirement.logit(case(requirement, deepest), scenario)

    scenario = requirement.scenario(state, jnp.asarray(0))
    if requirement.grows:
        more = (lambda s: s._replace(more=0.1)) if requirement.over_draws else (lambda s: s + 0.1)
        scenario = more(scenario)
    grown = requirement.add(state, value, scenario, True)
    after, _ = requirement.margin(grown, traced_values)
    assert bool(requirement.is_first(grown)) != requirement.grows
    good = np.asarray(before >= 0)
    assert (np.asarray(after) <= np.asarray(before) + 1e-6)[good].all()
    assert not np.asarray(after >= 0)[~good].any()
    same = requirement.add(state, value, scenario, False)
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_an_attack_settles_what_it_cannot_break_and_adds_what_breaks(requirement):
    state = requirement.begin(3)
    for shift, holds in ((jnp.array([9.0, 0, 0]), True), (jnp.array([-9.0, 0, 0]), False)):
        judged = case(requirement, shift)

        def value(scenario, judged=judged):
            return requirement.logit(judged, scenario)

        grown, settled = requirement.strengthen(state, judged, value, lambda _: jnp.asarray(False))
        assert jax.tree.structure(grown) == jax.tree.structure(state)
        if requirement.ball is not None:
            assert bool(settled) == holds
            assert holds or not bool(requirement.is_first(grown))
        else:
            assert bool(settled)


def test_what_it_takes_is_counted(requirement):
    state = requirement.begin(3)
    assert requirement.spent(state, 7) >= 7
    assert requirement.width(7) >= 7
    assert requirement.spent(state, 14) > requirement.spent(state, 7)


def test_looking_closer_keeps_the_states(requirement):
    closer = requirement.closer(3)
    if closer is None:
        assert not requirement.grows or requirement.over_draws or requirement.outline is not None
        return
    assert isinstance(closer, Requirement)
    assert closer.closer(3) is None
    shapes = [jax.tree.map(jnp.shape, r.begin(3)) for r in (requirement, closer)]
    assert shapes[0] == shapes[1]


def test_verification_is_of_a_users_own_and_never_above_what_is_expected(requirement):
    worlds = worlds_of(requirement)[1]
    action = pcr.Action.soft(jnp.broadcast_to(jnp.array([1.5, 0, 0]), X.shape))
    _, logit = outcomes(jax.tree_util.Partial(score), worlds, X, action, requirement)

    def verify(users):
        some = jax.tree.map(lambda leaf: leaf[users], (worlds, X, action))
        return requirement.verify(
            *(jax.random.key(0), jax.tree_util.Partial(score), *some, SCALE, logit[users]),
            np.ones(len(X[users]), bool),
        )

    found = verify(slice(None))
    assert (np.asarray(found.logit) <= np.asarray(logit) + 1e-6).all()
    np.testing.assert_array_equal(verify(slice(1, 3)).logit, found.logit[1:3])

    def begun(i):
        one = case(requirement, jnp.array([1.5, 0, 0]), i)
        state = requirement.begin(3)
        only = requirement.scenario(state, jnp.asarray(0))
        if requirement.over_draws:
            return requirement.lowest(one, state), requirement.plain(one, state)
        return requirement.lowest(one, state), requirement.logit(one, only)

    lowest, plain = jax.vmap(begun)(jnp.arange(len(X)))
    np.testing.assert_allclose(lowest, plain, rtol=1e-5, atol=1e-6)
    assert requirement.over_draws or (np.asarray(lowest) <= np.asarray(logit) + 1e-5).all()


def test_the_example_works():
    assert doctest.testmod(base).failed == 0
    assert doctest.testmod(base).attempted > 5
