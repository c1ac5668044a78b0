"""Mechanisms that are sums of numbers times features of their parents.

What the sampler ``gibbs`` asks for: given all other mechanisms, one whose features are known is a
regression.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

import numpy as np
from jax import Array

from pcr_jax.graph import Graph
from pcr_jax.surrogates.base import Surrogate


class Regression(Surrogate, Protocol):
    """A surrogate with ``X_j := sum_m w_jm feature_jm(Pa_j) + U_j``; everything in its scale.

    Attributes
    ----------
    blocks : array of int
        Shape (d, M): which of the k numbers each weight w_jm is; -1 where there is none.
    curved : bool
        Whether a feature is anything but a parent itself.
    noise_mean, centre : Array
        As of `LinearSurrogate`.
    """

    noise_mean: Array
    centre: Array | None
    curved: bool

    @property
    def blocks(self) -> np.ndarray:
        """Which of the k numbers each weight is."""

    def features(self, j: Array | int, values: Array) -> Array:
        """Node j's features (..., M) at ``values`` (..., d) of all nodes; 0 where there is none.

        First come the parents themselves, padded as `padded_parents`, up to a constant each.
        """

    def slopes(self, j: Array | int, weights: Array, values: Array) -> Array:
        """Derivatives of node j's sum by its parents, padded as `padded_parents`; (..., P).

        ``weights`` (M,); leading axes may be missing where they do not depend on ``values``.
        """


def is_regression(surrogate: Any) -> TypeGuard[Regression]:
    """Whether it is a `Regression`."""
    return hasattr(surrogate, "features")


def padded_parents(graph: Graph) -> np.ndarray:
    """Each node's parents, -1 where there are no more; (d, P)."""
    most = max(map(len, graph.parents))
    rows = [list(parents) + [-1] * (most - len(parents)) for parents in graph.parents]
    return np.array(rows, int).reshape(graph.num_nodes, most)
