"""The paper's method beside others."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax.experiments import PAPER, beyond, quick
from pcr_jax.experiments.parts import TABLES, Unit, read_part, write_part

ASKED = replace(PAPER, seeds=1, beyond_people=8, beyond_questions=(0, 2))


def rows_of(labels):
    """Parts as they should be, but for what was found."""
    numbers = dict.fromkeys(TABLES["beyond"], 0.5) | {"scm": "m1", "seed": 0, "num_users": 8}
    named = ({"design": d, "prior": p, "questions": t} for d, p, t in labels)
    return {"beyond": [numbers | some for some in named], "beyond_interventions": []}


def test_a_part_has_a_row_for_every_method_prior_and_number_of_questions(tmp_path):
    unit, labels = Unit("beyond", "m1"), beyond.labels_of_rows(ASKED.beyond_questions)
    (tmp_path / "parts").mkdir()
    assert len(labels) == len(set(labels)) == 2 * (7 + 6)
    write_part(tmp_path, unit, 1.0, rows_of(labels))
    assert read_part(tmp_path, ASKED, unit) is not None
    for wrong in (labels[1:], labels[::-1], [*labels[:-1], ("other", "flat", 0)]):
        write_part(tmp_path, unit, 1.0, rows_of(wrong))
        with pytest.raises(ValueError, match="not a result"):
            read_part(tmp_path, ASKED, unit)


def test_quick_is_smaller_and_leaves_out_what_is_left_out():
    assert quick(PAPER).beyond_people == 0
    assert 0 < quick(replace(PAPER, beyond_people=500)).beyond_people < 100


@pytest.mark.slow
def test_figures_are_of_those_who_are_served():
    truth = pcr.library.m1()
    x = jnp.zeros((3, 3))

    def score(x):
        return x[0] - 1.0

    plan = pcr.find_recourse(score, truth, x, scale=jnp.ones(3), digits=None)
    nobody = replace(plan, cost=plan.cost.at[0].set(jnp.inf))
    found = beyond.figures(nobody, truth, jnp.array([1.0, 0.5, 1.0]))
    assert found["num_users"] == 3
    np.testing.assert_allclose(found["served"], 2 / 3)
    assert found["validity"] == 1.0
    np.testing.assert_allclose(found["cost_ratio"], 2 / 1.5, rtol=1e-3)
    np.testing.assert_allclose(found["cost_ratio_median"], 1.5, rtol=1e-3)
    assert np.isnan(found["stated"])


@pytest.mark.slow
def test_all_methods_are_asked_and_judged_and_questions_make_plans_cheaper():
    protocol = replace(ASKED, beyond_people=32, beyond_questions=(0, 6))
    rows, patterns = (pd.DataFrame(part) for part in beyond.beyond_rows(protocol, "m2", 0))
    labels = list(rows[["design", "prior", "questions"]].itertuples(index=False, name=None))
    assert labels == beyond.labels_of_rows((0, 6))
    chance = rows[rows.stated.notna()]
    # Of 32 people, at a validity of .95: one run in a thousand has less than .8.
    assert (chance.validity >= 0.8).all()
    ratios = chance.pivot(index=["design", "prior"], columns="questions", values="cost_ratio")
    assert (ratios[6] < ratios[0]).all()
    shares = patterns.groupby(["design", "prior", "questions"]).share.sum()
    np.testing.assert_allclose(shares, 1.0, rtol=1e-5)
