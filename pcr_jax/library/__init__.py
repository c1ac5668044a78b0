"""Named SCMs: those of the paper's experiments (`SCMS`), and those of others (`OTHERS`)."""

from pcr_jax.library.karimi import anm, gen, lin, loan, loan_logit
from pcr_jax.library.learnt import adult, compas
from pcr_jax.library.majumdar import (
    chain,
    chain_curved,
    collider,
    collider_curved,
    triangle,
    triangle_curved,
)
from pcr_jax.library.names import OTHERS, SCMS, get
from pcr_jax.library.paper import m1, m2, m3, theta_star

__all__ = [
    "OTHERS",
    "SCMS",
    "adult",
    "anm",
    "chain",
    "chain_curved",
    "collider",
    "collider_curved",
    "compas",
    "gen",
    "get",
    "lin",
    "loan",
    "loan_logit",
    "m1",
    "m2",
    "m3",
    "theta_star",
    "triangle",
    "triangle_curved",
]
