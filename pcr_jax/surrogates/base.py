"""The contract of surrogates."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions
from pcr_jax.scm import SCM
from pcr_jax.surrogates.priors import Prior


class Surrogate(Protocol):
    """A family of SCMs with k unknown numbers; a pytree whose graph and names are static.

    The numbers of its prior are leaves: no program is compiled again for others. Linear SCMs with
    the same effect along every edge:

    >>> from dataclasses import dataclass, field
    >>> import jax, jax.numpy as jnp
    >>> import pcr_jax as pcr
    >>> @jax.tree_util.register_dataclass
    ... @dataclass(frozen=True)
    ... class OneEffect:
    ...     graph: pcr.Graph = field(metadata={"static": True})
    ...     prior: pcr.Box
    ...     names = ("effect",)
    ...     multi_affine = False
    ...
    ...     def scm(self, theta):
    ...         return pcr.linear_scm(self.graph, jnp.repeat(theta, len(self.graph.edges)))
    ...
    ...     def expected(self, theta, questions, x):
    ...         scm = self.scm(theta)
    ...
    ...         def one(node, shift, individual):
    ...             action = pcr.Action.shift_node(node, shift, self.graph.num_nodes)
    ...             return scm.predict(jnp.where(individual, scm.abduct(x), 0.0), action)
    ...
    ...         return jax.vmap(one)(questions.node, questions.shift, questions.individual)
    >>> surrogate = OneEffect(pcr.Graph.fully_connected(2), pcr.Box([0.0], [2.0]))
    >>> question = pcr.Questions(jnp.array([0]), jnp.array([1.0]))
    >>> surrogate.expected(jnp.array([0.5]), question, jnp.zeros(2)).tolist()
    [[1.0, 0.5]]

    Attributes
    ----------
    graph : Graph
    names : tuple of str
        Of the k numbers.
    prior : Prior
        Of the k numbers. Where it differs by user, every leaf has a leading axis of users.
    multi_affine : bool
        Whether `expected` is that of a linear SCM on ``graph`` with a coefficient for every edge:
        affine in each of them. It then has the methods ``about`` and ``sizes`` (see
        `LinearSurrogate`), and starting points can be searched for, see
        `pcr_jax.inference.search`.

    Notes
    -----
    A surrogate may have a ``scale`` (d,), or None, and with it a method ``standardised()``: the
    same family for features in units of it. Whatever is inferred is then inferred in those units,
    see `in_scale`.
    """

    @property
    def graph(self) -> Graph:
        """Of the SCMs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the k numbers."""

    @property
    def prior(self) -> Prior:
        """Of the k numbers."""

    @property
    def multi_affine(self) -> bool:
        """Whether `expected` is affine in each number by itself, as that of a linear SCM."""

    def scm(self, theta: Array) -> SCM:
        """The SCM with the numbers ``theta`` (k,)."""

    def expected(self, theta: Array, questions: Questions, x: Array) -> Array:
        """The answers (T, d) to ``questions`` (T,) that ``theta`` (k,) leads to be expected.

        To a population question E[X] under the soft intervention; to an individual one the
        counterfactual of ``x`` (d,). Natural units.
        """


def check_surrogate(surrogate: Any) -> None:
    """Raise TypeError unless it is a `Surrogate`."""
    _checks.capable(surrogate, Surrogate, "surrogate", "linear_surrogate(graph)")


def check_users(surrogate: Surrogate, num_users: int) -> None:
    """Raise ValueError unless the prior is one for all users, or one for each."""
    batch = surrogate.prior.batch_shape
    if batch not in ((), (num_users,)):
        raise ValueError(
            f"Expected surrogate with one prior, or one for each of {num_users} users; got {batch}."
        )


def in_scale(surrogate: Surrogate, history: History) -> tuple[Surrogate, History]:
    """Both in units of the surrogate's scale, if it has one."""
    scale = getattr(surrogate, "scale", None)
    if scale is None:
        return surrogate, history
    return surrogate.standardised(), history.standardised(scale)  # type: ignore[attr-defined]


S = TypeVar("S")


def for_users(surrogate: S, num_users: int) -> S:
    """The surrogate with a leading axis of users on every leaf, in the host's memory."""
    if surrogate.prior.batch_shape:  # type: ignore[attr-defined]
        return jax.tree.map(np.asarray, surrogate)
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (num_users, *np.shape(leaf))), surrogate
    )
