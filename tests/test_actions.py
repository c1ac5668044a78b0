from itertools import chain, combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcr_jax.actions import Action, Constraints, intervention_sets, set_name

pytestmark = pytest.mark.x64
X = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, 0.5]])


def test_actions_say_which_nodes_they_intervene_on():
    assert not Action.empty(3).intervened.any()
    np.testing.assert_array_equal(Action.soft([0, -1, 0]).intervened, [False, True, False])
    # do(X = 0) is an intervention although its value is 0
    action = Action.do([0, 5, 5], [True, False, True])
    np.testing.assert_array_equal(action.intervened, [True, False, True])
    np.testing.assert_array_equal(action.value, [0, 0, 5])


def test_without_constraints_every_shift_is_possible():
    low, high = Constraints().shift_bounds(X)
    assert low.shape == high.shape == X.shape
    assert (low == -jnp.inf).all()
    assert (high == jnp.inf).all()


def test_shift_bounds_are_relative_to_the_present_value():
    low, high = Constraints(lower=[-1, -2, 0], upper=[2, 4, 0.5]).shift_bounds(X)
    np.testing.assert_allclose(low, [[-2, 0, -0.5], [-1, -5, -0.5]])
    np.testing.assert_allclose(high, [[1, 6, 0], [2, 1, 0]])


def test_directions_and_immutable_nodes_bound_the_shift_by_zero():
    constraints = Constraints(
        actionable=[True, True, False],
        increase_only=[True, False, False],
        decrease_only=[False, True, False],
    )
    low, high = constraints.shift_bounds(X)
    np.testing.assert_array_equal(low, [[0, -np.inf, 0]] * 2)
    np.testing.assert_array_equal(high, [[np.inf, 0, 0]] * 2)
    low, high = Constraints(increase_only=True, decrease_only=True).shift_bounds(X)
    assert not low.any()
    assert not high.any()


def test_constraints_may_differ_by_user_and_pass_through_vmap():
    constraints = Constraints(
        upper=jnp.array([[1.0, 0, 1], [2, 3, 4]]), increase_only=jnp.eye(3, dtype=bool)[:2]
    )
    low, high = constraints.shift_bounds(X)
    np.testing.assert_allclose(high, [[0, 2, 0.5], [2, 0, 3.5]])
    np.testing.assert_array_equal(low == 0, np.eye(3, dtype=bool)[:2])
    one_by_one = jax.vmap(Constraints.shift_bounds)(constraints, X)
    np.testing.assert_array_equal(one_by_one, (low, high))


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(lower=[2, -9, 0]), r"constraints.lower <= x.*x\[0, 0\] = 1.0 outside \[2.0,"),
        (Constraints(upper=[9, 2, 9]), r"x <= constraints.upper.*x\[1, 1\] = 3.0 outside .* 2.0\]"),
        (Constraints(lower=[[-9, -9, 1], [-9, -9, 0]]), r"x\[0, 2\] = 0.5"),
        (Constraints(lower=[np.nan, 0, 0]), "NaN in constraints.lower"),
        (
            Constraints(upper=[0, 0]),
            r"constraints.upper of shape .* or \(2, 3\); got \(2,\)",
        ),
        (Constraints(actionable=[[True] * 3] * 4), "constraints.actionable of shape"),
        (Constraints(increase_only=[True] * 2), "constraints.increase_only of shape"),
        (Constraints(decrease_only=[True] * 2), "constraints.decrease_only of shape"),
    ],
)
def test_constraints_that_do_not_fit_the_users_are_refused(constraints, message):
    with pytest.raises(ValueError, match=message):
        constraints.shift_bounds(X)


@pytest.mark.parametrize("num_nodes", [1, 3, 5])
def test_intervention_sets_are_all_non_empty_subsets_smallest_first(num_nodes):
    sets = intervention_sets(num_nodes)
    found = [tuple(np.flatnonzero(row)) for row in sets]
    sizes = range(1, num_nodes + 1)
    assert found == list(chain(*(combinations(range(num_nodes), size) for size in sizes)))
    assert sets.dtype == bool


def test_max_size_leaves_out_larger_sets():
    assert intervention_sets(12, max_size=2).shape == (12 + 66, 12)
    np.testing.assert_array_equal(intervention_sets(3, max_size=9), intervention_sets(3))
    assert len(intervention_sets(12)) == 4095


def test_too_many_sets_are_refused():
    with pytest.raises(ValueError, match=r"num_nodes=13, max_size=None\. Lower max_size"):
        intervention_sets(13)
    with pytest.raises(ValueError, match="num_nodes >= 1"):
        intervention_sets(0)


@pytest.mark.parametrize("max_size", [0, -1, 1.5])
def test_a_max_size_without_sets_is_refused(max_size):
    with pytest.raises(ValueError, match="max_size"):
        intervention_sets(3, max_size)


def test_sets_are_named_by_their_nodes():
    assert set_name([True, False, True], ["X1", "X2", "X3"]) == "X1+X3"
    assert set_name([False, False], ["a", "b"]) == "none"
