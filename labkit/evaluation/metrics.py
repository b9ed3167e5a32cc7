"""How good a set of scores is: AUC, ROC, sensitivity, specificity, accuracy, Brier score.

Labels are 1 for malignant and 0 for benign; scores are higher when malignancy is more likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from labkit.errors import InputError

DEFAULT_THRESHOLD = 0.5


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores as arrays of one length, finite, with both classes present.

    Raises:
        InputError: anything else, said plainly.
    """
    y = np.asarray(labels, dtype=float)
    s = np.asarray(scores, dtype=float)
    if y.ndim != 1 or y.shape != s.shape:
        raise InputError(f"labels {y.shape} and scores {s.shape} must be vectors of one length")
    if not np.all(np.isfinite(s)):
        raise InputError(f"{int(np.sum(~np.isfinite(s)))} scores are not finite numbers")
    if not np.all(np.isin(y, (0, 1))):
        raise InputError("labels must be 0 (benign) or 1 (malignant)")
    if len(np.unique(y)) < 2:
        raise InputError("both benign and malignant nodules are needed to judge a score")
    return y.astype(np.int64), s


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a malignant nodule outscores a benign one, ties half.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(roc_auc_score(*checked(labels, scores)))


def roc(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of the ROC curve, from (0, 0) to (1, 1)."""
    false_positive, true_positive, _ = roc_curve(*checked(labels, scores))
    return false_positive, true_positive


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gives.

    Args:
        threshold: a score at or above it is called malignant.
        sensitivity: share of malignant nodules called malignant (III-E).
        specificity: share of benign nodules called benign (III-E).
        accuracy: share of nodules called rightly.
    """

    threshold: float
    sensitivity: float
    specificity: float
    accuracy: float


def sensitivity_specificity(
    labels: ArrayLike, scores: ArrayLike, threshold: float = DEFAULT_THRESHOLD
) -> OperatingPoint:
    """Sensitivity, specificity and accuracy at a threshold chosen beforehand.

    >>> point = sensitivity_specificity([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8])
    >>> point.sensitivity, point.specificity, point.accuracy
    (1.0, 0.5, 0.75)
    """
    y, s = checked(labels, scores)
    called = s >= threshold
    return OperatingPoint(
        threshold,
        float(called[y == 1].mean()),
        float((~called[y == 0]).mean()),
        float((called == (y == 1)).mean()),
    )


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier 1950); 0 is best.

    >>> brier([0, 1], [0.0, 0.5])
    0.125
    """
    y, p = checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise InputError("the Brier score needs probabilities between 0 and 1")
    return float(np.mean((p - y) ** 2))
