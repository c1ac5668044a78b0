"""``python -m benchmarks NAME``: measure, print and record.

``PYTHONPATH=CHECKOUT python benchmarks NAME --out DIR``, with the path of this folder, measures the
package of another checkout with the code that is here: before and after.

A benchmark is a module with ``measure(options)``, which yields pairs of a name and what was found:
rows, printed as a table and recorded in ``NAME.json`` after those yielded before under that name; a
value, recorded; or a text, table or figure, where the name is of a file to stand beside. It may
have ``OPTIONS``, arguments of its own, and ``PARTS``, of which some can be measured anew
(``options.part``) while the others stay as recorded (``options.recorded``).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.pop(0)  # this folder
    import pcr_jax  # noqa: F401 (that of the path)

    sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
import argparse
import ast
from contextlib import nullcontext
from importlib import import_module

import jax
from rich.console import Console

from benchmarks.records import RESULTS, recorded_parts, show, write_file, write_record

COMMANDS = {
    "speed": ("stages", "limits", "scale", "start", "scm", "inference", "serving"),
    "quality": (
        "calibration",
        "chance",
        "people",
        "decisions",
        "honesty",
        "malformed",
        "mixed",
        "optimality",
        "posterior",
        "questions",
        "respondents",
    ),
    "paper": ("claims", "karimi", "published", "reference"),
}


def summary(folder: str, name: str) -> str:
    """The first line of a module, which need not be importable for it."""
    text = (ROOT / "benchmarks" / folder / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def parsed(arguments: list[str]) -> tuple:
    """The module that is asked for, and its options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands, module = parser.add_subparsers(dest="command", required=True), None
    for folder, names in COMMANDS.items():
        for name in names:
            command = commands.add_parser(name, help=summary(folder, name))
            command.add_argument("--quick", action="store_true", help="small sizes, few repeats")
            command.add_argument(
                "--out", type=Path, default=RESULTS, metavar="DIR", help="where records go"
            )
            command.add_argument(
                "--profile", type=Path, metavar="DIR", help="where a trace goes, for XProf"
            )
            if name != next(iter(arguments), None):
                continue
            module = import_module(f"benchmarks.{folder}.{name}")
            for flag, settings in getattr(module, "OPTIONS", {}).items():
                command.add_argument(flag, **settings)
            if parts := getattr(module, "PARTS", None):
                command.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args(arguments)
    if "data" in options and not options.data.is_dir():
        parser.exit(2, f"python -m benchmarks: error: argument --data: no folder {options.data}\n")
    return module, options


def main(arguments: list[str] | None = None) -> None:
    module, options = parsed(sys.argv[1:] if arguments is None else arguments)
    console, path = Console(width=240, markup=False), options.out / f"{options.command}.json"
    options.recorded = recorded_parts(path, options) if "part" in options else {}
    record = {"quick": options.quick, **options.recorded}
    trace = nullcontext() if options.profile is None else jax.profiler.trace(str(options.profile))
    with trace:
        for name, found in module.measure(options):
            if Path(name).suffix:
                write_file(options.out / name, found)
                continue
            again = isinstance(found, list) and name in record
            record[name] = record[name] + found if again else found
            show(console, f"{options.command}: {name}", found)
            write_record(path, record)


if __name__ == "__main__":
    main()
