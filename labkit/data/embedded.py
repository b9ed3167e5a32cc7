"""What is there without a download: simulated CT, made once and kept below `runs/`.

What is kept is used only while it is what would be made now: the settings, the seed and the
version of the scene have to be the same, and every byte has to have its checksum. All files are
read for that on the first use in a process (a second or less for the whole cohort), and again
only when a file's size or time has changed since. What fails is made again, with a line that says
why; nothing but time is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit import paths
from labkit.data import lidc
from labkit.data._cohort_files import FILES, sha256
from labkit.data._whole_folder import whole_folder
from labkit.data.cohort import Cohort
from labkit.data.simulate import build_simulated
from labkit.data.simulate.build import SCENE_VERSION, settings_of
from labkit.data.simulate.named import series_named
from labkit.data.simulate.scan import PIXELS
from labkit.data.simulate.scene import scene_for_series
from labkit.data.simulate.whole import Truth, truth, whole_scan
from labkit.errors import InputError
from labkit.files import read_json, write_json
from labkit.imaging.volume import Volume

_ARRAYS = {"voxels.npy": np.int16, "lung.npy": np.bool_, "nodules.npy": np.uint8}
_MANIFEST = "scan.json"
# Files that were found whole in this process: path, size, time of change.
_verified: set[tuple[Path, int, int]] = set()


def simulated_cohort(
    nodules: int | None = None, uncertain: bool = False, seed: int = 0, progress: bool = True
) -> Cohort:
    """Open the simulated cohort of this size, making it first when it is not there.

    It is kept in `runs/cohorts/`, under a name that says how it was made.

    Args:
        nodules: how many, chosen by patient; None takes all.
        uncertain: whether nodules of uncertain malignancy are among them.
        seed: of the choice and of the simulation.
        progress: show a bar while making it.
    """
    name = f"simulated_{nodules or 'all'}{'' if uncertain else '_labelled'}_seed{seed}"
    folder = paths.runs() / "cohorts" / name
    if folder.is_dir():
        try:
            cohort = Cohort.open(folder)
            expected = settings_of(seed=seed, n_nodules=nodules, labelled_only=not uncertain)
            _require_same(expected, cohort.meta["settings"], folder)
            for file in FILES:
                _require_whole(folder / file, cohort.meta["files"][file]["sha256"])
            return cohort
        except InputError as error:
            print(f"making the simulated cohort again: {error}")
    build_simulated(
        folder, seed=seed, n_nodules=nodules, labelled_only=not uncertain, progress=progress
    )
    return Cohort.open(folder)


def simulated_scan(
    patient_or_series: str, seed: int = 0, progress: bool = True
) -> tuple[Volume, Truth]:
    """A whole simulated scan and what is true in it, made first when it is not there.

    It is kept in `runs/scans/`: 1 MB a slice, most scans 130 to 300 MB.

    Args:
        patient_or_series: an LIDC-IDRI patient id, or a SeriesInstanceUID for the eight patients
            with two scans.
        seed: of everything random.
        progress: show a bar while making it.

    Returns:
        `whole_scan` and `truth` of the scene; memory-mapped and read-only.

    Raises:
        InputError: no such patient or series, a patient with two, a negative seed, or no room.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
    series_uid = series_named(patient_or_series)
    scan = lidc.scans().set_index("series_uid").loc[series_uid]
    name = f"{scan['patient_id']}-s{scan['scan_number']}_seed{seed}"
    folder = paths.runs() / "scans" / name
    settings = {"scene_version": SCENE_VERSION, "seed": int(seed), "series_uid": series_uid}
    if folder.is_dir():
        try:
            return _kept_scan(folder, settings)
        except InputError as error:
            print(f"making the simulated scan again: {error}")
    _keep_scan(folder, settings, progress)
    return _kept_scan(folder, settings)


def _keep_scan(folder: Path, settings: dict[str, Any], progress: bool) -> None:
    scene = scene_for_series(settings["series_uid"], settings["seed"])
    room = scene.scan.slices * PIXELS**2 * 4 + 100_000
    with whole_folder(folder, _check_target, room) as partial:
        volume = whole_scan(scene, progress=progress)
        true = truth(scene)
        arrays = dict(zip(_ARRAYS, (volume.voxels, true.lung, true.nodules), strict=True))
        files = {}
        for name, array in arrays.items():
            np.save(partial / name, array, allow_pickle=False)
            files[name] = sha256(partial / name)
        about = {
            "what": "simulated CT: voxels in HU, and the masks of lung and nodules",
            "settings": settings,
            "spacing_xyz_mm": volume.spacing_xyz_mm,
            "origin_xyz_mm": volume.origin_xyz_mm,
            "files": files,
        }
        write_json(partial / _MANIFEST, about)


def _kept_scan(folder: Path, settings: dict[str, Any]) -> tuple[Volume, Truth]:
    about = read_json(folder / _MANIFEST, "a simulated scan")
    keys = {"settings", "spacing_xyz_mm", "origin_xyz_mm", "files"}
    if not isinstance(about, dict) or not set(about) >= keys or set(about["files"]) != set(_ARRAYS):
        raise InputError(f"{folder / _MANIFEST}: not that of a simulated scan")
    _require_same(settings, about["settings"], folder)
    voxels, lung, nodules = (
        _array(folder / name, about["files"][name], kind) for name, kind in _ARRAYS.items()
    )
    volume = Volume(
        voxels, about["spacing_xyz_mm"], about["origin_xyz_mm"], series_uid=settings["series_uid"]
    )
    return volume, Truth(lung, nodules)


def _array(path: Path, checksum: str, kind: Any) -> NDArray:
    _require_whole(path, checksum)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != kind or array.ndim != 3:
        raise InputError(f"{path}: {array.dtype} with {array.ndim} axes instead of {kind.__name__}")
    return array


def _require_same(expected: dict[str, Any], found: Any, folder: Path) -> None:
    """Refuse what was made by other settings than would be used now."""
    found = found if isinstance(found, dict) else {}
    for key in sorted(expected.keys() | found.keys()):
        now, then = (values.get(key, "not set") for values in (expected, found))
        if now != then:
            raise InputError(f"{folder}: made with {key} {then}, now {now}")


def _require_whole(path: Path, checksum: str) -> None:
    """Refuse a file that is not what was written."""
    if not path.is_file():
        raise InputError(f"{path}: missing")
    state = path.stat()
    seen = (path.resolve(), state.st_size, state.st_mtime_ns)
    if seen in _verified:
        return
    if sha256(path) != checksum:
        raise InputError(f"{path}: changed or damaged since it was made (its checksum differs)")
    _verified.add(seen)


def _check_target(folder: Path) -> None:
    """Refuse a place where a scan would destroy something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; remove it to make room for the simulated scan")
    present = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(present - {_MANIFEST, *_ARRAYS})
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of a simulated scan; move it elsewhere"
        )
