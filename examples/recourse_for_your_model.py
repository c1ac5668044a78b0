"""Recourse for a model of your own: scikit-learn, named features, a DAG from networkx."""

import jax
import networkx as nx
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier

import pcr_jax as pcr

# What causes what; yearly income, savings and debt in thousands.
dag = nx.DiGraph([("age", "income"), ("income", "savings"), ("income", "debt")])
graph = pcr.Graph.from_networkx(dag)

# How much: the effect of one unit of the cause.
effect = {"income <- age": 0.5, "savings <- income": 0.4, "debt <- income": -0.2}
noise = {
    "age": dist.Uniform(20.0, 65.0),
    "income": dist.Normal(15.0, 8.0),
    "savings": dist.Normal(0.0, 6.0),
    "debt": dist.Normal(20.0, 5.0),
}
scm = pcr.linear_scm(graph, effect, [noise[name] for name in graph.nodes])

# Your data and your model. The table has an order of its own: what has names is taken by name.
columns = ["debt", "savings", "income", "age"]
k_past, k_new = jax.random.split(jax.random.key(0))
past = pd.DataFrame(scm.sample(k_past, 2000), columns=graph.nodes)[columns]
luck = np.random.default_rng(0).normal(0, 5, len(past))
good = past.income + past.savings - 2 * past.debt + luck > 15
outcome = good.map({True: "repaid", False: "defaulted"})
model = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(past, outcome)

# A loan needs a probability of 0.6 that it is repaid. Who is refused, and what can they do?
score = pcr.outside_model(model, favourable="repaid", threshold=0.6, names=graph.nodes)
applicants = pd.DataFrame(scm.sample(k_new, 40), columns=graph.nodes)[columns]
x = applicants[np.asarray(score(applicants)) < 0][:8]
constraints = pcr.Constraints(
    actionable={name: name != "age" for name in columns},
    increase_only={name: name == "income" for name in columns},
    lower={name: 0.0 if name == "debt" else -np.inf for name in columns},
    upper={name: 80.0 if name == "income" else np.inf for name in columns},
)
plan = pcr.find_recourse(score, scm, x, scale=past.std(), constraints=constraints)

table = plan.to_frame()
for applicant, sentence in table.sentence.items():
    print(f"Applicant {applicant}: {sentence}")
