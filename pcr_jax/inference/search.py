"""A search of the prior for possible coefficients, where bounds do not exclude them.

For likelihoods with hard support, surrogates that are affine in each coefficient, and a prior that
is uniform on a box. Users who are searched together share the random numbers, not the draws.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax.batching import take
from pcr_jax.history import History
from pcr_jax.inference.target import Target
from pcr_jax.likelihoods import HardSupport, has_hard_support
from pcr_jax.surrogates import Surrogate, for_users
from pcr_jax.surrogates.priors import from_unit, place_in

BLOCK = 2**12
"""Prior draws that a search evaluates at once, per user."""

_GRID = 5000  # points of the grid on which cells are judged, at most
_SLACK = 1e-5  # of the terms that an expected answer is the sum of, for rounding


def can_search(surrogate: Surrogate, likelihood) -> bool:
    """Whether starting points can be searched for, and be proved not to exist."""
    is_box = surrogate.multi_affine and surrogate.prior.box is not None
    return is_box and has_hard_support(likelihood)


def rotations(keys: Array, num_columns: int) -> Array:
    """Each user's place in the unit cube, shape (num_users, num_columns)."""
    return jax.vmap(lambda key: jax.random.uniform(key, (num_columns,)))(keys)


def shared_uniforms(key: Array, rotation: Array, num_draws: int) -> Array:
    """Uniform draws for each user, shape (num_users, num_draws, num_columns).

    Random numbers are the dear part, so that users share them: ``rotation`` (num_users,
    num_columns) is added modulo 1, which leaves every user's draws independent and uniform.
    """
    unit = jax.random.uniform(key, (num_draws, rotation.shape[1])) + rotation[:, None]
    return jnp.where(unit < 1, unit, unit - 1)


def cells_per_axis(num_coefficients: int) -> int:
    """Into how many parts a search divides the prior's box along each axis."""
    return max(1, min(16, int(_GRID ** (1 / num_coefficients) + 1e-9) - 1))


def possible_cells(surrogate, likelihood, history, possible=None, box=None) -> tuple[Array, Array]:
    """Which cells of a box can hold possible draws of one user.

    An expected answer is linear in each coefficient by itself, so that over a cell it lies
    between the extremes at the corners. A cell is excluded if too many answers are out of reach.

    Parameters
    ----------
    possible : callable, optional
        What is possible, if not ``likelihood.possible``.
    box : Array, optional
        Shape (2, num_coefficients); the prior's by default.

    Returns
    -------
    Array
        Shape (num_cells,), boolean.
    Array
        The largest share of answers with which a corner agrees, shape ().
    """
    possible = possible or likelihood.possible
    k = len(surrogate.names)
    parts = cells_per_axis(k)
    if parts == 1:
        return jnp.ones(1, bool), jnp.zeros(())
    axes = jnp.meshgrid(*[jnp.linspace(0.0, 1.0, parts + 1)] * k, indexing="ij")
    box = surrogate.prior.box if box is None else box
    corners = from_unit(box, jnp.stack([axis.ravel() for axis in axes], -1))
    expected = jax.vmap(surrogate.expected, (0, None, None))(corners, history.questions, history.x)
    best = jax.vmap(lambda e: agreeing_share(likelihood, e, history.answer))(expected).max()
    least = most = expected.reshape(*[parts + 1] * k, *history.answer.shape)
    for axis in range(k):
        low_end = partial(jax.lax.slice_in_dim, start_index=0, limit_index=parts, axis=axis)
        high_end = partial(jax.lax.slice_in_dim, start_index=1, limit_index=parts + 1, axis=axis)
        least = jnp.minimum(low_end(least), high_end(least))
        most = jnp.maximum(low_end(most), high_end(most))
    terms = surrogate.sizes(jnp.abs(box).max(0), history.questions, history.x)
    slack = _SLACK * (terms + jnp.abs(jnp.nan_to_num(history.answer)))
    nearest = jnp.clip(history.answer, least - slack, most + slack)
    nearest = nearest.reshape(-1, *history.answer.shape)
    return jax.vmap(lambda e: possible(e, history.answer))(nearest), best


def numbers_of(cells: Array) -> Array:
    """The numbers of the cells that are True, in front; shape of ``cells``, (all cells,)."""
    return jnp.nonzero(cells, size=cells.size)[0]


def uniform_over(box: Array, order: Array, num_cells: Array, unit: Array) -> Array:
    """Draws (n, num_coefficients) from some cells of a box, given uniforms (n, 1 + k).

    ``order`` (all cells,) has the ``num_cells`` () to draw from first.
    """
    k = box.shape[1]
    parts = cells_per_axis(k)
    cell = order[jnp.minimum((unit[:, 0] * num_cells).astype(int), num_cells - 1)]
    corner = jnp.stack(jnp.unravel_index(cell, (parts,) * k), -1) if parts > 1 else 0
    return from_unit(box, (corner + unit[:, 1:]) / parts)


def cell_of(box: Array, theta: Array) -> Array:
    """The number of the cell of a box that ``theta`` (num_coefficients,) lies in; ()."""
    k = box.shape[1]
    parts = cells_per_axis(k)
    if parts == 1:
        return jnp.asarray(0)
    place = (place_in(box, theta) * parts).astype(int)
    return jnp.ravel_multi_index(tuple(jnp.clip(place, 0, parts - 1)), (parts,) * k, mode="clip")


class Proposals(NamedTuple):
    """What can be proposed to one user's chain, wherever it is: draws from a part of the prior.

    Attributes
    ----------
    target : Target
    cells : Array or None
        Shape (num_cells,): of ``target.reach``, those that are drawn from; None for all of it.
    """

    target: Target
    cells: Array | None

    @property
    def num_columns(self) -> int:
        """Uniform numbers that a draw needs."""
        return self.target.dim + 1

    def draws(self, unit: Array) -> Array:
        """Draws (n, dim) given uniforms (n, num_columns)."""
        box = self.target.reach.box
        if self.cells is None or box is None:
            return self.target.from_unit(unit[:, 1:])
        k = len(self.target.surrogate.names)
        cells = numbers_of(self.cells), self.cells.sum()
        theta = uniform_over(box, *cells, unit[:, : k + 1])
        return jnp.concatenate([theta, self.target.from_unit(unit[:, 1:])[:, k:]], 1)

    def covers(self, z: Array) -> Array:
        """Whether ``z`` (dim,) can be drawn; shape ()."""
        box = self.target.reach.box
        if self.cells is None or box is None:
            return jnp.asarray(True)
        return self.cells[cell_of(box, self.target.split(z)[0])]


def proposals(target: Target) -> Proposals:
    """From where bounds leave some likelihood, if it has hard support; else from the prior."""
    surrogate, likelihood = target.surrogate, target.likelihood
    if not has_hard_support(likelihood) or not can_search(surrogate, likelihood):
        return Proposals(target, None)
    near, box = likelihood.nearly_possible, target.reach.box
    return Proposals(target, possible_cells(surrogate, likelihood, target.history, near, box)[0])


def agreeing_share(likelihood: HardSupport, expected: Array, answer: Array) -> Array:
    """Share of a user's answers that agree with ``expected`` (T, d); 1 without answers; ()."""
    agreeing, answered = likelihood.agreement(expected, answer)
    return jnp.where(answered > 0, agreeing / jnp.maximum(answered, 1), 1.0)


@jax.jit
def evaluate(
    surrogate: Surrogate, likelihood: HardSupport, history: History, thetas: Array
) -> tuple[Array, Array]:
    """Which thetas (n, k) are possible for one user, and the share of answers that agree; (n,)."""

    def one(theta):
        expected = surrogate.expected(theta, history.questions, history.x)
        share = agreeing_share(likelihood, expected, history.answer)
        return likelihood.possible(expected, history.answer), share

    return jax.vmap(one)(thetas)


class PriorSearch(NamedTuple):
    """What independent draws from the prior found for one user.

    A draw is possible if the likelihood, or the indicator that it relaxes, allows it. Draws are
    made only where `possible_cells` does not exclude that.

    Attributes
    ----------
    draws : Array
        Shape (num_wanted, num_coefficients): the first possible draws, exact independent draws
        from the posterior under an indicator likelihood; rows from ``num_found`` on are not
        meaningful.
    num_found : Array
        At most num_wanted.
    num_accepted, num_drawn : Array
        How many of the draws made were possible.
    share : Array
        The share of the prior that they are made from; 0 if all is excluded.
    best_agreement : Array
        The largest share of answers with which any point looked at agreed (1.0 without answers).
    """

    draws: Array
    num_found: Array
    num_accepted: Array
    num_drawn: Array
    share: Array
    best_agreement: Array

    @property
    def acceptance(self) -> Array:
        """The estimated probability that a draw from the whole prior is possible."""
        return self.share * self.num_accepted / np.maximum(self.num_drawn, 1)


@jax.jit
def users_cells(surrogates, likelihood, history) -> tuple[Array, Array]:
    """`possible_cells` of several users."""
    return jax.lax.map(
        lambda user: possible_cells(user[0], likelihood, user[1]), (surrogates, history)
    )


@partial(jax.jit, static_argnums=6)
def search_priors(
    key: Array,
    surrogates: Surrogate,
    likelihood: HardSupport,
    history: History,
    cells: tuple[Array, Array],
    rotation: Array,
    num_wanted: int,
    max_draws: int,
) -> PriorSearch:
    """`search_prior` of several users at once, all leaves with a leading user axis.

    A user who is done is left alone while others go on. ``cells`` are of `users_cells`,
    ``rotation`` (num_users, num_coefficients + 1) is that of `shared_uniforms`.
    """
    boxes = jax.vmap(lambda surrogate: surrogate.prior.box)(surrogates)
    in_reach, best = cells
    num_cells = in_reach.sum(1)
    kept = jax.vmap(numbers_of)(in_reach)

    def place(draws, accepted, possible, thetas):
        position = jnp.where(possible, accepted + jnp.cumsum(possible) - 1, num_wanted)
        return draws.at[position].set(thetas, mode="drop")

    def unfinished(found):
        return (found.num_accepted < num_wanted) & (found.num_drawn < max_draws) & (num_cells > 0)

    def judge(surrogate, history, thetas):
        return evaluate(surrogate, likelihood, history, thetas)

    def block(carry):
        i, found = carry
        unit = shared_uniforms(jax.random.fold_in(key, i), rotation, BLOCK)
        thetas = jax.vmap(uniform_over)(boxes, kept, num_cells, unit)
        possible, agreement = jax.vmap(judge)(surrogates, history, thetas)
        going = unfinished(found)
        possible &= going[:, None]
        draws = jax.lax.cond(
            possible.any(),
            lambda: jax.vmap(place)(found.draws, found.num_accepted, possible, thetas),
            lambda: found.draws,
        )
        accepted = found.num_accepted + possible.sum(1)
        best = jnp.where(going, agreement.max(1), 0.0)
        return i + 1, found._replace(
            draws=draws,
            num_found=jnp.minimum(accepted, num_wanted),
            num_accepted=accepted,
            num_drawn=found.num_drawn + BLOCK * going,
            best_agreement=jnp.maximum(found.best_agreement, best),
        )

    users = len(rotation)
    none = jnp.zeros(users, int)
    draws = jnp.zeros((users, num_wanted, boxes.shape[2]))
    nothing = PriorSearch(draws, none, none, none, num_cells / in_reach.shape[1], best)
    return jax.lax.while_loop(lambda carry: unfinished(carry[1]).any(), block, (0, nothing))[1]


def search_prior(
    key: Array,
    surrogate: Surrogate,
    likelihood: HardSupport,
    history: History,
    num_wanted: int,
    max_draws: int,
) -> PriorSearch:
    """Draw from one user's prior, in blocks, until ``num_wanted`` draws are possible.

    Parameters
    ----------
    key : Array
    surrogate : Surrogate
    likelihood : HardSupport
    history : History
        Of one user: questions of shape (T,), ``answer`` of shape (T, d), ``x`` of shape (d,).
    num_wanted : int
    max_draws : int
        After so many, rounded up to whole blocks of 4,096, the search ends, found or not.

    Returns
    -------
    PriorSearch
    """
    one, own = take(history, None), for_users(surrogate, 1)
    rotation = jnp.zeros((1, len(surrogate.names) + 1))
    cells = users_cells(own, likelihood, one)
    found = search_priors(key, own, likelihood, one, cells, rotation, num_wanted, max_draws)
    return take(found, 0)
