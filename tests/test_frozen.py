"""What is computed is what was frozen, bit for bit; see `frozen`."""

import numpy as np
import pytest
from frozen import PROBLEMS, computed, difference, elsewhere, stored

# Problems that a change of the order of operations moved, with the absolute difference allowed
# between any two numbers. Integers and flags stay equal, but for counts of evaluations, which are
# left out. A problem that moved for another reason is to be recorded anew, saying why.
TO_ROUNDING: dict[str, float] = {
    # The width of the box, 2.3, in single precision: 9e-7, and of effective draws 9e-3.
    "exact_posteriors": 1e-2,
    "elicit_continued": 1e-6,  # answers to either kind of question: 1.2e-7
}

COUNTS = ("num_evaluations", "num_perturbations")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_has_the_result_that_was_frozen(name):
    if elsewhere():
        pytest.skip(f"frozen with {'; '.join(elsewhere())}")
    now, then = computed(name), stored()[1][name]
    assert now.keys() == then.keys()
    for key, value in now.items():
        said = f"{name}/{key}"
        if name not in TO_ROUNDING:
            np.testing.assert_array_equal(value, then[key], said, strict=True)
        elif value.dtype.kind == "f":
            allowed = {"rtol": 0, "atol": TO_ROUNDING[name]}
            np.testing.assert_allclose(value, then[key], err_msg=said, strict=True, **allowed)
        elif key not in COUNTS:
            np.testing.assert_array_equal(value, then[key], said, strict=True)


def test_every_problem_is_frozen_and_no_other():
    assert stored()[1].keys() == PROBLEMS.keys()
    assert TO_ROUNDING.keys() <= PROBLEMS.keys()


def test_a_difference_is_told():
    then = {"a": np.array([1.0, np.nan, np.inf]), "b": np.array([1, 2])}
    assert difference(then, then) == "equal"
    assert difference({**then, "b": np.array([1, 5])}, then) == "b by 3"
    assert difference({**then, "a": np.array([1.0, 0.0, np.inf])}, then) == "a by inf"
    assert difference({"a": then["a"]}, then) == "other arrays: ['b']"
