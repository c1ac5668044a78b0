"""Conversion to and from ArviZ: `InferenceData` (0.23) or `DataTree` (1.x).

The only file that imports arviz.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from pcr_jax._extras import extra
from pcr_jax._files import write
from pcr_jax._nans import nan_is_a_value
from pcr_jax.inference.posteriors import Posteriors, reduced
from pcr_jax.inference.status import PosteriorStatus
from pcr_jax.scm import SCM, Graph, linear_scm
from pcr_jax.surrogates.linear import edge_units

_TAILS = (0.05, 0.95)


def _arviz():
    """The package, which takes longer to import than all else together, when it is needed."""
    with extra("arviz"), warnings.catch_warnings():  # 0.23 announces 1.x at import
        warnings.filterwarnings("ignore", "\\nArviZ is undergoing", FutureWarning)
        import arviz
        import h5netcdf  # noqa: F401
        import xarray  # noqa: F401
    return arviz


def _is_legacy() -> bool:
    """Whether data are of 0.23, not of 1.x."""
    return int(version("arviz").split(".")[0]) < 1


def from_groups(
    groups: dict[str, dict[str, Any]],
    prior: np.ndarray | None,
    coords: dict[str, Any],
    dims: dict[str, list[str]],
    attrs: dict[str, Any],
    log_likelihood: np.ndarray | None = None,
):
    """Arrays by group as ArviZ data; values of ``attrs`` that are not text or numbers as JSON.

    Groups named posterior, warmup_posterior, posterior_predictive or sample_stats have leading
    (chain, draw). ``prior`` (draw, coefficient), if there is one, serves all users, and
    ``log_likelihood`` (chain, draw, user, query) is that of each answer.
    """
    attrs = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in attrs.items()}
    from_dict: Any = _arviz().from_dict

    def convert(groups, dims):
        shared = {"coords": coords, "dims": dims, "save_warmup": True}
        return from_dict(**groups, **shared) if _is_legacy() else from_dict(groups, **shared)

    data = convert(groups, dims)
    # Variables of the same name have other dimensions there.
    apart = {
        "prior": ("theta", None if prior is None else prior[None], ["coefficient"]),
        "log_likelihood": ("answer", log_likelihood, ["user", "query"]),
    }
    for group, (name, values, axes) in apart.items():
        if values is not None:
            more = convert({group: {name: values}}, {name: axes})
            if _is_legacy():
                data.add_groups({group: more[group]})
            else:
                data[group] = more[group]
    data.attrs.update(attrs)
    return data


def to_arviz(posteriors: Posteriors, users: Sequence[int] | None = None):
    """All that is known of users' posteriors, as ArviZ data; see `Posteriors.to_arviz`."""
    _arviz()
    history, surrogate = posteriors.history, posteriors.surrogate
    answer = np.asarray(history.answer)
    per_draw = {"lp": posteriors.log_density, **posteriors.statistics}
    per_user = {
        "status": posteriors.status,
        "best_agreement": posteriors.best_agreement,
        "prior_acceptance": posteriors.prior_acceptance,
        "num_evaluations": posteriors.num_evaluations,
        **posteriors.figures,
    }
    constant = {
        "query_node": np.asarray(history.questions.node),
        "query_shift": np.asarray(history.questions.shift),
        "query_individual": np.asarray(history.questions.individual),
        "query_outcome": np.asarray(history.questions.outcome),
        "features": np.asarray(history.x),
        **per_user,
    }
    if history.half_width is not None:
        constant["half_width"] = np.asarray(history.half_width)
    log_likelihood = None
    if hasattr(posteriors.likelihood, "pointwise"):
        of_answers = posteriors.of_answers("pointwise")
        shape = (*posteriors.draws.shape[:3], answer.shape[1])
        log_likelihood = _draws_first(of_answers.reshape(shape))
    names = posteriors.likelihood.names
    unknowns = {n: _draws_first(posteriors.unknowns[..., i]) for i, n in enumerate(names)}
    groups = {
        "posterior": {"theta": _draws_first(posteriors.draws), **unknowns},
        "sample_stats": {name: _draws_first(values) for name, values in per_draw.items()},
        "posterior_predictive": {"answer": _draws_first(posteriors.predictions())},
        "observed_data": {"answer": answer},
        "constant_data": constant,
    }
    if posteriors.warmup.size:
        groups["warmup_posterior"] = {"theta": _draws_first(posteriors.warmup)}
    dims = {
        "theta": ["user", "coefficient"],
        "answer": ["user", "query", "node"],
        "query_node": ["user", "query"],
        "query_shift": ["user", "query"],
        "query_individual": ["user", "query"],
        "query_outcome": ["user", "query"],
        "features": ["user", "node"],
        "half_width": ["user", "query", "node"],
        **{name: ["user"] for name in (*per_draw, *per_user, *names)},
    }
    coords = {
        "user": np.arange(history.num_users) if users is None else np.asarray(users),
        "coefficient": list(surrogate.names),
        "node": list(surrogate.graph.nodes),
        "query": np.arange(answer.shape[1]),
    }
    attributes = _attributes(posteriors)
    return from_groups(groups, posteriors.prior, coords, dims, attributes, log_likelihood)


def _draws_first(values: np.ndarray) -> np.ndarray:
    """Values (user, chain, draw, ...) as (chain, draw, user, ...)."""
    return np.moveaxis(values, 0, 2)


def _attributes(posteriors: Posteriors) -> dict[str, Any]:
    """What holds for all users, `from_groups`'s ``attrs``."""
    surrogate = posteriors.surrogate
    numbers = {"prior": surrogate.prior}
    for name in ("noise_mean", "scale", "centre"):
        if getattr(surrogate, name, None) is not None:
            numbers[f"surrogate_{name}"] = getattr(surrogate, name)
    return {
        "graph": {"nodes": surrogate.graph.nodes, "parents": surrogate.graph.parents},
        **(
            {}
            if surrogate.prior.batch_shape
            else {name: _plain(of) for name, of in numbers.items()}
        ),
        **posteriors.info,
        "status_codes": {status.name: int(status) for status in PosteriorStatus},
        "versions": {
            name: version(name) for name in ("pcr-jax", "jax", "numpyro", "blackjax", "arviz")
        },
    }


def _plain(tree):
    """Arrays as lists, and the fields of a pytree by name."""
    if isinstance(tree, np.ndarray | jax.Array):
        return np.asarray(tree).tolist()
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True): _plain(leaf) for path, leaf in leaves}


_ATTRIBUTES = ("graph", "num_walkers")


def _is_ours(data) -> bool:
    """Whether it is from `Posteriors.to_arviz`."""
    attrs = getattr(data, "attrs", None)
    if not isinstance(attrs, Mapping) or any(name not in attrs for name in _ATTRIBUTES):
        return False
    return hasattr(data, "posterior")


def check_posterior(data) -> None:
    """Raise TypeError unless ``data`` is from `Posteriors.to_arviz`."""
    if not _is_ours(data):
        kind = type(data).__name__
        raise TypeError(
            "Expected posteriors (idata) to be from infer, to_arviz or read_netcdf; got a "
            f"{kind} without their groups and attributes."
        )


def _path(path) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Expected path to be a str or a path; got {path!r}.")
    return os.fspath(path)


def write_netcdf(posteriors, path: str | os.PathLike) -> None:
    """Write a posterior as netCDF, in one step.

    The bytes are made in memory: the HDF5 library, writing to a disk that is full, ends the
    process.

    Parameters
    ----------
    posteriors
        From `infer`, or what their `to_arviz` returned.
    path : str or path

    Raises
    ------
    TypeError
        If ``posteriors`` are none, or ``path`` is no path.
    OSError
        If it cannot be written, naming the file; what was there before is left.
    """
    idata = to_arviz(posteriors) if isinstance(posteriors, Posteriors) else posteriors
    check_posterior(idata)
    path = _path(path)
    if _is_legacy():
        import xarray as xr

        tree = xr.DataTree.from_dict({group: idata[group] for group in idata.groups()})
        tree.attrs.update(idata.attrs)
    else:
        tree = idata
    write(path, tree.to_netcdf(engine="h5netcdf"))


def read_netcdf(path: str | os.PathLike):
    """Read what `write_netcdf` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        As `Posteriors.to_arviz` returned it.

    Raises
    ------
    TypeError
        If ``path`` is no path.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or no posterior of this library, naming it.
    """
    path = _path(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Expected a file written by write_netcdf; there is no {path}.")
    try:
        data = _arviz().from_netcdf(path, engine="h5netcdf")
    except Exception as error:  # of h5py, h5netcdf and xarray: whatever is wrong with the file
        raise ValueError(
            f"Expected a file written by write_netcdf; {path} is damaged or no netCDF ({error})."
        ) from error
    if not _is_ours(data):
        raise ValueError(
            f"Expected a file written by write_netcdf; {path} holds other data than a posterior."
        )
    return data


def graph_of(data) -> Graph:
    """The graph that the data's attributes describe."""
    check_posterior(data)
    described = json.loads(data.attrs["graph"])
    return Graph(tuple(described["nodes"]), tuple(map(tuple, described["parents"])))


def coefficients_of(data) -> np.ndarray:
    """Posterior draws, shape (chain, draw, user, coefficient); NaN for users without any."""
    check_posterior(data)
    order = ("chain", "draw", "user", "coefficient")
    return data.posterior["theta"].transpose(*order).to_numpy()


@nan_is_a_value
def posterior_scms(idata, draws: int | None = None) -> SCM:
    """`Posteriors.scms` of posteriors over the coefficients of linear SCMs that a file holds.

    Parameters
    ----------
    idata
        From `read_netcdf`, or `Posteriors.to_arviz`.
    draws : int, optional
        How many per user; the mean by default.

    Raises
    ------
    TypeError
        If ``idata`` is something else.
    ValueError
        If they are posteriors over other numbers.
    """
    by_user = np.moveaxis(coefficients_of(idata), 2, 0)  # (user, chain, draw, coefficient)
    theta = reduced(by_user, int(idata.attrs["num_walkers"]), draws)
    graph = graph_of(idata)
    if (num := theta.shape[-1]) != len(graph.edges):
        raise ValueError(
            f"Expected a coefficient for each of the {len(graph.edges)} edges in idata; got {num} "
            "of another surrogate. Use the Posteriors' own scms()."
        )
    scale = json.loads(idata.attrs.get("surrogate_scale", "null"))
    theta = theta * edge_units(graph, None if scale is None else jax.numpy.array(scale))
    one = partial(linear_scm, graph)
    return jax.vmap(one if draws is None else jax.vmap(one))(theta)


def rhat_and_ess(theta: np.ndarray, num_walkers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ArviZ's R-hat, bulk and tail ESS of one user's draws (chain, draw, coefficient).

    R-hat compares chains. Walkers folded into draws are followed one by one for the ESS: their
    steps are correlated, neighbours in the folded order are not.
    """
    az = _arviz()
    chains, draws, k = theta.shape
    columns = range(k)
    rhat = [az.rhat(theta[..., c]) if chains > 1 else np.nan for c in columns]
    split = np.moveaxis(theta.reshape(chains, -1, num_walkers, k), 2, 1)
    followed = split.reshape(chains * num_walkers, draws // num_walkers, k)
    bulk = [az.ess(followed[..., c], method="bulk") for c in columns]
    tail = [az.ess(followed[..., c], method="tail", prob=_TAILS) for c in columns]
    return np.array(rhat, float), np.array(bulk, float), np.array(tail, float)
