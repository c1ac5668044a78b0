import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from pcr_jax import library
from pcr_jax.population import refused_population, sample_labels
from pcr_jax.scm import linear_scm

SMALL = {"num_train": 600, "num_users": 50, "epochs": 60}


@pytest.mark.parametrize("rho", ["mean", "mean_abs"])
@pytest.mark.parametrize("sign", [1, -1])
def test_labels_have_the_stated_probabilities(rho, sign):
    # 16 comparisons at 5 standard errors: one false alarm in 100,000 seeds.
    points = sign * np.array([[0.5, 1, 0], [-1, 0, 0.2], [0.1, 0.1, 0.1], [1, 1, 1]])
    num = 50_000
    labels = sample_labels(jax.random.key(0), jnp.tile(points, (num, 1)), rho=rho)
    assert set(np.unique(labels)) == {0.0, 1.0}
    total = points.sum(1)
    unit = np.mean(total) if rho == "mean" else np.mean(np.abs(total))
    p = 1 / (1 + np.exp(-2.5 * total / unit))
    share = np.asarray(labels).reshape(num, 4).mean(0)
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


def test_an_unknown_rho_is_refused():
    with pytest.raises(ValueError, match="rho to be one of"):
        sample_labels(jax.random.key(0), jnp.ones((2, 3)), rho="median")


@pytest.fixture(scope="module")
def population():
    return refused_population(jax.random.key(1), library.m2(), **SMALL)


def test_every_user_is_refused(population):
    assert population.users.shape == (50, 3)
    assert (population.score(population.users) < 0).all()
    assert len(np.unique(population.users, axis=0)) == 50


def test_classifier_is_nearly_as_accurate_as_the_label_probabilities_allow(population):
    # The best rule is the sign of sum / rho. Over six keys it was better by .002 to .005.
    scm = library.m2()
    x = scm.sample(jax.random.key(2), 5_000)
    labels = np.asarray(sample_labels(jax.random.key(3), x))
    best = np.mean((x.sum(1) / x.sum(1).mean() > 0) == labels)
    accuracy = np.mean((np.asarray(population.score(x)) >= 0) == labels)
    assert best > 0.95
    assert accuracy > best - 0.02


def test_scale_is_the_standard_deviation_of_the_training_users(population):
    # sd of M2: X1 3.875^.5; X2 = -.99 X1 + U2; X3 = -.1975 X1 + .25 U2 + U3. Kurtosis < 3, so
    # the standard error of an sd is below 1 / sqrt(2 * 600) = 2.9 %; 5 of them.
    variance = 3.875
    sd = np.sqrt([variance, 0.99**2 * variance + 1, 0.1975**2 * variance + 1.0625])
    np.testing.assert_allclose(population.scale, sd, rtol=0.145)
    np.testing.assert_array_equal(population.scale, population.score.scale)


def test_same_key_gives_the_same_population_and_another_key_another(population):
    same = refused_population(jax.random.key(1), library.m2(), **SMALL)
    jax.tree.map(np.testing.assert_array_equal, same, population)
    other = refused_population(jax.random.key(4), library.m2(), **SMALL)
    assert not np.isin(other.users, population.users).any()


def test_too_few_refused_users_are_an_error():
    # Here the sum of the features hardly varies, so that nearly all labels are positive.
    noise = [dist.Normal(10.0, 0.1)] * 3
    scm = linear_scm(library.m1().graph, jnp.zeros(3), noise)
    with pytest.raises(RuntimeError, match="of 300 users; num_users=50 were asked for"):
        refused_population(jax.random.key(5), scm, max_draws=300, **SMALL)


def test_no_more_than_max_draws_users_are_drawn():
    with pytest.raises(RuntimeError, match="of 1 users; num_users=2"):
        refused_population(jax.random.key(2), library.m2(), **SMALL | {"num_users": 2}, max_draws=1)


@pytest.mark.parametrize("name", ["num_train", "num_users", "epochs", "learning_rate"])
def test_settings_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=name):
        refused_population(jax.random.key(0), library.m2(), **SMALL | {name: 0})
