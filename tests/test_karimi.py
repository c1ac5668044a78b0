"""The benchmark of Karimi et al.'s table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from benchmarks.paper.karimi import DEPTH, TREES, forest, rows_of


def test_the_forest_is_scikit_learns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + x[:, 2] > 0
    ours = jax.vmap(forest(x, y))(jnp.asarray(x))
    model = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=0).fit(x, y)
    np.testing.assert_allclose(ours, model.predict_proba(x)[:, 1] - 0.5, atol=1e-5)


@pytest.mark.slow
def test_a_plan_of_the_true_scm_works_and_costs_the_least():
    fits = ["truth", "linear", "splines"]
    truth, linear, splines = rows_of("lin", "logistic", 6, 0, fits)
    assert truth["validity"] == 1.0
    assert splines["validity"] == 1.0
    assert splines["cost_by_truths"] > 0.99
    assert linear["their_cost"] == 11.0
