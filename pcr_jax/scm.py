"""Structural causal models as values: sample, abduct, predict, counterfactual.

An SCM assigns ``X_j := f_j(Pa_j) + U_j`` to every node of a DAG, with independent noise U_j
(Pearl 2009; section 2 of the paper). It is a frozen pytree: the graph and the functions are
static, the coefficients and the parameters of the noise are leaves. A batch of SCMs (one per
user, or one per posterior draw) is the same type with leading axes on its leaves, and goes
through `jax.vmap`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Graph:
    """A DAG whose nodes are in topological order.

    Parameters
    ----------
    nodes : tuple of str
        Names, every parent before its children. Numbers can be names as well.
    parents : tuple of tuple of int
        For each node, the positions of its parents in ``nodes``, increasing.

    Raises
    ------
    TypeError
        If a name or a parent is of another type.
    ValueError
        If there is no node, a name is repeated, a parent is unknown or listed twice, or a parent
        does not come before its child.
    """

    nodes: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "nodes", _checks.names(self.nodes, "nodes"))
        _checks.instance(self.parents, list | tuple, "parents")
        for pa in self.parents:
            _checks.entries_of(pa, "the parents of a node", int)
        parents = tuple(tuple(int(p) for p in pa) for pa in self.parents)
        object.__setattr__(self, "parents", parents)
        if len(self.parents) != len(self.nodes):
            raise ValueError(
                f"Expected parents for each of the {len(self.nodes)} nodes; "
                f"got {len(self.parents)}."
            )
        for j, pa in enumerate(self.parents):
            if list(pa) != sorted(set(pa)) or any(not 0 <= p < j for p in pa):
                raise ValueError(
                    f"Expected parents of node {j} ({self.nodes[j]!r}) to be increasing positions "
                    f"before {j} (topological order); got {list(pa)}."
                )

    @classmethod
    def from_edges(cls, nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> Graph:
        """The DAG with these nodes, in this order, and these (parent, child) edges.

        Raises
        ------
        TypeError
            If ``nodes`` are no names, or ``edges`` no pairs.
        ValueError
            If an edge names an unknown node, the edges form a cycle, or ``nodes`` is not a
            topological order (the message proposes one).
        """
        nodes = _checks.names(nodes, "nodes")
        edges = _checks.listed(edges, "edges")
        for edge in edges:
            if (
                not isinstance(edge, Sequence)
                or len(edge) != 2
                or any(end not in nodes for end in edge)
            ):
                raise ValueError(
                    f"Expected edges to be (parent, child) pairs of {list(nodes)}; got {edge!r}."
                )
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(nodes)
        graph.add_edges_from(edges)
        if not nx.is_directed_acyclic_graph(graph):
            cycle = [f"{parent}" for parent, _ in nx.find_cycle(graph)]
            raise ValueError(
                f"Expected an acyclic graph; got the cycle {' -> '.join([*cycle, cycle[0]])}."
            )
        position = {name: j for j, name in enumerate(nodes)}
        for parent, child in edges:
            if position[parent] > position[child]:
                raise ValueError(
                    f"Expected nodes in topological order; got {child!r} before its parent "
                    f"{parent!r}. One such order is {list(nx.topological_sort(graph))}."
                )
        return cls(
            nodes,
            tuple(tuple(sorted(position[p] for p in graph.predecessors(n))) for n in nodes),
        )

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph) -> Graph:
        """The same DAG from networkx, its nodes put in topological order.

        That is not the order in which they were added: what has names is put into the order of
        ``nodes`` where the graph is used, what has none has to be in that order.

        Raises
        ------
        TypeError
            If ``graph`` is not a `networkx.DiGraph`: undirected, or with parallel edges.
        ValueError
            If it has a cycle.
        """
        import networkx as nx

        if not isinstance(graph, nx.Graph) or not graph.is_directed():
            kind = type(graph).__name__
            raise TypeError(
                f"Expected graph to be a networkx.DiGraph; got a {kind}, which does not say what "
                "is the cause and what the effect."
            )
        if graph.is_multigraph():
            raise TypeError("Expected graph to be a networkx.DiGraph; got one of parallel edges.")
        if not nx.is_directed_acyclic_graph(graph):
            return cls.from_edges(list(graph.nodes), graph.edges)  # raises, naming the cycle
        return cls.from_edges(list(nx.topological_sort(graph)), graph.edges)

    @classmethod
    def fully_connected(cls, num_nodes: int) -> Graph:
        """X1, ..., Xd, each with all earlier nodes as parents (Eq. 3 of the paper)."""
        _checks.count(num_nodes, "num_nodes")
        return cls(
            tuple(f"X{j + 1}" for j in range(num_nodes)),
            tuple(tuple(range(j)) for j in range(num_nodes)),
        )

    @property
    def num_nodes(self) -> int:
        """The number d of nodes."""
        return len(self.nodes)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) positions, ordered by child, then by parent."""
        return tuple((p, j) for j, pa in enumerate(self.parents) for p in pa)

    @property
    def edge_names(self) -> tuple[str, ...]:
        """One name per edge, such as ``"savings <- income"``, in the order of `edges`."""
        return tuple(f"{self.nodes[j]} <- {self.nodes[p]}" for p, j in self.edges)

    @cached_property
    def descendants(self) -> np.ndarray:
        """Boolean matrix (d, d): entry [i, j] says whether j is a descendant of i (i is not)."""
        matrix = np.zeros((self.num_nodes, self.num_nodes), bool)
        for parent, child in self.edges:  # a parent's ancestors are known before its children
            matrix[:, child] |= matrix[:, parent]
            matrix[parent, child] = True
        return matrix

    def index(self, node: str | int) -> int:
        """The position of a node given by name or position."""
        if isinstance(node, str | numbers.Real) and node in self.nodes:
            return self.nodes.index(node)
        if isinstance(node, int | np.integer) and 0 <= node < self.num_nodes:
            return int(node)
        raise ValueError(f"Expected a node of {list(self.nodes)}; got {_checks.shown(node)}.")


def linear(coefficients: Array, parents: Array) -> Array:
    """``sum_p coefficients[p] * parents[p]``, over the last axis."""
    # Term by term: XLA fuses that into the caller's loop, which it does not do with a reduction.
    pairs = zip(jnp.unstack(coefficients, axis=-1), jnp.unstack(parents, axis=-1), strict=True)
    terms = [coefficient * parent for coefficient, parent in pairs]
    return sum(terms, start=jnp.zeros(jnp.broadcast_shapes(coefficients.shape, parents.shape)[:-1]))


@pytree(static=("function",))
class Mechanism:
    """The deterministic part f_j of ``X_j := f_j(Pa_j) + U_j``.

    Parameters
    ----------
    coefficients : Array
        Shape (k,); leading axes for a batch of SCMs.
    function : callable
        ``function(coefficients, parents) -> value``, with parents of shape (..., num_parents)
        and value of shape (...). Define it once at module level: its identity is part of what
        `jax.jit` caches on.

    Raises
    ------
    TypeError
        If ``coefficients`` are no numbers, or ``function`` is not callable.
    ValueError
        If ``coefficients`` have no axis.
    """

    coefficients: Array
    function: Callable[[Array, Array], Array] = linear

    def __post_init__(self):
        coefficients = _checks.reported(self.coefficients, "coefficients")
        if not coefficients.ndim:
            raise ValueError("Expected coefficients of shape (k,); got ().")
        object.__setattr__(self, "coefficients", coefficients)
        _checks.function(self.function, "function", "(coefficients, parents) -> value")

    def __call__(self, parents: Array) -> Array:
        """f_j of ``parents`` (..., num_parents); shape (...)."""
        return self.function(self.coefficients, parents)


_UNROLLED = 16  # nodes; linear SCMs of more are computed in a loop, whose program stays small


def _times(matrix: Array, x: Array) -> Array:
    """``matrix @ x`` over the last axes, the others broadcast; in full precision."""
    return jnp.einsum("...p,...p->...", matrix, x, precision="highest")


def _substitute(matrix: Array, noise: Array, value: Array, hard: Array) -> Array:
    """The features of a linear SCM, node by node; all (..., d) but the matrix (..., d, d)."""

    def assign(features, at):
        j, row, noise, value, hard = at
        column = _times(row, features) + noise + value
        return features.at[..., j].set(jnp.where(hard, value, column)), None

    by_node = [jnp.moveaxis(term, -1, 0) for term in (noise, value, hard)]
    nodes = (jnp.arange(noise.shape[-1]), jnp.moveaxis(matrix, -2, 0), *by_node)
    unset = jnp.zeros(jnp.broadcast_shapes(noise.shape, matrix.shape[:-1]))
    return jax.lax.scan(assign, unset, nodes)[0]


_ACTIONS = " See Action.soft(shift) and Action.do(value, nodes)."


@pytree(static=("graph",))
class SCM:
    """A structural causal model with additive noise.

    Parameters
    ----------
    graph : Graph
        Static.
    mechanisms : tuple of Mechanism
        One per node; a root's receives parents of shape (0,).
    noise : tuple of numpyro.distributions.Distribution
        The distribution of each U_j, univariate; None where it is not needed, as for
        counterfactuals.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there is not one mechanism and one distribution for every node, or a linear mechanism
        has not one coefficient for every parent.
    """

    graph: Graph
    mechanisms: tuple[Mechanism, ...]
    noise: tuple[dist.Distribution, ...]

    def __post_init__(self):
        _checks.instance(self.graph, Graph, "graph")
        for name, kind in (("mechanisms", Mechanism), ("noise", dist.Distribution | None)):
            _checks.instance(getattr(self, name), list | tuple, name)
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != self.graph.num_nodes:
                raise ValueError(
                    f"Expected {name} for each of the {self.graph.num_nodes} nodes; "
                    f"got {len(getattr(self, name))}."
                )
            for node, value in zip(self.graph.nodes, getattr(self, name), strict=True):
                _checks.instance(value, kind, f"the {name} of node {node!r}")
        for node, pa, mechanism in zip(
            self.graph.nodes, self.graph.parents, self.mechanisms, strict=True
        ):
            num = mechanism.coefficients.shape[-1]
            if mechanism.function is linear and num != len(pa):
                raise ValueError(
                    f"Expected coefficients for each of the {len(pa)} parents of node {node!r}, "
                    f"whose mechanism is linear; got {num}."
                )

    @property
    def num_nodes(self) -> int:
        """The number d of nodes."""
        return self.graph.num_nodes

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients: () for one SCM, (num_users,) for one per user."""
        return self.mechanisms[0].coefficients.shape[:-1]

    def _effect(self, j: int, columns) -> Array:
        """f_j of the parents of node j, given the values of the nodes before it."""
        parents = [columns[p] for p in self.graph.parents[j]]
        return self.mechanisms[j](jnp.stack(parents, axis=-1) if parents else jnp.zeros(0))

    def _matrix(self) -> Array | None:
        """B (..., d, d) with ``f(x) = B x``, for a linear SCM of many nodes; None for others."""
        if self.num_nodes <= _UNROLLED or any(m.function is not linear for m in self.mechanisms):
            return None
        parents, children = np.array(self.graph.edges, int).reshape(-1, 2).T
        coefficients = jnp.concatenate([m.coefficients for m in self.mechanisms], axis=-1)
        none = jnp.zeros((*self.batch_shape, self.num_nodes, self.num_nodes))
        return none.at[..., children, parents].set(coefficients)

    def abduct(self, x: Array) -> Array:
        """The noise U that gives ``x`` (..., d), natural units; shape (..., d).

        Raises
        ------
        ValueError
            If the trailing dimension of ``x`` is not d or ``x`` is not finite.
        """
        x = _checks.features(x, self.num_nodes, names=self.graph.nodes)
        matrix = self._matrix()
        if matrix is not None:
            return x - _times(matrix, x[..., None, :])
        columns = [x[..., j] for j in range(self.num_nodes)]
        return jnp.stack([columns[j] - self._effect(j, columns) for j in range(len(columns))], -1)

    def predict(self, noise: Array, action: Action | None = None) -> Array:
        """The features that follow from ``noise`` (..., d) under an action; shape (..., d).

        A soft intervention adds its value to the mechanism; a hard one replaces the mechanism.
        """
        noise = _checks.features(noise, self.num_nodes, "noise", names=self.graph.nodes)
        if action is None:
            action = Action.empty(self.num_nodes)
        _checks.instance(action, Action, "action", _ACTIONS)
        _checks.features(action.value, self.num_nodes, "action")
        try:
            np.broadcast_shapes(noise.shape, action.value.shape)
        except ValueError:
            raise ValueError(
                "Expected an action of a shape that broadcasts against the features'; got "
                f"{action.value.shape} and {noise.shape}."
            ) from None
        terms = jnp.broadcast_arrays(noise, action.value, action.hard)
        matrix = self._matrix()
        if matrix is not None:
            return _substitute(matrix, *terms)
        columns: list[Array] = []
        noises, values, hards = (jnp.unstack(term, axis=-1) for term in terms)
        for j in range(self.num_nodes):
            column = self._effect(j, columns) + noises[j] + values[j]
            columns.append(jnp.where(hards[j], values[j], column))
        return jnp.stack(jnp.broadcast_arrays(*columns), axis=-1)

    def counterfactual(self, x: Array, action: Action) -> Array:
        """What ``x`` (..., d) would have been under ``action``; shape (..., d).

        Abduction, action, prediction (Pearl 2009; ``CF(x, a; M)`` in section 2 of the paper).
        """
        noise = self.abduct(x)
        return self.predict(noise, action)

    def sample_noise(self, key: Array, num_samples: int) -> Array:
        """Draws of U, shape (num_samples, d)."""
        _checks.key(key)
        _checks.count(num_samples, "num_samples", minimum=0)
        for node, distribution in zip(self.graph.nodes, self.noise, strict=True):
            _checks.instance(distribution, dist.Distribution, f"the noise of node {node!r}")
        keys = jax.random.split(key, self.num_nodes)
        return jnp.stack(
            [u.sample(k, (num_samples,)) for u, k in zip(self.noise, keys, strict=True)], axis=-1
        )

    def sample(self, key: Array, num_samples: int, action: Action | None = None) -> Array:
        """Draws of X, under an action if given; shape (num_samples, d)."""
        return self.predict(self.sample_noise(key, num_samples), action)

    @property
    def noise_mean(self) -> Array:
        """E[U], shape (d,)."""
        return jnp.stack([jnp.asarray(u.mean, float) for u in self.noise])


def linear_scm(graph: Graph, coefficients: ArrayLike, noise=None) -> SCM:
    """A linear SCM on any DAG: ``X_j := sum_p theta_jp X_p + U_j`` (Eq. 3 of the paper).

    Parameters
    ----------
    graph : Graph
    coefficients : Array
        Shape (num_edges,), in the order of ``graph.edges``; a Series or a dictionary by
        ``graph.edge_names``. NaN where there is no model.
    noise : sequence of distributions, optional
        One per node; standard normal by default.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there is not one coefficient for every edge.
    """
    _checks.instance(graph, Graph, "graph")
    edges = graph.edge_names
    values = _checks.array(coefficients, "coefficients", names=edges)
    _checks.reported(values, "coefficients")
    if values.shape != (len(edges),):
        raise ValueError(
            f"Expected coefficients of shape ({len(edges)},), one per edge {list(edges)}; "
            f"got shape {values.shape}."
        )
    ends = np.cumsum([0] + [len(pa) for pa in graph.parents])
    mechanisms = tuple(
        Mechanism(jax.lax.slice_in_dim(values, int(start), int(stop)))
        for start, stop in pairwise(ends)
    )
    if noise is None:
        noise = [dist.Normal(0.0, 1.0)] * graph.num_nodes
    return SCM(graph, mechanisms, noise)


def non_causal(graph: Graph) -> SCM:
    """The non-causal prior: no feature affects another (all coefficients 0)."""
    _checks.instance(graph, Graph, "graph")
    return linear_scm(graph, jnp.zeros(len(graph.edges)))


@dataclass(frozen=True)
class _Negated:
    function: Callable

    def __call__(self, coefficients, parents):
        return -self.function(coefficients, parents)


def inverted(scm: SCM) -> SCM:
    """The SCM with every causal effect inverted: f_j becomes -f_j (after Eq. 4 of the paper)."""
    _checks.instance(scm, SCM, "scm")
    return SCM(
        scm.graph,
        tuple(Mechanism(m.coefficients, _Negated(m.function)) for m in scm.mechanisms),
        scm.noise,
    )
