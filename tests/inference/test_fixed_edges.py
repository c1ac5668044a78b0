"""Edges whose effect is known: boxes with the same low and high end."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import pcr_jax as pcr
from pcr_jax.inference.cover import cover
from pcr_jax.inference.target import Target
from pcr_jax.surrogates import Box

KEY = jax.random.key(0)
GRAPH = pcr.Graph.fully_connected(3)
FIXED = pcr.linear_surrogate(GRAPH, low=[-1.0, 0.5, -1.0], high=[1.0, 0.5, 1.0])
TRUTH = pcr.linear_scm(GRAPH, [0.3, 0.5, -0.6])
LIKELIHOODS = {None: pcr.mixture(0.2, 0.1), "ess": pcr.tolerance(0.5, 0.2)}


@pytest.fixture(scope="module")
def history():
    user = pcr.SimulatedUser(TRUTH, error_rate=0.0, noise=0.2)
    x = jnp.array([[1.0, -0.5, 0.2], [-0.3, 0.4, 0.1]])
    return pcr.elicit(KEY, user, x, num_queries=6)


@pytest.mark.parametrize(
    "sampler",
    [
        pcr.Gibbs(num_chains=2, num_steps=16),
        pytest.param(
            pcr.Ess(num_ensembles=2, num_walkers=32, num_steps=60), marks=pytest.mark.slow
        ),
        pytest.param(pcr.Smc(num_runs=2), marks=pytest.mark.slow),
        pytest.param(pcr.Nuts(num_chains=2, num_steps=500), marks=pytest.mark.slow),
    ],
    ids=lambda sampler: sampler.name,
)
def test_a_sampler_leaves_a_fixed_edge_and_is_right_of_the_others(sampler, history):
    likelihood = LIKELIHOODS.get(sampler.name, LIKELIHOODS[None])
    posteriors = pcr.infer(KEY, FIXED, history, likelihood, sampler=sampler)
    assert (posteriors.draws[..., 1] == 0.5).all()
    assert set(posteriors.status) <= {pcr.PosteriorStatus.ok, pcr.PosteriorStatus.poorly_mixed}
    exact = pcr.exact_posterior(KEY, FIXED, history, likelihood, num_draws=2**18)
    mean = posteriors.draws.mean((1, 2))
    # 200 independent draws at least: 4 means at 5 standard errors, one false alarm in 400,000.
    assert (np.abs(mean - exact.mean) <= 5 * exact.sd / np.sqrt(200) + 1e-6).all()
    table = pcr.diagnose(posteriors)
    assert (table["rhat"] < 1.1).all()
    assert (table["ess_bulk"] > 200).all()
    known = pcr.taught(posteriors)
    assert (known["X3 <- X1"] == 1).all()
    assert (known.drop(columns="X3 <- X1") < 1).all(axis=None)
    assert np.isfinite(posteriors.scms().mechanisms[2].coefficients).all()


def test_densities_are_those_of_the_free_numbers():
    box = FIXED.prior
    theta = jnp.array([0.2, 0.5, -0.3])
    assert box.log_prob(theta) == pytest.approx(-2 * np.log(2.0))
    assert box.log_prob(theta.at[1].set(0.51)) == -jnp.inf
    again, log_density = box.from_real(box.to_real(theta))
    np.testing.assert_allclose(again, theta, rtol=1e-6)
    assert np.isfinite(log_density)


def test_a_cover_and_its_share_of_the_prior_are_those_of_the_free_numbers(history):
    one = jax.tree.map(lambda leaf: leaf[0], history)
    found = cover(np.random.default_rng(0), FIXED, one, 0.5, 6, "each")
    low, high = found.hull
    assert low[1] == high[1] == 0.5
    assert (high - low)[[0, 2]].max() < 1.9
    part = Target(FIXED, pcr.tolerance(0.5, 0.0), one, jnp.stack([low, high]).astype(float))
    share = np.log((high - low)[[0, 2]] / 2).sum()
    assert float(part.log_share) == pytest.approx(share, rel=1e-4)


def test_a_numpyro_model_has_a_site_for_it(history):
    one = jax.tree.map(lambda leaf: leaf[0], history)
    model = numpyro.handlers.seed(pcr.numpyro_model(FIXED, one, LIKELIHOODS[None]), KEY)
    trace = numpyro.handlers.trace(model).get_trace()
    assert trace["X3 <- X1"]["value"] == 0.5
    assert trace["X2 <- X1"]["value"] != 0


def test_what_cannot_be_fixed():
    with pytest.raises(ValueError, match="low < high, or for some numbers low == high"):
        Box([[0.0, 0.5], [0.5, 0.5]], [[1.0, 0.5], [0.5, 0.5]])
    rows = TRUTH.sample(KEY, 20)
    with pytest.raises(ValueError, match=r"no edge fixed; got low == high for \['X3 <- X1'\]"):
        pcr.learned_prior(FIXED, rows)
