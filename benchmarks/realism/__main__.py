"""The commands that measure, and that train on simulated and test on real.

python -m benchmarks.realism measure REAL_COHORT SIMULATED_COHORT --out results/realism.json
python -m benchmarks.realism transfer REAL_COHORT SIMULATED_COHORT --out results/transfer.json
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.common import add_options, run
from benchmarks.realism.measure import measure
from benchmarks.realism.transfer import transfer


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two commands; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True)
    for compute in (measure, transfer):
        add_options(commands.add_parser(compute.__name__), compute)
    return run(parser, arguments, lambda values: f"{values['about']}")


if __name__ == "__main__":
    sys.exit(main())
