"""A score that is favourable with a probability, over draws of the person's SCM.

Draws are kept apart: a search sees some of them, and what it finds is judged by the others. Where
those find less than was asked for, the search goes on, and asks for more of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.batching import by_bucket, over_devices, take, width
from pcr_jax.recourse import lanes
from pcr_jax.recourse.adversary import Ball, attack, outcome
from pcr_jax.recourse.requirements.base import Nominal, Verified
from pcr_jax.recourse.requirements.robust import INFLATION, Robust

FEW = 16
"""Searched draws that every move is held against, and the deepest against all."""
LOOKED_AT = 4
"""How many are the deepest."""
WORKING_SET = 8
"""Perturbations that every draw has to withstand, the centre among them."""
ATTACK = {"num_directions": 8, "num_starts": 2, "num_steps": 3}
"""Of the attack on every searched draw."""
JUDGED_IN_BALL = 200
"""Draws that judge a plan by an attack each, at most."""
BEYOND = 10.0
"""Standard deviations of the logits for each share that is asked for beyond all searched draws."""
RAISED = 0.5
"""Of what lacks to the level: so much more is asked for of the searched draws."""
LADDER = (0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2)
"""Levels that are tried for those who reach no higher one."""
_LANES = 8  # users judged at once, for each unit of `width`


class Turn(NamedTuple):
    """How things may turn out: a draw of the SCM, after a perturbation."""

    draw: Array  # () its number
    delta: Array | None  # (d,) units of ``scale``; None without a ball
    more: Array  # () by how much the share of the searched draws is to rise


class Met(NamedTuple):
    """What an action has to meet."""

    share: Array  # () of the searched draws, those that have to be favourable; or gamma
    deltas: Array | None  # (room, d)
    number: Array  # () how many of them there are


@pytree(static=("searched",))
class Chance:
    """The score is favourable with a probability of at least ``level`` over draws of the SCM.

    With a ball: with that probability it is so for every perturbation of the ball. The draws of
    each user are taken to be independent.

    Attributes
    ----------
    level : Array
        Shape (), in (0, 1). With ``gamma`` idle.
    ball : Ball, optional
    gamma : Array, optional
        Shape (), positive. In place of the level: the mean of the logits over the draws, less
        ``gamma`` of their standard deviations, is at least 0 (Karimi et al. 2020).
    searched : int
        How many draws a search sees; there have to be twice as many.
    """

    level: Array
    ball: Ball | None = None
    gamma: Array | None = None
    searched: int = 100

    grows = True
    over_draws = True

    def __post_init__(self):
        _checks.between_0_and_1(self.level, "level")
        object.__setattr__(self, "level", jnp.asarray(self.level, float))
        if self.gamma is not None:
            gamma = _checks.positive(self.gamma, "gamma", ())
            object.__setattr__(self, "gamma", jnp.asarray(gamma, float))
        _checks.count(self.searched, "searched", minimum=FEW)

    @property
    def in_one_world(self) -> Nominal | Robust:
        """The requirement where the SCM is known."""
        return Nominal() if self.ball is None else Robust(self.ball.radius, self.ball.norm)

    def at(self, level: float) -> Chance:
        """The same at another level."""
        return Chance(level, self.ball, self.gamma, self.searched)  # type: ignore[arg-type]

    @property
    def easier(self) -> list[Chance]:
        """The same at lower levels, the highest first."""
        if self.gamma is not None:
            return []
        return [self.at(level) for level in LADDER if level < float(self.level) - 1e-6]

    def seen(self, num_draws: int) -> np.ndarray:
        """Which of so many draws are searched, evenly taken; boolean.

        Raises
        ------
        ValueError
            If there are not twice as many as are searched.
        """
        if num_draws < 2 * self.searched:
            raise ValueError(
                f"Expected worlds of at least {2 * self.searched} draws for each user, "
                f"{self.searched} to search with and as many to judge by; got {num_draws}. See "
                "Posteriors.scms(draws=)."
            )
        seen = np.zeros(num_draws, bool)
        seen[(np.arange(self.searched) * num_draws) // self.searched] = True
        return seen

    def split(self, worlds):
        """Draws (num_users, draws), evenly taken, to be searched, and the others.

        Raises
        ------
        ValueError
            If there are not twice as many as are searched.
        """
        seen = self.seen(worlds.batch_shape[1])
        return tuple(_draws(worlds, np.flatnonzero(some)) for some in (seen, ~seen))

    def begin(self, num_nodes):
        """The level, or gamma; and the centre."""
        share = self.level if self.gamma is None else self.gamma
        deltas = None if self.ball is None else jnp.zeros((WORKING_SET, num_nodes))
        return Met(jnp.asarray(share, float), deltas, jnp.asarray(1))

    def logit(self, case, scenario):
        """The logit under a draw, after a perturbation."""
        case = case._replace(scm=take(case.scm, scenario.draw))
        if scenario.delta is None:
            return case.score(case.scm.counterfactual(case.x, case.action))
        return outcome(*case, scenario.delta)

    def reduced(self, values, share):
        """The margin of values (draws, n), and which draw binds it; (n,)."""
        if self.gamma is not None:
            margin = values.mean(0) - share * values.std(0)
            return margin, jnp.abs(values - margin).argmin(0)
        num = len(values)
        # To rounding: .95 of 100 are 95.
        needed = jnp.ceil(share * num - 1e-3).astype(int)
        binding = jnp.argsort(values, axis=0)[jnp.clip(num - needed, 0, num - 1)]
        margin = jnp.take_along_axis(values, binding[None], 0)[0]
        return margin - BEYOND * jnp.maximum(share - 1, 0.0) * values.std(0), binding

    def _turns(self, state, draws, place=None):
        """Draws (m,) after the working set's perturbation at a place."""
        delta = None
        if state.deltas is not None:
            delta = jnp.broadcast_to(state.deltas[place], (len(draws), *state.deltas.shape[1:]))
        return Turn(draws, delta, jnp.zeros(len(draws)))

    def _lowest(self, state, values_of, draws, which=None):
        """The lowest value over the working set of every draw and move (draws, n), and where."""
        if state.deltas is None:
            values = values_of(self._turns(state, draws), which)
            return values, jnp.zeros(values.shape, int)

        def another(carry):
            place, lowest, worst = carry
            values = values_of(self._turns(state, draws, place), which)
            worst = jnp.where(values < lowest, place, worst)
            return place + 1, jnp.minimum(lowest, values), worst

        shape = jax.eval_shape(lambda: values_of(self._turns(state, draws, 0), which)).shape
        first = jnp.asarray(0), jnp.full(shape, jnp.inf), jnp.zeros(shape, int)
        return jax.lax.while_loop(lambda carry: carry[0] < state.number, another, first)[1:]

    def margin(self, state, values_of):
        """The value that the share of draws reaches.

        Only the deepest moves are held against all draws: others do not count as favourable.
        """
        draws = np.arange(self.searched)
        few = jnp.asarray(draws[(np.arange(FEW) * self.searched) // FEW])
        rough, places = self._lowest(state, values_of, few)
        own, binding = self.reduced(rough, state.share)
        moves = jnp.arange(len(own))
        deepest = jax.lax.top_k(own, min(LOOKED_AT, len(own)))[1]
        values, closer = self._lowest(state, values_of, jnp.asarray(draws), deepest)
        known, draw = self.reduced(values, state.share)
        at = jnp.arange(len(deepest))
        margin = jnp.minimum(own, -jnp.finfo(own.dtype).tiny).at[deepest].set(known)
        number = few[binding] * WORKING_SET + places[binding, moves]
        return margin, number.at[deepest].set(draw * WORKING_SET + closer[draw, at])

    def scenario(self, state, binding):
        """The turns (...) by their numbers (...), as `margin` gives them."""
        delta = None if state.deltas is None else state.deltas[binding % WORKING_SET]
        return Turn(binding // WORKING_SET, delta, jnp.zeros(jnp.shape(binding)))

    def spent(self, state, num_moves):
        """All moves under a few draws, the deepest under all, after every perturbation."""
        return self.width(num_moves) * state.number

    def width(self, num_moves):
        """The same after one perturbation."""
        return num_moves * FEW + min(LOOKED_AT, num_moves) * self.searched

    def is_first(self, state):
        """Whether nothing was added since `begin`; of a batch of states too."""
        return (state.number == 1) & (state.share == self.begin(1).share)

    def add(self, state, value, scenario, new):
        """The share rises as the scenario says, and its perturbation is one more.

        A full working set gives up the one added last.
        """
        share = state.share + jnp.where(new, scenario.more, 0.0)
        if state.deltas is None:
            return state._replace(share=share)
        new = new & scenario.delta.any()
        place = jnp.where(new, jnp.minimum(state.number, WORKING_SET - 1), WORKING_SET)
        return Met(
            share,
            state.deltas.at[place].set(scenario.delta, mode="drop"),
            jnp.minimum(state.number + new, WORKING_SET),
        )

    def strengthen(self, state, case, value, flat):
        """Attack the case under every draw; what it must withstand is what the share leaves."""
        if self.ball is None:
            return state, jnp.asarray(True)
        ball = Ball(INFLATION * self.ball.radius, self.ball.norm)

        def under(world):
            return attack(*case._replace(scm=world), ball, **ATTACK)

        deltas, logits = jax.lax.map(under, case.scm, batch_size=FEW)
        logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits)
        margin, binding = self.reduced(logits[:, None], state.share)
        settled = margin[0] >= 0
        delta = deltas[binding[0]]
        helps = delta.any() & (state.number < WORKING_SET)
        breaking = Turn(binding[0], delta, jnp.where(helps, 0.0, 1 / self.searched))
        return self.add(state, value, breaking, ~settled), settled

    def stuck(self, state):
        """Nobody is; of a batch of states too."""
        return jnp.zeros_like(state.number, bool)

    def closer(self, num_nodes):
        """All draws are looked at already."""
        return None

    def plain(self, case, state):
        """The same as `lowest`."""
        return self.lowest(case, state)

    def lowest(self, case, state):
        """The margin over all draws and the working set."""

        def values_of(turns, which=None):
            each = jax.vmap(lambda turn: self.logit(case, turn))(turns)[:, None]
            return jnp.where(jnp.isnan(each), -jnp.inf, each)

        values, _ = self._lowest(state, values_of, jnp.arange(self.searched))
        return self.reduced(values, state.share)[0][0]

    def expected(self, score, scm, x, action):
        """The mean of what follows under the draws; the margin of the logits."""
        after = jax.vmap(lambda world: world.counterfactual(x, action))(scm)
        logits = jax.vmap(score)(after)
        logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits)
        share = self.begin(len(x)).share
        return after.mean(0), self.reduced(logits[:, None], share)[0][0]

    def verify(self, key, score, scms, x, action, scale, logit, chosen):
        """By draws that no search has seen, each with an attack of its own if there is a ball."""
        if self.ball is not None:
            num = scms.batch_shape[1]
            some = (np.arange(min(num, JUDGED_IN_BALL)) * num) // min(num, JUDGED_IN_BALL)
            scms = _draws(scms, some)
        margin, share, delta = by_bucket(
            lambda real, chosen, *users: _judged(self, score, scale, real & chosen, *users),
            *(chosen, scms, x, action),
        )
        lacking = self.level - share if self.gamma is None else self.gamma / 10
        more = jnp.maximum(RAISED * lacking, 1 / self.searched)
        harder = Turn(jnp.zeros(len(x), int), delta, jnp.broadcast_to(more, len(x)))
        number = np.where(chosen, scms.batch_shape[1], 0)
        return Verified(margin, harder, np.zeros(len(x), bool), number, np.asarray(share))


@jax.jit
def _draws(scms, some):
    """These of each user's, (num_users, some)."""
    return jax.tree.map(lambda leaf: leaf[:, some], scms)


@jax.jit
def _judged(requirement, score, scale, chosen, scms, x, action):
    """The margin of the chosen, the share of draws, and what breaks the one that binds."""

    def judge(shared, chosen, *users):
        requirement, score, scale = shared
        ball = requirement.ball

        def one(scms, x, action):
            def under(scm):
                if ball is None:
                    return None, score(scm.counterfactual(x, action))
                return attack(score, scm, x, action, scale, ball)

            deltas, logits = jax.lax.map(under, scms, batch_size=1024 if ball is None else FEW)
            logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits)
            asked = requirement.begin(len(x)).share
            margin, binding = requirement.reduced(logits[:, None], asked)
            delta = None if ball is None else deltas[binding[0]]
            return margin[0], jnp.mean(logits >= 0), delta

        lost = jnp.full(len(users[1]), -jnp.inf)
        unset = lost, jnp.zeros(len(lost)), None if ball is None else jnp.zeros_like(users[1])
        return lanes.once(_LANES * width(), one, chosen, users, unset)

    shared = (requirement, score, scale)
    return over_devices(judge, shared, chosen, scms, x, action)
