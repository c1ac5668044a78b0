"""The task of the study: a made-up loan of three features that people can change."""

import jax
import numpy as np
import pandas as pd

import pcr_jax as pcr

COLUMNS = ("income", "savings", "loan")


def granted(x):
    """The logit of the loan being granted: income in euros a month, the others in euros."""
    income, savings, loan = x
    return (income - 2600) / 400 + (savings - 5000) / 2500 - (loan - 9000) / 3000


granted.names = COLUMNS


def people(num=600, seed=0):
    """A bank's past applicants, who are made up."""
    noise = np.asarray(jax.random.normal(jax.random.key(seed), (num, 3)))
    income = 2500 + 500 * noise[:, 0]
    savings = 4500 + 3.0 * (income - 2500) + 1200 * noise[:, 1]
    loan = 9000 + 2.0 * (income - 2500) + 1800 * noise[:, 2]
    found = pd.DataFrame({"income": income, "savings": savings, "loan": loan})
    return found.clip({"income": 800, "savings": 0, "loan": 1000}, axis=1).round(-1)


def task():
    """Incomes change what people save, and how much they ask for."""
    return pcr.Task(
        model=granted,
        data=people(),
        graph="savings ~ income\nloan ~ income",
        features={
            "income": pcr.Real(low=0, high=8000, step=50, unit="euros", label="monthly income"),
            "savings": pcr.Real(low=0, high=40_000, step=250, unit="euros"),
            "loan": pcr.Real(low=500, high=40_000, step=250, unit="euros"),
        },
    )
