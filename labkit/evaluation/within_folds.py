"""AUC within folds: only nodules that the same networks judged are compared.

Pooled out-of-fold AUC also compares a nodule of one fold with a nodule of another, whose scores
come from other networks. A score of 0.6 by a timid network and one of 0.5 by a bold one then count
as an order, so pooling costs a method whose scores drift from fold to fold, though nobody who uses
one trained model would ever pay it. Methods drift unequally (networks more than a logistic
regression on the diameter), so a comparison should show both. Reference: Forman and Scholz, SIGKDD
Explorations 12(1):49 (2010).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation.intervals import Interval
from labkit.evaluation.summary import paired_scores, scores

Floats = NDArray[np.float64]


def within_folds_auc(
    predictions: pd.DataFrame,
    view: str = "fused",
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How often a malignant nodule outscores a benign one of its own fold, ties half.

    Pairs count alike, so large folds count more; over repeats, pairs of all repeats are counted.

    Args:
        predictions: as `crossval.run` returns them.
        view: "0" to "8", "fused" or "size_only".
        resamples: of the bootstrap over patients, each with all nodules in all repeats.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: no such view, a nodule missing from a repeat, or no fold with both classes.
    """
    labels, runs, patients = scores(predictions, view)
    weights = _weights(patients, resamples, seed)
    found = _auc(labels, runs, _folds(predictions, view), weights)
    return intervals.percentile(float(found[0]), found[1:], level)


def within_folds_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    view: str = "fused",
    second_view: str | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC within folds of the first run less that of the second, by paired bootstrap.

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules; its folds may be others.
        view: of the first run.
        second_view: of the second run; None takes the same.
        resamples: of the bootstrap over patients.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: the runs judge different nodules, or a run has no fold with both classes.
    """
    other = second_view or view
    labels, one, two, patients = paired_scores(first, second, view, other)
    weights = _weights(patients, resamples, seed)
    found = _auc(labels, one, _folds(first, view), weights)
    found = found - _auc(labels, two, _folds(second, other), weights)
    return intervals.percentile(float(found[0]), found[1:], level)


def _weights(patients: NDArray, resamples: int, seed: int) -> Floats:
    drawn = intervals.resample_weights(len(patients), patients, resamples, seed)
    return np.vstack([np.ones(len(patients)), drawn])


def _folds(predictions: pd.DataFrame, view: str) -> NDArray[np.int64]:
    """(repeats, n) fold of every nodule, in the order of `scores`."""
    chosen = predictions[predictions["view"].astype(str) == view]
    return chosen.pivot_table(index="nodule_id", columns="repeat", values="fold").to_numpy(int).T


def _auc(
    labels: NDArray[np.int64], runs: Floats, folds: NDArray[np.int64], weights: Floats
) -> Floats:
    """(samples,) AUC within folds for every row of weights."""
    won, pairs = np.zeros((2, len(weights)))
    for run, fold_of in zip(runs, folds, strict=True):
        for fold in np.unique(fold_of):
            malignant, benign = (
                np.flatnonzero((fold_of == fold) & (labels == label)) for label in (1, 0)
            )
            order = (np.sign(run[malignant][:, None] - run[benign][None, :]) + 1) / 2
            w1, w0 = weights[:, malignant], weights[:, benign]
            won += ((w1 @ order) * w0).sum(axis=1)
            pairs += w1.sum(axis=1) * w0.sum(axis=1)
    if pairs[0] == 0:
        raise InputError("no fold has both benign and malignant nodules: nothing to compare in it")
    with np.errstate(invalid="ignore"):
        return won / pairs
