"""How inference ended for a user."""

from enum import IntEnum


class PosteriorStatus(IntEnum):
    """How inference ended for one user.

    ``empty``: none of the prior draws is possible. ``no_start``: the same, in so many dimensions
    that prior draws prove nothing; or the region found is too small to start in. ``failed``: the
    sampler gave up. ``poorly_mixed``: there are draws, but the chains do not agree: R-hat above
    1.01. The draws are NaN unless ``ok`` or ``poorly_mixed``.
    """

    ok = 0
    empty = 1
    no_start = 2
    failed = 3
    poorly_mixed = 4
