"""The only place, beside `profiles`, that reads environment variables: where things lie on disk."""

from __future__ import annotations

import os
from pathlib import Path


def real_data() -> Path | None:
    """Folder of real CT data named by `LABKIT_REAL_DATA`, or None when unset or absent."""
    named = os.environ.get("LABKIT_REAL_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    return folder if folder.is_dir() else None


def cache() -> Path:
    """Folder for things made or fetched once: `LABKIT_CACHE`, else `~/.cache/labkit`."""
    named = os.environ.get("LABKIT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "labkit"


def results() -> Path:
    """Folder of committed measurements: `LABKIT_RESULTS`, else `results/` beside the package.

    Raises:
        FileNotFoundError: the package is installed away from its repository.
    """
    named = os.environ.get("LABKIT_RESULTS")
    folder = Path(named).expanduser() if named else Path(__file__).resolve().parents[1] / "results"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no folder of measured results; run from a clone of the course, "
            "or set LABKIT_RESULTS to its results/ folder"
        )
    return folder


def runs() -> Path:
    """Folder for runs and cohorts made on this machine: `LABKIT_RUNS`, else `runs/`.

    That is the `runs/` of the clone that the package is used from, or of the working directory
    when the package is installed by itself.
    """
    named = os.environ.get("LABKIT_RUNS")
    if named:
        return Path(named).expanduser()
    clone = Path(__file__).resolve().parents[1]
    return (clone if (clone / "pyproject.toml").is_file() else Path.cwd()) / "runs"
