"""A table, a model and a graph, named once: rows in, advice out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax import Array

from pcr_jax import _checks
from pcr_jax.batching import take
from pcr_jax.features import Feature, feature_of
from pcr_jax.recourse.mixed import alternatives, at_levels, outcome
from pcr_jax.recourse.problem import Problem, pose
from pcr_jax.scm import SCM
from pcr_jax.scores import as_score, names_of, outside_model, with_threshold
from pcr_jax.surrogates import basis_surrogate, learned_prior, linear_surrogate
from pcr_jax.task.graphs import as_graph
from pcr_jax.task.people import person_of, settable, worlds_of
from pcr_jax.task.plan import TaskPlan
from pcr_jax.task.session import TaskSession
from pcr_jax.task.tables import (
    Bound,
    Decoded,
    checked,
    decoded,
    encoded,
    margins,
)

_TOLERANCE = 1e-4  # of a probability, between what the model says and what the task says


class Task:
    """A decision about people in a table, what causes what, and what they can do.

    Columns are matched by name. Those of ``graph`` and those that can be acted on are nodes of the
    SCM; those without an edge neither react nor make others react. All other columns are context:
    they stay as the person's, whatever they hold.

    >>> import pandas as pd
    >>> import pcr_jax as pcr
    >>> class Model:
    ...     classes_ = ["refused", "granted"]
    ...     def predict_proba(self, rows):
    ...         share = (rows.income / 10 + (rows.job == "yes")).clip(0, 3) / 3
    ...         return pd.DataFrame({"refused": 1 - share, "granted": share}).to_numpy()
    >>> data = pd.DataFrame({"job": ["no", "yes"], "income": [2, 9], "town": ["X", "Y"]})
    >>> task = pcr.Task(
    ...     model=Model(), favourable="granted", data=data, graph="income ~ job",
    ...     features={"job": pcr.Levels(["no", "yes"]), "income": pcr.Integer(low=0, high=20)},
    ... )
    >>> plan = task.recourse(data.iloc[:1], pcr.linear_scm(task.graph, [3.0]))
    >>> plan.to_frame().sentence[0]
    'Change your job from no to yes; expect your income to become 5.'

    Parameters
    ----------
    model : object
        A fitted model with ``predict_proba`` of a table, such as a pipeline of scikit-learn; or a
        JAX score, x (d,) -> logit (), whose ``names`` are its columns (see `features` for what
        numbers they are).
    data : DataFrame
        Of the population, with the columns that the model takes.
    graph : Graph, networkx.DiGraph, sequence of tuple, or str
        What causes what: edges are (parent, child), text is lavaan's or dagitty's.
    features : mapping
        By column: `Real`, `Integer`, `Levels` or `Nominal`. What is not named here is read from
        its type in ``data`` and not acted on.
    favourable : optional
        The class that is asked for, one of ``model.classes_``; of a JAX score there is none.
    threshold : float, optional
        The least probability of it; 0.5 by default.
    scale : mapping, optional
        By column, natural units: what costs 1. By default standard deviations in ``data``, and 1
        for a change of category.
    forbidden : callable or sequence of dict, optional
        Outcomes that no advice may lead to: a function of a table that returns True for those of
        its rows, or combinations such as ``{"job": "none", "income": [8, 9]}``.

    Attributes
    ----------
    graph : Graph
    features : dict
        By node, in the order of ``graph.nodes``.
    scale : ndarray
        Shape (d,), natural units.
    seen : ndarray
        Shape (d, 2): the least and the largest numbers in ``data``.
    limits : dict
        By column, the least and the largest number that actions may set, see `personal`.
    weights : ndarray
        Shape (d,): how many times as dear actions are, see `personal`.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a column is unknown, there twice or has an entry that its feature does not know (the
        message names column and row), the graph has a cycle, an immutable feature a cause that can
        be acted on, or nothing can be.
    """

    def __init__(
        self,
        *,
        model: Any,
        data: pd.DataFrame,
        graph: Any,
        features: Mapping[Any, Feature],
        favourable: Any = None,
        threshold: float | None = None,
        scale: Mapping[Any, float] | None = None,
        forbidden: Callable | Sequence[Mapping] | None = None,
    ):
        _checks.instance(data, pd.DataFrame, "data")
        _checks.instance(features, Mapping, "features")
        for column, feature in features.items():
            _checks.instance(feature, Feature, f"features[{column!r}]", " See pcr_jax.Real.")
        acted = [column for column, feature in features.items() if feature.acted]
        if not acted:
            raise ValueError("Expected features of which one can be acted on; got none.")
        self.graph = as_graph(graph, acted)
        self.model, self.favourable, self.threshold = model, favourable, threshold
        self.is_table_model = hasattr(model, "predict_proba")
        self.model_columns = self._columns_of(model, data)
        known = [*self.graph.nodes, *self.model_columns, *features]
        self.columns = list(dict.fromkeys(known))
        self.data = checked(data, self.columns, "data")
        self.dtypes = self.data.dtypes
        by_column = {
            column: features.get(column) or feature_of(self.data[column], column)
            for column in self.graph.nodes
        }
        self.features: dict[Any, Feature] = by_column
        self._check_fixed()
        codes = encoded(self.data, self.features)
        self.centre = codes.astype(float).mean(0)
        self.seen = np.stack([codes.min(0), codes.max(0)], 1).astype(float)
        self.scale = self._scale_of(scale, codes)
        self.limits: dict[Any, tuple[float, float]] = {}
        self.weights = np.ones(len(self.scale))
        self.forbidden = forbidden
        self._check_forbidden()
        self._check_dtypes()
        self.score_of(self.data.iloc[:1])  # raises

    def __repr__(self):
        acted = [f"{node}" for node, feature in self.features.items() if feature.acted]
        return f"Task({', '.join(acted)} of {len(self.columns)} columns can be acted on)"

    def _columns_of(self, model: Any, data: pd.DataFrame) -> list:
        """Those of the model, in its order."""
        if not self.is_table_model:
            _checks.function(model, "model", "x (d,) -> logit (), or have predict_proba")
            names = names_of(model)
            if names is None:
                raise ValueError(
                    "Expected model.names, the columns of a JAX score in their order; got none."
                )
            return list(names)
        given = getattr(model, "feature_names_in_", None)
        return list(data.columns if given is None else given)

    def _check_fixed(self) -> None:
        """Raise if something immutable would react."""
        descendants = self.graph.descendants
        for j, (column, feature) in enumerate(self.features.items()):
            causes = [
                other
                for i, (other, cause) in enumerate(self.features.items())
                if feature.fixed and cause.acted and descendants[i, j]
            ]
            if causes:
                raise ValueError(
                    f"Expected immutable column {column!r} to have no cause that can be acted on; "
                    f"got {causes}."
                )

    def _check_forbidden(self) -> None:
        """Raise unless it is a function, or combinations of columns."""
        if self.forbidden is None:
            return
        if callable(self.forbidden):
            _checks.function(self.forbidden, "forbidden", "(rows) -> boolean")
            return
        for combination in _checks.listed(self.forbidden, "forbidden"):
            _checks.instance(combination, Mapping, "each of forbidden")
            unknown = [column for column in combination if column not in self.columns]
            if unknown or not combination:
                raise ValueError(f"Expected forbidden columns of {self.columns}; got {unknown}.")

    def _check_dtypes(self) -> None:
        """Raise if a column cannot hold what its feature may become."""
        for column, feature in self.features.items():
            names, dtype = getattr(feature, "names", ()), self.dtypes[column]
            if isinstance(dtype, pd.CategoricalDtype) and not set(names) <= set(dtype.categories):
                raise ValueError(
                    f"Expected names of {column!r} to be of its categories in data, "
                    f"{dtype.categories.tolist()}; got {list(names)}."
                )

    def _scale_of(self, scale: Any, codes: np.ndarray) -> np.ndarray:
        """What costs 1, (d,)."""
        _checks.instance(scale, Mapping | pd.Series | None, "scale")
        given = {} if scale is None else dict(scale)
        unknown = [column for column in given if column not in self.features]
        if unknown:
            raise ValueError(f"Expected scale of {list(self.features)}; got {unknown}.")
        found = codes.astype(float).std(0)
        for j, (column, feature) in enumerate(self.features.items()):
            if column in given:
                found[j] = _checks.positive(given[column], f"scale of {column!r}", ())
            elif feature.kind == "nominal" or not found[j] > 0:
                found[j] = 1.0
        return found.astype(codes.dtype)

    def personal(
        self,
        *,
        locked: Sequence[Any] = (),
        limits: Mapping[Any, tuple[Any, Any]] | None = None,
        weights: Mapping[Any, float] | None = None,
    ) -> Task:
        """The same task with one person's own wishes, which are added to those it has.

        They hold in all that is asked of the person and in all advice. Nothing is read anew.

        Parameters
        ----------
        locked : sequence
            Columns that are not to be acted on; they still react.
        limits : mapping
            By column, the least and the largest entry that actions may set; reactions may go
            beyond. Categories have none.
        weights : mapping
            By column, how many times as dear a change is: 2.0 is twice as hard.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If a column cannot be acted on, nothing is left that can be, limits are not in order or
            outside of what the feature can be, or a weight is not positive.
        """
        _checks.instance(limits, Mapping | None, "limits")
        _checks.instance(weights, Mapping | pd.Series | None, "weights")
        wishes = {
            "locked": dict.fromkeys(_checks.listed(locked, "locked")),
            "limits": {} if limits is None else dict(limits),
            "weights": {} if weights is None else dict(weights),
        }
        acted = [column for column, feature in self.features.items() if feature.acted]
        for name, by_column in wishes.items():
            other = [column for column in by_column if column not in acted]
            if other:
                raise ValueError(
                    f"Expected {name} of columns that can be acted on, {acted}; got {other}."
                )
        if len(wishes["locked"]) == len(acted):
            raise ValueError(
                f"Expected locked to leave one of the columns {acted}; got {list(locked)}."
            )
        own = copy(self)
        own.features = {
            column: replace(feature, actionable=False) if column in wishes["locked"] else feature
            for column, feature in self.features.items()
        }
        own.limits = self.limits | {
            column: self._limit(column, ends) for column, ends in wishes["limits"].items()
        }
        own.weights = self.weights.copy()
        for column, weight in wishes["weights"].items():
            times = float(_checks.positive(weight, f"weights of {column!r}", ()))
            own.weights[list(self.features).index(column)] *= times
        return own

    def _limit(self, column: Any, ends: Any) -> tuple[float, float]:
        """A person's limits in numbers, within those that there are."""
        said, feature = f"limits of {column!r}", self.features[column]
        ends = _checks.listed(ends, said)
        if feature.kind == "nominal":
            raise ValueError(f"Expected limits of columns with an order; got {column!r}.")
        if len(ends) != 2:
            raise ValueError(f"Expected {said} to be the least and the largest; got {ends}.")
        if feature.kind == "levels":
            codes = feature.encode(
                pd.Series(ends, index=["least", "largest"], dtype=object), column
            )
        else:
            codes = np.array([_checks.on_host(end, said, ()) for end in ends], float)
        low, high = (float(code) for code in codes)
        least, largest, _ = feature.grid
        if not (low <= high and low <= largest and high >= least):
            raise ValueError(
                f"Expected {said} in order, and of [{least:g}, {largest:g}]; got {ends}."
            )
        before = self.limits.get(column, (-np.inf, np.inf))
        return max(low, before[0]), min(high, before[1])

    def rows(self, rows: Any, name: str = "rows") -> pd.DataFrame:
        """The task's columns of a table, checked; a Series or dictionary is one row."""
        return checked(rows, self.columns, name, self.dtypes)

    def encode(self, rows: Any) -> np.ndarray:
        """The numbers (n, d) of people, in the order of ``graph.nodes``.

        Parameters
        ----------
        rows : DataFrame, Series or dict

        Raises
        ------
        TypeError, ValueError
            If a column lacks, is there twice or has an entry that its feature does not know; the
            message names column and row.
        """
        return encoded(self.rows(rows), self.features)

    def score_of(self, rows: pd.DataFrame, exact: bool = True) -> Any:
        """The score of numbers (d,), what is no node being as in the row (or rows)."""
        if self.is_table_model:
            model = Decoded(self.model, self.features, rows, self.model_columns, exact)
            return outside_model(model, favourable=self.favourable, threshold=self.threshold)
        nodes, columns = list(self.features), self.model_columns
        shared = [column for column in columns if column in nodes]
        places, given = map(columns.index, shared), map(nodes.index, shared)
        score, kinds = self._whole
        score = Bound(score, encoded(rows, kinds)[0], tuple(places), tuple(given))
        return score if self.threshold is None else with_threshold(score, self.threshold)

    @cached_property
    def _whole(self) -> tuple[Any, dict[Any, Feature]]:
        """The JAX score, and what its columns are."""
        columns = self.model_columns
        kinds = {c: self.features.get(c) or feature_of(self.data[c], c) for c in columns}
        return as_score(self.model, len(columns)), kinds

    def check(self, rows: Any) -> pd.DataFrame:
        """Raise unless the task says of these people what the model says.

        Every column is turned into the number that the SCM has of it and back, and the model is
        asked of both.

        Returns
        -------
        DataFrame
            By row: the ``probability`` of the favourable class (of a JAX score its ``logit``), and
            whether the decision is ``favourable``.

        Raises
        ------
        ValueError
            If they differ, with the first row where they do and its columns that read differently.
        """
        rows = self.rows(rows)
        codes = encoded(rows, self.features)  # raises
        if not self.is_table_model:
            score, kinds = self._whole
            score = score if self.threshold is None else with_threshold(score, self.threshold)
            logit = np.asarray(margins(score)(encoded(rows, kinds)), float)
            return pd.DataFrame({"logit": logit, "favourable": logit >= 0}, index=rows.index)
        host = self.score_of(rows, exact=False).host
        said = np.asarray(host(codes), float) + host.least
        own = np.asarray(self.model.predict_proba(rows[self.model_columns]))[:, host.position()]
        differs = (np.abs(said - own) > _TOLERANCE) | ((said >= host.least) != (own >= host.least))
        if differs.any():
            at = int(np.flatnonzero(differs)[0])
            again = decoded(codes[[at]], self.features, rows.iloc[[at]], None)
            other = {
                f"{column}": f"{rows[column].iloc[at]} as {again[column].iloc[0]}"
                for column in self.features
                if rows[column].iloc[at] != again[column].iloc[0]
            }
            raise ValueError(
                f"Expected the task to say what the model says; got {said[at]:.6g} and "
                f"{own[at]:.6g} of row {rows.index[at]!r}. It reads {other}."
            )
        return pd.DataFrame({"probability": own, "favourable": own >= host.least}, index=rows.index)

    def fit(self, *, curved: bool = False, deviation: float = 0.3) -> Any:
        """What the data teach of what causes how much: a surrogate with `learned_prior`.

        Parameters
        ----------
        curved : bool
            Whether mechanisms are `basis_surrogate`'s, or `linear_surrogate`'s.
        deviation : float
            See `learned_prior`.

        Raises
        ------
        ValueError
            If a column of more than two categories is a cause or an effect: its numbers cannot be
            computed with. Pass an SCM of your own.
        """
        of_edges = {end for edge in self.graph.edges for end in edge}
        for j, (column, feature) in enumerate(self.features.items()):
            if feature.kind == "nominal" and j in of_edges and feature.grid[1] > 1:
                raise ValueError(
                    f"Expected column {column!r}, which has causes or effects, to be in an order; "
                    "got categories in none. Use Levels, or an SCM of your own."
                )
        units: dict[str, Any] = {"scale": self.scale, "centre": self.centre}
        if curved:
            surrogate: Any = basis_surrogate(self.graph, **units)
        else:
            surrogate = linear_surrogate(self.graph, low=-2.0, high=2.0, **units)
        return learned_prior(surrogate, encoded(self.data, self.features), deviation=deviation)

    def problem(self, row: Any, level: float | None = None) -> Problem:
        """One person's problem for the array API, in numbers: see `pcr_jax.pose`.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If there is not one row, a column does not fit (the message names it and the row), or
            the person can set nothing to another value.
        """
        row = self.rows(row, "row")
        if len(row) != 1:
            raise ValueError(f"Expected row to be one person; got {len(row)}.")
        x = self._checked_numbers(row)
        can = settable(self, x[0])
        if not (can.values or can.ranges):
            raise ValueError(
                f"Expected row of a person who can act on something; got {row.index[0]!r}, whose "
                "features' ranges, directions and limits leave nothing."
            )
        return pose(
            self.score_of(row),
            self.graph,
            x,  # type: ignore[arg-type]
            scale=self.scale,  # type: ignore[arg-type]
            level=level,
            weights=self.weights,  # type: ignore[arg-type]
            constraints=can.constraints(x[0]),
        )

    def session(
        self, row: Any, surrogate: Any, *, key: Array | None = None, text: Any = None, **settings
    ) -> TaskSession:
        """A conversation with one person, in the words of the features.

        Parameters
        ----------
        row : Series, dict or DataFrame of one row
        surrogate : Surrogate
            As from `fit`.
        key : Array, optional
            ``jax.random.key(0)`` by default.
        text : str or bytes, optional
            Of a session that goes on, see `pcr_jax.Session.from_json`.
        **settings
            Of `pcr_jax.Session`: ``likelihood``, ``design``, ``max_questions``, ``path``, ...
        """
        problem = self.problem(row)
        session: Any
        if text is not None:
            session = TaskSession.from_json(text, problem, surrogate, **settings)
        else:
            key = jax.random.key(0) if key is None else key
            session = TaskSession(key, problem, surrogate, **settings)
        session.task, session.row = self, self.rows(row, "row")
        return session

    def recourse(
        self,
        rows: Any,
        by: Any,
        *,
        level: float | None = None,
        k: int = 1,
        max_acted: int = 3,
        max_candidates: int = 100_000,
        draws: int = 1000,
        key: Array | None = None,
    ) -> TaskPlan:
        """The cheapest actions after which the decisions are favourable.

        See `pcr_jax.recourse.mixed`: features of whole steps, levels and categories are
        enumerated, and real numbers left to `find_recourse`. What reacts stays in its range, and on
        its grid.

        Parameters
        ----------
        rows : DataFrame, Series or dict
        by : SCM, Posteriors, Session or Surrogate
            What people's SCMs are: of ``graph``, one for all, of batch shape (people,), or draws
            (people, draws); or what has draws of them.
        level : float, optional
            The probability, over those draws, that an action is to work with. Without one the mean
            of the draws is taken.
        k : int
            Up to so many plans for each person, no one of which acts on all that another acts on.
        max_acted : int
            On how many features at once.
        max_candidates : int
            How many actions are looked at before a search for somebody is given up.
        draws : int
            Of each person's SCM, where ``by`` has them.
        key : Array, optional
            Of those draws; the same ones by default.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If a column does not fit (the message names it and the row), the SCMs are of another
            graph or number, or there are not enough draws for a level.
        """
        rows = self.rows(rows)
        x = self._checked_numbers(rows)
        most = {"max_acted": max_acted, "max_candidates": max_candidates}
        for name, value in {"k": k, **most}.items():
            _checks.count(value, name)
        if level is not None:
            _checks.between_0_and_1(level, "level")
        key = jax.random.key(0) if key is None else key
        _checks.key(key)
        conversation = by.conversation() if hasattr(by, "conversation") else None
        by = by.belief.posteriors if hasattr(by, "belief") else by
        settings = {**most, "draws": draws, "key": key}
        advice = self._each(rows, x, by, level, settings, lambda person: alternatives(person, k))
        return TaskPlan(self, rows, tuple(advice), level, by, settings, conversation)

    def at_levels(self, plan: TaskPlan, levels: Sequence[float]) -> list[TaskPlan]:
        """The same people's first plans with other probabilities, see `price_of_certainty`.

        Parameters
        ----------
        plan : TaskPlan
        levels : sequence of float
            In (0, 1).
        """
        x = self._checked_numbers(plan.rows)
        each = self._each(
            *(plan.rows, x, plan.by, levels[0], plan.settings),
            lambda person: at_levels(person, levels),
        )
        return [
            replace(
                plan, advice=tuple(None if own is None else [own[i]] for own in each), level=level
            )
            for i, level in enumerate(levels)
        ]

    def _each(self, rows, x, by, level, settings, advise: Callable) -> list[Any]:
        """What everybody is advised; None for somebody without an SCM."""
        worlds, units = worlds_of(self, by, x, level, settings["draws"], settings["key"])
        worlds, units = jax.tree.map(np.asarray, (worlds, units))
        most = {name: settings[name] for name in ("max_acted", "max_candidates")}
        advice: list[Any] = []
        for i in range(len(x)):
            own, unit = take((worlds, units), i)
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own)):
                advice.append(None)
                continue
            person = person_of(self, rows.iloc[[i]], x[i], own, unit, level)
            advice.append(advise(replace(person, **most)))
        return advice

    def evaluate(self, plan: TaskPlan, truth: SCM) -> pd.DataFrame:
        """What comes of each person's first plan under the true SCM.

        Parameters
        ----------
        plan : TaskPlan
        truth : SCM
            Of ``graph``, one for all or of batch shape (people,).

        Returns
        -------
        DataFrame
            By row: whether the decision is then ``valid``, the ``cost`` (infinite where there is no
            action), ``p_valid`` as it was stated, and the protected columns, to compare groups by.
        """
        _checks.instance(plan, TaskPlan, "plan", " See Task.recourse.")
        x = encoded(plan.rows, self.features)
        worlds, _ = worlds_of(self, truth, x, None, 1, jax.random.key(0))
        valid = []
        for i, advice in enumerate(plan.first):
            if advice is None or not np.isfinite(advice.cost):
                valid.append(False)
                continue
            own = jax.tree.map(lambda leaf, i=i: leaf[i], worlds)
            person = person_of(self, plan.rows.iloc[[i]], x[i], own, None, None)
            valid.append(bool(outcome(person, advice.value, advice.acted)[1].all()))
        found = plan.to_frame()[["cost"] + ["p_valid"] * (plan.level is not None)]
        found.insert(0, "valid", valid)
        protected = [column for column, feature in self.features.items() if feature.protected]
        return found.join(plan.rows[protected]) if protected else found

    def _checked_numbers(self, rows: pd.DataFrame) -> np.ndarray:
        """The numbers (n, d) of people, each in its feature's range."""
        x = encoded(rows, self.features)
        for j, (column, feature) in enumerate(self.features.items()):
            low, high, _ = feature.grid
            bad = np.flatnonzero((x[:, j] < np.float32(low)) | (x[:, j] > np.float32(high)))
            if bad.size:
                raise ValueError(
                    f"Expected column {column!r} in [{low:g}, {high:g}]; got "
                    f"{rows[column].iloc[bad[0]]} in row {rows.index[bad[0]]!r}."
                )
        return x
