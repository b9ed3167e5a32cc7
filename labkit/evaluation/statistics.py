"""How good scores are, how sure that is, and whether two methods differ.

Labels are 1 for malignant and 0 for benign; scores are higher when malignancy is more likely.
Nodules of one patient resemble each other, so patients, not nodules, are drawn again. Time and
memory grow with the nodules, LUNA-16's half a million too, and not with the pairs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score, roc_curve

from labkit.errors import InputError
from labkit.evaluation.predictions import DEFAULT_THRESHOLD, OneView, one_view, paired, select_view

RESAMPLES = 2000
"""Samples of a bootstrap where nobody says otherwise."""
MARGIN_AUC = 0.02
"""Studies of readers commonly allow 0.05, far more than the networks here differ by; on a few
hundred nodules much less than 0.02 cannot be shown. The paper puts MT-CNN 0.0155 above its best
rival: equivalence contradicts it only where `smallest_margin` is below that."""
TOST_LEVEL = 0.90
"""Of the interval that is two one-sided tests at 5 %."""
METHOD = "Holm"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Measure = Callable[[Floats], Floats]
"""(samples, patients) how often each sample holds each patient -> (samples, ...) a value each."""
_AT_ONCE = 1 << 22  # numbers of a block of samples: 32 MB
_WORTH_A_TABLE = 64  # numbers of it a nodule
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval of a level such as 0.95."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def plain(interval: Interval, digits: int = 6) -> dict[str, float]:
    """Return an interval as JSON has it."""
    return {k: round(float(getattr(interval, k)), digits) for k in ("value", "low", "high")}


# How good scores are.


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Ints, Floats]:
    """Return labels and scores as arrays of one length, finite, with both classes, or refuse."""
    y, s = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    if y.ndim != 1 or y.shape != s.shape:
        raise InputError(f"labels {y.shape} and scores {s.shape} must be vectors of one length")
    if not np.all(np.isfinite(s)):
        raise InputError(f"{int(np.sum(~np.isfinite(s)))} scores are not finite numbers")
    if not np.all(np.isin(y, (0, 1))):
        raise InputError("labels must be 0 (benign) or 1 (malignant)")
    if len(np.unique(y)) < 2:
        raise InputError("both benign and malignant nodules are needed to judge a score")
    return y.astype(np.int64), s


def _checked_runs(labels: ArrayLike, scores: ArrayLike) -> tuple[Ints, Floats]:
    found = [checked(labels, run) for run in np.atleast_2d(np.asarray(scores, dtype=float))]
    return found[0][0], np.stack([run for _, run in found])


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Compute the area under the ROC curve: how often malignant outscores benign, ties half.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(roc_auc_score(*checked(labels, scores)))


def area(malignant: Floats, benign: Floats) -> float:
    """Compute the AUC of two classes' scores in a tenth of `roc_auc`'s time, for large sets."""
    benign = np.sort(benign)
    twice = sum(int(np.searchsorted(benign, malignant, side).sum()) for side in _SIDES)
    return twice / (2 * len(malignant) * len(benign))


def roc(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Compute false and true positive rates of the ROC curve, from (0, 0) to (1, 1)."""
    false_positive, true_positive, _ = roc_curve(*checked(labels, scores))
    return false_positive, true_positive


class OperatingPoint(NamedTuple):
    """What a threshold gives: shares of malignant, benign, all nodules called rightly (III-E)."""

    sensitivity: float
    specificity: float
    accuracy: float


def sensitivity_specificity(
    labels: ArrayLike, scores: ArrayLike, threshold: float = DEFAULT_THRESHOLD
) -> OperatingPoint:
    """Compute rates at a threshold chosen beforehand; scores at or above it count as malignant."""
    y, s = checked(labels, scores)
    right = (s >= threshold) == (y == 1)
    return OperatingPoint(*(float(right[of].mean()) for of in (y == 1, y == 0, y >= 0)))


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Compute the mean squared difference of probability and label (Brier 1950); 0 is best."""
    y, p = checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise InputError("the Brier score needs probabilities between 0 and 1")
    return float(np.mean((p - y) ** 2))


# Patients drawn again.


@dataclass(frozen=True)
class Patients:
    """Whose each nodule is: (n,) numbers from 0 to count - 1, in the order of the names."""

    codes: Ints
    count: int

    @classmethod
    def of(cls, groups: ArrayLike | None, nodules: int) -> Patients:
        """Number each nodule's patient; None makes every nodule its own."""
        if groups is None:
            return cls(np.arange(nodules), nodules)
        names = np.asarray(groups)
        if names.shape != (nodules,):
            raise InputError(f"groups of shape {names.shape} do not fit {nodules} labels")
        # Hashed, since sorting half a million names to number them takes seconds.
        codes, distinct = pd.factorize(names, sort=True, use_na_sentinel=False)
        return cls(codes.astype(np.int64, copy=False), len(distinct))

    def total(self, values: ArrayLike) -> Floats:
        """Sum over each patient's nodules: (patients, ...) of (n, ...) values."""
        of_nodules = np.asarray(values, dtype=np.float64)
        columns = of_nodules.reshape(len(of_nodules), -1).T
        sums = [np.bincount(self.codes, column, self.count) for column in columns]
        return np.stack(sums, axis=1, dtype=np.float64).reshape(-1, *of_nodules.shape[1:])

    def distinct(self, chosen: NDArray[np.bool_]) -> int:
        """Count the patients that have one of the chosen (n,) nodules."""
        return int(np.count_nonzero(np.bincount(self.codes[chosen], minlength=self.count)))

    def resample(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Draw bootstrap samples in blocks (b, patients): how often each holds each patient.

        The same seed and number of patients draw the same, however large the blocks.
        """
        if resamples < 1:
            raise InputError("resamples must be 1 or more")
        rng = np.random.default_rng(seed)
        chances = np.full(self.count, 1 / self.count)
        step = max(1, _AT_ONCE // self.count)
        for size in np.diff([*range(0, resamples, step), resamples]):
            yield rng.multinomial(self.count, chances, size=size).astype(np.float64)

    def bootstrap(self, measure: Measure, resamples: int, seed: int) -> Floats:
        """Measure (1 + resamples, ...): the patients as they are, then every sample of them."""
        found = [measure(np.ones((1, self.count)))]
        return np.concatenate([*found, *map(measure, self.resample(resamples, seed))])


def resample_weights(nodules: int, groups: ArrayLike | None, resamples: int, seed: int) -> Floats:
    """Draw (resamples, nodules): how often a bootstrap sample of the groups holds each nodule."""
    patients = Patients.of(groups, nodules)
    return np.concatenate([b[:, patients.codes] for b in patients.resample(resamples, seed)])


def percentile_interval(samples: NDArray, level: float = 0.95) -> Interval:
    """Take the percentile interval of (1 + resamples,): the value, then its bootstrap samples."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples[1:], [tail, 1 - tail])
    return Interval(float(samples[0]), float(low), float(high), level)


def auc_of_samples(y: Ints, runs: Floats, patients: Patients, folds: Ints | None = None) -> Measure:
    """Prepare the AUC of samples of patients: (samples, patients) weights -> (samples,).

    Of labels `y` (n,) and finite scores `runs` (repeats, n), whose pairs count alike in all
    repeats; with `folds` (repeats, n) only pairs of one fold do. NaN of a sample without a class.
    """
    won = _won(y, runs, patients, folds)
    return lambda weights: _share(*won(weights).T)


def _won(y: Ints, runs: Floats, patients: Patients, folds: Ints | None = None) -> Measure:
    """(samples, 2): twice the wins, and the pairs; whole numbers, so that nothing is rounded."""
    fold_of = np.zeros(runs.shape, dtype=np.int64) if folds is None else folds
    counted = [_counts(np.where(of == k, y, -1), run, patients)
               for run, of in zip(runs, fold_of, strict=True) for k in np.unique(of)]  # fmt: skip
    well, ill = (np.stack([counts.sum(axis=0) for counts in of], axis=1)
                 for of in zip(*counted, strict=True))  # fmt: skip
    widest = max(benign.shape[0] for benign, _ in counted)

    def beaten(benign: Floats) -> Floats:
        held = np.cumsum(benign, axis=0)
        return held[:-1:2] + held[1::2]

    def along_scores(weights: Floats) -> Floats:
        drawn = np.ascontiguousarray(weights.T)
        won = ((beaten(benign @ drawn) * (malignant @ drawn)).sum(axis=0)
               for benign, malignant in counted)  # fmt: skip
        return np.sum(list(won), axis=0)

    twice = _in_blocks(along_scores, widest)
    largest = min(_AT_ONCE, _WORTH_A_TABLE * int((well + ill).sum()))
    if patients.count * max(patients.count, widest) <= largest:
        # A sample that draws patient p twice and q three times compares p's malignant nodules with
        # q's benign ones six times, so that the wins of pairs of patients are enough.
        table = sum(malignant.T @ beaten(benign.toarray()) for benign, malignant in counted)
        twice = lambda weights: ((weights @ table) * weights).sum(axis=1)  # noqa: E731
    pairs = lambda weights: ((weights @ ill) * (weights @ well)).sum(axis=1)  # noqa: E731
    return lambda weights: np.stack([twice(weights), pairs(weights)], axis=1)


def _share(twice: Floats, pairs: Floats) -> Floats:
    return np.divide(twice, 2 * pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _counts(y: Ints, keys: Floats, patients: Patients) -> tuple[csr_array, csr_array]:
    """Each patient's benign nodules about, and malignant ones at, the T distinct malignant keys.

    Benign (2 T + 1, patients) are those below the first key, tied with it, between it and the
    second, and so on; malignant (T, patients).
    """
    ill, well = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    levels, level = np.unique(keys[ill], return_inverse=True)
    among = sum(np.searchsorted(levels, keys[well], side) for side in _SIDES)

    def count(nodules: Ints, row: Any, rows: int) -> csr_array:
        cells = (np.ones(len(nodules)), (row, patients.codes[nodules]))
        return csr_array(cells, shape=(rows, patients.count))

    return count(well, among, 2 * len(levels) + 1), count(ill, level, len(levels))


def _in_blocks(measure: Measure, width: int) -> Measure:
    """The same measure of fewer samples at once, for one that holds `width` numbers a sample."""
    step = max(1, _AT_ONCE // (8 * width))  # a block that a processor's cache holds
    return lambda weights: np.concatenate(
        [measure(weights[i : i + step]) for i in range(0, len(weights), step)]
    )


# Intervals.


def bootstrap_auc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute the AUC with a percentile interval from a bootstrap over groups.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: (n,) of one run, or (repeats, n) of repeated cross-validation, whose AUCs are
            averaged within every resample, so that repeats do not pass for new patients. (The AUC
            of a nodule's mean score is that of another method, an ensemble, and is higher.)
        groups: (n,) patient of each nodule; None draws nodules.
        resamples, level, seed: of the bootstrap; a seed and groups always draw the same patients.
    """
    y, runs = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    found = patients.bootstrap(auc_of_samples(y, runs, patients), resamples, seed)
    return percentile_interval(found, level)


def bootstrap_auc_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute the AUC of `first` less that of `second` on the same nodules, by paired bootstrap.

    Arguments are those of `bootstrap_auc`.
    """
    (y, one), (_, two) = (_checked_runs(labels, scores) for scores in (first, second))
    patients = Patients.of(groups, len(y))
    won, lost = (_won(y, runs, patients) for runs in (one, two))

    def less(weights: Floats) -> Floats:
        (first, pairs), (second, _) = won(weights).T, lost(weights).T
        # Subtracted as whole numbers, so that scores of the same order differ by exactly 0.
        return _share(len(two) * first - len(one) * second, len(two) * pairs)

    return percentile_interval(patients.bootstrap(less, resamples, seed), level)


def bootstrap_rates(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    threshold: float = DEFAULT_THRESHOLD, resamples: int = RESAMPLES, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Compute sensitivity, specificity, accuracy and Brier score with intervals over groups.

    Arguments are those of `bootstrap_auc`. A rate of exactly 0 or 1 has the same value in every
    resample; its interval is Wilson's, with patients for trials.
    """
    y, runs = _checked_runs(labels, scores)
    right = ((runs >= threshold) == (y == 1)).mean(axis=0)
    squared = ((runs - y) ** 2).mean(axis=0)
    patients = Patients.of(groups, len(y))
    of = {"sensitivity": (right, y == 1), "specificity": (right, y == 0),
          "accuracy": (right, y >= 0), "brier": (squared, y >= 0)}  # fmt: skip
    sums = patients.total(np.stack([value * counted for value, counted in of.values()], axis=1))
    counts = patients.total(np.stack([counted for _, counted in of.values()], axis=1))

    def rates(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (weights @ sums) / (weights @ counts)

    intervals = {}
    found = patients.bootstrap(rates, resamples, seed)
    for (name, (_, counted)), samples in zip(of.items(), found.T, strict=True):
        intervals[name] = percentile_interval(samples)
        if name != "brier" and samples[0] in (0.0, 1.0):
            low, high = wilson(samples[0], patients.distinct(counted))
            intervals[name] = Interval(float(samples[0]), float(low), float(high))
    return intervals


def roc_band(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, seed: int = 0, points: int = 201,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Compute a ROC curve with a 95 % band: (false positive rate, sensitivity, low, high).

    The band holds at each rate by itself. Repeated runs (repeats, n) are averaged vertically.
    """
    y, runs = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    grid: Floats = np.linspace(0, 1, points, dtype=np.float64)

    # Between two malignant scores the curve is level, so only its points just before and at each
    # malignant score are needed, however many benign nodules there are.
    def of_samples(benign: csr_array, malignant: csr_array, weights: Floats) -> Floats:
        start = np.zeros((1, len(weights)))
        false, true = (np.vstack([start, np.cumsum(counts @ weights.T, axis=0)]).T
                       for counts in (benign, malignant))  # fmt: skip
        # At a threshold the false that tie with it come in one slope with what is found.
        true = np.repeat(true, 2, axis=1)
        curves = np.full((len(weights), len(grid)), np.nan)
        for i in np.flatnonzero((false[:, -1] > 0) & (true[:, -1] > 0)):
            curves[i] = np.interp(grid, false[i] / false[i, -1], true[i] / true[i, -1])
        return curves

    counted = [_counts(y, -run, patients) for run in runs]
    curves = [_in_blocks(partial(of_samples, *both), both[0].shape[0]) for both in counted]
    found = patients.bootstrap(
        lambda weights: np.mean([of(weights) for of in curves], axis=0), resamples, seed
    )
    low, high = np.nanquantile(found[1:], [(1 - 0.95) / 2, 1 - (1 - 0.95) / 2], axis=0)
    return grid, found[0], low, high


def small_sample_auc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None
) -> Interval:
    """Compute the AUC with an interval for few nodules: DeLong's variance on the logit scale.

    At an AUC of 0.90 and 10 malignant nodules the percentile bootstrap's 95 % interval holds the
    truth 85 times in 100, this one 94 times. Student's t has as many degrees of freedom as the
    rarer class has patients, less one. Arguments are those of `delong_test`.
    """
    y, runs = _checked_runs(labels, scores)
    value, shares = _components(y, runs)
    error = float(np.sqrt(max(0.0, _variance(y, shares, groups))))
    patients = Patients.of(groups, len(y))
    rarer = min(patients.distinct(y == label) for label in (0, 1))
    if error == 0 or value in (0.0, 1.0):  # all in order: nothing to take a variance from
        low, high = wilson(value, rarer)
    else:
        half = float(stats.t.ppf(0.975, rarer - 1)) * error / (value * (1 - value))
        low, high = special.expit(special.logit(value) + np.array([-half, half]))
    return Interval(value, float(low), float(high))


def wilson(share: ArrayLike, trials: ArrayLike) -> tuple[NDArray, NDArray]:
    """Compute Wilson's 95 % interval of a share, which need not be a whole number of the trials."""
    p, n = np.asarray(share, dtype=float), np.asarray(trials, dtype=float)
    z2 = float(stats.norm.ppf(0.975)) ** 2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


# Two methods compared on the same nodules.


class PairedTest(NamedTuple):
    """What DeLong's test finds."""

    difference: Interval  # first less second
    auc: tuple[float, float]
    z: float  # the difference in standard errors
    p_value: float


def delong_test(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, groups: ArrayLike | None = None
) -> PairedTest:
    """Test whether two scores of the same nodules have the same AUC.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988). With `groups` (n,), variances are
    summed over patients as in Obuchowski, Biometrics 53:567 (1997). Of repeated runs (repeats, n),
    which may be more of one method, the mean AUC is tested: each nodule's components are averaged
    over the repeats, so that repeats do not pass for new nodules. Raises InputError for fewer than
    two nodules, or patients, of a class.
    """
    (y, one), (_, two) = (_checked_runs(labels, scores) for scores in (first, second))
    parts = [_components(y, runs) for runs in (one, two)]
    auc = (parts[0][0], parts[1][0])
    difference = auc[0] - auc[1]
    error = float(np.sqrt(_variance(y, parts[0][1] - parts[1][1], groups)))
    half = float(stats.norm.ppf(0.975)) * error
    # Without an error the scores order every pair alike: nothing to test unless the AUCs differ.
    z = difference / error if error else float(np.copysign(np.inf, difference) if difference else 0)
    interval = Interval(difference, difference - half, difference + half)
    return PairedTest(interval, auc, z, float(2 * stats.norm.sf(abs(z))))


def _components(y: Ints, runs: Floats) -> tuple[float, Floats]:
    """AUC, and each nodule's share of wins against the other class: means over repeats."""
    shares = np.empty(runs.shape)
    for share, run in zip(shares, runs, strict=True):
        # Midranks give the wins with ties counted half, in n log n.
        malignant, benign = run[y == 1], run[y == 0]
        ranks = stats.rankdata(np.concatenate([malignant, benign]))
        n = len(malignant)
        share[y == 1] = (ranks[:n] - stats.rankdata(malignant)) / len(benign)
        share[y == 0] = 1 - (ranks[n:] - stats.rankdata(benign)) / n
    return float(np.mean([share[y == 1].mean() for share in shares])), shares.mean(axis=0)


def _variance(y: Ints, shares: Floats, groups: ArrayLike | None) -> float:
    """Variance of an AUC from its components, or of a difference from their differences."""
    n1, n0 = int(y.sum()), int((1 - y).sum())
    centred = shares - np.where(y == 1, shares[y == 1].mean(), shares[y == 0].mean())
    if groups is None:
        if min(n1, n0) < 2:
            raise InputError("the test needs two or more nodules of each class")
        return float(centred[y == 1].var() / (n1 - 1) + centred[y == 0].var() / (n0 - 1))
    patients = Patients.of(groups, len(y))
    malignant, benign = (patients.total(centred * (y == label)) for label in (1, 0))
    with_malignant, with_benign = (patients.distinct(y == label) for label in (1, 0))
    if min(with_malignant, with_benign, patients.count) < 2:
        raise InputError("the test needs two or more patients with nodules of each class")
    s11 = with_malignant / ((with_malignant - 1) * n1) * np.sum(malignant**2)
    s00 = with_benign / ((with_benign - 1) * n0) * np.sum(benign**2)
    s10 = patients.count / (patients.count - 1) * np.sum(malignant * benign)
    return float(s11 / n1 + s00 / n0 + 2 * s10 / (n1 * n0))


class Equivalence(NamedTuple):
    """Whether a difference is shown to be no larger than a margin."""

    margin: float
    shown: bool
    smallest_margin: float  # any above would have been shown; one chosen by it tests nothing
    in_words: str


def equivalence(difference: Interval, margin: float = MARGIN_AUC) -> Equivalence:
    """Test a paired difference against a margin: its interval, of `TOST_LEVEL`, lies within.

    Schuirmann, J Pharmacokinet Biopharm 15:657 (1987).

    >>> equivalence(Interval(0.004, -0.006, 0.014, level=0.9)).in_words
    'no difference larger than 0.02: +0.004 (90 % interval -0.006 to +0.014); shown for margins
    above 0.014'
    """
    low, high = difference.low, difference.high
    if not (np.isfinite(margin) and margin > 0):
        raise InputError(f"the margin is {margin}; give a positive difference that does not matter")
    if not np.all(np.isfinite([low, high])):
        raise InputError("the difference has no finite interval to test")
    smallest = max(abs(low), abs(high))
    shown = bool(smallest < margin)
    found = "no difference larger than" if shown else "not shown that the difference is within"
    words = (f"{found} {margin:g}: {difference.value:+.3f} ({100 * difference.level:.0f} % "
             f"interval {low:+.3f} to {high:+.3f}); shown for margins above {smallest:.3f}"
             )  # fmt: skip
    return Equivalence(margin, shown, smallest, words)


class CorrectedTest(NamedTuple):
    """What the corrected t-test finds."""

    difference: Interval  # the mean over folds and repeats
    t: float
    p_value: float
    degrees_of_freedom: int
    test_over_train: float


def resampled_t_test(differences: ArrayLike, test_over_train: float) -> CorrectedTest:
    """Test differences of folds with the corrected resampled t-test.

    The folds of repeated cross-validation share their nodules: the variance of the mean of n = k r
    differences, one of each fold and repeat, is not s^2 / n but s^2 (1 / n + n_test / n_train).
    Nadeau and Bengio, Machine Learning 52:239 (2003); Bouckaert and Frank, PAKDD 2004.
    `test_over_train` is 1 / 9 for ten folds, 0 for the plain t-test.
    """
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or len(d) < 2 or not np.all(np.isfinite(d)):
        raise InputError("the test needs a vector of two or more finite differences")
    if not (np.isfinite(test_over_train) and test_over_train >= 0):
        raise InputError(f"n_test / n_train cannot be {test_over_train}; give 0 or more")
    mean, freedom = float(d.mean()), len(d) - 1
    if np.ptp(d) <= 1e-12:  # rounding
        if abs(mean) > 1e-12:
            raise InputError(f"all {len(d)} differences are {mean:.6g}: they have no variance")
        return CorrectedTest(Interval(0.0, 0.0, 0.0), 0.0, 1.0, freedom, test_over_train)
    error = float(np.sqrt(d.var(ddof=1) * (1 / len(d) + test_over_train)))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(mean / error), freedom))
    interval = Interval(mean, mean - half, mean + half)
    return CorrectedTest(interval, mean / error, p_value, freedom, test_over_train)


def holm(p_values: Mapping[Any, float], *, size: int | None = None) -> pd.DataFrame:
    """Correct p-values by Holm's step-down method: any false finding has a chance of 5 % at most.

    It holds however the tests depend on each other. Holm, Scand J Statist 6:65 (1979). The family
    is all comparisons that were made, not those that are shown: `size` counts those not yet
    measured, too, as p-values of 1. Returns one row a comparison: `comparison`, `p_value`,
    `p_adjusted`, `found` (at 0.05).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})["p_adjusted"].tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.array(list(p_values.values()), dtype=float)
    if len(p) == 0:
        raise InputError("there are no p-values to correct")
    if outside := [k for k, v in p_values.items() if not 0 <= v <= 1]:  # NaN is outside, too
        raise InputError(f"{outside[0]}: {p_values[outside[0]]} is no p-value")
    family = len(p) if size is None else size
    if family < len(p):
        raise InputError(f"{len(p)} p-values in a family of {family}; give the size of all of it")
    order = np.argsort(p, kind="stable")
    steps = (family - np.arange(len(p))) * p[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    columns = {"p_value": p, "p_adjusted": adjusted, "found": adjusted <= 0.05}
    return pd.DataFrame({"comparison": list(p_values), **columns})


# From predictions, the tables that `crossval.run` returns, to all of this; errors are those of
# `predictions.one_view` and `paired`.


def scores(predictions: pd.DataFrame, view: str) -> tuple[Ints, Floats, NDArray[Any]]:
    """Return labels (n,), probabilities (repeats, n) and patients (n,) of one view."""
    of = one_view(predictions, view)
    return of.labels, of.probabilities, of.patients


def summarise(
    predictions: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Compute pooled out-of-fold metrics of every view, with 95 % intervals over patients.

    view -> {"nodules", "patients", "auc", "sensitivity", "specificity", "accuracy", "brier"}, the
    metrics as {"value", "low", "high"}.
    """
    summary: dict[str, dict[str, Any]] = {}
    for view in predictions["view"].astype(str).unique():
        labels, runs, patients = scores(predictions, view)
        drawn: dict[str, Any] = {"groups": patients, "resamples": resamples, "seed": seed}
        measured = {"auc": bootstrap_auc(labels, runs, **drawn)}
        measured |= bootstrap_rates(labels, runs, threshold=threshold, **drawn)
        summary[view] = {"nodules": len(labels), "patients": len(np.unique(patients))}
        summary[view] |= {name: plain(found, 8) for name, found in measured.items()}
    return summary


def table(
    runs: dict[str, pd.DataFrame], views: tuple[str, ...] = ("fused",),
    threshold: float = DEFAULT_THRESHOLD,
) -> pd.DataFrame:  # fmt: skip
    """Compute metrics with intervals of several runs as text, one row a run and view.

    A view that a run lacks is left out; "size_only" is shown once for runs that share their folds.
    """
    baselines = {"size_only": "size only", "detector": "detector's score"}
    lines: list[dict[str, str]] = []
    for name, predictions in runs.items():
        present = set(predictions["view"].astype(str))
        for view in (v for v in views if v in present):
            measured = summarise(select_view(predictions, view), threshold=threshold)[view]
            line = {"method": {"fused": name, **baselines}.get(view, f"{name}, view {view}")}
            for metric in ("auc", "sensitivity", "specificity", "accuracy", "brier"):
                line[metric] = str(Interval(**measured[metric]))
            if line not in lines:
                lines.append(line)
    return pd.DataFrame(lines)


def compare(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None
) -> dict[str, Any]:
    """Compare two runs on the same nodules: AUC difference, bootstrap interval, DeLong's test.

    Both are clustered by patient, and of the mean AUC over repeats. `second_view` None is `view`.
    """
    one, two = paired(first, second, view, second_view)
    both = (one.labels, one.probabilities, two.probabilities)
    boot = bootstrap_auc_difference(*both, groups=one.patients)
    test = delong_test(*both, groups=one.patients)
    found = test.difference
    return {
        "auc_difference": {"value": boot.value, "low": boot.low, "high": boot.high},
        "delong": {
            "difference": found.value, "low": found.low, "high": found.high,
            "z": test.z, "p_value": test.p_value,
        },
    }  # fmt: skip


def within_folds_auc(
    predictions: pd.DataFrame, view: str = "fused", *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute how often a malignant nodule outscores a benign one of its own fold, ties half.

    Pooled AUC also compares nodules of different folds, and so costs a method whose scores drift
    from network to network, which nobody who uses one trained model would pay; show both. Forman
    and Scholz, SIGKDD Explorations 12(1):49 (2010). Pairs of all folds and repeats count alike.
    """
    return within_folds_difference(
        one_view(predictions, view), None, resamples=resamples, seed=seed
    )


def within_folds_difference(
    first: OneView, second: OneView | None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the AUC within folds of the first run less the second's (None: less nothing).

    By paired bootstrap over patients, of runs from `predictions.paired`; folds may be others.
    """
    patients = Patients.of(first.patients, len(first.labels))
    aucs = [auc_of_samples(of.labels, of.probabilities, patients, of.folds)
            for of in (first, second) if of is not None]  # fmt: skip
    found = patients.bootstrap(
        lambda drawn: aucs[0](drawn) - (aucs[1](drawn) if len(aucs) == 2 else 0), resamples, seed
    )
    if np.isnan(found[0]):
        raise InputError("no fold has both benign and malignant nodules: nothing to compare in it")
    return percentile_interval(found)


def corrected_t_test(
    first: OneView, second: OneView, *, test_over_train: float | None = None
) -> CorrectedTest:
    """Compare the AUCs of two runs on the same folds with the corrected resampled t-test.

    It speaks of trainings on other samples of nodules like these, where the bootstrap and DeLong's
    test speak of other patients before the networks that were trained. How strongly folds resemble
    each other is assumed, since nothing can estimate it without bias (Bengio and Grandvalet, JMLR
    5:1089, 2004). Of two equally good simulated learners it found a difference at 5 % in 1 to 6 of
    100 cohorts, and the plain t-test in 25 to 57. `test_over_train` None takes 1 / (folds - 1): of
    a run of only its first folds it is larger, and the test more careful, than need be.
    """
    if not np.array_equal(first.folds, second.folds):
        raise InputError("some predictions have no partner in the other run's fold: the test needs "
                         "runs on the same cohort, split and seed")  # fmt: skip
    of_repeat = [np.unique(fold_of, return_counts=True) for fold_of in first.folds]
    folds = [len(numbers) for numbers, _ in of_repeat]
    sizes = np.concatenate([counts for _, counts in of_repeat])
    if min(folds) < max(folds):
        raise InputError(f"repeats have {min(folds)} to {max(folds)} folds, and not equally many")
    if sizes.max() > 2 * sizes.min():  # beyond this, their variances cannot pass for one
        raise InputError(f"folds hold {sizes.min()} to {sizes.max()} nodules and are not of about "
                         "one size: use fewer folds or the bootstrap over patients")  # fmt: skip
    if test_over_train is None:
        if folds[0] < 2:
            raise InputError("one fold says nothing about n_test / n_train; pass test_over_train")
        test_over_train = 1 / (folds[0] - 1)
    differences = []
    for repeat, (numbers, _) in enumerate(of_repeat):
        for fold in numbers:
            inside = first.folds[repeat] == fold
            try:
                a, b = (roc_auc(of.labels[inside], of.probabilities[repeat, inside])
                        for of in (first, second))  # fmt: skip
            except InputError as error:
                raise InputError(f"repeat {repeat}, fold {fold}: {error}") from None
            differences.append(a - b)
    return resampled_t_test(differences, test_over_train)
