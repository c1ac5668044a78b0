"""What an action has to achieve, and in which scenarios: the same to every solver.

A scenario is whatever may turn out differently from what is expected: a perturbation of the ball,
a draw of the user's SCM. A requirement says which are looked at, and how their logits become one
margin.
"""

from pcr_jax.recourse.requirements.base import Case, Closer, Nominal, Requirement, Verified
from pcr_jax.recourse.requirements.chance import Chance
from pcr_jax.recourse.requirements.robust import Robust

__all__ = ["Case", "Chance", "Closer", "Nominal", "Requirement", "Robust", "Verified"]
