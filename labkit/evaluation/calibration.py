"""Whether a probability of 0.8 comes true eight times in ten.

AUC looks at the order of scores alone; a network may order well and be far too sure. Everything
here is of single trainings: of repeated cross-validation, each repeat's prediction of a nodule
counts, and the bootstrap draws patients with all their nodules in all repeats.

The label that comes true is the readers' median opinion, not a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation._patients import Patients
from labkit.evaluation.intervals import Interval
from labkit.evaluation.metrics import checked
from labkit.evaluation.summary import scores

Floats = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class BrierParts:
    """The Brier score and what it is made of.

    value = reliability - resolution + uncertainty + within (Murphy 1973; the last as in Stephenson,
    Coelho and Jolliffe, Wea Forecasting 23:752, 2008, without which bins make the sum inexact).

    Args:
        value: mean squared difference of probability and label; 0 is best.
        reliability: mean squared distance of a bin's mean probability from its observed share;
            0 is best. With few nodules a bin it is too large even of perfect probabilities.
        resolution: how far the bins' observed shares lie apart; large is best.
        uncertainty: of the labels themselves; what a constant probability gets.
        within: what the bins hide, variance less twice the covariance with the label inside them.
    """

    value: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


@dataclass(frozen=True)
class Calibration:
    """How well probabilities are calibrated.

    Args:
        brier: with its interval over patients.
        parts: of the Brier score.
        error: expected calibration error, the bins' mean |observed - predicted|. It depends on the
            bins, and is never 0 of a finite cohort: read it beside `error_if_calibrated`. A
            resample adds once more what chance has added already, so the interval over patients is
            the reflected one (twice the value less the percentiles, not below 0). For probabilities
            far from calibrated it holds the truth about 9 times in 10 where it says 95 %; for
            calibrated ones it is of no use.
        error_if_calibrated: (mean, 95 % quantile) of the error that perfectly calibrated
            probabilities would show on as many nodules in the same bins (consistency resampling,
            Bröcker and Smith, Wea Forecasting 22:651, 2007; nodules drawn one by one).
        table: of `reliability_table`.
    """

    brier: Interval
    parts: BrierParts
    error: Interval
    error_if_calibrated: tuple[float, float]
    table: pd.DataFrame


def calibration(
    predictions: pd.DataFrame,
    view: str = "fused",
    *,
    bins: int = BINS,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Reliability, Brier score with its parts, and calibration error of a run.

    Args:
        predictions: as `crossval.run` returns them.
        view: "0" to "8", "fused" or "size_only".
        bins: of equally many predictions (quantiles); the same bins in every resample.
        resamples: of the bootstrap over patients.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: no such view, or probabilities outside 0 to 1.
    """
    labels, runs, patients = scores(predictions, view)
    repeats, n = runs.shape
    y, p = _checked(np.tile(labels, repeats), runs.ravel())
    bin_of = _quantile_bins(p, bins)
    whose = Patients.of(patients, n)
    # Sums over nodules first, so that a resample is one matrix product whatever the repeats.
    squared = whose.total(((runs - labels) ** 2).mean(axis=0))
    nodules = whose.total(np.ones(n))
    surplus = _by_patient(np.tile(whose.codes, repeats), whose.count, bin_of, y - p)

    def brier_and_error(drawn: Floats) -> Floats:
        judged = drawn @ nodules
        off = np.abs(drawn @ surplus).sum(axis=1)
        return np.stack([(drawn @ squared) / judged, off / (repeats * judged)], axis=1)

    brier, error = whose.bootstrap(brier_and_error, resamples, seed).T
    return Calibration(
        intervals.percentile(float(brier[0]), brier[1:], level),
        brier_parts(y, p, bins),
        _reflected(intervals.percentile(float(error[0]), error[1:], level)),
        _error_if_calibrated(runs, bin_of, resamples, seed),
        _table(y, p, bin_of, np.tile(np.arange(n), repeats), np.tile(patients, repeats), level),
    )


def reliability_table(
    predictions: pd.DataFrame, view: str = "fused", *, bins: int = BINS, level: float = 0.95
) -> pd.DataFrame:
    """Predicted against observed share of malignant nodules, bin by bin.

    Args:
        predictions: as `crossval.run` returns them.
        view: "0" to "8", "fused" or "size_only".
        bins: of equally many predictions (quantiles); equal probabilities share a bin, so there may
            be fewer.
        level: confidence.

    Returns:
        One row a bin: `lowest` and `highest` probability in it, `predictions`, `nodules`,
        `patients`, `predicted` (mean probability), `observed` (share malignant), `low`, `high`.
        The interval is Wilson's with patients for trials: it holds when the nodules of a patient
        are copies of each other and is a little wide when they are not; a bootstrap would give
        a bin without malignant nodules an interval of no width.

    Raises:
        InputError: no such view, or probabilities outside 0 to 1.
    """
    labels, runs, patients = scores(predictions, view)
    repeats, n = runs.shape
    y, p = _checked(np.tile(labels, repeats), runs.ravel())
    nodule, patient = np.tile(np.arange(n), repeats), np.tile(patients, repeats)
    return _table(y, p, _quantile_bins(p, bins), nodule, patient, level)


def brier_parts(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> BrierParts:
    """The Brier score and its parts over quantile bins.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        probabilities: (n,) between 0 and 1.
        bins: how many.

    Raises:
        InputError: probabilities outside 0 to 1, or fewer than one bin.

    >>> brier_parts([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
    BrierParts(value=0.0625, reliability=0.0625, resolution=0.25, uncertainty=0.25, within=0.0)
    """
    y, p = _checked(labels, probabilities)
    bin_of = _quantile_bins(p, bins)
    count = np.bincount(bin_of)
    share, mean = (np.bincount(bin_of, v) / count for v in (y, p))
    off = p - mean[bin_of]
    return BrierParts(
        float(np.mean((p - y) ** 2)),
        float(np.average((mean - share) ** 2, weights=count)),
        float(np.average((share - y.mean()) ** 2, weights=count)),
        float(y.mean() * (1 - y.mean())),
        float(np.mean(off**2 - 2 * off * y)),
    )


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error over quantile bins; see `Calibration.error` for what it is worth.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        probabilities: (n,) between 0 and 1.
        bins: how many.

    >>> calibration_error([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
    0.25
    """
    y, p = _checked(labels, probabilities)
    return float(np.abs(np.bincount(_quantile_bins(p, bins), y - p)).sum() / len(y))


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    y, p = checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise InputError(
            "calibration is about probabilities between 0 and 1; these reach from "
            f"{p.min():.3g} to {p.max():.3g}"
        )
    return y, p


def _quantile_bins(p: Floats, bins: int) -> NDArray[np.int64]:
    """(n,) bin of each probability, numbered from 0 without gaps; equal ones share a bin."""
    if bins < 1:
        raise InputError(f"there cannot be {bins} bins")
    edges = np.quantile(p, np.arange(1, bins) / bins)
    return np.unique(np.searchsorted(edges, p, side="left"), return_inverse=True)[1]


def _by_patient(
    patient: NDArray[np.int64], patients: int, bin_of: NDArray[np.int64], surplus: Floats
) -> Floats:
    """(patients, bins) sums of y - p over a patient's predictions in a bin."""
    bins = int(bin_of.max()) + 1
    cells: Floats = np.bincount(patient * bins + bin_of, surplus, patients * bins).astype(float)
    return cells.reshape(patients, bins)


def _reflected(percentile: Interval) -> Interval:
    value = percentile.value
    low, high = (max(0.0, 2 * value - bound) for bound in (percentile.high, percentile.low))
    return Interval(value, low, high, percentile.level)


def _error_if_calibrated(
    runs: Floats, bin_of: NDArray[np.int64], draws: int, seed: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    repeats, n = runs.shape
    p = runs.ravel()
    found = np.empty(draws)
    for i in range(draws):
        # One draw a nodule, for all its repeats: they judge the same label.
        y = np.tile(rng.random(n), repeats) < p
        found[i] = np.abs(np.bincount(bin_of, y - p)).sum() / len(p)
    return float(found.mean()), float(np.quantile(found, 0.95))


def _table(
    y: NDArray[np.int64],
    p: Floats,
    bin_of: NDArray[np.int64],
    nodule: NDArray,
    patient: NDArray,
    level: float,
) -> pd.DataFrame:
    rows = pd.DataFrame({"bin": bin_of, "y": y, "p": p, "nodule": nodule, "patient": patient})
    table = (
        rows.groupby("bin")
        .agg(
            lowest=("p", "min"),
            highest=("p", "max"),
            predictions=("p", "size"),
            nodules=("nodule", "nunique"),
            patients=("patient", "nunique"),
            predicted=("p", "mean"),
            observed=("y", "mean"),
        )
        .reset_index(drop=True)
    )
    low, high = intervals.wilson(
        table["observed"].to_numpy(), table["patients"].to_numpy(dtype=float), level
    )
    return table.assign(low=low, high=high)
