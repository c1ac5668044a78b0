"""A surrogate and what it lacks, to be held against the surrogate itself.

Continuous model expansion (Gelman et al., "Bayesian Data Analysis", ch. 7): every mechanism may
also follow the parents of its node's parents, by edges that the graph lacks, and squares of all.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.graph import Graph
from pcr_jax.history import Questions
from pcr_jax.surrogates.basis import bent_square
from pcr_jax.surrogates.regression import Regression, padded_parents

# Standard deviations of the weights of edges and squares that the surrogate lacks; next to none.
_EDGE, _SQUARE, _NONE = 1.0, 0.3, 1e-3


@pytree()
class Normals:
    """As a `NormalMixture` whose mechanisms are its blocks."""

    weights: Array
    mean: Array
    factor: Array

    box = None


@pytree()
class Expanded:
    """A `Regression`, but that its parents are not first among the features. See `expanded`."""

    surrogate: Any
    prior: Normals

    curved = True

    @property
    def graph(self) -> Graph:
        """The surrogate's, with edges from the parents of parents."""
        return _with_grandparents(self.surrogate.graph)

    @property
    def noise_mean(self) -> Array:
        """The surrogate's."""
        return self.surrogate.noise_mean

    @property
    def centre(self) -> Array | None:
        """The surrogate's."""
        return self.surrogate.centre

    @property
    def blocks(self) -> np.ndarray:
        """Which number each weight is, the surrogate's own first; (d, M)."""
        return _blocks(self.surrogate)

    def expected(self, theta: Array, questions: Questions, x: Array) -> Array:
        """What the surrogate's own numbers lead to be expected."""
        return self.surrogate.expected(theta[: len(self.surrogate.names)], questions, x)

    def features(self, j: Array | int, values: Array) -> Array:
        """Node j's features: the surrogate's, then lines and squares; (..., M)."""
        parents = jnp.asarray(padded_parents(self.graph))[j]
        centre = self.noise_mean if self.centre is None else self.centre
        at = jnp.take(values, parents, axis=-1)
        squares = bent_square(at - jnp.asarray(centre)[parents])
        own = self.surrogate.features(j, values)
        features = jnp.concatenate([own, at, squares], -1)
        return jnp.where(jnp.asarray(self.blocks >= 0)[j], features, 0.0)

    def slopes(self, j: Array | int, weights: Array, values: Array) -> Array:
        """Derivatives of node j's mechanism by its parents; (..., P)."""
        parents = jnp.asarray(padded_parents(self.graph))[j]
        slopes = jax.grad(lambda values: jnp.sum(weights * self.features(j, values)))(values)
        return jnp.where(parents >= 0, jnp.take(slopes, parents, axis=-1), 0.0)


def _with_grandparents(graph: Graph) -> Graph:
    parents = graph.parents
    more = (sorted({*pa, *(g for p in pa for g in parents[p])}) for pa in parents)
    return Graph(graph.nodes, tuple(map(tuple, more)))


def _blocks(surrogate: Regression) -> np.ndarray:
    """See `Expanded`; numbers of lines and squares come node by node."""
    all_parents, own = padded_parents(_with_grandparents(surrogate.graph)), surrogate.blocks
    lacking = [
        [p >= 0 and p not in parents for p in row]
        for row, parents in zip(all_parents, surrogate.graph.parents, strict=True)
    ]
    there = np.concatenate([np.array(lacking), all_parents >= 0], 1)
    numbers = len(surrogate.names) + np.cumsum(there).reshape(there.shape) - 1
    return np.concatenate([own, np.where(there, numbers, -1)], 1)


def expanded(surrogate: Any, share: Array) -> Expanded:
    """The surrogate with what it lacks, in its scale.

    Parameters
    ----------
    surrogate : Regression
        Without a scale, of one user. Of a box, the moments are its prior's.
    share : Array
        Shape (): of the standard deviations of what is added. 0: next to nothing is.
    """
    blocks, k, prior = _blocks(surrogate), len(surrogate.names), surrogate.prior
    num_own = surrogate.blocks.shape[1]
    num = blocks.max() + 1 - k
    is_square = np.zeros(num, bool)
    num_parents = (blocks.shape[1] - num_own) // 2
    squares = blocks[:, num_own + num_parents :]
    is_square[squares[squares >= 0] - k] = True
    sd = jnp.maximum(share * np.where(is_square, _SQUARE, _EDGE), _NONE)
    if prior.box is not None:
        low, high = jnp.asarray(prior.box)
        own = jnp.maximum((high - low) / 12**0.5, _NONE)
        weights, mean, factor = jnp.ones(1), ((low + high) / 2)[None], jnp.diag(own)[None]
    else:
        weights, mean, factor = map(jnp.asarray, (prior.weights, prior.mean, prior.factor))
    mean = jnp.pad(mean, ((0, 0), (0, num)))
    whole = jnp.pad(factor, ((0, 0), (0, num), (0, num)))
    return Expanded(surrogate, Normals(weights, mean, whole.at[:, k:, k:].set(jnp.diag(sd))))
