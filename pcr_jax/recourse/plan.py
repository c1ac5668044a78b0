"""What recourse a user is recommended, verified."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action, set_name


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


_UNABLE = {
    "already_favourable": "Nothing needs to change: the decision is favourable.",
    "not_found": "No change within the bounds was found to be enough.",
    "zero_gradient": "No change was found: the score does not react to small ones.",
    "no_model": "No advice: the answers did not lead to a causal model.",
}


def _number(value: float) -> str:
    """Three significant digits, all of the digits before the point, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return np.format_float_positional(value, 3, unique=False, fractional=False, trim="-")


def _sentence(names, status, intervened, hard, shift, now, after) -> str:
    """What one user should do and expect, in plain words."""
    if status in _UNABLE:
        return _UNABLE[status]
    todo, follows = [], []
    for j, name in enumerate(names):
        if intervened[j]:
            verb = "raise" if shift[j] > 0 else "lower"
            target = now[j] + shift[j]
            todo.append(
                f"{verb} {name} by {_number(abs(shift[j]))}, from {_number(now[j])} to "
                f"{_number(target)}" + (" and keep it there" if hard[j] else "")
            )
            # A cause that changes as well moves a shifted feature further.
            reacts = _number(after[j]) != _number(target)
        else:
            reacts = _number(after[j]) != _number(now[j])
        if reacts:
            verb = "rise" if after[j] > now[j] else "fall"
            follows.append(f"{name} is then expected to {verb} to {_number(after[j])}")
    sentence = "; ".join([" and ".join(todo), *follows])
    return f"{sentence[0].upper()}{sentence[1:]}."


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
    num_evaluations : Array
        Shape (num_users,): how often the search evaluated the score or its gradient; Algorithm 1
        with its attack, the optimal solver without the attacks on its solutions.
    """

    action: Action
    x_counterfactual: Array
    cost: Array
    valid: Array
    robust_valid: Array
    status: Array
    num_evaluations: Array

    def status_counts(self) -> dict[str, int]:
        """How many users ended with each status."""
        status = np.asarray(self.status)
        return {s.name: int(np.sum(status == s)) for s in PlanStatus}

    def to_frame(self, names: Sequence[str], x: Array) -> pd.DataFrame:
        """One row per user, in natural units, with a sentence that says what to do.

        Parameters
        ----------
        names : sequence of str
            Of the d features, in the order of the plan: ``graph.nodes``.
        x : Array or DataFrame
            Shape (num_users, d): the features that the plan was made for. A table's columns are put
            into the order of ``names``; its index is kept.

        Returns
        -------
        pandas.DataFrame
            Columns ``status``, ``cost``, ``valid``, ``robust_valid``, ``intervention_set``; for
            every feature its present value ``(now)``, the ``(action)`` on it (a shift; NaN for
            none), what is ``(expected)`` to follow; and ``sentence``.

        Raises
        ------
        ValueError
            If ``names`` or ``x`` do not fit the plan, or two names read the same.
        """
        shape = self.action.value.shape
        given = _checks.names(names, "names")
        names = [f"{name}" for name in given]
        if len(names) != shape[1]:
            raise ValueError(f"Expected names of {shape[1]} features; got {len(names)}.")
        if len(set(names)) != len(names):
            raise ValueError(f"Expected names that read differently; got {list(given)}.")
        index = x.index if isinstance(x, pd.DataFrame) else None
        now = np.asarray(_checks.array(x, "x", shape, names=given))
        after = np.asarray(self.x_counterfactual)
        intervened = np.asarray(self.action.intervened)
        hard = np.asarray(self.action.hard)
        shift = np.asarray(self.action.value) - np.where(hard, now, 0.0)
        status = [PlanStatus(s).name for s in np.asarray(self.status)]
        columns: dict[str, Any] = {
            "status": status,
            "cost": np.asarray(self.cost),
            "valid": np.asarray(self.valid),
            "robust_valid": np.asarray(self.robust_valid),
            "intervention_set": [set_name(row, names) for row in intervened],
        }
        for j, name in enumerate(names):
            columns[f"{name} (now)"] = now[:, j]
            columns[f"{name} (action)"] = np.where(intervened[:, j], shift[:, j], np.nan)
            columns[f"{name} (expected)"] = after[:, j]
        columns["sentence"] = [
            _sentence(names, *row)
            for row in zip(status, intervened, hard, shift, now, after, strict=True)
        ]
        return pd.DataFrame(columns, index=index)

    def __repr__(self):
        counts = ", ".join(f"{n} {k}" for k, n in self.status_counts().items() if n)
        return f"Plan({len(self.status)} users: {counts})"
