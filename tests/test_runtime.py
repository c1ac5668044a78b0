"""What needs a process of its own: precision, leaks, threads, debugging flags, import."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ALL = """
import warnings
import jax
import jax.numpy as jnp
import numpy as np
import pcr_jax as pcr

key = jax.random.key(0)
truth = pcr.library.m1()
surrogate = pcr.linear_surrogate(truth.graph)
tolerance, relaxed = pcr.tolerance(0.5, 0.1), pcr.relaxed(0.5, 0.1)
design = pcr.RandomDesign(0.0, 1.0, individual=False)
asked = {"num_queries": 4, "design": design}
history = pcr.elicit(key, pcr.SimulatedUser(truth, 0.0), jnp.zeros((2, 3)), **asked)
"""

SAMPLERS = {
    "ess": ("pcr.Ess(num_ensembles=2, num_walkers=8, num_steps=4)", "tolerance"),
    "smc": ("pcr.Smc(num_runs=2, num_particles=64)", "tolerance"),
    "nuts": ("pcr.Nuts(num_chains=2, num_warmup=8, num_steps=8)", "relaxed"),
    "zeus": ("pcr.Zeus(num_walkers=8, num_steps=8)", "tolerance"),
}


def run(code, **environment):
    """What a new process prints, with warnings as errors but for ArviZ's own."""
    ignored = "ignore:\nArviZ is undergoing:FutureWarning"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-W", ignored, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout.split()


def infer_with(name):
    if name == "zeus" and find_spec("zeus") is None:
        pytest.skip("zeus-mcmc is not installed")
    sampler, likelihood = SAMPLERS[name]
    return (
        ALL
        + f"""
posteriors = pcr.infer(key, surrogate, history, likelihood={likelihood}, sampler={sampler})
theta = posteriors.draws
assert np.isfinite(theta).all() and (np.abs(theta) <= 1).all()
mean = posteriors.scms().mechanisms[2].coefficients
assert np.isfinite(np.asarray(mean)).all()
print(theta.dtype, history.answer.dtype, mean.dtype)
"""
    )


DOUBLE = """
def check(*results):
    kinds = {np.asarray(leaf).dtype.name for leaf in jax.tree.leaves(results)}
    assert "float64" in kinds and "float32" not in kinds, kinds

def is_double(numbers):
    numbers = np.asarray(numbers)
    return (numbers != numbers.astype(np.float32)).any()

def leaking(x):
    kept.append(x)
    return x

def single(x):
    return x + 1

kept = []
jax.jit(single)(np.ones(3, np.float32))
try:
    jax.jit(leaking)(1.0)
except Exception as error:
    print("Leaked" in str(error))
"""

POSTERIORS = """
parts = posteriors.log_density, posteriors.warmup, posteriors.statistics, posteriors.figures
check(posteriors.draws, *parts, posteriors.scms())
assert is_double(posteriors.draws)
"""

RECOURSE = """
past = np.random.default_rng(0).normal(size=(30, 3))
label = past.sum(1) > 0
score = pcr.train_mlp(key, past, label, hidden=(3,), learning_rate=0.1, epochs=100)
check(score)
x = np.array([[-0.7, -0.8, -0.9], [0.1, 0.2, -1.5]])
settings = {"scale": np.ones(3), "digits": None}
"""

PLAN = """
assert (np.asarray(plan.status) == pcr.PlanStatus.found).all()
check(plan, pcr.evaluate(plan, truth))
assert is_double(plan.action.value)
"""

ENTRIES = {
    "paper": f"""
check(history)
check(truth.counterfactual(jnp.ones((2, 3)), pcr.Action.soft(jnp.ones(3))))
check(pcr.exact_posterior(key, surrogate, history, tolerance, num_draws=1))
{RECOURSE}
plan = pcr.find_recourse(score, truth, x, solver="paper", **settings)
{PLAN}
""",
    # Of a score that is not certified, so that plans are verified by perturbations.
    "optimal": f"""
{RECOURSE}
curved = lambda x: score(x) + 0.1 * jnp.sin(x[0])
plan = pcr.find_recourse(curved, truth, x, epsilon=0.1, **settings)
assert not plan.certified.any()
{PLAN}
""",
    **dict.fromkeys(SAMPLERS, POSTERIORS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "optimal", *SAMPLERS])
def test_in_double_precision_no_program_has_a_single_number_or_leaks_a_tracer(name, tmp_path):
    code = infer_with(name) if name in SAMPLERS else ALL
    settings = {"JAX_ENABLE_X64": "1", "JAX_CHECK_TRACER_LEAKS": "1"}
    said = run(code + DOUBLE + ENTRIES[name], JAX_DUMP_IR_TO=str(tmp_path), **settings)
    assert said[-1] == "True"  # leaks are looked for
    programs = {path.name: path.read_text() for path in tmp_path.iterdir()}
    (single,) = [name for name, text in programs.items() if "f32" in text]
    assert "jit_single" in single


@pytest.mark.slow
def test_small_tests_hold_in_double_precision():
    chosen = ["-n0", "-m", "x64 and not slow", str(Path(__file__).parent)]
    command = [sys.executable, "-m", "pytest", *chosen]
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stdout[-2000:]


@pytest.mark.slow
def test_double_precision_finds_posteriors_too_small_for_single():
    code = (
        ALL
        + """
few = pcr.linear_surrogate(pcr.Graph.fully_connected(2), low=-1e4, high=1e4)
answer = jnp.array([[[jnp.nan, 9876.123456789]]])
questions = pcr.Questions(jnp.zeros((1, 1), int), jnp.ones((1, 1)))
one = pcr.History(questions, answer, jnp.zeros((1, 2)))
sampler = pcr.Ess(num_ensembles=2, num_walkers=8, num_steps=4)
settings = {"likelihood": pcr.tolerance(1e-9, 0.0), "sampler": sampler, "max_prior_draws": 2**12}
posteriors = pcr.infer(key, few, one, **settings)
print(np.abs(posteriors.draws - 9876.123456789).max() < 1.1e-9)
"""
    )
    assert run(code, JAX_ENABLE_X64="1") == ["True"]


@pytest.mark.slow
def test_nan_is_no_mistake_where_jax_looks_for_it():
    code = (
        infer_with("ess")
        + """
exact = pcr.exact_posterior(key, surrogate, history, tolerance, num_draws=1)
again = pcr.elicit(key, pcr.SimulatedUser(truth), jnp.zeros((2, 3)), num_queries=1, history=
                   pcr.History.empty(jnp.zeros((2, 3)), 3))
told = pcr.tell(again, pcr.Questions(jnp.zeros(2, int), jnp.ones(2)), np.full((2, 3), np.nan))
nobody = pcr.infer(key, surrogate, pcr.History(
    pcr.Questions(jnp.zeros((1, 2), int), jnp.ones((1, 2))),
    np.array([[[np.nan, 9, 9], [np.nan, -9, -9]]]), jnp.zeros((1, 3))),
    likelihood=tolerance)
assert np.isnan(np.asarray(nobody.scms().mechanisms[2].coefficients)).all()
assert jax.config.jax_debug_nans
"""
    )
    assert run(code, JAX_DEBUG_NANS="1") == ["float32"] * 3


THREADS = """
from concurrent.futures import ThreadPoolExecutor
import random
import threading

def work(_):
    posteriors = pcr.infer(key, surrogate, history, likelihood=tolerance,
                      sampler=pcr.Zeus(num_walkers=8, num_steps=60))
    return posteriors.draws

alone = work(0)
done = threading.Event()

def disturb():
    while not done.wait(1e-4):  # a loop without a pause would keep the others from running
        np.random.random()
        random.random()

other = threading.Thread(target=disturb)
other.start()
with ThreadPoolExecutor(3) as pool:
    results = list(pool.map(work, range(3)))
done.set()
other.join()
print(*[np.array_equal(alone, one) for one in results])
"""


@pytest.mark.skipif(find_spec("zeus") is None, reason="zeus-mcmc is not installed")
def test_threads_with_one_key_give_what_one_thread_gives():
    assert run(ALL + THREADS) == ["True"] * 3


def test_importing_the_package_starts_no_backend_and_imports_no_sampler():
    code = """
import os
import sys
import pcr_jax
import jax

heavy = ["blackjax", "zeus", "arviz", "matplotlib", "networkx"]
print(*[name for name in heavy if name in sys.modules])
pcr_jax.tolerance(0.5, 0.1), pcr_jax.Smc(), pcr_jax.Ess(), pcr_jax.Nuts()
graph = pcr_jax.Graph.fully_connected(3)
pcr_jax.linear_surrogate(graph)
jax.config.update("jax_num_cpu_devices", 2)  # refused once a backend has started
child = os.fork()
if not child:
    os._exit(int(jax.numpy.ones(3).sum()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), jax.device_count())
"""
    assert run(code) == ["3", "2"]
