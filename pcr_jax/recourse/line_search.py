"""A fine line search over single features and pairs: a reference for the optimum.

With the L1 cost the cheapest action changes a single feature for most users. Along every signed
axis, and along directions between two of them, the score is evaluated on a grid of costs and the
first crossing is refined by bisection. The result is an upper bound on the optimal cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.batching import map_users
from pcr_jax.recourse.adversary import fixed_directions, outcome
from pcr_jax.scm import SCM

MAX_COST = 6.0
_STEP = 0.1
_BISECTIONS = 12
_ROBUST_RAYS = 6


def directions(num_nodes: int, num_ratios: int = 7) -> np.ndarray:
    """Directions of L1 norm 1: signed axes, then pairs of them in several ratios."""
    axes = np.concatenate([np.eye(num_nodes), -np.eye(num_nodes)])
    pairs = [
        share * axes[i] + (1 - share) * axes[j]
        for i, j in combinations(range(2 * num_nodes), 2)
        if i % num_nodes != j % num_nodes
        for share in np.arange(1, num_ratios + 1) / (num_ratios + 1)
    ]
    return np.array([*axes, *pairs])


def _first_crossing(value: Callable[[Array], Array], grid: Array) -> Array:
    """The smallest t at which ``value`` turns non-negative on the grid, refined; or infinity."""
    favourable = jax.vmap(value)(grid) >= 0
    first = jnp.argmax(favourable)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        good = value(middle) >= 0
        return jnp.where(good, low, middle), jnp.where(good, middle, high)

    bracket = (grid[jnp.maximum(first - 1, 0)], grid[first])
    _, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bracket)
    return jnp.where(favourable.any(), high, jnp.inf)


@jax.jit
def line_search(score: Callable, scms: SCM, x: Array, scale: Array, epsilon: Array | None):
    """Cost of the cheapest action found for every user, shape (num_users,); infinite if none.

    Parameters
    ----------
    score
        See `find_recourse`.
    scms : SCM
        With leading axis (num_users,).
    x : Array
        Shape (num_users, d), natural units.
    scale : Array
        Shape (d,), natural units.
    epsilon : Array or None
        With a radius, the action must also withstand the poles and 16 fixed random points of the
        ball; only the cheapest unperturbed rays are followed.
    """
    num_nodes = x.shape[1]
    rays = jnp.asarray(directions(num_nodes))
    axes = jnp.eye(num_nodes)
    sphere = jnp.concatenate([axes, -axes, fixed_directions(16, num_nodes)])

    def one(scm, x):
        def value(delta, ray, t):
            return outcome(score, scm, x, Action.soft(t * ray * scale), scale, delta)

        def nominal(ray):
            grid = jnp.arange(0.0, MAX_COST + _STEP, _STEP)
            return _first_crossing(partial(value, jnp.zeros(num_nodes), ray), grid)

        cost = jax.vmap(nominal)(rays)
        if epsilon is None:
            return cost.min()

        def robust(ray, start):
            def worst(t):
                attacked = jax.vmap(lambda delta: value(delta, ray, t))(epsilon * sphere)
                return jnp.minimum(attacked.min(), value(jnp.zeros(num_nodes), ray, t))

            grid = jnp.where(jnp.isfinite(start), start, 0.0) + jnp.arange(0.0, 2.0, _STEP)
            return jnp.where(jnp.isfinite(start), _first_crossing(worst, grid), jnp.inf)

        _, cheapest = jax.lax.top_k(-cost, _ROBUST_RAYS)
        return jax.vmap(robust)(rays[cheapest], cost[cheapest]).min()

    return map_users(one, scms, x, chunk=32)
