"""How good scores are, how sure that is, and whether two methods differ.

Labels are 1 for malignant and 0 for benign; scores are higher when malignancy is more likely.
Nodules of one patient resemble each other, so patients, not nodules, are drawn again. Time and
memory grow with the nodules, LUNA-16's half a million too, and with the pairs of patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from sklearn.metrics import roc_auc_score, roc_curve

from labkit.errors import InputError
from labkit.evaluation.predictions import DEFAULT_THRESHOLD, OneView, one_view, paired, select_view
from labkit.profiles import RESAMPLES as RESAMPLES
from labkit.training.config import TrainingConfig

MARGIN_AUC = 0.01
"""Differences below it do not matter between twins (`paper.declared.MARGIN` has the reason)."""
TOST_LEVEL = 0.90
"""Of the interval that is two one-sided tests at 5 %."""
LEAST_TRAININGS = 3
"""Repeats from which an interval can speak of other trainings, too."""
THESE_NETWORKS, OTHER_NETWORKS = "other patients, these networks", "other patients and trainings"
"""What the interval of a difference holds for."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Measure = Callable[[Floats], Floats]
"""(samples, patients) how often each sample holds each patient -> (samples, ...) a value each."""
MOST_PATIENTS = 10_000
"""Of a bootstrap of AUCs, which counts the wins of every pair of them: 800 MB."""
_AT_ONCE = 1 << 22  # numbers of a block of samples: 32 MB


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
    """Return labels and scores as arrays, or refuse what is not finite, of one length or class."""
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


def _checked_runs(labels: ArrayLike, *scores: ArrayLike) -> tuple[Ints, list[Floats]]:
    """Labels, and a matrix (repeats, n) of each method's scores."""
    methods = [np.atleast_2d(np.asarray(of, dtype=float)) for of in scores]
    y, *_ = (checked(labels, run)[0] for runs in methods for run in runs)
    return y, methods


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Compute the area under the ROC curve: how often malignant outscores benign, ties half.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(roc_auc_score(*checked(labels, scores)))


def area(malignant: Floats, benign: Floats) -> float:
    """Compute the AUC of two classes' scores in a tenth of `roc_auc`'s time, for large sets."""
    ranks = stats.rankdata(np.concatenate([malignant, benign]))[: len(malignant)]
    won = ranks.sum() - len(malignant) * (len(malignant) + 1) / 2
    return float(won / (len(malignant) * len(benign)))


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
        sums = np.zeros((self.count, *of_nodules.shape[1:]))
        np.add.at(sums, self.codes, of_nodules)
        return sums

    def distinct(self, chosen: NDArray[np.bool_]) -> int:
        """Count the patients that have one of the chosen (n,) nodules."""
        return len(np.unique(self.codes[chosen]))

    def resample(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Draw bootstrap samples in blocks (b, patients): how often each holds each patient."""
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
    codes, count = patients.codes, patients.count
    if count > MOST_PATIENTS:
        raise InputError(f"{count} groups are more than the {MOST_PATIENTS} for which a bootstrap "
                         "has memory; give `groups`, each nodule's patient")  # fmt: skip
    # A sample that draws patient p twice and q three times compares p's malignant nodules with
    # q's benign ones six times, so that the wins of pairs of patients are enough.
    twice, held = np.zeros((count, count)), []
    for run, fold_of in zip(runs, np.zeros(runs.shape) if folds is None else folds, strict=True):
        for k in np.unique(fold_of):
            ill, well = (np.flatnonzero((fold_of == k) & (y == label)) for label in (1, 0))
            # Benign nodules below the lowest malignant score, tied with it, between it and the next
            # one, and so on, patient by patient.
            scores, rank = np.unique(run[ill], return_inverse=True)
            place = np.searchsorted(scores, run[well]) + np.searchsorted(scores, run[well], "right")
            cells, size = place * count + codes[well], (2 * len(scores) + 1) * count
            upto = np.bincount(cells, minlength=size).reshape(-1, count).cumsum(axis=0)
            np.add.at(twice, codes[ill], (upto[:-1:2] + upto[1::2])[rank])
            held.append([np.bincount(codes[of], minlength=count) for of in (ill, well)])
    malignant, benign = np.array(held, dtype=np.float64).transpose(1, 2, 0)

    def won(weights: Floats) -> Floats:
        pairs = ((weights @ malignant) * (weights @ benign)).sum(axis=1)
        return np.stack([((weights @ twice) * weights).sum(axis=1), pairs], axis=1)

    return won


def _share(twice: Floats, pairs: Floats) -> Floats:
    return np.divide(twice, 2 * pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


# Intervals.


def bootstrap_auc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute the AUC with a 95 % percentile interval from a bootstrap over groups.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: (n,) of one run, or (repeats, n), whose AUCs are averaged within every resample, so
            that repeats do not pass for new patients. (The AUC of a nodule's mean score is that of
            an ensemble, and higher.)
        groups: (n,) patient of each nodule, `MOST_PATIENTS` at most; None draws nodules.
        resamples, seed: of the bootstrap; a seed and groups always draw the same patients.
    """
    y, (runs,) = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    return percentile_interval(
        patients.bootstrap(auc_of_samples(y, runs, patients), resamples, seed)
    )


def bootstrap_auc_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute the AUC of `first` less that of `second` on the same nodules, by paired bootstrap.

    Over patients, with the networks as they are; arguments are those of `bootstrap_auc`.
    """
    y, runs = _checked_runs(labels, first, second)
    patients = Patients.of(groups, len(y))
    return percentile_interval(_differences(y, runs, [None, None], patients, resamples, seed))


def _differences(
    y: Ints, runs: Sequence[Floats], folds: Sequence[Ints | None], patients: Patients,
    resamples: int, seed: int, trainings: bool = False,
) -> Floats:  # fmt: skip
    """(1 + resamples,) AUCs within `folds` (None: pooled), the first method's less the second's."""
    repeats = len(runs[0])
    which: list[Any] = [[r] for r in range(repeats)] if trainings else [slice(None)]
    parts = [[_won(y, of[k], patients, None if fold_of is None else fold_of[k]) for k in which]
             for of, fold_of in zip(runs, folds, strict=True)]  # fmt: skip
    found = patients.bootstrap(
        lambda weights: np.array([[won(weights) for won in of] for of in parts]).swapaxes(0, 2),
        resamples, seed,
    )  # fmt: skip
    times = np.ones((1 + resamples, len(which)))
    if trainings:
        # Each sample also draws repeats, the same of both methods, independently of patients (Owen,
        # Ann Appl Stat 1:386, 2007: if anything too wide), and one fewer than there are, since the
        # variance of few would be too small (Rao and Wu, JASA 83:231, 1988).
        rng = np.random.default_rng([seed, repeats])
        times[1:] = rng.multinomial(repeats - 1, np.full(repeats, 1 / repeats), resamples)
    (first, pairs), (second, others) = np.einsum("srmk,sr->mks", found, times)
    # Subtracted as whole numbers, so that scores of the same order differ by exactly 0.
    return _share(others * first - pairs * second, pairs * others)


def bootstrap_rates(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    threshold: float = DEFAULT_THRESHOLD, resamples: int = RESAMPLES, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Compute sensitivity, specificity, accuracy and Brier score with intervals over groups.

    Arguments are those of `bootstrap_auc`. A rate of exactly 0 or 1 has the same value in every
    resample; its interval is Wilson's, with patients for trials.
    """
    y, (runs,) = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    right = ((runs >= threshold) == (y == 1)).mean(axis=0)
    found = np.stack([right, right, right, ((runs - y) ** 2).mean(axis=0)], axis=1)
    counted = np.stack([y == 1, y == 0, y >= 0, y >= 0], axis=1)
    sums, counts = patients.total(found * counted), patients.total(counted)

    def rates(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (weights @ sums) / (weights @ counts)

    intervals = {}
    names, samples = (*OperatingPoint._fields, "brier"), patients.bootstrap(rates, resamples, seed)
    for name, of, nodules in zip(names, samples.T, counted.T, strict=True):
        intervals[name] = percentile_interval(of)
        if name != "brier" and of[0] in (0.0, 1.0):
            low, high = wilson(of[0], patients.distinct(nodules))
            intervals[name] = Interval(float(of[0]), float(low), float(high))
    return intervals


def roc_band(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None,
    resamples: int = RESAMPLES, seed: int = 0, points: int = 201,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Compute a ROC curve with a 95 % band: (false positive rate, sensitivity, low, high).

    The band holds at each rate by itself. Repeated runs (repeats, n) are averaged vertically.
    """
    y, (runs,) = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    grid: Floats = np.linspace(0, 1, points, dtype=np.float64)
    down = np.argsort(-runs, axis=1)
    ends = [
        np.flatnonzero(np.diff(run[of], append=-np.inf)) for run, of in zip(runs, down, strict=True)
    ]

    def curve(weights: Floats) -> Floats:
        each = []
        for of, last in zip(down, ends, strict=True):
            drawn = weights[patients.codes[of]]
            found, called = np.cumsum(drawn * y[of])[last], np.cumsum(drawn)[last]
            true, false = (np.append(0, counts) for counts in (found, called - found))
            if not (true[-1] and false[-1]):
                return np.full(points, np.nan)
            each.append(np.interp(grid, false / false[-1], true / true[-1]))
        return np.mean(each, axis=0)

    samples = patients.bootstrap(lambda weights: np.array([*map(curve, weights)]), resamples, seed)
    low, high = np.nanquantile(samples[1:], [0.025, 0.975], axis=0)
    return grid, samples[0], low, high


def small_sample_auc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None
) -> Interval:
    """Compute the AUC with an interval for few nodules: DeLong's variance on the logit scale.

    At an AUC of 0.90 and 10 malignant nodules the bootstrap's 95 % interval holds the truth 85
    times in 100, this one 94. Student's t has the rarer class's patients, less one, as degrees of
    freedom. Arguments are those of `delong_test`.
    """
    y, (runs,) = _checked_runs(labels, scores)
    value, _, shares = _components(y, runs)
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
    z: float  # the difference in standard errors
    p_value: float


def delong_test(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, groups: ArrayLike | None = None
) -> PairedTest:
    """Test whether two scores of the same nodules have the same AUC.

    DeLong et al., Biometrics 44:837 (1988): var(AUC) = var(V1) / n1 + var(V0) / n0, where V1 is a
    malignant nodule's share of pairs won, V0 a benign one's. For clustered data (`groups`, (n,)) V
    is summed by patient, and the covariance of a patient's sums is added: Obuchowski, Biometrics
    53:567 (1997). Of repeated runs (repeats, n) the mean AUC is tested: V is averaged over repeats,
    so that they do not pass for new nodules. InputError: fewer than two of a class.
    """
    y, runs = _checked_runs(labels, first, second)
    return _paired_test(y, runs, [None, None], groups)


def _paired_test(
    y: Ints, runs: Sequence[Floats], folds: Sequence[Ints | None], groups: ArrayLike | None,
    trainings: bool = False,
) -> PairedTest:  # fmt: skip
    """DeLong's test of the pairs within `folds` (None: all), and of other `trainings`, too."""
    one, two = (_components(y, *of) for of in zip(runs, folds, strict=True))
    difference, apart = one[0] - two[0], one[1] - two[1]
    variance = _variance(y, one[2] - two[2], groups)
    law: Any = stats.norm
    if trainings and np.ptp(apart):
        # The variance of the repeats' mean is added, as that of readers is in studies of several
        # (Obuchowski and Rockette, Commun Stat Simul 24:285, 1995); degrees of freedom are
        # Satterthwaite's.
        between = float(np.var(apart, ddof=1)) / len(apart)
        variance += between
        law = stats.t((len(apart) - 1) * (variance / between) ** 2)
    error = float(np.sqrt(variance))
    half = float(law.ppf(0.975)) * error
    # Without an error the scores order every pair alike: nothing to test unless the AUCs differ.
    z = difference / error if error else float(np.copysign(np.inf, difference) if difference else 0)
    interval = Interval(difference, difference - half, difference + half)
    return PairedTest(interval, z, float(2 * law.sf(abs(z))))


def _components(y: Ints, runs: Floats, folds: Ints | None = None) -> tuple[float, Floats, Floats]:
    """AUC within folds, that of each repeat, and (n,) nodules' share of wins less the expected."""
    won, pairs = np.zeros((2, *runs.shape))
    for r, run in enumerate(runs):
        fold_of = np.zeros(len(y)) if folds is None else folds[r]
        for k in np.unique(fold_of):
            ill, well = (np.flatnonzero((fold_of == k) & (y == label)) for label in (1, 0))
            # Midranks give the wins with ties counted half, in n log n.
            ranks = stats.rankdata(np.concatenate([run[ill], run[well]]))
            won[r, ill] = ranks[: len(ill)] - stats.rankdata(run[ill])
            won[r, well] = len(ill) - (ranks[len(ill) :] - stats.rankdata(run[well]))
            pairs[r, ill], pairs[r, well] = len(well), len(ill)
    # Shares are means over repeats; a nodule whose fold holds more of the other class weighs more.
    malignant = y == 1
    wins, total = (of[:, malignant].sum(axis=1) for of in (won, pairs))
    auc = float(wins.sum() / total.sum())
    share = (won - auc * pairs).sum(axis=0) / total.sum()
    return auc, wins / total, share * np.where(malignant, malignant.sum(), (~malignant).sum())


def _variance(y: Ints, shares: Floats, groups: ArrayLike | None) -> float:
    """Variance of an AUC from its components, or of a difference from their differences."""
    n1, n0 = int(y.sum()), int((1 - y).sum())
    if groups is None:
        if min(n1, n0) < 2:
            raise InputError("the test needs two or more nodules of each class")
        return float(shares[y == 1].var() / (n1 - 1) + shares[y == 0].var() / (n0 - 1))
    patients = Patients.of(groups, len(y))
    malignant, benign = (patients.total(shares * (y == label)) for label in (1, 0))
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

    >>> equivalence(Interval(0.002, -0.003, 0.007, level=0.9)).in_words
    'no difference larger than 0.01: +0.002 (90 % interval -0.003 to +0.007); shown for margins
    above 0.007'
    """
    low, high = difference.low, difference.high
    if not (np.isfinite(margin) and margin > 0):
        raise InputError(f"the margin is {margin}; give a positive difference that does not matter")
    if not np.all(np.isfinite([low, high])):
        raise InputError("the difference has no finite interval to test")
    smallest = max(abs(low), abs(high))
    shown = bool(smallest < margin)
    found = "no difference larger than" if shown else "not shown that the difference is within"
    level = f"{100 * difference.level:.0f} % interval"
    words = (f"{found} {margin:g}: {difference.value:+.3f} ({level} {low:+.3f} to {high:+.3f}); "
             f"shown for margins above {smallest:.3f}")  # fmt: skip
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
    `test_over_train` 0 is the plain t-test.
    """
    d = np.asarray(differences, dtype=float)
    if d.ndim != 1 or len(d) < 2 or not np.all(np.isfinite(d)):
        raise InputError("the test needs a vector of two or more finite differences")
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


def share_of_test(folds: int, held_out: float = TrainingConfig.validation_fraction) -> float:
    """Return n_test / n_train of cross-validation whose networks learn from all but `held_out`.

    >>> round(share_of_test(10), 3)
    0.131
    """
    return 1 / ((1 - held_out) * (folds - 1))


def holm(p_values: Mapping[Any, float], *, size: int | None = None) -> pd.DataFrame:
    """Correct p-values by Holm's step-down method: any false finding has a chance of 5 % at most.

    The smallest of m is multiplied by m, the next by m - 1, ..., none falls below the one before.
    Holm, Scand J Statist 6:65 (1979). The family is all comparisons that were made, not those that
    are shown: `size` counts those not yet measured, too, as p-values of 1. One row a comparison:
    `comparison`, `p_value`, `p_adjusted`, `found` (at 0.05).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})["p_adjusted"].tolist()
    [0.03, 0.06, 0.06]
    """
    if not p_values:
        raise InputError("there are no p-values to correct")
    if outside := [k for k, v in p_values.items() if not 0 <= v <= 1]:  # NaN is outside, too
        raise InputError(f"{outside[0]}: {p_values[outside[0]]} is no p-value")
    family = size or len(p_values)
    if family < len(p_values):
        raise InputError(f"{len(p_values)} p-values in a family of {family}; give the size of all "
                         "of it")  # fmt: skip
    p = pd.Series(list(p_values.values()), dtype=float).sort_values(kind="stable")
    steps = (p * (family - np.arange(len(p)))).cummax().clip(upper=1)
    table = pd.DataFrame({"p_value": p, "p_adjusted": steps, "found": steps <= 0.05}).sort_index()
    table.insert(0, "comparison", list(p_values))
    return table


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
    """Compute out-of-fold metrics of every view, with 95 % intervals over patients.

    view -> {"nodules", "patients", "auc_within_folds", and pooled over folds "auc", "sensitivity",
    "specificity", "accuracy", "brier"}, the metrics as {"value", "low", "high"}.
    """
    summary: dict[str, dict[str, Any]] = {}
    for view in predictions["view"].astype(str).unique():
        only = select_view(predictions, view)
        labels, runs, patients = scores(only, view)
        drawn: dict[str, Any] = {"groups": patients, "resamples": resamples, "seed": seed}
        inside = within_folds_auc(only, view, resamples=resamples, seed=seed)
        measured = {"auc_within_folds": inside, "auc": bootstrap_auc(labels, runs, **drawn)}
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
    known = {"size_only": "size only", "detector": "detector's score"}
    lines: list[dict[str, str]] = []
    for name, predictions in runs.items():
        for view in (v for v in views if v in set(predictions["view"].astype(str))):
            measured = summarise(select_view(predictions, view), threshold=threshold)[view]
            line = {"method": {"fused": name, **known}.get(view, f"{name}, view {view}")}
            line |= {k: str(Interval(**of)) for k, of in measured.items() if isinstance(of, dict)}
            lines += [line] if line not in lines else []
    return pd.DataFrame(lines)


def compare(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None,
    *, resamples: int = RESAMPLES, test_over_train: float | None = None,
    margin: float = MARGIN_AUC,
) -> dict[str, Any]:  # fmt: skip
    """Compare two runs on the same nodules by every test that the course knows, by patient.

    `view` is the first's, `second_view` (None: `view`) the second's, `margin` the equivalence's.

    Returns:
        Of the first less the second, as plain values: `within_folds_difference`, the primary
        estimate, with its 95 % interval and `p_value` (`within_folds_test`); `holds_for`, whether
        those speak of other trainings, too; `equivalence` of it; and beside it, pooled over folds,
        `auc_difference` and `delong`, and `corrected_t_test` over folds, or why there is none.
    """
    one, two = paired(first, second, view, second_view)
    both = (one.labels, one.probabilities, two.probabilities)
    pooled = bootstrap_auc_difference(*both, groups=one.patients, resamples=resamples)
    delong = delong_test(*both, groups=one.patients)
    samples = _within_samples(one, two, resamples, seed=0)
    same = equivalence(_within(samples, TOST_LEVEL), margin)
    try:
        t = corrected_t_test(one, two, test_over_train=test_over_train)._asdict()
        over_folds: dict[str, Any] = plain(t.pop("difference")) | {"p_value": t.pop("p_value")}
        over_folds |= {k: round(v, 6) for k, v in t.items()}
    except InputError as error:  # the reader is told, and the figure has everything else
        over_folds = {"not_computed": str(error)}
    ends = plain(delong.difference, 8)
    return {
        "within_folds_difference": plain(_within(samples), 8),
        "p_value": within_folds_test(one, two).p_value,
        "holds_for": OTHER_NETWORKS if retrained(one, two) else THESE_NETWORKS,
        "auc_difference": plain(pooled, 8),
        "delong": {"difference": ends.pop("value"), **ends, "z": delong.z,
                   "p_value": delong.p_value},
        "corrected_t_test": over_folds,
        "equivalence": same._asdict() | {"smallest_margin": round(same.smallest_margin, 6)},
    }  # fmt: skip


def correct(comparisons: Mapping[str, dict[str, Any]], size: int | None = None) -> dict[str, Any]:
    """Add Holm's `p_holm` and `found` to a family of `compare`; return how large the family is.

    `size` is that of the whole family, where some of it is not measured yet; None takes those
    given.
    """
    family: dict[str, Any] = {"method": "Holm", "size": size or len(comparisons)}
    if not comparisons:
        return family
    corrected = holm({k: pair["p_value"] for k, pair in comparisons.items()}, size=size)
    for pair, p in zip(comparisons.values(), corrected["p_adjusted"].tolist(), strict=True):
        pair |= {"p_holm": p, "found": p <= 0.05}
    return family | {"of": "DeLong's test by patient, of pairs within folds"}


def within_folds_auc(
    predictions: pd.DataFrame, view: str = "fused", *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute how often a malignant nodule outscores a benign one of its own fold, ties half.

    Pooled AUC also compares nodules of different folds, and so costs a method whose scores drift
    from network to network, which nobody who uses one trained model would pay; show both. Forman
    and Scholz, SIGKDD Explorations 12(1):49 (2010). Pairs of all folds and repeats count alike.
    """
    of = one_view(predictions, view)
    patients = Patients.of(of.patients, len(of.labels))
    measure = auc_of_samples(of.labels, of.probabilities, patients, of.folds)
    return _within(patients.bootstrap(measure, resamples, seed))


def within_folds_difference(
    first: OneView, second: OneView, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the AUC within folds of the first run less the second's, by paired bootstrap.

    Over patients, and from `LEAST_TRAININGS` repeats of both on over trainings, too; of runs from
    `predictions.paired`, whose folds may be others.
    """
    return _within(_within_samples(first, second, resamples, seed))


def _sides(first: OneView, second: OneView) -> tuple[Ints, list[Floats], list[Ints | None]]:
    both = (first, second)
    return first.labels, [of.probabilities for of in both], [of.folds for of in both]


def _within_samples(first: OneView, second: OneView, resamples: int, seed: int) -> Floats:
    patients = Patients.of(first.patients, len(first.labels))
    y, runs, folds = _sides(first, second)
    return _differences(y, runs, folds, patients, resamples, seed, retrained(first, second))


def within_folds_test(first: OneView, second: OneView) -> PairedTest:
    """Test the AUC within folds of the first run less the second's by DeLong's test, by patient.

    From `LEAST_TRAININGS` repeats of both on it is of other trainings, too.
    """
    y, runs, folds = _sides(first, second)
    return _paired_test(y, runs, folds, first.patients, retrained(first, second))


def retrained(first: OneView, second: OneView) -> bool:
    """Tell whether both have repeats enough, one's beside the other's, to speak of trainings."""
    return len(first.folds) == len(second.folds) >= LEAST_TRAININGS


def _within(samples: Floats, level: float = 0.95) -> Interval:
    if np.isnan(samples[0]):
        raise InputError("no fold has both benign and malignant nodules: nothing to compare in it")
    return percentile_interval(samples, level)


def corrected_t_test(
    first: OneView, second: OneView, *, test_over_train: float | None = None
) -> CorrectedTest:
    """Compare the AUCs of two runs on the same folds with the corrected resampled t-test.

    It speaks of trainings on other samples of nodules like these. How strongly folds resemble each
    other is assumed, since nothing can estimate it without bias (Bengio and Grandvalet, JMLR
    5:1089, 2004). Of two equally good simulated learners it found a difference at 5 % in 1 to 6 of
    100 cohorts, the plain t-test in 25 to 57. `test_over_train` None is that of the folds there
    are: of a run of only its first folds the test is more careful than need be.
    """
    if not np.array_equal(first.folds, second.folds):
        raise InputError("some predictions have no partner in the other run's fold: the test needs "
                         "runs on the same cohort, split and seed")  # fmt: skip
    sizes = [np.unique(fold_of, return_counts=True)[1] for fold_of in first.folds]
    folds, every = [len(of) for of in sizes], np.concatenate(sizes)
    if min(folds) < max(folds):
        raise InputError(f"repeats have {min(folds)} to {max(folds)} folds, and not equally many")
    if every.max() > 2 * every.min():  # beyond this, their variances cannot pass for one
        raise InputError(f"folds hold {every.min()} to {every.max()} nodules and are not of about "
                         "one size: use fewer folds or the bootstrap over patients")  # fmt: skip
    if test_over_train is None:
        if folds[0] < 2:
            raise InputError("one fold says nothing about n_test / n_train; pass test_over_train")
        test_over_train = share_of_test(folds[0])
    differences = []
    for repeat, fold_of in enumerate(first.folds):
        for fold in np.unique(fold_of):
            inside = fold_of == fold
            try:
                a, b = (roc_auc(of.labels[inside], of.probabilities[repeat, inside])
                        for of in (first, second))  # fmt: skip
            except InputError as error:
                raise InputError(f"repeat {repeat}, fold {fold}: {error}") from None
            differences.append(a - b)
    return resampled_t_test(differences, test_over_train)
