"""``pcr-jax study``: what it does, and how it says what is wrong."""

import csv
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("pyarrow")
pytest.importorskip("httpx")
pytest.importorskip("rich")
from pcr_jax import cli
from pcr_jax.frontends.store.store import Store
from pcr_jax.frontends.study import actions, export
from pcr_jax.frontends.study import simulate as simulation
from pcr_jax.frontends.study.settings import read_settings
from pcr_jax.frontends.study.simulate import Outcome

LOAN = Path(__file__).parents[2] / "examples" / "study" / "loan.py"
STUDY = """
name = "s"
task = "loan.py:task"
consent = "I agree."
seed = 3
block = 4
[applicants]
synthetic = 10
[arms.a]
[arms.b]
design = "random"
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "loan.py").write_text(LOAN.read_text())
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def said(capsys, *argv, code=0):
    """What a command prints, one line on standard error if it fails."""
    status = None
    try:
        status = cli.main(["study", *map(str, argv)])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == code, printed
    assert "Traceback" not in printed.err
    if code and status == 2 and "usage:" not in printed.err:
        assert len(printed.err.strip().splitlines()) == 1
    return printed.out + printed.err


def links_of(study):
    with open(study.parent / "links.csv", newline="") as file:
        return list(csv.DictReader(file))


def store_of(study):
    return Store.open(f"sqlite:///{study.with_suffix('.sqlite')}")


def test_a_study_begins_with_a_link_for_each(study, capsys):
    out = said(capsys, "new", study, "--base-url", "https://x.org/loan/")
    assert "10 people enrolled, 10 in all" in out.replace("\n", " ")
    path = study.parent / "links.csv"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = links_of(study)
    store = store_of(study)
    people = store.participants(store.study("s").id)
    assert [int(row["participant"]) for row in rows] == [person.id for person in people]
    for row, person in zip(rows, people, strict=True):
        token = re.fullmatch(r"https://x\.org/loan/join/([\w-]{43})", row["link"])[1]
        assert store.by_token(token) == person
        assert token not in out
    arms = [person.arm for person in people]
    assert [arms[i : i + 4].count("a") for i in (0, 4)] == [2, 2]
    assert len({json.dumps(person.applicant) for person in people}) == 10
    assert len({tuple(person.key) for person in people}) == 10
    store.close()


def test_more_people_can_be_enrolled(study, capsys):
    said(capsys, "new", study, "--participants", 3)
    before = links_of(study)
    said(capsys, "new", study, "--participants", 7)
    after = links_of(study)
    assert after[:3] == before
    assert len(after) == 7
    out = said(capsys, "new", study, "--participants", 5)
    assert "0 people enrolled, 7 in all" in out.replace("\n", " ")
    assert links_of(study) == after
    store = store_of(study)
    arms = [person.arm for person in store.participants(1)]
    assert arms[:4].count("a") == 2
    store.close()


def test_applicants_of_a_file_come_in_its_order(study, capsys):
    refused = [{"income": 2000 + 10 * i, "savings": 1000.5, "loan": 9000} for i in range(3)]
    table = pd.DataFrame(refused)
    (folder := study.parent).joinpath("people.json").write_text(table.to_json(orient="records"))
    table.to_csv(folder / "people.csv", index=False)
    table.to_parquet(folder / "people.parquet")
    for kind in ("csv", "json", "parquet"):
        text = STUDY.replace("synthetic = 10", f'file = "people.{kind}"').replace(
            'name = "s"', f'name = "{kind}"'
        )
        study.write_text(text)
        said(capsys, "new", study, "--links", folder / f"{kind}.csv")
        store = store_of(study)
        people = store.participants(store.study(kind).id)
        assert [person.applicant for person in people] == refused
        store.close()
    error = said(capsys, "new", study, "--participants", 4, code=2)
    assert "at most as many participants as people.parquet has applicants, 3; got 4" in error


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("income,savings\n1,2\n", "missing"),
        ("income,savings,loan\nmuch,2,3\n", "income"),
        ("income,savings,loan\n2000,2,9000\n9000,20000,1000\n", "row 2 is not"),
        ("income,savings,loan\n", "at least one row"),
        ("", "people.csv"),
    ],
)
def test_a_file_of_others_is_refused(study, capsys, rows, wrong):
    (study.parent / "people.csv").write_text(rows)
    study.write_text(STUDY.replace("synthetic = 10", 'file = "people.csv"'))
    assert wrong in said(capsys, "new", study, code=2)
    assert not (study.parent / "links.csv").exists()


def test_a_study_that_has_begun_does_not_change(study, capsys):
    said(capsys, "new", study, "--participants", 2)
    study.write_text(STUDY.replace("block = 4", "block = 2"))
    for command in (["status"], ["new"], ["export", "--out", study.parent / "out"]):
        error = said(capsys, command[0], study, *command[1:], code=2)
        assert "Expected block as the study began with, 4; got 2" in error
    study.write_text(STUDY + "\nlevel = 0.5\n")
    assert "arms.b.level as the study began with, 0.9; got 0.5" in said(
        capsys, "status", study, code=2
    )
    study.write_text(STUDY.replace('name = "s"', 'name = "other"'))
    assert "study 'other' in its database; it is not there" in said(capsys, "status", study, code=2)


def test_a_study_goes_on_that_began_before_a_setting_there_is(study, capsys):
    kept = read_settings(study).as_json()
    for arm in kept["arms"].values():
        assert arm.pop("report") == "all"
    store = store_of(study)
    store.new_study("s", kept)
    store.close()
    said(capsys, "status", study)
    study.write_text(STUDY + '\nreport = "one"\n')
    error = said(capsys, "status", study, code=2)
    assert "arms.b.report as the study began with, 'all'; got 'one'" in error


def test_counts_by_arm(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said(capsys, "new", study)
    store = store_of(study)
    for person in store.participants(1)[:3]:
        store.append(person.id, 0, "consented", {})
    store.close()
    lines = said(capsys, "status", study).splitlines()
    numbers = [[int(n) for n in re.findall(r"\b\d+\b", line)] for line in lines]
    numbers = [row for row in numbers if len(row) == 5]
    assert len(numbers) == 3
    assert [sum(column) for column in zip(*numbers[:2], strict=True)] == numbers[2]
    assert numbers[2] == [10, 3, 0, 0, 0]


def test_a_participant_is_deleted(study, capsys):
    said(capsys, "new", study, "--participants", 2)
    assert "participant 1 is deleted" in said(capsys, "delete", study, 1)
    assert "got 1, who is not there" in said(capsys, "delete", study, 1, code=1)
    assert "got 99, who is not there" in said(capsys, "delete", study, 99, code=1)
    study.write_text(STUDY.replace('name = "s"', 'name = "other"'))
    said(capsys, "new", study, "--participants", 1, "--links", study.parent / "other.csv")
    assert "PARTICIPANT of study other; got 2" in said(capsys, "delete", study, 2, code=1)


def test_an_export_and_a_replay_of_nobody(study, capsys, monkeypatch):
    monkeypatch.setattr(export, "_posteriors", lambda *_: {})
    said(capsys, "new", study, "--participants", 2)
    out = study.parent / "out"
    assert "participants.parquet" in said(capsys, "export", study, "--out", out)
    assert len(pd.read_parquet(out / "participants.parquet")) == 2
    error = said(capsys, "export", study, "--out", out, code=2)
    assert "--out to be a new folder" in error
    assert "0 people's plans follow" in said(capsys, "replay", study)


def test_a_replay_that_differs_is_a_failure(study, capsys, monkeypatch):
    said(capsys, "new", study, "--participants", 3)
    found = {1: True, 2: False, 3: None}
    monkeypatch.setattr(actions, "replay", lambda store, person, *_: found[person.id])
    out = said(capsys, "replay", study, code=1)
    assert "1 people's plans follow" in out
    assert re.search(r"1 people's do not.*: 2\.", out.replace("\n", " "))


def test_simulated_people_have_the_links_and_a_truth(study, capsys, monkeypatch):
    said(capsys, "new", study, "--participants", 3)
    called = {}

    def simulate(people, task, on_end, **settings):
        called.update(settings, people=people)
        done = [Outcome(p.participant, True, 2, [("question", 0.1), ("plan", 1.0)]) for p in people]
        for outcome in done:
            on_end(outcome)
        return done

    monkeypatch.setattr(simulation, "simulate", simulate)
    argv = ["--concurrency", 2, "--think", 0.5, "--seed", 4, "--participants", 2]
    out = said(capsys, "simulate", study, *argv).replace("\n", " ")
    assert "2 of 2 simulated people finished, with 4 answers and 0 errors" in out
    assert "From answer to question: median 0.10 s" in out
    assert (called["concurrency"], called["think"], called["seed"]) == (2, 0.5, 4)
    rows = links_of(study)[:2]
    assert [person.link for person in called["people"]] == [row["link"] for row in rows]
    truth = pd.read_csv(study.parent / "truth.csv")
    assert truth.participant.tolist() == [1, 2]
    assert truth.shape[1] == 3
    called.clear()
    monkeypatch.setattr(
        simulation,
        "figures",
        lambda _: {
            **dict.fromkeys(("finished", "answers", "errors"), 0),
            "people": 2,
            "question_median": None,
            "plan_median": None,
        },
    )
    assert "0 of 2" in said(capsys, "simulate", study, *argv, code=1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["new"], "study.toml"),
        (["status", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["new", "STUDY", "--participants", "0"], "expected an integer"),
        (["new", "STUDY", "--participants", "\u0663"], "expected an integer"),
        (["new", "STUDY", "--base-url", "ftp://x"], "expected an address"),
        (["new", "STUDY", "--base-url", "javascript:alert(1)"], "expected an address"),
        (["export", "STUDY"], "--out"),
        (["delete", "STUDY", "x"], "expected an integer"),
        (["simulate", "STUDY", "--think", "-1"], "expected seconds"),
        (["simulate", "STUDY", "--think", "nan"], "expected seconds"),
        (["frobnicate", "STUDY"], "frobnicate"),
        ([], "action"),
    ],
)
def test_a_mistake_is_said_and_exits_with_2(study, capsys, argv, message):
    argv = [study if word == "STUDY" else word for word in argv]
    assert message in said(capsys, *argv, code=2)


def test_links_that_are_none(study, capsys):
    said(capsys, "new", study, "--participants", 1)
    (study.parent / "links.csv").write_text("a,b\n1,2\n")
    assert "to have the columns participant, link" in said(capsys, "simulate", study, code=2)
    (study.parent / "links.csv").unlink()
    assert "links.csv cannot be read" in said(capsys, "simulate", study, code=2)


def test_a_link_in_the_place_of_the_links_is_not_followed(study, capsys):
    (study.parent / "mine").write_text("precious")
    (study.parent / "links.csv").symlink_to(study.parent / "mine")
    assert "links.csv" in said(capsys, "new", study, code=1)
    assert (study.parent / "mine").read_text() == "precious"


def test_a_task_that_cannot_be_had_and_a_database_that_is_not_there(study, capsys):
    study.write_text(STUDY.replace("loan.py:task", "loan.py:nothing"))
    assert "nothing" in said(capsys, "new", study, code=2)
    study.write_text(STUDY.replace("seed = 3", 'database = "sqlite:////nowhere/x.sqlite"'))
    assert "/nowhere/x.sqlite" in said(capsys, "status", study, code=1)
    study.write_text(STUDY.replace("seed = 3", 'database = "mysql://u:secret@h/x"'))
    error = said(capsys, "status", study, code=2)
    assert "Expected url of a database" in error
    assert "secret" not in error


def test_an_interruption_is_one_line(study, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, "read_settings", interrupt)
    assert "stopped" in said(capsys, "status", study, code=130)


WITHOUT = """
import sys
for name in ("sqlalchemy", "alembic", "httpx", "pyarrow"):
    sys.modules[name] = None
from pcr_jax import cli
cli.main(["study", "status", "study.toml"])
"""


def test_without_the_extra_it_says_how_to_install_it():
    found = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert found.returncode == 2
    assert "pip install 'pcr-jax[study]'" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_tokens_are_not_in_the_database(study, capsys):
    said(capsys, "new", study, "--participants", 2)
    token = links_of(study)[0]["link"].rpartition("/")[2]
    held = b"".join(path.read_bytes() for path in study.parent.glob("study.sqlite*"))
    assert token.encode() not in held
    assert hashlib.sha256(token.encode()).hexdigest().encode() in held
    assert os.path.basename(study) == "study.toml"
