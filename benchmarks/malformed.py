"""Malformed calls: every public function, every parameter, some fifty wrong values.

Every call differs from a valid one in a single argument and is made in a worker process with a time
limit. What comes of it is

- ``clear``: an exception that the package raises itself, whose message names the argument and says
  what came;
- ``legitimate``: accepted, and the value is a right one for this parameter (``CASES`` says which);
- ``wrong``: accepted, and it is not;
- ``unclear``: any other exception;
- ``hang`` or ``crash``: of the worker.

To measure another checkout with this code: ``PYTHONPATH=CHECKOUT python benchmarks/malformed.py``.
"""

from __future__ import annotations

import argparse
import dis
import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

CLASSES = ("clear", "legitimate", "wrong", "unclear", "hang", "crash")
CPU_LIMIT = 40.0  # seconds that a call may compute
_WAIT = 300.0  # seconds that it may take, on a machine that others use as well


# Values. Each is made anew for every call, given the valid argument in whose place it stands.


def _shape(valid) -> tuple[int, ...]:
    """Of the valid argument, if it is an array; else (3,)."""
    shape = getattr(valid, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) and shape else (3,)


def _like(entry, dtype=None) -> Callable:
    import numpy as np

    return lambda valid: np.full(_shape(valid), entry, dtype)


def _named(column: Callable) -> Callable:
    """A pandas frame, or series, of the valid argument's shape with names that nothing else has."""
    import pandas as pd

    def make(valid):
        *rows, width = _shape(valid)
        names = [f"column {j}" for j in range(width)]
        if len(rows) != 1:
            return pd.Series(column(width), index=names)
        return pd.DataFrame({name: column(rows[0]) for name in names})

    return make


@cache
def values() -> dict[str, Callable[[Any], Any]]:
    """Wrong values by name: functions of the valid argument."""
    import jax
    import jax.numpy as jnp
    import networkx as nx
    import numpy as np
    import pandas as pd

    import pcr_jax as pcr

    def constant(value):
        return lambda valid: value

    def dates(n):
        return pd.Series([datetime(2020, 1, 1)] * n).to_numpy()

    other = pcr.Graph(("A", "B", "C", "D"), ((), (0,), (1,), (2,)))
    return {
        "None": constant(None),
        "text": constant("abc"),
        "number as text": constant("0.5"),
        "bytes": constant(b"abc"),
        "True": constant(True),
        "one": constant(1),
        "minus one": constant(-1),
        "zero": constant(0),
        "2.5": constant(2.5),
        "1e300": constant(1e300),
        "1e-40": constant(1e-40),
        "10**30": constant(10**30),
        "NaN": constant(float("nan")),
        "infinity": constant(float("inf")),
        "minus infinity": constant(float("-inf")),
        "complex": constant(1 + 2j),
        "decimal": constant(Decimal("0.5")),
        "missing": constant(pd.NA),
        "date": constant(datetime(2020, 1, 1)),
        "empty list": lambda valid: [],
        "ragged list": lambda valid: [[1.0], [1.0, 2.0]],
        "list of text": lambda valid: ["abc", "def"],
        "list of None": lambda valid: [None, None, None],
        "dict": lambda valid: {"abc": 1},
        "set": lambda valid: {1, 2},
        "generator": lambda valid: (i for i in range(3)),
        "function": lambda valid: lambda *args: 0.5,
        "class": constant(int),
        "object": lambda valid: object(),
        "path": constant(Path("nowhere") / "nothing.nc"),
        "named": _named(lambda n: np.full(n, 0.5)),
        "nullable": _named(lambda n: pd.array([0.5] * (n - 1) + [pd.NA], "Float64")),
        "objects": _named(lambda n: np.array(["low"] * n, object)),
        "dates": _named(dates),
        "categories": _named(lambda n: pd.Categorical(["low"] * n)),
        "rank 0": constant(np.array(0.5)),
        "shape (7,)": constant(np.full(7, 0.5)),
        "shape (2, 2, 2, 2)": constant(np.full((2, 2, 2, 2), 0.5)),
        "shape (0, 3)": constant(np.zeros((0, 3))),
        "array of text": _like("0.5"),
        "array of None": _like(None, object),
        "array of bool": _like(True),
        "array of integers": _like(1, int),
        "array of complex": _like(1 + 2j),
        "array of NaN": _like(np.nan),
        "array of infinity": _like(np.inf),
        "array of 1e300": _like(1e300),
        "key": lambda valid: jax.random.key(1),
        "raw key": lambda valid: jax.random.PRNGKey(1),
        "shape alone": lambda valid: jax.ShapeDtypeStruct(_shape(valid), jnp.zeros(0).dtype),
        "networkx": lambda valid: nx.Graph([("A", "B")]),
        "graph": constant(other),
        "SCM": lambda valid: pcr.non_causal(other),
        "history": lambda valid: pcr.History.empty(5, 2, 4),
    }


# What is right for a parameter, by the names of values.
ONE = {"one"}
LIMIT = {"one", "10**30"}
POSITIVE = {"one", "2.5", "rank 0", "decimal", "10**30"}
NON_NEGATIVE = {*POSITIVE, "zero", "1e-40"}
REAL = {*NON_NEGATIVE, "minus one"}
PROBABILITY = {"zero", "one", "rank 0", "decimal", "1e-40"}
INSIDE = {"rank 0", "decimal"}  # of (0, 1)
NUMBERS = {"array of integers", "named"}  # where there are no names to compare with
FEATURES = {"array of integers"}
REPORTED = {"array of integers", "array of NaN"}
MASK = {"array of bool"}
UNKNOWN = {"array of NaN"}  # coefficients of a user without a posterior
NO_ROWS = {"shape (0, 3)"}
ANY_SHAPE = {"shape (7,)", "shape (2, 2, 2, 2)", *NO_ROWS}
EMPTY = {"empty list", *NO_ROWS}
NONE = {"None"}
FUNCTION = {"function"}
KEY = {"key", "raw key"}
GRAPH = {"graph"}
ANY_SCM = {"SCM"}
NOTHING: set[str] = set()


@dataclass(frozen=True)
class Case:
    """A valid call.

    ``arguments`` are those of ``function`` that it has (another version may lack some); ``right``
    says for each parameter which of `values` it may accept. ``known_as``: what messages may call
    the argument beside its name.
    """

    function: Callable
    arguments: dict[str, Any]
    right: dict[str, set[str]]
    known_as: dict[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Those that are tried."""
        has = inspect.signature(self.function).parameters
        return [name for name in self.right if name in has]

    @property
    def untried(self) -> list[str]:
        """Those that the function has beside."""
        has = inspect.signature(self.function).parameters.values()
        named = [p.name for p in has if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return [name for name in named if name not in self.right and name != "self"]

    def __call__(self, **changed):
        """Call it with some other arguments."""
        has = inspect.signature(self.function).parameters
        given = {name: value for name, value in self.arguments.items() if name in has}
        return self.function(**given | changed)


def _of(function: Callable, then: Callable | None = None) -> Callable:
    """``function`` and then a use of what it returns, under the signature of ``function``.

    For values that are checked where they are used: constructors of pytrees.
    """

    def call(**arguments):
        result = function(**arguments)
        return result if then is None else then(result)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


@cache
def cases() -> dict[str, Case]:
    """The valid calls, by name; small, so that they compile fast."""
    import jax
    import jax.numpy as jnp
    import networkx as nx
    import numpyro.distributions as dist
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    import pcr_jax as pcr

    key, truth = jax.random.key(0), pcr.library.m1()
    graph, nodes = truth.graph, truth.graph.nodes
    edges = [(nodes[p], nodes[j]) for p, j in graph.edges]
    x = jnp.array([[-1.0, -0.5, -0.3], [-2.0, 0.1, -0.2], [-0.4, -0.6, -1.5]])
    some, three, ones = jnp.full((3, 3), 0.5), jnp.full(3, 0.5), jnp.ones(3)
    every, shape = jnp.ones((3, 3), bool), (3, 3)

    def score(x):
        return x.sum(-1) - 1.0

    module = pcr.MLP((4,))
    params = module.init(key, x)
    action = pcr.Action.soft(some)
    user = pcr.SimulatedUser(truth)
    history = pcr.elicit(key, user, x, num_queries=3)
    room = pcr.History.empty(3, 4, 3)
    query = pcr.Query(jnp.zeros(3, int), three)
    surrogate, likelihood = pcr.linear_surrogate(graph), pcr.tolerance(0.5, 0.1)
    theta = jnp.zeros(3)
    sampler = pcr.Smc(num_runs=2, num_particles=32, num_moves=1, num_last_moves=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = pcr.infer(key, surrogate, history, x, likelihood=likelihood, sampler=sampler)
    problem = {"score": score, "scm": truth, "x": x, "scale": ones, "epsilon": 0.0, "norm": "l2"}
    search = {**problem, "cost": "l1", "weights": ones, "constraints": pcr.Constraints()}
    search |= {"intervention": "soft", "max_set_size": 3, "solver": "optimal"}
    search |= {"digits": 3, "key": key, "on_user": None}
    plan = pcr.find_recourse(score, truth, x, scale=ones)
    reported = {"score": score, "truth": truth, "x": x, "plan": plan, "scale": ones}
    reported |= {"epsilon": 0.0, "norm": "l2", "optimum": ones, "key": key}
    report = pcr.evaluate(**reported)
    samplers = {"key": key, "surrogate": surrogate, "history": history, "likelihood": likelihood}
    expected, answer = history.answer[0], history.answer[0]
    written = Path("posterior.nc")
    pcr.write_netcdf(idata, written)

    def outcome(action):
        return truth.counterfactual(x, action)

    def in_scm(mechanism):
        mechanisms = (*truth.mechanisms[:2], mechanism)
        return pcr.SCM(graph, mechanisms, truth.noise).counterfactual(x, action)

    def told(node, shift):
        return pcr.tell(room, pcr.Query(node, shift), some)

    def fields(result, **right):
        """Case of a constructor: the fields' values are those of ``result``."""
        return {name: getattr(result, name) for name in right}, right

    def settings(solver, use=None, **right):
        return Case(_of(type(solver), use), *fields(solver, **right))

    find = {
        "score": FUNCTION,
        "scm": NOTHING,
        "x": FEATURES,
        "scale": FEATURES,
        "epsilon": NON_NEGATIVE,
        "norm": NOTHING,
        "cost": NOTHING,
        "weights": FEATURES | NONE,
        "constraints": NONE,
        "intervention": NOTHING,
        "max_set_size": LIMIT | NONE,
        "solver": NOTHING,
        "digits": ONE | NONE,
        "key": KEY | NONE,
        "on_user": NONE | {"function"},
    }
    masks = {"actionable": NONE | MASK, "increase_only": NONE | MASK, "decrease_only": NONE | MASK}
    masks = {name: right | {"True"} for name, right in masks.items()}
    bounded = {"increase_only", "decrease_only"}
    low = {name: jnp.zeros(shape, bool) for name in bounded} | {"actionable": every}
    low |= {"lower": x - 1, "upper": x + 1}
    above = {"infinity", "one", "2.5", "10**30", "rank 0", "decimal", "array of integers"}
    return {
        "Action": Case(
            _of(pcr.Action, outcome),
            {"value": some, "hard": every},
            {"value": FEATURES, "hard": MASK},
            {"value": "action", "hard": "action"},
        ),
        "Action.soft": Case(
            pcr.Action.soft, {"shift": some}, {"shift": NUMBERS | REAL | ANY_SHAPE}
        ),
        "Action.shift_node": Case(
            pcr.Action.shift_node,
            {"node": 0, "shift": 0.5, "num_nodes": 3},
            {"node": {"zero", "one", "minus one"}, "shift": REAL, "num_nodes": ONE},
        ),
        "Action.do": Case(
            pcr.Action.do, {"value": some, "nodes": every}, {"value": NUMBERS | REAL, "nodes": MASK}
        ),
        "Action.by": Case(
            pcr.Action.by,
            {"x": x, "shift": some, "hard": True},
            {"x": NUMBERS, "shift": NUMBERS, "hard": {"True"}},
        ),
        "Action.empty": Case(pcr.Action.empty, {"num_nodes": 3}, {"num_nodes": ONE}),
        "Constraints": Case(
            _of(
                pcr.Constraints,
                lambda limits: pcr.find_recourse(score, truth, x, scale=ones, constraints=limits),
            ),
            low,
            {
                **masks,
                "lower": NONE | {"minus infinity"},
                "upper": NONE | above | {"array of infinity"},
            },
        ),
        "Constraints.shift_bounds": Case(
            pcr.Constraints().shift_bounds,
            {"x": x, "names": nodes, "rows": pd.RangeIndex(3)},
            {"x": NUMBERS | NO_ROWS, "names": NONE, "rows": NONE},
        ),
        "intervention_sets": Case(
            pcr.intervention_sets,
            {"num_nodes": 3, "max_size": 2},
            {"num_nodes": ONE, "max_size": LIMIT | NONE},
        ),
        "Graph": Case(
            pcr.Graph,
            {"nodes": nodes, "parents": graph.parents},
            {"nodes": NOTHING, "parents": NOTHING},
        ),
        "Graph.from_edges": Case(
            pcr.Graph.from_edges,
            {"nodes": list(nodes), "edges": edges},
            {"nodes": NOTHING, "edges": EMPTY},
        ),
        "Graph.from_networkx": Case(
            pcr.Graph.from_networkx, {"graph": nx.DiGraph(edges)}, {"graph": NOTHING}
        ),
        "Graph.fully_connected": Case(
            pcr.Graph.fully_connected, {"num_nodes": 3}, {"num_nodes": ONE}
        ),
        "Graph.index": Case(graph.index, {"node": "X1"}, {"node": {"zero", "one"}}),
        "Mechanism": Case(
            _of(pcr.Mechanism, in_scm),
            {"coefficients": jnp.ones(2), "function": truth.mechanisms[2].function},
            {"coefficients": NUMBERS | UNKNOWN | {"raw key"}, "function": FUNCTION},
        ),
        "SCM": Case(
            _of(pcr.SCM, lambda scm: scm.sample(key, 2)),
            {"graph": graph, "mechanisms": truth.mechanisms, "noise": truth.noise},
            {"graph": NOTHING, "mechanisms": NOTHING, "noise": NOTHING},
        ),
        "SCM.abduct": Case(truth.abduct, {"x": x}, {"x": FEATURES | NO_ROWS}),
        "SCM.predict": Case(
            truth.predict, {"noise": x, "action": action}, {"noise": FEATURES, "action": NONE}
        ),
        "SCM.counterfactual": Case(
            truth.counterfactual, {"x": x, "action": action}, {"x": FEATURES, "action": NONE}
        ),
        "SCM.sample_noise": Case(
            truth.sample_noise,
            {"key": key, "num_samples": 2},
            {"key": KEY, "num_samples": {"one", "zero"}},
        ),
        "SCM.sample": Case(
            truth.sample,
            {"key": key, "num_samples": 3, "action": action},
            {"key": KEY, "num_samples": {"zero", "one"}, "action": NONE},
        ),
        "linear_scm": Case(
            _of(pcr.linear_scm, lambda scm: scm.sample(key, 2)),
            {"graph": graph, "coefficients": ones, "noise": [dist.Normal(0.0, 1.0)] * 3},
            {"graph": NOTHING, "coefficients": NUMBERS | UNKNOWN, "noise": NONE},
        ),
        "non_causal": Case(pcr.non_causal, {"graph": graph}, {"graph": GRAPH}),
        "inverted": Case(pcr.inverted, {"scm": truth}, {"scm": ANY_SCM}),
        "library.get": Case(pcr.library.get, {"name": "m1"}, {"name": NOTHING}, {"name": "scm"}),
        "MLP": Case(
            _of(pcr.MLP, lambda module: module.init(key, x)),
            {"hidden": (4,)},
            {"hidden": EMPTY | {"array of integers"}},
        ),
        "Classifier": Case(
            _of(pcr.Classifier, lambda score: pcr.find_recourse(score, truth, x, scale=ones)),
            {"module": module, "params": params, "loc": three, "scale": ones, "names": nodes},
            {
                "module": NOTHING,
                "params": NOTHING,
                "loc": FEATURES,
                "scale": FEATURES,
                "names": NONE,
            },
        ),
        "train_mlp": Case(
            pcr.train_mlp,
            {"key": key, "x": x, "y": jnp.array([0.0, 1.0, 1.0])}
            | {"hidden": (4,), "learning_rate": 0.1, "epochs": 2},
            {
                "key": KEY,
                "x": NOTHING,  # constant columns have no scale
                "y": {"array of integers", "array of bool"},
                "hidden": EMPTY | {"array of integers"},
                "learning_rate": POSITIVE,
                "epochs": ONE,
            },
        ),
        "with_threshold": Case(
            pcr.with_threshold,
            {"score": score, "threshold": 0.6},
            {"score": FUNCTION, "threshold": INSIDE},
        ),
        "outside_model": Case(
            pcr.outside_model,
            {"model": lambda rows: rows.sum(-1), "threshold": 0.5},
            {"model": FUNCTION, "threshold": NONE | REAL},
        ),
        "outside_model, of classes": Case(
            pcr.outside_model,
            {"model": DummyClassifier().fit(x, [0, 1, 1]), "favourable": 1, "threshold": 0.5}
            | {"names": nodes},
            {"favourable": NONE | ONE | {"True", "zero"}, "threshold": NONE | INSIDE}
            | {"names": NONE},
        ),
        "sample_labels": Case(
            pcr.sample_labels,
            {"key": key, "x": x, "rho": "mean"},
            {"key": KEY, "x": NUMBERS, "rho": NOTHING},
        ),
        "refused_population": Case(
            pcr.refused_population,
            {"key": key, "scm": truth, "num_train": 50, "num_users": 3, "rho": "mean"}
            | {"learning_rate": 0.1, "epochs": 2, "max_draws": 1000},
            {
                "key": KEY,
                "scm": ANY_SCM,
                "num_train": NOTHING,
                "num_users": ONE,
                "rho": NOTHING,
                "learning_rate": POSITIVE,
                "epochs": ONE,
                "max_draws": {"10**30"},
            },
        ),
        "History": Case(
            _of(
                pcr.History,
                lambda history: pcr.infer(
                    key, surrogate, history, likelihood=likelihood, sampler=sampler
                ),
            ),
            {"node": history.node, "shift": history.shift, "answer": history.answer},
            {"node": FEATURES, "shift": NUMBERS, "answer": REPORTED | {"named"}},
            {"node": "history", "shift": "history", "answer": "history"},
        ),
        "History.empty": Case(
            pcr.History.empty,
            {"num_users": 3, "max_queries": 2, "num_nodes": 3},
            {"num_users": {"one", "zero"}, "max_queries": {"one", "zero"}, "num_nodes": ONE},
        ),
        "tell": Case(
            pcr.tell,
            {"history": room, "query": query, "answer": some},
            {"history": NOTHING, "query": NOTHING, "answer": REPORTED | {"named"}},
        ),
        "Query": Case(
            told, {"node": query.node, "shift": query.shift}, {"node": FEATURES, "shift": NUMBERS}
        ),
        "RandomDesign": Case(
            _of(pcr.RandomDesign, lambda design: design.ask(key, graph, room)),
            {"low": 0.0, "high": 1.0},
            {
                "low": {"zero", "minus one", "rank 0", "decimal", "1e-40"},
                "high": {"one", "2.5", "rank 0", "decimal", "10**30"},
            },
        ),
        "RandomDesign.ask": Case(
            pcr.RandomDesign().ask,
            {"key": key, "graph": graph, "history": room},
            {"key": KEY, "graph": GRAPH, "history": {"history"}},
        ),
        "SimulatedUser": Case(
            _of(pcr.SimulatedUser, lambda user: user.answer(key, query)),
            {"scm": truth, "error_rate": 0.1, "wrong": truth, "num_draws": 5, "noise": 0.1}
            | {"report": "all"},
            {
                "scm": NOTHING,
                "error_rate": PROBABILITY,
                "wrong": NONE,
                "num_draws": ONE,
                "noise": NON_NEGATIVE,
                "report": NOTHING,
            },
        ),
        "SimulatedUser.answer": Case(
            user.answer, {"key": key, "query": query}, {"key": KEY, "query": NOTHING}
        ),
        "elicit": Case(
            pcr.elicit,
            {"key": key, "respondent": user, "x": x, "num_queries": 2}
            | {"design": pcr.RandomDesign(), "history": room},
            {
                "key": KEY,
                "respondent": NOTHING,
                "x": FEATURES,
                "num_queries": ONE,
                "design": NONE,
                "history": NONE,
            },
        ),
        "Tolerance": settings(
            likelihood,
            lambda likelihood: likelihood.log_prob(expected, answer),
            sigma=POSITIVE,
            beta=PROBABILITY,
            norm=NOTHING,
        ),
        "Relaxed": settings(
            pcr.relaxed(0.5, 0.1),
            lambda likelihood: likelihood.log_prob(expected, answer),
            sigma=POSITIVE,
            beta=PROBABILITY,
            norm=NOTHING,
            temperature=POSITIVE,
        ),
        "Tolerance.log_prob": Case(
            likelihood.log_prob,
            {"expected": some, "answer": some},
            {"expected": NUMBERS, "answer": NUMBERS | REPORTED},
        ),
        "tolerance": Case(
            pcr.tolerance,
            {"sigma": 0.5, "beta": 0.1, "norm": "each"},
            {"sigma": POSITIVE, "beta": PROBABILITY, "norm": NOTHING},
        ),
        "relaxed": Case(
            pcr.relaxed,
            {"sigma": 0.5, "beta": 0.1, "temperature": 0.05, "norm": "each"},
            {"sigma": POSITIVE, "beta": PROBABILITY, "temperature": POSITIVE, "norm": NOTHING},
        ),
        "linear_surrogate": Case(
            pcr.linear_surrogate,
            {"graph": graph, "low": -1.0, "high": 1.0, "noise_mean": ones},
            {
                "graph": NOTHING,
                "low": {"zero", "minus one", "rank 0", "decimal", "1e-40"},
                "high": REAL - {"minus one"},
                "noise_mean": FEATURES | NONE,
            },
        ),
        "LinearSurrogate": Case(
            _of(
                pcr.LinearSurrogate,
                lambda surrogate: surrogate.expected_answers(
                    theta, history.node[0], history.shift[0]
                ),
            ),
            {"graph": graph, "low": -1.0, "high": 1.0, "noise_mean": (0.0, 0.0, 0.0)},
            {
                "graph": NOTHING,
                "low": {"zero", "minus one", "rank 0", "decimal", "1e-40"},
                "high": REAL - {"minus one"},
                "noise_mean": FEATURES,
            },
        ),
        "LinearSurrogate.scm": Case(surrogate.scm, {"theta": theta}, {"theta": NUMBERS | UNKNOWN}),
        "LinearSurrogate.expected_answers": Case(
            surrogate.expected_answers,
            {"theta": theta, "node": history.node[0], "shift": history.shift[0]},
            {"theta": NUMBERS | UNKNOWN, "node": FEATURES, "shift": NUMBERS},
        ),
        "Ess": settings(
            pcr.Ess(),
            num_ensembles=ONE,
            num_walkers=NOTHING,
            num_warmup=ONE,
            num_steps=ONE,
            thin=ONE,
        ),
        "Nuts": settings(
            pcr.Nuts(),
            num_chains=ONE,
            num_warmup=ONE,
            num_steps=ONE,
            thin=ONE,
            target_accept=INSIDE,
            max_tree_depth=ONE,
            num_jumps=ONE,
        ),
        "Smc": settings(
            pcr.Smc(),
            num_runs=ONE,
            num_particles=NOTHING,
            num_moves=ONE,
            num_last_moves=ONE,
            target_ess=INSIDE,
            max_levels=ONE,
        ),
        "infer": Case(
            pcr.infer,
            {**samplers, "x": x, "sampler": sampler, "max_prior_draws": 2**14, "on_user": None},
            {
                "key": KEY,
                "surrogate": NOTHING,
                "history": NOTHING,
                "x": FEATURES | NONE,
                "likelihood": NOTHING,
                "sampler": NOTHING,
                "max_prior_draws": LIMIT,
                "on_user": NONE | {"function", "class"},
            },
        ),
        "exact_posterior": Case(
            pcr.exact_posterior,
            {**samplers, "num_draws": 2**14},
            {
                "key": KEY,
                "surrogate": NOTHING,
                "history": NOTHING,
                "likelihood": NOTHING,
                "num_draws": ONE,
            },
        ),
        "numpyro_model": Case(
            pcr.numpyro_model,
            {**samplers, "history": jax.tree.map(lambda leaf: leaf[0], history)},
            {"surrogate": NOTHING, "history": NOTHING, "likelihood": NOTHING},
        ),
        "posterior_scms": Case(
            pcr.posterior_scms,
            {"idata": idata, "reduce": "mean"},
            {"idata": NOTHING, "reduce": NONE},
        ),
        "diagnose": Case(pcr.diagnose, {"idata": idata}, {"idata": NOTHING}),
        # Before files are written under whatever name.
        "read_netcdf": Case(pcr.read_netcdf, {"path": written}, {"path": NOTHING}),
        "write_netcdf": Case(
            pcr.write_netcdf,
            {"idata": idata, "data": idata, "path": Path("written.nc")},
            {"idata": NOTHING, "data": NOTHING, "path": {"text", "number as text"}},
        ),
        "Optimal": settings(
            pcr.Optimal(),
            **{
                name: ONE if isinstance(value, int) else POSITIVE
                for name, value in vars(pcr.Optimal()).items()
            },
        ),
        "Algorithm1": settings(
            pcr.Algorithm1(), optimiser=NOTHING, num_outer=ONE, num_inner=ONE, decay=PROBABILITY
        ),
        "find_recourse": Case(pcr.find_recourse, search, find),
        "find_recourse, paper": Case(
            pcr.find_recourse,
            {**problem, "solver": pcr.Algorithm1(num_outer=2), "learning_rate": three},
            {"learning_rate": FEATURES | POSITIVE | NONE, "epsilon": NON_NEGATIVE},
        ),
        "evaluate": Case(
            pcr.evaluate,
            reported,
            {
                "score": FUNCTION,
                "truth": NOTHING,
                "x": FEATURES,
                "plan": NOTHING,
                "scale": FEATURES,
                "epsilon": NON_NEGATIVE,
                "norm": NOTHING,
                "optimum": NUMBERS | NONE | {"array of infinity"},
                "key": KEY | NONE,
            },
        ),
        "intervention_pattern": Case(
            pcr.intervention_pattern,
            {"action": action, "nodes": nodes, "users": jnp.ones(3, bool)},
            {"action": NOTHING, "nodes": NOTHING, "users": MASK},
        ),
        "Report.cost_mean_common": Case(
            report.cost_mean_common, {"others": [report]}, {"others": EMPTY}
        ),
        "Report.regret_mean": Case(
            report.regret_mean, {"reference": report}, {"reference": NOTHING}
        ),
        "Plan.to_frame": Case(plan.to_frame, {"names": nodes, "x": x}, {"names": NONE, "x": NONE}),
    } | _zeus()


def _zeus() -> dict[str, Case]:
    """The sampler that is an extra of its own, where it is installed."""
    import pcr_jax as pcr

    try:
        pcr.Zeus()
    except ImportError:
        return {}
    arguments = {"num_walkers": 50, "num_steps": 100, "keep": 0.3, "num_ensembles": 1}
    right = {"num_walkers": NOTHING, "num_steps": ONE, "num_ensembles": ONE}
    return {"Zeus": Case(pcr.Zeus, arguments, {**right, "keep": INSIDE | {"one"}})}


# The worker.


def _by_the_package(error: BaseException) -> bool:
    """Whether it comes from a ``raise`` of the package's own, not from what that calls."""
    import pcr_jax

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    own = Path(code.co_filename).is_relative_to(Path(pcr_jax.__file__).parent)
    return own and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def judge(error: BaseException, names: list[str]) -> str:
    """``clear`` or ``unclear``."""
    text = str(error)
    named = any(re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in names)
    kinds = (TypeError, ValueError, ImportError, OSError)
    clear = isinstance(error, kinds) and named and re.search(r"\b(got|no|not)\b", text)
    return "clear" if clear and _by_the_package(error) else "unclear"


def outcome(case: Case, parameter: str, value: str) -> dict:
    """What comes of one malformed call."""
    import jax

    wrong = values()[value](case.arguments[parameter])
    try:
        jax.block_until_ready(case(**{parameter: wrong}))
    except Exception as error:
        names = [parameter, *case.known_as.get(parameter, "").split()]
        said = f"{type(error).__name__}: {error}"[:300]
        return {"class": judge(error, names), "said": said}
    return {"class": "legitimate" if value in case.right[parameter] else "wrong", "said": ""}


def _work() -> None:
    """Answer questions: a line of JSON in, a line of JSON out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        name, parameter, value = json.loads(line)
        if name is None:
            said: Any = {n: [c.parameters, c.untried] for n, c in cases().items()}
        elif parameter is None:
            try:
                cases()[name]()
                said = {"class": "legitimate"}
            except Exception as error:
                said = {"class": "unclear", "said": f"{type(error).__name__}: {error}"[:300]}
        else:
            signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)  # whose signal ends the process
            said = outcome(cases()[name], parameter, value)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        print(json.dumps(said), file=answers, flush=True)


class Worker:
    """A process that makes calls; a new one after a hang or a crash."""

    def __init__(self, folder: str):
        self.folder, self.process, self.ready = folder, None, set()
        cached = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        cached |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.environment = {**os.environ, **cached}

    def ask(self, *question) -> dict:
        """The answer, or that there was none."""
        if self.process is None:
            command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
            pipe, self.ready = subprocess.PIPE, set()
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, cwd=self.folder, env=self.environment
            )
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        answered, _, _ = select.select([self.process.stdout], [], [], _WAIT)
        line = self.process.stdout.readline() if answered else b""
        if line:
            return json.loads(line)
        crashed = answered and self.process.wait() != -signal.SIGPROF
        self.end()
        return {"class": "crash" if crashed else "hang", "said": ""}

    def call(self, name: str, parameter: str, value: str) -> dict:
        """What comes of a malformed call, after a valid one."""
        if self.process is None or name not in self.ready:
            valid = self.ask(name, None, None)
            if valid["class"] != "legitimate":
                raise RuntimeError(f"The valid call of {name} fails: {valid}")
            self.ready.add(name)
        return self.ask(name, parameter, value)

    def end(self) -> None:
        """Stop the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def table(rows: list[dict]) -> list[dict]:
    """How many calls of each function, and of all, are in each class."""
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(row["function"], Counter())[row["class"]] += 1
    total = sum(counts.values(), Counter())
    return [
        {"function": name, "calls": of.total(), **{c: of[c] for c in CLASSES}}
        for name, of in [*counts.items(), ("all", total)]
    ]


def measure(out: Path, quick: bool) -> None:
    """Make the calls, print how many are in each class, and record those that are not clear."""
    from rich.console import Console
    from rich.progress import track

    from benchmarks.records import show, write_record

    console = Console(width=120)
    rows, names = [], list(values())[:: 9 if quick else 1]
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(folder)
        try:
            known = worker.ask(None, None, None)
            calls = [
                (name, parameter, value)
                for name, (parameters, _) in known.items()
                for parameter in parameters
                for value in names
            ]
            for name, parameter, value in track(calls, console=console):
                found = worker.call(name, parameter, value)
                rows.append({"function": name, "parameter": parameter, "value": value, **found})
        finally:
            worker.end()
    counts = table(rows)
    show(console, "Malformed calls", counts)
    tried = {(name.split(",")[0], parameter) for name, parameter, _ in calls}
    untried = [
        f"{name}: {parameter}"
        for name, (_, beside) in known.items()
        for parameter in beside
        if "," not in name and (name, parameter) not in tried
    ]
    console.print(f"Not tried: {', '.join(untried) or 'none'}.")
    others = [row for row in rows if row["class"] not in ("clear", "legitimate")]
    record = {"quick": quick, "values": names, "counts": counts, "untried": untried}
    write_record(out / "malformed.json", {**record, "neither_clear_nor_right": others})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="fewer values")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="DIR")
    args = parser.parse_args()
    if args.worker:
        _work()
    else:
        measure(args.out, args.quick)
