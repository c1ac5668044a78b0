"""The SCMs by name."""

from collections.abc import Callable

from pcr_jax import _checks
from pcr_jax.library.karimi import anm, gen, lin, loan
from pcr_jax.library.learnt import adult, compas
from pcr_jax.library.majumdar import (
    chain,
    chain_curved,
    collider,
    collider_curved,
    triangle,
    triangle_curved,
)
from pcr_jax.library.paper import m1, m2, m3
from pcr_jax.scm import SCM

SCMS: dict[str, Callable[[], SCM]] = {"m1": m1, "m2": m2, "m3": m3}
"""Those of the paper's experiments."""

OTHERS: dict[str, Callable[[], SCM]] = {
    scm.__name__: scm
    for scm in (
        *(lin, anm, gen, loan, adult, compas),
        *(triangle, triangle_curved, collider, collider_curved, chain, chain_curved),
    )
}
"""Those of others."""


def get(name: str) -> SCM:
    """The SCM of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    named = SCMS | OTHERS
    _checks.choice(name, named, "scm")
    return named[name]()
