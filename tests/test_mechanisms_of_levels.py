"""Nodes whose noise does not follow from their value: what abduction leaves, and recourse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import kstest, logistic

import pcr_jax as pcr
from pcr_jax.mechanisms.levels import _DRAWS

ORDERED = pcr.Ordered(jnp.array([1.5]), jnp.array([-1.0, 0.5, 2.0]))
CATEGORICAL = pcr.Categorical(jnp.array([[0.5, 1.0], [0.0, 0.0], [0.2, -1.0]]))


def test_levels_have_the_probabilities_of_the_ordered_logit():
    # 4 comparisons at 5 standard errors: one false alarm in 400,000 seeds.
    num, parent = 100_000, jnp.array([0.4])
    values = ORDERED.assign(parent, ORDERED.noise.sample(jax.random.key(0), (num,)))
    shares = np.bincount(np.asarray(values, int), minlength=4) / num
    below = np.concatenate([[0], logistic.cdf(np.asarray(ORDERED.cuts) - 1.5 * 0.4), [1]])
    expected = np.diff(below)
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / num)).all()


def test_levels_have_the_probabilities_of_the_logits_to_two_in_a_hundred():
    num = 20_000
    unit = (jnp.arange(num) + 0.5) / num
    for parent in (-1.0, 0.0, 2.0):
        values = CATEGORICAL.assign(jnp.array([parent]), unit)
        shares = np.bincount(np.asarray(values, int), minlength=3) / num
        expected = jax.nn.softmax(jnp.array([0.5 + parent, 0.0, 0.2 - parent]))
        np.testing.assert_allclose(shares, expected, atol=8 / _DRAWS)


@pytest.mark.parametrize("mechanism", [ORDERED, CATEGORICAL], ids=["ordered", "categorical"])
def test_what_is_abducted_at_random_has_the_noise_s_distribution(mechanism):
    # Values at random and ranks at random give the prior again. One false alarm in 10^4 seeds, and
    # for the categorical one, whose noise are rows, up to their width.
    k_noise, k_unit = jax.random.split(jax.random.key(1))
    num, parent = 4000, jnp.array([0.7])
    values = mechanism.assign(parent, mechanism.noise.sample(k_noise, (num,)))
    noise = mechanism.abduct(parent, values, jax.random.uniform(k_unit, (num,), minval=1e-7))
    cdf = logistic.cdf if mechanism is ORDERED else "uniform"
    assert kstest(np.asarray(noise, float), cdf).statistic < 2.2 / num**0.5 + 1 / _DRAWS


def test_improbable_levels_are_abducted_too():
    far = jnp.array([40.0])
    for mechanism, value in ((ORDERED, 0.0), (CATEGORICAL, 2.0)):
        noise = mechanism.abduct(far, jnp.array(value), jnp.array(0.3))
        assert float(mechanism.assign(far, noise)) == value


def test_a_level_changes_only_for_one_whose_odds_rose():
    num = 2000
    unit = (jnp.arange(num) + 0.5) / num
    noise = CATEGORICAL.abduct(jnp.array([0.0]), jnp.zeros(num), unit)
    after = np.asarray(CATEGORICAL.assign(jnp.array([-1.0]), noise), int)
    assert set(after) == {0, 1, 2}
    assert set(np.asarray(CATEGORICAL.assign(jnp.array([1.0]), noise), int)) == {0}


@pytest.fixture(scope="module")
def scm():
    """Income, a rating that follows from it, and savings that follow from both."""
    nodes = ["income", "rating", "savings"]
    edges = [("income", "rating"), ("income", "savings"), ("rating", "savings")]
    return pcr.SCM(
        pcr.Graph.from_edges(nodes, edges),
        (pcr.Mechanism(jnp.zeros(0)), ORDERED, pcr.Mechanism(jnp.array([0.2, 1.0]))),
        (dist.Normal(0.0, 1.0), ORDERED.noise, dist.Normal(0.0, 0.3)),
    )


def score(x):
    return x[2] - 1.5


def test_without_a_unit_it_is_refused_and_the_remedy_named(scm):
    x = jnp.zeros((3, 3))
    with pytest.raises(ValueError, match=r"not invertible.*pcr_jax\.scenarios"):
        scm.abduct(x)
    with pytest.raises(ValueError, match=r"pcr_jax\.scenarios"):
        pcr.find_recourse(score, scm, x, scale=jnp.ones(3))


def test_scenarios_have_a_unit_of_their_own_whoever_else_there_is(scm):
    key = jax.random.key(2)
    worlds = pcr.scenarios(key, scm, 4, 5)
    assert worlds.batch_shape == (4, 5)
    assert worlds.unit.shape == (4, 5, 3)
    fewer = pcr.scenarios(key, scm, 2, 5)
    np.testing.assert_array_equal(worlds.unit[:2], fewer.unit)
    alone = pcr.scenarios(key, scm, 4)
    assert alone.batch_shape == (4,)
    again = pcr.scenarios(key, pcr.scenarios(key, scm, 4, 5), 4, 5)
    np.testing.assert_array_equal(again.unit, worlds.unit)
    with pytest.raises(ValueError, match=r"batch of shape \(3, 5\); got one of shape \(4,\)"):
        pcr.scenarios(key, alone, 3, 5)
    x = jnp.array([[0.0, 1.0, 1.0]] * 4)
    after = jax.vmap(lambda w, x: w.counterfactual(x, pcr.Action.empty(3)))(alone, x)
    np.testing.assert_allclose(after, x, atol=1e-6)


@pytest.mark.slow
def test_recourse_over_scenarios_holds_for_the_share_of_people_that_was_asked_for(scm):
    k_plan, k_truth = jax.random.split(jax.random.key(3))
    # Alike as observed, and not in what would follow: each is one way that noise may be.
    num = 200
    x = jnp.broadcast_to(jnp.array([-0.5, 1.0, 0.7]), (num, 3))
    limits = pcr.Constraints(actionable=[True, False, False])
    plan = pcr.find_recourse(
        *(score, pcr.scenarios(k_plan, scm, 1, 400), x[:1]),
        **{"scale": jnp.ones(3), "level": 0.8, "constraints": limits},
    )
    assert plan.status.tolist() == [int(pcr.PlanStatus.found)]
    truths = pcr.scenarios(k_truth, scm, num)
    everybody = jax.tree.map(lambda leaf: jnp.repeat(leaf, num, 0), plan.action)
    after = jax.vmap(lambda w, x, a: w.counterfactual(x, a))(truths, x, everybody)
    share = float((after[:, 2] >= 1.5).mean())
    # At 4 standard errors, of both the draws that judge and the people.
    assert share > 0.8 - 4 * (0.8 * 0.2 * (1 / 300 + 1 / num)) ** 0.5
    assert share < 0.95  # not by a leap over everything


def test_a_batch_of_units_has_to_have_the_nodes(scm):
    with pytest.raises(ValueError, match="unit"):
        replace(scm, unit=jnp.zeros(2))
