"""Other people's samplers on one user's posterior, with likelihoods in NumPy.

Each is honest in its way: zeus as the paper and its released code use it, a likelihood of one theta
at a time; zeus and emcee with all walkers evaluated at once; and both run long enough for the
accuracy of the library's own samplers.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np

from benchmarks import plain


@dataclass(frozen=True)
class Peer:
    """A sampler with its settings; ``num_ensembles`` are run one after the other."""

    package: str
    vectorised: bool
    num_walkers: int = 50
    num_steps: int = 100
    keep: float = 0.3
    num_ensembles: int = 1

    @property
    def installed(self) -> bool:
        """Whether its package is."""
        return find_spec(self.package) is not None


PEERS = {
    "zeus, scalar NumPy (the paper's setting)": Peer("zeus", vectorised=False),
    "zeus, vectorised NumPy (the paper's setting)": Peer("zeus", vectorised=True),
    "zeus, vectorised NumPy": Peer("zeus", vectorised=True, keep=0.8, num_ensembles=2),
    "emcee, vectorised NumPy": Peer(
        "emcee", vectorised=True, num_steps=1000, keep=0.8, num_ensembles=2
    ),
}


def starting_points(rng: np.random.Generator, density: Callable, count: int) -> np.ndarray | None:
    """The first ``count`` prior draws of positive density; None after 200,000 draws."""
    found: list[np.ndarray] = []
    for _ in range(200):
        draws = rng.uniform(-1, 1, (1000, 3))
        found.extend(draws[np.isfinite(density(draws))])
        if len(found) >= count:
            return np.array(found[:count])
    return None


def sample(peer: Peer, seed: int, node, shift, answer, sigma: float, beta: float):
    """One user's draws, shape (chain, step, walker, 3); None where a walker cannot start or go on.

    Parameters
    ----------
    node, shift : array
        Shape (T,).
    answer : array
        Shape (T, 3).
    """
    user = {"node": node, "shift": shift, "answer": answer, "sigma": sigma, "beta": beta}
    many = partial(plain.log_densities, **user)
    rng = np.random.default_rng(seed)
    chains = []
    for ensemble in range(peer.num_ensembles):
        starts = starting_points(rng, many, peer.num_walkers)
        if starts is None:
            return None
        density = many if peer.vectorised else partial(plain.log_density, **user)
        try:
            chain = _run(peer, starts, density, seed + ensemble)
        except RuntimeError:  # zeus gives up on some
            return None
        chains.append(chain[-round(peer.keep * peer.num_steps) :])
    return np.stack(chains)


def _run(peer: Peer, starts: np.ndarray, density: Callable, seed: int) -> np.ndarray:
    """All steps of one ensemble, shape (step, walker, 3)."""
    settings = (peer.num_walkers, 3, density)
    np.random.seed(seed)  # noqa: NPY002 (both draw from the global generator)
    if peer.package == "emcee":
        import emcee

        sampler = emcee.EnsembleSampler(*settings, vectorize=peer.vectorised)
        sampler.run_mcmc(starts, peer.num_steps)
        return sampler.get_chain()
    import random

    import zeus

    random.seed(seed)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        sampler = zeus.EnsembleSampler(*settings, vectorize=peer.vectorised, verbose=False)
        sampler.run_mcmc(starts, peer.num_steps, progress=False)
    finally:
        root.handlers[:], root.level = handlers, level
    return sampler.get_chain()
