"""Users, scores, answers and graphs that several benchmarks measure; what they ask of the package's
inside stands here alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pcr_jax as pcr
from pcr_jax.experiments import PAPER
from pcr_jax.experiments.estimation import ask_respondents, experiment_key, scm_index, surrogate_of

SIGMA = dict(PAPER.sigma)
CLASSIFIERS = {"saturated": {"learning_rate": 0.5, "epochs": 100}}
DATA = {
    "--data": {
        "type": Path,
        "default": Path("../shared/reference"),
        "metavar": "DIR",
        "help": "recorded runs of the released code (.npz)",
    }
}
# As much work as by default, but few enough draws for 100,000 users' to fit in memory.
SCALED = pcr.Ess(num_steps=3, thin=8)


class Case(NamedTuple):
    """Users refused by one score."""

    kind: str
    scm: str
    score: Callable
    x: jax.Array
    scale: jax.Array

    @property
    def truth(self) -> pcr.SCM:
        """The true SCM."""
        return pcr.library.get(self.scm)


def population(scm: str, num_users: int, seed: int = 0, **settings):
    """Score, users and scale."""
    truth = pcr.library.get(scm)
    return pcr.refused_population(jax.random.key(seed), truth, num_users=num_users, **settings)


def stepped(score, x):
    """A score of few values."""
    return jnp.floor(2 * score(x)) / 2


def tree(score, truth, seed: int, num_users: int):
    """A decision tree fitted to a score's decisions, and whom it refuses."""
    from sklearn.tree import DecisionTreeClassifier

    x = np.asarray(truth.sample(jax.random.key(seed + 7), 3000))
    model = DecisionTreeClassifier(max_leaf_nodes=20, random_state=0)
    fitted = pcr.outside_model(model.fit(x, (np.asarray(score(jnp.asarray(x))) >= 0).astype(int)))
    users = truth.sample(jax.random.key(seed + 9), 6 * num_users)
    return fitted, users[np.asarray(fitted(users)) < 0][:num_users]


def drawn(kind: str, num_users: int, seeds: int) -> Iterator[Case]:
    """Populations of our own: well-trained or saturated networks, trees, scores in steps."""
    for scm in pcr.library.SCMS:
        for seed in range(seeds):
            settings = CLASSIFIERS.get(kind, {})
            score, x, scale = population(scm, num_users, 100 + seed, **settings)
            if kind == "steps":
                score = jax.tree_util.Partial(stepped, score)
            elif kind == "tree":
                score, x = tree(score, pcr.library.get(scm), seed, num_users)
            yield Case(kind, scm, score, x[np.asarray(jax.vmap(score)(x)) < 0], scale)


def framed(recorded, variant: str):
    """Classifier, users and scale of the released code, in the units of one variant."""
    params = {
        f"Dense_{i}": {"kernel": jnp.asarray(recorded[f"W{i}"].T), "bias": recorded[f"b{i}"]}
        for i in range(3)
    }
    mean, sd = (jnp.asarray(recorded[f"{name}_{variant}"]) for name in ("mean", "std"))
    score = pcr.Classifier(pcr.MLP(), {"params": params}, mean, sd)
    return score, jnp.asarray(recorded["X_explain"]) * sd + mean, sd


def recorded(data: Path) -> Iterator[Case]:
    """The users and saturated classifiers of the released code."""
    for path in sorted(data.glob("recourse_*_eps0.1_seed0.npz")):
        yield Case("recorded", path.stem.split("_")[1].lower(), *framed(np.load(path), "true"))


def histories(scm: str, num_users: int, num_queries: int = 10) -> pcr.History:
    """What simulated respondents of the paper's protocol answered."""
    key = experiment_key(scm_index(scm), 5)
    truth = pcr.library.get(scm)
    return ask_respondents(key, truth, PAPER.alpha, num_users, num_queries, num_queries)


def surrogate(scm: str):
    """What the paper's protocol infers."""
    return surrogate_of(PAPER, pcr.library.get(scm))


def random_graph(rng: np.random.Generator, num_nodes: int) -> pcr.Graph:
    """A DAG with half of all edges."""
    nodes = [f"X{j + 1}" for j in range(num_nodes)]
    edges = [(a, b) for j, b in enumerate(nodes) for a in nodes[:j] if rng.random() < 0.5]
    return pcr.Graph.from_edges(nodes, edges)


def _squashed(coefficients, parents):
    return 1.5 * jnp.tanh(jnp.sum(coefficients * parents, axis=-1))


def random_scm(num_nodes: int, kind: str) -> pcr.SCM:
    """On a random DAG; linear, or tanh of a linear effect."""
    rng = np.random.default_rng(num_nodes)
    graph = random_graph(rng, num_nodes)
    size = np.sqrt(num_nodes / 3)
    linear = pcr.linear_scm(graph, rng.uniform(-1, 1, len(graph.edges)) / size)
    if kind == "linear":
        return linear
    mechanisms = tuple(pcr.Mechanism(m.coefficients, _squashed) for m in linear.mechanisms)
    return pcr.SCM(graph, mechanisms, linear.noise)


def density(surrogate, likelihood, history, part: str = "log_density") -> Callable:
    """One user's log density, or another ``part`` of it, as a function of coefficients (k,)."""
    from pcr_jax.inference import Target

    return getattr(Target(surrogate, likelihood, history), part)


def lowest_logits(case: Case, action: pcr.Action, epsilon: float) -> np.ndarray:
    """By the library's own verification, at the centre and in the ball; shape (num_users,)."""
    from pcr_jax.recourse import pose
    from pcr_jax.recourse.problem import worlds_of
    from pcr_jax.recourse.verify import outcomes

    graph = case.truth.graph
    problem = pose(case.score, graph, case.x, scale=case.scale, epsilon=epsilon)
    worlds = worlds_of(problem, case.truth, "truth")
    shared = (problem.score, worlds, problem.x, action)
    logit, everybody = outcomes(*shared)[1], np.ones(len(case.x), bool)
    key = jax.random.key(1)
    found = problem.requirement.verify(key, *shared, problem.scale, logit, everybody)
    return np.asarray(found.logit)
