"""Perturbations Delta in the epsilon-ball that precede the action (Eq. 2 of the paper).

A perturbation is a soft intervention on all nodes, propagated by the SCM: the perturbed user is
``CF(x, Delta; M)``, with the L2 norm of Delta in units of ``scale`` at most epsilon.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.scm import SCM


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


def fixed_directions(num_directions: int, num_nodes: int) -> Array:
    """The same random unit vectors at every call, shape (num_directions, d)."""
    normal = jax.random.normal(jax.random.key(0), (num_directions, num_nodes))
    return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)


def worst_outcome(
    score: Callable,
    scm: SCM,
    x: Array,
    action: Action,
    scale: Array,
    epsilon: Array,
    *,
    num_starts: int = 8,
    num_steps: int = 10,
    num_directions: int = 128,
) -> Array:
    """The lowest logit found in the epsilon-ball, for one user; shape ().

    Stronger than the one-step attack of Algorithm 1: projected gradient descent on the logit from
    the centre and several points of the sphere, the best point of every path kept, besides the
    two poles of every axis and ``num_directions`` fixed random points of the sphere, which need
    no gradient.

    Parameters
    ----------
    x : Array
        Shape (d,), natural units.
    action : Action
        Of shape (d,).
    scale : Array
        Shape (d,), natural units.
    epsilon : Array
        Radius of the ball, in units of ``scale``.
    """
    num_nodes = x.shape[-1]

    def logit(delta):
        return outcome(score, scm, x, action, scale, delta)

    axes = jnp.eye(num_nodes)
    sphere = jnp.concatenate([axes, -axes, fixed_directions(num_directions, num_nodes)])
    sampled = jax.vmap(logit)(epsilon * sphere).min()

    def descend(start):
        def step(carry, _):
            delta, worst = carry
            value, gradient = jax.value_and_grad(logit)(delta)
            moved = delta - 0.5 * epsilon * unit(gradient)
            delta = optax.projections.projection_l2_ball(moved, epsilon)
            return (delta, jnp.minimum(worst, value)), None

        (delta, worst), _ = jax.lax.scan(step, (start, jnp.inf), length=num_steps)
        return jnp.minimum(worst, logit(delta))

    starts = epsilon * jnp.concatenate([jnp.zeros((1, num_nodes)), sphere[-num_starts + 1 :]])
    return jnp.minimum(sampled, jax.vmap(descend)(starts).min())
