"""Tasks and people that a command line names, and how it is told that it cannot be."""

import os
import sys

import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax._stop import stop
from pcr_jax.frontends.loading import LoadError, load_applicant, load_task

MODULE = """
import numpy as np, pandas as pd
import pcr_jax as pcr
from {beside} import SLOPE

def score(x):
    return SLOPE * x[0] - 4.0
score.names = ("income",)
data = pd.DataFrame({{"income": np.arange(8.0), "job": ["none", "some"] * 4}})
features = {{"income": pcr.Real(low=0, high=9), "job": pcr.Levels(["none", "some"])}}
task = pcr.Task(model=score, data=data, graph="income ~ job", features=features)

def make():
    return task

def needs(one):
    return task

def broken():
    raise RuntimeError("no\\nbank")

def leaves():
    raise SystemExit(3)
number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "slope_beside.py").write_text("SLOPE = 1.0\n")
    (folder / "made_bank.py").write_text(MODULE.format(beside="slope_beside"))
    (folder / "made_wrong.py").write_text("1 +\n")
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("made_bank", "slope_beside", "made_wrong"):
        sys.modules.pop(name, None)


@pytest.fixture
def task():
    return load_task("made_bank:task")


@pytest.mark.parametrize("name", ["made_bank:task", "made_bank:make", "made_bank.py:make"])
def test_a_task_is_found_by_module_or_file(name):
    assert isinstance(load_task(name), pcr.Task)


def test_a_file_is_found_from_elsewhere_with_what_lies_beside_it(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_task(os.path.relpath(folder / "made_bank.py") + ":task"), pcr.Task)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("made_bank", "Expected MODULE:TASK"),
        (":task", "Expected MODULE:TASK"),
        ("made_bank:", "Expected MODULE:TASK"),
        ("no_such_bank:task", "No module named 'no_such_bank'"),
        ("none/bank.py:task", "there is no such file"),
        ("made_wrong:task", "SyntaxError"),
        ("made_bank:loan", "Expected 'loan' in made_bank"),
        ("made_bank:number", "to be a pcr_jax.Task, or a function that returns one; got 3"),
        ("made_bank:needs", "called without arguments and failed: TypeError"),
        ("made_bank:broken", "RuntimeError: no bank"),
        ("made_bank:leaves", "SystemExit: 3"),
        ("..:task", "cannot be imported"),
    ],
)
def test_what_is_no_task_is_said_in_one_line(name, said):
    with pytest.raises(LoadError) as error:
        load_task(name)
    assert said in f"{error.value}"
    assert "\n" not in f"{error.value}"


def test_a_module_that_fails_leaves_nothing_behind():
    before = set(sys.modules)
    with pytest.raises(LoadError):
        load_task("made_wrong.py:task")
    assert set(sys.modules) == before


def test_a_person_is_read_from_strict_json(task, tmp_path):
    path = tmp_path / "row.json"
    path.write_text('\ufeff{"job": "none", "income": 2, "outcome": "bad"}')
    row = load_applicant(path, task)
    assert row.index.tolist() == ["applicant"]
    assert sorted(row.columns) == ["income", "job"]
    np.testing.assert_array_equal(np.sort(task.encode(row)[0]), [0.0, 2.0])
    pd.testing.assert_frame_equal(task.rows(row), row)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not strict JSON"),
        ("{'job': 'none'}", "is not strict JSON"),
        ('{"job": "none", "income": NaN}', "NaN is no number in JSON"),
        ('{"job": "none", "income": 1e999}', "is too large"),
        ('{"job": "none", "income": 1, "job": "some"}', "is there twice"),
        ("[" * 100_000, "is not strict JSON"),
        ('{"income": ' + "9" * 5000 + "}", "is not strict JSON"),
        ('[{"job": "none", "income": 1}]', "to be one person"),
        ('{"job": {"is": "none"}, "income": 1}', "plain entries; got some in ['job']"),
        ('{"Job": "none", "income": 1}', "lacks ['job'] of the columns"),
        ('{"Job": "none", "income": 1}', "but ['Job'], which the task does not know"),
        ('{"job": "pilot", "income": 1}', "column 'job' to be one of ['none', 'some']"),
        ('{"job": "none", "income": "much"}', "column 'income'"),
        ('{"job": "none", "income": null}', "missing values in column 'income'"),
        ('{"job": "none", "income": 10}', "column 'income' in [0, 9]"),
        ('{"job": "none", "income": true}', "column 'income'"),
        (" " * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
)
def test_what_is_no_person_is_said_in_one_line(task, tmp_path, text, said):
    path = tmp_path / "row.json"
    path.write_text(text)
    with pytest.raises(LoadError) as error:
        load_applicant(path, task)
    assert said in f"{error.value}"
    assert "\n" not in f"{error.value}"
    assert len(f"{error.value}") < 600


def test_a_file_that_cannot_be_read_is_said_in_one_line(task, tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(LoadError, match="cannot be read"):
            load_applicant(path, task)
    (tmp_path / "row.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LoadError, match="is not strict JSON"):
        load_applicant(tmp_path / "row.json", task)


def test_stopping_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        stop(2, "error: two\n  lines")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "pcr-jax: error: two lines\n"
