"""Which LIDC-IDRI scan a reader means: by patient, or by series."""

from __future__ import annotations

from labkit.data import lidc
from labkit.errors import InputError


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
