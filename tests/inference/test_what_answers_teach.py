"""What answers teach, which are doubtful; the same posteriors by NumPyro and in ArviZ."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density as numpyro_log_density
from problems import Exponential, OneEffect

import pcr_jax as pcr
from pcr_jax.inference import log_density
from pcr_jax.inference.arviz_data import rhat_and_ess
from pcr_jax.inference.samplers.gibbs import Gibbs
from pcr_jax.likelihoods import mixture
from pcr_jax.surrogates import basis_surrogate, normal_prior

KEY = jax.random.key(0)
GRAPH = pcr.Graph.fully_connected(3)
UNITS = np.array([2e4, 1.0, 0.05])
THETA = np.array([0.5, -0.6, 0.4])
SURROGATE = pcr.linear_surrogate(GRAPH, prior=normal_prior(np.zeros(3), np.ones(3)), scale=UNITS)
GIBBS = Gibbs(num_chains=2, num_steps=8)
NODE, SHIFT = np.array([0, 0, 1, 0, 1, 0]), np.array([1.0, -1.5, 1.2, 0.7, -0.8, 2.0])


def right_answers(theta=THETA, node=NODE, shift=SHIFT, noise=0.0, rng=None):
    """What a person at 1 of each unit says, in units."""
    scm, x = pcr.linear_scm(GRAPH, jnp.asarray(theta)), jnp.ones(3)
    actions = [pcr.Action.shift_node(n, s, 3) for n, s in zip(node, shift, strict=True)]
    answer = np.stack([scm.counterfactual(x, action) for action in actions])
    if rng is not None:
        answer = answer + noise * rng.normal(size=answer.shape)
    return np.where(GRAPH.descendants[node], answer, np.nan)


def history_of(answers, half_width=None):
    """Of people whose answers (users, T, 3) and half widths are in units."""
    num = len(answers)
    shift = np.tile(SHIFT * UNITS[NODE], (num, 1))
    questions = pcr.Questions(np.tile(NODE, (num, 1)), shift, np.ones(shift.shape, bool))
    half_width = np.zeros(answers.shape) if half_width is None else half_width
    return pcr.History(questions, answers * UNITS, np.tile(UNITS, (num, 1)), half_width * UNITS)


@pytest.fixture(scope="module")
def posteriors():
    """Five people: a consistent one; one whose fourth answer is wrong; one who reported what
    the second node leads to alone; one who said nothing; one whose two answers contradict
    each other.
    """
    rng = np.random.default_rng(0)
    answers = np.stack([right_answers(noise=0.05, rng=rng) for _ in range(5)])
    answers[1, 3, 1:] = 2 - answers[1, 3, 1:]
    answers[2, NODE == 0] = np.nan
    answers[3] = np.nan
    answers[4, 2:] = answers[4, :, 2] = np.nan
    answers[4, :2, 1] = 2.0
    width = np.zeros(answers.shape)
    width[4, :2, 1] = 0.1
    history = history_of(answers, width)
    return pcr.infer(KEY, SURROGATE, history, mixture(noise=0.05), sampler=GIBBS)


def test_answers_teach_what_they_are_about(posteriors):
    table = pcr.taught(posteriors)
    assert list(table.columns) == ["X2 <- X1", "X3 <- X1", "X3 <- X2", "error_rate"]
    assert (table.loc[[0, 1], table.columns[:3]] > 0.9).all(axis=None)
    prior_only = table < pcr.PRIOR_ONLY
    assert list(prior_only.loc[2])[:3] == [True, True, False]
    # Silence teaches nothing. Shares of variances of 2,048 draws at 5 standard errors, of the
    # error rate, whose tail is heavier, twice as much: one false alarm in 400,000 seeds.
    assert (table.loc[3].abs() < [0.17, 0.17, 0.17, 0.34]).all()
    # Six right answers: Beta(1, 15) after Beta(1, 9).
    assert abs(table.loc[0, "error_rate"] - (1 - (15 / 4352) / (9 / 1100))) < 0.15


def test_what_is_taught_of_a_curve_is_an_effect_not_a_weight(posteriors):
    # Two weights that matter in their sum alone: of neither is anything known, of that all.
    surrogate = basis_surrogate(GRAPH, scale=UNITS, centre=UNITS)
    unit = np.random.default_rng(0).uniform(size=(5, 2, 500, len(surrogate.names)))
    draws = np.array(surrogate.prior.from_unit(jnp.asarray(unit, float)))
    first = [i for i, name in enumerate(surrogate.names) if name.startswith("X2 <- X1")]
    x = UNITS / UNITS
    rise = np.subtract(*(surrogate.standardised().features(1, x + side) for side in (1.0, -1.0)))
    rise = rise[surrogate.blocks[1] >= 0]
    draws[..., first[0]] -= draws[..., first] @ rise / rise[0]
    likelihood = mixture(0.05, 0.1)
    unknowns = posteriors.unknowns[..., :0]
    found = replace(
        posteriors, draws=draws, unknowns=unknowns, surrogate=surrogate, likelihood=likelihood
    )
    table = pcr.taught(found)
    assert list(table.columns) == list(GRAPH.edge_names)
    np.testing.assert_allclose(table["X2 <- X1"], 1.0, atol=1e-4)
    assert (table[["X3 <- X1", "X3 <- X2"]].abs() < 0.3).all(axis=None)
    one_effect = OneEffect(GRAPH, Exponential(jnp.ones(1)))
    known = pcr.taught(replace(found, surrogate=one_effect, draws=draws[..., :1] * 0 + 0.5))
    assert list(known.columns) == ["effect"]
    assert (known == 1).all(axis=None)


def test_the_wrong_answer_is_the_one_that_is_accused(posteriors):
    table = pcr.conflicts(posteriors)
    assert list(table.columns) == ["user", "question", "node", "shift", "wrong"]
    assert len(table) == 6 + 6 + 2 + 2
    assert (table.loc[0, "user"], table.loc[0, "question"], table.loc[0, "node"]) == (1, 3, "X1")
    assert table.loc[0, "wrong"] > 0.99
    assert (table.loc[table["user"].isin([0, 2]), "wrong"] < 0.3).all()
    assert table["wrong"].is_monotonic_decreasing
    answer = np.asarray(posteriors.history.answer)[1, 3]
    said = "X2 would become {:.5g} and X3 {:.5g} if X1 rose by 14,000".format(*answer[1:])
    assert pcr.ask_again(posteriors, 1) == (
        f"Your answer to question 4, that {said}, does not fit your other answers: please think "
        "about it again."
    )
    assert [pcr.ask_again(posteriors, user) for user in (0, 2, 3)] == [None] * 3


def test_of_two_answers_that_contradict_each_other_one_is_asked_again(posteriors):
    table = pcr.conflicts(posteriors)
    assert (table.loc[table["user"] == 4, "wrong"] > 0.1).all()
    sentence = pcr.ask_again(posteriors, 4)
    assert "that X2 would become between 1.9 and 2.1 if X1 " in sentence
    assert ("rose by 20,000" in sentence) != ("fell by 30,000" in sentence)


def test_a_question_about_people_like_somebody_is_asked_again_in_its_own_words(posteriors):
    history = posteriors.history
    questions = replace(history.questions, individual=np.zeros(history.questions.node.shape, bool))
    about = replace(posteriors, history=replace(history, questions=questions))
    sentence = pcr.ask_again(about, 4)
    assert "that for people like you X2 would become between 1.9 and 2.1, on" in sentence
    assert " for them, does not fit" in sentence


def test_misuse_of_posteriors_is_refused(posteriors):
    for function in (pcr.conflicts, pcr.taught, pcr.refit_prior):
        with pytest.raises(TypeError, match="posteriors to be a Posteriors"):
            function(posteriors.to_arviz())
    with pytest.raises(TypeError, match=r"knows wrong answers, such as mixture\(\)"):
        pcr.conflicts(replace(posteriors, likelihood=pcr.tolerance(0.5, 0.1)))
    with pytest.raises(ValueError, match="user < 5; got 5"):
        pcr.ask_again(posteriors, 5)
    nobody = replace(posteriors, status=np.array([0, 5, 5, 5, 5]))
    with pytest.raises(ValueError, match="two users who answered; got 1"):
        pcr.refit_prior(nobody)


@pytest.mark.slow
def test_people_teach_each_other_how_far_they_differ():
    rng = np.random.default_rng(1)
    thetas = THETA + 0.3 * rng.normal(size=(32, 3))
    history = history_of(np.stack([right_answers(theta, noise=0.1, rng=rng) for theta in thetas]))
    surrogate = SURROGATE
    likelihood = mixture(noise=0.1)
    for key in jax.random.split(KEY, 4):
        found = pcr.infer(key, surrogate, history, likelihood, sampler=GIBBS)
        surrogate = pcr.refit_prior(found)
    mean, factor = (np.asarray(leaf)[0] for leaf in (surrogate.prior.mean, surrogate.prior.factor))
    sd = np.sqrt(np.diag(factor @ factor.T))
    # Deviations of 32 people at 5 standard errors: one false alarm in 500,000 seeds.
    assert (np.abs(mean - thetas.mean(0)) < 0.07).all()
    assert (np.abs(sd / 0.3 - 1) < 5 / np.sqrt(2 * 32)).all()
    assert (np.abs(sd / thetas.std(0) - 1) < 0.25).all()
    assert factor[1, 0] == factor[2, 0] == 0


def test_leave_one_out_of_one_user(posteriors):
    import arviz

    idata = posteriors.to_arviz()
    each = idata.log_likelihood["answer"]
    assert each.dims == ("chain", "draw", "user", "query")
    answered = ~np.isnan(posteriors.history.answer).all(-1)
    np.testing.assert_array_equal(~np.isnan(each).all(("chain", "draw")), answered)
    total = each.sum("query").to_numpy()[..., :2]
    theta, rate = (
        np.moveaxis(of, 0, 2)[:, :, :2] for of in (posteriors.draws, posteriors.unknowns)
    )
    prior = (
        -(theta**2).sum(-1) / 2 - 1.5 * np.log(2 * np.pi) + np.log(9) + 8 * np.log1p(-rate[..., 0])
    )
    lp = np.moveaxis(posteriors.log_density, 0, 2)[..., :2]
    np.testing.assert_allclose(total + prior, lp, rtol=1e-3, atol=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wrong answer's Pareto tail
        loo = arviz.loo(idata.sel(user=1), pointwise=True)
    by_answer = np.asarray(loo.elpd_i if hasattr(loo, "elpd_i") else loo.loo_i)  # ArviZ 1, 0.23
    assert by_answer.shape == (6,)
    assert np.argmin(by_answer) == 3
    width = idata.constant_data["half_width"]
    assert width.dims == ("user", "query", "node")
    assert float(width[4, 1, 1]) == pytest.approx(0.1 * UNITS[1])


def test_a_numpyro_model_has_the_same_density_whatever_the_prior(posteriors):
    one = jax.tree.map(lambda leaf: leaf[1], posteriors.history)
    likelihood = mixture()
    model = pcr.numpyro_model(SURROGATE, one, likelihood)
    theta, unknowns = jnp.array([0.3, -0.2, 0.1]), jnp.array([0.2, 0.07])
    at = {"surrogate, real numbers": theta, "error_rate": unknowns[0], "noise": unknowns[1]}
    density, trace = numpyro_log_density(model, (), {}, at)
    expected = log_density(SURROGATE, likelihood, one, jnp.concatenate([theta, unknowns]))
    np.testing.assert_allclose(density, expected, rtol=1e-5)
    found = [trace[name]["value"] for name in SURROGATE.names]
    np.testing.assert_array_equal(jnp.stack(found), theta)


@pytest.mark.slow
def test_nuts_of_the_numpyro_model_agrees_with_gibbs(posteriors):
    one = jax.tree.map(lambda leaf: leaf[:1], posteriors.history)
    likelihood = mixture()
    gibbs = Gibbs(num_chains=4, num_walkers=64, num_particles=64, num_steps=20, thin=4)
    found = pcr.infer(KEY, SURROGATE, one, likelihood, sampler=gibbs)
    draws = np.concatenate([found.draws, found.unknowns], -1)[0]
    model = pcr.numpyro_model(SURROGATE, jax.tree.map(lambda leaf: leaf[0], one), likelihood)
    nuts = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, dense_mass=True),
        num_warmup=500,
        num_samples=1500,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    nuts.run(KEY)
    names = (*SURROGATE.names, "error_rate", "noise")
    other = np.stack([nuts.get_samples(group_by_chain=True)[name] for name in names], -1)
    # Means of 5 numbers and their squares at 5 standard errors: one false alarm in 170,000 seeds.
    for function in (lambda z: z, np.square):
        mean, error = [], []
        for z, walkers in ((function(draws), gibbs.num_walkers), (function(other), 1)):
            _, ess, _ = rhat_and_ess(z, walkers)
            assert (ess > 200).all()
            mean.append(z.mean((0, 1)))
            error.append(z.std((0, 1)) / np.sqrt(ess))
        assert (np.abs(mean[0] - mean[1]) < 5 * np.hypot(*error)).all()
