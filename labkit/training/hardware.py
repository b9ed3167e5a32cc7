"""What a result was measured on, and times in words."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit import __version__


def describe_hardware() -> dict[str, Any]:
    """What a result was measured on: processor, threads, GPU, versions."""
    info: dict[str, Any] = {
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "labkit": __version__,
    }
    return info


def now() -> str:
    """The time in UTC, as results note it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """When and on what a result was measured: `date` and `hardware`, for its JSON file."""
    return {"date": now(), "hardware": describe_hardware()}


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def duration(seconds: float) -> str:
    """A time in words, to the precision that an estimate has.

    >>> duration(50), duration(500), duration(50_000)
    ('50 s', '8 min', '13.9 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
