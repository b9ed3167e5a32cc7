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
from scipy.optimize import minimize_scalar
from scipy.special import expit

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import Interval, Patients, checked, scores
from labkit.models.fusion import log_odds

# Temperature scaling: one number that makes a network less sure, or surer, and changes no order.
#
# It is fitted on the inner validation nodules of each fold, never on what it is judged by.
# Reference:
# Guo, Pleiss, Sun and Weinberger, ICML 2017.


LOWEST, HIGHEST = 0.05, 20.0
_ALMOST = 1e-7  # a float32 sigmoid gives 0 and 1, whose logits are infinite


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The temperature with the least cross-entropy on validation nodules.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        probabilities: (n,) between 0 and 1, of nodules that were not trained on.

    Returns:
        Above 1 when the network is too sure, below 1 when it is not sure enough.

    Raises:
        InputError: no temperature between 0.05 and 20 is best: the probabilities separate the
            classes entirely, or are no better than chance.

    >>> sure = [0.9] * 4 + [0.1] * 4
    >>> round(fit_temperature([1, 1, 1, 0, 0, 0, 0, 1], sure), 3)
    2.0
    """
    y, z = checked(labels, _logits(probabilities))
    sign = 2 * y - 1

    def entropy(log_slope: float) -> float:
        return float(np.logaddexp(0, -sign * z * np.exp(log_slope)).mean())

    # Convex in the slope 1 / T, so it has one valley on the scale of its logarithm, too.
    bounds = (-np.log(HIGHEST), -np.log(LOWEST))
    best = minimize_scalar(entropy, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    if min(best.x - bounds[0], bounds[1] - best.x) < 1e-3:
        reason = (
            "the surest probabilities are wrong about as often as right"
            if best.x - bounds[0] < 1e-3
            else "the probabilities separate the classes entirely"
        )
        raise InputError(
            f"no temperature between {LOWEST:g} and {HIGHEST:g} fits {len(y)} validation nodules: "
            f"{reason}; use a larger validation split"
        )
    return float(np.exp(-best.x))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities whose logits are divided by a temperature.

    >>> apply_temperature([0.5, 0.9], 2.0).round(3).tolist()
    [0.5, 0.75]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"a temperature of {temperature} is none; give a positive number")
    return expit(_logits(probabilities) / temperature)


def scale_run(
    predictions: pd.DataFrame, validation: pd.DataFrame, view: str = "fused"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scale a run's predictions, each fold with the temperature of its own validation nodules.

    The same nodules stopped the training early and gave the fusion its weights, so they look a
    little better than new ones and the temperature comes out a little too low.

    Args:
        predictions: as `crossval.run` returns them.
        validation: the same columns; `repeat` and `fold` say in which fold's training the nodule
            was held out for validation.
        view: which view is scaled.

    Returns:
        The view's predictions with scaled `probability`, and the temperatures: `repeat`, `fold`,
        `nodules` (of validation), `temperature`.

    Raises:
        InputError: a fold without validation nodules, or whose validation shares nodules with its
            test, or that no temperature fits.
    """
    tests, held_out = (t[t["view"].astype(str) == view] for t in (predictions, validation))
    if tests.empty:
        raise InputError(f"no predictions for view {view!r}")
    of_fold = dict(list(held_out.groupby(["repeat", "fold"])))
    scaled, found = [], []
    for place, test in tests.groupby(["repeat", "fold"]):
        where = f"repeat {place[0]}, fold {place[1]}"
        val = of_fold.get(place)
        if val is None:
            raise InputError(f"{where}: no validation predictions of view {view!r}")
        shared = set(val["nodule_id"]) & set(test["nodule_id"])
        if shared:
            raise InputError(
                f"{where}: {len(shared)} nodules are in its validation and in its test; scaling "
                "must not see what it is judged by"
            )
        try:
            temperature = fit_temperature(val["label"], val["probability"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        scaled.append(test.assign(probability=apply_temperature(test["probability"], temperature)))
        found.append((*place, len(val), temperature))
    columns = ["repeat", "fold", "nodules", "temperature"]
    return pd.concat(scaled).sort_index(), pd.DataFrame(found, columns=columns)


def _logits(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("a temperature scales probabilities between 0 and 1")
    return log_odds(p, _ALMOST)


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
        statistics.percentile(float(brier[0]), brier[1:], level),
        brier_parts(y, p, bins),
        _reflected(statistics.percentile(float(error[0]), error[1:], level)),
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
    low, high = statistics.wilson(
        table["observed"].to_numpy(), table["patients"].to_numpy(dtype=float), level
    )
    return table.assign(low=low, high=high)
