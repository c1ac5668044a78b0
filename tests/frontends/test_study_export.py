"""What a study's export says, and that the events alone lead to it."""

import json
import runpy
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("pyarrow")
pytest.importorskip("httpx")
import pcr_jax as pcr
from pcr_jax.frontends.loading import load_task
from pcr_jax.frontends.store.store import Store
from pcr_jax.frontends.study import export as module
from pcr_jax.frontends.study.export import TABLES, export, plain_cell, replay, tables
from pcr_jax.frontends.study.people import (
    applicants,
    conversation_of,
    enrol,
    fit_surrogates,
    terms_of,
)
from pcr_jax.frontends.study.settings import read_settings
from pcr_jax.frontends.study.simulate import truth_of

LOAN = Path(__file__).parents[2] / "examples" / "study" / "loan.py"
STUDY = f"""
name = "s"
task = "{LOAN}:task"
consent = "I agree."
block = 2
[applicants]
synthetic = 4
[arms.one]
design = "random"
max_questions = 1
plans = 1
[arms.two]
design = "random"
max_questions = 2
plans = 1
attention = [1]
retest = [0]
"""
HOSTILE = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "-2+3",
    "\t=1",
    "../../etc/passwd",
    "a\0b",
    'é\n,"',
)


@pytest.fixture(scope="module")
def task():
    return load_task(f"{LOAN}:task")


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    return read_settings(tmp_path / "study.toml")


def opened(folder, settings, number, task):
    store = Store.open(f"sqlite:///{folder}/study.sqlite")
    study = store.new_study(settings.name, settings.as_json())
    rows = applicants(settings, task)
    people = [enrol(store, study.id, settings, rows, position)[0] for position in range(number)]
    return store, study, people


def asked(number, kind="effect", **more):
    plain = {
        "number": number,
        "kind": kind,
        "text": f"Suppose {number}?",
        "column": "income",
        "shift": 100.0,
        "individual": True,
        "effects": ["savings"],
        "shown": {"savings": "4,000 euros"},
        "taught": None,
        "design": "RandomDesign()",
        "utility": None,
    }
    return {**plain, **more}


def answered(number, typed="4100", value=4100.0, **widths):
    values = {"savings": value}
    said = {"number": number, "typed": {"savings": typed}, "values": values}
    return {**said, "half_width": widths, "seconds": 2.5}


def planned(letter="Dear"):
    plan = {
        **{"steps": ["raise it"], "consequences": [], "sentence": "Raise it.", "chance": 0.93},
        **{"chance_text": "", "dots": 18, "cost": 1.5, "status": "found"},
        "set_to": {"income": 2700.0},
    }
    return {"plans": [plan], "price": [], "letter": letter, "versions": {}, "posterior": "00"}


@pytest.fixture
def told(tmp_path, settings, task):
    """A store of two people: one did everything, the other nothing."""
    store, study, people = opened(tmp_path, settings, 2, task)
    two = next(person for person in people if person.arm == "two")
    wanted = {"column": "savings", "wanted": 5000.0}
    events = [
        ("consented", {}),
        ("profile", {"locked": ["loan"], "limits": {}, "weights": {"income": 2.0}, "was": None}),
        ("asked", asked(0)),
        ("answered", answered(0, "4000-4200", 4100.0, savings=100.0)),
        ("asked", asked(1, "attention", **wanted)),
        ("answered", answered(1, "=5000", 4999.0)),
        ("back", {"number": 1, "typed": {"savings": "=5000"}}),
        ("answered", answered(1, "5000", 5000.0)),
        ("asked", asked(2)),
        ("answered", answered(2, "?", None)),
        ("asked", asked(3, "retest", of=1)),
        ("answered", answered(3, "4150", 4150.0)),
        ("planned", planned()),
        ("feedback", {"verdict": "might", "text": "=HYPERLINK(1)"}),
    ]
    for seq, (kind, payload) in enumerate(events):
        store.append(two.id, seq, kind, payload, at=1000.0 + seq)
    yield store, study, two
    store.close()


def test_tables_say_what_happened(told, task):
    store, study, two = told
    found = tables(store, study, task)
    assert list(found) == list(TABLES)
    people = found["participants"].set_index("participant")
    assert len(people) == 2
    assert people.answers.sum() == 4
    row = people.loc[two.id]
    assert (row.consented, row.planned, row.finished) == (1000.0, 1012.0, 1013.0)
    assert (row.taken_back, row.verdict, row.locked) == (1, "might", '["loan"]')
    assert pd.isna(row.withdrawn)
    assert row["applicant: income"] == two.applicant["income"]
    assert json.loads(row.key) == two.key
    questions = found["questions"]
    assert questions.kind.tolist() == ["effect", "attention", "effect", "retest"]
    assert questions.of.tolist()[3] == 2  # place 1 among those for effects is question 2
    assert questions.taken_back.tolist() == [0, 1, 0, 0]
    assert questions.right.tolist()[1] is True
    assert questions.right.isna().sum() == 3
    assert json.loads(questions["values"][2]) == {"savings": None}
    answers = found["answers"]
    assert answers.value.tolist()[:2] == [4100.0, 5000.0]
    assert pd.isna(answers.value[2])
    assert answers.half_width[0] == 100.0
    assert answers.typed.tolist() == ["4000-4200", "5000", "?", "4150"]
    (plan,) = found["plans"].to_dict("records")
    assert (plan["chance"], plan["level"], plan["set_to"]) == (0.93, 0.9, '{"income": 2700.0}')
    assert len(found["events"]) == 14
    assert json.loads(found["events"].payload[3]) == store.events(two.id)[3].payload


def test_an_open_question_and_a_profile_that_comes_again(tmp_path, settings, task):
    store, study, people = opened(tmp_path, settings, 1, task)
    profile = {"locked": [], "limits": {}, "weights": {}}
    again = asked(0, text="Again?")
    kinds = ("consented", "profile", "asked", "profile", "asked")
    for seq, (kind, payload) in enumerate(
        zip(kinds, ({}, profile, asked(0), profile, again), strict=True)
    ):
        store.append(people[0].id, seq, kind, payload)
    found = tables(store, study, task)
    assert found["questions"].wording.tolist() == ["Again?"]
    assert not found["questions"].answered.any()
    assert found["questions"].seconds.isna().all()
    assert found["answers"].empty
    store.close()


def test_types_do_not_depend_on_what_is_there(told, task, tmp_path, settings):
    store, study, _ = told
    (tmp_path / "empty").mkdir()
    other, empty, _ = opened(tmp_path / "empty", settings, 0, task)
    full, none = tables(store, study, task), tables(other, empty, task)
    for name in TABLES:
        assert len(none[name]) == 0
        assert full[name][list(TABLES[name])].dtypes.equals(none[name].dtypes)
    other.close()


@pytest.fixture
def without_posteriors(monkeypatch):
    monkeypatch.setattr(module, "_posteriors", lambda *_: {})


def test_files_are_those_and_read_back(told, task, tmp_path, without_posteriors):
    store, study, two = told
    files = export(store, study, task, {}, tmp_path / "out")
    names = {f"{name}.{kind}" for name in TABLES for kind in ("csv", "parquet")}
    assert {file.name for file in files} == names | {"README.md", "settings.json"}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    found = tables(store, study, task)
    for name, table in found.items():
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / f"{name}.parquet"), table)
        plain = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert list(plain.columns) == list(table.columns)
        assert len(plain) == len(table)
    people = pd.read_csv(tmp_path / "out" / "participants.csv").set_index("participant")
    assert people.loc[two.id, "text"] == "'=HYPERLINK(1)"
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == study.settings
    readme = (tmp_path / "out" / "README.md").read_text()
    for name, columns in TABLES.items():
        assert f"## {name}" in readme
        assert all(f"`{column}`" in readme for column in columns)
    assert "2 people were enrolled; 0 of them were deleted" in readme
    with pytest.raises(FileExistsError, match="new folder"):
        export(store, study, task, {}, tmp_path / "out")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_people_type_is_in_no_path_and_runs_nowhere(
    told, task, tmp_path, without_posteriors, text
):
    store, study, two = told
    for kind in ("feedback", "viewed"):
        seq = len(store.events(two.id))
        store.append(two.id, seq, kind, {"verdict": text, "text": text, text: text})
    (tmp_path / "below").mkdir()
    before = sorted(path for path in tmp_path.rglob("*") if "sqlite" not in path.name)
    files = export(store, study, task, {}, tmp_path / "below" / "out")
    after = sorted(path for path in tmp_path.rglob("*") if "sqlite" not in path.name)
    new = set(after) - set(before)
    assert new == {tmp_path / "below" / "out", *files}
    cells = pd.read_csv(tmp_path / "below" / "out" / "participants.csv", dtype=str)
    for cell in cells.fillna("").to_numpy().ravel():
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
    kept = pd.read_parquet(tmp_path / "below" / "out" / "participants.parquet")
    assert text in kept.text.tolist()


@pytest.mark.parametrize("name", ["../s", "a/b", "..", "/etc"])
def test_names_of_arms_and_studies_are_in_no_path(
    tmp_path, settings, task, name, without_posteriors
):
    store = Store.open(f"sqlite:///{tmp_path}/x.sqlite")
    kept = settings.as_json()
    study = store.new_study(name, {**kept, "arms": {name: kept["arms"]["one"]}})
    store.enrol(study.id, name, {"../x": "../y"}, [1, 2], 0, {})
    files = export(store, study, task, {}, tmp_path / "out")
    assert {file.parent for file in files} == {tmp_path / "out"}
    assert len(files) == 2 * len(TABLES) + 2
    store.close()


def test_an_export_that_fails_leaves_nothing(told, task, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_posteriors", full)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match="No space"):
        export(*told[:2], task, {}, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="nowhere"):
        export(*told[:2], task, {}, tmp_path / "nowhere" / "out")


def test_deleted_people_are_not_there(told, task, tmp_path, without_posteriors):
    store, study, two = told
    store.delete(two.id)
    export(store, study, task, {}, tmp_path / "out")
    assert (
        "2 people were enrolled; 1 of them were deleted" in (tmp_path / "out/README.md").read_text()
    )
    assert (
        two.id
        not in pd.read_parquet(tmp_path / "out" / "participants.parquet").participant.tolist()
    )
    assert pd.read_parquet(tmp_path / "out" / "events.parquet").empty


def test_cells():
    assert plain_cell("=1") == "'=1"
    assert plain_cell("a=1") == "a=1"
    assert plain_cell(-3.5) == -3.5
    assert plain_cell(None) is None


def take_part(store, study, person, task, surrogates):
    """One person, from consent to feedback, who takes one answer back."""
    own = conversation_of(task, surrogates, terms_of(study.settings), person)

    def happen(kind, payload):
        own.take(store.append(person.id, len(own.events), kind, payload))

    happen("consented", {})
    happen("profile", own.profiled(locked=["loan"]))
    while (following := own.following()) is not None:
        happen(*following)
        question = own.question()
        if question is None:
            break
        typed = {f"{e.column}": f"{e.now + 3 * question.shift:.0f}" for e in question.effects}
        happen("answered", own.read(typed) | {"seconds": 1.0})
        if question.number == 0:
            happen("back", own.taken_back())
            happen(
                "answered",
                own.read(dict.fromkeys(typed, "?") | {"savings": "4000-5000"}) | {"seconds": 2.0},
            )
    happen("planned", own.plans().payload)
    return own


@pytest.fixture(scope="module")
def finished(tmp_path_factory, task):
    """A study of two people, one in each arm, who did everything."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(STUDY)
    settings = read_settings(folder / "study.toml")
    store, study, people = opened(folder, settings, 2, task)
    surrogates = fit_surrogates(task, settings.arms)
    conversations = [take_part(store, study, person, task, surrogates) for person in people]
    for person in people:  # after the plans, which it does not change
        seq = len(store.events(person.id))
        store.append(person.id, seq, "feedback", {"verdict": "would do", "text": ""})
    yield store, study, people, surrogates, conversations, folder
    store.close()


def test_events_alone_lead_to_the_plans_bit_for_bit(finished, task):
    _, _, people, surrogates, _, folder = finished
    assert {person.arm for person in people} == {"one", "two"}
    again = Store.open(f"sqlite:///{folder}/study.sqlite")
    assert [replay(again, person, task, surrogates) for person in people] == [True, True]
    again.close()


def test_posteriors_are_those_of_the_conversations(finished, task, tmp_path):
    pytest.importorskip("arviz")
    store, study, people, surrogates, conversations, _ = finished
    export(store, study, task, surrogates, tmp_path / "out")
    data = pcr.read_netcdf(tmp_path / "out" / "posteriors.nc")
    assert data.posterior.user.to_numpy().tolist() == [person.id for person in people]
    for person, own in zip(people, conversations, strict=True):
        theta = data.posterior["theta"].sel(user=person.id).to_numpy()
        np.testing.assert_array_equal(theta, own.posteriors.draws[0])
    asked = data.constant_data["query_node"].to_numpy()
    assert (asked >= 0).sum(1).tolist() == [{"one": 1, "two": 2}[person.arm] for person in people]
    assert np.isfinite(np.asarray(pcr.posterior_scms(data).coefficients)).all()


def test_another_answer_does_not_lead_to_the_plans(finished, task, tmp_path):
    """That the comparison can fail."""
    store, study, people, surrogates, _, _ = finished
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite")
    copy = other.new_study(study.name, study.settings)
    one = next(person for person in people if person.arm == "one")
    twin, _ = other.enrol(copy.id, one.arm, one.applicant, one.key, 0, one.versions)
    assert replay(other, twin, task, surrogates) is None
    for event in store.events(one.id):
        payload = dict(event.payload)
        if event.kind == "answered":
            payload["values"] = {**payload["values"], "savings": 4750.0}
        other.append(twin.id, event.seq, event.kind, payload)
    assert replay(other, twin, task, surrogates) is False
    other.close()


def test_the_analysis_of_the_example_reads_the_export(
    finished, task, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("arviz")
    store, study, people, surrogates, _, _ = finished
    export(store, study, task, surrogates, tmp_path / "out")
    names = surrogates["one"].names
    truths = [
        {
            "participant": p.id,
            **dict(zip(names, truth_of(surrogates[p.arm], 0, p.position).numbers, strict=True)),
        }
        for p in people
    ]
    pd.DataFrame(truths).to_csv(tmp_path / "truth.csv", index=False)
    monkeypatch.syspath_prepend(LOAN.parent)
    main = runpy.run_path(str(LOAN.with_name("analysis.py")))["main"]
    main(tmp_path / "out", tmp_path / "truth.csv")
    printed = capsys.readouterr().out
    for words in ("attention, right", "retest, apart (scales)", "stated", "works"):
        assert words in printed
    main(tmp_path / "out")
    assert "stated" not in capsys.readouterr().out
