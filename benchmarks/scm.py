"""Throughput of sample, abduct and counterfactual, beside plain NumPy."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import pcr_jax as pcr
from benchmarks import plain
from benchmarks.records import show, write_record
from benchmarks.timing import timed

LOOP_USERS = 5000


def _by_user(function, *arrays) -> np.ndarray:
    """``function`` of one user's numbers after the other, as a loop in Python."""
    return np.array([function(*user) for user in zip(*(a.tolist() for a in arrays), strict=True)])


def throughput_rows(scm: str, num_users: int, repeats: int) -> list[dict]:
    """Users per second, and how far apart the results are; one row per operation."""
    truth = pcr.library.get(scm)
    key = jax.random.key(0)
    x, noise = truth.sample(key, num_users), truth.sample_noise(key, num_users)
    shift = jax.random.normal(jax.random.key(1), x.shape)
    loop, vectorised = plain.effects(scm, math.exp), plain.effects(scm)
    nothing = np.zeros(3)

    def columns(function, *arrays):
        return np.stack(np.broadcast_arrays(*function(*(list(a.T) for a in arrays))), -1)

    operations = {
        "sample, given the noise": (
            jax.jit(truth.predict),
            (noise,),
            lambda f: lambda u: plain.predict(f, u, nothing),
        ),
        "abduct": (jax.jit(truth.abduct), (x,), lambda f: lambda x: plain.abduct(f, x)),
        "counterfactual": (
            jax.jit(lambda x, shift: truth.counterfactual(x, pcr.Action.soft(shift))),
            (x, shift),
            lambda f: lambda x, shift: plain.counterfactual(f, x, shift),
        ),
    }
    rows = []
    for name, (ours, arrays, of) in operations.items():
        given = [np.asarray(a, float) for a in arrays]
        few = [a[:LOOP_USERS] for a in given]
        result, measured = timed(lambda ours=ours, arrays=arrays: ours(*arrays), repeats)
        by_user, loop_measured = timed(lambda of=of, few=few: _by_user(of(loop), *few), repeats)
        by_column, numpy_measured = timed(
            lambda of=of, given=given: columns(of(vectorised), *given), repeats
        )
        assert np.allclose(by_user, by_column[:LOOP_USERS])
        per_second = num_users / measured["seconds"]
        loop_per_second = len(few[0]) / loop_measured["seconds"]
        numpy_per_second = num_users / numpy_measured["seconds"]
        rows.append(
            {
                "scm": scm,
                "operation": name,
                "users": num_users,
                "compile_seconds": measured["compile_seconds"],
                "users_per_second": per_second,
                "numpy_loop_users_per_second": loop_per_second,
                "numpy_vectorised_users_per_second": numpy_per_second,
                "times_loop": per_second / loop_per_second,
                "times_vectorised": per_second / numpy_per_second,
                "largest_difference": float(jnp.max(jnp.abs(result - by_column))),
            }
        )
    return rows


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    console = Console(width=220)
    rows = []
    for num_users in (1000,) if quick else (1000, 100_000, 1_000_000):
        for scm in ("m1", "m3"):
            rows += throughput_rows(scm, num_users, 2 if quick else 7)
    show(console, "Structural causal models", rows)
    write_record(out / "scm.json", {"quick": quick, "rows": rows})
