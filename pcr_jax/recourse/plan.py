"""What recourse a user is recommended, verified."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from jax import Array

from pcr_jax._pytree import pytree
from pcr_jax.actions import Action


class PlanStatus(IntEnum):
    """How the search ended for one user.

    ``found``: an action that is valid when verified. ``already_favourable``: nothing needs to be
    done. ``not_found``: the search ended without a valid action. ``zero_gradient``: the same, for
    a score whose gradient is exactly 0 where the search begins.
    ``no_model``: the user has no SCM, because the posterior is empty.
    """

    found = 0
    already_favourable = 1
    not_found = 2
    zero_gradient = 3
    no_model = 4


@pytree()
class Plan:
    """One recommendation per user.

    Attributes
    ----------
    action : Action
        Of shape (num_users, d), natural units; empty where none was found.
    x_counterfactual : Array
        Shape (num_users, d): the features that follow under the SCM that was given.
    cost : Array
        Shape (num_users,), in units of ``scale``; infinite where no action was found.
    valid : Array
        Shape (num_users,): the score is favourable at ``x_counterfactual``, evaluated afresh.
    robust_valid : Array
        Shape (num_users,): it also is for every perturbation that a stronger attack than the
        search's own could find (see `pcr_jax.recourse.adversary.worst_outcome`).
    status : Array
        Shape (num_users,), see `PlanStatus`.
    """

    action: Action
    x_counterfactual: Array
    cost: Array
    valid: Array
    robust_valid: Array
    status: Array

    def status_counts(self) -> dict[str, int]:
        """How many users ended with each status."""
        status = np.asarray(self.status)
        return {s.name: int(np.sum(status == s)) for s in PlanStatus}

    def __repr__(self):
        counts = ", ".join(f"{n} {k}" for k, n in self.status_counts().items() if n)
        return f"Plan({len(self.status)} users: {counts})"
