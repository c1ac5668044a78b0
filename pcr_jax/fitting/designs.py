"""What a node is regressed on: columns of its parents, and what their weights are to a `Sum`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

from pcr_jax._extras import extra
from pcr_jax.mechanisms.sums import Sum

# Splines have knots at these quantiles, and so many standard deviations beyond all values: how they
# go on where nobody was seen is not known, and the posterior is to say so.
_QUANTILES, _BEYOND = (0.05, 0.275, 0.5, 0.725, 0.95), 0.75


@dataclass(frozen=True)
class _Line:
    """A parent's line."""

    middle: float
    unit: float

    part = ("line", 0)
    kinds = (0,)

    def columns(self, x):
        return ((x - self.middle) / self.unit)[:, None]

    def numbers(self, weights):
        return weights / self.unit


@dataclass(frozen=True)
class _Levels:
    """An effect of each level but the first."""

    num: int

    @property
    def part(self):
        return ("levels", self.num)

    @property
    def kinds(self):
        return (0,) * (self.num - 1)

    def columns(self, x):
        return (np.round(x)[:, None] == np.arange(1, self.num)).astype(float)

    def numbers(self, weights):
        return weights


class _Spline:
    """A line, a parabola and a cubic B-spline; all go on as lines beyond the spline's ends."""

    part = ("spline", len(_QUANTILES))
    kinds = (0, 1, *[2] * (len(_QUANTILES) + 3))

    def __init__(self, x, knots, line: _Line):
        self.line = line
        with extra("fit"):
            from sklearn.preprocessing import SplineTransformer
        settings = {"degree": 3, "extrapolation": "linear"}
        self.transformer = SplineTransformer(knots=knots[:, None], **settings).fit(x[:, None])
        grid = np.linspace(knots[0], knots[-1], 50)
        basis = self.transformer.transform(grid[:, None])
        self.parabola = np.linalg.lstsq(basis, ((grid - line.middle) / line.unit) ** 2)[0]

    def columns(self, x):
        basis = self.transformer.transform(x[:, None])
        square = (basis @ self.parabola)[:, None]
        # One less than all, which add up to 1.
        return np.concatenate([self.line.columns(x), square, basis[:, :-1]], 1)

    def numbers(self, weights):
        (spline,) = self.transformer.bsplines_
        knots = spline.t[3:-3]
        low, width = knots[0], knots[-1] - knots[0]
        last = np.zeros((*weights.shape[:-1], 1))
        own = np.concatenate([weights[..., 2:], last], -1)
        own = own + weights[..., 1:2] * self.parabola
        curve = BSpline(spline.t, np.moveaxis(own, -1, 0), 3)
        powers = np.stack([curve(low, k) * width**k / k for k in (1, 2)])
        third = curve((knots[1:] + knots[:-1]) / 2, 3) * width**3 / 6
        bends = np.concatenate([powers, third[:1], np.diff(third, axis=0)])
        places = np.array([low, width, *(knots[1:-1] - low) / width])
        places = np.broadcast_to(places, (*weights.shape[:-1], len(places)))
        slope = self.line.numbers(weights[..., :1])
        return np.concatenate([slope, places, np.moveaxis(bends, 0, -1)], -1)


class Design:
    """Of parents (n, P), ``levels`` of which have so many; 0 of a number.

    Lines, and effects of levels; if ``curved`` splines where there are values enough, and products
    of all pairs of numbers.
    """

    def __init__(self, parents: np.ndarray, levels: tuple[int, ...], curved: bool):
        middle, unit = parents.mean(0), parents.std(0)
        unit = np.where(unit > 0, unit, 1.0)
        self.parts: list[Any] = []
        for x, num, *of_line in zip(parents.T, levels, middle, unit, strict=True):
            line = _Line(*of_line)
            far = _BEYOND * line.unit
            knots = np.quantile(x, _QUANTILES)
            knots = np.unique([x.min() - far, *knots, x.max() + far])
            if num:
                self.parts.append(_Levels(num))
            elif curved and len(knots) == 2 + len(_QUANTILES):
                self.parts.append(_Spline(x, knots, line))
            else:
                self.parts.append(line)
        numbers = [p for p, num in enumerate(levels) if not num]
        self.products = list(combinations(numbers, 2)) if curved else []
        self.middle, self.unit = middle, unit
        self.first: Any = parents[:1]

    @property
    def function(self) -> Sum:
        """Of coefficients and parents."""
        return Sum(tuple(part.part for part in self.parts), tuple(self.products))

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
        sizes = [len(part.kinds) for part in self.parts] + [1] * len(self.products)
        each = np.split(weights, np.cumsum(sizes)[:-1], -1) if sizes else []
        numbers = [part.numbers(w) for part, w in zip(self.parts, each, strict=False)]
        for (a, b), weight in zip(self.products, each[len(self.parts) :], strict=True):
            centres = np.broadcast_to(self.middle[[a, b]], (*weights.shape[:-1], 2))
            numbers.append(np.concatenate([centres, weight / (self.unit[a] * self.unit[b])], -1))
        # The function has its parts' zeros elsewhere than the columns: they agree at a row.
        there = intercept + weights @ self.columns(self.first)[0]
        nothing = np.zeros((*weights.shape[:-1], 1))
        coefficients: Any = np.concatenate([nothing, *numbers], -1)
        coefficients[..., 0] = there - np.asarray(self.function(coefficients, self.first[0]))
        return coefficients
