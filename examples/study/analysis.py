"""What came of the study: ``python analysis.py EXPORT [TRUTH.csv]``.

It was written before the first person came, for people who are simulated: their SCMs are in
``truth.csv``, and with them it is seen whether plans work as often as they say.
"""

import json
import sys
from pathlib import Path

import loan
import numpy as np
import pandas as pd

import pcr_jax as pcr

BINS = [0.0, 0.8, 0.9, 0.95, 0.99, 1.001]


def share(values):
    """A share and its standard error, smoothed so that it is not 0 where all are alike."""
    n, k = len(values), float(np.sum(values))
    if not n:
        return "-"
    p = (k + 0.5) / (n + 1)
    return f"{k / n:.3f} +- {np.sqrt(p * (1 - p) / n):.3f}"


def valid(plans, participants, truth):
    """Whether each plan works in the SCM that the person has."""
    task = loan.task()
    surrogate, columns = task.fit(), list(task.features)
    rows = participants.set_index("participant")[[f"applicant: {c}" for c in columns]]
    x = dict(zip(rows.index, rows.to_numpy(float), strict=True))
    scms = {
        i: surrogate.scm(numbers) for i, numbers in zip(truth.index, truth.to_numpy(), strict=True)
    }
    found = []
    for plan in plans.itertuples():
        acts = json.loads(plan.set_to) or {}
        acted = np.array([column in acts for column in columns])
        value = np.array([acts.get(column, 0.0) for column in columns], float)
        now = x[plan.participant].astype(np.float32)
        after = scms[plan.participant].counterfactual(now, pcr.Action(value, acted))
        found.append(bool(loan.granted(np.asarray(after)) >= 0))
    return found


def by_chance(plans):
    """By arm and stated chance: plans, what they say on average, and the share that works."""
    plans = plans.assign(said=pd.cut(plans.chance, BINS, right=False).astype(str))
    groups = plans.groupby(["arm", "said"])
    return groups.agg(
        plans=("valid", "size"),
        stated=("chance", "mean"),
        works=("valid", share),
        cost=("cost", "mean"),
    )


def by_arm(data):
    """By arm: people, answers, seconds, attention, and how far retests are from the first time."""
    rows = {}
    answers = data["answers"]
    first = answers[answers.kind == "effect"].set_index(["participant", "number", "column"]).value
    again = answers[answers.kind == "retest"]
    places = pd.MultiIndex.from_frame(again[["participant", "of", "column"]])
    apart = (again.value.to_numpy(float) - first.reindex(places).to_numpy(float)) / again.scale
    for arm, people in data["participants"].groupby("arm"):
        asked = data["questions"][data["questions"].arm == arm]
        attention = asked[(asked.kind == "attention") & asked.answered]
        own = apart[again.arm.to_numpy() == arm].astype(float).dropna()
        rows[arm] = {
            "people": len(people),
            "finished": int(people.finished.notna().sum()),
            "answers": int(people.answers.sum()),
            "seconds, median": asked.seconds.median(),
            "attention, right": share(attention.right),
            "retests": len(own),
            "retest, apart (scales)": own.abs().median(),
            "would do": share(people.verdict.dropna() == "would do"),
        }
    return pd.DataFrame(rows).T


def main(folder, truth=None):
    """Print the tables."""
    names = ("participants", "questions", "answers", "plans")
    data = {name: pd.read_parquet(Path(folder) / f"{name}.parquet") for name in names}
    print(by_arm(data).to_string(), "\n")
    plans = data["plans"]
    plans = plans[plans.status.isin(["found", "not_likely"])]
    if truth is not None:
        numbers = pd.read_csv(truth, index_col="participant")
        plans = plans.assign(valid=valid(plans, data["participants"], numbers))
        print(by_chance(plans).round(3).to_string())
    else:
        print(plans[plans.plan == 0].groupby("arm")[["chance", "cost"]].describe().T.to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
