"""Ending a command."""

import sys
from typing import NoReturn


def stop(code: int, message: str) -> NoReturn:
    """End with one line on standard error, where there is one, whatever it can encode."""
    if sys.stderr is not None:
        line = " ".join(message.split())
        print(f"pcr-jax: {line}", file=sys.stderr)
    raise SystemExit(code)
