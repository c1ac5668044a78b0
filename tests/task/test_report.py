"""Letters and reports: what people are told, and the same for machines."""

import json
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

import pcr_jax as pcr
from tests.task.population import GRAPH, JOBS, people, scm_of

DATA = people(60)


class Model:
    """A model that has no package."""

    classes_ = np.array(["refused", "granted"])

    def predict_proba(self, rows):
        jobs = rows.job.map(JOBS.index)
        share = 1 / (1 + np.exp(-(rows.income / 500 + 2 * jobs + rows.savings / 2000 - 8)))
        return np.stack([1 - share, share], 1)


@pytest.fixture(scope="module")
def task():
    return pcr.Task(
        model=Model(),
        favourable="granted",
        data=DATA,
        graph=GRAPH,
        features={
            "job": pcr.Levels(JOBS, direction="increase"),
            "income": pcr.Real(low=0.0, high=9000.0, step=100.0, unit="euros", label="<b>pay</b>"),
            "rating": pcr.Integer(low=1, high=4, actionable=False),
        },
    )


@pytest.fixture(scope="module")
def plan(task):
    rows = DATA[(DATA.job == "none") & (DATA.income < 2000)].iloc[:2]
    jobs = np.random.default_rng(0).normal(700, 100, (2, 250))
    draws = [[scm_of(task.graph, job).coefficients for job in own] for own in jobs]
    linear = jax.vmap(jax.vmap(lambda numbers: pcr.linear_scm(task.graph, numbers)))
    return task.recourse(rows, linear(np.array(draws)), level=0.9, k=2)


class Tags(HTMLParser):
    """Which elements are open and closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("meta", "br", "line", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_a_letter_says_what_to_do_and_how_sure_it_is(plan):
    letter = plan.letter(plan.rows.index[0])
    assert len(letter.splitlines()) < 35
    assert all(len(line) < 120 for line in letter.splitlines())
    for phrase in plan.steps(0, plan.first[0]):
        assert f"{phrase[0].upper()}{phrase[1:]}." in letter
    assert "Or, instead:" in letter
    assert "is enough in" in " ".join(letter.split())
    with pytest.raises(ValueError, match="row to be one of"):
        plan.letter()
    with pytest.raises(ValueError, match="row to be one of"):
        plan.letter("nobody")


def test_without_a_level_nothing_is_said_of_how_sure_it_is(task, plan):
    letter = task.recourse(plan.rows, scm_of(task.graph)).letter(plan.rows.index[0])
    assert "how sure it is was not worked out." in " ".join(letter.split())


def test_who_needs_nothing_is_told_so(task):
    pleased = DATA[Model().predict_proba(DATA)[:, 1] > 0.5].iloc[:1]
    letter = task.recourse(pleased, scm_of(task.graph)).letter()
    assert "Nothing needs to change" in letter


def test_a_report_is_one_page_and_strict_json(plan):
    pytest.importorskip("jinja2")
    report = plan.report(plan.rows.index[1])
    tags = Tags(report.html)
    assert not tags.open
    assert "svg" in tags.seen
    assert "b" not in tags.seen
    assert "&lt;b&gt;pay&lt;/b&gt;" in report.html

    def refuse(constant):
        raise ValueError(constant)

    content = json.loads(report.json, parse_constant=refuse)
    table = plan.to_frame().iloc[1]
    assert content["plans"][0]["p_valid"] == pytest.approx(table.p_valid)
    assert content["plans"][0]["sentence"] == table.sentence
    assert [row["level"] for row in content["price"]] == [0.5, 0.8, 0.9, 0.95]
    costs = [row["cost"] for row in content["price"] if row["cost"] is not None]
    assert costs == sorted(costs)
    assert content["graph"]["edges"] == list(plan.task.graph.edge_names)
    assert content["person"]["job"] == "none"
    assert {"pcr-jax", "jax", "numpyro"} <= set(content["versions"])
    assert content["seeds"] == {"draws": [0, 0]}
