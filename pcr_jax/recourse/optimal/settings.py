"""What the optimal solver can be told, and the numbers that it keeps to itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcr_jax import _checks

MAX_DIRECTIONS = 60
"""The finest lattice of fixed directions has at most so many."""
POINTS = 4096
"""Evaluated at once, for each unit of `pcr_jax.batching.width`."""
HOST_POINTS = 512
"""The same of a model on the host, which pays for lanes that idle."""
ATTACKED = 200
"""Points that an attack looks at together."""
ADDED = 20
"""Points that adding a scenario looks at together."""
PROBES = 8
"""Random directions around the last solution."""
HITS = 8
"""Directions followed to the boundary."""
FIRST_CUTS, CUTS = (0.02, 0.1, 0.2), (0.02, 0.05, 0.1)
"""Shares of the cost that ascents have less, at first and after a success.

Just below the cost they see the most regions, far below it those that are much cheaper.
"""
SCOUTS = 8
"""For each cut, directions from which the score is climbed by one step."""
CLIMBERS = 3
"""Of the scouts, those that climb on."""
CLIMBS = 12
"""Steps of an ascent without success."""
FIRST_CLIMB, LAST_CLIMB = 0.3, 0.006
"""Lengths of its first and last step, of the cost."""
PARTS = (0.03, 0.2, 1.0)
"""Of the way to a target of the refinement."""
MAX_STEPS = 60
"""Of the refinement."""
FIRST_SHARE = 0.03
"""Of the cost, by which the refinement first lowers it."""
HOLD = 1e-3
"""Of the cost, for an intervention that moves nothing."""
MAX_ROUNDS = 40
"""Of sweep, narrow, climb, refine, scan and attack."""
MARGIN = 1e-5
"""Of the score's variation around the user."""
SHARES = 16
"""Proportions of two features in a scan."""
SCANNED_COSTS = 32
"""Costs in a scan."""
SCANNED_FEATURES = 4
"""Those whose pairs are scanned."""
BANDS = 8
"""Of costs, scanned one by one for those to whom the sweep finds nothing."""
PUSHES = 24
"""Longer moves that are attacked, one after the other."""
PUSHED = 32
"""Of which so many are held against the outline at a time."""
PUSH_LENGTHS = (1.0, 1.01, 1.025, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.75, 2.0, 3.0)
"""Of longer moves, in units of the cost."""


@dataclass(frozen=True)
class Settings:
    """Settings of the optimal solver; see `pcr_jax.recourse.optimal`.

    Parameters
    ----------
    max_cost : float
        Dearer actions are not looked for.
    first_level, growth : float
        Levels of cost are ``first_level`` apart, from where it is more by this share of the cost.
    tolerance : float
        Refinement ends where no move lowers the cost by this share.
    max_evaluations : int
        Of the score or its gradient, per user: the search ends, with the best so far, in the round
        in which it has made so many.
    """

    max_cost: float = 12.0
    first_level: float = 0.1
    growth: float = 0.08
    tolerance: float = 3e-3
    max_evaluations: int = 1_000_000

    def __post_init__(self):
        for name in ("max_cost", "first_level", "growth", "tolerance"):
            _checks.positive(getattr(self, name), name, ())
        _checks.count(self.max_evaluations, "max_evaluations")

    def levels(self) -> np.ndarray:
        """The levels of cost, from 0 on; shape (num_levels,)."""
        levels = [0.0]
        while levels[-1] < self.max_cost:
            step = max(self.first_level, self.growth * levels[-1])
            levels.append(min(levels[-1] + step, self.max_cost))
        return np.array(levels)
