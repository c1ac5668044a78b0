"""What users pass: taken by name, in their own kind, or refused in words that say what to do."""

import copy
import dataclasses
import gc
import logging
import pickle

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax import _checks
from pcr_jax.evaluation import optimum_cost
from pcr_jax.history import check_history
from pcr_jax.recourse import pose
from pcr_jax.scores import as_score, differentiable, refuse_probabilities
from tests.problems import history_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)

# A graph whose order is not that of the table.
FRAME = ["savings", "debt", "income"]
GRAPH = pcr.Graph.from_networkx(nx.DiGraph([("income", "savings"), ("income", "debt")]))
NODES = list(GRAPH.nodes)
SCM = pcr.linear_scm(GRAPH, {"savings <- income": 0.4, "debt <- income": -0.2})
X = pd.DataFrame(
    RNG.normal(size=(6, 3)).astype(np.float32) - [2, 0, 1], columns=FRAME, index=list("uvwxyz")
)
SCALE = pd.Series({"savings": 2.0, "debt": 0.5, "income": 1.0})
WEIGHT = pd.Series({"savings": 1.0, "debt": -1.0, "income": 0.3})
GOAL = jnp.asarray(WEIGHT[NODES].to_numpy(), float)


def score(x):
    return x @ GOAL - 1.0


class Model:
    """As of scikit-learn, fitted on a table: it wants its columns by name."""

    def __init__(self, weight=WEIGHT, classes=(0, 1)):
        self.feature_names_in_ = np.array(FRAME, object)
        self.classes_, self.weight = np.array(classes), weight

    def predict_proba(self, x):
        assert list(x.columns) == FRAME
        p = 1 / (1 + np.exp(1 - x.to_numpy() @ self.weight[FRAME].to_numpy()))
        return np.stack([1 - p, p], 1)

    def predict(self, x):
        return self.classes_[self.predict_proba(x).argmax(1)]


def test_the_graph_has_another_order_than_the_table():
    assert sorted(NODES) == sorted(FRAME)
    assert NODES != FRAME


# Names.


@pytest.fixture(scope="module")
def plan():
    return pcr.find_recourse(score, SCM, X, scale=SCALE)


def same(plan, other):
    """But for what the users are called."""
    problem = dataclasses.replace(plan.problem, index=other.problem.index)
    plan = dataclasses.replace(plan, problem=problem)
    stated = [np.asarray(p.p_valid) for p in (plan, other)]
    plan, other = (dataclasses.replace(p, p_valid=None) for p in (plan, other))
    both = jax.tree.map(np.array_equal, plan, other)
    return jax.tree.all(both) and np.array_equal(*stated, equal_nan=True)


def test_everything_with_names_is_put_into_the_order_of_the_nodes(plan):
    by_position = X[NODES].to_numpy()
    scale = SCALE[NODES].to_numpy()
    assert same(plan, pcr.find_recourse(score, SCM, by_position, scale=scale))
    upper = X + 2 * SCALE[FRAME]
    weights = pd.Series({"debt": 2.0, "income": 1.0, "savings": 3.0})
    named = pcr.Constraints(actionable={"debt": True, "income": False, "savings": True})
    named = dataclasses.replace(named, upper=upper.sample(frac=1, random_state=0))
    unnamed = pcr.Constraints(
        actionable=[name != "income" for name in NODES], upper=upper[NODES].to_numpy()
    )
    found = pcr.find_recourse(score, SCM, X, scale=SCALE, weights=weights, constraints=named)
    ordered = {"scale": scale, "weights": weights[NODES].to_numpy(), "constraints": unnamed}
    assert same(found, pcr.find_recourse(score, SCM, by_position, **ordered))
    assert not np.asarray(found.action.intervened)[:, NODES.index("income")].any()
    report = pcr.evaluate(plan, SCM, optimum=pd.Series(1.0, X.index))
    assert report.validity == 1
    np.testing.assert_array_equal(SCM.abduct(X), SCM.abduct(by_position))
    for name, value in (("savings", 0.4), ("debt", -0.2)):
        assert SCM.mechanisms[GRAPH.index(name)].coefficients == pytest.approx(value)


@pytest.mark.slow
def test_a_model_asked_by_name_accepts_everybody_who_follows_the_plan():
    outside = pcr.outside_model(Model(), names=NODES)
    assert set(Model().predict(X)) == {0}
    plan = pcr.find_recourse(outside, SCM, X, scale=SCALE)
    assert (plan.status == pcr.PlanStatus.found).all()
    after = pd.DataFrame(plan.x_counterfactual, columns=NODES)
    assert set(Model().predict(after[FRAME])) == {1}


def test_the_table_keeps_the_index_and_the_present_values(plan):
    table = plan.to_frame(NODES)
    assert list(table.index) == list(X.index)
    for name in FRAME:
        np.testing.assert_array_equal(table[f"{name} (now)"], X[name].astype(np.float32))


def test_labels_that_pandas_makes_up_are_no_names():
    plain = pd.DataFrame(X[NODES].to_numpy())
    np.testing.assert_array_equal(_checks.array(plain, "x", names=NODES), plain.astype(np.float32))
    np.testing.assert_array_equal(_checks.array(pd.Series([1, 2, 3]), "x", names=NODES), [1, 2, 3])


def fitted_on_a_table():
    return pcr.train_mlp(KEY, X, [0, 1] * 3, hidden=(), epochs=1)


NAMED_WRONGLY = {
    "x": (lambda s: {"x": X.rename(columns={"debt": "debts"})}, r"missing \['debt'\], unknown"),
    "a column of x twice": (lambda s: {"x": X[[*FRAME, "debt"]]}, r"x to have .*repeated \['debt'"),
    "a column too few": (lambda s: {"x": X[FRAME[:2]]}, r"x to have the names .*missing"),
    "scale": (lambda s: {"scale": SCALE.rename({"debt": "age"})}, "scale to have the names"),
    "weights": (lambda s: {"weights": SCALE[:2]}, r"weights to have .*missing"),
    "constraints": (
        lambda s: {"constraints": pcr.Constraints(lower={"age": 0.0})},
        r"constraints.lower to have the names .*unknown \['age'\]",
    ),
    "rows": (
        lambda s: {"constraints": pcr.Constraints(upper=(X + 9).rename({"u": "a"}))},
        "the index of constraints.upper to be that of x",
    ),
    "score": (
        lambda s: {"score": pcr.outside_model(Model(), names=FRAME)},
        r"a score of the features \['income', .*; got one of \['savings'",
    ),
    "trained": (lambda s: {"score": fitted_on_a_table()}, r"got one of \['savings', 'debt', 'inc"),
}


@pytest.mark.parametrize("case", NAMED_WRONGLY)
def test_other_names_are_refused(case):
    wrong, message = NAMED_WRONGLY[case]
    good = {"score": score, "worlds": SCM, "x": X, "scale": SCALE}
    with pytest.raises(ValueError, match=message):
        pcr.find_recourse(**good | wrong(None))


def test_a_model_with_names_needs_those_of_the_score():
    with pytest.raises(ValueError, match=r"names= of the features .* graph.nodes"):
        pcr.outside_model(Model())
    with pytest.raises(ValueError, match=r"names to have the names .*missing \['income'\]"):
        pcr.outside_model(Model(), names=["savings", "debt", "age"])


def test_names_are_not_lost_where_there_is_nothing_to_compare_them_with():
    for action in (pcr.Action.soft, lambda shift: pcr.Action.do(shift, np.ones(3, bool))):
        with pytest.raises(TypeError, match=r"without names, in the order of graph.nodes"):
            action(SCALE)


# The favourable class.


@pytest.mark.parametrize(
    ("classes", "favourable", "column"),
    [
        ((0, 1), None, 1),
        ((False, True), None, 1),
        ((0, 1), 0, 0),
        (("approved", "denied"), "approved", 0),
        ((-1, 1), 1, 1),
    ],
)
def test_the_favourable_class_is_the_one_that_is_named(classes, favourable, column):
    model = Model(classes=classes)
    outside = pcr.outside_model(model, favourable=favourable, names=FRAME, threshold=0.3)
    np.testing.assert_array_equal(outside(X) >= 0, model.predict_proba(X)[:, column] >= 0.3)
    assert repr(outside).startswith(f"outside_model(Model, favourable={classes[column]!r}")


@pytest.mark.parametrize("classes", [("approved", "denied"), (1, 2), (-1, 1), (0, 1, 2)])
def test_the_favourable_class_has_to_be_named_where_it_cannot_be_known(classes):
    with pytest.raises(ValueError, match=r"Expected favourable=, one of the classes"):
        pcr.outside_model(Model(classes=classes), names=FRAME)
    with pytest.raises(ValueError, match=r"favourable to be one of the classes .*got 'good'"):
        pcr.outside_model(Model(classes=classes), favourable="good", names=FRAME)


class Decisive:
    def __init__(self, *classes):
        self.classes_ = np.array(classes)

    def decision_function(self, x):
        return x[:, 0] - x[:, 1]


def test_decision_values_are_in_favour_of_the_favourable_class():
    x = X.to_numpy()
    for favourable, sign in (("no", -1), ("yes", 1)):
        outside = pcr.outside_model(Decisive("no", "yes"), favourable=favourable, threshold=0.2)
        np.testing.assert_array_equal(outside(x) >= 0, sign * (x[:, 0] - x[:, 1]) >= 0.2)
    with pytest.raises(ValueError, match=r"two classes .*decision_function; got .*callable"):
        pcr.outside_model(Decisive(0, 1, 2), favourable=1)
    with pytest.raises(ValueError, match="no favourable class for a callable"):
        pcr.outside_model(lambda rows: rows[:, 0], favourable=1)


# Probabilities are no logits.


def probability(x):
    return jax.nn.sigmoid(score(x))


@pytest.mark.parametrize(
    "wrong",
    [
        probability,
        pcr.with_threshold(probability, 0.7),
        pcr.outside_model(lambda rows: np.asarray(rows @ np.asarray(GOAL) > 1.0)),
        lambda x: jnp.where(score(x) > 0, 1.0, 0.0),
    ],
    ids=["probability", "threshold", "labels", "step"],
)
def test_a_probability_cut_at_0_is_refused_with_the_remedy(wrong, plan):
    with pytest.raises(ValueError, match=r"logit.*as of a probability.*outside_model\(model"):
        pcr.find_recourse(wrong, SCM, X, scale=SCALE)
    problem = pose(wrong, GRAPH, X, scale=SCALE)
    with pytest.raises(ValueError, match="as of a probability"):
        pcr.evaluate(plan, SCM, problem=problem)


def test_what_is_a_logit_near_0_is_not_refused():
    """Users whose logits all lie in [0, 1], and a score that does not vary."""
    x = X[NODES].to_numpy(np.float32)[:2]
    offset = float(np.asarray(score(x)).min())
    for logit in (lambda x: (score(x) - offset) / 9, lambda x: 0.5 + 0.0 * x[0]):
        logits = jax.vmap(logit)(x)
        assert ((logits >= 0) & (logits <= 1)).all()
        refuse_probabilities(as_score(logit, 3), x, SCALE[NODES].to_numpy(), logits)


def test_the_threshold_of_an_outside_model_is_said_where_it_is_made():
    outside = pcr.outside_model(lambda rows: rows[:, 0])
    with pytest.raises(TypeError, match=r"outside_model\(model, threshold=\.\.\.\) instead"):
        pcr.with_threshold(outside, 0.7)


def test_what_is_below_the_threshold_stays_below_it_when_rounded():
    outside = pcr.outside_model(lambda rows: np.full(len(rows), -1e-60))
    assert (np.asarray(jax.jit(lambda x: outside(x) >= 0)(X[NODES].to_numpy())) == 0).all()


# Which model.


class Side:
    def __init__(self, sign):
        self.sign = sign

    def __call__(self, rows):
        return self.sign * rows[:, 0]


@jax.jit
def compiled(outside, x):
    return outside(x)


ROWS = np.array([[1.0, 2, 3], [-4, 5, 6]], np.float32)


@pytest.mark.parametrize("copied", ["pickle", "deepcopy"])
def test_a_copy_answers_for_itself(copied):
    outside = pcr.outside_model(Side(1.0))
    np.testing.assert_array_equal(compiled(outside, ROWS), [1, -4])
    again = {"pickle": lambda o: pickle.loads(pickle.dumps(o)), "deepcopy": copy.deepcopy}[copied]
    other = again(outside)
    assert other != outside
    other.host.model.sign = -1.0
    np.testing.assert_array_equal(compiled(other, ROWS), [-1, 4])
    np.testing.assert_array_equal(compiled(outside, ROWS), [1, -4])
    assert copy.copy(outside) == outside == pcr.outside_model(outside.host.model)


def test_a_model_in_the_place_of_another_answers_for_itself():
    """Unpickled scores of models that are gone, whose addresses others have now."""
    for sign in (1.0, -1.0, 2.0, -2.0):
        outside = pickle.loads(pickle.dumps(pcr.outside_model(Side(sign))))
        np.testing.assert_array_equal(compiled(outside, ROWS), sign * ROWS[:, 0])
        del outside
        gc.collect()


def test_a_model_that_is_fitted_again_gives_its_new_answers():
    model = Model()
    outside = pcr.outside_model(model, names=FRAME)
    before = np.asarray(compiled(outside, X[FRAME].to_numpy(np.float32)))
    model.weight = -WEIGHT
    after = np.asarray(compiled(outside, X[FRAME].to_numpy(np.float32)))
    np.testing.assert_array_equal(after, np.asarray(outside(X)))
    assert (after != before).all()
    model.classes_ = np.array(["no", "yes"])
    with pytest.raises(ValueError, match="favourable=, one of the classes"):
        outside(X)


# What models raise and return.


WORDS = r"^the model's own words$"


class Broken(Exception):
    pass


class Breaks:
    """It works for so many calls."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, rows):
        self.left -= 1
        if self.left < 0:
            raise Broken("the model's own words")
        return rows @ np.asarray(GOAL) - 1.0


@pytest.mark.parametrize("calls", [0, 1])
def test_what_a_model_raises_comes_as_it_is_and_once(calls, caplog, plan):
    outside = pcr.outside_model(Breaks(calls))
    wrapped = lambda x: 2 * outside(x)  # noqa: E731
    wrapped.differentiable = False
    for broken in (outside, wrapped) if calls == 0 else (outside,):
        with caplog.at_level(logging.ERROR), pytest.raises(Broken, match=WORDS):
            pcr.find_recourse(broken, SCM, X, scale=SCALE)
    if calls == 0:
        with pytest.raises(Broken, match=WORDS):
            pcr.evaluate(plan, SCM, problem=pose(outside, GRAPH, X, scale=SCALE))
        with pytest.raises(Broken):
            outside(ROWS)
    assert not caplog.records


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda rows: rows, ValueError, r"result of model of shape \(\d+,\); got \(\d+, 3\)"),
        (lambda rows: rows[:1, 0], ValueError, r"result of model of shape"),
        (lambda rows: np.array(["approved"] * len(rows)), TypeError, "to be numbers; got <U8"),
        (lambda rows: [None] * len(rows), TypeError, "to be numbers; got object"),
        (lambda rows: rows[:, 0] * np.nan, ValueError, r"to be numbers; got NaN for \d+ of"),
    ],
    ids=["matrix", "too few", "labels", "nothing", "nan"],
)
def test_what_a_model_returns_is_looked_at(function, error, message):
    with pytest.raises(error, match=message):
        pcr.find_recourse(pcr.outside_model(function), SCM, X, scale=SCALE)


def test_a_score_of_ones_own_may_say_that_it_has_no_gradient():
    def steps(x):
        return jnp.where(score(x) >= 0, 1.0, -1.0)

    steps.differentiable = False
    for own in (steps, jax.tree_util.Partial(steps), pcr.with_threshold(steps, 0.5)):
        assert not differentiable(as_score(own, 3))
    with pytest.raises(ValueError, match="with a gradient"):
        pcr.find_recourse(steps, SCM, X, scale=SCALE, solver="paper")
    outside = pcr.outside_model(lambda rows: rows[:, 0])
    with pytest.raises(ValueError, match=r"a gradient of score; got .*Set score.differentiable"):
        as_score(lambda x: 2 * outside(x), 3)


# Evaluation searches nothing.


def test_without_an_optimum_there_is_no_regret(plan):
    report = pcr.evaluate(plan, SCM)
    assert report.optimum is None
    assert np.isnan(report.regret_to_optimum_mean)
    assert "regret" not in str(report)
    known = optimum_cost(score, SCM, X, scale=SCALE)
    report = pcr.evaluate(plan, SCM, optimum=known)
    assert report.regret_to_optimum_mean == pytest.approx(0, abs=1e-6)
    assert "regret to the optimum" in str(report)


# No column of a table vanishes.


@pytest.mark.parametrize(
    "names",
    [["status", "cost", "sentence"], ["valid", "intervention_set", "valid (now)"], [0, 1, 2]],
)
def test_every_feature_has_its_columns_whatever_its_name(names, plan):
    table = plan.to_frame(names)
    assert table.columns.is_unique
    assert table.shape == (6, 7 + 3 * 3 + 1)
    for j, name in enumerate(names):
        np.testing.assert_array_equal(table[f"{name} (now)"], X[NODES[j]].astype(np.float32))
    assert set(table["status"]) == {"found"}


@pytest.mark.parametrize("names", [["a", "a", "b"], ["1", 1, 2]])
def test_names_that_read_the_same_are_refused(names, plan):
    with pytest.raises(ValueError, match=r"Expected (distinct )?names"):
        plan.to_frame(names)


# Tracing.


def test_what_works_on_the_host_says_that_it_cannot_be_traced(plan):
    x, scale = X[NODES].to_numpy(np.float32), SCALE[NODES].to_numpy()
    traced = {
        "find_recourse": lambda x: pcr.find_recourse(score, SCM, x, scale=scale).cost,
        "evaluate": lambda x: pcr.evaluate(plan, SCM, optimum=x[:, 0]).cost,
    }
    for name, call in traced.items():
        for transform in (jax.jit, lambda f: jax.jit(lambda _: f(x))):
            with pytest.raises(TypeError, match=rf"{name} to be called outside jax.jit, jax.vmap"):
                transform(call)(x)
    with pytest.raises(TypeError, match="find_recourse to be called outside"):
        jax.grad(lambda x: traced["find_recourse"](x).sum())(x)


def test_what_can_be_traced_still_can():
    x, shift = X[NODES].to_numpy(np.float32)[0], jnp.ones(3)

    @jax.jit
    def outcome(x, shift, coefficient):
        scm = pcr.linear_scm(GRAPH, [coefficient, 0.5])
        low, high = pcr.Constraints(upper=x + 1).shift_bounds(x, NODES)
        return scm.counterfactual(x, pcr.Action.soft(jnp.clip(shift, low, high)))

    scm = pcr.linear_scm(GRAPH, [0.3, 0.5])
    expected = scm.counterfactual(x, pcr.Action.soft(shift))
    np.testing.assert_allclose(outcome(x, shift, 0.3), expected, rtol=1e-5)

    def ask(key, history):
        user = pcr.SimulatedUser(SCM, num_draws=3)
        return pcr.elicit(key, user, X, num_queries=1, history=history)

    room = pcr.History.empty(np.asarray(X[NODES]), 1)
    asked = jax.jit(ask)(KEY, room), ask(KEY, room)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *asked)


# Arrays of every kind.


def frame(**columns):
    return X[NODES].assign(**columns)


class OtherTable:
    columns = NODES

    def __array__(self, dtype=None, copy=None):
        return np.zeros((6, 3))


MISSING = pd.array([1, None, 2, 3, 4, 5], dtype="Int64")
NOT_NUMBERS = {
    "nothing": (None, TypeError, "x to be numbers; got None"),
    "text": ("abc", TypeError, "x to be numbers; got 'abc'"),
    "complex": (X[NODES].to_numpy() * 1j, TypeError, "x to be numbers; got complex128"),
    "bool": (np.ones((6, 3), bool), TypeError, "x to be numbers; got bool"),
    "strings": (np.full((6, 3), "a"), TypeError, "x to be numbers; got 'a'"),
    "objects": (np.array([[1, "a", 2]] * 6, object), TypeError, "x to be numbers; got 'a'"),
    "ragged": ([[1, 2, 3], [4, 5]], ValueError, "x to be an array .*rows of different lengths"),
    "dates": (np.zeros((6, 3), "datetime64[D]"), TypeError, "x to be numbers; got datetime64"),
    "too large": (np.full((6, 3), 1e300), ValueError, r"x in the range of float32.*got 1e\+300"),
    "far too large": ([[10**400] * 3] * 6, ValueError, "x in the range of float32"),
    "another table": (OtherTable(), TypeError, r"x to be a pandas.DataFrame; got .*OtherTable"),
    "a set": ({1, 2, 3}, TypeError, "x to be numbers; got {1, 2, 3}"),
    "text column": (frame(debt="a"), TypeError, "column 'debt' of x to be numbers; got"),
    "mixed column": (
        frame(debt=[1, 2, "b", 3, 4, 5]),
        TypeError,
        "column 'debt' of x to be numbers; got 'b'",
    ),
    "missing": (frame(debt=MISSING), ValueError, "finite values for x; got 1 NaN.*'debt'"),
    "masked": (
        np.ma.masked_less(X[NODES].to_numpy(), 0),
        ValueError,
        "no masked values in x",
    ),
}


@pytest.mark.parametrize("case", NOT_NUMBERS)
def test_what_is_no_array_of_numbers_is_refused(case):
    wrong, error, message = NOT_NUMBERS[case]
    with pytest.raises(error, match=message):
        pcr.find_recourse(score, SCM, wrong, scale=SCALE)


def test_columns_of_every_numeric_kind_are_taken():
    table = pd.DataFrame(
        {
            "income": pd.array([1, 2], dtype="Int64"),
            "savings": np.array([1.5, 2], object),
            "debt": [True, False],
        }
    )
    expected = table[NODES].to_numpy().astype(np.float32)
    np.testing.assert_array_equal(_checks.array(table, "x", names=NODES), expected)
    nullable = pd.Series([0.5, 1.5], dtype="Float64")
    np.testing.assert_array_equal(_checks.array(nullable, "x"), [0.5, 1.5])
    assert _checks.array(1, "x").dtype == jnp.zeros(0).dtype


@pytest.mark.parametrize("tiny", [1e-40, 1e-300, 0.0, -1.0, np.nan, np.inf])
def test_a_scale_is_positive_in_the_precision_of_jax(tiny):
    with pytest.raises(ValueError, match=r"scale (> 0|in the range)"):
        pcr.find_recourse(score, SCM, X, scale=SCALE.where(SCALE.index != "debt", tiny))


def test_in_x64_the_range_is_that_of_float64():
    with jax.enable_x64(True):
        assert _checks.array(1e300, "x") == 1e300
        assert _checks.positive(1e-40, "x") == 1e-40


@pytest.mark.parametrize("field", ["actionable", "increase_only", "decrease_only"])
@pytest.mark.parametrize(
    ("mask", "came"),
    [
        (["False", "True", "True"], "'False'"),
        ([0, 1, 1], "int64"),
        (1.0, "float64"),
        ("no", "'no'"),
    ],
)
def test_what_is_not_boolean_is_no_mask(field, mask, came):
    with pytest.raises(TypeError, match=f"constraints.{field} to be True and False; got {came}"):
        pcr.Constraints(**{field: mask})


def test_a_pattern_counts_users_by_a_mask(plan):
    for users, error in (([0, 1, 0, 1, 0, 1], TypeError), (np.ones(5, bool), ValueError)):
        with pytest.raises(error, match="users"):
            pcr.intervention_pattern(plan.action, NODES, users)


@pytest.mark.parametrize(
    ("key", "error"),
    [(0, TypeError), (None, TypeError), ("key", TypeError), (np.zeros(2), TypeError)],
)
def test_a_key_is_one_of_jax(key, error):
    message = r"key to be a random key, as from jax.random.key\(0\)"
    user = pcr.SimulatedUser(SCM)
    calls = [
        lambda: SCM.sample(key, 3),
        lambda: pcr.elicit(key, user, X, num_queries=1),
        lambda: pcr.refused_population(key, SCM),
        lambda: pcr.train_mlp(key, X, [0, 1] * 3),
        lambda: pcr.sample_labels(key, X),
    ]
    for call in calls:
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(ValueError, match=r"one key; got \(3,\) of them"):
        SCM.sample(jax.random.split(KEY, 3), 3)
    assert SCM.sample(jax.random.PRNGKey(0), 3).shape == (3, 3)


M1 = pcr.library.m1()
OTHERS = {
    "worlds": lambda: pcr.find_recourse(score, GRAPH, X, scale=SCALE),
    "constraints": lambda: pcr.find_recourse(score, SCM, X, scale=SCALE, constraints={}),
    "solver": lambda: pcr.find_recourse(score, SCM, X, scale=SCALE, solver=3),
    "plan": lambda: pcr.evaluate(X, SCM),
    "graph": lambda: pcr.linear_scm(SCM, [1.0]),
    "action": lambda: SCM.counterfactual(X, [1.0, 0, 0]),
    "mechanisms": lambda: pcr.SCM(GRAPH, (1, 2, 3), SCM.noise),
    "noise": lambda: pcr.SCM(GRAPH, SCM.mechanisms, (1.0, 1.0, 1.0)),
    "respondent": lambda: pcr.elicit(KEY, SCM, X, num_queries=1),
    "design": lambda: pcr.elicit(KEY, pcr.SimulatedUser(SCM), X, num_queries=1, design="random"),
    "history": lambda: pcr.tell({}, pcr.Questions(np.zeros(1, int), np.ones(1)), np.zeros((1, 3))),
    "questions": lambda: pcr.tell(pcr.History.empty(np.zeros((1, 3)), 1), (0, 1), np.zeros((1, 3))),
    "wrong": lambda: pcr.SimulatedUser(SCM, wrong=GRAPH),
    "wrong to have the nodes": lambda: pcr.SimulatedUser(SCM, wrong=M1),
    "reference": lambda: pcr.Report(*[np.ones(3)] * 4).regret_mean(1.0),
    "nodes": lambda: pcr.Graph(({"a"},), ((),)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_objects_of_another_kind_are_refused_by_name(name):
    with pytest.raises((TypeError, ValueError), match=f"(?i)^Expected .*{name}.*; got "):
        OTHERS[name]()


@pytest.mark.parametrize("count", [10**30, 0, 2.0, "3", True, None])
def test_a_count_is_an_integer_that_jax_can_count(count):
    for call in (
        lambda: SCM.sample(KEY, -1 if count == 0 else count),
        lambda: pcr.intervention_sets(count),
    ):
        with pytest.raises(ValueError, match=r"^Expected (an integer|at most 4095)"):
            call()


def test_a_linear_mechanism_has_a_coefficient_for_every_parent():
    mechanisms = tuple(pcr.Mechanism(jnp.ones(1)) for _ in range(3))
    with pytest.raises(ValueError, match="each of the 0 parents of node 'income'"):
        pcr.SCM(GRAPH, mechanisms, (dist.Normal(0.0, 1.0),) * 3)


@pytest.mark.parametrize("kind", [nx.Graph, nx.MultiGraph, nx.MultiDiGraph])
def test_directions_are_not_made_up(kind):
    with pytest.raises(TypeError, match=r"graph to be a networkx\.DiGraph; got"):
        pcr.Graph.from_networkx(kind([("a", "b")]))
    with pytest.raises(TypeError, match=r"graph to be a networkx\.DiGraph; got a list"):
        pcr.Graph.from_networkx([("a", "b")])


# Histories made by hand.


NODE = np.array([[0, 1, -1], [1, -1, -1]])
ANSWER = np.where(M1.graph.descendants[NODE] & (NODE >= 0)[..., None], 0.5, np.nan)
HISTORY = {"node": NODE, "shift": np.ones((2, 3)), "answer": ANSWER}
WRONG_HISTORIES = {
    "no descendants": ({"node": NODE + (NODE >= 0)}, "nodes with descendants; got 2 .'X3'"),
    "out of range": ({"node": np.where(NODE == 1, 3, NODE)}, "questions.node in -1, ..., 2; got 3"),
    "not integer": ({"node": NODE * 1.0}, "questions.node to be integers; got float64"),
    "names": ({"node": [["X1", "X2", "X1"]] * 2}, "questions.node to be integers; got 'X1'"),
    "a gap": ({"node": NODE[:, ::-1]}, "asked in questions.node to come first"),
    "width": ({"answer": ANSWER[..., :2]}, r"history.answer of shape \(2, 3, 3\); got \(2, 3, 2"),
    "users": ({"shift": np.ones((3, 3))}, r"questions.shift of shape \(2, 3\); got \(3, 3\)"),
    "infinite": ({"answer": np.full((2, 3, 3), np.inf)}, "history.answer to be finite"),
    "shift": ({"shift": np.full((2, 3), np.nan)}, "finite values for questions.shift"),
    "text": ({"answer": np.full((2, 3, 3), "a")}, "history.answer to be numbers; got 'a'"),
}


@pytest.mark.parametrize("case", WRONG_HISTORIES)
def test_a_history_made_by_hand_is_looked_at(case):
    wrong, message = WRONG_HISTORIES[case]
    history = history_of(**HISTORY | wrong)
    with pytest.raises((TypeError, ValueError), match=message):
        check_history(history, M1.graph)
    with pytest.raises((TypeError, ValueError), match=message):
        pcr.elicit(KEY, pcr.SimulatedUser(M1), np.zeros((2, 3)), num_queries=1, history=history)


def test_a_good_history_of_lists_is_one_of_arrays():
    node, shift, answer = (value.tolist() for value in HISTORY.values())
    lists = pcr.History(pcr.Questions(node, shift), answer, [[0, 0, 0]] * 2)
    history = check_history(lists, M1.graph)
    np.testing.assert_array_equal(history.questions.node, NODE)
    np.testing.assert_array_equal(history.answer, ANSWER)
    assert list(history.num_queries) == [2, 1]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ((np.zeros(2), np.ones(2)), TypeError, "questions.node to be integers"),
        (
            (np.zeros(1, int), np.ones(2)),
            ValueError,
            r"questions.node of shape \(2,\)",
        ),
        (
            (np.full(2, 3), np.ones(2)),
            ValueError,
            "questions.node in -1, ..., 2; got 3",
        ),
        (
            (np.zeros(2, int), np.ones(2) * 1e300),
            ValueError,
            "questions.shift in the range",
        ),
    ],
)
def test_questions_made_by_hand_are_looked_at(fields, error, message):
    room = pcr.History.empty(np.zeros((2, 3)), 1)
    with pytest.raises(error, match=message):
        pcr.tell(room, pcr.Questions(*fields), np.zeros((2, 3)))
