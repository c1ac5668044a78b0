"""The database: nothing acknowledged is lost, nothing is written twice, nothing changes a value."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError, OperationalError

from pcr_jax.frontends.store.schema import as_url
from pcr_jax.frontends.store.store import Conflict, Store
from pcr_jax.frontends.store.tables import Base
from tests.frontends.databases import postgresql

WRITER = Path(__file__).with_name("writer.py")
NUMBER = count()
HOSTILE = [
    "'; DROP TABLE participants; --",
    '" OR 1=1 --',
    "%s %(x)s :x ? $1 \\ \\\\ '' ",
    "Robert'); DELETE FROM events WHERE ('1'='1",
    "naïve Ångström 漢字 🧪 \u202e עברית",
    "=1+1",
    "{{ 7*7 }} <script>alert(1)</script>",
    "line\nbreak\ttab\r",
]


@pytest.fixture(scope="module")
def postgres():
    with postgresql() as new:
        yield new


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.sqlite"
    return request.getfixturevalue("postgres")(f"empty{next(NUMBER)}")


@pytest.fixture
def store(url):
    store = Store.open(url)
    yield store
    store.close()


def enrolled(store, study=None, position=0, arm="a", **settings):
    study = store.new_study("loan", {}) if study is None else study
    plain = {"applicant": {"income": 2400}, "key": [1, 2], "versions": {"jax": "0.10"}}
    return store.enrol(study.id, arm, position=position, **{**plain, **settings})


def test_what_is_put_in_comes_out(store):
    settings = {"arms": {"a": {"level": 0.9, "attention": [2]}}, "seed": 3, "none": None}
    study = store.new_study("loan", settings)
    assert store.study("loan") == study == store.studies()[0]
    assert study.settings == settings
    assert store.study("other") is None
    person, token = enrolled(store, study)
    assert len(token) == 43
    assert store.by_token(token) == store.participant(person.id) == person
    assert store.participants(study.id) == [person]
    assert person.applicant == {"income": 2400}
    first = store.append(person.id, 0, "consented", {})
    second = store.append(person.id, 1, "viewed", {"page": "plan"}, at=12.5)
    assert store.events(person.id) == [first, second]
    assert store.events(person.id, after=0) == [second]
    assert second.at == 12.5
    assert abs(first.at - time.time()) < 60


def test_tokens_are_long_different_and_not_kept(store, url):
    study = store.new_study("loan", {})
    tokens = [enrolled(store, study, i)[1] for i in range(20)]
    assert len(set(tokens)) == 20
    engine = create_engine(url)
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT token FROM participants")).scalars().all()
    engine.dispose()
    assert not set(kept) & set(tokens)
    assert {len(digest) for digest in kept} == {64}
    for foreign in ("", "x" * 43, tokens[0][:-1], tokens[0] + "A", "\0", "\ud800", None, kept[0]):
        assert store.by_token(foreign) is None


def test_counts_by_arm(store):
    study = store.new_study("loan", {})
    done, started, idle, other = (enrolled(store, study, i, "ab"[i == 3])[0].id for i in range(4))
    told = ["consented", "asked", "answered", "asked", "answered", "back", "answered", "planned"]
    for seq, kind in enumerate([*told, "feedback", "feedback"]):
        store.append(done, seq, kind, {})
    store.append(started, 0, "consented", {})
    store.append(other, 0, "consented", {})
    store.append(other, 1, "withdrawn", {})
    zero = {"enrolled": 1, "consented": 1, "answers": 0, "finished": 0, "withdrawn": 1}
    found = {"enrolled": 3, "consented": 2, "answers": 2, "finished": 1, "withdrawn": 0}
    assert store.counts(study.id) == {"a": found, "b": zero}
    store.delete(done)
    store.delete(other)
    assert store.counts(study.id) == {"a": {**found, "withdrawn": 1}, "b": zero}
    assert [person.id for person in store.participants(study.id)] == [started, idle]
    assert store.num_positions(study.id) == 4
    assert store.counts(study.id + 1) == {}


def test_of_a_deleted_participant_nothing_is_left(store, url, tmp_path):
    person, token = enrolled(store, applicant={"name": "Zephyrine Quibble"}, key=[77123, 4])
    store.append(person.id, 0, "answered", {"typed": {"income": "four thousand and eleven"}})
    assert store.export_of(person.id)["events"][0]["payload"]["typed"]
    store.delete(person.id)
    assert store.by_token(token) is None
    assert store.participant(person.id) is None
    assert store.events(person.id) == []
    for call in (store.export_of, store.delete, lambda i: store.append(i, 0, "viewed", {})):
        with pytest.raises(LookupError, match="not there"):
            call(person.id)
    with pytest.raises(Conflict):  # nobody gets the position
        enrolled(store, store.study("loan"), 0)
    if url.startswith("sqlite"):
        files = list(tmp_path.iterdir())
        assert files
        for words in (b"Zephyrine", b"four thousand", b"77123"):
            assert not [path for path in files if words in path.read_bytes()]


def test_a_persons_own_data(store):
    person, token = enrolled(store, applicant={"income": 1, "town": "Kiel"})
    other, _ = enrolled(store, store.study("loan"), 1, applicant={"income": 99_999})
    store.append(person.id, 0, "consented", {})
    store.append(other.id, 0, "feedback", {"text": "somebody else's"})
    own = store.export_of(person.id)
    assert own["applicant"] == {"income": 1, "town": "Kiel"}
    assert [event["kind"] for event in own["events"]] == ["consented"]
    written = json.dumps(own, allow_nan=False)
    assert "99999" not in written
    assert "somebody" not in written
    assert token not in written


def test_a_number_that_is_taken_or_skipped(store):
    person, _ = enrolled(store)
    store.append(person.id, 0, "consented", {})
    with pytest.raises(Conflict):
        store.append(person.id, 0, "profile", {})
    with pytest.raises(ValueError, match="next event, 1; got 2"):
        store.append(person.id, 2, "profile", {})
    assert [event.kind for event in store.events(person.id)] == ["consented"]
    with pytest.raises(LookupError):
        store.append(person.id + 1, 0, "consented", {})
    with pytest.raises(Conflict, match="'loan'"):
        store.new_study("loan", {})
    with pytest.raises(LookupError):
        store.enrol(99, "a", {}, [1], 0, {})
    with pytest.raises(Conflict):
        enrolled(store, store.study("loan"), 0)


def test_the_database_itself_refuses_a_second_event_of_a_number(store, url):
    person, _ = enrolled(store)
    store.append(person.id, 0, "consented", {})
    engine = create_engine(url)
    again = text("INSERT INTO events VALUES (:p, 0, 0.0, 'consented', '{}')")
    with pytest.raises(IntegrityError, match=r"(?i)unique"), engine.begin() as connection:
        connection.execute(again, {"p": person.id})
    engine.dispose()


def test_of_threads_with_the_same_number_one_wins(store):
    person, _ = enrolled(store)
    won, lost, errors = [], [], []
    barrier = threading.Barrier(8)

    def work(name):
        for seq in range(15):
            barrier.wait()
            try:
                store.append(person.id, seq, "answered", {"by": name})
                won.append((seq, name))
            except Conflict:
                lost.append(seq)
            except Exception as error:
                errors.append(error)
            barrier.wait()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [seq for seq, _ in won] == list(range(15))
    assert len(lost) == 15 * 7
    assert [(event.seq, event.payload["by"]) for event in store.events(person.id)] == won


def started(url, *arguments):
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, str(WRITER), url, *map(str, arguments)],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": inherited},
    )


def test_processes_that_start_at_once_and_are_killed_lose_nothing(url):
    """Two open an empty database together, write as one person, and then as two."""
    writers = [started(url, 1, own) for own in (2, 3)]
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        store = Store.open(url)
        study = store.new_study("loan", {})
        people = [enrolled(store, study, i)[0].id for i in range(3)]
        assert people == [1, 2, 3]
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        until = time.monotonic() + 60
        while min(len(store.events(person)) for person in people[1:]) < 10:
            assert time.monotonic() < until
            time.sleep(0.02)
        for writer in writers:
            writer.kill()  # -9
        said = [writer.communicate()[0].split() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    store.close()
    again = Store.open(url)
    assert sorted(lines[0] for lines in said) == ["first", "second"]
    (event,) = again.events(1)
    assert said[event.payload["by"] - 2][0] == "first"
    for person, lines in zip((2, 3), said, strict=True):
        acknowledged = [int(line) for line in lines[1:]]
        seqs = [event.seq for event in again.events(person)]
        assert len(acknowledged) >= 9
        assert seqs == list(range(len(seqs)))
        assert acknowledged == seqs[: len(acknowledged)]
        assert len(seqs) <= len(acknowledged) + 1
        again.append(person, len(seqs), "viewed", {})  # it goes on where it stopped
    again.close()


def test_from_empty_the_schema_is_that_of_the_tables(store, url):
    engine = create_engine(url)
    found = inspect(engine)
    assert set(found.get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    for name, table in Base.metadata.tables.items():
        made = {column["name"]: column["nullable"] for column in found.get_columns(name)}
        assert made == {column.name: column.nullable for column in table.columns}
        unique = {tuple(of["column_names"]) for of in found.get_unique_constraints(name)}
        wanted = [of for of in table.constraints if type(of).__name__ == "UniqueConstraint"]
        assert unique == {tuple(column.name for column in of.columns) for of in wanted}
        assert len(found.get_foreign_keys(name)) == len(table.foreign_keys)
        assert len(found.get_indexes(name)) >= len(table.indexes)
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_an_open_database_is_opened_again_as_it_is(store, url):
    person, _ = enrolled(store)
    again = Store.open(url)
    assert again.participant(person.id) == person
    again.close()


def test_a_newer_schema_is_refused_and_left_as_it_is(store, url):
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match="schema 9999, which a newer version of pcr_jax has made"):
        Store.open(url)
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    engine.dispose()
    assert kept == "9999"


def test_sqlite_keeps_what_it_says_it_has(tmp_path):
    path = tmp_path / "study.sqlite"
    before = os.umask(0)
    try:
        store = Store.open(f"sqlite:///{path}")
    finally:
        os.umask(before)
    with store._engine.connect() as connection:
        for name, value in {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 30_000,
            "secure_delete": 1,
        }.items():
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value, name
    enrolled(store)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro", "mysql://x/y", "nonsense", ""),
        "sqlite:///a\0b",
        "postgresql+psycopg://me:secret@host:notaport/x",
    ],
)
def test_other_databases_are_refused(url):
    with pytest.raises(ValueError, match="Expected url of a database such as") as error:
        Store.open(url)
    assert "secret" not in str(error.value)
    with pytest.raises(TypeError, match="url"):
        as_url(None)


def test_a_database_that_is_not_there_or_none_is_one_sentence(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(OSError, match="Expected a database at postgresql") as error:
        Store.open("postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(error.value)
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(OSError, match="not a database"):
        Store.open(f"sqlite:///{tmp_path}/text")
    with pytest.raises(OSError, match="below"):
        Store.open(f"sqlite:///{tmp_path}/text/below")
    with pytest.raises(OSError, match="nowhere"):
        Store.open(f"sqlite:///{tmp_path}/nowhere/study.sqlite")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_in_every_field_comes_back_as_it_was(store, hostile):
    study = store.new_study(hostile, {hostile: [hostile]})
    assert store.study(hostile).settings == {hostile: [hostile]}
    person, token = enrolled(
        store, study, 0, hostile, applicant={hostile: hostile}, versions={hostile: hostile}
    )
    store.append(person.id, 0, hostile, {hostile: {"typed": hostile, "NUL": "\0" + hostile}})
    assert store.by_token(token) == person
    assert store.by_token(hostile) is None
    assert person.applicant == person.versions == {hostile: hostile}
    (event,) = store.events(person.id)
    assert event.kind == hostile
    assert event.payload == {hostile: {"typed": hostile, "NUL": "\0" + hostile}}
    assert list(store.counts(study.id)) == [hostile]
    store.note_login(False, hostile)
    assert store.recent_failures(60) == 1


@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 201, "\ud800"])
def test_names_that_no_database_holds_are_refused(store, bad):
    study = store.new_study("loan", {})
    person, _ = enrolled(store, study)
    for call in (
        lambda: store.new_study(bad, {}),
        lambda: enrolled(store, study, 1, bad),
        lambda: store.append(person.id, 0, bad, {}),
        lambda: store.note_login(True, bad),
    ):
        with pytest.raises(ValueError, match="1 to 200 characters"):
            call()
    assert store.study(bad) is None
    assert store.events(person.id) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"x": float("nan")},
        {"x": [float("inf")]},
        {"x": {1: 2}},
        {"x": {None: 2}},
        {"x": object()},
        {"x": "\ud800"},
        {"\udfff": 1},
        {"x": "y" * 1_000_001},
        {"x": b"bytes"},
    ],
)
def test_what_strict_json_does_not_hold_is_refused(store, bad):
    person, _ = enrolled(store)
    with pytest.raises(ValueError, match="payload"):
        store.append(person.id, 0, "viewed", bad)
    with pytest.raises(ValueError, match="applicant"):
        enrolled(store, store.study("loan"), 1, applicant=bad)
    with pytest.raises(ValueError, match="settings"):
        store.new_study("new", bad)
    loop = {}
    loop["x"] = loop
    with pytest.raises(ValueError, match="payload"):
        store.append(person.id, 0, "viewed", loop)
    with pytest.raises(TypeError, match="payload"):
        store.append(person.id, 0, "viewed", [1])
    assert store.events(person.id) == []
    assert store.num_positions(1) == 1


@pytest.mark.parametrize("bad", [-1, 2**31, 10**400, 1.0, True, "0", None])
def test_numbers_that_no_database_holds_are_refused(store, bad):
    person, _ = enrolled(store)
    for call in (
        lambda: store.append(bad, 0, "viewed", {}),
        lambda: store.append(person.id, bad, "viewed", {}),
        lambda: enrolled(store, store.study("loan"), bad),
        lambda: store.delete(bad),
    ):
        with pytest.raises(ValueError, match="integer from 0"):
            call()
    if bad is not True:
        assert store.participant(bad) is None
        assert store.participants(bad) == []
        assert store.events(bad) == []
        assert store.counts(bad) == {}
    with pytest.raises(ValueError, match="finite"):
        store.append(person.id, 0, "viewed", {}, at=float("nan"))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def kept(request, tmp_path_factory):
    """A store, a participant, and the number of the next event."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('kept')}/study.sqlite"
    else:
        url = request.getfixturevalue("postgres")("kept")
    store = Store.open(url)
    yield store, enrolled(store)[0].id, count()
    store.close()


@given(value=VALUES)
def test_every_value_comes_back_as_it_was(kept, value):
    store, person, number = kept
    seq = next(number)
    payload = {"value": value}
    assert repr(store.append(person, seq, "viewed", payload).payload) == repr(payload)
    assert repr(store.events(person, after=seq - 1)[0].payload) == repr(payload)


def test_logins_that_failed_are_counted_while_they_are_recent(store):
    for ok in (False, True, False):
        store.note_login(ok, "127.0.0.1")
    assert store.recent_failures(900) == 2
    assert store.recent_failures(0) == 0


def test_a_full_disk_is_an_error_and_not_an_acknowledgement(tmp_path):
    """By SQLite's own limit of pages."""
    store = Store.open(f"sqlite:///{tmp_path}/study.sqlite")
    person, _ = enrolled(store)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    acknowledged = []

    def fill():
        for seq in range(100):
            store.append(person.id, seq, "viewed", {"page": "x" * 2000})
            acknowledged.append(seq)

    with pytest.raises(OperationalError, match="full"):
        fill()
    assert [event.seq for event in store.events(person.id)] == acknowledged
    store.close()


def test_a_file_of_sqlite_is_sound_after_all_that(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path}/study.sqlite")
    person, _ = enrolled(store)
    store.append(person.id, 0, "consented", {})
    store.delete(person.id)
    store.close()
    connection = sqlite3.connect(tmp_path / "study.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
