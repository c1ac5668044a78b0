"""Other people's means on the same users: samplers with likelihoods in NumPy, and recourse.

Each is honest in its way: zeus as the paper and its released code use it, a likelihood of one theta
at a time; zeus and emcee with all walkers evaluated at once; and both run long enough for the
accuracy of the library's own samplers. For recourse: SciPy's SLSQP from many starts, a user at a
time; a batched PyTorch optimiser; DiCE, which knows no causes. All see the same classifier; the
first two know the true SCM.
"""

import logging
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from io import StringIO
from warnings import catch_warnings, simplefilter

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.optimize import minimize

import pcr_jax as pcr
from benchmarks import plain
from benchmarks.quality.brute_force import dense_ball

SCIPY_RUNS = 10
# Points of the ball that an action must withstand; of one larger, so that little of the ball lies
# between them.
SCIPY_POINTS, SCIPY_INFLATION = 64, 1.1
# (restarts, steps) of the PyTorch optimiser.
TORCH_SETTINGS = ((1, 300), (4, 300), (8, 1000))
TORCH_RATE = 0.05
DICE_ACTIONS = 4


def absent(packages) -> list[str]:
    """Those of the packages that are not installed."""
    return sorted({package for package in packages if not find_spec(package)})


@dataclass(frozen=True)
class Peer:
    """A sampler with its settings; ``num_ensembles`` are run one after the other."""

    package: str
    vectorised: bool
    num_walkers: int = 50
    num_steps: int = 100
    keep: float = 0.3
    num_ensembles: int = 1

    @property
    def installed(self) -> bool:
        """Whether its package is."""
        return find_spec(self.package) is not None


PEERS = {
    "zeus, scalar NumPy (the paper's setting)": Peer("zeus", vectorised=False),
    "zeus, vectorised NumPy (the paper's setting)": Peer("zeus", vectorised=True),
    "zeus, vectorised NumPy": Peer("zeus", vectorised=True, keep=0.8, num_ensembles=2),
    "emcee, vectorised NumPy": Peer(
        "emcee", vectorised=True, num_steps=1000, keep=0.8, num_ensembles=2
    ),
}


def starting_points(rng: np.random.Generator, density: Callable, count: int) -> np.ndarray | None:
    """The first ``count`` prior draws of positive density; None after 200,000 draws."""
    found: list[np.ndarray] = []
    for _ in range(200):
        draws = rng.uniform(-1, 1, (1000, 3))
        found.extend(draws[np.isfinite(density(draws))])
        if len(found) >= count:
            return np.array(found[:count])
    return None


def sample(peer: Peer, seed: int, node, shift, answer, sigma: float, beta: float):
    """One user's draws, shape (chain, step, walker, 3); None where a walker cannot start or go on.

    ``node``, ``shift`` (T,) and ``answer`` (T, 3) are the user's.
    """
    user = {"node": node, "shift": shift, "answer": answer, "sigma": sigma, "beta": beta}
    many = partial(plain.log_densities, **user)
    rng = np.random.default_rng(seed)
    chains = []
    for ensemble in range(peer.num_ensembles):
        starts = starting_points(rng, many, peer.num_walkers)
        if starts is None:
            return None
        density = many if peer.vectorised else partial(plain.log_density, **user)
        try:
            chain = _run(peer, starts, density, seed + ensemble)
        except RuntimeError:  # zeus gives up on some
            return None
        chains.append(chain[-round(peer.keep * peer.num_steps) :])
    return np.stack(chains)


def _run(peer: Peer, starts: np.ndarray, density: Callable, seed: int) -> np.ndarray:
    """All steps of one ensemble, shape (step, walker, 3)."""
    settings = (peer.num_walkers, 3, density)
    np.random.seed(seed)  # noqa: NPY002 (both draw from the global generator)
    if peer.package == "emcee":
        import emcee

        sampler = emcee.EnsembleSampler(*settings, vectorize=peer.vectorised)
        sampler.run_mcmc(starts, peer.num_steps)
        return sampler.get_chain()
    import random

    import zeus

    random.seed(seed)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        sampler = zeus.EnsembleSampler(*settings, vectorize=peer.vectorised, verbose=False)
        sampler.run_mcmc(starts, peer.num_steps, progress=False)
    finally:
        root.handlers[:], root.level = handlers, level
    return sampler.get_chain()


def scipy_multi_start(score, truth, scale, epsilon: float, num_runs: int) -> Callable:
    """From users x (n, d) to moves (n, d), 0 where none was found: the best of SLSQP runs by user.

    They start at random. A move is split into its positive and negative part, which makes its L1
    norm smooth; the logit is to be favourable at each of a few points around the ball.
    """
    d = len(truth.graph.nodes)
    radius = SCIPY_INFLATION * epsilon
    deltas = jnp.asarray(dense_ball(radius, "l2", SCIPY_POINTS) if epsilon else np.zeros((1, d)))

    def logit(move, user, delta):
        perturbed = truth.counterfactual(user, pcr.Action.soft(delta * scale))
        return score(truth.counterfactual(perturbed, pcr.Action.soft(move * scale)))

    @jax.jit
    def logits(move, user):
        both = jax.vmap(jax.value_and_grad(logit), (None, None, 0))
        return both(jnp.asarray(move, jnp.float32), user, deltas.astype(jnp.float32))

    def margin(both, user):
        return np.asarray(logits(both[:d] - both[d:], user)[0], float) - 1e-3

    def slope(both, user):
        gradient = np.asarray(logits(both[:d] - both[d:], user)[1], float)
        return np.concatenate([gradient, -gradient], 1)

    def find(x):
        rng, moves = np.random.default_rng(0), np.zeros(x.shape)
        for i, user in enumerate(x):
            best = np.inf
            for _ in range(num_runs):
                found = minimize(
                    np.sum,
                    np.abs(rng.normal(size=2 * d)) * (rng.random(2 * d) < 2 / d),
                    jac=np.ones_like,
                    bounds=[(0, None)] * (2 * d),
                    constraints={"type": "ineq", "fun": margin, "jac": slope, "args": (user,)},
                    method="SLSQP",
                    options={"maxiter": 200},
                )
                cost = np.abs(found.x[:d] - found.x[d:]).sum()
                if cost < best and margin(found.x, user).min() >= -1e-3:
                    best, moves[i] = cost, found.x[:d] - found.x[d:]
        return moves

    return find


def torch_optimiser(score, scm: str, x, scale, epsilon: float, restarts: int, steps: int):
    """Moves (n, d), 0 where none was found: Adam on all users and restarts at once.

    The loss is the L1 norm plus the hinge of the logit under the present perturbation; the hinge's
    weight rises while an action is not valid and falls while it is. The perturbation takes a step
    of ascent whenever the action takes one of descent. The cheapest valid action met is kept.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def tensor(array):
        return torch.tensor(np.asarray(array), dtype=torch.float32, device=device)

    functions = plain.effects(scm, torch.exp)
    dense = [layer for _, layer in sorted(score.params["params"].items())]
    layers = [(tensor(layer["kernel"]), tensor(layer["bias"])) for layer in dense]
    loc, unit, scale = tensor(score.loc), tensor(score.scale), tensor(scale)

    def counterfactual(x, shift):
        moved = plain.counterfactual(functions, list(x.unbind(-1)), list(shift.unbind(-1)))
        return torch.stack(moved, -1)

    def logit(x, move, delta):
        hidden = counterfactual(x, delta * scale) if epsilon else x
        hidden = (counterfactual(hidden, move * scale) - loc) / unit
        for kernel, bias in layers[:-1]:
            hidden = torch.tanh(hidden @ kernel + bias)
        return (hidden @ layers[-1][0] + layers[-1][1])[..., 0]

    torch.manual_seed(0)
    users = tensor(x).expand(restarts, *x.shape)
    move = (0.5 * torch.randn(users.shape, device=device)).requires_grad_()
    delta = torch.zeros(users.shape, device=device)
    weight = torch.ones(users.shape[:-1], device=device)
    best = torch.full(weight.shape, torch.inf, device=device)
    kept = torch.zeros_like(delta)
    adam = torch.optim.Adam([move], lr=TORCH_RATE)
    for _ in range(steps):
        adam.zero_grad()
        delta.requires_grad_(epsilon > 0)
        value = logit(users, move, delta)
        with torch.no_grad():
            lowest = torch.minimum(value, logit(users, move, 0 * delta)) if epsilon else value
            cost = move.abs().sum(-1)
            better = (lowest >= 0) & (cost < best)
            best = torch.where(better, cost, best)
            kept = torch.where(better[..., None], move, kept)
            weight = torch.where(lowest < 0, weight * 1.05, weight / 1.05).clamp(1e-2, 1e3)
        loss = (move.abs().sum(-1) + weight * torch.relu(1e-2 - value)).sum()
        if epsilon:
            # Ascent on the perturbation wants the slope of the logit also where the hinge is 0.
            (uphill,) = torch.autograd.grad(-value.sum(), delta, retain_graph=True)
        loss.backward(inputs=[move])
        adam.step()
        if epsilon:
            with torch.no_grad():
                norm = uphill.norm(dim=-1, keepdim=True).clamp_min(1e-30)
                delta = delta.detach() + epsilon * uphill / norm
                size = delta.norm(dim=-1, keepdim=True).clamp_min(1e-30)
                delta = delta * (epsilon / size).clamp(max=1.0)
    cheapest = best.argmin(0)
    return kept[cheapest, torch.arange(len(x), device=device)].cpu().numpy()


class _SklearnFace:
    """A score with the face of a scikit-learn classifier, for DiCE."""

    classes_ = np.array([0, 1])

    def __init__(self, score: Callable):
        self.score = jax.jit(lambda rows: score(rows))

    def predict_proba(self, rows):
        rows = np.asarray(rows, np.float32)
        # Padded to powers of two, so that few shapes are compiled.
        full = np.zeros((2 ** int(np.ceil(np.log2(max(len(rows), 16)))), rows.shape[1]), np.float32)
        full[: len(rows)] = rows
        favourable = np.asarray(jax.nn.sigmoid(self.score(full)))[: len(rows)]
        return np.stack([1 - favourable, favourable], 1)

    def predict(self, rows):
        return (self.predict_proba(rows)[:, 1] >= 0.5).astype(int)


def dice_actions(score, truth, scale) -> Callable:
    """From users x (n, d) to moves (n, d), 0 where none was found: the cheapest DiCE finds each."""
    import dice_ml
    from raiutils.exceptions import UserConfigValidationException

    names = list(truth.graph.nodes)
    sample = np.asarray(truth.sample(jax.random.key(9), 1000), float)
    model = _SklearnFace(score)
    frame = pd.DataFrame(sample, columns=names).assign(favourable=model.predict(sample))
    data = dice_ml.Data(dataframe=frame, continuous_features=names, outcome_name="favourable")
    explainer = dice_ml.Dice(data, dice_ml.Model(model=model, backend="sklearn"), method="random")

    def find(x):
        moves = np.zeros(x.shape)
        for i, user in enumerate(np.asarray(x, float)):
            query = pd.DataFrame(user[None], columns=names)
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()), catch_warnings():
                simplefilter("ignore")  # it warns of pandas, and shows its progress
                try:
                    found = explainer.generate_counterfactuals(
                        query, total_CFs=DICE_ACTIONS, desired_class=1, random_seed=0, verbose=False
                    )
                except UserConfigValidationException:  # none was found
                    continue
            actions = found.cf_examples_list[0].final_cfs_df
            if actions is not None and len(actions):
                candidates = (actions[names].to_numpy(float) - user) / np.asarray(scale)
                moves[i] = candidates[np.abs(candidates).sum(1).argmin()]
        return moves

    return find
