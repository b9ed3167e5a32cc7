"""Repeated cross-validation: what ten repeats of ten folds say, and what they do not.

The hundred folds of 10 x 10-fold cross-validation (Zhai et al. 2020, III-E) share their training
nodules and their test nodules. A plain t-test on a hundred differences takes them for a hundred
experiments and finds differences where there are none; `corrected_t_test` allows for it.

Two numbers can be made of several repeats. The mean of the repeats' AUCs is what one training is
worth, and is what is reported here. The AUC of a nodule's mean probability is that of another
method, which trains as many networks as there are repeats and is the better for it; it is given
beside it, and never in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation._one_view import rows_of
from labkit.evaluation.intervals import Interval
from labkit.evaluation.metrics import roc_auc
from labkit.evaluation.summary import scores

Metric = Callable[[ArrayLike, ArrayLike], float]
MAX_FOLD_RATIO = 2.0
"""Folds by patient are never quite equal; beyond this, their variances cannot pass for one."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class CorrectedTest:
    """What `resampled_t_test` finds.

    Args:
        difference: mean over folds and repeats, with the interval of the corrected t-test.
        t: the difference in corrected standard errors.
        p_value: two-sided.
        degrees_of_freedom: differences less one.
        test_over_train: n_test / n_train that the variance was corrected by.
    """

    difference: Interval
    t: float
    p_value: float
    degrees_of_freedom: int
    test_over_train: float


@dataclass(frozen=True)
class RepeatedAuc:
    """AUC of repeated cross-validation.

    Args:
        auc: mean of the repeats' pooled out-of-fold AUCs, with its interval over patients, before
            the networks as they were trained: what another training would change is in `spread`.
        by_repeat: each repeat's pooled out-of-fold AUC.
        spread: standard deviation between repeats (other folds and other initial weights on the
            same nodules); None for one repeat. It says nothing about other patients.
        averaged: AUC of a nodule's mean probability over repeats: an ensemble of that many models.
    """

    auc: Interval
    by_repeat: tuple[float, ...]
    spread: float | None
    averaged: Interval


def repeated_auc(
    predictions: pd.DataFrame,
    view: str = "fused",
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> RepeatedAuc:
    """Pooled out-of-fold AUC over repeats, and how far the repeats lie apart.

    The bootstrap draws patients, each with all their nodules in all repeats.

    Args:
        predictions: as `crossval.run` returns them.
        view: "0" to "8", "fused" or "size_only".
        resamples: of the bootstrap.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: no such view, or a nodule missing from a repeat.
    """
    labels, runs, patients = scores(predictions, view)
    by_repeat = tuple(roc_auc(labels, run) for run in runs)
    single, averaged = (
        intervals.bootstrap_auc(
            labels, values, groups=patients, resamples=resamples, level=level, seed=seed
        )
        for values in (runs, runs.mean(axis=0))
    )
    spread = float(np.std(by_repeat, ddof=1)) if len(by_repeat) > 1 else None
    return RepeatedAuc(single, by_repeat, spread, averaged)


def corrected_t_test(
    first: pd.DataFrame,
    second: pd.DataFrame,
    view: str = "fused",
    second_view: str | None = None,
    *,
    metric: Metric = roc_auc,
    test_over_train: float | None = None,
    level: float = 0.95,
) -> CorrectedTest:
    """Compare two runs fold by fold with the corrected resampled t-test.

    What it is biased about: folds hold a few dozen nodules, so a fold's AUC is coarse, and the
    mean over folds is not the pooled AUC; both methods learn from (k - 1) / k of the nodules, so
    the difference is that of smaller cohorts; and the correction assumes how strongly folds
    resemble each other, since nothing can estimate it without bias (Bengio and Grandvalet, JMLR
    5:1089, 2004). In simulations of two equally good learners it found a difference at 5 % in 1 to
    6 of 100 cohorts (the fewest for one repeat, where it is a weak test), and the plain t-test in
    25 to 57. It speaks of trainings on other samples of nodules like these, where the bootstrap and
    DeLong's test speak of other patients before the networks that were trained.

    Args:
        first: predictions of a run.
        second: predictions of another run on the same folds.
        view: of the first run.
        second_view: of the second run; None takes the same.
        metric: (labels, probabilities) -> number, of one fold.
        test_over_train: n_test / n_train; None takes 1 / (folds - 1). A run of only its first
            folds looks like one of fewer folds, which makes the test more careful than it need be.
        level: confidence of the interval.

    Raises:
        InputError: runs with other nodules in a fold, repeats with other numbers of folds, folds
            of very different sizes, or a fold that the metric has no value for.
    """
    pairs = _pair_folds(_of_view(first, view), _of_view(second, second_view or view))
    folds = pairs.groupby("repeat")["fold"].nunique()
    if folds.nunique() > 1:
        raise InputError(
            f"repeats have {folds.min()} to {folds.max()} folds; the test needs equally many"
        )
    sizes = pairs.groupby(["repeat", "fold"]).size()
    if sizes.max() > MAX_FOLD_RATIO * sizes.min():
        raise InputError(
            f"folds hold {sizes.min()} to {sizes.max()} nodules; the test needs folds of about one "
            "size, so use fewer folds or the bootstrap over patients"
        )
    if test_over_train is None:
        if folds.iloc[0] < 2:
            raise InputError("one fold says nothing about n_test / n_train; pass test_over_train")
        test_over_train = 1 / (int(folds.iloc[0]) - 1)
    differences = []
    for (repeat, fold), part in pairs.groupby(["repeat", "fold"]):
        try:
            values = [metric(part["label"], part[side]) for side in ("first", "second")]
        except InputError as error:
            raise InputError(f"repeat {repeat}, fold {fold}: {error}") from None
        differences.append(values[0] - values[1])
    return resampled_t_test(differences, test_over_train, level=level)


def resampled_t_test(
    differences: ArrayLike, test_over_train: float, *, level: float = 0.95
) -> CorrectedTest:
    """The corrected resampled t-test on differences of folds.

    Nadeau and Bengio, Machine Learning 52:239 (2003), and for repeated k-fold cross-validation
    Bouckaert and Frank, PAKDD 2004: the variance of the mean of n = k r differences is not s^2 / n
    but s^2 (1 / n + n_test / n_train).

    Args:
        differences: (k r,) differences of a metric, one a fold and repeat.
        test_over_train: n_test / n_train; 1 / 9 for ten folds, 0 for the plain t-test.
        level: confidence of the interval.

    Raises:
        InputError: fewer than two differences, one that is no number, or differences all alike
            and not zero, which have no variance to test with.

    >>> result = resampled_t_test([0.0, 0.02, 0.01, 0.01], test_over_train=1 / 3)
    >>> round(result.t, 3), result.degrees_of_freedom
    (1.604, 3)
    """
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or len(d) < 2 or not np.all(np.isfinite(d)):
        raise InputError("the test needs a vector of two or more finite differences")
    if not (np.isfinite(test_over_train) and test_over_train >= 0):
        raise InputError(f"n_test / n_train cannot be {test_over_train}; give 0 or more")
    mean, freedom = float(d.mean()), len(d) - 1
    if np.ptp(d) <= _ROUNDING:
        if abs(mean) > _ROUNDING:
            raise InputError(
                f"all {len(d)} differences are {mean:.6g}: there is no variance to test with"
            )
        return CorrectedTest(Interval(0.0, 0.0, 0.0, level), 0.0, 1.0, freedom, test_over_train)
    error = float(np.sqrt(d.var(ddof=1) * (1 / len(d) + test_over_train)))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * error
    t = mean / error
    return CorrectedTest(
        Interval(mean, mean - half, mean + half, level),
        t,
        float(2 * stats.t.sf(abs(t), freedom)),
        freedom,
        test_over_train,
    )


def _of_view(predictions: pd.DataFrame, view: str) -> pd.DataFrame:
    """Rows of one view, checked by `scores` to be complete."""
    scores(predictions, view)
    return rows_of(predictions, view)


def _pair_folds(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row a repeat, fold and nodule: label, and both probabilities as `first` and `second`."""
    key = ["repeat", "fold", "nodule_id"]
    pairs = first[[*key, "label", "probability"]].merge(
        second[[*key, "label", "probability"]], on=key, how="outer", indicator=True
    )
    lonely = int((pairs["_merge"] != "both").sum())
    if lonely:
        raise InputError(
            f"{lonely} predictions have no partner in the other run's fold: the test needs runs "
            "on the same nodules, folds and repeats (same cohort, split and seed)"
        )
    if (pairs["label_x"] != pairs["label_y"]).any():
        raise InputError("the runs have different labels for some nodules")
    names = {"label_x": "label", "probability_x": "first", "probability_y": "second"}
    return pairs.rename(columns=names)[[*key, "label", "first", "second"]]
