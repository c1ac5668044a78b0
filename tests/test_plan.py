"""What a plan tells people: sentences to the letter, and numbers in natural units."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from pcr_jax import Action, Plan, PlanStatus

NAMES = ["income", "savings", "debt"]
X = jnp.array([2100.0, 800.0, 12.5])


def plan_of(*users):
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
        np.array([int(s) for s in status]),
        np.full(len(users), 7),
    )


def sentence(action, after, status=PlanStatus.found, x=X):
    return plan_of((action, after, status)).to_frame(NAMES, x[None]).sentence[0]


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
        (  # a change too small to print is not mentioned
            Action.soft([0.1234, 0, 0]),
            [2100.1234, 800.0001, 12.5],
            "Raise income by 0.123, from 2,100 to 2,100.",
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
        "small",
    ],
)
def test_a_sentence_says_what_to_do_and_what_follows(action, after, said):
    assert sentence(action, after) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("already_favourable", "Nothing needs to change: the decision is favourable."),
        ("not_found", "No change within the bounds was found to be enough."),
        ("zero_gradient", "No change was found: the score does not react to small ones."),
        ("no_model", "No advice: the answers did not lead to a causal model."),
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
    }


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (0.00123, "Raise debt by 0.00123, from 12.5 to 12.5."),
        (86.5, "Raise debt by 86.5, from 12.5 to 99."),
        (87.6, "Raise debt by 87.6, from 12.5 to 100."),
        (1234567.0, "Raise debt by 1,234,567, from 12.5 to 1,234,580."),
    ],
)
def test_numbers_have_three_digits_or_all_before_the_point(shift, said):
    assert sentence(Action.soft([0, 0, shift]), X.at[2].add(shift)) == said


def test_a_number_is_never_printed_with_an_exponent():
    said = sentence(Action.soft([0, 0, 87.3]), X.at[2].add(87.3))  # 99.8
    assert said == "Raise debt by 87.3, from 12.5 to 99.8."
    said = sentence(Action.soft([0, 0, 87.47]), X.at[2].add(87.47))  # 99.97, rounded up to 100
    assert said == "Raise debt by 87.5, from 12.5 to 100."
    assert "e-" not in sentence(Action.soft([0, 0, 1.2e-5]), X.at[2].add(1.2e-5))


USERS = (
    (Action.soft([310.0, 0, 0]), [2410.0, 940.0, 12.5], PlanStatus.found),
    (NOTHING, X, PlanStatus.already_favourable),
    (NOTHING, X, PlanStatus.not_found),
    (Action.do([0.0, 900.0, 5.0], [False, True, True]), [2100.0, 900.0, 5.0], PlanStatus.found),
)


def test_a_frame_has_a_row_per_user_in_natural_units():
    plan, nan = plan_of(*USERS), np.nan
    table = plan.to_frame(NAMES, jnp.tile(X, (4, 1)))
    features = [n + what for n in NAMES for what in (" (now)", " (action)", " (expected)")]
    first = ["status", "cost", "valid", "robust_valid", "intervention_set"]
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
    ("names", "x", "message"),
    [
        (NAMES[:2], jnp.tile(X, (4, 1)), "names of 3 features; got 2"),
        ([*NAMES, "age"], jnp.tile(X, (4, 1)), "names of 3 features; got 4"),
        (NAMES, jnp.tile(X, (3, 1)), r"x of shape \(4, 3\); got \(3, 3\)"),
        (NAMES, X, r"x of shape \(4, 3\); got \(3,\)"),
    ],
)
def test_names_and_features_have_to_fit(names, x, message):
    with pytest.raises(ValueError, match=message):
        plan_of(*USERS).to_frame(names, x)


def test_a_plan_prints_its_statuses():
    assert repr(plan_of(*USERS)) == "Plan(4 users: 2 found, 1 already_favourable, 1 not_found)"
