"""The harness of malformed calls: what it tries, and how it judges."""

import contextlib
import inspect
import sys

import numpy as np
import pytest

import pcr_jax as pcr
from benchmarks.quality import malformed
from benchmarks.quality.malformed import Case, Worker, outcome

# Values that only the package makes, and NumPy's own words about wrong ones are to be expected.
MADE = {"PlanStatus", "PosteriorStatus", "PosteriorWarning", "Population", "ExactPosterior"}
MADE |= {"Report", "Plan", "Posteriors", "Belief", "Outlook", "Samples", "Target"}
MADE |= {"TaskPlan", "TaskSession", "FittedSCM"}
MADE |= {"BasisSurrogate", "Mixture"}  # by functions, which are tried
MADE |= {"Likelihood", "Prior", "Sampler", "Surrogate", "Wrong"}  # contracts


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("cases")):  # where a posterior is written
        return malformed.cases()


@pytest.mark.slow
def test_every_public_function_and_constructor_is_tried(cases):
    tried = {name.split(",")[0] for name in cases}
    public = {name for name in pcr.__all__ if callable(getattr(pcr, name))}
    assert public - MADE <= tried
    for name in MADE - {"PlanStatus", "PosteriorStatus", "PosteriorWarning"}:
        assert name not in tried
    assert not {name for name in tried if not hasattr(pcr, name.split(".")[0])}


@pytest.mark.slow
def test_every_value_can_be_made_for_every_argument(cases):
    for case in cases.values():
        assert set(case.right) <= set(inspect.signature(case.function).parameters)
        assert set().union(*case.right.values()) <= set(malformed.values())
        for parameter in case.parameters:
            for make in malformed.values().values():
                make(case.arguments[parameter])


def _case(function, right=frozenset()):
    return Case(function, {"width": 1.0}, {"width": set(right)})


def test_an_exception_is_clear_only_if_the_package_raises_it_and_names_the_argument():
    def of(function):
        return outcome(_case(function), "width", "text")

    assert of(lambda width: pcr._checks.count(width, "width"))["class"] == "clear"
    assert of(lambda width: pcr._checks.count(width, "height"))["class"] == "unclear"
    assert of(lambda width: pcr.Action.soft(width))["class"] == "unclear"  # NumPy's words
    assert of(lambda width: width.shape)["class"] == "unclear"

    def strange(width):
        raise ValueError(f"Expected width > 0; got {width}.")

    assert of(strange)["class"] == "unclear"  # not the package's


def test_what_is_accepted_is_right_or_wrong():
    case = _case(lambda width: None, {"one"})
    assert outcome(case, "width", "one")["class"] == "legitimate"
    assert outcome(case, "width", "text")["class"] == "wrong"


def test_values_have_the_shape_of_the_argument():
    values = malformed.values()
    x = np.zeros((4, 2))
    assert values["array of NaN"](x).shape == (4, 2)
    assert values["array of integers"](x).dtype.kind == "i"
    assert values["named"](x).shape == (4, 2)
    assert values["nullable"](x[0]).shape == (2,)


WORKER = """
import json, sys
for line in sys.stdin:
    name, parameter, value = json.loads(line)
    if value == "hang":
        import signal, os
        os.kill(os.getpid(), signal.SIGPROF)
    if value == "crash":
        import os
        os.abort()
    print(json.dumps({"class": "legitimate"}), flush=True)
"""


def test_a_hang_and_a_crash_are_told_apart_and_the_next_call_is_made(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    worker = Worker(str(tmp_path), [sys.executable, str(script)])
    found = [worker.call("f", "x", value)["class"] for value in ("fine", "hang", "crash", "fine")]
    worker.end()
    assert found == ["legitimate", "hang", "crash", "legitimate"]
