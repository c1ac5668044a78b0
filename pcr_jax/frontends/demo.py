"""A task to try things with: the loan of Karimi et al. (2020), in units that people have.

Nobody's data: the table is drawn from `pcr_jax.library.loan`, whose numbers have no units, and
written as years, months and euros. Its noise is drawn by NumPy, which need not compile for it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from pcr_jax import library
from pcr_jax.features import Integer, Levels, Real
from pcr_jax.task import Task

COLUMNS = ("gender", "age", "education", "amount", "duration", "income", "savings")
_ORIGIN = np.array([0.0, 35.0, 12.0, 10_000.0, 36.0, 2500.0, 6000.0])
_UNIT = np.array([1.0, 1.0, 8.0, 2000.0, 4.0, 400.0, 600.0])
_GRID = np.array([1.0, 1.0, 1.0, 100.0, 1.0, 10.0, 100.0])
_LEAST = np.array([0.0, 18.0, 8.0, 500.0, 1.0, 0.0, 0.0])
_DEVIATION = np.array([0.0, 0.0, 0.5, 2.0, 3.0, 2.0, 5.0])  # of the noise that is normal
_PEOPLE, _SEED = 1000, 0


def granted(x):
    """The logit of the loan being granted to features (7,) in the units of the table."""
    return library.loan_logit((x - _ORIGIN) / _UNIT)


granted.names = COLUMNS  # type: ignore[attr-defined]


@cache
def table() -> pd.DataFrame:
    """A bank's past applicants."""
    rng = np.random.default_rng(_SEED)
    noise = rng.normal(size=(_PEOPLE, len(COLUMNS))) * _DEVIATION
    noise[:, 0] = rng.integers(0, 2, _PEOPLE)
    noise[:, 1] = rng.gamma(10.0, 3.5, _PEOPLE)
    x = np.asarray(library.loan().predict(noise)) * _UNIT + _ORIGIN
    x = np.maximum(np.round(x / _GRID) * _GRID, _LEAST)
    whole = ["age", "education", "duration"]
    found = pd.DataFrame(x, columns=list(COLUMNS)).astype(dict.fromkeys(whole, int))
    found["gender"] = np.where(found.gender > 0, "man", "woman")
    return found


@cache
def demo_task() -> Task:
    """The task of the demonstration."""
    return Task(
        model=granted,
        data=table(),
        graph=[(COLUMNS[p], COLUMNS[c]) for p, c in _edges()],
        features={
            "gender": Levels(["woman", "man"], protected=True),
            "age": Integer(immutable=True, unit="years"),
            "education": Integer(
                low=8, high=18, unit="years", direction="increase", label="time in education"
            ),
            "amount": Real(low=500, high=25_000, step=500, unit="euros", label="loan"),
            "duration": Integer(low=1, high=96, unit="months", label="time to pay it back"),
            "income": Real(
                low=0,
                high=8000,
                step=50,
                unit="euros",
                direction="increase",
                label="monthly income",
            ),
            "savings": Real(low=0, high=20_000, step=200, unit="euros", direction="increase"),
        },
    )


def _edges():
    """The graph's, as places among the columns."""
    places = ["GAELDIS".index(node) for node in library.loan().graph.nodes]
    return [(places[p], places[c]) for p, c in library.loan().graph.edges]


@cache
def refused() -> pd.DataFrame:
    """Applicants who were refused, but not hopelessly."""
    task = demo_task()
    logit = task.check(task.data).logit
    return task.data[(logit < -0.2) & (logit > -3.0)]
