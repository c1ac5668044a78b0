"""Questions as people read them, in numbers that are exactly what is asked."""

from __future__ import annotations

import numpy as np

from pcr_jax.graph import Graph
from pcr_jax.history import Questions


def rounded(shift: np.ndarray, decimals: np.ndarray) -> np.ndarray:
    """Shifts (num_users,) in so many decimals, negative before the point; never 0."""
    unit = 10.0 ** -decimals.astype(float)
    least = np.where(shift < 0, -unit, unit)
    number = np.where(np.abs(shift) < unit, least, shift)
    return np.array([round(*pair) for pair in zip(number.tolist(), decimals.tolist(), strict=True)])


def _number(value: float, decimals: int) -> str:
    """In so many decimals, thousands apart; 0 without a sign."""
    return f"{round(value, decimals) + 0.0:,.{max(0, decimals)}f}"


def sentences(
    questions: Questions, x: np.ndarray, graph: Graph, decimals: np.ndarray
) -> tuple[str | None, ...]:
    """A sentence for each person's question; None where nothing is asked.

    Parameters
    ----------
    questions : Questions
        Of shape (num_users,), with shifts of so many ``decimals``.
    x : ndarray
        Shape (num_users, d), natural units.
    graph : Graph
        Whose nodes they are about.
    decimals : ndarray
        Shape (d,): of the numbers of each node.
    """
    texts: list[str | None] = []
    outcomes = questions.outcomes(graph)
    each = zip(questions.node, questions.shift, questions.individual, outcomes, x, strict=True)
    for node, shift, individual, effects, now in each:
        if node < 0:
            texts.append(None)
            continue
        name, places = graph.nodes[node], int(decimals[node])
        *others, last = [f"{graph.nodes[k]}" for k in np.flatnonzero(effects)]
        named = f"{', '.join(others)} and {last}" if others else last
        by, begin = round(float(shift), places), round(float(now[node]), places)
        moved = f"{'rose' if by > 0 else 'fell'} by {_number(abs(by), places)}"
        if individual:
            ends = f"from {_number(begin, places)} to {_number(begin + by, places)}"
            texts.append(f"Suppose your {name} {moved}, {ends}. What would {named} become for you?")
        else:
            texts.append(
                f"Suppose {name} {moved} for people like you. What would {named} become for "
                "them, on average?"
            )
    return tuple(texts)
