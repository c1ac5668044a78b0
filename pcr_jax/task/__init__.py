"""Your own table, model and graph, named once: rows in, advice out."""

from pcr_jax.task.graphs import as_graph
from pcr_jax.task.plan import TaskPlan
from pcr_jax.task.session import TaskSession
from pcr_jax.task.task import Task

__all__ = ["Task", "TaskPlan", "TaskSession", "as_graph"]
