"""The command line: what it passes on, and how it says what is wrong."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pcr_jax import cli
from pcr_jax.experiments import PAPER, RELEASED, OutputError, quick
from pcr_jax.inference import SAMPLERS


@pytest.fixture
def runs(monkeypatch):
    """What `run` was called with, and nothing run; nor is zeus needed."""
    calls = []
    monkeypatch.setattr(cli, "run", lambda *args: calls.append(args))
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    return calls


def stopped(capsys, *argv):
    """The exit status and the message, one line after argparse's usage."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", *map(str, argv)])
    printed = capsys.readouterr()
    assert not printed.out
    assert "Traceback" not in printed.err
    usage, colon, message = printed.err.partition("pcr-jax reproduce: error:")
    if not colon:
        usage, _, message = printed.err.partition("pcr-jax: error:")
    assert "error" not in usage
    assert len(message.strip().splitlines()) == 1
    return stop.value.code, message


def test_by_default_it_runs_the_whole_paper_protocol(runs):
    assert cli.main(["reproduce"]) == 0
    ((out, protocol, scms, sampler, jobs, _),) = runs
    assert out == Path("out/paper")
    assert protocol == PAPER
    assert scms == ["m1", "m2", "m3"]
    assert sampler == "zeus"
    assert jobs >= 1


def test_options_arrive(runs, tmp_path):
    argv = "reproduce --scm m3 m1 m3 --protocol released --quick --seeds 3 --jobs 2 --sampler zeus"
    assert cli.main([*argv.split(), "--out", str(tmp_path)]) == 0
    ((out, protocol, scms, sampler, jobs, _),) = runs
    assert out == tmp_path
    assert protocol == replace(quick(RELEASED), seeds=3)
    assert (scms, sampler, jobs) == (["m1", "m3"], "zeus", 2)
    cli.main(["reproduce", "--quick"])
    assert runs[-1][0] == Path("out/paper-quick")
    assert runs[-1][1] == quick(PAPER)


@pytest.mark.parametrize("sampler", ["ess", "nuts", "smc"])
def test_every_sampler_can_be_chosen(runs, sampler):
    assert cli.main(["reproduce", "--sampler", sampler]) == 0
    assert runs[-1][3] == sampler


@pytest.mark.parametrize(
    ("argv", "argument"),
    [
        (["--scm", "m4"], "--scm"),
        (["--sampler", "gibbs"], "--sampler"),
        (["--protocol", "draft"], "--protocol"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "two"], "--seeds"),
        (["--seeds", "1.5"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_argument(runs, capsys, argv, argument):
    code, message = stopped(capsys, *argv)
    assert code == 2
    assert argument in message
    assert argv[-1] in message
    assert not runs


def test_without_a_command_it_says_which_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "command" in capsys.readouterr().err


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--scm", "--protocol", "--quick", "--seeds", "--out", "--sampler", "--jobs"):
        assert option in printed


@pytest.fixture
def no_work(monkeypatch):
    """`run` itself, in which any unit of work is a failure."""
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    module = sys.modules[cli.run.__module__]
    monkeypatch.setattr(module, "_work", lambda *_: pytest.fail("work was begun"))


def test_a_folder_that_cannot_be_made_is_named(no_work, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code, message = stopped(capsys, "--out", out, "--jobs", 1)
        assert code == 2
        assert "argument --out" in message
        assert str(out) in message
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(no_work, capsys, tmp_path):
    tmp_path.chmod(0o500)
    code, message = stopped(capsys, "--out", tmp_path, "--jobs", 1)
    assert code == 2
    assert "argument --out" in message


def test_a_folder_with_something_else_in_its_place_of_record_is_refused(no_work, capsys, tmp_path):
    for record in ("not JSON", json.dumps({"settings": {"protocol": {}}})):
        (tmp_path / "run.json").write_text(record)
        code, message = stopped(capsys, "--out", tmp_path, "--jobs", 1)
        assert code == 2
        assert "argument --out" in message
        assert "choose another folder" in message
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
        assert (tmp_path / "run.json").read_text() == record


def test_without_zeus_it_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "zeus", None)
    monkeypatch.setattr(cli, "run", lambda *_: pytest.fail("the run was begun"))
    code, message = stopped(capsys, "--out", tmp_path / "new")
    assert code == 2
    assert "argument --sampler" in message
    assert "pip install 'pcr-jax[zeus]'" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OutputError("full of bees"), 2, "argument --out: full of bees"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ],
)
def test_failures_of_a_run_end_in_one_line(monkeypatch, capsys, tmp_path, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    assert stopped(capsys, "--out", tmp_path)[0] == code
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--out", str(tmp_path)])
    assert said in capsys.readouterr().err


def test_an_interruption_says_that_it_can_be_resumed(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupt)
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce"])
    assert stop.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
