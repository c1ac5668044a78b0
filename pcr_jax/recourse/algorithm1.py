"""Algorithm 1 of Dominguez-Olmedo, Karimi & Schoelkopf (2022), as the paper uses it.

"On the adversarial robustness of causal algorithmic recourse" (ICML). For every user and every
set of intervened nodes, gradient descent on

    BCE(score(CF(CF(x, Delta), a)), 1) + lambda ||a||_1

where Delta is the one-step attack ``epsilon g / ||g||``, g the gradient of the BCE with respect
to Delta at 0. An action is kept as soon as it is valid both unperturbed and under the attack (far
from linear scores the attack alone can be the easier of the two); lambda shrinks after each outer
iteration. The cheapest valid action over the intervention sets is the answer.

Unlike in the released code, a zero gradient leaves Delta at 0 instead of turning it into NaN, and a
user's loss is the user's own. As there, the subgradient of the L1 norm at 0 is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pcr_jax import _checks
from pcr_jax.actions import Action, intervention_sets
from pcr_jax.batching import by_bucket, take, width
from pcr_jax.recourse import lanes
from pcr_jax.recourse.adversary import outcome, unit
from pcr_jax.recourse.problem import Problem
from pcr_jax.recourse.search import Found
from pcr_jax.scm import SCM
from pcr_jax.scores import differentiable

_LANES = 512  # problems advanced at once, for each unit of `width`

_OPTIMISERS = {"adam": optax.scale_by_adam, "sgd": optax.identity}


@dataclass(frozen=True)
class Algorithm1:
    """Settings of Algorithm 1; see the module.

    Parameters
    ----------
    optimiser : {"adam", "sgd"}
        The released code uses Adam, the paper's text says SGD.
    num_outer, num_inner : int
        Gradient steps: num_outer times num_inner.
    decay : float
        lambda starts at 1 and is multiplied by this after each outer iteration.
    """

    optimiser: str = "adam"
    num_outer: int = 50
    num_inner: int = 10
    decay: float = 0.02

    def __post_init__(self):
        _checks.choice(self.optimiser, _OPTIMISERS, "optimiser")
        _checks.count(self.num_outer, "num_outer")
        _checks.count(self.num_inner, "num_inner")
        _checks.probability(self.decay, "decay", ())

    @property
    def num_steps(self) -> int:
        """Gradient steps in all."""
        return self.num_outer * self.num_inner

    def check(self, problem: Problem) -> None:
        """Raise for what Algorithm 1 does not do."""
        weighted = bool((problem.weights != 1).any())
        ball = getattr(problem.requirement, "ball", "another requirement")
        if problem.requirement.over_draws:
            raise ValueError(
                "Expected no level with the paper's solver, which knows one SCM of each user; got "
                "one. See solver='optimal'."
            )
        has_slope = differentiable(problem.score)
        for name, wanted, came in (
            ("cost", "l1", problem.cost),
            ("norm", "l2", getattr(ball, "norm", "l2" if ball is None else ball)),
            ("intervention", "soft", "hard" if problem.hard else "soft"),
            ("weights", "none", "some" if weighted else "none"),
            ("a score", "with a gradient", "with a gradient" if has_slope else "without"),
        ):
            if came != wanted:
                raise ValueError(
                    f"Expected {name} {wanted!r} with solver='paper'; got {came!r}. "
                    "Use solver='optimal'."
                )

    def search(self, problem: Problem, worlds: SCM) -> Found:
        """The cheapest valid action of every user over the intervention sets."""
        low, high = problem.bounds
        movable = np.asarray((low < 0) | (high > 0)).any(0)
        chosen = intervention_sets(int(movable.sum()), problem.max_set_size)
        sets = np.zeros((len(chosen), len(problem.scale)))
        sets[:, movable] = chosen
        rates = jnp.full(len(low), 0.5) if problem.learning_rate is None else problem.learning_rate
        radius = getattr(getattr(problem.requirement, "ball", None), "radius", None)
        run = partial(_search, self, problem.score, jnp.asarray(sets, float), problem.scale, radius)
        move, flat, evaluations = by_bucket(run, problem.tasks(worlds), rates)
        nobody = jnp.zeros_like(flat)
        return Found(move, problem.begin(), nobody, nobody, flat, evaluations)

    def go_on(
        self, problem: Problem, worlds: SCM, found: Found, broken: np.ndarray, scenario: Array
    ) -> Found:
        """Algorithm 1 ends where it has ended: nobody goes on."""
        return found


class Descent(NamedTuple):
    """One user with one intervention set; everything in units of ``scale`` but ``x``."""

    scm: SCM
    x: Array  # (d,), natural units
    members: Array  # (d,), 1.0 for nodes in the intervention set
    low: Array  # (d,)
    high: Array  # (d,)
    learning_rate: Array  # ()


class State(NamedTuple):
    """Where the descent on one problem stands."""

    shift: Array  # (d,), in units of scale
    optimiser: optax.OptState
    step: Array  # ()


class Outcome(NamedTuple):
    """What one step found about ``state.shift`` before moving on."""

    valid: Array  # () bool: favourable, unperturbed and under the one-step attack
    flat: Array  # () bool: the score's gradient is exactly 0 at the empty action
    stuck: Array  # () bool: the first step does not move it, so that none ever will


def initial(settings: Algorithm1, num_nodes: int) -> State:
    """The empty action."""
    shift = jnp.zeros(num_nodes)
    return State(shift, _OPTIMISERS[settings.optimiser]().init(shift), jnp.zeros((), int))


def step(
    settings: Algorithm1,
    score: Callable,
    scale: Array,
    epsilon: Array | None,
    problem: Descent,
    state: State,
) -> tuple[State, Outcome]:
    """Judge the present action of one problem and take one gradient step.

    ``epsilon`` None leaves out the attack.
    """

    def loss(shift, delta):
        action = Action.soft(shift * scale)
        logit = outcome(score, problem.scm, problem.x, action, scale, delta)
        return jax.nn.softplus(-logit), logit

    centre = jnp.zeros_like(state.shift)
    if epsilon is None:
        (_, logit), gradient = jax.value_and_grad(loss, has_aux=True)(state.shift, centre)
    else:
        uphill, nominal = jax.grad(loss, argnums=1, has_aux=True)(state.shift, centre)
        delta = epsilon * unit(uphill)
        (_, attacked), gradient = jax.value_and_grad(loss, has_aux=True)(state.shift, delta)
        logit = jnp.minimum(nominal, attacked)
    valid = logit >= 0

    penalty = settings.decay ** (state.step // settings.num_inner).astype(float)
    flat = ~valid & (state.step == 0) & jnp.all(gradient == 0)
    gradient = problem.members * (gradient + penalty * jnp.sign(state.shift))
    updates, optimiser = _OPTIMISERS[settings.optimiser]().update(gradient, state.optimiser)
    moved = optax.projections.projection_box(
        state.shift - problem.learning_rate * updates, problem.low, problem.high
    )
    stuck = ~valid & (state.step == 0) & jnp.all(moved == state.shift)
    return State(moved, optimiser, state.step + 1), Outcome(valid, flat, stuck)


def solve(
    settings: Algorithm1,
    score: Callable,
    scale: Array,
    epsilon: Array | None,
    problem_of: Callable[[Array], Descent],
    num_problems: int,
    num_waiting: Array | int,
    num_nodes: int,
) -> tuple[Array, Array, Array, Array]:
    """Solve problems 0, ..., num_waiting - 1 of ``num_problems``.

    Returns
    -------
    shift : Array
        Shape (num_problems, d), units of ``scale``; 0 where no valid action was found.
    valid : Array
        Shape (num_problems,), unperturbed and under the one-step attack.
    flat : Array
        Shape (num_problems,): the score's gradient is exactly 0 at the empty action.
    evaluations : Array
        Shape (num_problems,): of the score with its gradient.
    """
    fresh = initial(settings, num_nodes)

    def advance(problem, state):
        moved, judged = step(settings, score, scale, epsilon, problem, state)
        ended = judged.valid | judged.stuck | (state.step == settings.num_steps)
        shift = jnp.where(judged.valid, state.shift, 0.0)
        evaluations = moved.step * (1 if epsilon is None else 2)
        return moved, ended, (shift, judged.valid, judged.flat, evaluations)

    results = (
        jnp.zeros((num_problems, num_nodes)),
        jnp.zeros(num_problems, bool),
        jnp.zeros(num_problems, bool),
        jnp.zeros(num_problems, int),
    )
    ids = jnp.arange(num_problems)
    num_lanes = _LANES * width()
    return lanes.run(num_lanes, advance, lambda _: fresh, problem_of, ids, num_waiting, results)


@partial(jax.jit, static_argnums=0)
def _search(settings, score, sets, scale, epsilon, real, tasks, learning_rate):
    """All real users and intervention sets; the cheapest valid move per user."""
    num_users, num_nodes = tasks.x.shape
    num_sets = len(sets)

    def problem_of(p):
        user = p // num_sets
        scm, x, low, high, _ = take(tasks, user)
        return Descent(scm, x, sets[p % num_sets], low, high, learning_rate[user])

    move, valid, flat, steps = solve(
        settings,
        score,
        scale,
        epsilon,
        problem_of,
        num_users * num_sets,
        real.sum() * num_sets,
        num_nodes,
    )
    move = move.reshape(num_users, num_sets, num_nodes)
    valid = valid.reshape(num_users, num_sets)
    flat = flat.reshape(num_users, num_sets)
    cost = jnp.where(valid, jnp.abs(move).sum(-1), jnp.inf)
    best = jnp.take_along_axis(move, cost.argmin(1)[:, None, None], axis=1)[:, 0]
    best = jnp.where(valid.any(1, keepdims=True), best, 0.0)
    return best, flat.all(1), steps.reshape(num_users, num_sets).sum(1)
