"""The command line: what it passes on, and how it says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pcr_jax import batching, cli
from pcr_jax.experiments import PAPER, RELEASED, OutputError, commands, quick
from pcr_jax.inference import SAMPLERS

MADE_UP = Path(__file__).with_name("made_up.py")


@pytest.fixture(autouse=True)
def _afresh():
    """Nobody has asked for the width yet; nor has anybody when the test is over."""
    batching.width.cache_clear()
    yield
    batching.width.cache_clear()


@pytest.fixture
def runs(monkeypatch):
    """What `run` was called with, and nothing run; nor is zeus needed."""
    calls = []
    monkeypatch.setattr(commands, "experiment", lambda *args: calls.append(args))
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
        (["--seeds", "10**30"], "--seeds"),
        (["--seeds", str(10**30)], "--seeds"),
        (["--seeds", "10001"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--jobs", str(10**9)], "--jobs"),
        (["--out", ""], "--out"),
        (["--out", "  "], "--out"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_argument(runs, capsys, argv, argument):
    code, message = stopped(capsys, *argv)
    assert code == 2
    assert argument in message
    assert argv[-1] in message
    assert not runs


def test_a_number_of_5000_digits_is_not_printed_whole(runs, capsys):
    code, message = stopped(capsys, "--seeds", "9" * 5000)
    assert code == 2
    assert "--seeds" in message
    assert len(message) < 200


@pytest.mark.parametrize("width", ["abc", "0", "10**30", str(10**30), "9" * 5000])
def test_a_mistaken_setting_of_the_environment_is_one_line(runs, capsys, monkeypatch, width):
    monkeypatch.setenv("PCR_JAX_WIDTH", width)
    batching.width.cache_clear()
    code, message = stopped(capsys)
    assert code == 2
    assert "PCR_JAX_WIDTH" in message
    assert width[:20] in message
    assert not runs


def test_a_platform_that_jax_lacks_is_one_line(runs, capsys, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'nonsense':\nnot in the list")

    monkeypatch.setattr(commands.jax, "default_backend", fail)
    code, message = stopped(capsys)
    assert code == 2
    assert "backend 'nonsense': not in the list" in message
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
    module = sys.modules[commands.experiment.__module__]
    monkeypatch.setattr(module, "_work", lambda *_: pytest.fail("work was begun"))


def test_a_folder_that_cannot_be_made_is_named(no_work, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code, message = stopped(capsys, "--out", out, "--jobs", 1)
        assert code == 2
        assert "argument --out" in message
        assert str(out) in message
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_name_that_is_too_long_or_goes_in_circles_is_named(no_work, capsys, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / ("n" * 300), tmp_path / "loop", tmp_path / "loop" / "below"):
        code, message = stopped(capsys, "--out", out, "--jobs", 1)
        assert code == 2
        assert "argument --out" in message
        assert str(out) in message


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
    monkeypatch.setattr(commands, "experiment", lambda *_: pytest.fail("the run was begun"))
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
        (OSError(28, "No space left on device", "x.csv"), 1, "write x.csv: No space left"),
        (OSError(5, "I/O error", "x.csv"), 1, "what is finished is kept"),
        (RuntimeError("XLA\n  says\nmuch"), 1, "XLA says much"),
        (BrokenProcessPool("a process was killed"), 1, "a process was killed"),
    ],
)
def test_failures_of_a_run_end_in_one_line(monkeypatch, capsys, tmp_path, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(commands, "experiment", fail)
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    assert stopped(capsys, "--out", tmp_path)[0] == code
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--out", str(tmp_path)])
    assert said in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """Interruption as it was, of which the command line takes no notice once it has stopped."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_an_interruption_says_that_it_can_be_resumed(monkeypatch, capsys, interruptible):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "experiment", interrupt)
    monkeypatch.setitem(SAMPLERS, "zeus", object)
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce"])
    assert stop.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def started(out, kind, environment=(), **options):
    """`made_up` in a process and a session of its own, with two workers."""
    command = [sys.executable, str(MADE_UP), os.fspath(out), kind]
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**inherited, **dict(environment)}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def is_gone(group, seconds=60):
    """Whether a process group ends within this time; if not, it is killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def wait_for(process, condition, seconds=200):
    """Until the condition holds; not for a process that has ended."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_with_workers_ends_at_once_when_it_is_told_to_and_keeps_what_is_done(
    tmp_path, number
):
    """Ctrl-C, which goes to all processes, twice; or SIGTERM to the first."""
    out = tmp_path / "out"
    process = started(out, "long_work")
    try:
        wait_for(process, lambda: len(list(out.glob("begun_*"))) == 4)
        wait_for(process, (out / "parts" / "recourse_m1_0.json").exists)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
            time.sleep(0.2)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        # A unit takes a minute, and one more waits.
        _, said = process.communicate(timeout=60)
        assert is_gone(process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    parts = sorted(path.name for path in (out / "parts").iterdir())
    assert parts == ["posterior_m1_0.json", "recourse_m1_0.json"]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.decode().strip() == "pcr-jax: stopped; the same command goes on from here"
    else:
        assert process.returncode == -number


def test_a_reader_who_leaves_and_an_output_in_ascii_do_not_stop_a_run(tmp_path):
    """Also in a folder whose name is not text, and without a home."""
    out = os.fsencode(tmp_path) + b"/\xff[/y]"
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    process = started(os.fsdecode(out), "work", plain)
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 0
    record = Path(os.fsdecode(out), "run.json")
    assert len(json.loads(record.read_text())["wall_seconds"]) == 1
    process = started(os.fsdecode(out), "work", plain)
    printed, said = process.communicate()
    assert (process.returncode, said) == (0, b"")
    assert b"0.50+-0.00" in printed
    assert b"\\udcff[/y]." in printed
    assert printed.isascii()


def test_a_platform_that_there_is_not_is_one_line(tmp_path):
    process = started(tmp_path / "out", "work", {"JAX_PLATFORMS": "nonsense"})
    said = process.communicate()[1].decode()
    assert process.returncode == 2
    assert len(said.splitlines()) == 1
    assert "nonsense" in said
