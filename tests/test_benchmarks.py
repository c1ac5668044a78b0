"""The benchmarks' own code: what it compares must be the same thing."""

import json
import math
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from benchmarks import __main__, plain, records, timing
from benchmarks.peers import PEERS, dice_actions, sample, scipy_multi_start, torch_optimiser
from benchmarks.problems import DATA, density
from benchmarks.quality import mixed
from benchmarks.speed import scale, stages
from benchmarks.speed.inference import quality
from benchmarks.speed.limits import counted
from pcr_jax.batching import take
from tests.problems import answers_to, arrays_of

QUICK = ("scm", "scale")


@pytest.mark.parametrize("scm", list(pcr.library.SCMS))
def test_the_plain_scms_are_the_librarys(scm):
    truth = pcr.library.get(scm)
    x = truth.sample(jax.random.key(0), 10)
    shift = jax.random.normal(jax.random.key(1), x.shape)
    expected = truth.counterfactual(x, pcr.Action.soft(shift))
    for row in range(10):
        found = plain.counterfactual(plain.effects(scm), list(x[row]), list(shift[row]))
        np.testing.assert_allclose(found, expected[row], atol=1e-5)


@pytest.fixture(scope="module")
def answers():
    """Histories of three users of M1 with a tenth of wrong answers."""
    return answers_to(jax.random.key(0), pcr.library.m1(), jnp.zeros((3, 3)), 10)


def test_the_plain_likelihoods_are_the_librarys(answers):
    surrogate, likelihood = pcr.linear_surrogate(pcr.library.m1().graph), pcr.tolerance(0.5, 0.1)
    theta = np.random.default_rng(0).uniform(-1.2, 1.2, (2000, 3)).astype(np.float32)
    possible = 0
    for i in range(3):
        one = take(answers, i)
        log_density = jax.vmap(density(surrogate, likelihood, one))(theta)
        user = (*arrays_of(one), 0.5, 0.1)
        expected = np.isfinite(log_density)
        possible += expected.sum()
        many = plain.log_densities(theta, *user)
        np.testing.assert_array_equal(many == 0, expected)
        few = [plain.log_density(t, *user) for t in theta[:300].tolist()]
        np.testing.assert_array_equal([d > -math.inf for d in few], expected[:300])
    assert 0 < possible < 3000


@pytest.mark.parametrize("name", list(PEERS))
def test_a_peer_samples_the_posterior(name, answers):
    peer = PEERS[name]
    pytest.importorskip(peer.package)
    one = take(answers, 0)
    user = (*arrays_of(one), 0.5, 0.1)
    draws = sample(peer, 0, *user)
    assert draws.shape[::2] == (peer.num_ensembles, peer.num_walkers)
    surrogate, likelihood = pcr.linear_surrogate(pcr.library.m1().graph), pcr.tolerance(0.5, 0.1)
    exact = pcr.exact_posterior(
        jax.random.key(0), surrogate, take(answers, slice(1)), likelihood, num_draws=2**18
    )
    error = (draws.reshape(-1, 3).mean(0) - exact.mean[0]) / exact.sd[0]
    # Ten independent draws would err by .3; these are hundreds.
    assert np.abs(error).max() < 0.3


def test_the_quality_of_independent_draws_is_their_number():
    rng = np.random.default_rng(0)
    users = 2000
    exact = pcr.ExactPosterior(
        *(np.zeros((users, 3)), np.ones((users, 3)), 0, 0, 0, 0, np.full(users, 1e5))
    )
    found = quality(rng.normal(size=(users, 4, 25, 3)), exact)
    # The mean of 6,000 squares errs by 1.8 %: beyond 8 % by chance once in 10^5.
    assert found["independent_draws_worth"] == pytest.approx(100, rel=0.08)


@pytest.fixture(scope="module")
def linear_problem():
    """A classifier that is nearly linear, and refused users of M1."""
    truth = pcr.library.m1()
    score, x, scale_ = pcr.refused_population(
        jax.random.key(0), truth, num_train=300, num_users=6, epochs=50
    )
    return truth, score, x, scale_


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_peers_of_recourse_find_valid_actions_no_cheaper_than_the_optimum(linear_problem, epsilon):
    pytest.importorskip("torch")
    truth, score, x, unit = linear_problem
    plan = pcr.find_recourse(score, truth, x, scale=unit, epsilon=epsilon)
    found = {
        "scipy": scipy_multi_start(score, truth, unit, epsilon, 4)(x[:2]),
        "torch": torch_optimiser(score, "m1", x, unit, epsilon, 2, 300),
    }
    for moves in found.values():
        users = slice(len(moves))
        moved = truth.counterfactual(x[users], pcr.Action.soft(moves * unit))
        valid = np.asarray(score(moved)) >= -1e-3
        assert valid.all()
        # SciPy withstands some points of the ball only.
        ratio = np.abs(moves).sum(1) / np.asarray(plan.cost)[users]
        assert (ratio > 0.97).all()
        assert (ratio < 2.5).all()


def test_dice_knows_no_causes(linear_problem):
    pytest.importorskip("dice_ml")
    truth, score, x, unit = linear_problem
    moves = dice_actions(score, truth, unit)(x[:2])
    acted = moves.any(1)
    assert acted.any()
    # Its counterfactuals are favourable as they stand, whatever follows from them causally.
    assert (np.asarray(score(x[:2] + moves * np.asarray(unit)))[acted] >= -0.1).all()


def test_flops_are_those_of_the_matrix_product():
    square = jnp.ones((64, 64))
    flops, bytes_ = counted(jnp.dot, square, square)
    assert flops == pytest.approx(2 * 64**3, rel=0.05)
    assert bytes_ >= 3 * square.nbytes


def test_slopes_are_powers_of_the_size():
    rows = [
        {"stage": "s", "axis": "users", "size": n, "seconds": 3 * n**1.5, "peak_memory_GiB": n}
        for n in (10, 100, 1000)
    ]
    (found,) = scale.slopes([*rows, {**rows[0], "stage": "t"}])
    assert found["slope"] == pytest.approx(1.5)
    assert found["last_slope"] == pytest.approx(1.5)
    assert found["largest_peak_memory_GiB"] == 1000


def test_a_cell_is_measured_in_a_process_of_its_own():
    cell = {"stage": "counterfactual", "axis": "users", "size": 50, "repeats": 1}
    held = np.ones(2**28, np.uint8)  # here, and not there
    found = timing.apart("benchmarks.speed.scale", cell)
    assert found["peak_memory_GiB"] < timing.peak_memory() - len(held) / 2**31
    assert 0 < found["seconds"] < found["compile_seconds"] + found["seconds"]
    assert 0.05 < found["peak_memory_GiB"] < 8
    with pytest.raises(RuntimeError, match="no such stage"):
        timing.apart("benchmarks.speed.scale", {**cell, "stage": "no such stage"})


def test_every_command_says_what_it_does(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(DATA["--data"], "default", tmp_path)
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    said = capsys.readouterr().out
    for folder, names in __main__.COMMANDS.items():
        for name in names:
            assert re.search(rf"^ +{name} ", said, re.MULTILINE), name
            module, options = __main__.parsed([name, "--quick"] if name in QUICK else [name])
            assert module.__name__ == f"benchmarks.{folder}.{name}"
            assert options.quick == (name in QUICK)
            assert callable(module.measure)


def test_what_is_yielded_is_printed_and_recorded(tmp_path, monkeypatch, capsys):
    def measure(options):
        yield "a", [{"x": options.quick}]
        yield "a", [{"x": 2.0}]
        yield "beside.md", "text"
        yield "setting", 3

    for name, value in {"measure": measure, "PARTS": ("a", "b"), "OPTIONS": {}}.items():
        monkeypatch.setattr(f"benchmarks.speed.scm.{name}", value, raising=False)
    arguments = ["scm", "--quick", "--out", str(tmp_path), "--part", "a"]
    for _ in range(2):
        __main__.main(arguments)
        found = json.loads((tmp_path / "scm.json").read_text())
        assert found["a"] == [{"x": True}, {"x": 2.0}]
        assert found["setting"] == 3
    assert (tmp_path / "beside.md").read_text() == "text"
    assert "scm: a" in capsys.readouterr().out


def test_another_checkout_is_measured_with_the_code_that_is_here(tmp_path):
    """A package that is no more than a name, whose folder has benchmarks of its own."""
    (tmp_path / "pcr_jax").mkdir()
    (tmp_path / "pcr_jax" / "__init__.py").write_text("print('the other package')")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise RuntimeError('not these')")
    command = [sys.executable, str(Path(__main__.__file__).parent), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "the other package" in done.stdout
    assert "stages" in done.stdout


def test_the_readmes_table_is_the_recorded_one():
    root = Path(__file__).parents[1]
    record = json.loads((root / "benchmarks/results/stages.json").read_text())
    assert "\n".join(stages.markdown(record["rows"])) in (root / "README.md").read_text()


def test_records_are_json(tmp_path):
    records.write_record(tmp_path / "r.json", {"rows": [{"a": float("nan")}]})
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["rows"] == [{"a": None}]
    assert read["versions"]["jax"] == jax.__version__


def test_parts_that_are_not_measured_again_stay_as_recorded(tmp_path):
    def kept(quick):
        return records.recorded_parts(path, Namespace(quick=quick, part=["a"]))

    path = tmp_path / "r.json"
    assert kept(False) == {}
    records.write_record(path, {"quick": False, "a": [{"x": 1}], "b": [{"x": 2}]})
    assert kept(False) == {"b": [{"x": 2}]}
    assert kept(True) == {}


@pytest.mark.parametrize("kind", mixed.KINDS)
def test_mixed_advice_is_held_against_an_exhaustive_search_of_its_own(kind):
    drawn = mixed.random_task(3, kind)
    now = dict(zip(drawn.task.features, drawn.task.encode(drawn.person)[0], strict=True))
    nothing = dict.fromkeys(now, np.full(1, np.nan))
    after = mixed.followed(drawn, now, nothing, drawn.effects)
    assert {node: float(value[0]) for node, value in after.items()} == now
    assert not mixed.favourable(drawn, after).any()
    row = mixed.summary(kind, None, [mixed.found(seed, kind, None) for seed in (3, 4)])
    assert (row["feasible"], row["validity"], row["misplaced"]) == (2, 1.0, 0)
    assert row["cost_ratio"] == pytest.approx(1.0, abs=1e-5)
