"""Respondents: who answers the questions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action
from pcr_jax.batching import map_users, user_keys
from pcr_jax.elicitation.history import Query
from pcr_jax.scm import SCM, inverted


@pytree(static=("num_draws", "report"))
class SimulatedUser:
    """Answers population questions from an SCM, sometimes from a wrong one (Eq. 4 of the paper).

    Parameters
    ----------
    scm : SCM
        The user's own; with a leading axis to give every user another.
    error_rate : float
        alpha: the probability that an answer comes from ``wrong``.
    wrong : SCM, optional
        The source of wrong answers (theta* of Eq. 4); by default ``scm`` with all effects inverted.
    num_draws : int
        An answer is the mean of this many draws from the intervened SCM.
    noise : float
        Standard deviation of Gaussian noise added to every reported number, natural units.
    report : {"all", "one"}
        Whether all descendants of the shifted node are reported, or one of them at random.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If ``error_rate`` is outside [0, 1], ``num_draws < 1``, ``noise < 0``, ``report`` is
        unknown, or ``wrong`` has other nodes.
    """

    scm: SCM
    error_rate: float = 0.1
    wrong: SCM | None = None
    num_draws: int = 100
    noise: float = 0.0
    report: str = "all"

    def __post_init__(self):
        _checks.instance(self.scm, SCM, "scm")
        _checks.probability(self.error_rate, "error_rate", ())
        _checks.count(self.num_draws, "num_draws")
        _checks.positive(self.noise, "noise", (), or_zero=True)
        _checks.choice(self.report, ("all", "one"), "report")
        if self.wrong is None:
            object.__setattr__(self, "wrong", inverted(self.scm))
        _checks.instance(self.wrong, SCM, "wrong")
        if self.wrong.num_nodes != self.scm.num_nodes:
            raise ValueError(
                f"Expected wrong to have {self.scm.num_nodes} nodes; got {self.wrong.num_nodes}."
            )
        if self.wrong.graph.nodes != self.scm.graph.nodes:
            raise ValueError(
                f"Expected wrong to have the nodes {list(self.scm.graph.nodes)}, in this order; "
                f"got {list(self.wrong.graph.nodes)}."
            )

    def answer(self, key: Array, query: Query) -> Array:
        """Every user's answer, shape (num_users, d); NaN where nothing is reported."""
        _checks.key(key)
        _checks.instance(query, Query, "query")
        return _answer(self, user_keys(key, len(query.node)), query)


def _answer_one(user: SimulatedUser, key: Array, query: Query, scm: SCM, wrong: SCM) -> Array:
    k_error, k_right, k_wrong, k_noise, k_one = jax.random.split(key, 5)
    num_nodes = user.scm.num_nodes
    action = Action.shift_node(query.node, query.shift, num_nodes)
    right = scm.sample(k_right, user.num_draws, action).mean(0)
    other = wrong.sample(k_wrong, user.num_draws, action).mean(0)
    mean = jnp.where(jax.random.bernoulli(k_error, user.error_rate), other, right)
    mean = mean + user.noise * jax.random.normal(k_noise, (num_nodes,))
    reported = jnp.asarray(scm.graph.descendants)[query.node]
    if user.report == "one":
        chosen = jax.random.categorical(k_one, jnp.where(reported, 0.0, -jnp.inf))
        reported &= jnp.arange(num_nodes) == chosen
    return jnp.where(reported, mean, jnp.nan)


@jax.jit
def _answer(user, keys, query):
    sources = {"scm": user.scm, "wrong": user.wrong}
    own = {name: scm for name, scm in sources.items() if scm.batch_shape}
    shared = {name: scm for name, scm in sources.items() if not scm.batch_shape}

    def one(own, key, query):
        return _answer_one(user, key, query, **shared, **own)

    return map_users(one, own, keys, query)
