"""What is real of a scan: its spacings, and its nodules' outlines and ratings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from labkit.annotations import lidc
from labkit.errors import InputError

# Which LIDC-IDRI scan a reader means: by patient, or by series.


def series_named(patient_or_series: str, series_uid: str | None = None) -> str:
    """SeriesInstanceUID of a patient's scan.

    Args:
        patient_or_series: a patient id, or the series itself.
        series_uid: which of the patient's scans; eight patients have two.

    Raises:
        InputError: no such patient or series, two scans and none named, or another patient's.

    >>> uid = series_named("LIDC-IDRI-0001")
    >>> series_named(uid) == uid
    True
    """
    scans = lidc.scans()
    own = scans[
        (scans["patient_id"] == patient_or_series) | (scans["series_uid"] == patient_or_series)
    ]
    if own.empty:
        raise InputError(
            f"{patient_or_series}: no such patient or series in LIDC-IDRI; patients are "
            "LIDC-IDRI-0001 to LIDC-IDRI-1012"
        )
    uids = own["series_uid"].tolist()
    if series_uid is not None:
        if series_uid not in uids:
            raise InputError(
                f"{series_uid}: no series of {patient_or_series}; it has {', '.join(uids)}"
            )
        return series_uid
    if len(uids) > 1:
        raise InputError(
            f"{patient_or_series}: has {len(uids)} scans; choose one by --series (series_uid=): "
            + ", ".join(uids)
        )
    return str(uids[0])


PIXELS = 512
# Malignancy is not among them: nothing here may know it.
SEEN_RATINGS = tuple(name for name in lidc.RATINGS if name != "malignancy")


@dataclass(frozen=True)
class Finding:
    """One nodule of a scan as its readers described it.

    Args:
        nodule_id: as in `lidc.nodules`.
        readers: each reader's outlines.
        ratings: for each of `SEEN_RATINGS`, every reader's value.
    """

    nodule_id: str
    readers: tuple[tuple[lidc.Contour, ...], ...]
    ratings: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Scan:
    """The frame of a scan, and what was found in it.

    In the simulated world pixel (row, col) of every slice lies at x = (col - 255.5) * spacing and
    y = (row - 255.5) * spacing; z is the scan's own.

    Args:
        patient_id: as in `lidc.nodules`.
        series_uid: SeriesInstanceUID.
        pixel_spacing_mm: distance of pixels within a slice.
        slice_thickness_mm: what a slice averages over.
        slice_spacing_mm: distance of neighbouring slices.
        first_z_mm: position of the lowest slice.
        slices: number of them.
        findings: every nodule that at least one reader outlined.
    """

    patient_id: str
    series_uid: str
    pixel_spacing_mm: float
    slice_thickness_mm: float
    slice_spacing_mm: float
    first_z_mm: float
    slices: int
    findings: tuple[Finding, ...]

    @property
    def field_of_view_mm(self) -> float:
        """Width of a slice."""
        return PIXELS * self.pixel_spacing_mm

    @property
    def last_z_mm(self) -> float:
        """Position of the highest slice."""
        return self.first_z_mm + self.slice_spacing_mm * (self.slices - 1)

    def x_mm(self, first: int, stop: int) -> np.ndarray:
        """World positions of pixel columns first to stop - 1; of rows alike, as y."""
        return (np.arange(first, stop) - (PIXELS - 1) / 2) * self.pixel_spacing_mm

    def z_mm(self, first: int, stop: int) -> np.ndarray:
        """World positions of slices first to stop - 1, evenly spaced."""
        return self.first_z_mm + np.arange(first, stop) * self.slice_spacing_mm


@lru_cache(maxsize=1)
def _tables() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    by_series = {str(uid): group for uid, group in lidc.annotations().groupby("series_uid")}
    return lidc.scans().set_index("series_uid"), by_series


def scan_of(series_uid: str) -> Scan:
    """The frame and findings of one LIDC-IDRI scan.

    Slices are taken as evenly spaced by their median distance, also in the few malformed scans.

    Raises:
        InputError: no such series in LIDC-IDRI.
    """
    heights = np.unique(lidc.slice_z_mm(series_uid))
    scans, annotations = _tables()
    row = scans.loc[series_uid]
    spacing = float(row["slice_spacing_mm"])
    findings = []
    if series_uid in annotations:
        for nodule_id, group in annotations[series_uid].groupby("nodule_id", sort=True):
            readers = tuple(tuple(lidc.contours(int(a))) for a in group["annotation_id"])
            ratings = {name: tuple(group[name].astype(float)) for name in SEEN_RATINGS}
            findings.append(Finding(str(nodule_id), readers, ratings))
    return Scan(
        patient_id=str(row["patient_id"]),
        series_uid=series_uid,
        pixel_spacing_mm=float(row["pixel_spacing_mm"]),
        slice_thickness_mm=float(row["slice_thickness_mm"]),
        slice_spacing_mm=spacing,
        first_z_mm=float(heights[0]),
        slices=round((heights[-1] - heights[0]) / spacing) + 1,
        findings=tuple(findings),
    )
