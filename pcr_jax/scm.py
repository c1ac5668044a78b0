"""Structural causal models as values: sample, abduct, predict, counterfactual.

An SCM assigns ``X_j := f_j(Pa_j, U_j)`` to every node of a DAG, with independent noise U_j
(Pearl 2009); in section 2 of the paper the noise is added. It is a frozen pytree: the graph and the
functions are static, the coefficients and the parameters of the noise are leaves. A batch of SCMs
(one per user, or one per posterior draw) is the same type with leading axes on its leaves, and goes
through `jax.vmap`.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.batching import user_keys
from pcr_jax.graph import Graph
from pcr_jax.mechanisms.additive import Mechanism
from pcr_jax.mechanisms.base import Assignment

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
    """A structural causal model.

    Parameters
    ----------
    graph : Graph
        Static.
    mechanisms : tuple of Mechanism
        One per node; a root's receives parents of shape (0,). For others than `Mechanism`, which
        adds the noise, see `pcr_jax.mechanisms.base.Assignment`.
    noise : tuple of numpyro.distributions.Distribution
        The distribution of each U_j, univariate; None where it is not needed, as for
        counterfactuals.
    unit : Array, optional
        Shape (d,), in (0, 1): where several noises fit what is observed, the one of this rank, see
        `scenarios`. Of nodes of one noise it has no meaning.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If there is not one mechanism and one distribution for every node, or a linear mechanism
        has not one coefficient for every parent.
    """

    graph: Graph
    mechanisms: tuple[Assignment, ...]
    noise: tuple[dist.Distribution, ...]
    unit: Array | None = None

    def __post_init__(self):
        _checks.instance(self.graph, Graph, "graph")
        for name in ("mechanisms", "noise"):
            _checks.instance(getattr(self, name), list | tuple, name)
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != self.graph.num_nodes:
                raise ValueError(
                    f"Expected {name} for each of the {self.graph.num_nodes} nodes; "
                    f"got {len(getattr(self, name))}."
                )
        for node, pa, mechanism, noise in zip(
            self.graph.nodes, self.graph.parents, self.mechanisms, self.noise, strict=True
        ):
            said = f"the mechanisms of node {node!r}"
            _checks.capable(mechanism, Assignment, said, "Mechanism(coefficients)")
            _checks.instance(noise, dist.Distribution | None, f"the noise of node {node!r}")
            mechanism.check(len(pa), node)
        if self.unit is not None:
            _checks.features(self.unit, self.graph.num_nodes, "unit", names=self.graph.nodes)

    @property
    def num_nodes(self) -> int:
        """The number d of nodes."""
        return self.graph.num_nodes

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients: () for one SCM, (num_users,) for one per user."""
        return self.mechanisms[0].batch_shape

    @property
    def linear(self) -> bool:
        """Whether every mechanism is."""
        return all(mechanism.linear for mechanism in self.mechanisms)

    @property
    def coefficients(self) -> Array:
        """Of a linear SCM, shape (..., num_edges), in the order of ``graph.edges``."""
        return jnp.concatenate([m.coefficients for m in self.mechanisms], -1)  # type: ignore[attr-defined]

    @property
    def invertible(self) -> bool:
        """Whether only one noise fits what is observed."""
        return all(mechanism.invertible for mechanism in self.mechanisms)

    def _parents(self, j: int, columns) -> Array:
        """The parents (..., num_parents) of node j, given the values of the nodes before it."""
        parents = [columns[p] for p in self.graph.parents[j]]
        return jnp.stack(parents, axis=-1) if parents else jnp.zeros(0)

    def _matrix(self) -> Array | None:
        """B (..., d, d) with ``f(x) = B x``, for a linear SCM of many nodes; None for others."""
        if self.num_nodes <= _UNROLLED or not self.linear:
            return None
        parents, children = np.array(self.graph.edges, int).reshape(-1, 2).T
        none = jnp.zeros((*self.batch_shape, self.num_nodes, self.num_nodes))
        return none.at[..., children, parents].set(self.coefficients)

    def abduct(self, x: Array, unit: Array | None = None) -> Array:
        """The noise U that gives ``x`` (..., d), natural units; shape (..., d).

        Parameters
        ----------
        x : Array
            Shape (..., d), natural units.
        unit : Array, optional
            Shape (..., d), in (0, 1): of several values that fit, the one of this rank. By default
            the SCM's own, which it has to have unless it is `invertible`.

        Raises
        ------
        ValueError
            If the trailing dimension of ``x`` is not d, ``x`` is not finite, or ``unit`` lacks.
        """
        x = _checks.features(x, self.num_nodes, names=self.graph.nodes)
        matrix = self._matrix()
        if matrix is not None:
            return x - _times(matrix, x[..., None, :])
        unit = self.unit if unit is None else unit
        if unit is None and not self.invertible:
            raise ValueError(
                "Expected unit for an SCM that is not invertible; got none. See pcr_jax.scenarios."
            )
        columns = [x[..., j] for j in range(self.num_nodes)]
        units = [None if unit is None else unit[..., j] for j in range(self.num_nodes)]
        noises = [
            mechanism.abduct(self._parents(j, columns), columns[j], units[j])
            for j, mechanism in enumerate(self.mechanisms)
        ]
        return jnp.stack(noises, -1)

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
            column = self.mechanisms[j].assign(self._parents(j, columns), noises[j]) + values[j]
            columns.append(jnp.where(hards[j], values[j], column))
        return jnp.stack(jnp.broadcast_arrays(*columns), axis=-1)

    def counterfactual(self, x: Array, action: Action, unit: Array | None = None) -> Array:
        """What ``x`` (..., d) would have been under ``action``; shape (..., d).

        Abduction, action, prediction (Pearl 2009; ``CF(x, a; M)`` in section 2 of the paper). For
        ``unit`` see `abduct`.
        """
        noise = self.abduct(x, unit)
        return self.predict(noise, action)

    def sample_noise(self, key: Array, num_samples: int) -> Array:
        """Draws of U, shape (num_samples, d)."""
        _checks.key(key)
        _checks.count(num_samples, "num_samples", minimum=0)
        for node, distribution in zip(self.graph.nodes, self.noise, strict=True):
            _checks.instance(distribution, dist.Distribution, f"the noise of node {node!r}")
        keys = jax.random.split(key, self.num_nodes)
        return jnp.stack(
            [
                jnp.asarray(u.sample(k, (num_samples,)), float)
                for u, k in zip(self.noise, keys, strict=True)
            ],
            axis=-1,
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
    sizes = [len(parents) for parents in graph.parents]
    mechanisms = tuple(map(Mechanism, jax.lax.split(values, sizes)))
    if noise is None:
        noise = [dist.Normal(0.0, 1.0)] * graph.num_nodes
    return SCM(graph, mechanisms, noise)


def non_causal(graph: Graph) -> SCM:
    """The non-causal prior: no feature affects another (all coefficients 0)."""
    _checks.instance(graph, Graph, "graph")
    return linear_scm(graph, jnp.zeros(len(graph.edges)))


def inverted(scm: SCM) -> SCM:
    """The SCM with every causal effect inverted: f_j becomes -f_j (after Eq. 4 of the paper)."""
    _checks.instance(scm, SCM, "scm")
    return replace(scm, mechanisms=tuple(m.inverted() for m in scm.mechanisms))


def population_of_scms(key: Array, scm: SCM, num_users: int, sd: ArrayLike) -> SCM:
    """The SCMs of people who differ: every coefficient is the common one and N(0, sd^2).

    Parameters
    ----------
    key : Array
    scm : SCM
        What people have in common, their mean.
    num_users : int
    sd : float
        In the units of the coefficients; shape (k,) to differ by coefficient, in the order of the
        nodes: for a linear SCM that of ``graph.edges``.

    Returns
    -------
    SCM
        With a leading axis (num_users,) and the noise of ``scm``.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``scm`` is a batch already, ``num_users < 1``, or ``sd`` is negative or of another shape.
    """
    _checks.key(key)
    _checks.instance(scm, SCM, "scm")
    _checks.count(num_users, "num_users")
    if scm.batch_shape:
        raise ValueError(f"Expected one scm; got a batch of shape {scm.batch_shape}.")
    common, mechanisms = ravel_pytree(scm.mechanisms)
    _checks.unnamed(sd, "sd")
    sd = _checks.positive(sd, "sd", (), common.shape, or_zero=True)

    def one(key):
        own = common + sd * jax.random.normal(key, common.shape)
        return replace(scm, mechanisms=mechanisms(own))

    return jax.vmap(one)(user_keys(key, num_users))


def scenarios(key: Array, scm: SCM, num_users: int, draws: int | None = None) -> SCM:
    """SCMs that say which noise a person has where several fit: worlds that may be theirs.

    Of a node of some levels, abduction leaves a distribution. Every scenario is a draw of it, and
    counterfactuals under one scenario belong together. For `pcr_jax.find_recourse` with a level.
    With an ``epsilon`` perturbed features are abducted by the same rank, which may be another
    noise; and of levels there is no E[U], from which answers to questions "on average" are
    predicted.

    Parameters
    ----------
    key : Array
    scm : SCM
        One for all users, or with leading axis (num_users,), or (num_users, draws).
    num_users : int
    draws : int, optional
        For each user; 200 at least for a level. None: one for each, without an axis of its own.

    Returns
    -------
    SCM
        With leading axes (num_users,) or (num_users, draws), and a ``unit``.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a number is not positive, or ``scm`` is another batch.
    """
    _checks.key(key)
    _checks.instance(scm, SCM, "scm")
    _checks.count(num_users, "num_users")
    if draws is not None:
        _checks.count(draws, "draws")
    shape = (num_users,) if draws is None else (num_users, draws)
    own = len(scm.batch_shape)
    if scm.batch_shape != shape[:own]:
        raise ValueError(
            f"Expected one scm, or a batch of shape {shape}; got one of shape {scm.batch_shape}."
        )

    def spread(leaf):
        leaf = jnp.asarray(leaf)
        mine, rest = leaf.shape[:own], leaf.shape[own:]
        leaf = leaf.reshape(*mine, *[1] * (len(shape) - own), *rest)
        return jnp.broadcast_to(leaf, (*shape, *rest))

    def rank(key):
        least = jnp.finfo(float).eps
        return jax.random.uniform(key, (*shape[1:], scm.num_nodes), minval=least)

    unit = jax.vmap(rank)(user_keys(key, num_users))
    return replace(jax.tree.map(spread, replace(scm, unit=None)), unit=unit)
