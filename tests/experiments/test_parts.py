"""What a run reads from its folder, and what it writes there. Its work is made up."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import made_up
import pytest
from made_up import PROTOCOL, runs
from rich.console import Console

from pcr_jax._files import write
from pcr_jax.experiments import OutputError, run
from pcr_jax.inference import read_netcdf, write_netcdf
from pcr_jax.plots import Figure, save

CSV = ("recourse.csv", "interventions.csv", "estimation.csv")
UNITS = {"posterior_m1_0", "recourse_m1_0", "recourse_m1_1", "sweep_m1_0", "sweep_m1_1"}


@pytest.fixture
def done(monkeypatch):
    """The names of the units that were worked on."""
    names = []

    def noted(out, protocol, sampler, unit):
        made_up.work(out, protocol, sampler, unit)
        names.append(unit.name.removesuffix(".json"))

    monkeypatch.setattr(runs, "_work", noted)
    monkeypatch.setattr(runs, "_draw", lambda *_: None)
    return names


@pytest.fixture
def out(done, tmp_path):
    """The folder of a finished run."""
    folder = tmp_path / "out"
    reproduce(folder)
    assert set(done) == UNITS
    done.clear()
    return folder


def reproduce(folder, encoding="utf-8"):
    """What a run prints."""
    printed = io.BytesIO()
    file = io.TextIOWrapper(printed, encoding=encoding)
    run(folder, PROTOCOL, ["m1"], "zeus", 1, Console(file=file, width=120))
    file.flush()
    return printed.getvalue().decode(encoding)


def below(folder):
    """The files below a folder and what they hold."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(row, name, value):
    """Of the first row of a part's table, one value."""

    def damage(part):
        part["tables"][row][0][name] = value

    return damage


def drop(table):
    def damage(part):
        part["tables"][table].pop()

    return damage


def repeat(table):
    def damage(part):
        part["tables"][table].append(part["tables"][table][-1])

    return damage


DAMAGE = {
    "nothing left": ("recourse_m1_1", b""),
    "cut short": ("recourse_m1_1", b'{"seconds": 1.0, "tables": {"recourse": [{"scm'),
    "bytes": ("sweep_m1_0", b"\xff\x00\xfe"),
    "a list": ("sweep_m1_0", b"[]"),
    "null": ("posterior_m1_0", b"null"),
    "brackets without end": ("sweep_m1_0", b"[" * 100_000),
    "no tables": ("posterior_m1_0", b'{"seconds": 1.0}'),
    "tables are a list": ("recourse_m1_0", b'{"seconds": 1.0, "tables": []}'),
    "rows are text": ("sweep_m1_0", b'{"seconds": 1.0, "tables": {"estimation": "rows"}}'),
    "rows are numbers": ("sweep_m1_0", b'{"seconds": 1.0, "tables": {"estimation": [1]}}'),
    "a way out of the folder": ("sweep_m1_0", change("estimation", "sweep", "x/../../victim")),
    "another sweep": ("sweep_m1_0", change("estimation", "sweep", "alpha")),
    "another value": ("sweep_m1_0", change("estimation", "value", 5)),
    "another SCM": ("sweep_m1_0", change("estimation", "scm", "m2")),
    "an SCM as markup": ("recourse_m1_0", change("recourse", "scm", "[/m1]")),
    "another repetition": ("recourse_m1_0", change("recourse", "seed", 1)),
    "another rate": ("recourse_m1_0", change("recourse", "learning_rate", 0.75)),
    "another variant": ("recourse_m1_0", change("recourse", "variant", "best")),
    "text for a number": ("recourse_m1_0", change("recourse", "validity", "high")),
    "bool for a number": ("recourse_m1_0", change("recourse", "validity", True)),
    "a list for a number": ("recourse_m1_0", change("recourse", "cost_mean", [1.0])),
    "an integer without end": ("recourse_m1_0", change("recourse", "cost_mean", 10**400)),
    "an infinite number": ("recourse_m1_0", change("recourse", "cost_mean", float("inf"))),
    "another column": ("recourse_m1_0", change("recourse", "mood", 1.0)),
    "unknown nodes": ("recourse_m1_0", change("interventions", "intervention_set", "X9")),
    "a set twice": ("recourse_m1_0", repeat("interventions")),
    "an unknown status": ("sweep_m1_1", change("estimation", "status", "fine")),
    "a row too few": ("sweep_m1_1", drop("estimation")),
    "a row too many": ("sweep_m1_1", repeat("estimation")),
    "a setting too few": ("recourse_m1_1", drop("recourse")),
    "a table too many": ("posterior_m1_0", lambda part: part["tables"].update(estimation=[])),
    "a strange table": ("sweep_m1_0", lambda part: part["tables"].update({"../x": []})),
    "seconds as text": ("sweep_m1_0", lambda part: part.update(seconds="long")),
    "seconds below 0": ("sweep_m1_0", lambda part: part.update(seconds=-1.0)),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_a_part_that_is_not_the_units_result_is_done_again_and_the_rest_kept(out, done, kind):
    name, damage = DAMAGE[kind]
    before = below(out.parent)
    path = out / "parts" / f"{name}.json"
    if callable(damage):
        part = json.loads(path.read_text())
        damage(part)
        path.write_text(json.dumps(part))
    else:
        path.write_bytes(damage)
    printed = reproduce(out)
    assert done == [name]
    assert f"{path} is not a result of this run; it is done again." in printed
    after = below(out.parent)
    assert after.keys() == before.keys()
    same = set(after) - {out / "run.json"}
    if name == "posterior_m1_0":  # with the time of its making
        same -= {path, out / "posterior_m1.nc"}
    assert {path: after[path] for path in same} == {path: before[path] for path in same}


@pytest.mark.parametrize("damage", ["missing", "cut short", "one bit", "another's", "text"])
def test_a_posterior_that_is_damaged_is_inferred_again(out, done, damage):
    file = out / "posterior_m1.nc"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "another's":
        write_netcdf(made_up.posterior(runs.replace(PROTOCOL, seeds=3)), file)
    else:
        flipped = whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:]
        file.write_bytes({"cut short": whole[:999], "one bit": flipped, "text": b"draws"}[damage])
    reproduce(out)
    assert done == ["posterior_m1_0"]
    assert read_netcdf(file).posterior.sizes["user"] == PROTOCOL.seeds


def test_another_runs_posterior_with_its_part_is_inferred_again(out, done, tmp_path):
    """The digest is right; the respondents are not those of this run."""
    file, part = out / "posterior_m1.nc", out / "parts" / "posterior_m1_0.json"
    other = tmp_path / "other"
    (other / "parts").mkdir(parents=True)
    made_up.work(other, runs.replace(PROTOCOL, seeds=3), "zeus", runs.Unit("posterior", "m1"))
    shutil.copy(other / file.name, file)
    shutil.copy(other / "parts" / part.name, part)
    reproduce(out)
    assert done == ["posterior_m1_0"]


def test_nothing_is_deleted_that_is_not_its_own(out, done):
    for mine in (
        "thesis.tmp",
        "parts/notes.tmp",
        "deep/er/draft.tmp",
        "run.json.1.tmp",
        "parts/recourse_m1_0.json.1.tmp",
    ):
        (out / mine).parent.mkdir(parents=True, exist_ok=True)
        (out / mine).write_text("precious")
    before = below(out)
    reproduce(out)
    after = below(out)
    assert after.keys() == before.keys()
    assert sum(text == b"precious" for text in after.values()) == 5
    assert done == []


def test_what_a_killed_run_left_unfinished_is_gone_in_the_end(out, done):
    lost = out / "parts" / "sweep_m1_0.json"
    lost.unlink()
    left = out / "parts" / f".{lost.name}.pcr-jax-unfinished"
    left.write_text('{"seco')
    write(lost, b"")
    assert not left.exists()
    reproduce(out)
    assert done == ["sweep_m1_0"]
    assert not list(out.rglob("*unfinished*"))


@pytest.mark.parametrize("record", ["[" * 100_000, '{"settings": [[1]]}', "null", "1e999"])
def test_a_record_that_is_none_is_refused(tmp_path, done, record):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(OutputError, match=r"run\.json is not the record of a run"):
        reproduce(tmp_path)
    assert done == []
    assert list(below(tmp_path)) == [tmp_path / "run.json"]


@pytest.mark.parametrize("seconds", ["long", 3, [None], {"a": 1}])
def test_a_record_with_strange_times_is_refused_before_work(out, done, seconds):
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "wall_seconds": seconds}))
    (out / "parts" / "sweep_m1_0.json").unlink()
    with pytest.raises(OutputError, match=r"run\.json is not the record of a run"):
        reproduce(out)
    assert done == []


@pytest.mark.parametrize("place", ["run.json", "parts/sweep_m1_0.json", "posterior_m1.nc"])
def test_a_folder_in_the_place_of_a_file_is_named(out, done, place):
    (out / place).unlink()
    (out / place).mkdir()
    with pytest.raises(OutputError, match=re.escape(str(out / place))):
        reproduce(out)
    assert done == []


def test_a_file_in_the_place_of_the_parts_is_named(out, done):
    shutil.rmtree(out / "parts")
    (out / "parts").write_text("precious")
    with pytest.raises(OutputError, match=re.escape(str(out / "parts"))):
        reproduce(out)
    assert (out / "parts").read_text() == "precious"


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(
    out, done, monkeypatch
):
    (out / "parts" / "sweep_m1_0.json").unlink()
    first, refused = runs._work, []

    def meanwhile(*args):
        with pytest.raises(OutputError, match="another run is at work"):
            reproduce(out)
        refused.append(1)
        first(*args)

    monkeypatch.setattr(runs, "_work", meanwhile)
    reproduce(out)
    assert refused == [1]
    assert done == ["sweep_m1_0"]
    reproduce(out)  # nobody is at work any more


def test_a_part_that_vanishes_during_the_run_is_named(out, done, monkeypatch):
    (out / "parts" / "sweep_m1_1.json").unlink()
    work = runs._work

    def vanish(*args):
        work(*args)
        (out / "parts" / "sweep_m1_0.json").unlink()

    monkeypatch.setattr(runs, "_work", vanish)
    with pytest.raises(RuntimeError, match=r"sweep_m1_0\.json was changed while the run was at"):
        reproduce(out)


@pytest.mark.parametrize("name", ["x[/y]", "[bold]", ":smile:", "a" * 150])
def test_the_folders_name_is_printed_as_it_is(done, tmp_path, name):
    assert f"results in {tmp_path / name}.\n" in reproduce(tmp_path / name)


def test_the_tables_can_be_printed_in_ascii(out):
    assert "0.50+-0.00" in reproduce(out, "ascii")
    assert "0.50±0.00" in reproduce(out)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"first")
    with pytest.raises(TypeError):
        write(path, "text")
    assert below(tmp_path) == {path: b"first"}

    def full(self, target):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(path, b"second")
    assert caught.value.filename == str(path)
    assert below(tmp_path) == {path: b"first"}


def test_links_are_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    names = ["figure.png", "figure.pdf", "posterior.nc", ".posterior.nc.pcr-jax-unfinished"]
    for name in names:
        (folder / name).symlink_to(victim)
    save(Figure(), folder / "figure")
    write_netcdf(made_up.posterior(), folder / "posterior.nc")
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[:3])
    assert not any(path.is_symlink() for path in folder.iterdir())


FULL = """
import resource, signal, sys
import made_up
from pcr_jax.inference import write_netcdf

data = made_up.posterior()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_netcdf(data, sys.argv[1])
except OSError as error:
    print(error.filename)
"""


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path):
    """In a process of its own, which HDF5 would end with a segmentation fault."""
    file = tmp_path / "posterior.nc"
    file.write_text("before")
    folders = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    ended = subprocess.run(
        [sys.executable, "-c", FULL, file], capture_output=True, text=True, env=environment
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{file}\n", "")
    assert below(tmp_path) == {file: b"before"}
