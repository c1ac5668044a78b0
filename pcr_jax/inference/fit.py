"""Whether any SCM of the surrogate fits a person's answers, and what to believe where none does.

The surrogate is held against itself expanded by edges and curves (`pcr_jax.surrogates.expanded`),
by the evidence of the answers under both (Kass & Raftery, "Bayes Factors", 1995), from the filter
of `Gibbs`. Where the expanded one is believed, an SCM of the surrogate that is handed on answers
one question at random as that does: no such SCM is right about all, and over the draws they are as
far apart as the surrogate is wrong.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import expit

from pcr_jax.batching import chunks_of, take, user_keys, width
from pcr_jax.history import History, Questions
from pcr_jax.inference.samplers.filter import Filter, systematic
from pcr_jax.inference.samplers.gibbs import Gibbs, Person
from pcr_jax.inference.target import Target
from pcr_jax.surrogates import for_users, in_scale
from pcr_jax.surrogates.expanded import expanded
from pcr_jax.surrogates.regression import padded_parents

if TYPE_CHECKING:
    from pcr_jax.inference.posteriors import Posteriors

# Of the surrogate being wrong, before anything is answered; of one whose mechanisms are curved.
_WRONG, _WRONG_CURVED = 0.1, 0.02
# Filters, each of which takes the answers in an order of its own; particles of each.
_ORDERS, _PARTICLES = 16, 32
# Draws of the expanded surrogate's weights.
_DRAWN = 64
# How far the questions at random go, in scales.
_REACH = 3.0
# Coefficients are given what causes leave unexplained as if those moved by that share of the
# question's shift at least.
_LEAST = 0.25
# Users whose answers, and whose draws, are looked at at once, for each unit of `width`.
_USERS, _CHUNK = 8, 32


class Fit(NamedTuple):
    """Of each user: ``wrong`` (users,), how probably no SCM of the surrogate fits; ``weights``
    (users, some draws, d, M) of the expanded surrogate.
    """

    wrong: np.ndarray
    weights: np.ndarray | None

    @property
    def poor(self) -> np.ndarray:
        """Whom none fits, more probably than not; (users,)."""
        return self.wrong > 0.5


def can_judge(posteriors: Posteriors) -> bool:
    """Whether `Gibbs` suits surrogate and likelihood, whose filter judges."""
    return Gibbs().unsuited(posteriors.surrogate, posteriors.likelihood) is None


def _keys(posteriors: Posteriors) -> Array:
    """A key for each user, from that of `infer`."""
    words = jnp.asarray(posteriors.info["key"], jnp.uint32).ravel()[-2:]
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), 3)
    return user_keys(key, len(posteriors.draws))


def judged(posteriors: Posteriors) -> Fit:
    """How well each user's answers fit; 0 is how probably they do not where nothing can be said.

    Parameters
    ----------
    posteriors : Posteriors
    """
    num_users = len(posteriors.draws)
    wrong = np.zeros(num_users)
    told = ~np.isnan(np.asarray(posteriors.history.answer)).all((1, 2))
    told &= np.isfinite(posteriors.draws).all((1, 2, 3))
    if not told.any() or not can_judge(posteriors):
        return Fit(wrong, None)
    surrogate, history = in_scale(posteriors.surrogate, posteriors.history)
    model = for_users(surrogate, num_users), history, _keys(posteriors)
    prior = _WRONG_CURVED if getattr(surrogate, "curved", False) else _WRONG
    weights = None
    for users, padded in chunks_of(np.flatnonzero(told), _USERS * width()):
        found = _compared(posteriors.likelihood, *take(model, padded), len(users))
        log_odds, own = (np.asarray(leaf)[: len(users)] for leaf in found)
        if weights is None:
            weights = np.zeros((num_users, *own.shape[1:]), own.dtype)
        wrong[users] = expit(log_odds + np.log(prior / (1 - prior)))
        weights[users] = own
    return Fit(wrong, weights)


@jax.jit
def _compared(likelihood, surrogates, histories, keys, num):
    """Of each user the logarithm of the Bayes factor, and weights of the expanded surrogate.

    What is beyond the first ``num`` users is padding, whose numbers have no meaning.
    """

    def one(surrogate, history, key):
        def filter_of(share):
            return Filter(Person(Target(expanded(surrogate, share), likelihood, history)))

        def filtered(share, key):
            of_order = partial(filter_of(share).run, num_particles=_PARTICLES)
            return jax.vmap(of_order)(jax.random.split(key, _ORDERS))

        k_filter, k_keep, k_draw = jax.random.split(key, 3)
        both = jnp.array([0.0, 1.0]), jax.random.split(k_filter)
        found = jax.lax.map(lambda of: filtered(*of), both)  # vmap takes longer to compile
        particles, log_weights = take(found, 1)
        some = systematic(k_keep, log_weights.ravel(), _DRAWN)
        places = some // _PARTICLES, some % _PARTICLES
        log_odds = jnp.subtract(*jax.nn.logsumexp(found[1], (-2, -1))[::-1])
        return log_odds, filter_of(jnp.ones(())).draws(k_draw, take(particles, places))

    size, users = width(), (surrogates, histories, keys)

    def some(i):
        at = partial(jax.lax.dynamic_slice_in_dim, start_index=i * size, slice_size=size)
        return jax.vmap(one)(*jax.tree.map(at, users))

    def together(i, found):
        def put(into, new):
            return jax.lax.dynamic_update_slice_in_dim(into, new, i * size, 0)

        return jax.tree.map(put, found, some(i))

    nothing = jax.tree.map(
        lambda leaf: jnp.zeros((len(keys), *leaf.shape[1:]), leaf.dtype), jax.eval_shape(some, 0)
    )
    return jax.lax.fori_loop(0, -(-num // size), together, nothing)


def with_misfit(posteriors: Posteriors, theta: Array) -> Array:
    """Draws theta (user, n, k); of whom none fits as many moved as are believed to be wrong.

    Parameters
    ----------
    posteriors : Posteriors
    theta : Array
        Shape (num_users, n, k).
    """
    fit, num = posteriors.fit, theta.shape[1]
    keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, num)))(_keys(posteriors))
    unit = jax.vmap(lambda key: jax.random.uniform(key, (num,)))(keys[:, 0])
    moves = (np.asarray(unit) < fit.wrong[:, None]) & fit.poor[:, None]
    out = np.array(theta)
    surrogate, history = in_scale(posteriors.surrogate, posteriors.history)
    model = for_users(surrogate, len(out)), history.x, keys[:, 1], out, fit.weights
    for users, padded in chunks_of(np.flatnonzero(moves.any(1)), _CHUNK * width()):
        moved = np.asarray(_moved(posteriors.likelihood, *take(model, padded)))[: len(users)]
        out[users] = np.where(moves[users][..., None], moved, out[users])
    return jnp.asarray(out)


@jax.jit
def _moved(likelihood, surrogates, x, keys, thetas, weights):
    """Every theta (user, n, k) such that it answers one question as the expanded surrogate does."""

    def one(surrogate, x, key, theta, weights):
        graph, blocks = surrogate.graph, surrogate.blocks
        parents = padded_parents(graph)
        k_node, k_shift = jax.random.split(key)
        node = jax.random.choice(k_node, jnp.asarray(np.flatnonzero(graph.descendants.any(1))))
        shift = jax.random.uniform(k_shift, (), x.dtype, -_REACH, _REACH)
        question = Questions(node[None], shift[None], jnp.ones(1, bool))
        history = History(question, jnp.full((1, len(x)), jnp.nan), x)
        person = Person(Target(expanded(surrogate, jnp.ones(())), likelihood, history))
        values, base = person.expected(weights)[0], person.base[0]
        features: Any = jax.vmap(surrogate.features, (0, None))
        nodes = np.arange(len(x))
        rise = features(nodes, values) - features(nodes, x)
        own = jnp.where(blocks >= 0, theta[blocks], 0.0)
        left = values - base - jnp.sum(own * rise, -1)
        changes = jnp.where(parents >= 0, (values - x)[parents], 0.0)
        size = jnp.maximum(jnp.sum(changes**2, -1), (_LEAST * shift) ** 2)
        step = (left / size)[:, None] * changes
        return theta.at[blocks[:, : parents.shape[1]]].add(step)

    def of_user(surrogate, x, key, thetas, weights):
        num = len(thetas)
        some = weights[np.arange(num) % len(weights)]
        each = jax.vmap(one, (None, None, 0, 0, 0))
        return each(surrogate, x, jax.random.split(key, num), thetas, some)

    return jax.vmap(of_user)(surrogates, x, keys, thetas, weights)
