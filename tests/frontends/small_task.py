"""A made-up decision about three features, with a JAX score; and one that cannot be asked about."""

from functools import cache

import numpy as np
import pandas as pd

import pcr_jax as pcr

JOBS = ["none", "part time", "full time"]
FEATURES = {
    "job": pcr.Levels(JOBS, direction="increase"),
    "income": pcr.Real(
        low=0, high=9000, step=100, unit="euros", label="monthly income", direction="increase"
    ),
    "savings": pcr.Real(low=0, high=20_000, step=100, unit="euros", direction="increase"),
}


def score(x):
    """The logit of being granted."""
    return 0.5 * x[0] + x[1] / 1000 + x[2] / 2000 - 4.6


score.names = ("job", "income", "savings")


@cache
def small():
    """The same task every time, so that its programs are compiled once."""
    rng = np.random.default_rng(0)
    job = rng.integers(0, 3, 200)
    income = np.round(1500 + 600 * job + 300 * rng.normal(size=200), -1).clip(0, 9000)
    savings = np.round(0.5 * income + 400 * rng.normal(size=200), -1).clip(0, 20_000)
    data = pd.DataFrame({"job": np.array(JOBS)[job], "income": income, "savings": savings})
    graph = [("job", "income"), ("income", "savings")]
    return pcr.Task(model=score, data=data, graph=graph, features=FEATURES)


def unordered():
    """With a cause that has no order."""
    data = pd.DataFrame({"town": ["Kiel", "Ulm", "Bonn"], "income": [1.0, 2.0, 3.0]})
    features = {"income": pcr.Real(low=0, high=9)}

    def score(x):
        return x[0] - 2.0

    score.names = ("income",)
    return pcr.Task(model=score, data=data, graph=[("town", "income")], features=features)
