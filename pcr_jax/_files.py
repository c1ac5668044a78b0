"""Writing files in one step."""

import os
from pathlib import Path


def write(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file: there is the whole of it, or what was there before.

    What a killed process leaves (``.NAME.pcr-jax-unfinished``) is overwritten by the next attempt
    at the same file, so that nothing need ever be looked for and deleted. A link in the file's
    place is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.pcr-jax-unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        try:
            with open(unfinished, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
