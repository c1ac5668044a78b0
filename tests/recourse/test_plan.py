"""What a plan tells people: sentences to the letter, and numbers in natural units."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax import Action, Graph, Plan, PlanStatus
from pcr_jax.recourse import pose
from pcr_jax.recourse.problem import per_user
from pcr_jax.recourse.rounding import EXACT

pytestmark = pytest.mark.x64
NAMES = ["income", "savings", "debt"]
GRAPH = Graph.from_edges(NAMES, [])
X = jnp.array([2100.0, 800.0, 12.5])


def goal(x):
    return x[0]


def plan_of(*users, decimals=(0, 0, 1), x=X):
    """From (action, counterfactual, status) of every user."""
    actions, after, status = zip(*users, strict=True)
    value, hard = (jnp.stack([getattr(a, name) for a in actions]) for name in ("value", "hard"))
    good = np.isin(status, [PlanStatus.found, PlanStatus.already_favourable])
    return Plan(
        Action(value, hard),
        jnp.asarray(after, float),
        np.where(good, np.arange(1.0, 1 + len(users)), np.inf),
        good,
        good & (np.arange(len(users)) % 2 == 0),
        good & (np.arange(len(users)) % 4 == 0),
        np.full(len(users), np.nan),
        np.array([int(s) for s in status]),
        np.full(len(users), 7),
        np.full(len(users), 9),
        np.tile(decimals, (len(users), 1)),
        pose(goal, GRAPH, np.tile(x, (len(users), 1)), scale=np.ones(3)),
        per_user(pcr.non_causal(GRAPH), len(users)),
    )


def sentence(action, after, status=PlanStatus.found, x=X, decimals=(0, 0, 1)):
    plan = plan_of((action, after, status), decimals=decimals, x=x)
    return plan.to_frame(NAMES).sentence[0]


NOTHING = Action.empty(3)


@pytest.mark.parametrize(
    ("action", "after", "said"),
    [
        (
            Action.soft([310.0, 0, 0]),
            [2410.0, 940.0, 12.5],
            "Raise income by 310, from 2,100 to 2,410; savings is then expected to rise to 940.",
        ),
        (
            Action.soft([0, 0, -2.5]),
            [2100.0, 800.0, 10.0],
            "Lower debt by 2.5, from 12.5 to 10.",
        ),
        (
            Action.soft([310.0, 0, -2.5]),
            [2410.0, 800.0, 10.0],
            "Raise income by 310, from 2,100 to 2,410 and lower debt by 2.5, from 12.5 to 10.",
        ),
        (
            Action.soft([-1100.0, 0, 0]),
            [1000.0, 700.0, 20.0],
            "Lower income by 1,100, from 2,100 to 1,000; savings is then expected to fall to 700; "
            "debt is then expected to rise to 20.",
        ),
        (  # a shifted feature that its cause moves further
            Action.soft([310.0, 100.0, 0]),
            [2410.0, 1040.0, 12.5],
            "Raise income by 310, from 2,100 to 2,410 and raise savings by 100, from 800 to 900; "
            "savings is then expected to rise to 1,040.",
        ),
        (  # a feature that is set does not react
            Action.do([0.0, 900.0, 0.0], [False, True, False]),
            [2100.0, 900.0, 11.0],
            "Raise savings by 100, from 800 to 900 and keep it there; "
            "debt is then expected to fall to 11.",
        ),
        (
            Action.do([2000.0, 0.0, 0.0], [True, False, True]),
            [2000.0, 800.0, 0.0],
            "Lower income by 100, from 2,100 to 2,000 and keep it there and "
            "lower debt by 12.5, from 12.5 to 0 and keep it there.",
        ),
        (  # an effect too small to print is not mentioned
            Action.soft([3.0, 0, 0]),
            [2103.0, 800.0001, 12.5],
            "Raise income by 3, from 2,100 to 2,103.",
        ),
        (  # held against its causes
            Action.do([2000.0, 800.0, 0.0], [True, True, False]),
            [2000.0, 800.0, 12.5],
            "Lower income by 100, from 2,100 to 2,000 and keep it there and keep savings at 800.",
        ),
    ],
    ids=[
        "raise, downstream rise",
        "lower",
        "raise and lower",
        "several downstream effects",
        "shifted and moved further",
        "hard",
        "two hard",
        "small effect",
        "held",
    ],
)
def test_a_sentence_says_what_to_do_and_what_follows(action, after, said):
    assert sentence(action, after) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("already_favourable", "Nothing needs to change: the decision is favourable."),
        ("not_found", "No change within the bounds was found to be enough; there may be one."),
        ("zero_gradient", "No change was found: the score does not react to small ones."),
        ("no_model", "No advice: the answers did not lead to a causal model."),
        (
            "not_robust",
            "The decision is favourable, but small changes can undo it; "
            "nothing was found to prevent that.",
        ),
        (
            "budget",
            "The search was ended before it found a change that is enough; there may be one.",
        ),
    ],
)
def test_every_status_without_an_action_has_a_sentence(status, said):
    assert sentence(NOTHING, X, PlanStatus[status]) == said


def test_every_status_is_tested():
    assert {s.name for s in PlanStatus} == {
        "found",
        "already_favourable",
        "not_found",
        "zero_gradient",
        "no_model",
        "not_robust",
        "budget",
        "not_likely",
    }


def test_an_action_that_is_not_likely_enough_is_told_with_what_it_lacks():
    now = [2100.0, 800.0, 10.0]
    assert sentence(Action.soft([0, 0, -2.5]), now, PlanStatus.not_likely) == (
        "Lower debt by 2.5, from 12.5 to 10. This is not as likely to be enough as was asked for."
    )


@pytest.mark.parametrize("status", ["not_robust", "budget"])
def test_a_valid_action_that_does_not_meet_the_requirement_is_told_with_what_it_lacks(status):
    assert sentence(Action.soft([0, 0, -2.5]), [2100.0, 800.0, 10.0], PlanStatus[status]) == (
        "Lower debt by 2.5, from 12.5 to 10. As things are this is enough, but small changes can "
        "undo it."
    )


@pytest.mark.parametrize(
    ("shift", "decimals", "said"),
    [
        (0.25, 2, "Raise debt by 0.25, from 12.5 to 12.75."),
        (86.5, 1, "Raise debt by 86.5, from 12.5 to 99."),
        (90.0, -1, "Raise debt by 90, from 20 to 110."),
        (-10.0, -1, "Lower debt by 10, from 10 to 0."),
        (1234567.0, 0, "Raise debt by 1,234,567, from 13 to 1,234,580."),
        (1.2e-5, 6, "Raise debt by 0.000012, from 12.5 to 12.500012."),
        (1.2e-5, EXACT, "Raise debt by 0.000012, from 12.5 to 12.500012."),
        (1234567.0, EXACT, "Raise debt by 1,234,567, from 12.5 to 1,234,579.5."),
    ],
)
def test_numbers_have_the_decimals_of_the_plan_and_the_present_is_rounded_towards_the_move(
    shift, decimals, said
):
    after = X.at[2].add(shift)
    assert sentence(Action.soft([0, 0, shift]), after, decimals=[0, 0, decimals]) == said


USERS = (
    (Action.soft([310.0, 0, 0]), [2410.0, 940.0, 12.5], PlanStatus.found),
    (NOTHING, X, PlanStatus.already_favourable),
    (NOTHING, X, PlanStatus.not_found),
    (Action.do([0.0, 900.0, 5.0], [False, True, True]), [2100.0, 900.0, 5.0], PlanStatus.found),
)


def test_a_frame_has_a_row_per_user_in_natural_units():
    plan, nan = plan_of(*USERS), np.nan
    table = plan.to_frame(NAMES)
    features = [n + what for n in NAMES for what in (" (now)", " (action)", " (expected)")]
    verified = ["valid", "robust_valid", "certified", "num_perturbations"]
    first = ["status", "cost", *verified, "intervention_set"]
    assert list(table.columns) == [*first, *features, "sentence"]
    assert list(table.status) == ["found", "already_favourable", "not_found", "found"]
    assert list(table.cost) == [1, 2, np.inf, 4]
    assert list(table.valid) == [True, True, False, True]
    assert list(table.robust_valid) == [True, False, False, False]
    assert list(table.intervention_set) == ["income", "none", "none", "savings+debt"]
    np.testing.assert_array_equal(table["income (now)"], [2100] * 4)
    # A shift, of hard interventions too, and NaN for none.
    np.testing.assert_allclose(table["income (action)"], [310, nan, nan, nan])
    np.testing.assert_allclose(table["savings (action)"], [nan, nan, nan, 100])
    np.testing.assert_allclose(table["debt (action)"], [nan, nan, nan, -7.5])
    np.testing.assert_allclose(table["income (expected)"], [2410, 2100, 2100, 2100])
    np.testing.assert_allclose(table["savings (expected)"], [940, 800, 800, 900])
    assert table.sentence[1] == "Nothing needs to change: the decision is favourable."
    assert pd.api.types.is_bool_dtype(table.valid)
    assert pd.api.types.is_float_dtype(table.cost)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:2], "names of 3 features; got 2"),
        ([*NAMES, "age"], "names of 3 features; got 4"),
        (NAMES[::-1], "names in the order"),
    ],
)
def test_names_have_to_fit(names, message):
    with pytest.raises(ValueError, match=message):
        plan_of(*USERS).to_frame(names)


def test_a_plan_prints_its_statuses():
    assert repr(plan_of(*USERS)) == "Plan(4 users: 2 found, 1 already_favourable, 1 not_found)"
