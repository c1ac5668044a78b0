"""Algorithm 1: against a slow loop, in any batch, under constraints, and where it must fail."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax import Action, Algorithm1, Constraints, PlanStatus, find_recourse, library
from pcr_jax.actions import intervention_sets
from pcr_jax.recourse import Cost

# Every test uses these shapes where it can, so that few programs are compiled.
NUM_USERS, HIDDEN = 20, (16, 16)
SCALE = jnp.array([1.0, 1.4, 1.2])
SURROGATE = pcr.linear_surrogate(library.m1().graph)


def random_score(seed=0):
    """A network with random weights, whose decision boundary is curved."""
    rng = np.random.default_rng(seed)
    layers = {}
    for i, (n, m) in enumerate([(3, 16), (16, 16), (16, 1)]):
        kernel = rng.normal(size=(n, m)) * (1.5 if i < 2 else 2.5) / np.sqrt(n)
        layers[f"Dense_{i}"] = {"kernel": kernel, "bias": 0.3 * rng.normal(size=m)}
    layers = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {"params": layers})
    return pcr.Classifier(pcr.MLP(HIDDEN), layers, jnp.array([0.1, 0.0, -0.2]), SCALE)


SCORE = random_score()


@cache
def population(scm_name):
    """2,000 users and their logits."""
    x = library.get(scm_name).sample(jax.random.key(0), 2000)
    return x, np.asarray(SCORE(x))


def refused(scm_name, num_users=NUM_USERS):
    x, logits = population(scm_name)
    return x[np.flatnonzero(logits < 0)[:num_users]]


X = refused("m1")


def solve(score=SCORE, scm=None, x=X, **settings):
    """`find_recourse` by Algorithm 1, never with NaN in an action or a counterfactual."""
    settings = {"solver": "paper", "digits": None, **settings}
    plan = find_recourse(score, library.m1() if scm is None else scm, x, scale=SCALE, **settings)
    assert np.isfinite(plan.action.value).all()
    assert np.isfinite(plan.x_counterfactual).all()
    assert not np.isnan(plan.cost).any()
    # What is valid has a cost, and nothing else has; what is robust is found.
    valid, met = np.asarray(plan.valid), np.asarray(plan.robust_valid)
    np.testing.assert_array_equal(np.isfinite(plan.cost), valid)
    good = np.isin(plan.status, [PlanStatus.found, PlanStatus.already_favourable])
    np.testing.assert_array_equal(good, met)
    np.testing.assert_array_equal(plan.status == PlanStatus.not_robust, valid & ~met)
    assert not np.asarray(plan.action.intervened)[~valid].any()
    assert not np.asarray(plan.robust_valid & ~plan.valid).any()
    return plan


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def some(tree, users):
    return jax.tree.map(lambda leaf: leaf[users], tree)


# A second implementation, in double precision, for one user and one action at a time. Derivatives
# are by hand. A perturbation and a soft action both add to the noise, so that
# CF(CF(x, Delta), a) = predict(abduct(x) + Delta + a).


class LinearByHand:
    def __init__(self, coefficients):
        t21, t31, t32 = np.asarray(coefficients, float)
        self.theta = np.array([[0, 0, 0], [t21, 0, 0], [t31, t32, 0]])

    def abduct(self, x):
        return x - self.theta @ x

    def predict(self, u):
        """The features, and their derivative with respect to the noise."""
        jacobian = np.linalg.inv(np.eye(3) - self.theta)
        return jacobian @ u, jacobian


class M3ByHand:
    def abduct(self, x):
        return x - np.array([0, -1 + 3 / (1 + np.exp(-2 * x[0])), -0.05 * x[0] + 0.25 * x[1] ** 2])

    def predict(self, u):
        sigmoid = 1 / (1 + np.exp(-2 * u[0]))
        x2 = -1 + 3 * sigmoid + u[1]
        slope = 6 * sigmoid * (1 - sigmoid)
        jacobian = np.array([[1, 0, 0], [slope, 1, 0], [-0.05 + 0.5 * x2 * slope, 0.5 * x2, 1]])
        return np.array([u[0], x2, -0.05 * u[0] + 0.25 * x2**2 + u[2]]), jacobian


LOC_BY_HAND, SCALE_BY_HAND = np.asarray(SCORE.loc, float), np.asarray(SCALE, float)
LAYERS_BY_HAND = jax.tree.map(
    lambda leaf: np.asarray(leaf, float), [SCORE.params["params"][f"Dense_{i}"] for i in range(3)]
)


def logit_by_hand(x):
    """SCORE at ``x`` (3,), and its gradient."""
    z = (x - LOC_BY_HAND) / SCALE_BY_HAND
    derivative = np.diag(1 / SCALE_BY_HAND)
    for i, layer in enumerate(LAYERS_BY_HAND):
        z = z @ layer["kernel"] + layer["bias"]
        derivative = derivative @ layer["kernel"]
        if i < 2:
            z = np.tanh(z)
            derivative = derivative * (1 - z**2)
    return z[0], derivative[:, 0]


def slow_search(scm, x, members, epsilon, rate, optimiser, num_outer, num_inner, decay):
    """Algorithm 1 for one user and one set; the shift in units of the scale, or None."""
    noise = scm.abduct(np.asarray(x, float))

    def bce(shift):
        """The logit, and the gradient of -log sigmoid(logit)."""
        features, jacobian = scm.predict(noise + shift * SCALE_BY_HAND)
        logit, slope = logit_by_hand(features)
        return logit, -1 / (1 + np.exp(logit)) * (slope @ jacobian) * SCALE_BY_HAND

    shift, first, second = np.zeros(3), np.zeros(3), np.zeros(3)
    for k in range(num_outer * num_inner + 1):
        logit, gradient = bce(shift)
        attacked = logit
        if epsilon:
            norm = np.linalg.norm(gradient)
            delta = epsilon * gradient / norm if norm else np.zeros(3)
            attacked, gradient = bce(shift + delta)
        if logit >= 0 and attacked >= 0:
            return shift
        penalty = decay ** (k // num_inner)
        gradient = members * (gradient + penalty * np.sign(shift))
        if optimiser == "adam":
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            corrected = second / (1 - 0.999 ** (k + 1))
            gradient = first / (1 - 0.9 ** (k + 1)) / (np.sqrt(corrected) + 1e-8)
        shift = shift - rate * gradient
    return None


M1_BY_HAND = LinearByHand([-0.99, 0.99, 0.99])


@pytest.mark.parametrize(
    ("scm", "by_hand", "epsilon", "settings"),
    [
        ("m1", M1_BY_HAND, 0.0, Algorithm1()),
        ("m1", M1_BY_HAND, 0.1, Algorithm1()),
        pytest.param("m3", M3ByHand(), 0.1, Algorithm1(), marks=pytest.mark.slow),
        ("m1", M1_BY_HAND, 0.1, Algorithm1("sgd", 3, 4, 0.5)),
    ],
    ids=["linear", "linear, attacked", "m3, attacked", "linear, attacked, sgd"],
)
def test_algorithm_1_agrees_with_a_slow_loop_over_users_and_sets(scm, by_hand, epsilon, settings):
    x, rates = refused(scm), np.resize([0.5, 0.1, 0.25], NUM_USERS)
    plan = solve(scm=library.get(scm), x=x, epsilon=epsilon, solver=settings, learning_rate=rates)
    same = []
    for i in range(10):
        shifts = {}
        for members in intervention_sets(3):
            shift = slow_search(
                by_hand, x[i], members, epsilon, float(rates[i]), *vars(settings).values()
            )
            if shift is not None:
                shifts[tuple(members)] = shift
        shift = np.asarray(plan.action.value[i] / SCALE)
        chosen = shifts.get(tuple(shift != 0), np.zeros(3))
        cheapest = min([np.abs(s).sum() for s in shifts.values()], default=np.inf)
        # Sets that are valid after one step of Adam cost the same, the learning rate.
        same.append(np.allclose([*shift, plan.cost[i]], [*chosen, cheapest], rtol=1e-3, atol=1e-4))
    # Single precision moves Adam's steps by some 1e-5 of their length; hundreds of steps across a
    # curved boundary make more of that, and a crossing can move by a whole step. The twelve plain
    # gradient steps are exact, one user's crossing with the last of them included.
    assert np.sum(same) >= (9 if settings.optimiser == "adam" else 10)


def test_verification_agrees_with_the_slow_arithmetic():
    plan = solve(epsilon=0.1)
    for i in range(NUM_USERS):
        shift = np.asarray(plan.action.value[i])
        features, _ = M1_BY_HAND.predict(M1_BY_HAND.abduct(np.asarray(X[i], float)) + shift)
        np.testing.assert_allclose(plan.x_counterfactual[i], features, rtol=1e-5, atol=1e-5)
        assert bool(plan.valid[i]) == (logit_by_hand(features)[0] >= 0)
        np.testing.assert_allclose(plan.cost[i], np.abs(shift / SCALE).sum(), rtol=1e-6)


def test_a_robust_plan_survives_thousands_of_fresh_perturbations_and_others_may_not():
    """Coded apart from the library: on the surface of the ball and uniform within it."""
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(2000, 3))
    delta *= 0.5 / np.linalg.norm(delta, axis=1, keepdims=True)
    delta[1000:] *= rng.random((1000, 1)) ** (1 / 3)
    plan = solve(epsilon=0.5, learning_rate=0.1)
    worst = np.zeros(NUM_USERS)
    for i in range(NUM_USERS):
        noise = M1_BY_HAND.abduct(np.asarray(X[i], float)) + np.asarray(plan.action.value[i])
        moved = noise + delta * SCALE_BY_HAND
        worst[i] = min(logit_by_hand(M1_BY_HAND.predict(u)[0])[0] for u in moved)
    robust = np.asarray(plan.robust_valid)
    assert 5 <= robust.sum() <= 15
    assert (worst[robust] >= -1e-4).all()  # the rounding of logits and of the attack's last step
    assert (worst[plan.valid & ~robust] < 0).mean() > 0.5


def test_an_action_is_valid_unperturbed_too_where_the_attack_overshoots():
    """Across a steep hump the one-step attack can lead to the favourable side."""
    layers = SCORE.params["params"]
    first = jax.tree.map(lambda leaf: 8 * leaf, layers["Dense_0"])
    steep = pcr.Classifier(SCORE.module, {"params": {**layers, "Dense_0": first}}, SCORE.loc, SCALE)

    @jax.jit
    @jax.vmap
    def perturbed(delta, x):
        return steep(library.m1().counterfactual(x, Action.soft(delta * SCALE)))

    x, _ = population("m1")
    centre = jnp.zeros(x.shape)
    downhill = -np.asarray(jax.grad(lambda delta: perturbed(delta, x).sum())(centre))
    delta = 0.3 * downhill / np.linalg.norm(downhill, axis=1, keepdims=True)
    overshot = (perturbed(centre, x) < 0) & (perturbed(delta, x) >= 0)
    assert overshot.any()
    deceived = np.resize(np.flatnonzero(overshot), NUM_USERS)
    plan = solve(steep, x=x[deceived], epsilon=0.3)
    assert not (np.asarray(plan.status) == PlanStatus.already_favourable).any()
    assert np.asarray(plan.action.intervened).any(1)[np.asarray(plan.valid)].all()


# Batches.

RNG = np.random.default_rng(1)
NUM_CROWD = 500
CROWD = refused("m1", NUM_CROWD)
THETAS = jnp.asarray(RNG.uniform(-1, 1, (NUM_CROWD, 3)), jnp.float32)
PLACES = RNG.permutation(NUM_CROWD)[:NUM_USERS]


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("own_scm", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_user_gets_the_same_plan_alone_and_in_a_crowd(epsilon, own_scm):
    """Bitwise. The crowd has more problems than are advanced at once."""
    scms = jax.vmap(SURROGATE.scm)(THETAS) if own_scm else library.m1()
    here = some(scms, PLACES) if own_scm else scms
    rates = np.resize([0.1, 0.5, 1.0], NUM_CROWD)
    crowd = solve(scm=scms, x=CROWD, epsilon=epsilon, learning_rate=rates)
    few = solve(scm=here, x=CROWD[PLACES], epsilon=epsilon, learning_rate=rates[PLACES])
    assert_same(few, some(crowd, PLACES))
    assert np.asarray(few.valid).any()
    if epsilon and not own_scm:  # one compilation more: those with the longest searches, alone
        slow = PLACES[rates[PLACES] == 0.1]
        for i in slow[:, None]:
            one = solve(x=CROWD[i], epsilon=epsilon, learning_rate=rates[i])
            assert_same(one, some(crowd, i))


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_one_scm_for_all_is_the_same_as_a_copy_for_each(epsilon):
    copies = jax.vmap(SURROGATE.scm)(jnp.full((NUM_USERS, 3), jnp.array([-0.99, 0.99, 0.99])))
    assert_same(solve(epsilon=epsilon), solve(scm=copies, epsilon=epsilon))


def test_permuting_users_permutes_plans_and_a_second_call_repeats_the_first():
    plan, order = solve(epsilon=0.1), np.arange(NUM_USERS)[::-1]
    assert_same(solve(epsilon=0.1), plan)
    assert_same(solve(x=X[order], epsilon=0.1), some(plan, order))


def test_a_bad_neighbour_changes_nobody_elses_plan():
    thetas = THETAS[:NUM_USERS]
    plan = solve(scm=jax.vmap(SURROGATE.scm)(thetas), epsilon=0.1)
    broken = thetas.at[3].set(jnp.nan).at[5, 1].set(jnp.inf).at[7, 0].set(jnp.nan)
    partly = solve(scm=jax.vmap(SURROGATE.scm)(broken), epsilon=0.1)
    gone = np.isin(np.arange(NUM_USERS), [3, 5, 7])
    assert (np.asarray(partly.status)[gone] == PlanStatus.no_model).all()
    assert not np.asarray(partly.valid | partly.robust_valid)[gone].any()
    assert_same(some(partly, ~gone), some(plan, ~gone))


# Constraints.


def check_constraints(plan, x, constraints):
    shift = np.asarray(plan.action.value)
    after = np.asarray(x) + shift

    def field(name, default):
        value = getattr(constraints, name)
        return np.broadcast_to(default if value is None else value, shift.shape)

    moved = shift != 0
    assert not moved[~field("actionable", True)].any()
    assert not (shift < 0)[field("increase_only", False)].any()
    assert not (shift > 0)[field("decrease_only", False)].any()
    # To the rounding of x + shift.
    assert (after >= field("lower", -np.inf) - 1e-6)[moved].all()
    assert (after <= field("upper", np.inf) + 1e-6)[moved].all()


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(increase_only=[True, True, False], decrease_only=[False, False, True]),
        Constraints(lower=X - 1.0, upper=X + jnp.linspace(0, 2, NUM_USERS)[:, None]),
        Constraints(
            actionable=RNG.random(X.shape) < 0.7,
            increase_only=RNG.random(X.shape) < 0.3,
            decrease_only=RNG.random(X.shape) < 0.3,
            upper=X + jnp.array([0.5, 1.0, 2.0]),
        ),
    ],
    ids=["directions", "bounds", "all of them, by user"],
)
def test_no_action_leaves_what_the_constraints_allow(constraints, epsilon):
    plan, free = solve(epsilon=epsilon, constraints=constraints), solve(epsilon=epsilon)
    check_constraints(plan, X, constraints)
    assert np.asarray(plan.valid).any()
    # Not vacuous: some unconstrained actions do leave them.
    with pytest.raises(AssertionError):
        check_constraints(free, X, constraints)


def test_immutable_nodes_stay_and_smaller_sets_can_be_asked_for():
    constraints = Constraints(actionable=[True, False, True])
    plan = solve(constraints=constraints)
    check_constraints(plan, X, constraints)
    assert np.asarray(plan.action.intervened)[:, [0, 2]].any(0).all()
    single = solve(max_set_size=1)
    assert (np.asarray(single.action.intervened).sum(1) <= 1).all()
    everything = solve()
    assert (np.asarray(everything.cost) <= np.asarray(single.cost) + 1e-6).all()


def test_a_constraint_on_one_user_leaves_the_others_alone():
    upper = jnp.full(X.shape, jnp.inf).at[4].set(X[4])
    plan, free = solve(constraints=Constraints(upper=upper)), solve()
    others = np.arange(NUM_USERS) != 4
    assert_same(some(plan, others), some(free, others))
    assert (np.asarray(plan.action.value[4]) <= 0).all()


def test_actions_may_reach_a_bound_and_those_it_stops_short_of_are_not_found():
    reach = solve(learning_rate=0.1)
    i = int(np.argmax(np.asarray(reach.action.intervened).sum(1) == 1))
    node = int(np.argmax(np.asarray(reach.action.intervened[i])))
    only = np.arange(3) == node
    target = X[i, node] + reach.action.value[i, node]
    for slack, status in ((1e-3, PlanStatus.found), (-1e-3, PlanStatus.not_found)):
        ends = jnp.stack([X[i, node], target + slack * jnp.sign(target - X[i, node])])
        constraints = Constraints(
            actionable=jnp.where(jnp.arange(NUM_USERS)[:, None] == i, only, True),
            lower=jnp.full(X.shape, -jnp.inf).at[i, node].set(ends.min()),
            upper=jnp.full(X.shape, jnp.inf).at[i, node].set(ends.max()),
        )
        plan = solve(constraints=constraints, learning_rate=1e-3 if slack < 0 else 0.1)
        assert plan.status[i] == status, slack


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(actionable=[False] * 3), "constraints.*none actionable"),
        (Constraints(increase_only=True, decrease_only=True), "constraints.*none actionable"),
        (Constraints(lower=X, upper=X), "constraints.*none actionable"),
        (Constraints(upper=[-10.0, jnp.inf, jnp.inf]), "constraints.lower <= x <= constraints.up"),
        (Constraints(lower=X + 1), "constraints.lower <= x <= constraints.upper.*present value"),
        (Constraints(lower=jnp.zeros((3, 3))), "constraints.lower of shape"),
    ],
)
def test_constraints_that_allow_nothing_or_contradict_the_present_raise(constraints, message):
    with pytest.raises(ValueError, match=message):
        find_recourse(SCORE, library.m1(), X, scale=SCALE, constraints=constraints, solver="paper")


# Where there is nothing to find.


def constant(logit):
    zeros = jax.tree.map(jnp.zeros_like, SCORE.params)
    zeros["params"]["Dense_2"]["bias"] += logit
    return pcr.Classifier(SCORE.module, zeros, SCORE.loc, SCORE.scale)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_whoever_is_favourable_already_is_left_alone(epsilon):
    plan = solve(constant(1.0), epsilon=epsilon)
    assert (np.asarray(plan.status) == PlanStatus.already_favourable).all()
    assert np.asarray(plan.valid & plan.robust_valid).all()
    assert not np.asarray(plan.cost).any()
    np.testing.assert_allclose(plan.x_counterfactual, X, atol=1e-6)
    # Among others, too.
    x, logits = population("m1")
    plan, good = solve(x=x[:NUM_USERS], epsilon=epsilon), logits[:NUM_USERS] >= 0
    already = np.isin(plan.status, [PlanStatus.already_favourable, PlanStatus.not_robust])
    already &= ~np.asarray(plan.action.intervened).any(1)
    assert 0 < good.sum() < NUM_USERS
    assert not already[~good].any()
    if epsilon:  # those near the boundary have to move away from it
        assert already.any()
        assert not already[good & np.asarray(plan.action.intervened).any(1)].any()
    else:
        np.testing.assert_array_equal(already, good)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_score_without_gradient_is_reported_as_such(epsilon):
    plan = solve(constant(-1.0), epsilon=epsilon)
    assert (np.asarray(plan.status) == PlanStatus.zero_gradient).all()
    np.testing.assert_allclose(plan.x_counterfactual, X, atol=1e-6)
    # Saturated, as the released code's classifiers: wherever the gradient underflows.
    steep = jax.tree.map(lambda leaf: 300 * leaf, SCORE.params)
    saturated = pcr.Classifier(SCORE.module, steep, SCORE.loc, SCORE.scale)
    x, _ = population("m1")
    x = x[np.flatnonzero(saturated(x) < 0)[:NUM_USERS]]
    plan = solve(saturated, x=x, epsilon=epsilon)
    flat = (np.asarray(jax.vmap(jax.grad(saturated))(x)) == 0).all(1)
    assert flat.any()
    if not epsilon:
        np.testing.assert_array_equal(np.asarray(plan.status) == PlanStatus.zero_gradient, flat)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_what_cannot_be_reached_is_not_found(epsilon):
    plan = solve(epsilon=epsilon, constraints=Constraints(lower=X - 1e-3, upper=X + 1e-3))
    unreachable = np.asarray(SCORE(X)) < -0.1
    assert unreachable.sum() > NUM_USERS / 2
    assert (np.asarray(plan.status)[unreachable] == PlanStatus.not_found).all()


def test_a_gradient_that_only_the_constraints_block_is_not_called_zero():
    @jax.jit
    @jax.vmap
    @jax.grad
    def gradient(shift, x):
        return SCORE(library.m1().counterfactual(x, Action.soft(shift)))

    uphill = gradient(jnp.zeros(X.shape), X)
    assert np.asarray(uphill != 0).any(1).all()
    plan = solve(constraints=Constraints(increase_only=uphill < 0, decrease_only=uphill > 0))
    assert (np.asarray(plan.status) == PlanStatus.not_found).all()


def defined_beyond(x):
    """The same up to there, and favourable beyond."""
    beyond = 5.0 * (x[0] > 0.5)
    return x[0] + x[1] + 0.3 * x[2] ** 2 - jnp.sqrt(jnp.abs(0.5 - x[0])) + beyond


def undefined_beyond(x):
    """NaN, with its gradient, where X1 > 0.5."""
    return x[0] + x[1] + 0.3 * x[2] ** 2 - jnp.sqrt(0.5 - x[0])


@pytest.mark.parametrize("solver", ["paper", pytest.param("optimal", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_score_that_is_nan_somewhere_never_passes_for_favourable(solver):
    x = population("m1")[0]
    x = x[np.flatnonzero(x[:, 0] < 0.5)[:NUM_USERS]]
    plan = solve(undefined_beyond, x=x, epsilon=0.1, solver=solver)
    acts = np.asarray(plan.action.intervened).any(1)
    assert acts.any()
    after = np.asarray(plan.x_counterfactual)[np.asarray(plan.valid)]
    assert (after[:, 0] <= 0.5).all()
    # Not vacuous: without the hole some would be led there.
    free = solve(defined_beyond, x=x, epsilon=0.1, solver=solver)
    assert (np.asarray(free.x_counterfactual)[np.asarray(free.valid), 0] > 0.5).any()


# Misuse.

GOOD = {"score": SCORE, "worlds": library.m1(), "x": X, "scale": SCALE, "solver": "paper"}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": X.at[2, 1].set(jnp.nan)}, ValueError, "finite values for x; got 1"),
        ({"x": X.at[2].set(jnp.inf)}, ValueError, "finite values for x; got 3"),
        ({"x": X[:, :2]}, ValueError, r"matching \(3,\) for x; got shape \(20, 2\)"),
        ({"x": X[0]}, ValueError, r"x of shape \(num_users, num_nodes\); got shape \(3,\)"),
        ({"x": X[:0]}, ValueError, "at least one user in x"),
        ({"scale": jnp.array([1.0, 0.0, 1.0])}, ValueError, "scale > 0"),
        ({"scale": jnp.array([1.0, -1.0, 1.0])}, ValueError, "scale > 0"),
        ({"scale": jnp.array([1.0, jnp.nan, 1.0])}, ValueError, "scale > 0"),
        ({"scale": 1.0}, ValueError, r"scale of shape \(3,\); got \(\)"),
        ({"scale": jnp.ones((NUM_USERS, 3))}, ValueError, r"scale of shape \(3,\)"),
        ({"epsilon": -0.1}, ValueError, "epsilon >= 0"),
        ({"epsilon": jnp.nan}, ValueError, "epsilon >= 0"),
        ({"epsilon": jnp.full(NUM_USERS, 0.1)}, ValueError, r"epsilon of shape \(\)"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate > 0"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate > 0"),
        ({"learning_rate": jnp.nan}, ValueError, "learning_rate > 0"),
        ({"learning_rate": jnp.ones(3)}, ValueError, r"learning_rate of shape \(\) or \(20,\)"),
        ({"solver": "optimall"}, ValueError, "solver to be one of"),
        ({"score": 3.0}, TypeError, "score to be callable"),
        ({"score": lambda x: x}, ValueError, r"score .* logit of shape \(\); got \(3,\)"),
        ({"score": lambda x: (x[0], x[1])}, ValueError, r"score .* logit of shape \(\)"),
        ({"worlds": jax.vmap(SURROGATE.scm)(THETAS[:7])}, ValueError, r"20 users.*shape \(7,\)"),
        ({"max_set_size": 0}, ValueError, "max_set_size"),
    ],
)
def test_misuse_raises_before_anything_is_computed_and_names_the_argument(wrong, error, message):
    with pytest.raises(error, match=message):
        find_recourse(**{**GOOD, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": "adamw"}, "optimiser"),
        ({"num_outer": 0}, "num_outer"),
        ({"num_inner": 2.5}, "num_inner"),
        ({"decay": 1.5}, "decay"),
    ],
)
def test_settings_of_algorithm_1_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        Algorithm1(**wrong)


def test_cost_counts_soft_shifts_and_hard_distances_in_units_of_the_scale():
    x, scale = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 0.5])
    soft, hard = Action.soft([1.0, -2.0, 0.0]), Action.do([0, 0, 5], [True, False, True])
    l1, l2 = (Cost(scale, jnp.ones(3), norm) for norm in ("l1", "l2"))
    np.testing.assert_allclose(l1(soft, x), 1.0)
    np.testing.assert_allclose(l1(hard, x), 4.5)
    np.testing.assert_allclose(l2(soft, x), np.sqrt(0.5))
    np.testing.assert_allclose(l2(hard, x), np.sqrt(0.25 + 16))
    weighted = Cost(scale, jnp.array([3.0, 2.0, 1.0]), "l1")
    np.testing.assert_allclose(weighted(soft, x), 2.5)
    np.testing.assert_allclose(weighted(hard, x), 5.5)


def test_a_plan_prints_its_statuses():
    plan = solve(constant(-1.0))
    assert repr(plan) == f"Plan({NUM_USERS} users: {NUM_USERS} zero_gradient)"
    assert plan.status_counts()["found"] == 0
