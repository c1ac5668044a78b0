"""Posteriors and recourse beside what the paper's released code found on the same inputs.

The inputs are recorded runs of the released code: one simulated user's answers per SCM with zeus's
chain and exact moments; and, per SCM and epsilon, refused users, the trained classifier, three SCM
variants with their standardisation, and the actions found at three learning rates.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.records import show, write_record
from pcr_jax.batching import take
from pcr_jax.inference import search_prior

NOISE_MEAN = (0.07896, -0.14372, 0.10615)
"""The mean of the released code's 100 noise draws, always the same."""

NUM_CHAINS = 20


def posterior_rows(data: Path) -> list[dict]:
    """Zeus at the paper's setting, 20 seeds, against the exact moments."""
    rows = []
    for scm in ("M1", "M2", "M3"):
        recorded = np.load(data / f"posterior_{scm}_seed2024.npz")
        answers = [np.full(10, np.nan), recorded["resp_x2"], recorded["resp_x3"]]
        history = pcr.History(
            jnp.asarray(recorded["node"] - 1)[None],
            jnp.asarray(recorded["v"], jnp.float32)[None],
            jnp.asarray(np.stack(answers, -1), jnp.float32)[None],
        )
        surrogate = pcr.linear_surrogate(pcr.Graph.fully_connected(3), noise_mean=NOISE_MEAN)
        likelihood = pcr.tolerance(float(recorded["sigma"]), float(recorded["alpha"]))
        one = take(history, 0)

        def search(one=one, surrogate=surrogate, likelihood=likelihood):
            found = search_prior(jax.random.key(0), surrogate, likelihood, one, 2**20, 2**22)
            return jax.block_until_ready(found)

        search()
        began = time.perf_counter()
        found = search()
        seconds = time.perf_counter() - began
        draws = np.asarray(found.draws[: int(found.num_found)])

        errors, zeus_seconds = [], []
        for seed in range(NUM_CHAINS):
            idata = pcr.infer(
                jax.random.key(seed), surrogate, history, likelihood=likelihood, sampler="zeus"
            )
            zeus_seconds.append(idata.attrs["seconds"])
            mean = idata.posterior["theta"].mean(("chain", "draw")).to_numpy()[0]
            errors.append(mean - recorded["exact_mean"])
        acceptance = float(found.acceptance)
        rows.append(
            {
                "scm": scm,
                "acceptance": acceptance,
                "exact_accept": float(recorded["exact_accept"]),
                "prior_draws_per_second": int(found.num_drawn) / seconds,
                "prior_draws_mean": draws.mean(0).tolist(),
                "exact_mean": recorded["exact_mean"].tolist(),
                "zeus_mean_seed_0": (errors[0] + recorded["exact_mean"]).tolist(),
                "zeus_error_rms": np.sqrt(np.mean(np.square(errors), 0)).tolist(),
                "zeus_error_max": np.abs(errors).max(0).tolist(),
                "zeus_share_within_0.06": float(np.mean(np.abs(errors) <= 0.06)),
                "zeus_seconds_median": float(np.median(zeus_seconds)),
            }
        )
    return rows


def framed(recorded, variant: str):
    """Classifier, users and scale in the units of one variant."""
    params = {
        f"Dense_{i}": {"kernel": recorded[f"W{i}"].T, "bias": recorded[f"b{i}"]} for i in range(3)
    }
    mean, sd = recorded[f"mean_{variant}"], recorded[f"std_{variant}"]
    score = pcr.Classifier(pcr.MLP(), {"params": params}, jnp.asarray(mean), jnp.asarray(sd))
    return score, jnp.asarray(recorded["X_explain"] * sd + mean), jnp.asarray(sd)


def recourse_rows(data: Path) -> list[dict]:
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
            for rate in (1.0, 0.5, 0.1):
                plan = pcr.find_recourse(
                    score,
                    scm,
                    x,
                    scale=scale,
                    epsilon=float(recorded["eps"]),
                    solver="paper",
                    learning_rate=rate,
                )
                their_valid = recorded[f"lr{rate}_{variant}_valid"]
                their_cost = recorded[f"lr{rate}_{variant}_cost"]
                ours = np.asarray(plan.action.value / scale)
                gap = np.abs(ours - recorded[f"lr{rate}_{variant}_action"]).max(1)
                valid, cost = np.asarray(plan.valid), np.asarray(plan.cost)
                both = valid & their_valid
                rows.append(
                    {
                        "scm": path.stem.split("_")[1],
                        "epsilon": float(recorded["eps"]),
                        "variant": variant,
                        "learning_rate": rate,
                        "num_users": len(valid),
                        "valid": float(valid.mean()),
                        "robust_valid": float(np.mean(plan.robust_valid)),
                        "their_valid": float(their_valid.mean()),
                        "cost": float(cost[valid].mean()),
                        "their_cost": float(their_cost[their_valid].mean()),
                        "cost_common": float(cost[both].mean()),
                        "their_cost_common": float(their_cost[both].mean()),
                        "action_gap_median": float(np.median(gap[both])),
                        "zero_gradient": plan.status_counts()["zero_gradient"],
                        "their_zero_gradient": int(np.sum(~recorded["bce_grad_explain"].any(1))),
                        "nan": bool(np.isnan(ours).any() or np.isnan(cost).any()),
                    }
                )
    return rows


def run(data: Path, out: Path) -> None:
    """Measure, print and record."""
    console = Console(width=220)
    posterior = posterior_rows(data)
    show(console, "Posterior of one recorded user", posterior)
    recourse = recourse_rows(data)
    show(console, "Recourse of the recorded users", recourse)
    write_record(out, {"posterior": posterior, "recourse": recourse})
