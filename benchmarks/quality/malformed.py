"""Malformed calls: every public function, every parameter, some fifty wrong values.

Every call differs from a valid one in a single argument and is made in a worker process with a time
limit. What comes of it is

- ``clear``: an exception that the package raises itself, whose message names the argument and says
  what came;
- ``legitimate``: accepted, and the value is a right one for this parameter (`cases` says which);
- ``wrong``: accepted, and it is not;
- ``unclear``: any other exception;
- ``hang`` or ``crash``: of the worker.
"""

from __future__ import annotations

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
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.timing import process

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

    def dates(n):
        return pd.Series([datetime(2020, 1, 1)] * n).to_numpy()

    other = pcr.Graph(("A", "B", "C", "D"), ((), (0,), (1,), (2,)))
    constants = {
        **{"None": None, "text": "abc", "number as text": "0.5", "bytes": b"abc", "True": True},
        **{"one": 1, "minus one": -1, "zero": 0, "2.5": 2.5, "1e300": 1e300, "1e-40": 1e-40},
        **{"10**30": 10**30, "NaN": float("nan"), "infinity": float("inf")},
        **{"minus infinity": float("-inf"), "complex": 1 + 2j, "decimal": Decimal("0.5")},
        **{"missing": pd.NA, "date": datetime(2020, 1, 1), "class": int, "graph": other},
        **{"path": Path("nowhere") / "nothing.nc", "rank 0": np.array(0.5)},
        **{"shape (7,)": np.full(7, 0.5), "shape (2, 2, 2, 2)": np.full((2, 2, 2, 2), 0.5)},
        "shape (0, 3)": np.zeros((0, 3)),
    }
    return {
        **{name: lambda valid, value=value: value for name, value in constants.items()},
        "empty list": lambda valid: [],
        "ragged list": lambda valid: [[1.0], [1.0, 2.0]],
        "list of text": lambda valid: ["abc", "def"],
        "list of None": lambda valid: [None, None, None],
        "dict": lambda valid: {"abc": 1},
        "set": lambda valid: {1, 2},
        "generator": lambda valid: (i for i in range(3)),
        "function": lambda valid: lambda *args: 0.5,
        "object": lambda valid: object(),
        "named": _named(lambda n: np.full(n, 0.5)),
        "nullable": _named(lambda n: pd.array([0.5] * (n - 1) + [pd.NA], "Float64")),
        "objects": _named(lambda n: np.array(["low"] * n, object)),
        "dates": _named(dates),
        "categories": _named(lambda n: pd.Categorical(["low"] * n)),
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
        "SCM": lambda valid: pcr.non_causal(other),
        "history": lambda valid: pcr.History.empty(np.zeros((5, 4)), 2),
    }


# What is right for a parameter, by the names of values.
ONE = {"one"}
COUNT = {"one", "zero"}
LIMIT = {"one", "10**30"}
POSITIVE = {"one", "2.5", "rank 0", "decimal", "10**30"}
NON_NEGATIVE = {*POSITIVE, "zero", "1e-40"}
REAL = {*NON_NEGATIVE, "minus one"}
PROBABILITY = {"zero", "one", "rank 0", "decimal", "1e-40"}
INSIDE = {"rank 0", "decimal"}  # of (0, 1)
NUMBERS = {"array of integers", "named"}  # where there are no names to compare with
FEATURES = {"array of integers"}
REPORTED = {"array of integers", "array of NaN", "named"}
MASK = {"array of bool"}
UNKNOWN = {"array of NaN"}  # coefficients of a user without a posterior
NAMES = {"text", "number as text", "generator"}  # of one letter, or numbers
NO_ROWS = {"shape (0, 3)"}
ANY_SHAPE = {"empty list", "raw key", "shape (7,)", "shape (2, 2, 2, 2)", *NO_ROWS}
EMPTY = {"empty list", *NO_ROWS}
NONE = {"None"}
PATH = {*NONE, "path", "text", "number as text"}
FUNCTION = {"function"}
KEY = {"key", "raw key"}
GRAPH = {"graph"}
ANY_SCM = {"SCM"}
NOTHING: set[str] = set()
_BOUND = {*NONE, "infinity", "one", "2.5", "10**30", "rank 0", "decimal", "array of integers"}
# As a rule, by parameter; of others nothing is.
RIGHT = {
    **dict.fromkeys(("x", "scale", "loc", "node", "value", "noise_mean"), FEATURES),
    **dict.fromkeys(("num_nodes", "num_users", "num_queries", "num_draws", "epochs"), ONE),
    **dict.fromkeys(("num_ensembles", "num_warmup", "num_steps", "thin", "num_chains"), ONE),
    **dict.fromkeys(("max_tree_depth", "num_jumps", "num_runs", "num_moves"), ONE),
    **dict.fromkeys(("num_last_moves", "max_levels", "num_outer", "num_inner"), ONE),
    **dict.fromkeys(("num_samples", "max_queries"), COUNT),
    **dict.fromkeys(("max_questions", "draws"), ONE),
    **dict.fromkeys(("wrong", "design", "reduce", "rows", "constraints", "action"), NONE),
    **dict.fromkeys(("sigma", "temperature", "learning_rate"), POSITIVE),
    **dict.fromkeys(("beta", "decay"), PROBABILITY),
    **dict.fromkeys(("error_rate", "pull", "factor"), PROBABILITY | NUMBERS),
    **dict.fromkeys(("relative_noise", "rounding"), NON_NEGATIVE | NONE),
    "epsilon": NON_NEGATIVE,
    **dict.fromkeys(("mean", "quarter"), INSIDE),
    "noise": NON_NEGATIVE | FEATURES,
    "dont_know": NONE | POSITIVE | FEATURES | {"1e-40"},
    "sd": NON_NEGATIVE | FEATURES,
    **dict.fromkeys(("target_accept", "target_ess"), INSIDE),
    **dict.fromkeys(("max_size", "max_set_size"), LIMIT | NONE),
    **dict.fromkeys(("actionable", "increase_only", "decrease_only"), NONE | MASK | {"True"}),
    **dict.fromkeys(("edges", "others"), EMPTY),
    **dict.fromkeys(("hard", "users"), MASK),
    **dict.fromkeys(("shift", "expected"), NUMBERS),
    **dict.fromkeys(("score", "function"), FUNCTION),
    "names": NONE | NAMES,
    "nodes": NAMES,
    "key": KEY,
    "answer": REPORTED,
    "theta": NUMBERS | UNKNOWN | {"nullable"},
    "coefficients": NUMBERS | UNKNOWN | {"raw key"},
    "hidden": EMPTY | FEATURES,
    "y": FEATURES | MASK,
    "threshold": NONE | INSIDE,
    "favourable": NONE | ONE | {"True", "zero"},
    "weights": FEATURES | NONE,
    "digits": ONE | NONE,
    "on_user": NONE | FUNCTION,
    "starts": NONE,
    "max_prior_draws": LIMIT,
    "max_draws": {"10**30"},
    "optimum": NUMBERS | NONE | {"array of infinity"},
    "low": PROBABILITY - ONE | {"minus one"},
    "high": REAL - {"minus one"},
    "lower": NONE | {"minus infinity"},
    "upper": _BOUND | {"array of infinity"},
    "keep": INSIDE | ONE,
}


@dataclass(frozen=True)
class Case:
    """A valid call.

    ``arguments`` are those of ``function`` that it has (another version may lack some); ``right``
    says for each parameter which of `values` it may accept. ``known_as``: what messages may call
    the arguments beside their names.
    """

    function: Callable
    arguments: dict[str, Any]
    right: dict[str, set[str]]
    known_as: str = ""

    @property
    def parameters(self) -> list[str]:
        """Those that are tried."""
        return list(self.right)

    @property
    def untried(self) -> list[str]:
        """Those that the function has beside."""
        has = inspect.signature(self.function).parameters.values()
        named = [p.name for p in has if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return [name for name in named if name not in self.right and name != "self"]

    def __call__(self, **changed):
        """Call it with some other arguments."""
        return self.function(**self.arguments | changed)


@cache
def cases() -> dict[str, Case]:
    """The valid calls, by name; small, so that they compile fast."""
    import jax
    import jax.numpy as jnp
    import networkx as nx
    import numpy as np
    import numpyro.distributions as dist
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    import pcr_jax as pcr

    key, truth = jax.random.key(0), pcr.library.m1()
    graph, nodes = truth.graph, truth.graph.nodes
    edges = [(nodes[p], nodes[j]) for p, j in graph.edges]
    x = jnp.array([[-1.0, -0.5, -0.3], [-2.0, 0.1, -0.2], [-0.4, -0.6, -1.5]])
    some, three, ones = jnp.full((3, 3), 0.5), jnp.full(3, 0.5), jnp.ones(3)
    every = jnp.ones((3, 3), bool)

    def score(x):
        return x.sum(-1) - 1.0

    module = pcr.MLP((4,))
    action, user = pcr.Action.soft(some), pcr.SimulatedUser(truth)
    history, room = pcr.elicit(key, user, x, num_queries=3), pcr.History.empty(x, 4)
    questions = pcr.Questions(jnp.zeros(3, int), three)
    surrogate, likelihood = pcr.linear_surrogate(graph), pcr.tolerance(0.5, 0.1)
    sampler = pcr.Smc(num_runs=2, num_particles=32, num_moves=1, num_last_moves=1)
    infer = partial(pcr.infer, key, surrogate, likelihood=likelihood, sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posteriors = infer(history)
        doubted = infer(history, likelihood=pcr.mixture(0.1))
    find = partial(pcr.find_recourse, score, truth, x, scale=ones)
    plan = find()
    report = pcr.evaluate(plan, truth, optimum=ones, key=key)
    belief = pcr.Belief(surrogate, room)
    mixed = infer(history, likelihood=pcr.mixture(0.1, 0.1))
    learnt = pcr.Belief(surrogate, room, mixed, plan.problem)
    model = DummyClassifier().fit(x, [0, 1, 1])
    one_history = jax.tree.map(lambda leaf: leaf[0], history)
    fitted = pcr.fit_scm(np.asarray(truth.sample(key, 30)), graph, linear=True)
    written = Path("posterior.nc")
    pcr.write_netcdf(posteriors, written)

    def session():
        return pcr.Session(key, plan.problem, surrogate, max_questions=2, draws=2)

    def told(answer, half_width):
        asked = session()
        asked.ask()
        asked.tell(answer, half_width)

    def in_scm(mechanism):
        mechanisms = (*truth.mechanisms[:2], mechanism)
        return pcr.SCM(graph, mechanisms, truth.noise, three).counterfactual(x, action)

    def forward(coefficients, parents, noise):
        return (coefficients * parents).sum(-1) + noise

    def inverse(coefficients, parents, value):
        return value - (coefficients * parents).sum(-1)

    # Valid arguments of every function that has a parameter of the name.
    usual = {"key": key, "x": x, "scm": truth, "truth": truth, "graph": graph, "score": score}
    usual |= {"scale": ones, "epsilon": 0.0, "history": history, "surrogate": surrogate}
    usual |= {"likelihood": likelihood, "sampler": sampler, "plan": plan}
    usual |= {"posteriors": posteriors, "idata": posteriors.to_arviz()}
    usual |= {"worlds": truth, "belief": belief, "problem": plan.problem}
    usual |= {"action": action, "questions": questions, "num_nodes": 3, "theta": jnp.zeros(3)}
    usual |= {"names": nodes, "norm": "l2", "sigma": 0.5, "beta": 0.1, "temperature": 0.05}
    usual |= {"low": -1.0, "high": 1.0, "threshold": 0.5, "rho": "mean", "answer": some}
    usual |= {"num_samples": 2, "num_users": 3, "epochs": 2, "hidden": (4,), "loc": three}
    usual |= {"nodes": nodes, "on_user": None, "reduce": "mean", "optimum": ones}
    usual |= {"weights": ones, "constraints": pcr.Constraints(), "noise_mean": (0.0, 0.0, 0.0)}
    usual |= {"design": pcr.RandomDesign(), "respondent": user, "num_queries": 2, "max_size": 2}

    def case(function, /, *more, known_as="", only=None, **given) -> Case:
        """With arguments beside the usual; what is right is as a rule or, a dict, in ``more``.

        A function in ``more`` is a use of what the function returns, for what is checked where it
        is used: constructors of pytrees. ``known_as`` is what messages may call the arguments;
        ``only`` names those that are tried, where not all are.
        """
        use = next((part for part in more if callable(part)), lambda result: result)
        other = next((part for part in more if isinstance(part, dict)), {})
        signature = inspect.signature(function)

        def call(**arguments):
            return use(function(**arguments))

        call.__signature__ = signature  # type: ignore[attr-defined]
        arguments = {n: v for n, v in (usual | given).items() if n in signature.parameters}
        tried = [name for name in arguments if name in (only or arguments)]
        right = {name: other.get(name, RIGHT.get(name, NOTHING)) for name in tried}
        return Case(call, arguments, right, known_as)

    def settings(value, *more) -> Case:
        """A constructor, called with the fields that ``value`` has."""
        names = [n for n in inspect.signature(type(value)).parameters if hasattr(value, n)]
        return case(type(value), *more, **{name: getattr(value, name) for name in names})

    flags = dict.fromkeys(("increase_only", "decrease_only"), jnp.zeros((3, 3), bool))
    listed = NAMES | {"list of text", "networkx"}
    switches = {"actionable": True, "immutable": False, "protected": False}
    first = one_history.answer
    counterfactual, draw = partial(truth.counterfactual, x), lambda scm: scm.sample(key, 2)
    answers = lambda wrong: pcr.SimulatedUser(truth, wrong=wrong).answer(key, questions, x)  # noqa: E731
    logs = lambda likelihood: likelihood.log_prob(jnp.zeros(0), jnp.nan_to_num(first), first)  # noqa: E731
    rate = {"num_train": 50, "learning_rate": 0.1, "max_draws": 1000}
    searched = {"cost": "l1", "intervention": "soft", "max_set_size": 3, "solver": "optimal"}
    slow = pcr.Algorithm1(num_outer=2)
    times = (3, 200)
    draws = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*times, *jnp.shape(leaf))), truth)
    likely = pcr.find_recourse(score, draws, x, scale=ones, level=0.9)
    counts = {n: ONE if isinstance(v, int) else POSITIVE for n, v in vars(pcr.Optimal()).items()}
    designs = {
        "InformationDesign": pcr.InformationDesign(num_candidates=4, num_truths=4),
        "ThompsonDesign": pcr.ThompsonDesign(),
        "DecisionDesign": pcr.DecisionDesign(num_candidates=4, num_truths=4),
    }
    found = {
        "Action": case(pcr.Action, counterfactual, value=some, hard=every, known_as="action"),
        "Action.soft": case(pcr.Action.soft, {"shift": NUMBERS | REAL | ANY_SHAPE}, shift=some),
        "Action.shift_node": case(
            pcr.Action.shift_node, {"node": COUNT | {"minus one"}, "shift": REAL}, node=0, shift=0.5
        ),
        "Action.do": case(
            pcr.Action.do, {"value": NUMBERS | REAL, "nodes": MASK}, value=some, nodes=every
        ),
        "Action.by": case(pcr.Action.by, {"x": NUMBERS, "hard": {"True"}}, shift=some, hard=True),
        "Action.empty": case(pcr.Action.empty),
        "Constraints": case(
            pcr.Constraints,
            lambda limits: find(constraints=limits),
            **{**flags, "actionable": every, "lower": x - 1, "upper": x + 1},
        ),
        "Constraints.shift_bounds": case(
            pcr.Constraints().shift_bounds, {"x": NUMBERS | NO_ROWS}, rows=pd.RangeIndex(3)
        ),
        "intervention_sets": case(pcr.intervention_sets),
        "Graph": case(pcr.Graph, parents=graph.parents),
        "Graph.from_edges": case(pcr.Graph.from_edges, nodes=list(nodes), edges=edges),
        "Graph.from_networkx": case(pcr.Graph.from_networkx, graph=nx.DiGraph(edges)),
        "Graph.fully_connected": case(pcr.Graph.fully_connected),
        "Graph.index": case(graph.index, {"node": COUNT}, node="X1"),
        "Mechanism": case(
            pcr.Mechanism, in_scm, coefficients=jnp.ones(2), function=truth.mechanisms[2].function
        ),
        "Invertible": case(
            pcr.Invertible,
            in_scm,
            {"forward": FUNCTION, "inverse": FUNCTION},
            **{"coefficients": jnp.ones(2), "forward": forward, "inverse": inverse},
        ),
        "Ordered": case(
            pcr.Ordered,
            in_scm,
            **{"coefficients": jnp.ones(2), "cuts": jnp.arange(2.0)},
            function=truth.mechanisms[2].function,
        ),
        "Categorical": case(pcr.Categorical, in_scm, coefficients=jnp.ones((2, 3))),
        "bounded": case(
            pcr.bounded,
            in_scm,
            {"low": REAL, "high": REAL - {"minus one"}},
            **{"coefficients": jnp.ones(2), "low": -1.0, "high": 1.0},
        ),
        "multiplicative": case(pcr.multiplicative, in_scm, coefficients=jnp.ones(2)),
        "location_scale": case(
            pcr.location_scale,
            in_scm,
            {"scale_coefficients": RIGHT["coefficients"], "scale": FUNCTION},
            **{"coefficients": jnp.ones(2), "scale_coefficients": jnp.ones(2)},
            scale=lambda coefficients, parents: jnp.exp((coefficients * parents).sum(-1)),
        ),
        "scenarios": case(pcr.scenarios, {"scm": ANY_SCM, "draws": ONE | NONE}, draws=2),
        "fit_scm": case(
            pcr.fit_scm,
            {"data": FEATURES, "features": NONE, "linear": {"True"}, "imputer": NONE},
            **{"data": np.asarray(truth.sample(key, 30)), "features": None},
            **{"linear": True, "imputer": None},
        ),
        "FittedSCM.scms": case(fitted.scms, draws=2),
        "FittedSCM.learned_prior": case(
            fitted.learned_prior, {"deviation": NON_NEGATIVE}, deviation=0.3
        ),
        "SCM": settings(truth, draw, {"noise": NOTHING, "unit": NONE | FEATURES}),
        "SCM.abduct": case(truth.abduct, {"x": FEATURES | NO_ROWS}),
        "SCM.predict": case(truth.predict, {"noise": FEATURES}, noise=x),
        "SCM.counterfactual": case(truth.counterfactual),
        "SCM.sample_noise": case(truth.sample_noise),
        "SCM.sample": case(truth.sample, num_samples=3),
        "linear_scm": case(
            pcr.linear_scm,
            draw,
            {"coefficients": NUMBERS | UNKNOWN, "noise": NONE},
            **{"coefficients": ones, "noise": [dist.Normal(0.0, 1.0)] * 3},
        ),
        "non_causal": case(pcr.non_causal, {"graph": GRAPH}),
        "inverted": case(pcr.inverted, {"scm": ANY_SCM}),
        "library.get": case(pcr.library.get, name="m1", known_as="scm"),
        "MLP": case(pcr.MLP, lambda module: module.init(key, x)),
        "Classifier": case(
            pcr.Classifier,
            lambda score: pcr.find_recourse(score, truth, x, scale=ones),
            **{"module": module, "params": module.init(key, x)},
        ),
        # Constant columns have no scale.
        "train_mlp": case(pcr.train_mlp, {"x": NOTHING}, y=jnp.array([0.0, 1.0, 1.0]), **rate),
        "with_threshold": case(pcr.with_threshold, {"threshold": INSIDE}),
        "outside_model": case(
            pcr.outside_model,
            {"model": FUNCTION, "threshold": NONE | REAL},
            **{"model": lambda rows: rows.sum(-1), "only": ("model", "threshold")},
        ),
        "outside_model, of classes": case(
            pcr.outside_model, model=model, favourable=1, only=("favourable", "threshold", "names")
        ),
        "sample_labels": case(pcr.sample_labels, {"x": NUMBERS}),
        "refused_population": case(
            pcr.refused_population, {"scm": ANY_SCM, "num_train": NOTHING}, **rate
        ),
        "History": case(
            pcr.History, infer, known_as="history", **{**vars(history), "answer": history.answer}
        ),
        "History.empty": case(pcr.History.empty, {"x": FEATURES | NO_ROWS}, max_queries=2),
        "tell": case(pcr.tell, history=room),
        "Questions": case(
            pcr.Questions,
            lambda asked: pcr.tell(room, asked, some),
            {"individual": NONE | {"array of bool"}},
            **{**vars(questions), "individual": jnp.zeros(3, bool)},
        ),
        "RandomDesign": case(
            pcr.RandomDesign,
            lambda design: design.ask(key, belief),
            {"high": REAL - {"minus one"} | {"10**30"}},
        ),
        "RandomDesign.ask": case(pcr.RandomDesign().ask),
        **{
            name: settings(
                design,
                lambda design: design.ask(key, learnt),
                {
                    **{"reach": POSITIVE, "individual": {"True"}, "level": INSIDE},
                    **{"num_candidates": ONE, "num_truths": ONE, "least_saving": PROBABILITY},
                },
            )
            for name, design in designs.items()
        },
        **{f"{name}.ask": case(design.ask, belief=learnt) for name, design in designs.items()},
        "DecisionDesign.outlook": case(pcr.DecisionDesign().outlook, belief=learnt),
        "SimulatedUser": case(
            pcr.SimulatedUser,
            lambda user: user.answer(key, questions, x),
            **{"error_rate": 0.1, "wrong": truth, "num_draws": 5, "noise": 0.1, "report": "all"},
            **{"relative_noise": 0.1, "rounding": 0.5, "dont_know": 2.0},
        ),
        "SimulatedUser.answer": case(user.answer),
        "Anchored": case(pcr.Anchored, answers, known_as="wrong", pull=0.35),
        "TooWeak": case(pcr.TooWeak, answers, known_as="wrong", factor=0.5),
        "Broad": case(pcr.Broad, answers, {"sd": POSITIVE | FEATURES}, known_as="wrong", sd=2.0),
        "sample_error_rates": case(pcr.sample_error_rates, mean=0.1, quarter=0.6),
        "population_of_scms": case(pcr.population_of_scms, {"scm": ANY_SCM}, sd=0.3),
        "elicit": case(
            pcr.elicit,
            {
                **{"history": NONE, "surrogate": NONE, "problem": NONE},
                "posteriors": NONE | FUNCTION,
            },
            **{"history": room, "posteriors": None},
        ),
        "pose": case(pcr.pose, digits=3, cost="l1", intervention="soft", max_set_size=3),
        "Real": case(
            pcr.Real,
            {
                "low": NONE | {"minus one", "zero", "rank 0", "1e-40", "decimal"},
                "high": NONE | POSITIVE | {"1e-40"},
                **{"step": NONE | POSITIVE, "unit": NONE | {"text", "number as text"}},
                **{"label": NONE | {"text", "number as text"}, "direction": NONE},
                **{name: {"True"} for name in switches},
            },
            **{"low": 0.0, "high": 0.75, "step": 0.5, "unit": None, "direction": None},
            **{"label": None, **switches},
        ),
        "Integer": case(
            pcr.Integer,
            {"low": NONE | {"minus one", "zero"}, "high": NONE | ONE | {"10**30"}, "step": LIMIT},
            **{"low": 0, "high": 1, "step": 1, "only": ("low", "high", "step")},
        ),
        "Levels": case(
            pcr.Levels, {"names": listed | {"array of bool"}}, names=["a", "b"], only=("names",)
        ),
        "Nominal": case(
            pcr.Nominal,
            {"names": listed, "forbidden": EMPTY},
            **{"names": ["a", "b"], "forbidden": [], "only": ("names", "forbidden")},
        ),
        "Task": case(
            pcr.Task,
            {
                **{"favourable": COUNT | NONE | {"True"}, "threshold": NONE | INSIDE},
                **{"graph": EMPTY, "scale": NONE, "forbidden": NONE | FUNCTION | EMPTY},
            },
            known_as="data",
            **{"model": model, "data": pd.DataFrame(x, columns=nodes), "graph": edges},
            **{"features": {"X1": pcr.Real(low=-2.0, high=2.0)}, "favourable": 1},
            **{"threshold": 0.5, "scale": {"X1": 1.0}, "forbidden": [{"X2": 1.0}]},
        ),
        "Session": case(
            pcr.Session,
            {"likelihood": NONE, "sampler": NONE, "path": PATH, "digits": ONE},
            **{"max_questions": 2, "draws": 2, "digits": 2, "path": None},
        ),
        "Session.tell": case(told, {"half_width": NONE | FEATURES}, half_width=some),
        "Session.from_json": case(
            pcr.Session.from_json,
            {"likelihood": NONE, "sampler": NONE, "path": PATH},
            **{"text": session().to_json(), "path": None, "likelihood": None, "sampler": None},
        ),
        "Tolerance": settings(likelihood, logs),
        "Relaxed": settings(pcr.relaxed(0.5, 0.1), logs),
        "Tolerance.log_prob": case(
            likelihood.log_prob,
            **{"unknowns": jnp.zeros(0), "expected": some, "only": ("expected", "answer")},
        ),
        "tolerance": case(pcr.tolerance, norm="each"),
        "mixture": case(
            pcr.mixture,
            {  # Numbers of nodes and edges are known where it is used.
                **{"error_rate": NONE | PROBABILITY, "broad": POSITIVE, "rarity": POSITIVE},
                "noise": NONE | POSITIVE | FEATURES | {"shape (7,)"},
                "wrong": NONE | FEATURES | {"raw key", "shape (7,)"},
            },
            **{"noise": three, "error_rate": 0.1, "broad": 2.0, "wrong": three},
            **{"noise_prior": (0.1, 1.0), "rarity": 9.0},
        ),
        "relaxed": case(pcr.relaxed, norm="each"),
        "Box": case(
            pcr.Box,
            lambda box: pcr.LinearSurrogate(graph, box, jnp.zeros(3)),
            {"low": NUMBERS | {"raw key"}, "high": NUMBERS},
            **{"low": jnp.full(3, -2.0), "high": jnp.full(3, 3.0)},
        ),
        "linear_surrogate": case(pcr.linear_surrogate, {"noise_mean": FEATURES | NONE}),
        "LinearSurrogate": case(
            pcr.LinearSurrogate,
            lambda made: made.expected(jnp.zeros(3), one_history.questions, x[0]),
            prior=surrogate.prior,
        ),
        "normal_prior": case(
            pcr.normal_prior,
            lambda prior: pcr.LinearSurrogate(graph, prior, jnp.zeros(3)),
            {"mean": NUMBERS | {"raw key"}, "sd": NUMBERS | {"raw key"}},
            **{"mean": three, "sd": ones},
        ),
        "NormalMixture": settings(
            pcr.normal_prior(three, ones),
            lambda prior: pcr.LinearSurrogate(graph, prior, jnp.zeros(3)),
            {"weights": FEATURES, "mean": NUMBERS},
        ),
        "basis_surrogate": case(
            pcr.basis_surrogate,
            {"num_functions": ONE, "products": {"True"}, "prior": NONE, "centre": FEATURES},
            **{"centre": three, "num_functions": 2, "products": False, "prior": None},
        ),
        "learned_prior": case(
            pcr.learned_prior,
            {"rows": FEATURES, "deviation": NON_NEGATIVE},
            **{"rows": truth.sample(key, 20), "deviation": 0.3},
        ),
        "refit_prior": case(pcr.refit_prior),
        "LinearSurrogate.scm": case(surrogate.scm),
        "LinearSurrogate.expected": case(
            surrogate.expected, questions=one_history.questions, x=x[0]
        ),
        "Ess": settings(pcr.Ess()),
        "Gibbs": settings(pcr.Gibbs(), {"num_walkers": ONE, "num_warmup": COUNT}),
        "Nuts": settings(pcr.Nuts()),
        "Smc": settings(pcr.Smc()),
        "infer": case(
            pcr.infer,
            {"on_user": NONE | FUNCTION | {"class"}},
            max_prior_draws=2**14,
        ),
        "exact_posterior": case(pcr.exact_posterior, num_draws=2**14),
        "numpyro_model": case(pcr.numpyro_model, history=one_history),
        "posterior_scms": case(pcr.posterior_scms),
        "diagnose": case(pcr.diagnose),
        "taught": case(pcr.taught),
        "conflicts": case(pcr.conflicts, posteriors=doubted),
        "ask_again": case(pcr.ask_again, {"user": COUNT}, posteriors=doubted, user=0),
        # Before files are written under whatever name.
        "read_netcdf": case(pcr.read_netcdf, path=written),
        "write_netcdf": case(
            pcr.write_netcdf, {"path": {"text", "number as text"}}, path=Path("written.nc")
        ),
        "Optimal": settings(pcr.Optimal(), counts),
        "Algorithm1": settings(pcr.Algorithm1()),
        "find_recourse": case(pcr.find_recourse, {"key": KEY | NONE}, digits=3, **searched),
        "find_recourse, paper": case(
            pcr.find_recourse,
            {"learning_rate": FEATURES | POSITIVE | NONE},
            **{"solver": slow, "learning_rate": three, "only": ("learning_rate", "epsilon")},
        ),
        "find_recourse, level": case(
            pcr.find_recourse,
            {"level": INSIDE | NONE},
            **{"worlds": draws, "level": 0.9, "only": ("level", "worlds")},
        ),
        "Chance": case(
            pcr.Chance,
            {"level": INSIDE, "gamma": POSITIVE | NONE, "ball": NONE},
            **{"level": 0.9, "gamma": 1.0, "searched": 100},
        ),
        "Plan.price_of_certainty": case(
            likely.price_of_certainty, {"levels": {"shape (7,)"}}, levels=[0.9]
        ),
        "reliability": case(
            pcr.reliability,
            {"num_bins": LIMIT, "stated": FEATURES, "realised": MASK},
            **{"stated": three, "realised": jnp.ones(3, bool), "num_bins": 2},
        ),
        "evaluate": case(pcr.evaluate, {"key": KEY | NONE, "problem": NONE}),
        "intervention_pattern": case(
            pcr.intervention_pattern, {"action": NOTHING}, users=jnp.ones(3, bool)
        ),
        "Report.cost_mean_common": case(report.cost_mean_common, others=[report]),
        "Report.regret_mean": case(report.regret_mean, reference=report),
        "Plan.to_frame": case(plan.to_frame, {"x": NONE}),
    }
    if find_spec("zeus"):
        found["Zeus"] = settings(pcr.Zeus(50, 100, 0.3, 1))
    return found


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
        names = [parameter, *case.known_as.split()]
        said = f"{type(error).__name__}: {error}"[:300]
        return {"class": judge(error, names), "said": said}
    return {"class": "legitimate" if value in case.right[parameter] else "wrong", "said": ""}


def work() -> None:
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

    def __init__(self, folder: str, command: list[str] | None = None):
        work = f"from {__name__} import work; work()"
        self.command = process(work) if command is None else command
        self.folder, self.process, self.ready = folder, None, set()
        cached = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        cached |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.environment = {**os.environ, **cached}

    def ask(self, *question) -> dict:
        """The answer, or that there was none."""
        if self.process is None:
            pipe, self.ready = subprocess.PIPE, set()
            self.process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, cwd=self.folder, env=self.environment
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


def measure(options):
    """Make the calls: how many are in each class, and those that are not clear."""
    rows, names = [], list(values())[:: 9 if options.quick else 1]
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(folder)
        try:
            known = worker.ask(None, None, None)
            for name, (parameters, _) in known.items():
                for parameter, value in product(parameters, names):
                    found = worker.call(name, parameter, value)
                    row = {"function": name, "parameter": parameter, "value": value}
                    rows.append(row | found)
                print(f"{name}: {len(parameters) * len(names)} calls", file=sys.stderr)
        finally:
            worker.end()
    tried = {(row["function"].split(",")[0], row["parameter"]) for row in rows}
    yield "values", names
    yield "counts", table(rows)
    yield (
        "untried",
        [
            f"{name}: {parameter}"
            for name, (_, beside) in known.items()
            for parameter in beside
            if "," not in name and (name, parameter) not in tried
        ],
    )
    others = [row for row in rows if row["class"] not in ("clear", "legitimate")]
    yield "neither_clear_nor_right", others
