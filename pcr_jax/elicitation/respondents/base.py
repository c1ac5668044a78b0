"""The contract of respondents."""

from __future__ import annotations

from typing import Protocol

from jax import Array

from pcr_jax.graph import Graph
from pcr_jax.history import Questions


class Respondent(Protocol):
    """Answers the questions, for all users at once.

    People who say that nothing but the shifted node itself would change:

    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> class Stubborn:
    ...     graph = pcr.library.m1().graph
    ...
    ...     def answer(self, key, questions, x):
    ...         reported = jnp.asarray(self.graph.descendants)[questions.node]
    ...         return jnp.where(reported, x, jnp.nan)
    >>> history = pcr.elicit(jax.random.key(0), Stubborn(), jnp.ones((2, 3)), num_queries=4)
    >>> bool(jnp.nanmin(history.answer) == 1)
    True

    """

    @property
    def graph(self) -> Graph:
        """The nodes that are asked about."""

    def answer(self, key: Array, questions: Questions, x: Array) -> Array:
        """Answers (num_users, d) to questions (num_users,), natural units; NaN: not reported.

        ``x`` (num_users, d) are the users' features.
        """
