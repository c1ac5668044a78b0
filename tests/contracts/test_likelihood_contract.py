"""What every likelihood promises."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Gaussian, GaussianOfUnknownNoise, mapped

import pcr_jax as pcr
from pcr_jax.likelihoods import base, check_likelihood, has_hard_support, mixture

pytestmark = pytest.mark.x64
LIKELIHOODS = {
    "tolerance": lambda: pcr.tolerance(0.6, 0.4),
    "joint": lambda: pcr.tolerance(0.6, 0.2, norm="joint"),
    "relaxed": lambda: pcr.relaxed(0.6, 0.4, 0.2),
    "gaussian": lambda: Gaussian(0.4),
    "unknown noise": lambda: GaussianOfUnknownNoise(pcr.Box([0.1], [1.0])),
    "mixture": lambda: bound(mixture([0.3, 0.4, 0.2], 0.2)),
    "never wrong": lambda: bound(mixture(0.3, 0.0)),
    "inferred": lambda: bound(mixture()),
    "inferred noise": lambda: bound(mixture(error_rate=0.1)),
    "known wrong": lambda: bound(mixture(error_rate=0.3, wrong=[0.5, -0.5, -0.5])),
    "intervals": lambda: bound(mixture(), jnp.full((6, 3), 0.3).at[::2].set(0.0)),
}


def bound(likelihood, half_width=None):
    """To questions of both kinds to a person with features."""
    questions = pcr.Questions(jnp.array([0, 1, 0] * 2), jnp.ones(6), jnp.arange(6) < 3)
    history = pcr.History(questions, jnp.zeros((6, 3)), jnp.array([0.5, 0.0, -0.5]), half_width)
    return likelihood.bound(pcr.linear_surrogate(pcr.Graph.fully_connected(3)), history)


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request):
    return LIKELIHOODS[request.param]()


def case(likelihood, num=300):
    rng = np.random.default_rng(0)
    expected, answer = rng.normal(0, 0.5, (2, num, 6, 3)).astype(np.float32)
    answer[rng.random(answer.shape) < 0.4] = np.nan
    unit = jnp.asarray(rng.uniform(0.1, 0.9, (num, len(likelihood.names))), jnp.float32)
    unknowns = unit if likelihood.prior is None else likelihood.prior.from_unit(unit)
    return unknowns, jnp.asarray(expected), jnp.asarray(answer)


def test_its_unknowns_have_a_prior(likelihood):
    check_likelihood(likelihood)
    assert bool(likelihood.names) == (likelihood.prior is not None)


def test_the_log_probability_is_a_number_or_minus_infinity(likelihood):
    values = mapped(likelihood.log_prob)(*case(likelihood))
    assert values.shape == (300,)
    assert not np.isnan(values).any()
    assert (values < np.inf).all()
    assert np.isfinite(values).any()


def test_what_was_not_reported_does_not_count(likelihood):
    unknowns, expected, answer = case(likelihood)
    moved = jnp.where(jnp.isnan(answer), expected + 7.0, expected)
    log_prob = mapped(likelihood.log_prob)
    np.testing.assert_array_equal(
        log_prob(unknowns, moved, answer), log_prob(unknowns, expected, answer)
    )
    silent = jnp.full_like(answer, jnp.nan)
    values = log_prob(unknowns, expected, silent)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(log_prob(unknowns, moved, silent), values)


def test_the_path_is_finite_and_leads_to_the_log_probability(likelihood):
    unknowns, expected, answer = case(likelihood)
    log_prob = mapped(likelihood.log_prob)(unknowns, expected, answer)
    path = mapped(likelihood.path)(unknowns, expected, answer)
    assert np.isfinite(path).all()
    some = np.isfinite(log_prob)
    np.testing.assert_array_equal(path[some], log_prob[some])


def test_gradients_lead_somewhere_where_it_says_so(likelihood):
    unknowns, expected, answer = case(likelihood)
    gradient = mapped(jax.grad(likelihood.log_prob, argnums=1))(unknowns, expected, answer)
    assert np.isfinite(gradient).all()
    assert (gradient[np.isnan(answer)] == 0).all()
    assert (jnp.abs(gradient) > 0).any() == likelihood.differentiable


def test_better_answers_are_no_less_likely(likelihood):
    unknowns, expected, answer = case(likelihood)
    nearer = jnp.where(jnp.isnan(answer), expected, (expected + answer) / 2)
    log_prob = mapped(likelihood.log_prob)
    gain = log_prob(unknowns, nearer, answer) >= log_prob(unknowns, expected, answer) - 1e-4
    assert gain.all()


def test_hard_support_counts_answers(likelihood):
    if not has_hard_support(likelihood):
        return
    unknowns, expected, answer = case(likelihood)
    agreeing, answered = mapped(likelihood.agreement)(expected, answer)
    np.testing.assert_array_equal(answered, (~np.isnan(answer)).any(-1).sum(-1))
    assert (agreeing <= answered).all()
    possible = mapped(likelihood.possible)(expected, answer)
    np.testing.assert_array_equal(possible, agreeing >= likelihood.needed(answered))
    assert 0.02 < possible.mean() < 0.98
    assert not (possible & ~mapped(likelihood.nearly_possible)(expected, answer)).any()
    values = mapped(likelihood.log_prob)(unknowns, expected, answer)
    assert np.isfinite(values[possible]).all()
    assert values[possible].min() > values[~possible].mean()
    reach = likelihood.reach(6, 0.0)
    if reach is not None:
        assert reach[0] >= likelihood.sigma
        assert reach[1] <= likelihood.needed(jnp.asarray(6))


def test_what_is_said_of_each_answer_adds_up(likelihood):
    if not hasattr(likelihood, "pointwise"):
        return
    unknowns, expected, answer = case(likelihood)
    each = mapped(likelihood.pointwise)(unknowns, expected, answer)
    whole = mapped(likelihood.log_prob)(unknowns, expected, answer)
    np.testing.assert_allclose(each.sum(-1), whole, rtol=1e-4)
    silent = np.isnan(answer).all(-1)
    assert silent.any()
    assert (each[silent] == 0).all()
    wrong = mapped(likelihood.wrong_probability)(unknowns, expected, answer)
    assert ((wrong >= 0) & (wrong <= 1)).all()
    assert (wrong[silent] == 0).all()
    if likelihood.names[:1] == ("error_rate",):  # Bayes: what the rate does to each answer
        slopes = mapped(jax.jacfwd(likelihood.pointwise))(unknowns, expected, answer)[..., 0]
        rate = unknowns[:, :1]
        by_bayes = np.where(silent, 0.0, wrong / rate - (1 - wrong) / (1 - rate))
        np.testing.assert_allclose(slopes, by_bayes, rtol=1e-3, atol=1e-3)
    # One answer alone has the probability that it has among others.
    alone = answer.at[:, 1:].set(jnp.nan)
    first = mapped(likelihood.log_prob)(unknowns, expected, alone)
    np.testing.assert_allclose(first, each[:, 0], rtol=1e-4, atol=1e-5)


def test_what_is_drawn_of_answers_is_as_probable_as_is_said(likelihood):
    if not hasattr(likelihood, "augment"):
        return
    unknowns, expected, answer = jax.tree.map(lambda leaf: leaf[0], case(likelihood))
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = mapped(lambda key: likelihood.augment(key, unknowns, expected, answer))(keys)
    wrong = likelihood.wrong_probability(unknowns, expected, answer)
    reported = ~np.isnan(answer)
    right = (drawn.weights > 0).any(-1)
    # Of 6 answers at 5 standard errors: one false alarm in 290,000 seeds.
    error = np.sqrt(wrong * (1 - wrong) / 4000) + 1e-3
    answered = reported.any(-1)
    assert (np.abs(1 - right.mean(0) - wrong) < 5 * error)[answered].all()
    assert (drawn.weights[:, ~reported] == 0).all()
    half = likelihood.about.half_width
    half = np.zeros(answer.shape) if half is None else half
    gap = np.abs(drawn.answer - answer)[:, reported]
    assert (gap <= half[reported] + 1e-6).all()
    if likelihood.prior is not None:
        assert np.isfinite(mapped(likelihood.prior.log_prob)(drawn.unknowns)).all()


def test_another_number_is_no_other_program(likelihood):
    count = []

    @jax.jit
    def log_prob(likelihood, *arguments):
        count.append(1)
        return likelihood.log_prob(*arguments)

    one = jax.tree.map(lambda leaf: leaf[0], case(likelihood))
    for factor in (1.0, 0.5):
        log_prob(jax.tree.map(lambda leaf, f=factor: leaf * f, likelihood), *one)
    assert len(count) == 1


def test_the_example_works():
    failed, tried = doctest.testmod(base)
    assert tried
    assert not failed
