"""The settings of the paper's experiment, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Protocol:
    """Everything that the experiment of sections 4 and 5 of the paper leaves to choose.

    Attributes
    ----------
    name : str
    num_train, num_users : int
        Users to train on; refused users to explain (at most, for ``split``).
    split : bool
        False: refused users are drawn afresh until there are ``num_users``. True: as in the
        released code, ``num_train`` users are split 80/20 and the refused of the test part are
        explained.
    classifier_rate, classifier_epochs
        Adam's learning rate and the number of full-batch epochs.
    scale_per_variant : bool
        False: one scale, the training users' standard deviations. True: as in the released
        code, every SCM variant standardises by 100 draws of its own.
    epsilons, learning_rates : tuple of float
        Of recourse, in units of the scale.
    optimiser : str
        Of Algorithm 1.
    seeds : int
        Repetitions of the recourse experiment.
    respondents : int
        Respondents per repetition; the estimated SCM is the mean of their posterior means.
    num_queries : int
        T.
    alpha, beta : float
        Error rate of the respondents; share of answers that the likelihood lets deviate.
    sigma : dict-like tuple of (scm, float)
        Tolerance of the likelihood, natural units.
    noise_mean : tuple of float
        E[U] in the surrogate's expected answers.
    zeus : dict-like tuple of (scm, (walkers, steps, kept share))
    sweep_respondents : int
        Respondents per point of a sweep; 0 leaves the sweeps out.
    sweep_alpha, sweep_sigma, sweep_num_queries : tuple
        The points. alpha is swept twice, with beta = alpha and with beta as above, both at
        ``sweep_alpha_sigma``.
    sweep_alpha_sigma : float
    beyond_people : int
        Users who are asked as the paper does not; 0 leaves that out.
    beyond_questions : tuple of int
        Numbers of questions after which plans are made for them.
    """

    name: str = "paper"
    num_train: int = 1500
    num_users: int = 500
    split: bool = False
    classifier_rate: float = 0.01
    classifier_epochs: int = 500
    scale_per_variant: bool = False
    epsilons: tuple[float, ...] = (0.0, 0.1)
    learning_rates: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.1, 0.01)
    optimiser: str = "adam"
    seeds: int = 5
    respondents: int = 1
    num_queries: int = 10
    alpha: float = 0.1
    beta: float = 0.1
    sigma: tuple[tuple[str, float], ...] = (("m1", 0.5), ("m2", 0.6), ("m3", 0.6))
    noise_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    zeus: tuple[tuple[str, tuple[int, int, float]], ...] = (
        ("m1", (50, 100, 0.3)),
        ("m2", (50, 100, 0.3)),
        ("m3", (50, 100, 0.3)),
    )
    sweep_respondents: int = 10
    sweep_alpha: tuple[float, ...] = tuple(i / 10 for i in range(11))
    sweep_sigma: tuple[float, ...] = tuple(i / 10 for i in range(1, 11))
    sweep_num_queries: tuple[int, ...] = tuple(range(1, 16))
    sweep_alpha_sigma: float = 0.7
    beyond_people: int = 0
    beyond_questions: tuple[int, ...] = tuple(range(11))


PAPER = Protocol()
"""What the text says; what it leaves open as in the released code, unless that is a fault."""

RELEASED = Protocol(
    name="released",
    num_train=1000,
    split=True,
    classifier_rate=0.5,
    classifier_epochs=100,
    scale_per_variant=True,
    respondents=10,
    noise_mean=(0.07896, -0.14372, 0.10615),
    zeus=(("m1", (50, 100, 0.3)), ("m2", (30, 50, 0.3)), ("m3", (50, 50, 0.3))),
    sweep_respondents=0,
)
"""The released code's settings, to compare with its published tables."""

PROTOCOLS = {"paper": PAPER, "released": RELEASED}


def quick(protocol: Protocol) -> Protocol:
    """The same experiment with fewer users, repetitions and sweep points."""
    return replace(
        protocol,
        num_users=100,
        learning_rates=(1.0, 0.75, 0.1),
        seeds=2,
        sweep_respondents=min(protocol.sweep_respondents, 3),
        sweep_alpha=(0.0, 0.5, 1.0),
        sweep_sigma=(0.3, 0.6, 1.0),
        sweep_num_queries=(2, 5, 10),
        beyond_people=min(protocol.beyond_people, 40),
        beyond_questions=(0, 3, 10),
    )
