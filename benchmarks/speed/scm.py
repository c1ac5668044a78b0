"""Throughput of sample, abduct and counterfactual, beside plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks import plain
from benchmarks.timing import timed


def throughput_rows(scm: str, num_users: int, repeats: int) -> list[dict]:
    """Users per second, and how far apart the results are; one row per operation."""
    truth = pcr.library.get(scm)
    key = jax.random.key(0)
    x, noise = truth.sample(key, num_users), truth.sample_noise(key, num_users)
    shift = jax.random.normal(jax.random.key(1), x.shape)
    functions, nothing = plain.effects(scm), np.zeros(3)

    def columns(function, *arrays):
        return np.stack(np.broadcast_arrays(*function(*(list(a.T) for a in arrays))), -1)

    operations = {
        "sample, given the noise": (
            jax.jit(truth.predict),
            (noise,),
            lambda u: plain.predict(functions, u, nothing),
        ),
        "abduct": (jax.jit(truth.abduct), (x,), lambda x: plain.abduct(functions, x)),
        "counterfactual": (
            jax.jit(lambda x, shift: truth.counterfactual(x, pcr.Action.soft(shift))),
            (x, shift),
            lambda x, shift: plain.counterfactual(functions, x, shift),
        ),
    }
    rows = []
    for name, (ours, arrays, theirs) in operations.items():
        given = [np.asarray(a, float) for a in arrays]
        result, measured = timed(partial(ours, *arrays), repeats)
        by_column, of_numpy = timed(partial(columns, theirs, *given), repeats)
        row = {"scm": scm, "operation": name, "users": num_users}
        row["compile_seconds"] = measured["compile_seconds"]
        row["users_per_second"] = num_users / measured["seconds"]
        row["numpy_vectorised_users_per_second"] = num_users / of_numpy["seconds"]
        row["times_vectorised"] = of_numpy["seconds"] / measured["seconds"]
        row["largest_difference"] = float(jnp.max(jnp.abs(result - by_column)))
        rows.append(row)
    return rows


def measure(options):
    """Small populations first."""
    for num_users in (1000,) if options.quick else (1000, 100_000, 1_000_000):
        for scm in ("m1", "m3"):
            yield "rows", throughput_rows(scm, num_users, 2 if options.quick else 7)
