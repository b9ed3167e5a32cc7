"""AUC among nodules of the same size: what a method knows beyond the diameter.

Bands of sizes leave sizes to be told apart inside a band. Here a malignant nodule is compared only
with benign ones whose diameters are nearly its own, so that the diameter has next to nothing to say
and whatever orders such a pair must be something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation._one_view import one_view
from labkit.evaluation._patients import Patients
from labkit.evaluation.intervals import Interval

RATIO = 1.1
"""The larger diameter of a pair may be this many times the smaller. Readers' own diameters of one
nodule differ by more than that."""


@dataclass(frozen=True)
class Matched:
    """What `matched_auc` finds.

    Args:
        auc: share of size-matched pairs in which the malignant nodule has the higher score.
        pairs: how many such pairs there are.
        malignant, benign: nodules that are in at least one of them.
    """

    auc: Interval
    pairs: int
    malignant: int
    benign: int


def matched_auc(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str = "fused",
    *,
    ratio: float = RATIO,
    within_folds: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Matched:
    """How often a malignant nodule outscores a benign one of nearly its diameter, ties half.

    Args:
        predictions: as `crossval.run` returns them.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        view: "0" to "8", "fused" or "size_only".
        ratio: of the diameters of a pair, at most.
        within_folds: compare only nodules that the same networks judged.
        resamples: of the bootstrap over patients, each with all nodules in all repeats.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: no such view, a nodule without a diameter, a ratio below 1, or no pair at all.
    """
    samples, pair = _samples(predictions, nodules, view, ratio, within_folds, resamples, seed)
    return Matched(
        intervals.percentile(float(samples[0]), samples[1:], level),
        int(pair.sum()),
        int(pair.any(axis=1).sum()),
        int(pair.any(axis=0).sum()),
    )


def matched_difference(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str,
    second_view: str,
    *,
    ratio: float = RATIO,
    within_folds: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC of a view less that of another in pairs of one size, by paired bootstrap over patients.

    Args:
        predictions: of one run, which has both views.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        view, second_view: such as "fused" and "size_only".
        ratio, within_folds, resamples, level, seed: as in `matched_auc`.

    Raises:
        InputError: as `matched_auc`.
    """
    how = (ratio, within_folds, resamples, seed)
    one, _ = _samples(predictions, nodules, view, *how)
    other, _ = _samples(predictions, nodules, second_view, *how)
    return intervals.percentile(float(one[0] - other[0]), one[1:] - other[1:], level)


def _samples(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str,
    ratio: float,
    within_folds: bool,
    resamples: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """AUC as measured and in every resample; and which (malignant, benign) pairs were compared."""
    if not (np.isfinite(ratio) and ratio >= 1):
        raise InputError(f"the larger diameter cannot be {ratio} times the smaller; give 1 or more")
    of = one_view(predictions, view)
    mm = nodules.set_index("nodule_id")["diameter_mm"].reindex(of.nodules).to_numpy(dtype=float)
    if not np.all(mm > 0):
        lost = of.nodules[~(mm > 0)][0]
        raise InputError(f"{lost}: no diameter in the nodule table; sizes cannot be matched")
    ill, well = np.flatnonzero(of.labels == 1), np.flatnonzero(of.labels == 0)
    distance = np.abs(np.log(mm[ill])[:, None] - np.log(mm[well])[None, :])
    close = distance <= np.log(ratio) + 1e-12
    won, counted = np.zeros((2, *close.shape))
    for run, fold in zip(of.probabilities, of.folds, strict=True):
        same = close & (fold[ill][:, None] == fold[well][None, :]) if within_folds else close
        won += same * (np.sign(run[ill][:, None] - run[well][None, :]) + 1) / 2
        counted += same
    if not counted.any():
        raise InputError("no malignant nodule has a benign one of its size: nothing to compare")
    patients = Patients.of(of.patients, len(of.labels))
    codes = patients.codes

    def share(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        w1, w0 = drawn[:, codes[ill]], drawn[:, codes[well]]
        with np.errstate(invalid="ignore"):
            return ((w1 @ won) * w0).sum(axis=1) / ((w1 @ counted) * w0).sum(axis=1)

    return patients.bootstrap(share, resamples, seed), counted > 0
