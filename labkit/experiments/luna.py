"""What LUNA-16 adds to a run's values: FROC, CPM, and false positives a scan.

What the rules of the challenge cannot judge (no nodule is annotated in the scans at hand, say) is
said in its place, and everything else is measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import candidates, froc
from labkit.experiments.measured import Run, plain

NOT_COMPUTED = "not_computed"
PUBLISHED_SCANS, PUBLISHED_NEGATIVES = 888, 549_714
"""Of LUNA-16's 551,065 candidates, 1,351 are positive."""


def is_luna(values: Mapping[str, Any]) -> bool:
    """Whether a figure's or table's values are of LUNA-16's candidates.

    >>> is_luna({"task": "luna16"}), is_luna({"task": "malignancy"}), is_luna({})
    (True, False, False)
    """
    return values.get("task") == "luna16"


def judged(metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The FROC values in a variant's metrics; None where there are none, or none computable."""
    of = metrics.get("froc")
    return None if of is None or NOT_COMPUTED in of else of


def cpm(metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """CPM with its interval, as other metrics are written; None where it is not there.

    >>> cpm({"froc": {"cpm": 0.5, "cpm_low": 0.4, "cpm_high": 0.6}})
    {'value': 0.5, 'low': 0.4, 'high': 0.6}
    >>> cpm({"auc": {"value": 0.9}})
    """
    of = judged(metrics)
    if of is None:
        return None
    low, high = of.get("cpm_low", of["cpm"]), of.get("cpm_high", of["cpm"])
    return {"value": of["cpm"], "low": low, "high": high}


def measure(cohort: Cohort, run: Run, resamples: int) -> dict[str, Any]:
    """`froc`, as `candidates.as_values` has it, and `screening`, the paper's measures (III-E).

    Args:
        cohort: of LUNA-16's candidates.
        run: predictions and view; repeats are judged by their mean, as they would be submitted.
        resamples: of scans, for the bands.
    """

    def by_froc() -> dict[str, Any]:
        return candidates.as_values(candidates.judge(cohort, *run, bootstraps=resamples))

    return {"froc": _or_why_not(by_froc), "screening": _screening(cohort, run)}


def cpm_difference(cohort: Cohort, first: Run, second: Run, resamples: int) -> dict[str, Any]:
    """CPM of the first less the second in the same scans, with its 95 % interval over scans.

    Args:
        cohort: of LUNA-16's candidates.
        first: predictions and view.
        second: predictions and view of the same candidates.
        resamples: of scans.
    """

    def difference() -> dict[str, Any]:
        one, two = (candidates.marks(cohort, *run) for run in (first, second))
        against = candidates.truth(cohort, one["seriesuid"])
        found = froc.cpm_difference(one, two, *against, bootstraps=resamples)
        return dict(plain(found))

    return _or_why_not(difference)


def _or_why_not(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return compute()
    except InputError as error:  # the reader is told, and the figure has everything else
        return {NOT_COMPUTED: str(error)}


def _screening(cohort: Cohort, run: Run) -> dict[str, Any]:
    rows, probability = candidates.by_candidate(cohort, *run)
    judged = cohort.nodules.iloc[rows]
    scans = candidates.scans(cohort, judged["series_uid"])
    label = judged["label"].to_numpy(dtype=np.int64)
    found = froc.screening(label, probability, len(scans), candidates.threshold(cohort))
    return {
        "threshold": round(found.threshold, 6),
        "false_positive_rate": round(found.false_positive_rate, 6),
        "false_positives_per_scan": round(found.false_positives_per_scan, 4),
        "sensitivity": round(found.sensitivity, 6),
        "specificity": round(found.specificity, 6),
        "positives": found.positives,
        "negatives": found.negatives,
        "scans": len(scans),
    }
