"""Proofs that an action withstands a ball: never of what is broken, and of most that is not."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

import pcr_jax as pcr
from pcr_jax import Action, library
from pcr_jax.batching import take
from pcr_jax.recourse.adversary import NORMS, Ball, outcome
from pcr_jax.recourse.certify import Image, Network, bound, certified
from pcr_jax.recourse.problem import per_user

NUM_USERS, EPSILON = 60, 0.2
SCALE = jnp.array([1.0, 1.4, 1.2])
M1 = library.m1()


def ball(norm="l2", epsilon=EPSILON):
    return Ball(jnp.asarray(epsilon, float), norm)


def network(hidden, seed, *, steepness=1.5, loc=0.0):
    """An MLP with random weights that finds 40 % of features about ``loc`` favourable."""
    rng = np.random.default_rng(seed)
    sizes = (3, *hidden, 1)
    layers = {}
    for i, (n, m) in enumerate(pairwise(sizes)):
        kernel = rng.normal(size=(n, m)) * steepness / np.sqrt(n)
        layers[f"Dense_{i}"] = {"kernel": kernel, "bias": 0.3 * rng.normal(size=m)}
    layers = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), layers)
    score = pcr.Classifier(pcr.MLP(hidden), {"params": layers}, jnp.full(3, loc), SCALE)
    last = layers[f"Dense_{len(hidden)}"]
    x = jnp.asarray(loc + rng.normal(size=(500, 3)), jnp.float32)
    last["bias"] = last["bias"] - jnp.quantile(score(x), 0.6)
    return score


def points_in_ball(norm, num_points, seed=1):
    """Shape (num_points, 3), radius 1; half of them on the surface."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num_points, 3))
    if norm == "linf":
        points[::4] = np.sign(points[::4])
    points /= np.linalg.norm(points, 2 if norm == "l2" else np.inf, axis=1, keepdims=True)
    points[1::2] *= rng.random((num_points // 2, 1))
    return jnp.asarray(points, jnp.float32)


@jax.jit
def lowest(score, scms, x, action, region):
    """The lowest logit of many points and of descents from the worst, for every user."""
    points = region.radius * points_in_ball(region.norm, 800)

    def one(scm, x, action):
        def logit(delta):
            return outcome(score, scm, x, action, SCALE, delta)

        def step(delta, share):
            value, slope = jax.value_and_grad(logit)(delta)
            return region.project(delta - share * region.steepest(slope)), value

        values = jax.vmap(logit)(points)
        starts = points[jax.lax.top_k(-values, 8)[1]]
        paths = jax.vmap(lambda start: jax.lax.scan(step, start, 0.75 ** jnp.arange(30))[1])(starts)
        return jnp.minimum(values.min(), paths.min())

    return jax.vmap(one)(scms, x, action)


def at_the_boundary(score, norm, *, loc=0.0, hard=False, radius=EPSILON):
    """Users, and for each two actions between which the lowest logit crosses 0, by few roundings.

    Returns
    -------
    scms, x, broken, robust
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(loc + rng.normal(size=(NUM_USERS, 3)), jnp.float32)
    ways = rng.normal(size=(NUM_USERS, 3)) * (rng.random((NUM_USERS, 3)) < 0.6)
    scms = per_user(M1, NUM_USERS)

    def actions(lengths):
        return Action.by(x, jnp.asarray(lengths[:, None] * ways, jnp.float32), hard)

    def withstands(lengths):
        return np.asarray(lowest(score, scms, x, actions(lengths), ball(norm, radius))) >= 0

    grid = np.linspace(0.1, 4.0, 9)
    good = np.array([withstands(np.full(NUM_USERS, length)) for length in grid])
    crosses = good[1:] & ~good[:-1]
    low, high = grid[crosses.argmax(0)], grid[1 + crosses.argmax(0)]
    for _ in range(22):
        middle = (low + high) / 2
        fine = withstands(middle)
        low, high = np.where(fine, low, middle), np.where(fine, middle, high)
    users = np.flatnonzero(crosses.any(0))
    assert len(users) >= NUM_USERS / 12
    return take((scms, x, actions(low), actions(high)), users)


SCORES = {
    "plain": network((16, 16), 0),
    "saturated": network((16, 16), 0, steepness=12.0),
    "narrow": network((2, 2), 5, steepness=3.0),
    "deep": network((8, 8, 8), 3, steepness=2.0),
    "far": network((16, 16), 1, loc=1e4),
}


@pytest.mark.parametrize(("norm", "hard"), [("l2", False), ("linf", False), ("l2", True)])
@pytest.mark.parametrize("name", SCORES)
def test_what_is_broken_by_however_little_is_never_certified(name, norm, hard):
    score, far = SCORES[name], name == "far"
    scms, x, broken, robust = at_the_boundary(score, norm, hard=hard, loc=1e4 if far else 0.0)
    logits = np.asarray(lowest(score, scms, x, broken, ball(norm)))
    assert (logits < 0).all()
    assert np.median(logits) > (-0.03 if far else -1e-4)
    assert not certified(score, scms, x, broken, SCALE, ball(norm)).any()
    # The solver leaves this margin.
    smaller = ball(norm, EPSILON / 1.005)
    proved = certified(score, scms, x, robust, SCALE, smaller)
    assert (np.asarray(lowest(score, scms, x, robust, smaller)) >= 0)[proved].all()
    if not far:  # there, features are rounded by more than this margin
        assert proved.mean() > (0.6 if hard else 0.7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steepness", [1.0, 30.0])
@pytest.mark.parametrize("hidden", [(), (1,), (2, 2), (16, 16), (4, 4, 4)], ids=str)
def test_no_logit_in_a_box_is_below_its_bound(hidden, steepness, norm):
    score = network(hidden, 4, steepness=steepness)
    params = score.params["params"]
    layers = tuple(
        (params[f"Dense_{i}"]["kernel"], params[f"Dense_{i}"]["bias"]) for i in range(len(params))
    )
    rng = np.random.default_rng(6)
    num_boxes, num_points = 200, 500
    matrix = rng.normal(size=(3, 3)).astype(np.float32)
    image = Image(jnp.ones(3), jnp.asarray(matrix), jnp.full(3, 1e-5))
    half = (2.0 ** -rng.integers(0, 12, size=(num_boxes, 3))).astype(np.float32)
    centre = ((1 - half) * rng.uniform(-1, 1, size=(num_boxes, 3))).astype(np.float32)
    within = rng.uniform(-1, 1, size=(num_boxes, num_points, 3))
    within[:, ::2] = np.sign(within[:, ::2])
    ways = centre[:, None] + half[:, None] * within
    if norm == "l2":
        ways /= np.maximum(np.linalg.norm(ways, axis=-1, keepdims=True), 1)
    in_box = (np.abs(ways - centre[:, None]) <= half[:, None]).all(-1)
    logits = np.asarray(score(jnp.asarray(1 + ways @ matrix.T, jnp.float32)))
    lowest_logit = np.where(in_box, logits, np.inf).min(1)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0, 0))
    def bounds(network, image, centre, half):
        return bound(network, image, norm, centre, half)[0]

    unit = Network(layers, score.loc, score.scale, jnp.zeros(()))
    lower = np.asarray(bounds(unit, image, centre, half))
    assert np.isfinite(lower).all()
    assert np.isfinite(lowest_logit).sum() > num_boxes / 2
    assert (lower <= lowest_logit).all()


def affine(x, action):
    """What `outcome` scores, in double precision: the centre and the matrix."""
    effects = np.array([[0, 0, 0], [-0.99, 0, 0], [0.99, 0.99, 0]])
    x, value, hard = (np.asarray(a, float) for a in (x, action.value, action.hard))
    noise = x - x @ effects.T
    keep = 1 - hard
    solve = np.linalg.inv(np.eye(3) - keep[:, :, None] * effects)
    centre = np.einsum("uij,uj->ui", solve, keep * noise + value)
    return centre, solve * (keep * np.asarray(SCALE))[:, None, :]


def random_problems(hard, num_users=NUM_USERS, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(num_users, 3)), jnp.float32)
    shift = rng.normal(size=(num_users, 3)) * (rng.random((num_users, 3)) < 0.5)
    return per_user(M1, num_users), x, Action.by(x, jnp.asarray(shift, jnp.float32), hard)


def dual_norm(slopes, norm):
    return np.linalg.norm(slopes, 2 if norm == "l2" else 1, axis=-1)


MARGINS = np.concatenate([sign * np.logspace(-8, 0, NUM_USERS // 2) for sign in (-1, 1)])


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("norm", NORMS)
def test_for_a_linear_score_it_is_the_closed_form_but_for_roundings(norm, hard):
    score = network((), 0)
    scms, x, action = random_problems(hard)
    kernel = np.asarray(score.params["params"]["Dense_0"]["kernel"], float)[:, 0]
    centre, matrix = affine(x, action)
    weight = kernel / np.asarray(SCALE, float)
    margin = centre @ weight + float(score.params["params"]["Dense_0"]["bias"][0])
    margin -= EPSILON * dual_norm(np.einsum("j,ujk->uk", weight, matrix), norm)
    for user, wanted in enumerate(MARGINS):  # each user with a threshold of their own
        shifted = pcr.scores.Threshold(score, jnp.asarray(margin[user] - wanted, jnp.float32))
        left = margin[user] - float(shifted.logit)
        (proved,) = certified(
            shifted, *take((scms, x, action), slice(user, user + 1)), SCALE, ball(norm)
        )
        assert left > 0 or not proved
        assert left < 3e-4 or proved


TREE_X = np.random.default_rng(0).normal(size=(600, 3)) * SCALE
TREE = DecisionTreeClassifier(max_leaf_nodes=24, random_state=0).fit(
    TREE_X, np.sin(2 * TREE_X).sum(1) > 0
)


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_tree_is_certified_where_no_point_of_the_ball_or_just_outside_is_refused(norm, hard):
    scms, x, action = random_problems(hard, 300)
    proved = certified(pcr.outside_model(TREE), scms, x, action, SCALE, ball(norm))
    centre, matrix = affine(x, action)
    points = EPSILON * np.asarray(points_in_ball(norm, 4000), float)

    def withstood(share):
        features = centre[:, None] + np.einsum("ujk,pk->upj", matrix, share * points)
        return TREE.predict(features.reshape(-1, 3)).reshape(len(x), -1).all(1)

    assert 0.05 < proved.mean() < 0.5
    assert withstood(1.0)[proved].all()
    assert proved[withstood(1.1)].all()


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("feature", range(3))
def test_for_a_single_split_it_is_the_closed_form_but_for_roundings(feature, norm, hard):
    scms, x, action = random_problems(hard)
    centre, matrix = affine(x, action)
    reach = EPSILON * dual_norm(matrix[:, feature], norm)
    for user, wanted in enumerate(MARGINS):
        cut = centre[user, feature] - reach[user] - wanted
        samples = np.zeros((4, 3))
        samples[:, feature] = cut + np.array([-2, -1, 1, 2])
        model = DecisionTreeClassifier().fit(samples, [0, 0, 1, 1])
        margin = centre[user, feature] - reach[user] - model.tree_.threshold[0]
        problem = take((scms, x, action), slice(user, user + 1))
        (proved,) = certified(pcr.outside_model(model), *problem, SCALE, ball(norm))
        assert margin > 0 or not proved
        assert margin < 3e-4 or proved


def test_the_threshold_of_a_tree_counts():
    scms, x, action = random_problems(False, 300)
    shares = []
    for threshold in (1e-6, 0.5, 0.999):
        score = pcr.outside_model(TREE, threshold=threshold)
        shares.append(certified(score, scms, x, action, SCALE, ball()).mean())
    assert shares[0] > shares[1] > shares[2]


class OtherTree(DecisionTreeClassifier):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


class OtherMLP(pcr.MLP):
    def __call__(self, x):
        return -x[..., 0]


def refuse(x):
    raise AssertionError("not to be called")


@pytest.mark.parametrize(
    ("score", "scm"),
    [
        (jax.tree_util.Partial(refuse), M1),
        (pcr.outside_model(refuse), M1),
        (
            pcr.outside_model(RandomForestClassifier(n_estimators=2).fit(TREE_X, TREE_X[:, 0] > 0)),
            M1,
        ),
        (pcr.outside_model(OtherTree().fit(TREE_X, TREE_X[:, 0] > 0)), M1),
        (pcr.Classifier(OtherMLP(()), {}, jnp.zeros(3), SCALE), M1),
        (SCORES["plain"], library.m3()),
        (pcr.outside_model(TREE), library.m3()),
    ],
    ids=["function", "outside", "forest", "other-tree", "other-mlp", "m3", "m3-tree"],
)
def test_what_there_is_no_proof_for_is_not_certified(score, scm):
    _, x, action = random_problems(False)
    proved = certified(score, per_user(scm, NUM_USERS), x, action, SCALE, ball(epsilon=1e-6))
    assert proved.dtype == bool
    np.testing.assert_array_equal(proved, np.zeros(NUM_USERS, bool))


@pytest.mark.parametrize("score", [SCORES["plain"], pcr.outside_model(TREE)], ids=["mlp", "tree"])
def test_it_does_not_depend_on_who_else_is_asked_about(score):
    scms, x, action = random_problems(False, 300)
    proved = certified(score, scms, x, action, SCALE, ball())
    assert 0.05 < proved.mean() < 0.95
    some = np.arange(7, 300, 11)
    again = certified(score, *take((scms, x, action), some), SCALE, ball())
    np.testing.assert_array_equal(again, proved[some])


@pytest.mark.parametrize("score", [SCORES["plain"], pcr.outside_model(TREE)], ids=["mlp", "tree"])
def test_what_is_not_finite_is_not_certified(score):
    scms, x, action = random_problems(False)
    proved = certified(score, scms, x, action, SCALE, ball())
    user = np.flatnonzero(proved)[0]
    for bad in (np.nan, np.inf, 1e38):
        values = [action.value.at[user].set(bad), action.hard]
        broken = jax.tree.unflatten(jax.tree.structure(action), values)
        again = certified(score, scms, x, broken, SCALE, ball())
        assert not again[user]
        np.testing.assert_array_equal(np.delete(again, user), np.delete(proved, user))


def test_many_nodes_take_one_shot():
    graph = pcr.Graph.fully_connected(9)
    scm = pcr.linear_scm(graph, 0.1 * np.ones(36))
    layers = {"Dense_0": {"kernel": jnp.ones((9, 4)) / 9, "bias": jnp.ones(4)}}
    layers["Dense_1"] = {"kernel": jnp.ones((4, 1)), "bias": jnp.zeros(1)}
    score = pcr.Classifier(pcr.MLP((4,)), {"params": layers}, jnp.zeros(9), jnp.ones(9))
    x = jnp.linspace(-3.0, 3.0, 40)[:, None] * jnp.ones(9)
    nothing = Action.soft(jnp.zeros_like(x))
    proved = certified(score, per_user(scm, 40), x, nothing, jnp.ones(9), ball())
    assert (np.asarray(score(x)) > 0)[proved].all()
    np.testing.assert_array_equal(proved, np.asarray(x[:, 0]) > -0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m1", "m2"])
def test_most_plans_of_a_well_trained_network_are_certified(name):
    truth = library.get(name)
    score, x, scale = pcr.refused_population(jax.random.key(0), truth, num_users=60, rho="mean_abs")
    plan = pcr.find_recourse(score, truth, x, scale=scale, epsilon=0.1)
    proved = certified(score, per_user(truth, len(x)), x, plan.action, scale, ball(epsilon=0.1))
    robust = np.asarray(plan.robust_valid)
    assert robust[proved].all()
    assert proved[robust].mean() >= 0.95
