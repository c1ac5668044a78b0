"""Units of work and their results on disk.

What is read from the folder is not trusted: a part is a unit's result only if it has exactly the
rows that the protocol asks of this unit. Of anything else the unit is done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from pcr_jax import library
from pcr_jax._files import write
from pcr_jax.actions import intervention_sets, set_name
from pcr_jax.experiments.beyond import labels_of_rows
from pcr_jax.experiments.estimation import surrogate_of, sweep_points
from pcr_jax.experiments.protocol import Protocol
from pcr_jax.inference import PosteriorStatus, read_netcdf
from pcr_jax.inference.arviz_data import coefficients_of, graph_of
from pcr_jax.plots import VARIANTS

TABLES = {
    "recourse": [
        "scm",
        "epsilon",
        "learning_rate",
        "variant",
        "seed",
        "num_users",
        "validity",
        "robust_validity",
        "cost_mean",
        "cost_mean_common",
        "regret_mean",
        "regret_to_optimum_mean",
        "zero_gradient",
        "reachable",
    ],
    "interventions": [
        "scm",
        "epsilon",
        "learning_rate",
        "variant",
        "seed",
        "intervention_set",
        "share",
    ],
    "estimation": [
        "scm",
        "sweep",
        "value",
        "repetition",
        "coefficient",
        "true",
        "posterior_mean",
        "posterior_sd",
        "absolute_error",
        "prior_error",
        "status",
    ],
    "beyond": [
        "scm",
        "seed",
        "design",
        "prior",
        "questions",
        "num_users",
        "served",
        "validity",
        "cost_ratio",
        "cost_ratio_median",
        "stated",
    ],
    "beyond_interventions": [
        "scm",
        "seed",
        "design",
        "prior",
        "questions",
        "intervention_set",
        "share",
    ],
}
_TEXT = {"scm", "variant", "intervention_set", "sweep", "coefficient", "status", "design", "prior"}


@dataclass(frozen=True)
class Unit:
    """One piece of work; ``index`` is the repetition, or the position among the sweep points."""

    stage: str
    scm: str
    index: int = 0

    @property
    def name(self) -> str:
        """Its file in ``OUT/parts``."""
        return f"{self.stage}_{self.scm}_{self.index}.json"


def posterior_path(out: Path, scm: str) -> Path:
    """The file of an SCM's posteriors."""
    return out / f"posterior_{scm}.nc"


def write_part(out: Path, unit: Unit, seconds: float, tables: dict[str, list[dict]]) -> None:
    """Keep the result of a unit; of a posterior, which has a file of its own, the digest."""
    part: dict[str, Any] = {"seconds": seconds, "tables": tables}
    if unit.stage == "posterior":
        part["sha256"] = _digest(posterior_path(out, unit.scm))
    write(out / "parts" / unit.name, json.dumps(part).encode())


def read_part(out: Path, protocol: Protocol, unit: Unit) -> dict[str, Any] | None:
    """The result of a unit; None if there is none.

    Raises
    ------
    ValueError
        If what is in its place is not the result of this unit.
    OSError
        If it cannot be read.
    """
    path = out / "parts" / unit.name
    if not path.exists():
        return None
    try:
        part = json.loads(path.read_bytes())
        seconds, tables = part["seconds"], part["tables"]
        good = _is_number(seconds) and seconds >= 0 and _expected(protocol, unit, tables)
        if good and unit.stage == "posterior":
            file = posterior_path(out, unit.scm)
            good = _digest(file) == part["sha256"] and _is_posterior(file, protocol, unit.scm)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, FileNotFoundError):
        good = False
    if not good:
        raise ValueError(f"{path} is not a result of this run")
    return part


def finished_part(out: Path, protocol: Protocol, unit: Unit) -> dict[str, Any]:
    """The result of a unit that this run has done or found.

    Raises
    ------
    RuntimeError
        If somebody has removed or changed it since.
    """
    try:
        part = read_part(out, protocol, unit)
    except ValueError:
        part = None
    if part is None:
        raise RuntimeError(f"{out / 'parts' / unit.name} was changed while the run was at work")
    return part


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_number(value) -> bool:
    """An integer of 64 bits or a float, perhaps NaN; bool is neither."""
    if isinstance(value, float):
        return not math.isinf(value)
    return type(value) is int and abs(value) < 2**63


def _are_rows(table: str, rows, fixed: dict[str, Any]) -> bool:
    """Whether all have the table's columns, with values of their types, and these ones."""
    return isinstance(rows, list) and all(
        row.keys() == set(TABLES[table])
        and all(isinstance(v, str) if c in _TEXT else _is_number(v) for c, v in row.items())
        and all(row[c] == v for c, v in fixed.items())
        for row in rows
    )


def _column(rows: list[dict], *columns: str) -> list[tuple]:
    return [tuple(row[c] for c in columns) for row in rows]


def _expected(protocol: Protocol, unit: Unit, tables) -> bool:
    """Whether these are the tables that the protocol asks of the unit, row for row."""
    truth = library.get(unit.scm)
    if unit.stage == "posterior":
        return tables == {}
    if unit.stage == "recourse":
        fixed = {"scm": unit.scm, "seed": unit.index}
        settings = list(product(protocol.epsilons, protocol.learning_rates, VARIANTS))
        nodes = truth.graph.nodes
        sets = {set_name(s, nodes) for s in intervention_sets(len(nodes))} | {"none"}
        keys = ("epsilon", "learning_rate", "variant")
        shares = _column(tables["interventions"], *keys, "intervention_set")
        return (
            set(tables) == {"recourse", "interventions"}
            and all(_are_rows(table, rows, fixed) for table, rows in tables.items())
            and _column(tables["recourse"], *keys) == settings
            and all((*setting,) in settings and members in sets for *setting, members in shares)
            and len(set(shares)) == len(shares)
        )
    if unit.stage == "beyond":
        fixed = {"scm": unit.scm, "seed": unit.index}
        labels = labels_of_rows(protocol.beyond_questions)
        return (
            set(tables) == {"beyond", "beyond_interventions"}
            and all(_are_rows(table, rows, fixed) for table, rows in tables.items())
            and _column(tables["beyond"], "design", "prior", "questions") == labels
        )
    point = sweep_points(protocol, unit.scm)[unit.index]
    fixed = {"scm": unit.scm, "sweep": point.sweep, "value": point.value}
    names = surrogate_of(protocol, truth).names
    rows = tables["estimation"]
    return (
        set(tables) == {"estimation"}
        and _are_rows("estimation", rows, fixed)
        and _column(rows, "repetition", "coefficient")
        == list(product(range(protocol.sweep_respondents), names))
        and all(row["status"] in PosteriorStatus.__members__ for row in rows)
    )


def _is_posterior(path: Path, protocol: Protocol, scm: str) -> bool:
    """Whether the file has draws for this SCM's coefficients and the protocol's respondents."""
    surrogate = surrogate_of(protocol, library.get(scm))
    try:
        data = read_netcdf(path)
        names, users = data.posterior["coefficient"].to_numpy(), data.posterior.sizes["user"]
        draws = coefficients_of(data)
        return (
            graph_of(data) == surrogate.graph
            and tuple(names) == surrogate.names
            and users == protocol.seeds * protocol.respondents
            and draws.dtype.kind == "f"
            # One draw of NaN says that nobody has a posterior.
            and (np.isnan(draws).all() or draws.shape[1] % int(data.attrs["num_walkers"]) == 0)
        )
    except Exception:  # of a file of unknown origin h5py may raise anything
        return False
