"""The optimal solver: against closed forms, brute force and an attack of its own; in any batch."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import curved_network, linear_network, network

import pcr_jax as pcr
from benchmarks.quality import brute_force
from pcr_jax import Constraints, Optimal, PlanStatus, find_recourse, library
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.optimal.moves import Moves
from pcr_jax.recourse.search import Task

# Every test uses these shapes where it can, so that few programs are compiled: all scores below
# are networks of one form, and all SCMs linear ones on the graph of M1.
NUM_USERS, NUM_CROWD = 20, 500
SCALE = np.array([1.0, 1.4, 1.2], np.float32)
M1, GRAPH = library.m1(), library.m1().graph
FREE = pcr.non_causal(GRAPH)
THETA = np.array([[0, 0, 0], [-0.99, 0, 0], [0.99, 0.99, 0]])
EFFECTS = np.linalg.inv(np.eye(3) - THETA)


def island(centre, half):
    """Favourable in a box; exactly flat everywhere but for its faces."""
    sides = np.repeat(np.eye(3), 2, axis=1)
    ends = np.stack([centre - half, centre + half], 1).ravel()
    first = (300 * sides, -300 * ends)
    return network(first, (4 * np.resize([1, -1], 6)[:, None], [-20]), ([[1]], [0]))


def steep(score, factor=1e4):
    """The same network, saturated: its gradient is exactly 0 almost everywhere."""
    params = jax.tree.map(lambda leaf: factor * leaf, score.params)
    return pcr.Classifier(score.module, params, score.loc, score.scale)


def constant(logit):
    return network(([[0]], [0]), ([[0]], [0]), ([[0]], [logit]))


SCORE = curved_network(SCALE)


@cache
def population():
    return M1.sample(jax.random.key(0), 3000)


def refused(score=SCORE, num_users=NUM_USERS):
    x = population()
    return x[np.flatnonzero(np.asarray(score(x)) < 0)[:num_users]]


X = refused()


def solve(score=SCORE, scm=M1, x=X, scale=SCALE, **settings):
    """`find_recourse`; what it says must hold together, and nothing is NaN."""
    plan = find_recourse(score, scm, x, scale=scale, **settings)
    for array in (plan.action.value, plan.x_counterfactual):
        assert np.isfinite(array).all()
    acts = np.asarray(plan.action.intervened).any(1)
    found, already = (np.asarray(plan.status) == s for s in (PlanStatus.found, 1))
    np.testing.assert_array_equal(plan.robust_valid, found | already)
    np.testing.assert_array_equal(np.isfinite(plan.cost), plan.valid)
    assert acts[found].all()
    assert not acts[already].any()
    assert not acts[~np.asarray(plan.valid)].any()
    np.testing.assert_array_equal(plan.x_counterfactual[~acts], x[~acts])
    assert not np.isnan(plan.cost).any()
    assert not np.asarray(plan.robust_valid & ~plan.valid).any()
    return plan


def moves(plan, x=X):
    """Moves of the features intervened on, in units of the scale, soft or hard."""
    value = np.asarray(plan.action.value)
    return np.where(plan.action.hard, value - np.asarray(x), value) / SCALE


def some(tree, users):
    return jax.tree.map(lambda leaf: leaf[users], tree)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_near_optimum(cost, best, allowance=0.0):
    """Found where it exists; mean ratio at most 1.005, nobody's more than 1.02; never below.

    ``allowance`` (n,): what a robust action may cost more, for the ball that is searched is 0.5 %
    wider.
    """
    cost, best = np.asarray(cost, float), np.asarray(best, float)
    np.testing.assert_array_equal(np.isfinite(cost), np.isfinite(best))
    there = np.isfinite(best) & (best > 0)
    assert there.any()
    assert (cost[best == 0] == 0).all()
    top = (best + allowance)[there]
    assert (cost[there] >= best[there] * (1 - 1e-3) - 1e-4).all()
    # Close to the boundary rounding of the logit is a larger part of the cost.
    assert (cost[there] <= 1.02 * top + 1e-3).all()
    assert cost[there].mean() <= 1.005 * top.mean() + 1e-4


# Closed forms. The logit of a linear score rises by ``slope @ move``.


def cheapest_linear(need, slope, weights, low, high, norm):
    """Least norm of ``weights * move`` with ``slope @ move >= need``; infinite if there is none."""
    if need <= 0:
        return 0.0
    reach = np.where(slope > 0, slope * high, slope * low)  # the most that each node can give
    if np.where(slope == 0, 0, reach).sum() < need:
        return np.inf
    if norm == "l1":  # a fractional knapsack: the best value for money first
        cost = 0.0
        for j in np.argsort(-np.abs(slope) / weights):
            part = min(reach[j], need)
            cost, need = cost + weights[j] * part / abs(slope[j]), need - part
            if need <= 0:
                return cost
    below, above = 0.0, 1e6  # the multiplier of need, by bisection
    for _ in range(100):
        middle = (below + above) / 2
        move = np.clip(middle * slope / weights**2, low, high)
        below, above = (below, middle) if slope @ move >= need else (middle, above)
    return np.linalg.norm(weights * move)


SLOPES = np.array([[1.0, -0.5, 0.3], [-0.4, 0.9, 0.8], [0.05, 0.02, -1.2], [-0.7, -0.69, 0.71]])
BIAS = -1.0


def weight_of(slope):
    """Of the score whose logit rises by ``slope`` per unit of the scale."""
    return slope / SCALE @ np.linalg.inv(EFFECTS)


SOME = np.random.default_rng(1)
ANYBODY = (0.5 * SOME.normal(size=(NUM_USERS, 3)) * SCALE).astype(np.float32)
WEIGHTS = SOME.uniform(0.3, 3.0, (NUM_USERS, 3))
ROOM = SOME.uniform(0.1, 2.0, (2, NUM_USERS, 3)) * SCALE
BOUNDS = {"lower": ANYBODY - ROOM[0], "upper": ANYBODY + ROOM[1]}
CASES = {
    "free": (Constraints(), None),
    "weights of all": (Constraints(), np.array([1.0, 4.0, 0.5])),
    "own weights": (Constraints(), WEIGHTS),
    "bounds": (Constraints(**BOUNDS), None),
    "directions": (
        Constraints(increase_only=[True, False, False], decrease_only=[False, False, True]),
        None,
    ),
    "all of them": (
        Constraints(
            actionable=SOME.random((NUM_USERS, 3)) < 0.8,
            increase_only=SOME.random((NUM_USERS, 3)) < 0.3,
            **BOUNDS,
        ),
        WEIGHTS,
    ),
}


def closed_form(slope, case, norm="l1", margin=0.0, size=3):
    constraints, weights = CASES[case]
    low, high = (np.asarray(b, float) / SCALE for b in constraints.shift_bounds(ANYBODY))
    weights = np.broadcast_to(1.0 if weights is None else weights, low.shape)
    need = margin - (ANYBODY @ weight_of(slope) + BIAS)
    sets = [s for s in pcr.intervention_sets(3) if s.sum() <= size]
    return np.array(
        [
            min(
                cheapest_linear(n, slope, w, np.where(s, lo, 0), np.where(s, hi, 0), norm)
                for s in sets
            )
            for n, w, lo, hi in zip(need, weights, low, high, strict=True)
        ]
    )


def check_bounds(plan, constraints):
    low, high = (np.asarray(b) / SCALE for b in constraints.shift_bounds(ANYBODY))
    move = moves(plan, ANYBODY)
    assert (move >= low - 1e-6).all()
    assert (move <= high + 1e-6).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_optimum_of_a_linear_score_is_found(norm, case):
    constraints, weights = CASES[case]
    for slope in SLOPES:
        plan = solve(
            linear_network(weight_of(slope), BIAS),
            x=ANYBODY,
            cost=norm,
            weights=weights,
            constraints=constraints,
        )
        best = closed_form(slope, case, norm)
        check_bounds(plan, constraints)
        assert_near_optimum(plan.cost, best)
        paid = np.abs(moves(plan, ANYBODY) * (1 if weights is None else weights))
        paid = paid.sum(1) if norm == "l1" else np.linalg.norm(paid, axis=1)
        found = np.isfinite(best)
        np.testing.assert_allclose(np.asarray(plan.cost)[found], paid[found], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [pytest.param("free", marks=pytest.mark.slow), "all of them"])
@pytest.mark.parametrize("norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)])
def test_the_robust_optimum_of_a_linear_score_is_found(norm, case):
    """A ball lowers the logit by epsilon times the dual norm of the slope."""
    constraints, weights = CASES[case]
    for slope, epsilon in zip(SLOPES, (0.05, 0.1, 0.3, 0.5), strict=True):
        margin = epsilon * np.linalg.norm(slope, 2 if norm == "l2" else 1)
        plan = solve(
            linear_network(weight_of(slope), BIAS),
            x=ANYBODY,
            weights=weights,
            constraints=constraints,
            epsilon=epsilon,
            norm=norm,
        )
        check_bounds(plan, constraints)
        best = closed_form(slope, case, margin=margin)
        wider = closed_form(slope, case, margin=1.006 * margin)
        clear = np.isfinite(best) == np.isfinite(wider)  # not reachable by a hair
        assert clear.mean() > 0.8
        robust = np.asarray(plan.robust_valid)
        np.testing.assert_array_equal(robust[clear], np.isfinite(best)[clear])
        cost = np.where(robust, plan.cost, np.inf)[clear]
        best, wider = best[clear], wider[clear]
        extra = np.subtract(wider, best, where=np.isfinite(best), out=np.zeros(len(best)))
        assert_near_optimum(cost, best, extra)


def test_no_more_features_are_moved_than_asked_for():
    most = []
    for slope in SLOPES:
        plan = solve(
            linear_network(weight_of(slope), BIAS),
            x=ANYBODY,
            max_set_size=2,
            weights=CASES["all of them"][1],
            constraints=CASES["bounds"][0],
        )
        most.append(np.asarray(plan.action.intervened).sum(1).max())
        low, high = (np.asarray(b) / SCALE for b in CASES["bounds"][0].shift_bounds(ANYBODY))
        need = -(ANYBODY @ weight_of(slope) + BIAS)
        best = [
            min(
                cheapest_linear(n, slope, w, np.where(s, lo, 0), np.where(s, hi, 0), "l1")
                for s in pcr.intervention_sets(3, 2)
            )
            for n, w, lo, hi in zip(need, WEIGHTS, low, high, strict=True)
        ]
        assert_near_optimum(plan.cost, best)
    assert max(most) == 2


def hard_slopes(weight):
    """Slopes of the logit under hard interventions on every set, per unit of the scale."""
    for members in pcr.intervention_sets(3):
        cut = np.where(members[:, None], 0.0, THETA)
        yield members, weight @ np.linalg.inv(np.eye(3) - cut) * SCALE * members


@pytest.mark.parametrize("slope", SLOPES)
def test_the_optimum_over_hard_interventions_is_found(slope):
    """To hold a feature at (next to) its present value costs next to nothing and can help."""
    weight = weight_of(slope)
    plan = solve(linear_network(weight, BIAS), x=ANYBODY, intervention="hard")
    hard = np.asarray(plan.action.hard)
    np.testing.assert_array_equal(plan.action.intervened, hard)
    need = -(ANYBODY @ weight + BIAS)
    best = np.maximum(need, 0) / max(np.abs(s).max() for _, s in hard_slopes(weight))
    assert_near_optimum(plan.cost, best)
    for i in np.flatnonzero(hard.any(1)):
        np.testing.assert_allclose(
            plan.x_counterfactual[i][hard[i]], plan.action.value[i][hard[i]], rtol=1e-6
        )
        slopes = next(s for members, s in hard_slopes(weight) if (members == hard[i]).all())
        assert slopes @ moves(plan, ANYBODY)[i] == pytest.approx(need[i], rel=0.02, abs=2e-3)


# Curved scores.


@pytest.mark.parametrize(
    "settings",
    [{}, {"cost": "l2"}, {"intervention": "hard"}],
    ids=["soft, L1", "soft, L2", "hard, L1"],
)
def test_no_action_of_a_dense_search_is_cheaper(settings):
    few = 16
    plan = solve(**settings)
    best = brute_force.cheapest(
        SCORE,
        M1,
        np.asarray(X[:few]),
        SCALE,
        norm=settings.get("cost", "l1"),
        hard=settings.get("intervention") == "hard",
        resolution=16,
    )
    cost = np.asarray(plan.cost)[:few]
    assert np.isfinite(best).all()
    assert np.isfinite(cost).all()
    assert np.mean(cost / best) <= 1.005
    assert np.max(cost / best) <= 1.02


def along_axes(score, scm, x, step=0.02, most=8.0):
    """Cost of the cheapest single shift on a grid; an upper bound on the optimum."""
    amounts = np.arange(step, most, step, dtype=np.float32)
    shifts = (amounts[:, None, None] * np.concatenate([np.eye(3), -np.eye(3)]) * SCALE).reshape(
        -1, 3
    )
    effects = EFFECTS if scm is M1 else np.eye(3)
    after = np.asarray(x)[:, None] + (shifts @ effects.T).astype(np.float32)
    good = np.asarray(score(after)) >= 0
    return np.where(good, np.repeat(amounts, 6), np.inf).min(1)


def test_a_saturated_score_is_solved_as_well_as_others():
    score = steep(SCORE, 3000)
    x = refused(score)
    flat = (np.asarray(jax.vmap(jax.grad(score))(x)) == 0).all(1)
    assert flat.mean() > 0.8
    plan = solve(score, x=x)
    assert (np.asarray(plan.status) == PlanStatus.found).all()
    assert (np.asarray(plan.cost) <= 1.02 * along_axes(score, M1, x) + 1e-3).all()


@pytest.mark.parametrize("epsilon", [0.0, pytest.param(0.2, marks=pytest.mark.slow)])
def test_an_island_is_found_and_its_nearest_corner(epsilon):
    """Without causal effects an action must reach every face: closed form."""
    rng = np.random.default_rng(2)
    x = (rng.uniform(-0.4, 0.4, (NUM_USERS, 3)) * SCALE).astype(np.float32)
    for centre in ([2.0, 1.5, 0.0], [-1.0, 0.2, 2.5], [1.5, 1.5, 1.5], [0.0, -4.0, 0.1]):
        score = island(np.array(centre) * SCALE, 0.6 * SCALE)
        assert not np.asarray(jax.vmap(jax.grad(score))(x)).any()
        plan = solve(score, FREE, x, epsilon=epsilon, norm="linf")
        distance = np.abs(x / SCALE - centre) - (0.6 - epsilon)
        best = np.maximum(distance, 0).sum(1)
        assert np.asarray(plan.robust_valid).all()
        cost = np.asarray(plan.cost)
        # Faces are blurred by some 1/300.
        assert (cost >= best - 0.02).all()
        assert (cost <= 1.02 * best + 0.02).all()


# An attack written apart from the library's, in plain arrays: a linear SCM turns a perturbation
# delta that precedes a soft action into ``EFFECTS @ delta`` after it.


@partial(jax.jit, static_argnames=("norm", "points", "starts", "steps"))
def surviving(score, after, epsilon, norm, points=6000, starts=24, steps=80):
    """Lowest logit in the ball around features (n, 3): dense random points and long descents.

    8,000 evaluations per user, ten times those of the library's verification.
    """
    effects = jnp.asarray(EFFECTS.T, jnp.float32)
    key = jax.random.split(jax.random.key(1), 3)

    def inside(delta):
        if norm == "linf":
            return jnp.clip(delta, -epsilon, epsilon)
        length = jnp.linalg.norm(delta, axis=-1, keepdims=True)
        return delta * jnp.minimum(1.0, epsilon / jnp.maximum(length, 1e-12))

    normal = jax.random.normal(key[0], (points, 3))
    far = jnp.sign(normal) if norm == "linf" else normal / jnp.linalg.norm(normal, axis=1)[:, None]
    within = jax.random.uniform(key[1], (points, 1)) ** (1 / 3)
    cube = jax.random.uniform(key[2], (points, 3), minval=-1, maxval=1)
    cloud = cube if norm == "linf" else far * within
    edge = cloud / jnp.abs(cloud).max(1, keepdims=True) if norm == "linf" else far
    # A quarter each: corners or sphere twice over, faces, and the inside.
    which = jnp.arange(points)[:, None] % 4
    cloud = epsilon * jnp.where(which == 0, far, jnp.where(which == 1, cloud, edge))

    def one(after):
        def logit(delta):
            return score(after + (delta * SCALE) @ effects)

        values = jax.vmap(logit)(cloud)
        order = jnp.argsort(values)[: starts // 2]
        begin = jnp.concatenate([cloud[order], cloud[: starts // 2]])

        def step(carry, k):
            delta, lowest = carry
            value, slope = jax.vmap(jax.value_and_grad(logit))(delta)
            size = jnp.linalg.norm(slope, axis=1, keepdims=True)
            size = epsilon * 0.5 * 0.95**k / jnp.where(size > 0, size, 1.0)
            return (inside(delta - size * slope), jnp.minimum(lowest, value.min())), None

        (_, lowest), _ = jax.lax.scan(step, (begin, values.min()), jnp.arange(steps))
        return lowest

    return jax.lax.map(one, after, batch_size=16)


def sign_of(score, x):
    return jnp.sign(score(x))


STEP = jax.tree_util.Partial(sign_of, SCORE)
"""The decisions of SCORE, with a gradient that is 0 everywhere."""


@cache
def crowd_plan(epsilon, norm, step=False):
    score = STEP if step else SCORE
    return solve(score, x=refused(num_users=NUM_CROWD), epsilon=epsilon, norm=norm)


def count_broken(plan, epsilon, norm):
    """How many actions called robust break, and how many there are; see `surviving`."""
    x = np.asarray(refused(num_users=NUM_CROWD))
    # The attack does break what is not robust: the plans of no ball, of some users.
    shift = np.concatenate([plan.action.value, crowd_plan(0.0, "l2").action.value[:52]])
    after = np.concatenate([x, x[:52]]) + shift @ EFFECTS.T
    worst = np.asarray(surviving(SCORE, jnp.asarray(after, jnp.float32), epsilon, norm))
    assert (worst[NUM_CROWD:] < 0).all()
    robust = np.asarray(plan.robust_valid)
    assert robust.mean() > 0.95
    return (worst[:NUM_CROWD][robust] < -1e-4).sum(), robust.sum()  # the rounding of a logit


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_robust_plans_survive_an_independent_attack_ten_times_as_strong(norm):
    """At most one in 1,000 actions called robust may break. The attack's points are fixed."""
    counts = [count_broken(crowd_plan(e, norm), e, norm) for e in (0.1, 0.4)]
    broken, claimed = np.sum(counts, axis=0)
    assert claimed > 900
    assert broken <= claimed / 1000, f"{broken} of {claimed} broken"


@pytest.mark.slow
def test_robust_plans_for_a_step_survive_an_attack_that_has_gradients():
    """And cost no more than those of the score with the same decisions and gradients."""
    plan = crowd_plan(0.1, "l2", step=True)
    broken, claimed = count_broken(plan, 0.1, "l2")
    smooth = np.asarray(crowd_plan(0.1, "l2").cost)
    robust = np.asarray(plan.robust_valid)
    assert np.asarray(plan.cost)[robust].mean() <= 1.02 * smooth[robust].mean()
    assert broken <= claimed / 1000, f"{broken} of {claimed} broken"


@pytest.mark.slow
def test_withstanding_more_costs_more():
    costs = [np.asarray(crowd_plan(e, "l2").cost) for e in (0.0, 0.1, 0.4)]
    for less, more in pairwise(costs):
        assert (more >= less * 0.999).all()
    # A cube of half-width epsilon contains the sphere of that radius.
    assert (np.asarray(crowd_plan(0.4, "linf").cost) >= 0.995 * costs[-1]).all()


# Batches.


@pytest.mark.parametrize(
    ("epsilon", "norm"),
    [(0.0, "l2"), *(pytest.param(0.1, norm, marks=pytest.mark.slow) for norm in ("l2", "linf"))],
)
def test_a_user_gets_the_same_plan_among_few_and_in_a_crowd(epsilon, norm):
    """Bitwise."""
    crowd, x = crowd_plan(epsilon, norm), refused(num_users=NUM_CROWD)
    places = np.random.default_rng(3).permutation(NUM_CROWD)[:NUM_USERS]
    few = solve(x=x[places], epsilon=epsilon, norm=norm)
    assert_same(few, some(crowd, places))
    assert_same(solve(x=x[places], epsilon=epsilon, norm=norm), few)  # determinism
    assert np.asarray(few.valid).any()


def test_a_user_gets_the_same_robust_plan_among_fewer():
    """Bitwise, of programs for other numbers of users. None is stuck: that takes one more each."""
    plan, places = solve(epsilon=0.05), np.array([17, 2, 11, 5, 8])
    assert_same(solve(x=X[places], epsilon=0.05), some(plan, places))
    assert np.asarray(plan.robust_valid).any()


@pytest.mark.slow
def test_a_bad_neighbour_changes_nobody_elses_plan():
    surrogate = pcr.linear_surrogate(GRAPH)
    thetas = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (NUM_USERS, 3)), jnp.float32)
    plan = solve(scm=jax.vmap(surrogate.scm)(thetas), epsilon=0.1)
    broken = thetas.at[3].set(jnp.nan).at[5, 1].set(jnp.inf)
    upper = jnp.full((NUM_USERS, 3), jnp.inf).at[7].set(X[7])
    partly = solve(
        scm=jax.vmap(surrogate.scm)(broken),
        epsilon=0.1,
        constraints=Constraints(upper=upper),
    )
    gone = np.isin(np.arange(NUM_USERS), [3, 5])
    others = ~gone & (np.arange(NUM_USERS) != 7)
    assert (np.asarray(partly.status)[gone] == PlanStatus.no_model).all()
    assert not np.asarray(partly.valid | partly.robust_valid)[gone].any()
    assert (moves(partly)[7] <= 0).all()
    assert_same(some(partly, others), some(plan, others))


# Where there is nothing to find.


def test_whoever_is_favourable_already_is_left_alone():
    plan = solve(constant(1.0))
    assert (np.asarray(plan.status) == PlanStatus.already_favourable).all()
    assert np.asarray(plan.valid & plan.robust_valid).all()
    assert (np.asarray(plan.num_evaluations) < 60).all()  # one level of the sweep
    # Among others, too; and a user on the boundary is.
    x = population()[:NUM_USERS]
    plan, good = solve(x=x), np.asarray(SCORE(x)) >= 0
    assert 0 < good.sum() < NUM_USERS
    np.testing.assert_array_equal(np.asarray(plan.status) == PlanStatus.already_favourable, good)
    assert (np.asarray(solve(constant(0.0)).status) == PlanStatus.already_favourable).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_what_cannot_be_reached_is_not_found(epsilon):
    for score in (constant(-1.0), linear_network([1e-3, 0, 0], -1.0)):
        plan = solve(score, epsilon=epsilon)
        assert (np.asarray(plan.status) == PlanStatus.not_found).all()
        assert np.isinf(plan.cost).all()
    plan = solve(epsilon=epsilon, constraints=Constraints(lower=X - 1e-3, upper=X + 1e-3))
    unreachable = np.asarray(SCORE(X)) < -0.1
    assert unreachable.sum() > NUM_USERS / 2
    assert (np.asarray(plan.status)[unreachable] == PlanStatus.not_found).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_ascents_spend_nothing_on_features_that_cannot_move(norm):
    cost = Cost(jnp.asarray(SCALE), jnp.ones(3), norm)
    space = Moves(cost, False, 3)
    bounds = (jnp.array([0.0, -5.0, -5.0]), jnp.array([0.0, 5.0, 5.0]))
    task = Task(M1, X[0], *bounds, weights=jnp.array([1.0, 2.0, 0.5]))
    moves = jnp.array([[10.0, 0.5, 0.9], [-10.0, -0.5, 0.9]])
    nearest = space.within(task, moves, jnp.array([0.8, 0.4]))
    np.testing.assert_array_equal(nearest[:, 0], 0)
    np.testing.assert_allclose(space.size(task, nearest), [0.8, 0.4], rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_a_graph_of_one_node_has_recourse(epsilon):
    scm = pcr.linear_scm(pcr.Graph.from_edges(["income"], []), [])
    x = jnp.array([[-1.0], [-0.2], [0.5]])
    plan = find_recourse(lambda x: x[0], scm, x, scale=jnp.ones(1), epsilon=epsilon)
    np.testing.assert_allclose(plan.cost, np.maximum(0, epsilon - x[:, 0]), rtol=0.01, atol=1e-3)


def test_nothing_dearer_than_the_maximum_is_recommended():
    slope = np.array([0.0, 1.0, 0.0])
    x = np.zeros((NUM_USERS, 3), np.float32)
    x[:, 1] = -np.linspace(10, 14, NUM_USERS) * SCALE[1]
    plan = solve(linear_network(weight_of(slope), 0.0), FREE, x)
    need = np.linspace(10, 14, NUM_USERS)
    most = Optimal().max_cost
    assert np.isfinite(plan.cost)[need < 0.99 * most].all()
    assert (np.asarray(plan.cost)[np.isfinite(plan.cost)] <= most * (1 + 1e-5)).all()


@pytest.mark.slow
def test_the_search_takes_a_moderate_number_of_evaluations():
    plain, robust = (np.asarray(crowd_plan(e, "l2").num_evaluations) for e in (0.0, 0.1))
    assert (plain > 50).all()
    assert plain.mean() < 3500  # gradient steps of Algorithm 1
    assert (robust >= plain * 0.5).all()
    assert robust.mean() < 20_000


# Scores without a gradient.


@cache
def tree():
    """A fitted decision tree, and the boxes in which it is favourable, (n, 2, 3)."""
    pytest.importorskip("sklearn")
    from sklearn.tree import DecisionTreeClassifier

    x = np.asarray(population())
    label = np.asarray(SCORE(x)) >= 0
    model = DecisionTreeClassifier(max_leaf_nodes=20, random_state=0).fit(x, label)
    nodes, boxes = model.tree_, []

    def visit(node, low, high):
        if nodes.children_left[node] < 0:
            if nodes.value[node][0, 1] >= nodes.value[node][0, 0]:
                boxes.append((low, high))
            return
        j, cut = nodes.feature[node], nodes.threshold[node]
        visit(nodes.children_left[node], low, np.where(np.arange(3) == j, cut, high))
        visit(nodes.children_right[node], np.where(np.arange(3) == j, cut, low), high)

    visit(0, np.full(3, -np.inf), np.full(3, np.inf))
    return pcr.outside_model(model), np.array(boxes)


def test_the_optimum_of_a_decision_tree_is_the_nearest_box():
    score, boxes = tree()
    x = refused(score)
    plan = solve(score, FREE, x)
    low, high = boxes[:, 0], boxes[:, 1]
    here = np.asarray(x, float)[:, None]
    best = (np.maximum(np.maximum(low - here, here - high), 0) / SCALE).sum(-1).min(1)
    cost = np.asarray(plan.cost)
    assert (np.asarray(plan.status) == PlanStatus.found).all()
    assert (cost >= best - 1e-4).all()
    assert cost.mean() <= 1.005 * best.mean() + 1e-3
    assert (cost <= 1.02 * best + 1e-3).all()


@pytest.mark.slow
def test_robust_plans_for_a_decision_tree_survive_thousands_of_perturbations():
    score, _ = tree()
    x = refused(score)
    plan = solve(score, FREE, x, epsilon=0.1, norm="linf")
    robust = np.asarray(plan.robust_valid)
    assert robust.mean() > 0.9
    rng = np.random.default_rng(5)
    delta = (
        0.1
        * SCALE
        * np.concatenate([rng.choice([-1.0, 1.0], (3000, 3)), rng.uniform(-1, 1, (3000, 3))])
    )
    after = np.asarray(x + plan.action.value)[robust, None] + delta
    assert (np.asarray(score(jnp.asarray(after, jnp.float32))) >= 0).all()


# Larger graphs.


def logit_of(weight, bias, x):
    return x @ weight + bias


@pytest.mark.parametrize("num_nodes", [10, 20])
@pytest.mark.slow
def test_larger_graphs_are_solved(num_nodes):
    rng = np.random.default_rng(num_nodes)
    names = [f"X{j}" for j in range(num_nodes)]
    parents = [rng.choice(j, min(j, 2), replace=False) for j in range(num_nodes)]
    graph = pcr.Graph(tuple(names), tuple(tuple(sorted(map(int, pa))) for pa in parents))
    edges = np.array(graph.edges)
    coefficients = rng.normal(size=len(edges)) / 2
    theta = np.zeros((num_nodes, num_nodes))
    theta[edges[:, 1], edges[:, 0]] = coefficients
    effects = np.linalg.inv(np.eye(num_nodes) - theta)
    weight = rng.normal(size=num_nodes) / np.sqrt(num_nodes)
    scale = rng.uniform(0.5, 2, num_nodes).astype(np.float32)
    slope = weight @ effects * scale
    x = rng.normal(size=(NUM_USERS, num_nodes)).astype(np.float32)
    need = rng.uniform(0.5, 2.5, NUM_USERS)  # by a bias of everybody's own: shift x along weight
    x += ((-need - x @ weight)[:, None] * weight / (weight @ weight)).astype(np.float32)
    room = rng.uniform(0.2, 1.5, (NUM_USERS, num_nodes)).astype(np.float32)
    constraints = Constraints(lower=x - room * scale, upper=x + room * scale)
    score = jax.tree_util.Partial(logit_of, jnp.asarray(weight, jnp.float32), jnp.zeros(()))
    scm = pcr.linear_scm(graph, coefficients)
    plan = solve(score, scm, x, scale, constraints=constraints)
    need = -np.asarray(x, float) @ weight
    best = [
        cheapest_linear(n, slope, np.ones(num_nodes), -r, r, "l1")
        for n, r in zip(need, room, strict=True)
    ]
    assert np.isfinite(best).mean() > 0.5
    assert_near_optimum(plan.cost, best)


# Misuse.


def with_hole(x):
    return jnp.where(x[0] > X[2, 0] - 1e-4, jnp.nan, x[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cost": "l3"}, r"cost to be one of \['l1', 'l2'\]; got 'l3'"),
        ({"norm": "l1"}, r"norm to be one of \['l2', 'linf'\]; got 'l1'"),
        ({"intervention": "firm"}, r"intervention to be one of \['hard', 'soft'\]; got 'firm'"),
        ({"solver": "best"}, r"solver to be one of \['optimal', 'paper'\]; got 'best'"),
        ({"weights": np.ones(4)}, r"weights of shape \(3,\) or \(20, 3\); got \(4,\)"),
        ({"weights": np.ones((3, NUM_USERS))}, r"weights of shape .* got \(3, 20\)"),
        ({"weights": 1.0}, r"weights of shape .* got \(\)"),
        ({"weights": np.array([1, 0, 1])}, "weights > 0"),
        ({"weights": np.array([1, -1, 1])}, "weights > 0"),
        ({"weights": np.array([1, np.nan, 1])}, "weights > 0"),
        ({"learning_rate": 0.1}, "no learning_rate with the optimal solver"),
        ({"max_set_size": 0}, "max_set_size >= 1"),
        ({"max_set_size": 1.5}, "max_set_size >= 1"),
        ({"epsilon": -0.1}, "epsilon >= 0"),
        ({"x": X[:0]}, "at least one user in x; got none"),
        ({"x": X[0]}, r"x of shape \(num_users, num_nodes\)"),
        ({"constraints": Constraints(actionable=[False] * 3)}, "none actionable"),
        ({"constraints": Constraints(upper=X - 1)}, "bounds must contain the present value"),
        ({"score": lambda x: x[:1]}, r"logit of shape \(\); got \(1,\)"),
        ({"score": with_hole}, r"score to be a number at every user's features; got NaN for \d+ "),
    ],
)
def test_misuse_raises_and_names_the_argument(wrong, message):
    with pytest.raises(ValueError, match=message):
        find_recourse(**{"score": SCORE, "worlds": M1, "x": X, "scale": SCALE, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cost": "l2"}, "cost 'l1' with solver='paper'; got 'l2'. Use solver='optimal'"),
        ({"norm": "linf", "epsilon": 0.1}, "norm 'l2' with solver='paper'; got 'linf'"),
        ({"intervention": "hard"}, "intervention 'soft' with solver='paper'; got 'hard'"),
        ({"weights": np.array([1, 2, 1])}, "weights 'none' with solver='paper'; got 'some'"),
        (
            {"score": pcr.outside_model(lambda x: x[:, 0])},
            "a score 'with a gradient' with solver='paper'; got 'without'",
        ),
    ],
)
def test_algorithm_1_refuses_what_it_cannot_do(wrong, message):
    given = {"score": SCORE, "worlds": M1, "x": X, "scale": SCALE, "solver": "paper", **wrong}
    with pytest.raises(ValueError, match=message):
        find_recourse(**given)


@pytest.mark.parametrize("name", ["max_cost", "first_level", "growth", "tolerance"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_settings_of_the_solver_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} > 0"):
        Optimal(**{name: value})


def steps(x):
    """A score in steps, which sees no slope."""
    return jnp.floor(3 * (x @ jnp.array([1.0, -0.5, 0.7]) - 0.5)) + 0.5


steps.differentiable = False


@pytest.mark.slow
def test_who_is_held_against_the_outline_spends_the_same_alone_and_in_a_crowd():
    crowd, few = (solve(steps, x=ANYBODY[:n], epsilon=0.05) for n in (20, 3))
    np.testing.assert_array_equal(crowd.num_evaluations[:3], few.num_evaluations)
    np.testing.assert_array_equal(crowd.action.value[:3], few.action.value)
    assert (np.asarray(crowd.num_evaluations) > 20_000).any()  # some are
