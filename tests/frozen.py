"""What the library computes for some small problems, frozen.

``python -m tests.frozen [NAME ...]`` computes them anew, compares them with ``data/frozen.npz`` and
exits 1 where a number differs; ``--record`` writes that file. What is frozen holds for one machine
and one set of packages, see `fingerprint`: elsewhere a number is rounded otherwise, and a chain
that has one other number is another chain.

What users are and say is made with NumPy, so that no problem's input is another's output; but for
the network, and for posteriors and plans that are looked at in several ways. The accessors below
are all that knows how the library is called and what its results look like.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import log_density

import pcr_jax as pcr
from pcr_jax.evaluation import optimum_cost
from pcr_jax.inference import search_prior

FILE = Path(__file__).with_name("data") / "frozen.npz"
PACKAGES = ("jax", "jaxlib", "numpyro", "numpy", "blackjax", "flax", "optax", "scipy")
PACKAGES += ("scikit-learn", "zeus-mcmc")

PROBLEMS: dict[str, Callable[[], dict[str, np.ndarray]]] = {}


# Accessors: histories and posteriors


def history_of(node, shift, answer):
    """The library's history of queries (users, T) and answers (users, T, d)."""
    x = jnp.zeros((len(answer), answer.shape[-1]))
    return pcr.History(pcr.Questions(jnp.asarray(node), jnp.asarray(shift)), jnp.asarray(answer), x)


def of_user(history, user):
    """One user's history, without an axis of users."""
    return jax.tree.map(lambda leaf: leaf[user], history)


def asked(history):
    """Queries and answers."""
    questions = history.questions
    return {"node": questions.node, "shift": questions.shift, "answer": history.answer}


def room(x, num_queries):
    """A history in which nothing was asked."""
    return pcr.History.empty(jnp.asarray(x), num_queries)


def elicited(scm, x, num_queries, *, design=None, history=None, key=12, **settings):
    """The library's history of simulated users with these settings."""
    user = pcr.SimulatedUser(scm, **settings)
    design = pcr.RandomDesign(0.0, 1.0, individual=False) if design is None else design
    more = {"num_queries": num_queries, "design": design, "history": history}
    return pcr.elicit(jax.random.key(key), user, jnp.asarray(x), **more)


def posterior_of(surrogate, told, likelihood, sampler, **settings):
    """The library's posterior, given queries and answers as arrays."""
    settings = {"likelihood": likelihood, "sampler": sampler, **settings}
    return pcr.infer(jax.random.key(5), surrogate, history_of(*told), **settings)


def drawn(posterior):
    """Draws of all users, users first, and how inference ended for each."""
    found = {"theta": posterior.draws, "lp": posterior.log_density}
    names = ("status", "best_agreement", "prior_acceptance", "num_evaluations")
    found |= {name: getattr(posterior, name) for name in names}
    figures = posterior.figures
    return found | {name: figures[name] for name in ("log_evidence",) if name in figures}


def mean_scms(posterior):
    """Every user's SCM of mean coefficients."""
    return posterior.scms()


def coefficients(scm):
    """Coefficients of all mechanisms, (..., k)."""
    return np.concatenate([m.coefficients for m in scm.mechanisms], axis=-1)


def exact(surrogate, told, likelihood):
    """Moments of the exact posteriors."""
    settings = (surrogate, history_of(*told), likelihood)
    return pcr.exact_posterior(jax.random.key(6), *settings, num_draws=2**18)._asdict()


def starts(surrogate, told, likelihood, user):
    """Possible prior draws of one user."""
    one = of_user(history_of(*told), user)
    found = search_prior(jax.random.key(7), surrogate, likelihood, one, 16, 2**16)
    numbers = {"num_accepted": found.num_accepted, "num_drawn": found.num_drawn}
    return numbers | {"draws": found.draws, "best_agreement": found.best_agreement}


def numpyro_densities(surrogate, told, likelihood, user, thetas):
    """Log densities of NumPyro's model of one user at ``thetas`` (n, k)."""
    model = pcr.numpyro_model(surrogate, of_user(history_of(*told), user), likelihood)
    names = surrogate.names

    def at(theta):
        return log_density(model, (), {}, dict(zip(names, theta, strict=True)))[0]

    return jax.jit(jax.vmap(at))(thetas)


# Accessors: recourse and its outcome


def plan_of(problem):
    """The library's plan, given a score, SCMs, features and the other arguments."""
    score, scm, x, settings = problem
    return pcr.find_recourse(score, scm, x, **settings)


def planned(plan):
    """Every user's action, and what the plan says of it."""
    names = ("x_counterfactual", "cost", "valid", "robust_valid", "certified", "status")
    names += ("num_evaluations", "num_perturbations", "decimals")
    found = {name: getattr(plan, name) for name in names}
    return {"value": plan.action.value, "hard": plan.action.hard, **found}


def outcome(plan, truth, optimum=None):
    """The library's report on a plan under another SCM."""
    return pcr.evaluate(plan, truth, optimum=optimum)


def optimum_of(problem, truth):
    """Costs of the cheapest actions under the true SCM."""
    score, _, x, settings = problem
    return optimum_cost(score, truth, x, **settings)


def reported(report):
    """Outcomes of all users, and the means."""
    found = {name: getattr(report, name) for name in ("valid", "robust_valid", "cost")}
    means = ("validity", "robust_validity", "cost_mean", "regret_to_optimum_mean")
    return found | {"means": [getattr(report, name) for name in means]}


# What users are and say


TRIANGLE = pcr.Graph.fully_connected(3)
DIAMOND = pcr.Graph.from_edges("ABCD", ["AB", "AC", "BD", "CD"])
FIVE = pcr.Graph.from_edges("ABCDE", ["AB", "AC", "BD", "CD", "AE", "DE"])
FIVE_THETA = np.array([0.8, -0.6, 0.5, 0.7, -0.4, 0.9], np.float32)
TWENTY = pcr.Graph(
    tuple(f"N{j}" for j in range(20)),
    tuple(tuple(range(max(0, j - 3), j)) for j in range(20)),
)
SURROGATE = pcr.linear_surrogate(TRIANGLE)
TOLERANCE, JOINT = pcr.tolerance(0.5, 0.34), pcr.tolerance(0.5, 0.34, norm="joint")
RELAXED = pcr.relaxed(0.5, 0.34, 0.2)

NUM_QUERIES, NUM_USERS = 3, 6

# Means of a node given the nodes before it.
_M1 = (lambda x: 0.0, lambda x: -0.99 * x[0], lambda x: 0.99 * (x[0] + x[1]))
_M2 = (lambda x: -0.5, lambda x: -0.99 * x[0], lambda x: 0.05 * x[0] + 0.25 * x[1])
_M3 = (
    lambda x: -0.5,
    lambda x: -1 + 3 / (1 + np.exp(-2 * x[0])),
    lambda x: 0.25 * x[1] ** 2 - 0.05 * x[0],
)
_DIAMOND = (
    lambda x: 0.0,
    lambda x: 0.8 * x[0],
    lambda x: -0.6 * x[0],
    lambda x: 0.5 * x[1] + 0.7 * x[2],
)


def _draws(rng, means, num, node=-1, shift=0.0):
    x = np.zeros((len(means), num))
    for j, mean in enumerate(means):
        x[j] = mean(x) + rng.normal(size=num) + shift * (node == j)
    return x.T


def _told(graph, sources):
    """Queries and answers of a user per source, of one who is silent, one who is contrary."""
    rng, users = np.random.default_rng(3), len(sources) + 2
    causes = np.flatnonzero(graph.descendants.any(1))
    node = rng.choice(causes, (users, NUM_QUERIES))
    shift = rng.uniform(0.2, 1.0, (users, NUM_QUERIES)).round(2)
    answer = np.full((users, NUM_QUERIES, graph.num_nodes), np.nan)
    for user, means in enumerate(sources):
        for t in range(NUM_QUERIES):
            mean = _draws(rng, means, 100, node[user, t], shift[user, t]).mean(0).round(2)
            answer[user, t] = np.where(graph.descendants[node[user, t]], mean, np.nan)
    last = len(sources) - 1
    answer[last, 0, -1] = np.nan  # one number is not reported, one query is not asked
    for user, asked_for in ((last, 2), (last + 1, 0)):
        node[user, asked_for:], shift[user, asked_for:], answer[user, asked_for:] = -1, 0, np.nan
    node[-1], shift[-1], answer[-1] = 0, 1, np.nan
    answer[-1, :, 1] = [-1.1, 0.0, 1.1]
    return node, shift.astype(np.float32), answer.astype(np.float32)


TOLD = _told(TRIANGLE, [_M1, _M1, _M2, _M2, _M3, _M3])
TOLD_DIAMOND = _told(DIAMOND, [_DIAMOND] * 3)


@cache
def training():
    """Features and labels to train on."""
    rng = np.random.default_rng(4)
    x = _draws(rng, _M1, 300).round(2)
    y = np.sin(x[:, 0]) + x[:, 1] + 0.3 * x[:, 2] ** 2 + 0.3 * rng.normal(size=300) > 0.6
    return x.astype(np.float32), y


@cache
def classifier():
    """A small network."""
    x, y = training()
    return pcr.train_mlp(jax.random.key(8), x, y, hidden=(8,), epochs=300)


@cache
def people():
    """Features of users, refused but for the last."""
    x, y = training()
    logit = np.asarray(classifier()(x))
    refused = np.flatnonzero((logit < 0) & ~y)[: NUM_USERS - 1]
    return x[[*refused, np.argmax(logit)]]


SCALE = np.array([1.0, 1.4, 1.2], np.float32)


# SCMs


@cache
def twenty():
    """A linear SCM of more nodes than are unrolled."""
    theta = np.random.default_rng(9).uniform(-0.6, 0.6, len(TWENTY.edges))
    return pcr.linear_scm(TWENTY, theta.astype(np.float32))


@partial(jax.jit, static_argnums=3)
def _operations(scm, key, x, num_samples):
    value = jnp.linspace(-1.0, 1.0, scm.num_nodes)
    soft = pcr.Action.soft(value)
    hard = pcr.Action.do(value, jnp.arange(scm.num_nodes) % 2 == 0)
    noise = scm.abduct(x)
    return {
        "abducted": noise,
        "restored": scm.predict(noise),
        "counterfactual": scm.counterfactual(x, soft),
        "counterfactual_hard": scm.counterfactual(x, hard),
        "sample": scm.sample(key, num_samples),
        "sample_soft": scm.sample(key, num_samples, soft),
    }


def _scm(make):
    scm = make()
    x = np.random.default_rng(10).normal(size=(8, scm.num_nodes)).astype(np.float32)
    return _operations(scm, jax.random.key(11), x, 8)


SCMS = {
    "m1": pcr.library.m1,
    "m2": pcr.library.m2,
    "m3": pcr.library.m3,
    "linear_5": lambda: pcr.linear_scm(FIVE, FIVE_THETA),
    "linear_20": twenty,
}
for _name, _make in SCMS.items():
    PROBLEMS[f"scm_{_name}"] = partial(_scm, _make)


def problem(function):
    """Register a problem by its name."""
    PROBLEMS[function.__name__] = function
    return function


# Elicitation and training


@problem
def elicit():
    wrong = pcr.library.theta_star()
    return asked(elicited(pcr.library.m1(), people(), 4, error_rate=0.3, wrong=wrong))


@problem
def elicit_continued():
    settings = {"error_rate": 0.5, "noise": 0.1, "wrong": pcr.library.theta_star()}
    settings["design"] = pcr.RandomDesign(-1.0, 2.0, individual=False)
    history = room(people(), 4)
    for key, num_queries in ((13, 1), (14, 3)):
        more = {"key": key, "history": history}
        history = elicited(pcr.library.m1(), people(), num_queries, **more, **settings)
    return asked(history)


@problem
def elicit_one():
    thetas = np.linspace(0.5, 1.0, 4 * NUM_USERS, dtype=np.float32).reshape(NUM_USERS, 4)
    own = jax.vmap(partial(pcr.linear_scm, DIAMOND))(thetas)
    x = np.zeros((NUM_USERS, 4), np.float32)
    return asked(elicited(own, x, 4, report="one", num_draws=20))


@problem
def training_a_network():
    x, _ = training()
    score = classifier()
    half = jax.vmap(pcr.with_threshold(score, 0.7))
    found = {"loc": score.loc, "scale": score.scale, "logit": score(x[:50])}
    return found | {"logit_0.7": half(x[:50])}


# Posteriors


SAMPLERS = {
    "ess": lambda: pcr.Ess(num_ensembles=2, num_walkers=16, num_steps=4),
    "smc": lambda: pcr.Smc(num_runs=2, num_particles=48),
    "nuts": lambda: pcr.Nuts(
        num_chains=2, num_warmup=20, num_steps=24, max_tree_depth=3, num_jumps=4
    ),
    "zeus": lambda: pcr.Zeus(num_walkers=16, num_steps=12, num_ensembles=2),
}


LIKELIHOODS = {"each": TOLERANCE, "joint": JOINT, "relaxed": RELAXED}
POSTERIORS = [
    ("ess", "triangle", "each"),
    ("smc", "diamond", "joint"),
    ("nuts", "triangle", "relaxed"),
    ("zeus", "triangle", "each"),
    ("zeus", "diamond", "each"),
]


@cache
def _posterior(name, graph, likelihood):
    surrogate, told = SURROGATE, TOLD
    if graph == "diamond":
        surrogate, told = pcr.linear_surrogate(DIAMOND), TOLD_DIAMOND
    return posterior_of(surrogate, told, LIKELIHOODS[likelihood], SAMPLERS[name]())


def _drawn(*case):
    return drawn(_posterior(*case))


for _case in POSTERIORS:
    PROBLEMS["_".join(_case)] = partial(_drawn, *_case)


@problem
def tight_posteriors():
    likelihood = pcr.tolerance(0.2, 0.0)
    sampler = SAMPLERS["ess"]()
    return drawn(posterior_of(SURROGATE, TOLD, likelihood, sampler, max_prior_draws=2**12))


@problem
def mean_of_posteriors():
    return {"coefficients": coefficients(mean_scms(_posterior("ess", "triangle", "each")))}


@problem
def exact_posteriors():
    shifted = pcr.linear_surrogate(TRIANGLE, low=-1.2, high=1.1, noise_mean=(-0.5, 0.0, 0.1))
    found = {}
    for name, likelihood in (("joint", JOINT), ("relaxed", RELAXED)):
        moments = exact(shifted, TOLD, likelihood)
        found |= {f"{name}_{moment}": value for moment, value in moments.items()}
    return found


@problem
def starting_points():
    found = {}
    for user in (0, 6, 7):
        one = starts(SURROGATE, TOLD, JOINT, user)
        found |= {f"{user}_{key}": value for key, value in one.items()}
    return found


@problem
def numpyro_log_density():
    thetas = jnp.asarray([[-0.9, 0.9, 0.9], [-0.5, 0.2, 0.6], [0.3, -0.3, 0.0]])
    return {
        f"{name}_{user}": numpyro_densities(SURROGATE, TOLD, likelihood, user, thetas)
        for name, likelihood in LIKELIHOODS.items()
        for user in (0, 5, 7)
    }


# Recourse


def _steps(x):
    """In steps, without a slope anywhere."""
    return jnp.floor(x[0]) + jnp.floor(2 * x[1]) / 2 + jnp.floor(x[2]) - 1.0


@cache
def _tree():
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(*training())
    return pcr.outside_model(model, names=TRIANGLE.nodes)


def _problem(score=None, scm=None, **settings):
    """What `plan_of` takes."""
    score = classifier() if score is None else score
    scm = pcr.library.m1() if scm is None else scm
    return score, scm, jnp.asarray(people()), {"scale": jnp.asarray(SCALE), **settings}


def _own_scms():
    """A linear SCM per user, of whom one has none."""
    thetas = np.random.default_rng(16).uniform(-1, 1, (NUM_USERS, 3)).astype(np.float32)
    thetas[2] = np.nan
    return jax.vmap(partial(pcr.linear_scm, TRIANGLE))(jnp.asarray(thetas))


def _constraints():
    x = people()
    return pcr.Constraints(
        actionable=np.array([True, True, False]),
        lower=x - 0.7,
        upper=np.full(3, 4.0, np.float32),
        increase_only=np.array([True, False, False]),
    )


def _weights():
    return np.array([1.0, 2.0, 0.5], np.float32)


def _paper():
    return pcr.Algorithm1(num_outer=8, num_inner=10, decay=0.1)


PLANS = {
    "optimal": lambda: _problem(),
    "optimal_own": lambda: _problem(scm=_own_scms()),
    "optimal_exact": lambda: _problem(digits=None),
    "optimal_weighted": lambda: _problem(weights=_weights()),
    "optimal_constrained": lambda: _problem(constraints=_constraints()),
    "optimal_tree": lambda: _problem(
        _tree(), pcr.library.m3(), intervention="hard", max_set_size=2
    ),
    "robust": lambda: _problem(epsilon=0.1),
    "robust_own": lambda: _problem(scm=_own_scms(), epsilon=0.3, digits=None),
    "robust_linf": lambda: _problem(epsilon=0.1, norm="linf", cost="l2", weights=_weights()),
    "paper": lambda: _problem(solver=_paper()),
    "paper_own": lambda: _problem(
        scm=_own_scms(), solver=_paper(), learning_rate=np.linspace(0.1, 1.0, NUM_USERS)
    ),
    "paper_m3": lambda: _problem(scm=pcr.library.m3(), solver=_paper(), max_set_size=1),
    "paper_steps": lambda: _problem(_steps, solver=_paper()),
    "paper_robust": lambda: _problem(epsilon=0.1, solver=_paper(), digits=None),
}


@cache
def _plan(name):
    return plan_of(PLANS[name]())


def _planned(name):
    return planned(_plan(name))


for _name in PLANS:
    PROBLEMS[f"plan_{_name}"] = partial(_planned, _name)


@problem
def evaluation():
    truth, case = pcr.library.m1(), PLANS["optimal_own"]()
    report = outcome(_plan("optimal_own"), truth, optimum_of(case, truth))
    best = outcome(_plan("optimal"), truth)
    compared = [report.regret_mean(best), report.cost_mean_common([best])]
    return reported(report) | {"optimum": report.optimum, "compared": compared}


@problem
def evaluation_robust():
    found = {}
    for name in ("robust", "robust_linf"):
        report = reported(outcome(_plan(name), pcr.library.theta_star()))
        found |= {f"{name}_{key}": value for key, value in report.items()}
    return found


# Frozen and compared


def fingerprint() -> dict[str, str]:
    """What rounding depends on: packages, processor, and JAX's settings."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    rows = [line.split(":", 1) for line in lines if ":" in line]
    first = {name.strip(): value.strip() for name, value in reversed(rows)}
    found["cpu"] = " ".join(first.get(n, "") for n in ("model name", "cpu family", "model"))
    found["cpu"] += f" {platform.machine()}"
    flags = " ".join(sorted(first.get("flags", "").split()))
    found["flags"] = hashlib.sha256(flags.encode()).hexdigest()[:16]
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    found["cores"] = str(len(usable) or os.cpu_count())
    found["devices"] = f"{jax.device_count()} {jax.default_backend()}"
    found["x64"] = str(jax.config.jax_enable_x64)
    found["width"] = os.environ.get("PCR_JAX_WIDTH", "")
    return found


def elsewhere() -> list[str]:
    """Where the fingerprint of what is frozen is another, as ``"jax 0.10.2, not 0.11.0"``."""
    said, here = stored()[0], fingerprint()
    keys = sorted(said.keys() | here.keys())
    return [f"{k} {said.get(k)}, not {here.get(k)}" for k in keys if said.get(k) != here.get(k)]


def computed(name: str) -> dict[str, np.ndarray]:
    """The arrays of a problem, now."""
    return {key: np.asarray(value) for key, value in PROBLEMS[name]().items()}


@cache
def stored() -> tuple[dict[str, str], dict[str, dict[str, np.ndarray]]]:
    """The fingerprint of what is frozen, and every problem's arrays."""
    with np.load(FILE) as file:
        said = json.loads(str(file["fingerprint"]))
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for full in file.files:
            name, _, key = full.partition("/")
            if key:
                arrays.setdefault(name, {})[key] = file[full]
    return said, arrays


def difference(now: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> str:
    """Where two results differ the most; "equal" where they are, NaN included."""
    if now.keys() != then.keys():
        return f"other arrays: {sorted(now.keys() ^ then.keys())}"
    said = []
    for key, value in now.items():
        if value.shape != then[key].shape:
            said.append(f"{key} of shape {value.shape}, not {then[key].shape}")
        elif not np.array_equal(value, then[key], equal_nan=True):
            with np.errstate(invalid="ignore"):
                gap = np.abs(value.astype(float) - then[key].astype(float))
            gap[value == then[key]] = 0.0
            lost = np.isnan(value.astype(float)) != np.isnan(then[key].astype(float))
            said.append(f"{key} by {np.inf if lost.any() else np.nanmax(gap):.3g}")
    return "; ".join(said) or "equal"


def record(names: list[str]) -> None:
    """Freeze these problems as they are now, with whatever else is frozen."""
    arrays = {} if set(names) == set(PROBLEMS) else dict(stored()[1])
    for name in arrays.keys() - PROBLEMS.keys():
        del arrays[name]
    for name in names:
        began = time.process_time()
        arrays[name] = computed(name)
        print(f"{name:24} {time.process_time() - began:6.1f} s", flush=True)
    flat = {f"{name}/{key}": v for name, part in arrays.items() for key, v in part.items()}
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, fingerprint=np.array(json.dumps(fingerprint())), **flat)


def compare(names: list[str]) -> bool:
    """Print how these problems compare with what is frozen; whether all are equal."""
    _, arrays = stored()
    for line in elsewhere():
        print(f"frozen with {line}")
    all_equal = True
    for name in names:
        began = time.process_time()
        found = difference(computed(name), arrays.get(name, {}))
        print(f"{name:24} {time.process_time() - began:6.1f} s  {found}", flush=True)
        all_equal &= found == "equal"
    return all_equal


def main() -> int:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="Compare what is computed with what is frozen.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="problems; all by default")
    parser.add_argument("--record", action="store_true", help="freeze what is computed now")
    given = parser.parse_args()
    unknown = set(given.names) - set(PROBLEMS)
    if unknown:
        parser.error(f"expected names of {list(PROBLEMS)}; got {sorted(unknown)}")
    names = given.names or list(PROBLEMS)
    if given.record and given.names and elsewhere():
        parser.error(f"expected all to be recorded anew: frozen with {'; '.join(elsewhere())}")
    if given.record:
        record(names)
        all_equal = True
    else:
        all_equal = compare(names)
    print(f"{len(names)} problems, {time.process_time():.0f} CPU seconds")
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
