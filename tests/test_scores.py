"""What a score is needs no network library; see `test_classifiers` for scores at work."""

import ast
import inspect

from pcr_jax import scores


def test_what_a_score_is_imports_no_network_and_no_table():
    tree = ast.parse(inspect.getsource(scores))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    assert {"jax", "numpy"} <= modules
    assert not {module.split(".")[0] for module in modules} & {"flax", "optax", "pandas"}
    assert "pcr_jax.classifiers" not in modules
