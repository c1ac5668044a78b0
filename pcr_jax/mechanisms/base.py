"""The contract of mechanisms."""

from __future__ import annotations

from typing import Protocol

from jax import Array


class Assignment(Protocol):
    """One node's assignment ``X_j := f_j(Pa_j, U_j)``, a pytree whose numbers are leaves.

    `assign` and `abduct` belong together: what is abducted gives the value again. One whose noise
    is a factor, growth by chance:

    >>> import jax.numpy as jnp
    >>> import numpyro.distributions as dist
    >>> import pcr_jax as pcr
    >>> from pcr_jax._pytree import pytree
    >>> @pytree()
    ... class Factor:
    ...     size: object
    ...     invertible, linear = True, False
    ...     batch_shape = property(lambda self: self.size.shape)
    ...
    ...     def check(self, num_parents, node):
    ...         assert num_parents == 1
    ...
    ...     def assign(self, parents, noise):
    ...         return self.size * parents[..., 0] * jnp.exp(noise)
    ...
    ...     def inverted(self):
    ...         return Factor(1 / self.size)
    ...
    ...     def abduct(self, parents, value, unit=None):
    ...         return jnp.log(value / (self.size * parents[..., 0]))
    >>> graph = pcr.Graph.from_edges(["salary", "savings"], [("salary", "savings")])
    >>> mechanisms = (pcr.Mechanism(jnp.zeros(0)), Factor(jnp.asarray(0.1)))
    >>> scm = pcr.SCM(graph, mechanisms, (dist.Normal(30.0, 1.0), dist.Normal(0.0, 0.5)))
    >>> x = jnp.array([30.0, 6.0])
    >>> scm.counterfactual(x, pcr.Action.soft(jnp.array([10.0, 0.0]))).round(3).tolist()
    [40.0, 8.0]

    Attributes
    ----------
    invertible : bool
        Whether only one noise fits a value. If not, `abduct` picks one by its ``unit``.
    linear : bool
        Whether it is a sum of the parents times ``coefficients`` (..., num_parents), and noise.
    batch_shape : tuple of int
        Leading axes of the leaves: () for one, (num_users,) for one per user.
    """

    invertible: bool

    @property
    def linear(self) -> bool:
        """Whether it is a sum of the parents times ``coefficients``, and noise."""

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the leaves."""

    def check(self, num_parents: int, node: str) -> None:
        """Raise ValueError if it is not for that many parents; ``node`` is its name."""

    def assign(self, parents: Array, noise: Array) -> Array:
        """The value (...) that follows from ``parents`` (..., num_parents) and noise (...)."""

    def inverted(self) -> Assignment:
        """One whose causes have the opposite effect, as a person may have it who errs."""

    def abduct(self, parents: Array, value: Array, unit: Array | None = None) -> Array:
        """A noise (...) that gives ``value`` (...), natural units.

        ``unit`` (...) in (0, 1): of several that fit, the one of this rank. None if `invertible`.
        """
