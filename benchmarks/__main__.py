"""``python -m benchmarks COMMAND``: each command is the module of that name."""

import argparse
import os
from pathlib import Path

from benchmarks import (
    claims,
    honesty,
    inference,
    large,
    limits,
    malformed,
    optimality,
    paper,
    posterior,
    published,
    recourse,
    reference,
    respondents,
    scale,
    scm,
    stages,
    start,
)
from benchmarks.records import RESULTS

MEASURED = (scm, inference, recourse, stages, paper, limits, start, malformed)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(module):
        name = module.__name__.split(".")[-1].replace("_", "-")
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        command.add_argument(
            "--out", type=Path, default=RESULTS, metavar="DIR", help="where records go"
        )
        return command

    def add_parts(command, parts):
        command.add_argument("--part", nargs="+", choices=parts, default=parts, help="not all")

    add(honesty).add_argument("--quick", action="store_true", help="fewer users")
    for command in (commands.choices["honesty"], add(reference), add(optimality)):
        command.add_argument(
            "--data",
            type=Path,
            default=Path("../shared/reference"),
            help="folder of the released code's .npz files",
        )
    command.add_argument("--quick", action="store_true", help="fewer users and repeats")
    add_parts(command, optimality.PARTS)
    for command in (add(published), add(claims)):
        command.add_argument(
            "--repetitions", type=int, default=20, metavar="N", help="of both experiments"
        )
        command.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
        command.add_argument("--paper", type=Path, default=Path("out/claims-paper"), metavar="DIR")
        command.add_argument(
            "--released", type=Path, default=Path("out/claims-released"), metavar="DIR"
        )
    add(respondents)
    command = add(posterior)
    command.add_argument("--quick", action="store_true", help="fewer users, one SCM, one DAG")
    add_parts(command, posterior.PARTS)
    command = add(scale)
    command.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    add_parts(command, tuple(scale.STAGES))
    for command in map(add, (*MEASURED, large)):
        command.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    command.add_argument("--profile", type=Path, metavar="DIR", help="where a trace goes, if any")

    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if "data" in args and not args.data.is_dir():
        parser.exit(2, f"python -m benchmarks: error: argument --data: no folder {args.data}\n")
    if args.command == "honesty":
        honesty.measure(args.data, args.out, args.quick)
    elif args.command == "reference":
        reference.run(args.data, args.out / "reference.json")
    elif args.command == "optimality":
        optimality.measure(args.data, args.quick, args.out, args.part)
    elif args.command == "published":
        published.measure(args.paper, args.released, args.repetitions, args.jobs, args.out)
    elif args.command == "claims":
        claims.measure(args.paper, args.released, args.repetitions, args.jobs, args.out)
    elif args.command == "posterior":
        posterior.measure(args.out, args.quick, args.part)
    elif args.command == "scale":
        scale.measure(args.out, args.quick, args.part)
    elif args.command == "respondents":
        respondents.measure(args.out)
    elif args.command == "large":
        large.measure(args.out, args.quick, args.profile)
    else:
        measured = {module.__name__.split(".")[-1]: module for module in MEASURED}
        measured[args.command.replace("-", "_")].measure(args.out, args.quick)


if __name__ == "__main__":
    main()
