"""Posteriors: the library's samplers beside zeus and emcee, in quality and time.

Quality is against `pcr.exact_posterior`: the error of the posterior mean in posterior standard
deviations, and how many independent draws would err as much (the inverse of its mean square). That
judges every sampler alike, whatever its own estimate of its effective sample size.
"""

import warnings

import jax
import numpy as np

import pcr_jax as pcr
from benchmarks.peers import PEERS, absent, sample
from benchmarks.problems import SIGMA, histories, surrogate
from benchmarks.timing import timed
from pcr_jax.batching import take
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import likelihood_of

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


def _row(name, users, measured, draws, exact) -> dict:
    seconds_a_user = measured["seconds"] / users
    worth = quality(draws, exact)
    row = {"sampler": name, "users": users, "compile_seconds": measured["compile_seconds"]}
    row["ms_per_user"] = 1e3 * seconds_a_user
    row |= {"cpu_ms_per_user": 1e3 * measured["cpu_seconds"] / users, **worth}
    row["independent_draws_per_second"] = worth["independent_draws_worth"] / seconds_a_user
    return row


def inference_rows(num_users: int, num_peer_users: int, repeats: int) -> list[tuple[dict, dict]]:
    """Our samplers on all users of M1, the peers on the first few of them; and their seconds."""
    linear, history, sigma = surrogate("m1"), histories("m1", num_users), SIGMA["m1"]
    hard = pcr.tolerance(sigma, PAPER.beta)
    exact = pcr.exact_posterior(jax.random.key(2), linear, history, hard)
    rows = []
    for name, sampler in {"ess": pcr.Ess(), "smc": pcr.Smc()}.items():
        likelihood = likelihood_of(sampler, sigma, PAPER.beta)

        def run(sampler=sampler, likelihood=likelihood):
            key = jax.random.key(1)
            return pcr.infer(key, linear, history, likelihood=likelihood, sampler=sampler)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pcr.PosteriorWarning)
            posteriors, measured = timed(run, repeats)
        row = _row(f"pcr_jax {name}", num_users, measured, posteriors.draws, exact)
        rows.append((row, measured))
    some = take(history, slice(num_peer_users))
    asked = some.questions
    answers = [*map(np.asarray, (asked.node, asked.shift, some.answer))]
    for name, peer in PEERS.items():
        if not peer.installed:
            continue

        def one_by_one(peer=peer):
            users = enumerate(zip(*answers, strict=True))
            return [sample(peer, 100 * i, *user, sigma, PAPER.beta) for i, user in users]

        runs, measured = timed(one_by_one, 0)
        shape = next(run.shape for run in runs if run is not None)
        draws = np.stack([np.full(shape, np.nan) if run is None else run for run in runs])
        few = pcr.ExactPosterior(*(field[:num_peer_users] for field in exact))
        rows.append((_row(name, num_peer_users, measured, draws, few), measured))
    ours = rows[0][0]
    for row, _ in rows:
        row["ess_is_faster"] = row["ms_per_user"] / ours["ms_per_user"]
        row["ess_is_faster_per_draw"] = (
            ours["independent_draws_per_second"] / row["independent_draws_per_second"]
        )
    return rows


def measure(options):
    """M1, ten questions."""
    yield "skipped", absent(peer.package for peer in PEERS.values())
    yield "settings", {name: repr(peer) for name, peer in PEERS.items()}
    sizes = (32, 3, 1) if options.quick else (500, 20, 3)
    yield "rows", [row for row, _ in inference_rows(*sizes)]
