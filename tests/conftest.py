"""What several test modules share."""

# ruff: noqa: E402

import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

# Programs that one process of the run has compiled serve the others; set before JAX is imported.
_PROGRAMS = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="pcr-jax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import pytest

# The same examples in every run. Few, as each DAG compiles anew; and no deadline, for that reason.
hypothesis.settings.register_profile(
    "pcr", max_examples=10, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("pcr")

# Tracing makes objects by the million, of which next to none are garbage.
gc.disable()
# Compiled programs take several each, of 65,530 that a process may have, and a module some 10,000.
_MAPS = 20_000
# Programs that are compiled in half the time and run slower.
_QUICKLY = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # later ones have no such flag
    _QUICKLY += " --xla_cpu_use_fusion_emitters=false"


def pytest_configure(config):
    """Quick tests spend most of their time on compiling, slow ones on running."""
    if "not slow" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", _QUICKLY)


def pytest_unconfigure():
    """Leave nothing behind."""
    if _PROGRAMS:
        shutil.rmtree(_PROGRAMS, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """Collect garbage once a module, and free compiled programs before there are too many."""
    yield
    gc.collect()
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > _MAPS:
        jax.clear_caches()


@pytest.fixture
def shared() -> Path:
    """The folder of reference results beside the checkout; skips where there is none."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"no reference results: {path} does not exist")
    return path
