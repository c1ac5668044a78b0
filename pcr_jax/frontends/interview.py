"""``pcr-jax interview``: one person's conversation at a terminal, with advice at its end.

Plain text in reading order. Only where a terminal can do so, and nobody asked it not to, is there
a line that moves while something is computed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
import pandas as pd

from pcr_jax._extras import extra
from pcr_jax._files import write
from pcr_jax._stop import stop
from pcr_jax.elicitation import DecisionDesign
from pcr_jax.features import Feature, feature_of
from pcr_jax.frontends.answers import (
    Answer,
    AnswerError,
    expected,
    is_name,
    read_answer,
    read_entry,
)
from pcr_jax.frontends.loading import (
    LoadError,
    load_applicant,
    load_task,
    read_object,
    row_of,
)
from pcr_jax.frontends.words import taught_sentence
from pcr_jax.task import Task, TaskSession

_QUESTIONS = 6
_LEVEL = 0.9
_WIDTH = 80  # columns, at most: longer lines are hard to read
_PATIENCE = 1.0  # seconds without a word
_COMMANDS = {
    **dict.fromkeys(("b", "back"), "back"),
    **dict.fromkeys(("h", "help"), "help"),
    **dict.fromkeys(("q", "quit"), "quit"),
}
_HELP = """\
You can type:
  a number, with a comma between thousands and a point before decimals
  a range, from the least to the most that you think likely
  +200 or "200 less", if it is easier to say by how much it changes
  "no effect", if it stays as it is
  ? if you do not know
  b to go back, q to stop, h to read this again
What you read after an answer is what we now expect. In brackets is the range \
that it lies in with a probability of 90 %, by what is believed of you."""
_HELP_WITH_ROW = "Type one number or one name. b goes back, q stops."

T = TypeVar("T")


class _Back(Exception):
    """The person wants to go back."""


class _Quit(Exception):
    """The person wants to stop."""


class Terminal:
    """Lines out, answers in."""

    def __init__(self):
        with extra("interview"):
            from rich.console import Console

        for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stdin, "replace")):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=errors)
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb")
        self.reads_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.moves = not plain and self.reads_terminal and sys.stdout.isatty()
        options: dict[str, Any] = {} if self.moves else {"force_terminal": False}
        self._console = Console(highlight=False, markup=False, emoji=False, **options)
        self._console.width = min(self._console.width, _WIDTH)
        self._computing: threading.Thread | None = None
        if self.moves:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  with which `input` lets a line be edited

    def say(self, text: str = "") -> None:
        """Print a paragraph."""
        from rich.text import Text

        self._console.print(Text(text))

    def ask(self, prompt: str) -> str:
        """What the person types."""
        if len(prompt) > self._console.width - 20:
            self.say(prompt.rstrip(": "))
            prompt = "Your answer: "
        sys.stdout.flush()
        text = input(prompt)
        if not self.reads_terminal:
            print()
        return text

    def computing(self, what: str, function: Callable[[], T]) -> T:
        """What a function returns, run so that it can be interrupted; says what takes long."""
        future: Future[T] = Future()

        def run():
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._computing = threading.Thread(target=run, daemon=True)
        self._computing.start()
        self._computing.join(_PATIENCE)
        if not future.done():
            if self.moves:
                with self._console.status(f"{what} ..."):
                    return future.result()
            self.say(f"{what} ...")
        return future.result()

    def leave(self, code: int, message: str) -> NoReturn:
        """End with one line, without waiting for what is being computed."""
        print(flush=True)  # the line that the person was typing in
        if self._computing is not None and self._computing.is_alive():
            with contextlib.suppress(SystemExit):
                stop(code, message)
            sys.stderr.flush()
            os._exit(code)
        stop(code, message)


def add_parser(commands: Any) -> None:
    """Add the command to those of ``pcr-jax``."""
    parser = commands.add_parser(
        "interview",
        help="ask one person at the terminal, and advise them",
        description="Ask one person about what causes what for them, and advise them. Started "
        "again with the same --save, it goes on where it stopped.",
    )
    parser.add_argument(
        "task",
        metavar="MODULE:TASK",
        help="a pcr_jax.Task, or a function that returns one, in a module or a file",
    )
    parser.add_argument(
        "--applicant",
        type=Path,
        metavar="FILE",
        help="the person's row in JSON (default: they are asked for it)",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="where the conversation is kept after each answer"
    )
    parser.add_argument(
        "--level",
        type=_probability,
        default=_LEVEL,
        help=f"with which probability the advice is to work (default: {_LEVEL})",
    )
    parser.add_argument(
        "--questions",
        type=_whole(1, 100),
        metavar="N",
        help=f"questions at most (default: {_QUESTIONS})",
    )
    parser.add_argument(
        "--seed", type=_whole(0, 2**31 - 1), metavar="N", help="of all that is random (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command. Exits with 2 for a mistake, 1 for a failure, 130 if interrupted."""
    kept = "nothing was saved, see --save"
    if args.save is not None:
        kept = "the same command goes on from here"
    try:
        terminal = Terminal()
    except ModuleNotFoundError as error:
        stop(2, f"error: {error}")
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            _interview(args, terminal)
    except _Quit:
        terminal.say(f"Stopped; {kept}.")
    except KeyboardInterrupt:
        terminal.leave(130, f"stopped; {kept}")
    except EOFError:
        terminal.leave(1, f"error: the input ended; {kept}")
    except LoadError as error:
        stop(2, f"error: {error}")
    except OSError as error:
        where, why = error.filename or "the output", error.strerror or error
        stop(1, f"error: cannot write {where}: {why}; what was saved before is kept")
    except RuntimeError as error:  # of JAX, or of its settings
        stop(1, f"error: {error}; {kept}")
    return 0


def _interview(args: argparse.Namespace, terminal: Terminal) -> None:
    """From the person's row to the letter."""
    if args.save is not None and (args.save.is_dir() or not args.save.absolute().parent.is_dir()):
        raise LoadError(f"argument --save: {args.save} is no file that can be written.")
    task = load_task(args.task)
    surrogate = terminal.computing("Reading the data", lambda: _fitted(task))
    if args.applicant is not None:
        row = load_applicant(args.applicant, task)
    else:
        row = _asked_row(task, terminal, args.save)
    if task.check(row).favourable.iloc[0]:
        terminal.say("The decision about you is favourable as things are: nothing needs to change.")
        return
    resumes = args.save is not None and args.save.exists()
    session, notes = terminal.computing(
        "Beginning", lambda: (_resumed if resumes else _begun)(args, task, surrogate, row)
    )
    for note in notes:
        terminal.say(f"Note: {note}")
    conversation = _Conversation(session, terminal, args)
    if resumes:
        told = conversation.told
        terminal.say(f"Going on from {args.save}: {told} answer{'s' * (told != 1)} so far.")
    else:
        terminal.say(
            f"You will be asked about {session.max_questions} questions. Say what you expect for "
            "yourself; a rough answer is good enough. After each answer you read what it changed, "
            "and at the end what you can do. Type h for help, b to go back, q to stop."
        )
    conversation.run()


def _fitted(task: Task) -> Any:
    try:
        return task.fit()
    except ValueError as error:
        raise LoadError(f"Nobody can be asked about this task: {error}") from None


def _begun(args: argparse.Namespace, task: Task, surrogate: Any, row: pd.DataFrame) -> Any:
    """A new session, and nothing to be said of it."""
    session = task.session(
        row,
        surrogate,
        key=jax.random.key(args.seed or 0),
        design=DecisionDesign(level=args.level),
        max_questions=args.questions or _QUESTIONS,
        path=args.save,
    )
    return session, []


def _resumed(args: argparse.Namespace, task: Task, surrogate: Any, row: pd.DataFrame) -> Any:
    """The session that was saved, and what is to be said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            session = task.session(
                row,
                surrogate,
                text=args.save.read_bytes(),
                design=DecisionDesign(level=args.level),
                path=args.save,
            )
        except (TypeError, ValueError) as error:
            raise LoadError(f"argument --save: {args.save} cannot go on: {error}") from None
    if args.questions not in (None, session.max_questions):
        raise LoadError(
            f"argument --questions: {args.save} began with {session.max_questions}; got "
            f"{args.questions}."
        )
    if args.seed is not None and session.key != jax.random.key(args.seed):
        raise LoadError(f"argument --seed: {args.save} began with another.")
    return session, [f"{warning.message}" for warning in caught]


class _Conversation:
    """The questions of a session, and its letter."""

    def __init__(self, session: TaskSession, terminal: Terminal, args: argparse.Namespace):
        self.session, self.terminal, self.args = session, terminal, args
        self.features = session.task.features
        self.columns = list(self.features)
        self.x = np.asarray(session.problem.x, float)[0]

    @property
    def told(self) -> int:
        """The number of answers so far."""
        return int(self.session.history.num_queries[0])

    def run(self) -> None:
        """Ask until all is asked, then advise."""
        while True:
            what = "Choosing the next question" if self.told else "Choosing the first question"
            before = self.terminal.computing(f"{what}; this may take a minute", self._open)
            if not self.session.done[0]:
                self._question(before)
            elif self._has_ended():
                break
        plan = self.terminal.computing(
            "Working out what you can do", lambda: self.session.recommend(level=self.args.level)
        )
        self.terminal.say()
        self.terminal.say(plan.letter())

    def _open(self) -> Any:
        """Ask the session; what was believed before the answer."""
        self.session.ask()
        return self.session.belief.posteriors

    def _has_ended(self) -> bool:
        """Whether the person lets it be the end."""
        self.terminal.say()
        self.terminal.say(f"There are no more questions: {self.session.ended[0]}.")
        back = ", or b to go back" if self.told else ""
        try:
            _asked(self.terminal, f"Press Enter for the result{back}: ", _enter, _HELP)
        except _Back:
            self._go_back()
            return False
        return True

    def _question(self, before: Any) -> None:
        """One question: its numbers are told together."""
        session, say = self.session, self.terminal.say
        questions = session.ask()
        node, shift = int(questions.node[0]), float(questions.shift[0])
        effects = np.flatnonzero(questions.outcomes(session.surrogate.graph)[0]).tolist()
        say()
        say(f"Question {self.told + 1} of about {session.max_questions}")
        say(f"{session.sentences()[0]}")
        say(f"Now: {'; '.join(self._now(j) for j in effects)}.")
        answers: list[Answer] = []
        while len(answers) < len(effects):
            try:
                answers.append(self._number(effects[len(answers)]))
            except _Back:
                if not answers:
                    self._go_back()
                    return
                answers.pop()
        self._tell(dict(zip(effects, answers, strict=True)))
        say("Saved." if self.args.save is not None else "Noted.")
        known = [
            self.columns[j]
            for j, answer in zip(effects, answers, strict=True)
            if answer.value is not None
        ]
        if known:
            asked = {"column": self.columns[node], "shift": shift, "effects": known}
            sentence = self.terminal.computing(
                "Working out what your answer changes; this may take a minute",
                lambda: taught_sentence(
                    session.task, self.x, asked, before, session.belief.posteriors
                ),
            )
            say(sentence)
        else:
            say("You do not know this: what is believed of you stays as it was.")

    def _now(self, node: int) -> str:
        column, feature = self.columns[node], self.features[self.columns[node]]
        return f"{feature.name(column)} {feature.shown(float(self.x[node]))}"

    def _number(self, node: int) -> Answer:
        """What the person says of one feature."""
        column, now = self.columns[node], float(self.x[node])
        feature = self.features[column]
        self.terminal.say(expected(feature, now))
        return _asked(
            self.terminal,
            f"{_prompt(feature, column)}: ",
            lambda text: read_answer(text, feature, column, now),
            _HELP,
            feature,
        )

    def _go_back(self) -> None:
        """Take the last answer back."""
        if self.told:
            self.session.undo()
            self.terminal.say("Your last answer is taken back.")
        else:
            self.terminal.say("This is the first question: there is nothing to go back to.")

    def _tell(self, answers: dict[int, Answer]) -> None:
        """Tell the session, which saves it."""
        value, half = np.full((1, len(self.x)), np.nan), np.zeros((1, len(self.x)))
        for j, answer in answers.items():
            if answer.value is not None:
                value[0, j], half[0, j] = answer
        self.session.tell(value, half if half.any() else None)


def _prompt(feature: Feature, column: Any) -> str:
    """What is asked for, and in what."""
    name, unit = feature.name(column), getattr(feature, "unit", None)
    return f"Your {name}, in {unit}" if unit else f"Your {name}"


def _asked(
    terminal: Terminal,
    prompt: str,
    read: Callable[[str], T],
    help_text: str,
    feature: Feature | None = None,
) -> T:
    """What is typed, read; asked until it can be. Names come before commands of one letter."""
    while True:
        text = terminal.ask(prompt)
        named = feature is not None and is_name(text, feature)
        command = None if named else _COMMANDS.get(text.strip().lower())
        if command == "back":
            raise _Back
        if command == "quit":
            raise _Quit
        if command == "help":
            terminal.say(help_text)
            continue
        try:
            return read(text)
        except AnswerError as error:
            terminal.say(f"{error}")


def _enter(text: str) -> None:
    if text.strip():
        raise AnswerError({None: "Please press Enter alone, or type b, h or q."})


def _asked_row(task: Task, terminal: Terminal, save: Path | None) -> pd.DataFrame:
    """The person's own row, column by column; kept beside the session as it grows."""
    kept = None if save is None else save.with_name(f"{save.name}.applicant.json")
    entries: dict[str, Any] = {}
    if kept is not None and kept.exists():
        entries = read_object(kept.read_bytes(), kept)
    elif save is not None and save.exists():
        raise LoadError(f"argument --applicant: {save} began with one; pass the same again.")
    asked = {str(column): _feature_of(task, column) for column in task.columns}
    for column, (feature, entry) in asked.items():
        if feature is None:  # everybody's is the same
            entries.setdefault(column, entry)
    columns = [column for column, (feature, _) in asked.items() if feature is not None]
    left = [column for column in columns if column not in entries]
    if left:
        terminal.say(
            f"First the {len(columns)} things that the decision is made from, as they are now. "
            f"{_HELP_WITH_ROW}"
        )
    while left:
        column = left[0]
        feature = asked[column][0]
        assert feature is not None
        try:
            entries[column] = _asked_entry(terminal, column, feature)
        except _Back:
            done = [column for column in columns if column not in left]
            if done:
                left.insert(0, done[-1])
                entries.pop(done[-1])
            else:
                terminal.say("This is the first: there is nothing to go back to.")
            continue
        left.pop(0)
        if kept is not None:
            write(kept, json.dumps(entries, allow_nan=False, indent=1).encode())
    if kept is not None:
        terminal.say(f"Your entries are in {kept}.")
    return row_of(entries, task, "your entries" if kept is None else f"{kept}")


def _asked_entry(terminal: Terminal, column: str, feature: Feature) -> Any:
    """What one column of the person's row is, as JSON has it."""
    terminal.say(expected(feature))
    code = _asked(
        terminal,
        f"{_prompt(feature, column)}: ",
        lambda text: read_entry(text, feature, column),
        _HELP_WITH_ROW,
        feature,
    )
    entry = feature.decode(np.array([code])).iloc[0]
    return entry.item() if isinstance(entry, np.generic) else entry


def _feature_of(task: Task, column: Any) -> tuple[Feature | None, Any]:
    """What a column is; or None and the only entry that there is."""
    values = task.data[column].dropna()
    if column in task.features:
        return task.features[column], None
    if values.nunique() < 2 and not pd.api.types.is_numeric_dtype(values.dtype):
        return None, values.iloc[0] if len(values) else None
    return feature_of(task.data[column], column), None


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
        if not least <= number <= most:
            said = text if len(text) < 40 else f"{text[:37]}..."
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {said!r}")
        return number

    return parse


def _probability(text: str) -> float:
    with contextlib.suppress(ValueError):
        if text.isascii() and 0.001 <= float(text) <= 0.999:
            return float(text)
    said = text if len(text) < 40 else f"{text[:37]}..."
    raise argparse.ArgumentTypeError(f"expected 0.001 to 0.999, got {said!r}")
