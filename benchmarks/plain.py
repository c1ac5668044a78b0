"""What the library does, as somebody would write it without the library.

The paper's SCMs are lists of functions of the earlier features, one per node, for NumPy or torch;
one user at a time, or many where each feature is an array. The likelihood is that of the surrogate
of three nodes.
"""

import math

import numpy as np

COEFFICIENTS = {"m1": (-0.99, 0.99, 0.99), "m2": (-0.99, 0.05, 0.25)}


def effects(scm: str, exp=np.exp) -> list:
    """The effect on each feature of the features before it."""
    if scm == "m3":
        return [
            lambda _: 0.0,
            lambda x: -1.0 + 3.0 / (1.0 + exp(-2.0 * x[0])),
            lambda x: -0.05 * x[0] + 0.25 * x[1] ** 2,
        ]
    a, b, c = COEFFICIENTS[scm]
    return [lambda _: 0.0, lambda x: a * x[0], lambda x: b * x[0] + c * x[1]]


def abduct(functions: list, x: list) -> list:
    """The noise that gives the features ``x``, one entry per node."""
    return [x[j] - functions[j](x) for j in range(len(x))]


def predict(functions: list, noise: list, shift: list) -> list:
    """The features that follow from ``noise`` under shifts of the nodes."""
    x: list = []
    for j, u in enumerate(noise):
        x.append(functions[j](x) + u + shift[j])
    return x


def counterfactual(functions: list, x: list, shift: list) -> list:
    """What the features ``x`` would have been."""
    return predict(functions, abduct(functions, x), shift)


def log_density(theta, node, shift, answer, sigma: float, beta: float):
    """The surrogate of three nodes: 0 or -inf for one theta (3,), a query at a time."""
    if any(abs(t) > 1 for t in theta):
        return -math.inf
    agreeing = answered = 0
    for j, s, said in zip(node, shift, answer, strict=True):
        x1 = s if j == 0 else 0.0
        x2 = theta[0] * x1 + (s if j == 1 else 0.0)
        x3 = theta[1] * x1 + theta[2] * x2 + (s if j == 2 else 0.0)
        gaps = [abs(e - a) for e, a in zip((x1, x2, x3), said, strict=True) if not math.isnan(a)]
        if gaps:
            answered += 1
            agreeing += max(gaps) <= sigma
    missed = math.floor(beta * answered + 1e-4)
    return 0.0 if agreeing >= answered - missed else -math.inf


def log_densities(theta: np.ndarray, node, shift, answer, sigma: float, beta: float) -> np.ndarray:
    """`log_density` of thetas (n, 3) at once; shape (n,)."""
    at = [np.where(node == j, shift, 0.0) for j in range(3)]
    x1 = np.broadcast_to(at[0], (len(theta), len(node)))
    x2 = theta[:, :1] * x1 + at[1]
    x3 = theta[:, 1:2] * x1 + theta[:, 2:] * x2 + at[2]
    said = ~np.isnan(answer)
    gaps = np.abs(np.where(said, np.stack([x1, x2, x3], -1) - answer, 0.0)).max(-1)
    answered = said.any(1)
    agreeing = (answered & (gaps <= sigma)).sum(1)
    missed = math.floor(beta * answered.sum() + 1e-4)
    inside = (np.abs(theta) <= 1).all(1)
    return np.where(inside & (agreeing >= answered.sum() - missed), 0.0, -np.inf)
