"""Posteriors and recourse beside what the paper's released code found on the same inputs.

The inputs are recorded runs of the released code: one simulated user's answers per SCM with zeus's
chain and exact moments; and, per SCM and epsilon, refused users, the trained classifier, three SCM
variants with their standardisation, and the actions found at three learning rates.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.problems import DATA, framed
from pcr_jax.experiments import RELEASED

OPTIONS = DATA


def posterior_rows(data: Path, num_chains: int) -> list[dict]:
    """Zeus at the paper's setting, a seed per chain, against the exact moments."""
    rows = []
    for scm in ("M1", "M2", "M3"):
        recorded = np.load(data / f"posterior_{scm}_seed2024.npz")
        answers = [np.full(10, np.nan), recorded["resp_x2"], recorded["resp_x3"]]
        questions = pcr.Questions(recorded["node"][None] - 1, recorded["v"][None])
        answer = jnp.asarray(np.stack(answers, -1), jnp.float32)[None]
        history = pcr.History(questions, answer, jnp.zeros((1, 3)))
        surrogate = pcr.linear_surrogate(
            pcr.Graph.fully_connected(3), noise_mean=RELEASED.noise_mean
        )
        likelihood = pcr.tolerance(float(recorded["sigma"]), float(recorded["alpha"]))
        settings = {"likelihood": likelihood, "sampler": "zeus"}
        errors, zeus_seconds = [], []
        for seed in range(num_chains):
            posteriors = pcr.infer(jax.random.key(seed), surrogate, history, **settings)
            zeus_seconds.append(posteriors.info["seconds"])
            errors.append(posteriors.draws[0].mean((0, 1)) - recorded["exact_mean"])
        row = {"scm": scm, "exact_mean": recorded["exact_mean"].tolist()}
        row["zeus_mean_seed_0"] = (errors[0] + recorded["exact_mean"]).tolist()
        row["zeus_error_rms"] = np.sqrt(np.mean(np.square(errors), 0)).tolist()
        row["zeus_error_max"] = np.abs(errors).max(0).tolist()
        row["zeus_share_within_0.06"] = float(np.mean(np.abs(errors) <= 0.06))
        rows.append(row | {"zeus_seconds_median": float(np.median(zeus_seconds))})
    return rows


def recourse_rows(data: Path, rates: tuple[float, ...]) -> list[dict]:
    """Algorithm 1 on the recorded users; valid as the search judges, and under the true SCM."""
    rows = []
    for path in sorted(data.glob("recourse_*.npz")):
        recorded = np.load(path)
        truth = pcr.library.get(path.stem.split("_")[1].lower())
        variants = {
            "true": truth,
            "est": pcr.linear_scm(truth.graph, recorded["thetas_est"]),
            "prior": pcr.non_causal(truth.graph),
        }
        for variant, scm in variants.items():
            score, x, scale = framed(recorded, variant)
            for rate in rates:
                settings = {"epsilon": float(recorded["eps"]), "learning_rate": rate}
                plan = pcr.find_recourse(score, scm, x, scale=scale, solver="paper", **settings)
                their_valid = recorded[f"lr{rate}_{variant}_valid"]
                their_cost = recorded[f"lr{rate}_{variant}_cost"]
                ours = np.asarray(plan.action.value / scale)
                gap = np.abs(ours - recorded[f"lr{rate}_{variant}_action"]).max(1)
                valid, cost = np.asarray(plan.valid), np.asarray(plan.cost)
                both = valid & their_valid
                row = {"scm": path.stem.split("_")[1], "epsilon": float(recorded["eps"])}
                row |= {"variant": variant, "learning_rate": rate, "num_users": len(valid)}
                row |= {"valid": float(valid.mean()), "their_valid": float(their_valid.mean())}
                row["robust_valid"] = float(np.mean(plan.robust_valid))
                row |= {"cost": float(cost[valid].mean())}
                row["their_cost"] = float(their_cost[their_valid].mean())
                row |= {"cost_common": float(cost[both].mean())}
                row["their_cost_common"] = float(their_cost[both].mean())
                row["action_gap_median"] = float(np.median(gap[both]))
                row["zero_gradient"] = plan.status_counts()["zero_gradient"]
                row["their_zero_gradient"] = int(np.sum(~recorded["bce_grad_explain"].any(1)))
                rows.append(row)
    return rows


def measure(options):
    """One user's posterior, then many users' recourse."""
    yield "posterior", posterior_rows(options.data, 2 if options.quick else 20)
    yield "recourse", recourse_rows(options.data, (0.5,) if options.quick else (1.0, 0.5, 0.1))
