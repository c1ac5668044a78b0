"""``pcr-jax serve``: the pages, on this machine."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcr_jax._extras import extra
from pcr_jax._stop import stop
from pcr_jax.frontends.loading import LoadError, load_task

if TYPE_CHECKING:
    import pandas as pd
    from fastapi import FastAPI

    from pcr_jax.frontends.engine import Engine
    from pcr_jax.frontends.store.store import Store
    from pcr_jax.frontends.study.settings import StudySettings
    from pcr_jax.task import Task

_ARGUMENTS = "PCR_JAX_SERVE"
"""In the environment: what workers are to serve, in JSON."""
_MAX_WORKERS = 64
_TITLE = "What could you change?"
_CONSENT = (
    "A program decides about people, and refused one of them. You find out what this person could "
    "do so that the decision becomes favourable.\n\n"
    "Imagine that you are the person whom the next page describes. You are asked a few questions "
    "about what would follow if you changed something: there are no right answers, what counts is "
    "what you expect. Then you see what was understood, can try things out, and get advice, with "
    "the chance that it is enough."
)
_DEMO = (
    "A bank's program refused somebody a loan. You find out what this person could do to get it. "
    "The applicants are made up.\n\n"
    "Imagine that you are the applicant whom the next page describes. You are asked a few "
    "questions about what would follow if you changed something: there are no right answers, what "
    "counts is what you expect. Then you see what was understood, can try things out, and get "
    "advice, with the chance that it is enough."
)


def add_parser(commands: Any) -> None:
    """Add ``serve`` to the commands."""
    serve = commands.add_parser(
        "serve",
        help="pages that ask people, and advise them",
        description="Serve the pages of a task to people with a browser. The environment's "
        "PCR_JAX_SECRET signs cookies (random without), and PCR_JAX_RESEARCHER_PASSWORD opens "
        "/researcher.",
    )
    what = serve.add_mutually_exclusive_group(required=True)
    what.add_argument("task", nargs="?", metavar="MODULE:TASK", help="a pcr_jax.Task")
    what.add_argument("--demo", action="store_true", help="a loan, to try things with")
    what.add_argument("--study", type=Path, metavar="study.toml", help="see pcr-jax study")
    serve.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine")
    serve.add_argument("--port", type=_number(65_535), default=8000, help="default: %(default)s")
    serve.add_argument(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME (default: the study's; without "
        "a study one that is deleted at the end)",
    )
    serve.add_argument(
        "--workers",
        type=_number(_MAX_WORKERS),
        default=1,
        metavar="N",
        help="processes (default: %(default)s)",
    )


def _number(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"expected 1 to {most}, got {text[:40]!r}")
        return number

    return parse


def run(args: argparse.Namespace) -> int:
    """Serve until stopped. Exits with 2 for a mistake, 1 for a failure, 130 if interrupted."""
    try:
        with extra("serve"):
            import uvicorn
            from rich.console import Console
            from uvicorn.supervisors import Multiprocess

            from pcr_jax.frontends.web.app import SECRET
    except ModuleNotFoundError as error:
        stop(2, f"error: {error}")
    console = Console(highlight=False)
    with ExitStack() as at_end:
        listener = at_end.enter_context(_listening(args.host, args.port))
        database = args.database
        if database is None and args.study is None:
            folder = at_end.enter_context(tempfile.TemporaryDirectory(prefix="pcr-jax-"))
            database = f"sqlite:///{folder}/serve.sqlite"
        arguments = {
            "task": args.task,
            "study": None if args.study is None else f"{args.study}",
            "database": database,
        }
        os.environ[_ARGUMENTS] = json.dumps(arguments)
        os.environ.setdefault(SECRET, secrets.token_urlsafe(32))
        settings: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "ws": "none",
            "timeout_keep_alive": 75,  # people think for longer than the default
        }
        shown = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        try:
            if args.workers == 1:
                app = worker()
                console.print(f"Open {address} in a browser. Ctrl-C stops.", markup=False)
                uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listener])
            else:
                config = uvicorn.Config(
                    f"{__name__}:worker",
                    factory=True,
                    workers=args.workers,
                    timeout_worker_healthcheck=120,  # a process that compiles answers late
                    **settings,
                )
                said = f"Open {address} in a browser. {args.workers} processes serve it."
                console.print(f"{said} Ctrl-C stops.", markup=False)
                Multiprocess(config, [listener]).run()
        except (LoadError, ModuleNotFoundError, ValueError, LookupError) as error:
            stop(2, f"error: {error}")
        except OSError as error:
            stop(1, f"error: {error}")
        except KeyboardInterrupt:
            stop(130, "stopped")
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything takes time."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = error.strerror or error
        stop(2, f"error: cannot listen at {host}, port {port}: {why}; see --host and --port")


@dataclass(frozen=True)
class _Served:
    """A study that is open, and who can be enrolled by coming by."""

    task: Task
    store: Store
    settings: StudySettings
    study: Any
    rows: pd.DataFrame | None

    def enrol(self) -> str:
        """Somebody new; the token."""
        from pcr_jax.frontends.store.store import Conflict
        from pcr_jax.frontends.study.people import enrol

        assert self.rows is not None
        while True:
            position = self.store.num_positions(self.study.id)
            try:
                return enrol(self.store, self.study.id, self.settings, self.rows, position)[1]
            except Conflict:
                continue


def worker() -> FastAPI:
    """The application of one process, ready to answer."""
    from pcr_jax.frontends.engine import Engine
    from pcr_jax.frontends.web.app import Settings, create_app

    served = _served(**json.loads(os.environ[_ARGUMENTS]))
    engine = Engine(served.store, served.task, served.settings.arms)
    threading.Thread(target=_warm_up, args=(engine,), daemon=True).start()
    settings = Settings(
        study=served.study.id,
        title=served.settings.title,
        consent=tuple(part.strip() for part in served.settings.consent.split("\n\n")),
        enrol=None if served.rows is None else served.enrol,
    )
    return create_app(served.store, engine, settings)


def _warm_up(engine: Engine) -> None:
    """Get ready while people read the first pages, and say how far that is."""
    began = time.monotonic()

    def report(said: str) -> None:
        if not engine.ready.is_set():
            print(f"Getting ready: {said}", file=sys.stderr, flush=True)

    def say_when_ready() -> None:
        engine.ready.wait()
        seconds = time.monotonic() - began
        print(f"Ready for questions, after {seconds:.0f} s.", file=sys.stderr, flush=True)

    threading.Thread(target=say_when_ready, daemon=True).start()
    try:
        engine.warm_up(report)
    except Exception as error:  # what asks next will say more
        print(f"Getting ready failed: {error}", file=sys.stderr, flush=True)
        engine.ready.set()


def _served(task: str | None, study: str | None, database: str | None) -> _Served:
    """What the arguments name, opened."""
    from pcr_jax.frontends.store.store import Store
    from pcr_jax.frontends.study.settings import read_settings

    settings = None if study is None else read_settings(study)
    if database is None:
        assert settings is not None
        database = settings.database
    store = Store.open(database)
    try:
        return _of_store(store, task, settings)
    except BaseException:
        store.close()
        raise


def _of_store(store: Store, task: str | None, settings: StudySettings | None) -> _Served:
    """A study of these settings, or whoever comes by."""
    from pcr_jax.frontends.study.actions import begun
    from pcr_jax.frontends.study.people import applicants

    if settings is not None:
        return _Served(load_task(settings.task), store, settings, begun(store, settings), None)
    settings = _of_task(task, store)
    if task is None:
        from pcr_jax.frontends.demo import demo_task, refused

        return _Served(demo_task(), store, settings, _study(store, settings), refused())
    found = load_task(task)
    return _Served(found, store, settings, _study(store, settings), applicants(settings, found))


def _of_task(task: str | None, store: Store) -> StudySettings:
    """Settings of a task that is served without a study, as they began."""
    from pcr_jax.frontends.study.settings import StudySettings
    from pcr_jax.frontends.terms import Terms

    name = "demo" if task is None else "serve"
    began = store.study(name)
    seed = secrets.randbelow(2**31) if began is None else began.settings["seed"]
    return StudySettings(
        name=name,
        title=_TITLE,
        task=task or "pcr_jax.frontends.demo:demo_task",
        database="",
        arms={"all": Terms()},
        block=1,
        synthetic=1,
        file=None,
        consent=_DEMO if task is None else _CONSENT,
        seed=seed,
    )


def _study(store: Store, settings: StudySettings) -> Any:
    """The study of these settings, which begins if it has not."""
    from pcr_jax.frontends.store.store import Conflict
    from pcr_jax.frontends.study.actions import begun

    if store.study(settings.name) is None:
        with suppress(Conflict):  # another process was quicker
            store.new_study(settings.name, settings.as_json())
    return begun(store, settings)
