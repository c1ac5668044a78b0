"""The contract of designs."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions
from pcr_jax.surrogates import Surrogate


class Belief(NamedTuple):
    """What is known when a question is chosen.

    Attributes
    ----------
    surrogate : Surrogate
        Its graph has the nodes that can be asked about.
    history : History
        What was asked and answered so far.
    posteriors : optional
        What was inferred from that, for designs that need it.
    problem : optional
        What the users want decided and what they can do about it, see `pcr_jax.recourse.pose`, for
        designs that need it.
    """

    surrogate: Surrogate
    history: History
    posteriors: Any = None
    problem: Any = None


class Design(Protocol):
    """Chooses every user's next question.

    A design that shifts the first node by ever more:

    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> class Rising:
    ...     needs_posterior = False
    ...
    ...     def ask(self, key, belief):
    ...         asked = belief.history.num_queries
    ...         return pcr.Questions(jnp.zeros_like(asked), 0.5 + 0.25 * asked)
    >>> user = pcr.SimulatedUser(pcr.library.m1())
    >>> x = jnp.zeros((2, 3))
    >>> history = pcr.elicit(jax.random.key(0), user, x, num_queries=2, design=Rising())
    >>> history.questions.shift[0].tolist()
    [0.5, 0.75]

    Attributes
    ----------
    needs_posterior : bool
        Whether `elicit` infers the users' posteriors before every question.
    """

    needs_posterior: bool

    def ask(self, key: Array, belief: Belief) -> Questions:
        """The next question to each user, of shape (num_users,).

        A user's question must not depend on the other users.
        """


def check_problem(problem: Any, shape: tuple[int, ...], graph: Graph, design: Any) -> None:
    """Raise unless there is a problem of users of this shape (num_users, d)."""
    if problem is None:
        raise ValueError(
            f"Expected problem=, what is to be decided, for {design}; got none. See "
            "pcr_jax.recourse.pose."
        )
    if not all(hasattr(problem, name) for name in ("score", "x", "names", "bounds")):
        raise TypeError(
            "Expected problem to be one, such as pcr_jax.recourse.pose gives; got "
            f"{_checks.shown(problem)}."
        )
    if np.shape(problem.x) != shape or tuple(problem.names) != graph.nodes:
        raise ValueError(
            f"Expected a problem with x of shape {shape} and the features {list(graph.nodes)}; "
            f"got {np.shape(problem.x)} and {list(problem.names)}."
        )
