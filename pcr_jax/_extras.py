"""Packages that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Within, a package that is not found is said to come with that extra.

    Raises
    ------
    ModuleNotFoundError
        Naming the package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install 'pcr-jax[{name}]'."
        raise ModuleNotFoundError(message, name=error.name) from error
