"""Runs whose work is made up: the right files, without the computation.

``python made_up.py OUT work`` (or ``long_work``) is ``pcr-jax reproduce --jobs 2`` with such work.
"""

import hashlib
import json
import signal
import sys
import time
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np

from pcr_jax import cli, library
from pcr_jax.experiments import PAPER, PROTOCOLS
from pcr_jax.experiments.estimation import sweep_points
from pcr_jax.inference import SAMPLERS
from pcr_jax.inference.arviz_data import from_groups, write_netcdf

runs = import_module("pcr_jax.experiments.run")  # the module, which the function's name hides

PROTOCOL = replace(
    PAPER,
    learning_rates=(0.5, 1.0),
    epsilons=(0.1,),
    seeds=2,
    sweep_respondents=2,
    sweep_alpha=(),
    sweep_sigma=(),
    sweep_num_queries=(2, 5),
)
NAMES = ("X2 <- X1", "X3 <- X1", "X3 <- X2")


def posterior(protocol=PROTOCOL):
    """Draws for every respondent."""
    graph, num_users = library.m1().graph, protocol.seeds * protocol.respondents
    theta = np.random.default_rng(0).normal(size=(1, 20, num_users, 3)).astype(np.float32)
    return from_groups(
        {"posterior": {"theta": theta}},
        theta[0, :, 0],
        {"user": np.arange(num_users), "coefficient": list(NAMES)},
        {"theta": ["user", "coefficient"]},
        {
            "graph": {"nodes": graph.nodes, "parents": graph.parents},
            "num_walkers": 10,
        },
    )


def tables(protocol, unit):
    """The tables of a unit."""
    if unit.stage == "posterior":
        return {}
    if unit.stage == "recourse":
        keys = product(protocol.epsilons, protocol.learning_rates, runs.plots.VARIANTS)
        labels = [
            {"scm": "m1", "epsilon": e, "learning_rate": r, "variant": v, "seed": unit.index}
            for e, r, v in keys
        ]
        numbers = ["validity", "robust_validity", "cost_mean", "cost_mean_common", "regret_mean"]
        numbers += ["regret_to_optimum_mean", "zero_gradient", "reachable"]
        row = {"num_users": 10, **dict.fromkeys(numbers, 0.5), "cost_mean_common": float("nan")}
        patterns = [
            {**of, "intervention_set": s, "share": 0.5} for of in labels for s in ("X1", "X1+X3")
        ]
        return {"recourse": [{**of, **row} for of in labels], "interventions": patterns}
    point = sweep_points(protocol, "m1")[unit.index]
    numbers = ["true", "posterior_mean", "posterior_sd", "absolute_error", "prior_error"]
    rows = [
        {"scm": "m1", "sweep": point.sweep, "value": point.value, "repetition": r}
        | {"coefficient": name, **dict.fromkeys(numbers, 0.5), "status": "ok"}
        for r, name in product(range(protocol.sweep_respondents), NAMES)
    ]
    return {"estimation": rows}


def work(out, protocol, sampler, unit, seconds=0.0):
    """In place of the work of a unit."""
    (out / f"begun_{unit.name}").write_text("")
    if unit.stage != "posterior":
        time.sleep(seconds)
    part = {"seconds": 0.5, "tables": tables(protocol, unit)}
    if unit.stage == "posterior":
        nc = out / "posterior_m1.nc"
        write_netcdf(posterior(protocol), nc)
        part["sha256"] = hashlib.sha256(nc.read_bytes()).hexdigest()
    (out / "parts" / unit.name).write_text(json.dumps(part))


def long_work(out, protocol, sampler, unit):
    """The first recourse is done at once, all else takes a minute."""
    work(out, protocol, sampler, unit, 0.0 if unit.name == "recourse_m1_0.json" else 60.0)


def main(out, kind):
    """The command line with made-up work."""
    PROTOCOLS["paper"] = PROTOCOL
    SAMPLERS["zeus"] = object
    made = import_module("made_up")  # under a name that workers can import
    runs._work = getattr(made, kind)
    runs._draw = lambda *_: None
    return cli.main(["reproduce", "--scm", "m1", "--jobs", "2", "--out", out])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    sys.exit(main(*sys.argv[1:]))
