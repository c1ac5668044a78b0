"""Every example runs, without a warning, and says something."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
NEEDS = {"credit": "sklearn", "recourse_for_your_model": "sklearn"}


def test_there_are_examples():
    assert EXAMPLES


def keeps_to_the_constraints(table, printed):
    """Of the example with a model of one's own."""
    assert (table.status == "found").mean() >= 0.75
    assert table["age (action)"].isna().all()
    assert not (table["income (action)"] < 0).any()
    after = table["debt (now)"] + table["debt (action)"]
    assert not (after < -1e-4).any()
    assert [line.split(": ", 1)[1] for line in printed.splitlines()] == list(table.sentence)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_without_a_warning(path, capsys, monkeypatch, tmp_path):
    pytest.importorskip(NEEDS.get(path.stem, "zeus"))
    monkeypatch.chdir(tmp_path)
    values = runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr()
    assert printed.out.strip()
    assert not printed.err
    if "plan" in values and "task" in values:
        assert "this is enough in" in values["plan"].letter()
    elif "table" in values:
        keeps_to_the_constraints(values["table"], printed.out)
