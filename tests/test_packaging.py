import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pcr_jax

PACKAGE = Path(pcr_jax.__file__).parent


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", pcr_jax.__all__)
def test_every_public_name_is_documented(name):
    assert len(inspect.getdoc(getattr(pcr_jax, name)) or "") > 20
    # A dataclass without a docstring gets its signature for one.
    assert not inspect.getdoc(getattr(pcr_jax, name)).startswith(f"{name}(")


def test_public_names_are_listed_once():
    assert len(set(pcr_jax.__all__)) == len(pcr_jax.__all__)


def test_importing_the_package_imports_no_optional_package():
    code = "import sys, pcr_jax; print('zeus' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "False"


WITHOUT = """
import sys
from importlib import import_module

for name in ("arviz", "matplotlib", "networkx", "sklearn", "zeus"):
    sys.modules[name] = None
import jax
import pcr_jax as pcr

truth, key = pcr.library.m1(), jax.random.key(0)
design = pcr.RandomDesign(0.0, 1.0, individual=False)
asked = {"num_queries": 3, "design": design}
history = pcr.elicit(key, pcr.SimulatedUser(truth), jax.numpy.zeros((2, 3)), **asked)
posteriors = pcr.infer(key, pcr.linear_surrogate(truth.graph), history, pcr.tolerance(0.5, 0.4))
assert posteriors.scms().coefficients.shape == (2, 3)
for call in (
    posteriors.to_arviz,
    lambda: pcr.Graph.from_networkx(3),
    lambda: import_module("pcr_jax.plots"),
    lambda: import_module("pcr_jax.cli").command("reproduce"),
    pcr.Zeus,
    lambda: pcr.fit_scm(truth.sample(key, 30), truth.graph),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_without_the_extras_the_core_works_and_messages_name_them():
    found = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert not found.returncode, found.stderr
    named = re.findall(r"pip install 'pcr-jax\[(\w+)\]'", found.stdout)
    assert named == ["arviz", "networkx", "plots", "reproduce", "zeus", "fit"]


def test_no_module_imports_everything_of_another():
    sources = list(PACKAGE.rglob("*.py"))
    assert len(sources) > 10
    assert not [s for s in sources if re.search(r"import\s+\*", s.read_text())]


def test_the_readme_has_the_one_test_command_that_ci_looks_for():
    root = PACKAGE.parent
    (pattern,) = re.findall(r"grep '(.*)' README.md", (root / ".ci" / "run").read_text())
    assert len(re.findall(pattern, (root / "README.md").read_text(), re.MULTILINE)) == 1
