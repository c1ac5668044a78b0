"""Linear SCMs, the paper's surrogate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.graph import Graph
from pcr_jax.history import Questions
from pcr_jax.scm import SCM, linear_scm
from pcr_jax.surrogates.priors import Box, Prior
from pcr_jax.surrogates.regression import padded_parents

# Nodes up to which answers are computed number by number.
_FEW = 8


def edge_units(graph: Graph, scale: Array | None) -> Array | float:
    """What one unit of each edge's effect is in natural units; shape (num_edges,)."""
    if scale is None:
        return 1.0
    return _ratio(jnp.asarray(scale), *np.array(graph.edges).T)


@jax.jit
def _ratio(scale: Array, parents: Array, children: Array) -> Array:
    return scale[children] / scale[parents]


def set_units(surrogate: Any) -> None:
    """Check what a surrogate knows of each node's unit and mean, and keep it as host arrays."""
    shape = (*surrogate.prior.batch_shape, surrogate.graph.num_nodes)
    for name in ("noise_mean", "scale", "centre"):
        if (value := getattr(surrogate, name)) is None:
            continue
        _checks.unnamed(value, name)
        value = _checks.on_host(value, name, shape)
        if name == "scale":
            _checks.positive(value, name)
        object.__setattr__(surrogate, name, value)


@pytree(static=("graph",))
class LinearSurrogate:
    """Linear SCMs on a DAG with standard normal noise (Eq. 3 of the paper). See `linear_surrogate`.

    Parameters
    ----------
    graph : Graph
        With at least one edge.
    prior : Prior
        Of a coefficient for every edge, in units of ``scale``.
    noise_mean : Array
        Shape (d,), natural units: E[U] in the expected answers to population questions.
    scale : Array, optional
        Shape (d,): the unit of each node. None, the default: natural units.
    centre : Array, optional
        Shape (d,), natural units: E[X] of the population. Where it is known, it takes the place
        of ``noise_mean``, of which nothing need then be assumed.
    """

    graph: Graph
    prior: Prior
    noise_mean: Array
    scale: Array | None = None
    centre: Array | None = None

    multi_affine = True
    curved = False

    def __post_init__(self):
        _checks.instance(self.graph, Graph, "graph")
        if not self.graph.edges:
            raise ValueError("Expected a graph with at least one edge; got none to infer.")
        _checks.capable(self.prior, Prior, "prior", "Box(low, high)")
        if self.prior.box is not None and np.shape(self.prior.box)[-1] != len(self.names):
            raise ValueError(
                f"Expected a prior of {len(self.names)} coefficients, one per edge; "
                f"got one of {np.shape(self.prior.box)[-1]}."
            )
        set_units(self)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per edge, such as ``"savings <- income"``."""
        return self.graph.edge_names

    def standardised(self) -> LinearSurrogate:
        """The same family for features in units of ``scale``."""
        if self.scale is None:
            return self
        centre = None if self.centre is None else self.centre / self.scale
        return LinearSurrogate(self.graph, self.prior, self.noise_mean / self.scale, None, centre)

    def scm(self, theta: Array) -> SCM:
        """The SCM with coefficients ``theta`` (num_coefficients,); `jax.vmap` it for a batch."""
        theta = _checks.array(theta, "theta", (len(self.names),))
        return linear_scm(self.graph, theta * edge_units(self.graph, self.scale))

    def expected(self, theta: Array, questions: Questions, x: Array) -> Array:
        """The answers that ``theta`` leads to be expected; shape (T, d), natural units.

        To a population question E[X] under the soft intervention, exactly: prediction from E[U].
        To an individual one the counterfactual of ``x``.

        Parameters
        ----------
        theta : Array
            Shape (num_coefficients,).
        questions : Questions
            Of shape (T,).
        x : Array
            Shape (d,), natural units: the features of the person who is asked.
        """
        _checks.instance(questions, Questions, "questions")
        node = _checks.array(questions.node, "questions.node", ("T",), kind=int)
        shift = _checks.finite(questions.shift, "questions.shift", node.shape)
        individual = _checks.array(
            questions.individual, "questions.individual", node.shape, kind=bool
        )
        x = _checks.finite(x, "x", (self.graph.num_nodes,), names=self.graph.nodes)
        scm, (start, noise) = self.scm(theta), self.about(individual, x)
        shifted = node[:, None] == np.arange(self.graph.num_nodes)[None]
        noise = noise + jnp.where(shifted, shift[:, None], 0.0)
        # Question by question, and number by number where they are few: XLA fuses that, over a
        # batch of thetas, into one loop.
        each = zip(jnp.unstack(start), jnp.unstack(noise), strict=True)
        few = self.graph.num_nodes <= _FEW

        def added(a, b):
            return jnp.stack([*map(jnp.add, jnp.unstack(a), jnp.unstack(b))]) if few else a + b

        return jnp.stack([added(features, scm.predict(u)) for features, u in each])

    def about(self, individual: Array, x: Array) -> tuple[Array, Array]:
        """What questions (T,) begin from, whatever theta: both (T, d), natural units.

        Features that an effect is added to, and noise that is passed on with it: a person's own
        features, or the population's mean, and none; or 0 and the mean of the noise.
        """
        own, x = jnp.asarray(individual)[:, None], jnp.asarray(x)[None]
        mean = jnp.asarray(self.noise_mean)[None]
        if self.centre is not None:
            start = jnp.where(own, x, jnp.asarray(self.centre)[None])
            return start, jnp.zeros_like(start)
        return jnp.where(own, x, 0.0), jnp.where(own, 0.0, mean)

    @property
    def blocks(self) -> np.ndarray:
        """Which coefficient each parent's is, see `Regression`; (d, P)."""
        parents = padded_parents(self.graph)
        blocks = np.full(parents.shape, -1)
        blocks[parents >= 0] = np.arange(len(self.names))
        return blocks

    def features(self, j: Array | int, values: Array) -> Array:
        """The parents of node j, see `Regression`; (..., P)."""
        parents = jnp.asarray(padded_parents(self.graph))[j]
        return jnp.where(parents >= 0, jnp.take(values, parents, axis=-1), 0.0)

    def slopes(self, j: Array | int, weights: Array, values: Array) -> Array:
        """The coefficients of node j's parents, see `Regression`; (P,)."""
        return weights

    def sizes(self, theta: Array, questions: Questions, x: Array) -> Array:
        """The terms whose sum `expected` is, in absolute value, added; at ``theta`` >= 0; (T, d).

        What rounding can do to an expected answer is in proportion to it.
        """
        scm = self.scm(theta)
        start, noise = map(jnp.abs, self.about(questions.individual, x))
        shifted = questions.node[:, None] == np.arange(self.graph.num_nodes)[None]
        shift = jnp.where(shifted, jnp.abs(questions.shift)[:, None], 0.0)
        return start + scm.predict(noise + shift)


def linear_surrogate(
    graph: Graph,
    *,
    low=-1.0,
    high=1.0,
    prior: Prior | None = None,
    noise_mean=None,
    scale=None,
    centre=None,
) -> LinearSurrogate:
    """The paper's surrogate (Eq. 3) with the prior box of its section 5.

    Parameters
    ----------
    graph : Graph
        The true graph, which the paper assumes known.
    low, high : float or sequence of float
        The box of every coefficient, or of each edge's, in units of ``scale``. Edges of which both
        are the same are fixed there.
    prior : Prior, optional
        Another than the box.
    noise_mean : sequence of float, optional
        E[U] in the expected answers to population questions, natural units, one per node; 0 by
        default, as U ~ N(0, 1) says.
    scale : sequence of float, optional
        One unit per node, such as the population's standard deviations, in which coefficients,
        priors and likelihoods count. Natural units by default.
    centre : sequence of float, optional
        E[X] of the population, natural units, one per node, which makes ``noise_mean`` idle.

    Raises
    ------
    TypeError
        If ``graph`` is no `Graph`, or something else is no number.
    ValueError
        If the graph has no edge, or only fixed ones, ``low > high``, a sequence has another length,
        or a unit is not positive.
    """
    _checks.instance(graph, Graph, "graph")
    if prior is None:
        # In JAX's precision: 1e300 is infinite there, and 1 and 1 + 1e-9 may be the same.
        ones = np.ones(len(graph.edges), jnp.result_type(float))
        ends = []
        for name, value in (("low", low), ("high", high)):
            if np.ndim(value) == 0:
                _checks.number(value, name)
            value = _checks.on_host(value, name)
            ends.append(_checks.on_host(value, name, value.shape and ones.shape) * ones)
        prior = Box(*ends)
    mean: Any = np.zeros(graph.num_nodes) if noise_mean is None else noise_mean
    return LinearSurrogate(graph, prior, mean, scale, centre)
