"""Posteriors: the library's samplers beside zeus and emcee, in quality and time.

Quality is against `pcr.exact_posterior`: the error of the posterior mean in posterior standard
deviations, and how many independent draws would err as much (the inverse of its mean square). That
judges every sampler alike, whatever its own estimate of its effective sample size.
"""

import warnings
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks.inference_peers import PEERS, sample
from benchmarks.posterior import histories
from benchmarks.records import show, write_record
from benchmarks.timing import timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import likelihood_of, surrogate_of
from pcr_jax.inference.arviz_data import coefficients_of, rhat_and_ess

SIGMA = dict(PAPER.sigma)["m1"]
# A user whose exact moments are themselves uncertain is no yardstick.
MIN_EFFECTIVE_DRAWS = 1000


def quality(draws: np.ndarray, exact: pcr.ExactPosterior) -> dict:
    """Accuracy of draws (user, ..., 3), NaN for users without any, against exact moments."""
    flat = draws.reshape(len(draws), -1, draws.shape[-1])
    known = exact.effective_draws > MIN_EFFECTIVE_DRAWS
    sampled = np.isfinite(flat).all((1, 2))
    both = known & sampled
    error = (flat.mean(1) - exact.mean)[both]
    in_sds = error / exact.sd[both]
    return {
        "sampled_of_known": float(sampled[known].mean()),
        "rms_error_of_mean": float(np.sqrt(np.mean(error**2))),
        "error_in_posterior_sds": float(np.sqrt(np.mean(in_sds**2))),
        "independent_draws_worth": float(1 / np.mean(in_sds**2)),
    }


def walkers_apart(draws: np.ndarray, num_walkers: int) -> np.ndarray:
    """Draws (chain, draw, user, 3) of `infer` as (user, chain, step, walker, 3)."""
    chains, _, users, k = draws.shape
    return np.moveaxis(draws.reshape(chains, -1, num_walkers, users, k), 3, 0)


def bulk_ess(draws: np.ndarray) -> float:
    """Median over users of ArviZ's bulk ESS of draws (user, chain, step, walker, 3)."""
    sizes = []
    for one in draws[np.isfinite(draws).all((1, 2, 3, 4))]:
        chains, steps, walkers, k = one.shape
        sizes.append(rhat_and_ess(one.reshape(chains, steps * walkers, k), walkers)[1].min())
    return float(np.median(sizes))


def _row(name, users, measured, draws, exact) -> dict:
    seconds_a_user = measured["seconds"] / users
    worth = quality(draws, exact)
    bulk = bulk_ess(draws)
    return {
        "sampler": name,
        "users": users,
        "compile_seconds": measured["compile_seconds"],
        "ms_per_user": 1e3 * seconds_a_user,
        "cpu_ms_per_user": 1e3 * measured["cpu_seconds"] / users,
        **worth,
        "independent_draws_per_second": worth["independent_draws_worth"] / seconds_a_user,
        "bulk_ess": bulk,
        "bulk_ess_per_second": bulk / seconds_a_user,
    }


def inference_rows(num_users: int, num_peer_users: int, repeats: int) -> list[dict]:
    """Our samplers on all users of M1, the peers on the first few of them."""
    surrogate, history = surrogate_of(PAPER, pcr.library.m1()), histories("m1", num_users)
    exact = pcr.exact_posterior(
        jax.random.key(2), surrogate, history, pcr.tolerance(SIGMA, PAPER.beta)
    )
    rows = []
    for name, sampler in {"ess": pcr.Ess(), "smc": pcr.Smc()}.items():
        likelihood = likelihood_of(sampler, SIGMA, PAPER.beta)

        def run(sampler=sampler, likelihood=likelihood):
            key = jax.random.key(1)
            return pcr.infer(key, surrogate, history, likelihood=likelihood, sampler=sampler)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pcr.PosteriorWarning)
            idata, measured = timed(run, repeats)
        draws = walkers_apart(coefficients_of(idata), int(idata.attrs["num_walkers"]))
        rows.append(_row(f"pcr_jax {name}", num_users, measured, draws, exact))
    some = take(history, slice(num_peer_users))
    answers = [np.asarray(some.node), np.asarray(some.shift), np.asarray(some.answer)]
    for name, peer in PEERS.items():
        if not peer.installed:
            continue

        def one_by_one(peer=peer):
            users = enumerate(zip(*answers, strict=True))
            return [sample(peer, 100 * i, *user, SIGMA, PAPER.beta) for i, user in users]

        runs, measured = timed(one_by_one, 0)
        shape = next(run.shape for run in runs if run is not None)
        draws = np.stack([np.full(shape, np.nan) if run is None else run for run in runs])
        few = pcr.ExactPosterior(*(field[:num_peer_users] for field in exact))
        rows.append(_row(name, num_peer_users, measured, draws, few))
    ours = rows[0]
    for row in rows:
        row["ess_is_faster"] = row["ms_per_user"] / ours["ms_per_user"]
        row["ess_is_faster_per_draw"] = (
            ours["independent_draws_per_second"] / row["independent_draws_per_second"]
        )
    return rows


def absent() -> list[str]:
    """Packages of peers that are not installed."""
    return sorted({peer.package for peer in PEERS.values() if not peer.installed})


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    console = Console(width=240)
    rows = inference_rows(*((32, 3, 1) if quick else (500, 20, 3)))
    show(console, "Posteriors on M1, T = 10", rows)
    if absent():
        console.print("Skipped, not installed:", ", ".join(absent()))
    record = {
        "quick": quick,
        "skipped": absent(),
        "settings": {n: repr(p) for n, p in PEERS.items()},
    }
    write_record(out / "inference.json", {**record, "rows": rows})
