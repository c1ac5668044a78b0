"""Whether answers fit any SCM of the surrogate: false alarms, what is found, what is handed on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from benchmarks.quality import people
from pcr_jax.inference.fit import judged
from pcr_jax.surrogates import in_scale
from pcr_jax.surrogates.expanded import expanded

KEY = jax.random.key(0)
CHAIN = pcr.Graph.from_edges(["A", "B", "C"], [("A", "B"), ("B", "C")])
SCALE = np.array([2e4, 1.0, 0.05])
NODE = np.array([0, 1, 0, 1, 0, 1, 0, 1])
SHIFT = np.array([1.0, 1.2, -1.5, -0.8, 0.7, -1.7, 1.9, 1.6])
CURVE, EDGE = 0.5, 0.8


def said(curve, edge, num=4):
    """Answers of people at 0 of whom B = .8 A, C = .6 B + ``curve`` B^2 + ``edge`` A; scales."""
    a = np.where(NODE == 0, SHIFT, 0.0)
    b = 0.8 * a + np.where(NODE == 1, SHIFT, 0.0)
    c = 0.6 * b + curve * b**2 + edge * a
    answer = np.stack([np.full(8, np.nan), np.where(NODE == 0, b, np.nan), c], 1)
    return answer + 0.05 * np.random.default_rng(0).normal(size=(num, 8, 3))


@pytest.fixture(scope="module")
def posteriors():
    """Four people whom the chain fits, four with a curve, four with an edge; one is silent."""
    silent = np.full((1, 8, 3), np.nan)
    answer = np.concatenate([said(0.0, 0.0), said(CURVE, 0.0), said(0.0, EDGE), silent])
    num = len(answer)
    questions = pcr.Questions(
        np.tile(NODE, (num, 1)), np.tile(SHIFT * SCALE[NODE], (num, 1)), np.ones((num, 8), bool)
    )
    history = pcr.History(questions, answer * SCALE, np.zeros((num, 3)))
    surrogate = pcr.linear_surrogate(CHAIN, low=-2.0, high=2.0, scale=SCALE, centre=np.zeros(3))
    return pcr.infer(KEY, surrogate, history, pcr.mixture(), sampler=pcr.Gibbs(num_steps=4))


def test_who_fits_is_told_from_who_does_not(posteriors):
    wrong = posteriors.fit.wrong
    assert (wrong[:4] < 0.02).all()
    assert (wrong[4:12] > 0.98).all()
    assert wrong[12] == 0
    alone = jax.tree.map(lambda leaf: np.asarray(leaf)[:5], posteriors.history)
    fields = ("draws", "unknowns", "log_density")
    few = {name: getattr(posteriors, name)[:5] for name in fields}
    np.testing.assert_array_equal(replace(posteriors, history=alone, **few).fit.wrong, wrong[:5])


def test_what_is_handed_on_is_as_far_apart_as_the_surrogate_is_wrong(posteriors):
    scms = posteriors.scms(200)
    theta = posteriors.flat[..., :2]
    drawn = theta[:, (np.arange(200) * theta.shape[1]) // 200]
    ratio = np.array([SCALE[1] / SCALE[0], SCALE[2] / SCALE[1]])
    moved = ~np.isclose(np.asarray(scms.coefficients) / ratio, drawn, rtol=1e-4, atol=1e-5)
    assert not moved[:4].any()
    assert moved[4:12].any(-1).mean() > 0.95
    shifts = np.array([-2.0, -1.0, 1.0, 2.0])
    for users, curve, edge in ((slice(4, 8), CURVE, 0.0), (slice(8, 12), 0.0, EDGE)):
        own = jax.tree.map(lambda leaf, users=users: leaf[users], scms)
        for node in (0, 1):
            found = people.counterfactuals(own, jnp.zeros((4, 3)), node, shifts * SCALE[node])
            low, high = np.quantile(found[..., 2] / SCALE[2], [0.05, 0.95], axis=1)
            b = (0.8 if node == 0 else 1.0) * shifts
            true = 0.6 * b + curve * b**2 + edge * shifts * (node == 0)
            assert ((low - 0.1 <= true) & (true <= high + 0.1)).mean() > 0.75
    # The mean is as it was inferred.
    np.testing.assert_allclose(
        np.asarray(posteriors.scms().coefficients) / ratio, theta.mean(1), rtol=1e-3, atol=1e-5
    )


def test_diagnose_names_whom_no_scm_of_the_surrogate_fits(posteriors):
    with pytest.warns(pcr.PosteriorWarning, match="8 of 13 users gave answers that no SCM"):
        status = pcr.diagnose(posteriors)["status"]
    assert (status[4:12] == "poorly_fitting").all()
    assert status[12] == "prior_only"


def test_nothing_is_said_where_there_is_nothing_to_judge_by(posteriors):
    hard = replace(posteriors, likelihood=pcr.tolerance(0.5, 0.1))
    assert judged(hard).weights is None
    assert not judged(hard).wrong.any()


def test_what_is_expanded_is_the_surrogate_and_what_it_lacks(posteriors):
    surrogate, _ = in_scale(posteriors.surrogate, posteriors.history)
    larger = expanded(surrogate, jnp.ones(()))
    assert larger.graph.edges == ((0, 1), (0, 2), (1, 2))
    # B <- A and its square; C <- B, the lacking C <- A, and both squares.
    assert larger.blocks.tolist() == [[-1] * 5, [0, -1, -1, 2, -1], [1, 3, -1, 4, 5]]
    values = jnp.array([1.0, 2.0, 0.0])
    assert larger.features(2, values).tolist() == [2.0, 1.0, 0.0, 1.0, 4.0]
    weights = jnp.array([0.5, 0.1, 0.0, 0.2, 0.3])
    np.testing.assert_allclose(larger.slopes(2, weights, values), [0.1 + 0.4, 0.5 + 1.2], rtol=1e-5)


@pytest.mark.slow
def test_people_whom_the_surrogate_cannot_fit_are_told_from_those_it_can():
    m1, m2, m3 = (pcr.library.get(name) for name in ("m1", "m2", "m3"))
    missing = pcr.Graph.from_edges(m1.graph.nodes, [("X1", "X2"), ("X2", "X3")])
    shares = []
    for truth, graph in ((m1, m1.graph), (m2, m2.graph), (m3, m3.graph), (m1, missing)):
        units = people.population(truth)
        _, history = people.asked(truth, units, 150)
        posteriors = people.infer(people.surrogates(graph, units)["linear"], history)
        shares.append((posteriors.fit.wrong > 0.5).mean())
        jax.clear_caches()
    assert max(shares[:2]) <= 0.02
    assert min(shares[2:]) >= 0.6
