"""Answers a person can give: how well `mixture` and its surrogates learn a person's own SCM.

People answer ten questions each, with noise of .05 standard deviations of the population. Errors
are of predicted counterfactuals, along each axis over +-2 standard deviations from the person, in
standard deviations, unless they are said to be of coefficients.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from benchmarks.problems import SIGMA, histories, surrogate
from pcr_jax.experiments import PAPER
from pcr_jax.inference.mixing import MAX_RHAT, rank_rhat
from pcr_jax.surrogates.linear import edge_units

NOISE = 0.05
GRID = np.array([-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0])
DRAWS = 100
K_POP, K_X, K_ASK, K_INFER, K_SCMS = jax.random.split(jax.random.key(16), 5)
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5)


def population(truth: pcr.SCM) -> dict:
    """Scale and centre of whom ``truth`` makes; natural units."""
    rows = truth.sample(K_POP, 20_000)
    return {"scale": rows.std(0), "centre": rows.mean(0)}


def surrogates(graph: pcr.Graph, units: dict) -> dict:
    """What is inferred, with priors that know nothing of the population but its units."""
    linear = pcr.linear_surrogate(graph, low=-2.0, high=2.0, **units)
    return {"linear": linear, "basis": pcr.basis_surrogate(graph, **units)}


def asked(truth, units, num_people, num_queries=10, *, scms=None, **errors):
    """Users' features and individual questions and answers, with the library's random design."""
    x = truth.sample(K_X, num_people)
    settings = {"error_rate": 0.1, "wrong": pcr.library.theta_star()} | errors
    user = pcr.SimulatedUser(scms or truth, noise=NOISE * units["scale"], **settings)
    asking = pcr.linear_surrogate(truth.graph, scale=units["scale"])
    return x, pcr.elicit(K_ASK, user, x, num_queries=num_queries, surrogate=asking)


def counterfactuals(scms, x, node, shifts):
    """Of every user under each of their SCMs; (user, draw, shift, d)."""

    def one(scm, x, shift):
        return scm.counterfactual(x, pcr.Action.shift_node(node, shift, x.shape[-1]))

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (0, None, None)), (0, 0, None))
    return np.asarray(jax.jit(over)(scms, x, shifts))


def each_their_own(scm: pcr.SCM, num: int) -> pcr.SCM:
    """One SCM, or one each, with leading axes of users and of a single draw."""
    if scm.batch_shape:
        return jax.tree.map(lambda leaf: leaf[:, None], scm)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, 1, *jnp.shape(leaf))), scm)


def predicted(posteriors, truth, x, scale) -> dict:
    """Errors of the mean counterfactual, and how many 90 % intervals hold what is true."""
    scms, truths = posteriors.scms(DRAWS), each_their_own(truth, len(x))
    graph, errors, held = truth.graph, [], []
    for node in np.flatnonzero(graph.descendants.any(1)):
        below = np.flatnonzero(graph.descendants[node])
        shifts = jnp.asarray(GRID * np.asarray(scale)[node], float)
        found = counterfactuals(scms, x, int(node), shifts)[..., below]
        true = counterfactuals(truths, x, int(node), shifts)[:, 0][..., below]
        unit = np.asarray(scale)[below]
        errors.append(((found.mean(1) - true) / unit).reshape(len(x), -1))
        low, high = np.quantile(found, [0.05, 0.95], axis=1)
        slack = 1e-3 * unit
        held.append(((low - slack <= true) & (true <= high + slack)).reshape(len(x), -1))
    error = np.concatenate(errors, 1)
    ok = np.isfinite(error).all(1)
    return {
        "rms_error": float(np.sqrt(np.mean(error[ok] ** 2))),
        "median_persons_rms": float(np.median(np.sqrt((error[ok] ** 2).mean(1)))),
        "covered_90": float(np.concatenate(held, 1)[ok].mean()),
        "without_posterior": float(1 - ok.mean()),
        "poorly_mixed": float((posteriors.status == pcr.PosteriorStatus.poorly_mixed).mean()),
    }


def of_answers(posteriors) -> dict:
    """What was inferred of how they answer, medians over people."""
    rate, noise = np.moveaxis(posteriors.unknowns.reshape(len(posteriors.status), -1, 2), 2, 0)
    return {
        "inferred_rate": float(np.median(rate.mean(1))),
        "inferred_noise": float(np.median(noise.mean(1))),
    }


infer = partial(pcr.infer, K_INFER, likelihood=pcr.mixture(), sampler="gibbs")


def coefficient_rows(num_people: int) -> list[dict]:
    """M1 and M2: the paper's questions and likelihood beside individual ones and `mixture`."""
    rows = []
    for scm in ("m1", "m2"):
        truth = pcr.library.get(scm)
        true, units = np.asarray(truth.coefficients), population(truth)
        asking = {
            "key": K_INFER,
            "surrogate": surrogate(scm),
            "history": histories(scm, num_people),
        }
        hard = pcr.tolerance(SIGMA[scm], PAPER.beta)
        paper = pcr.infer(**asking, likelihood=hard, sampler="ess")
        linear = surrogates(truth.graph, units)["linear"]
        _, history = asked(truth, units, num_people)
        own = infer(linear, history)
        factor = np.asarray(edge_units(truth.graph, units["scale"]))
        for method, found in (("paper", paper.draws), ("individual, mixture", own.draws * factor)):
            flat = found.reshape(num_people, -1, 3)
            low, high = np.nanquantile(flat, [0.05, 0.95], axis=1)
            error = np.nanmean(flat, 1) - true
            row = {"scm": scm, "method": method, "people": num_people}
            row["covered_90"] = float(((low <= true) & (true <= high)).mean())
            row["rms_error_of_coefficients"] = float(np.sqrt(np.nanmean(error**2)))
            rows.append(row | {"median_error": float(np.nanmedian(np.abs(error)))})
    return rows


def curve_rows(num_people: int) -> list[dict]:
    """M1, M2 and M3 by every surrogate, and with what a population's rows teach."""
    rows = []
    for scm in pcr.library.SCMS:
        truth = pcr.library.get(scm)
        units = population(truth)
        x, history = asked(truth, units, num_people)
        people = truth.sample(K_SCMS, 1500)
        for name, flat in surrogates(truth.graph, units).items():
            learnt = pcr.learned_prior(flat, people)
            for prior, model in (("flat", flat), ("learnt", learnt)):
                found = predicted(infer(model, history), truth, x, units["scale"])
                rows.append({"scm": scm, "surrogate": name, "prior": prior, **found})
    return rows


def misfit_rows(num_people: int) -> list[dict]:
    """A surrogate that cannot be right: what intervals hold, and what is inferred of answers.

    Beside people whom it does fit, to see how many of these are said not to be.
    """
    m1, m2, m3 = (pcr.library.get(name) for name in pcr.library.SCMS)
    missing = pcr.Graph.from_edges(m1.graph.nodes, [("X1", "X2"), ("X2", "X3")])
    star = pcr.library.theta_star()
    tenth = (jnp.arange(num_people) % 10 == 0).astype(float)
    cases = {
        "m3, linear": (m3, m3.graph, {}),
        "m1, no edge X1 -> X3": (m1, missing, {}),
        "m1, a tenth always wrong": (m1, m1.graph, {"error_rate": tenth, "wrong": star}),
        "m1": (m1, m1.graph, {}),
        "m2": (m2, m2.graph, {}),
    }
    rows = []
    for name, (truth, graph, errors) in cases.items():
        units = population(truth)
        x, history = asked(truth, units, num_people, **errors)
        posteriors = infer(surrogates(graph, units)["linear"], history)
        found = predicted(posteriors, truth, x, units["scale"])
        found["poorly_fitting"] = float(posteriors.fit.poor.mean())
        rows.append({"case": name, **found, **of_answers(posteriors)})
    return rows


def accused(posteriors, history, truth, units) -> dict:
    """Whether wrong answers are those that z_t accuses: area under the ROC curve."""
    table = pcr.conflicts(posteriors)
    d = truth.num_nodes

    def one(questions, x):
        action = pcr.Action.shift_node(questions.node, questions.shift, d)
        return truth.counterfactual(x, action)

    true = jax.vmap(jax.vmap(one, (0, None)))(history.questions, history.x)
    away = np.nanmax(np.abs(np.asarray((history.answer - true) / units["scale"])), -1)
    is_wrong = (away > 5 * NOISE)[table["user"], table["question"]]
    if not 0 < is_wrong.mean() < 1:
        return {}
    ranks = table["wrong"].rank().to_numpy()
    num = is_wrong.sum()
    area = (ranks[is_wrong].sum() - num * (num + 1) / 2) / (num * (~is_wrong).sum())
    return {"share_wrong": float(is_wrong.mean()), "area_under_roc": float(area)}


def error_rows(num_people: int) -> list[dict]:
    """M1: error rates from 0 to .5, and every kind of wrong answer."""
    truth = pcr.library.m1()
    units = population(truth)
    rates = pcr.sample_error_rates(K_SCMS, num_people, 0.1)
    kinds = {
        "theta*": {},
        "inverted": {"wrong": None},
        "anchored": {"wrong": pcr.Anchored(0.35)},
        "too weak": {"wrong": pcr.TooWeak(0.5)},
        "broad": {"wrong": pcr.Broad(2.0 * units["scale"])},
        "in some people": {"error_rate": rates},
        "rounded": {"rounding": 1.0},
        "not known": {"dont_know": 0.3 * units["scale"]},
    }
    cases = {f"theta*, {alpha:g}": {"error_rate": alpha} for alpha in ALPHAS} | kinds
    rows = []
    for name, errors in cases.items():
        x, history = asked(truth, units, num_people, **errors)
        posteriors = infer(surrogates(truth.graph, units)["linear"], history)
        found = predicted(posteriors, truth, x, units["scale"])
        blame = accused(posteriors, history, truth, units)
        rows.append({"people": name, **found, **of_answers(posteriors), **blame})
    return rows


def differ_rows(num_people: int) -> list[dict]:
    """Coefficients +-.3 about the population's: what answers and population teach."""
    rows = []
    for scm in ("m1", "m2"):
        common = pcr.library.get(scm)
        scms = pcr.population_of_scms(K_SCMS, common, 1500, 0.3)
        people = jax.vmap(lambda scm, key: scm.sample(key, 1)[0])(
            scms, jax.random.split(K_POP, 1500)
        )
        units = {"scale": people.std(0), "centre": people.mean(0)}
        own = jax.tree.map(lambda leaf: leaf[:num_people], scms)
        flat = surrogates(common.graph, units)["linear"]
        learnt = pcr.learned_prior(flat, people)
        for num_queries in (0, 3, 10):
            x, history = people[:num_people], pcr.History.empty(people[:num_people], 1)
            if num_queries:
                wrong = pcr.library.theta_star()
                noise = NOISE * units["scale"]
                user = pcr.SimulatedUser(own, error_rate=0.1, wrong=wrong, noise=noise)
                settings = {"num_queries": num_queries, "surrogate": flat}
                history = pcr.elicit(K_ASK, user, x, **settings)
            for name, model in (("flat", flat), ("population and answers", learnt)):
                found = predicted(infer(model, history), own, x, units["scale"])
                rows.append({"scm": scm, "questions": num_queries, "prior": name, **found})
    return rows


def sparse(num_nodes: int) -> pcr.Graph:
    """A DAG with about two parents a node."""
    rng = np.random.default_rng(num_nodes)
    nodes = [f"X{j + 1}" for j in range(num_nodes)]
    chosen = [rng.choice(j, min(j, int(rng.integers(1, 4))), False) for j in range(num_nodes)]
    return pcr.Graph.from_edges(
        nodes, [(nodes[p], nodes[j]) for j, c in enumerate(chosen) for p in c]
    )


def graph_row(num_nodes: int, curved: bool, sampler: str, num_people: int) -> dict:
    """Three questions a node: mixing, and effective draws per second."""
    graph = sparse(num_nodes)
    units = {"scale": np.ones(num_nodes), "centre": np.zeros(num_nodes)}
    prior = pcr.normal_prior(np.zeros(len(graph.edges)), np.full(len(graph.edges), 0.7))
    model = pcr.linear_surrogate(graph, prior=prior, **units)
    rng = np.random.default_rng(0)
    truth = pcr.linear_scm(graph, rng.uniform(-0.8, 0.8, len(graph.edges)))
    if curved:
        model = pcr.basis_surrogate(graph, num_functions=4, **units)
    _, history = asked(truth, units, num_people, 3 * num_nodes, wrong=None)
    run = partial(pcr.infer, K_INFER, model, history, pcr.mixture(), sampler=sampler)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        posteriors = run()
        seconds.append(time.perf_counter() - began)
    draws = np.concatenate([posteriors.draws, posteriors.unknowns], -1)
    rhat = rank_rhat(np.moveaxis(draws, 3, 1)).max(1)
    return {
        "nodes": num_nodes,
        "curved": curved,
        "sampler": sampler,
        "people": num_people,
        "unknown": draws.shape[-1],
        "compile_seconds": seconds[0] - seconds[1],
        "seconds": seconds[1],
        "share_rhat_below_1.01": float((rhat <= MAX_RHAT).mean()),
        "median_rhat": float(np.median(rhat)),
        "ess": float(np.median(ess := effective(draws))),
        "least_ess": float(ess.min()),
        "ess_per_second": float(np.median(ess) * num_people / seconds[1]),
    }


def effective(draws) -> np.ndarray:
    """What a person's draws (user, chain, n, k) are worth, by how far chains are apart; (k,).

    Walkers of few steps have no autocorrelation to go by. The mean over people, weighted by how
    far they are apart: who mixes badly counts most.
    """
    between = draws.mean(2).var(1, ddof=1).mean(0)
    return draws.shape[1] * draws.var(2).mean((0, 1)) / between


def graph_rows(num_people: int, quick: bool) -> Iterator[dict]:
    """Sparse DAGs; NUTS where its program compiles in reasonable time; what takes longest last."""
    sizes = (5, 10) if quick else (5, 10, 20, 64)
    cases = [(n, False, "gibbs", num_people) for n in sizes]
    cases += [(5, False, "nuts", num_people)]
    cases += [] if quick else [(20, False, "gibbs", 500)]
    cases += [(n, True, "gibbs", num_people) for n in sizes if n <= 20]
    for case in cases:
        yield graph_row(*case)


def again_rows() -> list[dict]:
    """One more answer of one person, programs compiled: the whole call of `infer`."""
    rows = []
    for num_nodes in (3, 7, 20):
        graph = sparse(num_nodes)
        truth = pcr.linear_scm(graph, np.full(len(graph.edges), 0.4))
        units = {"scale": np.ones(num_nodes), "centre": np.zeros(num_nodes)}
        _, history = asked(truth, units, 1, 3 * num_nodes, wrong=None)
        model = pcr.linear_surrogate(graph, low=-2.0, high=2.0, **units)
        last = np.arange(3 * num_nodes)[:, None] == 3 * num_nodes - 1
        before = infer(model, replace(history, answer=jnp.where(last, jnp.nan, history.answer)))
        row = {"nodes": num_nodes}
        for name, starts in (("before", before), ("nothing", None)):
            spent = []
            for _ in range(6):
                began = time.perf_counter(), time.process_time()
                found = infer(model, history, starts=starts)
                spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
            wall, cpu = 1e3 * np.median(spent[1:], axis=0)
            row |= {f"milliseconds_from_{name}": float(wall), f"cpu_from_{name}": float(cpu)}
            row[f"evaluations_from_{name}"] = int(found.num_evaluations[0])
        rows.append(row)
    return rows


def unit_rows() -> list[dict]:
    """The same people in other units: the largest difference of their draws.

    By powers of ten numbers are rounded otherwise, which may turn a step of a sampler; by powers of
    two they are not.
    """
    truth = pcr.library.m1()
    units = population(truth)
    _, history = asked(truth, units, 20)
    rows = []
    for name, low, high in (("1e-6, 1, 1e6", 1e-6, 1e6), ("2**-20, 1, 2**20", 2**-20, 2**20)):
        factors = np.array([low, 1.0, high])
        other = history.standardised(jnp.asarray(1 / factors, float))
        for sampler in ("gibbs", "ess", "smc"):
            draws = [
                pcr.infer(K_INFER, model, told, pcr.mixture(), sampler=sampler).draws
                for model, told in (
                    (pcr.linear_surrogate(truth.graph, scale=units["scale"]), history),
                    (pcr.linear_surrogate(truth.graph, scale=units["scale"] * factors), other),
                )
            ]
            apart = np.abs(draws[0] - draws[1])
            row = {"units": name, "sampler": sampler, "largest_difference": float(apart.max())}
            rows.append(row | {"share_beyond_1e-3": float((apart > 1e-3).mean())})
    return rows


PARTS = ("coefficients", "curves", "misfit", "errors", "differ", "graphs", "again", "units")


def measure(options):
    """Part by part."""
    num = 50 if options.quick else 500
    parts = {
        "coefficients": partial(coefficient_rows, num),
        "curves": partial(curve_rows, num),
        "misfit": partial(misfit_rows, num),
        "errors": partial(error_rows, num),
        "differ": partial(differ_rows, num),
        "graphs": partial(graph_rows, 5 if options.quick else 20, options.quick),
        "again": again_rows,
        "units": unit_rows,
    }
    for name in options.part:
        found = parts[name]()
        if isinstance(found, list):
            yield name, found
        else:
            for row in found:
                yield name, [row]
