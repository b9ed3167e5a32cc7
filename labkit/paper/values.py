"""What variants are worth: metrics with intervals, and paired comparisons as one family.

Everything is computed from predictions by `labkit.evaluation`; here it is put into plain values,
as they go into JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import candidates, froc, statistics
from labkit.evaluation.predictions import rows_of
from labkit.evaluation.statistics import DEFAULT_THRESHOLD, Interval

AT_CHANCE = 0.67
"""A classification loss above it is a coin's, ln 2 = 0.693, but for the classes' shares."""
_ROC_POINTS = 101
Run = tuple[pd.DataFrame, str]
"""Predictions, and which view of them is meant."""


def plain(interval: Interval) -> dict[str, float]:
    """An interval as JSON has it."""
    return {
        "value": round(float(interval.value), 6),
        "low": round(float(interval.low), 6),
        "high": round(float(interval.high), 6),
    }


def measure(
    run: Run, resamples: int, seed: int = 0, threshold: float = DEFAULT_THRESHOLD
) -> dict[str, Any]:
    """AUC, rates at a threshold, AUC within folds and ROC curve of one view of a run.

    Args:
        run: predictions and view.
        resamples: of the bootstraps over patients.
        seed: of them.
        threshold: at which sensitivity, specificity and accuracy are taken.
    """
    predictions, view = run
    only = rows_of(predictions, view)
    values = statistics.summarise(only, resamples=resamples, seed=seed, threshold=threshold)[view]
    labels, scores, patients = statistics.scores(only, view)
    grid, height, _, _ = statistics.roc_band(
        labels, scores, groups=patients, resamples=1, points=_ROC_POINTS
    )
    inside = statistics.within_folds_auc(only, view, resamples=resamples, seed=seed)
    return {
        **values,
        "auc_within_folds": plain(inside),
        "roc": {
            "false_positive_rate": [round(float(x), 4) for x in grid],
            "sensitivity": [round(float(y), 4) for y in height],
        },
    }


def compare(
    first: Run, second: Run, resamples: int, test_over_train: float | None = None
) -> dict[str, Any]:
    """The first less the second on the same nodules, by every test that the course knows.

    Args:
        first: predictions and view.
        second: of the same nodules.
        resamples: of the bootstraps over patients.
        test_over_train: n_test / n_train of the folds, for the corrected t-test; None takes the
            folds that are there for all of them.

    Returns:
        `auc_difference` (95 % bootstrap over patients), `within_folds_difference`, `delong` (by
        patient), `corrected_t_test` over folds (or why there is none), `equivalence`.
    """
    (one, view), (two, other) = ((rows_of(table, view), view) for table, view in (first, second))
    found = statistics.compare(one, two, view, other)
    inside = statistics.within_folds_difference(one, two, view, other, resamples=resamples)
    same = statistics.auc_equivalence(one, two, view, other, resamples=resamples)
    return {
        "auc_difference": {k: round(v, 6) for k, v in found["auc_difference"].items()},
        "within_folds_difference": plain(inside),
        "delong": {k: round(found["delong"][k], 6) for k in ("difference", "low", "high")}
        | {"p_value": found["delong"]["p_value"]},
        "corrected_t_test": _over_folds(one, two, view, other, test_over_train),
        "equivalence": {
            "margin": same.margin,
            "shown": same.shown,
            "smallest_margin": round(same.smallest_margin, 6),
            "in_words": str(same),
        },
    }


def correct(comparisons: Mapping[str, dict[str, Any]], size: int | None = None) -> dict[str, Any]:
    """Add Holm's p-values over a family to its comparisons, and say how large the family is.

    Args:
        comparisons: name -> what `compare` gave; each gets `p_holm` and `found`.
        size: of the whole family, where some of it is not measured yet; None takes those given.
    """
    if not comparisons:
        return {"method": statistics.METHOD, "size": size or 0}
    table = statistics.holm({k: c["delong"]["p_value"] for k, c in comparisons.items()}, size=size)
    for name, p, found in zip(
        table["comparison"], table["p_adjusted"].tolist(), table["found"].tolist(), strict=True
    ):
        comparisons[name] |= {"p_holm": p, "found": found}
    return {
        "method": statistics.METHOD,
        "size": len(table) if size is None else size,
        "of": "DeLong's test by patient",
    }


def val_auc(
    units: Mapping[tuple[int, int, int], Mapping[str, Any]],
) -> dict[tuple[int, int], float]:
    """(repeat, fold) -> mean over views of the AUC on the inner validation split."""
    by_place: dict[tuple[int, int], list[float]] = {}
    for (repeat, fold, _), unit in units.items():
        by_place.setdefault((repeat, fold), []).append(float(unit["val_auc"]))
    return {place: float(np.mean(aucs)) for place, aucs in by_place.items()}


def training(units: Mapping[tuple[int, int, int], Mapping[str, Any]]) -> dict[str, float]:
    """How long networks were trained, and how often it came to nothing.

    Not in seconds: how long a network took says as much of what else the machine did.

    Returns:
        `networks`; `epochs_a_network`, their median; `at_chance`, networks whose validation loss
        never fell below `AT_CHANCE`.
    """
    best = [min(float(row["val_cls"]) for row in unit["history"]) for unit in units.values()]
    epochs = [len(unit["history"]) for unit in units.values()]
    return {
        "networks": len(units),
        "epochs_a_network": float(np.median(epochs)),
        "at_chance": sum(loss > AT_CHANCE for loss in best),
    }


def _over_folds(
    one: pd.DataFrame, two: pd.DataFrame, view: str, other: str, test_over_train: float | None
) -> dict[str, float | str]:
    try:
        test = statistics.corrected_t_test(one, two, view, other, test_over_train=test_over_train)
    except InputError as error:  # one fold, or folds too unequal: the reader is told
        return {"not_computed": str(error)}
    return {
        **plain(test.difference),
        "t": round(test.t, 4),
        "p_value": test.p_value,
        "degrees_of_freedom": test.degrees_of_freedom,
        "test_over_train": round(test.test_over_train, 6),
    }


# What LUNA-16 adds to a run's values: FROC, CPM, and false positives a scan.
#
# What the rules of the challenge cannot judge (no nodule is annotated in the scans at hand, say) is
# said in its place, and everything else is measured all the same.


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


def luna_measure(cohort: Cohort, run: Run, resamples: int) -> dict[str, Any]:
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
