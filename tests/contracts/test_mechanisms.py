"""What every mechanism does."""

from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

import pcr_jax as pcr
from pcr_jax.mechanisms import Within

pytestmark = pytest.mark.x64
M3 = pcr.library.m3().mechanisms
MECHANISMS = {
    "linear": lambda: (pcr.Mechanism(jnp.array([0.5, -0.3])), 2),
    "root": lambda: (pcr.Mechanism(jnp.zeros(0)), 0),
    "logistic": lambda: (M3[1], 1),
    "quadratic": lambda: (M3[2], 2),
    "inverted": lambda: (M3[2].inverted(), 2),
    "within": lambda: (Within.of(M3[2], -50.0, 50.0, 0.0), 2),
}


def positive(coefficients, parents):
    return jnp.exp(0.3 * jnp.sum(coefficients * parents, -1))


PAIR = jnp.array([0.5, -0.3])
MECHANISMS |= {
    "bounded": lambda: (pcr.bounded(PAIR / 4, -4.0, 5.0), 2),
    "multiplicative": lambda: (pcr.multiplicative(PAIR, positive), 2),
    "location and scale": lambda: (pcr.location_scale(PAIR, PAIR, scale=positive), 2),
    "opposite": lambda: (pcr.location_scale(PAIR, PAIR, scale=positive).inverted(), 2),
    "ordered": lambda: (pcr.Ordered(2 * PAIR, jnp.array([-4.0, 0.0, 0.5])), 2),
    "ordered inverted": lambda: (pcr.Ordered(PAIR, jnp.array([0.5])).inverted(), 2),
    "categorical": lambda: (pcr.Categorical(jnp.array([[0, 1, 2], [0, 0, 0], [3, -2, -1.0]])), 2),
    "categorical inverted": lambda: (pcr.Categorical(jnp.eye(2, 3)).inverted(), 2),
    "categorical root": lambda: (pcr.Categorical(jnp.array([[0.0], [-9.0]])), 0),
}
NUMBERS = st.floats(-3, 3, width=32)


@pytest.mark.parametrize("name", MECHANISMS)
@given(data=st.data())
def test_what_is_abducted_gives_the_value_again(name, data):
    mechanism, num_parents = MECHANISMS[name]()
    parents = jnp.asarray(data.draw(arrays(np.float32, (5, num_parents), elements=NUMBERS)))
    value, unit = (
        jnp.asarray(data.draw(arrays(np.float32, 5, elements=elements)))
        for elements in (NUMBERS, st.floats(0.0625, 0.9375, width=32))
    )
    if hasattr(mechanism, "num_levels"):
        value = jnp.clip(jnp.round(value), 0, mechanism.num_levels - 1)
    noise = mechanism.abduct(parents, value, unit)
    np.testing.assert_allclose(mechanism.assign(parents, noise), value, atol=2e-5)
    if mechanism.invertible:
        again = mechanism.abduct(parents, mechanism.assign(parents, value))
        np.testing.assert_allclose(again, value, atol=2e-5)


@pytest.mark.parametrize("name", MECHANISMS)
def test_it_is_a_pytree_of_numbers_that_batches(name):
    mechanism, num_parents = MECHANISMS[name]()
    assert mechanism.batch_shape == ()
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), mechanism)
    assert batch.batch_shape == (2,)
    parents, noise = jnp.ones((2, num_parents)), jnp.arange(2.0)
    once = jax.vmap(mechanism.assign)(parents, noise)
    each = jax.vmap(lambda m, p, u: m.assign(p, u))(batch, parents, noise)
    np.testing.assert_array_equal(each, once)


@pytest.mark.parametrize("name", MECHANISMS)
def test_it_says_whether_it_is_linear_and_for_how_many_parents(name):
    mechanism, num_parents = MECHANISMS[name]()
    mechanism.check(num_parents, "node")
    if mechanism.linear:
        assert mechanism.coefficients.shape == (num_parents,)
        with pytest.raises(ValueError, match="parents of node 'node'"):
            mechanism.check(num_parents + 1, "node")


@pytest.mark.parametrize("name", MECHANISMS)
def test_an_scm_of_it_returns_what_it_was_given(name):
    mechanism, num_parents = MECHANISMS[name]()
    causes = [f"cause {j}" for j in range(num_parents)]
    graph = pcr.Graph.from_edges([*causes, "effect"], [(cause, "effect") for cause in causes])
    roots = [pcr.Mechanism(jnp.zeros(0))] * num_parents
    scm = pcr.SCM(graph, (*roots, mechanism), [dist.Normal(0.0, 1.0)] * graph.num_nodes)
    scm = replace(scm, noise=(*scm.noise[:-1], getattr(mechanism, "noise", scm.noise[-1])))
    x = scm.sample(jax.random.key(0), 4)
    unit = jnp.full(x.shape, 0.5)
    same = scm.counterfactual(x, pcr.Action.empty(graph.num_nodes), unit)
    np.testing.assert_allclose(same, x, atol=1e-5)
