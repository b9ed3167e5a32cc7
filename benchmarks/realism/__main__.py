"""Measure how far simulated CT is from real CT, and what it is worth for learning.

python -m benchmarks.realism measure REAL_COHORT SIMULATED_COHORT --out results/realism.json
python -m benchmarks.realism transfer REAL_COHORT SIMULATED_COHORT --out results/transfer.json
"""

import sys

from benchmarks.common import command
from benchmarks.realism.measure import measure
from benchmarks.realism.transfer import transfer

if __name__ == "__main__":
    sys.exit(command((measure, transfer), __doc__, say=lambda values: str(values["about"])))
