"""The population: labels, a classifier trained on them, and the users it refuses."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import take
from pcr_jax.classifiers import Classifier, train_mlp
from pcr_jax.scm import SCM

_SCMS = " See pcr_jax.library and pcr_jax.linear_scm."


class Population(NamedTuple):
    """A trained classifier and the users it refused.

    Attributes
    ----------
    score : Classifier
    users : Array
        Shape (num_users, d), natural units, every one with a negative score.
    scale : Array
        Shape (d,): standard deviations of the training users, the unit of cost and epsilon.
    """

    score: Classifier
    users: Array
    scale: Array


def sample_labels(key: Array, x: Array, *, rho: str = "mean") -> Array:
    """Labels ``Y ~ Bernoulli(sigmoid(2.5 / rho * sum_j X_j))`` (section 5 of the paper).

    Parameters
    ----------
    key : Array
    x : Array
        Shape (num_samples, d).
    rho : {"mean", "mean_abs"}
        The mean of the sum, as the paper has it (its sign is arbitrary where that mean is near
        0, as for M1), or the mean of its absolute value, as in Karimi et al. (2020).

    Returns
    -------
    Array
        Shape (num_samples,), 0.0 or 1.0.

    Raises
    ------
    TypeError
        If ``key`` is none, or ``x`` is no numbers.
    ValueError
        If ``x`` is not finite or of another shape, or ``rho`` is unknown.
    """
    _checks.key(key)
    _checks.choice(rho, ("mean", "mean_abs"), "rho")
    x = _checks.finite(x, "x", ("num_samples", "d"))
    if not len(x):
        raise ValueError("Expected at least one sample in x; got none.")
    total = x.sum(-1)
    unit = jnp.mean(total if rho == "mean" else jnp.abs(total))
    return jax.random.bernoulli(key, jax.nn.sigmoid(2.5 / unit * total)).astype(x.dtype)


def refused_population(
    key: Array,
    scm: SCM,
    *,
    num_train: int = 1500,
    num_users: int = 500,
    rho: str = "mean",
    learning_rate: float = 0.01,
    epochs: int = 500,
    max_draws: int = 1_000_000,
) -> Population:
    """Sample and label training users, train the classifier, draw users until enough are refused.

    Parameters
    ----------
    key : Array
    scm : SCM
        The true SCM.
    num_train, num_users : int
        Users to train on, and refused users to return.
    rho
        See `sample_labels`.
    learning_rate, epochs
        See `pcr_jax.classifiers.train_mlp`.
    max_draws : int
        How many users to draw at most.

    Raises
    ------
    TypeError
        If ``key`` or ``scm`` is of another type.
    ValueError
        If a count is not positive.
    RuntimeError
        If the classifier refuses too few of ``max_draws`` users.
    """
    _checks.key(key)
    _checks.instance(scm, SCM, "scm", _SCMS)
    _checks.count(num_train, "num_train")
    _checks.count(num_users, "num_users")
    _checks.count(max_draws, "max_draws")
    k_train, k_label, k_fit, k_users = jax.random.split(key, 4)
    x = scm.sample(k_train, num_train)
    y = sample_labels(k_label, x, rho=rho)
    score = train_mlp(k_fit, x, y, learning_rate=learning_rate, epochs=epochs)

    users, drawn = x[:0], 0
    while len(users) < num_users and drawn < max_draws:
        k_users, k_draw = jax.random.split(k_users)
        candidates = scm.sample(k_draw, min(2 * num_users, max_draws - drawn))
        refused = np.flatnonzero(score(candidates) < 0)
        users = jnp.concatenate([users, take(candidates, refused)])
        drawn += len(candidates)
    if len(users) < num_users:
        raise RuntimeError(
            f"The classifier refused {len(users)} of {drawn} users; num_users={num_users} were "
            "asked for. Its training labels may be all of one class."
        )
    return Population(score, users[:num_users], score.scale)


def refused_test_users(
    key: Array,
    scm: SCM,
    *,
    num_samples: int = 1000,
    max_users: int = 500,
    learning_rate: float = 0.5,
    epochs: int = 100,
) -> Population:
    """Split one sample 80/20, train on the one part, explain the refused of the other.

    This is what the paper's released code does; its defaults are the released code's. The number
    of users depends on the draw.

    Parameters
    ----------
    key : Array
    scm : SCM
        The true SCM.
    num_samples : int
        Size of the sample; rho of the labels is taken over all of it.
    max_users : int
        Keep the first so many.
    learning_rate, epochs
        See `pcr_jax.classifiers.train_mlp`.

    Raises
    ------
    TypeError
        If ``key`` or ``scm`` is of another type.
    ValueError
        If ``num_samples < 5`` or ``max_users < 1``.
    RuntimeError
        If the classifier refuses nobody of the test part.
    """
    _checks.key(key)
    _checks.instance(scm, SCM, "scm", _SCMS)
    _checks.count(num_samples, "num_samples", minimum=5)
    _checks.count(max_users, "max_users")
    k_sample, k_label, k_fit = jax.random.split(key, 3)
    x = scm.sample(k_sample, num_samples)
    y = sample_labels(k_label, x)
    num_train = num_samples * 4 // 5
    score = train_mlp(
        k_fit, x[:num_train], y[:num_train], learning_rate=learning_rate, epochs=epochs
    )
    test = x[num_train:]
    users = test[np.asarray(score(test)) < 0][:max_users]
    if not len(users):
        raise RuntimeError(f"The classifier refused none of {len(test)} test users.")
    return Population(score, users, score.scale)
