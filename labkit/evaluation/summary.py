"""From predictions to a table: metrics with intervals, and runs compared in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.evaluation import intervals
from labkit.evaluation._one_view import one_view, paired, rows_of
from labkit.evaluation.metrics import DEFAULT_THRESHOLD

_BASELINES = {"size_only": "size only", "detector": "detector's score"}


def scores(
    predictions: pd.DataFrame, view: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]:
    """Labels (n,), probabilities (repeats, n) and patients (n,) of one view's predictions.

    Args:
        predictions: the table that `crossval.run` returns.
        view: "0" to "8", "fused" or "size_only".

    Raises:
        InputError: no such view, a column missing, or a nodule missing from a repeat.
    """
    of = one_view(predictions, view)
    return of.labels, of.probabilities, of.patients


def paired_scores(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
    """Labels (n,), both runs' probabilities (repeats, n) and patients (n,) of the same nodules.

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.

    Raises:
        InputError: the runs judge different nodules.
    """
    one, two = paired(first, second, view, second_view)
    return one.labels, one.probabilities, two.probabilities, one.patients


def summarise(
    predictions: pd.DataFrame,
    resamples: int = 2000,
    seed: int = 0,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, dict[str, Any]]:
    """Pooled out-of-fold metrics of every view, each with its 95 % interval over patients.

    Args:
        predictions: the table that `crossval.run` returns.
        resamples: of the bootstraps.
        seed: of them.
        threshold: at which sensitivity, specificity and accuracy are taken.

    Returns:
        view -> {"nodules", "patients", "auc", "sensitivity", "specificity", "accuracy", "brier"},
        the metrics as {"value", "low", "high"}.
    """
    summary: dict[str, dict[str, Any]] = {}
    for view in predictions["view"].astype(str).unique():
        labels, probabilities, patients = scores(predictions, view)
        measured = {
            "auc": intervals.bootstrap_auc(
                labels, probabilities, groups=patients, resamples=resamples, seed=seed
            ),
            **intervals.bootstrap_rates(
                labels,
                probabilities,
                groups=patients,
                threshold=threshold,
                resamples=resamples,
                seed=seed,
            ),
        }
        summary[view] = {"nodules": len(labels), "patients": len(np.unique(patients))}
        for name, interval in measured.items():
            summary[view][name] = {
                "value": round(interval.value, 8),
                "low": round(interval.low, 8),
                "high": round(interval.high, 8),
            }
    return summary


def table(
    runs: dict[str, pd.DataFrame],
    views: tuple[str, ...] = ("fused",),
    threshold: float = DEFAULT_THRESHOLD,
) -> pd.DataFrame:
    """Metrics with intervals of several runs as text, one row a run and view.

    Args:
        runs: name -> predictions.
        views: which rows of each; a view that a run lacks is left out. "size_only" is shown once
            for runs that share their folds.
        threshold: at which sensitivity, specificity and accuracy are taken.
    """
    lines: list[dict[str, str]] = []
    for name, predictions in runs.items():
        present = set(predictions["view"].astype(str))
        for view in views:
            if view not in present:
                continue
            measured = summarise(rows_of(predictions, view), threshold=threshold)[view]
            label = {"fused": name, **_BASELINES}.get(view, f"{name}, view {view}")
            line = {"method": label}
            for metric in ("auc", "sensitivity", "specificity", "accuracy", "brier"):
                m = measured[metric]
                line[metric] = f"{m['value']:.3f} ({m['low']:.3f} to {m['high']:.3f})"
            if line not in lines:
                lines.append(line)
    return pd.DataFrame(lines)


def compare(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None
) -> dict[str, Any]:
    """Compare two runs on the same nodules: AUC difference, bootstrap interval, DeLong's test.

    Both are clustered by patient, and both are of the mean AUC over repeats (not of the AUC of
    mean probabilities, which would be another method: see `evaluation.repeated`).

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.

    Raises:
        InputError: the runs judge different nodules.
    """
    labels, p1, p2, patients = paired_scores(first, second, view, second_view)
    boot = intervals.bootstrap_auc_difference(labels, p1, p2, groups=patients)
    test = intervals.delong_test(labels, p1, p2, groups=patients)
    return {
        "auc_difference": {"value": boot.value, "low": boot.low, "high": boot.high},
        "delong": {
            "difference": test.difference.value,
            "low": test.difference.low,
            "high": test.difference.high,
            "z": test.z,
            "p_value": test.p_value,
        },
    }
