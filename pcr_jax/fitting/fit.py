"""An SCM from a table of people and a graph: a regression for every node, and what it leaves open.

Every node is regressed on its causes; the residuals are its noise. That these are effects, and not
what hidden common causes bring about, the graph says, and no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from scipy import stats

from pcr_jax import _checks
from pcr_jax._extras import extra
from pcr_jax.fitting.regressions import Fitted, fit_levels, fit_number, noise_of
from pcr_jax.fitting.rows import KINDS, kinds_of, rows_of
from pcr_jax.graph import Graph
from pcr_jax.mechanisms import Mechanism
from pcr_jax.scm import SCM, scenarios
from pcr_jax.surrogates.learned import learned_prior

_FOLDS = 5
_SUPPORTED = 20.0
"""How much more probable people left out have to be with an edge than without it."""
_UNEVEN = 1e4
"""The same with noise that differs, for it to be said."""
# Whether curved, and whether noise differs; how much there is of curves, the evidence says.
_FORMS = {
    "linear": (False, False),
    "spline": (True, False),
    "spline, uneven noise": (True, True),
}


@dataclass(frozen=True)
class FittedSCM:
    """What `fit_scm` found.

    Attributes
    ----------
    scm : SCM
        The most probable one.
    rows : ndarray
        Shape (n, d): what it was fitted to, levels as numbers.
    nodes : tuple of Fitted or None
        Each node's; None of roots.
    table : DataFrame
        See `summary`.
    """

    scm: SCM
    rows: np.ndarray
    nodes: tuple[Fitted | None, ...]
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """A row for each node.

        ``mechanism`` is its form; ``explained`` what the causes explain, by log probabilities of
        people left out, in five parts: as R^2 is for numbers, 1 - exp(-2 gain), negative where
        nothing is. ``noise_sd`` is in natural units; where noise is uneven, of the average person.
        ``normal_p`` is the p-value of Shapiro and Wilk's test of residuals; ``uneven_p`` of
        Spearman's between their sizes and causes, times the number of causes: small where noise
        depends on them as the mechanism does not say. ``unsupported`` names the causes without
        which people left out, all together, are not 20 times less probable.
        """
        return self.table.copy()

    def scms(self, key: Array, num_users: int, draws: int = 200) -> SCM:
        """Worlds that the rows leave possible, for `pcr_jax.find_recourse` with a level.

        Draws of the regressions' weights, the same for all; where noise does not follow from
        values, with ranks of each person's own (`pcr_jax.scenarios`).

        Parameters
        ----------
        key : Array
        num_users : int
        draws : int
            200 at least for a level.

        Returns
        -------
        SCM
            With leading axes (num_users, draws), for counterfactuals: without noise.
        """
        _checks.key(key)
        _checks.count(num_users, "num_users")
        _checks.count(draws, "draws")
        k_weights, k_ranks = jax.random.split(key)
        rng = np.random.default_rng(np.asarray(jax.random.bits(k_weights, (4,))))
        mechanisms = [
            Mechanism(jnp.zeros((draws, 0))) if node is None else node.draws(rng, draws)
            for node in self.nodes
        ]
        spread: Any = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_users, *leaf.shape)), tuple(mechanisms)
        )
        none: Any = (None,) * self.scm.num_nodes
        worlds = SCM(self.scm.graph, spread, none)
        return worlds if worlds.invertible else scenarios(k_ranks, worlds, num_users, draws)

    def learned_prior(self, surrogate: Any, *, deviation: float = 0.3) -> Any:
        """The surrogate with what the same rows teach: see `pcr_jax.learned_prior`."""
        rows: Any = self.rows
        return learned_prior(surrogate, rows, deviation=deviation)


def fit_scm(
    data: pd.DataFrame | np.ndarray,
    graph: Graph,
    features: Mapping[str, Any] | None = None,
    *,
    linear: bool = False,
    imputer: Any = None,
) -> FittedSCM:
    """Fit an SCM on a graph to a table of people.

    Numbers are regressed on their causes by Bayesian linear regression on lines, cubic splines and
    products of two causes, of which evidence has it how much they bend. Where people left out are
    predicted better so, the noise's spread depends on the causes (`pcr_jax.location_scale`). Levels
    are by the ordered logit, categories by the multinomial one. Noise is the residuals'
    distribution, or a root's own: normal, or a mixture of normals where Shapiro and Wilk's test
    says that it is not.

    Parameters
    ----------
    data : DataFrame or array
        Shape (n, d): of anybody, refused or not. Columns of a table are taken by name, and others
        than the graph's left alone. Categories are numbers 0, 1, ..., or pandas' categorical.
    graph : Graph
        Without hidden common causes.
    features : mapping, optional
        By column, anything with a ``kind``: "real", "integer", which is taken as real, "levels",
        ordered, or "nominal". Real where not said.
    linear : bool
        Numbers by lines alone, with noise that is the same for all.
    imputer : object, optional
        With scikit-learn's ``fit_transform``, to fill in what is missing.

    Returns
    -------
    FittedSCM

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn, which comes with the extra ``fit``.
    TypeError
        If an argument is of another type, or a column is neither numbers nor categorical.
    ValueError
        If there are too few rows, a column lacks, has missing values and there is no imputer, or
        has other than levels 0, 1, ..., or a kind is unknown.
    """
    _checks.instance(graph, Graph, "graph")
    _checks.instance(linear, bool, "linear")
    kinds = kinds_of(features, graph.nodes)
    rows, levels = rows_of(data, graph.nodes, kinds, imputer)
    forms = tuple(_FORMS)[:1] if linear else tuple(_FORMS)[1:]
    mechanisms, noises, nodes, table = [], [], [], []
    for j, parents in enumerate(graph.parents):
        causes = rows[:, list(parents)]
        of_causes = tuple(levels[p] for p in parents)
        kind, values = kinds[j], rows[:, j]
        row: dict[str, Any] = {"node": graph.nodes[j], "kind": kind}
        node = None
        if not parents:
            mechanism: Any = Mechanism(jnp.zeros(0))
            row["mechanism"], unsupported = "root", []
        else:
            form, losses = _best(causes, of_causes, values, levels[j], kind, forms)
            node = _fit(form, causes, of_causes, values, levels[j])
            mechanism = node.mechanism()
            base = _left_out(form, causes[:, :0], (), values, levels[j])
            row |= {"mechanism": form, "explained": float(1 - np.exp(2 * (losses - base).mean()))}
            unsupported = [
                graph.nodes[p]
                for i, p in enumerate(parents)
                if not _supported(form, causes, of_causes, values, levels[j], i, losses)
            ]
        if mechanism.invertible:
            residual = mechanism.abduct(jnp.asarray(causes, float), jnp.asarray(values, float))
            residual = np.asarray(residual, np.float64)
            noise, row["normal_p"] = noise_of(residual)
            row["noise_sd"] = float(residual.std())
            row["uneven_p"] = _uneven(residual, causes)
        else:
            noise = mechanism.noise
        row["unsupported"] = ", ".join(unsupported)
        mechanisms.append(mechanism)
        noises.append(noise)
        nodes.append(node)
        table.append(row)
    columns = ["node", "kind", "mechanism", "explained", "noise_sd", "normal_p", "uneven_p"]
    found = pd.DataFrame(table).reindex(columns=[*columns, "unsupported"]).set_index("node")
    return FittedSCM(SCM(graph, tuple(mechanisms), tuple(noises)), rows, tuple(nodes), found)


def _fit(form: str, causes, of_causes, values, num: int) -> Fitted:
    """One node's, by its form."""
    if form in _FORMS:
        return fit_number(causes, of_causes, values, *_FORMS[form])
    return fit_levels(causes, of_causes, values, num, form == "multinomial logit")


def _left_out(form: str, causes, of_causes, values, num: int) -> np.ndarray:
    """Every person's loss by what the others teach, in five parts; (n,)."""
    with extra("fit"):
        from sklearn.model_selection import KFold
    losses = np.zeros(len(values))
    for taught, out in KFold(_FOLDS, shuffle=True, random_state=0).split(values):
        fitted = _fit(form, causes[taught], of_causes, values[taught], num)
        losses[out] = fitted.loss(causes[out], values[out])
    return losses


def _best(causes, of_causes, values, num: int, kind: str, forms) -> tuple[str, np.ndarray]:
    """The form that predicts people left out best, and their losses."""
    if kind in KINDS[:2]:
        tried = {form: _left_out(form, causes, of_causes, values, num) for form in forms}
        doubts = {form: np.log(_UNEVEN) * ("uneven" in form) for form in forms}
        form = min(tried, key=lambda form: tried[form].sum() + doubts[form])
        return form, tried[form]
    nominal = kind == "nominal" and num > 2
    form = "multinomial logit" if nominal else "ordered logit" if num > 2 else "logit"
    return form, _left_out(form, causes, of_causes, values, num)


def _supported(form: str, causes, of_causes, values, num: int, i: int, losses) -> bool:
    """Whether people left out are predicted worse without the cause i."""
    others = [k for k in range(causes.shape[1]) if k != i]
    fewer = tuple(of_causes[k] for k in others)
    worse = _left_out(form, causes[:, others], fewer, values, num) - losses
    return bool(worse.sum() > np.log(_SUPPORTED))


def _uneven(residual: np.ndarray, causes: np.ndarray) -> float:
    """Whether the residuals' sizes depend on a cause: a p-value."""
    size = np.abs(residual - residual.mean())
    varied = [cause for cause in causes.T if np.ptp(cause) > 0]
    if not varied or not np.ptp(size) > 0:
        return np.nan
    return min(1.0, len(varied) * min(float(stats.spearmanr(size, c).pvalue) for c in varied))
