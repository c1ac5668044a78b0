"""The contract of requirements, and the simplest: a favourable score if all goes as expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.scm import SCM


class Case(NamedTuple):
    """One user's action, which is to be judged."""

    score: Callable
    scm: SCM
    x: Array  # (d,), natural units
    action: Action  # (d,)
    scale: Array  # (d,), natural units


class Verified(NamedTuple):
    """What fresh scenarios do to every user's action.

    Attributes
    ----------
    logit : Array
        Shape (num_users,): the margin that was found, negative where the requirement is not met.
    scenario : Array
        Shape (num_users, ...): the one that breaks it; to be added where the search goes on.
    certified : ndarray
        Shape (num_users,): whether it is proved that none does.
    num_scenarios : ndarray
        Shape (num_users,): how many were tried that no search knows.
    share : ndarray
        Shape (num_users,): of draws of the SCM, in which the action works; NaN without draws.
    """

    logit: Array
    scenario: Any
    certified: np.ndarray
    num_scenarios: np.ndarray
    share: np.ndarray


@runtime_checkable
class Requirement(Protocol):
    """When an action is good enough; a pytree, whose numbers are its leaves.

    All but `verify` is for one user, and traced. A state is a pytree of arrays of fixed shapes:
    the scenarios that the search has met so far. One for a score that has to be
    favourable with a reserve:

    >>> import jax, jax.numpy as jnp, pcr_jax as pcr
    >>> from dataclasses import replace
    >>> from pcr_jax._pytree import pytree
    >>> from pcr_jax.recourse import Nominal, pose, recommend
    >>> @pytree()
    ... class Reserve(Nominal):
    ...     least: jax.Array
    ...     def logit(self, case, scenario):
    ...         return super().logit(case, scenario) - self.least
    ...     def verify(self, key, score, scms, x, action, scale, logit, chosen):
    ...         found = super().verify(key, score, scms, x, action, scale, logit, chosen)
    ...         return found._replace(logit=logit - self.least)
    >>> truth = pcr.library.m1()
    >>> x, scale = jnp.zeros((1, 3)), jnp.ones(3)
    >>> problem = pose(lambda x: x[0] - 1.0, truth.graph, x, scale=scale)
    >>> problem = replace(problem, requirement=Reserve(jnp.asarray(0.5)))
    >>> print(round(float(recommend(problem, truth).cost[0]), 2))
    1.5

    Attributes
    ----------
    grows : bool
        Whether `strengthen` may add scenarios; if not, what the search finds is the solution.
    over_draws : bool
        Whether users' worlds are several draws of their SCM, and not one.
    in_one_world : Requirement
        What remains of it where the SCM is known.
    easier : sequence of Requirement
        What to look for where nothing meets this one, the hardest first.
    """

    @property
    def grows(self) -> bool: ...  # noqa: D102

    @property
    def over_draws(self) -> bool: ...  # noqa: D102

    @property
    def in_one_world(self) -> Requirement: ...  # noqa: D102

    @property
    def easier(self) -> Sequence[Any]: ...  # noqa: D102

    def split(self, worlds: SCM) -> tuple[SCM, SCM]:
        """The users' worlds that a search sees, and those that judge what it finds.

        On the host; leading axes (num_users,), or (num_users, draws).
        """

    def expected(self, score: Callable, scm: SCM, x: Array, action: Action) -> tuple[Array, Array]:
        """What is expected to follow (d,), and its margin (); of worlds that judge."""

    def begin(self, num_nodes: int) -> Any:
        """The state of a user of whom nothing is known."""

    def logit(self, case: Case, scenario: Any) -> Array:
        """The logit () of a case in a scenario."""

    def margin(self, state: Any, values_of: Callable[..., Array]) -> tuple[Array, Array]:
        """At least 0 for those of n moves that meet the requirement; and what binds them, (n,).

        ``values_of`` (scenarios (m, ...), which=None) gives the values (m, n), or (m, k) of which
        (k,) of the moves: the logits above a margin of rounding.
        """

    def scenario(self, state: Any, binding: Array) -> Any:
        """The scenarios (..., ) by their numbers (...), as `margin` gives them."""

    def spent(self, state: Any, num_moves: int) -> Array | int:
        """How many evaluations `margin` takes of so many moves."""

    def width(self, num_moves: int) -> int:
        """How many of these are made at once, at most."""

    def is_first(self, state: Any) -> Array | bool:
        """Whether nothing was added since `begin`; of a batch of states too."""

    def add(
        self, state: Any, value: Callable[[Any], Array], scenario: Any, new: Array | bool
    ) -> Any:
        """The state with one more scenario, if ``new``; ``value`` is that of the present move."""

    def strengthen(
        self,
        state: Any,
        case: Case,
        value: Callable[[Any], Array],
        flat: Callable[[Any], Array],
    ) -> tuple[Any, Array]:
        """The state with what breaks the case, if something does; whether the case is settled.

        ``value`` and ``flat`` are functions of a scenario: the present move's value, and whether
        its slope is 0 there.
        """

    def stuck(self, state: Any) -> Array | bool:
        """Whether it is better to look `closer`; of a batch of states too."""

    def closer(self, num_nodes: int) -> Closer | None:
        """A requirement of the same states that looks closer, for those who are stuck."""

    def lowest(self, case: Case, states: Any) -> Array:
        """The lowest logit () that the scenarios of a state leave a case, rounding aside."""

    def plain(self, case: Case, state: Any) -> Array:
        """The logit () that is expected of a case, in the worlds that a search sees."""

    def verify(
        self,
        key: Array,
        score: Callable,
        scms: SCM,
        x: Array,
        action: Action,
        scale: Array,
        logit: Array,
        chosen: np.ndarray,
    ) -> Verified:
        """Judge the actions of the ``chosen`` users (num_users,) by scenarios that are fresh.

        On the host. ``logit`` (num_users,) is what is expected; where it is negative nothing has
        to be tried.
        """


class Closer(Requirement, Protocol):
    """A requirement that looks closer: at more scenarios than `margin` can hold all moves to."""

    def own_margin(self, state: Any, values_of: Callable[..., Array]) -> tuple[Array, Array]:
        """As `margin`, of the state's scenarios alone."""

    def own_spent(self, state: Any, num_moves: int) -> int:
        """As `spent`, of `own_margin`."""

    def outside(self, state: Any, values_of: Callable[..., Array]) -> tuple[Array, Array]:
        """As `margin`, of the others alone."""

    @property
    def num_outside(self) -> int:
        """How many others there are."""


@pytree()
class Nominal:
    """The score is favourable if all goes as expected (Eq. 1 of the paper)."""

    grows = False
    over_draws = False
    easier = ()

    @property
    def ball(self) -> Any:
        """Nothing perturbs."""
        return None

    @property
    def in_one_world(self):
        """The same."""
        return self

    def split(self, worlds):
        """There is one world."""
        return worlds, worlds

    def expected(self, score, scm, x, action):
        """What follows, and its logit."""
        after = scm.counterfactual(x, action)
        return after, score(after)

    def plain(self, case, state):
        """The logit of what is expected."""
        return case.score(case.scm.counterfactual(case.x, case.action))

    def begin(self, num_nodes):
        """Nothing."""
        return ()

    def logit(self, case, scenario):
        """The logit of what is expected."""
        return case.score(case.scm.counterfactual(case.x, case.action))

    def margin(self, state, values_of):
        """The moves' values; what binds is what is expected."""
        values = values_of(jnp.zeros(1, int))
        return values.min(0), values.argmin(0)

    def scenario(self, state, binding):
        """What is expected, whatever the number."""
        return binding

    def spent(self, state, num_moves):
        """One evaluation a move."""
        return num_moves

    def width(self, num_moves):
        """All at once."""
        return num_moves

    def is_first(self, state):
        """It always is."""
        return True

    def add(self, state, value, scenario, new):
        """There is nothing to add."""
        return state

    def strengthen(self, state, case, value, flat):
        """What meets the requirement does."""
        return state, jnp.asarray(True)

    def stuck(self, state):
        """Nobody is."""
        return False

    def closer(self, num_nodes):
        """There is nothing to look at."""
        return None

    def lowest(self, case, state):
        """The logit of what is expected."""
        return self.logit(case, None)

    def verify(self, key, score, scms, x, action, scale, logit, chosen):
        """What is expected is all there is."""
        nobody = np.zeros(len(x), bool)
        unknown = np.full(len(x), np.nan)
        return Verified(logit, jnp.zeros(len(x), int), nobody, np.zeros(len(x), int), unknown)
