"""Ask well, decide safely: how many recommended actions work, and how much dearer they are.

The users, classifiers and error rates of the paper; answers with noise of .05 standard deviations.
Methods are those of ``pcr-jax reproduce --beyond``. ``validity`` is under the person's true SCM,
``cost_ratio`` the mean cost by the mean cost of the optimum there, ``stated`` the probability that
the plans state.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from pcr_jax.evaluation import optimum_cost, reliability
from pcr_jax.experiments import PAPER, beyond
from pcr_jax.experiments.estimation import experiment_key, scm_index
from pcr_jax.population import Population, sample_labels

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
METHOD = {method.name: method for method in beyond.METHODS}
DIFFER = 0.3
# Others who have answered ten questions, and steps that their answers are taken to teach a prior.
TEACHERS, REFITTED = 100, 10
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5)
# Enough questions were asked when so many plans work at this mean cost, in optima.
VALID, DEARER = 0.97, 1.05
UNTIL = (*range(2, 11), 12, 14, 16, 18, 20, 25, 30)


def person_of(setting: beyond.Setting, alpha: float = PAPER.alpha, **errors) -> pcr.SimulatedUser:
    """Who answers."""
    noise = beyond.NOISE * jnp.asarray(setting.units["scale"])
    errors = {"wrong": pcr.library.theta_star()} | errors
    return pcr.SimulatedUser(setting.truth, error_rate=alpha, noise=noise, **errors)


def optimum_of(setting: beyond.Setting) -> jax.Array:
    """Cost of every person's cheapest action under their true SCM."""
    score, x, scale = setting.population
    settings = {"scale": scale, "epsilon": setting.epsilon}
    return optimum_cost(score, setting.truth, x, **settings)


def outcomes(setting, method, prior, at, labels, **asked):
    """Rows: what came of the plans after each number of questions."""
    key, optimum = experiment_key(6), optimum_of(setting)
    respondent = asked.pop("respondent", None) or person_of(setting, **asked)
    for t, posteriors in beyond.beliefs(key, setting, method, prior, respondent, at):
        plan = beyond.planned(setting.problem(method.level), posteriors)
        yield {**labels, "questions": t, **beyond.figures(plan, setting.truth, optimum)}


def asked_rows(num_people: int, seeds: int, at: tuple[int, ...], scms, names) -> list[dict]:
    """Methods by their names, with all priors."""
    protocol = replace(PAPER, beyond_people=num_people, beyond_questions=at)
    return [
        row
        for scm in scms
        for seed in range(seeds)
        for row in beyond.beyond_rows(protocol, scm, seed, tuple(map(METHOD.get, names)))[0]
    ]


def level_rows(num_people: int, at: tuple[int, ...], scms) -> list[dict]:
    """Stated against realised at rising levels, under several designs."""
    protocol = replace(PAPER, beyond_people=num_people)
    rows = []
    for scm in scms:
        setting = beyond.setting_of(protocol, scm, 0)
        for name in ("random", "Thompson", "decision"):
            respondent, key = person_of(setting), experiment_key(7)
            made = beyond.beliefs(key, setting, METHOD[name], "flat", respondent, at)
            for t, posteriors in made:
                stated, realised = [], []
                for level in LEVELS:
                    plan = beyond.planned(setting.problem(level), posteriors)
                    report = pcr.evaluate(plan, setting.truth)
                    acted = np.isfinite(np.asarray(plan.p_valid))
                    stated.append(np.asarray(plan.p_valid)[acted])
                    realised.append(np.asarray(report.robust_valid)[acted])
                    row = {"scm": scm, "design": name, "questions": t, "level": level}
                    row["stated"] = float(stated[-1].mean())
                    rows.append(row | {"realised": float(realised[-1].mean())})
                table = reliability(np.concatenate(stated), np.concatenate(realised))
                error = np.abs(table.stated - table.realised) @ table.users / table.users.sum()
                rows[-1]["ece_of_all_levels"] = float(error)
    return rows


@dataclass(frozen=True)
class People(beyond.Setting):
    """People with SCMs of their own, and ``prior``, what is believed of them, where it is given."""

    prior: pcr.Surrogate | None = None

    def surrogate(self, prior: str) -> pcr.Surrogate:
        """See `beyond.Setting`."""
        return super().surrogate(prior) if self.prior is None else self.prior


def people_who_differ(scm: str, num_people: int) -> tuple[People, People]:
    """Coefficients +-.3 about the population's; classifier and users of the mixed population.

    Those who are refused, and at most `TEACHERS` of those who are not.
    """
    common, key = pcr.library.get(scm), experiment_key(8, scm_index(scm))
    k_scms, k_people, k_label, k_fit = jax.random.split(key, 4)
    scms = pcr.population_of_scms(k_scms, common, beyond.ROWS + 8 * num_people, DIFFER)
    keys = jax.random.split(k_people, scms.batch_shape[0])
    x = jax.vmap(lambda scm, key: scm.sample(key, 1)[0])(scms, keys)
    rows, x = x[: beyond.ROWS], x[beyond.ROWS :]
    score = pcr.train_mlp(k_fit, rows, sample_labels(k_label, rows))
    refused = np.asarray(score(x)) < 0
    curved = scm in beyond.CURVED
    wide = {} if curved else {"low": -2.0, "high": 2.0}

    def these(who):
        own = jax.tree.map(lambda leaf: leaf[beyond.ROWS :][who], scms)
        return People(own, Population(score, x[who], rows.std(0)), rows, curved, box=wide)

    return these(np.flatnonzero(refused)[:num_people]), these(np.flatnonzero(~refused)[:TEACHERS])


def taught_by(people: People) -> pcr.Surrogate:
    """What rows teach, and ten random questions to each of some people: how far they differ."""
    k_ask, *keys = jax.random.split(experiment_key(9), 1 + REFITTED)
    surrogate, x = people.surrogate("learnt"), people.population.users
    history = pcr.elicit(k_ask, person_of(people), x, num_queries=10, surrogate=surrogate)
    for key in keys:
        surrogate = pcr.refit_prior(pcr.infer(key, surrogate, history, people.likelihood))
    return surrogate


def differ_rows(num_people: int, scms) -> list[dict]:
    """The population alone (no question), a flat prior and questions, and both.

    Of linear people with a prior that the answers of others have taught as well.
    """
    rows = []
    for scm in scms:
        people, others = people_who_differ(scm, num_people)
        settings = dict.fromkeys(beyond.PRIORS, people)
        if not people.curved:
            settings["learnt from answers"] = replace(people, prior=taught_by(others))
        for prior, setting in settings.items():
            labels = {"scm": scm, "prior": prior}
            rows += outcomes(setting, METHOD["decision"], prior, (0, 3, 5, 10), labels)
    return rows


def robust_rows(num_people: int, scms) -> list[dict]:
    """With a ball of perturbations of .1."""
    protocol = replace(PAPER, beyond_people=num_people)
    rows = []
    for scm in scms:
        setting = replace(beyond.setting_of(protocol, scm, 0), epsilon=0.1)
        for name in ("random", "decision"):
            labels = {"scm": scm, "design": name, "epsilon": 0.1}
            rows += outcomes(setting, METHOD[name], "flat", (3, 10), labels)
    return rows


def saved_rows(num_people: int, at: tuple[int, ...], scms) -> list[dict]:
    """The least number of questions after which plans work and are cheap, by design."""
    protocol = replace(PAPER, beyond_people=num_people)
    rows = []
    for scm in scms:
        setting = beyond.setting_of(protocol, scm, 0)
        for name in ("random", "information", "Thompson", "decision"):
            labels = {"scm": scm, "design": name}
            found = list(outcomes(setting, METHOD[name], "flat", at, labels))
            good = (
                row["questions"]
                for row in found
                if row["validity"] >= VALID and row["cost_ratio"] <= DEARER
            )
            rows += [*found, {**labels, "enough": next(good, float("nan"))}]
    return rows


def known_rows(num_people: int, scms) -> list[dict]:
    """Where it is known how people err, as the paper's likelihood does."""
    protocol = replace(PAPER, beyond_people=num_people)
    known = pcr.mixture(beyond.NOISE, PAPER.alpha)
    rows = []
    for scm in scms:
        setting = replace(beyond.setting_of(protocol, scm, 0), likelihood=known)
        for prior in beyond.PRIORS:
            labels = {"scm": scm, "prior": prior}
            rows += outcomes(setting, METHOD["decision"], prior, (0, 3, 5, 10), labels)
    return rows


def error_rows(num_people: int) -> list[dict]:
    """M1 after ten questions: error rates, kinds of wrong answers, a wrong graph; no model."""
    protocol = replace(PAPER, beyond_people=num_people)
    setting = beyond.setting_of(protocol, "m1", 0)
    scale = jnp.asarray(setting.units["scale"])
    cases = {f"theta*, {alpha:g}": {"alpha": alpha} for alpha in ALPHAS} | {
        "inverted": {"wrong": None},
        "anchored": {"wrong": pcr.Anchored(0.35)},
        "too weak": {"wrong": pcr.TooWeak(0.5)},
        "broad": {"wrong": pcr.Broad(2.0 * scale)},
        "rounded": {"rounding": 1.0},
        "not known": {"dont_know": 0.3 * scale},
    }
    rows = []
    for name, errors in cases.items():
        rows += outcomes(setting, METHOD["decision"], "flat", (10,), {"people": name}, **errors)
    nodes = setting.truth.graph.nodes
    missing = pcr.Graph.from_edges(nodes, [(nodes[0], nodes[1]), (nodes[1], nodes[2])])
    wrong = replace(setting, graph=missing)
    rows += outcomes(wrong, METHOD["decision"], "flat", (10,), {"people": "no edge X1 -> X3"})
    score, x, scale = setting.population
    plan = pcr.find_recourse(score, pcr.non_causal(setting.truth.graph), x, scale=scale)
    found = beyond.figures(plan, setting.truth, optimum_of(setting))
    return [*rows, {"people": "no causal model", "questions": 0, **found}]


PARTS = ("asked", "levels", "differ", "robust", "saved", "known", "errors")


def measure(options):
    """Part by part; SCM by SCM, as those of M3 take long."""
    num, seeds = (16, 1) if options.quick else (options.people, options.seeds)
    for scm in options.scm:
        parts = {
            "asked": lambda scm=scm: asked_rows(num, seeds, (0, 3, 5, 10), [scm], options.method),
            "levels": lambda scm=scm: level_rows(num, (3, 10), [scm]),
            "differ": lambda scm=scm: differ_rows(num, [scm]),
            "robust": lambda scm=scm: robust_rows(num, [scm]),
            "saved": lambda scm=scm: saved_rows(num, (2, 4) if options.quick else UNTIL, [scm]),
            "known": lambda scm=scm: known_rows(num, [scm]),
        }
        for part in options.part:
            if part in parts:
                yield part, parts[part]()
    if "errors" in options.part:
        yield "errors", error_rows(num)


OPTIONS = {
    "--people": {"type": int, "default": 100, "help": "of each repetition"},
    "--seeds": {"type": int, "default": 1, "help": "repetitions of the part asked"},
    "--method": {"nargs": "+", "default": list(METHOD), "choices": list(METHOD)},
    "--scm": {"nargs": "+", "default": list(pcr.library.SCMS), "choices": list(pcr.library.SCMS)},
}
