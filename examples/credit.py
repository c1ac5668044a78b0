"""From a table to a letter: a refused applicant for credit, six questions, advice for 90 %.

The table is made up, with columns such as those of the German credit data (Hofmann 1994).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import pcr_jax as pcr

EMPLOYED = ["not employed", "under 1 year", "1 to 4 years", "4 to 7 years", "over 7 years"]


def people(num, rng):
    """A bank's past applicants, and whether they paid back."""
    employed = rng.integers(0, 5, num)
    savings = (300 + 500 * employed + 600 * rng.normal(size=num)).clip(0).round(-1)
    amount = (1500 * np.exp(0.7 * rng.normal(size=num))).clip(300, 15_000).round(-1)
    duration = (6 + 0.006 * amount + 5 * rng.normal(size=num)).clip(4, 72).round()
    table = pd.DataFrame(
        {
            "purpose": rng.choice(["car", "furniture", "radio", "repairs"], num),
            "housing": rng.choice(["rent", "own", "free"], num, p=[0.25, 0.6, 0.15]),
            "age": rng.integers(19, 75, num),
            "employed": np.array(EMPLOYED)[employed],
            "savings": savings,
            "amount": amount,
            "duration": duration.astype(int),
        },
        index=[f"applicant {i}" for i in range(num)],
    )
    worth = savings / 500 + employed / 2 - amount / 900 - duration / 8 + (table.housing == "own")
    good = worth + rng.logistic(size=num) > np.median(worth)
    return table, np.where(good, "good", "bad")


table, outcome = people(1000, np.random.default_rng(0))
columns = make_column_transformer(
    (StandardScaler(), make_column_selector(dtype_include="number")),
    (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
)
model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(table, outcome)

task = pcr.Task(
    model=model,
    favourable="good",
    data=table,
    graph="savings ~ employed\nduration ~ amount",
    features={
        "age": pcr.Integer(immutable=True),
        "employed": pcr.Levels(EMPLOYED, direction="increase", label="time in employment"),
        "savings": pcr.Real(low=0, high=20_000, step=100, unit="euros", direction="increase"),
        "amount": pcr.Real(low=300, high=15_000, step=100, unit="euros", label="credit"),
        "duration": pcr.Integer(low=4, high=72, unit="months", label="time to pay it back"),
    },
)
task.check(table)
refused = table[model.predict(table) == "bad"]
# Whose decision a change can turn, and who is not refused by a hair's breadth.
applicant = refused[model.predict_proba(refused)[:, 1] < 0.3].iloc[0]

session = task.session(applicant, task.fit(), key=jax.random.key(1), max_questions=6)
# In the place of a person: savings grow faster with employment than other people's.
effects = {"savings <- employed": 700.0, "duration <- amount": 0.005}
truth = pcr.linear_scm(task.graph, jnp.array([effects[edge] for edge in task.graph.edge_names]))
person = pcr.SimulatedUser(truth)
for t in range(6):
    print(session.sentences()[0])
    session.tell(person.answer(jax.random.key(t), session.ask(), session.problem.x))

plan = session.recommend(level=0.9, k=2)
print(plan.letter())
report = plan.report()  # report.html and report.json are texts to be written to files
print(f"A page of {len(report.html) / 1000:.0f} kB; under the applicant's true SCM:")
print(task.evaluate(plan, truth).round(3).to_string(index=False))
