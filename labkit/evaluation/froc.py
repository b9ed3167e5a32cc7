"""FROC: how many nodules are found for how many false positives a scan, as LUNA-16 judges it.

The rules are those of the challenge's evaluation script (noduleCADEvaluationLUNA16), ties and
limits included:

- A mark hits a nodule when its squared distance is strictly less than (diameter / 2)^2. Of several
  hits on one nodule the highest probability counts, and the others are dropped. One mark may
  hit two nodules, and is then a hit of both.
- A mark that hits no nodule but an excluded finding is dropped. Every other mark is false.
- A nodule without a hit counts in the sensitivity's denominator only.
- False positives a scan are over all scans judged, with or without marks.
- At most 100 marks of a scan are kept: those whose probability is strictly greater than
  that of the 101st, so that marks tied with it are all lost.
- Marks, nodules and findings of other scans are not looked at.

Reference: Setio et al., Med Image Anal 42:1-13, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.evaluation import _froc_curve, metrics
from labkit.evaluation._marks import Counts, Judged, judge
from labkit.evaluation.intervals import Interval, percentile, resample_weights

__all__ = [
    "RATES", "Band", "Counts", "Froc", "Screening", "cpm_difference", "evaluate", "screening",
]  # fmt: skip

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MAX_MARKS = 100
LEVEL = 0.95

_POINTS_AN_OCTAVE = 16  # of a band; the seven rates are among its points


@dataclass(frozen=True)
class Band:
    """Sensitivities of bootstrap samples of scans.

    Each bound holds at its rate by itself.

    Args:
        rates: (G,) false positives a scan, 1/8 to 8, evenly on a logarithmic scale.
        mean: (G,) mean over the samples.
        low: (G,) lower bounds.
        high: (G,) upper bounds.
        at_rates: an interval at each of the seven `RATES`.
        cpm: interval of the mean over the seven rates.
        resamples: how many samples had a nodule, and so a sensitivity.
    """

    rates: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_rates: tuple[Interval, ...]
    cpm: Interval
    resamples: int


@dataclass(frozen=True)
class Froc:
    """What a set of marks is worth.

    Args:
        sensitivity: (7,) at `RATES`, linear between the curve's points.
        cpm: the challenge's score, the mean of the seven.
        false_positives_per_scan: (T,) of the curve, ascending from 0.
        curve_sensitivity: (T,) of the curve.
        thresholds: (T,) marks of at least this probability count; infinite at the curve's start.
        band: of the bootstrap over scans; None when none was asked for.
        counts: how the marks were counted.
    """

    sensitivity: NDArray[np.float64]
    cpm: float
    false_positives_per_scan: NDArray[np.float64]
    curve_sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    band: Band | None
    counts: Counts

    def at(self, rates: ArrayLike) -> NDArray[np.float64]:
        """Sensitivity at any false positives a scan; beyond the last mark it stays what it is."""
        return np.interp(
            np.asarray(rates, float), self.false_positives_per_scan, self.curve_sensitivity
        )

    def threshold_at(self, rate: float) -> tuple[float, float, float]:
        """The operating point: of the curve's points within a rate, the most sensitive.

        Args:
            rate: false positives a scan that can be borne, 0 or more.

        Returns:
            (threshold, false positives a scan, sensitivity); an infinite threshold takes no mark.
        """
        if not rate >= 0:
            raise InputError(f"rate is {rate}; give 0 or more false positives a scan")
        last = int(np.searchsorted(self.false_positives_per_scan, rate, side="right")) - 1
        return (
            float(self.thresholds[last]),
            float(self.false_positives_per_scan[last]),
            float(self.curve_sensitivity[last]),
        )


@dataclass(frozen=True)
class Screening:
    """The paper's measures over candidates (III-E), and what they mean for a scan.

    Args:
        threshold: a candidate at or above it is called a nodule.
        auc: area under the ROC curve over candidates.
        sensitivity: share of the positive candidates called nodules; not of the nodules.
        specificity: share of the negative candidates not called.
        false_positive_rate: share of the negative candidates called nodules.
        false_positives_per_scan: the same, a scan.
        positives: positive candidates.
        negatives: negative candidates.
    """

    threshold: float
    auc: float
    sensitivity: float
    specificity: float
    false_positive_rate: float
    false_positives_per_scan: float
    positives: int
    negatives: int


def evaluate(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    *,
    max_marks: int | None = MAX_MARKS,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Froc:
    """Judge marks as the challenge does.

    Sensitivities, CPM, curve and counts are the script's own. Its bands come from scans drawn
    without a seed; given the same scans, these are the same, at 97 rates that include the
    seven (the script takes 10,000 others, in single precision). What the script divides by zero for
    is 0 here (no hit at all, no mark at all); samples without a nodule have no sensitivity and
    are left out.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm` and `probability`
            (`labkit.data.luna16.tables.read_submission`).
        annotations: nodules; the same positions and `diameter_mm`.
        excluded: findings whose marks do not count; as `annotations`. May have no rows.
        series_uids: the scans judged, all of them.
        max_marks: most marks kept of a scan; None keeps all.
        bootstraps: how many samples of scans the bands come from; 0 for no bands.
        seed: of the samples.

    Returns:
        The result; it does not depend on the order of any table's rows.

    Raises:
        InputError: a column is missing, a number is not finite, scans are none or doubled, no
            nodule or no mark is in them, or a limit that is none.
    """
    for name, value in (("bootstraps", bootstraps), ("seed", seed)):
        if value < 0:
            raise InputError(f"{name} is {value}; give 0 or more")
    judged = judge(candidates, annotations, excluded, sorted(series_uids), max_marks)
    ones = np.ones(judged.counts.scans)
    last = _froc_curve.last_of_tie(judged.probability)
    false, found = _froc_curve.steps(judged, ones, last)
    x, y = _froc_curve.rates(judged, ones, false, found)
    thresholds = np.append(np.inf, judged.probability[last])
    corner = _froc_curve.corners(false, found)
    x, y, thresholds = x[corner], y[corner], thresholds[corner]
    sensitivity = np.interp(RATES, x, y)
    band = _band(judged, sensitivity, bootstraps, seed) if bootstraps else None
    return Froc(sensitivity, float(sensitivity.mean()), x, y, thresholds, band, judged.counts)


def screening(
    classes: ArrayLike,
    probabilities: ArrayLike,
    scans: int,
    threshold: float = metrics.DEFAULT_THRESHOLD,
) -> Screening:
    """The paper's AUC, sensitivity, specificity and false positive rate, and what that means.

    Args:
        classes: (n,) 1 for a candidate that is a nodule, 0 for one that is not.
        probabilities: (n,) of being one.
        scans: how many scans the candidates come from, with those that have none.
        threshold: a candidate at or above it is called a nodule.

    Raises:
        InputError: vectors of other lengths, a class missing, or no scan.

    The paper's 3.2 %, of the 549,714 negatives in 888 scans, is 20 false positives a scan:

    >>> classes = np.repeat([0, 0, 1], [968, 32, 2])
    >>> called = np.repeat([0.1, 0.9, 0.9], [968, 32, 2])
    >>> rate = screening(classes, called, scans=2).false_positive_rate
    >>> round(rate, 3), round(rate * 549_714 / 888)
    (0.032, 20)
    """
    if scans < 1:
        raise InputError(f"scans is {scans}; give how many scans the candidates come from")
    y, s = metrics.checked(classes, probabilities)
    called = s >= threshold
    positives, negatives = int(y.sum()), int((1 - y).sum())
    wrongly = int(called[y == 0].sum())
    return Screening(
        threshold=threshold,
        auc=metrics.roc_auc(y, s),
        sensitivity=int(called[y == 1].sum()) / positives,
        specificity=(negatives - wrongly) / negatives,
        false_positive_rate=wrongly / negatives,
        false_positives_per_scan=wrongly / scans,
        positives=positives,
        negatives=negatives,
    )


def cpm_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    *,
    max_marks: int | None = MAX_MARKS,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Interval:
    """CPM of the first marks less CPM of the second, by a paired bootstrap over the scans.

    Each sample of scans judges both, so that what makes a scan hard for both is in neither bound.
    Marks that are judged alike differ by exactly 0, in every sample.

    Args:
        first: marks, as `evaluate` takes them.
        second: other marks in the same scans.
        annotations, excluded, series_uids, max_marks: as `evaluate` takes them.
        bootstraps: how many samples of scans, 1 or more.
        seed: of the samples; the same ones that `evaluate` draws with this seed.

    Returns:
        The difference with its 95 % percentile interval.

    Raises:
        InputError: as `evaluate` does, or no bootstrap.
    """
    if bootstraps < 1 or seed < 0:
        raise InputError(
            f"bootstraps is {bootstraps} and seed {seed}; give 1 or more and 0 or more"
        )
    scans = sorted(series_uids)
    pair = [judge(marks, annotations, excluded, scans, max_marks) for marks in (first, second)]
    drawn = _samples(pair[0], bootstraps, seed)
    every = np.vstack([np.ones(len(scans)), drawn])
    one, two = (_froc_curve.resampled(j, every, np.array(RATES)).mean(axis=1) for j in pair)
    return percentile(float(one[0] - two[0]), (one - two)[1:], LEVEL)


def _band(judged: Judged, sensitivity: NDArray[np.float64], bootstraps: int, seed: int) -> Band:
    """Redraw scans, and see how sensitivities move. A sample is a weight for each scan."""
    octaves = round(np.log2(RATES[-1] / RATES[0]))
    rates = RATES[0] * 2.0 ** (np.arange(octaves * _POINTS_AN_OCTAVE + 1) / _POINTS_AN_OCTAVE)
    seven = np.searchsorted(rates, RATES)
    heights = _froc_curve.resampled(judged, _samples(judged, bootstraps, seed), rates)
    low, high = _bounds(heights)
    cpm_low, cpm_high = _bounds(heights[:, seven].mean(axis=1))
    return Band(
        rates=rates,
        mean=heights.mean(axis=0),
        low=low,
        high=high,
        at_rates=tuple(
            Interval(float(value), float(low[i]), float(high[i]), LEVEL)
            for value, i in zip(sensitivity, seven, strict=True)
        ),
        cpm=Interval(float(sensitivity.mean()), float(cpm_low), float(cpm_high), LEVEL),
        resamples=len(heights),
    )


def _samples(judged: Judged, bootstraps: int, seed: int) -> NDArray[np.float64]:
    """(S, scans): how often each sample holds each scan; those without a nodule are left out."""
    drawn = resample_weights(judged.counts.scans, None, bootstraps, seed)
    drawn = drawn[drawn @ judged.nodules > 0]
    if not len(drawn):
        raise InputError(
            f"no nodule is in any of the {bootstraps} samples of scans; ask for more bootstraps"
        )
    return drawn


def _bounds(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds along the first axis: the sorted samples that the challenge's script picks."""
    tail = (1 - LEVEL) / 2
    ordered, n = np.sort(samples, axis=0), len(samples)
    return ordered[int(np.floor(tail * n))], ordered[int(np.floor((1 - tail) * n))]
