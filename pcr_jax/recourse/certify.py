"""Proofs that an action withstands every perturbation of a ball; an attack shows only so for some.

With linear mechanisms, the features after a perturbation Delta and an action are affine in Delta,
``centre + matrix @ Delta``. Two kinds of score are bounded over all of the ball:

- The library's own network. Over a box of perturbations every tanh lies between two parallel lines,
  so that the logit lies above an affine function of Delta (linear relaxation, as in CROWN: Zhang et
  al. 2018, "Efficient neural network robustness certification with general activation functions"),
  whose minimum over the intersection of box and ball is bounded by duality. Boxes that are not
  decided are halved, up to a budget (branch and bound).
- A decision tree of scikit-learn. No unfavourable leaf's cell, a box of features, meets the image
  of the ball: a convex problem per cell, whose dual solution is the proof.

Rounding is allowed for, by a priori bounds on the errors of a product of n terms in floating point,
``(n + 4) u`` with u half the machine epsilon, and of tanh, 20 u; both for the score as the library
evaluates it and for the bound itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import Array

from pcr_jax.actions import Action
from pcr_jax.batching import by_bucket, chunks_of, map_users, take, width
from pcr_jax.classifiers import MLP, Classifier
from pcr_jax.recourse.adversary import Ball
from pcr_jax.scm import SCM
from pcr_jax.scores import OutsideModel, Threshold

_BOXES = 256  # bounded at once, for each unit of `width`
_USERS = 256  # whose boxes are kept at once, for each unit of `width`
_FEW_NODES = 4
_BUDGET, _SMALL_BUDGET = 8192, 64  # boxes per user, of up to that many nodes or of more
_TANH = 20  # error, in units u: measured, at most 7 in the score, and as much in the bound
_INFLATION = 1 + 1e-5  # of the ball, whose points are rounded as well


def certified(
    score: Callable, scms: SCM, x: Array, action: Action, scale: Array, ball: Ball
) -> np.ndarray:
    """Whose action is proved to withstand every perturbation of the ball.

    True: `pcr_jax.recourse.adversary.outcome`, as it is computed, rounding included, is at least 0
    for every perturbation. False: not proved, whether or not it is so. Only an MLP (`Classifier`,
    also `with_threshold`) and a scikit-learn decision tree (`outside_model`), under linear SCMs,
    can be proved. On an accelerator the MLP can be only if its matrix products are in full
    precision (``jax.default_matmul_precision("highest")``).

    Ask about actions that have withstood an attack: to give up on one that cannot be proved may
    cost the whole budget.

    Parameters
    ----------
    score : callable
        x (d,), natural units -> logit ().
    scms : SCM
        With leading axis (num_users,).
    x : Array
        Shape (num_users, d), natural units.
    action : Action
        Of shape (num_users, d).
    scale : Array
        Shape (d,), natural units.
    ball : Ball

    Returns
    -------
    np.ndarray
        Shape (num_users,), boolean.
    """
    proof = _tree_proof(score) or _network_proof(score)
    if proof is None or not scms.linear:
        return np.zeros(len(x), bool)
    radius = _INFLATION * ball.radius
    images = by_bucket(lambda _, *users: _images(scale, radius, *users), scms, x, action)
    return proof(images, ball.norm)


class Image(NamedTuple):
    """The features ``centre + matrix @ way`` that a ball of perturbations leads to.

    Attributes
    ----------
    centre : Array
        Shape (d,), natural units.
    matrix : Array
        Shape (d, d), natural units; ``way`` is a perturbation in units of the ball's radius.
    slack : Array
        Shape (d,): how far from that features may be, as they are computed.
    """

    centre: Array
    matrix: Array
    slack: Array


@jax.jit
def _images(scale, radius, scms, x, action):
    def one(scm, x, action):
        def features(way):
            perturbed = scm.counterfactual(x, Action.soft(radius * way * scale))
            return scm.counterfactual(perturbed, action)

        # Features are sums over paths of the graph. Each term is rounded at most so many times,
        # and `sizes` gives the sums of the terms' absolute values.
        sizes = SCM(scm.graph, jax.tree.map(jnp.abs, scm.mechanisms), scm.noise)
        size = 2 * jnp.abs(x) - sizes.abduct(jnp.abs(x)) + radius * scale
        size = sizes.predict(size)
        size = 2 * size - sizes.abduct(size)
        size = sizes.predict(size, Action(jnp.abs(action.value), action.hard))
        roundings = 4 * (len(x) + 1) * (len(x) + 3)
        matrix, centre = jax.jacfwd(lambda way: 2 * (features(way),), has_aux=True)(0 * x)
        return Image(centre, matrix, roundings * _rounding(x) * size)

    return map_users(one, scms, x, action)


def _rounding(x: Array) -> float:
    """The relative error u of one rounding."""
    return float(jnp.finfo(x.dtype).eps) / 2


# Networks


class Network(NamedTuple):
    """An MLP of tanh: every layer's kernel (n, m) and bias (m,), its features' units, the least
    favourable logit ().
    """

    layers: tuple[tuple[Array, Array], ...]
    loc: Array
    scale: Array
    threshold: Array


def _network_proof(score: Callable) -> Callable[[Image, str], np.ndarray] | None:
    """The proof for a `Classifier` of an `MLP`, also `with_threshold`; None for other scores."""
    threshold = jnp.zeros(())
    if isinstance(score, Threshold):
        threshold, score = score.logit, score.score
    if type(score) is not Classifier or type(score.module) is not MLP:
        return None
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if jax.default_backend() != "cpu" and precision not in ("highest", "float32"):
        return None
    params = score.params["params"]
    dense = [params[f"Dense_{i}"] for i in range(len(score.module.hidden) + 1)]
    layers = [(layer["kernel"], layer["bias"]) for layer in dense]
    network = Network(tuple(layers), score.loc, score.scale, threshold)
    return partial(_branch_and_bound, network)


class Boxes(NamedTuple):
    """Boxes in the unit cube: whose (n,), their centres and half their widths (n, d).

    Those are multiples of powers of 1/2, so that nothing is lost between them.
    """

    user: np.ndarray
    centre: np.ndarray
    half: np.ndarray


def _branch_and_bound(network: Network, images: Image, norm: str) -> np.ndarray:
    """Whose logits are proved not to be negative, shape (num_users,)."""
    num_users = len(images.centre)
    found = [
        _prove(network, take(images, rows), norm, len(some))
        for some, rows in chunks_of(np.arange(num_users), _USERS * width())
    ]
    return np.concatenate(found)


def _prove(network: Network, images: Image, norm: str, num_users: int) -> np.ndarray:
    """As `_branch_and_bound`, of the first users; all their undecided boxes are halved at once."""
    num_nodes = images.centre.shape[1]
    budget = _BUDGET if num_nodes <= _FEW_NODES else _SMALL_BUDGET
    proved = np.ones(num_users, bool)
    spent = np.zeros(num_users, int)
    cube = np.ones((num_users, num_nodes), images.centre.dtype)
    boxes = Boxes(np.arange(num_users), 0 * cube, cube)
    while len(boxes.user):
        found = []
        for some, rows in chunks_of(np.arange(len(boxes.user)), _BOXES * width()):
            bounds = jax.device_get(_bounds(network, images, norm, take(boxes, rows)))
            found.append(take(bounds, slice(len(some))))
        lower, hopeless, axis = map(np.concatenate, zip(*found, strict=True))
        undecided = ~(lower >= 0)
        spent += np.bincount(boxes.user, minlength=num_users)
        wanted = 2 * np.bincount(boxes.user[undecided], minlength=num_users)
        proved &= spent + wanted <= budget
        proved[boxes.user[hopeless]] = False
        boxes = _halves(boxes, axis, undecided & proved[boxes.user])
        if norm == "l2":
            nearest = np.maximum(np.abs(boxes.centre) - boxes.half, 0)
            boxes = take(boxes, np.linalg.norm(nearest, axis=1) <= _INFLATION)
    return proved


def _halves(boxes: Boxes, axis: np.ndarray, chosen: np.ndarray) -> Boxes:
    """The two halves, cut across ``axis`` (n,), of the boxes ``chosen`` (n,)."""
    boxes, axis = take((boxes, axis), chosen)
    step = boxes.half * (np.arange(boxes.half.shape[1]) == axis[:, None]) / 2
    sides = [Boxes(boxes.user, boxes.centre + way * step, boxes.half - step) for way in (-1, 1)]
    return Boxes(*(np.concatenate(parts) for parts in zip(*sides, strict=True)))


@partial(jax.jit, static_argnames="norm")
def _bounds(network: Network, images: Image, norm: str, boxes: Boxes):
    def one(image, centre, half):
        return bound(network, image, norm, centre, half)

    return jax.vmap(one)(take(images, boxes.user), boxes.centre, boxes.half)


def bound(
    network: Network, image: Image, norm: str, centre: Array, half: Array
) -> tuple[Array, Array, Array]:
    """A bound on the logits of what a box and the unit ball have in common.

    Parameters
    ----------
    network : Network
    image : Image
    norm : str
    centre, half : Array
        Shape (d,): the box's centre and half its widths.

    Returns
    -------
    lower : Array
        Shape (): no logit is less.
    hopeless : Array
        Shape (), bool: one of the logits is too low for any proof, or not finite.
    axis : Array
        Shape (), int: across which to halve the box.
    """
    u = _rounding(centre)
    dot = partial(jnp.matmul, precision="highest")
    # Exact values are within `error` of `value + coefs.T @ (way - centre)`. Of what products with
    # the kernel are rounded, `size` is the sum: the score's values, `value`, `coefs` and `error`.
    features = image.centre + dot(image.matrix, centre)
    value = (features - network.loc) / network.scale
    coefs = image.matrix.T / network.scale
    error = (image.slack + 4 * u * (jnp.abs(features) + jnp.abs(network.loc))) / network.scale
    size = 2 * (jnp.abs(value) + dot(half, jnp.abs(coefs))) + error
    slopes, deviations, roundings = [], [], []
    for i, (kernel, bias) in enumerate(network.layers):
        product = dot(jnp.concatenate([value[None], coefs]), kernel)
        value, coefs = product[0] + bias, product[1:]
        if i == 0:
            first = coefs
        error, size = dot(jnp.stack([error, size]), jnp.abs(kernel))
        rounding = (len(kernel) + 4) * u * (size + 2 * jnp.abs(bias))
        error += rounding
        roundings.append(rounding if i else error)
        if i < len(network.layers) - 1:
            reach = dot(half, jnp.abs(coefs)) + error
            slope, value, deviation, largest = _relaxed_tanh(value, reach)
            deviation += _TANH * u
            coefs *= slope
            error = slope * error + deviation
            size = 2 * (largest + slope * reach) + error
            slopes.append(slope)
            deviations.append(deviation)

    # Backwards, for how much each unit changes the logit: opposite effects cancel, which sums of
    # absolute values do not see.
    effect = jnp.ones(1, value.dtype)
    relaxed, rounded = jnp.zeros_like(value[0]), roundings[-1][0]
    for i in reversed(range(len(slopes))):
        effect = dot(network.layers[i + 1][0], effect)
        relaxed += jnp.abs(effect) @ deviations[i]
        effect *= slopes[i]
        rounded += jnp.abs(effect) @ roundings[i]
    num_nodes = len(centre)
    steepness = coefs[:, 0]
    rise, place = _least(steepness, norm, centre, half)
    sums = 1 + 4 * u * sum(len(kernel) + 8 for kernel, _ in network.layers)
    above = value[0] - network.threshold
    size = jnp.abs(value[0]) + jnp.abs(network.threshold) + jnp.abs(steepness).sum()
    last = 8 * (num_nodes + 2) ** 2 * u * size
    lower = above + rise - sums * (relaxed + rounded) - last
    highest = above + steepness @ (place - centre) + relaxed
    inside = (jnp.abs(place - centre) <= half).all()
    hopeless = (inside & (highest < rounded)) | ~jnp.isfinite(lower)
    # Where the most curvature is to be expected.
    return lower, hopeless, jnp.argmax(half * jnp.linalg.norm(first * effect, axis=1))


def _relaxed_tanh(value: Array, reach: Array) -> tuple[Array, Array, Array, Array]:
    """Parallel lines that enclose tanh over ``value +- reach``; all of the shape of ``value``.

    Between them, ``shift + slope * (z - value) +- deviation``; and the largest of the absolute
    values of tanh.
    """
    ends = value + jnp.stack([-reach, reach])
    heights = jnp.tanh(ends)
    chord = (heights[1] - heights[0]) / jnp.where(reach > 0, 2 * reach, 1.0)
    slope = jnp.where(chord > 1e-6, jnp.minimum(chord, 1.0), 0.0)  # any would do
    # Tanh is furthest from a line of this slope at an end or where its own slope is the same.
    turn = jnp.sqrt(1 - slope)
    place = jnp.arctanh(jnp.minimum(turn, 1 - 1e-7))
    gaps = heights - slope * (ends - value)
    sides = jnp.array([-1.0, 1.0])[:, None]
    within = (ends[0] < sides * place) & (sides * place < ends[1]) & (slope > 0)
    turns = jnp.where(within, sides * turn - slope * (sides * place - value), gaps[:1])
    gaps = jnp.concatenate([gaps, turns])
    low, high = gaps.min(0), gaps.max(0)
    return slope, (low + high) / 2, (high - low) / 2, jnp.abs(heights).max(0)


def _least(slope: Array, norm: str, centre: Array, half: Array) -> tuple[Array, Array]:
    """A bound on ``slope @ (way - centre)`` over box and unit ball, and about where that is."""
    least = -jnp.abs(slope) @ half
    if norm == "linf":
        return least, centre - half * jnp.sign(slope)
    # slope @ way + m (|way|^2 - 1), Lagrange's function, is a bound for every m >= 0.
    least_size = 16 * jnp.finfo(slope.dtype).tiny
    best = jnp.maximum(jnp.linalg.norm(slope), least_size) / 2  # that of all of the ball
    multipliers = best * 2.0 ** jnp.arange(-3, 4)
    ways = jnp.clip(-slope / (2 * multipliers[:, None]), centre - half, centre + half)
    duals = ways @ slope + multipliers * ((ways**2).sum(1) - 1)
    way = ways[jnp.argmax(duals)]
    way /= jnp.maximum(jnp.linalg.norm(way), 1.0)
    return jnp.maximum(least, duals.max() - slope @ centre), way


# Trees


class Cells(NamedTuple):
    """What ends in a decision tree's unfavourable leaves: ``lower < x <= upper``, both (n, d)."""

    lower: np.ndarray
    upper: np.ndarray


def _tree_of(score: Callable) -> tuple[Any, np.ndarray, list[int]] | None:
    """scikit-learn's ``tree_`` of a score, which nodes are favourable leaves, and which of the
    score's features each of the tree's is; None of other scores.
    """
    if not isinstance(score, OutsideModel):
        return None
    host, model = score.host, score.host.model
    own = type(model).__module__.startswith("sklearn.tree.")  # a subclass may predict otherwise
    if not (own and hasattr(model, "tree_") and model.n_outputs_ == 1):
        return None
    if host.method != "predict_proba":
        return None
    order = host.order()
    places = range(model.n_features_in_) if order is None else map(host.names.index, order)
    return model.tree_, model.tree_.value[:, 0, host.position()] - host.least >= 0, list(places)


def _tree_proof(score: Callable) -> Callable[[Image, str], np.ndarray] | None:
    """The proof for a decision tree of scikit-learn; None for other scores."""
    found = _tree_of(score)
    if found is None:
        return None
    tree, favourable, places = found
    lower = np.full((tree.node_count, tree.n_features), -np.inf)
    upper = -lower
    for node in range(tree.node_count):  # parents come before their children
        left, right = tree.children_left[node], tree.children_right[node]
        if left != right:
            cut, feature = tree.threshold[node], places[tree.feature[node]]
            lower[[left, right]], upper[[left, right]] = lower[node], upper[node]
            upper[left, feature] = min(cut, upper[node, feature])
            lower[right, feature] = max(cut, lower[node, feature])
    bad = (tree.children_left == tree.children_right) & ~favourable
    return partial(_misses_all, Cells(lower[bad], upper[bad]))


def _misses_all(cells: Cells, images: Image, norm: str) -> np.ndarray:
    """Whose image of the ball meets no cell, shape (num_users,)."""
    images = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), images)
    proved = np.zeros(len(images.centre), bool)
    finite = np.isfinite(images.centre + images.slack + images.matrix.sum(2)).all(1)
    for user in np.flatnonzero(finite):
        centre, matrix, slack = take(images, user)
        reach = np.linalg.norm(matrix, 2 if norm == "l2" else 1, axis=1)
        # scikit-learn rounds features to float32.
        slack = slack + 2.0**-23 * (np.abs(centre) + reach)
        lower = np.maximum(cells.lower - slack, centre - reach - slack)
        upper = np.minimum(cells.upper + slack, centre + reach + slack)
        proved[user] = all(
            _distance(matrix, lower[cell] - centre, upper[cell] - centre, norm) > 1
            for cell in np.flatnonzero((lower < upper).all(1))
        )
    return proved


def _distance(matrix: np.ndarray, low: np.ndarray, high: np.ndarray, norm: str) -> float:
    """A bound on the norm of every ``way`` with ``low <= matrix @ way <= high``.

    Nodes with a hard intervention have rows and columns of 0, the others a triangular matrix.
    """
    moved = np.diag(matrix) != 0
    low, high, matrix = low[moved], high[moved], matrix[np.ix_(moved, moved)]
    if not moved.any():
        return 0.0
    inverse = np.linalg.inv(matrix)
    if norm == "l2":
        nearest = scipy.optimize.lsq_linear(inverse, np.zeros(len(low)), (low, high)).x
        dual = inverse @ nearest
        size = np.linalg.norm(dual)
    else:
        top = np.ones((len(low), 1))
        found = scipy.optimize.linprog(
            np.append(np.zeros(len(low)), 1.0),
            A_ub=np.block([[inverse, -top], [-inverse, -top]]),
            b_ub=np.zeros(2 * len(low)),
            bounds=[*zip(low, high, strict=True), (0.0, None)],
        )
        if not found.success:
            return 0.0
        above, below = np.split(found.ineqlin.marginals, 2)
        dual = below - above
        size = np.abs(dual).sum()
    # Whatever the solver found: |dual| |way| >= dual @ way, in the dual norm.
    slope = dual @ inverse
    return np.minimum(slope * low, slope * high).sum() / size if size else 0.0
