"""The whole experiment, made tiny: its files, its resumption, its failures; and its parts."""

import io
import json
import shutil
from dataclasses import asdict, replace
from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

import pcr_jax as pcr
from pcr_jax import cli, library
from pcr_jax.experiments import PAPER, PROTOCOLS, RELEASED, OutputError, run
from pcr_jax.experiments.estimation import (
    ask_respondents,
    estimated_coefficients,
    experiment_key,
    first_alike,
    linear_projection,
    scm_index,
    sweep_points,
)
from pcr_jax.experiments.variants import frame, population_of, recourse_rows

pytest.importorskip("zeus")
runs = import_module("pcr_jax.experiments.run")  # the module, which the function's name hides

SMALL = {  # twenty problems, as in examples/quickstart.py: compiled once
    "num_train": 200,
    "num_users": 10,
    "learning_rates": (0.5, 1.0),
    "epsilons": (0.1,),
    "zeus": (("m1", (10, 10, 0.5)),),
}
TINY = replace(
    PAPER,
    **SMALL,
    seeds=2,
    sweep_respondents=2,  # as many as there are repetitions, and so compiled once
    sweep_alpha=(),
    sweep_sigma=(),
    sweep_num_queries=(5, 10),
)
COLUMNS = {
    "recourse.csv": "scm,epsilon,learning_rate,variant,seed,num_users,validity,robust_validity,"
    "cost_mean,cost_mean_common,regret_mean,regret_to_optimum_mean,zero_gradient,reachable",
    "interventions.csv": "scm,epsilon,learning_rate,variant,seed,intervention_set,share",
    "estimation.csv": "scm,sweep,value,repetition,coefficient,true,posterior_mean,posterior_sd,"
    "absolute_error,prior_error,status",
}
UNITS = {
    "posterior_m1_0",
    "recourse_m1_0",
    "recourse_m1_1",
    "sweep_m1_0",
    "sweep_m1_1",
}


def reproduce(out, protocol=TINY, scms=("m1",), jobs=1, sampler="zeus"):
    console = Console(file=io.StringIO(), width=120)
    run(out, protocol, list(scms), sampler, jobs, console)
    return console.file.getvalue()


def contents(folder):
    """Everything in a folder: names, bytes and times of change."""
    return {
        str(path.relative_to(folder)): (path.is_file() and path.read_bytes(), path.stat().st_mtime)
        for path in folder.rglob("*")
    }


def tables(folder):
    return {name: (folder / name).read_bytes() for name in COLUMNS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    printed = reproduce(out)
    return SimpleNamespace(out=out, printed=printed)


@pytest.fixture
def unillustrated(monkeypatch):
    """Leave out the figures, which take most of the time."""
    monkeypatch.setattr(runs, "_draw", lambda *_: None)


@pytest.fixture
def done(monkeypatch):
    """The names of the units that were worked on."""
    names, work = [], runs._work

    def noted(out, protocol, sampler, unit):
        work(out, protocol, sampler, unit)
        names.append(unit.name.removesuffix(".json"))

    monkeypatch.setattr(runs, "_work", noted)
    return names


def test_a_run_leaves_the_files_that_the_readme_lists_and_nothing_unfinished(finished):
    figures = [
        "recourse_m1_eps0.1",
        "interventions_m1_eps0.1",
        "posterior_m1",
        "estimation_num_queries",
    ]
    expected = {*COLUMNS, "posterior_m1.nc", "run.json", "parts"}
    expected |= {f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf")}
    assert {path.name for path in finished.out.iterdir()} == expected
    assert {path.stem for path in (finished.out / "parts").iterdir()} == UNITS
    for path in finished.out.rglob("*.p*"):
        assert path.is_dir() or path.stat().st_size > 1000
    assert "ground_truth" in finished.printed
    assert str(finished.out) in finished.printed.replace("\n", "")


@pytest.mark.parametrize(
    "sampler", ["ess", *(pytest.param(name, marks=pytest.mark.slow) for name in ("smc", "nuts"))]
)
@pytest.mark.slow
def test_a_run_with_another_sampler_comes_to_its_end(sampler, tmp_path):
    few = {"seeds": 1, "sweep_respondents": 1, "sweep_num_queries": (10,)}
    smallest = replace(TINY, learning_rates=(0.5,), **few)
    reproduce(tmp_path, smallest, sampler=sampler)
    estimates = pd.read_csv(tmp_path / "estimation.csv")
    assert estimates["posterior_mean"].notna().any()
    assert (tmp_path / "posterior_m1.pdf").stat().st_size > 1000
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["sampler"] == sampler


def test_recourse_has_a_row_for_every_setting_variant_and_repetition(finished):
    text = (finished.out / "recourse.csv").read_text()
    assert text.splitlines()[0] == COLUMNS["recourse.csv"]
    table = pd.read_csv(io.StringIO(text))
    keys = ["scm", "epsilon", "learning_rate", "variant", "seed"]
    assert not table.duplicated(keys).any()
    assert len(table) == 2 * 3 * 2
    assert set(table["variant"]) == {"ground_truth", "estimated", "prior"}
    assert (table["num_users"] == 10).all()
    assert table["validity"].between(0, 1).all()
    assert (table["robust_validity"] <= table["validity"]).all()
    for share in ("validity", "robust_validity"):  # of ten users
        np.testing.assert_allclose(10 * table[share], np.round(10 * table[share]), atol=1e-4)
    truth = table[table["variant"] == "ground_truth"]
    assert (truth["validity"] > 0.9).all()
    assert (truth["regret_mean"] == 0).all()
    assert (truth["validity"] + truth["zero_gradient"] <= 1).all()
    assert (table["reachable"] == 1).all()
    assert (truth.groupby("learning_rate")["cost_mean"].nunique() == 2).all()  # seeds differ


def test_intervention_shares_sum_to_one(finished):
    text = (finished.out / "interventions.csv").read_text()
    assert text.splitlines()[0] == COLUMNS["interventions.csv"]
    table = pd.read_csv(io.StringIO(text))
    groups = table.groupby(["scm", "epsilon", "learning_rate", "variant", "seed"])["share"]
    assert len(groups) == 2 * 3 * 2
    np.testing.assert_allclose(groups.sum(), 1, atol=1e-5)
    assert set(table["intervention_set"]) <= {
        "+".join(s) for s in (["X1"], ["X2"], ["X3"], ["X1", "X2"], ["X1", "X3"], ["X2", "X3"])
    } | {"X1+X2+X3"}


def test_estimation_has_a_row_for_every_point_respondent_and_coefficient(finished):
    text = (finished.out / "estimation.csv").read_text()
    assert text.splitlines()[0] == COLUMNS["estimation.csv"]
    table = pd.read_csv(io.StringIO(text))
    assert (table["sweep"] == "num_queries").all()
    assert list(table["value"].unique()) == [5, 10]
    assert len(table) == 2 * 2 * 3
    assert not table.duplicated(["sweep", "value", "repetition", "coefficient"]).any()
    assert list(table["coefficient"][:3]) == ["X2 <- X1", "X3 <- X1", "X3 <- X2"]
    np.testing.assert_allclose(table["true"], np.resize([-0.99, 0.99, 0.99], 12))
    np.testing.assert_allclose(table["prior_error"], 0.99)
    ok = table[table["status"] == "ok"]
    assert len(ok)
    np.testing.assert_allclose(
        ok["absolute_error"], (ok["posterior_mean"] - ok["true"]).abs(), atol=1e-4
    )
    assert (ok["posterior_sd"] > 0).all()
    assert table[table["status"] != "ok"]["posterior_mean"].isna().all()


def test_the_posterior_is_arviz_data_of_all_repetitions_respondents(finished):
    data = pcr.read_netcdf(finished.out / "posterior_m1.nc")
    theta = data.posterior["theta"]
    assert theta.dims == ("chain", "draw", "user", "coefficient")
    assert dict(theta.sizes) == {"chain": 1, "draw": 5 * 10, "user": 2, "coefficient": 3}
    assert {"query_node", "query_shift", "status"} <= set(data.constant_data.data_vars)
    assert "answer" in data.observed_data


def test_the_record_says_what_was_run_and_how_long_it_took(finished):
    record = json.loads((finished.out / "run.json").read_text())
    settings = record["settings"]
    assert settings["protocol"] == json.loads(json.dumps(asdict(TINY)))
    assert settings["scms"] == ["m1"]
    assert settings["sampler"] == "zeus"
    assert {"device", "versions"} <= set(settings)
    assert set(record["seconds"]) == {"posterior", "recourse", "sweep", "figures"}
    assert len(record["wall_seconds"]) == 1


def test_an_interrupted_run_resumes_with_what_is_missing_and_ends_the_same(
    finished, tmp_path, unillustrated, done, monkeypatch
):
    """The other folder also shows that the same settings give the same tables, byte for byte."""
    calls, rows = [], runs.recourse_rows

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rows(*args)

    monkeypatch.setattr(runs, "recourse_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path)
    assert done == ["posterior_m1_0", "recourse_m1_0"]
    assert not list(tmp_path.glob("*.csv"))
    assert not list(tmp_path.rglob("*unfinished*"))
    before = contents(tmp_path)

    reproduce(tmp_path)
    assert len(done) == len(set(done))
    assert set(done) == UNITS
    assert tables(tmp_path) == tables(finished.out)
    after = contents(tmp_path)
    assert all(
        after[name] == before[name] for name in ("posterior_m1.nc", "parts/recourse_m1_0.json")
    )
    assert len(json.loads((tmp_path / "run.json").read_text())["wall_seconds"]) == 1


def test_only_lost_parts_are_done_again_and_a_finished_run_does_nothing(
    finished, tmp_path, unillustrated, done
):
    out = shutil.copytree(finished.out, tmp_path / "copy")
    for lost in ("recourse_m1_1", "sweep_m1_1"):
        (out / "parts" / f"{lost}.json").unlink()
    (out / "recourse.csv").unlink()
    reproduce(out)
    assert set(done) == {"recourse_m1_1", "sweep_m1_1"}
    assert tables(out) == tables(finished.out)
    del done[:]
    reproduce(out)
    assert done == []
    assert tables(out) == tables(finished.out)
    assert len(json.loads((out / "run.json").read_text())["wall_seconds"]) == 3


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"protocol": replace(TINY, num_users=11)}, "num_users"),
        ({"protocol": replace(TINY, name="released")}, "name"),
        ({"scms": ["m1", "m2"]}, "scms"),
    ],
)
def test_another_runs_folder_is_refused_and_left_untouched(finished, done, other, named):
    before = contents(finished.out)
    with pytest.raises(OutputError, match=rf"other settings \({named}\)"):
        reproduce(finished.out, **other)
    assert contents(finished.out) == before
    assert done == []


@pytest.mark.parametrize(
    "record",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"settings": null}',
        '{"settings": []}',
        '{"settings": {}}',
        '{"settings": {"protocol": 3}}',
        b"\xff\xfe\x00",
    ],
)
def test_a_folder_whose_record_is_not_one_is_refused_and_left_untouched(tmp_path, record, done):
    (tmp_path / "run.json").write_bytes(record if isinstance(record, bytes) else record.encode())
    (tmp_path / "thesis.txt").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"run\.json"):
        reproduce(tmp_path)
    assert contents(tmp_path) == before
    assert done == []


def test_the_command_line_finishes_a_run_and_prints_its_tables(
    finished, tmp_path, unillustrated, done, monkeypatch, capsys
):
    out = shutil.copytree(finished.out, tmp_path / "copy")
    (out / "parts" / "sweep_m1_0.json").unlink()
    monkeypatch.setitem(PROTOCOLS, "paper", TINY)
    assert cli.main(["reproduce", "--scm", "m1", "--out", str(out), "--jobs", "1"]) == 0
    assert done == ["sweep_m1_0"]
    printed = capsys.readouterr()
    assert "m1 0.1 ground_truth" in printed.out
    assert not printed.err
    monkeypatch.setitem(PROTOCOLS, "paper", replace(TINY, seeds=3))
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", "--scm", "m1", "--out", str(out), "--jobs", "1"])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_repetition_without_a_posterior_still_has_its_rows_and_figures(tmp_path, monkeypatch):
    """No coefficients agree with ten answers to 1e-9. In frames of their own, as there is more to
    go wrong.
    """
    drawn = []
    monkeypatch.setattr(runs.plots, "save", lambda figure, path: drawn.append(path.name))
    few = {"seeds": 1, "respondents": 2, "sweep_respondents": 2, "noise_mean": PAPER.noise_mean}
    few |= {"sigma": (("m1", 1e-9),)}
    points = {"sweep_alpha": (), "sweep_sigma": (), "sweep_num_queries": (10,)}
    reproduce(tmp_path, replace(RELEASED, **SMALL, **few, **points))
    lines = [line.split(",") for line in (tmp_path / "recourse.csv").read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    estimated = [row for row in rows if row["variant"] == "estimated"]
    assert len(rows) == 3 * len(estimated) == 3 * 2
    for row in estimated:
        assert float(row["validity"]) == float(row["robust_validity"]) == 0
        for empty in ("cost_mean", "cost_mean_common", "regret_mean", "regret_to_optimum_mean"):
            assert row[empty] == ""
    others = [row for row in rows if row["variant"] != "estimated"]
    assert all(float(row["validity"]) > 0 for row in others)
    assert all(row["cost_mean"] and not row["cost_mean_common"] for row in others)
    patterns = pd.read_csv(tmp_path / "interventions.csv")
    assert set(patterns["variant"]) == {"ground_truth", "prior"}
    estimation = pd.read_csv(tmp_path / "estimation.csv")
    assert set(estimation["status"]) == {"empty"}
    assert estimation[["posterior_mean", "absolute_error"]].isna().all().all()
    assert len(drawn) == 4


@pytest.mark.slow
def test_in_the_released_frames_actions_are_exchanged_in_standardised_units():
    """A perfect estimate does as the truth, and the prior as when all is standardised by hand."""
    # On a classifier that is not saturated and at rates without ties, so that rounding does not
    # decide who is rescued or by which set.
    smooth = {"classifier_rate": 0.01, "learning_rates": (0.1, 0.05)}
    protocol, truth = replace(RELEASED, **{**SMALL, **smooth}), library.m1()
    rows, _ = recourse_rows(protocol, "m1", 0, np.array([-0.99, 0.99, 0.99]))
    by_variant = [
        [{**row, "variant": ""} for row in rows if row["variant"] == name]
        for name in ("ground_truth", "estimated", "prior")
    ]
    assert by_variant[0] == by_variant[1]

    population = population_of(protocol, "m1", 0)
    draws = truth.sample(experiment_key(scm_index("m1"), 3, 0), 100)
    mean, std = draws.mean(0), draws.std(0)
    score = population.score
    users = jnp.tile(population.users, (2, 1))
    plan = pcr.find_recourse(
        pcr.Classifier(score.module, score.params, (score.loc - mean) / std, score.scale / std),
        pcr.non_causal(truth.graph),
        (users - mean) / std,
        scale=np.ones(3),
        epsilon=0.1,
        solver="paper",
        learning_rate=np.repeat(protocol.learning_rates, 10),
    )
    after = truth.counterfactual(users, pcr.Action.soft(plan.action.value * std))
    valid = np.asarray(plan.valid & (score(after) >= 0)).reshape(2, 10)
    cost = np.asarray(plan.cost).reshape(2, 10)
    for row, good, paid in zip(by_variant[2], valid, cost, strict=True):
        assert row["validity"] == pytest.approx(good.mean(), abs=1e-6)
        assert row["cost_mean"] == pytest.approx(paid[good].mean(), rel=1e-2)


def test_the_estimate_is_the_mean_over_those_of_a_repetitions_respondents_with_a_posterior():
    draws = np.random.default_rng(0).normal(size=(1, 50, 6, 3))
    draws[:, :, [1, 3, 4, 5]] = np.nan
    theta = xr.DataArray(draws, dims=("chain", "draw", "user", "coefficient"))
    attrs = {"graph": "", "num_walkers": 1}
    idata = SimpleNamespace(posterior=xr.Dataset({"theta": theta}), attrs=attrs)
    pairs = replace(PAPER, respondents=2)
    means = draws.mean((0, 1))
    np.testing.assert_allclose(estimated_coefficients(pairs, idata, 0), means[0])
    np.testing.assert_allclose(estimated_coefficients(pairs, idata, 1), means[2])
    assert np.isnan(estimated_coefficients(pairs, idata, 2)).all()
    three = estimated_coefficients(replace(PAPER, respondents=3), idata, 0)
    np.testing.assert_allclose(three, (means[0] + means[2]) / 2)


def test_a_frame_moves_users_scale_and_classifier_together():
    """Users keep their standardised values and their logits."""
    truth, own, key = library.m2(), pcr.non_causal(library.m2().graph), jax.random.key(1)
    module, users = pcr.MLP((16, 16)), truth.sample(key, 100)[:12]
    params = module.init(key, users)
    score = pcr.Classifier(module, params, users.mean(0), users.std(0))
    population = pcr.Population(score, users, users.std(0))
    moved = frame(population, own, truth, key)

    def standardised(users, scm):
        draws = np.asarray(scm.sample(key, 100))
        return (np.asarray(users) - draws.mean(0)) / draws.std(0)

    kept = standardised(population.users, truth)
    np.testing.assert_allclose(standardised(moved.users, own), kept, atol=1e-4)
    np.testing.assert_allclose(moved.scale, own.sample(key, 100).std(0), rtol=1e-4)
    logits = population.score(population.users)
    np.testing.assert_allclose(moved.score(moved.users), logits, atol=1e-3)
    assert np.abs(moved.users - population.users).max() > 0.1
    same = frame(population, truth, truth, key)
    np.testing.assert_allclose(same.users, population.users, atol=1e-5)


def test_the_projection_of_a_linear_truth_is_its_coefficients():
    coefficients = np.array([0.6, -0.5, 0.4])
    truth = pcr.linear_scm(library.m1().graph, coefficients)
    history = ask_respondents(jax.random.key(0), truth, 0.0, 2, 10, 10)
    one = jax.tree.map(lambda leaf: leaf[0], history)
    surrogate = pcr.linear_surrogate(truth.graph)
    fit = linear_projection(jax.random.key(1), truth, surrogate, one)
    # Answers are means of 20,000 draws (sd .007 each) to ten shifts of mean .5.
    np.testing.assert_allclose(fit, coefficients, atol=0.03)
    # What was answered, wrongly or not, does not matter: the true SCM answers again.
    wrong = replace(one, answer=jnp.where(jnp.isnan(one.answer), jnp.nan, 9.0))
    again = linear_projection(jax.random.key(1), truth, surrogate, wrong)
    np.testing.assert_allclose(again, fit, atol=1e-6)


def test_a_point_of_two_sweeps_is_inferred_once(tmp_path, monkeypatch):
    inferred = []

    names = pcr.linear_surrogate(library.m1().graph).names

    def rows_of(protocol, scm, point, sampler):
        inferred.append(point)
        row = {"scm": scm, "sweep": point.sweep, "value": point.value}
        of_point = {"posterior_mean": point.sigma, "posterior_sd": point.num_queries}
        rest = {"true": 0.0, "absolute_error": 0.0, "prior_error": 0.0, "status": "ok"}
        return [
            row | {"repetition": r, "coefficient": name} | of_point | rest
            for r in range(protocol.sweep_respondents)
            for name in names
        ]

    monkeypatch.setattr(runs, "sweep_rows", rows_of)
    (tmp_path / "parts").mkdir()
    points = sweep_points(PAPER, "m1")
    first = [first_alike(points, i) for i in range(len(points))]
    # alpha = 0.1 of both sweeps of alpha is sigma = 0.7; sigma = 0.5 is T = 10.
    assert len(points) - len(set(first)) == 3
    assert all(i <= own for own, i in enumerate(first))
    for i in range(len(points)):
        runs._work(tmp_path, PAPER, "ess", runs.Unit("sweep", "m1", i))
    assert len(inferred) == len(set(first))
    for i, point in enumerate(points):
        path = tmp_path / "parts" / runs.Unit("sweep", "m1", i).name
        for row in json.loads(path.read_text())["tables"]["estimation"]:
            assert (row["sweep"], row["value"]) == (point.sweep, point.value)
            assert row["posterior_mean"] == point.sigma
            assert row["posterior_sd"] == point.num_queries


def test_the_sweeps_are_those_of_section_5_1():
    points = sweep_points(PAPER, "m1")
    by_sweep = {s: [p for p in points if p.sweep == s] for s in {p.sweep for p in points}}
    counts = {"alpha_beta": 11, "alpha": 11, "sigma": 10, "num_queries": 15}
    assert {sweep: len(of) for sweep, of in by_sweep.items()} == counts
    for p in by_sweep["alpha_beta"]:
        assert (p.value, p.alpha, p.beta, p.sigma, p.num_queries) == (
            p.alpha,
            p.alpha,
            p.alpha,
            0.7,
            10,
        )
    for p in by_sweep["alpha"]:
        assert (p.value, p.beta, p.sigma, p.num_queries) == (p.alpha, 0.1, 0.7, 10)
    for p in by_sweep["sigma"]:
        assert (p.value, p.alpha, p.beta, p.num_queries) == (p.sigma, 0.1, 0.1, 10)
    for p in by_sweep["num_queries"]:
        assert (p.value, p.alpha, p.beta, p.sigma) == (p.num_queries, 0.1, 0.1, 0.5)
    assert sweep_points(PAPER, "m3")[-1].sigma == 0.6
    assert sweep_points(RELEASED, "m1") == []


@pytest.mark.slow
def test_worker_processes_give_the_same_tables(finished, tmp_path):
    reproduce(tmp_path, jobs=2)
    assert tables(tmp_path) == tables(finished.out)
