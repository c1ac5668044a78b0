"""What every surrogate promises."""

import doctest
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Exponential, OneEffect, mapped

import pcr_jax as pcr
from pcr_jax.surrogates import base, basis_surrogate, check_surrogate, for_users, in_scale
from pcr_jax.surrogates.regression import is_regression, padded_parents

pytestmark = pytest.mark.x64
DIAMOND = pcr.Graph.from_edges("ABCD", ["AB", "AC", "BD", "CD"])
SURROGATES = {
    "linear": lambda: pcr.linear_surrogate(pcr.Graph.fully_connected(3), noise_mean=[0.5, 0, -1]),
    "diamond": lambda: pcr.linear_surrogate(DIAMOND, low=-2.0, high=3.0),
    "one effect": lambda: OneEffect(DIAMOND, Exponential(jnp.array([0.5]))),
    "scaled": lambda: pcr.linear_surrogate(DIAMOND, noise_mean=[1.0, 0, 0, 2], scale=UNITS),
    "centred": lambda: pcr.linear_surrogate(DIAMOND, scale=UNITS, centre=[0.5, 0, -2, 3.0]),
    "basis": lambda: basis_surrogate(DIAMOND, scale=UNITS, centre=[0.5, 0, -2, 3.0]),
    "products": lambda: basis_surrogate(
        DIAMOND, scale=UNITS, centre=np.zeros(4), num_functions=3, products=True
    ),
}
UNITS = np.array([2.0, 0.5, 1.0, 4.0])


@pytest.fixture(params=SURROGATES)
def surrogate(request):
    return SURROGATES[request.param]()


def case(surrogate):
    """Numbers (20, k), questions of both kinds and a person's features."""
    rng, d = np.random.default_rng(0), surrogate.graph.num_nodes
    unit = jnp.asarray(rng.uniform(0.05, 0.95, (20, len(surrogate.names))), jnp.float32)
    node, shift = jnp.array([0, 1, -1, 0, 1, -1]), jnp.asarray(rng.normal(size=6), jnp.float32)
    questions = pcr.Questions(node, shift, jnp.arange(6) >= 3)
    return surrogate.prior.from_unit(unit), questions, jnp.asarray(rng.normal(size=d), jnp.float32)


def test_it_has_a_name_for_every_number(surrogate):
    check_surrogate(surrogate)
    theta, _, _ = case(surrogate)
    assert len(set(surrogate.names)) == theta.shape[1]
    assert surrogate.scm(theta[0]).graph == surrogate.graph


def test_an_individual_answer_is_the_persons_counterfactual(surrogate):
    thetas, questions, x = case(surrogate)
    expected = mapped(surrogate.expected, (0, None, None))(thetas, questions, x)
    assert expected.shape == (20, 6, surrogate.graph.num_nodes)
    for theta, answers in zip(thetas[:5], expected, strict=False):
        scm = surrogate.scm(theta)
        for t in (3, 4, 5):
            node, shift = questions.node[t], questions.shift[t]
            action = pcr.Action.shift_node(node, shift, surrogate.graph.num_nodes)
            np.testing.assert_allclose(answers[t], scm.counterfactual(x, action), atol=1e-5)
    np.testing.assert_allclose(expected[:, 5], jnp.tile(x, (20, 1)), atol=1e-5)  # not shifted
    # Questions about people in general do not depend on the person.
    other = mapped(surrogate.expected, (0, None, None))(thetas, questions, x + 1)
    np.testing.assert_array_equal(other[:, :3], expected[:, :3])


def test_multi_affine_is_affine_in_each_number_and_no_term_is_larger_than_said(surrogate):
    if not surrogate.multi_affine:
        return
    thetas, questions, x = case(surrogate)
    expected = mapped(surrogate.expected, (0, None, None))
    for c in range(len(surrogate.names)):
        step = jnp.zeros(len(surrogate.names)).at[c].set(0.25)
        ahead, here, back = (expected(thetas + k * step, questions, x) for k in (1, 0, -1))
        np.testing.assert_allclose(ahead + back, 2 * here, atol=2e-5)
    sizes = surrogate.sizes(jnp.abs(thetas).max(0), questions, x)
    assert (jnp.abs(expected(thetas, questions, x)) <= sizes + 1e-5).all()


def test_another_prior_is_no_other_program(surrogate):
    thetas, questions, x = case(surrogate)
    count = []

    @jax.jit
    def density(surrogate, theta):
        count.append(1)
        return surrogate.prior.log_prob(theta) + surrogate.expected(theta, questions, x).sum()

    for factor in (1.0, 1.5):
        prior = jax.tree.map(lambda leaf, f=factor: leaf * np.float32(f), surrogate.prior)
        density(replace(surrogate, prior=prior), thetas[0])
    assert len(count) == 1


def test_a_surrogate_per_user_is_the_same_with_a_leading_axis(surrogate):
    thetas, questions, x = case(surrogate)
    many = for_users(surrogate, 3)
    assert many.prior.batch_shape == (3,)
    each = mapped(lambda own, theta: own.expected(theta, questions, x))(many, thetas[:3])
    one = mapped(lambda theta: surrogate.expected(theta, questions, x))(thetas[:3])
    np.testing.assert_allclose(each, one, atol=1e-6)


def test_in_units_of_its_scale_it_is_the_same(surrogate):
    thetas, questions, x = case(surrogate)
    own = pcr.History(questions, jnp.zeros((6, len(x))), x)
    inside, history = in_scale(surrogate, own)
    scale = getattr(surrogate, "scale", None)
    scale = np.ones(len(x)) if scale is None else scale
    expected = mapped(surrogate.expected, (0, None, None))(thetas, questions, x)
    other = mapped(inside.expected, (0, None, None))(thetas, history.questions, history.x)
    np.testing.assert_allclose(other * scale, expected, rtol=1e-4, atol=1e-4)


def test_mechanisms_are_sums_over_features_with_slopes(surrogate):
    if not is_regression(surrogate):
        return
    thetas, _, _ = case(surrogate)
    surrogate, _ = in_scale(
        surrogate, pcr.History.empty(jnp.zeros((1, surrogate.graph.num_nodes)), 1)
    )
    blocks, graph = surrogate.blocks, surrogate.graph
    numbers = blocks[blocks >= 0]
    assert sorted(numbers) == list(range(len(surrogate.names)))
    values = jnp.asarray(np.random.default_rng(1).normal(size=(7, graph.num_nodes)), jnp.float32)
    origin, theta = jnp.zeros(graph.num_nodes), thetas[0]
    scm = surrogate.scm(theta)
    noises = mapped(scm.abduct)(values) - scm.abduct(origin)
    features_of, slopes_of = jax.jit(surrogate.features), jax.jit(surrogate.slopes)
    gradient = jax.grad(lambda v, j, w: surrogate.features(j, v) @ w)
    true_slopes = mapped(gradient, (0, None, None))
    for j, (parents, row) in enumerate(zip(graph.parents, blocks, strict=True)):
        weights = jnp.where(row >= 0, theta[row], 0.0)
        features = features_of(j, values)
        assert features.shape == (7, blocks.shape[1])
        assert (features[:, row < 0] == 0).all()
        # What is left of a node less its mechanism is its noise, whatever its own value is.
        total, at_origin = features @ weights, features_of(j, origin) @ weights
        np.testing.assert_allclose(values[:, j] - (total - at_origin), noises[:, j], atol=1e-4)
        # First come the parents themselves, up to a constant each.
        num, most = len(parents), padded_parents(graph).shape[1]
        linear = features - features_of(j, origin)
        np.testing.assert_allclose(linear[:, :num], values[:, list(parents)], atol=1e-5)
        slopes = jnp.broadcast_to(slopes_of(j, weights, values), (7, most))
        true = true_slopes(values, j, weights)
        np.testing.assert_allclose(slopes[:, :num], true[:, list(parents)], atol=1e-4)
        assert (slopes[:, num:] == 0).all()


def test_the_example_works():
    failed, tried = doctest.testmod(base)
    assert tried
    assert not failed
