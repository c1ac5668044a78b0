"""Databases for tests: a file of SQLite, and a PostgreSQL of our own where it is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


def _programs():
    """Where PostgreSQL's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (config := shutil.which("pg_config")):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        found = list(Path(told.stdout.strip()).glob("initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent


def _user():
    """Who runs it: PostgreSQL refuses root."""
    if os.geteuid():
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known.get("nobody")
    if entry is None:
        pytest.skip("PostgreSQL is not run by root, and there is nobody else")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def postgresql():
    """A private cluster on a socket in a folder of its own; the URL of a database by its name."""
    pytest.importorskip("psycopg")
    programs, user = _programs(), _user()
    folder = Path(tempfile.mkdtemp(prefix="pcr-pg-"))
    if user:
        os.chown(folder, user["user"], user["group"])
    data = folder / "data"

    def call(program, *arguments):
        with open(folder / "output", "ab") as output:
            subprocess.run(
                [programs / program, *map(str, arguments)],
                **{"check": True, "cwd": folder, "stdout": output, "stderr": output, **user},
            )

    def url(name):
        return f"postgresql+psycopg://people@/{name}?host={folder}"

    def new(name):
        engine = create_engine(url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return url(name)

    try:
        call("initdb", "-D", data, "-U", "people", "-A", "trust", "-E", "UTF8", "--no-sync")
        call(
            *("pg_ctl", "-D", data, "-w", "-l", folder / "log", "start"),
            *("-o", f"-k {folder} -c listen_addresses="),
        )
        try:
            yield new
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
