"""Kinds of columns: codes and back, moves, words."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax.features import as_written, feature_of
from pcr_jax.mechanisms import Within

JOBS = ["none", "part time", "full time"]
COLUMNS = {
    "real": (pcr.Real(low=0.0), pd.Series([0.1, 2700.1, 3e5])),
    "integer": (pcr.Integer(), pd.Series([0, -3, 16_777_216])),
    "nullable integer": (pcr.Integer(), pd.Series([1, 2, 3], dtype="Int64")),
    "integer as float": (pcr.Integer(), pd.Series([1.0, 2.0])),
    "small integer": (pcr.Integer(), pd.Series([1, 2], dtype="int8")),
    "levels": (pcr.Levels(JOBS), pd.Series(["part time", "none", "full time"])),
    "categorical levels": (pcr.Levels(JOBS), pd.Series(["none"], dtype=pd.CategoricalDtype(JOBS))),
    "boolean": (pcr.Levels([False, True]), pd.Series([True, False])),
    "numbered levels": (pcr.Levels([4, 3, 2]), pd.Series([2, 4, 3])),
    "nominal": (pcr.Nominal(["rent", "own"]), pd.Series(["own", "rent"], dtype=object)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_is_encoded_is_decoded_with_its_dtype(name):
    feature, values = COLUMNS[name]
    codes = feature.encode(values, "x").astype(np.float32)
    again = feature.decode(codes, values.dtype)
    pd.testing.assert_series_equal(again, values)


def test_the_dtype_says_what_an_unnamed_column_is():
    kinds = {name: feature_of(values, name).kind for name, (_, values) in COLUMNS.items()}
    kinds.pop("categorical levels")
    assert kinds == {
        **{"real": "real", "integer": "integer", "nullable integer": "integer"},
        **{"integer as float": "real", "small integer": "integer", "levels": "nominal"},
        **{"boolean": "levels", "numbered levels": "integer", "nominal": "nominal"},
    }
    ordered = pd.Series(["b"], dtype=pd.CategoricalDtype(["b", "a"], ordered=True))
    assert feature_of(ordered, "x") == pcr.Levels(["b", "a"], actionable=False)


def test_a_column_that_does_not_fit_is_named_with_its_row():
    rows = ["ann", "bob"]

    def encode(feature, values):
        return feature.encode(pd.Series(values, index=rows), "job")

    with pytest.raises(ValueError, match=r"missing values in column 'job'; got 1, .* row 'bob'"):
        encode(pcr.Real(), [1.0, np.nan])
    with pytest.raises(ValueError, match=r"column 'job' .* got 'pilot' in row 'bob'"):
        encode(pcr.Levels(JOBS), ["none", "pilot"])
    with pytest.raises(ValueError, match=r"whole numbers .* 'job'; got .*1.5.* in row 'ann'"):
        encode(pcr.Integer(), [1.5, 2.0])
    with pytest.raises(ValueError, match=r"whole numbers up to 16,777,216 .* in row 'ann'"):
        encode(pcr.Integer(), [16_777_217, 2])
    with pytest.raises(ValueError, match=r"finite numbers in column 'job'; got .*inf.* 'bob'"):
        encode(pcr.Real(), [1.0, np.inf])
    with pytest.raises(TypeError, match=r"numbers in column 'job'; got bool.*Levels"):
        encode(pcr.Real(), [True, False])
    with pytest.raises(TypeError, match=r"column 'job' to be numbers; got"):
        encode(pcr.Real(), ["none", "pilot"])


def test_moves_are_whole_steps_within_bounds_and_direction_the_nearest_first():
    income = pcr.Real(low=0.0, high=2700.0, step=100.0, direction="increase")
    np.testing.assert_array_equal(income.moves(2437.5), [2537.5, 2637.5])
    np.testing.assert_array_equal(pcr.Integer(low=1, high=5, step=2).moves(3), [1, 5])
    assert pcr.Real(low=0.0).moves(1.0).size == 0
    assert pcr.Real(low=0.0, direction="increase").reach(1.0, (0.5, 3.0)) == (1.0, 3.0)
    np.testing.assert_array_equal(pcr.Integer().moves(3, (2, 4)), [2, 4])
    np.testing.assert_array_equal(
        pcr.Real(low=0.0, high=0.4, step=0.1).moves(0.1), [0, 0.2, 0.3, 0.4]
    )
    np.testing.assert_array_equal(pcr.Levels(JOBS, direction="decrease").moves(2), [1, 0])
    homes = pcr.Nominal(["rent", "own", "free"], forbidden=[("rent", "own")])
    np.testing.assert_array_equal(homes.moves(0), [2])
    np.testing.assert_array_equal(homes.moves(1), [0, 2])
    np.testing.assert_array_equal(homes.distance([0, 1, 2], 1), [1, 0, 1])


def test_changes_read_as_people_write_them():
    euros = pcr.Real(low=0.0, unit="euros", label="monthly income")
    said = "your monthly income by 300 euros, from 2,400 to 2,700"
    assert euros.change(2400.0, 2700.0, "x") == f"raise {said}"
    ratio = pcr.Real(low=0.0, high=1.0, step=0.1)
    assert ratio.change(0.3, 0.1, "ratio") == "lower your ratio by 0.2, from 0.3 to 0.1"
    assert ratio.change(0.1, 0.1 + 0.2, "ratio") == "raise your ratio by 0.2, from 0.1 to 0.3"
    assert pcr.Real().change(2437.123456, 2500.0, "pay") == (
        "raise your pay by 63, from 2,437 to 2,500"
    )
    jobs = pcr.Levels(JOBS)
    assert jobs.change(0, 1, "job") == "raise your job by one level, from none to part time"
    assert jobs.change(2, 0, "job") == "lower your job by two levels, from full time to none"
    assert pcr.Levels([False, True]).change(0, 1, "phone") == "change your phone from no to yes"
    assert pcr.Nominal(["rent", "own"]).change(0, 1, "home") == "change your home from rent to own"


def test_numbers_have_no_noise():
    for value in (2700.1, 0.1, 1e-5, 123456.7, -0.3, 0.0, 999999.9, 12_000_000):
        assert as_written(np.float32(value)) == value


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: pcr.Real(low=1.0, high=0.0), "low < high"),
        (lambda: pcr.Real(step=0.0), "step > 0"),
        (lambda: pcr.Real(low=np.inf), "finite values for low"),
        (lambda: pcr.Real(direction="up"), "direction"),
        (lambda: pcr.Integer(step=0.5), "step to be whole"),
        (lambda: pcr.Levels(["a"]), "two names"),
        (lambda: pcr.Levels(["a", "a"]), "distinct names"),
        (lambda: pcr.Levels(["a", None]), "missing"),
        (lambda: pcr.Nominal(["a", "b"], forbidden=[("a", "c")]), "forbidden pairs"),
    ],
)
def test_misuse_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_what_reacts_stays_in_its_range_and_on_whole_numbers():
    linear = pcr.Mechanism(jnp.array([0.5]))
    rating = Within.of(linear, 1.0, 4.0, 1.0)
    noise = rating.abduct(jnp.array([2.0]), jnp.asarray(3.0))
    reached = [float(rating.assign(jnp.array([cause]), noise)) for cause in (2.0, 2.9, 3.2, 90.0)]
    assert reached == [3.0, 3.0, 4.0, 4.0]
