"""What variants are worth: metrics with intervals, and paired comparisons as one family.

Everything is computed from predictions by `labkit.evaluation`; here it is put into plain values,
as they go into JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import InputError
from labkit.evaluation import equivalence, intervals, multiplicity, repeated, summary, within_folds
from labkit.evaluation._one_view import rows_of
from labkit.evaluation.intervals import Interval
from labkit.evaluation.metrics import DEFAULT_THRESHOLD

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
    values = summary.summarise(only, resamples=resamples, seed=seed, threshold=threshold)[view]
    labels, scores, patients = summary.scores(only, view)
    grid, height, _, _ = intervals.roc_band(
        labels, scores, groups=patients, resamples=1, points=_ROC_POINTS
    )
    inside = within_folds.within_folds_auc(only, view, resamples=resamples, seed=seed)
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
    found = summary.compare(one, two, view, other)
    inside = within_folds.within_folds_difference(one, two, view, other, resamples=resamples)
    same = equivalence.auc_equivalence(one, two, view, other, resamples=resamples)
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
        return {"method": multiplicity.METHOD, "size": size or 0}
    table = multiplicity.holm(
        {k: c["delong"]["p_value"] for k, c in comparisons.items()}, size=size
    )
    for name, p, found in zip(
        table["comparison"], table["p_adjusted"].tolist(), table["found"].tolist(), strict=True
    ):
        comparisons[name] |= {"p_holm": p, "found": found}
    return {
        "method": multiplicity.METHOD,
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
        test = repeated.corrected_t_test(one, two, view, other, test_over_train=test_over_train)
    except InputError as error:  # one fold, or folds too unequal: the reader is told
        return {"not_computed": str(error)}
    return {
        **plain(test.difference),
        "t": round(test.t, 4),
        "p_value": test.p_value,
        "degrees_of_freedom": test.degrees_of_freedom,
        "test_over_train": round(test.test_over_train, 6),
    }
