"""Directed acyclic graphs."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from pcr_jax import _checks
from pcr_jax._extras import extra

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
        causes = {node: [parent for parent, child in edges if child == node] for node in nodes}
        try:
            order = list(TopologicalSorter(causes).static_order())
        except CycleError as error:
            cycle = " -> ".join(map(str, error.args[1]))
            raise ValueError(f"Expected an acyclic graph; got the cycle {cycle}.") from None
        position = {name: j for j, name in enumerate(nodes)}
        for parent, child in edges:
            if position[parent] > position[child]:
                raise ValueError(
                    f"Expected nodes in topological order; got {child!r} before its parent "
                    f"{parent!r}. One such order is {order}."
                )
        parents = (sorted({position[parent] for parent in causes[node]}) for node in nodes)
        return cls(nodes, tuple(map(tuple, parents)))

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
        with extra("networkx"):
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
        _checks.instance(node, str | numbers.Real, "node")
        if isinstance(node, bool):
            raise TypeError(f"Expected node to be a name or a position; got {node}.")
        if node in self.nodes:
            return self.nodes.index(node)
        if isinstance(node, int | np.integer) and 0 <= node < self.num_nodes:
            return int(node)
        raise ValueError(f"Expected a node of {list(self.nodes)}; got {_checks.shown(node)}.")
