"""Whether any SCM of the surrogate can fit a person's answers: a test of lack of fit.

Given its parents as they were reported, a node's answers are a regression on the mechanism's
features, whatever its numbers. If they also follow other features of nodes that come before it
(their changes and the squares of these: edges that the graph lacks, curves that the mechanism
lacks), no numbers fit: the F test of nested regressions (Draper & Smith, "Applied Regression
Analysis", ch. 1 and 6), node by node.
"""

from __future__ import annotations

import jax
import numpy as np
from scipy.stats import f as f_distribution

from pcr_jax.batching import chunks_of, take, width
from pcr_jax.inference.posteriors import Posteriors
from pcr_jax.inference.samplers.gibbs import Person
from pcr_jax.inference.target import Target
from pcr_jax.surrogates import for_users, in_scale
from pcr_jax.surrogates.regression import is_regression

LEAST_PROBABLE = 0.01
"""Answers fit poorly if a well-specified person's would so rarely lack as much."""

_CHUNK = 32
_NUM_DRAWS = 256  # over which probabilities of being wrong are averaged
# An answer is left out if it is so probably wrong. Where nothing fits, right ones are doubted too:
# a lower bound would leave out what tells.
_WRONG = 0.95
# Of a regressor, what counts as none.
_RANK = 1e-4


def can_judge(posteriors: Posteriors) -> bool:
    """Whether mechanisms are sums over features, and which answers are right is known."""
    judges = hasattr(posteriors.likelihood, "wrong_probability")
    return judges and is_regression(posteriors.surrogate)


def fit_probabilities(posteriors: Posteriors) -> np.ndarray:
    """How probably well-specified people's answers would fit no better than each user's.

    A p-value, of the answers that are not almost surely wrong, with Bonferroni's correction for the
    number of nodes. 1 where there is nothing to judge by.

    Parameters
    ----------
    posteriors : Posteriors
        See `can_judge`.

    Returns
    -------
    array
        Shape (num_users,).
    """
    surrogate, history = in_scale(posteriors.surrogate, posteriors.history)
    num = min(_NUM_DRAWS, posteriors.flat.shape[1])
    wrong = posteriors.of_answers("wrong_probability", num).mean(1)
    model, everybody = (for_users(surrogate, len(wrong)), history), np.arange(len(wrong))
    found = np.ones(len(wrong))
    for users, padded in chunks_of(everybody, _CHUNK * width()):
        regressions = _regressions(posteriors.likelihood, *take(model, padded))
        each = zip(*map(np.asarray, regressions), strict=True)
        for i, (changes, gaps, usable, features) in zip(users, each, strict=False):
            found[i] = _probability(changes, gaps, usable, features, ~(wrong[i] > _WRONG))
    return found


@jax.jit
def _regressions(likelihood, surrogates, histories):
    """Of each user: changes (T, d), which tell of their node (T, d), features (d, T, M)."""

    def one(surrogate, history):
        person = Person(Target(surrogate, likelihood, history))
        values, usable, features = person.reported()
        return values - person.begin, values - person.base, usable, features

    return jax.vmap(one)(surrogates, histories)


def _probability(changes, gaps, usable, features, right) -> float:
    """The smallest p-value of a user's nodes, times their number."""
    found = []
    for j, own in enumerate(features.astype(float)):
        rows = usable[:, j] & right
        before = changes[rows, :j].astype(float)
        every = np.concatenate([own[rows], before, before**2], 1)
        (least, few), (less, many) = (
            _left(some, gaps[rows, j].astype(float)) for some in (own[rows], every)
        )
        if few < many < rows.sum():
            ratio = (least - less) / (many - few) / max(less / (rows.sum() - many), 1e-12)
            found.append(f_distribution.sf(ratio, many - few, rows.sum() - many))
    return min(1.0, len(found) * min(found)) if found else 1.0


def _left(features, gaps) -> tuple[float, int]:
    """The sum of squares that a regression leaves, and its rank."""
    size = np.abs(features).max(0, initial=0.0)
    kept = features[:, size > 0] / size[size > 0]
    if not kept.size:
        return float(gaps @ gaps), 0
    weights, _, rank, _ = np.linalg.lstsq(kept, gaps, rcond=_RANK)
    return float(np.sum((gaps - kept @ weights) ** 2)), int(rank)
