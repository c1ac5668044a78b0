"""A score that stays favourable, whatever perturbation of a ball precedes the action.

As cutting planes: a working set of perturbations, at first the centre, to which an attack on every
solution adds the one that breaks it. Every relaxed problem's optimum is a lower bound on the robust
one. Perturbations that come one by one take long to outline the ball to a score that is flat at the
solution, and attacks on it see little: those users go on with fixed points that outline the ball.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.recourse.adversary import Ball, attack, outcome
from pcr_jax.recourse.requirements.base import Nominal, Verified
from pcr_jax.recourse.verify import withstand

FEW = 4
"""Perturbations to withstand before the ball is outlined."""
OUTLINE = 128
"""Random points of its surface, besides poles or corners."""
OUTLINE_INFLATION = 1.08
"""So that nothing of the ball sticks out between them, for 3 nodes."""
WORKING_SET = 20
"""Perturbations besides the few and the outline."""
LOOKED_AT = 9
"""Moves, of those that withstand the working set, held against the outline."""
INFLATION = 1.005
"""Of the ball that is searched, so that later, stronger attacks fail as well."""


class Perturbations(NamedTuple):
    """What an action has to withstand, the outline aside."""

    deltas: Array  # (room, d), units of ``scale``
    number: Array  # () how many of them there are
    stuck: Array  # () bool: a few do not settle it


@pytree(static=("norm",))
class Robust(Nominal):
    """The score stays favourable under every perturbation of a ball (Eq. 2 of the paper).

    Attributes
    ----------
    epsilon : Array
        Shape (), positive: the ball's radius, in units of ``scale``.
    norm : {"l2", "linf"}
    outline : Array, optional
        Shape (n, d): perturbations that outline the ball; of the one that looks `closer`.
    """

    epsilon: Array
    norm: str = "l2"
    outline: Array | None = None

    grows = True

    @property
    def ball(self) -> Ball:
        """The perturbations to withstand."""
        return Ball(self.epsilon, self.norm)

    def begin(self, num_nodes):
        """The centre."""
        deltas = jnp.zeros((FEW + WORKING_SET, num_nodes))
        return Perturbations(deltas, jnp.asarray(1), jnp.asarray(False))

    def logit(self, case, scenario):
        """The logit after a perturbation (d,), then the action."""
        return outcome(*case, scenario)

    def margin(self, state, values_of):
        """The lowest value over all perturbations.

        Of the outline's only for the deepest moves: others do not count as favourable.
        """
        own, bindings = self.own_margin(state, values_of)
        if self.outline is None:
            return own, bindings
        deepest = jax.lax.top_k(own, min(LOOKED_AT, len(own)))[1]
        far, where = self._lowest(values_of(self.outline, deepest))
        unknown = jnp.minimum(own, -jnp.finfo(own.dtype).tiny)
        values = unknown.at[deepest].set(jnp.minimum(own[deepest], far))
        outlined = jnp.where(far < own[deepest], len(state.deltas) + where, bindings[deepest])
        return values, bindings.at[deepest].set(outlined)

    def own_margin(self, state, values_of):
        """The lowest value over the working set."""
        if self.outline is not None:
            real = jnp.arange(len(state.deltas)) < state.number
            deltas = jnp.where(real[:, None], state.deltas, state.deltas[0])
            return self._lowest(values_of(deltas))

        def another(carry):
            number, lowest, worst = carry
            values = values_of(state.deltas[number][None]).min(0)
            worst = jnp.where(values < lowest, number, worst)
            return number + 1, jnp.minimum(lowest, values), worst

        num_moves = jax.eval_shape(lambda: values_of(state.deltas[:1])).shape[1]
        first = (jnp.asarray(0), jnp.full(num_moves, jnp.inf), jnp.zeros(num_moves, int))
        # As many as there are, not as there is room for.
        return jax.lax.while_loop(lambda carry: carry[0] < state.number, another, first)[1:]

    def outside(self, state, values_of):
        """The lowest value over the outline; its numbers go on from the working set's."""
        lowest, where = self._lowest(values_of(self.outline))
        return lowest, len(state.deltas) + where

    @property
    def num_outside(self):
        """How many perturbations outline the ball."""
        return len(self.outline)

    @staticmethod
    def _lowest(values):
        """Of (m, n), and whose it is; shapes (n,)."""
        return values.min(0), values.argmin(0)

    def scenario(self, state, binding):
        """Perturbations (..., d) by their number (...): the working set's, then the outline's."""
        room = len(state.deltas)
        own = state.deltas[jnp.minimum(binding, room - 1)]
        if self.outline is None:
            return own
        outlining = self.outline[jnp.maximum(binding - room, 0)]
        return jnp.where((binding < room)[..., None], own, outlining)

    def spent(self, state, num_moves):
        """One evaluation for every move and perturbation."""
        if self.outline is None:
            return num_moves * state.number
        far = min(LOOKED_AT, num_moves) * self.num_outside
        return self.own_spent(state, num_moves) + far

    def own_spent(self, state, num_moves):
        """All of the working set is looked at, whether or not it is full."""
        return num_moves * state.deltas.shape[-2]

    def width(self, num_moves):
        """The moves, or those and their perturbations."""
        if self.outline is None:
            return num_moves
        room = FEW + WORKING_SET
        return num_moves * room + min(LOOKED_AT, num_moves) * self.num_outside

    def is_first(self, state):
        """Whether there is the centre alone."""
        return state.number == 1

    def add(self, state, value, scenario, new):
        """One more perturbation (d,).

        A full working set gives up the one that binds least, of those added since a few.
        """
        room, number = len(state.deltas), state.number
        each = jax.vmap(value)(state.deltas[FEW:])
        place = jnp.where(number == room, FEW + jnp.argmax(each), number)
        place = jnp.where(new, place, room)
        return state._replace(
            deltas=state.deltas.at[place].set(scenario, mode="drop"),
            number=jnp.minimum(number + new, room),
        )

    def strengthen(self, state, case, value, flat):
        """Attack the case, in a ball a little wider."""
        delta, logit = attack(*case, Ball(INFLATION * self.epsilon, self.norm))
        withstands = logit >= 0
        onward = self.add(state, value, delta, ~withstands)
        if self.outline is not None:
            return onward, withstands
        stuck = withstands | (state.number >= FEW)
        return onward._replace(stuck=stuck), withstands & ~flat(delta)

    def stuck(self, state):
        """Whether a few perturbations did not settle it, or the score is flat."""
        return state.stuck

    def closer(self, num_nodes):
        """The same with points that outline the ball."""
        if self.outline is not None:
            return None
        return replace(self, outline=OUTLINE_INFLATION * self.ball.surface(OUTLINE, num_nodes))

    def lowest(self, case, state):
        """Over the working set, and unperturbed."""
        unperturbed = case.score(case.scm.counterfactual(case.x, case.action))
        each = jax.vmap(lambda delta: self.logit(case, delta))(state.deltas)
        return jnp.minimum(unperturbed, each.min())

    def verify(self, key, score, scms, x, action, scale, logit, chosen):
        """By perturbations that no search has seen; see `pcr_jax.recourse.verify`."""
        tried = withstand(key, score, scms, x, action, scale, self.ball, logit, chosen)
        delta, unknown = INFLATION * tried.delta, np.full(len(x), np.nan)
        return Verified(tried.logit, delta, tried.certified, tried.num_perturbations, unknown)
