"""How simulated people err, hesitate and differ."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax import library
from pcr_jax.history import check_history

NUM_USERS = 500  # everywhere: another shape is another compilation
KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_USERS, 3)), jnp.float32)
M1, M2, M3 = library.m1(), library.m2(), library.m3()
GRAPH = M1.graph
# Noise of mean 2 and next to no spread: what people say of means is exact.
CERTAIN = pcr.linear_scm(GRAPH, jnp.array([-0.99, 0.99, 0.5]), [dist.Normal(2.0, 1e-6)] * 3)


def about_x1(shift, individual=True):
    """The same question to everyone."""
    asked = jnp.full(NUM_USERS, 0), jnp.full(NUM_USERS, float(shift))
    return pcr.Questions(*asked, jnp.full(NUM_USERS, individual))


def told(user, shift=2.0, individual=True, key=KEY):
    """What everyone says of X2 and X3."""
    return np.asarray(user.answer(key, about_x1(shift, individual), X), float)[:, 1:]


def own(scm, shift=2.0):
    """What is right of X2 and X3."""
    return np.asarray(scm.counterfactual(X, pcr.Action.soft(jnp.array([shift, 0.0, 0.0]))))[:, 1:]


def wrong(error, scm=M1):
    """People who always err in this way."""
    return pcr.SimulatedUser(scm, 1.0, error)


def by_population(scm):
    """E[X2] and E[X3] where E[U] = 2, and the effects of X1 on them, by hand."""
    a, b, c = np.asarray(scm.coefficients, float)
    return np.array([2 + 2 * a, 2 + 2 * b + (2 + 2 * a) * c]), np.array([a, b + a * c])


def test_anchored_answers_lie_between_the_right_one_and_the_number_shown():
    present, right = np.asarray(X)[:, 1:], own(M3)
    found = told(wrong(pcr.Anchored(0.35), M3))
    np.testing.assert_allclose(found, right + 0.35 * (present - right), rtol=1e-4, atol=1e-5)
    mean, effect = by_population(CERTAIN)
    found = told(wrong(pcr.Anchored(0.35), CERTAIN), individual=False)
    np.testing.assert_allclose(found, np.tile(mean + 0.65 * 2 * effect, (NUM_USERS, 1)), rtol=1e-4)


def test_people_are_anchored_each_by_their_own_pull():
    pull = np.linspace(0, 1, NUM_USERS)[:, None]
    present, right = np.asarray(X)[:, 1:], own(M1)
    found = told(wrong(pcr.Anchored(pull[:, 0])))
    np.testing.assert_allclose(found, right + pull * (present - right), rtol=1e-4, atol=1e-5)


def test_effects_that_are_too_weak_lose_at_every_edge():
    weak = pcr.linear_scm(GRAPH, 0.5 * M1.coefficients)
    np.testing.assert_allclose(told(wrong(pcr.TooWeak(0.5))), own(weak), rtol=1e-4, atol=1e-5)
    mean, _ = by_population(CERTAIN)
    _, effect = by_population(pcr.linear_scm(GRAPH, 0.5 * CERTAIN.coefficients))
    found = told(wrong(pcr.TooWeak(0.5), CERTAIN), individual=False)
    np.testing.assert_allclose(found, np.tile(mean + 2 * effect, (NUM_USERS, 1)), rtol=1e-4)
    # A chain of one edge is where it is the same as being anchored, of two where it is not.
    anchored = told(wrong(pcr.Anchored(0.5)))
    np.testing.assert_allclose(told(wrong(pcr.TooWeak(0.5)))[:, 0], anchored[:, 0], atol=1e-5)
    assert (np.abs(told(wrong(pcr.TooWeak(0.5)))[:, 1] - anchored[:, 1]) > 0.4).all()


def test_curved_effects_are_too_weak_as_well():
    x1, x2, x3 = np.asarray(X, float).T
    curve = [-1 + 3 / (1 + np.exp(-2 * x)) for x in (x1, x1 + 2)]
    x2_after = x2 + 0.4 * (curve[1] - curve[0])
    change = -0.05 * 2 + 0.25 * (x2_after**2 - x2**2)
    by_hand = np.stack([x2_after, x3 + 0.4 * change], -1)
    np.testing.assert_allclose(told(wrong(pcr.TooWeak(0.4), M3)), by_hand, rtol=1e-4, atol=1e-5)


def test_guesses_have_the_stated_spread_around_what_is_now_whatever_the_effect():
    guess = wrong(pcr.Broad(jnp.array([9.0, 0.5, 3.0])))
    for shift in (2.0, 20.0):
        gap = told(guess, shift) - np.asarray(X)[:, 1:]
        # 10 comparisons at 5 standard errors: one false alarm in 150,000 seeds
        assert (np.abs(gap.mean(0)) < 5 * np.array([0.5, 3]) / np.sqrt(NUM_USERS)).all()
        np.testing.assert_allclose(gap.std(0), [0.5, 3], rtol=5 / np.sqrt(2 * NUM_USERS))
        assert abs(np.corrcoef(gap.T)[0, 1]) < 5 / np.sqrt(NUM_USERS)


def test_who_is_coherently_wrong_is_so_every_time_and_by_one_scm():
    theirs = pcr.population_of_scms(KEY, library.theta_star(), NUM_USERS, 0.3)
    errs = np.arange(NUM_USERS) % 4 == 0
    user = pcr.SimulatedUser(M1, errs.astype(float), theirs)
    shift = jnp.array([2.0, 0.0, 0.0])
    explained = jax.vmap(lambda scm, x: scm.counterfactual(x, pcr.Action.soft(shift)))(theirs, X)
    expected = np.where(errs[:, None], np.asarray(explained)[:, 1:], own(M1))
    for k in range(3):
        found = told(user, key=jax.random.key(k))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.round(explained - X, 4)[errs, 1])) > 0.9 * errs.sum()


def test_everyone_errs_at_their_own_rate():
    rates = np.where(np.arange(NUM_USERS) % 2, 0.05, 0.4)
    user = pcr.SimulatedUser(M1, rates, pcr.Anchored(1.0))
    answers = [told(user, key=jax.random.key(k)) for k in range(40)]
    erred = np.mean([np.abs(a - own(M1)).max(1) > 0.1 for a in answers], 0)
    # 4 comparisons at 5 standard errors: one false alarm in 400,000 seeds
    for rate in (0.05, 0.4):
        share, error = erred[rates == rate], np.sqrt(rate * (1 - rate) / 40)
        assert abs(share.mean() - rate) < 5 * error / np.sqrt(len(share))
        # One error does not bring another.
        np.testing.assert_allclose(share.std(), error, rtol=5 / np.sqrt(1.7 * len(share)))


@pytest.mark.parametrize(("mean", "quarter"), [(0.1, 0.6), (0.3, 0.6), (0.02, 0.9), (0.1, 0.3)])
def test_a_quarter_of_the_people_makes_its_share_of_the_errors(mean, quarter):
    def found(key):
        rates = pcr.sample_error_rates(key, 2000, mean, quarter)
        worst = jnp.sort(rates)[-500:]
        return jnp.array([rates.mean(), worst.sum() / rates.sum()])

    each = np.array([found(jax.random.key(k)) for k in range(20)])
    assert (each > 0).all()
    # 8 comparisons at 6 standard errors, estimated from 20: one false alarm in 10,000 seeds
    error = each.std(0, ddof=1) / np.sqrt(20)
    assert (np.abs(each.mean(0) - [mean, quarter]) < 6 * error).all()
    assert (error < 0.01).all()


def test_a_persons_rate_and_scm_are_the_same_in_any_company():
    np.testing.assert_array_equal(
        pcr.sample_error_rates(KEY, 3), pcr.sample_error_rates(KEY, 40)[:3]
    )
    few, many = (pcr.population_of_scms(KEY, M3, n, 0.3) for n in (3, 40))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), few, many)


def test_noise_may_differ_by_node_and_have_names():
    sds = [7.0, 0.1, 3.0]
    by_name = pd.Series(dict(zip(reversed(GRAPH.nodes), reversed(sds), strict=True)))
    for noise in (sds, by_name):
        gap = told(pcr.SimulatedUser(M1, 0.0, noise=noise)) - own(M1)
        # 4 comparisons at 5 standard errors: one false alarm in 400,000 seeds
        np.testing.assert_allclose(gap.std(0), sds[1:], rtol=5 / np.sqrt(2 * NUM_USERS))


def test_relative_noise_grows_with_what_is_said_to_change():
    user = pcr.SimulatedUser(M1, 0.0, noise=0.1, relative_noise=0.2)
    effect = np.abs(own(M1, 1.0) - np.asarray(X)[:, 1:])
    for shift in (0.0, 1.0, 10.0):
        gap = (told(user, shift) - own(M1, shift)) / (0.1 + 0.2 * shift * effect)
        # 6 comparisons at 5 standard errors: one false alarm in 300,000 seeds
        np.testing.assert_allclose(gap.std(0), 1.0, rtol=5 / np.sqrt(2 * NUM_USERS))


@pytest.mark.parametrize(
    ("uncertainty", "grid"),
    [(0.07, 0.05), (0.1, 0.1), (0.49, 0.1), (1.0, 1.0), (7.0, 5.0), (499.0, 100.0), (1e6, 1e6)],
)
def test_numbers_are_rounded_to_grids_as_coarse_as_people_are_uncertain(uncertainty, grid):
    exact, rounded = (
        told(pcr.SimulatedUser(M1, 0.0, noise=2 * uncertainty, rounding=rounding))
        for rounding in (None, 0.5)
    )
    steps = rounded / grid
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert (np.abs(rounded - exact) <= 0.5001 * grid).all()
    assert np.isin([1, -1, 3, -3], np.round(steps)).all()  # on no coarser one


def test_who_is_certain_does_not_round():
    certain = pcr.SimulatedUser(M1, 0.0, rounding=1.0)
    np.testing.assert_array_equal(told(certain), told(pcr.SimulatedUser(M1, 0.0)))


def test_the_larger_the_change_the_coarser_the_grid():
    user = pcr.SimulatedUser(CERTAIN, 0.0, relative_noise=0.1, rounding=1.0)
    small, large = told(user, 1.5)[:, 0], told(user, 150.0)[:, 0]  # uncertain by .15 and 15
    for found, grid in ((small, 0.1), (large, 10.0)):
        np.testing.assert_allclose(found / grid, np.round(found / grid), atol=1e-3)
    assert not np.allclose(small, np.round(small), atol=1e-3)


def test_people_do_not_know_where_they_are_uncertain():
    noise, half = [9.0, 0.1, 3.0], [1.0, 0.1, 1.0]
    user = pcr.SimulatedUser(M1, 0.0, noise=noise, dont_know=half)
    silent = np.isnan(told(user))
    shares = np.array([0.5, 0.75])
    # 3 comparisons at 5 standard errors: one false alarm in 500,000 seeds
    assert (np.abs(silent.mean(0) - shares) < 5 * np.sqrt(shares * (1 - shares) / NUM_USERS)).all()
    assert abs(np.corrcoef(silent.T)[0, 1]) < 5 / np.sqrt(NUM_USERS)
    said = told(pcr.SimulatedUser(M1, 0.0, noise=noise))
    np.testing.assert_allclose(told(user)[~silent], said[~silent], rtol=1e-5)


def test_people_know_less_of_larger_changes():
    user = pcr.SimulatedUser(CERTAIN, 0.0, relative_noise=0.1, dont_know=0.5)
    silent = [np.isnan(told(user, shift)).mean(0) for shift in (0.0, 1.0, 10.0)]
    assert not silent[0].any()
    effect = 0.1 * np.abs(by_population(CERTAIN)[1])
    for share, shift in zip(silent[1:], (1.0, 10.0), strict=True):
        expected = shift * effect / (shift * effect + 0.5)
        # 4 comparisons at 5 standard errors: one false alarm in 400,000 seeds
        error = np.sqrt(expected * (1 - expected) / NUM_USERS)
        assert (np.abs(share - expected) < 5 * error).all()


def test_the_answers_of_such_people_are_a_history_and_a_persons_the_same_alone():
    settings = {"noise": 0.3, "relative_noise": 0.1, "rounding": 1.0, "dont_know": 2.0}
    user = pcr.SimulatedUser(M2, 0.3, pcr.Anchored(), **settings)
    many, alone = (pcr.elicit(KEY, user, x, num_queries=2) for x in (X, X[:1]))
    check_history(many, GRAPH)
    assert 0 < np.isnan(many.answer[..., 2]).mean() < 0.5
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:1]), alone, many)


@pytest.mark.parametrize("sd", [0.3, [0.1, 0.5, 2.0]])
def test_coefficients_of_people_spread_around_the_common_ones(sd):
    scms = pcr.population_of_scms(KEY, M2, NUM_USERS, sd)
    assert scms.batch_shape == (NUM_USERS,)
    found = np.asarray(scms.coefficients, float)
    # 9 comparisons at 5 standard errors: one false alarm in 200,000 seeds
    gap = np.abs(found.mean(0) - np.asarray(M2.coefficients))
    assert (gap < 5 * np.array(sd) / np.sqrt(NUM_USERS)).all()
    np.testing.assert_allclose(found.std(0), sd * np.ones(3), rtol=5 / np.sqrt(2 * NUM_USERS))
    correlation = np.corrcoef(found.T)[np.triu_indices(3, 1)]
    assert (np.abs(correlation) < 5 / np.sqrt(NUM_USERS)).all()


def test_people_who_do_not_differ_share_the_scm_and_its_noise():
    scms = pcr.population_of_scms(KEY, M3, 4, 0.0)
    for i in range(4):
        person = jax.tree.map(lambda leaf, i=i: leaf[i], scms)
        np.testing.assert_allclose(person.abduct(X), M3.abduct(X), rtol=1e-6)
        np.testing.assert_array_equal(person.sample_noise(KEY, 5), M3.sample_noise(KEY, 5))


TWO = pcr.population_of_scms(KEY, M1, 2, 0.1)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: pcr.Anchored(1.2), r"pull in \[0, 1\]; got 1.2"),
        (lambda: pcr.Anchored(np.zeros((2, 2))), "pull of shape"),
        (lambda: pcr.TooWeak(-0.5), r"factor in \[0, 1\]; got -0.5"),
        (lambda: pcr.Broad(0.0), "sd > 0"),
        (lambda: wrong(pcr.Broad([1.0, 2.0])), "sd of wrong answers for 3 nodes; got 2"),
        (lambda: told(wrong(pcr.Anchored([0.1, 0.2]))), r"one wrong .* 500 users; .* \(2,\)"),
        (lambda: told(wrong(pcr.Broad(np.ones((2, 3))))), r"one wrong .* 500 users; .* \(2,\)"),
        (lambda: told(pcr.SimulatedUser(M1, [0.1, 0.2])), r"one error_rate .* 500 users"),
        (lambda: told(pcr.SimulatedUser(TWO)), r"one scm .* 500 users"),
        (lambda: pcr.SimulatedUser(M1, [0.1, 1.2]), "error_rate in"),
        (lambda: pcr.SimulatedUser(M1, np.full((2, 2), 0.1)), "error_rate of shape"),
        (lambda: pcr.SimulatedUser(M1, noise=[0.1, 0.2]), r"noise of shape \(\) or \(3,\)"),
        (lambda: pcr.SimulatedUser(M1, noise=[0.1, 0.2, -1.0]), "noise >= 0"),
        (lambda: pcr.SimulatedUser(M1, noise={"X1": 1.0}), "noise to have the names"),
        (lambda: pcr.SimulatedUser(M1, relative_noise=-1.0), "relative_noise >= 0"),
        (lambda: pcr.SimulatedUser(M1, rounding=-1.0), "rounding >= 0"),
        (lambda: pcr.SimulatedUser(M1, dont_know=0.0), "dont_know > 0"),
        (lambda: pcr.SimulatedUser(M1, dont_know=[1.0, 2.0]), "dont_know of shape"),
        (lambda: pcr.sample_error_rates(KEY, 0), "num_users >= 1"),
        (lambda: pcr.sample_error_rates(KEY, 5, 1.0), r"mean in \(0, 1\)"),
        (lambda: pcr.sample_error_rates(KEY, 5, 0.5), r"quarter in \(0.25., 0.5..\) .* got 0.6"),
        (lambda: pcr.sample_error_rates(KEY, 5, 0.1, 0.2), "quarter in"),
        (lambda: pcr.population_of_scms(KEY, TWO, 5, 0.1), r"one scm; got .* \(2,\)"),
        (lambda: pcr.population_of_scms(KEY, M1, 0, 0.1), "num_users >= 1"),
        (lambda: pcr.population_of_scms(KEY, M1, 5, -0.1), "sd >= 0"),
        (lambda: pcr.population_of_scms(KEY, M1, 5, [0.1, 0.2]), r"sd of shape \(\) or \(3,\)"),
    ],
)
def test_misuse_names_the_argument(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()


def test_what_gives_no_wrong_answers_is_refused():
    for value in (0.5, "inverted", pcr.Anchored, GRAPH):
        with pytest.raises(TypeError, match="wrong to be a Wrong, such as an SCM or Anchored"):
            pcr.SimulatedUser(M1, wrong=value)
