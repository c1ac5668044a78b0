"""The command line: each of its commands is a module with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from pcr_jax._extras import extra
from pcr_jax._stop import stop
from pcr_jax.frontends.compiling import compile_quickly

COMMANDS = {
    "reproduce": "pcr_jax.experiments.commands",
    "interview": "pcr_jax.frontends.interview",
    "serve": "pcr_jax.frontends.web.serve",
    "study": "pcr_jax.frontends.study.commands",
}


def entry() -> int:
    """The process that is the command line: where a person waits, compilers take less time."""
    if sys.argv[1:2] != ["reproduce"]:
        compile_quickly()
    return main()


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exits with 2 for a mistake, 1 for a failure, 130 if interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="pcr-jax", description="Personalized causal recourse in JAX."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    modules: dict[str, Any] = {}
    wanted = argv[0] if argv and argv[0] in COMMANDS else None
    for name in COMMANDS if wanted is None else [wanted]:
        try:
            modules[name] = command(name)
        except ModuleNotFoundError as error:
            if wanted is not None:
                stop(2, f"error: {error}")
            commands.add_parser(name, help=f"{error}")
        else:
            modules[name].add_parser(commands)
    args = parser.parse_args(argv)
    return modules[args.command].run(args)


def command(name: str) -> Any:
    """A command's module; what it needs is the extra of the same name."""
    with extra(name):
        return import_module(COMMANDS[name])


if __name__ == "__main__":
    sys.exit(entry())
