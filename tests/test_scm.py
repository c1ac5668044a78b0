from itertools import combinations

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcr_jax.actions import Action
from pcr_jax.scm import SCM, Graph, Mechanism, inverted, linear_scm, non_causal

pytestmark = pytest.mark.x64
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def graphs(draw):
    size = draw(st.sampled_from([2, 3, 6, 17]))  # each size compiles anew
    names = draw(
        st.lists(st.text(min_size=1, max_size=3), min_size=size, max_size=size, unique=True)
    )
    rng, density = np.random.default_rng(draw(SEEDS)), draw(st.sampled_from([0.3, 0.6, 1.0]))
    pairs = combinations(names, 2)
    return Graph.from_edges(names, [pair for pair in pairs if rng.random() < density])


@jax.jit
def curved(coefficients, parents):
    return jnp.sum(jnp.tanh(coefficients * parents) + coefficients * jnp.cos(parents), axis=-1)


def random_coefficients(rng, *shape):
    """Away from 0, so that a wrong sign shows; small enough for float32 in deep graphs."""
    return rng.uniform(0.2, 0.6, shape) * rng.choice([-1, 1], shape)


def random_scm(graph, rng, linear):
    coefficients = random_coefficients(rng, len(graph.edges))
    if linear:
        return linear_scm(graph, coefficients)
    splits = np.split(coefficients, np.cumsum([len(pa) for pa in graph.parents])[:-1])
    mechanisms = tuple(Mechanism(jnp.asarray(c, float), curved) for c in splits)
    return SCM(graph, mechanisms, (dist.Normal(0.0, 1.0),) * graph.num_nodes)


def by_hand(scm, noise, shift, hard):
    """Prediction in float64, one node after the other."""
    x = np.zeros(scm.num_nodes)
    for j, parents in enumerate(scm.graph.parents):
        effect = 0.0
        for c, p in zip(np.asarray(scm.mechanisms[j].coefficients, float), parents, strict=True):
            if scm.mechanisms[j].function is curved:
                effect += np.tanh(c * x[p]) + c * np.cos(x[p])
            else:
                effect += c * x[p]
        x[j] = shift[j] if hard[j] else effect + noise[j] + shift[j]
    return x


def assert_close(actual, expected):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * (1 + np.abs(expected).max()))


@given(graphs(), SEEDS, st.booleans())
def test_empty_action_is_the_identity(graph, seed, linear):
    rng = np.random.default_rng(seed)
    scm = random_scm(graph, rng, linear)
    x = rng.normal(size=graph.num_nodes)
    empty = Action.empty(graph.num_nodes)
    assert_close(scm.counterfactual(x, empty), x)
    np.testing.assert_array_equal(scm.predict(x, empty), scm.predict(x))


@given(graphs(), SEEDS, st.booleans())
def test_abduct_and_predict_are_inverse(graph, seed, linear):
    rng = np.random.default_rng(seed)
    scm = random_scm(graph, rng, linear)
    noise = rng.normal(size=graph.num_nodes)
    x = scm.predict(noise)
    assert_close(x, by_hand(scm, noise, np.zeros_like(noise), np.zeros_like(noise)))
    assert_close(scm.abduct(x), noise)
    assert_close(scm.predict(scm.abduct(noise)), noise)


@given(graphs(), SEEDS)
def test_soft_shifts_propagate_by_the_total_effects(graph, seed):
    rng = np.random.default_rng(seed)
    coefficients = random_coefficients(rng, len(graph.edges))
    direct = np.zeros((graph.num_nodes,) * 2)
    for (parent, child), c in zip(graph.edges, coefficients, strict=True):
        direct[child, parent] = c
    total = np.linalg.inv(np.eye(graph.num_nodes) - direct)
    scm = linear_scm(graph, coefficients)
    noise, shift = rng.normal(size=(2, graph.num_nodes))
    x = total @ noise
    assert_close(scm.predict(noise), x)
    assert_close(scm.counterfactual(x, Action.soft(shift)), x + total @ shift)
    jacobian = jax.jacobian(lambda shift: scm.predict(noise, Action.soft(shift)))
    assert_close(jacobian(jnp.asarray(shift, float)), total)
    # A single node: nothing but the node and its descendants moves.
    j = int(rng.integers(graph.num_nodes))
    here = np.arange(graph.num_nodes) == j
    change = scm.predict(noise, Action.soft(shift * here)) - scm.predict(noise)
    assert_close(change, total[:, j] * shift[j])
    np.testing.assert_array_equal(change[~graph.descendants[j] & ~here], 0)


@given(graphs(), SEEDS, st.booleans())
def test_counterfactuals_equal_a_recomputation_by_hand(graph, seed, linear):
    rng = np.random.default_rng(seed)
    scm = random_scm(graph, rng, linear)
    noise, value = rng.normal(size=(2, graph.num_nodes))
    hard = rng.random(graph.num_nodes) < 0.3
    x = by_hand(scm, noise, np.zeros_like(noise), np.zeros_like(hard))
    action = Action(jnp.asarray(value, float), jnp.asarray(hard))
    assert_close(scm.counterfactual(x, action), by_hand(scm, noise, value, hard))


@given(graphs(), SEEDS, st.booleans())
def test_hard_intervention_cuts_the_parents(graph, seed, linear):
    rng = np.random.default_rng(seed)
    scm = random_scm(graph, rng, linear)
    noise = rng.normal(size=graph.num_nodes)
    j = int(rng.integers(graph.num_nodes))
    here = np.arange(graph.num_nodes) == j
    action = Action.do(np.full(graph.num_nodes, 7.0), here)
    before, after = scm.predict(noise), scm.predict(noise, action)
    assert after[j] == 7.0
    untouched = ~graph.descendants[j] & ~here  # ancestors among them
    np.testing.assert_array_equal(after[untouched], before[untouched])
    # The same as the SCM without the edges into j, whatever the noise of j's ancestors.
    parents, mechanisms = list(graph.parents), list(scm.mechanisms)
    parents[j], mechanisms[j] = (), Mechanism(jnp.zeros(0))
    cut = SCM(Graph(graph.nodes, tuple(parents)), tuple(mechanisms), scm.noise)
    moved = noise + graph.descendants[:, j]
    for u in (noise, moved):
        assert_close(scm.predict(u, action), cut.predict(np.where(here, 7.0, u)))


@settings(max_examples=4)
@given(graphs(), SEEDS)
def test_a_batch_of_scms_and_users_equals_a_loop(graph, seed):
    rng = np.random.default_rng(seed)
    thetas = jnp.asarray(random_coefficients(rng, 3, len(graph.edges)), float)
    x, value = jnp.asarray(rng.normal(size=(2, 3, graph.num_nodes)), float)
    actions = Action(value, jnp.asarray(rng.random(value.shape) < 0.3))
    scms = jax.vmap(lambda theta: linear_scm(graph, theta))(thetas)
    assert scms.batch_shape == (3,)
    both = jax.vmap(SCM.counterfactual)(scms, x, actions)
    assert_close(scms.counterfactual(x, actions), both)
    one = random_scm(graph, rng, linear=False)
    users = jax.vmap(one.counterfactual)(x, actions)
    assert_close(one.counterfactual(x, actions), users)  # leading axes without vmap
    for i in range(3):
        action = Action(value[i], actions.hard[i])
        linear = linear_scm(graph, thetas[i])
        assert_close(both[i], linear.counterfactual(x[i], action))
        assert_close(both[i], linear.counterfactual(x, actions)[i])
        assert_close(users[i], one.counterfactual(x[i], action))


@given(graphs(), st.randoms(use_true_random=False))
def test_descendants_and_edges_agree_with_networkx(graph, random):
    names = list(graph.nodes)
    peer = nx.DiGraph()
    peer.add_nodes_from(random.sample(names, len(names)))
    edges = [(names[p], names[j]) for j, pa in enumerate(graph.parents) for p in pa]
    peer.add_edges_from(random.sample(edges, len(edges)))
    for i, name in enumerate(names):
        assert {names[j] for j in np.flatnonzero(graph.descendants[i])} == nx.descendants(
            peer, name
        )
    again = Graph.from_networkx(peer)
    assert {(again.nodes[p], again.nodes[c]) for p, c in again.edges} == set(edges)
    assert all(again.index(p) < again.index(c) for p, c in edges)
    assert Graph.from_edges(names, random.sample(edges, len(edges))) == graph
    assert graph.edges == tuple(sorted(graph.edges, key=lambda e: (e[1], e[0])))


def test_a_graph_without_edges_has_no_descendants_and_an_scm():
    for names in ("a", "abc"):
        graph = Graph.from_edges(names, [])
        assert not graph.descendants.any()
        x = linear_scm(graph, jnp.zeros(0)).counterfactual(
            jnp.ones(len(names)), Action.soft(jnp.arange(len(names)))
        )
        np.testing.assert_array_equal(x, 1 + np.arange(len(names)))


def test_fully_connected_graph_has_every_earlier_node_as_parent():
    graph = Graph.fully_connected(3)
    assert graph.nodes == ("X1", "X2", "X3")
    assert graph.edges == ((0, 1), (0, 2), (1, 2))
    assert graph.edge_names == ("X2 <- X1", "X3 <- X1", "X3 <- X2")
    assert graph.index("X2") == graph.index(1) == 1


def test_inverted_negates_every_effect_and_non_causal_removes_them():
    graph = Graph.fully_connected(3)
    scm = random_scm(graph, np.random.default_rng(0), linear=False)
    x = jnp.array([0.3, -1.2, 0.7])
    np.testing.assert_allclose(inverted(scm).abduct(x) - x, x - scm.abduct(x), atol=1e-6)
    shift = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(
        non_causal(graph).counterfactual(x, Action.soft(shift)), x + shift, atol=1e-6
    )


def test_samples_are_predictions_from_sampled_noise():
    graph = Graph.fully_connected(3)
    scm = random_scm(graph, np.random.default_rng(1), linear=True)
    key, action = jax.random.key(0), Action.soft(jnp.array([1.0, 0.0, 0.0]))
    noise = scm.sample_noise(key, 5)
    np.testing.assert_array_equal(scm.sample(key, 5, action), scm.predict(noise, action))
    assert len(np.unique(noise)) == noise.size  # nodes do not share their draws
    np.testing.assert_array_equal(scm.sample(key, 5), scm.sample(key, 5))
    assert not np.array_equal(scm.sample(key, 5), scm.sample(jax.random.key(1), 5))


def test_an_scm_is_a_pytree_with_a_static_graph():
    scm = linear_scm(Graph.fully_connected(3), jnp.array([1.0, 2.0, 3.0]))
    leaves, structure = jax.tree.flatten(scm)
    again = jax.tree.unflatten(structure, leaves)
    assert again.graph == scm.graph
    x = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(again.abduct(x), scm.abduct(x))
    np.testing.assert_allclose(jax.jit(SCM.abduct)(scm, x), scm.abduct(x))
    np.testing.assert_allclose(scm.abduct(x), [1, 1, -5])
    gradient = jax.grad(lambda scm: scm.predict(x)[2])(scm)  # X3 = 2 X1 + 3 X2 + U3
    np.testing.assert_allclose(gradient.mechanisms[2].coefficients, [1, 3])
    np.testing.assert_allclose(gradient.mechanisms[1].coefficients, [3])


def test_own_mathematics_never_promotes_ranks_or_dtypes():
    rng = np.random.default_rng(2)
    x, value = jnp.asarray(rng.normal(size=(2, 4, 3)))
    for linear in (True, False):
        scm = random_scm(Graph.fully_connected(3), rng, linear)
        with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
            out = jax.eval_shape(jax.vmap(scm.counterfactual), x, Action.soft(value))
        assert (out.shape, out.dtype) == (x.shape, x.dtype)


GRAPH = Graph.from_edges(["a", "b"], [("a", "b")])
SCM_AB = linear_scm(GRAPH, jnp.ones(1))


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: Graph.from_edges("abc", ["ab", "bc", "ca"]), "acyclic graph; got the cycle"),
        (lambda: Graph.from_edges("a", ["aa"]), "acyclic graph; got the cycle a -> a"),
        (lambda: Graph.from_networkx(nx.DiGraph(["ab", "ba"])), "acyclic graph"),
        (lambda: Graph.from_edges("ba", ["ab"]), r"nodes in topological order.*\['a', 'b'\]"),
        (lambda: Graph.from_edges("ab", ["ac"]), r"edges to be .* pairs of \['a', 'b'\]"),
        (lambda: Graph.from_edges("ab", [("a", "b", "a")]), "edges to be"),
        (lambda: Graph.from_edges("aa", []), "distinct names for nodes"),
        (lambda: Graph(("a", "b"), ((), (1,))), "parents of node 1"),
        (lambda: Graph(("a", "b"), ((), (-1,))), "parents of node 1"),
        (lambda: Graph(("a", "b"), ((),)), "parents for each of the 2 nodes"),
        (lambda: Graph.fully_connected(0), "num_nodes >= 1"),
        (lambda: GRAPH.index("c"), r"a node of \['a', 'b'\]; got 'c'"),
        (lambda: GRAPH.index(2), "a node of"),
        (lambda: GRAPH.index(-1), "a node of"),
        (lambda: linear_scm(GRAPH, jnp.ones(2)), r"coefficients of shape \(1,\).*\(2,\)"),
        (lambda: linear_scm(GRAPH, 1.0), "coefficients of shape"),
        (lambda: linear_scm(GRAPH, jnp.ones(1), [dist.Normal()]), "noise for each of the 2"),
        (lambda: SCM(GRAPH, SCM_AB.mechanisms[:1], SCM_AB.noise), "mechanisms for each of the 2"),
        (lambda: SCM_AB.abduct(jnp.ones(3)), r"matching \(2,\) for x; got shape \(3,\)"),
        (lambda: SCM_AB.abduct(jnp.float32(1)), "for x"),
        (lambda: SCM_AB.abduct(jnp.array([1, jnp.nan])), "finite values for x"),
        (lambda: SCM_AB.counterfactual(jnp.array([1, jnp.inf]), Action.empty(2)), "values for x"),
        (lambda: SCM_AB.counterfactual(jnp.ones(2), Action.empty(3)), r"\(2,\) for action"),
        (lambda: SCM_AB.predict(jnp.ones((2, 3))), r"matching \(2,\) for noise"),
        (lambda: SCM_AB.predict(jnp.array([jnp.nan, 1])), "finite values for noise"),
        (lambda: SCM_AB.predict(jnp.ones(2), Action.soft([jnp.nan, 0])), "values for shift"),
        (lambda: SCM_AB.sample(jax.random.key(0), -1), "num_samples >= 0"),
        (lambda: SCM_AB.sample(jax.random.key(0), 1.5), "integer num_samples"),
    ],
)
def test_misuse_names_the_argument(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()
