"""Whether a probability of 0.8 comes true eight times in ten, and how to make it so.

AUC looks at the order of scores alone; a network may order well and be far too sure. What comes
true is the readers' median opinion, not a diagnosis. Of repeated cross-validation each repeat's
prediction of a nodule counts, and the bootstrap draws patients with all nodules in all repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import FUSED, OneView, one_view, select_view
from labkit.evaluation.statistics import RESAMPLES, Floats, Interval, Patients, checked, wilson
from labkit.models.fusion import log_odds

BINS = 10
LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are tried."""


class Calibration(NamedTuple):
    """How well probabilities are calibrated."""

    brier: Interval  # mean squared difference to the label
    # Expected calibration error: the bins' mean |observed - predicted|, never 0 of a finite cohort.
    # A resample adds once more what chance has added already, so the interval is the reflected one
    # (twice the value less the percentiles). Of calibrated probabilities it is of no use.
    error: Interval
    # (mean, 95 % quantile) of the error that calibrated probabilities would show on as many nodules
    # in the same bins (consistency resampling, Bröcker and Smith, Wea Forecasting 22:651, 2007).
    error_if_calibrated: tuple[float, float]
    table: pd.DataFrame  # of `reliability_table`


def calibration(
    predictions: pd.DataFrame, view: str = "fused", *, resamples: int = RESAMPLES
) -> Calibration:
    """Compute reliability, Brier score and calibration error of a run's view.

    There are `BINS` of equally many predictions (quantiles), the same in every resample;
    `resamples` are of the bootstrap over patients.
    """
    of = one_view(predictions, view)
    rows, (repeats, n) = _binned(of), of.probabilities.shape
    y, p, bin_of = (rows[column].to_numpy() for column in ("y", "p", "bin"))
    patients = Patients.of(of.patients, n)
    # Sums over nodules first, so that a resample is one matrix product whatever the repeats.
    squared = patients.total(((of.probabilities - of.labels) ** 2).mean(axis=0))
    nodules = patients.total(np.ones(n))
    width = int(bin_of.max()) + 1
    cells = np.tile(patients.codes, repeats) * width + bin_of
    surplus = np.bincount(cells, y - p, patients.count * width).reshape(-1, width)

    def brier_and_error(weights: Floats) -> Floats:
        judged = weights @ nodules
        off = np.abs(weights @ surplus).sum(axis=1)
        return np.stack([(weights @ squared) / judged, off / (repeats * judged)], axis=1)

    found = patients.bootstrap(brier_and_error, resamples, seed=0)
    brier, error = map(statistics.percentile_interval, found.T)
    rng = np.random.default_rng(0)
    by_chance = [
        # One draw a nodule, for all its repeats: they judge the same label.
        np.abs(np.bincount(bin_of, (np.tile(rng.random(n), repeats) < p) - p)).sum() / len(p)
        for _ in range(resamples)
    ]
    low, high = (max(0.0, 2 * error.value - bound) for bound in (error.high, error.low))
    chance = float(np.mean(by_chance)), float(np.quantile(by_chance, 0.95))
    return Calibration(brier, Interval(error.value, low, high), chance, _table(rows))


def reliability_table(predictions: pd.DataFrame, view: str = "fused") -> pd.DataFrame:
    """Compute predicted against observed share of malignant nodules, one row a bin.

    Columns: `lowest` and `highest` probability in it, `predictions`, `nodules`, `patients`,
    `predicted` (mean probability), `observed` (share malignant), and of it `low`, `high`: Wilson's
    with patients for trials, since a bin without malignant nodules has no bootstrap interval.
    """
    return _table(_binned(one_view(predictions, view)))


def _binned(of: OneView) -> pd.DataFrame:
    """One row a nodule and repeat: y, p, bin (no gaps), nodule, patient."""
    repeats, n = of.probabilities.shape
    y, p = checked(np.tile(of.labels, repeats), of.probabilities.ravel())
    if p.min() < 0 or p.max() > 1:
        raise InputError("calibration puts probabilities between 0 and 1 into bins, not those from "
                         f"{p.min():.3g} to {p.max():.3g}")  # fmt: skip
    edges = np.quantile(p, np.arange(1, BINS) / BINS)  # as scikit-learn's calibration_curve has it
    numbers = np.unique(np.searchsorted(edges, p, side="left"), return_inverse=True)[1]
    rows = {"y": y, "p": p, "bin": numbers, "nodule": np.tile(np.arange(n), repeats)}
    return pd.DataFrame({**rows, "patient": np.tile(of.patients, repeats)})


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.groupby("bin").agg(
        lowest=("p", "min"), highest=("p", "max"), predictions=("p", "size"),
        nodules=("nodule", "nunique"), patients=("patient", "nunique"),
        predicted=("p", "mean"), observed=("y", "mean"),
    ).reset_index(drop=True)  # fmt: skip
    low, high = wilson(table["observed"].to_numpy(), table["patients"].to_numpy())
    return table.assign(low=low, high=high)


# Temperature scaling: one number that makes a network less sure, or surer, and changes no order.


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Find the temperature with the least cross-entropy on validation nodules, not trained on.

    Guo, Pleiss, Sun and Weinberger, ICML 2017. Above 1 where the network is too sure.

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
    ends = np.abs(best.x - np.array(bounds)) < 1e-3
    if ends.any():
        reason = ("the surest probabilities are wrong about as often as right" if ends[0]
                  else "the probabilities separate the classes entirely")  # fmt: skip
        raise InputError(f"no temperature between {LOWEST:g} and {HIGHEST:g} fits {len(y)} "
                         f"validation nodules: {reason}; use a larger validation split"
                         )  # fmt: skip
    return float(np.exp(-best.x))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Divide the logits of probabilities by a temperature: 0.9 at 2 becomes 0.75."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"a temperature of {temperature} is none; give a positive number")
    return expit(_logits(probabilities) / temperature)


def _logits(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("a temperature scales probabilities between 0 and 1")
    return log_odds(p, 1e-7)  # a float32 sigmoid gives 0 and 1, whose logits are infinite


def scale_run(
    predictions: pd.DataFrame, validation: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scale a run's fused predictions, each fold by the temperature of its validation nodules.

    These (`crossval.validation_predictions`) stopped the training and weighed the views, so they
    look a little better than new ones and the temperature comes out a little too low. Returns the
    fused predictions with scaled `probability`, and the temperatures: `repeat`, `fold`, `nodules`
    (of validation), `temperature`.
    """
    of_fold = dict(list(select_view(validation, FUSED).groupby(["repeat", "fold"])))
    scaled, found = [], []
    for place, test in select_view(predictions, FUSED).groupby(["repeat", "fold"]):
        where = f"repeat {place[0]}, fold {place[1]}"
        if (val := of_fold.get(place)) is None:
            raise InputError(f"{where}: no validation predictions")
        if shared := set(val["nodule_id"]) & set(test["nodule_id"]):
            raise InputError(f"{where}: {len(shared)} nodules are in its validation and in its "
                             "test; scaling must not see what it is judged by")  # fmt: skip
        try:
            temperature = fit_temperature(val["label"], val["probability"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        scaled.append(test.assign(probability=apply_temperature(test["probability"], temperature)))
        found.append((*place, len(val), temperature))
    columns = ["repeat", "fold", "nodules", "temperature"]
    return pd.concat(scaled).sort_index(), pd.DataFrame(found, columns=columns)


def from_json(values: Mapping[str, Any]) -> Calibration:
    """Return the calibration that a file of `results/` holds as plain values."""
    mean, most = values["error_if_calibrated"]
    brier, error = (Interval(**values[name]) for name in ("brier", "error"))
    return Calibration(brier, error, (mean, most), pd.DataFrame(values["table"]))
