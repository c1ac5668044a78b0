"""Gibbs sampling of `mixture`: against integrals, in other units, and what it refuses."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, norm, truncnorm, ttest_1samp

import pcr_jax as pcr
from pcr_jax.inference.samplers.gibbs import Person
from pcr_jax.inference.samplers.linear_sweeps import Linear
from pcr_jax.likelihoods.mixture import truncated_normal

PAIR = pcr.Graph.fully_connected(2)
KEY = jax.random.key(0)
SAMPLER = pcr.Gibbs(num_walkers=128, num_particles=4096, num_warmup=2, num_steps=4)


def asked(answers, half_width=None):
    """Three people who are asked what X2 = 1 becomes if X1 = 2 rises by 1, 1, -1 and 2."""
    shift = np.array([1.0, 1.0, -1.0, 2.0])
    x = np.tile([2.0, 1.0], (3, 1))
    answer = np.stack([np.full((3, 4), np.nan), 1 + np.asarray(answers) * shift], -1)
    questions = pcr.Questions(np.zeros((3, 4), int), np.tile(shift, (3, 1)), np.ones((3, 4), bool))
    if half_width is not None:
        half_width = np.full(answer.shape, half_width)
    return pcr.History(questions, answer, x, half_width)


# What they say each unit does: in agreement, two and two, and one of them apart.
SAID = [[0.5, 0.45, 0.55, 0.5], [0.8, 0.82, -0.6, -0.6], [0.3, 0.3, 0.3, -0.9]]


def by_integration(history, likelihood, prior):
    """Mean and standard deviation of the coefficient, on a grid; (user,) each."""
    grid = jnp.linspace(-2.0, 2.0, 8001)[:, None]
    surrogate = pcr.linear_surrogate(PAIR, prior=prior)

    def one(history):
        target = pcr.Target(surrogate, likelihood, history)
        weights = jax.nn.softmax(jax.vmap(target.log_density)(grid))
        mean = weights @ grid[:, 0]
        return mean, jnp.sqrt(weights @ (grid[:, 0] - mean) ** 2)

    return map(np.asarray, jax.vmap(one)(jax.tree.map(jnp.asarray, history)))


@pytest.mark.parametrize(
    ("prior", "half_width"),
    [
        (pcr.Box([-1.0], [1.0]), None),
        pytest.param(pcr.normal_prior([0.2], [0.5]), 0.2, marks=pytest.mark.slow),
    ],
    ids=["box, numbers", "normal, intervals"],
)
def test_draws_are_from_the_posterior(prior, half_width):
    history, likelihood = asked(SAID, half_width), pcr.mixture(0.1, 0.2)
    surrogate = pcr.linear_surrogate(PAIR, prior=prior)
    posteriors = pcr.infer(KEY, surrogate, history, likelihood, sampler=SAMPLER)
    mean, sd = by_integration(history, likelihood, prior)
    flat = posteriors.draws.reshape(3, -1)
    # At least 400 of the 2,048 draws are worth an independent one: 5 standard errors, which 6
    # means all keep but once in 290,000 seeds.
    assert (np.abs(flat.mean(1) - mean) <= 5 * sd / 20).all()
    assert np.allclose(flat.std(1), sd, rtol=0.25)


def test_it_goes_on_from_draws_that_the_next_answer_does_not_surprise():
    prior, likelihood = pcr.Box([-1.0], [1.0]), pcr.mixture(0.1, 0.2)
    surrogate, history = pcr.linear_surrogate(PAIR, prior=prior), asked(SAID)
    answer = np.array(history.answer)
    answer[:, 3] = np.nan
    first = replace(history, answer=answer)
    before = pcr.infer(KEY, surrogate, first, likelihood, sampler=SAMPLER)
    after = pcr.infer(KEY, surrogate, history, likelihood, sampler=SAMPLER, starts=before)
    filtered = pcr.infer(KEY, surrogate, history, likelihood, sampler=SAMPLER)
    resumed = after.num_evaluations < filtered.num_evaluations
    # The third's last answer is another than the first three, which may have been wrong.
    assert resumed.tolist() == [True, False, False]
    mean, sd = by_integration(history, likelihood, prior)
    flat = after.draws.reshape(3, -1)
    # As above, for 3 means.
    assert (np.abs(flat.mean(1) - mean) <= 5 * sd / 20).all()
    assert np.allclose(flat.std(1), sd, rtol=0.25)
    # Nobody is known to have said the same before: all are filtered, and have the same draws.
    other = replace(before, history=replace(first, x=first.x + 1.0))
    again = pcr.infer(KEY, surrogate, history, likelihood, sampler=SAMPLER, starts=other)
    np.testing.assert_array_equal(again.draws, filtered.draws)


def test_walkers_keep_account_of_what_their_weights_lead_to():
    graph = pcr.Graph.from_edges(
        [f"X{j}" for j in range(10)],
        [(f"X{i}", f"X{j}") for j in range(10) for i in range(j) if (i + 2 * j) % 3 == 0],
    )
    prior = pcr.normal_prior(np.zeros(len(graph.edges)), np.ones(len(graph.edges)))
    theta = np.random.default_rng(0).uniform(-0.8, 0.8, len(graph.edges))
    user = pcr.SimulatedUser(pcr.linear_scm(graph, theta), error_rate=0.0, noise=0.05)
    history = pcr.elicit(KEY, user, jnp.ones((1, 10)), num_queries=12)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], history)
    swept = {}
    for centre in (None, np.zeros(10)):  # answers one by one, and all those about a node as one
        surrogate = pcr.linear_surrogate(graph, prior=prior, centre=centre)
        person = Person(pcr.Target(surrogate, pcr.mixture(), one))
        model = Linear(person)
        assert model.by_node == (centre is not None)
        blocks = person.blocks
        weights = jnp.where(blocks >= 0, jnp.asarray(theta)[blocks], 0.0)[None].repeat(4, 0)
        walkers = model.walkers(weights, jnp.full((4, 2), 0.1))
        walkers = jax.jit(model.sweep)(jax.random.split(KEY, 4), walkers)
        for z, x in zip(model.zs(walkers), walkers.x, strict=True):
            np.testing.assert_allclose(x, person.target.expected(z), atol=1e-4)
        swept[model.by_node] = np.asarray(model.zs(walkers))
        assert np.abs(swept[model.by_node][:, : len(theta)] - theta).max() > 1e-3
    np.testing.assert_allclose(swept[True], swept[False], atol=1e-3)


@pytest.mark.parametrize("num", [1, 7])
def test_a_step_of_the_noise_leaves_its_distribution_as_it_is(num):
    likelihood, squares = pcr.mixture(error_rate=0.1), 0.03 * num
    grid = np.linspace(-7.0, 5.0, 20_001)  # of its logarithm
    log_prior = norm.logpdf(grid, np.log(0.1), 1.0)
    density = np.exp(log_prior - num * grid - squares * np.exp(-2 * grid) / 2)
    below = np.cumsum(density) / density.sum()
    k_start, k_step = jax.random.split(KEY)
    exact = np.interp(jax.random.uniform(k_start, (20_000,)), below, grid)
    unit = jax.random.uniform(k_step, (20_000, 3), minval=1e-7)
    step = jax.vmap(likelihood._noise, (0, 0, None, None))
    after = np.log(np.asarray(step(unit, jnp.exp(exact), jnp.asarray(num), squares), float))
    assert (np.abs(after - exact) > 1e-4).mean() > 0.5
    # Kolmogorov and Smirnov's test: each fails once in a million seeds.
    assert kstest(after, lambda x: np.interp(x, grid, below)).pvalue > 1e-6


@pytest.mark.slow
def test_many_nodes_are_no_other_matter():
    """64 nodes, 192 answers: where sums are of more terms than are compiled one by one."""
    num = 64
    rng = np.random.default_rng(num)
    nodes = [f"X{j}" for j in range(num)]
    pairs = [(p, j) for j in range(1, num) for p in rng.choice(j, min(j, 2), replace=False)]
    graph = pcr.Graph.from_edges(nodes, [(nodes[p], nodes[j]) for p, j in pairs])
    size, units = len(graph.edges), {"scale": np.ones(num), "centre": np.zeros(num)}
    prior = pcr.normal_prior(np.zeros(size), np.full(size, 0.7))
    model = pcr.linear_surrogate(graph, prior=prior, **units)
    truth = pcr.linear_scm(graph, rng.uniform(-0.7, 0.7, size))
    x = truth.sample(jax.random.key(0), 2)
    user = pcr.SimulatedUser(truth, error_rate=0.1, noise=0.05)
    asking = {"num_queries": 3 * num, "surrogate": model}
    history = pcr.elicit(jax.random.key(1), user, x, **asking)
    found = pcr.infer(jax.random.key(2), model, history, pcr.mixture(), sampler="gibbs")
    draws = found.draws.reshape(2, -1, size)
    away = (draws.mean(1) - np.asarray(truth.coefficients)) / draws.std(1)
    # Of 250 standard normals: beyond 5 once in 7,000 seeds; their mean square beyond 2 never.
    assert np.abs(away).max() < 5
    assert (away**2).mean() < 2


@pytest.mark.slow
def test_the_same_people_in_other_units_have_the_same_draws():
    truth = pcr.library.m1()
    x = truth.sample(KEY, 8)
    user = pcr.SimulatedUser(truth, noise=0.05)
    history = pcr.elicit(KEY, user, x, num_queries=6)
    draws = []
    for factors in np.array([[1.0, 1.0, 1.0], [1e-6, 1.0, 1e6]]):
        told = history.standardised(jnp.asarray(1 / factors, float))
        surrogate = pcr.linear_surrogate(truth.graph, scale=factors)
        posteriors = pcr.infer(KEY, surrogate, told, pcr.mixture(), sampler=SAMPLER)
        draws.append(posteriors.draws)
        # In natural units a coefficient is an effect per unit.
        scms = posteriors.scms()
        ends = [(child, parent) for parent, child in truth.graph.edges]
        ratio = np.array([factors[c] / factors[p] for c, p in ends])
        mean = draws[-1].reshape(8, -1, 3).mean(1)
        np.testing.assert_allclose(scms.coefficients / ratio, mean, rtol=1e-4)
    # Rounding may send a wrong answer the other way, once in some million times.
    assert (np.abs(draws[0] - draws[1]) > 1e-3).mean() < 0.01


def test_it_refuses_what_is_no_regression_and_names_who_does_not():
    graph = pcr.Graph.fully_connected(3)
    linear = pcr.linear_surrogate(graph)
    basis = pcr.basis_surrogate(graph, scale=np.ones(3), centre=np.zeros(3))
    k = len(basis.names)
    tied = np.linalg.cholesky(np.eye(3) + 0.5)
    cases = {
        "augment": (linear, pcr.tolerance(0.5, 0.1)),
        "a box": (replace(basis, prior=pcr.Box(-np.ones(k), np.ones(k))), pcr.mixture()),
        "no larger than mechanisms": (
            replace(
                linear,
                prior=pcr.NormalMixture(np.ones(1), np.zeros((1, 3)), tied[None], (0, 0, 0)),
            ),
            pcr.mixture(),
        ),
    }
    for message, (surrogate, likelihood) in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            pcr.Gibbs().check(surrogate, likelihood)
        assert "'nuts' or 'smc'" in str(raised.value)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (3.0, 3.5), (-9.0, -6.0), (-40.0, 0.5)])
def test_truncated_normal_numbers_are(low, high):
    unit = jax.random.uniform(KEY, (20_000,), minval=1e-7)
    ends = jnp.full(20_000, low), jnp.full(20_000, high)
    drawn = np.asarray(truncated_normal(unit, *ends), float)
    assert ((low <= drawn) & (drawn <= high)).all()
    # Kolmogorov and Smirnov's test, once in a million seeds; in the tail 3 % are allowed for.
    distance = kstest(drawn, truncnorm(low, high).cdf)
    assert distance.pvalue > 1e-6 or distance.statistic < 0.03


def test_an_interval_is_told_and_kept():
    history = pcr.History.empty(np.zeros((2, 2)), 2)
    question = pcr.Questions(np.zeros(2, int), np.ones(2), np.ones(2, bool))
    answer = np.array([[np.nan, 1.0], [np.nan, 2.0]])
    first = pcr.tell(history, question, answer)
    second = pcr.tell(first, question, answer, np.array([[0.0, 0.5], [0.0, 0.0]]))
    assert second.half_width[:, :, 1].tolist() == [[0.0, 0.5], [0.0, 0.0]]
    with pytest.raises(ValueError, match="half_width"):
        pcr.tell(first, question, answer, -np.ones((2, 2)))


def test_an_intervals_probability_is_that_of_its_ends():
    likelihood, surrogate = pcr.mixture(0.3, 0.0), pcr.linear_surrogate(PAIR)
    history = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], asked(SAID, 0.2))
    target = pcr.Target(surrogate, likelihood, history)
    expected = surrogate.expected(jnp.array([0.4]), history.questions, history.x)[:, 1]
    low, high = history.answer[:, 1] - 0.2, history.answer[:, 1] + 0.2
    inside = norm.cdf(high, expected, 0.3) - norm.cdf(low, expected, 0.3)
    found = target.log_likelihood(jnp.array([0.4]))
    assert found == pytest.approx(np.log(inside).sum(), abs=1e-4)


def test_a_sweep_of_curved_mechanisms_leaves_people_as_they_were():
    """Who is drawn from the prior, answers, and is swept is from the prior still (Geweke 2004)."""
    graph = pcr.Graph.fully_connected(3)
    surrogate = pcr.basis_surrogate(graph, scale=np.ones(3), centre=np.zeros(3))
    likelihood, num = pcr.mixture(0.02, 0.2), 2000  # little noise: long rows
    questions = pcr.Questions(
        jnp.array([0, 1, 0, 0]), jnp.array([1.0, -1.5, 2.0, -0.7]), jnp.ones(4, bool)
    )
    nothing = pcr.History(questions, jnp.zeros((4, 3)), jnp.array([0.3, -0.2, 0.5]))
    told = jnp.asarray(graph.descendants)[questions.node]

    def one(key):
        k_theta, k_answer, k_sweep = jax.random.split(key, 3)
        theta = surrogate.prior.from_unit(jax.random.uniform(k_theta, (len(surrogate.names),)))
        before = pcr.Target(surrogate, likelihood, nothing)
        unknowns = jnp.zeros(0)
        answer = before.own.simulate(k_answer, unknowns, before.expected(theta))
        history = replace(nothing, answer=jnp.where(told, answer, jnp.nan))
        person = Person(pcr.Target(surrogate, likelihood, history))
        weights = jnp.where(person.blocks >= 0, theta[person.blocks], 0.0)
        walkers = person.walkers(weights[None], unknowns[None])
        swept = person.zs(person.sweep(k_sweep[None], walkers))[0]
        fits = [person.target.log_likelihood(z) for z in (theta, swept)]
        return theta, swept, fits[1] - fits[0]

    before, after, gained = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(KEY, num)))
    assert (before != after).mean() > 0.5
    # Two false alarms in a thousand seeds.
    assert ttest_1samp(gained, 0.0).pvalue > 1e-3
    others = surrogate.prior.from_unit(jax.random.uniform(jax.random.key(1), before.shape))
    each = [ks_2samp(*pair).pvalue for pair in zip(after.T, np.asarray(others).T, strict=True)]
    assert min(each) * len(each) > 1e-3


def test_weights_of_which_only_the_sum_is_known_are_drawn_along_it():
    # Walkers begin at one end of what the box leaves. False alarms: 1 in 1,000.
    box = pcr.Box(-np.ones(2), np.ones(2))
    person = SimpleNamespace(blocks=np.array([[0, 1]]), target=SimpleNamespace(reach=box))
    linear: Any = SimpleNamespace(there=jnp.ones((1, 2), bool), person=person)
    matrix = jnp.full((2, 2, 2000), 1e4)

    def sweep(weights, key):
        pull = jnp.broadcast_to(1e4 * (0.3 - weights.sum(0)), weights.shape)
        unit = jax.random.uniform(key, (5, weights.shape[1]), minval=1e-7)
        return Linear.in_box(linear, unit, 0, weights, matrix, pull), None

    start = jnp.broadcast_to(jnp.array([[1.0], [-0.7]]), (2, 2000))
    weights, _ = jax.lax.scan(sweep, start, jax.random.split(jax.random.key(0), 10))
    assert np.std(weights.sum(0)) < 0.02
    assert kstest(weights[0], "uniform", (-0.7, 1.7)).pvalue > 1e-3
