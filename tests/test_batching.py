"""How much is computed at once, and that it does not matter to the results."""

import jax
import numpy as np
import pytest
from problems import answers_to

import pcr_jax as pcr
from pcr_jax import batching

SETTING = "PCR_JAX_WIDTH"


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    """Nobody has asked for the width yet; nor has anybody when the test is over."""
    monkeypatch.delenv(SETTING, raising=False)
    batching.width.cache_clear()
    yield
    batching.width.cache_clear()
    jax.clear_caches()


class Device:
    """One that knows its memory, as accelerators do."""

    def __init__(self, statistics):
        self.statistics = statistics

    def memory_stats(self):
        return self.statistics


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (None, 1),
        ({"bytes_in_use": 7}, 1),
        ({"bytes_limit": 2**20}, 1),
        ({"bytes_limit": 16 * 2**30}, 32),
        ({"bytes_limit": 60 * 2**30 + 1}, 120),
    ],
)
def test_more_memory_takes_more_at_once(monkeypatch, statistics, expected):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(statistics)])
    assert batching.width() == expected


@pytest.mark.parametrize("given", ["0", "-1", "many", "", "1.5"])
def test_a_width_that_is_no_positive_integer_is_refused(monkeypatch, given):
    monkeypatch.setenv(SETTING, given)
    with pytest.raises(ValueError, match=rf"PCR_JAX_WIDTH to be a positive integer; got '{given}'"):
        batching.width()


@pytest.mark.slow
def test_plans_and_posteriors_are_the_same_at_another_width(monkeypatch):
    truth, key = pcr.library.m1(), jax.random.key(0)
    score, x, scale = pcr.refused_population(key, truth, num_train=200, num_users=40, epochs=20)
    history = answers_to(key, truth, x, 5)
    likelihood, surrogate = pcr.tolerance(sigma=0.5, beta=0.1), pcr.linear_surrogate(truth.graph)
    sampler = pcr.Ess(num_ensembles=2, num_walkers=8, num_steps=2)
    shapes, found = [], []
    for width in ("1", "3"):
        monkeypatch.setenv(SETTING, width)
        batching.width.cache_clear()
        jax.clear_caches()
        shapes.append(str(jax.make_jaxpr(lambda x: batching.map_users(lambda one: -one, x))(x)))
        plan = pcr.find_recourse(score, truth, x, scale=scale)
        posteriors = pcr.infer(key, surrogate, history, likelihood=likelihood, sampler=sampler)
        found.append((plan.status, plan.cost, posteriors.draws))
    assert shapes[0] != shapes[1]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=pcr.Optimal().tolerance)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5)


@pytest.mark.parametrize(
    ("num_users", "size"),
    [(1, 8), (8, 8), (9, 10), (20, 20), (21, 24), (500, 512), (513, 640), (10**6, 2**20)],
)
def test_users_are_padded_to_one_of_few_numbers(num_users, size):
    asked = []

    def double(real, x):
        asked.append((len(x), int(real.sum())))
        return 2 * x

    x = np.arange(num_users)
    np.testing.assert_array_equal(batching.by_bucket(double, x), 2 * x)
    assert asked == [(size, num_users)]
