"""What recourse a user is recommended, verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from pcr_jax import _checks
from pcr_jax._pytree import pytree
from pcr_jax.actions import Action, set_name
from pcr_jax.recourse.problem import Problem
from pcr_jax.recourse.rounding import EXACT, present
from pcr_jax.scm import SCM
from pcr_jax.scores import shown


class PlanStatus(IntEnum):
    """What a user's plan is worth: whether it meets the requirement that was asked for.

    The requirement is a favourable score and, with ``epsilon > 0``, one that stays so for every
    perturbation of the ball. ``found``: the action meets it, as verified with perturbations that
    the search has not seen. ``already_favourable``: so does doing nothing.

    Otherwise nothing is known to do. ``not_robust``: the action is valid, but perturbations can
    undo it. ``budget``: the search ended for `Optimal.max_evaluations`; the action, if there is
    one, is valid, and the best so far. ``not_found``: the search ended without a valid action,
    which does not say that there is none. ``zero_gradient``: the same, for a score whose gradient
    is exactly 0 where Algorithm 1 begins. ``no_model``: the user has no SCM, because there is no
    posterior. ``not_likely``: no action was found that is favourable with the probability that was
    asked for; the one given has the highest that was found, which `Plan.p_valid` states.
    """

    found = 0
    already_favourable = 1
    not_found = 2
    zero_gradient = 3
    no_model = 4
    not_robust = 5
    budget = 6
    not_likely = 7


def checked_levels(levels: Any) -> list[float]:
    """Probabilities that a price is asked of.

    Raises
    ------
    ValueError
        If there is none, or one is out of (0, 1).
    """
    _checks.unnamed(levels, "levels")
    asked = _checks.on_host(levels, "levels", ("num_levels",))
    if not (len(asked) and ((asked > 0) & (asked < 1)).all()):
        raise ValueError(f"Expected levels in (0, 1), one at least; got {levels}.")
    return [float(level) for level in levels]


def share_variance(share: Any, num: Any) -> Any:
    """Of a share of so many independent draws, with one more of either outcome."""
    share = (share * num + 1) / (num + 2)
    return share * (1 - share) / (num + 2)


_UNABLE = {
    "already_favourable": "Nothing needs to change: the decision is favourable.",
    "not_found": "No change within the bounds was found to be enough; there may be one.",
    "zero_gradient": "No change was found: the score does not react to small ones.",
    "no_model": "No advice: the answers did not lead to a causal model.",
    "not_robust": "The decision is favourable, but small changes can undo it; "
    "nothing was found to prevent that.",
    "budget": "The search was ended before it found a change that is enough; there may be one.",
}
_CAVEATS = {
    "not_robust": " As things are this is enough, but small changes can undo it.",
    "budget": " As things are this is enough, but small changes can undo it.",
    "not_likely": " This is not as likely to be enough as was asked for.",
}


def _number(value: float, decimals: int) -> str:
    """As it is written: so many decimals, without zeros at the end, thousands apart."""
    if decimals == EXACT:
        text = np.format_float_positional(value, unique=True, trim="-")
    else:
        text = f"{round(float(value), int(decimals)):.{max(0, decimals)}f}"
    whole, _, part = text.partition(".")
    part = part.rstrip("0")
    text = f"{int(whole):,}" if int(whole) else whole
    return f"{text}.{part}" if part else "0" if text == "-0" else text


def _about(value: float, decimals: int) -> str:
    """What is expected to follow: to the nearest, of an exact number three digits."""
    if decimals != EXACT:
        return _number(value, decimals)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return np.format_float_positional(value, 3, unique=False, fractional=False, trim="-")


def _sentence(names, status, intervened, hard, value, now, after, decimals) -> str:
    """What one user should do and expect, in plain words."""
    if status in _UNABLE and not intervened.any():
        return _UNABLE[status]
    shift = np.where(hard, value - now, value)
    shown = present(now, shift, decimals).astype(np.where(decimals == EXACT, now, 0.0).dtype)
    todo, follows = [], []
    for j, name in enumerate(names):
        places, reached = int(decimals[j]), now[j]
        if intervened[j] and shift[j] == 0:
            todo.append(f"keep {name} at {_number(now[j], EXACT)}")
        elif intervened[j]:
            verb = "raise" if shift[j] > 0 else "lower"
            target, by = (value[j], value[j] - shown[j]) if hard[j] else (0, value[j])
            target = target if hard[j] else shown[j] + value[j]
            reached = now[j] + shift[j]
            todo.append(
                f"{verb} {name} by {_number(abs(by), places)}, from {_number(shown[j], places)} to "
                f"{_number(target, places)}" + (" and keep it there" if hard[j] else "")
            )
        # A cause that changes as well moves a shifted feature further.
        if _about(after[j] - reached, places) != "0" and _about(after[j], places) != _about(
            reached, places
        ):
            verb = "rise" if after[j] > now[j] else "fall"
            follows.append(f"{name} is then expected to {verb} to {_about(after[j], places)}")
    sentence = "; ".join([" and ".join(todo), *follows])
    sentence = f"{sentence[0].upper()}{sentence[1:]}."
    return sentence + _CAVEATS.get(status, "")


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
        Shape (num_users,): it also is for every perturbation that was tried, of which the search
        had seen none (see `pcr_jax.recourse.verify`).
    certified : Array
        Shape (num_users,): and for every other one, which is proved (see
        `pcr_jax.recourse.certify`).
    p_valid : Array
        Shape (num_users,): the probability, over draws of the user's SCM that the search has not
        seen, that the action is favourable (and, with a ball, stays so). NaN without a ``level``,
        and where there is no action.
    status : Array
        Shape (num_users,), see `PlanStatus`.
    num_evaluations : Array
        Shape (num_users,): how often the search evaluated the score or its gradient; Algorithm 1
        with its attack, the optimal solver without the attacks on its solutions.
    num_perturbations : Array
        Shape (num_users,): how many `robust_valid` rests on, of which the search had seen none; 0
        without a ball, and where it is proved (or was broken before they were needed). With a
        level: how many draws.
    decimals : Array
        Shape (num_users, d): of the numbers in which an action is written, negative before the
        point; `pcr_jax.recourse.rounding.EXACT` for all that there are.
    problem : Problem
        What was asked for: score, users, scale, requirement and the rest.
    worlds : SCM
        Under which it was found: the users', or several draws for each.
    """

    action: Action
    x_counterfactual: Array
    cost: Array
    valid: Array
    robust_valid: Array
    certified: Array
    p_valid: Array
    status: Array
    num_evaluations: Array
    num_perturbations: Array
    decimals: Array
    problem: Problem
    worlds: SCM

    @property
    def p_valid_error(self) -> Array:
        """Standard error of `p_valid` (num_users,): that of a share of independent draws.

        With one more of either outcome, so that a share of 1 has an error as well.
        """
        return jnp.sqrt(share_variance(self.p_valid, self.num_perturbations))

    def status_counts(self) -> dict[str, int]:
        """How many users ended with each status."""
        status = np.asarray(self.status)
        return {s.name: int(np.sum(status == s)) for s in PlanStatus}

    def price_of_certainty(self, levels: Sequence[float]) -> pd.DataFrame:
        """What actions cost that are favourable with other probabilities; see ``level``.

        Parameters
        ----------
        levels : sequence of float
            In (0, 1).

        Returns
        -------
        pandas.DataFrame
            One row per user and level: ``user``, ``level``, ``cost`` (infinite where nothing was
            found, that of the likeliest action where the status is ``not_likely``), ``p_valid``,
            ``p_valid_error``, ``status``.

        Raises
        ------
        ValueError
            If the plan has no level, or a level is out of (0, 1).
        """
        from pcr_jax.recourse.find import recommend  # which imports this module

        if not self.problem.requirement.over_draws:
            raise ValueError("Expected a plan with a level; got one without. See find_recourse.")
        parts = []
        for level in checked_levels(levels):
            requirement = self.problem.requirement.at(level)  # type: ignore[attr-defined]
            plan = recommend(replace(self.problem, requirement=requirement), self.worlds)
            part = pd.DataFrame({"cost": np.asarray(plan.cost), **plan._stated()})
            part["status"] = [PlanStatus(s).name for s in np.asarray(plan.status)]
            part.insert(0, "level", level)
            part.insert(0, "user", np.arange(len(part)))
            parts.append(part)
        return pd.concat(parts, ignore_index=True).sort_values(["user", "level"], kind="stable")

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per user, in natural units, with a sentence that says what to do.

        Parameters
        ----------
        names : sequence of str, optional
            What to call the d features, in the order of the graph's nodes; these by default.

        Returns
        -------
        pandas.DataFrame
            Columns ``status``, ``cost``, ``valid``, ``robust_valid``, ``certified``, ``p_valid``
            and ``p_valid_error`` (with a level), ``num_perturbations``, ``intervention_set``; for
            every feature its present value ``(now)``, the ``(action)`` on it (a shift; NaN for
            none), what is ``(expected)`` to follow; and ``sentence``. ``attrs["score"]`` says what
            is favourable. The index is that of the table that the users came in, if it was one.

        Raises
        ------
        ValueError
            If ``names`` are not those of the plan, or two read the same.
        """
        shape, nodes = self.action.value.shape, self.problem.names
        given = nodes if names is None else _checks.names(names, "names")
        if set(given) == set(nodes) and given != nodes:
            raise ValueError(f"Expected names in the order {list(nodes)}; got {list(given)}.")
        names = [f"{name}" for name in given]
        if len(names) != shape[1]:
            raise ValueError(f"Expected names of {shape[1]} features; got {len(names)}.")
        if len(set(names)) != len(names):
            raise ValueError(f"Expected names that read differently; got {list(given)}.")
        now = np.asarray(self.problem.x)
        after = np.asarray(self.x_counterfactual)
        intervened = np.asarray(self.action.intervened)
        hard = np.asarray(self.action.hard)
        value = np.asarray(self.action.value)
        shift = np.where(hard, value - now, value)
        status = [PlanStatus(s).name for s in np.asarray(self.status)]
        columns: dict[str, Any] = {
            "status": status,
            "cost": np.asarray(self.cost),
            "valid": np.asarray(self.valid),
            "robust_valid": np.asarray(self.robust_valid),
            "certified": np.asarray(self.certified),
            "num_perturbations": np.asarray(self.num_perturbations),
            **self._stated(),
            "intervention_set": [set_name(row, names) for row in intervened],
        }
        for j, name in enumerate(names):
            columns[f"{name} (now)"] = now[:, j]
            columns[f"{name} (action)"] = np.where(intervened[:, j], shift[:, j], np.nan)
            columns[f"{name} (expected)"] = after[:, j]
        columns["sentence"] = [
            _sentence(names, *row)
            for row in zip(
                status, intervened, hard, value, now, after, np.asarray(self.decimals), strict=True
            )
        ]
        table = pd.DataFrame(columns, index=self.problem.index)
        table.attrs["score"] = shown(self.problem.score)
        return table

    def _stated(self) -> dict[str, np.ndarray]:
        """Columns of what is stated of probabilities, if something is."""
        if not self.problem.requirement.over_draws:
            return {}
        return {
            "p_valid": np.asarray(self.p_valid),
            "p_valid_error": np.asarray(self.p_valid_error),
        }

    def __repr__(self):
        counts = ", ".join(f"{n} {k}" for k, n in self.status_counts().items() if n)
        return f"Plan({len(self.status)} users: {counts})"
