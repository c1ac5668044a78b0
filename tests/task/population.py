"""A table of people with columns of all kinds, and what causes what in it."""

import jax.numpy as jnp
import numpy as np
import pandas as pd

import pcr_jax as pcr

JOBS, HOMES = ["none", "part time", "full time"], ["rent", "own", "free"]
GRAPH = [("job", "income"), ("income", "savings"), ("income", "rating")]
FEATURES = {
    "job": pcr.Levels(JOBS, direction="increase"),
    "income": pcr.Real(low=0.0, high=9000.0, step=100.0, unit="euros", label="monthly income"),
    "phone": pcr.Levels([False, True]),
    "home": pcr.Nominal(HOMES),
    "rating": pcr.Integer(low=1, high=4, actionable=False, label="credit rating"),
}


def people(num=400, seed=0):
    """A table; income and savings in euros, whole income."""
    rng = np.random.default_rng(seed)
    job = rng.integers(0, 3, num)
    income = np.round(1200 + 700 * job + 500 * rng.normal(size=num)).clip(0, 9000)
    savings = np.round(0.8 * income + 600 * rng.normal(size=num), 2)
    rating = np.round(1.5 + income / 2000 + 0.4 * rng.normal(size=num)).clip(1, 4).astype(int)
    return pd.DataFrame(
        {
            "town": rng.choice(["Kiel", "Ulm"], num),
            "rating": rating,
            "phone": rng.random(num) < 0.5,
            "savings": savings,
            "home": pd.Categorical(rng.choice(HOMES, num), HOMES),
            "job": np.array(JOBS)[job],
            "income": income.astype(int),
            "age": rng.integers(18, 80, num),
        },
        index=[f"row {i}" for i in range(num)],
    )


def outcome_of(table, seed=1):
    """Granted or refused, which depends on all but the town."""
    rng = np.random.default_rng(seed)
    good = (
        *(table.income / 800, table.savings / 1500, table.rating, 0.8 * table.phone),
        *(0.7 * (table.home == "own"), table.job.map(JOBS.index), table.age / 60),
    )
    total = sum(np.asarray(part, float) for part in good)
    noisy = total + 0.7 * rng.normal(size=len(table))
    return np.where(noisy > np.quantile(total, 0.6), "granted", "refused")


def pipeline(classifier, table, outcome=None):
    """A fitted pipeline of scikit-learn over all columns."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
    )
    target = outcome_of(table) if outcome is None else outcome
    return make_pipeline(columns, classifier).fit(table, target)


def scm_of(graph, job=700.0, savings=0.8, rating=1 / 2000):
    """What causes what in the table."""
    effect = {"income <- job": job, "savings <- income": savings, "rating <- income": rating}
    return pcr.linear_scm(graph, jnp.stack([jnp.asarray(effect[e]) for e in graph.edge_names]))
