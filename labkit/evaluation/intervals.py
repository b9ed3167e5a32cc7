"""How sure a result is: bootstrap over patients, and DeLong's test for two scores.

Nodules of one patient resemble each other, so patients, not nodules, are what is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from labkit.errors import InputError
from labkit.evaluation.metrics import DEFAULT_THRESHOLD, checked


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
    y, wins = _mean_wins(labels, scores)
    value, samples = _bootstrap_auc_samples(y, wins, groups, resamples, seed)
    return _percentile(value, samples, level)


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
    y, wins_first = _mean_wins(labels, first)
    _, wins_second = _mean_wins(labels, second)
    value, samples = _bootstrap_auc_samples(y, wins_first - wins_second, groups, resamples, seed)
    return _percentile(value, samples, level)


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

    Arguments are those of `bootstrap_auc`; scores must be probabilities.
    """
    runs = np.atleast_2d(np.asarray(scores, dtype=float))
    y = checked(labels, runs[0])[0]
    for run in runs:
        checked(y, run)
    right = ((runs >= threshold) == (y == 1)).mean(axis=0)
    squared = ((runs - y) ** 2).mean(axis=0)
    weights = np.vstack([np.ones(len(y)), _weights(y, groups, resamples, seed)])
    everyone = np.ones(len(y))
    columns = {
        "sensitivity": (right, (y == 1).astype(float)),
        "specificity": (right, (y == 0).astype(float)),
        "accuracy": (right, everyone),
        "brier": (squared, everyone),
    }
    intervals = {}
    for name, (amount, counted) in columns.items():
        with np.errstate(invalid="ignore"):
            samples = (weights @ (amount * counted)) / (weights @ counted)
        intervals[name] = _percentile(float(samples[0]), samples[1:], level)
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
    runs = np.atleast_2d(np.asarray(scores, dtype=float))
    y = checked(labels, runs[0])[0]
    weights = np.vstack([np.ones(len(y)), _weights(y, groups, resamples, seed)])
    grid = np.linspace(0, 1, points)
    heights = np.zeros((len(weights), points))
    for run in runs:
        heights += _weighted_roc(*checked(y, run), weights, grid) / len(runs)
    tail = (1 - level) / 2
    low, high = np.nanquantile(heights[1:], [tail, 1 - tail], axis=0)
    return grid, heights[0], low, high


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
    not independent.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        first: (n,) scores.
        second: (n,) scores.
        groups: (n,) patient of each nodule; None treats nodules as independent.
        level: confidence of the interval.
    """
    y, _ = checked(labels, first)
    parts = [_components(y, checked(y, s)[1]) for s in (first, second)]
    auc = (parts[0][0], parts[1][0])
    variance = _difference_variance(y, parts[0][1] - parts[1][1], groups)
    difference = auc[0] - auc[1]
    error = float(np.sqrt(variance))
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    interval = Interval(difference, difference - half, difference + half, level)
    if error == 0:
        # Scores that order every pair alike: nothing to test unless the AUCs differ.
        z = 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    else:
        z = difference / error
    return PairedTest(interval, auc, z, float(2 * stats.norm.sf(abs(z))))


def _mean_wins(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray, NDArray]:
    """Labels, and (malignant, benign) wins of each pair: 1, 1/2 for a tie, 0; mean of repeats."""
    runs = np.atleast_2d(np.asarray(scores, dtype=float))
    y = checked(labels, runs[0])[0]
    wins = np.zeros((int(y.sum()), int((1 - y).sum())))
    for run in runs:
        s = checked(y, run)[1]
        difference = s[y == 1][:, None] - s[y == 0][None, :]
        wins += (np.sign(difference) + 1) / 2
    return y, wins / len(runs)


def _bootstrap_auc_samples(
    y: NDArray, wins: NDArray, groups: ArrayLike | None, resamples: int, seed: int
) -> tuple[float, NDArray]:
    weights = _weights(y, groups, resamples, seed)
    malignant, benign = weights[:, y == 1], weights[:, y == 0]
    with np.errstate(invalid="ignore"):
        samples = ((malignant @ wins) * benign).sum(1) / (malignant.sum(1) * benign.sum(1))
    return float(wins.mean()), samples


def _weights(y: NDArray, groups: ArrayLike | None, resamples: int, seed: int) -> NDArray:
    """(resamples, n): how often a bootstrap sample of the groups holds each nodule."""
    if resamples < 1:
        raise InputError("resamples must be 1 or more")
    codes = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    if codes.shape != y.shape:
        raise InputError(f"{len(codes)} groups do not fit {len(y)} labels")
    count = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, codes].astype(float)


def _percentile(value: float, samples: NDArray, level: float) -> Interval:
    # A resample without one of the classes has no value and is left out.
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail])
    return Interval(value, float(low), float(high), level)


def _weighted_roc(y: NDArray, s: NDArray, weights: NDArray, grid: NDArray) -> NDArray:
    """(samples, points) sensitivities at the grid's false positive rates."""
    order = np.argsort(-s, kind="stable")
    last_of_tie = np.append(np.diff(s[order]) != 0, True)
    w, label = weights[:, order], y[order]
    heights = np.empty((len(weights), len(grid)))
    for i, row in enumerate(w):
        true = np.cumsum(row * label)[last_of_tie]
        false = np.cumsum(row * (1 - label))[last_of_tie]
        if true[-1] == 0 or false[-1] == 0:
            heights[i] = np.nan
            continue
        heights[i] = np.interp(grid, np.append(0, false / false[-1]), np.append(0, true / true[-1]))
    return heights


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


def _difference_variance(y: NDArray, shares: NDArray, groups: ArrayLike | None) -> float:
    """Variance of the difference of two AUCs from the differences of their components."""
    n1, n0 = int(y.sum()), int((1 - y).sum())
    centred = shares - np.where(y == 1, shares[y == 1].mean(), shares[y == 0].mean())
    if groups is None:
        if min(n1, n0) < 2:
            raise InputError("the test needs two or more nodules of each class")
        return float(centred[y == 1].var() / (n1 - 1) + centred[y == 0].var() / (n0 - 1))
    names, codes = np.unique(groups, return_inverse=True)
    if codes.shape != y.shape:
        raise InputError(f"{len(codes)} groups do not fit {len(y)} labels")
    malignant = np.bincount(codes, centred * (y == 1), len(names))
    benign = np.bincount(codes, centred * (y == 0), len(names))
    with_malignant = len(np.unique(codes[y == 1]))
    with_benign = len(np.unique(codes[y == 0]))
    if min(with_malignant, with_benign, len(names)) < 2:
        raise InputError("the test needs two or more patients with nodules of each class")
    s11 = with_malignant / ((with_malignant - 1) * n1) * np.sum(malignant**2)
    s00 = with_benign / ((with_benign - 1) * n0) * np.sum(benign**2)
    s10 = len(names) / (len(names) - 1) * np.sum(malignant * benign)
    return float(s11 / n1 + s00 / n0 + 2 * s10 / (n1 * n0))
