"""Connections to a database, and its schema brought up to date."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from pcr_jax import _checks
from pcr_jax._extras import extra

_BUSY = 30.0  # seconds that a write waits for others
_LOCK = 0x706372  # of PostgreSQL, held while the schema changes
_KINDS = ("sqlite", "postgresql")
strict = partial(json.dumps, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def as_url(url: str) -> URL:
    """A database's address.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is none, of another kind of database, or in memory.
    """
    _checks.instance(url, str, "url")
    wanted = 'Expected url of a database such as "sqlite:///study.sqlite" or '
    wanted += '"postgresql+psycopg://user@host/name"; got '
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # which might show a password
        raise ValueError(f"{wanted}something else.") from None
    if found.get_backend_name() not in _KINDS:
        raise ValueError(f"{wanted}one of {found.get_backend_name()!r}.")
    if found.get_backend_name() == "sqlite":
        if found.database in (None, "", ":memory:") or found.query or found.host:
            raise ValueError(f"{wanted}{found.render_as_string()}, which names no file.")
        if "\0" in found.database:  # type: ignore[operator]
            raise ValueError(f"{wanted}a file whose name has a NUL.")
    return found


def engine_of(url: URL) -> Engine:
    """The engine; a file of SQLite is made, for its owner alone, where there is none.

    Raises
    ------
    ModuleNotFoundError
        If the database's driver is not installed.
    OSError
        If the file cannot be made.
    """
    is_file = url.get_backend_name() == "sqlite"
    if is_file:
        path = Path(url.database)  # type: ignore[arg-type]
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY}, "pool_timeout": _BUSY}
    else:
        options = {"pool_pre_ping": True, "pool_timeout": _BUSY}
    with extra("postgresql"):
        engine = create_engine(
            url, json_serializer=strict, pool_size=10, max_overflow=10, **options
        )
    if is_file:
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: Any, _: Any) -> None:
    """What SQLite is to do on every connection; transactions begin as `_begun` says."""
    connection.isolation_level = None
    for setting in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


def _begun(connection: Connection) -> None:
    """A transaction that writes waits for its turn before it reads."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date; of several processes one does it and the others wait.

    Raises
    ------
    ValueError
        If the schema is one that this version does not know.
    """
    if engine.dialect.name == "sqlite":
        _keep_a_log(engine)
    config = Config()
    config.set_main_option("script_location", "pcr_jax.frontends.store:migrations")
    config.set_main_option("path_separator", "os")
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        came = MigrationContext.configure(connection).get_current_heads()
        if unknown := [name for name in came if name not in known]:
            raise ValueError(
                f"Expected a database of schema {max(known)} or an earlier one; got schema "
                f"{', '.join(unknown)}, which a newer version of pcr_jax has made. Use that one."
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def forget(engine: Engine) -> None:
    """Overwrite what was deleted, where SQLite's log has it still."""
    if engine.dialect.name == "sqlite":
        _outside_transactions(engine, "PRAGMA wal_checkpoint(TRUNCATE)")


def _keep_a_log(engine: Engine) -> None:
    """Switch SQLite to write-ahead logging, for whose lock it does not wait by itself."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            return _outside_transactions(engine, "PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in f"{error}" or time.monotonic() > until:
                raise OperationalError("PRAGMA", None, error) from None
        time.sleep(0.05)


def _outside_transactions(engine: Engine, pragma: str) -> None:
    connection = engine.raw_connection()
    try:
        connection.cursor().execute(pragma).close()
    finally:
        connection.close()
