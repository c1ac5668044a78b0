"""How the package is cut: who may import whom."""

import ast
from pathlib import Path

import pytest

import pcr_jax

ROOT = Path(pcr_jax.__file__).parent
FILES = {path.relative_to(ROOT.parent).with_suffix(""): path for path in ROOT.rglob("*.py")}

# What is in a line may import what is above; packages of one line do not import each other.
FLOORS = [
    ["_checks", "_extras", "_files", "_nans", "_stop", "_pytree", "batching"],
    ["graph", "actions", "features"],
    ["mechanisms"],
    ["scm"],
    ["library", "history", "scores"],
    ["surrogates", "classifiers"],
    ["likelihoods"],
    ["fitting", "population", "elicitation", "inference", "recourse"],
    ["evaluation", "session_json", "wording"],
    ["session"],
    ["task"],
    ["plots", "frontends"],
    ["experiments"],
    ["cli"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
ALONE = {
    "arviz": "pcr_jax/inference/arviz_data",
    "zeus": "pcr_jax/inference/samplers/zeus",
    "blackjax": "pcr_jax/inference/samplers/smc",
}


def imported(path):
    """The modules that a file imports, wherever it does; not those for annotations alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "pcr_jax":
                yield from (f"pcr_jax.{name.name}" for name in node.names)
            else:
                yield node.module


def part(module):
    """What a module of ours belongs to, such as ``inference``."""
    return module.split(".")[1]


@pytest.mark.parametrize("name", list(map(str, FILES)))
def test_imports_point_down(name):
    if name.count("/") == 1 and name.endswith("__init__"):
        return
    own = part(name.replace("/", "."))
    for module in imported(FILES[Path(name)]):
        if module.startswith("pcr_jax.") and part(module) != own:
            assert FLOOR[part(module)] < FLOOR[own], f"{name} imports {module}"


def test_nothing_is_defined_in_an_init():
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for name, path in FILES.items():
        if name.name == "__init__":
            defined = [
                ast.unparse(node)[:60]
                for node in ast.parse(path.read_text()).body
                if isinstance(node, kinds) and not ast.unparse(node).startswith("__all__")
            ]
            assert not defined, f"{name}: {defined}"


@pytest.mark.parametrize("package", list(ALONE))
def test_one_file_alone_imports(package):
    who = [
        str(name)
        for name, path in FILES.items()
        if any(module.split(".")[0] == package for module in imported(path))
    ]
    assert who == [ALONE[package]]


def test_a_score_needs_neither_flax_nor_optax():
    modules = {module.split(".")[0] for module in imported(ROOT / "scores.py")}
    assert not modules & {"flax", "optax"}
