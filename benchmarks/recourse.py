"""Recourse by other means on the same users, in quality and time.

SciPy's SLSQP from many starts, a user at a time; a batched PyTorch optimiser; DiCE, which knows no
causes. All see the same classifier; the first two know the true SCM. Every action is judged by the
library's own verification under the true SCM, with its stronger attack where there is a ball.
"""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from warnings import catch_warnings, simplefilter

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

import pcr_jax as pcr
from benchmarks import plain
from benchmarks.optimality import dense_ball, population, slsqp
from benchmarks.records import show, write_record
from benchmarks.timing import timed
from pcr_jax.recourse import ball, per_user
from pcr_jax.recourse.verify import judge

PACKAGES = {"PyTorch": "torch", "DiCE": "dice_ml"}
SCIPY_RUNS = 10
# Points of the ball that an action must withstand; of one larger, so that little of the ball lies
# between them.
SCIPY_POINTS, SCIPY_INFLATION = 64, 1.1
# (restarts, steps) of the PyTorch optimiser.
TORCH_SETTINGS = ((1, 300), (4, 300), (8, 1000))
TORCH_RATE = 0.05
DICE_ACTIONS = 4


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
                found = slsqp(rng, d, margin, slope, user)
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


def _judged(score, truth, x, scale, epsilon, moves) -> dict[str, np.ndarray]:
    """Cost and validity of moves (n, d), in units of ``scale``; no move is no action."""
    moves = np.asarray(moves, np.float32)
    action = pcr.Action.soft(moves * scale)
    scms = per_user(truth, len(x))
    key = jax.random.key(1)
    _, worst = judge(key, score, scms, jnp.asarray(x), action, scale, ball(epsilon, "l2"))
    acted = moves.any(1)
    valid = acted & (np.asarray(worst) >= 0)
    cost = np.where(valid, np.abs(moves).sum(1), np.inf)
    return {"moves": moves, "valid": valid, "cost": cost}


def peer_rows(
    scm: str, epsilon: float, num_users: int, num_slow_users: int, repeats: int
) -> list[dict]:
    """One row per method: seconds for 500 users, validity, and cost over the best of all rows.

    The slow methods, a user at a time, are run on the first ``num_slow_users``. Costs are compared
    user by user with the cheapest valid action that any method found.
    """
    truth = pcr.library.get(scm)
    score, x, scale = population(scm, 0, num_users)
    some = x[:num_slow_users]

    def ours(solver):
        def search():
            plan = pcr.find_recourse(score, truth, x, scale=scale, epsilon=epsilon, solver=solver)
            return plan.action.value / scale

        return search

    methods = {f"pcr_jax {solver}": ours(solver) for solver in ("optimal", "paper")}
    if find_spec("torch"):
        for restarts, steps in TORCH_SETTINGS:
            settings = (score, scm, x, scale, epsilon, restarts, steps)
            name = f"PyTorch, {restarts} x {steps} steps"
            methods[name] = partial(torch_optimiser, *settings)
    slow = {
        f"SciPy, {SCIPY_RUNS} starts": scipy_multi_start(score, truth, scale, epsilon, SCIPY_RUNS)
    }
    if find_spec("dice_ml"):
        slow["DiCE (non-causal)"] = dice_actions(score, truth, scale)
    results, rows = {}, []
    for name, method in methods.items():
        moves, seconds = timed(method, repeats)
        results[name] = (_judged(score, truth, x, scale, epsilon, moves), seconds)
    for name, method in slow.items():
        moves, seconds = timed(partial(method, some), 1)
        results[name] = (_judged(score, truth, some, scale, epsilon, moves), seconds)
    best = np.full(num_users, np.inf)
    for judged, _ in results.values():
        best[: len(judged["cost"])] = np.minimum(best[: len(judged["cost"])], judged["cost"])
    fastest = results["pcr_jax optimal"][1]["seconds"] / num_users
    for name, (judged, seconds) in results.items():
        users, valid = len(judged["valid"]), judged["valid"]
        cost = judged["cost"][valid].mean() if valid.any() else np.nan
        least = best[:users][valid].mean() if valid.any() else np.nan
        rows.append(
            {
                "scm": scm,
                "epsilon": epsilon,
                "method": name,
                "users": users,
                "compile_seconds": seconds["compile_seconds"],
                "seconds_500_users": 500 * seconds["seconds"] / users,
                "cpu_seconds_500_users": 500 * seconds["cpu_seconds"] / users,
                "validity": float(valid.mean()),
                "cost": float(cost),
                "cost_ratio_to_best": float(cost / least),
                "optimal_is_faster": seconds["seconds"] / users / fastest,
            }
        )
    return rows


def absent() -> list[str]:
    """Packages of peers that are not installed."""
    return [package for package in PACKAGES.values() if not find_spec(package)]


def measure(out: Path, quick: bool) -> None:
    """Measure, print and record."""
    console = Console(width=200)
    rows = []
    for scm in ("m1",) if quick else tuple(pcr.library.SCMS):
        for epsilon in (0.0, 0.1):
            part = peer_rows(scm, epsilon, *((32, 2, 1) if quick else (500, 20, 5)))
            show(console, f"Recourse on {scm}, epsilon {epsilon:g}", part)
            rows += part
            record = {"quick": quick, "skipped": absent(), "rows": rows}
            write_record(out / "recourse.json", record)
    if absent():
        console.print("Skipped, not installed:", ", ".join(absent()))
