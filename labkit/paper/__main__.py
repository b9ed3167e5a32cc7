"""`python -m labkit.paper collect FOLDER COHORT`: commit what `reproduce` made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import InputError
from labkit.paper import results


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy finished figures into `results/`; 2 for bad input, with one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m labkit.paper", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("collect", help="copy finished figures into results/")
    add.add_argument("folder", type=Path, help="that `labkit reproduce --out FOLDER` wrote")
    add.add_argument("cohort", choices=results.COHORTS, help="what its images are")
    add.add_argument("--partial", action="store_true", help="unfinished figures as well")
    options = parser.parse_args(arguments)
    try:
        written, refused = results.collect(options.folder, options.cohort, options.partial)
    except (InputError, FileNotFoundError) as error:
        print(f"labkit.paper: {error}", file=sys.stderr)
        return 2
    lines = [*(f"wrote {f}" for f in written), *(f"left out {n}: {w}" for n, w in refused.items())]
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
