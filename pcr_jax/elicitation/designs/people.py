"""What designs that look ahead know of a person: draws, what may be asked, what would be answered.

Mathematics for one person, of whom there is one after the other: a person's question is worth
some matrix products over stored draws, and costs no sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import chunks_of, take, width
from pcr_jax.elicitation.designs.base import Belief, check_problem
from pcr_jax.graph import Graph
from pcr_jax.history import History, Questions
from pcr_jax.surrogates import for_users, in_scale

LEAST = 0.25
"""Smaller shifts are not asked about, in scales: noise hides what follows."""


class Person(NamedTuple):
    """One person; of several, every leaf has a leading axis of them.

    Attributes
    ----------
    number : Array
        Shape (): which of the users it is.
    surrogates : tuple of Surrogate
        In natural units, and in those of its scale.
    x, unit : Array
        Shape (d,), natural units: the person's features, and the surrogate's scale.
    low, high : Array
        Shape (d,), in units of the scale: what shifts may be asked about; both 0 where none.
    draws : Array
        Shape (S, dim): of all that is unknown, the surrogate's k numbers first.
    known : Array
        Shape (): whether the person has a posterior.
    """

    number: Array
    surrogates: tuple[Any, Any]
    x: Array
    unit: Array
    low: Array
    high: Array
    draws: Array
    known: Array

    @property
    def num_numbers(self) -> int:
        """Of the surrogate."""
        return len(self.surrogates[0].names)


def askable(belief: Belief, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """What shifts may be asked about, the smallest and the largest; see `Person`.

    From ``low`` to ``high``, of nodes that have descendants; where there is a problem, within the
    bounds of what the person can do.
    """
    graph = belief.surrogate.graph
    shape = (belief.history.num_users, graph.num_nodes)
    least, most = (
        np.broadcast_to(np.where(graph.descendants.any(1), end, 0.0), shape) for end in (low, high)
    )
    if belief.problem is None:
        return least, most
    lower, upper = (np.asarray(bound) / unit_of(belief) for bound in belief.problem.bounds)
    return np.clip(lower, least, most), np.clip(upper, least, most)


def unit_of(belief: Belief) -> np.ndarray:
    """Every user's scale, (num_users, d)."""
    scale = getattr(belief.surrogate, "scale", None)
    shape = np.shape(belief.history.x)
    return np.broadcast_to(1.0 if scale is None else np.asarray(scale), shape)


class Sizes(NamedTuple):
    """What programs that look ahead are compiled for, of a design's settings."""

    num_candidates: int
    num_truths: int
    individual: bool
    report: str

    @classmethod
    def of(cls, design: Any) -> Sizes:
        """Those of a design."""
        return cls(design.num_candidates, design.num_truths, design.individual, design.report)


def check_settings(design: Any) -> None:
    """Raise for settings of a design that are wrong."""
    for name, value in vars(design).items():
        if name.startswith("num_"):
            _checks.count(value, name)
    _checks.positive(design.reach, "reach", ())
    check_asking(design)


def check_asking(design: Any) -> None:
    """Raise for settings that all designs have and that are wrong."""
    _checks.instance(design.individual, bool, "individual")
    _checks.choice(design.report, ("all", "one"), "report")


def check_belief(belief: Any, design: Any) -> None:
    """Raise for a belief that lacks what a design needs, or is of other users."""
    _checks.instance(belief, Belief, "belief")
    posteriors, problem, num_users = belief.posteriors, belief.problem, belief.history.num_users
    if posteriors is None:
        raise ValueError(f"Expected posteriors in belief for {design}; got none.")
    if not all(hasattr(posteriors, name) for name in ("flat", "likelihood")):
        raise TypeError(
            f"Expected posteriors to be Posteriors, as from infer; got {_checks.shown(posteriors)}."
        )
    if len(posteriors.flat) != num_users:
        raise ValueError(f"Expected posteriors of {num_users} users; got {len(posteriors.flat)}.")
    if problem is not None or getattr(design, "needs_problem", False):
        check_problem(problem, np.shape(belief.history.x), belief.surrogate.graph, design)


def check_generative(likelihood: Any, design: Any) -> None:
    """Raise ValueError unless answers can be simulated under a likelihood."""
    if not all(hasattr(likelihood, name) for name in ("simulate", "pointwise")):
        raise ValueError(
            "Expected a likelihood under which answers can be simulated, such as mixture(), for "
            f"{design}; got {_checks.shown(likelihood)}."
        )


def people_of(belief: Belief, reach: float, num_draws: int) -> Person:
    """All users, with ``num_draws`` draws of each, or as many as there are; on the host."""
    num_users, draws = belief.history.num_users, belief.posteriors.flat
    num = min(num_draws, draws.shape[1])
    draws = draws[:, (np.arange(num) * draws.shape[1]) // num]
    known = np.isfinite(draws).all((1, 2))
    dtype = jnp.result_type(float)
    low, high = askable(belief, -reach, reach)
    arrays: list[Any] = [
        np.asarray(belief.history.x, dtype),
        unit_of(belief).astype(dtype),
        low.astype(dtype),
        high.astype(dtype),
        np.where(known[:, None, None], draws, 0.0).astype(dtype),
        known,
    ]
    natural = for_users(belief.surrogate, num_users)
    standard = for_users(in_scale(belief.surrogate, belief.history)[0], num_users)
    number: Any = np.arange(num_users)
    return Person(number, (natural, standard), *arrays)


def for_each(function: Callable, *of_users: Any) -> Any:
    """``function`` of some users' rows at once: as few as one, or as many as a `width`."""
    parts = []
    for some, padded in chunks_of(np.arange(len(jax.tree.leaves(of_users)[0])), width()):
        parts.append(take(function(*take(of_users, padded)), slice(len(some))))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def candidates(key: Array, low: Array, high: Array, num: int) -> tuple[Array, Array]:
    """Questions to one person: nodes (num,), -1 if there are none, and shifts (num,).

    Nodes take turns, beginning anywhere; each one's shifts are spread over its range.
    """
    k_node, k_shift = jax.random.split(key)
    may = (low < 0) | (high > 0)
    order, count = jnp.argsort(~may), jnp.maximum(may.sum(), 1)
    turn = jnp.arange(num) + jax.random.randint(k_node, (), 0, count)
    node = order[turn % count]
    rounds = -(-num // count)
    part = (jnp.arange(num) // count + jax.random.uniform(k_shift, (num,))) / rounds
    # A round that is not full has the first nodes alone: their shifts begin anywhere as well.
    part = (part + jax.random.uniform(jax.random.fold_in(k_shift, 0), (low.size,))[node]) % 1.0
    shift = low[node] + part * (high - low)[node]
    return jnp.where(may.any(), node, -1), away(shift, low[node], high[node])


def away(shift: Array, low: Array, high: Array) -> Array:
    """Shifts that are not too small to ask about, as far as their range allows."""
    up = jnp.where(shift == 0, high >= -low, shift > 0)
    up = jnp.where(up, high > 0, low >= 0)
    return jnp.clip(jnp.where(up, jnp.maximum(shift, LEAST), jnp.minimum(shift, -LEAST)), low, high)


def asked_for(key: Array, graph: Graph, node: Array, report: str) -> Array:
    """Outcomes of questions about ``node`` (Q,): random ones where people report one; (Q,)."""
    if report == "all":
        return jnp.full(node.shape, -1)
    descendants = jnp.asarray(graph.descendants)[node]
    one = jax.random.categorical(key, jnp.where(descendants, 0.0, -jnp.inf))
    return jnp.where(node >= 0, one, -1)


def foreseen(
    key: Array, likelihood: Any, person: Person, questions: Questions, truths: Array
) -> Array:
    """Log probability under every draw of answers simulated under some, ``truths`` (n,).

    To ``questions`` of shape (Q,), in units of the scale. Shape (Q, n, S).
    """
    surrogate, k = person.surrogates[1], person.num_numbers
    x = person.x / person.unit
    keys, unknowns = jax.random.split(key, len(truths)), person.draws[:, k:]

    def of(question):
        questions = jax.tree.map(lambda leaf: leaf[None], question)
        silence = jnp.full((1, x.size), jnp.nan)
        bound = likelihood.bound(surrogate, History(questions, silence, x))
        expected = jax.vmap(lambda z: surrogate.expected(z[:k], questions, x))(person.draws)
        answer = jax.vmap(bound.simulate)(keys, unknowns[truths], expected[truths])
        answer = jnp.where(question.outcomes(surrogate.graph), answer, jnp.nan)
        under = jax.vmap(bound.pointwise, (0, 0, None))
        return jax.vmap(under, (None, None, 0))(unknowns, expected, answer)[..., 0]

    return jax.vmap(of)(questions)


def chosen(questions: Questions, best: Array, person: Person) -> Questions:
    """The ``best`` of some questions (Q,), with its shift in natural units; shape ()."""
    one = jax.tree.map(lambda leaf: leaf[best], questions)
    return replace(one, shift=one.shift * person.unit[one.node])


def information(log_probability: Array, truths: Array) -> Array:
    """What answers are expected to tell of all that is unknown, in nats; (Q,).

    Prior contrastive estimation (Foster et al. 2020) from ``log_probability`` (Q, n, S) as
    `foreseen`: at most the logarithm of the number S of draws.
    """
    own = jnp.take_along_axis(log_probability, truths[None, :, None], -1)[..., 0]
    evidence = jax.nn.logsumexp(log_probability, -1) - np.log(log_probability.shape[-1])
    return jnp.mean(own - evidence, -1)
