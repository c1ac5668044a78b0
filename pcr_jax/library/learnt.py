"""The linear SCMs that Dominguez-Olmedo et al. (2022) learnt from two data sets.

"On the adversarial robustness of causal algorithmic recourse".
"""

import jax.numpy as jnp

from pcr_jax.graph import Graph
from pcr_jax.library.parts import affine
from pcr_jax.mechanisms import Mechanism
from pcr_jax.scm import SCM


def _learnt(nodes, intercepts, effects) -> SCM:
    """Affine SCMs, of whose residuals nothing is published: they have no noise to sample."""
    graph = Graph.from_edges(nodes, list(effects))
    mechanisms = []
    for node, parents in zip(graph.nodes, graph.parents, strict=True):
        known = [effects[graph.nodes[p], node] for p in parents]
        mechanisms.append(Mechanism(jnp.array([intercepts.get(node, 0.0), *known]), affine))
    none: tuple = (None,) * len(nodes)
    return SCM(graph, tuple(mechanisms), none)


def adult() -> SCM:
    """Dominguez-Olmedo's of the Adult data, for counterfactuals alone.

    Male, US and Married are 0 or 1; age, years of education and hours a week are standardised.
    """
    roots = ("Male", "age", "US")
    married = dict(zip(roots, (0.4119, 0.1262, -0.0664), strict=True))
    education = dict(zip((*roots, "Married"), (-0.0465, 0.0019, 0.3316, 0.1847), strict=True))
    hours = dict(zip((*roots, "Married"), (0.3402, -0.0017, 0.0149, 0.2569), strict=True))
    of_nodes = {"Married": married, "education": education, "hours": hours}
    effects = {(cause, node): b for node, of in of_nodes.items() for cause, b in of.items()}
    intercepts = {"Married": 0.2286, "education": -0.3576, "hours": -0.3965}
    return _learnt((*roots, "Married", "education", "hours"), intercepts, effects)


def compas() -> SCM:
    """Dominguez-Olmedo's of the COMPAS data, for counterfactuals alone.

    Male and Caucasian are 0 or 1; age and the number of priors are standardised.
    """
    effects = {
        ("age", "Caucasian"): 0.0974,
        ("Male", "Caucasian"): -0.0553,
        ("age", "priors"): 0.1477,
        ("Male", "priors"): 0.2777,
        ("Caucasian", "priors"): -0.3293,
    }
    intercepts = {"Caucasian": 0.4079, "priors": -0.1}
    return _learnt(("age", "Male", "Caucasian", "priors"), intercepts, effects)
