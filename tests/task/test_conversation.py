"""What data and a person teach of a task's SCM, in the words of its features."""

import html
import json

import jax
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax.task.people import person_of
from tests.task.population import FEATURES, GRAPH, JOBS, people, pipeline, scm_of

pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression

DATA = people()
MODEL = pipeline(LogisticRegression(max_iter=1000), DATA)


@pytest.fixture(scope="module")
def task():
    return pcr.Task(model=MODEL, favourable="granted", data=DATA, graph=GRAPH, features=FEATURES)


@pytest.fixture(scope="module")
def learnt(task):
    return task.fit(deviation=0.1)


@pytest.fixture(scope="module")
def person():
    return DATA[(MODEL.predict(DATA) == "refused") & (DATA.job == "none")].iloc[0]


def told(session, true, num):
    """What the person answers, who is as ``true`` says, in the table's entries."""
    for _ in range(num):
        questions = session.ask()
        after = pcr.SimulatedUser(true).answer(jax.random.key(0), questions, session.problem.x)
        entries = {
            column: feature.decode(np.asarray(after)[:, j], session.task.dtypes[column]).iloc[0]
            for j, (column, feature) in enumerate(session.task.features.items())
            if not np.isnan(after[0, j])
        }
        session.tell(entries)


@pytest.fixture(scope="module")
def session(task, learnt, person):
    session = task.session(person, learnt, key=jax.random.key(3), max_questions=4)
    told(session, scm_of(task.graph, job=900.0), 3)
    return session


def test_data_teach_what_causes_how_much(task, learnt):
    scm = learnt.scm(np.asarray(learnt.prior.mean)[0])
    assert scm.graph == task.graph
    now = task.encode(DATA.iloc[:1])[0]
    job = list(task.features).index("job")
    raised = scm.counterfactual(now, pcr.Action.shift_node(job, 1.0, len(now))) - now
    found = dict(zip(task.features, np.asarray(raised), strict=True))
    assert found["income"] == pytest.approx(700, abs=80)
    assert found["savings"] == pytest.approx(560, abs=100)
    with pytest.raises(ValueError, match="column 'home', which has causes or effects"):
        pcr.Task(
            **{"model": MODEL, "favourable": "granted", "data": DATA, "features": FEATURES},
            graph=[*GRAPH, ("income", "home")],
        ).fit()


def test_questions_are_in_whole_steps_and_in_words(session, person):
    asked = {}
    for turn in session._state.told:
        node = int(turn.questions.node[0])
        asked[session.problem.names[node]] = turn.texts[0]
        shift = float(turn.questions.shift[0])
        if session.problem.names[node] == "income":
            assert shift % 100 == 0
            assert 0 <= person.income + shift <= 9000
            assert (
                "Suppose you raise your monthly income by" in turn.texts[0]
                or "lower" in (turn.texts[0])
            )
            assert turn.texts[0].endswith("What would your savings and credit rating become?")
        else:
            assert shift in (1.0, 2.0)
            assert turn.texts[0].startswith("Suppose you raise your job by")
            assert "from none to" in turn.texts[0]
            assert turn.texts[0].endswith("your monthly income, savings and credit rating become?")
    assert set(asked) <= {"job", "income"}


FIXED = {
    **FEATURES,
    "age": pcr.Integer(immutable=True),
    "phone": pcr.Levels([False, True], protected=True),
    "income": pcr.Real(low=0.0, high=9000.0),
    "savings": pcr.Real(actionable=False),
    "home": pcr.Levels(["rent", "free", "own"]),
}
CAUSES = [("age", "income"), ("phone", "job"), ("home", "income"), ("savings", "rating")]


@pytest.fixture(scope="module")
def fixed():
    """A task in which some causes cannot be acted on."""
    return pcr.Task(
        model=MODEL, favourable="granted", data=DATA, graph=[*GRAPH, *CAUSES], features=FIXED
    )


def asked_about(task, row, num=16):
    """What questions at random set features to, by column."""
    surrogate, found = pcr.linear_surrogate(task.graph, scale=task.scale), {}
    for number in range(num):
        session = task.session(row, surrogate, key=jax.random.key(number))
        questions, x = session.ask(), session.problem.x
        node = int(questions.node[0])
        column = task.graph.nodes[node]
        found.setdefault(column, []).append(float(x[0, node] + questions.shift[0]))
    return found


def test_nobody_is_asked_about_what_they_cannot_do(fixed, person):
    found = asked_about(fixed, person)
    assert set(found) == {"job", "income", "home"}
    assert set(found["job"]) <= {1.0, 2.0}  # from none, which can only be raised
    assert set(found["home"]) == {0.0, 1.0, 2.0} - {FIXED["home"].names.index(person.home)}
    assert all(0 <= income <= 9000 for income in found["income"])
    assert min(found["income"]) < person.income < max(found["income"])
    poor = asked_about(fixed, person.to_dict() | {"income": 0, "job": "full time"})
    assert set(poor) == {"income", "home"}
    assert min(poor["income"]) > 0


def test_a_design_of_ones_own_cannot_ask_about_what_nobody_can_do(fixed, person):
    class Asks:
        needs_posterior = False

        def __init__(self, column, shift):
            self.node, self.shift = list(fixed.features).index(column), shift

        def ask(self, key, belief):
            return pcr.Questions(np.array([self.node]), np.array([self.shift]))

    surrogate = pcr.linear_surrogate(fixed.graph, scale=fixed.scale)
    session = fixed.session(person, surrogate, design=Asks("age", 3.0))
    with pytest.raises(ValueError, match="features that can be acted on; got 'age'"):
        session.ask()
    session = fixed.session(person, surrogate, design=Asks("job", -1.0))
    assert session.ask().shift.tolist() == [1.0]
    session = fixed.session(person, surrogate, design=Asks("income", 1e5))
    assert session.ask().shift.tolist() == [(9000 - person.income) // 10 * 10]


def test_nobody_is_asked_about_what_they_do_not_want_to_do(fixed, person):
    own = fixed.personal(locked=["job"], limits={"income": (person.income + 500, 5000)})
    found = asked_about(own, person)
    assert set(found) == {"income", "home"}
    assert all(person.income + 500 <= income <= 5000 for income in found["income"])
    with pytest.raises(ValueError, match=f"who can act on something; got '{person.name}'"):
        fixed.personal(locked=["home", "income"]).problem(
            person.to_frame().T.assign(job="full time")
        )


def test_what_is_recommended_is_on_the_grid_and_at_the_level(task, session, person):
    plan = session.recommend(level=0.9)
    table = plan.to_frame()
    assert table.index[0] == person.name
    assert table.status.iloc[0] == "found"
    assert table.p_valid.iloc[0] >= 0.9
    again = task.recourse(person, session, level=0.9, draws=session.draws).to_frame()
    pd.testing.assert_frame_equal(again, table)


def test_numbers_that_no_entry_has_are_not_favourable(task):
    granted = DATA[MODEL.predict(DATA) == "granted"].iloc[0]
    x, job = task.encode(granted)[0], list(task.features).index("job")
    margin = person_of(task, task.rows(granted), x, scm_of(task.graph), None, None).margin
    tried = np.tile(x, (4, 1))
    tried[1:, job] = [np.nan, len(JOBS), -1.0]
    assert (margin(tried) >= 0).tolist() == [True, False, False, False]
    assert not (margin(tried[1:]) >= 0).any()


def test_it_goes_on_from_its_text(task, learnt, person, session):
    again = task.session(person, learnt, text=session.to_json())
    assert again.sentences() == session.sentences()
    assert type(again) is pcr.TaskSession
    np.testing.assert_array_equal(again.history.answer, session.history.answer)


def test_answers_are_entries_of_the_table(task, learnt, person):
    session = task.session(person, learnt, key=jax.random.key(3))
    session.ask()
    with pytest.raises(ValueError, match=r"answer about .*; got \['wealth'\]"):
        session.tell({"wealth": 3})
    with pytest.raises(ValueError, match="column 'job' to be one of"):
        session.tell({"job": "pilot"})
    session.tell({"savings": 900, "income": 2000.0})
    answer = dict(zip(task.features, np.asarray(session.history.answer)[0, 0], strict=True))
    assert (answer["savings"], answer["income"]) == (900, 2000)
    assert np.isnan(answer["rating"])
    with pytest.raises(ValueError, match="row to be one person; got 2"):
        task.session(DATA.iloc[:2], learnt)


def test_the_data_alone_are_draws_enough_for_a_level(task, learnt, person):
    rows = DATA.loc[[person.name]]
    table = task.recourse(rows, learnt, level=0.8, draws=300).to_frame()
    assert table.status.iloc[0] == "found"
    both = task.recourse(DATA.loc[[DATA.index[0], person.name]], learnt, level=0.8, draws=300)
    pd.testing.assert_series_equal(both.to_frame().iloc[1], table.iloc[0])
    assert set(JOBS) >= set(table["job (expected)"])


def test_a_report_has_what_was_asked_answered_and_taught(session):
    pytest.importorskip("jinja2")
    report = session.recommend(level=0.9).report()
    content = json.loads(report.json)
    assert len(content["questions"]) == 3
    assert set(content["questions"][0]["answer"]) >= {"savings", "rating"}
    assert content["questions"][0]["question"] in html.unescape(report.html)
    assert set(session.task.graph.edge_names) <= set(content["taught"])
    assert set(content["seeds"]) == {"draws", "session"}
