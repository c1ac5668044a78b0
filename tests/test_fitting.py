"""SCMs that are fitted to tables."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer

import pcr_jax as pcr
from pcr_jax.fitting.designs import Design
from pcr_jax.fitting.regressions import fit_number, noise_of

LEVELS, NOMINAL = SimpleNamespace(kind="levels"), SimpleNamespace(kind="nominal")


def rows_of(scm, num, seed=0):
    x = np.asarray(scm.sample(jax.random.key(seed), num))
    return pd.DataFrame(x, columns=list(scm.graph.nodes))


@pytest.mark.parametrize("curved", [False, True])
def test_coefficients_are_what_the_weights_of_the_columns_are(curved):
    rng = np.random.default_rng(0)
    parents = np.column_stack([30_000 + 8_000 * rng.normal(size=60), rng.integers(0, 3, 60)])
    parents = np.column_stack([parents, rng.exponential(size=60), rng.integers(0, 2, 60)])
    design = Design(parents, (0, 3, 0, 0), curved)
    assert design.function.bent == ((0, 2) if curved else ())
    assert design.function.products == (((0, 2), (0, 3), (2, 3)) if curved else ())
    new = parents + [20_000, 0, -3, 0] * rng.normal(size=(60, 1))  # beyond the splines' ends too
    columns = design.columns(new)
    weights = rng.normal(size=(2, columns.shape[1]))
    coefficients = design.coefficients(0.7, weights)
    for at, own in zip(weights, coefficients, strict=True):
        found = design.function(jnp.asarray(own, float), jnp.asarray(new, float))
        expected = 0.7 + columns @ at
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_of_a_linear_scm_it_finds_the_coefficients_to_the_error_that_it_states():
    scm = pcr.library.lin()
    fitted = pcr.fit_scm(rows_of(scm, 500), scm.graph, linear=True)
    assert fitted.scm.linear
    draws = fitted.scms(jax.random.key(1), 2, 300)
    assert draws.batch_shape == (2, 300)
    sd = np.asarray(draws.coefficients).std((0, 1))
    error = np.asarray(fitted.scm.coefficients - scm.coefficients)
    assert (np.abs(error) < 5 * sd).all()  # one false alarm in 500,000 seeds
    # Standard errors of least squares: 1 / sqrt(500 var(X1)) for the first, by hand; to a tenth.
    assert sd[0] == pytest.approx(1 / np.sqrt(500 * 3.5), rel=0.15)
    np.testing.assert_allclose(fitted.scm.noise_mean, scm.noise_mean, atol=0.25)
    table = fitted.summary()
    assert table["mechanism"].tolist() == ["root", "linear", "linear"]
    assert table.loc["X3", "unsupported"] in ("X1", "")  # an effect of .05
    assert table.loc["X2", "explained"] == pytest.approx(3.5 / 4.5, abs=0.08)


@pytest.mark.parametrize(("name", "least"), [("anm", 0.5), ("gen", 0.3)])
def test_curves_and_uneven_noise_are_found_from_250_people(name, least):
    scm = pcr.library.get(name)
    rows = rows_of(scm, 250)
    fits = [pcr.fit_scm(rows, scm.graph, linear=linear).scm for linear in (False, True)]
    x = scm.sample(jax.random.key(1), 200)
    shift = jnp.where(jax.random.bernoulli(jax.random.key(2), 0.5, (200,)), 1.0, -1.0)
    action = pcr.Action.do(x + shift[:, None], jnp.arange(3) == jnp.zeros((200, 1)))
    truth = scm.counterfactual(x, action)
    ours, linear = (np.median(np.abs(f.counterfactual(x, action) - truth), 0)[1:] for f in fits)
    assert (ours < least * linear).all()
    if name == "gen":
        table = pcr.fit_scm(rows, scm.graph).summary()
        assert "uneven noise" in table.loc["X2", "mechanism"]
        assert table.loc["X2", "normal_p"] < 1e-3  # of either sign


def test_edges_that_are_none_are_named_and_those_that_are_one_are_not():
    graph = pcr.Graph.from_edges(["a", "b", "c"], [("a", "c"), ("b", "c")])
    scm = pcr.linear_scm(graph, jnp.array([1.0, 0.0]))
    table = pcr.fit_scm(rows_of(scm, 200), graph, linear=True).summary()
    assert table.loc["c", "unsupported"] == "b"


@pytest.fixture(scope="module")
def mixed():
    """Levels and categories that follow from a number, and a number that follows from them."""
    nodes = ["income", "rating", "job", "owner", "savings"]
    edges = [("income", n) for n in nodes[1:4]] + [(n, "savings") for n in nodes[1:4]]
    jobs = pcr.Categorical(jnp.array([[0.0, 1.0], [0.5, 0.0], [0.0, -1.0]]))
    rating = pcr.Ordered(jnp.array([1.5]), jnp.array([-1.0, 1.0]))
    owner = pcr.Ordered(jnp.array([-1.0]), jnp.array([0.3]))

    def of_all(coefficients, parents):
        effects = jnp.take(coefficients, parents[..., 1].astype(int))
        return parents[..., 0] + effects + 2 * parents[..., 2]

    scm = pcr.SCM(
        pcr.Graph.from_edges(nodes, edges),
        (
            *(pcr.Mechanism(jnp.zeros(0)), rating, jobs, owner),
            pcr.Mechanism(jnp.array([0.0, 3.0, -2.0]), of_all),
        ),
        (dist.Normal(0.0, 1.0), rating.noise, jobs.noise, owner.noise, dist.Normal(0.0, 0.5)),
    )
    rows = rows_of(scm, 600)
    kinds = {"rating": LEVELS, "job": NOMINAL, "owner": NOMINAL}
    return scm, rows, kinds, pcr.fit_scm(rows, scm.graph, kinds)


def test_levels_and_categories_follow_from_their_causes_as_they_do(mixed):
    scm, _, _, fitted = mixed
    forms = fitted.summary()["mechanism"].tolist()
    assert forms[:4] == ["root", "ordered logit", "multinomial logit", "logit"]
    noise = [m.noise.sample(jax.random.key(i), (4000,)) for i, m in enumerate(scm.mechanisms[1:4])]
    for j, u in zip((1, 2, 3), noise, strict=True):
        for income in (-1.0, 1.0):
            ours, theirs = (
                np.bincount(
                    np.asarray(s.mechanisms[j].assign(jnp.array([income]), u), int), minlength=3
                )
                for s in (fitted.scm, scm)
            )
            # A share of 600 people, of whom a third has about this income, errs by some .035.
            assert np.abs(ours - theirs).max() / 4000 < 0.12
    x = jnp.array([[0.0, 1, job, owner, 0.0] for job in range(3) for owner in range(2)])
    ours, theirs = (s.mechanisms[4].abduct(x[:, 1:4], x[:, 4]) for s in (fitted.scm, scm))
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=0.3)


def test_its_worlds_bring_everybody_s_ranks(mixed):
    _, rows, _, fitted = mixed
    worlds = fitted.scms(jax.random.key(0), 3, 4)
    assert worlds.batch_shape == (3, 4)
    x = jnp.asarray(rows[:3], float)
    nothing = pcr.Action.empty(5)
    after = jax.vmap(lambda w, x: jax.vmap(lambda w: w.counterfactual(x, nothing))(w))(worlds, x)
    np.testing.assert_allclose(after, jnp.broadcast_to(x[:, None], after.shape), atol=1e-4)
    fewer = fitted.scms(jax.random.key(0), 2, 4)
    np.testing.assert_array_equal(worlds.unit[:2], fewer.unit)


def test_noise_has_the_residuals_moments_and_is_normal_where_they_are():
    rng = np.random.default_rng(1)
    normal, p = noise_of(rng.normal(1.0, 2.0, 300))
    assert isinstance(normal, dist.Normal)
    assert p > 0.01
    skewed = rng.exponential(size=500)
    mixture, p = noise_of(skewed)
    assert p < 0.01
    assert float(mixture.mean) == pytest.approx(skewed.mean(), rel=1e-3)
    assert float(mixture.variance) ** 0.5 == pytest.approx(skewed.std(), rel=1e-2)
    few, _ = noise_of(np.repeat([0.0, 1.0], [30, 70]))
    assert set(np.asarray(few.sample(jax.random.key(0), (100,)))) == {0.0, 1.0}
    assert float(few.mean) == pytest.approx(0.7)


def test_columns_are_taken_by_name_and_categories_as_numbers(mixed):
    scm, rows, kinds, fitted = mixed
    table = rows.assign(
        other="x", job=pd.Categorical.from_codes(rows["job"].astype(int), ["a", "b", "c"])
    )
    again = pcr.fit_scm(table[["other", *scm.graph.nodes[::-1]]], scm.graph, kinds)
    np.testing.assert_array_equal(again.rows, fitted.rows)
    pd.testing.assert_frame_equal(again.summary(), fitted.summary())


def test_what_is_missing_is_named_or_filled_in_by_what_the_user_passes():
    scm = pcr.library.lin()
    rows = rows_of(scm, 100)
    rows.loc[3:5, "X2"] = np.nan
    with pytest.raises(ValueError, match=r"got 3 of 100 in 'X2'.*imputer="):
        pcr.fit_scm(rows, scm.graph, linear=True)
    fitted = pcr.fit_scm(rows, scm.graph, linear=True, imputer=SimpleImputer())
    assert fitted.rows[4, 1] == pytest.approx(rows["X2"].mean())


def test_the_rows_teach_a_prior_too():
    scm = pcr.library.lin()
    rows = rows_of(scm, 100)
    surrogate = pcr.linear_surrogate(scm.graph, scale=rows.std().to_numpy())
    found = pcr.fit_scm(rows, scm.graph, linear=True).learned_prior(surrogate, deviation=0.2)
    expected = pcr.learned_prior(surrogate, rows, deviation=0.2)
    np.testing.assert_array_equal(found.prior.mean, expected.prior.mean)


LIN = pcr.library.lin()
TABLE = rows_of(LIN, 30)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": TABLE[["X1", "X2"]]}, ValueError, "no \\['X3'\\]"),
        ({"data": TABLE[["X1", "X2", "X3", "X2"]]}, ValueError, "\\['X2'\\] twice"),
        ({"data": TABLE[:5]}, ValueError, "at least 20 rows; got 5"),
        ({"data": np.zeros((30, 2))}, ValueError, r"shape \(n, 3\); got \(30, 2\)"),
        ({"data": TABLE.assign(X2="high")}, TypeError, "column 'X2' of data"),
        ({"features": {"X2": LEVELS}}, ValueError, "levels 0, 1, ... in column 'X2'"),
        ({"features": {"X9": LEVELS}}, ValueError, "got \\['X9'\\]"),
        ({"features": {"X2": SimpleNamespace(kind="odd")}}, ValueError, "the kind of 'X2'"),
        ({"features": [1]}, TypeError, "features"),
        ({"linear": 1}, TypeError, "linear"),
        ({"graph": 3}, TypeError, "graph"),
        ({"imputer": SimpleNamespace(fit_transform=lambda r: r[:, :2])}, ValueError, "imputer"),
    ],
)
def test_misuse_names_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        pcr.fit_scm(**{"data": TABLE, "graph": LIN.graph} | change)


def test_it_is_not_too_sure_of_what_is_steep_in_one_place_and_level_elsewhere():
    scm = pcr.library.anm()  # X2 is a logistic function of X1
    beyond = []
    for seed in range(4):
        rows = np.asarray(scm.sample(jax.random.key(seed), 250), float)
        draws = fit_number(rows[:, :1], (0,), rows[:, 1], True, False).draws
        f = draws(np.random.default_rng(0), 300)
        x = jnp.asarray(np.quantile(rows[:, 0], np.linspace(0.02, 0.98, 40)), float)[:, None]
        curves = np.asarray(jax.vmap(lambda c, f=f, x=x: f.function(c, x))(f.coefficients))
        truth = np.asarray(scm.mechanisms[1].assign(x, jnp.zeros(40)))
        rises, true_rises = (c[..., 20:] - c[..., :20] for c in (curves, truth))
        beyond.append(np.abs(true_rises - rises.mean(0)) > 2 * rises.std(0))
    assert np.mean(beyond) < 0.12
