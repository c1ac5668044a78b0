"""Users divided among several devices get the very results that one device gives them."""

import os
import subprocess
import sys

import numpy as np
import pytest

CODE = """
import sys
import warnings
import jax
import numpy as np
import pcr_jax as pcr

truth = pcr.library.m1()
k_pop, k_ask, k_inf = jax.random.split(jax.random.key(0), 3)
score, x, scale = pcr.refused_population(k_pop, truth, num_users=21)
user = pcr.SimulatedUser(truth, error_rate=0.1, wrong=pcr.library.theta_star())
history = pcr.elicit(k_ask, user, x, num_queries=8)
surrogate = pcr.linear_surrogate(truth.graph)
likelihood = pcr.tolerance(sigma=0.5, beta=0.1)
sampler = pcr.Ess(num_ensembles=2, num_walkers=8, num_steps=2)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", pcr.PosteriorWarning)
    idata = pcr.infer(k_inf, surrogate, history, likelihood=likelihood, sampler=sampler)
found = {"theta": idata.posterior["theta"], "status": idata.constant_data["status"]}
scms = pcr.posterior_scms(idata)
for epsilon, solver in ((0.1, "optimal"), (0.0, "paper")):
    plan = pcr.find_recourse(score, scms, x, scale=scale, epsilon=epsilon, solver=solver)
    for i, leaf in enumerate(jax.tree.leaves(plan)):
        found[f"plan_{solver}_{i}"] = leaf
np.savez(sys.argv[1], num_devices=jax.device_count(), **found)
"""


def results(path, num_devices):
    """Of a fresh process with so many devices: 21 users, a multiple of none of them."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(path))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """On one device and on eight."""
    folder = tmp_path_factory.mktemp("devices")
    return tuple(results(folder / f"{n}.npz", n) for n in (1, 8))


def test_the_devices_are_there(found):
    assert [int(one["num_devices"]) for one in found] == [1, 8]


@pytest.mark.parametrize("part", ["theta", "status", "plan_optimal", "plan_paper"])
def test_eight_devices_give_what_one_gives_bit_for_bit(found, part):
    names = [name for name in found[0] if name.startswith(part)]
    assert names
    for name in names:
        np.testing.assert_array_equal(found[1][name], found[0][name], err_msg=name)


def test_the_users_do_get_posteriors_and_recourse(found):
    # Otherwise equality would say little.
    assert np.isfinite(found[0]["theta"]).all((0, 1, 3)).mean() > 0.5
    assert found[0]["plan_optimal_4"].mean() > 0.5
