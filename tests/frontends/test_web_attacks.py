"""What somebody with bad intentions can send, and what comes of it."""

import logging
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest

from pcr_jax.frontends.web.app import Settings, create_app
from pcr_jax.frontends.web.security import (
    PERSON,
    RESEARCHER,
    Buckets,
    Keys,
    address,
    own,
)
from tests.frontends import fakes
from tests.frontends.serving import Browser, serving

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}{% raw %}"
SQL = "'; DROP TABLE participants; --"
PASSWORD = "a long password, with ü"


@pytest.fixture(scope="module")
def site():
    store = fakes.Store()
    # What the other tests share is not limited by how often they ask.
    settings = Settings(
        study=1,
        title=f"Study {EVIL}",
        consent=(f"Welcome {EVIL}",),
        enrol=lambda: fakes.enrol(store)[1],
        secret="known to this test alone",
        password=PASSWORD,
    )
    engine = fakes.Engine(store, fakes.relabelled(EVIL, names=[EVIL, "b", "c"]))
    with serving(create_app(store, engine, settings)) as base:
        yield SimpleNamespace(store=store, base=base, engine=engine, settings=settings)


def joined(site, **entries):
    participant, token = fakes.enrol(site.store, job=EVIL, **entries)
    browser = Browser(site.base)
    browser.get(f"/join/{token}")
    browser.id, browser.token = participant.id, token
    return browser


@pytest.fixture
def someone(site):
    browser = joined(site)
    yield browser
    browser.http.close()


@pytest.fixture
def asked(someone):
    """Somebody who is at a question."""
    someone.send("consent")
    someone.send("profile")
    return someone


def events(site, browser):
    return [event.kind for event in site.store.events(browser.id)]


def clean(browser):
    """Whether a page has no element, attribute or number that a text brought in."""
    tags = [tag for tag, _ in browser.page.tags]
    scripts = [own.get("src", "") for tag, own in browser.page.tags if tag == "script"]
    names = {name for _, attributes in browser.page.tags for name in attributes}
    return (
        "img" not in tags
        and scripts
        and all(src.startswith("/static/") for src in scripts)
        and not any(name.startswith("on") for name in names)
        and "style" not in names
        and "49" not in browser.page.words.replace("{{7*7}}", "")
    )


def test_labels_names_and_answers_are_text_on_every_page(site):
    someone = joined(site)
    pages = []

    def look(browser):
        assert browser.answer.status_code < 500
        assert clean(browser), browser.page.title
        pages.append(browser.page.main["data-step"])

    look(someone)
    someone.send("consent")
    look(someone)
    assert EVIL in someone.page.text  # it is shown, as text
    someone.send("profile", low_2=EVIL)
    look(someone)
    someone.send("profile", low_2="0")
    for i in range(3):
        someone.send("question", **{"answer-0": EVIL, "answer-1": EVIL})
        if someone.answer.status_code == 422:
            look(someone)
            someone.send("question", **{"answer-0": "?", "answer-1": "?"})
        look(someone)
        assert i or someone.page.main["data-step"] == "question"
    someone.get("/what-if")
    look(someone)
    someone.send(action="/what-if", value_2=EVIL)
    look(someone)
    someone.get("/understood")
    someone.send("plan")
    look(someone)
    someone.send("feedback", text=EVIL)
    look(someone)
    someone.send("feedback", text=EVIL, verdict="might")
    look(someone)
    someone.get("/data")
    look(someone)
    someone.get("/understood?note=<script>alert(1)</script>")
    look(someone)
    assert {"consent", "profile", "question", "plan", "feedback", "done", "data"} <= set(pages)
    stored = [e.payload["text"] for e in site.store.events(someone.id) if e.kind == "feedback"]
    assert stored == [EVIL]
    someone.http.close()


def test_no_script_or_style_is_within_a_page(asked):
    for path in ("/question", "/profile", "/understood", "/what-if", "/data"):
        asked.get(path)
        assert not [own for tag, own in asked.page.tags if tag == "script" and "src" not in own]
        assert "<style" not in asked.answer.text


@pytest.mark.parametrize("text", [SQL, "\0", "a\0b", "%00", "\u202e1", "\ud7ff", "x" * 201])
def test_odd_texts_in_every_field(site, asked, text):
    for step, path in (("question", None), ("profile", "/profile"), (None, "/what-if")):
        if path:
            asked.get(path)
        action, fields = asked.page.form(step, path)
        for name in fields:
            if name in ("csrf", "seq"):
                continue
            asked.post(action, {**fields, name: text})
            assert asked.answer.status_code < 500
    assert "answered" not in events(site, asked) or text == "%00"


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "nan", "inf", "-Infinity", "1e308", "1e400", "9" * 60, "9" * 180, "-1", "0x10"),
        *("٣٠٠٠", "\uff13\uff10\uff10\uff10", "²", "½", "Ⅻ", "1_000", "1,0", "--5", "1 2 3 4"),
    ],
)
def test_numbers_that_are_none(site, asked, text):
    asked.send("question", **{"answer-0": text, "answer-1": "?"})
    assert asked.answer.status_code == 422
    assert "answered" not in events(site, asked)
    asked.get("/what-if")
    asked.send(action="/what-if", value_2=text)
    assert asked.answer.status_code == 422
    asked.get("/profile")
    asked.send("profile", high_2=text)
    assert asked.answer.status_code == 422


@pytest.mark.parametrize("field", ["csrf", "seq"])
@pytest.mark.parametrize("value", ["", "x", "-1", "9" * 40, "²", SQL, "0" * 64])
def test_forms_with_changed_hidden_fields(site, asked, field, value):
    before = events(site, asked)
    asked.send("question", **{field: value, "answer-0": "1", "answer-1": "1"})
    assert asked.answer.status_code in (400, 403)
    assert events(site, asked) == before


def test_forms_of_another_person(site, asked):
    other = joined(site)
    path, fields = asked.page.form("question")
    other.post(path, fields)
    assert other.answer.status_code == 403
    assert events(site, other) == []
    other.http.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/consent", "/profile", "/question", "/back", "/check", "/what-if", "/what-if/outcome"),
        *("/advice", "/feedback", "/leave"),
    ],
)
def test_every_form_needs_its_own_page(site, asked, path):
    before = events(site, asked)
    for fields in ({}, {"seq": f"{len(before)}"}, {"csrf": "0" * 64, "seq": f"{len(before)}"}):
        assert asked.http.post(path, data=fields or {"a": "b"}).status_code == 403
    anonymous = httpx.post(site.base + path, data=asked.page.form("question")[1])
    assert anonymous.status_code == 403
    fields = {**asked.page.form("question")[1], "choice": "delete"}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert asked.http.post(path, data=fields, headers=headers).status_code == 403
    assert events(site, asked) == before
    assert site.store.participant(asked.id)


def test_only_forms_are_read(asked):
    fields = asked.page.form("question")[1]
    assert asked.http.post("/question", json=fields).status_code == 415
    assert asked.http.post("/question", data=fields, files={"a": b"x"}).status_code == 415
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"csrf=%ff%fe", b"csrf=\xff", b"&".join(b"a%d=1" % i for i in range(400))):
        assert asked.http.post("/question", content=body, headers=kind).status_code == 400


@pytest.mark.parametrize("path", ["/question", "/try", "/researcher/login", "/nothing"])
def test_bodies_are_limited(site, asked, path):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    before = events(site, asked)
    assert asked.http.post(path, content=b"a" * 65 * 1024, headers=kind).status_code == 413

    def chunks():
        for _ in range(160):
            yield b"a" * 65536

    for content in (b"a" * 10_000_000, chunks()):
        try:
            status = asked.http.post(path, content=content, headers=kind).status_code
        except httpx.TransportError:  # the server has closed the connection meanwhile
            status = 413
        assert status == 413
    assert asked.http.get("/question").status_code == 200
    assert events(site, asked) == before


def test_bodies_that_lie_about_their_length(site):
    place = urlsplit(site.base)
    for length in ("99999999999999999999999", "-5", "0x10"):
        with socket.create_connection((place.hostname, place.port), timeout=10) as line:
            head = f"POST /question HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {length}"
            line.sendall(f"{head}\r\n\r\n".encode())
            assert line.recv(100).split()[1] in (b"400", b"413")


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "InRva2VuIg.x", "é", "=", "x" * 4000])
def test_tampered_cookies_are_refused_and_forgotten(site, cookie):
    value = cookie.encode("utf-8", "surrogatepass")
    with httpx.Client(base_url=site.base) as http:
        for path in ("/", "/question", "/data.json"):
            answer = http.get(path, headers={"cookie": PERSON.encode() + b"=" + value})
            assert answer.status_code == 403
            assert "open the link that you were given" in answer.text
            assert f'{PERSON}=""; ' in answer.headers["set-cookie"]


def resigned(cookie):
    """With another first character of its signature (of the last, two bits mean nothing)."""
    content, signature = cookie.rsplit(".", 1)
    return f"{content}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def test_a_cookie_is_of_its_own_secret_and_token(site, someone):
    own_cookie = someone.http.cookies[PERSON]
    keys = Keys(site.settings.secret)
    assert keys.token(own_cookie) == someone.token
    forged = [
        Keys("another secret").cookie(someone.token),
        keys.cookie("a" * 43),
        keys.login(),
        keys.form("try"),
        resigned(own_cookie),
        own_cookie.rsplit(".", 1)[0],
    ]
    for cookie in forged:
        answer = httpx.get(site.base + "/data.json", cookies={PERSON: cookie})
        assert answer.status_code == 403


def test_cookies_are_kept_from_scripts_and_other_sites(site):
    _, token = fakes.enrol(site.store)
    answer = httpx.get(f"{site.base}/join/{token}")
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=lax" in said
    assert answer.headers["location"] == "/"
    secure = httpx.get(f"{site.base}/join/{token}", headers={"x-forwarded-proto": "https"})
    assert "; secure" in secure.headers["set-cookie"].lower()


@pytest.mark.parametrize("token", ["x", "a" * 43, "a" * 5000, SQL, "..%2f..%2fetc%2fpasswd", "%00"])
def test_links_that_nobody_has(site, token):
    answer = httpx.get(f"{site.base}/join/{token}")
    assert answer.status_code in (403, 404)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/security.py"),
        *("/static//etc/passwd", "/static/", "/templates/base.html", "/letter.txt/../../x"),
    ],
)
def test_files_are_only_those_that_are_meant(site, path):
    place = urlsplit(site.base)
    with socket.create_connection((place.hostname, place.port), timeout=10) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        assert line.recv(100).split()[1] in (b"404", b"403", b"400")


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/question", "/data.json", "/researcher", "/static/style.css"]
)
def test_headers(site, path, asked):
    for client in (asked.http, httpx.Client(base_url=site.base)):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "camera=()" in answer.headers["permissions-policy"]
        kept = (
            "no-store" if not path.startswith("/static") else "public, max-age=31536000, immutable"
        )
        assert answer.headers["cache-control"] == kept
        if client is not asked.http:
            client.close()


def logging_in(site, password, http=None):
    browser = Browser(site.base)
    browser.get("/researcher")
    browser.send(action="/researcher/login", password=password)
    return browser


def test_the_password_is_guessed_five_times_at_most(site):
    site.store.logins.clear()
    for i in range(5):
        browser = logging_in(site, f"guess {i}")
        assert browser.answer.status_code == 403
        assert "This is not the password" in browser.page.words
        browser.http.close()
    for password in ("guess", PASSWORD):  # the right one does not help now either
        browser = logging_in(site, password)
        assert browser.answer.status_code == 429
        assert int(browser.answer.headers["retry-after"]) > 60
        assert RESEARCHER not in browser.http.cookies
        browser.http.close()
    assert len(site.store.logins) == 5
    site.store.logins[:] = [(at - 16 * 60, ok, where) for at, ok, where in site.store.logins]
    browser = logging_in(site, PASSWORD)
    assert browser.page.main["data-step"] == "researcher"
    assert len(site.store.logins) == 6
    browser.http.close()


def test_the_researchers_page_has_counts_but_no_answers(site):
    site.store.logins.clear()
    someone = joined(site)
    someone.send("consent")
    someone.send("profile")
    someone.send("question", **{"answer-0": "4321", "answer-1": "8765"})
    browser = logging_in(site, PASSWORD)
    for path in ("/researcher", "/researcher/counts"):
        browser.get(path)
        assert browser.answer.status_code == 200
        assert "4321" not in browser.answer.text
        assert someone.token not in browser.answer.text
    row = [own for tag, own in browser.page.tags if tag == "td"]
    assert row
    cookie = browser.http.cookies[RESEARCHER]
    browser.get("/researcher")
    browser.send(action="/researcher/logout")
    assert browser.page.main["data-step"] == "login"
    for forged in (
        resigned(cookie),
        Keys("other").login(),
        Keys(site.settings.secret).cookie("in"),
    ):
        answer = httpx.get(f"{site.base}/researcher/counts", cookies={RESEARCHER: forged})
        assert answer.status_code == 403
    browser.http.close()
    someone.http.close()


def test_a_login_ages(monkeypatch):
    keys = Keys("secret")
    cookie, form = keys.login(), keys.form("login")
    assert keys.logged_in(cookie)
    assert keys.of_form(form, "login")
    assert not keys.of_form(form, "try")
    import itsdangerous.timed as timed

    now = timed.time.time()
    monkeypatch.setattr(timed.time, "time", lambda: now + 9 * 3600)
    assert not keys.logged_in(cookie)
    assert not keys.of_form(form, "login")


def test_without_a_password_there_is_no_researchers_page(monkeypatch):
    monkeypatch.delenv("PCR_JAX_RESEARCHER_PASSWORD", raising=False)
    store = fakes.Store()
    settings = Settings(study=1, title="A study", consent=())
    with serving(create_app(store, fakes.Engine(store), settings)) as base:
        for path in ("/researcher", "/researcher/counts"):
            assert httpx.get(base + path).status_code == 404
        answer = httpx.post(f"{base}/researcher/login", data={"password": ""})
        assert answer.status_code == 404


def test_who_asks_too_often_waits():
    store = fakes.Store()
    settings = Settings(study=1, title="A study", consent=(), person=(5, 0.01), place=(40, 0.01))
    with serving(create_app(store, fakes.Engine(store), settings)) as base:
        first, second = (fakes.enrol(store)[1] for _ in range(2))
        with httpx.Client(base_url=base) as http:
            http.get(f"/join/{first}")
            codes = [http.get("/consent").status_code for _ in range(8)]
            assert codes == [200] * 5 + [429] * 3
            assert int(http.get("/consent").headers["retry-after"]) > 10
            http.get(f"/join/{second}")
            assert http.get("/consent").status_code == 200
            codes = [http.get(f"/join/{i}").status_code for i in range(40)]
            assert codes[0] == 403
            assert codes[-1] == 429


def test_buckets_fill_again_and_do_not_grow_without_end(monkeypatch):
    monkeypatch.setattr("pcr_jax.frontends.web.security._MOST_BUCKETS", 100)
    now = [0.0]
    buckets = Buckets(2, 0.5, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 2.0]
    now[0] = 2.0
    assert [buckets.take("a") for _ in range(2)] == [0, 2.0]
    for i in range(1000):
        buckets.take(i)
        assert len(buckets._left) <= 101


def test_logs_have_no_answers(site, asked, monkeypatch, caplog):
    def fails(self, typed):
        raise RuntimeError(f"cannot read {typed}")

    monkeypatch.setattr(fakes.Conversation, "read", fails)
    with caplog.at_level(logging.DEBUG):
        asked.send("question", **{"answer-0": "77665544", "answer-1": "?"})
    assert asked.answer.status_code == 500
    assert "nothing is lost" in asked.page.words
    assert "RuntimeError" in caplog.text
    assert "77665544" not in caplog.text
    assert asked.token not in caplog.text
    assert "77665544" not in asked.page.words


def test_secrets_are_not_in_what_is_printed(site):
    assert PASSWORD not in repr(site.settings)
    assert site.settings.secret not in repr(site.settings)


def test_where_a_form_comes_from():
    def request(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return SimpleNamespace(headers=named, client=None)

    assert own(request(host="a:1"))
    assert own(request(host="a:1", origin="http://a:1"))
    assert own(request(host="a:1", origin="null", sec_fetch_site="same-origin"))
    assert not own(request(host="a:1", origin="http://b:1"))
    assert not own(request(host="a:1", origin="null", sec_fetch_site="cross-site"))
    assert not own(request(host="a:1", sec_fetch_site="same-site"))
    assert address(request()) == "nowhere"
