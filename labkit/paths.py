"""The only place, beside `profiles`, that reads environment variables: where things lie on disk,
and what a cluster's scheduler says of the job.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from labkit.errors import InputError

_CORES = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "PBS_NUM_PPN",
          "NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC", "LOKY_MAX_CPU_COUNT")  # fmt: skip


def path(named: str) -> Path:
    """Return a path that somebody named, with the home folder in place of a leading ~.

    Raises:
        InputError: there is no such home folder, or links that go round.
    """
    try:
        Path(named).expanduser().resolve()
    except RuntimeError as error:
        raise InputError(f"{named}: no such place ({error}); write it out") from None
    return Path(named).expanduser()


def real_data() -> Path | None:
    """Folder of real CT data named by `LABKIT_REAL_DATA`, or None when unset or absent."""
    named = os.environ.get("LABKIT_REAL_DATA")
    return folder if named and (folder := path(named)).is_dir() else None


def cache() -> Path:
    """Folder for things made or fetched once: `LABKIT_CACHE`, else `~/.cache/labkit`."""
    named = os.environ.get("LABKIT_CACHE")
    if named:
        return path(named)
    try:
        home = Path.home()
    except RuntimeError:  # a container's user without an entry in passwd
        home = Path(tempfile.gettempdir()) / f"home-of-{os.getuid()}"
    return home / ".cache" / "labkit"


def results() -> Path:
    """Folder of committed measurements: `LABKIT_RESULTS`, else `results/` beside the package.

    Raises:
        FileNotFoundError: the package is installed away from its repository.
    """
    named = os.environ.get("LABKIT_RESULTS")
    folder = path(named) if named else Path(__file__).resolve().parents[1] / "results"
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
        return path(named)
    clone = Path(__file__).resolve().parents[1]
    return (clone if (clone / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def scheduled_cores() -> list[int]:
    """Cores that this job was given by its scheduler (SLURM, PBS, SGE, LSF), as each says it."""
    # SLURM writes 16(x2) for two machines alike.
    said = (os.environ.get(name, "").partition("(")[0] for name in _CORES)
    return [int(cores) for cores in said if cores.isdecimal() and int(cores) > 0]
