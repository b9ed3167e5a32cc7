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

from labkit.annotations.luna16 import POSITION, SERIES, hits, series_codes
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.statistics import Interval, percentile, resample_weights

# What each mark of a submission counts as: the challenge's rules, before any curve.


@dataclass(frozen=True)
class Counts:
    """How the marks and nodules of an evaluation were counted.

    Args:
        scans: scans judged, with or without marks.
        nodules: nodules in them.
        detected: nodules hit by at least one mark.
        missed: nodules hit by none.
        marks: marks judged; the three kinds below, and the best hit of each nodule.
        false_positives: marks that hit nothing.
        doubled: hits on a nodule beyond its best; a mark on two nodules is a hit of both.
        excluded: marks left out, since they hit an excluded finding and no nodule.
        over_limit: marks left out by the limit of marks a scan.
        elsewhere: marks left out, since their scan is not judged.
    """

    scans: int
    nodules: int
    detected: int
    missed: int
    marks: int
    false_positives: int
    doubled: int
    excluded: int
    over_limit: int
    elsewhere: int


@dataclass(frozen=True)
class Judged:
    """The scores that a FROC curve is made of.

    Args:
        probability: (R,) of each nodule's best hit and of each false positive, descending.
        is_nodule: (R,) whether the row is a nodule.
        scan: (R,) number of its scan, 0 to scans - 1.
        nodules: (scans,) nodules in each scan, detected or not.
        found: (scans,) nodules detected in each scan.
        false: (scans,) false positives in each scan.
        counts: how it came about.
    """

    probability: NDArray[np.float64]
    is_nodule: NDArray[np.bool_]
    scan: NDArray[np.int64]
    nodules: NDArray[np.int64]
    found: NDArray[np.int64]
    false: NDArray[np.int64]
    counts: Counts


def judge(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    max_marks: int | None,
) -> Judged:
    """Sort marks into nodules found and false positives.

    Arguments, rules and errors are those of `labkit.evaluation.froc.evaluate`.
    """
    _check(candidates, annotations, excluded, series_uids, max_marks)
    given = len(candidates)
    candidates, annotations, excluded = (
        table[table[SERIES].isin(series_uids)] for table in (candidates, annotations, excluded)
    )
    if not len(annotations):
        raise InputError(
            f"no nodule is annotated in these {len(series_uids)} scans, and sensitivity needs one; "
            "check that annotations and scans belong together"
        )
    if given and not len(candidates):
        raise InputError(
            f"none of the {given} marks is in one of these {len(series_uids)} scans; check that "
            "the submission and the list of scans belong together"
        )
    judged = len(candidates)
    if max_marks is not None:
        candidates = candidates[_within_limit(candidates, max_marks)]
    probability = candidates["probability"].to_numpy(np.float64)

    on_nodules = hits(candidates, annotations)
    best = np.full(len(annotations), -np.inf)
    np.maximum.at(best, on_nodules.finding, probability[on_nodules.candidate])
    matches = np.bincount(on_nodules.finding, minlength=len(annotations))
    detected = matches > 0
    is_hit = np.zeros(len(candidates), bool)
    is_hit[on_nodules.candidate] = True
    is_excluded = np.zeros(len(candidates), bool)
    is_excluded[hits(candidates, excluded).candidate] = True
    is_excluded &= ~is_hit
    is_false = ~is_hit & ~is_excluded

    number = {uid: i for i, uid in enumerate(series_uids)}
    scan_of_nodule, scan_of_mark = (
        _scans(table[SERIES], number) for table in (annotations, candidates)
    )
    scans = [scan_of_nodule[detected], scan_of_mark[is_false]]
    scores = np.concatenate([best[detected], probability[is_false]])
    order = np.argsort(-scores, kind="stable")
    n_detected = int(detected.sum())
    counts = Counts(
        scans=len(series_uids),
        nodules=len(annotations),
        detected=n_detected,
        missed=len(annotations) - n_detected,
        marks=len(candidates),
        false_positives=int(is_false.sum()),
        doubled=int(matches[detected].sum()) - n_detected,
        excluded=int(is_excluded.sum()),
        over_limit=judged - len(candidates),
        elsewhere=given - judged,
    )
    return Judged(
        probability=scores[order],
        is_nodule=order < n_detected,
        scan=np.concatenate(scans)[order],
        nodules=np.bincount(scan_of_nodule, minlength=len(series_uids)),
        found=np.bincount(scans[0], minlength=len(series_uids)),
        false=np.bincount(scans[1], minlength=len(series_uids)),
        counts=counts,
    )


def _within_limit(candidates: pd.DataFrame, max_marks: int) -> NDArray[np.bool_]:
    """(n,) which marks a limit keeps: those strictly above the first one beyond it in their scan.

    So marks that tie with the first one beyond are all lost, as in the challenge's script.
    """
    probability = candidates["probability"].to_numpy(np.float64)
    codes, uids = series_codes(candidates[SERIES])
    order = np.lexsort((-probability, codes))
    marks = np.bincount(codes, minlength=len(uids))
    crowded = marks > max_marks
    floor = np.full(len(uids), -np.inf)
    beyond = np.cumsum(marks) - marks + max_marks
    floor[crowded] = probability[order][beyond[crowded]]
    return probability > floor[codes]


def _scans(series: pd.Series, number: dict[str, int]) -> NDArray[np.int64]:
    codes, uids = series_codes(series)
    return np.array([number[uid] for uid in uids], np.int64)[codes]


def _check(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    max_marks: int | None,
) -> None:
    tables = (
        ("candidates", candidates, "probability"),
        ("annotations", annotations, "diameter_mm"),
        ("excluded findings", excluded, "diameter_mm"),
    )
    for what, table, last in tables:
        columns = [*POSITION, last]
        missing = [name for name in (SERIES, *columns) if name not in table]
        if missing:
            raise InputError(f"the table of {what} lacks {', '.join(missing)}")
        bad = ~np.isfinite(table[columns].to_numpy(np.float64)).all(axis=1)
        if bad.any():
            raise InputError(
                f"row {int(np.flatnonzero(bad)[0])} of the {what} has a number that is not finite"
            )
    if not len(series_uids):
        raise InputError("there is no scan to judge; give at least one series")
    if len(set(series_uids)) < len(series_uids):
        raise InputError("a scan stands twice in the list of scans; leave one out")
    if max_marks is not None and max_marks < 1:
        raise InputError(f"max_marks is {max_marks}; give 1 or more, or None for no limit")


# The points of a FROC curve, for scans that count once or as often as a bootstrap drew them.


def last_of_tie(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows after which the (descending) probability changes: one for each threshold."""
    return np.flatnonzero(np.append(np.diff(probability) != 0, True)[: len(probability)])


def steps(
    judged: Judged, weights: NDArray[np.float64], last: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives and nodules found at each threshold, from none on, as weighted counts."""
    end = int(last[-1]) + 1 if len(last) else 0
    weight = weights[judged.scan[:end]]
    found = np.cumsum(weight * judged.is_nodule[:end])[last]
    false = np.cumsum(weight)[last] - found
    return np.append(0.0, false), np.append(0.0, found)


def rates(
    judged: Judged,
    weights: NDArray[np.float64],
    false: NDArray[np.float64],
    found: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives a scan and sensitivity from weighted counts.

    Shares are taken and multiplied back, as the script does by way of scikit-learn's `roc_curve`:
    a sensitivity can jump at exactly 1/8 false positives a scan, and which side of the jump is
    read there hangs on the last bit.
    """
    all_false, all_found = weights @ judged.false, weights @ judged.found
    scans, nodules = judged.counts.scans, weights @ judged.nodules
    x = false / all_false * all_false / scans if all_false else np.zeros_like(false)
    y = found / all_found * all_found / nodules if all_found else np.zeros_like(found)
    return x, y


def corners(false: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points that the curve needs: its start, and those that scikit-learn's `roc_curve` keeps."""
    bent = (np.diff(false[1:], 2) != 0) | (np.diff(found[1:], 2) != 0)
    return np.concatenate([[True, True], bent, [True]])[: len(false)]


def resampled(
    judged: Judged, drawn: NDArray[np.float64], rates_wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S, G) sensitivities at G rates (ascending) of S samples of scans.

    Args:
        judged: the marks of all scans.
        drawn: (S, scans) how often each sample holds each scan.
        rates_wanted: (G,) false positives a scan.
    """
    last = last_of_tie(judged.probability)
    # Twice the false positives that the last rate needs are enough for nearly every sample.
    false = np.cumsum(~judged.is_nodule)[last]
    highest = rates_wanted[-1]
    enough = int(np.searchsorted(false, 2 * highest * judged.counts.scans)) + 1
    heights = np.empty((len(drawn), len(rates_wanted)))
    for i, weights in enumerate(drawn):
        x, y = rates(judged, weights, *steps(judged, weights, last[:enough]))
        if x[-1] <= highest and enough < len(last):
            x, y = rates(judged, weights, *steps(judged, weights, last))
        heights[i] = np.interp(rates_wanted, x, y)
    return heights


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
            (`labkit.annotations.luna16.read_submission`).
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
    last = last_of_tie(judged.probability)
    false, found = steps(judged, ones, last)
    x, y = rates(judged, ones, false, found)
    thresholds = np.append(np.inf, judged.probability[last])
    corner = corners(false, found)
    x, y, thresholds = x[corner], y[corner], thresholds[corner]
    sensitivity = np.interp(RATES, x, y)
    band = _band(judged, sensitivity, bootstraps, seed) if bootstraps else None
    return Froc(sensitivity, float(sensitivity.mean()), x, y, thresholds, band, judged.counts)


def screening(
    classes: ArrayLike,
    probabilities: ArrayLike,
    scans: int,
    threshold: float = statistics.DEFAULT_THRESHOLD,
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
    y, s = statistics.checked(classes, probabilities)
    called = s >= threshold
    positives, negatives = int(y.sum()), int((1 - y).sum())
    wrongly = int(called[y == 0].sum())
    return Screening(
        threshold=threshold,
        auc=statistics.roc_auc(y, s),
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
    one, two = (resampled(j, every, np.array(RATES)).mean(axis=1) for j in pair)
    return percentile(float(one[0] - two[0]), (one - two)[1:], LEVEL)


def _band(judged: Judged, sensitivity: NDArray[np.float64], bootstraps: int, seed: int) -> Band:
    """Redraw scans, and see how sensitivities move. A sample is a weight for each scan."""
    octaves = round(np.log2(RATES[-1] / RATES[0]))
    rates = RATES[0] * 2.0 ** (np.arange(octaves * _POINTS_AN_OCTAVE + 1) / _POINTS_AN_OCTAVE)
    seven = np.searchsorted(rates, RATES)
    heights = resampled(judged, _samples(judged, bootstraps, seed), rates)
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


# Operating points of a detector: choosing one, what it costs, and how far it holds elsewhere.


# Of shares that stand for whole numbers of nodules.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """A threshold and what it gives.

    Args:
        threshold: marks of at least this probability are shown; infinite shows none.
        false_positives_per_scan: of the marks shown.
        sensitivity: share of the nodules that they find.
    """

    threshold: float
    false_positives_per_scan: float
    sensitivity: float


@dataclass(frozen=True)
class Cost:
    """What a point means for a screening programme.

    Args:
        people: who are scanned once.
        nodules: that they have.
        found: of them.
        missed: of them.
        false_marks: shown to the reader.
        hours: in which the reader looks at all marks.
        share_true: of the marks shown, those that are on a nodule; 0 when none is shown.
    """

    people: int
    nodules: float
    found: float
    missed: float
    false_marks: float
    hours: float
    share_true: float


def points(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    max_marks: int | None = MAX_MARKS,
) -> pd.DataFrame:
    """Every operating point that a set of marks has, from showing none to showing all.

    Args:
        candidates, annotations, excluded, series_uids, max_marks: as `froc.evaluate` takes them.

    Returns:
        One row a threshold, falling from infinity: `threshold`, `false_positives_per_scan` and
        `sensitivity`.
    """
    judged = judge(candidates, annotations, excluded, sorted(series_uids), max_marks)
    false, found = _curve(judged, np.ones(judged.counts.scans))
    return pd.DataFrame(
        {
            "threshold": _thresholds(judged),
            "false_positives_per_scan": false,
            "sensitivity": found,
        }
    )


def at_sensitivity(points: pd.DataFrame, sensitivity: float) -> Point:
    """Of the points that reach a sensitivity, the one with fewest false positives.

    Args:
        points: of `points`.
        sensitivity: wanted, above 0 and at most 1.

    Raises:
        InputError: no threshold reaches it: some nodules have no mark at all.
    """
    reached = np.flatnonzero(points["sensitivity"] >= sensitivity - _ROUNDING)
    if not len(reached) or not 0 < sensitivity <= 1:
        most = points["sensitivity"].max()
        raise InputError(
            f"no threshold has a sensitivity of {sensitivity:g}; the marks reach {most:.3f}, and "
            "what no mark hits no threshold finds"
        )
    return _point(points, reached[0])


def at_threshold(points: pd.DataFrame, threshold: float) -> Point:
    """What a threshold gives, also one that was chosen on other scans.

    Args:
        points: of `points`.
        threshold: marks of at least this probability are shown.
    """
    last = int(np.flatnonzero(points["threshold"] >= threshold)[-1])
    found = _point(points, last)
    return Point(float(threshold), found.false_positives_per_scan, found.sensitivity)


def cost(
    point: Point, *, nodules_a_person: float, seconds_a_mark: float, people: int = 1000
) -> Cost:
    """What an operating point means for so many people, as if all were like those it was read on.

    Args:
        point: what it gives a scan.
        nodules_a_person: mean number of nodules that are worth finding.
        seconds_a_mark: in which a reader judges a mark.
        people: who are scanned once.

    >>> published = Point(0.5, 20.0, 0.9)
    >>> day = cost(published, nodules_a_person=0.3, seconds_a_mark=10)
    >>> day.found, day.false_marks, round(day.hours), round(day.share_true, 3)
    (270.0, 20000.0, 56, 0.013)
    """
    if people < 1 or nodules_a_person < 0 or seconds_a_mark < 0:
        raise InputError(
            f"people is {people}, nodules_a_person {nodules_a_person:g}, seconds_a_mark "
            f"{seconds_a_mark:g}; give 1 or more people, and no negative number"
        )
    nodules = people * nodules_a_person
    found, false = nodules * point.sensitivity, people * point.false_positives_per_scan
    return Cost(
        people=people,
        nodules=nodules,
        found=found,
        missed=nodules - found,
        false_marks=false,
        hours=(found + false) * seconds_a_mark / 3600,
        share_true=found / (found + false) if found + false else 0.0,
    )


def transferred(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
    sensitivity: float,
    *,
    splits: int = 200,
    seed: int = 0,
    max_marks: int | None = MAX_MARKS,
) -> pd.DataFrame:
    """Choose a threshold on half of the scans, use it on the other half; many times.

    Args:
        candidates, annotations, excluded, series_uids, max_marks: as `froc.evaluate` takes them.
        sensitivity: wanted, above 0 and at most 1.
        splits: of the scans into halves.
        seed: of the splits.

    Returns:
        One row a split in which the wanted sensitivity can be reached and both halves have a
        nodule: `threshold`, `sensitivity_chosen`, `sensitivity_elsewhere`, and the same two of
        `false_positives`, a scan.

    Raises:
        InputError: less than two scans or one split, or no split that can be used.
    """
    scans = sorted(series_uids)
    if len(scans) < 2 or splits < 1:
        raise InputError(f"{splits} splits of {len(scans)} scans; give 1 or more of 2 or more")
    judged = judge(candidates, annotations, excluded, scans, max_marks)
    thresholds = _thresholds(judged)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(splits):
        weights = np.zeros(len(scans))
        weights[rng.permutation(len(scans))[: len(scans) // 2]] = 1
        if not 0 < weights @ judged.nodules < judged.counts.nodules:
            continue
        (false, here), (false_there, there) = (_curve(judged, w) for w in (weights, 1 - weights))
        reached = np.flatnonzero(here >= sensitivity - _ROUNDING)
        if len(reached):
            at = reached[0]
            rows.append((thresholds[at], here[at], there[at], false[at], false_there[at]))
    if not rows:
        raise InputError(
            f"in none of {splits} splits can a sensitivity of {sensitivity:g} be reached; take "
            "more scans or a lower one"
        )
    names = [
        f"{what}_{where}"
        for what in ("sensitivity", "false_positives")
        for where in ("chosen", "elsewhere")
    ]
    return pd.DataFrame(rows, columns=["threshold", *names])


def _thresholds(judged: Judged) -> NDArray[np.float64]:
    """Every threshold, from infinity down."""
    return np.append(np.inf, judged.probability[last_of_tie(judged.probability)])


def _curve(
    judged: Judged, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives a scan and sensitivity at every threshold, of scans that count so often."""
    last = last_of_tie(judged.probability)
    false, found = steps(judged, weights, last)
    return false / weights.sum(), found / (weights @ judged.nodules)


def _point(points: pd.DataFrame, row: int) -> Point:
    at = points.iloc[int(row)]
    return Point(
        float(at["threshold"]), float(at["false_positives_per_scan"]), float(at["sensitivity"])
    )


# FROC one mark at a time: what each mark of a submission counts as, and where the curve goes.


FOUND, AGAIN, EXCLUDED, FALSE = "nodule found", "found again", "excluded", "false positive"
KINDS = (FOUND, AGAIN, EXCLUDED, FALSE)


def froc_steps_steps(
    candidates: pd.DataFrame,
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    series_uids: Sequence[str],
) -> pd.DataFrame:
    """The marks in the order in which a falling threshold meets them.

    The rules are those of `froc.evaluate`, but for its limit of marks a scan, which is left out.
    The curve has a point after each mark that is not tied with the next one.

    Args:
        candidates, annotations, excluded, series_uids: as `froc.evaluate` takes them; no mark lies
            in another scan.

    Returns:
        One row a mark: `seriesuid`, `probability`, `counts_as` (of `KINDS`), and after it
        `found` (nodules), `false` (marks), `sensitivity` and `false_positives_per_scan`.

    Raises:
        InputError: what `froc.evaluate` raises.
    """
    judged = evaluate(candidates, annotations, excluded, series_uids, max_marks=None, bootstraps=0)
    order = np.argsort(-candidates["probability"].to_numpy(float), kind="stable")
    marks = candidates.iloc[order].reset_index(drop=True)
    marks = marks[marks[SERIES].isin(list(series_uids))].reset_index(drop=True)
    on_nodules = hits(marks, annotations)
    # Of a nodule's hits the first in this order is its best.
    first = pd.Series(on_nodules.candidate).groupby(on_nodules.finding).min()
    newly = np.bincount(first.to_numpy(np.int64), minlength=len(marks))
    counts_as = np.full(len(marks), FALSE, dtype=object)
    counts_as[hits(marks, excluded).candidate] = EXCLUDED
    counts_as[on_nodules.candidate] = AGAIN
    counts_as[newly > 0] = FOUND
    found, false = np.cumsum(newly), np.cumsum(counts_as == FALSE)
    return pd.DataFrame(
        {
            SERIES: marks[SERIES].astype(str),
            "probability": marks["probability"].to_numpy(float),
            "counts_as": counts_as,
            "found": found,
            "false": false,
            "sensitivity": found / judged.counts.nodules,
            "false_positives_per_scan": false / judged.counts.scans,
        }
    )
