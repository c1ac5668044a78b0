"""The pages as somebody without JavaScript uses them."""

import json
import threading
from types import SimpleNamespace

import httpx
import pytest

from pcr_jax.frontends.web import participant as pages
from pcr_jax.frontends.web.app import (
    Settings,
    create_app,
    grouped,
    sentence,
    slider_ends,
    unwrapped,
)
from pcr_jax.frontends.web.drawing import band, picture
from tests.frontends import fakes
from tests.frontends.serving import Browser, serving


@pytest.fixture(scope="module")
def site():
    store = fakes.Store()
    settings = Settings(
        study=1,
        title="A study",
        consent=("You play somebody.", "It takes ten minutes."),
        enrol=lambda: fakes.enrol(store)[1],
    )
    with serving(create_app(store, fakes.Engine(store), settings)) as base:
        yield SimpleNamespace(store=store, base=base)


@pytest.fixture
def someone(site):
    """A browser that has followed a participant's link."""
    participant, token = fakes.enrol(site.store)
    browser = Browser(site.base)
    browser.get(f"/join/{token}")
    browser.id, browser.token = participant.id, token
    yield browser
    browser.http.close()


def to_questions(browser):
    browser.send("consent")
    return browser.send("profile")


def answered(browser, *texts):
    for text in texts:
        browser.send("question", **{f"answer-{i}": text for i in range(2)})
    return browser.page


def to_advice(browser):
    to_questions(browser)
    answered(browser, "2700", "4500", "?")
    return browser.send("plan")


def kinds(site, browser):
    return [event.kind for event in site.store.events(browser.id)]


def test_the_whole_path(site, someone):
    assert someone.page.main["data-step"] == "consent"
    assert someone.answer.url.path == "/consent"  # the token is not in the address
    assert to_questions(someone).main["data-step"] == "question"
    asked = json.loads(someone.page.main["data-question"])
    assert asked == {
        "column": "job",
        "shift": 1.0,
        "individual": True,
        "kind": "effect",
        "effects": ["income", "savings"],
    }
    inputs = [own for tag, own in someone.page.tags if tag == "input" and "data-column" in own]
    assert [(i["name"], i["data-column"], i["data-now"]) for i in inputs] == [
        ("answer-0", "income", "2350.0"),
        ("answer-1", "savings", "4000.0"),
    ]
    assert "Question 1 of about 3" in someone.page.title
    answered(someone, "2,700")
    assert "From your last answer: We now expect your monthly income" in someone.page.words
    answered(someone, "4000-5000", "full time")
    assert someone.answer.url.path == "/understood"
    assert "From your 3 answers" in someone.page.words
    someone.send("plan")
    assert someone.answer.url.path == "/advice"
    assert "this is enough in 95 of 100 cases" in someone.page.words
    someone.send("feedback", verdict="might", text="Zu teuer — für mich 🙂\nwirklich")
    assert someone.page.main["data-step"] == "done"
    assert "Raise your monthly income by 300." in someone.page.words
    assert kinds(site, someone) == [
        *("consented", "profile", "asked", "answered", "asked", "answered", "asked", "answered"),
        *("ended", "viewed", "planned", "viewed", "feedback", "viewed"),
    ]
    events = {event.kind: event.payload for event in site.store.events(someone.id)}
    assert events["feedback"] == {"verdict": "might", "text": "Zu teuer — für mich 🙂\nwirklich"}
    assert events["answered"]["typed"] == {"job": "full time"}
    assert 0 <= events["answered"]["seconds"] < 60


def test_every_page_has_one_form_to_go_on(someone):
    seen = []
    for _ in range(30):
        forms = [own["data-step"] for own, _ in someone.page.forms if "data-step" in own]
        if someone.page.main["data-step"] == "done":
            break
        assert len(forms) == 1
        assert someone.page.main["data-step"] == forms[0]
        seen.append(forms[0])
        if forms[0] == "question":
            answered(someone, "?")
        else:
            someone.send(forms[0], **({"verdict": "might"} if forms[0] == "feedback" else {}))
    assert seen == ["consent", "profile", *["question"] * 3, "plan", "feedback"]


def test_until_the_program_is_ready_one_is_asked_to_wait():
    store = fakes.Store()
    engine = fakes.Engine(store)
    engine.ready.clear()
    with serving(create_app(store, engine, Settings(1, "A study", ("You play.",)))) as base:
        browser = Browser(base)
        browser.get(f"/join/{fakes.enrol(store)[1]}")
        to_questions(browser)
        for path in ("/question", "/understood", "/what-if"):
            browser.get(path)
            assert browser.page.main["data-step"] == "waiting"
            assert browser.answer.headers["refresh"] == "2"
        engine.ready.set()
        browser.get("/question")
        assert browser.page.main["data-step"] == "question"
        browser.http.close()


def test_what_one_can_change(site, someone):
    someone.send("consent")
    assert "35 years" in someone.page.words
    path, fields = someone.page.form("profile")
    fields |= {"locked-1": "yes", "low-2": "1,000", "high-2": "4000", "weight-3": "4"}
    fields |= {"low-0": "part time"}
    someone.post(path, fields)
    first = site.store.events(someone.id)[1].payload
    assert first["locked"] == ["home"]
    assert first["limits"] == {"job": [1.0, 2.0], "income": [1000.0, 4000.0]}
    assert first["weights"] == {"savings": 4.0}
    someone.get("/profile")
    assert someone.page.form("profile")[1]["weight-3"] == "4"
    assert someone.page.form("profile")[1]["low-0"] == "part time"
    someone.send("profile", weight_3="1")
    second = [e for e in site.store.events(someone.id) if e.kind == "profile"][1].payload
    assert second["weights"] == {}
    assert second["was"]["weights"] == {"savings": 4.0}


@pytest.mark.parametrize(
    ("fields", "place", "said"),
    [
        ({"low-2": "x"}, "low-2", "Please type"),
        ({"high-2": "99999"}, "high-2", "from 0 to 9,000"),
        ({"low-2": "5000", "high-2": "100"}, "low-2", "less than the most"),
        ({"weight-2": "3"}, "weight-2-1", "one of the five"),
        ({f"locked-{i}": "yes" for i in range(4)}, "locked-0", "leave one thing"),
    ],
)
def test_mistakes_in_the_profile_are_shown_where_they_are(site, someone, fields, place, said):
    someone.send("consent")
    path, own = someone.page.form("profile")
    someone.post(path, {**own, **fields})
    assert someone.answer.status_code == 422
    assert ("div", {"class": "problems", "role": "alert"}) in someone.page.tags
    assert ("a", {"href": f"#{place}"}) in someone.page.tags
    assert [own for _, own in someone.page.tags if own.get("id") == place]
    assert said in someone.page.words
    assert kinds(site, someone) == ["consented"]


def test_an_answer_that_cannot_be_read_is_asked_for_again(site, someone):
    to_questions(someone)
    answered(someone, "many")
    assert someone.answer.status_code == 422
    assert someone.page.form("question")[1]["answer-0"] == "many"
    wrong = next(own for _, own in someone.page.tags if own.get("id") == "answer-0")
    assert wrong["aria-invalid"] == "true"
    assert wrong["aria-describedby"] == "hint-0 answer-0-wrong"
    someone.send("question", **{"answer-0": "3000", "answer-1": ""})
    assert "say that you do not know" in someone.page.words
    assert kinds(site, someone)[-1] == "asked"


@pytest.mark.parametrize(
    ("quick", "value"), [("unknown", {"income": None}), ("none", {"income": 2350.0})]
)
def test_buttons_instead_of_an_answer(site, someone, quick, value):
    to_questions(someone)
    someone.send("question", quick=quick)
    payload = next(e for e in site.store.events(someone.id) if e.kind == "answered").payload
    assert value.items() <= payload["values"].items()


def test_back_takes_the_last_answer_back(site, someone):
    to_questions(someone)
    answered(someone, "2700")
    someone.send(action="/back")
    assert "Question 1 of" in someone.page.title
    assert "taken back" in someone.page.words
    last = site.store.events(someone.id)[-1]
    assert last.kind == "back"
    assert last.payload["typed"] == {"income": "2700", "savings": "2700"}
    answered(someone, "2800", "?", "?")
    someone.send(action="/back")
    assert "Question 3 of" in someone.page.title


def test_a_form_that_is_sent_twice_counts_once(site, someone):
    to_questions(someone)
    path, fields = someone.page.form("question")
    fields |= {"answer-0": "2700", "answer-1": "5000"}
    someone.post(path, fields)
    someone.post(path, {**fields, "answer-0": "1"})
    assert "answered already in another window" in someone.page.words
    assert "Question 2 of" in someone.page.title
    assert kinds(site, someone).count("answered") == 1


def test_looking_elsewhere_does_not_make_a_form_old(site, someone):
    to_questions(someone)
    answered(someone, "2700")
    path, fields = someone.page.form("question")
    someone.get("/understood")
    someone.get("/what-if")
    someone.post(path, {**fields, "answer-0": "4500"})
    assert "Question 3 of" in someone.page.title


def test_many_windows_at_once_give_one_answer(site, someone):
    to_questions(someone)
    path, fields = someone.page.form("question")
    cookies, codes = dict(someone.http.cookies), []

    def send(i):
        with httpx.Client(base_url=site.base, cookies=cookies, timeout=20) as http:
            data = {**fields, "answer-0": f"{2000 + i}", "answer-1": "?"}
            codes.append(http.post(path, data=data).status_code)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [303] * 12
    assert kinds(site, someone).count("answered") == 1


def test_old_plans_and_feedback_change_nothing(site, someone):
    to_advice(someone)
    path, fields = someone.page.form("feedback")
    someone.post(path, {**fields, "verdict": "would do"})
    someone.post(path, {**fields, "verdict": "would not"})
    assert someone.page.main["data-step"] == "done"
    feedback = [e.payload["verdict"] for e in site.store.events(someone.id) if e.kind == "feedback"]
    assert feedback == ["would do"]


def test_feedback_needs_a_verdict_and_keeps_the_text(someone):
    to_advice(someone)
    someone.send("feedback", text="It is <b>dear</b>")
    assert someone.answer.status_code == 422
    assert "Please choose one of the three." in someone.page.words
    assert "It is <b>dear</b>" in someone.page.words


def test_pages_of_later_steps_lead_to_the_present_one(someone):
    for path in ("/profile", "/question", "/understood", "/what-if", "/advice", "/done", "/left"):
        someone.get(path)
        assert someone.answer.url.path == "/consent", path
    to_questions(someone)
    for path in ("/consent", "/advice", "/done"):
        someone.get(path)
        assert someone.answer.url.path == "/question", path


def test_what_if(site, someone):
    to_questions(someone)
    someone.get("/what-if")
    assert "Nothing is changed yet" in someone.page.words
    someone.send(action="/what-if", value_2="3,000", value_0="full time")
    assert someone.answer.url.path == "/what-if"
    assert "enough in 50 of 100 cases" in someone.page.words
    tried = [e for e in site.store.events(someone.id) if e.kind == "whatif"][-1].payload
    assert tried == {"values": {"job": 2.0, "income": 3000.0}, "chance": 0.5}
    assert someone.page.form(action="/what-if")[1]["value-2"] == "3000"
    someone.send(action="/what-if", value_2="99999999")
    assert someone.answer.status_code == 422
    assert "Please type a number from 0 to 9,000" in someone.page.words
    fields = someone.page.form(action="/what-if")[1]
    live = someone.http.post("/what-if/outcome", data={**fields, "value-2": "3000"})
    assert "<html" not in live.text
    assert "of 100 cases" in live.text


def test_what_is_locked_cannot_be_tried(someone):
    someone.send("consent")
    someone.send("profile", locked_2="yes")
    someone.get("/what-if")
    assert "monthly income" not in someone.page.words


def test_a_live_check_of_what_is_typed(someone):
    to_questions(someone)
    csrf = someone.page.form("question")[1]["csrf"]

    def check(text, column="income"):
        fields = {"csrf": csrf, "column": column, "text": text}
        return someone.http.post("/check", data=fields).json()

    assert check("2,700") == {"good": True, "text": "We read: 2,700 euros."}
    assert check("2000-3000")["text"] == "We read: 2,000 euros to 3,000 euros."
    assert check("?")["text"] == "You do not know."
    assert not check("NaN")["good"]
    assert not check("9" * 5000)["good"]


def test_one_goes_on_in_another_browser_by_the_link(site, someone):
    to_questions(someone)
    answered(someone, "2700")
    links = [
        own["href"] for tag, own in someone.page.tags if tag == "a" and "/join/" in own["href"]
    ]
    assert links == [f"{site.base}/join/{someone.token}"]
    other = Browser(site.base)
    other.get(links[0].removeprefix(site.base))
    assert "Question 2 of" in other.page.title
    other.http.close()


def test_files_to_take_along(site, someone):
    assert someone.http.get("/letter.txt").status_code == 404
    to_advice(someone)
    letter = someone.http.get("/letter.txt")
    assert letter.headers["content-disposition"] == 'attachment; filename="letter.txt"'
    assert letter.text.startswith("Dear applicant,")
    plans = someone.http.get("/advice.json").json()
    assert plans == site.store.events(someone.id)[-2].payload
    own = someone.http.get("/data.json").json()
    assert own["applicant"]["income"] == 2350.0
    assert len(own["events"]) == len(site.store.events(someone.id))


def test_stopping_keeps_and_deleting_deletes(site, someone):
    to_questions(someone)
    someone.get("/data")
    someone.send(action="/leave")
    assert someone.answer.status_code == 422
    someone.send(action="/leave", choice="stop")
    assert someone.answer.url.path == "/left"
    assert kinds(site, someone)[-1] == "withdrawn"
    for path in ("/question", "/profile", "/understood", "/what-if", "/"):
        assert someone.get(path).main["data-step"] == "left", path
    someone.get("/data")
    someone.send(action="/leave", choice="delete")
    assert someone.page.main["data-step"] == "deleted"
    assert site.store.participant(someone.id) is None
    assert someone.get(f"/join/{someone.token}").main["data-step"] == "refused"


def test_who_comes_by_may_try(site):
    browser = Browser(site.base)
    assert browser.get("/").main["data-step"] == "start"
    browser.send(action="/try")
    assert browser.page.main["data-step"] == "consent"
    browser.http.close()


def test_nobody_enrols_where_it_is_not_offered():
    store = fakes.Store()
    settings = Settings(study=1, title="A study", consent=())
    with serving(create_app(store, fakes.Engine(store), settings)) as base:
        browser = Browser(base)
        assert "Please use your link" in browser.get("/").words
        assert browser.post("/try", {"form": "x"}).main["data-step"] == "refused"
        assert browser.answer.status_code == 404
        browser.http.close()
    assert not store.people


def test_unknown_pages_are_pages(someone):
    assert someone.get("/nothing").main["data-step"] == "refused"
    assert someone.answer.status_code == 404
    assert someone.http.put("/question").status_code == 405
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert someone.http.get(path).status_code == 404


def test_sentences():
    assert [sentence(text) for text in ("", "raise it", "Is it?", " a. ")] == [
        *("", "Raise it.", "Is it?", "A."),
    ]


def test_a_slider_stops_at_what_is_so_now():
    def control(now, step=50.0, limits=None):
        return SimpleNamespace(low=0.0, high=9000.0, now=now, step=step, limits=limits)

    assert slider_ends(control(2370.0)) == (20.0, 9000.0)
    assert slider_ends(control(2370.0, step=None)) == (0.0, 9000.0)
    assert slider_ends(control(2370.0, limits=(2000.0, 3000.0))) == (2020.0, 3000.0)
    assert slider_ends(control(2370.0, limits=(3000.0, 4000.0))) == (2370.0, 4000.0)


def test_a_letter_is_as_wide_as_the_page():
    letter = "Dear ann,\n\nyou asked\nmuch.\n\nDo:\n  - this.\n  - that.\nThen\nmore.\n"
    assert unwrapped(letter).split("\n") == [
        *("Dear ann,", "", "you asked much.", "", "Do:", "  - this.", "  - that.", "Then more."),
    ]


def test_prices_that_are_the_same_are_told_once():
    price = [{"level": level, "sentence": s} for level, s in ((0.5, "a"), (0.8, "b"), (0.9, "b"))]
    assert grouped(price) == [price[0], price[2]]
    assert grouped([]) == []


def test_lines_go_around_what_is_between():
    nodes = [
        {"x": 150 * k, "y": 25, "half": 60, "name": "n" * 40, "acted": False, "column": k}
        for k in range(3)
    ]
    pairs = [(0, 1), (1, 2), (0, 2)]
    lines = [{"ends": (), "cause": a, "effect": b} for a, b in pairs]
    effects = [SimpleNamespace(cause=0, effect=1, middle=2.0, change="falls by 1")]
    found = picture({"nodes": nodes, "lines": lines}, effects)
    assert [line["kind"] for line in found["lines"]] == ["down", "none", "none"]
    assert all(len(line) <= 15 for node in found["nodes"] for line in node["lines"])
    assert len(found["nodes"][0]["lines"]) <= 2
    middle = found["nodes"][1]
    numbers = [
        float(n) for n in found["lines"][2]["path"].replace("M", "").replace("C", "").split()
    ]
    (x1, _, h1, _, h2, _, x2, _) = numbers
    at = (x1 + 3 * h1 + 3 * h2 + x2) / 8
    assert abs(at - middle["x"]) > found["half"]


def test_bands_are_on_one_scale():
    effect = SimpleNamespace(
        low=1.0, middle=2.0, high=3.0, people_low=-1.0, people_middle=0.5, people_high=3.0
    )
    found = band(effect)
    assert found["people_low"] == 10
    assert found["high"] == found["people_high"] == 290
    assert found["zero"] == 80
    still = SimpleNamespace(**dict.fromkeys(vars(effect), 0.0))
    assert band(still)["zero"] == 10


def test_how_hard_a_change_is_is_said_in_words(someone):
    someone.send("consent")
    for weight, words in pages.WEIGHTS.items():
        assert words in someone.page.words
        assert f'value="{weight:g}"' in someone.answer.text
