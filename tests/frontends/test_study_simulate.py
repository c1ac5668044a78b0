"""People who are simulated, before pages that are made up."""

import json
import threading
import time
from urllib.parse import parse_qs

import numpy as np
import pytest

pytest.importorskip("httpx")
import httpx

import pcr_jax as pcr
from pcr_jax.frontends.study import simulate as module
from pcr_jax.frontends.study.simulate import (
    Page,
    Person,
    as_typed,
    figures,
    filled,
    simulate,
    truth_of,
)
from tests.task.population import FEATURES, GRAPH, people, scm_of

TABLE = people()


class Model:
    """Grants all to people with a phone."""

    classes_ = ("refused", "granted")

    def predict_proba(self, rows):
        share = 0.2 + 0.6 * np.asarray(rows.phone, float)
        return np.stack([1 - share, share], 1)


@pytest.fixture(scope="module")
def task():
    return pcr.Task(model=Model(), favourable="granted", data=TABLE, graph=GRAPH, features=FEATURES)


HTML = """<!doctype html><title>x</title><main data-step="{step}" {more}><h1>It &amp; that</h1>
<form action="/leave"><button name="leave" value="1">Leave</button></form>
<form method="post" action="/{action}" data-step="{step}">
<input type="hidden" name="csrf" value="&lt;a&gt;"><input type=hidden name=seq value={seq}>
{inputs}<button>Go on</button><button name="quick" value="unknown">I do not know</button>
</form></main>"""
QUESTION = {"column": "job", "shift": 1.0, "individual": True, "kind": "effect"}
INPUTS = {
    "consent": '<input type="checkbox" name="agree" required>',
    "profile": '<input type="checkbox" name="locked-0"><input name="low-0" value="12">'
    '<input type="radio" name="weight-0" value="1" checked>'
    '<input type="radio" name="weight-0" value="2">',
    "question": '<label>Income<input name="answer-0" data-column="income" data-now="1900"></label>'
    '<input name="answer-1" data-column="rating" data-now="2">',
    "attention": '<p>Please give 1,500 euros. Thank you.</p><input name="answer-0"'
    ' data-column="income" data-now="1900">',
    "plan": "",
    "feedback": '<input type="radio" name="verdict" value="might">'
    '<input type="radio" name="verdict" value="would not"><textarea name="text">a</textarea>',
}
STEPS = ["consent", "profile", "question", "attention", "question", "plan", "feedback"]


class Site:
    """Pages for anybody, one after the other; what was sent is kept."""

    def __init__(self, failing=()):
        self.at, self.sent, self.failing = {}, {}, list(failing)
        self.lock, self.most, self.now = threading.Lock(), 0, 0

    def __call__(self, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        try:
            return self.answered(request)
        finally:
            with self.lock:
                self.now -= 1

    def answered(self, request):
        path = request.url.path
        if path.startswith("/join/"):
            who = path.removeprefix("/join/")
            return httpx.Response(
                303, headers={"location": "/here", "set-cookie": f"who={who}; HttpOnly; Path=/"}
            )
        who = request.headers.get("cookie", "").removeprefix("who=")
        if not who:
            return httpx.Response(403, html="<main>Use your link</main>")
        place = self.at.setdefault(who, 0)
        if request.method == "POST":
            with self.lock:
                if self.failing and (failure := self.failing.pop()) is not None:
                    if isinstance(failure, int):
                        return httpx.Response(failure, headers={"retry-after": "0"})
                    raise failure
            assert path == f"/{STEPS[place]}-here"
            fields = {
                name: value[0]
                for name, value in parse_qs(
                    request.content.decode(), keep_blank_values=True
                ).items()
            }
            assert fields["csrf"] == "<a>"
            assert fields["seq"] == f"{place}"
            self.sent.setdefault(who, []).append(fields)
            self.at[who] += 1
            return httpx.Response(303, headers={"location": "/here"})
        if place == len(STEPS):
            return httpx.Response(200, html='<main data-step="done">Thanks</main>')
        step, more = STEPS[place], ""
        if step in ("question", "attention"):
            kind = {**QUESTION, "kind": "attention" if step == "attention" else "effect"}
            more = f"data-question='{json.dumps(kind)}'"
        shown = "question" if step == "attention" else step
        html = HTML.format(
            step=shown, action=f"{step}-here", more=more, seq=place, inputs=INPUTS[step]
        )
        return httpx.Response(200, html=html)


def persons(task, number):
    x = task.encode(TABLE.iloc[:number])
    scm = scm_of(task.graph)
    return [Person(i, f"http://site/join/{i}", x[i], scm) for i in range(number)]


def run(site, task, number=1, **settings):
    def client():
        transport = httpx.MockTransport(site)
        return httpx.Client(transport=transport, follow_redirects=True)

    return simulate(persons(task, number), task, client=client, **settings)


def test_the_whole_way_by_forms_alone(task):
    site = Site()
    (outcome,) = run(site, task)
    assert outcome.errors == []
    assert outcome.finished
    assert outcome.answers == 3
    assert [kind for kind, _ in outcome.seconds] == ["question", "question", "plan"]
    assert all(0 < seconds < 60 for _, seconds in outcome.seconds)
    consent, profile, first, attention, second, plan, feedback = site.sent["0"]
    assert consent["agree"] == "on"
    assert profile == {"csrf": "<a>", "seq": "1", "low-0": "12", "weight-0": "1"}
    assert attention["answer-0"] == "1,500 euros"
    assert set(plan) == {"csrf", "seq"}
    assert feedback["verdict"] in ("might", "would not")
    assert feedback["text"] == "I am simulated."
    for answer in (first, second):
        assert "quick" not in answer
        assert 0 <= float(answer["answer-0"].replace(",", "")) <= 9000
        assert answer["answer-1"] in ("1", "2", "3", "4")


def test_answers_are_those_of_their_own_scm(task):
    """Without errors: the third of the numbers that follow in the SCM, in three digits."""
    person = persons(task, 1)[0]
    visitor = module._Visitor(person, task, 0.0, 0, httpx.Client())
    visitor.user = pcr.SimulatedUser(person.scm, error_rate=0.0)
    found = visitor.answer(QUESTION)
    job, income = (list(task.features).index(name) for name in ("job", "income"))
    after = person.scm.counterfactual(person.x, pcr.Action.shift_node(job, 1.0, len(person.x)))
    np.testing.assert_allclose(found[income], after[income], rtol=1e-5)
    assert np.isnan(found[job])


def test_so_many_at_once_and_no_more(task):
    site = Site()
    outcomes = run(site, task, 9, concurrency=3)
    assert [outcome.participant for outcome in outcomes] == list(range(9))
    assert all(outcome.finished and not outcome.errors for outcome in outcomes)
    assert 1 < site.most <= 3
    found = figures(outcomes)
    assert (found["people"], found["finished"], found["answers"], found["errors"]) == (9, 9, 27, 0)
    assert 0 < found["question_median"] <= found["question_p95"] <= found["question_most"]
    assert figures([])["plan_median"] is None


def test_a_server_that_fails_is_tried_again_and_noted(task, monkeypatch):
    monkeypatch.setattr(module, "_WAIT", 0.0)
    failures = [503, httpx.ConnectError("refused"), 429, httpx.ReadTimeout("slow")]
    site = Site(failures)
    (outcome,) = run(site, task)
    assert outcome.finished
    assert len(outcome.errors) == 4
    assert any("503 of /" in error for error in outcome.errors)
    assert any("ConnectError" in error for error in outcome.errors)
    assert len(site.sent["0"]) == len(STEPS)


def test_a_server_that_stays_away_is_given_up(task, monkeypatch):
    monkeypatch.setattr(module, "_WAIT", 0.0)
    monkeypatch.setattr(module, "_PATIENCE", 0.05)

    def nobody(_):
        raise httpx.ConnectError("refused")

    (outcome,) = run(nobody, task)
    assert not outcome.finished
    assert "no page within" in outcome.errors[-1]


@pytest.mark.parametrize(
    ("html", "status", "said"),
    [
        ("<main data-step='lost'>x</main>", 200, "leads nowhere"),
        ("<main>You cannot</main>", 403, "403 of /join/...: You cannot"),
        ("<main>Not a number</main>", 422, "422"),
        (
            HTML.replace("{step}", "plan").format(more="", action="", seq=0, inputs=""),
            200,
            "no end",
        ),
        (2 * "<form data-step='plan'></form>", 200, "two forms"),
    ],
)
def test_pages_that_do_not_keep_to_the_contract_are_errors(task, html, status, said):
    (outcome,) = run(lambda _: httpx.Response(status, html=html), task)
    assert not outcome.finished
    assert len(outcome.errors) == 1
    assert said in outcome.errors[0]


def test_thinking_takes_time(task):
    began = time.perf_counter()
    (outcome,) = run(Site(), task, think=0.1)
    assert outcome.finished
    thought = time.perf_counter() - began
    assert thought > 0.1
    assert sum(seconds for _, seconds in outcome.seconds) < thought


def test_what_a_browser_sends():
    page = Page(
        '<main data-step=x><form data-step="x" method="POST" action="?a=1&amp;b=2">'
        '<input name="text" value="a&quot;b"><input value="nameless">'
        "<input type=checkbox name=on value=yes checked><input type=checkbox name=off>"
        "<select name=one><option value=1>1<option value=2 selected>2</select>"
        "<select name=first><option value=3>3<option value=4>4</select>"
        "<textarea name=area>\u00e9 &lt;b&gt;</textarea>"
        '<button formaction="/elsewhere" name=go value=away>Away</button>'
        "<input type=submit name=go value=on><button name=go value=other>Other</button>"
        "</form></main>"
    )
    assert page.form.action == "?a=1&b=2"
    assert page.form.method == "post"
    assert filled(page.form, {"area": "new"}) == {
        "text": 'a"b',
        "on": "yes",
        "one": "2",
        "first": "3",
        "area": "new",
        "go": "on",
    }
    assert filled(page.form, {})["area"] == "\u00e9 <b>"


@pytest.mark.parametrize(
    ("feature", "number", "typed"),
    [
        (pcr.Real(unit="euros"), 4123.4, "4,120"),
        (pcr.Real(), -0.012345, "-0.0123"),
        (pcr.Real(low=0.0, high=10.0), 17.0, "10"),
        (pcr.Real(), 0.0, "0"),
        (pcr.Integer(low=0), -3.2, "0"),
        (pcr.Integer(), 12345.0, "12300"),
        (pcr.Levels(["low", "mid", "high"]), 1.4, "mid"),
        (pcr.Levels([False, True]), 3.0, "yes"),
        (pcr.Nominal(["rent", "own"]), 0.9, "own"),
        (pcr.Real(), float("nan"), "?"),
    ],
)
def test_what_is_typed(feature, number, typed):
    assert as_typed(feature, number) == typed


def test_what_is_typed_can_be_read():
    answers = pytest.importorskip("pcr_jax.frontends.answers")
    rng = np.random.default_rng(0)
    for feature in (pcr.Real(low=-500.0, high=9000.0), pcr.Integer(low=-3, high=800)):
        for number in rng.normal(0, 1, 200) * 10 ** rng.uniform(-3, 5, 200):
            low, high, _ = feature.grid
            read = answers.read_answer(as_typed(feature, number), feature, "x", 0.0).value
            whole = feature.kind == "integer"
            wanted = np.clip(number, low, high)
            assert read == pytest.approx(wanted, rel=6e-3, abs=0.5 if whole else 1e-9)


def test_truths_differ_by_person_and_follow_from_the_seed(task):
    surrogate = pcr.linear_surrogate(task.graph, scale=task.scale)
    first, again, other, third = (
        truth_of(surrogate, *at) for at in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    np.testing.assert_array_equal(first.numbers, again.numbers)
    assert (first.numbers != other.numbers).any()
    assert (first.numbers != third.numbers).any()
    assert first.scm.graph == task.graph
