"""Small problems that many tests use."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from pcr_jax.actions import Action
from pcr_jax.elicitation import RandomDesign
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions
from pcr_jax.likelihoods import Likelihood
from pcr_jax.scm import linear_scm
from pcr_jax.surrogates import Box

# The paper's questions.
POPULATION = RandomDesign(0.0, 1.0, individual=False)


def network(*layers):
    """A score from (kernel, bias) of three layers, the hidden ones padded to 16 tanh units.

    One form for many tests, so that they share the programs of the optimal solver, which are dear:
    with up to 8 users, or 20, of linear SCMs on a graph of three nodes.
    """
    params = {}
    for i, (kernel, bias) in enumerate(layers):
        shape = (3 if i == 0 else 16, 1 if i == 2 else 16)
        padded, offset = np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)
        padded[: len(kernel), : len(kernel[0])] = kernel
        offset[: len(bias)] = bias
        params[f"Dense_{i}"] = {"kernel": jnp.asarray(padded), "bias": jnp.asarray(offset)}
    return pcr.Classifier(pcr.MLP((16, 16)), {"params": params}, jnp.zeros(3), jnp.ones(3))


def curved_network(scale, seed=0):
    """Random weights, whose decision boundary is curved; features in units of ``scale`` (3,)."""
    rng = np.random.default_rng(seed)
    sizes = [(3, 16, 1.5), (16, 16, 1.5), (16, 1, 2.5)]
    layers = [
        (factor * rng.normal(size=(n, m)) / np.sqrt(n), 0.3 * rng.normal(size=m))
        for n, m, factor in sizes
    ]
    layers[0] = (layers[0][0] / np.asarray(scale)[:, None], layers[0][1])
    return network(*layers)


def linear_network(weight, bias, size=1e-3):
    """``weight @ x + bias``, to some 1e-5: units of that ``size``, where tanh is straight."""
    first = size * np.asarray(weight)[:, None]
    return network((first, [0]), ([[1]], [0]), ([[1 / size]], [bias]))


def mapped(function, in_axes=0):
    """`jax.vmap` as one program: many operations one by one take longer to compile."""
    return jax.jit(jax.vmap(function, in_axes))


def history_of(node, shift, answer):
    """A history of population questions, made by hand, of people whose features are 0."""
    *users, _, num_nodes = np.shape(answer)
    return History(Questions(node, shift), answer, jnp.zeros((*users, num_nodes)))


def answers_to(key, truth, x, num_queries, error_rate=0.1):
    """A history of population questions, which users err in with theta* (Eq. 4)."""
    user = pcr.SimulatedUser(truth, error_rate=error_rate, wrong=pcr.library.theta_star())
    return pcr.elicit(key, user, x, num_queries=num_queries, design=POPULATION)


def arrays_of(history):
    """Node, shift and answer of a history in NumPy."""
    questions = history.questions
    return tuple(map(np.asarray, (questions.node, questions.shift, history.answer)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Answers with normal noise: a likelihood without hard support."""

    sd: float

    def log_prob(self, unknowns, expected, answer):
        gap = (expected - jnp.where(jnp.isnan(answer), expected, answer)) / self.sd
        each = -(gap**2) / 2 - jnp.log(self.sd * jnp.sqrt(2 * jnp.pi))
        return jnp.sum(jnp.where(jnp.isnan(answer), 0.0, each))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianOfUnknownNoise(Likelihood):
    """The same with a standard deviation that is inferred."""

    prior: Box
    names = ("sd",)

    def log_prob(self, unknowns, expected, answer):
        return Gaussian(unknowns[0]).log_prob(None, expected, answer)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneEffect:
    """Linear SCMs with the same effect along every edge."""

    graph: Graph = field(metadata={"static": True})
    prior: Any
    names = ("effect",)
    multi_affine = False

    def scm(self, theta):
        return linear_scm(self.graph, jnp.repeat(theta, len(self.graph.edges)))

    def expected(self, theta, questions, x):
        scm = self.scm(theta)

        def one(node, shift, individual):
            action = Action.shift_node(node, shift, self.graph.num_nodes)
            return scm.predict(jnp.where(individual, scm.abduct(x), 0.0), action)

        return jax.vmap(one)(questions.node, questions.shift, questions.individual)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Exponential:
    """Independent exponential numbers: a prior that is no box."""

    mean: Any
    box = None

    @property
    def batch_shape(self):
        return self.mean.shape[:-1]

    def log_prob(self, theta):
        inside = jnp.where(theta >= 0, 0.0, -jnp.inf)
        return jnp.sum(inside - theta / self.mean - jnp.log(self.mean))

    def from_unit(self, unit):
        return -self.mean * jnp.log1p(-unit)

    def from_real(self, real):
        theta = jnp.exp(real)
        return theta, self.log_prob(theta) + real.sum()

    def to_real(self, theta):
        return jnp.log(theta)
