"""What is real of a scan: its spacings, and its nodules' outlines and ratings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from labkit.annotations import lidc
from labkit.errors import InputError


def series_named(patient_or_series: str, series_uid: str | None = None) -> str:
    """Return the SeriesInstanceUID of a patient's scan (or the series itself).

    `series_uid` says which of the patient's scans; eight patients have two.

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
        if series_uid in uids:
            return series_uid
        raise InputError(f"{series_uid}: no series of {patient_or_series}; it has "
                         f"{', '.join(uids)}")  # fmt: skip
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
    """One nodule of a scan as its readers described it."""

    nodule_id: str  # as in `lidc.nodules`
    readers: tuple[tuple[lidc.Contour, ...], ...]  # each reader's outlines
    ratings: dict[str, tuple[float, ...]]  # for each of `SEEN_RATINGS`, every reader's value


@dataclass(frozen=True)
class Scan:
    """The frame of a scan, and what was found in it.

    In the simulated world pixel (row, col) of every slice lies at x = (col - 255.5) * spacing and
    y = (row - 255.5) * spacing; z is the scan's own.
    """

    patient_id: str  # as in `lidc.nodules`
    series_uid: str  # SeriesInstanceUID
    pixel_spacing_mm: float  # distance of pixels within a slice
    slice_thickness_mm: float  # what a slice averages over
    slice_spacing_mm: float  # distance of neighbouring slices
    first_z_mm: float  # position of the lowest slice
    slices: int  # number of them
    findings: tuple[Finding, ...]  # every nodule that at least one reader outlined

    @property
    def field_of_view_mm(self) -> float:
        """Width of a slice."""
        return PIXELS * self.pixel_spacing_mm

    @property
    def last_z_mm(self) -> float:
        """Position of the highest slice."""
        return self.first_z_mm + self.slice_spacing_mm * (self.slices - 1)

    def x_mm(self, first: int, stop: int) -> np.ndarray:
        """Return world positions of pixel columns first to stop - 1; of rows alike, as y."""
        return (np.arange(first, stop) - (PIXELS - 1) / 2) * self.pixel_spacing_mm

    def z_mm(self, first: int, stop: int) -> np.ndarray:
        """Return world positions of slices first to stop - 1, evenly spaced."""
        return self.first_z_mm + np.arange(first, stop) * self.slice_spacing_mm


@lru_cache(maxsize=1)
def _tables() -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    by_series = {str(uid): group for uid, group in lidc.annotations().groupby("series_uid")}
    return lidc.scans().set_index("series_uid"), by_series


def scan_of(series_uid: str) -> Scan:
    """Load the frame and findings of one LIDC-IDRI scan.

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
        str(row["patient_id"]), series_uid, float(row["pixel_spacing_mm"]),
        float(row["slice_thickness_mm"]), spacing, first_z_mm=float(heights[0]),
        slices=round((heights[-1] - heights[0]) / spacing) + 1, findings=tuple(findings),
    )  # fmt: skip
