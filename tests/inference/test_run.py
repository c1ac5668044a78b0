import inspect
import json
import logging
import random
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from problems import history_of

import pcr_jax as pcr
from pcr_jax.batching import take
from pcr_jax.history import History
from pcr_jax.inference import (
    PosteriorStatus,
    Samples,
    Zeus,
    chunks,
    infer,
    infer_each,
    posterior_scms,
    read_netcdf,
    search_prior,
    starts,
    write_netcdf,
)
from pcr_jax.inference.run import _checked_sampler as checked_sampler
from pcr_jax.inference.search import cells_per_axis, possible_cells
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import mixture, tolerance
from pcr_jax.scm import Graph
from pcr_jax.surrogates import Box, for_users, linear_surrogate

GRAPH = Graph.fully_connected(3)
SURROGATE = linear_surrogate(GRAPH)
KEY = jax.random.key(0)
RELEASED = json.loads((Path(__file__).parents[1] / "data/released_posteriors.json").read_text())
needs_zeus = pytest.mark.skipif(find_spec("zeus") is None, reason="zeus-mcmc is not installed")


def released(name):
    """The released code's user of that SCM: surrogate, likelihood, history, recorded numbers."""
    user = RELEASED["users"][name]
    answer = np.array([[None] * 10, user["resp_x2"], user["resp_x3"]], float).T
    history = history_of(
        jnp.array(user["node"]) - 1, jnp.array(user["v"]), jnp.asarray(answer, float)
    )
    surrogate = linear_surrogate(GRAPH, noise_mean=RELEASED["noise_mean"])
    return surrogate, tolerance(user["sigma"], user["alpha"]), history, user


def every_draw(key, surrogate, likelihood, history):
    """Exact independent draws: all of 2**20 prior draws that are accepted."""
    search = search_prior(key, surrogate, likelihood, history, 2**20, 2**20)
    return search, np.asarray(search.draws[: search.num_found], float)


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_prior_draws_reproduce_the_exact_posteriors_of_the_released_code(name):
    surrogate, likelihood, history, user = released(name)
    search, draws = every_draw(KEY, surrogate, likelihood, history)
    assert search.num_accepted == len(draws)
    acceptance = float(search.acceptance)
    assert abs(acceptance / user["exact_accept"] - 1) < 0.02
    # 3 x 3 means at 4 standard errors of both sides: one false alarm in 1,700 seeds. The
    # reference made 1.2 million draws: its acceptances are multiples of 1 / 1,200,000.
    se = np.array(user["exact_sd"]) * np.sqrt(1 / len(draws) + 1 / (acceptance * 1.2e6))
    assert (np.abs(draws.mean(0) - user["exact_mean"]) < 4 * se).all()
    np.testing.assert_allclose(draws.std(0), user["exact_sd"], rtol=0.02)


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_the_recorded_numbers_are_those_of_the_reference_file(shared, name):
    file = shared / f"reference/posterior_{name.upper()}_seed2024.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    reference = np.load(file)
    for field, value in RELEASED["users"][name].items():
        np.testing.assert_allclose(np.array(value, float), reference[field], atol=1e-6)


def test_a_search_of_the_prior_stops_at_the_first_block_with_enough_draws():
    surrogate, likelihood, history, _ = released("m1")
    search = search_prior(KEY, surrogate, likelihood, history, 50, 2**20)
    assert search.num_found == 50
    assert search.num_drawn == 2**12
    assert search.best_agreement == 1.0
    everything = every_draw(KEY, surrogate, likelihood, history)[1]
    np.testing.assert_array_equal(search.draws, everything[:50].astype(np.float32))
    assert (everything != 0).all()  # no row is left as it was allocated


@pytest.mark.parametrize("num_nodes", [2, 3, 4])
def test_what_is_possible_lies_in_the_cells_that_a_search_keeps(num_nodes):
    rng = np.random.default_rng(num_nodes)
    surrogate = linear_surrogate(Graph.fully_connected(num_nodes), noise_mean=[0.5] * num_nodes)
    k, sigma = len(surrogate.names), 0.3
    parts = cells_per_axis(k)
    node = jnp.asarray(rng.integers(-1, num_nodes, 6))
    shift = jnp.asarray(rng.normal(size=6), jnp.float32)
    truth = jnp.asarray(rng.uniform(-1, 1, k), jnp.float32)
    blank = history_of(node, shift, jnp.zeros((6, num_nodes)))
    answer = jax.jit(surrogate.expected)(truth, blank.questions, blank.x)
    history = replace(blank, answer=answer.at[0].add(sigma).at[:, 0].set(jnp.nan))
    likelihood = tolerance(sigma, 0.2)
    kept, _ = jax.jit(possible_cells)(surrogate, likelihood, history)
    assert kept.shape == (parts**k,)
    assert 0 < kept.sum() < kept.size
    unit = jnp.asarray(rng.random((200_000, k)), jnp.float32)
    cell = np.ravel_multi_index(tuple(np.asarray(unit * parts).astype(int).T), (parts,) * k)
    target = Target(surrogate, likelihood, history)
    possible = np.asarray(target(surrogate.prior.from_unit(unit)) > -jnp.inf)
    assert possible.any()
    assert np.asarray(kept)[cell[possible]].all()


@pytest.mark.parametrize("num_nodes", [3, 4])
def test_contradictions_are_proved_without_a_draw(num_nodes):
    answer = jnp.full((1, 4, num_nodes), jnp.nan).at[0, :2, -1].set(jnp.array([0.7, -0.7]))
    history = history_of(jnp.zeros((1, 4), int), jnp.full((1, 4), 0.1), answer)
    surrogate = linear_surrogate(Graph.fully_connected(num_nodes))
    settings = {"likelihood": tolerance(0.5, 0.1), "sampler": Given(12)}
    posteriors = infer(KEY, surrogate, history, **settings)
    assert posteriors.status == [PosteriorStatus.empty]
    assert posteriors.best_agreement == [0.5]
    assert posteriors.prior_acceptance == [0]


@needs_zeus
@pytest.mark.parametrize("name", ["m1", "m3"])
def test_zeus_agrees_with_exact_draws(name):
    surrogate, likelihood, history, _ = released(name)
    sampler = Zeus(num_walkers=50, num_steps=400, keep=0.8)
    users = jax.tree.map(lambda leaf: leaf[None], history)
    posteriors = infer(KEY, surrogate, users, likelihood=likelihood, sampler=sampler)
    theta = posteriors.draws[0, 0]  # steps of 50 walkers
    assert theta.shape == (320 * 50, 3)
    _, exact = every_draw(jax.random.key(1), surrogate, likelihood, history)
    # 2 x 3 means at 5 standard errors, which leaves room for an ESS overestimated by a half
    # (then 4 of them): at most one false alarm in 2,600 seeds. The ESS takes each walker as a
    # chain.
    ess = effective_sample_size(np.moveaxis(theta.reshape(320, 50, 3), 1, 0))
    assert (ess > 2_000).all()
    se = exact.std(0) * np.sqrt(1 / ess + 1 / len(exact))
    assert (np.abs(theta.mean(0) - exact.mean(0)) < 5 * se).all()
    np.testing.assert_allclose(theta.std(0), exact.std(0), rtol=0.07)  # 5 se at an ESS of 2,500
    assert (np.abs(posteriors.log_density + 3 * np.log(2)) < 1e-5).all()


class Given:
    """A sampler that returns the starting points, told apart by step."""

    name, needs_gradient, host_only, needs_exact_starts = "given", False, True, False

    def __init__(self, num_walkers=10, num_steps=3):
        self.num_starts = self.num_walkers = num_walkers
        self.num_steps = num_steps
        self.starts = []

    def check(self, surrogate, likelihood):
        self.dim = len(surrogate.names)

    def run(self, key, log_density, starts):
        assert starts.shape == (self.num_walkers, self.dim)
        assert len(np.unique(starts, axis=0)) == self.num_walkers
        lp = np.asarray(log_density(np.asarray(starts, np.float32)))
        assert (lp > -np.inf).all()
        self.starts.append(starts)
        steps = np.arange(self.num_steps)[:, None]
        draws = starts + 10.0 * steps[..., None]
        return Samples(draws[None], (lp + steps)[None], draws[None, :1], self.num_walkers)


T = 4


def noiseless(theta, num_users=1):
    """Users who answer exactly as the surrogate with coefficients ``theta`` expects."""
    node, shift = jnp.array([0, 0, 1, 1]), jnp.array([0.5, 1.0, 0.5, 1.0])
    one = history_of(node, shift, jnp.zeros((T, 3)))
    expected = SURROGATE.expected(jnp.array(theta), one.questions, one.x)
    answer = jnp.where(jnp.asarray(GRAPH.descendants)[node], expected, jnp.nan)
    one = replace(one, answer=answer)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * num_users), one)


def impossible(history, user, query=0):
    """The history with one answer out of the reach of every theta in the box."""
    return replace(history, answer=history.answer.at[user, query, 2].set(50.0))


LIKELIHOOD = tolerance(0.3, 0.1)  # of 4 answers none may be missed


@pytest.fixture(scope="module")
def mixed():
    """Four users: possible, impossible, possible, never asked."""
    history = impossible(noiseless([0.5, -0.5, 0.2], 4), 1)
    asked = jnp.array([True, True, True, False])
    history = History(
        replace(history.questions, node=jnp.where(asked[:, None], history.questions.node, -1)),
        jnp.where(asked[:, None, None], history.answer, jnp.nan),
        jnp.arange(12.0).reshape(4, 3),
    )
    return history, infer(KEY, SURROGATE, history, likelihood=LIKELIHOOD, sampler=Given())


def theta_of(posteriors):
    return posteriors.draws


def test_an_empty_posterior_is_reported_and_leaves_the_others_alone(mixed):
    history, posteriors = mixed
    assert (PosteriorStatus.empty, PosteriorStatus.prior_only) == (1, 5)
    np.testing.assert_array_equal(posteriors.status, [0, 1, 0, 5])
    np.testing.assert_array_equal(posteriors.best_agreement, [1, 0.75, 1, 1])
    acceptance = posteriors.prior_acceptance
    assert acceptance[1] == 0
    assert acceptance[3] == 1
    assert 0 < acceptance[0] < 0.5
    np.testing.assert_array_equal(posteriors.num_evaluations, [10, 0, 10, 10])
    for values in (theta_of(posteriors), posteriors.log_density):
        missing = np.isnan(values)
        assert missing[1].all()
        assert not missing[[0, 2, 3]].any()
    good = replace(history, answer=history.answer.at[1].set(history.answer[0]))
    without = infer(KEY, SURROGATE, good, likelihood=LIKELIHOOD, sampler=Given())
    others = [0, 2, 3]
    np.testing.assert_array_equal(theta_of(without)[others], theta_of(posteriors)[others])


def test_a_users_posterior_is_the_same_alone_and_in_a_batch(mixed):
    history, posteriors = mixed
    first = jax.tree.map(lambda leaf: leaf[:1], history)
    alone = infer(KEY, SURROGATE, first, likelihood=LIKELIHOOD, sampler=Given())
    np.testing.assert_array_equal(theta_of(alone), theta_of(posteriors)[:1])
    # Equal histories, different users: different draws.
    assert not np.isin(theta_of(posteriors)[2], theta_of(posteriors)[0]).any()


def test_same_key_gives_the_same_posterior_and_another_key_another(mixed):
    history, posteriors = mixed
    same = infer(KEY, SURROGATE, history, likelihood=LIKELIHOOD, sampler=Given())
    np.testing.assert_array_equal(theta_of(same), theta_of(posteriors))
    key = jax.random.key(1)
    other = infer(key, SURROGATE, history, likelihood=LIKELIHOOD, sampler=Given())
    assert not np.isin(theta_of(other)[0], theta_of(posteriors)[0]).any()


def test_a_user_without_answers_keeps_the_prior():
    nobody = History.empty(jnp.zeros((30, 3)), T)
    theta = theta_of(infer(KEY, SURROGATE, nobody, likelihood=LIKELIHOOD, sampler=Given()))
    first = theta[:, 0, :10].reshape(300, 3)
    # 6 comparisons at 5 standard errors: one false alarm in 300,000 seeds
    assert (np.abs(first.mean(0)) < 5 / np.sqrt(3 * 300)).all()
    assert (np.abs((first**2).mean(0) - 1 / 3) < 5 * np.sqrt(4 / 45 / 300)).all()


def test_the_result_has_the_stated_dimensions_and_contents(mixed):
    history, posteriors = mixed
    idata = posteriors.to_arviz()
    theta = idata.posterior["theta"]
    assert theta.dims == ("chain", "draw", "user", "coefficient")
    assert theta.shape == (1, 30, 4, 3)
    assert list(theta["coefficient"].to_numpy()) == ["X2 <- X1", "X3 <- X1", "X3 <- X2"]
    # Walkers are folded into draws step by step.
    steps = theta_of(posteriors)[0, 0].reshape(3, 10, 3)
    np.testing.assert_allclose(
        steps - steps[0], np.broadcast_to([[[0]], [[10]], [[20]]], steps.shape)
    )
    assert idata.warmup_posterior["theta"].dims == theta.dims
    assert idata.warmup_posterior["theta"].shape == (1, 10, 4, 3)
    lp = idata.sample_stats["lp"]
    assert lp.dims == ("chain", "draw", "user")
    log_prior = -3 * np.log(2)
    np.testing.assert_allclose(lp[0, ::10, 0], [log_prior, log_prior + 1, log_prior + 2], rtol=1e-6)
    answer = idata.observed_data["answer"]
    assert answer.dims == ("user", "query", "node")
    assert list(answer["node"].to_numpy()) == ["X1", "X2", "X3"]
    np.testing.assert_array_equal(answer, history.answer)
    for name, value in [
        ("query_node", history.questions.node),
        ("query_shift", history.questions.shift),
        ("query_individual", history.questions.individual),
        ("features", history.x),
    ]:
        np.testing.assert_array_equal(idata.constant_data[name], value)
    attrs = {name: idata.attrs[name] for name in ("sampler", "likelihood", "num_walkers")}
    assert attrs == {"sampler": "given", "likelihood": repr(LIKELIHOOD), "num_walkers": 10}
    assert {"pcr-jax", "jax", "numpyro", "arviz"} <= set(json.loads(idata.attrs["versions"]))


def test_netcdf_keeps_everything(mixed, tmp_path):
    posteriors = mixed[1]
    idata = posteriors.to_arviz()
    write_netcdf(posteriors, tmp_path / "posterior.nc")
    back = read_netcdf(tmp_path / "posterior.nc")
    assert dict(back.attrs) == dict(idata.attrs)
    groups = ("posterior", "warmup_posterior", "sample_stats", "observed_data", "constant_data")
    for group in groups:
        old, new = idata[group], back[group]
        assert set(old.data_vars) == set(new.data_vars)
        for name in old.data_vars:
            assert old[name].dims == new[name].dims
            np.testing.assert_array_equal(old[name], new[name])
        for name in old.coords:
            np.testing.assert_array_equal(old[name], new[name])
    for draws in (None, 7):
        pair = posterior_scms(back, draws), posteriors.scms(draws)
        jax.tree.map(np.testing.assert_array_equal, *pair)
        assert pair[0].graph == GRAPH


def coefficients(scm):
    return np.concatenate([m.coefficients for m in scm.mechanisms], axis=-1)


def test_scms_have_the_mean_coefficients_or_some_draws(mixed):
    _, posteriors = mixed
    theta = theta_of(posteriors)[:, 0]  # (user, draw, coefficient), of 10 walkers and 3 steps
    mean = posteriors.scms()
    assert mean.graph == GRAPH
    assert mean.batch_shape == (4,)
    np.testing.assert_allclose(coefficients(mean), theta.mean(1), rtol=1e-5, equal_nan=True)
    assert np.isnan(coefficients(mean)[1]).all()
    every = posteriors.scms(draws=30)
    assert every.batch_shape == (4, 30)
    by_walker = theta.reshape(4, 3, 10, 3).swapaxes(1, 2).reshape(4, 30, 3)
    np.testing.assert_array_equal(coefficients(every), by_walker)
    some = posteriors.scms(draws=10)  # one of each walker, in turn of each step
    np.testing.assert_array_equal(coefficients(some), by_walker[:, ::3])
    x = jax.vmap(lambda scm: scm.predict(jnp.array([1.0, 0, 0])))(mean)
    np.testing.assert_allclose(x[0, 1], theta[0, :, 0].mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="draws of at most 30 per user; got 31"):
        posteriors.scms(draws=31)
    with pytest.raises(ValueError, match="draws >= 1"):
        posteriors.scms(draws=0)


def test_contradictions_of_many_coefficients_are_proved():
    node, shift = jnp.array([[0, 1, -1, -1]]), jnp.full((1, T), 0.5)
    answer = jnp.full((1, T, 5), jnp.nan).at[0, :2, -1].set(jnp.array([0.0, 1e3]))
    surrogate = linear_surrogate(Graph.fully_connected(5))
    settings = {"likelihood": tolerance(1.0, 0.1), "sampler": Given(20)}
    history = history_of(node, shift, answer)
    posteriors = infer(KEY, surrogate, history, max_prior_draws=2**16, **settings)
    assert posteriors.status == [PosteriorStatus.empty]
    assert posteriors.best_agreement == [0.5]  # of two answers
    assert np.isnan(theta_of(posteriors)).all()
    assert np.isnan(coefficients(posteriors.scms())).all()


def test_few_feasible_prior_draws_are_enough_to_start():
    history, likelihood = noiseless([0.5, -0.5, 0.2]), tolerance(0.01, 0.0)
    sampler = Given()
    posteriors = infer(KEY, SURROGATE, history, likelihood=likelihood, sampler=sampler)
    assert posteriors.status == [PosteriorStatus.ok]
    assert 0 < posteriors.prior_acceptance * 2**20 < 10
    (starts,) = sampler.starts  # distinct and feasible: `Given` asserts it
    np.testing.assert_allclose(starts, [[0.5, -0.5, 0.2]] * 10, atol=0.05)


def test_a_region_too_small_to_start_in_is_reported():
    # Where |theta - 0.9| < 1e-6 lie some 30 numbers of single precision, for 50 walkers.
    surrogate = linear_surrogate(Graph.fully_connected(2))
    history = history_of(jnp.zeros((1, 1), int), jnp.ones((1, 1)), jnp.array([[[jnp.nan, 0.9]]]))
    settings = {"likelihood": tolerance(1e-6, 0.0), "sampler": Given(50)}
    posteriors = infer(KEY, surrogate, history, max_prior_draws=2**21, **settings)
    assert posteriors.best_agreement == [1]
    assert posteriors.status == [PosteriorStatus.no_start]
    assert np.isnan(theta_of(posteriors)).all()


def test_a_sampler_that_gives_up_is_reported():
    class GivesUp(Given):
        def run(self, key, log_density, starts):
            self.starts.append(starts)
            return super().run(key, log_density, starts) if len(self.starts) == 2 else None

    history = noiseless([0.5, -0.5, 0.2], 3)
    posteriors = infer(KEY, SURROGATE, history, likelihood=LIKELIHOOD, sampler=GivesUp())
    failed, ok = PosteriorStatus.failed, PosteriorStatus.ok
    np.testing.assert_array_equal(posteriors.status, [failed, ok, failed])
    np.testing.assert_array_equal(
        np.isnan(theta_of(posteriors)).all((1, 2, 3)), [True, False, True]
    )


def global_state():
    name, *numbers = np.random.get_state()  # noqa: NPY002
    root = logging.getLogger()
    return [name, *map(str, numbers), random.getstate(), root.handlers[:], root.level]


@needs_zeus
def test_zeus_leaves_no_trace_and_repeats_itself():
    history = impossible(noiseless([0.5, -0.5, 0.2], 2), 1)
    settings = {"likelihood": LIKELIHOOD, "sampler": Zeus(10, 10, keep=0.5)}
    handler, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(handler)
    try:
        before = global_state()
        once = infer(KEY, SURROGATE, history, **settings)
        assert global_state() == before
    finally:
        root.removeHandler(handler)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    twice = infer(KEY, SURROGATE, history, **settings)
    np.testing.assert_array_equal(theta_of(once), theta_of(twice))
    other = infer(jax.random.key(1), SURROGATE, history, **settings)
    assert not np.isin(theta_of(other)[0], theta_of(once)[0]).any()
    np.testing.assert_array_equal(once.status, [0, 1])
    assert theta_of(once).shape == (2, 1, 50, 3)
    assert once.warmup.shape == (2, 1, 50, 3)
    assert once.info["sampler"] == "zeus"


def test_a_missing_zeus_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    with pytest.raises(ImportError, match=r"pip install 'pcr-jax\[zeus\]'"):
        infer(KEY, SURROGATE, noiseless([0.0, 0, 0]), likelihood=LIKELIHOOD, sampler="zeus")
    given = infer(KEY, SURROGATE, noiseless([0.0, 0, 0]), likelihood=LIKELIHOOD, sampler=Given())
    assert given.status == [0]


def test_the_default_sampler_needs_no_extra():
    assert inspect.signature(infer).parameters["sampler"].default is None
    assert checked_sampler(None, SURROGATE, LIKELIHOOD).name == "ess"
    assert checked_sampler(None, SURROGATE, mixture()).name == "gibbs"


@needs_zeus
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_walkers": 7}, "even num_walkers; got 7"),
        ({"num_walkers": 0}, "num_walkers >= 2"),
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"keep": 0}, "keep > 0"),
        ({"keep": 1.1}, "keep in"),
    ],
)
def test_settings_of_zeus_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Zeus(**settings)


def test_misuse_names_the_argument():
    history = noiseless([0.0, 0, 0], 2)

    def refused(message, history=history, surrogate=SURROGATE, **settings):
        settings = {"likelihood": LIKELIHOOD, "sampler": Given()} | settings
        with pytest.raises(ValueError, match=message):
            infer(KEY, surrogate, history, **settings)

    refused("sampler to be one of .*'zeus'.* got 'gibs'", sampler="gibs")
    if find_spec("zeus"):
        refused(r"num_walkers >= 2 \* num_coefficients = 6; got 4", sampler=Zeus(num_walkers=4))
    refused(r"history.answer of shape \(2, \d+, 3\)", history=History.empty(jnp.zeros((2, 4)), T))
    refused(r"history.x of shape \(2, 3\); got \(3, 3\)", replace(history, x=jnp.ones((3, 3))))
    refused("finite values for history.x", replace(history, x=jnp.full((2, 3), jnp.nan)))
    refused("max_prior_draws >= 1", max_prior_draws=0)


def test_on_user_is_called_after_every_user(mixed):
    history, _ = mixed
    calls = []
    settings = {"likelihood": LIKELIHOOD, "sampler": Given()}
    infer(KEY, SURROGATE, history, on_user=lambda: calls.append(1), **settings)
    assert len(calls) == 4


EARLIER = {"likelihood": tolerance(0.3, 0.0), "sampler": "ess"}


@pytest.fixture(scope="module")
def earlier():
    """Three users after two of four questions, and after all; the third contradicts himself."""
    later = noiseless([0.5, -0.5, 0.2], 3)
    later = impossible(later, 2, query=3)
    asked = jnp.arange(T) < 2
    before = replace(
        later,
        questions=replace(later.questions, node=jnp.where(asked, later.questions.node, -1)),
        answer=jnp.where(asked[:, None], later.answer, jnp.nan),
    )
    return before, later, infer(KEY, SURROGATE, before, **EARLIER)


def test_earlier_draws_are_starting_points_and_spare_the_search(earlier, monkeypatch):
    _, later, posteriors = earlier
    kept = jax.tree.map(lambda leaf: leaf[:2], later)
    first = replace(posteriors, history=jax.tree.map(lambda leaf: leaf[:2], posteriors.history))
    arrays = ("draws", "unknowns", "log_density", "status")
    first = replace(first, **{name: getattr(first, name)[:2] for name in arrays})
    monkeypatch.setattr(starts, "users_cells", None)  # nothing is searched
    found = infer(KEY, SURROGATE, kept, starts=first, **EARLIER)
    np.testing.assert_array_equal(found.status, [PosteriorStatus.ok] * 2)
    assert np.isnan(found.prior_acceptance).all()
    np.testing.assert_array_equal(found.best_agreement, [1, 1])
    exact = pcr.exact_posterior(KEY, SURROGATE, kept, EARLIER["likelihood"])
    # 6 means and sds, at 5 standard errors of 300 draws
    assert (np.abs(found.draws.mean((1, 2)) - exact.mean) < 5 * exact.sd / np.sqrt(300)).all()
    assert (np.abs(found.draws.std((1, 2)) / exact.sd - 1) < 0.2).all()
    assert not np.isin(found.draws, first.draws).all()


def test_whom_earlier_draws_do_not_serve_is_searched(earlier):
    _, later, posteriors = earlier
    found = infer(KEY, SURROGATE, later, starts=posteriors, **EARLIER)
    np.testing.assert_array_equal(found.status, [0, 0, PosteriorStatus.empty])
    without = infer(KEY, SURROGATE, later, **EARLIER)
    np.testing.assert_array_equal(without.status, found.status)
    assert np.isnan(found.prior_acceptance[:2]).all()
    assert (without.prior_acceptance[:2] > 0).all()


def test_starts_of_other_users_are_refused(earlier):
    before, _, posteriors = earlier
    fewer = jax.tree.map(lambda leaf: leaf[:2], before)
    with pytest.raises(ValueError, match=r"starts of 2 users .*X2 <- X1.*; got 3 users"):
        infer(KEY, SURROGATE, fewer, starts=posteriors, **EARLIER)


def test_users_may_have_boxes_of_their_own():
    history = noiseless([0.5, -0.5, 0.2], 2)
    own = for_users(SURROGATE, 2)
    own = replace(own, prior=Box(own.prior.low, own.prior.high.copy()))
    own.prior.high[1] = 0.52
    found = infer(KEY, own, history, LIKELIHOOD)
    shared = infer(KEY, SURROGATE, history, LIKELIHOOD)
    np.testing.assert_array_equal(found.draws[0], shared.draws[0])
    assert found.draws[1].max() <= 0.52 < shared.draws[1].max()
    idata = found.to_arviz()
    assert not hasattr(idata, "prior")
    assert found.scms(draws=5).batch_shape == (2, 5)
    with pytest.raises(ValueError, match="one for each of 1 users; got"):
        infer(KEY, own, jax.tree.map(lambda leaf: leaf[:1], history), LIKELIHOOD)


def test_another_box_is_no_other_program():
    history = noiseless([0.5, -0.5, 0.2], 2)
    infer(KEY, SURROGATE, history, LIKELIHOOD)
    programs = (chunks.run_chunk, starts._search_chunk, starts.users_cells)
    compiled = [program._cache_size() for program in programs]
    infer(KEY, linear_surrogate(GRAPH, low=-2.0, noise_mean=[0.1, 0, 0]), history, LIKELIHOOD)
    assert [program._cache_size() for program in programs] == compiled


def test_users_with_keys_of_their_own_are_as_alone():
    """Whatever the unit: divisions by a scale do not depend on who else is there."""
    graph = pcr.library.m1().graph
    surrogate = pcr.linear_surrogate(graph, scale=jnp.array([0.3, 7.0, 1e3]))
    rng = np.random.default_rng(0)
    answer = rng.normal(size=(3, 2, 3)) * np.array([0.3, 7.0, 1e3])
    answer[..., 0] = np.nan
    asked = pcr.Questions(
        jnp.zeros((3, 2), int), jnp.asarray(rng.normal(size=(3, 2))), jnp.ones((3, 2), bool)
    )
    history = pcr.History(asked, jnp.asarray(answer), jnp.asarray(rng.normal(size=(3, 3))))
    keys, likelihood = jax.random.split(jax.random.key(0), 3), pcr.mixture()
    found = infer_each(keys, surrogate, history, likelihood)
    for i, one in enumerate(found):
        alone = pcr.infer(keys[i], surrogate, take(history, slice(i, i + 1)), likelihood)
        for name in ("draws", "unknowns", "log_density", "status", "prior"):
            np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
        assert one.info["key"] == alone.info["key"]


@pytest.mark.parametrize(
    ("keys", "likelihood", "said"),
    [
        (jax.random.key(0), pcr.mixture(), r"keys of shape \(2,\); got \(\)"),
        (np.zeros((2, 2)), pcr.mixture(), "keys as jax.random.split"),
        (jax.random.split(jax.random.key(0)), pcr.tolerance(0.5, 0.4), "without hard support"),
    ],
)
def test_keys_of_their_own_that_cannot_be(keys, likelihood, said):
    graph = pcr.library.m1().graph
    history = pcr.History.empty(jnp.zeros((2, 3)), 1)
    with pytest.raises((TypeError, ValueError), match=said):
        infer_each(keys, pcr.linear_surrogate(graph), history, likelihood)
