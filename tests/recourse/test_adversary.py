"""The attack on an action: never outside its ball, and at least as strong as simpler attacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax import Action, library
from pcr_jax.recourse.adversary import NORMS, Ball, attack, outcome, unit
from pcr_jax.recourse.verify import examine, own_key

NUM_USERS, EPSILON = 50, 0.3
SCALE = jnp.array([1.0, 1.4, 0.6])
RNG, KEY = np.random.default_rng(0), jax.random.key(0)
X = jnp.asarray(RNG.normal(size=(NUM_USERS, 3)), jnp.float32)
ACTIONS = Action.soft(RNG.normal(size=(NUM_USERS, 3)))


def classifier(*layers):
    """From (kernel, bias) of every layer."""
    params = {
        f"Dense_{i}": {"kernel": jnp.asarray(k, jnp.float32), "bias": jnp.asarray(b, jnp.float32)}
        for i, (k, b) in enumerate(layers)
    }
    module = pcr.MLP(tuple(len(b) for _, b in layers[:-1]))
    return pcr.Classifier(module, {"params": params}, jnp.zeros(3), jnp.ones(3))


WEIGHT = np.array([[0.8], [-1.5], [0.4]])
LINEAR = classifier((WEIGHT, [-0.2]))
CURVED = classifier(
    (RNG.normal(size=(3, 16)), RNG.normal(size=16)),
    (RNG.normal(size=(16, 16)) / 2, RNG.normal(size=16)),
    (RNG.normal(size=(16, 1)), [0.0]),
)


@jax.jit
def attacks(score, scm, x, actions, ball):
    """Worst logit, plain logit and that of a single step to the ball's surface, for every user."""

    def one(x, action):
        def logit(delta):
            return outcome(score, scm, x, action, SCALE, delta)

        centre = jnp.zeros(3)
        one_step = logit(-ball.steepest(jax.grad(logit)(centre)))
        worst, _ = examine(own_key(KEY, x), score, scm, x, action, SCALE, ball)
        return worst, logit(centre), one_step

    return jax.vmap(one)(x, actions)


def ball(norm, epsilon=EPSILON):
    return Ball(jnp.asarray(epsilon, float), norm)


def norm_of(delta, norm):
    return np.linalg.norm(delta, 2 if norm == "l2" else np.inf, axis=-1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [0.01, EPSILON, 3.0])
def test_for_a_linear_score_the_worst_logit_is_the_closed_form(epsilon, norm):
    """Score minus epsilon times the gradient's dual norm: not less and, outside the ball, more."""
    worst, logit, _ = attacks(LINEAR, library.m1(), X, ACTIONS, ball(norm, epsilon))
    effects = np.linalg.inv(np.eye(3) - np.array([[0, 0, 0], [-0.99, 0, 0], [0.99, 0.99, 0]]))
    expected = (X + ACTIONS.value @ effects.T) @ WEIGHT[:, 0] - 0.2
    np.testing.assert_allclose(logit, expected, atol=1e-5)
    slope = WEIGHT[:, 0] @ (effects * np.asarray(SCALE))
    dual = 1.001 * np.linalg.norm(
        slope, 2 if norm == "l2" else 1
    )  # the ball is taken so much wider
    np.testing.assert_allclose(worst, expected - epsilon * dual, atol=3e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scm", [library.m1(), library.m3()], ids=["m1", "m3"])
def test_it_is_at_least_as_strong_as_one_step_and_as_thousands_of_random_points(scm, norm):
    worst, logit, one_step = attacks(CURVED, scm, X, ACTIONS, ball(norm))
    assert (np.asarray(worst) <= np.asarray(one_step) + 1e-5).all()
    assert (np.asarray(worst) < np.asarray(logit)).all()
    assert np.mean(worst < one_step - 0.01) > 0.1  # and stronger for some

    rng = np.random.default_rng(1)
    delta = rng.normal(size=(4000, 3))
    if norm == "linf":
        delta[:1000] = np.sign(delta[:1000])
    delta *= EPSILON / norm_of(delta, norm)[:, None]
    delta[2000:] *= rng.random((2000, 1))

    @jax.jit
    def everywhere(x, actions, delta):
        moved = scm.counterfactual(x, Action.soft(delta * SCALE))
        return CURVED(scm.counterfactual(moved, actions)).min(1)

    found = np.asarray(everywhere(X[:, None], jax.tree.map(lambda a: a[:, None], ACTIONS), delta))
    spread = np.asarray(logit) - found
    # 4,000 points are denser than its own 300; gradients make up for all but a little.
    assert (np.asarray(worst) <= found + 0.05 * spread + 1e-5).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_projects_steps_and_has_a_surface_within_itself(norm):
    region = ball(norm)
    points = jnp.asarray(np.random.default_rng(2).normal(size=(200, 3)), jnp.float32)
    projected = np.asarray(jax.vmap(region.project)(points))
    outside = norm_of(points, norm) > EPSILON
    assert (norm_of(projected, norm) <= EPSILON * (1 + 1e-5)).all()
    np.testing.assert_array_equal(projected[~outside], points[~outside])
    steepest = np.asarray(jax.vmap(region.steepest)(points))
    np.testing.assert_allclose(norm_of(steepest, norm), EPSILON, rtol=1e-5)
    dual = np.linalg.norm(points, 2 if norm == "l2" else 1, axis=1)
    np.testing.assert_allclose((steepest * points).sum(1), EPSILON * dual, rtol=1e-5)
    np.testing.assert_array_equal(region.steepest(jnp.zeros(3)), np.zeros(3))
    surface = np.asarray(region.surface(16, 3))
    np.testing.assert_allclose(norm_of(surface, norm), EPSILON, rtol=1e-5)
    np.testing.assert_array_equal(surface, region.surface(16, 3))
    assert len(np.unique(surface.round(5), axis=0)) == len(surface) == 6 + 16
    if norm == "linf":
        corners = {tuple(np.sign(p)) for p in surface if (np.abs(p) > 0.999 * EPSILON).all()}
        assert len(corners) == 8


@pytest.mark.parametrize("norm", NORMS)
def test_the_perturbation_that_an_attack_returns_is_in_the_ball_and_gives_its_logit(norm):
    region = ball(norm)

    @jax.jit
    @jax.vmap
    def one(x, action):
        delta, logit = attack(CURVED, library.m1(), x, action, SCALE, region)
        return delta, logit, outcome(CURVED, library.m1(), x, action, SCALE, delta)

    delta, logit, again = map(np.asarray, one(X, ACTIONS))
    assert (norm_of(delta, norm) <= EPSILON * (1 + 1e-5)).all()
    np.testing.assert_allclose(logit, again, atol=1e-4)
    worst = np.asarray(attacks(CURVED, library.m1(), X, ACTIONS, region)[0])
    assert (worst <= logit + 0.02).all()  # the verification is the stronger of the two
    for array, repeated in zip((delta, logit, again), one(X, ACTIONS), strict=True):
        np.testing.assert_array_equal(array, repeated)


CONSTANT, SATURATED = (
    pcr.Classifier(
        CURVED.module,
        jax.tree.map(lambda leaf, f=f: f * leaf, CURVED.params),
        CURVED.loc,
        CURVED.scale,
    )
    for f in (0.0, 1e4)
)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("score", [CONSTANT, SATURATED], ids=["constant", "saturated"])
def test_a_zero_gradient_makes_no_nan(score, norm):
    worst, logit, one_step = attacks(score, library.m1(), X, ACTIONS, ball(norm))
    assert np.isfinite(worst).all()
    np.testing.assert_array_equal(one_step, logit)  # it cannot move
    assert (np.asarray(worst) <= np.asarray(logit)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_points_without_gradient_are_still_attacked_from_elsewhere(norm):
    """A step: flat on either side, and its edge inside some users' balls."""
    first, last = np.zeros(16), np.zeros((16, 1))
    first[0], last[0] = 1e6, 1.0
    step = classifier(
        (np.outer([1, 0, 0], first), np.zeros(16)), (1e6 * np.eye(16), np.zeros(16)), (last, [0.0])
    )
    x = jnp.zeros((NUM_USERS, 3)).at[:, 0].set(jnp.linspace(0.01, 1.0, NUM_USERS))
    nothing = Action.soft(jnp.zeros_like(x))
    worst, logit, one_step = attacks(step, library.m1(), x, nothing, ball(norm))
    np.testing.assert_array_equal(logit, 1.0)
    np.testing.assert_array_equal(one_step, 1.0)
    np.testing.assert_array_equal(np.asarray(worst) < 0, np.asarray(x[:, 0]) < EPSILON)


@pytest.mark.parametrize("length", [1e-36, 1e-20, 1.0, 1e20, 1e38])
def test_unit_vectors_survive_lengths_whose_squares_do_not(length):
    direction = np.array([2.0, -1.0, 2.0]) / 3
    np.testing.assert_allclose(unit(jnp.asarray(length * direction)), direction, rtol=1e-6)


def test_the_unit_vector_of_zero_is_zero():
    np.testing.assert_array_equal(unit(jnp.zeros(3)), np.zeros(3))
