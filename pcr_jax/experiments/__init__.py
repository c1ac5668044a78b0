"""The paper's experiment: configuration in, tables and figures out."""

from pcr_jax.experiments.protocol import PAPER, PROTOCOLS, RELEASED, Protocol, quick
from pcr_jax.experiments.run import OutputError, run

__all__ = ["PAPER", "PROTOCOLS", "RELEASED", "OutputError", "Protocol", "quick", "run"]
