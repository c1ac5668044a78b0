"""Simulation-based calibration of `mixture`: are posteriors what they say they are?

Talts, Betancourt, Simpson, Vehtari & Gelman (2018): people are drawn from the prior, answer by the
likelihood, and the rank of what is true among the posterior's draws is uniform, for every number,
the log likelihood, and a counterfactual. Planted bugs show what the check can see: an effect of the
other sign, noise that is 20 % larger, and twice as many wrong answers than are allowed for.
"""

from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binomtest, chi2

import pcr_jax as pcr
from pcr_jax.likelihoods import mixture
from pcr_jax.surrogates import LinearSurrogate, for_users

GRAPH = pcr.Graph.fully_connected(3)
QUERIES = 10
RANKED = 99  # draws that a rank is among
BINS = 20
LEVELS = (0.5, 0.8, 0.9, 0.95)
NOISE, RATE = 0.2, 0.15
LIKELIHOODS = {
    "fixed": partial(mixture, NOISE, RATE),
    "inferred": partial(mixture, noise_prior=(NOISE, 0.5), rarity=1 / RATE - 1),
}
LINEAR = {
    "box": LinearSurrogate(GRAPH, pcr.Box(-np.ones(3), np.ones(3)), np.zeros(3)),
    # What a population of which people differ by .3 teaches.
    "learnt": LinearSurrogate(
        GRAPH, pcr.normal_prior([-0.8, 0.5, 0.6], [0.3, 0.3, 0.3]), np.zeros(3)
    ),
}
CURVED = {"of any shape": pcr.basis_surrogate(GRAPH, scale=np.ones(3), centre=np.zeros(3))}
SAMPLERS = {
    "gibbs": (pcr.Gibbs(), LINEAR),
    "smc": (pcr.Smc(num_particles=512, num_moves=30, num_last_moves=30), LINEAR),
    "nuts": (pcr.Nuts(num_chains=8, num_warmup=200, num_steps=200), LINEAR),
    "curved": (pcr.Gibbs(), CURVED),
}
BUGS = ("none", "sign", "noise", "wrong twice")


def drawn(key, surrogate, likelihood, num_people: int, bug: str = "none"):
    """People from the prior: what is true of them (n, dim), and their answered questions."""
    k_theta, k_unknown, k_x, k_ask, k_answer = jax.random.split(key, 5)
    k, d = len(surrogate.names), surrogate.graph.num_nodes
    theta = surrogate.prior.from_unit(jax.random.uniform(k_theta, (num_people, k)))
    unit = jax.random.uniform(k_unknown, (num_people, len(likelihood.names)))
    unknowns = unit if likelihood.prior is None else likelihood.prior.from_unit(unit)
    x = jax.random.normal(k_x, (num_people, d))
    ask = partial(pcr.RandomDesign().ask, belief=pcr.Belief(surrogate, pcr.History.empty(x, 1)))
    asked = [ask(key) for key in jax.random.split(k_ask, QUERIES)]
    questions = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *asked)

    def answers(key, theta, unknowns, questions, x):
        k_right, k_wrong, k_which = jax.random.split(key, 3)
        empty = pcr.History(questions, jnp.zeros((QUERIES, d)), x)
        own = likelihood.bound(surrogate, empty)
        rate, noise = own.split(unknowns)
        rate, noise = rate * (1 + (bug == "wrong twice")), noise * (1 + 0.2 * (bug == "noise"))
        flipped = theta.at[0].multiply(-1.0) if bug == "sign" else theta
        right = surrogate.expected(flipped, questions, x)
        right += noise * jax.random.normal(k_right, right.shape)
        wrong = own.about.reference + own.broad * jax.random.normal(k_wrong, right.shape)
        is_wrong = jax.random.bernoulli(k_which, jnp.minimum(rate, 1.0), (QUERIES, 1))
        reported = jnp.asarray(surrogate.graph.descendants)[questions.node]
        return jnp.where(reported, jnp.where(is_wrong, wrong, right), jnp.nan)

    keys = jax.random.split(k_answer, num_people)
    answer = jax.vmap(answers)(keys, theta, unknowns, questions, x)
    return jnp.concatenate([theta, unknowns], 1), pcr.History(questions, answer, x)


def quantities(surrogate, likelihood, history, z):
    """Numbers, log likelihood and a counterfactual of each person, at ``z`` (n, draws, dim)."""

    def one(surrogate, history, z):
        target = pcr.Target(surrogate, likelihood, history)
        action = pcr.Action.shift_node(0, 1.5, surrogate.graph.num_nodes)

        def at(z):
            changed = surrogate.scm(target.split(z)[0]).counterfactual(history.x, action)
            return jnp.append(z, jnp.stack([target.log_likelihood(z), changed[-1]]))

        return jax.vmap(at)(z)

    return np.asarray(jax.vmap(one)(for_users(surrogate, len(z)), history, z))


def ranked(sampler, surrogate, likelihood, num_people: int, bug: str = "none", seed: int = 0):
    """Ranks (n, quantities), whether intervals hold what is true, and the quantities' names."""
    k_draw, k_infer, k_ties = jax.random.split(jax.random.key(seed), 3)
    truth, history = drawn(k_draw, surrogate, likelihood, num_people, bug)
    posteriors = pcr.infer(k_infer, surrogate, history, likelihood, sampler=sampler)
    flat = posteriors.flat
    some = jnp.asarray(flat[:, (np.arange(RANKED) * flat.shape[1]) // RANKED])
    found = quantities(surrogate, likelihood, history, some)
    true = quantities(surrogate, likelihood, history, truth[:, None])
    ties = np.asarray(jax.random.uniform(k_ties, (num_people, 1, true.shape[-1])))
    below = (found < true).sum(1) + np.floor(ties[:, 0] * ((found == true).sum(1) + 1))
    whole = quantities(surrogate, likelihood, history, jnp.asarray(flat[:, ::4]))
    ends = {p: np.quantile(whole, [0.5 - p / 2, 0.5 + p / 2], axis=1) for p in LEVELS}
    held = {p: (low <= true[:, 0]) & (true[:, 0] <= high) for p, (low, high) in ends.items()}
    names = (*surrogate.names, *likelihood.names, "log likelihood", "counterfactual")
    return below, held, names, posteriors.status


def calibration_row(label: dict, below, held, names, status) -> list[dict]:
    """A row per quantity: the chi-square of its ranks, and how many intervals held the truth."""
    num = len(below)
    rows = []
    for q, name in enumerate(names):
        counts = np.histogram(below[:, q], BINS, (-0.5, RANKED + 0.5))[0]
        expected = num / BINS
        statistic = ((counts - expected) ** 2 / expected).sum()
        row = {**label, "quantity": name, "people": num}
        row["p_value"] = float(chi2.sf(statistic, BINS - 1))
        for level, inside in held.items():
            hits = int(inside[:, q].sum())
            row[f"covers_{level:g}"] = hits / num
            row[f"p_covers_{level:g}"] = binomtest(hits, num, level).pvalue
        row["poorly_mixed"] = float((status == pcr.PosteriorStatus.poorly_mixed).mean())
        rows.append(row)
    return rows


def distribution_functions(ranks: dict[str, np.ndarray]):
    """ArviZ's figure of how far the ranks' are from a uniform one's (Säilynoja et al. 2022)."""
    import arviz_plots
    import xarray

    rng = np.random.default_rng(0)
    values = {
        name: ("sample", (below + rng.uniform(size=len(below))) / (RANKED + 1))
        for name, below in ranks.items()
    }
    data = xarray.DataTree.from_dict({"prior_sbc": xarray.Dataset(values)})
    size = {"figsize": (12, 2.2 * -(-len(ranks) // 4))}
    drawn = arviz_plots.plot_ecdf_pit(
        data, sample_dims=["sample"], backend="matplotlib", figure_kwargs=size
    )
    return drawn.viz["figure"].item()


def verdict(rows: list[dict]) -> dict:
    """Smallest p-values beside what Bonferroni's correction of .01 asks for."""
    ranks = [float(row["p_value"]) for row in rows]
    covers = [float(row[f"p_covers_{level:g}"]) for row in rows for level in LEVELS]
    return {
        "smallest_p_of_ranks": min(ranks),
        "needed_of_ranks": 0.01 / len(ranks),
        "smallest_p_of_intervals": min(covers),
        "needed_of_intervals": 0.01 / len(covers),
        "calibrated": min(ranks) > 0.01 / len(ranks) and min(covers) > 0.01 / len(covers),
    }


PARTS = (*SAMPLERS, "bugs")


def measure(options):
    """Every sampler, with rates and noise fixed and inferred, from every prior.

    Where there is ArviZ 1.x, with a figure for each.
    """
    num_people = 100 if options.quick else 1000
    everything = [
        row for name, rows in options.recorded.items() if name in SAMPLERS for row in rows
    ]
    for name in options.part:
        if name == "bugs":
            continue
        rows, ranks = [], {}
        sampler, surrogates = SAMPLERS[name]
        for of, surrogate in surrogates.items():
            for how, likelihood in LIKELIHOODS.items():
                label = {"sampler": name, "prior": of, "noise and rate": how}
                found = ranked(sampler, surrogate, likelihood(), num_people)
                rows += calibration_row(label, *found)
                ranks |= {f"{q} ({of}, {how})": found[0][:, i] for i, q in enumerate(found[2])}
        everything += rows
        yield name, rows
        if find_spec("arviz_plots"):
            yield f"calibration_{name}.png", distribution_functions(ranks)
    if everything:
        yield "verdict", verdict(everything)
    if "bugs" in options.part:
        for bug in BUGS:
            settings = pcr.Gibbs(), LINEAR["box"], LIKELIHOODS["fixed"](), num_people, bug
            rows = calibration_row({"bug": bug}, *ranked(*settings, seed=1))
            yield "bugs", rows
            yield f"verdict, bug {bug}", verdict(rows)
