"""What several test modules share."""

from pathlib import Path

import hypothesis
import jax
import pytest

# The same examples in every run. Few, as each DAG compiles anew; and no deadline, for that reason.
hypothesis.settings.register_profile(
    "pcr", max_examples=20, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("pcr")


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Free each module's compiled programs: of all together a process has too many memory maps."""
    yield
    jax.clear_caches()


@pytest.fixture
def shared() -> Path:
    """The folder of reference results beside the checkout; skips where there is none."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"no reference results: {path} does not exist")
    return path
