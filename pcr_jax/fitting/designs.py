"""What a node is regressed on: columns of its parents, and what their weights are to a `Sum`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from pcr_jax._extras import extra
from pcr_jax.mechanisms.sums import Sum

# Splines have knots at quantiles, as many as the values allow, and so many standard deviations
# beyond all values: how they go on where nobody was seen is not known, and the posterior is to say
# so. With few knots it is too sure of what is steep in one place and level elsewhere.
_QUANTILES, _BEYOND = (np.linspace(0.03, 0.97, 9), np.linspace(0.05, 0.95, 5)), 0.75


@dataclass(frozen=True)
class _Line:
    """A number's line."""

    middle: float
    unit: float

    kinds: tuple[int, ...] = field(default=(0,), init=False)

    def columns(self, x):
        return ((x - self.middle) / self.unit)[:, None]


@dataclass(frozen=True)
class _Levels:
    """An effect of each level but the first."""

    num: int

    @property
    def kinds(self):
        return (0,) * (self.num - 1)

    def columns(self, x):
        return (np.round(x)[:, None] == np.arange(1, self.num)).astype(float)


class _Spline(_Line):
    """A line, a parabola and a cubic B-spline; all go on as lines beyond the spline's ends.

    Weights are of the steps between the spline's neighbouring coefficients, so that they are about
    as large wherever it bends.
    """

    @property
    def kinds(self):
        return (0, 1, *[2] * len(self.steps))

    def __init__(self, x, knots, middle, unit):
        super().__init__(middle, unit)
        with extra("fit"):
            from sklearn.preprocessing import SplineTransformer
        settings = {"degree": 3, "extrapolation": "linear"}
        transformer = SplineTransformer(knots=knots[:, None], **settings).fit(x[:, None])
        grid = np.linspace(knots[0], knots[-1], 50)
        basis = transformer.transform(grid[:, None])
        parabola = np.linalg.lstsq(basis, ((grid - middle) / unit) ** 2)[0]
        steps = np.tril(np.ones((basis.shape[1] - 1,) * 2))  # the last coefficient is 0
        steps /= np.sqrt(len(steps) / 2)
        vars(self).update(transformer=transformer, parabola=parabola, knots=knots, steps=steps)

    def columns(self, x):
        basis = self.transformer.transform(x[:, None])
        # One less than all, which add up to 1.
        spline = basis[:, :-1] @ self.steps
        return np.column_stack([super().columns(x), basis @ self.parabola, spline])

    def numbers(self, weights):
        """Lower end, width, knots, powers and changes; (..., 1), ..., (..., m)."""
        knots, shape = self.knots, weights.shape[:-1]
        low, width = knots[0], knots[-1] - knots[0]
        own = np.concatenate([weights[..., 2:] @ self.steps.T, np.zeros((*shape, 1))], -1)
        own = np.moveaxis(own + weights[..., 1:2] * self.parabola, -1, 0)
        curve = BSpline(self.transformer.bsplines_[0].t, own, 3)
        powers = [np.asarray(curve(low, k)) * width**k / k for k in (1, 2)]
        third = np.asarray(curve((knots[1:] + knots[:-1]) / 2, 3)) * width**3 / 6
        places = [np.full((*shape, 1), low), np.full((*shape, 1), width)]
        places.append(np.broadcast_to((knots[1:-1] - low) / width, (*shape, len(knots) - 2)))
        bends = [power[..., None] for power in (*powers, third[0])]
        return [*places, *bends, np.moveaxis(np.diff(third, axis=0), 0, -1)]


def _apart(x: np.ndarray, quantiles: np.ndarray) -> bool:
    """Whether there are values enough for a knot at each."""
    return len(np.unique(np.quantile(x, quantiles))) == len(quantiles) and np.ptp(x) > 0


class Design:
    """Of parents (n, P), ``levels`` of which have so many; 0 of a number.

    Lines, and effects of levels; if ``curved`` splines where there are values enough, and products
    of all pairs of numbers.
    """

    def __init__(self, parents: np.ndarray, levels: tuple[int, ...], curved: bool):
        middle, unit = parents.mean(0), parents.std(0)
        unit = np.where(unit > 0, unit, 1.0)
        self.levels, self.middle, self.unit = levels, middle, unit
        self.parts: list[Any] = []
        each = [p for p, num in enumerate(levels) if not num]
        quantiles = next(
            (some for some in _QUANTILES if all(_apart(parents[:, p], some) for p in each)),
            _QUANTILES[-1],
        )
        self.num_knots = len(quantiles)
        for x, num, *of_line in zip(parents.T, levels, middle, unit, strict=True):
            far = _BEYOND * of_line[1]
            if num:
                self.parts.append(_Levels(num))
            elif curved and _apart(x, quantiles):
                knots = np.array([x.min() - far, *np.quantile(x, quantiles), x.max() + far])
                self.parts.append(_Spline(x, knots, *of_line))
            else:
                self.parts.append(_Line(*of_line))
        numbers = [p for p, num in enumerate(levels) if not num]
        self.products = list(combinations(numbers, 2)) if curved else []
        self.first: Any = parents[:1]

    @property
    def function(self) -> Sum:
        """Of coefficients and parents."""
        bent = tuple(p for p, part in enumerate(self.parts) if isinstance(part, _Spline))
        return Sum(self.levels, bent, self.num_knots if bent else 0, tuple(self.products))

    @property
    def kinds(self) -> np.ndarray:
        """Of each column: 0 of lines and levels, 1 of squares and products, 2 of splines; (M,)."""
        kinds = [kind for part in self.parts for kind in part.kinds]
        return np.array(kinds + [1] * len(self.products), int)

    def columns(self, parents: np.ndarray) -> np.ndarray:
        """Shape (n, M)."""
        z = (parents - self.middle) / self.unit
        blocks = [part.columns(x) for part, x in zip(self.parts, parents.T, strict=True)]
        blocks += [(z[:, a] * z[:, b])[:, None] for a, b in self.products]
        return np.concatenate([np.zeros((len(parents), 0)), *blocks], 1)

    def coefficients(self, intercept: Any, weights: np.ndarray) -> np.ndarray:
        """Of `function`, from an intercept (...) and weights (..., M) of the columns."""
        shape, function = weights.shape[:-1], self.function
        ends = np.cumsum([len(part.kinds) for part in self.parts])
        each = np.split(weights, ends, -1)
        lines = [
            each[p][..., :1] / part.unit for p, part in enumerate(self.parts) if not self.levels[p]
        ]
        effects = [w for w, num in zip(each, self.levels, strict=False) if num]
        splines = [self.parts[p].numbers(each[p]) for p in function.bent]
        numbers = [*lines, *effects]
        for same in zip(*splines, strict=True):
            numbers += same
        if self.products:
            a, b = np.array(self.products).T
            centres = (np.broadcast_to(self.middle[ends], (*shape, len(a))) for ends in (a, b))
            numbers += [*centres, each[-1] / (self.unit[a] * self.unit[b])]
        # The function has its parts' zeros elsewhere than the columns: they agree at a row.
        coefficients: Any = np.concatenate([np.zeros((*shape, 1)), *numbers], -1)
        there = intercept + weights @ self.columns(self.first)[0]
        coefficients[..., 0] = there - np.asarray(function(coefficients, self.first[0]))
        return coefficients
