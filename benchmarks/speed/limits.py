"""How close recourse and the likelihood come to what the machine can do.

FLOPs and bytes are XLA's own count for the compiled programs; the machine's rates are measured in
the same run. A search is a loop whose length depends on the user, which XLA cannot count: its
FLOPs are those of one evaluation times the evaluations that the plans report. Not among those are
attacks, the slopes that ascents take in one pass with their values, and the verification, which is
timed with the rest: shares of the optimal solver are lower bounds.
"""

from functools import partial

import jax
import jax.numpy as jnp

import pcr_jax as pcr
from benchmarks.problems import SIGMA, density, histories, population, surrogate
from benchmarks.timing import timed
from pcr_jax.experiments import PAPER

POINTS = 4096


def counted(function, *args) -> tuple[float, float]:
    """FLOPs and bytes of a function's compiled program, by XLA's cost analysis."""
    analysis = jax.jit(lambda *args: function(*args)).lower(*args).compile().cost_analysis()
    return float(analysis["flops"]), float(analysis["bytes accessed"])


def machine(repeats: int, size: int = 2048) -> dict:
    """FLOP/s of a large matrix product in float32; bytes/s read and written by a large addition."""
    square = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(jnp.dot)
    _, product = timed(lambda: multiply(square, square), repeats)
    add = jax.jit(lambda a: a + 1.0, donate_argnums=0)  # in place: new pages are dear
    held = [jnp.ones(2**26)]

    def add_again():
        held[0] = add(held[0])
        return held[0]

    _, addition = timed(add_again, repeats)
    return {
        "matmul_flops_per_second": 2 * size**3 / product["seconds"],
        "memory_bytes_per_second": 2 * held[0].nbytes / addition["seconds"],
    }


def _row(name, rates, flops, bytes_, seconds) -> dict:
    row = {"program": name, "flops": flops, "bytes": bytes_, "seconds": seconds}
    row["gflops_per_second"] = flops / seconds / 1e9
    row["share_of_matmul_rate"] = flops / seconds / rates["matmul_flops_per_second"]
    return row | {"share_of_memory_rate": bytes_ / seconds / rates["memory_bytes_per_second"]}


def recourse_rows(rates: dict, num_users: int, repeats: int) -> list[dict]:
    """The classifier alone, one evaluation as searches make it, its gradient, and the searches."""
    truth = pcr.library.m1()
    score, x, scale = population("m1", num_users)
    points = jnp.resize(x, (POINTS, 3))
    moves = 0.1 * jax.random.normal(jax.random.key(1), points.shape)

    def outcome(x, move):
        perturbed = truth.counterfactual(x, pcr.Action.soft(move * scale))
        return score(truth.counterfactual(perturbed, pcr.Action.soft(move * scale)))

    def products(x):
        """The classifier's matrix products without its tanh."""
        for _, layer in sorted(score.params["params"].items()):
            x = x @ layer["kernel"] + layer["bias"]
        return x[..., 0]

    hidden = jax.random.normal(jax.random.key(2), (POINTS, 100))
    programs = {
        "its largest matrix product": (jnp.dot, (hidden, hidden[:100])),
        "the classifier's matrix products": (products, (points,)),
        "classifier": (score, (points,)),
        "perturb, act, classify": (jax.vmap(outcome), (points, moves)),
        "the same with its gradient": (
            jax.vmap(jax.value_and_grad(outcome, argnums=1)),
            (points, moves),
        ),
    }
    rows, flops = [], {}
    for name, (program, args) in programs.items():
        flops[name], bytes_ = counted(program, *args)
        compiled = jax.jit(lambda *args, program=program: program(*args))
        _, measured = timed(partial(compiled, *args), 10 * repeats)
        label = f"{name}, {POINTS} points"
        rows.append(_row(label, rates, flops[name], bytes_, measured["seconds"]))
    for solver, epsilon, kind in (
        ("optimal", 0.0, "perturb, act, classify"),
        ("optimal", 0.1, "perturb, act, classify"),
        ("paper", 0.1, "the same with its gradient"),
    ):
        settings = {"scale": scale, "epsilon": epsilon, "solver": solver}
        find = partial(pcr.find_recourse, score, truth, x, **settings)
        plan, measured = timed(find, repeats)
        evaluations = float(jnp.sum(plan.num_evaluations))
        name = f"find_recourse, {solver}, epsilon {epsilon:g}, {num_users} users"
        spent = evaluations * flops[kind] / POINTS
        rows.append(_row(name, rates, spent, float("nan"), measured["seconds"]))
    return rows


def density_rows(rates: dict, repeats: int) -> list[dict]:
    """The log density of 64 users at 4,096 thetas each."""
    linear, history = surrogate("m1"), histories("m1", 64)
    likelihood = pcr.tolerance(SIGMA["m1"], PAPER.beta)
    unit = jax.random.uniform(jax.random.key(0), (64, POINTS, len(linear.names)))
    thetas = linear.prior.from_unit(unit)

    def densities(history, thetas):
        return jax.vmap(density(linear, likelihood, history))(thetas)

    program = jax.vmap(densities)
    flops, bytes_ = counted(program, history, thetas)
    compiled = jax.jit(program)
    _, measured = timed(lambda: compiled(history, thetas), 10 * repeats)
    row = _row("log density, 64 users x 4096", rates, flops, bytes_, measured["seconds"])
    return [{**row, "evaluations_per_second": 64 * POINTS / measured["seconds"]}]


def measure(options):
    """The machine's rates first."""
    repeats = 2 if options.quick else 7
    rates = machine(repeats, 512 if options.quick else 2048)
    yield "machine", rates
    yield "recourse", recourse_rows(rates, 32 if options.quick else 500, repeats)
    yield "density", density_rows(rates, repeats)
