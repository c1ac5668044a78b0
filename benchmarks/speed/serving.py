"""The pages under load: seconds from an answer to the next question, of many people at once.

``pcr-jax serve --study`` with one process on SQLite, and with two on a PostgreSQL of its own;
people are simulated in this process, on the same cores, and go through the forms by HTTP. Each
thinks before every form. ``killed``: the server is killed (signal 9) in the middle and started
again; every answer that a page acknowledged has to be there. ``start``: ``serve --demo`` from
nothing, with nothing compiled before.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

from pcr_jax.frontends import demo
from pcr_jax.frontends.store.store import Store
from pcr_jax.frontends.study.actions import read_links
from pcr_jax.frontends.study.simulate import Person, figures, simulate, truth_of

PARTS = ("sqlite", "postgresql", "killed", "start")
OPTIONS = {
    "--people": {"type": int, "default": 100, "help": "at once"},
    "--think": {"type": float, "default": 20.0, "help": "seconds before a form, on average"},
}
_QUESTIONS = 10
_STUDY = """
name = "load"
task = "pcr_jax.frontends.demo:demo_task"
database = "{database}"
consent = "Simulated people only."
[applicants]
synthetic = {people}
[arms.decision]
design = "decision"
max_questions = {questions}
"""


def command(*arguments) -> list[str]:
    """Of ``pcr-jax``."""
    return [sys.executable, "-m", "pcr_jax.cli", *map(str, arguments)]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Server:
    """``pcr-jax serve`` as a process, and what it says."""

    def __init__(self, *arguments, environment=None):
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command("serve", *arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def wait_until_ready(self, processes: int = 1) -> float:
        """Seconds from its start until all its processes have warmed up."""
        while sum("Ready for questions" in line for line in self.said) < processes:
            if self.process.poll() is not None or time.perf_counter() - self.began > 900:
                raise RuntimeError(f"the server did not get ready: {self.said[-5:]}")
            time.sleep(0.1)
        return time.perf_counter() - self.began

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End it and the processes that it started."""
        os.killpg(self.process.pid, sign)
        self.process.wait()


@contextmanager
def study(folder: Path, database: str, people: int, port: int):
    """A study with its links; its store and its people."""
    file = folder / "study.toml"
    file.write_text(_STUDY.format(database=database, people=people, questions=_QUESTIONS))
    subprocess.run(
        command("study", "new", file, "--base-url", f"http://127.0.0.1:{port}"), check=True
    )
    store, task = Store.open(database), demo.demo_task()
    surrogate = task.fit()
    found = []
    for number, link in read_links(folder / "links.csv"):
        participant = store.participant(number)
        x = task.encode(task.rows(participant.applicant))[0]
        truth = truth_of(surrogate, 0, participant.position)
        found.append(Person(number, link, x, truth.scm))
    try:
        yield file, store, found
    finally:
        store.close()


def num_answers(store: Store) -> int:
    """All that are in the database."""
    return sum(
        arm["answers"] for study in store.studies() for arm in store.counts(study.id).values()
    )


def lost(store: Store, outcomes) -> int:
    """How many answers were acknowledged and are not there."""
    missing = 0
    for outcome in outcomes:
        kept = sum(event.kind == "answered" for event in store.events(outcome.participant))
        missing += max(0, outcome.answers - kept)
    return missing


def under_load(database: str, workers: int, options, kill: bool = False) -> dict:
    """Everybody at once."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        url = database or f"sqlite:///{folder}/load.sqlite"
        number = 8 if options.quick else options.people
        with study(folder, url, number, port) as (file, store, people):
            arguments = ("--study", file, "--port", port, "--workers", workers)
            secret = {**os.environ, "PCR_JAX_SECRET": "of this run"}
            server = Server(*arguments, environment=secret)
            ready = server.wait_until_ready(workers)
            began, servers = time.perf_counter(), [server]

            def kill_and_start_again():
                while num_answers(store) < number * _QUESTIONS // 3:
                    time.sleep(0.2)
                servers[-1].stop(signal.SIGKILL)
                servers.append(Server(*arguments, environment=secret))

            if kill:
                threading.Thread(target=kill_and_start_again, daemon=True).start()
            think = 1.0 if options.quick else options.think
            outcomes = simulate(people, demo.demo_task(), concurrency=number, think=think)
            seconds = time.perf_counter() - began
            servers[-1].stop()
            return {
                "database": url.partition(":")[0],
                "processes": workers,
                "killed": kill,
                "think_seconds": think,
                **figures(outcomes),
                "lost": lost(store, outcomes),
                "seconds": seconds,
                "seconds_until_ready": ready,
            }


def start_row() -> dict:
    """`serve --demo` with empty caches: until a page is there, and until a question can be."""
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        port = free_port()
        rows = []
        for cached in (False, True):
            server = Server("--demo", "--port", port, environment=environment)
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/", timeout=60).raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            page = time.perf_counter() - server.began
            rows.append({"compiled_before": cached, "page": page})
            rows[-1]["ready"] = server.wait_until_ready()
            server.stop()
        return rows


def measure(options):
    """SQLite, PostgreSQL, killed, start."""
    if "sqlite" in options.part:
        yield "sqlite", [under_load("", 1, options)]
    if "postgresql" in options.part and shutil.which("psql"):
        from tests.frontends.databases import postgresql

        with postgresql() as new:
            yield "postgresql", [under_load(new("load"), 2, options)]
    if "killed" in options.part:
        yield "killed", [under_load("", 1, options, kill=True)]
    if "start" in options.part:
        yield "start", start_row()
