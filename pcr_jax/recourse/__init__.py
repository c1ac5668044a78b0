"""Recourse: the cheapest action that flips a user's decision."""

from pcr_jax.recourse.algorithm1 import Algorithm1
from pcr_jax.recourse.cost import Cost
from pcr_jax.recourse.find import SOLVERS, find_recourse, recommend
from pcr_jax.recourse.optimal import Optimal
from pcr_jax.recourse.plan import Plan, PlanStatus
from pcr_jax.recourse.problem import Problem, pose
from pcr_jax.recourse.requirements import Chance, Nominal, Requirement, Robust
from pcr_jax.recourse.search import Found, Solver

__all__ = [
    "SOLVERS",
    "Algorithm1",
    "Chance",
    "Cost",
    "Found",
    "Nominal",
    "Optimal",
    "Plan",
    "PlanStatus",
    "Problem",
    "Requirement",
    "Robust",
    "Solver",
    "find_recourse",
    "pose",
    "recommend",
]
