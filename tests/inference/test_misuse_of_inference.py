"""Wrong arguments of inference: what was expected, what came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import history_of

import pcr_jax as pcr

KEY = jax.random.key(0)
GRAPH = pcr.Graph.fully_connected(3)
SURROGATE = pcr.linear_surrogate(GRAPH)
LIKELIHOOD = pcr.tolerance(0.5, 0.1)
NODE, SHIFT = jnp.array([[0, 1, -1]]), jnp.ones((1, 3))
ANSWER = jnp.full((1, 3, 3), jnp.nan).at[0, :2, 2].set(0.1)
HISTORY = history_of(NODE, SHIFT, ANSWER)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"node": NODE + 1.0}, TypeError, "questions.node to be integers; got float32"),
        ({"node": NODE.at[0, 0].set(3)}, ValueError, r"questions.node in -1, ..., 2; got 3"),
        ({"node": NODE.at[0, 0].set(-2)}, ValueError, "questions.node in -1, ..., 2; got -2"),
        ({"node": NODE + 1}, ValueError, r"descendants; got 2 \('X3'\).* Positions begin at 0"),
        ({"node": NODE[0]}, ValueError, r"several users.*got shape \(3,\).*leaf\[None\]"),
        ({"node": NODE[:, :2]}, ValueError, r"shift of shape \(1, 2\).* got \(1, 3\)"),
        ({"shift": SHIFT[:, :1]}, ValueError, r"shift of shape \(1, 3\).* got \(1, 1\)"),
        ({"shift": SHIFT * jnp.nan}, ValueError, "finite values for questions.shift; got 3 NaN"),
        ({"shift": np.array([["a"] * 3])}, TypeError, "questions.shift to be numbers; got 'a'"),
        (
            {"answer": ANSWER[..., :2]},
            ValueError,
            r"history.answer of shape \(1, 3, 3\); got \(1, 3, 2\)",
        ),
        ({"answer": jnp.nan_to_num(ANSWER)}, ValueError, "where questions.node is -1"),
        ({"answer": ANSWER / 0}, ValueError, "history.answer to be finite.*got infinity"),
        (
            {"answer": ANSWER.astype(complex)},
            TypeError,
            "history.answer to be numbers; got complex",
        ),
    ],
)
@pytest.mark.parametrize("function", ["infer", "exact_posterior"])
def test_histories_at_odds_with_the_graph_are_refused(function, fields, kind, message):
    history = history_of(**({"node": NODE, "shift": SHIFT, "answer": ANSWER} | fields))
    with pytest.raises(kind, match=message):
        getattr(pcr, function)(KEY, SURROGATE, history, likelihood=LIKELIHOOD)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("key", 0, "key to be a random key, as from jax.random.key"),
        ("key", None, "key to be a random key"),
        (
            "surrogate",
            pcr.library.m1(),
            "surrogate to be a Surrogate, such as linear_surrogate.*; got a SCM",
        ),
        ("history", None, "history to be a History; got None"),
        ("history", [1, 2], r"history to be a History; got \[1, 2\]"),
        ("likelihood", 0.5, "likelihood to be a Likelihood, such as tolerance.*; got 0.5"),
        ("sampler", 3, "sampler to be a name of .* or a sampler such as Ess"),
        ("sampler", pcr.Ess, "sampler to be a name of .* got <class"),
        (
            "likelihood",
            pcr.Tolerance,
            "likelihood to be a Likelihood, such as tolerance.*; got <class",
        ),
        ("starts", 3, "starts to be a Posteriors; got 3"),
        ("on_user", 3, "on_user to be callable or None; got 3"),
    ],
)
def test_wrong_types_are_refused_by_infer(argument, value, message):
    arguments = {"key": KEY, "surrogate": SURROGATE, "history": HISTORY, "likelihood": LIKELIHOOD}
    with pytest.raises(TypeError, match=message):
        pcr.infer(**arguments | {argument: value})
    if argument not in ("sampler", "on_user", "starts"):
        with pytest.raises(TypeError, match=message):
            pcr.exact_posterior(**arguments | {argument: value})
        if argument != "key":
            del arguments["key"]
            with pytest.raises((TypeError, ValueError), match=argument):
                pcr.numpyro_model(**arguments | {argument: value})


WRONG_NUMBERS = ["0.5", None, True, 0.5j, [0.5], np.ones(3), jnp.full(3, 0.5), "a"]


@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=str)
def test_a_number_is_one_real_number(value):
    for name, make in {
        "sigma": lambda: pcr.tolerance(value, 0.1),
        "beta": lambda: pcr.relaxed(0.5, value),
        "temperature": lambda: pcr.relaxed(0.5, 0.1, value),
        "target_ess": lambda: pcr.Smc(target_ess=value),
        "target_accept": lambda: pcr.Nuts(target_accept=value),
    }.items():
        with pytest.raises(TypeError, match=f"Expected {name} to be one number; got "):
            make()
    with pytest.raises(
        ValueError, match=r"Expected an integer num_walkers >= 4 and < 2\*\*31; got "
    ):
        pcr.Ess(num_walkers=value)


@pytest.mark.parametrize("value", ["0.5", None, True, 0.5j, "a"], ids=str)
def test_a_bound_is_a_number_or_one_for_each_edge(value):
    with pytest.raises(TypeError, match="Expected low to be one number; got "):
        pcr.linear_surrogate(GRAPH, low=value)
    edges = len(GRAPH.edges)
    own = pcr.linear_surrogate(GRAPH, low=-np.arange(1.0, edges + 1))
    assert own.prior.low.tolist() == [-1.0, -2.0, -3.0][:edges]
    with pytest.raises(ValueError, match="Expected low of shape"):
        pcr.linear_surrogate(GRAPH, low=-np.ones(edges + 1))


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5)], ids=repr)
def test_numbers_of_every_sort_are_taken(value):
    assert pcr.relaxed(value, value, value).sigma == 0.5
    assert (pcr.linear_surrogate(GRAPH, high=value).prior.high == 0.5).all()


@pytest.mark.parametrize("value", [1e300, 1e-42])
def test_numbers_out_of_the_range_of_single_precision_are_refused(value):
    with pytest.raises(ValueError, match=r"sigma (in the range of|> 0 .*smallest) float32"):
        pcr.tolerance(value, 0.1)
    with pytest.raises(ValueError, match=r"low < high|high in the range of float32"):
        pcr.linear_surrogate(GRAPH, low=1.0, high=1.0 + value if value < 1 else value)


def test_other_types_of_surrogates_are_refused():
    with pytest.raises(TypeError, match="graph to be a Graph; got 3"):
        pcr.linear_surrogate(3)
    for noise_mean in (0.0, [[0]], ["a", 0, 0], [0.0, 0.0, np.nan]):
        with pytest.raises((TypeError, ValueError), match="noise_mean"):
            pcr.linear_surrogate(GRAPH, noise_mean=noise_mean)
    with pytest.raises(ValueError, match=r"norm to be one of .*; got 2"):
        pcr.tolerance(0.5, 0.1, norm=2)


@pytest.mark.parametrize(
    "idata", [None, 3, {}, np.zeros(3), HISTORY], ids=["None", "3", "{}", "array", "history"]
)
def test_what_is_no_posterior_is_refused(idata, tmp_path):
    for function in (
        pcr.diagnose,
        pcr.posterior_scms,
        lambda idata: pcr.write_netcdf(idata, tmp_path / "a.nc"),
    ):
        with pytest.raises(
            TypeError, match=r"posteriors .idata. to be from infer, to_arviz or read_netcdf; got a "
        ):
            function(idata)


def test_files_are_named(tmp_path):
    missing, damaged, other = (tmp_path / name for name in ("no.nc", "bad.nc", "other.nc"))
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    import xarray as xr

    xr.Dataset({"a": ("b", [1.0])}).to_netcdf(other, engine="h5netcdf")
    with pytest.raises(FileNotFoundError, match=r"there is no .*no\.nc"):
        pcr.read_netcdf(missing)
    with pytest.raises(FileNotFoundError, match="there is no "):
        pcr.read_netcdf(tmp_path)
    for file in (damaged, other):
        with pytest.raises(ValueError, match=f"written by write_netcdf; .*{file.name}"):
            pcr.read_netcdf(file)
    for path in (None, 3):
        with pytest.raises(TypeError, match=f"path to be a str or a path; got {path}"):
            pcr.read_netcdf(path)
