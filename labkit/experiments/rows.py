"""What Table 1's values have of each row, and what is published of the same data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.experiments import luna

DETECTORS = "detector's score"
"""The row beside ours for LUNA-16, where what is no nodule has no size."""
WITH_DETECTOR = "with the detector's score"
"""After a model's name: both opinions put together (`combining.with_detector`)."""
_LIDC = ("auc", "sensitivity", "specificity")
_LUNA = (*_LIDC, "false_positive_rate", "false_positives_per_scan", "cpm")


def metrics(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the metrics that are shown of each row.

    >>> metrics({"task": "malignancy"})
    ('auc', 'sensitivity', 'specificity')
    """
    return _LUNA if luna.is_luna(values) else _LIDC


def value(of_row: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    """A row's metric with its interval; None where it could not be computed.

    False positives are those at the stated threshold: the share of negatives that the specificity
    leaves, and what that is a scan. So their intervals are the specificity's.

    Args:
        of_row: the row's metrics.
        metric: one of `metrics`.
    """
    if metric == "cpm":
        return luna.cpm(of_row)
    if not metric.startswith("false_positive"):
        of: Mapping[str, float] = of_row[metric]
        return of
    at, spared = of_row["screening"], of_row["specificity"]
    times = at["negatives"] / at["scans"] if metric.endswith("per_scan") else 1.0
    low, high = ((1 - spared[end]) * times for end in ("high", "low"))
    return {"value": at[metric], "low": round(low, 6), "high": round(high, 6)}


def published(values: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(method, metric) -> value as published, of LUNA-16 or of LIDC-IDRI as the values are.

    The published false positive rate also says how many a scan that is of LUNA-16's candidates.

    >>> rate = {"what": "MT-CNN, LUNA-16", "metric": "false_positive_rate", "value": 0.032}
    >>> found = published({"task": "luna16", "published": [rate]})
    >>> round(found["MT-CNN", "false_positives_per_scan"])
    20
    """
    data = ", LUNA-16" if luna.is_luna(values) else ", LIDC-IDRI"
    found = {
        (p["what"].removesuffix(data), p["metric"]): p["value"]
        for p in values["published"]
        if p["what"].endswith(data)
    }
    scan = luna.PUBLISHED_NEGATIVES / luna.PUBLISHED_SCANS
    rates = {what: v for (what, metric), v in found.items() if metric == "false_positive_rate"}
    return found | {(what, "false_positives_per_scan"): v * scan for what, v in rates.items()}
