"""The cheapest action by brute force: what solvers are judged against.

Every direction of a dense grid on the sphere of cost 1 is followed at small steps of cost until
some direction is favourable; all its crossings are bisected, and the cheapest is refined among
random directions around it. It shares no code with the solvers.
"""

from functools import partial
from itertools import product

import jax
import numpy as np

from pcr_jax import Action

MAX_COST = 8.0


def sphere(norm: str, resolution: int, num_nodes: int = 3) -> np.ndarray:
    """Integer vectors of L1 norm ``resolution``, scaled to cost 1; shape (n, d)."""
    grid = np.array(list(product(range(-resolution, resolution + 1), repeat=num_nodes - 1)))
    rest = resolution - np.abs(grid).sum(1)
    grid, rest = grid[rest >= 0], rest[rest >= 0]
    both = np.concatenate([np.c_[grid, rest], np.c_[grid, -rest]])
    return unit_cost(np.unique(both, axis=0).astype(float), norm)


def unit_cost(vectors: np.ndarray, norm: str) -> np.ndarray:
    """``vectors`` (..., d) at cost 1."""
    return vectors / np.linalg.norm(vectors, 1 if norm == "l1" else 2, axis=-1, keepdims=True)


@partial(jax.jit, static_argnames="hard")
def _values(score, scm, x, moves, scale, deltas, hard):
    """Lowest logit over perturbations (m, d), for x (n, d) and moves (n, k, d); shape (n, k)."""

    def one(x, move, delta):
        perturbed = scm.counterfactual(x, Action.soft(delta * scale))
        shift = move * scale
        action = Action.do(x + shift, move != 0) if hard else Action.soft(shift)
        return score(scm.counterfactual(perturbed, action))

    def of_user(x, moves):
        return jax.vmap(lambda m: jax.vmap(lambda d: one(x, m, d))(deltas).min())(moves)

    return jax.lax.map(lambda args: of_user(*args), (x, moves), batch_size=8)


def cheapest(
    score,
    scm,
    x,
    scale,
    *,
    norm="l1",
    deltas=None,
    more_deltas=None,
    hard=False,
    resolution=40,
    near=256,
    start=0.0,
    step=0.02,
) -> np.ndarray:
    """Cost of the cheapest action found for every user, shape (num_users,); infinite if none.

    ``deltas`` (m, d), in units of ``scale``: perturbations to withstand, the centre among them;
    ``more_deltas``: those that the refined action must withstand, where they are too many to sweep.
    ``start``, for all or for each user: no action is cheaper than this. ``step``: between two
    levels of cost.
    """
    rng = np.random.default_rng(0)
    deltas = np.zeros((1, x.shape[1])) if deltas is None else deltas
    rays = sphere(norm, resolution, x.shape[1])
    cost = np.full(len(x), np.inf)
    best = np.zeros((len(x), x.shape[1]))
    pending = np.arange(len(x))

    def favourable(users, moves, deltas=deltas):
        """Padded to multiples of 8 users, so that few shapes are compiled."""
        size = 8 * 2 ** int(np.ceil(np.log2(-(-len(users) // 8))))
        rows = np.resize(users, size)
        moves = np.broadcast_to(moves, (len(users), *moves.shape[-2:]))
        values = _values(
            score, scm, x[rows], moves[np.arange(size) % len(users)], scale, deltas, hard
        )
        return np.asarray(values)[: len(users)] >= 0

    def bisect(users, rays, low, high, deltas=deltas):
        """Cost (n, k) of the crossing between low (not favourable) and high (favourable)."""
        for _ in range(12):
            middle = (low + high) / 2
            good = favourable(users, rays * middle[..., None], deltas)
            low, high = np.where(good, low, middle), np.where(good, middle, high)
        return high

    level = np.broadcast_to(start, len(x)) + step
    while len(pending):
        moves = rays * level[pending, None, None]
        hits = favourable(pending, moves.astype(np.float32))
        hit = pending[hits.any(1)]
        if len(hit):
            # Of many directions, some.
            some = [
                rays[row][np.linspace(0, row.sum() - 1, 64).astype(int)]
                for row in hits
                if row.any()
            ]
            high = np.repeat(level[hit, None], 64, 1)
            ends = bisect(hit, np.stack(some), high - step, high)
            cost[hit], best[hit] = ends.min(1), np.stack(some)[np.arange(len(hit)), ends.argmin(1)]
        pending = pending[~hits.any(1)]
        level = level + step
        pending = pending[level[pending] < MAX_COST]

    found = np.flatnonzero(np.isfinite(cost) & (cost > 0))
    if more_deltas is not None and len(found):
        deltas = more_deltas
        for _ in range(20):  # up to 1.02 ** 20 of the cost
            broken = found[~favourable(found, (best * cost[:, None])[found, None], deltas)[:, 0]]
            if not len(broken):
                break
            cost[broken] *= 1.02
        cost[broken] = np.inf
        found = np.setdiff1d(found, broken)
    for spread in (0.1, 0.03, 0.01, 0.003) if len(found) else ():
        close = best[found, None] + spread * rng.normal(size=(len(found), near, x.shape[1]))
        sparse = rng.random(close.shape) < 0.3
        close = unit_cost(np.where(sparse, best[found, None], close), norm)
        top = np.repeat(cost[found, None], near, 1)
        good = favourable(found, close * top[..., None], deltas)
        low = np.where(good, 0.9 * top, top)
        ends = np.where(good, bisect(found, close, low, top, deltas), np.inf)
        better = ends.min(1) < cost[found]
        rows = np.arange(len(found))
        best[found] = np.where(better[:, None], close[rows, ends.argmin(1)], best[found])
        cost[found] = np.minimum(cost[found], ends.min(1))
    return cost


def single_feature_cost(score, truth, x, scale) -> float:
    """Mean cost of the best single-feature action, on a grid of 0.002."""
    grid = np.arange(0.002, 8.0, 0.002, dtype=np.float32)
    axes = np.concatenate([np.eye(3), -np.eye(3)])

    @jax.jit
    def one(x):
        moves = Action.soft(grid[:, None, None] * axes * scale)
        return (score(truth.counterfactual(x, moves)) >= 0).any(1)

    costs = [grid[np.argmax(one(row))] if one(row).any() else np.nan for row in x]
    return float(np.nanmean(costs))


def dense_ball(epsilon: float, norm: str, num_points: int) -> np.ndarray:
    """The centre, the surface and the interior of the ball, other points than solvers use."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(num_points, 3))
    if norm == "l2":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    else:
        corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
        points = np.concatenate([corners, points / np.abs(points).max(1, keepdims=True)])
    points[::4] *= rng.random((len(points[::4]), 1))
    return epsilon * np.concatenate([np.zeros((1, 3)), points])
