"""``pcr-jax interview``, from the first prompt to the letter; in this process and in a terminal."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax import cli, session
from tests.frontends.small_task import small

TASK = "tests.frontends.small_task:small"
ROW = {"job": "none", "income": 1500.0, "savings": 700.0}
TYPED = {"monthly income": "2,400", "savings": "1000-1200"}
LAST = "Press Enter"
END, STOP = EOFError(), KeyboardInterrupt()


class Said(NamedTuple):
    """What came of a run."""

    code: int
    out: str
    err: str


def interview(*argv, script=(), task=TASK):
    """Run the command for a person who types the script, and then what fits the prompt."""
    out, err, script = io.StringIO(), io.StringIO(), list(script)

    def typed(prompt):
        out.write(prompt)
        text = script.pop(0) if script else None
        if text is None:
            names = [name for name in TYPED if name in prompt]
            text = TYPED[names[0]] if names else ""
        if isinstance(text, BaseException):
            raise text
        out.write(text)
        return text

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("builtins.input", typed)
        try:
            code = cli.main(["interview", task, "--questions", "3", *map(str, argv)])
        except SystemExit as stop:
            code = stop.code
    assert "Traceback" not in err.getvalue()
    return Said(code, out.getvalue(), err.getvalue())


def questions(said):
    """The questions that were put, as they were numbered."""
    text = " ".join(said.out.split())
    return re.findall(r"Question (\d) of about 3 (Suppose [^?]*\?)", text)


def told(path):
    """How many answers a file has."""
    return sum(turn["told"] for turn in json.loads(path.read_text())["turns"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interviews")


@pytest.fixture(scope="module")
def row(folder):
    path = folder / "row.json"
    path.write_text(json.dumps(ROW))
    return path


@pytest.fixture(scope="module")
def whole(folder):
    """All of it, by a person who types their own row."""
    path = folder / "whole.json"
    script = ["h", "pilot", "n", "much", "b", "none", "1,500 euros", "700", None, "h", "lots"]
    return interview("--save", path, script=script), path


def test_the_whole_path_is_asked_understood_and_ends_with_the_letter(whole):
    said, path = whole
    assert (said.code, said.err) == (0, "")
    assert [number for number, _ in questions(said)] == ["1", "2", "3"]
    text = " ".join(said.out.split())
    assert text.count("Saved.") == 3 == told(path)
    assert len(re.findall(r"We now expect your (monthly income|savings) to", text)) == 3
    assert "if you raise your" in text
    assert "Now: monthly income 1,500 euros; savings 700 euros." in text
    assert "Your monthly income, in euros: 2,400" in text
    assert text.index("There are no more questions: all questions were asked.") < text.index("Dear")
    assert "this is enough in" in text


def test_its_lines_are_plain_and_fit_80_columns(whole):
    out = whole[0].out
    assert max(map(len, out.splitlines())) <= 80
    assert all(c == "\n" or c.isprintable() for c in out)
    assert out.isascii()


def test_the_row_is_checked_entry_by_entry_and_kept(whole):
    said, path = whole
    text = " ".join(said.out.split())
    assert "Please type none, part time or full time. Your job: n" in text
    assert "Please type a number from 0 to 9,000. Your monthly income, in euros: b" in text
    assert json.loads(Path(f"{path}.applicant.json").read_text()) == ROW


def test_the_letter_is_that_of_the_session(whole):
    said, path = whole
    again = small().session(
        ROW, small().fit(), text=path.read_text(), design=pcr.DecisionDesign(level=0.9)
    )
    np.testing.assert_array_equal(again.problem.x, [[0.0, 1500.0, 700.0]])
    letter = again.recommend(level=0.9).letter()
    assert " ".join(letter.split()[2:]) in " ".join(said.out.split())


def test_a_conversation_that_has_ended_ends_the_same_way_again(whole):
    said, path = whole
    again = interview("--save", path)
    assert again.code == 0
    assert "Going on from" in again.out
    assert "3 answers so far." in " ".join(again.out.split())
    assert questions(again) == []
    assert again.out[again.out.index("Dear") :] == said.out[said.out.index("Dear") :]


def replies(asked):
    """As many as a question asks for numbers, each that of the person."""
    return [None] * sum(name in asked.partition("What would")[2] for name in TYPED)


@pytest.mark.parametrize(
    ("ending", "code", "message"),
    [
        (STOP, 130, "pcr-jax: stopped; the same command goes on from here"),
        (END, 1, "pcr-jax: error: the input ended; the same command goes on from here"),
        ("q", 0, ""),
    ],
)
def test_whoever_stops_goes_on_where_they_stopped(whole, row, tmp_path, ending, code, message):
    path, asked = tmp_path / "session.json", questions(whole[0])
    arguments = ["--save", path, "--applicant", row]
    said = interview(*arguments, script=[*replies(asked[0][1]), ending])
    assert (said.code, said.err.strip()) == (code, message)
    assert told(path) == said.out.count("Saved.") == 1
    assert questions(said) == asked[:2]
    again = interview(*arguments)
    assert again.code == 0
    assert "1 answer so far." in " ".join(again.out.split())
    assert questions(again) == asked[1:]
    assert again.out[again.out.index("Dear") :] == whole[0].out[whole[0].out.index("Dear") :]


def test_b_goes_back_to_the_number_before_and_to_the_answer_before(whole, row, tmp_path):
    path, asked = tmp_path / "session.json", questions(whole[0])
    first = replies(asked[0][1])
    back_over_numbers = ["b", *first[1:], "b"] if len(first) > 1 else ["b"]
    script = [*back_over_numbers, *first, "b", *first, "q"]
    said = interview("--save", path, "--applicant", row, script=script)
    text = " ".join(said.out.split())
    assert said.code == 0
    assert "This is the first question: there is nothing to go back to." in text
    assert "Your last answer is taken back." in text
    assert [number for number, _ in questions(said)] == ["1", "1", "2", "1", "2"]
    assert questions(said)[3] == asked[0]
    assert questions(said)[4] == asked[1]
    assert told(path) == 1


def test_the_last_answer_can_be_taken_back_too(whole, tmp_path):
    path = tmp_path / "session.json"
    for end in ("", ".applicant.json"):
        shutil.copy(f"{whole[1]}{end}", f"{path}{end}")
    said = interview("--save", path, script=["b", "q"])
    assert questions(said) == questions(whole[0])[2:]
    assert told(path) == 2


def test_not_knowing_is_an_answer(whole, row, tmp_path):
    path, asked = tmp_path / "session.json", questions(whole[0])
    script = ["?" for _ in replies(asked[0][1])]
    said = interview("--save", path, "--applicant", row, script=[*script, "q"])
    assert "You do not know this: what is believed of you stays as it was." in said.out
    assert told(path) == 1
    assert questions(said)[1][0] == "2"


def test_nothing_is_acknowledged_that_could_not_be_saved(whole, row, tmp_path, monkeypatch):
    path, asked = tmp_path / "session.json", questions(whole[0])
    written = session.write

    def full(name, data):
        if b'"told":true' in data.replace(b" ", b""):
            raise OSError(errno.ENOSPC, "No space left on device", str(name))
        written(name, data)

    monkeypatch.setattr(session, "write", full)
    said = interview("--save", path, "--applicant", row, script=replies(asked[0][1]))
    assert said.code == 1
    assert "No space left on device; what was saved before is kept" in said.err
    assert "Saved." not in said.out
    assert told(path) == 0


def test_without_save_it_says_that_nothing_is_kept(row):
    said = interview("--applicant", row, script=[STOP])
    assert (said.code, said.err) == (130, "pcr-jax: stopped; nothing was saved, see --save\n")


def test_a_row_that_is_begun_is_gone_on_with(tmp_path):
    path = tmp_path / "session.json"
    first = interview("--save", path, script=["none", STOP])
    assert first.code == 130
    said = interview("--save", path, script=["b", "none", "1500", END])
    assert said.code == 1
    assert "Your job: none" in said.out
    assert json.loads(Path(f"{path}.applicant.json").read_text()) == {
        "job": "none",
        "income": 1500.0,
    }
    assert not path.exists()


def test_who_is_granted_is_asked_nothing(tmp_path):
    path = tmp_path / "row.json"
    path.write_text(json.dumps({**ROW, "income": 9000}))
    said = interview("--applicant", path)
    assert said.code == 0
    assert "is favourable as things are: nothing needs to change." in said.out
    assert "Question" not in said.out


def test_mistakes_are_one_line(whole, row, tmp_path, monkeypatch):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**ROW, "savings": 800.0}))
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    path = whole[1]
    cases = [
        (interview(task="tests"), "Expected MODULE:TASK"),
        (interview(task="tests.frontends.small_task:JOBS"), "to be a pcr_jax.Task"),
        (interview(task="tests.frontends.small_task:unordered"), "Nobody can be asked about this"),
        (interview("--applicant", tmp_path / "none.json"), "cannot be read"),
        (interview("--applicant", broken), "lacks ['job', 'income', 'savings']"),
        (interview("--applicant", row, "--save", tmp_path), "argument --save"),
        (interview("--applicant", row, "--save", tmp_path / "none" / "file"), "argument --save"),
        (interview("--applicant", row, "--save", broken), "cannot go on"),
        (interview("--applicant", other, "--save", path), "cannot go on: Expected problem.x"),
        (interview("--save", path, "--level", "0.8"), "cannot go on: Expected design.level"),
        (interview("--save", path, "--questions", "4"), "argument --questions: "),
        (interview("--save", path, "--seed", "1"), "argument --seed: "),
        (interview("--save", broken), "argument --applicant: "),
    ]
    for said, message in cases:
        assert said.code == 2
        assert message in said.err
        assert len(said.err.splitlines()) == 1
        assert "Question" not in said.out


@pytest.mark.parametrize(
    "argv",
    [
        *(["--level", text] for text in ("0", "1", "nan", "much", "\u0660.9", "1e-9")),
        *(["--questions", text] for text in ("0", "101", "-1", "٣", "3.5")),
        *(["--seed", text] for text in ("-1", "4294967296", "x" * 100)),
    ],
)
def test_options_out_of_range_are_refused(argv):
    said = interview(*argv)
    assert said.code == 2
    assert f"argument {argv[0]}: expected" in said.err
    assert len(said.err) < 600


def test_without_rich_it_says_how_to_install_it(row, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    said = interview("--applicant", row)
    assert said.code == 2
    assert "pip install 'pcr-jax[interview]'" in said.err


needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """A terminal of 80 columns by 24 lines, and who types in it."""

    def __init__(self, socket, environment):
        self.socket, self.environment = socket, environment
        self.typed = 0

    def __call__(self, *argv):
        command = ["tmux", "-S", self.socket, "-f", os.devnull, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self, *argv):
        """Begin the command; its exit status is printed after it."""
        root = Path(cli.__file__).parents[1]
        own = {"PYTHONPATH": os.pathsep.join([f"{root}", *filter(None, sys.path)])}
        own |= {
            name: value for name, value in os.environ.items() if name.startswith(("JAX", "XLA"))
        }
        words = [f"{name}='{value}'" for name, value in {**own, **self.environment}.items()]
        words += [f"'{word}'" for word in (sys.executable, "-m", "pcr_jax.cli", "interview", *argv)]
        shell = f"trap : INT; cd '{root}'; env {' '.join(words)}; echo \"ended with $?\"; exec cat"
        self("new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", shell)
        self("set-option", "history-limit", "10000")

    def screen(self):
        """All that was printed."""
        return self("capture-pane", "-p", "-J", "-S", "-")

    def said(self):
        """All that was printed, however it was broken into lines."""
        return " ".join(self.screen().split())

    def wait(self, *wanted, seconds=240):
        """Until the last line, after the one that was typed in, begins with this; the line."""
        until = time.monotonic() + seconds
        while True:
            lines = self.screen().rstrip().splitlines() or [""]
            if len(lines) > self.typed and any(map(lines[-1].startswith, wanted)):
                return lines[-1]
            assert time.monotonic() < until, self.screen()
            time.sleep(0.05)

    def type(self, text):
        """Type a text; Enter after it."""
        self.typed = len(self.screen().rstrip().splitlines())
        if text:
            self("send-keys", "-l", "--", text)
        self("send-keys", "Enter")

    def answer(self):
        """Type what fits the prompt that waits; the prompt."""
        prompt = self.wait("Your monthly income, in euros:", "Your savings, in euros:", LAST)
        (text,) = [TYPED[name] for name in TYPED if name in prompt] or [""]
        self.type(text)
        return prompt

    def end(self):
        """The exit status, once there is one."""
        return int(self.wait("ended with").split()[-1])


@pytest.fixture
def tmux(tmp_path):
    terminals = []

    def begin(*argv, **environment):
        terminals.append(Tmux(tmp_path / f"tmux{len(terminals)}", environment))
        terminals[-1].start(TASK, "--questions", "3", *map(str, argv))
        return terminals[-1]

    yield begin
    for terminal in terminals:
        terminal("kill-server")


@needs_tmux
@pytest.mark.slow
def test_in_a_terminal_nonsense_back_interruption_end_of_input_and_all_of_it(
    whole, row, tmp_path, tmux
):
    path, asked = tmp_path / "session.json", questions(whole[0])
    arguments = ["--save", path, "--applicant", row]
    terminal = tmux(*arguments)
    terminal.wait("Your ")
    for nonsense in ("nan", "1e308", "4,1", "٤١٠٠", "x" * 300, "-5"):
        terminal.type(nonsense)
        terminal.wait("Your ")
    assert "Please use the digits 0 to 9." in terminal.said()
    assert "Please type at most 200 characters." in terminal.said()
    for _ in replies(asked[0][1]):
        terminal.answer()
    terminal.wait("Your ")
    assert "Question 2 of about 3" in terminal.said()
    terminal.type("b")
    for _ in replies(asked[0][1]):
        terminal.answer()
    terminal.wait("Your ")
    assert "Your last answer is taken back." in terminal.said()
    terminal("send-keys", "C-c")
    assert terminal.end() == 130
    assert "pcr-jax: stopped; the same command goes on from here" in terminal.said()
    assert told(path) == 1

    terminal = tmux(*arguments)
    terminal.wait("Your ")
    assert "1 answer so far." in terminal.said()
    terminal("send-keys", "C-d")
    assert terminal.end() == 1
    assert "the input ended; the same command goes on from here" in terminal.said()
    assert told(path) == 1

    terminal = tmux(*arguments)
    while not terminal.answer().startswith(LAST):
        pass
    assert terminal.end() == 0
    letter = whole[0].out[whole[0].out.index("Dear") :]
    assert " ".join(letter.split()) in terminal.said()


@needs_tmux
def test_in_a_dumb_terminal_no_control_codes_are_sent(tmp_path, tmux):
    log, path = tmp_path / "sent", tmp_path / "session.json"
    terminal = tmux("--save", path, TERM="dumb")
    terminal("pipe-pane", "-o", f"cat > '{log}'")
    terminal.wait("Your job:")
    for text in ("h", "pilot", "full"):
        terminal.wait("Your job:")
        terminal.type(text)
    terminal.wait("Your monthly income, in euros:")
    terminal.type("b")
    terminal.wait("Your job:")
    terminal.type("none")
    terminal.wait("Your monthly income, in euros:")
    terminal("send-keys", "C-d")
    assert terminal.end() == 1
    assert json.loads(Path(f"{path}.applicant.json").read_text()) == {"job": "none"}
    assert b"\x1b" not in log.read_bytes()
    assert b"the input ended; the same command goes on from here" in log.read_bytes()


@needs_tmux
def test_an_interruption_while_it_computes_ends_it_at_once(row, tmp_path, tmux):
    path = tmp_path / "session.json"
    # Nothing is found in the cache, so that there is time to interrupt it.
    terminal = tmux(
        "--applicant", row, "--save", path, JAX_ENABLE_COMPILATION_CACHE="false", NO_COLOR="1"
    )
    log = tmp_path / "sent"
    terminal("pipe-pane", "-o", f"cat > '{log}'")
    terminal.wait("Choosing the first question")
    began = time.monotonic()
    terminal("send-keys", "C-c")
    assert terminal.end() == 130
    assert time.monotonic() - began < 5
    assert "Traceback" not in terminal.said()
    assert b"\x1b" not in log.read_bytes()
