"""Every sampler meets the same contract; the yardstick they are held against; diagnostics."""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density as numpyro_log_density
from problems import answers_to, history_of

import pcr_jax as pcr
from pcr_jax.inference import PosteriorStatus, Samples, log_density, search_prior
from pcr_jax.inference.arviz_data import rhat_and_ess
from pcr_jax.inference.mixing import rank_rhat

KEY = jax.random.key(0)
TRUTH = pcr.library.m1()
SURROGATE = pcr.linear_surrogate(TRUTH.graph)
TOLERANCE = pcr.tolerance(0.5, 0.1)
RELAXED = pcr.relaxed(0.5, 0.1, 0.2)
SAMPLERS = {
    "ess": (pcr.Ess(num_walkers=32, num_steps=16), TOLERANCE),
    "nuts": (pcr.Nuts(num_warmup=150, num_steps=250, thin=1), RELAXED),
    "smc": (pcr.Smc(num_particles=256), TOLERANCE),
}


@pytest.fixture(scope="module")
def history():
    """Four users; the second contradicts himself: no coefficients can meet his answers."""
    history = answers_to(jax.random.key(1), TRUTH, np.zeros((4, 3)), 6, error_rate=0.0)
    node, shift = jnp.zeros(6, int), jnp.ones(6)
    answer = jnp.full((6, 3), jnp.nan).at[:, 1].set(jnp.array([-0.9, 0.9] * 3))
    contrary = history_of(node, shift, answer)
    return jax.tree.map(lambda many, one: many.at[1].set(one), history, contrary)


@pytest.fixture(scope="module")
def results(history):
    """Of each sampler, computed once."""
    found = {}

    def of(name):
        if name not in found:
            sampler, likelihood = SAMPLERS[name]
            settings = {"likelihood": likelihood, "sampler": sampler}
            found[name] = pcr.infer(KEY, SURROGATE, history, **settings)
        return found[name]

    return of


def theta_of(posteriors):
    return posteriors.draws


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "nuts" else []) for n in SAMPLERS],
)
def test_a_sampler_agrees_with_the_exact_posterior(results, history, name):
    sampler, likelihood = SAMPLERS[name]
    exact = pcr.exact_posterior(KEY, SURROGATE, history, likelihood)
    theta = theta_of(results(name))
    for user in (0, 2, 3):
        _, ess, _ = rhat_and_ess(theta[user], sampler.num_walkers)
        assert (ess > 150).all()
        # 3 x 9 means at 5 standard errors, which leaves room for an ESS overestimated by a
        # half: one false alarm in 600 seeds. The sd's standard error is sd / sqrt(2 ESS) for a
        # normal, less for these flat posteriors.
        gap = np.abs(theta[user].mean((0, 1)) - exact.mean[user])
        assert (gap < 5 * np.hypot(exact.sd[user] / np.sqrt(ess), exact.mean_error[user])).all()
        ratio = theta[user].std((0, 1)) / exact.sd[user]
        assert (np.abs(ratio - 1) < 5 / np.sqrt(2 * ess)).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_lie_in_the_posterior_and_the_impossible_user_has_none(results, history, name):
    _, likelihood = SAMPLERS[name]
    posteriors = results(name)
    status = posteriors.status
    assert status[1] == PosteriorStatus.empty
    assert set(status[[0, 2, 3]]) <= {PosteriorStatus.ok, PosteriorStatus.poorly_mixed}
    assert posteriors.best_agreement[1] == 0.5
    theta, lp = theta_of(posteriors), posteriors.log_density
    assert np.isnan(theta[1]).all()
    density = partial(log_density, SURROGATE, likelihood)
    one = jax.tree.map(lambda leaf: leaf[2], history)
    expected = jax.vmap(partial(density, one))(theta[2].reshape(-1, 3))
    np.testing.assert_allclose(lp[2].ravel(), expected, rtol=1e-4)
    assert np.isfinite(lp[[0, 2, 3]]).all()
    assert (posteriors.num_evaluations[[0, 2, 3]] > 1_000).all()
    assert posteriors.num_evaluations[1] == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_users_draws_are_the_same_alone_and_whoever_else_is_there(results, history, name):
    sampler, likelihood = SAMPLERS[name]
    again = partial(pcr.infer, KEY, SURROGATE, likelihood=likelihood, sampler=sampler)
    theta = theta_of(results(name))
    alone = again(jax.tree.map(lambda leaf: leaf[:1], history))
    np.testing.assert_array_equal(theta_of(alone)[0], theta[0])
    # With the contrary user replaced, the others are sampled in other places of their chunk.
    calls = []
    friendly = jax.tree.map(lambda leaf: leaf.at[1].set(leaf[0]), history)
    posteriors = again(friendly, on_user=lambda: calls.append(1))
    np.testing.assert_array_equal(theta_of(posteriors)[[0, 2, 3]], theta[[0, 2, 3]])
    # Numbers of single precision may coincide.
    assert np.isin(theta_of(posteriors)[1], theta[0]).mean() < 0.01
    assert len(calls) == 4


def test_tempering_finds_the_evidence(results, history):
    exact = pcr.exact_posterior(KEY, SURROGATE, history, TOLERANCE)
    figures = results("smc").figures
    for user in (0, 2, 3):
        gap = figures["log_evidence"][user] - np.log(exact.evidence[user])
        # The standard error comes from 4 runs: |t_3| > 10 in one of 500 seeds, for 3 users 170.
        assert abs(gap) < 10 * figures["log_evidence_error"][user]
        assert abs(gap) < 0.5
    assert np.isnan(figures["log_evidence"][1])


@pytest.mark.slow
def test_tempering_needs_no_feasible_prior_draw():
    # Ten coefficients, every one pinned to within 0.05: a share of 1e-13 of the prior.
    graph = pcr.Graph.fully_connected(5)
    surrogate = pcr.linear_surrogate(graph)
    truth = jnp.linspace(-0.8, 0.8, 10)
    node, shift = jnp.arange(4), jnp.ones(4)
    blank = history_of(node, shift, jnp.zeros((4, 5)))
    expected = surrogate.expected(truth, blank.questions, blank.x)
    answer = jnp.where(jnp.asarray(graph.descendants)[node], expected, jnp.nan)
    history = jax.tree.map(lambda leaf: leaf[None], replace(blank, answer=answer))
    settings = {"likelihood": pcr.tolerance(0.05, 0.0), "max_prior_draws": 2**14}
    posteriors = pcr.infer(KEY, surrogate, history, sampler=pcr.Smc(num_moves=10), **settings)
    assert posteriors.prior_acceptance < 1e-9  # estimated from a cover, not from prior draws
    assert posteriors.status[0] in (PosteriorStatus.ok, PosteriorStatus.poorly_mixed)
    assert posteriors.figures["log_evidence"] < np.log(1e-9)
    np.testing.assert_allclose(theta_of(posteriors).mean((1, 2))[0], truth, atol=0.1)


def test_a_gradient_sampler_refuses_the_indicator_and_names_the_remedy(history):
    with pytest.raises(ValueError, match=r"gradient for sampler 'nuts'.*pcr\.relaxed\(sigma"):
        pcr.infer(KEY, SURROGATE, history, likelihood=TOLERANCE, sampler="nuts")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pcr.Ess(num_walkers=7), "even num_walkers; got 7"),
        (lambda: pcr.Ess(thin=0), "thin >= 1"),
        (
            lambda: pcr.Ess(num_walkers=4).check(SURROGATE, TOLERANCE),
            r"num_coefficients = 6; got 4",
        ),
        (lambda: pcr.Nuts(num_steps=0), "num_steps >= 1"),
        (lambda: pcr.Nuts(target_accept=1.0), r"target_accept in \(0, 1\)"),
        (lambda: pcr.Smc(num_particles=1), "num_particles >= 2"),
        (lambda: pcr.Smc(target_ess=0.0), r"target_ess in \(0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_exact_moments_are_those_of_accepted_draws_and_errors_tell_the_truth(history):
    exact = pcr.exact_posterior(KEY, SURROGATE, history, TOLERANCE)
    one = jax.tree.map(lambda leaf: leaf[0], history)
    found = search_prior(jax.random.key(9), SURROGATE, TOLERANCE, one, 2**12, 2**20)
    draws = np.asarray(found.draws)[: int(found.num_found)]
    # 3 means at 4 standard errors: one false alarm in 5,000 seeds
    error = np.hypot(exact.sd[0] / np.sqrt(len(draws)), exact.mean_error[0])
    assert (np.abs(draws.mean(0) - exact.mean[0]) < 4 * error).all()
    acceptance = float(found.acceptance)
    assert exact.evidence[0] == pytest.approx(acceptance, rel=0.15)
    # A user without a posterior, and the errors of the others: sd / sqrt(draws) by theory.
    assert exact.evidence[1] == 0
    assert np.isnan(exact.mean[1]).all()
    others = [0, 2, 3]
    theory = exact.sd[others] / np.sqrt(exact.effective_draws[others, None])
    # Jackknife over 64 blocks: a relative sd of 0.09
    np.testing.assert_allclose(exact.mean_error[others], theory, rtol=0.45)
    binomial = np.sqrt(exact.evidence[others] / 2**20)
    np.testing.assert_allclose(exact.evidence_error[others], binomial, rtol=0.45)
    alone = pcr.exact_posterior(KEY, SURROGATE, jax.tree.map(lambda a: a[:1], history), TOLERANCE)
    np.testing.assert_array_equal(alone.mean[0], exact.mean[0])


def test_exact_posteriors_of_tiny_likelihoods_know_how_many_draws_they_are_worth(history):
    # The contrary user's likelihoods are of the order of 1e-30, and their squares no floats.
    exact = pcr.exact_posterior(KEY, SURROGATE, history, pcr.relaxed(0.5, 0.1, 0.02))
    assert (exact.evidence < 1e-20).any()
    assert (exact.evidence > 0).all()
    assert (exact.effective_draws >= 1).all()
    assert (exact.effective_draws <= 2**20).all()
    assert np.isfinite(exact.mean).all()


def test_exact_posteriors_of_many_coefficients_are_refused():
    surrogate = pcr.linear_surrogate(pcr.Graph.fully_connected(4))
    with pytest.raises(ValueError, match=r"at most 4 unknown numbers in surrogate; got 6.*smc"):
        pcr.exact_posterior(KEY, surrogate, pcr.History.empty(jnp.zeros((1, 4)), 2), TOLERANCE)


def test_the_numpyro_model_has_a_site_per_coefficient_and_the_same_density(history):
    one = jax.tree.map(lambda leaf: leaf[0], history)
    model = pcr.numpyro_model(SURROGATE, one, RELAXED)
    theta = jnp.array([-0.3, 0.2, 0.6])
    names = ["X2 <- X1", "X3 <- X1", "X3 <- X2"]
    density, trace = numpyro_log_density(model, (), {}, dict(zip(names, theta, strict=True)))
    assert [n for n, site in trace.items() if not site["is_observed"]] == names
    np.testing.assert_allclose(density, log_density(SURROGATE, RELAXED, one, theta), rtol=1e-5)
    with pytest.raises(ValueError, match=r"history of one user.*got shape \(4, 6\)"):
        pcr.numpyro_model(SURROGATE, history, RELAXED)
    with pytest.raises(ValueError, match=r"history.answer of shape \(6, 3\); got \(6, 4\)"):
        pcr.numpyro_model(SURROGATE, replace(one, answer=jnp.zeros((6, 4))), RELAXED)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_rhat_is_arvizs(offset, scale):
    draws = np.random.default_rng(0).normal(size=(3, 201, 1)).round(2)  # ties, and an odd number
    draws[0] = draws[0] * scale + offset
    expected = rhat_and_ess(draws, 1)[0]
    np.testing.assert_allclose(rank_rhat(draws[..., 0]), expected, atol=2e-4)


class Chains:
    """Two chains of starting points; the third user's second chain is shifted."""

    name, needs_gradient, host_only, needs_exact_starts = "chains", False, True, False
    num_starts, num_walkers = 200, 1

    def __init__(self):
        self.user = 0

    def check(self, surrogate, likelihood):
        pass

    def run(self, key, posterior, starts):
        draws = starts.reshape(2, 100, 1, 3).copy()
        draws[1] += 5.0 * (self.user == 2)
        self.user += 1
        return Samples(draws, np.zeros((2, 100, 1)), draws[:, :0], 1)


def test_users_whose_chains_disagree_keep_their_draws_and_are_named():
    nobody = pcr.History.empty(jnp.zeros((4, 3)), 2)
    posteriors = pcr.infer(KEY, SURROGATE, nobody, likelihood=TOLERANCE, sampler=Chains())
    status = posteriors.status
    assert status[2] == PosteriorStatus.poorly_mixed
    assert np.isfinite(theta_of(posteriors)).all()
    with pytest.warns(pcr.PosteriorWarning, match=r"of 4 users have R-hat > 1.01 \(user .*2"):
        table = pcr.diagnose(posteriors)
    assert list(table.columns) == ["status", "rhat", "ess_bulk", "ess_tail"]
    assert table["rhat"][2] > 1.5
    np.testing.assert_array_equal(table["status"] == "poorly_mixed", table["rhat"] > 1.01)


def test_diagnose_counts_and_names_users_without_a_posterior(results):
    with pytest.warns(pcr.PosteriorWarning, match=r"^1 of 4 users have no posterior \(user 1\)"):
        table = pcr.diagnose(results("smc"))
    assert list(table["status"][[1, 3]]) == ["empty", "ok"]
    assert table.loc[1, ["rhat", "ess_bulk", "ess_tail"]].isna().all()
    assert (table.loc[[0, 2, 3], "ess_bulk"] > 150).all()
    good = results("smc").to_arviz().sel(user=[0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(pcr.diagnose(good).index) == [0, 2]


def test_walkers_are_followed_one_by_one():
    # Ten walkers that never move: ten draws, however often they are repeated.
    walkers = np.random.default_rng(0).normal(size=(1, 1, 10, 1))
    stuck = np.broadcast_to(walkers, (2, 50, 10, 1)) + 1e-6 * np.arange(50)[:, None, None]
    _, bulk, _ = rhat_and_ess(stuck.reshape(2, 500, 1), 10)
    assert bulk[0] < 60


def test_predictions_are_the_expected_answers_where_something_was_said(results, history):
    idata = results("ess").to_arviz()
    predicted = idata.posterior_predictive["answer"]
    assert predicted.dims == ("chain", "draw", "user", "query", "node")
    assert predicted.shape == (4, 5, 4, 6, 3)
    answer = np.asarray(history.answer)
    values = predicted.to_numpy()
    for user in (0, 2, 3):
        said = ~np.isnan(answer[user])
        assert np.isnan(values[:, :, user][..., ~said]).all()
        # At most floor(0.1 * 6) = 0 answers may be missed by more than sigma.
        assert (np.abs(values[:, :, user] - answer[user])[..., said] <= 0.5 + 1e-6).all()
    assert np.isnan(values[:, :, 1]).all()
    prior = idata.prior["theta"]
    assert prior.dims == ("chain", "draw", "coefficient")
    assert abs(float(prior.mean())) < 5 / np.sqrt(3 * 3000)  # at 5 standard errors
