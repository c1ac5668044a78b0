"""The command line: ``pcr-jax reproduce``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import jax
from rich.console import Console

from pcr_jax import library
from pcr_jax.experiments import PROTOCOLS, OutputError, quick, run
from pcr_jax.inference import SAMPLERS


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcr-jax", description="Personalized causal recourse in JAX."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    reproduce = commands.add_parser(
        "reproduce",
        help="the paper's experiment, from the population to the figures",
        description="Run the paper's experiment. Started again with the same --out, it goes on "
        "where it stopped.",
    )
    scms = list(library.SCMS)
    reproduce.add_argument("--scm", nargs="+", choices=scms, default=scms, help="default: all")
    reproduce.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="paper",
        help="settings: the paper's (default), or its released code's",
    )
    reproduce.add_argument(
        "--quick", action="store_true", help="fewer users, repetitions and sweep points"
    )
    reproduce.add_argument("--seeds", type=_positive, metavar="N", help="repetitions of recourse")
    reproduce.add_argument(
        "--out", type=Path, metavar="DIR", help="where results go (default: out/PROTOCOL[-quick])"
    )
    reproduce.add_argument("--sampler", choices=list(SAMPLERS), default="zeus")
    reproduce.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="worker processes (default: one per core, or one with a GPU); results are the same",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Exits with 2 for a mistake, 1 for a failure, 130 if interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    protocol = PROTOCOLS[args.protocol]
    if args.quick:
        protocol = quick(protocol)
    if args.seeds is not None:
        protocol = replace(protocol, seeds=args.seeds)
    out = args.out or Path("out") / (args.protocol + ("-quick" if args.quick else ""))
    scms = [scm for scm in library.SCMS if scm in args.scm]
    jobs = args.jobs or ((os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1)
    try:
        SAMPLERS[args.sampler]()
    except ImportError as error:
        parser.exit(2, f"pcr-jax: error: argument --sampler: {error}\n")
    try:
        run(out, protocol, scms, args.sampler, jobs, Console())
    except OutputError as error:
        parser.exit(2, f"pcr-jax: error: argument --out: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\npcr-jax: stopped; the same command goes on from here\n")
    except RuntimeError as error:
        parser.exit(1, f"pcr-jax: error: {error}\n")
    except OSError as error:
        parser.exit(1, f"pcr-jax: error: cannot write to {out}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
