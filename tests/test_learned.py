"""Priors that a population's rows teach."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import pcr_jax as pcr
from pcr_jax.surrogates import basis_surrogate, normal_prior

KEY = jax.random.key(0)
GRAPH = pcr.Graph.fully_connected(3)
UNITS = np.array([1e4, 0.3, 1e-3])


def moments(surrogate):
    """Mean and covariance of the prior's one normal."""
    prior = surrogate.prior
    (mean,), (factor,) = np.asarray(prior.mean), np.asarray(prior.factor)
    return mean, factor @ factor.T


def rows_of(scm, num, key=KEY):
    return np.asarray(scm.sample(key, num))


def test_it_is_the_regression_of_each_node_on_its_parents():
    rows = rows_of(pcr.library.m2(), 60) * UNITS
    wide = pcr.linear_surrogate(GRAPH, prior=normal_prior(np.zeros(3), np.full(3, 1e3)))
    surrogate = replace(wide, scale=UNITS)
    for deviation in (0.0, 0.4):
        mean, covariance = moments(pcr.learned_prior(surrogate, rows, deviation=deviation))
        standard = rows.astype(float) / UNITS
        for node, numbers in ((1, [0]), (2, [1, 2])):
            design = np.column_stack([standard[:, :node], np.ones(60)])
            weights, (squares,), *_ = np.linalg.lstsq(design, standard[:, node])
            variance = squares / (60 - node - 1)
            inside = variance * np.linalg.inv(design.T @ design)[:node, :node]
            inside += deviation**2 * np.eye(node)
            np.testing.assert_allclose(mean[numbers], weights[:node], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(covariance[np.ix_(numbers, numbers)], inside, rtol=1e-3)
        assert covariance[0, 1] == covariance[0, 2] == 0


def test_what_it_says_of_the_population_holds():
    # 100 populations with coefficients from the surrogate's own prior and 12 rows each, of which
    # the prior says something still.
    thetas = jax.random.normal(KEY, (100, 3)) * 0.5
    surrogate = pcr.linear_surrogate(GRAPH, prior=normal_prior(np.zeros(3), np.full(3, 0.5)))
    squares = []
    for i, theta in enumerate(thetas):
        rows = rows_of(pcr.linear_scm(GRAPH, theta), 12, jax.random.key(i))
        mean, covariance = moments(pcr.learned_prior(surrogate, rows, deviation=0.0))
        gap = np.asarray(theta) - mean
        squares.append(gap @ np.linalg.solve(covariance, gap))
    # At most one false alarm in 5,000 seeds. The noise's variance is estimated, and tails are
    # heavier for that.
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 300)
    assert low < sum(squares) < 1.2 * high


def test_a_curve_is_learnt_and_nothing_is_believed_of_it_beyond():
    truth = pcr.library.m3()
    rows = rows_of(truth, 1500) * UNITS
    centre, scale = rows.mean(0), rows.std(0)
    surrogate = basis_surrogate(GRAPH, scale=scale, centre=centre)
    learnt = pcr.learned_prior(surrogate, rows, deviation=0.1)
    x, actions = jnp.asarray(centre), np.linspace(-1.5, 1.5, 7)
    unit = jax.random.uniform(KEY, (400, len(surrogate.names)))

    def risen(scm, x, rise, units):
        action = pcr.Action.shift_node(0, rise, 3)
        return (scm.counterfactual(x, action) - x) / units

    true = np.stack(
        [risen(truth, x / UNITS, a * scale[0] / UNITS[0], scale / UNITS) for a in actions]
    )
    error = {}
    for name, own in (("before", surrogate), ("learnt", learnt)):
        thetas = own.prior.from_unit(unit)

        def one(theta, own=own):
            return jnp.stack([risen(own.scm(theta), x, a * scale[0], scale) for a in actions])

        found = np.asarray(jax.jit(jax.vmap(one))(thetas))
        error[name] = np.abs(found.mean(0) - true)[:, 1].max()
        spread = found.std(0)
    # In scales, where X2 rises by 2.4 in all, and as steps .7 scales apart can follow it.
    assert error["learnt"] < 0.2 < 1.5 < error["before"]
    # What people deviate by: a tenth of what each step may be, of which some are passed.
    assert (np.abs(spread[[0, -1], 1] / 0.1 - 2.0) < 1.0).all()


def test_names_are_put_into_order_and_units_do_not_matter():
    rows = rows_of(pcr.library.m1(), 50)
    surrogate = pcr.linear_surrogate(GRAPH, scale=rows.std(0))
    mean, covariance = moments(pcr.learned_prior(surrogate, rows))
    table = pd.DataFrame(rows, columns=list(GRAPH.nodes))[["X3", "X1", "X2"]]
    named = pcr.learned_prior(surrogate, table)
    np.testing.assert_array_equal(named.prior.mean[0], mean)
    other = replace(surrogate, scale=rows.std(0) * UNITS)
    in_units = moments(pcr.learned_prior(other, rows * UNITS))
    np.testing.assert_allclose(in_units[0], mean, atol=1e-5)
    np.testing.assert_allclose(in_units[1], covariance, atol=1e-5)


def test_mechanisms_that_fit_exactly_or_have_parents_that_never_vary():
    rows = rows_of(pcr.library.m1(), 50).copy()
    rows[:, 0], rows[:, 2] = 1.0, 2 * rows[:, 1]
    mean, covariance = moments(pcr.learned_prior(pcr.linear_surrogate(GRAPH), rows))
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(mean, [0, 0, 2], atol=0.02)
    # Of a constant nothing is learnt: what is left is the box's spread and the deviation.
    np.testing.assert_allclose(sd, [np.hypot(12**-0.5 * 2, 0.3)] * 2 + [0.3], rtol=0.02)


def test_misuse_names_the_argument():
    rows, surrogate = rows_of(pcr.library.m1(), 50), pcr.linear_surrogate(GRAPH)
    for arguments, message in [
        ((surrogate, rows[:3]), "more than 3 rows, for the 2 weights.*got 3"),
        ((surrogate, rows[:, :2]), r"\(3,\) for rows; got shape \(50, 2\)"),
        ((surrogate, rows * np.nan), "finite values for rows"),
        (
            (
                replace(
                    surrogate,
                    prior=pcr.Box(-np.ones((2, 3)), np.ones((2, 3))),
                    noise_mean=np.zeros((2, 3)),
                ),
                rows,
            ),
            "one prior for all users",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            pcr.learned_prior(*arguments)
    with pytest.raises(ValueError, match="deviation >= 0"):
        pcr.learned_prior(surrogate, rows, deviation=-0.1)
    with pytest.raises(TypeError, match="surrogate to be a Surrogate"):
        pcr.learned_prior(GRAPH, rows)
