"""Individual questions: no bound excludes the truth, and exact posteriors hold it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax.inference.cover import cover
from pcr_jax.inference.search import cell_of, possible_cells

T = 6
GRAPHS = {3: pcr.Graph.fully_connected(3), 4: pcr.Graph.fully_connected(4)}


def truth_and_history(rng, graph, low, high):
    """Coefficients of a box, and answers to individual and other questions, in double precision.

    Also the surrogate, and how far the answers may be from what the coefficients say.
    """
    d, edges = graph.num_nodes, graph.edges
    noise_mean = rng.normal(size=d).astype(np.float32)
    box = pcr.Box(np.full(len(edges), low), np.full(len(edges), high))
    surrogate = pcr.LinearSurrogate(graph, box, noise_mean)
    theta = np.asarray(box.low + (box.high - box.low) * rng.random(len(edges)), np.float32)
    direct = np.zeros((d, d))
    for value, (parent, child) in zip(theta, edges, strict=True):
        direct[child, parent] = value
    total = np.linalg.inv(np.eye(d) - direct)
    x = (rng.normal(size=d) * 10.0 ** rng.uniform(-2, 5)).astype(np.float32)
    node = rng.integers(0, d - 1, T)
    shift = (rng.normal(size=T) * 10.0 ** rng.uniform(-1, 2)).astype(np.float32)
    individual = rng.random(T) < 0.7
    change = total[:, node].T * shift[:, None]
    expected = np.where(individual[:, None], x, total @ noise_mean) + change
    sigma = np.abs(change).max() * 10.0 ** rng.uniform(-6, -1)
    answer = expected + rng.uniform(-0.9, 0.9, (T, d)) * sigma
    answer[0] += 30 * sigma  # one answer may be missed
    answer[~graph.descendants[node]] = np.nan
    questions = pcr.Questions(node, shift, individual)
    history = jax.tree.map(jnp.asarray, pcr.History(questions, answer.astype(np.float32), x))
    return surrogate, theta, history, float(sigma)


@pytest.mark.parametrize("num_nodes", GRAPHS)
def test_neither_cells_nor_covers_exclude_the_truth(num_nodes):
    cells = jax.jit(possible_cells)
    excluded = []
    for seed in range(60 if num_nodes == 3 else 15):
        rng = np.random.default_rng(seed)
        low = rng.choice([-1.0, -3.0, 0.5, 20.0, -300.0, 1e4])
        high = low + rng.choice([0.5, 2.0, 10.0])
        surrogate, theta, history, sigma = truth_and_history(rng, GRAPHS[num_nodes], low, high)
        possible, _ = cells(surrogate, pcr.tolerance(sigma, 0.2), history)
        boxes = cover(np.random.default_rng(0), surrogate, history, sigma, T - 1, "each")
        within = (boxes.low <= theta) & (theta <= boxes.high)
        if not possible[cell_of(surrogate.prior.box, theta)]:
            excluded.append(("cells", seed))
        if not within.all(1).any():
            excluded.append(("cover", seed))
    assert not excluded


def test_an_exact_posterior_holds_a_linear_person():
    truth = pcr.linear_scm(GRAPHS[3], jnp.array([-0.7, 0.4, 0.6]))
    x = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    node, shift = jnp.tile(jnp.array([0, 1, 0, 1]), (2, 1)), jnp.ones((2, 4))
    questions = pcr.Questions(node, shift, jnp.ones((2, 4), bool))
    answers = jax.vmap(jax.vmap(lambda x, a: truth.counterfactual(x, a), (None, 0)))
    action = jax.vmap(jax.vmap(lambda n, s: pcr.Action.shift_node(n, s, 3)))(node, shift)
    answer = jnp.where(jnp.asarray(GRAPHS[3].descendants)[node], answers(x, action), jnp.nan)
    history = pcr.History(questions, answer, x)
    settings = (pcr.linear_surrogate(GRAPHS[3]), history, pcr.tolerance(0.1, 0.0))
    exact = pcr.exact_posterior(jax.random.key(0), *settings)
    theta = np.array([-0.7, 0.4, 0.6])
    assert (exact.evidence > 0).all()
    # The coefficients -0.7 and 0.6 to within 0.1, as the answers to within 0.1 say.
    assert (np.abs(exact.mean - theta) < 0.03).all()
    assert (exact.sd < 0.12).all()
    found = pcr.infer(jax.random.key(1), *settings)
    assert (found.status == 0).all()
    np.testing.assert_allclose(found.draws.mean((1, 2)), exact.mean, atol=0.02)
