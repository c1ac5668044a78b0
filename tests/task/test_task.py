"""A table, a model and a graph, named once."""

import doctest

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pandas as pd
import pytest

import pcr_jax as pcr
from pcr_jax.task import task as module
from pcr_jax.task.people import person_of
from pcr_jax.task.tables import distinct
from tests.task.population import FEATURES, GRAPH, HOMES, JOBS, outcome_of, people, pipeline, scm_of

pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression

DATA = people()
MODEL = pipeline(LogisticRegression(max_iter=1000), DATA)


def task_of(model=MODEL, data=DATA, features=FEATURES, graph=GRAPH, **settings):
    settings = {"favourable": "granted", **settings}
    return pcr.Task(model=model, data=data, graph=graph, features=features, **settings)


@pytest.fixture(scope="module")
def task():
    return task_of()


@pytest.fixture(scope="module")
def refused():
    """Three people who are."""
    return DATA[MODEL.predict(DATA) == "refused"].iloc[:3]


@pytest.fixture(scope="module")
def plan(task, refused):
    return task.recourse(refused, scm_of(task.graph), k=3)


def chance(rows, model=MODEL):
    return model.predict_proba(rows)[:, list(model.classes_).index("granted")]


def decided(rows, model=MODEL):
    return chance(rows, model) >= 0.5


def followed(task, plan, scm):
    """The rows that come of the advice, computed by hand."""
    rows = plan.rows.copy()
    rows["income"] = rows.income.astype(float)
    table = plan.to_frame()
    for label, row in table.iterrows():
        for column in task.features:
            if row[f"{column} (action)"] is not None and not pd.isna(row[f"{column} (action)"]):
                rows.loc[label, column] = row[f"{column} (action)"]
    before, effect = plan.rows, dict(zip(scm.graph.edge_names, scm.coefficients, strict=True))
    job = pd.Series(rows.job.map(JOBS.index) - before.job.map(JOBS.index), rows.index)
    free = table["income (action)"].isna()
    income = before.income + float(effect["income <- job"]) * job
    rows["income"] = income.clip(0, 9000).where(free, rows.income)
    more = rows.income - before.income
    rows["savings"] = before.savings + float(effect["savings <- income"]) * more
    rating = before.rating + float(effect["rating <- income"]) * more
    rows["rating"] = rating.round().clip(1, 4).astype(int)
    return rows


def test_the_example_runs():
    outcome = doctest.testmod(module)
    assert outcome.attempted > 3
    assert not outcome.failed


def test_it_says_what_the_model_says(task):
    table = task.check(DATA)
    assert table.index.equals(DATA.index)
    np.testing.assert_array_equal(table.favourable, decided(DATA))
    with pytest.raises(ValueError, match="income"):
        task.check(DATA.drop(columns="income"))


def test_what_it_says_otherwise_is_refused_with_the_row_and_the_column():
    data = pd.DataFrame({"a": [1.0, 2.0, 123456.76]}, index=["x", "y", "z"])

    class Sharp:
        classes_ = np.array([0, 1])

        def predict_proba(self, rows):
            above = (rows.a.to_numpy() > 123456.78).astype(float)
            return np.stack([1 - above, above], 1)

    task = task_of(Sharp(), data, {"a": pcr.Real()}, "dag { a }", favourable=1)
    with pytest.raises(ValueError, match=r"row 'z'. It reads {'a': '123456.76 as 123456.8'}"):
        task.check(data)


def test_advice_works_when_it_is_followed_by_hand(task, refused, plan):
    table = plan.to_frame()
    assert table.index.equals(refused.index)
    assert (table.status == "found").all()
    assert not decided(refused).any()
    assert decided(followed(task, plan, scm_of(task.graph))).all()
    assert task.evaluate(plan, scm_of(task.graph)).valid.all()


def test_advice_keeps_to_steps_bounds_and_directions(task, plan):
    table = plan.alternatives()
    before = plan.rows.loc[table.index.get_level_values(0)]
    acted = table["income (action)"].notna().to_numpy()
    shift = table["income (action)"].to_numpy(float)[acted] - before.income.to_numpy()[acted]
    assert not (shift % 100).any()
    jobs = table["job (action)"].dropna()
    now = plan.rows.job.loc[jobs.index.get_level_values(0)]
    assert all(JOBS.index(a) > JOBS.index(b) for a, b in zip(jobs, now, strict=True))
    assert table["rating (action)"].isna().all()
    assert table["rating (expected)"].between(1, 4).all()
    for _, plans in table.groupby(level=0):
        sets = [set(name.split("+")) for name in plans.acts_on]
        assert not any(a <= b for a in sets for b in sets if a is not b)
        assert (np.diff(plans.cost) >= 0).all()


def test_the_order_of_columns_does_not_matter(task, refused, plan):
    shuffled = refused[list(refused.columns[::-1])]
    own = task_of(data=DATA[list(DATA.columns[::-1])])
    again = own.recourse(shuffled, scm_of(own.graph), k=3)
    pd.testing.assert_frame_equal(again.to_frame(), plan.to_frame())


class Reversed:
    """A model whose classes come the other way round."""

    def __init__(self, model):
        self.model, self.classes_ = model, model.classes_[::-1]

    def predict_proba(self, rows):
        return self.model.predict_proba(rows)[:, ::-1]


def test_the_order_of_classes_does_not_matter(refused, plan):
    own = task_of(Reversed(MODEL))
    again = own.recourse(refused, scm_of(own.graph), k=3)
    pd.testing.assert_frame_equal(again.to_frame(), plan.to_frame())
    worse = task_of(favourable="refused")
    assert (
        (worse.recourse(refused, scm_of(own.graph)).to_frame().status)
        .eq("already_favourable")
        .all()
    )
    with pytest.raises(ValueError, match="favourable"):
        task_of(favourable="yes")


def test_a_person_gets_the_same_alone_as_a_series_or_a_dictionary(task, refused, plan):
    for row in (refused.iloc[[1]], refused.iloc[1], refused.iloc[1].to_dict()):
        alone = task.recourse(row, scm_of(task.graph))
        assert alone.to_frame().sentence.iloc[0] == plan.to_frame().sentence.iloc[1]


def test_dtypes_are_what_the_model_was_fitted_with():
    data = DATA.assign(
        rating=DATA.rating.astype("Int64"),
        job=DATA.job.astype(pd.CategoricalDtype(JOBS, ordered=True)),
        home=DATA.home.astype(object),
        age=DATA.age.astype("int16"),
    )

    class Strict:
        classes_ = MODEL.classes_

        def predict_proba(self, rows):
            assert dict(rows.dtypes.drop("income")) == dict(data.dtypes.drop("income"))
            assert list(rows.columns) == list(data.columns)
            back = rows.assign(
                **{c: rows[c].astype(DATA[c].dtype) for c in ("rating", "job", "home")}
            )
            return MODEL.predict_proba(back)

    task = task_of(Strict(), data)
    task.check(data)
    rows = data[~decided(DATA)].iloc[:1]
    assert task.recourse(rows, scm_of(task.graph)).to_frame().status.iloc[0] == "found"
    assert task.recourse(rows.iloc[0], scm_of(task.graph)).to_frame().status.iloc[0] == "found"


def test_columns_that_do_not_fit_are_named_with_their_rows(task, refused):
    scm = scm_of(task.graph)
    with pytest.raises(ValueError, match=r"column 'home' to be one of .*'tent' in row 'row 1'"):
        task.recourse(DATA.assign(home=["rent", "tent"] * 200), scm)
    with pytest.raises(ValueError, match=r"column 'job' to be one of .*'pilot' in row 'row 1'"):
        task.recourse(DATA.assign(job=["none", "pilot"] * 200), scm)
    with pytest.raises(ValueError, match=r"no missing values in column 'savings'.*'row 1'"):
        task.recourse(DATA.assign(savings=[1.0, np.nan] * 200), scm)
    with pytest.raises(ValueError, match=r"column 'income' in \[0, 9000\]; got 9999 in row"):
        task.recourse(refused.assign(income=9999), scm)
    with pytest.raises(ValueError, match=r"once; got missing \['phone', 'age'\]"):
        task.recourse(refused.drop(columns=["age", "phone"]), scm)
    twice = pd.concat([refused, refused[["age"]]], axis=1)
    with pytest.raises(ValueError, match=r"once; got repeated \['age'\]"):
        task.recourse(twice, scm)
    with pytest.raises(ValueError, match=r"data .* repeated \['age'\]"):
        task_of(data=pd.concat([DATA, DATA[["age"]]], axis=1))
    with pytest.raises(ValueError, match="at least one row"):
        task.recourse(refused.iloc[:0], scm)
    with pytest.raises(TypeError, match="column 'income' to be numbers; got str"):
        task.recourse(refused.iloc[0].to_dict() | {"income": "much"}, scm)


def test_context_may_lack_and_be_new_if_the_model_takes_it(refused):
    class Careless:
        classes_ = MODEL.classes_

        def predict_proba(self, rows):
            return MODEL.predict_proba(rows.assign(town="Kiel", age=rows.age.fillna(40)))

    task = task_of(Careless())
    rows = refused.iloc[:1].assign(town="Atlantis", age=np.nan)
    assert task.recourse(rows, scm_of(task.graph)).to_frame().status.iloc[0] == "found"


def test_forbidden_outcomes_are_never_advised(task, refused, plan):
    free = plan.to_frame().acts_on
    assert free.str.contains("phone|home|job").any()

    def no_change(rows):
        return rows.phone.to_numpy() | (rows.home != "rent").to_numpy()

    rows = refused.assign(phone=False, home=pd.Categorical(["rent"] * 3, HOMES))
    own = task_of(forbidden=no_change)
    table = own.recourse(rows, scm_of(task.graph)).to_frame()
    assert table["phone (action)"].isna().all()
    assert table["home (action)"].isna().all()
    assert (table.status == "found").all()
    listed = task_of(forbidden=[{"phone": True}, {"home": ["own", "free"]}])
    again = listed.recourse(rows, scm_of(task.graph)).to_frame()
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(ValueError, match="forbidden columns"):
        task_of(forbidden=[{"telephone": True}])
    with pytest.raises(ValueError, match="forbidden to return"):
        task_of(forbidden=lambda rows: 1.0).recourse(rows, scm_of(task.graph))


def test_fifty_columns_of_which_three_can_be_acted_on(refused):
    rng = np.random.default_rng(2)
    more = {f"extra {i}": rng.normal(size=len(DATA)) for i in range(42)}
    data = DATA.assign(**more)
    model = pipeline(LogisticRegression(C=0.05, max_iter=1000), data, outcome_of(DATA))
    acted = {name: FEATURES[name] for name in ("income", "phone", "home")}
    task = task_of(model, data, acted)
    assert len(task.columns) == 50
    assert repr(task) == "Task(phone, home, income of 50 columns can be acted on)"
    rows = data[~decided(data, model)].iloc[:2]
    table = task.recourse(rows, scm_of(task.graph)).to_frame()
    assert (table.status == "found").all()
    assert set("+".join(table.acts_on).split("+")) <= set(acted)


def test_a_level_is_a_probability_over_draws(task, refused):
    job = 700 + 300 * jax.random.normal(jax.random.key(0), (3, 400))

    def one(job):
        return scm_of(task.graph, job)

    draws = jax.vmap(jax.vmap(one))(job)
    plan = task.recourse(refused, draws, level=0.9)
    table = plan.to_frame()
    assert (table.status == "found").all()
    assert table.p_valid.ge(0.9).all()
    fresh = [one(job) for job in (700.0, 750.0)]
    assert all(task.evaluate(plan, scm).p_valid.equals(table.p_valid) for scm in fresh)
    levels = plan.price_of_certainty([0.5, 0.9])
    assert list(levels.index) == [(row, level) for row in refused.index for level in (0.5, 0.9)]
    assert (levels.cost.to_numpy()[::2] <= levels.cost.to_numpy()[1::2]).all()
    for wrong in ([], [0.5, 1.0]):
        with pytest.raises(ValueError, match=r"Expected levels in \(0, 1\), one at least; got"):
            plan.price_of_certainty(wrong)
    with pytest.raises(ValueError, match="several draws"):
        task.recourse(refused, scm_of(task.graph), level=0.9)


def test_somebody_without_an_scm_gets_no_advice(task, refused):
    jobs = jnp.array([700.0, jnp.nan, 700.0])
    scms = jax.vmap(lambda job: scm_of(task.graph, job))(jobs)
    table = task.recourse(refused, scms).to_frame()
    assert list(table.status) == ["found", "no_model", "found"]
    assert table.sentence.iloc[1].startswith("No advice")
    assert list(task.evaluate(task.recourse(refused, scms), scm_of(task.graph)).valid) == [
        *(True, False, True)
    ]


def test_a_jax_score_is_taken_by_name(refused):
    def score(x):
        return x[0] / 1000 + x[1] + 0.01 * x[2] - 5.0

    with pytest.raises(ValueError, match=r"model\.names"):
        task_of(score, favourable=None)
    score.names = ("income", "job", "age")
    task = task_of(score, favourable=None)
    own = DATA.income / 1000 + DATA.job.map(JOBS.index) + 0.01 * DATA.age - 5.0
    checked = task.check(DATA)
    np.testing.assert_allclose(checked.logit, own, atol=1e-4)
    for i in (0, 7):  # the same of a person alone, whose context is bound to the score
        row = DATA.iloc[[i]]
        alone = float(task.score_of(row)(task.encode(row)[0]))
        assert alone == pytest.approx(checked.logit.iloc[i], abs=1e-5)
    dearer = task_of(score, favourable=None, threshold=0.9).check(DATA.iloc[:9])
    np.testing.assert_allclose(dearer.logit, own.iloc[:9] - np.log(9.0), atol=1e-4)
    asked = []

    def counting(x):
        asked.append(1)
        return score(x)

    counting.names = score.names
    task_of(counting, favourable=None).check(DATA)
    assert len(asked) < 10  # traced, not called for everybody
    rows = DATA[own < 0].iloc[:2]
    plan = task.recourse(rows, scm_of(task.graph))
    after = followed(task, plan, scm_of(task.graph))
    own = after.income / 1000 + after.job.map(JOBS.index) + 0.01 * after.age - 5.0
    assert (own >= -1e-4).all()


def test_a_jax_score_judges_alike_alone_and_in_the_program_that_follows_actions(refused):
    def score(x):
        return x[0] / 1000 + x[1] + 0.01 * x[2] - 3.0

    score.names = ("income", "job", "age")
    task, row = task_of(score, favourable=None), refused.iloc[[0]]
    x, places = task.encode(row)[0], [list(task.features).index(c) for c in ("income", "job")]
    person = person_of(task, row, x, scm_of(task.graph), None, None)
    rows = np.tile(x, (6, 1))
    rows[:, places] = [(100, 0), (2999, 2), (9001, 2), (8000, 3), (np.nan, 0), (2000, -1)]
    alone = person.margin(rows) >= 0
    assert alone.tolist() == [False, True, False, False, False, False]
    np.testing.assert_array_equal(jax.vmap(person.favourable)(rows), alone)
    banned = task_of(score, favourable=None, forbidden=[{"income": 2999}])
    person = person_of(banned, row, x, scm_of(task.graph), None, None)
    assert person.favourable is None
    assert not (person.margin(rows) >= 0).any()


def test_rows_that_are_the_same_are_found():
    rows = np.random.default_rng(0).integers(-2, 3, (500, 3)).astype(np.float32)
    first, places = distinct(rows)
    np.testing.assert_array_equal(rows[first][places], rows)
    assert len(first) == len(np.unique(rows, axis=0))
    odd = np.array([[0.0, np.nan], [0.0, np.nan], [1.0, 2.0]])
    np.testing.assert_array_equal(odd[distinct(odd)[0]][distinct(odd)[1]], odd)


@pytest.mark.parametrize("graph", [nx.DiGraph(GRAPH), "income ~ job\nsavings + rating ~ income"])
def test_graphs_come_in_any_language(graph, task):
    assert set(task_of(graph=graph).graph.edge_names) == set(task.graph.edge_names)


def test_misuse_is_refused(task, refused):
    with pytest.raises(ValueError, match=r"missing \['wealth'\]"):
        task_of(graph=[("wealth", "income")])
    with pytest.raises(ValueError, match="can be acted on; got none"):
        task_of(features={"income": pcr.Real(actionable=False)})
    with pytest.raises(ValueError, match=r"immutable column 'savings' .* \['job', 'income'\]"):
        task_of(features={**FEATURES, "savings": pcr.Real(immutable=True)})
    with pytest.raises(TypeError, match=r"features\['income'\]"):
        task_of(features={"income": (0, 9000)})
    with pytest.raises(ValueError, match="scale of"):
        task_of(scale={"wealth": 1.0})
    with pytest.raises(TypeError, match="model"):
        task_of(model=3)
    with pytest.raises(ValueError, match="names of 'home'"):
        task_of(features={**FEATURES, "home": pcr.Nominal([*HOMES, "tent"])})
    with pytest.raises(ValueError, match="the task's graph"):
        task.recourse(refused, pcr.library.m1())
    with pytest.raises(TypeError, match="by to be a SCM"):
        task.recourse(refused, 3)


def test_a_persons_own_wishes_hold_in_all_advice(task, refused):
    row, scm = refused.iloc[[chance(refused).argmax()]], scm_of(task.graph)
    free = task.recourse(row, scm).to_frame().iloc[0]
    first = free.acts_on.split("+")[0]
    locked = task.personal(locked=[first]).recourse(row, scm, k=3).alternatives()
    assert (locked.status == "found").all()
    assert not any(first in name.split("+") for name in locked.acts_on)
    assert locked.cost.min() >= free.cost

    income = int(row.income.iloc[0])
    limits = {"income": (income + 250, income + 1450), "job": ("none", "part time")}
    own = task.personal(locked=["phone", "home"], limits=limits)
    table = own.recourse(row, scm, k=3).alternatives()
    set_to = table["income (action)"].dropna()
    assert len(set_to)
    assert set_to.between(income + 250, income + 1450).all()
    assert "full time" not in set(table["job (action)"])
    # Reactions are not bounded: a job raises the income beyond them.
    capped = task.personal(limits={"income": (0, income)})
    table = capped.recourse(row, scm, k=5).alternatives()
    reached = table[table.acts_on.str.contains("job") & ~table.acts_on.str.contains("income")]
    assert len(reached)
    assert (reached["income (expected)"] > income).all()

    twice = task.personal(weights={"income": 2.0, "job": 2, "phone": 2.0, "home": 2.0})
    dear = twice.recourse(row, scm).to_frame().iloc[0]
    assert dear.cost == pytest.approx(2 * free.cost)
    assert dear.sentence == free.sentence
    hard = task.personal(weights=dict.fromkeys(free.acts_on.split("+"), 1e3))
    assert hard.recourse(row, scm).to_frame().acts_on.iloc[0] != free.acts_on
    np.testing.assert_array_equal(hard.scale, task.scale)
    assert hard.personal(weights={first: 2.0}).weights.max() == 2e3
    assert task.weights.max() == 1
    assert not task.limits


def test_limits_beyond_where_somebody_is_hold_for_reals_without_steps_too(refused):
    features = {**FEATURES, "income": pcr.Real(low=0.0, high=9000.0)}
    task = task_of(features=features).personal(
        locked=["job", "phone", "home"], limits={"income": (8000, 8900)}
    )
    row = refused.iloc[[0]]
    table = task.recourse(row, scm_of(task.graph)).to_frame()
    assert table.status.iloc[0] == "found"
    assert table["income (action)"].iloc[0] == 8000
    bounds = np.array(task.problem(row).bounds)[:, 0, list(task.features).index("income")]
    np.testing.assert_allclose(bounds, [0, 8900 - row.income.iloc[0]])


def test_wishes_that_mean_nothing_are_refused(task):
    for wish in ({"locked": ["rating"]}, {"limits": {"age": (1, 2)}}, {"weights": {"rating": 2}}):
        with pytest.raises(ValueError, match=f"Expected {next(iter(wish))} of columns that can be"):
            task.personal(**wish)
    with pytest.raises(ValueError, match="locked to leave one of the columns"):
        task.personal(locked=["job", "income", "phone", "home"])
    for ends in ((5000, 1000), (10_000, 12_000)):
        with pytest.raises(ValueError, match=r"limits of 'income' in order, and of \[0, 9000\]"):
            task.personal(limits={"income": ends})
    with pytest.raises(ValueError, match="limits of 'income' to be the least and the largest"):
        task.personal(limits={"income": (1, 2, 3)})
    with pytest.raises(TypeError, match="limits of 'income'"):
        task.personal(limits={"income": ("much", "more")})
    with pytest.raises(ValueError, match="column 'job' to be one of"):
        task.personal(limits={"job": (0, 1)})
    with pytest.raises(ValueError, match="limits of columns with an order; got 'home'"):
        task.personal(limits={"home": ("rent", "own")})
    with pytest.raises(ValueError, match="weights of 'income' > 0"):
        task.personal(weights={"income": 0.0})
    with pytest.raises(TypeError, match="limits"):
        task.personal(limits=[("income", (0, 1))])
