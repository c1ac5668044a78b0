"""The family of SCMs among which a user's own is sought, with its prior."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action
from pcr_jax.scm import SCM, Graph, linear_scm


@dataclass(frozen=True)
class LinearSurrogate:
    """Linear SCMs on a DAG with standard normal noise and a box prior (Eq. 3 of the paper).

    Hashable, so that compiled functions take it as a static argument. See `linear_surrogate`.
    """

    graph: Graph
    low: float
    high: float
    noise_mean: tuple[float, ...]

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """One name per edge, such as ``"savings <- income"``."""
        return self.graph.edge_names

    @property
    def num_coefficients(self) -> int:
        """One per edge of the graph."""
        return len(self.graph.edges)

    @property
    def prior(self) -> dist.Distribution:
        """Uniform on ``[low, high]`` for each coefficient; event shape (num_coefficients,)."""
        box = dist.Uniform(self.low, self.high)
        return box.expand([self.num_coefficients]).to_event(1)

    def log_prior(self, theta: Array) -> Array:
        """Log density of `prior` at ``theta`` (num_coefficients,), -inf outside the box; ()."""
        inside = [(self.low <= t) & (t <= self.high) for t in jnp.unstack(theta)]
        log_volume = self.num_coefficients * math.log(self.high - self.low)
        return jnp.where(reduce(jnp.logical_and, inside), -log_volume, -jnp.inf)

    def quantile(self, unit: Array) -> Array:
        """The prior draw of rank ``unit`` (..., num_coefficients) in the unit cube."""
        return self.low + (self.high - self.low) * unit

    def scm(self, theta: Array) -> SCM:
        """The SCM with coefficients ``theta`` (num_coefficients,); `jax.vmap` it for a batch."""
        return linear_scm(self.graph, theta)

    def expected_answers(self, theta: Array, node: Array, shift: Array) -> Array:
        """E[X] under each soft intervention, exactly: prediction from E[U]; shape (T, d).

        Parameters
        ----------
        theta : Array
            Shape (num_coefficients,).
        node, shift : Array
            Shape (T,): node ``node[t]`` is shifted by ``shift[t]``, natural units.
        """
        scm, noise = self.scm(theta), jnp.asarray(self.noise_mean)

        shift_node = partial(Action.shift_node, num_nodes=self.graph.num_nodes)
        actions = jax.vmap(shift_node)(node, shift)
        # Query by query: XLA fuses that, over a batch of thetas, into one loop.
        each = zip(jnp.unstack(actions.value), jnp.unstack(actions.hard), strict=True)
        return jnp.stack([scm.predict(noise, Action(value, hard)) for value, hard in each])


def linear_surrogate(graph: Graph, *, low=-1.0, high=1.0, noise_mean=None) -> LinearSurrogate:
    """The paper's surrogate (Eq. 3) with the prior box of its section 5.

    Parameters
    ----------
    graph : Graph
        The true graph, which the paper assumes known.
    low, high : float
        The box of every coefficient.
    noise_mean : sequence of float, optional
        E[U] in the expected answers, one per node; 0 by default, as U ~ N(0, 1) says.

    Raises
    ------
    TypeError
        If ``graph`` is no `Graph`, or something else is no number.
    ValueError
        If the graph has no edge, ``low >= high``, or ``noise_mean`` has another length.
    """
    _checks.instance(graph, Graph, "graph")
    for value, name in ((low, "low"), (high, "high")):
        _checks.number(value, name)
    if not graph.edges:
        raise ValueError("Expected a graph with at least one edge; got none to infer.")
    # In JAX's precision: 1e300 is infinite there, and 1 and 1 + 1e-9 may be the same.
    with np.errstate(over="ignore"):
        ends = np.array([low, high]).astype(jnp.result_type(float))
    if not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise ValueError(f"Expected finite low < high; got low={low}, high={high}.")
    mean = (0.0,) * graph.num_nodes if noise_mean is None else noise_mean
    if not isinstance(mean, Iterable):
        raise TypeError(f"Expected noise_mean to be {graph.num_nodes} numbers; got {mean!r}.")
    mean = tuple(mean)
    for value in mean:
        _checks.number(value, "each of noise_mean")
    mean = tuple(map(float, mean))
    if len(mean) != graph.num_nodes or not all(map(math.isfinite, mean)):
        raise ValueError(
            f"Expected noise_mean to be {graph.num_nodes} finite numbers; got {noise_mean}."
        )
    return LinearSurrogate(graph, float(low), float(high), mean)
