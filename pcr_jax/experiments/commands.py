"""``pcr-jax reproduce``."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from pcr_jax import library
from pcr_jax._extras import extra
from pcr_jax._stop import stop
from pcr_jax.batching import width
from pcr_jax.inference import SAMPLERS

with extra("reproduce"):
    from rich.console import Console

    from pcr_jax.experiments.protocol import PROTOCOLS, quick
    from pcr_jax.experiments.run import OutputError
    from pcr_jax.experiments.run import run as experiment

_MAX_SEEDS = 10_000
_MAX_JOBS = 1024


def _integer(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= most:
            shown = text if len(text) < 40 else f"{text[:37]}..."
            raise argparse.ArgumentTypeError(f"expected an integer from 1 to {most}, got {shown!r}")
        return number

    return parse


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected the name of a folder, got {text!r}")
    return Path(text)


class _Console(Console):
    """A console whose reader may leave, as in ``pcr-jax reproduce | head``: the run goes on."""

    def on_broken_pipe(self) -> None:
        """Print no more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_parser(commands: Any) -> None:
    """Add ``reproduce`` to the commands of `pcr_jax.cli`."""
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
    reproduce.add_argument(
        "--seeds", type=_integer(_MAX_SEEDS), metavar="N", help="repetitions of recourse"
    )
    reproduce.add_argument(
        "--out",
        type=_folder,
        metavar="DIR",
        help="where results go (default: out/PROTOCOL[-quick][-beyond])",
    )
    reproduce.add_argument(
        "--beyond",
        action="store_true",
        help="the paper's method beside other questions and plans that work with a probability",
    )
    reproduce.add_argument("--sampler", choices=["zeus", "ess", "nuts", "smc"], default="zeus")
    reproduce.add_argument(
        "--jobs",
        type=_integer(_MAX_JOBS),
        metavar="N",
        help="worker processes (default: one per core, or one with a GPU); results are the same",
    )


def run(args: argparse.Namespace) -> int:
    """Do what ``pcr-jax reproduce`` was told."""
    protocol = PROTOCOLS[args.protocol]
    if args.beyond:
        protocol = replace(protocol, beyond_people=protocol.num_users)
    if args.quick:
        protocol = quick(protocol)
    if args.seeds is not None:
        protocol = replace(protocol, seeds=args.seeds)
    suffix = ("-quick" if args.quick else "") + ("-beyond" if args.beyond else "")
    out = args.out or Path("out") / (args.protocol + suffix)
    scms = [scm for scm in library.SCMS if scm in args.scm]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        SAMPLERS[args.sampler]()
        width()
        jobs = args.jobs or ((os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1)
    except ImportError as error:
        stop(2, f"error: argument --sampler: {error}")
    except (ValueError, RuntimeError) as error:  # of the environment's settings, JAX's or our own
        stop(2, f"error: {error}")
    try:
        experiment(out, protocol, scms, args.sampler, jobs, _Console())
    except OutputError as error:
        stop(2, f"error: argument --out: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end cannot be interrupted
        for worker in multiprocessing.active_children():
            worker.kill()
        stop(130, "stopped; the same command goes on from here")
    except RuntimeError as error:
        stop(1, f"error: {error}")
    except OSError as error:
        where, why = error.filename or "the output", error.strerror or error
        stop(1, f"error: cannot write {where}: {why}; what is finished is kept")
    return 0
