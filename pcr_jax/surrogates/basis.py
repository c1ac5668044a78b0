"""Mechanisms that are linear in a basis: a linear term and a few functions of every parent.

A generalized additive model (Hastie & Tibshirani 1986) for each node, with products of pairs of
parents where wanted. How free a mechanism is, is averaged by evidence: its prior is a mixture of
normals, of a line, a parabola, or any steps ("spike and slab", George & McCulloch 1993), so that a
linear person costs little and a curved one is followed. Eq. 3 of the paper is the case without any
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.graph import Graph
from pcr_jax.history import Questions
from pcr_jax.mechanisms import Mechanism
from pcr_jax.scm import SCM
from pcr_jax.surrogates.linear import set_units
from pcr_jax.surrogates.priors import NormalMixture, Prior
from pcr_jax.surrogates.regression import padded_parents

# Steps are placed so far to both sides of the centre, in scales; beyond, parabolas are lines.
_REACH = 2.5
# How wide a step is, of the distance to the next.
_WIDTH = 0.7
# Standard deviations of the weights of lines, of squares and products, and of steps, and how
# probable each normal is: a line, a parabola, a curve that comes to an end on both sides.
_SHAPES = ((1.0, 0.01, 0.01), (1.0, 0.3, 0.01), (0.01, 0.01, 0.5))
_PROBABILITIES = (0.7, 0.15, 0.15)


def bent_square(parents: Array) -> Array:
    """Squares, which far from the centre go on as lines."""
    inside = jnp.clip(parents, -_REACH, _REACH)
    return inside * (2 * parents - inside)


@dataclass(frozen=True)
class _Basis:
    """Functions of one node's parents: parents, their squares, steps, products of each pair.

    As the function of a `Mechanism` its coefficients are weights, then each parent's centre and
    scale, then the node's own scale.
    """

    num_functions: int
    products: bool

    @property
    def places(self) -> np.ndarray:
        """Where steps are; (num_functions,)."""
        return np.linspace(-_REACH, _REACH, self.num_functions)

    @property
    def width(self) -> float:
        """Of a step."""
        return _WIDTH * 2 * _REACH / max(self.num_functions - 1, 1)

    def num_weights(self, num_parents: int) -> int:
        """How many functions there are of so many parents."""
        num_pairs = num_parents * (num_parents - 1) // 2 if self.products else 0
        return num_parents * (2 + self.num_functions) + num_pairs

    def of(self, parents: Array) -> Array:
        """All functions at ``parents`` (..., P), in scales from their centres; (..., M)."""
        steps = jnp.tanh((parents[..., None] - self.places) / self.width)
        parts = [parents, bent_square(parents), steps.reshape(*parents.shape[:-1], -1)]
        if self.products:
            pairs = combinations(range(parents.shape[-1]), 2)
            parts += [(parents[..., a] * parents[..., b])[..., None] for a, b in pairs]
        return jnp.concatenate(parts, -1)

    def __call__(self, coefficients: Array, parents: Array) -> Array:
        """The mechanism, in natural units."""
        num = parents.shape[-1]
        sizes = np.cumsum([self.num_weights(num), num, num])
        weights, centre, scale, own = jnp.split(coefficients, sizes, axis=-1)
        return own[..., 0] * jnp.sum(weights * self.of((parents - centre) / scale), -1)


@pytree(static=("graph", "basis"))
class BasisSurrogate:
    """SCMs whose mechanisms are linear in a basis. See `basis_surrogate`.

    Parameters
    ----------
    graph : Graph
    prior : Prior
        Of all weights, mechanism by mechanism.
    noise_mean : Array
        Shape (d,), natural units: E[U] in the expected answers to population questions.
    scale : Array or None
        Shape (d,), natural units.
    centre : Array
        Shape (d,), natural units: E[X] of the population, about which functions are placed.
    basis : _Basis
    """

    graph: Graph
    prior: Prior
    noise_mean: Array
    scale: Array | None
    centre: Array
    basis: _Basis

    multi_affine = False
    curved = True

    def __post_init__(self):
        _checks.capable(self.prior, Prior, "prior", "normal_prior(mean, sd)")
        set_units(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Of each weight, such as ``"savings <- income"`` and ``"savings <- income [1]"``."""
        return basis_names(self.graph, self.basis)

    @property
    def blocks(self) -> np.ndarray:
        """Which number each weight of a mechanism is, see `Regression`; (d, M)."""
        parents, basis = padded_parents(self.graph), self.basis
        most = parents.shape[1]
        blocks = np.full((len(parents), basis.num_weights(most)), -1)
        begin = 0
        for j, row in enumerate(parents):
            num = int((row >= 0).sum())
            at = _places_of(num, most, basis)
            blocks[j, at] = begin + np.arange(len(at))
            begin += len(at)
        return blocks

    def _parents(self, j, values):
        parents = jnp.asarray(padded_parents(self.graph))[j]
        return parents, jnp.take(values - jnp.asarray(self.centre), parents, axis=-1)

    def features(self, j: Array | int, values: Array) -> Array:
        """Node j's functions, see `Regression`; (..., M)."""
        there = jnp.asarray(self.blocks >= 0)[j]
        return jnp.where(there, self.basis.of(self._parents(j, values)[1]), 0.0)

    def slopes(self, j: Array | int, weights: Array, values: Array) -> Array:
        """Derivatives of node j's mechanism by its parents, see `Regression`; (..., P)."""
        parents, at = self._parents(j, values)
        there = jnp.asarray(self.blocks >= 0)[j]

        def total(at):
            return jnp.sum(jnp.where(there, weights, 0.0) * self.basis.of(at), -1)

        slopes = jax.grad(lambda at: total(at).sum())(at)
        return jnp.where(parents >= 0, slopes, 0.0)

    def standardised(self) -> BasisSurrogate:
        """The same family for features in units of ``scale``."""
        if self.scale is None:
            return self
        mean, centre = self.noise_mean / self.scale, self.centre / self.scale
        return BasisSurrogate(self.graph, self.prior, mean, None, centre, self.basis)

    def scm(self, theta: Array) -> SCM:
        """The SCM with weights ``theta`` (k,); `jax.vmap` it for a batch."""
        theta = _checks.array(theta, "theta", (len(self.names),))
        centre = jnp.asarray(self.centre)
        scale = jnp.ones_like(centre) if self.scale is None else jnp.asarray(self.scale)
        mechanisms, begin = [], 0
        for j, parents in enumerate(self.graph.parents):
            if not parents:
                mechanisms.append(Mechanism(jnp.zeros(0)))
                continue
            end = begin + self.basis.num_weights(len(parents))
            of_parents = np.array(parents)
            units = [centre[of_parents], scale[of_parents], scale[j][None]]
            coefficients = jnp.concatenate([theta[begin:end], *units])
            mechanisms.append(Mechanism(coefficients, self.basis))
            begin = end
        noise = [dist.Normal(0.0, sd) for sd in jnp.unstack(scale)]
        return SCM(self.graph, tuple(mechanisms), tuple(noise))

    def expected(self, theta: Array, questions: Questions, x: Array) -> Array:
        """The answers that ``theta`` leads to be expected; shape (T, d), natural units.

        To an individual question the counterfactual of ``x``. To a population question that of
        the population's mean: what E[X] is under the shift but for what curvature makes of the
        spread about it.

        Parameters
        ----------
        theta : Array
            Shape (k,).
        questions : Questions
            Of shape (T,).
        x : Array
            Shape (d,), natural units.
        """
        scm = self.scm(theta)
        own, mean = scm.abduct(jnp.asarray(x)), scm.abduct(jnp.asarray(self.centre))

        def one(node, shift, individual):
            action = Action.shift_node(node, shift, self.graph.num_nodes)
            return scm.predict(jnp.where(individual, own, mean), action)

        return jax.vmap(one)(questions.node, questions.shift, questions.individual)


def _places_of(num_parents: int, most: int, basis: _Basis) -> np.ndarray:
    """Where, among the functions of ``most`` parents, those of the first few are."""
    linear = np.arange(num_parents)
    steps = 2 * most + np.arange(num_parents * basis.num_functions)
    if not basis.products:
        return np.concatenate([linear, most + linear, steps])
    begin = most * (2 + basis.num_functions)
    pairs = [i for i, (_, b) in enumerate(combinations(range(most), 2)) if b < num_parents]
    return np.concatenate([linear, most + linear, steps, begin + np.array(pairs, int)])


def basis_names(graph: Graph, basis: _Basis) -> tuple[str, ...]:
    """A name for each weight, in the order of a mechanism's functions."""
    names: list[str] = []
    for child, parents in zip(graph.nodes, graph.parents, strict=True):
        causes = [graph.nodes[p] for p in parents]
        names += [f"{child} <- {cause}" for cause in causes]
        steps = range(1, basis.num_functions + 1)
        names += [f"{child} <- {cause} ^ 2" for cause in causes]
        names += [f"{child} <- {cause} [{i}]" for cause in causes for i in steps]
        if basis.products:
            names += [f"{child} <- {a} * {b}" for a, b in combinations(causes, 2)]
    return tuple(names)


def basis_surrogate(
    graph: Graph,
    *,
    scale: Sequence[float],
    centre: Sequence[float],
    num_functions: int = 8,
    products: bool = False,
    prior: Prior | None = None,
) -> BasisSurrogate:
    """Mechanisms linear in a basis: for every parent a linear term, a square and some steps.

    Parameters
    ----------
    graph : Graph
        With at least one edge.
    scale, centre : sequence of float
        Of the population, natural units, one per node: standard deviations and means, such as.
    num_functions : int
        Steps (tanh) for every parent, evenly placed within 2.5 scales of its centre.
    products : bool
        Whether products of two parents are functions too.
    prior : Prior, optional
        Of all weights, in units of ``scale``. By default those of a mechanism are normal with mean
        0; lines, squares and products, and steps have standard deviations of (1, .01, .01),
        (1, .3, .01) or (.01, .01, .5), of probabilities .7, .15 and .15.

    Raises
    ------
    TypeError
        If ``graph`` is no `Graph`, or something else is no number.
    ValueError
        If the graph has no edge, ``num_functions < 1``, or a sequence has another length or is not
        positive where it must be.
    """
    _checks.instance(graph, Graph, "graph")
    if not graph.edges:
        raise ValueError("Expected a graph with at least one edge; got none to infer.")
    _checks.count(num_functions, "num_functions")
    _checks.instance(products, bool, "products")
    for name, value in (("scale", scale), ("centre", centre)):
        if value is None:
            raise TypeError(f"Expected {name}, a number for every node; got None.")
    basis = _Basis(num_functions, products)
    if prior is None:
        prior = _of_any_shape(graph, basis)
    mean: Any = np.zeros(graph.num_nodes)
    unit: Any = scale
    middle: Any = centre
    return BasisSurrogate(graph, prior, mean, unit, middle, basis)


def _of_any_shape(graph: Graph, basis: _Basis) -> NormalMixture:
    """The default prior."""
    kinds: list[int] = []
    blocks: list[int] = []
    for parents in filter(None, graph.parents):
        num, total = len(parents), basis.num_weights(len(parents))
        num_steps = num * basis.num_functions
        kinds += [0] * num + [1] * num + [2] * num_steps + [1] * (total - 2 * num - num_steps)
        blocks += [max(blocks, default=-1) + 1] * total
    sds = [np.array(of_kinds)[kinds] for of_kinds in _SHAPES]
    factor: Any = np.stack([np.diag(sd) for sd in sds])
    weights: Any = np.array(_PROBABILITIES)
    mean: Any = np.zeros(factor.shape[:-1])
    return NormalMixture(weights, mean, factor, tuple(blocks))
