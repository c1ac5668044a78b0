"""``pcr-jax study``: its arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pcr_jax._extras import extra
from pcr_jax._stop import stop


def add_parser(commands: Any) -> None:
    """Add ``study`` to the commands."""
    study = commands.add_parser(
        "study",
        help="a study with arms: links, counts, data",
        description="A study whose settings are in a file such as study.toml.",
    )
    actions = study.add_subparsers(dest="action", required=True)

    def action(name: str, said: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=said, description=f"{said[0].upper()}{said[1:]}.")
        parser.add_argument("study", type=Path, metavar="study.toml")
        return parser

    new = action("new", "begin a study, or enrol more people in it, and write a link for each")
    new.add_argument("--participants", type=_count, metavar="N", help="how many there are to be")
    new.add_argument(
        "--base-url",
        type=_base,
        default="http://127.0.0.1:8000",
        help="where the pages are (default: %(default)s)",
    )
    _add_links(new, "file that the links are added to")
    action("status", "how many people and answers there are in each arm")
    export = action("export", "write all data, as Parquet, CSV and ArviZ data")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    action("replay", "compute everybody's plans again, from the events alone, and compare")
    delete = action("delete", "delete all that is known of a participant")
    delete.add_argument("participant", type=_count, metavar="PARTICIPANT")
    simulate = action("simulate", "let simulated people take part, through the pages")
    _add_links(simulate, "file that has the links")
    simulate.add_argument("--participants", type=_count, metavar="N", help="the first so many")
    simulate.add_argument("--concurrency", type=_count, default=10, metavar="N", help="at once")
    simulate.add_argument(
        "--think",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="before each answer, on average",
    )
    simulate.add_argument("--seed", type=int, default=0, help="of their thinking and mistakes")


def _add_links(parser: argparse.ArgumentParser, said: str) -> None:
    parser.add_argument(
        "--links", type=Path, metavar="FILE", help=f"{said} (default: links.csv beside study.toml)"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"expected an integer from 1 on, got {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds, got {text[:40]!r}")
    return found


def _base(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"expected an address such as https://HOST, got {text!r}")
    return text.rstrip("/")


def run(args: argparse.Namespace) -> int:
    """Do what ``pcr-jax study`` was told; a mistake is one line and exit status 2."""
    try:
        with extra("study"):
            from pcr_jax.frontends.study.actions import act
    except ModuleNotFoundError as error:
        stop(2, f"error: {error}")
    return act(args)
