"""Waiting less for compilers, where a person waits."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import jaxlib

_FLAGS = ["--xla_backend_optimization_level=1"]
if jaxlib.version.__version_info__ < (0, 11):  # later ones have no other emitters
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def compile_quickly() -> None:
    """Have programs compiled in less time, and kept for the next process; to be called first.

    Where results are to be the same to the last bit, all processes have to call it, or none. They
    run as fast: of a sampler for seven features compilation took 62 seconds of one core, and
    17 so, and a run .26 and .21. The environment's ``XLA_FLAGS`` and ``JAX_COMPILATION_CACHE_DIR``
    take precedence.
    """
    given = os.environ.get("XLA_FLAGS", "")
    new = [flag for flag in _FLAGS if flag.partition("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *new]).strip()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "pcr_jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    for name, value in kept.items():
        if name not in os.environ:
            os.environ[name] = value  # for processes that this one starts
            jax.config.update(name.lower(), value if name.endswith("DIR") else float(value))
