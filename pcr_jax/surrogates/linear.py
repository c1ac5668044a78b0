"""Linear SCMs, the paper's surrogate."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.graph import Graph
from pcr_jax.history import Questions
from pcr_jax.scm import SCM, linear_scm
from pcr_jax.surrogates.priors import Box, Prior


def edge_units(graph: Graph, scale: Array | None) -> Array | float:
    """What one unit of each edge's effect is in natural units; shape (num_edges,)."""
    if scale is None:
        return 1.0
    ends = np.array([(graph.index(child), graph.index(parent)) for parent, child in graph.edges])
    scale = jnp.asarray(scale)
    return scale[ends[:, 0]] / scale[ends[:, 1]]


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
    def multi_affine(self) -> bool:
        """Whether `expected` is bounded by what is known of E[U], see `Surrogate`."""
        return self.centre is None

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
        scm, mean = self.scm(theta), jnp.asarray(self.noise_mean)
        if self.centre is not None:
            mean = scm.abduct(jnp.asarray(self.centre))
        own = scm.abduct(_checks.finite(x, "x", mean.shape, names=self.graph.nodes))
        individual = _checks.array(
            questions.individual, "questions.individual", node.shape, kind=bool
        )
        shift_node = partial(Action.shift_node, num_nodes=self.graph.num_nodes)
        actions = jax.vmap(shift_node)(node, shift)
        # Question by question: XLA fuses that, over a batch of thetas, into one loop.
        each = zip(*map(jnp.unstack, (individual, actions.value, actions.hard)), strict=True)
        return jnp.stack(
            [scm.predict(jnp.where(i, own, mean), Action(value, hard)) for i, value, hard in each]
        )

    def sizes(self, theta: Array, questions: Questions, x: Array) -> Array:
        """The terms whose sum `expected` is, in absolute value, added; at ``theta`` >= 0; (T, d).

        What rounding can do to an expected answer is in proportion to it.
        """
        scm, size = self.scm(theta), jnp.abs(x)
        passed_on = 2 * size - scm.abduct(size)
        mean = jnp.abs(jnp.asarray(self.noise_mean))

        def one(node, shift, individual):
            action = Action.shift_node(node, jnp.abs(shift), self.graph.num_nodes)
            return scm.predict(jnp.where(individual, passed_on, mean), action)

        return jax.vmap(one)(questions.node, questions.shift, questions.individual)


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
        The box of every coefficient, or of each edge's, in units of ``scale``.
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
        If the graph has no edge, ``low >= high``, a sequence has another length, or a unit is not
        positive.
    """
    _checks.instance(graph, Graph, "graph")
    if prior is None:
        # In JAX's precision: 1e300 is infinite there, and 1 and 1 + 1e-9 may be the same.
        ones = np.ones(len(graph.edges), jnp.result_type(float))
        ends = []
        for name, value in (("low", low), ("high", high)):
            value = _checks.on_host(value, name)
            ends.append(_checks.on_host(value, name, value.shape and ones.shape) * ones)
        prior = Box(*ends)
    mean: Any = np.zeros(graph.num_nodes) if noise_mean is None else noise_mean
    return LinearSurrogate(graph, prior, mean, scale, centre)
