"""The command line: each of its commands is a module with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from pcr_jax._stop import stop

COMMANDS = {
    "reproduce": "pcr_jax.experiments.commands",
    "interview": "pcr_jax.frontends.interview",
    "serve": "pcr_jax.frontends.web.serve",
    "study": "pcr_jax.frontends.study.commands",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exits with 2 for a mistake, 1 for a failure, 130 if interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="pcr-jax", description="Personalized causal recourse in JAX."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    modules: dict[str, Any] = {}
    for name in [name for name in COMMANDS if name == argv[0]] if argv else []:
        try:
            modules[name] = import_module(COMMANDS[name])
        except ModuleNotFoundError as error:
            stop(2, f"error: {error}")
        modules[name].add_parser(commands)
    if not modules:
        for name in COMMANDS:
            _listed(commands, name)
    args = parser.parse_args(argv)
    return modules[args.command].run(args)


def _listed(commands: Any, name: str) -> None:
    """Add a command for its help."""
    try:
        import_module(COMMANDS[name]).add_parser(commands)
    except ModuleNotFoundError as error:
        commands.add_parser(name, help=f"{error}")


if __name__ == "__main__":
    sys.exit(main())
