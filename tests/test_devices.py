"""Users divided among several devices get what one device gives them."""

import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from problems import answers_to

import pcr_jax as pcr

CODE = """
import pickle
import sys
import warnings
import jax
import numpy as np
import pcr_jax as pcr

with open(sys.argv[1], "rb") as file:
    score, x, scale, history = pickle.load(file)
surrogate = pcr.linear_surrogate(pcr.library.m1().graph)
likelihood = pcr.tolerance(sigma=0.5, beta=0.1)
sampler = pcr.Ess(num_ensembles=2, num_walkers=8, num_steps=2)
warnings.simplefilter("ignore", pcr.PosteriorWarning)
key = jax.random.key(0)
posteriors = pcr.infer(key, surrogate, history, likelihood=likelihood, sampler=sampler)
found = {"posterior_theta": posteriors.draws}
found["posterior_status"] = posteriors.status
plan = pcr.find_recourse(score, posteriors.scms(), x, scale=scale, epsilon=0.1)
found |= {f"plan_{name}": getattr(plan, name) for name in ("status", "robust_valid", "cost")}
found["plan_x_counterfactual"] = plan.x_counterfactual
found["devices"] = len(plan.cost.sharding.device_set)
np.savez(sys.argv[2], **found)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """101 users, which no two devices can halve, on eight devices and on one."""
    folder = tmp_path_factory.mktemp("devices")
    truth = pcr.library.m1()
    score, x, scale = pcr.refused_population(jax.random.key(0), truth, num_train=300, num_users=101)
    history = answers_to(jax.random.key(1), truth, x, 8)
    # The classifier is given: training adds up in an order that depends on the number of threads.
    given = folder / "given.pickle"
    given.write_bytes(pickle.dumps(jax.device_get((score, x, scale, history))))
    results = []
    for num_devices in (8, 1):
        flags = os.environ.get("XLA_FLAGS", "")
        flags += f" --xla_force_host_platform_device_count={num_devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        path = folder / f"{num_devices}.npz"
        command = [sys.executable, "-c", CODE, str(given), str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results.append(dict(np.load(path)))
    return results


@pytest.mark.slow
def test_the_users_are_shared(found):
    assert [int(one["devices"]) for one in found] == [8, 1]


@pytest.mark.slow
def test_eight_devices_give_the_posteriors_of_one_bit_for_bit(found):
    for name in ("posterior_theta", "posterior_status"):
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.slow
def test_eight_devices_give_the_plans_of_one_to_rounding(found):
    eight, one = found
    for name in ("plan_status", "plan_robust_valid"):
        np.testing.assert_array_equal(eight[name], one[name], err_msg=name)
    # XLA compiles a program for several devices otherwise, so that last digits differ; where a
    # search takes another turn for that, it ends within its tolerance.
    np.testing.assert_allclose(eight["plan_cost"], one["plan_cost"], rtol=pcr.Optimal().tolerance)
    near = np.isclose(eight["plan_x_counterfactual"], one["plan_x_counterfactual"], atol=1e-5)
    assert near.mean() >= 0.95


@pytest.mark.slow
def test_the_users_do_get_posteriors_and_recourse(found):
    # Otherwise equality would say little.
    assert np.isfinite(found[0]["posterior_theta"]).all((0, 1, 3)).mean() > 0.5
    assert found[0]["plan_robust_valid"].mean() > 0.5
