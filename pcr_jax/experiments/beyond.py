"""Beyond the paper: other questions and requirements, side by side with its own method.

The paper's users, classifier and error rates. Its method asks at random about people like them, and
plans under the posterior mean; the others ask people about themselves, believe that answers are
noisy and now and then wrong, and plan for a probability. Judged under the true SCM, after T
questions: how many of the recommended actions work, and how much dearer than the optimum they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pcr_jax import library
from pcr_jax.elicitation import (
    DecisionDesign,
    Design,
    InformationDesign,
    RandomDesign,
    SimulatedUser,
    ThompsonDesign,
    elicit,
)
from pcr_jax.evaluation import evaluate, intervention_pattern, optimum_cost
from pcr_jax.experiments.estimation import experiment_key, scm_index
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.experiments.variants import population_of
from pcr_jax.graph import Graph
from pcr_jax.history import History
from pcr_jax.inference import Ess, Posteriors, infer
from pcr_jax.likelihoods import Likelihood, mixture, tolerance
from pcr_jax.population import Population
from pcr_jax.recourse import Plan, Problem, pose, recommend
from pcr_jax.scm import SCM
from pcr_jax.surrogates import Surrogate, basis_surrogate, learned_prior, linear_surrogate

LEVEL = 0.95
"""The probability that plans are made for."""
NOISE = 0.05
"""Of right answers, in the population's standard deviations."""
DRAWS = 1000
"""Of each person's SCM."""
ROWS = 1500
"""Of a population, that a prior is learnt from."""
CURVED = ("m3",)
"""SCMs whose people are believed to have mechanisms of any shape."""


@dataclass(frozen=True)
class Method:
    """A way from questions to a plan.

    Attributes
    ----------
    name : str
    design : Design
    level : float or None
        None: planned under the posterior mean.
    same : Method, optional
        One that asks the same and believes the same, but plans otherwise.
    paper : bool
        Whether answers are about people like them, and believed as in the paper.
    """

    name: str
    design: Design
    level: float | None = LEVEL
    same: Method | None = None
    paper: bool = False


METHODS = (
    Method("paper", RandomDesign(0.0, 1.0, individual=False), None, paper=True),
    Method("random", RandomDesign(), LEVEL, Method("random, mean", RandomDesign(), None)),
    Method("information", InformationDesign()),
    Method("Thompson", ThompsonDesign()),
    Method("decision", DecisionDesign(), LEVEL, Method("decision, 0.99", DecisionDesign(), 0.99)),
)
PRIORS = ("flat", "learnt")


@dataclass(frozen=True)
class Setting:
    """One repetition: who is asked and what is known of the population.

    ``truth`` is one SCM, or one for each person; ``rows`` are of their population. ``graph`` is the
    one that is believed, the true one by default, and ``box`` the bounds of its coefficients, by
    default the surrogate's own. ``likelihood`` is what is believed of how people answer.
    """

    truth: SCM
    population: Population
    rows: jax.Array
    curved: bool
    epsilon: float = 0.0
    graph: Graph | None = None
    box: dict[str, float] = field(default_factory=dict)
    likelihood: Likelihood = field(default_factory=mixture)

    @property
    def units(self) -> dict[str, Any]:
        """Of a surrogate."""
        return {"scale": np.asarray(self.rows.std(0)), "centre": np.asarray(self.rows.mean(0))}

    def surrogate(self, prior: str) -> Surrogate:
        """What people's SCMs are believed to be before they answer."""
        family: Any = basis_surrogate if self.curved else linear_surrogate
        flat = family(self.graph or self.truth.graph, **self.units, **self.box)
        return learned_prior(flat, self.rows) if prior == "learnt" else flat

    def problem(self, level: float | None) -> Problem:
        """What people want decided."""
        score, x, scale = self.population
        graph = self.graph or self.truth.graph
        return pose(score, graph, x, scale=scale, epsilon=self.epsilon, level=level)


def setting_of(protocol: Protocol, scm: str, seed: int) -> Setting:
    """The paper's users and classifier of one repetition, as many as are asked."""
    truth, population = library.get(scm), population_of(protocol, scm, seed)
    rows = truth.sample(experiment_key(scm_index(scm), 4, seed), ROWS)
    some = population._replace(users=population.users[: protocol.beyond_people])
    return Setting(truth, some, rows, scm in CURVED)


def beliefs(
    key: jax.Array,
    setting: Setting,
    method: Method,
    prior: str,
    respondent: SimulatedUser,
    at: tuple[int, ...],
    hard: tuple[float, float] = (0.5, 0.1),
) -> Iterator[tuple[int, Posteriors]]:
    """What is believed after each of the numbers ``at`` of questions, in rising order.

    ``hard`` are sigma and beta of the paper's likelihood.
    """
    x = setting.population.users
    problem = None if method.paper else setting.problem(method.level)  # the paper knows no bounds
    surrogate: Any = setting.surrogate(prior)
    likelihood: Any = setting.likelihood
    sampler: Any = None
    if method.paper:
        surrogate, likelihood = linear_surrogate(setting.truth.graph), tolerance(*hard)
        sampler = Ess()
    history = History.empty(x, max(at))
    for t in range(max(at) + 1):
        k_ask, k_infer = jax.random.split(jax.random.fold_in(key, t))
        posteriors: Any = None
        if t in at or method.design.needs_posterior:
            posteriors = infer(k_infer, surrogate, history, likelihood, sampler=sampler)
        if t in at:
            yield t, posteriors
        if t < max(at):
            history = elicit(
                k_ask,
                respondent,
                x,
                num_queries=1,
                design=method.design,
                history=history,
                surrogate=surrogate,
                posteriors=lambda *_, found=posteriors: found,
                problem=problem,
            )


def planned(problem: Problem, posteriors: Posteriors) -> Plan:
    """Under draws where there is a level, and else under the mean."""
    draws = DRAWS if problem.requirement.over_draws else None
    return recommend(problem, posteriors.scms(draws))


def figures(plan: Plan, truth: SCM, optimum: jax.Array) -> dict[str, float]:
    """What came of a plan."""
    report = evaluate(plan, truth, optimum=optimum)
    served = np.isfinite(np.asarray(plan.cost)) & np.isfinite(np.asarray(optimum))
    cost, best = np.asarray(plan.cost)[served], np.asarray(optimum)[served]
    stated = np.asarray(plan.p_valid)
    return {
        "num_users": len(served),
        "served": float(served.mean()),
        "validity": float(np.asarray(report.robust_valid)[served].mean()) if served.any() else 0.0,
        "cost_ratio": float(cost.sum() / best.sum()) if served.any() else float("nan"),
        "cost_ratio_median": float(np.median(cost / best)) if served.any() else float("nan"),
        "stated": float(np.nanmean(stated)) if np.isfinite(stated).any() else float("nan"),
    }


def beyond_rows(
    protocol: Protocol, scm: str, seed: int, methods: tuple[Method, ...] = METHODS
) -> tuple[list[dict], list[dict]]:
    """The rows of beyond.csv and beyond_interventions.csv of one repetition."""
    setting = setting_of(protocol, scm, seed)
    truth, (score, x, scale) = setting.truth, setting.population
    optimum = optimum_cost(score, truth, x, scale=scale)
    noise = NOISE * jnp.asarray(setting.units["scale"])
    wrong = library.theta_star()
    person = SimulatedUser(truth, error_rate=protocol.alpha, wrong=wrong, noise=noise)
    hard = dict(protocol.sigma)[scm], protocol.beta
    rows: list[dict] = []
    patterns: list[dict] = []
    for method, prior in _with_priors(methods):
        key, at = experiment_key(scm_index(scm), 5, seed), protocol.beyond_questions
        for t, posteriors in beliefs(key, setting, method, prior, person, at, hard):
            for one in filter(None, (method, method.same)):
                here = {"scm": scm, "seed": seed, "design": one.name, "prior": prior}
                here["questions"] = t
                plan = planned(setting.problem(one.level), posteriors)
                rows.append({**here, **figures(plan, truth, optimum)})
                acts = np.asarray(plan.action.intervened).any(1)
                pattern = intervention_pattern(plan.action, truth.graph.nodes, acts)
                patterns += [
                    {**here, "intervention_set": members, "share": share}
                    for members, share in pattern.items()
                ]
    return rows, patterns


def _with_priors(methods: tuple[Method, ...]) -> list[tuple[Method, str]]:
    """All of them, with a prior each; the paper's believes a box."""
    every = [(method, prior) for prior in PRIORS for method in methods]
    return [(method, prior) for method, prior in every if prior == "flat" or not method.paper]


def labels_of_rows(at: tuple[int, ...]) -> list[tuple[str, str, int]]:
    """Design, prior and questions of the rows, in their order."""
    return [
        (one.name, prior, t)
        for method, prior in _with_priors(METHODS)
        for t in at
        for one in filter(None, (method, method.same))
    ]
