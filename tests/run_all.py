"""Everything that CI checks, in one command with one summary: `python -m tests.run_all`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
NBVAL = [
    "-o", "addopts=", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env",
    "--nbval-cell-timeout=600", "--dist", "loadscope", "-n", "2", "-q",
]  # fmt: skip


def main() -> int:
    """Run every step, all of them even when one fails; returns 0 when all passed."""
    python = sys.executable
    # No cache of ours or leftovers of another run: what is tested is what a new user has.
    environment = {
        **os.environ, "LABKIT_PROFILE": "smoke", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
    }  # fmt: skip
    lessons = sorted(str(f) for f in (REPO / "notebooks").rglob("[0-9A]*.ipynb")
                     if f.parent.name != "exercises")  # fmt: skip
    steps = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "mypy": [python, "-m", "mypy"],
        "notebooks": [python, "-m", "pytest", *NBVAL, *lessons],
        "pytest": [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile",
                   "-m", "not slow"],
    }  # fmt: skip
    outcomes = {}
    for name, command in steps.items():
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(command, cwd=REPO, env=environment, check=False).returncode
        outcomes[name] = (code, time.monotonic() - start)
    print("\n== summary")
    for name, (code, seconds) in outcomes.items():
        print(f"{'ok    ' if code == 0 else 'FAILED'}  {name}  ({seconds:.0f} s)")
    failed = sum(code != 0 for code, _ in outcomes.values())
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
