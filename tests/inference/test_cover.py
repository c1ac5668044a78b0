"""Users whom prior draws do not serve: their posteriors, or the proof that there is none."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import arrays_of, history_of

import pcr_jax as pcr
from pcr_jax.inference import PosteriorStatus, Samples, Target
from pcr_jax.inference.cover import cover, seek

KEY = jax.random.key(0)
GRAPH = pcr.Graph.fully_connected(3)
FEW = {"max_prior_draws": 2**14}


def asked(surrogate, theta, num_queries, seed, report="all", unit=1.0):
    """One user's questions, and the answers that a surrogate with ``theta`` expects."""
    rng = np.random.default_rng(seed)
    descendants = surrogate.graph.descendants
    node = rng.choice(np.flatnonzero(descendants.any(1)), num_queries)
    shift = rng.uniform(0.2, 1, num_queries) * np.broadcast_to(unit, len(descendants))[node]
    shift = shift.astype(np.float32)
    blank = history_of(node, shift, jnp.full((num_queries, len(descendants)), jnp.nan))
    expected = surrogate.expected(jnp.asarray(theta), blank.questions, blank.x)
    answer = np.where(descendants[node], expected, np.nan)
    if report == "one":
        for t in range(num_queries):
            answer[
                t, np.arange(len(descendants)) != rng.choice(np.flatnonzero(descendants[node[t]]))
            ] = np.nan
    return replace(blank, answer=jnp.asarray(answer, jnp.float32))


def users(*histories):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *histories)


def missed(thetas, history, sigma):
    """How many answers each of ``thetas`` (n, 3) misses: NumPy's, in double precision, by hand."""
    node, shift, answer = (leaf.astype(float) for leaf in arrays_of(history))
    t21, t31, t32 = (column[:, None] for column in np.asarray(thetas, float).T)
    x1 = np.where(node == 0, shift, 0.0)
    x2 = t21 * x1 + np.where(node == 1, shift, 0.0)
    x3 = t31 * x1 + t32 * x2
    gaps = np.abs(np.stack(np.broadcast_arrays(x1, x2, x3), -1) - answer)
    return (np.nan_to_num(gaps).max(-1) > sigma).sum(-1)


def exact(history, sigma, centre, reach, allowed=0, num=400_000):
    """Independent draws of the posterior: those possible of a box, checked to hold all of it."""
    rng = np.random.default_rng(7)
    centre, reach = np.asarray(centre), np.asarray(reach)
    points = rng.uniform(centre - reach, centre + reach, (num, 3))
    draws = points[missed(points, history, sigma) <= allowed]
    assert len(draws) > 400
    assert (np.abs(draws - centre) < 0.98 * reach).all()
    return draws


def agree(draws, reference, ess):
    """3 means and 3 sds at 5 standard errors: one false alarm in 280,000 comparisons of each."""
    se = reference.std(0) * np.sqrt(1 / ess + 1 / len(reference))
    assert (np.abs(draws.mean(0) - reference.mean(0)) < 5 * se).all()
    assert (np.abs(draws.std(0) / reference.std(0) - 1) < 5 / np.sqrt(2 * min(ess, 400))).all()


# A box of +-1e4 and sigma of 1e-3; incomes in thousands beside ratios: 1e-20 to 1e-9 of the box.
FAR = pcr.linear_surrogate(GRAPH, low=-1e4, high=1e4)
STANDARD = (np.array([0.5, -0.5, 0.2]), 1e-3, np.array([0.005, 0.012, 0.005]), 1.0)
NATURAL = (np.array([3000.0, 0.5, 2e-4]), 0.05, np.array([0.3, 1.3, 3e-4]), np.array([1.0, 1e3, 1]))
CASES = {"standard": STANDARD, "natural": NATURAL}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_starts_in_a_tiny_part_of_the_box_are_exact_draws(case, beta):
    theta, sigma, reach, unit = CASES[case]
    history = asked(FAR, theta, 8, 3, unit=unit)
    if beta:  # two lies, as many as allowed
        history = replace(history, answer=history.answer.at[:2, 2].add(77.0))
    found = seek(KEY, FAR, pcr.tolerance(sigma, beta), history, 600, 2**18)
    reference = exact(history, sigma, theta, reach, allowed=math.floor(beta * 8))
    assert not found.is_empty
    assert found.best_agreement == (1.0 if not beta else 0.75)
    assert len(np.unique(found.draws, axis=0)) == 600
    agree(found.draws, reference, 600)
    share = len(reference) / 400_000 * np.prod(2 * reach / 2e4)
    # Of each share the standard error is 5 percent at most.
    assert found.acceptance == pytest.approx(share, rel=0.35)
    low, high = found.box
    assert ((low <= reference) & (reference <= high)).mean() > 1 - 1e-3  # rounding
    assert (high - low < 3 * np.ptp(reference, axis=0)).all()


@pytest.mark.parametrize("num_nodes", [2, 3, 4])
@pytest.mark.parametrize("report", ["all", "one"])
@pytest.mark.parametrize("norm", ["each", "joint"])
def test_a_cover_holds_whatever_is_possible(num_nodes, report, norm):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        surrogate = pcr.linear_surrogate(
            pcr.Graph.fully_connected(num_nodes), noise_mean=rng.normal(size=num_nodes)
        )
        k = len(surrogate.names)
        history = asked(surrogate, rng.uniform(-1, 1, k), 6, seed, report)
        noisy = history.answer + rng.normal(0, 0.3, history.answer.shape)
        history = replace(history, answer=noisy.at[0].add(3.0))
        likelihood = pcr.tolerance(0.4, 0.2, norm=norm)
        boxes = cover(rng, surrogate, history, 0.4, 5, norm)
        thetas = jnp.asarray(rng.uniform(-1, 1, (100_000, k)), jnp.float32)
        possible = Target(surrogate, likelihood, history)(thetas) > -jnp.inf
        points = np.asarray(thetas[possible])[:300, None]
        inside = ((boxes.low <= points) & (points <= boxes.high)).all(-1).any(-1)
        assert inside.all()
        if not len(boxes.low):
            assert not possible.any()


class Starts:
    """A sampler that returns the starting points."""

    name, needs_gradient, host_only, needs_exact_starts = "starts", False, True, False
    num_walkers = 1

    def __init__(self, num=100):
        self.num_starts = num

    def check(self, surrogate, likelihood):
        pass

    def run(self, key, posterior, starts):
        assert np.isfinite(posterior(starts)).all()
        assert len(np.unique(starts, axis=0)) == self.num_starts
        draws = starts[None, :, None]
        return Samples(draws, np.zeros(draws.shape[:3]), draws[:, :0], 1)


def status_of(posteriors):
    return [PosteriorStatus(code).name for code in posteriors.status]


def test_nobody_consistent_is_said_to_contradict_himself_and_who_does_is_proved_to():
    theta, sigma, _, _ = STANDARD
    consistent = asked(FAR, theta, 6, 0)
    contrary = history_of(
        jnp.zeros(6, int), jnp.ones(6), jnp.full((6, 3), jnp.nan).at[:, 1].set(jnp.arange(6.0))
    )
    silent = history_of(jnp.full(6, -1), jnp.zeros(6), jnp.full((6, 3), jnp.nan))
    history = users(consistent, contrary, silent, consistent)
    settings = {"likelihood": pcr.tolerance(sigma, 0.1), "sampler": Starts(), **FEW}
    posteriors = pcr.infer(KEY, FAR, history, **settings)
    assert status_of(posteriors) == ["ok", "empty", "prior_only", "ok"]
    best = posteriors.best_agreement
    np.testing.assert_allclose(best[[0, 2, 3]], 1)
    assert best[1] <= 1 / 6 + 1e-6
    theta_of = posteriors.draws[:, 0]
    assert np.abs(theta_of[[0, 3]] - theta).max() < 0.03
    assert np.isnan(theta_of[1]).all()
    assert 1e3 < theta_of[2].std() < 1e4  # 5774: the prior's
    assert not np.isin(theta_of[3], theta_of[0]).all()
    alone = pcr.infer(KEY, FAR, users(consistent), **settings)
    np.testing.assert_array_equal(alone.draws[0, 0], theta_of[0])
    with pytest.warns(pcr.PosteriorWarning, match=r"answered nothing.*\(user 2\)"):
        assert list(pcr.diagnose(posteriors).status) == status_of(posteriors)


def test_many_failed_draws_prove_nothing():
    # One number to within 1e-6 in +-1e4; the float32 numbers there are enough for 20 starts.
    surrogate = pcr.linear_surrogate(pcr.Graph.fully_connected(2), low=-1e4, high=1e4)
    history = users(history_of(jnp.zeros(1, int), jnp.ones(1), jnp.array([[jnp.nan, 0.9]])))
    likelihood = pcr.tolerance(1e-6, 0.0)
    for num, status in ((20, "ok"), (50, "no_start")):  # some 33 numbers of single precision
        settings = {"likelihood": likelihood, "sampler": Starts(num), **FEW}
        posteriors = pcr.infer(KEY, surrogate, history, **settings)
        assert status_of(posteriors) == [status]
        assert posteriors.best_agreement == [1]


@pytest.mark.slow
def test_a_curved_surface_too_thin_to_be_found_is_no_proof():
    # Of 6 coefficients only products are known, to 1e-8 of the box.
    surrogate = pcr.linear_surrogate(pcr.Graph.fully_connected(4), low=-1e4, high=1e4)
    theta = np.array([100.0, -300, 20, 50, -7, 90])
    history = asked(surrogate, theta, 4, 1)
    only_last = history.answer.at[:, :3].set(jnp.nan).at[:, 3].add(0.25)
    history = users(history_of(jnp.zeros(4, int), history.questions.shift, only_last))
    settings = {"likelihood": pcr.tolerance(0.5, 0.0), "sampler": pcr.Smc(num_runs=2), **FEW}
    posteriors = pcr.infer(KEY, surrogate, history, **settings)
    assert status_of(posteriors)[0] != "empty"
    assert 0 <= posteriors.best_agreement <= 1


SAMPLERS = {
    "ess": pcr.Ess(num_ensembles=2, num_walkers=32, num_steps=40, num_warmup=5),
    "smc": pcr.Smc(num_runs=2, num_particles=512),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_posteriors_in_tiny_parts_of_the_box_are_exact(name):
    histories = [asked(FAR, theta, 8, 3, unit=unit) for theta, _, _, unit in CASES.values()]
    for (theta, sigma, reach, _), history in zip(CASES.values(), histories, strict=True):
        settings = {"likelihood": pcr.tolerance(sigma, 0.0), "sampler": SAMPLERS[name], **FEW}
        posteriors = pcr.infer(KEY, FAR, users(history), **settings)
        assert status_of(posteriors)[0] in ("ok", "poorly_mixed")
        reference = exact(history, sigma, theta, reach)
        draws = posteriors.draws[0].reshape(-1, 3)
        agree(draws, reference, 200)
        if name == "smc":
            share = len(reference) / 400_000 * np.prod(2 * reach / 2e4)
            assert abs(posteriors.figures["log_evidence"][0] - np.log(share)) < 0.5


@pytest.mark.slow
def test_nuts_in_a_tiny_part_of_the_box_is_exact():
    theta, sigma, reach, _ = STANDARD
    history = asked(FAR, theta, 8, 3)
    likelihood = pcr.relaxed(sigma, 0.0)
    sampler = pcr.Nuts(num_chains=2, num_warmup=150, num_steps=250)
    posteriors = pcr.infer(KEY, FAR, users(history), likelihood=likelihood, sampler=sampler, **FEW)
    assert status_of(posteriors)[0] in ("ok", "poorly_mixed")
    rng = np.random.default_rng(1)
    points = rng.uniform(theta - reach, theta + reach, (400_000, 3)).astype(np.float32)
    plain = Target(pcr.linear_surrogate(GRAPH), likelihood, history)
    weight = np.exp(np.asarray(jax.jit(jax.vmap(plain.log_likelihood))(points), float))
    reference = points[rng.random(len(points)) < weight]
    draws = posteriors.draws[0].reshape(-1, 3)
    agree(draws, reference, 100)


def test_a_relaxation_whose_posterior_may_be_anywhere_is_not_started():
    # One answer may be as good as missed: what misses it weighs more than what meets it.
    history = users(asked(FAR, STANDARD[0], 1, 3))
    likelihood = pcr.relaxed(1e-3, 0.0, 0.2)
    posteriors = pcr.infer(KEY, FAR, history, likelihood=likelihood, sampler=Starts(), **FEW)
    assert status_of(posteriors) == ["no_start"]
    assert posteriors.best_agreement == [1]
