"""The figures show the numbers of the tables and of the posteriors."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer

import pcr_jax as pcr
from pcr_jax import plots
from pcr_jax.inference.arviz_data import from_groups

RATES = [0.01, 0.1, 0.25, 0.5, 0.75, 1.0]


def draw(figure):
    """Lay the figure out, so that warnings from drawing (errors here) are not missed."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def error_bars(ax):
    """(heights, lower ends, upper ends, line style) of each line; NaN ends where no bar is."""
    found = []
    for container in ax.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        ends = [s[:, 1] if len(s) else (np.nan, np.nan) for s in bars.get_segments()]
        low, high = np.reshape(ends, (-1, 2)).T
        found.append((line.get_ydata(orig=False), low, high, line.get_linestyle()))
    return found


@pytest.fixture
def recourse_table():
    rng = np.random.default_rng(0)
    rows = [
        {
            "scm": scm,
            "epsilon": epsilon,
            "learning_rate": rate,
            "variant": variant,
            "seed": seed,
            "validity": rng.uniform(0.5, 1),
            "robust_validity": rng.uniform(0, 0.5),
            "cost_mean": rng.uniform(1, 2),
        }
        for scm in ("m1", "m2")
        for epsilon in (0.0, 0.1)
        for rate in RATES
        for variant in plots.VARIANTS
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def statistics(table, variant, column, epsilon=0.1):
    chosen = table[
        (table.scm == "m2") & np.isclose(table.epsilon, epsilon) & (table.variant == variant)
    ]
    values = chosen.pivot(index="learning_rate", columns="seed", values=column).to_numpy()
    return values.mean(1), values.std(1, ddof=1)


def test_recourse_draws_means_and_standard_deviations(recourse_table):
    validity, cost = draw(plots.recourse(recourse_table, "m2", 0.1)).axes
    drawn = {"-": [], "--": []}
    for bar in error_bars(validity):
        drawn[bar[3]].append(bar)
    for k, variant in enumerate(plots.VARIANTS):
        for bars, column in (
            (drawn["-"], "validity"),
            (drawn["--"], "robust_validity"),
            (error_bars(cost), "cost_mean"),
        ):
            assert len(bars) == 3
            mean, sd = statistics(recourse_table, variant, column)
            np.testing.assert_allclose(bars[k][0], mean)
            np.testing.assert_allclose(bars[k][1], mean - sd)
            np.testing.assert_allclose(bars[k][2], mean + sd)


def test_recourse_labels_every_rate_of_the_paper(recourse_table):
    for ax in draw(plots.recourse(recourse_table, "m1", 0.0)).axes:
        assert ax.get_xscale() == "log"
        assert [label.get_text() for label in ax.get_xticklabels()] == [f"{r:g}" for r in RATES]
        assert len(ax.containers) == 3  # not robust
        for container, shift in zip(ax.containers, (-1, 0, 1), strict=True):
            rates = container.lines[0].get_xdata(orig=False)
            np.testing.assert_allclose(rates, np.array(RATES) * 1.04**shift)


def test_close_rates_share_a_label():
    assert plots._spaced(np.array([0.01, 0.5, 0.98, 0.99, 1.0])) == ["0.01", "0.5", "", "", "1"]
    assert plots._spaced(np.array([0.5])) == ["0.5"]


def test_recourse_without_a_variant_or_a_cost(recourse_table):
    table = recourse_table[recourse_table.variant != "estimated"].copy()
    table.loc[table.variant == "prior", "cost_mean"] = np.nan
    few = (table.variant == "ground_truth") & (table.learning_rate == 0.01)
    table.loc[few & (table.seed > 0), "cost_mean"] = np.nan  # one seed left: no deviation
    nobody = (table.variant == "ground_truth") & (table.learning_rate == 0.1)
    table.loc[nobody, "cost_mean"] = np.nan
    figure = draw(plots.recourse(table, "m2", 0.1))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["ground truth", "prior", "valid", "robustly valid"]
    truth, prior = error_bars(figure.axes[1])
    assert len(truth[0]) == len(RATES) - 1
    assert len(prior[0]) == 0
    left = table[(table.scm == "m2") & (table.epsilon == 0.1) & few & (table.seed == 0)]
    np.testing.assert_allclose(truth[0][:1], left.cost_mean)
    assert np.isnan(truth[1]).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"scm": "m9", "epsilon": 0.1}, r"Expected scm to be one of \['m1', 'm2'\]; got 'm9'"),
        ({"scm": "m1", "epsilon": 0.2}, r"Expected epsilon to be one of \[0.0, 0.1\]; got 0.2"),
    ],
)
def test_what_is_not_in_the_table_is_refused(recourse_table, wanted, message):
    with pytest.raises(ValueError, match=message):
        plots.recourse(recourse_table, **wanted)


def interventions_table(shares):
    """{(variant, seed): {set: share}} as a table."""
    rows = [
        {
            "scm": "m1",
            "epsilon": 0.0,
            "learning_rate": 0.75,
            "variant": variant,
            "seed": seed,
            "intervention_set": name,
            "share": share,
        }
        for (variant, seed), sets in shares.items()
        for name, share in sets.items()
    ]
    columns = "scm epsilon learning_rate variant seed intervention_set share"
    return pd.DataFrame(rows, columns=columns.split())


SHARES = {
    ("ground_truth", 0): {"X2+X3": 0.1, "X1": 0.9},
    ("ground_truth", 1): {"X3": 0.5, "X1": 0.496, "X1+X2+X3": 0.004},
    ("prior", 0): {"X3": 0.994, "X1+X2": 0.006},
    ("prior", 1): {"X3": 0.4, "none": 0.6},
}


def test_interventions_order_absent_sets_and_drop_rare_ones():
    table = interventions_table(SHARES)
    figure = draw(plots.interventions(table, "m1", 0.0, 0.75))
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["none", "X1", "X3", "X2+X3"]
    bars = [c for c in ax.containers if isinstance(c, BarContainer)]
    assert [c.get_label() for c in bars] == ["ground truth", "prior"]
    by_seed = {
        "ground truth": np.array([[0, 0.9, 0, 0.1], [0, 0.496, 0.5, 0]]),
        "prior": np.array([[0, 0, 0.994, 0], [0.6, 0, 0.4, 0]]),
    }
    for container in bars:
        shares = by_seed[container.get_label()]
        mean, sd = shares.mean(0), shares.std(0, ddof=1)
        np.testing.assert_allclose([b.get_height() for b in container], mean)
        segments = container.errorbar.lines[2][0].get_segments()
        ends = np.array([segment[:, 1] for segment in segments])
        np.testing.assert_allclose(ends, np.stack([mean - sd, mean + sd], 1), atol=1e-12)
    note = figure.get_supxlabel().replace("\n", " ")
    assert note == ("Not shown, each below 1%: X1+X2, X1+X2+X3 (ground truth 0.2%, prior 0.3%).")


def test_interventions_mean_over_the_seeds_of_a_variant():
    table = interventions_table(
        {
            ("ground_truth", 0): {"X1": 1.0},
            ("ground_truth", 1): {"X1": 0.5},
            ("prior", 1): {"X1": 1},
        }
    )
    figure = draw(plots.interventions(table, "m1", 0.0, 0.75))
    bars = [c for c in figure.axes[0].containers if isinstance(c, BarContainer)]
    assert [c[0].get_height() for c in bars] == [0.75, 1.0]
    assert figure.get_supxlabel() == ""


@pytest.mark.parametrize("rate", [0.75, 0.5])
def test_interventions_of_nobody(rate):
    table = interventions_table(SHARES) if rate == 0.5 else interventions_table({})
    figure = draw(plots.interventions(table, "m1", 0.0, rate))
    assert figure.axes == []
    assert figure.texts[0].get_text().endswith("no action was recommended.")


def estimation_table():
    rng = np.random.default_rng(1)
    rows = [
        {
            "scm": scm,
            "sweep": "sigma",
            "value": value,
            "repetition": repetition,
            "coefficient": name,
            "absolute_error": rng.uniform(),
            "prior_error": 0.5 if name == "X2 <- X1" else 0.7,
            "status": "ok",
        }
        for scm in ("m1", "m2")
        for value in (0.1, 0.2, 0.3)
        for repetition in range(4)
        for name in ("X2 <- X1", "X3 <- X1")
    ]
    return pd.DataFrame(rows)


def test_estimation_draws_errors_bands_and_failures():
    table = estimation_table()
    m1 = table.scm == "m1"
    failed = m1 & ((table.value == 0.1) | ((table.value == 0.2) & (table.repetition == 3)))
    table.loc[failed, "status"] = "empty"
    table.loc[failed & (table.value == 0.1), "absolute_error"] = np.nan
    table.loc[failed & (table.value == 0.2), "absolute_error"] = 99.0  # must not count
    figure = draw(plots.estimation(table, "sigma"))
    error, _, strip, clean = figure.axes
    assert error.get_title(loc="left").endswith("m1")

    line, prior = error.lines
    ok = table[m1 & ~failed].groupby(["value", "repetition"]).absolute_error.mean().unstack()
    means = [np.nan, *ok.mean(axis=1)]
    np.testing.assert_allclose(line.get_ydata(), means)
    np.testing.assert_allclose(prior.get_ydata(), 0.6)
    assert prior.get_linestyle() == "--"
    band = np.concatenate([path.vertices for path in error.collections[0].get_paths()])
    at_last = band[np.isclose(band[:, 0], 0.3), 1]
    sem = ok.loc[0.3].std(ddof=1) / 2
    np.testing.assert_allclose([at_last.min(), at_last.max()], means[2] + sem * np.array([-1, 1]))
    assert [bar.get_height() for bar in strip.patches] == [1.0, 0.25, 0.0]
    assert [bar.get_height() for bar in clean.patches] == [0.0, 0.0, 0.0]


def test_estimation_where_nobody_has_a_posterior():
    table = estimation_table().assign(status="no_start", absolute_error=np.nan)
    figure = draw(plots.estimation(table[(table.scm == "m1") & (table.value == 0.1)], "sigma"))
    error, strip = figure.axes
    assert np.isnan(error.lines[0].get_ydata()).all()
    assert [bar.get_height() for bar in strip.patches] == [1.0]


CHAINS, WARM, STEPS, WALKERS, USERS = 2, 5, 3, 4, 3


@pytest.fixture
def draws():
    """Warm-up and posterior draws (chain, step, walker, user, coefficient); user 0 has none."""
    rng = np.random.default_rng(2)
    theta = rng.uniform(-1, 1, (CHAINS, WARM + STEPS, WALKERS, USERS, 3))
    theta[:, :, :, 0] = np.nan
    return theta


def arviz_data(theta, warm=WARM):
    """ArviZ data as `pcr.infer` returns it; only zeus keeps its warm-up."""
    graph = pcr.library.m1().graph

    def fold(part):
        return part.reshape(CHAINS, -1, USERS, 3)

    warmup = {"warmup_posterior": {"theta": fold(theta[:, :warm])}} if warm else {}
    return from_groups(
        {"posterior": {"theta": fold(theta[:, warm:])}, **warmup},
        np.zeros((10, 3)),
        {"user": np.arange(USERS), "coefficient": list(graph.edge_names)},
        {"theta": ["user", "coefficient"]},
        {"graph": {"nodes": graph.nodes, "parents": graph.parents}, "num_walkers": WALKERS},
    )


def test_posterior_draws_walkers_and_the_truth(draws):
    truth = pcr.library.m1()
    axes = draw(plots.posterior(arviz_data(draws), truth)).axes
    assert len(axes) == 6
    for k, ax in enumerate(axes[:3]):
        *walkers, true = ax.lines[1:]  # after the end of warm-up
        assert ax.lines[0].get_xdata()[0] == WARM + 0.5
        paths = {tuple(np.asarray(line.get_ydata(), np.float32)) for line in walkers}
        expected = draws[:, :, :, 1, k].swapaxes(1, 2).reshape(-1, WARM + STEPS)
        assert paths == {tuple(path) for path in expected.astype(np.float32)}
        np.testing.assert_allclose(true.get_ydata(), [-0.99, 0.99, 0.99][k], rtol=1e-6)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "X2 ← X1", "X3 ← X1", "X3 ← X2", "X1", "X2", "X3",
    ]  # fmt: skip


def test_posterior_without_a_warm_up_draws_all_of_the_walkers(draws):
    axes = draw(plots.posterior(arviz_data(draws, warm=0), pcr.library.m1())).axes
    for ax in axes[:3]:
        *walkers, _ = ax.lines
        assert len(walkers) == CHAINS * WALKERS
        assert all(len(line.get_ydata()) == WARM + STEPS for line in walkers)
        assert not ax.patches


def test_posterior_compares_the_distributions(draws):
    draws[:, WARM:, :, 1] = [0.5, 0.0, 0.0]
    axes = draw(plots.posterior(arviz_data(draws), pcr.library.m1())).axes
    for ax, true_sd, estimated_sd in zip(axes[3:], (1, 1.407, 1.407), (1, 1.118, 1), strict=True):
        *bars, outline = ax.patches
        heights = np.array([bar.get_height() for bar in bars])
        middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
        # tails beyond the 0.1 % quantiles are not drawn
        sd = np.sqrt(np.sum(middles**2 * heights) / heights.sum())
        np.testing.assert_allclose(sd, true_sd, rtol=0.05)
        peak = outline.get_path().vertices[:, 1].max()
        np.testing.assert_allclose(peak, 0.3989 / estimated_sd, rtol=0.15)


def test_posterior_has_no_true_line_for_non_linear_scms(draws):
    truth = pcr.inverted(pcr.library.m1())  # as many coefficients, but of other functions
    axes = plots.posterior(arviz_data(draws), truth).axes
    assert len(axes[0].lines) == 1 + CHAINS * WALKERS


def test_posterior_takes_the_users_own_truth(draws):
    truth = pcr.library.m1()
    scales = jnp.array([1.0, 0.5, 0.0])
    batch = jax.vmap(lambda s: pcr.linear_scm(truth.graph, s * jnp.array([-0.99, 0.99, 0.99])))(
        scales
    )
    axes = plots.posterior(arviz_data(draws), batch).axes
    np.testing.assert_allclose(axes[0].lines[-1].get_ydata(), -0.495, rtol=1e-6)


def test_posterior_of_nobody():
    theta = np.full((CHAINS, WARM + STEPS, WALKERS, USERS, 3), np.nan)
    figure = draw(plots.posterior(arviz_data(theta), pcr.library.m1()))
    assert figure.axes == []
    assert [text.get_text() for text in figure.texts] == ["None of the 3 users has a posterior."]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 10, 11])
def test_every_column_of_panels_has_its_foot_labelled(count):
    figure = matplotlib.figure.Figure()
    axes = plots._panels(figure, count, "step", "coefficient", sharex=True)
    assert len(axes) == len(figure.axes) == count
    columns = -(-count // 5)
    labels = [ax.get_xlabel() for ax in axes]
    assert labels == [""] * (count - columns) + ["step"] * columns


def test_reliability_draws_shares_of_equal_bins_and_the_error():
    rng = np.random.default_rng(0)
    stated = np.append(rng.uniform(0.5, 1, 1000), np.nan)
    realised = np.append(rng.uniform(size=1000) < stated[:-1] - 0.1, True)
    figure = draw(plots.reliability(stated, realised))
    (bars,) = error_bars(figure.axes[0])
    order = np.argsort(stated[:-1]).reshape(10, 100)
    shares = realised[order].mean(1)
    np.testing.assert_allclose(bars[0], shares)
    assert ((bars[1] < shares) & (shares < bars[2])).all()
    error = np.abs(stated[order].mean(1) - shares).mean()
    assert f"1000 plans, expected calibration error {error:.3f}" in figure.get_suptitle()


def test_reliability_of_one_probability_and_of_none():
    figure = draw(plots.reliability([0.95] * 4, [True, True, True, False]))
    assert error_bars(figure.axes[0])[0][0] == [0.75]
    assert "error 0.200" in figure.get_suptitle()
    assert not draw(plots.reliability([np.nan], [False])).axes


@pytest.mark.parametrize(
    ("stated", "realised", "error", "message"),
    [
        ([0.5, 1.5], [True, False], ValueError, r"stated in \[0, 1\]"),
        ([0.5], [True, False], ValueError, "realised of shape"),
        ([0.5], [0.7], TypeError, "realised to be True and False"),
        ("much", [True], TypeError, "stated to be numbers"),
    ],
)
def test_reliability_refuses_what_is_no_probability(stated, realised, error, message):
    with pytest.raises(error, match=message):
        plots.reliability(stated, realised)


def test_questions_buy_validity_and_lower_cost():
    rng = np.random.default_rng(0)
    rows = [
        {"design": d, "questions": t, "valid": rng.random() < 0.9, "cost": 1 + rng.random() / t}
        for d in ("random", "Thompson")
        for t in (3, 5, 10)
        for _ in range(20)
    ]
    table = pd.DataFrame(rows)
    table.loc[0, "cost"] = np.inf  # left out
    figure = draw(plots.cost_against_questions(table))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["random", "Thompson", "median"]
    finite = table.replace(np.inf, np.nan).astype({"valid": float})
    for ax, column in zip(figure.axes, ("valid", "cost"), strict=True):
        for design, bars in zip(("random", "Thompson"), error_bars(ax), strict=True):
            stats = (
                finite[finite.design == design].groupby("questions")[column].agg(["mean", "sem"])
            )
            np.testing.assert_allclose(bars[0], stats["mean"])
            np.testing.assert_allclose(bars[2], stats["mean"] + stats["sem"])


def test_the_price_of_certainty_is_each_persons():
    levels = [0.5, 0.9, 0.99]
    rows = [
        {"user": u, "level": level, "cost": u + level, "p_valid": level + 0.005}
        for u in range(3)
        for level in levels
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    table.loc[(table.user == 2) & (table.level == 0.99), "cost"] = np.inf
    figure = draw(plots.price_of_certainty(table))
    cost, reached = figure.axes
    *people, median = cost.lines
    drawn = np.array([line.get_ydata() for line in people])
    np.testing.assert_allclose(
        drawn, [[u + v for v in levels] for u in range(2)] + [[2.5, 2.9, np.nan]]
    )
    np.testing.assert_allclose(median.get_ydata(), [1.5, 1.9, 1.49])
    np.testing.assert_allclose(reached.lines[3].get_ydata(), np.array(levels) + 0.005)
    assert figure.get_supxlabel() == "Without a plan: 1 at 0.99."


@pytest.mark.parametrize("drawn", [plots.cost_against_questions, plots.price_of_certainty])
def test_of_no_plans_a_figure_says_so(drawn):
    columns = ["design", "questions", "valid", "user", "level", "cost", "p_valid"]
    assert draw(drawn(pd.DataFrame(columns=columns))).texts[0].get_text() == "There are no plans."


@pytest.fixture(scope="module")
def people():
    """Posteriors of two people, of whom the second has none."""
    graph = pcr.library.m1().graph
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.2, (2, 1, 64, 3)).astype(np.float32)
    draws[1] = np.nan
    node, own = np.array([[0, 0, 1], [0, 0, 1]]), np.array([[True, False, True]] * 2)
    questions = pcr.Questions(node, np.array([[3.0, 1.0, 1.0]] * 2, np.float32), own)
    answer = np.full((2, 3, 3), np.nan, np.float32)
    answer[:, 0] = [np.nan, 2.0, 1.0]
    answer[:, 1, 1:] = 9.0  # on average: not the person's own
    answer[:, 2, 2] = 0.5
    x = np.array([[1.0, 0.5, 0.25]] * 2, np.float32)
    history = pcr.History(questions, answer, x, np.full(answer.shape, 0.125, np.float32))
    rest = dict.fromkeys(field.name for field in dataclasses.fields(pcr.Posteriors))
    found = {"draws": draws, "unknowns": draws[..., :0], "info": {"num_walkers": 1}}
    surrogate = pcr.linear_surrogate(graph, scale=[2.0, 1.0, 1.0])
    return pcr.Posteriors(**rest | found | {"surrogate": surrogate, "history": history})


def test_the_counterfactual_band_holds_the_draws_and_the_persons_own_answers(people):
    figure = draw(plots.counterfactual_band(people, "X1"))
    theta = people.draws[0, 0]
    to_x2, to_x3 = theta[:, 0], theta[:, 1] + theta[:, 0] * theta[:, 2]
    for k, (ax, slope) in enumerate(zip(figure.axes, (to_x2, to_x3), strict=True), start=1):
        assert ax.get_title(loc="left") == f"X{k + 1}"
        median, now = ax.lines[:2]
        at = median.get_xdata()
        np.testing.assert_allclose(at[[0, -1]], [-3, 5])  # two scales
        unit = 0.5  # natural units of X2 and X3 for one of X1
        expected = people.history.x[0, k] + unit * slope[:, None] * (at - 1)
        np.testing.assert_allclose(median.get_ydata(), np.median(expected, 0), atol=1e-5)
        assert (now.get_xdata()[0], now.get_ydata()[0]) == (1, people.history.x[0, k])
        ((points, low, high, _),) = error_bars(ax)
        assert (points, low, high) == ([3.0 - k], [2.875 - k], [3.125 - k])
        band = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
        last = band[np.isclose(band[:, 0], 5), 1]
        ends = np.quantile(expected[:, -1], [0.05, 0.95])
        np.testing.assert_allclose([last.min(), last.max()], ends, rtol=1e-5)


def test_the_band_of_nobody_and_of_nothing(people):
    figure = draw(plots.counterfactual_band(people, "X1", user=1))
    assert [text.get_text() for text in figure.texts] == ["User 1 has no posterior."]
    for wrong, message in (
        ({"node": "X3"}, r"node to be one of \['X1', 'X2'\].*; got 'X3'"),
        ({"node": "X1", "user": 2}, "user < 2; got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.counterfactual_band(people, **wrong)
    with pytest.raises(TypeError, match="posteriors to be a Posteriors"):
        plots.counterfactual_band(None, "X1")


def test_files_are_the_same_bytes_each_time(tmp_path):
    def figure():
        return plots.interventions(interventions_table(SHARES), "m1", 0.0, 0.75)

    first = figure()
    plots.save(first, tmp_path / "eps0.1")
    plots.save(first, str(tmp_path / "again"))
    plots.save(figure(), tmp_path / "anew")
    for kind, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        written = (tmp_path / f"eps0.1.{kind}").read_bytes()
        assert written.startswith(magic)
        assert b"Date" not in written
        assert written == (tmp_path / f"again.{kind}").read_bytes()
        assert written == (tmp_path / f"anew.{kind}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 6


def test_no_global_state_is_left_behind(recourse_table):
    before = dict(matplotlib.rcParams)
    draw(plots.recourse(recourse_table, "m1", 0.1))
    assert dict(matplotlib.rcParams) == before
