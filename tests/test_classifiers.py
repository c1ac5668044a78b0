"""Classifiers: what they compute, how they train, and that their parameters are arguments."""

import os
import subprocess
import sys
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax import classifiers, library
from pcr_jax.recourse import algorithm1, verify
from pcr_jax.recourse.optimal import solve
from pcr_jax.scores import as_score

pytestmark = pytest.mark.x64
NUM_USERS = 20
HIDDEN = (16, 16)
RNG = np.random.default_rng(0)
LOC, SCALE = np.array([1.0, -2.0, 0.5], np.float32), np.array([2.0, 0.5, 1.0], np.float32)
X = RNG.normal(size=(NUM_USERS, 3)).astype(np.float32)


def random_classifier(seed, hidden=HIDDEN):
    rng = np.random.default_rng(seed)
    widths = (3, *hidden, 1)
    layers = {
        f"Dense_{i}": {
            "kernel": jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(n), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=m), jnp.float32),
        }
        for i, (n, m) in enumerate(pairwise(widths))
    }
    return pcr.Classifier(pcr.MLP(hidden), {"params": layers}, jnp.asarray(LOC), jnp.asarray(SCALE))


def test_a_classifier_is_the_tanh_network_of_its_parameters_on_standardised_features():
    score = random_classifier(0)
    z = (X.astype(float) - LOC) / SCALE
    for i in range(3):
        layer = score.params["params"][f"Dense_{i}"]
        z = z @ np.asarray(layer["kernel"], float) + np.asarray(layer["bias"])
        z = np.tanh(z) if i < 2 else z[:, 0]
    np.testing.assert_allclose(score(X), z, atol=1e-5)
    assert score(X[0]).shape == ()
    np.testing.assert_allclose(jax.vmap(score)(X), z, atol=1e-5)


def test_gradients_flow_to_the_features_and_to_the_parameters():
    score, step = random_classifier(0), 1e-2
    gradient = np.asarray(jax.grad(score)(X[0]))
    for j in range(3):
        ahead, behind = (float(score(X[0] + s * step * np.eye(3)[j])) for s in (1, -1))
        assert gradient[j] == pytest.approx((ahead - behind) / (2 * step), abs=1e-2)
    by_parameter = jax.grad(lambda s: s(X[0]))(score)
    assert isinstance(by_parameter, pcr.Classifier)
    assert by_parameter.params["params"]["Dense_2"]["bias"] == 1


def test_a_classifier_is_a_pytree_whose_leaves_are_its_numbers():
    score = random_classifier(0)
    leaves, structure = jax.tree.flatten(score)
    assert len(leaves) == 6 + 2
    assert structure == jax.tree.structure(random_classifier(1))
    assert structure != jax.tree.structure(random_classifier(1, (16,)))
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_array_equal(again(X), score(X))
    assert jax.jit(lambda s, x: s(x))(score, X[0]) == pytest.approx(float(score(X[0])), abs=1e-6)


@pytest.mark.slow
def test_a_new_classifier_compiles_nothing_anew():
    """Nor do other users, SCMs of the same form, scales, radii, rates, weights or bounds."""
    truth, one = library.m1(), np.ones(3, np.float32)
    programs = [algorithm1._search, solve.search, verify._outcomes]

    def everything(seed, scm, x, scale, epsilon, rate, weights, constraints):
        score = random_classifier(seed)
        common = {"scale": scale, "epsilon": epsilon}
        settings = {**common, "constraints": constraints}
        paper = pcr.find_recourse(score, scm, x, solver="paper", learning_rate=rate, **settings)
        plan = pcr.find_recourse(score, scm, x, weights=weights, **settings)
        pcr.evaluate(plan, truth)
        return [program._cache_size() for program in programs], (paper, plan)

    sizes, plans = everything(0, truth, X, one, 0.1, 0.5, None, None)
    assert min(sizes) > 0
    bounds = pcr.Constraints(upper=X + 5)
    thetas = jnp.asarray(RNG.uniform(-1, 1, (NUM_USERS, 3)), jnp.float32)
    own = jax.vmap(pcr.linear_surrogate(truth.graph).scm)(thetas)
    rates = np.full(NUM_USERS, 0.1)
    again, others = everything(1, own, X + 1, 2 * one, 0.2, rates, [1, 2, 3], bounds)
    assert again == sizes
    for plan, other in zip(plans, others, strict=True):  # the arguments do arrive
        assert not np.array_equal(plan.action.value, other.action.value)


TRAIN_X = RNG.normal(size=(300, 3)) * [2.0, 5.0, 0.1] + [10.0, 0.0, -3.0]
TRAIN_Y = (TRAIN_X[:, 0] - 10 > 20 * (TRAIN_X[:, 2] + 3)).astype(float)


def train(seed=0, x=TRAIN_X, y=TRAIN_Y, **settings):
    settings = {"hidden": HIDDEN, "epochs": 300, **settings}
    return pcr.train_mlp(jax.random.key(seed), x, y, **settings)


def test_training_learns_a_separable_problem_and_is_a_function_of_its_key():
    score = train()
    compiled = classifiers._fit._cache_size()
    assert np.mean((np.asarray(score(TRAIN_X)) >= 0) == TRAIN_Y) > 0.97
    np.testing.assert_allclose(score.loc, TRAIN_X.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(score.scale, TRAIN_X.std(0), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, train().params, score.params)
    assert not np.array_equal(train(1)(TRAIN_X), score(TRAIN_X))
    assert classifiers._fit._cache_size() == compiled


def test_units_of_the_features_do_not_matter_to_training():
    factor, offset = np.array([100.0, 0.01, 1.0]), np.array([5.0, -3.0, 0.0])
    moved = TRAIN_X * factor + offset
    np.testing.assert_allclose(train(x=moved)(moved), train()(TRAIN_X), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": np.where(TRAIN_X > 15, np.nan, TRAIN_X)}, "finite values for x"),
        ({"x": TRAIN_X[0]}, "x of shape"),
        ({"x": TRAIN_X * [1, 0, 1]}, "standard deviation of every feature of x"),
        ({"y": TRAIN_Y[:-1]}, r"y of shape \(300,\); got \(299,\)"),
        ({"y": TRAIN_Y[:, None]}, r"y of shape \(300,\); got \(300, 1\)"),
        ({"y": 2 * TRAIN_Y - 1}, "y to be 0 or 1"),
        ({"y": np.full(300, np.nan)}, "y to be 0 or 1"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"learning_rate": np.nan}, "learning_rate > 0"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"epochs": 2.5}, "epochs >= 1"),
        ({"hidden": (16, 0)}, "hidden"),
    ],
)
def test_training_refuses_what_it_cannot_use(wrong, message):
    with pytest.raises(ValueError, match=message):
        train(**wrong)


def test_plain_functions_and_modules_of_ones_own_are_scores_too():
    weight = jnp.array([1.0, 2.0, 3.0])

    def plain(x):
        return x @ weight

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(x)[..., 0]

    module = Own()
    own = pcr.Classifier(module, module.init(jax.random.key(0), X), LOC, SCALE)
    for score in (plain, jax.tree_util.Partial(plain), own):
        passed = as_score(score, 3)
        assert jax.tree.structure(passed).num_leaves == len(jax.tree.leaves(passed))
        assert jax.jit(lambda s, x: s(x))(passed, X[0]) == pytest.approx(
            float(score(X[0])), rel=1e-5
        )


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (None, TypeError, "score to be callable"),
        ("mlp", TypeError, "score to be callable"),
        (lambda x: x, ValueError, r"logit of shape \(\); got \(3,\)"),
        (lambda x: x[:1], ValueError, r"logit of shape \(\); got \(1,\)"),
        (lambda x: {"logit": x[0]}, ValueError, r"logit of shape \(\)"),
        (lambda x: None, ValueError, r"logit of shape \(\)"),
        (lambda x: x[0] > 0, ValueError, "a logit, favourable from 0 on; got bool"),
        (lambda x: (x[0] > 0).astype(int), ValueError, "a logit, favourable from 0 on; got int"),
    ],
)
def test_what_is_not_a_score_is_refused(score, error, message):
    with pytest.raises(error, match=message):
        as_score(score, 3)


# Models from elsewhere.


LINE = np.array([1.0, -2.0, 0.5])


class Probable:
    """A model as scikit-learn's, of two classes; it counts the calls."""

    def __init__(self):
        self.shapes = []

    def predict_proba(self, x):
        self.shapes.append(np.shape(x))
        p = 1 / (1 + np.exp(-(x @ LINE)))
        return np.stack([1 - p, p], 1)

    def decision_function(self, x):  # predict_proba comes first
        raise AssertionError


class Decisive:
    def decision_function(self, x):
        return x @ LINE


@pytest.mark.parametrize(
    ("model", "threshold", "least"),
    [
        (Probable(), None, 0.0),
        (Probable(), 0.8, np.log(4)),
        (Probable(), 0.1, -np.log(9)),
        (Decisive(), None, 0.0),
        (Decisive(), -1.5, -1.5),
        (lambda x: x @ LINE, None, 0.0),
        (lambda x: x @ LINE, 0.7, 0.7),
    ],
    ids=["proba", "proba .8", "proba .1", "decision", "decision -1.5", "callable", "callable .7"],
)
def test_an_outside_models_decision_is_kept_wherever_it_is_evaluated(model, threshold, least):
    score = pcr.outside_model(model, threshold=threshold)
    favourable = X.astype(float) @ LINE >= least
    assert 0 < favourable.sum() < NUM_USERS
    np.testing.assert_array_equal(np.asarray(score(X)) >= 0, favourable)
    assert score(X[0]).shape == ()
    assert score(X[0]).dtype == jnp.result_type(float)
    for batched in (jax.vmap(score), jax.jit(jax.vmap(score)), jax.jit(score)):
        np.testing.assert_array_equal(np.asarray(batched(X)) >= 0, favourable)
    nested = jax.jit(jax.vmap(jax.vmap(score)))(X.reshape(4, 5, 3))
    np.testing.assert_array_equal(np.asarray(nested).ravel() >= 0, favourable)
    assert not getattr(score, "differentiable", True)


def test_an_outside_model_is_called_for_many_users_at_once():
    model = Probable()
    np.asarray(jax.jit(jax.vmap(jax.vmap(pcr.outside_model(model))))(X.reshape(4, 5, 3)))
    assert model.shapes == [(NUM_USERS, 3)]


def test_a_model_fitted_on_named_features_gets_them_by_name():
    """scikit-learn warns otherwise, and warnings are errors here."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    svm = pytest.importorskip("sklearn.svm")
    table = pd.DataFrame(TRAIN_X, columns=["age", "income", "debt"])
    users = TRAIN_X[:50].astype(np.float32)
    for kind in (ensemble.GradientBoostingClassifier(n_estimators=5), svm.LinearSVC()):
        for data in (table, TRAIN_X):
            model = kind.fit(data, TRAIN_Y)
            decided = model.predict(
                pd.DataFrame(users, columns=table.columns) if data is table else users
            )
            names = None if data is not table else list(table.columns)
            score = np.asarray(pcr.outside_model(model, names=names)(users))
            np.testing.assert_array_equal(score >= 0, decided == 1)
            assert 0 < decided.sum() < 50


@pytest.mark.parametrize("model", [None, "tree", 3.0, object()])
def test_what_is_not_a_model_is_refused(model):
    with pytest.raises(TypeError, match="predict_proba or decision_function, or a callable"):
        pcr.outside_model(model)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 1.5, np.nan])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match=r"threshold in \(0, 1\)"):
        pcr.outside_model(Probable(), threshold=threshold)
    with pytest.raises(ValueError, match=r"threshold in \(0, 1\)"):
        pcr.with_threshold(random_classifier(0), threshold)


def test_with_threshold_moves_the_decision_to_another_probability():
    score = random_classifier(0)
    probability = 1 / (1 + np.exp(-np.asarray(score(X), float)))
    for threshold in np.quantile(probability, [0.22, 0.5, 0.77]):
        moved = pcr.with_threshold(score, threshold)
        favourable = probability >= threshold
        assert 0 < favourable.sum() < NUM_USERS
        np.testing.assert_array_equal(np.asarray(jax.vmap(moved)(X)) >= 0, favourable)
    np.testing.assert_array_equal(pcr.with_threshold(score, 0.5)(X), score(X))
    gradient = jax.grad(pcr.with_threshold(score, 0.7))(X[0])
    np.testing.assert_allclose(gradient, jax.grad(score)(X[0]), rtol=1e-6)
    assert pcr.with_threshold(score, 0.7).differentiable


def test_another_threshold_compiles_nothing_anew_and_plain_functions_have_one_too():
    compiled = jax.jit(lambda s, x: s(x))
    for seed, threshold in ((0, 0.2), (1, 0.9)):
        compiled(pcr.with_threshold(random_classifier(seed), threshold), X)
    assert compiled._cache_size() == 1
    plain = pcr.with_threshold(lambda x: x @ jnp.asarray(LINE, jnp.float32), 0.8)
    favourable = X.astype(float) @ LINE >= np.log(4)
    np.testing.assert_array_equal(np.asarray(jax.vmap(as_score(plain, 3))(X)) >= 0, favourable)
    with pytest.raises(TypeError, match="score to be callable"):
        pcr.with_threshold(0.3, 0.5)


def test_recourse_under_a_threshold_reaches_its_probability():
    score, one = random_classifier(0), np.ones(3, np.float32)

    def probability(x):
        return 1 / (1 + np.exp(-np.asarray(score(x), float)))

    least = float(np.quantile(probability(X), 0.77))
    plan = pcr.find_recourse(pcr.with_threshold(score, least), library.m1(), X, scale=one)
    found = np.asarray(plan.status) == pcr.PlanStatus.found
    np.testing.assert_array_equal(found, probability(X) < least)
    reached = probability(plan.x_counterfactual)[found]
    assert (reached >= least - 1e-5).all()
    assert np.median(reached) < least + 0.005  # and no more than that


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
import jax
import numpy as np
import pcr_jax as pcr
from benchmarks.quality.brute_force import cheapest

truth = pcr.library.m1()
score = pcr.outside_model(lambda rows: rows[:, 0] + rows[:, 1] - 1)
x = truth.sample(jax.random.key(3), 200)
x = x[x[:, 0] + x[:, 1] < 1][:50]
assert np.isfinite(cheapest(score, truth, x, x.std(0), resolution=20)).all()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_an_outside_model_does_not_hang_where_there_is_one_core():
    # 150 kB a call: JAX's copies of these need a thread, which the call itself would occupy.
    command = [sys.executable, "-c", ON_ONE_CORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_an_outside_model_is_asked_for_many_at_a_time_but_not_for_too_many():
    sizes = []

    def model(rows):
        sizes.append(len(rows))
        return rows[:, 0] - rows[:, 2]

    x = np.random.default_rng(0).normal(size=(3, 7000, 3)).astype(np.float32)
    score = pcr.outside_model(model)
    found = jax.jit(jax.vmap(jax.vmap(score)))(x)
    np.testing.assert_array_equal(found, x[..., 0] - x[..., 2])
    assert sum(sizes) == 21_000
    assert len(sizes) == 3
