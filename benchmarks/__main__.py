"""``python -m benchmarks reference``: see the module of that name."""

import argparse
from pathlib import Path

from benchmarks import reference


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("reference", help=reference.__doc__.splitlines()[0])
    command.add_argument(
        "--data", type=Path, default=Path("../shared/reference"), help="folder of the .npz files"
    )
    command.add_argument("--out", type=Path, default=Path("benchmarks/results/reference.json"))
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.exit(2, f"python -m benchmarks: error: argument --data: no folder {args.data}\n")
    reference.run(args.data, args.out)


if __name__ == "__main__":
    main()
