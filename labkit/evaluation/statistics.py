"""How sure a result is: bootstrap over patients, and DeLong's test for two scores.

Nodules of one patient resemble each other, so patients, not nodules, are what is drawn again. Time
and memory grow with the nodules and not with the pairs of them (`_patients`, `_order`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from sklearn.metrics import roc_auc_score, roc_curve

from labkit.errors import InputError
from labkit.evaluation.predictions import OneView, one_view, paired, rows_of

# Many comparisons at once: Holm's correction of a family of p-values.


METHOD = "Holm"


def holm(
    p_values: Mapping[str, float], alpha: float = 0.05, *, size: int | None = None
) -> pd.DataFrame:
    """Holm's step-down correction: the chance of any false finding in the family is at most alpha.

    It holds however the tests depend on each other, as they do when all methods judge the same
    nodules, and it is never weaker than Bonferroni's. The family is all comparisons that were made,
    not those that are shown. Reference: Holm, Scand J Statist 6:65 (1979).

    A family that is declared before it is measured has its size from the start. What is not yet
    measured counts as a p-value of 1, so that the rest can only lower what is given here.

    Args:
        p_values: comparison -> p-value.
        alpha: chance of any false finding.
        size: how many comparisons the family has, measured or not; None takes those given.

    Returns:
        One row a comparison, in the order given: `comparison`, `p_value`, `p_adjusted`, `found`
        (`p_adjusted` is at most alpha), `correction` ("Holm over 3").

    Raises:
        InputError: no p-values, one outside 0 to 1, or more of them than the family has.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})["p_adjusted"].tolist()
    [0.03, 0.06, 0.06]
    >>> holm({"a": 0.01}, size=3)["p_adjusted"].tolist()
    [0.03]
    """
    p = np.array(list(p_values.values()), dtype=float)
    if len(p) == 0:
        raise InputError("there are no p-values to correct")
    outside = [k for k, v in p_values.items() if not 0 <= v <= 1]  # NaN is outside, too
    if outside:
        raise InputError(f"{outside[0]}: {p_values[outside[0]]} is no p-value")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; give a chance between 0 and 1")
    family = len(p) if size is None else size
    if family < len(p):
        raise InputError(f"{len(p)} p-values in a family of {family}; give the size of all of it")
    order = np.argsort(p, kind="stable")
    steps = (family - np.arange(len(p))) * p[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return pd.DataFrame(
        {
            "comparison": list(p_values),
            "p_value": p,
            "p_adjusted": adjusted,
            "found": adjusted <= alpha,
            "correction": f"{METHOD} over {family}",
        }
    )


# Patients drawn again: what is bootstrapped is summed by patient first.
#
# A sample of the bootstrap says how often each patient is drawn, and all their nodules go with
# them.
# So a sample is as many numbers as there are patients, whether they have 700 nodules or LUNA-16's
# half a million candidates, and samples are drawn a block at a time.


Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
"""(samples, patients) how often each sample holds each patient -> (samples, ...) a value each."""
_AT_ONCE = 1 << 22  # numbers of a block: 32 MB


@dataclass(frozen=True)
class Patients:
    """Whose each nodule is.

    Args:
        codes: (n,) number of each nodule's patient, 0 to count - 1 in the order of their names.
        count: how many patients.
    """

    codes: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, groups: ArrayLike | None, nodules: int) -> Patients:
        """From each nodule's patient; None makes every nodule its own.

        Raises:
            InputError: not one group a nodule.
        """
        if groups is None:
            return cls(np.arange(nodules), nodules)
        names = np.asarray(groups)
        if names.shape != (nodules,):
            raise InputError(f"groups of shape {names.shape} do not fit {nodules} labels")
        # Hashed, since sorting half a million names to number them takes seconds.
        codes, distinct = pd.factorize(names, sort=True, use_na_sentinel=False)
        return cls(codes.astype(np.int64, copy=False), len(distinct))

    def total(self, values: ArrayLike) -> Floats:
        """Sums over each patient's nodules: (patients,) of (n,) values, or (patients, k) of (n, k).

        >>> Patients.of(["b", "a", "b"], 3).total([1.0, 10.0, 100.0]).tolist()
        [10.0, 101.0]
        """
        of_nodules = np.asarray(values, dtype=np.float64)
        columns = of_nodules.reshape(len(of_nodules), -1).T
        sums = [np.bincount(self.codes, column, self.count) for column in columns]
        return np.stack(sums, axis=1, dtype=np.float64).reshape(-1, *of_nodules.shape[1:])

    def distinct(self, chosen: NDArray[np.bool_]) -> int:
        """How many patients have one of the chosen (n,) nodules."""
        return int(np.count_nonzero(np.bincount(self.codes[chosen], minlength=self.count)))

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Bootstrap samples in blocks (b, patients): how often each holds each patient.

        The same seed and number of patients draw the same, however large the blocks.

        Raises:
            InputError: no sample is asked for.
        """
        if resamples < 1:
            raise InputError("resamples must be 1 or more")
        rng = np.random.default_rng(seed)
        chances = np.full(self.count, 1 / self.count)
        for start, stop in _blocks(resamples, self.count):
            drawn = rng.multinomial(self.count, chances, size=stop - start)
            yield drawn.astype(np.float64)

    def bootstrap(self, measure: Measure, resamples: int, seed: int) -> Floats:
        """(1 + resamples, ...): the measure of the patients as they are, then of every sample."""
        found = [measure(np.ones((1, self.count)))]
        found += [measure(drawn) for drawn in self.draws(resamples, seed)]
        return np.concatenate(found)


def in_blocks(measure: Measure, width: int) -> Measure:
    """The same measure of fewer samples at once, for one that holds `width` numbers a sample."""

    def of(weights: Floats) -> Floats:
        blocks = _blocks(len(weights), width)
        return np.concatenate([measure(weights[start:stop]) for start, stop in blocks])

    return of


def _blocks(samples: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _AT_ONCE // max(1, width))
    for start in range(0, samples, step):
        yield start, min(start + step, samples)


# AUC and ROC curve of any sample of patients, from sums over pairs of patients.
#
# A sample that draws patient p twice and q three times compares p's malignant nodules with q's
# benign
# ones six times. So the wins of every pair of nodules are summed over pairs of patients once, and
# the
# AUC of a sample is a product with that table: no list of all pairs of nodules is ever made.


Ints = NDArray[np.int64]
_LARGEST_TABLE = 1 << 23  # numbers: 64 MB
_WORTH_A_TABLE = 16  # numbers of it a nodule
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


@dataclass(frozen=True)
class _Part:
    """Scores that are compared with each other: rows of them, and how often the wins count."""

    run: Floats
    malignant: Ints
    benign: Ints
    times: int = 1


def auc(y: Ints, runs: Floats, patients: Patients) -> Measure:
    """The AUC of a sample of patients: how often malignant outscores benign, ties half.

    Args:
        y: (n,) 1 malignant, 0 benign; both are there.
        runs: (repeats, n) scores, finite; the mean of their AUCs is taken.
        patients: whose the nodules are.

    Returns:
        (samples, patients) weights -> (samples,) AUC; NaN of a sample without one of the classes.
    """
    ill, well = _classes(y)
    parts = [_Part(run, ill, well) for run in runs]
    return _share(parts, parts[:1], len(runs), y, patients)


def auc_difference(y: Ints, first: Floats, second: Floats, patients: Patients) -> Measure:
    """The AUC of the first runs less that of the second; as `auc` otherwise."""
    ill, well = _classes(y)
    # Whole numbers of wins, so that scores of the same order differ by exactly 0.
    parts = [_Part(run, ill, well, len(second)) for run in first]
    parts += [_Part(run, ill, well, -len(first)) for run in second]
    return _share(parts, parts[:1], len(first) * len(second), y, patients)


def auc_within(y: Ints, runs: Floats, folds: Ints, patients: Patients) -> Measure:
    """The AUC over pairs of nodules of one fold, pairs of all repeats alike; as `auc` otherwise.

    Args:
        y: (n,) 1 malignant, 0 benign.
        runs: (repeats, n) scores, finite.
        folds: (repeats, n) which fold a nodule is in.
        patients: whose the nodules are.
    """
    parts = [
        _Part(run, *_classes(np.where(fold_of == fold, y, -1)))
        for run, fold_of in zip(runs, folds, strict=True)
        for fold in np.unique(fold_of)
    ]
    return _share(parts, parts, 1, y, patients)


def area(malignant: Floats, benign: Floats) -> float:
    """The AUC of all as they are: the same, for callers that have one of many scores to judge.

    Sorting the benign alone takes a tenth of the time of ranking all, and LUNA-16 has 511 ways to
    choose views.

    >>> area(np.array([0.35, 0.8]), np.array([0.1, 0.4]))
    0.75
    """
    benign = np.sort(benign)
    twice = sum(int(np.searchsorted(benign, malignant, side).sum()) for side in _SIDES)
    return twice / (2 * len(malignant) * len(benign))


def heights(y: Ints, scores: Floats, patients: Patients, grid: Floats) -> Measure:
    """The ROC curve of a sample of patients, read at some false positive rates.

    Between two malignant scores the curve is level, so only its points just before and at each
    malignant score are needed, however many benign nodules there are.

    Args:
        y: (n,) 1 malignant, 0 benign.
        scores: (n,) finite.
        patients: whose the nodules are.
        grid: (points,) false positive rates.

    Returns:
        (samples, patients) weights -> (samples, points) sensitivities; NaN without a class.
    """
    ill, well = (rows[np.argsort(-scores[rows], kind="stable")] for rows in _classes(y))
    falling, benign = -scores[ill], -scores[well]
    thresholds = np.unique(falling)
    stops = np.stack([np.searchsorted(benign, thresholds, side) for side in _SIDES], axis=1)
    false_at = _cumulated(patients.codes[well], [*stops.ravel(), len(well)], patients)
    ends = np.searchsorted(falling, thresholds, "right")
    true_at = _cumulated(patients.codes[ill], ends, patients)

    def measure(weights: Floats) -> Floats:
        start = np.zeros((len(weights), 1))
        false = np.hstack([start, false_at(weights)])
        # At a threshold the false that tie with it come in one slope with what is found.
        true = np.repeat(np.hstack([start, true_at(weights)]), 2, axis=1)
        curves = np.full((len(weights), len(grid)), np.nan)
        for i in np.flatnonzero((false[:, -1] > 0) & (true[:, -1] > 0)):
            curves[i] = np.interp(grid, false[i] / false[i, -1], true[i] / true[i, -1])
        return curves

    return in_blocks(measure, 2 * len(thresholds) + 2)


def _classes(y: Ints) -> tuple[Ints, Ints]:
    """Rows of the malignant nodules, and of the benign ones."""
    return np.flatnonzero(y == 1), np.flatnonzero(y == 0)


def _share(
    parts: Sequence[_Part], counted: Sequence[_Part], times: int, y: Ints, patients: Patients
) -> Measure:
    """Wins in all parts over the pairs of the counted ones, so many times."""
    ill, well = (
        np.stack([np.bincount(patients.codes[rows], minlength=patients.count) for rows in of], 1)
        for of in ([p.malignant for p in counted], [p.benign for p in counted])
    )
    rows = len(np.unique(patients.codes[y == 0]))
    fits = rows * int((y == 1).sum()) <= _LARGEST_TABLE
    won = _won_by_table(parts, y, patients) if fits else _won_by_order(parts, patients)

    def measure(weights: Floats) -> Floats:
        pairs = ((weights @ ill) * (weights @ well)).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return won(weights) / (times * pairs)

    return measure


def _won_by_table(parts: Sequence[_Part], y: Ints, patients: Patients) -> Measure:
    """Wins of a sample, from a table of (benign patients, malignant patients)."""
    ill, well = _classes(y)
    of_row, row_of = np.unique(patients.codes[well], return_inverse=True)
    twice = np.zeros((len(of_row), len(ill)), dtype=np.int64)
    for part in parts:
        order = part.malignant[np.argsort(part.run[part.malignant], kind="stable")]
        rising, width = part.run[order], len(order) + 1
        # A benign score is beaten once from the first malignant score on that reaches it, and once
        # more from the first on that exceeds it: twice the wins, with ties for half.
        own, row = np.unique(row_of[np.searchsorted(well, part.benign)], return_inverse=True)
        below = [np.searchsorted(rising, part.run[part.benign], side) for side in _SIDES]
        cells = np.concatenate([row * width + first for first in below])
        counts = np.bincount(cells, minlength=len(own) * width).reshape(len(own), width)
        won = part.times * counts.cumsum(axis=1)[:, :-1]
        columns = np.searchsorted(ill, order)
        if len(own) == len(of_row):
            twice[:, columns] += won
        else:
            twice[np.ix_(own, columns)] += won
    by_patient = np.argsort(patients.codes[ill], kind="stable")
    of_column, first_of = np.unique(patients.codes[ill][by_patient], return_index=True)
    table = np.add.reduceat(twice[:, by_patient], first_of, axis=1).astype(np.float64)

    def measure(weights: Floats) -> Floats:
        return ((weights[:, of_row] @ table) * weights[:, of_column]).sum(axis=1) / 2

    return measure


def _won_by_order(parts: Sequence[_Part], patients: Patients) -> Measure:
    """Wins of a sample by running along the sorted scores, where patients are too many to pair."""
    in_order: list[tuple[int, Ints, Ints, Ints, Ints]] = []
    for part in parts:
        well = part.benign[np.argsort(part.run[part.benign], kind="stable")]
        beaten, not_above = (
            np.searchsorted(part.run[well], part.run[part.malignant], side) for side in _SIDES
        )
        codes = patients.codes[part.malignant], patients.codes[well]
        in_order.append((part.times, *codes, beaten, not_above))

    def measure(weights: Floats) -> Floats:
        won = np.zeros(len(weights))
        for times, malignant, benign, below, not_above in in_order:
            held = _running(weights[:, benign])
            twice = weights[:, malignant] * (held[:, below] + held[:, not_above])
            won += times * twice.sum(axis=1) / 2
        return won

    return in_blocks(measure, max(len(p.benign) + 2 * len(p.malignant) for p in parts))


def _cumulated(codes: Ints, stops: Sequence[int] | Ints, patients: Patients) -> Measure:
    """(samples, stops): the weight of as many of the first nodules as each stop says.

    Args:
        codes: (n,) patients of nodules in an order.
        stops: (S,) ascending, 0 to n.
        patients: of all nodules.
    """
    ends = np.asarray(stops, dtype=np.int64)
    if patients.count * len(ends) > _WORTH_A_TABLE * len(codes):
        return in_blocks(lambda weights: _running(weights[:, codes])[:, ends], len(codes))
    width = len(ends) + 1
    cell = codes * width + np.searchsorted(ends, np.arange(len(codes)), side="right")
    counts = np.bincount(cell, minlength=patients.count * width).reshape(patients.count, width)
    table = counts.cumsum(axis=1)[:, :-1].astype(np.float64)
    return lambda weights: weights @ table


def _running(values: Floats) -> Floats:
    """(samples, n + 1) sums of the first 0, 1, ... n values."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


# How good a set of scores is: AUC, ROC, sensitivity, specificity, accuracy, Brier score.
#
# Labels are 1 for malignant and 0 for benign; scores are higher when malignancy is more likely.


DEFAULT_THRESHOLD = 0.5


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores as arrays of one length, finite, with both classes present.

    Raises:
        InputError: anything else, said plainly.
    """
    y = np.asarray(labels, dtype=float)
    s = np.asarray(scores, dtype=float)
    if y.ndim != 1 or y.shape != s.shape:
        raise InputError(f"labels {y.shape} and scores {s.shape} must be vectors of one length")
    if not np.all(np.isfinite(s)):
        raise InputError(f"{int(np.sum(~np.isfinite(s)))} scores are not finite numbers")
    if not np.all(np.isin(y, (0, 1))):
        raise InputError("labels must be 0 (benign) or 1 (malignant)")
    if len(np.unique(y)) < 2:
        raise InputError("both benign and malignant nodules are needed to judge a score")
    return y.astype(np.int64), s


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a malignant nodule outscores a benign one, ties half.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(roc_auc_score(*checked(labels, scores)))


def roc(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of the ROC curve, from (0, 0) to (1, 1)."""
    false_positive, true_positive, _ = roc_curve(*checked(labels, scores))
    return false_positive, true_positive


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold gives.

    Args:
        threshold: a score at or above it is called malignant.
        sensitivity: share of malignant nodules called malignant (III-E).
        specificity: share of benign nodules called benign (III-E).
        accuracy: share of nodules called rightly.
    """

    threshold: float
    sensitivity: float
    specificity: float
    accuracy: float


def sensitivity_specificity(
    labels: ArrayLike, scores: ArrayLike, threshold: float = DEFAULT_THRESHOLD
) -> OperatingPoint:
    """Sensitivity, specificity and accuracy at a threshold chosen beforehand.

    >>> point = sensitivity_specificity([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.8])
    >>> point.sensitivity, point.specificity, point.accuracy
    (1.0, 0.5, 0.75)
    """
    y, s = checked(labels, scores)
    called = s >= threshold
    return OperatingPoint(
        threshold,
        float(called[y == 1].mean()),
        float((~called[y == 0]).mean()),
        float((called == (y == 1)).mean()),
    )


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier 1950); 0 is best.

    >>> brier([0, 1], [0.0, 0.5])
    0.125
    """
    y, p = checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise InputError("the Brier score needs probabilities between 0 and 1")
    return float(np.mean((p - y) ** 2))


# DeLong's components of an AUC and their variance, by nodules or summed over patients.


def mean_components(y: NDArray, scores: ArrayLike) -> tuple[float, NDArray]:
    """AUC and components of one run, or their means over repeats (the AUC is linear in them)."""
    runs = [_components(y, checked(y, s)[1]) for s in np.atleast_2d(np.asarray(scores, float))]
    return float(np.mean([r[0] for r in runs])), np.mean([r[1] for r in runs], axis=0)


def _components(y: NDArray, s: NDArray) -> tuple[float, NDArray]:
    """AUC, and each nodule's share of wins against the other class (DeLong's components)."""
    malignant, benign = s[y == 1], s[y == 0]
    n_malignant, n_benign = len(malignant), len(benign)
    # Midranks give the wins with ties counted half, in n log n.
    all_ranks = stats.rankdata(np.concatenate([malignant, benign]))
    shares = np.empty(len(s))
    shares[y == 1] = (all_ranks[:n_malignant] - stats.rankdata(malignant)) / n_benign
    shares[y == 0] = 1 - (all_ranks[n_malignant:] - stats.rankdata(benign)) / n_malignant
    return float(shares[y == 1].mean()), shares


def variance(y: NDArray, shares: NDArray, groups: ArrayLike | None) -> float:
    """Variance of an AUC from its components, or of a difference from the components' differences.

    Args:
        y: (n,) 1 malignant, 0 benign.
        shares: (n,) of `mean_components`, or the difference of two methods'.
        groups: (n,) patient of each nodule (Obuchowski 1997); None treats nodules as independent.

    Raises:
        InputError: fewer than two nodules, or patients, of a class.
    """
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


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval.

    Args:
        value: the estimate on all nodules.
        low: lower bound.
        high: upper bound.
        level: confidence, such as 0.95.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class PairedTest:
    """Two scores of the same nodules compared.

    Args:
        difference: AUC of the first less that of the second, with its interval.
        auc: both AUCs.
        z: the difference in standard errors.
        p_value: two-sided.
    """

    difference: Interval
    auc: tuple[float, float]
    z: float
    p_value: float


def bootstrap_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC with a percentile interval from a bootstrap over groups.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: (n,) of one run, or (repeats, n) of repeated cross-validation, whose AUCs are
            averaged within every resample, so that repeats do not pass for new patients.
        groups: (n,) patient of each nodule; None draws nodules.
        resamples: how many bootstrap samples.
        level: confidence.
        seed: of the resampling; the same seed and groups draw the same patients.
    """
    y, runs = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    found = patients.bootstrap(auc(y, runs, patients), resamples, seed)
    return percentile(float(found[0]), found[1:], level)


def bootstrap_auc_difference(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC of `first` less AUC of `second` on the same nodules, by paired bootstrap over groups.

    Arguments are those of `bootstrap_auc`.
    """
    y, runs = _checked_runs(labels, first)
    patients = Patients.of(groups, len(y))
    less = auc_difference(y, runs, _checked_runs(y, second)[1], patients)
    found = patients.bootstrap(less, resamples, seed)
    return percentile(float(found[0]), found[1:], level)


def bootstrap_rates(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Sensitivity, specificity, accuracy and Brier score with intervals over groups.

    Arguments are those of `bootstrap_auc`; scores must be probabilities. A rate of exactly 0 or 1
    has the same value in every resample; its interval is Wilson's, with patients for trials.
    """
    y, runs = _checked_runs(labels, scores)
    right = ((runs >= threshold) == (y == 1)).mean(axis=0)
    squared = ((runs - y) ** 2).mean(axis=0)
    patients = Patients.of(groups, len(y))
    everyone = np.ones(len(y))
    columns = {
        "sensitivity": (right, (y == 1).astype(float)),
        "specificity": (right, (y == 0).astype(float)),
        "accuracy": (right, everyone),
        "brier": (squared, everyone),
    }
    amounts = patients.total(np.stack([a * counted for a, counted in columns.values()], axis=1))
    counts = patients.total(np.stack([counted for _, counted in columns.values()], axis=1))

    def rates(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return (drawn @ amounts) / (drawn @ counts)

    found = patients.bootstrap(rates, resamples, seed)
    intervals = {}
    for (name, (_, counted)), samples in zip(columns.items(), found.T, strict=True):
        intervals[name] = percentile(float(samples[0]), samples[1:], level)
        if name != "brier" and samples[0] in (0.0, 1.0):
            low, high = wilson(samples[0], patients.distinct(counted > 0), level)
            intervals[name] = Interval(float(samples[0]), float(low), float(high), level)
    return intervals


def roc_band(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    points: int = 201,
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """ROC curve with a pointwise band: (false positive rate, sensitivity, low, high).

    The band holds at each false positive rate by itself, not for the whole curve at once.
    Repeated runs (repeats, n) are averaged vertically.
    """
    y, runs = _checked_runs(labels, scores)
    patients = Patients.of(groups, len(y))
    grid: NDArray[np.float64] = np.linspace(0, 1, points, dtype=np.float64)
    curves = [heights(y, run, patients, grid) for run in runs]
    heights = patients.bootstrap(
        lambda drawn: np.mean([of(drawn) for of in curves], axis=0), resamples, seed
    )
    tail = (1 - level) / 2
    low, high = np.nanquantile(heights[1:], [tail, 1 - tail], axis=0)
    return grid, heights[0], low, high


def small_sample_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """AUC with an interval that holds for few nodules, from DeLong's variance on the logit scale.

    The percentile bootstrap is too narrow when a class has few nodules or the AUC is near 1: at an
    AUC of 0.90 and 10 malignant nodules its 95 % interval holds the truth 85 times in 100, this one
    94 times. Student's t has as many degrees of freedom as the rarer class has patients, less one.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        scores: (n,) of one run, or (repeats, n), whose AUCs are averaged.
        groups: (n,) patient of each nodule; None treats nodules as independent.
        level: confidence.

    Raises:
        InputError: fewer than two nodules, or patients, of a class.
    """
    y, _ = checked(labels, np.atleast_2d(np.asarray(scores, dtype=float))[0])
    value, shares = mean_components(y, scores)
    error = float(np.sqrt(max(0.0, variance(y, shares, groups))))
    patients = Patients.of(groups, len(y))
    rarer = min(patients.distinct(y == label) for label in (0, 1))
    if error == 0 or value in (0.0, 1.0):  # all in order: nothing to take a variance from
        low, high = wilson(value, rarer, level)
        return Interval(value, float(low), float(high), level)
    half = float(stats.t.ppf(0.5 + level / 2, rarer - 1)) * error / (value * (1 - value))
    low, high = special.expit(special.logit(value) + np.array([-half, half]))
    return Interval(value, float(low), float(high), level)


def wilson(share: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[NDArray, NDArray]:
    """Wilson's score interval of a share, which need not be a whole number of the trials.

    >>> [round(float(bound), 3) for bound in wilson(0.0, 20)]
    [0.0, 0.161]
    """
    p, n = np.asarray(share, dtype=float), np.asarray(trials, dtype=float)
    z2 = float(stats.norm.ppf(0.5 + level / 2)) ** 2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def resample_weights(
    nodules: int, groups: ArrayLike | None, resamples: int, seed: int
) -> NDArray[np.float64]:
    """(resamples, nodules): how often a bootstrap sample of the groups holds each nodule.

    All that patients had measured goes with them: repeats, folds and views are never drawn. A table
    as long as this fits cohorts of nodules; nothing that judges LUNA-16's candidates makes it.

    Args:
        nodules: how many there are.
        groups: (nodules,) patient of each; None draws nodules.
        resamples: how many bootstrap samples.
        seed: the same seed and groups draw the same patients.
    """
    patients = Patients.of(groups, nodules)
    drawn = list(patients.draws(resamples, seed))
    return np.concatenate([block[:, patients.codes] for block in drawn])


def percentile(value: float, samples: NDArray, level: float) -> Interval:
    """Percentile interval from bootstrap samples; a sample without a value (NaN) is left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return Interval(value, float(low), float(high), level)


def delong_test(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> PairedTest:
    """Test whether two scores of the same nodules have the same AUC.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988). With `groups`, variances are
    summed over patients as in Obuchowski, Biometrics 53:567 (1997), since nodules of a patient are
    not independent. Of repeated runs the mean AUC is tested: each nodule's components are averaged
    over the repeats, so that repeats do not pass for new nodules.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        first: (n,) scores of one run, or (repeats, n).
        second: the same of another method; its repeats may be fewer or more.
        groups: (n,) patient of each nodule; None treats nodules as independent.
        level: confidence of the interval.
    """
    y, _ = checked(labels, np.atleast_2d(np.asarray(first, dtype=float))[0])
    parts = [mean_components(y, s) for s in (first, second)]
    auc = (parts[0][0], parts[1][0])
    squared_error = variance(y, parts[0][1] - parts[1][1], groups)
    difference = auc[0] - auc[1]
    error = float(np.sqrt(squared_error))
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    interval = Interval(difference, difference - half, difference + half, level)
    if error == 0:
        # Scores that order every pair alike: nothing to test unless the AUCs differ.
        z = 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    else:
        z = difference / error
    return PairedTest(interval, auc, z, float(2 * stats.norm.sf(abs(z))))


def _checked_runs(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (n,) and scores (repeats, n), all of them checked."""
    runs = np.atleast_2d(np.asarray(scores, dtype=float))
    for run in runs:
        y, _ = checked(labels, run)
    return y, runs


# From predictions to a table: metrics with intervals, and runs compared in pairs.


_BASELINES = {"size_only": "size only", "detector": "detector's score"}


def scores(
    predictions: pd.DataFrame, view: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]:
    """Labels (n,), probabilities (repeats, n) and patients (n,) of one view's predictions.

    Args:
        predictions: the table that `crossval.run` returns.
        view: "0" to "8", "fused" or "size_only".

    Raises:
        InputError: no such view, a column missing, or a nodule missing from a repeat.
    """
    of = one_view(predictions, view)
    return of.labels, of.probabilities, of.patients


def paired_scores(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
    """Labels (n,), both runs' probabilities (repeats, n) and patients (n,) of the same nodules.

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.

    Raises:
        InputError: the runs judge different nodules.
    """
    one, two = paired(first, second, view, second_view)
    return one.labels, one.probabilities, two.probabilities, one.patients


def summarise(
    predictions: pd.DataFrame,
    resamples: int = 2000,
    seed: int = 0,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, dict[str, Any]]:
    """Pooled out-of-fold metrics of every view, each with its 95 % interval over patients.

    Args:
        predictions: the table that `crossval.run` returns.
        resamples: of the bootstraps.
        seed: of them.
        threshold: at which sensitivity, specificity and accuracy are taken.

    Returns:
        view -> {"nodules", "patients", "auc", "sensitivity", "specificity", "accuracy", "brier"},
        the metrics as {"value", "low", "high"}.
    """
    summary: dict[str, dict[str, Any]] = {}
    for view in predictions["view"].astype(str).unique():
        labels, probabilities, patients = scores(predictions, view)
        measured = {
            "auc": bootstrap_auc(
                labels, probabilities, groups=patients, resamples=resamples, seed=seed
            ),
            **bootstrap_rates(
                labels,
                probabilities,
                groups=patients,
                threshold=threshold,
                resamples=resamples,
                seed=seed,
            ),
        }
        summary[view] = {"nodules": len(labels), "patients": len(np.unique(patients))}
        for name, interval in measured.items():
            summary[view][name] = {
                "value": round(interval.value, 8),
                "low": round(interval.low, 8),
                "high": round(interval.high, 8),
            }
    return summary


def table(
    runs: dict[str, pd.DataFrame],
    views: tuple[str, ...] = ("fused",),
    threshold: float = DEFAULT_THRESHOLD,
) -> pd.DataFrame:
    """Metrics with intervals of several runs as text, one row a run and view.

    Args:
        runs: name -> predictions.
        views: which rows of each; a view that a run lacks is left out. "size_only" is shown once
            for runs that share their folds.
        threshold: at which sensitivity, specificity and accuracy are taken.
    """
    lines: list[dict[str, str]] = []
    for name, predictions in runs.items():
        present = set(predictions["view"].astype(str))
        for view in views:
            if view not in present:
                continue
            measured = summarise(rows_of(predictions, view), threshold=threshold)[view]
            label = {"fused": name, **_BASELINES}.get(view, f"{name}, view {view}")
            line = {"method": label}
            for metric in ("auc", "sensitivity", "specificity", "accuracy", "brier"):
                m = measured[metric]
                line[metric] = f"{m['value']:.3f} ({m['low']:.3f} to {m['high']:.3f})"
            if line not in lines:
                lines.append(line)
    return pd.DataFrame(lines)


def compare(
    first: pd.DataFrame, second: pd.DataFrame, view: str = "fused", second_view: str | None = None
) -> dict[str, Any]:
    """Compare two runs on the same nodules: AUC difference, bootstrap interval, DeLong's test.

    Both are clustered by patient, and both are of the mean AUC over repeats (not of the AUC of
    mean probabilities, which would be another method: see `evaluation.repeated`).

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.

    Raises:
        InputError: the runs judge different nodules.
    """
    labels, p1, p2, patients = paired_scores(first, second, view, second_view)
    boot = bootstrap_auc_difference(labels, p1, p2, groups=patients)
    test = delong_test(labels, p1, p2, groups=patients)
    return {
        "auc_difference": {"value": boot.value, "low": boot.low, "high": boot.high},
        "delong": {
            "difference": test.difference.value,
            "low": test.difference.low,
            "high": test.difference.high,
            "z": test.z,
            "p_value": test.p_value,
        },
    }


# How large a difference can still be: equivalence with a margin stated beforehand.
#
# "No significant difference" is no finding: a small study never finds one. What can be found is
# that
# no difference is larger than a margin. Two one-sided tests at 5 % find it when the 90 % interval
# of the difference lies within the margin on both sides.
#
# Reference: Schuirmann, J Pharmacokinet Biopharm 15:657 (1987).


MARGIN_AUC = 0.02
"""Why 0.02: studies of readers commonly allow 0.05, far more than the networks here differ by.
On a few hundred nodules a paired 90 % interval reaches about 0.003 (two networks alike) to 0.02
(a network and the diameter) to each side, so nobody could show much less for unlike methods. It is
wider than the 0.0155 by which the paper puts MT-CNN above its best rival: equivalence within 0.02
does not by itself contradict the paper; compare `smallest_margin` with 0.0155 for that."""

TOST_LEVEL = 0.90


@dataclass(frozen=True)
class Equivalence:
    """Whether a difference is shown to be no larger than a margin.

    Args:
        difference: with the interval that was tested.
        margin: stated beforehand, in units of the difference.
        shown: the interval lies within the margin on both sides.
        smallest_margin: any margin larger than this would have been shown. It describes the
            result; a margin chosen by it tests nothing.
    """

    difference: Interval
    margin: float
    shown: bool
    smallest_margin: float

    @property
    def alpha(self) -> float:
        """Level of each of the two one-sided tests."""
        return (1 - self.difference.level) / 2

    def __str__(self) -> str:
        found = (
            f"no difference larger than {self.margin:g}"
            if self.shown
            else f"not shown that the difference is within {self.margin:g}"
        )
        d = self.difference
        return (
            f"{found}: {d.value:+.3f} ({100 * d.level:.0f} % interval {d.low:+.3f} to "
            f"{d.high:+.3f}); shown for margins above {self.smallest_margin:.3f}"
        )


def equivalence(difference: Interval, margin: float = MARGIN_AUC) -> Equivalence:
    """Test a paired difference against a margin.

    Args:
        difference: with its 90 % interval for two one-sided tests at 5 %; a 95 % interval tests
            at 2.5 %, which is stricter.
        margin: the largest difference that does not matter, stated before looking.

    Raises:
        InputError: a margin that is not positive, or an interval without bounds.

    >>> print(equivalence(Interval(0.004, -0.006, 0.014, level=0.9)))
    no difference larger than 0.02: +0.004 (90 % interval -0.006 to +0.014); shown for margins
    above 0.014
    """
    if not (np.isfinite(margin) and margin > 0):
        raise InputError(f"the margin is {margin}; give a positive difference that does not matter")
    if not np.all(np.isfinite([difference.low, difference.high])):
        raise InputError("the difference has no finite interval to test")
    smallest = max(abs(difference.low), abs(difference.high))
    return Equivalence(difference, margin, bool(smallest < margin), smallest)


def auc_equivalence(
    first: pd.DataFrame,
    second: pd.DataFrame,
    view: str = "fused",
    second_view: str | None = None,
    *,
    margin: float = MARGIN_AUC,
    resamples: int = 2000,
    seed: int = 0,
) -> Equivalence:
    """Test two runs for AUCs within a margin, by paired bootstrap over patients.

    Args:
        first: predictions of a run, as `crossval.run` returns them.
        second: predictions of another run on the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.
        margin: stated beforehand.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: the runs judge different nodules, or the margin is not positive.
    """
    labels, one, other, patients = paired_scores(first, second, view, second_view)
    difference = bootstrap_auc_difference(
        labels, one, other, groups=patients, resamples=resamples, level=TOST_LEVEL, seed=seed
    )
    return equivalence(difference, margin)


# AUC within folds: only nodules that the same networks judged are compared.
#
# Pooled out-of-fold AUC also compares a nodule of one fold with a nodule of another, whose scores
# come from other networks. A score of 0.6 by a timid network and one of 0.5 by a bold one then
# count
# as an order, so pooling costs a method whose scores drift from fold to fold, though nobody who
# uses
# one trained model would ever pay it. Methods drift unequally (networks more than a logistic
# regression on the diameter), so a comparison should show both. Reference: Forman and Scholz,
# SIGKDD
# Explorations 12(1):49 (2010).


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
    return auc_within(of.labels, of.probabilities, of.folds, patients)


def _interval(found: NDArray[np.float64], level: float) -> Interval:
    if np.isnan(found[0]):
        raise InputError("no fold has both benign and malignant nodules: nothing to compare in it")
    return percentile(float(found[0]), found[1:], level)


# Repeated cross-validation: what ten repeats of ten folds say, and what they do not.
#
# The hundred folds of 10 x 10-fold cross-validation (Zhai et al. 2020, III-E) share their training
# nodules and their test nodules. A plain t-test on a hundred differences takes them for a hundred
# experiments and finds differences where there are none; `corrected_t_test` allows for it.
#
# Two numbers can be made of several repeats. The mean of the repeats' AUCs is what one training is
# worth, and is what is reported here. The AUC of a nodule's mean probability is that of another
# method, which trains as many networks as there are repeats and is the better for it; it is given
# beside it, and never in its place.


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
        bootstrap_auc(labels, values, groups=patients, resamples=resamples, level=level, seed=seed)
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
