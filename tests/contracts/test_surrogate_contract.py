"""What every surrogate promises."""

import doctest
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Exponential, OneEffect

import pcr_jax as pcr
from pcr_jax.surrogates import base, check_surrogate, for_users

pytestmark = pytest.mark.x64
DIAMOND = pcr.Graph.from_edges("ABCD", ["AB", "AC", "BD", "CD"])
SURROGATES = {
    "linear": lambda: pcr.linear_surrogate(pcr.Graph.fully_connected(3), noise_mean=[0.5, 0, -1]),
    "diamond": lambda: pcr.linear_surrogate(DIAMOND, low=-2.0, high=3.0),
    "one effect": lambda: OneEffect(DIAMOND, Exponential(jnp.array([0.5]))),
}


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
    expected = jax.vmap(surrogate.expected, (0, None, None))(thetas, questions, x)
    assert expected.shape == (20, 6, surrogate.graph.num_nodes)
    for theta, answers in zip(thetas[:5], expected, strict=False):
        scm = surrogate.scm(theta)
        for t in (3, 4, 5):
            node, shift = questions.node[t], questions.shift[t]
            action = pcr.Action.shift_node(node, shift, surrogate.graph.num_nodes)
            np.testing.assert_allclose(answers[t], scm.counterfactual(x, action), atol=1e-5)
    np.testing.assert_allclose(expected[:, 5], jnp.tile(x, (20, 1)), atol=1e-5)  # not shifted
    # Questions about people in general do not depend on the person.
    other = jax.vmap(surrogate.expected, (0, None, None))(thetas, questions, x + 1)
    np.testing.assert_array_equal(other[:, :3], expected[:, :3])


def test_multi_affine_is_affine_in_each_number_and_no_term_is_larger_than_said(surrogate):
    if not surrogate.multi_affine:
        return
    thetas, questions, x = case(surrogate)
    expected = jax.vmap(surrogate.expected, (0, None, None))
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
    each = jax.vmap(lambda own, theta: own.expected(theta, questions, x))(many, thetas[:3])
    one = jax.vmap(lambda theta: surrogate.expected(theta, questions, x))(thetas[:3])
    np.testing.assert_allclose(each, one, atol=1e-6)


def test_the_example_works():
    failed, tried = doctest.testmod(base)
    assert tried
    assert not failed
