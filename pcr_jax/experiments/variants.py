"""RQ1 and RQ2: recourse under the true, the estimated and the non-causal SCM.

Sections 5.2 and 5.3 of the paper.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import library
from pcr_jax.actions import Action
from pcr_jax.batching import take
from pcr_jax.classifiers import Classifier
from pcr_jax.evaluation import Report, evaluate, intervention_pattern, optimum_cost
from pcr_jax.experiments.estimation import experiment_key, scm_index
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.population import Population, refused_population, refused_test_users
from pcr_jax.recourse import Algorithm1, Plan, PlanStatus, find_recourse, pose
from pcr_jax.scm import SCM, linear_scm, non_causal


def population_of(protocol: Protocol, scm: str, seed: int) -> Population:
    """The classifier and refused users of one repetition."""
    truth, key = library.get(scm), experiment_key(scm_index(scm), 2, seed)
    settings: dict[str, Any] = {
        "learning_rate": protocol.classifier_rate,
        "epochs": protocol.classifier_epochs,
    }
    if protocol.split:
        return refused_test_users(
            key, truth, num_samples=protocol.num_train, max_users=protocol.num_users, **settings
        )
    return refused_population(
        key, truth, num_train=protocol.num_train, num_users=protocol.num_users, **settings
    )


def frame(population: Population, own: SCM, truth: SCM, key: Array) -> Population:
    """A population as an SCM variant of the released code sees it.

    Every variant standardises features by the mean and standard deviation of 100 draws of its
    own; users keep their standardised values. In natural units this moves the users and the
    classifier's standardisation, and gives the variant a scale of its own.
    """
    true_draws, own_draws = truth.sample(key, 100), own.sample(key, 100)
    ratio = own_draws.std(0) / true_draws.std(0)

    def move(x):
        return own_draws.mean(0) + (x - true_draws.mean(0)) * ratio

    score = population.score
    moved = Classifier(score.module, score.params, move(score.loc), score.scale * ratio)
    return Population(moved, move(population.users), own_draws.std(0))


def _taken(protocol: Protocol, truth: SCM, variants: dict, frames: dict, epsilon: float):
    """Every variant's plan and its outcome, users of one learning rate after those of another.

    And the costs of the true users' cheapest actions, (num_users,).
    """
    true = frames["ground_truth"]
    num_rates, num_users = len(protocol.learning_rates), len(true.users)
    rates = jnp.repeat(jnp.asarray(protocol.learning_rates), num_users)

    def every_rate(users):
        return jnp.tile(users, (num_rates, *[1] * (users.ndim - 1)))

    optimum = optimum_cost(true.score, truth, true.users, scale=true.scale, epsilon=epsilon)
    problem = pose(
        true.score, truth.graph, every_rate(true.users), scale=true.scale, epsilon=epsilon
    )
    found = {}
    for name, variant in variants.items():
        own = frames[name]
        plan = find_recourse(
            own.score,
            variant,
            every_rate(own.users),
            scale=own.scale,
            epsilon=epsilon,
            solver=Algorithm1(optimiser=protocol.optimiser),
            learning_rate=rates,
            digits=None,
        )
        # The same standardised action, taken by the true users.
        taken = replace(plan, action=Action.soft(plan.action.value * (true.scale / own.scale)))
        found[name] = plan, evaluate(taken, truth, problem=problem, optimum=every_rate(optimum))
    return found, optimum


def _share(users) -> float:
    """Share of True."""
    return float(np.mean(users))


def _figures(plan: Plan, name: str, reports: dict[str, Report], optimum: Array) -> dict:
    """The numbers of a row of recourse.csv: of one variant, beside the reports of all."""
    report = reports[name]
    return {
        "num_users": len(optimum),
        "validity": report.validity,
        "robust_validity": report.robust_validity,
        "cost_mean": report.cost_mean,
        "cost_mean_common": report.cost_mean_common(list(reports.values())),
        "regret_mean": report.regret_mean(reports["ground_truth"]),
        "regret_to_optimum_mean": report.regret_to_optimum_mean,
        "zero_gradient": _share(plan.status == PlanStatus.zero_gradient),
        "reachable": _share(jnp.isfinite(optimum)),
    }


def recourse_rows(
    protocol: Protocol, scm: str, seed: int, coefficients: np.ndarray
) -> tuple[list[dict], list[dict]]:
    """The rows of recourse.csv and interventions.csv of one repetition.

    Parameters
    ----------
    coefficients : array
        Of the estimated SCM, shape (num_coefficients,); NaN if no respondent has a posterior.
    """
    truth = library.get(scm)
    population = population_of(protocol, scm, seed)
    variants = {
        "ground_truth": truth,
        "estimated": linear_scm(truth.graph, coefficients),
        "prior": non_causal(truth.graph),
    }
    frames = dict.fromkeys(variants, population)
    if protocol.scale_per_variant:
        key = experiment_key(scm_index(scm), 3, seed)
        # Without an estimate there is no recourse, in whichever frame.
        frames = {
            name: frame(population, jax.tree.map(jnp.nan_to_num, variant), truth, key)
            for name, variant in variants.items()
        }
    num_users = len(population.users)
    recourse, interventions = [], []
    for epsilon in protocol.epsilons:
        taken, optimum = _taken(protocol, truth, variants, frames, epsilon)
        for r, rate in enumerate(protocol.learning_rates):
            users = slice(r * num_users, (r + 1) * num_users)
            here = {name: take(both, users) for name, both in taken.items()}
            reports = {name: report for name, (_, report) in here.items()}
            for name, (plan, _) in here.items():
                labels = {
                    "scm": scm,
                    "epsilon": epsilon,
                    "learning_rate": rate,
                    "variant": name,
                    "seed": seed,
                }
                recourse.append({**labels, **_figures(plan, name, reports, optimum)})
                acts = np.asarray(plan.action.intervened).any(1)
                pattern = intervention_pattern(plan.action, truth.graph.nodes, acts)
                interventions += [
                    {**labels, "intervention_set": members, "share": share}
                    for members, share in pattern.items()
                ]
    return recourse, interventions
