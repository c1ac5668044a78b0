"""``pcr-jax serve``: its arguments, what it opens, and a real conversation."""

import argparse
import json
import socket
import threading

import pytest

from pcr_jax.frontends.store.store import Conflict
from pcr_jax.frontends.web import serve
from tests.frontends import fakes
from tests.frontends.serving import Browser, serving


def parsed(*arguments):
    parser = argparse.ArgumentParser(prog="pcr-jax")
    serve.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(["serve", *arguments])


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The environment of a worker that serves the demonstration."""
    database = f"sqlite:///{tmp_path}/demo.sqlite"
    arguments = {"task": None, "study": None, "database": database}
    monkeypatch.setenv(serve._ARGUMENTS, json.dumps(arguments))
    return arguments


def test_arguments():
    args = parsed("--demo")
    assert (args.host, args.port, args.workers, args.database) == ("127.0.0.1", 8000, 1, None)
    assert parsed("bank:loan", "--port", "9000").task == "bank:loan"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--demo", "bank:loan"],
        ["--demo", "--study", "study.toml"],
        ["--demo", "--port", "0"],
        ["--demo", "--port", "65536"],
        ["--demo", "--workers", "many"],
        ["--demo", "--workers", "\N{ARABIC-INDIC DIGIT TWO}"],
    ],
)
def test_arguments_that_cannot_be(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(*arguments)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_at_once(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            serve.run(parsed("--demo", "--port", f"{port}"))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pcr-jax: error: cannot listen at 127.0.0.1, port {port}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobank:loan"], "nobank cannot be imported"),
        (["--demo", "--database", "mysql://a"], "Expected"),
        (["--study", "/nowhere/study.toml"], "cannot be read"),
    ],
)
def test_mistakes_are_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setenv(serve._ARGUMENTS, "")
    monkeypatch.setenv("PCR_JAX_SECRET", "a secret")
    monkeypatch.setattr(serve, "_listening", lambda *_: socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(SystemExit) as stopped:
        serve.run(parsed(*arguments))
    assert stopped.value.code == 2
    found = capsys.readouterr()
    assert said in found.err
    assert len(found.err.splitlines()) == 1


def test_a_study_that_has_not_begun_is_refused(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        'name = "loans"\ntask = "pcr_jax.frontends.demo:demo_task"\nconsent = "Please."\n'
        '[applicants]\nsynthetic = 4\n[arms.one]\ndesign = "random"\n'
    )
    with pytest.raises(ValueError, match="pcr-jax study new"):
        serve._served(None, f"{study}", None)


def test_who_comes_by_at_once_gets_a_place_of_their_own(demo):
    served = serve._served(**demo)
    again = serve._served(**demo)
    assert again.study == served.study
    assert again.settings.seed == served.settings.seed
    tokens = []

    def come(served):
        for _ in range(5):
            tokens.append(served.enrol())

    threads = [threading.Thread(target=come, args=(one,)) for one in (served, again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    people = served.store.participants(served.study.id)
    assert sorted(one.position for one in people) == list(range(10))
    assert {served.store.by_token(token).id for token in tokens} == {one.id for one in people}
    assert len({json.dumps(one.applicant) for one in people}) > 5
    with pytest.raises(Conflict):
        served.store.new_study("demo", {})
    served.store.close()
    again.store.close()


def test_the_demonstration_offers_to_try(demo, monkeypatch):
    """With the real task and store, and a conversation that is quick."""

    class Engine(fakes.Engine):
        def __init__(self, store, task, arms):
            super().__init__(store, task.features)

        def warm_up(self, report):
            report("something")

    monkeypatch.setattr("pcr_jax.frontends.engine.Engine", Engine)
    monkeypatch.setenv("PCR_JAX_SECRET", "a secret")
    with serving(serve.worker()) as base:
        browser = Browser(base)
        browser.get("/")
        browser.send(action="/try")
        browser.send("consent")
        assert browser.page.main["data-step"] == "profile"
        for words in ("monthly income", "time to pay it back", "gender", "years"):
            assert words in browser.page.words
        browser.http.close()


@pytest.mark.slow
def test_a_conversation_about_a_loan(demo, monkeypatch):
    """The whole path with the real engine."""
    monkeypatch.setenv("PCR_JAX_SECRET", "a secret")
    app = serve.worker()
    assert app.state.site.engine.ready.wait(600)
    with serving(app) as base:
        browser = Browser(base)
        browser.http.timeout = 120
        browser.get("/")
        browser.send(action="/try")
        browser.send("consent")
        browser.send("profile", locked_0="yes", weight_1="4")
        asked = []
        for _ in range(8):
            if browser.page.main["data-step"] != "question":
                break
            question = json.loads(browser.page.main["data-question"])
            asked.append(question["column"])
            fields = [own for tag, own in browser.page.tags if "data-column" in own]
            typed = {own["name"]: f"{float(own['data-now']):.0f}" for own in fields}
            browser.send("question", **typed)
            assert browser.answer.status_code == 200, browser.page.words
        assert 1 <= len(asked) <= 6
        assert "education" not in asked
        assert browser.answer.url.path == "/understood"
        assert "We now expect your" in browser.page.words
        browser.get("/what-if")
        number = next(own for _, own in browser.page.tags if own.get("id") == "value-0")
        browser.send(action="/what-if", value_0=f"{float(number['value'].replace(',', '')) - 500}")
        assert "of 100 cases" in browser.page.words
        browser.get("/understood")
        browser.send("plan")
        assert browser.answer.url.path == "/advice"
        browser.send("feedback", verdict="might")
        assert browser.page.main["data-step"] == "done"
        assert "Dear applicant" in browser.page.words
        browser.http.close()
