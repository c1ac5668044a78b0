"""The values of moves: what all stages of the search ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.recourse.optimal.moves import Moves
from pcr_jax.recourse.optimal.settings import Settings
from pcr_jax.recourse.requirements.base import Case, Requirement
from pcr_jax.recourse.search import Task
from pcr_jax.scores import differentiable


class State(NamedTuple):
    """What is known about one user."""

    level: Array  # () the level of cost that the sweep has come to
    path: Array  # (d,) end of the steepest ascent
    move: Array  # (d,) the last solution
    cost: Array  # () its cost; infinite where there is none
    hits: Array  # (hits, d) favourable moves of the last level, the deepest first; 0 for none
    scenarios: Any  # the requirement's own: what a move has to withstand
    margin: Array  # () favourable means a logit of at least this, or of exactly 0
    solved: Array  # () bool
    evaluations: Array  # () of the score or its gradient


@pytree(static=("settings", "closer"))
class Solver:
    """What all users have in common.

    Attributes
    ----------
    settings : Settings
    score : callable
    moves : Moves
    requirement : Requirement
    closer : bool
        Whether the users are those who were stuck, of whom the requirement looks closer.
    """

    settings: Settings
    score: Callable
    moves: Moves
    requirement: Requirement
    closer: bool = False

    @property
    def levels(self) -> Array:
        """The levels of cost, from 0 on; shape (num_levels,)."""
        return jnp.asarray(self.settings.levels())

    @property
    def has_slope(self) -> bool:
        """Whether the score has a gradient."""
        return differentiable(self.score)

    def case(self, task: Task, move: Array) -> Case:
        """A move (d,), as a requirement judges it."""
        action = self.moves.action(task, move)
        return Case(self.score, task.scm, task.x, action, self.moves.cost.scale)

    def value(self, task: Task, state: State, move: Array, scenario: Any) -> Array:
        """Logit, above the margin, after ``move`` (d,) in a scenario."""
        logit = self.requirement.logit(self.case(task, move), scenario)
        allowed = (move != 0).sum() <= self.moves.max_set_size
        value = jnp.where(logit == 0, 0.0, logit - state.margin)
        return jnp.where(jnp.isnan(logit) | ~allowed, -jnp.inf, value)

    def under(self, task: Task, state: State, moves: Array) -> Callable[..., Array]:
        """The function (scenarios (m, ...), which (k,) of the moves (n, d)) -> values (m, k)."""

        def values_of(scenarios, which=None):
            some = moves if which is None else moves[which]

            def of(scenario):
                return jax.vmap(lambda move: self.value(task, state, move, scenario))(some)

            return jax.vmap(of)(scenarios)

        return values_of

    def values(self, task: Task, state: State, moves: Array) -> tuple[Array, Array]:
        """Lowest `value` of moves (n, d) over all scenarios, and where; shapes (n,)."""
        return self.requirement.margin(state.scenarios, self.under(task, state, moves))

    def spent(self, state: State, num_moves: int) -> Array | int:
        """How many evaluations `values` takes."""
        return self.requirement.spent(state.scenarios, num_moves)

    def slopes(self, task: Task, state: State, moves: Array, bindings: Array) -> tuple:
        """Values (n,) of moves (n, d) in a scenario each; slopes (n, d), 0 if unknown."""
        scenarios = self.requirement.scenario(state.scenarios, bindings)
        if not self.has_slope:
            values = jax.vmap(self.value, (None, None, 0, 0))(task, state, moves, scenarios)
            return values, jnp.zeros_like(moves)
        both = jax.vmap(jax.value_and_grad(self.value, argnums=2), (None, None, 0, 0))
        values, slopes = both(task, state, moves, scenarios)
        return values, jnp.nan_to_num(slopes / task.weights)

    def rays(self, task: Task, state: State) -> Array:
        """Directions (n, d) to sweep: the path's neighbours, the fixed, those of the solution."""
        levels, moves = self.levels, self.moves
        step = levels[state.level] - levels[jnp.maximum(state.level - 1, 0)]
        rays = [moves.path_ends(task, state.path, step), moves.fixed(task)]
        # The robust optimum is not far from one of less perturbations. Others at every level:
        # perturbations added together may bind together.
        if self.requirement.grows:
            rays += moves.around(task, state.move, state.level, len(levels))
        return jnp.concatenate(rays)

    @property
    def num_rays(self) -> int:
        """How many `rays` there are."""
        moves = self.moves
        return moves.num_fixed + 2 * moves.num_nodes + moves.num_around * self.requirement.grows

    def add(self, task: Task, state: State, scenario: Any, new: Array | bool = True) -> State:
        """One more scenario to withstand, if ``new``; back to the first level to look at."""

        def value(scenario):
            return self.value(task, state, state.move, scenario)

        return self._onward(state, self.requirement.add(state.scenarios, value, scenario, new))

    def _onward(self, state: State, scenarios: Any) -> State:
        """Not solved, with other scenarios; the optimum costs no less than the relaxed one."""
        levels = self.levels
        level = jnp.minimum((levels < state.cost).sum(), len(levels) - 1)
        return state._replace(scenarios=scenarios, level=level, solved=jnp.asarray(False))

    def attack(self, task: Task, state: State) -> State:
        """Attack the solution: solved if it withstands, one more scenario if not."""

        def value(scenario):
            return self.value(task, state, state.move, scenario)

        def flat(scenario):
            if not self.has_slope:
                return jnp.asarray(True)
            return ~jax.grad(self.value, argnums=2)(task, state, state.move, scenario).any()

        requirement, case = self.requirement, self.case(task, state.move)
        scenarios, solved = requirement.strengthen(state.scenarios, case, value, flat)
        onward, solution = self._onward(state, scenarios), state._replace(solved=solved)
        return jax.tree.map(lambda a, b: jnp.where(solved, a, b), solution, onward)
