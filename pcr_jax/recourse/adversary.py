"""Perturbations Delta in the epsilon-ball that precede the action (Eq. 2 of the paper).

A perturbation is a soft intervention on all nodes, propagated by the SCM: the perturbed user is
``CF(x, Delta; M)``, with the norm of Delta in units of ``scale`` at most epsilon.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.scm import SCM
from pcr_jax.scores import differentiable

NORMS = ("l2", "linf")


@pytree(static=("norm",))
class Ball:
    """The perturbations to withstand: those of norm at most ``radius``, in units of ``scale``."""

    radius: Array
    norm: str = "l2"

    def project(self, delta: Array) -> Array:
        """The nearest point (d,) of the ball."""
        if self.norm == "l2":
            return optax.projections.projection_l2_ball(delta, self.radius)
        return optax.projections.projection_linf_ball(delta, self.radius)

    def steepest(self, gradient: Array) -> Array:
        """The point (d,) of norm ``radius`` furthest along ``gradient``; 0 where that is 0."""
        return self.radius * (unit(gradient) if self.norm == "l2" else jnp.sign(gradient))

    def lowest(self, score: Callable, scm: SCM, x: Array, action: Action, scale: Array) -> Array:
        """The lowest logit in the ball, to first order, or on the axes where there is no gradient.

        An upper bound on it, at little cost: `attack` looks harder.
        """
        after = partial(outcome, score, scm, x, action, scale)
        centre = jnp.zeros_like(x)
        if differentiable(score):
            logit, slope = jax.value_and_grad(after)(centre)
            return jnp.minimum(logit, after(self.steepest(-slope)))
        return jax.vmap(after)(jnp.concatenate([centre[None], self.surface(0, x.size)])).min()

    def surface(self, num_directions: int, num_nodes: int) -> Array:
        """The same points of norm ``radius`` at every call, shape (num_points, d).

        The poles of every axis (or, of a cube, its corners if there are no more than
        ``num_directions``), then fixed random ones.
        """
        with jax.ensure_compile_time_eval():
            normal = jax.random.normal(jax.random.key(0), (num_directions, num_nodes))
        axes = jnp.eye(num_nodes)
        if self.norm == "l2":
            random = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
            return self.radius * jnp.concatenate([axes, -axes, random])
        corners = jnp.sign(normal)
        if 2**num_nodes <= num_directions:
            every = np.array(list(product((-1.0, 1.0), repeat=num_nodes)))
            largest = jnp.abs(normal).max(axis=1, keepdims=True)
            corners = jnp.concatenate([every, (normal / largest)[: -len(every)]])
        return self.radius * jnp.concatenate([axes, -axes, corners])

    def sample(self, key: Array, num_points: int, num_nodes: int) -> Array:
        """Random points (num_points, d): of the surface, half of them; inside; on few axes."""
        k_way, k_length, k_axes = jax.random.split(key, 3)
        way = jax.random.normal(k_way, (num_points, num_nodes))
        kind = jnp.arange(num_points) % 4
        few = jax.random.bernoulli(k_axes, 0.5, way.shape)
        way = jnp.where((kind == 2)[:, None] & few & ~few.all(1, keepdims=True), 0.0, way)
        length = jax.random.uniform(k_length, (num_points, 1)) ** (1 / num_nodes)
        length = jnp.where((kind == 3)[:, None], length, 1.0)
        if self.norm == "l2":
            return self.radius * length * jax.vmap(unit)(way)
        corners = jnp.sign(way)
        faces = way / jnp.abs(way).max(1, keepdims=True)
        return self.radius * length * jnp.where((kind < 2)[:, None], corners, faces)


def outcome(
    score: Callable, scm: SCM, x: Array, action: Action, scale: Array, delta: Array
) -> Array:
    """Logit after the perturbation ``delta`` (d,), in units of ``scale``, then the action."""
    perturbed = scm.counterfactual(x, Action.soft(delta * scale))
    return score(scm.counterfactual(perturbed, action))


def unit(vector: Array) -> Array:
    """``vector`` at length 1, or 0 where it is 0; without 0/0."""
    largest = jnp.max(jnp.abs(vector))
    vector = vector / jnp.where(largest > 0, largest, 1.0)  # tiny gradients do not underflow
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm > 0, norm, 1.0)


def attack(
    score: Callable,
    scm: SCM,
    x: Array,
    action: Action,
    scale: Array,
    ball: Ball,
    *,
    num_directions: int = 64,
    num_starts: int = 6,
    num_steps: int = 10,
) -> tuple[Array, Array]:
    """The perturbation that lowers the logit most, of those tried, and that logit; one user.

    Fixed points of the ball's surface and half-way to it, the centre, the surface's point towards
    the mean of the bad ones; around the worst of them, at shrinking distance, more fixed points,
    which needs no gradient; and where the score has one,
    projected gradient descent on the logit from the ``num_starts`` worst, the best point of every
    path kept.

    Parameters
    ----------
    x : Array
        Shape (d,), natural units.
    action : Action
        Of shape (d,).
    scale : Array
        Shape (d,), natural units.
    ball : Ball

    Returns
    -------
    delta : Array
        Shape (d,), units of ``scale``.
    logit : Array
        Shape ().
    """
    num_nodes = x.shape[-1]

    def logit(delta):
        return outcome(score, scm, x, action, scale, delta)

    def worst_of(points, values):
        worst = jnp.argmin(values)
        return points[worst], values[worst]

    surface = ball.surface(num_directions, num_nodes)
    points = jnp.concatenate([jnp.zeros((1, num_nodes)), surface, surface / 2])
    values = jax.vmap(logit)(points)
    # Where the score is a step, all that fail are as bad: the middle of them is furthest inside.
    badness = jnp.nan_to_num(values.max() - values)
    middle = ball.steepest(badness @ points)
    points = jnp.concatenate([middle[None], points])
    values = jnp.concatenate([logit(middle)[None], values])

    def around(best, share):
        near = jax.vmap(ball.project)(best[0] + share * surface)
        return worst_of(
            jnp.concatenate([best[0][None], near]),
            jnp.concatenate([best[1][None], jax.vmap(logit)(near)]),
        ), None

    shares = jnp.array([0.5, 0.2, 0.08])
    best, _ = jax.lax.scan(around, worst_of(points, values), shares)
    if not differentiable(score):
        return best

    def descend(start):
        def step(carry, share):
            at, best, lowest = carry
            value, gradient = jax.value_and_grad(logit)(at)
            best = jnp.where(value < lowest, at, best)
            moved = ball.project(at - share * ball.steepest(gradient))
            return (moved, best, jnp.minimum(lowest, value)), None

        shares = 0.7 ** jnp.arange(num_steps + 1)
        (_, best, lowest), _ = jax.lax.scan(step, (start, start, jnp.inf), shares)
        return best, lowest

    _, starts = jax.lax.top_k(-values, num_starts - 1)
    ends, end_values = jax.vmap(descend)(jnp.concatenate([best[0][None], points[starts]]))
    return worst_of(
        jnp.concatenate([best[0][None], ends]), jnp.concatenate([best[1][None], end_values])
    )
