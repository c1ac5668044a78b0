"""Graphs as people have them."""

import networkx as nx
import pytest

import pcr_jax as pcr
from pcr_jax.task.graphs import as_graph

EDGES = {("age", "income"), ("income", "savings"), ("age", "savings")}
SAME = {
    "edges": [("income", "savings"), ("age", "savings"), ("age", "income")],
    "networkx": nx.DiGraph([("income", "savings"), ("age", "savings"), ("age", "income")]),
    "graph": pcr.Graph.from_edges(["age", "income", "savings"], sorted(EDGES)),
    "lavaan": "savings ~ b1*income + age  # a comment\nincome ~ 1 + age\nage ~~ age",
    "lavaan, one line": "savings ~ income + age; income ~ age",
    "dagitty": "dag { income -> savings <- age ; age -> income }",
    "dagitty, braces": 'dag { age -> {income savings}\nincome [pos="0,1"] -> "savings" }',
    "dagitty, named": 'dag G {\nbb="0,0,1,1"\nage [exposure,pos="-1,2"]\n'
    "income\nage -> income -> savings\nsavings <- age\n}",
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_graph_in_every_language(name):
    graph = as_graph(SAME[name])
    assert {(graph.nodes[p], graph.nodes[c]) for p, c in graph.edges} == EDGES
    assert graph.nodes == ("age", "income", "savings")


def test_nodes_without_edges_are_kept():
    assert as_graph("dag { home ; a -> b }").nodes == ("home", "a", "b")
    assert set(as_graph([("a", "b")], ["home", "a"]).nodes) == {"a", "b", "home"}


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        ("a ~~ b", "hidden causes"),
        ("f =~ a + b", "hidden causes"),
        ("dag { a <-> b }", "'<->' after"),
        ("dag { a -- b }", "'--' after"),
        ("dag { a -> }", "Expected a name after '->'"),
        ("dag { a -> {b ", "as 'dag"),
        ("a ~ b\nb ~ a", "cycle"),
        ([("a", "b"), ("b", "a")], "cycle"),
        ([("a", "b", "c")], "pairs"),
    ],
)
def test_what_is_no_dag_is_refused(graph, match):
    with pytest.raises(ValueError, match=match):
        as_graph(graph)


def test_what_is_no_graph_is_refused():
    with pytest.raises(TypeError, match="graph to be a sequence"):
        as_graph(3)
    with pytest.raises(TypeError, match=r"networkx\.DiGraph"):
        as_graph(nx.Graph([("a", "b")]))
