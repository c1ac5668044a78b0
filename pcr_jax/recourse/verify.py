"""Whether actions work: judged afresh, with perturbations that no search has seen.

A search keeps the perturbations that it has met, and its last action withstands all of them. What
is said of an action rests on others: random points of the ball, drawn for each user from a key and
the user's own features, then more of them around the worst, at shrinking distance, which needs no
gradient, and descents on the logit where the score has one. Where bounds prove the same of every
point of the ball (see `pcr_jax.recourse.certify`), that is said as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.batching import by_bucket, map_users, over_devices, take, width
from pcr_jax.recourse import lanes
from pcr_jax.recourse.adversary import Ball, attack, outcome
from pcr_jax.recourse.certify import certified
from pcr_jax.recourse.requirements.base import Nominal, Requirement
from pcr_jax.scm import SCM
from pcr_jax.scores import differentiable

_BLOCK, _BLOCKS = 2048, 4  # random points at once, and how often
_WORST, _NEAR = 32, 32  # of the worst points, so many more around each
_SHARES = (0.3, 0.1, 0.03, 0.01)  # of the radius, their distances
_DESCENTS, _STEPS = 16, 30
_WIDER = 1.001
_OVER_DRAWS = 8  # users at once under all draws of each
_FIRST_LANES, _LANES = 16, 2  # users at once, for each unit of `width`


class Withstood(NamedTuple):
    """What the perturbations of a ball do to every user's action.

    Attributes
    ----------
    logit : Array
        Shape (num_users,): the lowest that was found.
    delta : Array
        Shape (num_users, d): where, in units of ``scale``.
    certified : ndarray
        Shape (num_users,): whether bounds prove that none of the ball does.
    num_perturbations : ndarray
        Shape (num_users,): how many were tried that no search knows; 0 for those that are proved,
        or broken before.
    """

    logit: Array
    delta: Array
    certified: np.ndarray
    num_perturbations: np.ndarray


@jax.jit
def _outcomes(requirement, score, scms, x, action):
    def verify(shared, *users):
        requirement, score = shared
        chunk = {"chunk": _OVER_DRAWS} if requirement.over_draws else {}
        return map_users(partial(requirement.expected, score), *users, **chunk)

    return over_devices(verify, (requirement, score), scms, x, action)


def outcomes(
    score: Callable, scms: SCM, x: Array, action: Action, requirement: Requirement | None = None
) -> tuple[Array, Array]:
    """Features (num_users, d) and logits (num_users,) that are expected to follow from the actions.

    ``requirement`` is of the worlds ``scms``; `Nominal` by default.
    """
    requirement = Nominal() if requirement is None else requirement
    return by_bucket(lambda _, *users: _outcomes(requirement, score, *users), scms, x, action)


def own_key(key: Array, x: Array) -> Array:
    """A key of the user's own, the same in any batch: from ``key`` and the features (d,)."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32).ravel()
    return jax.lax.scan(lambda k, b: (jax.random.fold_in(k, b), None), key, bits)[0]


def examine(
    key: Array, score: Callable, scm: SCM, x: Array, action: Action, scale: Array, ball: Ball
) -> tuple[Array, Array]:
    """The lowest logit found in the ball, and where (d,), in units of ``scale``; one user.

    Stronger than `pcr_jax.recourse.adversary.attack`, which searches use, and random; see the
    module. Parameters as there. The ball is taken a little wider, as random points leave gaps.
    """
    num_nodes = x.shape[-1]
    ball = Ball(_WIDER * ball.radius, ball.norm)

    def logit(delta):
        value = outcome(score, scm, x, action, scale, delta)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def worst_of(kept, points):
        values = jnp.concatenate([kept[0], jax.vmap(logit)(points)])
        least, places = jax.lax.top_k(-values, _WORST)
        return -least, jnp.concatenate([kept[1], points])[places]

    def anywhere(kept, key):
        return worst_of(kept, ball.sample(key, _BLOCK, num_nodes)), None

    def around(kept, at):
        key, share = at
        steps = jax.random.normal(key, (_WORST, _NEAR, num_nodes))
        near = kept[1][:, None] + share * ball.radius * steps
        return worst_of(kept, jax.vmap(ball.project)(near.reshape(-1, num_nodes))), None

    k_anywhere, k_around = jax.random.split(key)
    kept = (jnp.full(_WORST, jnp.inf), jnp.zeros((_WORST, num_nodes)))
    kept = worst_of(kept, jnp.zeros((1, num_nodes)))
    kept, _ = jax.lax.scan(anywhere, kept, jax.random.split(k_anywhere, _BLOCKS))
    nearer = (jax.random.split(k_around, len(_SHARES)), jnp.array(_SHARES))
    kept, _ = jax.lax.scan(around, kept, nearer)
    if differentiable(score):

        def descend(start):
            def step(carry, share):
                at, lowest, where = carry
                value, gradient = jax.value_and_grad(logit)(at)
                lower = value < lowest
                lowest, where = jnp.where(lower, value, lowest), jnp.where(lower, at, where)
                return (ball.project(at - share * ball.steepest(gradient)), lowest, where), None

            shares = 0.5 * 0.85 ** jnp.arange(_STEPS)
            (_, lowest, where), _ = jax.lax.scan(step, (start, jnp.inf, start), shares)
            return lowest, where

        ends, where = jax.vmap(descend)(kept[1][:: _WORST // _DESCENTS])
        kept = jnp.concatenate([kept[0], ends]), jnp.concatenate([kept[1], where])
    worst = jnp.argmin(kept[0])
    return kept[0][worst], kept[1][worst]


def _num_examined(score: Callable) -> int:
    """How many perturbations `examine` tries."""
    descents = _DESCENTS * _STEPS * differentiable(score)
    return 1 + _BLOCK * _BLOCKS + _WORST * _NEAR * len(_SHARES) + descents


@jax.jit
def _first(score, scale, ball, chosen, scms, x, action, logit):
    """`attack` on the chosen."""

    def search(shared, chosen, *users):
        score, scale, ball = shared

        def one(scm, x, action, logit):
            delta, worst = attack(score, scm, x, action, scale, ball)
            return jnp.minimum(logit, jnp.where(jnp.isnan(worst), -jnp.inf, worst)), delta

        unset = users[-1], jnp.zeros_like(users[1])
        return lanes.once(_FIRST_LANES * width(), one, chosen, users, unset)

    return over_devices(search, (score, scale, ball), chosen, scms, x, action, logit)


@jax.jit
def _examine(key, score, scale, ball, chosen, scms, x, action, logit, delta):
    """`examine` on the chosen."""

    def search(shared, chosen, *users):
        key, score, scale, ball = shared

        def one(scm, x, action, logit, delta):
            worst, where = examine(own_key(key, x), score, scm, x, action, scale, ball)
            lower = worst < logit
            return jnp.where(lower, worst, logit), jnp.where(lower, where, delta)

        return lanes.once(_LANES * width(), one, chosen, users, users[-2:])

    shared = (key, score, scale, ball)
    return over_devices(search, shared, chosen, scms, x, action, logit, delta)


def withstand(
    key: Array,
    score: Callable,
    scms: SCM,
    x: Array,
    action: Action,
    scale: Array,
    ball: Ball,
    logit: Array,
    chosen: np.ndarray,
) -> Withstood:
    """Look for perturbations that break the actions of the ``chosen`` (num_users,), boolean.

    A cheaper attack comes first; for those who withstand it a proof, and `examine` where there is
    none. ``logit`` (num_users,) is that of the unperturbed; where it is negative nothing is tried.
    """
    chosen = chosen & np.asarray(logit >= 0)
    lowest, delta = logit, jnp.zeros_like(x)
    proved = np.zeros(len(x), bool)
    num = np.zeros(len(x), int)
    if chosen.any():
        lowest, delta = by_bucket(
            lambda real, c, *users: _first(score, scale, ball, c & real, *users),
            *(chosen, scms, x, action, lowest),
        )
        chosen = chosen & np.asarray(lowest >= 0)
        rows = np.flatnonzero(chosen)
        if rows.size:
            theirs = take((scms, x, action), rows)
            proved[rows] = certified(score, theirs[0], theirs[1], theirs[2], scale, ball)
        chosen &= ~proved
    if chosen.any():
        lowest, delta = by_bucket(
            lambda real, c, *users: _examine(key, score, scale, ball, c & real, *users),
            *(chosen, scms, x, action, lowest, delta),
        )
        num[chosen] = _num_examined(score)
    return Withstood(lowest, delta, proved, num)
