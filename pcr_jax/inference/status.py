"""How inference ended for a user."""

from enum import IntEnum


class PosteriorStatus(IntEnum):
    """How inference ended for one user.

    ``empty``: bounds on the expected answers prove that no coefficients in the prior's box meet the
    answers. ``no_start``: nothing is proved, but no place to start from was found, or the region
    found is too small to start in, or it may be a part of the posterior only. ``failed``: the
    sampler gave up. ``poorly_mixed``: there are draws, but the chains do not agree: R-hat above
    1.01. ``prior_only``: nothing was answered; the draws are the prior's. ``poorly_fitting``, which
    `diagnose` alone tells: there are draws, but no SCM of the surrogate fits the answers, so that
    their intervals are not to be believed, but for those of ``scms(draws=)``. The draws are NaN
    unless ``ok``, ``poorly_mixed``, ``prior_only`` or ``poorly_fitting``.
    """

    ok = 0
    empty = 1
    no_start = 2
    failed = 3
    poorly_mixed = 4
    prior_only = 5
    poorly_fitting = 6
