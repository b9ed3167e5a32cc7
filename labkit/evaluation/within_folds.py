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
from labkit.evaluation import _order, intervals
from labkit.evaluation._one_view import OneView, one_view, paired
from labkit.evaluation._patients import Measure, Patients
from labkit.evaluation.intervals import Interval


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
    of = one_view(predictions, view)
    patients = Patients.of(of.patients, len(of.labels))
    found = patients.bootstrap(_within(of, patients), resamples, seed)
    return _interval(found, level)


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
    sides = paired(first, second, view, second_view)
    patients = Patients.of(sides[0].patients, len(sides[0].labels))
    one, two = (_within(side, patients) for side in sides)
    found = patients.bootstrap(lambda drawn: one(drawn) - two(drawn), resamples, seed)
    return _interval(found, level)


def _within(of: OneView, patients: Patients) -> Measure:
    return _order.auc_within(of.labels, of.probabilities, of.folds, patients)


def _interval(found: NDArray[np.float64], level: float) -> Interval:
    if np.isnan(found[0]):
        raise InputError("no fold has both benign and malignant nodules: nothing to compare in it")
    return intervals.percentile(float(found[0]), found[1:], level)
