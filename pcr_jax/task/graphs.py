"""Graphs as people have them: networkx, edges, and the text of lavaan and dagitty."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pcr_jax import _checks
from pcr_jax.graph import Graph

_NAME = r'"[^"]+"|[\w.]+'
_TOKEN = re.compile(rf"{_NAME}|<->|->|<-|--|[{{}};]|\n|\S")


def as_graph(graph: Any, more: Iterable[str] = ()) -> Graph:
    """The DAG, its nodes in a topological order.

    Parameters
    ----------
    graph : Graph, networkx.DiGraph, sequence of tuple, or str
        Edges are (parent, child). Text is lavaan's, one regression a line (``"y ~ x1 + x2"``), or
        dagitty's (``"dag { a -> b }"``).
    more : iterable of str
        Nodes that it has as well, of no edge unless it says otherwise.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it has a cycle, or the text says something else than that one node causes another.
    """
    if isinstance(graph, Graph):
        nodes = list(graph.nodes)
        edges = [(nodes[parent], nodes[child]) for parent, child in graph.edges]
    elif isinstance(graph, str):
        nodes, edges = (_dagitty if re.match(r"\s*(dag|digraph)\b", graph) else _lavaan)(graph)
    elif hasattr(graph, "nodes"):
        return as_graph(Graph.from_networkx(graph), more)
    else:
        edges = [
            tuple(_checks.listed(e, "each edge of graph")) for e in _checks.listed(graph, "graph")
        ]
        if any(len(edge) != 2 for edge in edges):
            raise ValueError(f"Expected graph to be (parent, child) pairs; got {edges}.")
        nodes = [end for edge in edges for end in edge]
    for node in nodes:
        _checks.instance(node, str | numbers.Real, "each node of graph")
    nodes = list(dict.fromkeys([*nodes, *more]))
    causes = {node: [parent for parent, child in edges if child == node] for node in nodes}
    try:
        ordered = list(TopologicalSorter(causes).static_order())
    except CycleError:
        ordered = nodes
    return Graph.from_edges(ordered, list(dict.fromkeys(edges)))


def _unquoted(name: str) -> str:
    return name.strip('"')


def _lavaan(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes and edges of lavaan's model syntax (Rosseel 2012)."""
    edges = []
    for line in re.split(r"[\n;]", text):
        line = re.sub(r"[#!].*", "", line).strip()
        if not line:
            continue
        left, operator, right = re.match(r"([^=~:<>]*)([=~:<>]*)(.*)", line).groups()  # type: ignore[union-attr]
        effects, causes = ([part.strip() for part in side.split("+")] for side in (left, right))
        if operator == "~~" and effects == causes:
            continue  # a variance
        if operator != "~":
            raise ValueError(
                f"Expected graph of regressions, such as 'y ~ x1 + x2'; got {line!r}, which a "
                "causal model without hidden causes has not."
            )
        causes = [cause.rpartition("*")[2].strip() for cause in causes]
        causes = [cause for cause in causes if cause not in ("0", "1")]
        edges += [(cause, effect) for effect in effects for cause in causes]
    for edge in edges:
        if not all(re.fullmatch(_NAME, end) for end in edge):
            raise ValueError(f"Expected graph of names, such as 'y ~ x1 + x2'; got {edge}.")
    edges = [(_unquoted(cause), _unquoted(effect)) for cause, effect in edges]
    return [end for edge in edges for end in edge], edges


def _dagitty(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes and edges of dagitty's language (Textor et al. 2016)."""
    text = re.sub(r"\[[^\]]*\]", " ", text)  # what is said of nodes and edges
    text = re.sub(r'\bbb\s*=\s*"[^"]*"', " ", text)
    body = re.fullmatch(rf"\s*(?:dag|digraph)\s*(?:{_NAME})?\s*\{{(.*)\}}\s*", text, re.DOTALL)
    if body is None:
        raise ValueError(f"Expected graph as 'dag {{ a -> b }}'; got {_checks.shown(text)}.")
    nodes: list[str] = []
    edges: list[tuple[str, str]] = []
    tokens = [token for token in _TOKEN.findall(body[1]) if token != "\n"]
    before: list[str] = []
    arrow = None
    while tokens:
        token = tokens.pop(0)
        if token in ("->", "<-") and before and arrow is None:
            arrow = token
        elif token == ";" and arrow is None:
            before = []
        elif token == "{" or re.fullmatch(_NAME, token):
            group = []
            if token == "{":
                while tokens and re.fullmatch(_NAME, tokens[0]):
                    group.append(_unquoted(tokens.pop(0)))
                if not tokens or tokens.pop(0) != "}":
                    raise ValueError(f"Expected graph with names in braces; got {group}.")
            else:
                group.append(_unquoted(token))
            nodes += group
            if arrow is not None:
                pairs = [(one, other) for one in before for other in group]
                edges += pairs if arrow == "->" else [(b, a) for a, b in pairs]
            before, arrow = group, None
        else:
            raise ValueError(
                f"Expected graph of arrows from cause to effect; got {token!r} after "
                f"{before or 'its beginning'}, which a causal model without hidden causes has not."
            )
    if arrow is not None:
        raise ValueError(f"Expected a name after {arrow!r} in graph; got its end.")
    return nodes, edges
