"""What every sampler promises, on a likelihood without hard support."""

import doctest
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import POPULATION, GaussianOfUnknownNoise

import pcr_jax as pcr
from pcr_jax.inference import chunks, log_density
from pcr_jax.inference.arviz_data import rhat_and_ess
from pcr_jax.inference.samplers import base
from pcr_jax.likelihoods import mixture
from pcr_jax.surrogates import for_users

SAMPLERS = {
    "ess": lambda: pcr.Ess(num_ensembles=2, num_walkers=32, num_steps=24),
    "smc": lambda: pcr.Smc(num_runs=2, num_particles=384),
    "nuts": lambda: pcr.Nuts(num_chains=2, num_warmup=100, num_steps=300, num_jumps=8),
    "gibbs": lambda: pcr.Gibbs(num_chains=2, num_steps=8, thin=2),
    "zeus": lambda: pcr.Zeus(num_walkers=32, num_steps=120, keep=0.4, num_ensembles=2),
}
KEY = jax.random.key(0)
# One, and another of the same program.
LIKELIHOODS = {
    "gibbs": (mixture(error_rate=0.1), mixture(error_rate=0.2)),
    None: tuple(GaussianOfUnknownNoise(pcr.Box([low], [1.0])) for low in (0.1, 0.2)),
}
GRAPH = pcr.Graph.fully_connected(2)
SURROGATE = pcr.linear_surrogate(GRAPH)


def history_of_users():
    """Three users, of whom the last one was not asked."""
    user = pcr.SimulatedUser(pcr.linear_scm(GRAPH, jnp.array([0.4])), error_rate=0.0)
    history = pcr.elicit(KEY, user, jnp.zeros((3, 2)), num_queries=4, design=POPULATION)
    silent = pcr.History.empty(jnp.zeros((1, 2)), 4)
    return jax.tree.map(lambda many, one: many.at[2].set(one[0]), history, silent)


HISTORY = history_of_users()


def likelihoods_for(sampler):
    return LIKELIHOODS.get(sampler.name, LIKELIHOODS[None])


@pytest.fixture(scope="module", params=SAMPLERS)
def case(request):
    if request.param == "zeus" and find_spec("zeus") is None:
        pytest.skip("zeus-mcmc is not installed")
    sampler = SAMPLERS[request.param]()
    likelihood, _ = likelihoods_for(sampler)
    return sampler, pcr.infer(KEY, SURROGATE, HISTORY, likelihood, sampler=sampler)


def test_it_samples_the_numbers_of_the_surrogate_and_the_likelihood(case):
    sampler, posteriors = case
    exact = pcr.exact_posterior(KEY, SURROGATE, HISTORY, posteriors.likelihood, num_draws=2**18)
    z = np.concatenate([posteriors.draws, posteriors.unknowns], -1)
    for user in range(3):
        _, ess, _ = rhat_and_ess(z[user], sampler.num_walkers)
        assert (ess > 100).all()
        # 4 x 3 x 2 means at 5 standard errors: one false alarm in 70,000 seeds
        gap = np.abs(z[user].mean((0, 1)) - exact.mean[user])
        assert (gap < 5 * np.hypot(exact.sd[user] / np.sqrt(ess), exact.mean_error[user])).all()
        ratio = z[user].std((0, 1)) / exact.sd[user]
        # 1 / sqrt(2 ESS) for a normal, more where tails are heavier, as those of the noise.
        fourth = np.mean(((z[user] - z[user].mean((0, 1))) / z[user].std((0, 1))) ** 4, (0, 1))
        assert (np.abs(ratio - 1) < 5 * np.sqrt((fourth - 1) / 4 / np.minimum(ess, 400))).all()
    assert set(posteriors.status[:2]) <= {pcr.PosteriorStatus.ok, pcr.PosteriorStatus.poorly_mixed}
    assert np.isnan(posteriors.best_agreement).all()
    assert np.isnan(posteriors.prior_acceptance).all()


def test_it_tells_log_densities_and_how_many_it_evaluated(case):
    _, posteriors = case
    z = jnp.asarray(np.concatenate([posteriors.draws, posteriors.unknowns], -1)[0, 0, :50])
    one = jax.tree.map(lambda leaf: leaf[0], HISTORY)
    expected = jax.vmap(lambda z: log_density(SURROGATE, posteriors.likelihood, one, z))(z)
    np.testing.assert_allclose(posteriors.log_density[0, 0, :50], expected, rtol=1e-3, atol=1e-3)
    assert (posteriors.num_evaluations > 1_000).all()


def test_unknowns_of_the_likelihood_are_in_the_arviz_data(case):
    _, posteriors = case
    (name,), prior = posteriors.likelihood.names, posteriors.likelihood.prior
    sd = posteriors.to_arviz().posterior[name]
    assert sd.dims == ("chain", "draw", "user")
    np.testing.assert_array_equal(sd, np.moveaxis(posteriors.unknowns[..., 0], 0, 2))
    assert np.isfinite(jax.vmap(prior.log_prob)(sd.to_numpy().reshape(-1, 1))).all()


def test_another_prior_or_one_per_user_is_no_other_program(case):
    sampler, _ = case
    if sampler.host_only:
        return
    compiled = chunks.run_chunk._cache_size()
    for surrogate in (pcr.linear_surrogate(GRAPH, high=2.0), for_users(SURROGATE, 3)):
        _, likelihood = likelihoods_for(sampler)
        found = pcr.infer(KEY, surrogate, HISTORY, likelihood, sampler=sampler)
        assert np.isfinite(found.draws).all()
    assert chunks.run_chunk._cache_size() == compiled


def test_a_sampler_that_needs_a_gradient_refuses_a_likelihood_without(case):
    sampler, _ = case
    plain = pcr.tolerance(0.5, 0.1)
    if sampler.needs_gradient:
        with pytest.raises(ValueError, match=r"Use pcr\.relaxed\(sigma, beta\)"):
            sampler.check(SURROGATE, plain)
    elif hasattr(sampler, "unsuited"):
        with pytest.raises(ValueError, match=r"with augment\(\).*Use sampler 'nuts' or 'smc'"):
            sampler.check(SURROGATE, plain)
    else:
        sampler.check(SURROGATE, plain)


def test_the_example_works():
    failed, tried = doctest.testmod(base)
    assert tried
    assert not failed
