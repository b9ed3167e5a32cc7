"""What this machine has, what is missing for which lesson, and what a build makes of a folder."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from labkit import __version__, paths
from labkit.errors import InputError
from labkit.io import available_cores, memory

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
        f"{available_cores()} cores, {memory()[0] / 2**30:.0f} GiB of memory for this job",
    ]
    for purpose, packages in _NEEDED.items():
        lines += ["", f"Packages for {purpose}"]
        for package in packages:
            try:
                lines.append(f"  ok       {package} {version(package)}")
            except PackageNotFoundError:
                lines.append(f"  missing  {package}: run `make install`")
    return "\n".join([*lines, "", "Data and devices", *_data_and_devices()])


def _data_and_devices() -> Iterator[str]:
    from labkit.annotations import lidc

    try:
        yield f"  ok       LIDC-IDRI's readings: {len(lidc.scans())} scans (all lessons)"
    except InputError as error:
        yield f"  missing  LIDC-IDRI's readings (all lessons): {error}"
    try:
        from labkit.training.machines import Device

        yield f"  ok       trains on {Device.choose('cpu').description}"
        yield f"  ok       trains on {Device.choose('cuda').description}"
    except InputError:
        yield "  note     no CUDA device: the profile `paper` would take days, `lab` does not"
    except ImportError as error:
        yield f"  missing  torch does not load (lessons 05 and 06): {error}"
    runs, real = paths.runs(), paths.real_data()
    free = shutil.disk_usage(next(p for p in (runs, *runs.parents) if p.is_dir())).free / 1e9
    word = "ok     " if free > 2 * _COHORT_GB else "missing"
    yield f"  {word}  {free:.0f} GB free for runs and cohorts (a cohort takes {_COHORT_GB} GB)"
    if real is not None:
        yield f"  ok       real CT in {real}"
    else:
        yield (
            "  note     no real CT: set LABKIT_REAL_DATA to a folder of LIDC-IDRI for lessons 02 "
            "and 03 to show it; every lesson runs without"
        )


def of_folder(folder: Path) -> str:
    """Read a folder (or one .npz file) as a build would; tell in lines what it would make of it.

    Every scan is read whole. Nothing is written, and nothing is told of whose scans they are.
    """
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    lines = []
    for kind in (_dicom, _mhd, _cubes):
        lines += list(kind(folder))
    counts = Counter(line.split()[0] for line in lines)
    told = ", ".join(f"{counts[word]} {word}" for word in ("take", "refuse") if counts[word])
    first = f"labkit {__version__}: {folder}: {told or 'nothing to build from'}"
    return "\n".join([first, *lines])


def _dicom(folder: Path) -> Iterator[str]:
    from labkit.annotations import lidc
    from labkit.cohorts.build import add_scan, scans_in
    from labkit.imaging.dicom import look_into, read_series
    from labkit.simulate.write_dicom import originals

    if not folder.is_dir():
        return
    found, nodules = look_into(folder), lidc.nodules()
    simulated = originals(found.series)
    try:
        scans_in(folder, found.series, set(nodules["series_uid"]))
    except InputError as error:
        yield f"  refuse  {error}"
        return
    for uid, files in found.series.items():
        own = nodules[nodules["series_uid"] == simulated.get(uid, uid)]
        damaged = None if uid in simulated else found.beside(files)
        what = f"series {uid} ({len(files)} files)"
        if len(own):
            allow = {"allow_gaps": False, "allow_doubles": False}
            built, reason, note = add_scan(None, files, damaged, own, False, False, allow)
            if built:
                yield f"  take    {what}: build lidc takes {built} nodules{'; ' * bool(note)}{note}"
            if reason:
                yield f"  refuse  {what}: {reason}"
            continue
        try:
            shape = read_series(files).shape
            yield f"  note    {what}: readable, {shape} voxels, no nodule for build lidc"
        except InputError as error:
            yield f"  refuse  {what}: no nodule for build lidc, and {error}"
    known = [path for files in found.series.values() for path in found.beside(files)]
    for path, why in found.damaged.items():
        if path not in known:
            yield f"  refuse  {path}: {why}"
    other = [path for path in found.other if path.suffix.lower() not in (".mhd", ".raw", ".npz")]
    if other:
        yield f"  note    no DICOM images: {', '.join(sorted({p.name for p in other})[:5])}" + (
            " ..." if len(other) > 5 else ""
        )


def _mhd(folder: Path) -> Iterator[str]:
    from labkit.cohorts import candidates

    for uid, files in candidates.find(folder).items() if folder.is_dir() else ():
        try:
            volume = candidates.read(candidates.read_header(*files))
            yield f"  take    {files[0]}: build luna16 takes it, {volume.shape} voxels"
        except InputError as error:
            yield f"  refuse  series {uid}: {error}"


def _cubes(folder: Path) -> Iterator[str]:
    from labkit.cohorts.build import read_cubes

    for path in sorted(folder.rglob("*.npz")) if folder.is_dir() else [folder]:
        try:
            yield f"  take    {path}: build cubes takes its {len(read_cubes(path)[0])} nodules"
        except InputError as error:
            yield f"  refuse  {error}"
