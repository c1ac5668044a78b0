"""The pages in a real browser: by mouse, by keyboard, narrow, without JavaScript; and axe-core."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from pcr_jax.frontends.web.app import Settings, create_app
from tests.frontends import fakes
from tests.frontends.serving import serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-quic",
]
LONG = "der monatliche Nettoverdienstausfallentschädigungsversicherungsbeitragszuschuss " * 2
ARABIC = "الدخل الشهري بعد الضرائب"
PASSWORD = "password"
UNKNOWN, DASH = "I don\N{RIGHT SINGLE QUOTATION MARK}t know", "\N{EN DASH}"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def served(features=None):
    store = fakes.Store()
    settings = Settings(
        study=1,
        title="What could you change?",
        consent=("You play somebody whom a bank refused a loan.", "It takes ten minutes."),
        enrol=lambda: fakes.enrol(store)[1],
        password=PASSWORD,
    )
    return store, create_app(store, fakes.Engine(store, features), settings)


@pytest.fixture(scope="module")
def site():
    store, app = served()
    with serving(app) as base:
        yield SimpleNamespace(store=store, base=base)


class Visitor:
    """A page that notes what goes wrong in it."""

    def __init__(self, chromium, base, **settings):
        self.base = base
        self.context = chromium.new_context(
            **{"viewport": {"width": 1200, "height": 900}, **settings}
        )
        self.page = self.context.new_page()
        self.hosts, self.wrong = set(), []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.page.on("console", self._console)

    def _console(self, message):
        # A form that is to be filled in again is no error.
        if message.type == "error" and "422" not in message.text and "403" not in message.text:
            self.wrong.append(message.text)

    @property
    def step(self):
        return self.page.locator("main").get_attribute("data-step")

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def answer(self, *texts):
        for i, text in enumerate(texts):
            self.page.locator(f"#answer-{i}").fill(text)
        self.press("Next")

    def close(self):
        assert self.hosts <= {urlsplit(self.base).netloc}
        assert not self.wrong
        self.context.close()


@pytest.fixture
def visit(chromium, site):
    """Opens a browser of its own on the site."""
    visitors = []

    def make(base=site.base, **settings):
        visitors.append(Visitor(chromium, base, **settings))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()


def path(visitor):
    """Every page of the way, one after the other; by mouse."""
    page = visitor.page
    page.goto(visitor.base)
    yield "start"
    visitor.press("Try it")
    yield "consent"
    visitor.press("I agree, let us begin")
    yield "profile"
    page.locator("#low-2").fill("many")
    visitor.press("Go on to the questions")
    yield "profile with a mistake"
    page.locator("#low-2").fill("0")
    visitor.press("Go on to the questions")
    yield "question"
    visitor.answer("many", "?")
    yield "question with a mistake"
    visitor.answer("2,700", "4000-6000")
    yield "second question"
    visitor.answer("4500")
    page.get_by_role("link", name="What we understood so far").click()
    yield "understood so far"
    page.get_by_role("link", name="Go on with the questions").click()
    visitor.press(UNKNOWN)
    page.get_by_text("The same as a table").click()
    yield "understood"
    page.get_by_role("link", name="Try things out first").click()
    yield "what-if"
    page.locator("#value-2").fill("3000")
    button = page.get_by_role("button", name="What would follow?")
    if button.is_visible():
        button.click()
    page.get_by_text("This is enough in 30 of 100 cases").wait_for()
    yield "what-if with an outcome"
    visitor.press("Show me what I can do")
    yield "advice"
    visitor.press("Send and finish")
    yield "advice with a mistake"
    page.get_by_text("I would do this").click()
    page.locator("#text").fill("Thank you")
    visitor.press("Send and finish")
    yield "done"
    page.get_by_role("link", name="My data").first.click()
    page.get_by_text("Go on later").click()
    yield "data"
    visitor.press("Stop")
    yield "data with a mistake"
    page.get_by_text("Stop; what is recorded").click()
    visitor.press("Stop")
    yield "left"
    page.goto(f"{visitor.base}/join/nobody")
    yield "refused"
    page.goto(f"{visitor.base}/researcher")
    yield "login"
    page.locator("#password").fill("wrong")
    visitor.press("Log in")
    yield "login with a mistake"
    page.locator("#password").fill(PASSWORD)
    visitor.press("Log in")
    yield "researcher"


def overflow(page):
    """By how much a page is wider than the window."""
    page.wait_for_load_state()
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return page.evaluate(script)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"java_script_enabled": False},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True},
        {"viewport": {"width": 360, "height": 740}, "java_script_enabled": False},
    ],
    ids=["mouse", "without JavaScript", "360 px", "360 px without JavaScript"],
)
def test_the_whole_path(visit, site, settings):
    visitor = visit(**settings)
    site.store.logins.clear()
    names, titles = [], []
    for name in path(visitor):
        names.append(name)
        titles.append(visitor.page.title())
        if settings.get("java_script_enabled", True):
            assert overflow(visitor.page) <= 0, name
    assert names[-1] == "researcher"
    assert all(title.endswith(f" {DASH} What could you change?") for title in titles)
    assert titles[3].startswith(f"There is a problem {DASH} About you")
    kinds = [event.kind for event in site.store.events(max(site.store.lists))]
    assert kinds.count("answered") == 3
    assert kinds.count("feedback") == kinds.count("planned") == 1


def test_narrow_pages_fit_without_scripts_too(chromium, site):
    """Layouts are measured from outside: the page's own script does not run."""
    visitor = Visitor(
        chromium, site.base, java_script_enabled=False, viewport={"width": 360, "height": 740}
    )
    for name in path(visitor):
        picture = visitor.page.locator("body").bounding_box()
        assert picture["width"] <= 360, name
        for place in visitor.page.locator("main > *").all():
            box = place.bounding_box()
            assert box is None or box["x"] + box["width"] <= 360.5, name
        if name == "advice":
            break
    visitor.close()


def test_the_whole_path_by_keyboard(visit, site):
    visitor = visit()
    page, key = visitor.page, visitor.page.keyboard

    def until(wanted, most=80):
        """Go on with Tab until what has the focus says so."""
        for _ in range(most):
            key.press("Tab")
            said = page.evaluate(
                "(e => [e.innerText, e.value, e.id, e.getAttribute('aria-label')].join('|'))"
                "(document.activeElement)"
            )
            shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle != 'none'")
            assert shown, said
            if wanted in said:
                return
        raise AssertionError(f"{wanted} cannot be reached by Tab")

    page.goto(site.base)
    key.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    box = page.locator(".skip").bounding_box()
    assert box["x"] >= 0
    key.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    until("Try it")
    key.press("Enter")
    page.wait_for_url("**/consent")
    until("I agree")
    key.press("Enter")
    page.wait_for_url("**/profile")
    until("locked-1")
    key.press("Space")
    until("weight-2")
    key.press("ArrowRight")
    until("Go on to the questions")
    key.press("Enter")
    page.wait_for_url("**/question")
    profile = site.store.events(max(site.store.lists))[1].payload
    assert profile["locked"] == ["home"]
    assert profile["weights"] == {"income": 2.0}
    until("answer-0")
    key.type("2700")
    until("answer-1")
    key.type("5000")
    key.press("Enter")  # sends what is typed, not "I don't know"
    page.get_by_text("Question 2 of").first.wait_for()
    answered = site.store.events(max(site.store.lists))[3].payload
    assert answered["typed"] == {"income": "2700", "savings": "5000"}
    for number in (3, None):
        until(UNKNOWN)
        key.press("Enter")
        if number:
            page.get_by_text(f"Question {number} of").first.wait_for()
    page.wait_for_url("**/understood")
    until("The same as a table")
    key.press("Enter")
    until("Try things out first")
    key.press("Enter")
    page.wait_for_url("**/what-if")
    until("monthly income")
    key.press("ArrowRight")
    page.get_by_text("This is enough in 30 of 100 cases").wait_for()
    assert page.locator("#value-1").input_value() == "2400"
    until("Show me what I can do")
    key.press("Enter")
    page.wait_for_url("**/advice")
    until("verdict-0")
    key.press("ArrowDown")
    until("Send and finish")
    key.press("Enter")
    page.wait_for_url("**/done")
    assert site.store.events(max(site.store.lists))[-2].payload["verdict"] == "might"


def found_by_axe(page):
    """What axe-core has against a page, by rule; it has to have looked."""
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    options = {"runOnly": {"type": "tag", "values": TAGS}}
    found = page.evaluate("options => axe.run(document, options)", options)
    assert len(found["passes"]) >= 8
    return [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found["violations"]]


def test_who_is_quicker_than_the_program_waits(chromium):
    _, app = served()
    engine = app.state.site.engine
    engine.ready.clear()
    with serving(app) as base:
        visitor = Visitor(chromium, base, bypass_csp=True)
        visitor.page.goto(base)
        for button in ("Try it", "I agree, let us begin", "Go on to the questions"):
            visitor.press(button)
        visitor.page.get_by_role("heading", name="One moment").wait_for()
        assert not found_by_axe(visitor.page)
        engine.ready.set()
        visitor.page.get_by_text("Question 1 of").first.wait_for()  # by itself
        visitor.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_nothing(chromium, site, scheme, width):
    visitor = Visitor(
        chromium,
        site.base,
        bypass_csp=True,
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": width, "height": 900},
    )
    site.store.logins.clear()
    for name in path(visitor):
        assert not found_by_axe(visitor.page), name
    visitor.close()


@pytest.mark.parametrize("label", [ARABIC, LONG, "x" * 150], ids=["Arabic", "long", "one word"])
def test_labels_of_any_kind_fit(chromium, label):
    _, app = served(fakes.relabelled(label))
    with serving(app) as base:
        for width in (360, 1200):
            visitor = Visitor(chromium, base, viewport={"width": width, "height": 740})
            page = visitor.page
            page.goto(base)
            visitor.press("Try it")
            visitor.press("I agree, let us begin")
            page.locator("legend span").first.wait_for()
            assert overflow(page) <= 0
            way = page.locator("legend span").first.evaluate("e => getComputedStyle(e).direction")
            assert way == ("rtl" if label is ARABIC else "ltr")
            visitor.press("Go on to the questions")
            for number in (1, 2, 3):
                page.get_by_text(f"Question {number} of").first.wait_for()
                assert overflow(page) <= 0
                many = page.locator("input[data-column]").count() > 1
                visitor.press(f"{UNKNOWN} any of these" if many else UNKNOWN)
            page.wait_for_url("**/understood")
            assert overflow(page) <= 0
            for box in page.locator(".graph text").all():
                place = box.bounding_box()
                assert place["x"] >= 0
                assert place["x"] + place["width"] <= width
            page.goto(f"{base}/what-if")
            assert overflow(page) <= 0
            visitor.press("Show me what I can do")
            page.wait_for_url("**/advice")
            assert overflow(page) <= 0
            visitor.close()


def test_back_reload_and_two_tabs(visit, site):
    visitor = visit()
    page = visitor.page
    page.goto(site.base)
    visitor.press("Try it")
    visitor.press("I agree, let us begin")
    visitor.press("Go on to the questions")
    other = visitor.context.new_page()
    other.goto(f"{site.base}/question")
    visitor.answer("2700", "5000")
    page.get_by_text("Question 2 of").first.wait_for()
    page.reload()
    assert "Question 2 of" in page.title()
    other.locator("#answer-0").fill("1")
    other.locator("#answer-1").fill("1")
    other.get_by_role("button", name="Next").click()
    assert "answered already in another window" in other.locator("main").inner_text()
    assert "Question 2 of" in other.title()
    page.go_back()
    page.wait_for_load_state()
    if "Question 1" in page.title():  # the browser's own copy of the page
        visitor.answer("1", "1")
        assert "answered already" in page.locator("main").inner_text()
    kinds = [event.kind for event in site.store.events(max(site.store.lists))]
    assert kinds.count("answered") == 1


def test_two_clicks_are_one(visit, site):
    visitor = visit()
    page = visitor.page
    page.goto(site.base)
    visitor.press("Try it")
    visitor.press("I agree, let us begin")
    visitor.press("Go on to the questions")
    page.locator("#answer-0").fill("2700")
    page.locator("#answer-1").fill("?")
    page.get_by_role("button", name="Next").dblclick()
    page.get_by_text("Question 2 of").first.wait_for()
    assert not page.get_by_text("answered already").count()


def test_one_goes_on_elsewhere_by_the_link(visit, site):
    visitor, other = visit(), visit()
    visitor.page.goto(site.base)
    visitor.press("Try it")
    visitor.press("I agree, let us begin")
    visitor.press("Go on to the questions")
    visitor.answer("2700", "5000")
    visitor.page.get_by_text("Go on later").click()
    link = visitor.page.locator(".link a").inner_text()
    other.page.goto(link)
    assert "Question 2 of" in other.page.title()
    assert "join" not in other.page.url


def test_answers_are_checked_while_they_are_typed(visit, site):
    visitor = visit()
    page = visitor.page
    page.goto(site.base)
    visitor.press("Try it")
    visitor.press("I agree, let us begin")
    visitor.press("Go on to the questions")
    page.locator("#answer-0").fill("2,700")
    page.get_by_text("We read: 2,700 euros.").wait_for()
    page.locator("#answer-0").fill("many")
    page.locator("#read-0.bad").wait_for()
    page.locator("#answer-0").fill("")
    page.locator("#hint-0").wait_for()
    assert page.locator("#read-0").inner_text() == ""


def test_sliders_move_with_their_numbers(visit, site):
    visitor = visit()
    page = visitor.page
    page.goto(site.base)
    visitor.press("Try it")
    visitor.press("I agree, let us begin")
    visitor.press("Go on to the questions")
    page.goto(f"{site.base}/what-if")
    slider, number = page.locator("input[type=range]").first, page.locator("#value-2")
    assert slider.input_value() == number.input_value() == "2350"
    slider.fill("3050")
    assert number.input_value() == "3050"
    page.get_by_text("This is enough in 30 of 100 cases").wait_for()
    number.fill("4,000")
    assert slider.input_value() == "4000"
    page.locator("#value-0").select_option("full time")
    page.get_by_text("This is enough in 50 of 100 cases").wait_for()
    number.fill("many")
    page.locator("#outcome .wrong").wait_for()
    visitor.press("As it is now")
    page.get_by_text("Nothing is changed yet").wait_for()
    assert number.input_value() == "2350"


def test_pages_are_light(visit, site):
    visitor = visit()
    site.store.logins.clear()
    sizes, session = {}, visitor.context.new_cdp_session(visitor.page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    now = []
    session.on("Network.loadingFinished", lambda event: now.append(event["encodedDataLength"]))
    for name in path(visitor):
        visitor.page.wait_for_load_state("networkidle")
        sizes[name], now[:] = sum(now), []
    assert len(sizes) > 15
    assert 5_000 < max(sizes.values()) < 200_000, sizes


def test_a_letter_prints_without_what_is_around_it(visit, site):
    visitor = visit()
    for name in path(visitor):
        if name == "done":
            break
    visitor.page.emulate_media(media="print")
    assert visitor.page.locator(".letter").is_visible()
    for place in ("footer", ".steps", ".take", ".aside", ".mine"):
        assert not visitor.page.locator(place).first.is_visible()
    assert re.search("Raise your monthly income", visitor.page.locator(".letter").inner_text())
