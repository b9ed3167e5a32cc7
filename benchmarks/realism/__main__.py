"""`python -m benchmarks.realism measure` and `transfer`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from labkit.errors import InputError
from labkit.io import write_json


def main(arguments: list[str] | None = None) -> int:
    """Measure, or train on simulated and test on real; 0 when it worked, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "measure":
            from benchmarks.realism.measure import measure

            values = measure(
                options.real, options.simulated, jobs=options.jobs, progress=not options.quiet
            )
        else:
            from benchmarks.realism.transfer import transfer

            values = transfer(
                options.real,
                options.simulated,
                options.run,
                seeds=options.seeds,
                folds=options.folds,
                epochs=options.epochs,
                jobs=options.jobs,
                progress=not options.quiet,
            )
        write_json(options.out, values)
    except InputError as error:
        print(f"benchmarks.realism: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.realism", description="Simulated CT against real CT."
    )
    commands = parser.add_subparsers(required=True, dest="command")
    texts = {
        "measure": "compare the same nodules, real and simulated",
        "transfer": "train on simulated, test on real",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("real", type=Path, help="cohort of real images")
        command.add_argument("simulated", type=Path, help="cohort of simulated images")
        command.add_argument("--out", type=Path, required=True, help="JSON file to write")
        command.add_argument("--jobs", type=_positive, help="processes at once (default: cores)")
        command.add_argument("--quiet", action="store_true", help="no progress bar")
    # The loop's last command is the one that trains.
    command.add_argument(
        "--run", type=Path, help="folder to keep finished networks in (default: beside runs/)"
    )
    command.add_argument("--seeds", type=_positive, default=3, help="repeats of everything")
    command.add_argument("--folds", type=_positive, default=5, help="of the real patients")
    command.add_argument("--epochs", type=_positive, default=40, help="at most, a network")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
