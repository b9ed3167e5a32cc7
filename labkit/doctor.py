"""What this machine has, and what is missing for which lesson."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import psutil

from labkit import __version__, paths

_NEEDED = {
    "all lessons": ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "SimpleITK",
                    "pydicom", "pylidc", "torch", "safetensors", "joblib", "tqdm"),
    "opening the lessons": ("jupyterlab", "ipykernel", "ipywidgets"),
    "make test": ("pytest", "pytest-xdist", "nbval", "hypothesis", "ruff", "mypy"),
}  # fmt: skip
_COHORT_GB = 1.2


def report() -> str:
    """Lines of "ok" and "missing", to read and to paste into a question."""
    lines = [
        f"labkit {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory",
    ]
    for purpose, packages in _NEEDED.items():
        lines += ["", f"Packages for {purpose}"]
        for package in packages:
            try:
                lines.append(f"  ok       {package} {version(package)}")
            except PackageNotFoundError:
                lines.append(f"  missing  {package}: run `make install`")
    lines += ["", "Data and devices", *_labels(), *_devices(), *_disk(), *_real_data()]
    return "\n".join(lines)


def _labels() -> list[str]:
    from labkit.annotations import lidc
    from labkit.errors import InputError

    try:
        return [f"  ok       LIDC-IDRI's readings: {len(lidc.scans())} scans (all lessons)"]
    except InputError as error:
        return [f"  missing  LIDC-IDRI's readings (all lessons): {error}"]


def _devices() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"  missing  torch does not load (lessons 05 and 06): {error}"]
    from labkit.training.machines import Device

    lines = [f"  ok       trains on {Device.choose('cpu').description}"]
    if torch.cuda.is_available():
        lines.append(f"  ok       trains on {Device.choose('cuda').description}")
    else:
        lines.append(
            "  note     no CUDA device: the profile `paper` would take days, `lab` does not"
        )
    return lines


def _disk() -> list[str]:
    folder = paths.runs()
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    word = "ok     " if free > 2 * _COHORT_GB else "missing"
    return [f"  {word}  {free:.0f} GB free for runs and cohorts (a cohort takes {_COHORT_GB} GB)"]


def _real_data() -> list[str]:
    folder = paths.real_data()
    if folder is None:
        return [
            "  note     no real CT: set LABKIT_REAL_DATA to a folder of LIDC-IDRI for lessons 02 "
            "and 03 to show it; every lesson runs without"
        ]
    return [f"  ok       real CT in {folder}"]
