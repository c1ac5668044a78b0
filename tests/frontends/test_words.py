"""Sentences about what an answer changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax.frontends.words import effect_sentence, effects_of, most_changed


def score(x):
    return x[0] - 1.0


score.names = ("job", "income", "savings", "phone")


@pytest.fixture(scope="module")
def task():
    data = pd.DataFrame(
        {
            "job": ["none", "some", "full"],
            "income": [1000.0, 2000.0, 4000.0],
            "savings": [0.0, 500.0, 900.0],
            "phone": [False, True, True],
        }
    )
    features = {
        "job": pcr.Levels(["none", "some", "full"]),
        "income": pcr.Real(low=0, high=9000, step=100, unit="euros", label="monthly income"),
        "savings": pcr.Real(low=0, high=9000, unit="euros"),
        "phone": pcr.Levels([False, True]),
    }
    graph = [("job", "income"), ("income", "savings"), ("job", "phone")]
    return pcr.Task(model=score, data=data, graph=graph, features=features)


def about(middle, low, high):
    """Draws with this median and these quantiles."""
    return np.interp(np.linspace(0, 1, 2001), [0.05, 0.5, 0.95], [low, middle, high])


def said(task, after, before=None, cause="income", effect="savings", now=2400.0, shift=100.0):
    return effect_sentence(task, cause, effect, now, shift, after, before)


def test_what_is_expected_comes_with_its_range_and_what_was_before(task):
    assert said(task, about(812, 510, 1090), about(640, 90, 1210)) == (
        "We now expect your savings to rise by about 800 euros (500 to 1,100) if you raise your "
        "monthly income by 100 euros; before: 600 (100 to 1,200)."
    )
    assert said(task, about(-812, -1090, -510)) == (
        "We now expect your savings to fall by about 800 euros (500 to 1,100) if you raise your "
        "monthly income by 100 euros."
    )


def test_directions_are_said_where_they_differ(task):
    assert said(task, about(400, -200, 900), about(-400, -700, -100), shift=-300.0) == (
        "We now expect your savings to rise by about 400 euros (a fall of 200 to a rise of 900) if "
        "you lower your monthly income by 300 euros; before: a fall of 400 (100 to 700)."
    )
    assert "to stay about as now (a fall of 800 to a rise of 800) if" in said(
        task, about(0, -800, 800), about(0, -900, 800)
    )
    assert said(task, np.zeros(9), np.ones(9)).startswith("We now expect your savings to stay as")


def test_certain_effects_have_no_range_and_the_same_is_said_to_be(task):
    once = np.full(100, 150.0)
    assert said(task, once, once) == (
        "We now expect your savings to rise by 150 euros if you raise your monthly income by 100 "
        "euros, as before."
    )


def test_levels_are_counted(task):
    words = said(task, about(0.62, 0.4, 0.8), None, "income", "job")
    assert "your job to rise by about 0.6 levels (0.4 to 0.8) if" in words
    words = said(task, about(300, 200, 400), None, "job", "income", 0.0, 1.0)
    assert words.endswith("(200 to 400) if you raise your job by one level.")
    words = said(task, about(0.3, 0.1, 0.5), None, "job", "phone", 0.0, 2.0)
    assert "your phone to rise by about 0.3 of the way from no to yes (0.1 to 0.5) if" in words
    assert said(task, about(300, 200, 400), None, "phone", "income", 0.0, 1.0).endswith(
        "if you change your phone from no to yes."
    )


def test_an_unknown_scm_is_said_to_be(task):
    assert said(task, np.full(9, np.nan)) == (
        "From the answers so far we cannot say what would become of your savings."
    )
    assert "before" not in said(task, about(300, 200, 400), np.full(9, np.nan))


def test_effects_are_those_of_the_draws(task):
    draws = jnp.array([[500.0, 0.5, 0.1], [700.0, 0.2, 0.3]])
    by_name = {"income <- job": 0, "savings <- income": 1, "phone <- job": 2}
    places = [by_name[name] for name in task.graph.edge_names]
    scms = jax.vmap(lambda row: pcr.linear_scm(task.graph, row))(draws[:, jnp.array(places)])
    x, job = task.encode(task.data.iloc[:1])[0], list(task.features).index("job")
    found = effects_of(scms, x, job, 2.0)
    expected = {"job": [2, 2], "income": [1000, 1400], "savings": [500, 280], "phone": [0.2, 0.6]}
    for j, column in enumerate(task.features):
        np.testing.assert_allclose(found[:, j], expected[column], rtol=1e-4)


def test_what_changed_most_is_by_what_was_believed():
    before = np.stack([about(0, -100, 100), about(0, -1, 1)], 1)
    after = np.stack([about(20, -80, 120), about(0.5, -0.5, 1.5)], 1)
    assert most_changed(before, after, [0, 1]) == 1
    assert most_changed(before, after, [0]) == 0
