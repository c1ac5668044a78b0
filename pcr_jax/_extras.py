"""Packages that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Within, a package that cannot be imported is said to come with that extra.

    Raises
    ------
    ImportError
        Naming the package and the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        message = f"{error.name} is not installed: pip install 'pcr-jax[{name}]'."
        raise ImportError(message, name=error.name) from error
