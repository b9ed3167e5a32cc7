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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from labkit.annotations import luna16
from labkit.annotations.luna16 import POSITION, SERIES, hits
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import DEFAULT_THRESHOLD, select_view
from labkit.evaluation.statistics import Interval, percentile_interval, resample_weights

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MAX_MARKS = 100
LEVEL = 0.95

_POINTS_AN_OCTAVE = 16  # of a band; the seven rates are among its points
_ROUNDING = 1e-9  # of shares that stand for whole numbers of nodules
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """How the marks and nodules of an evaluation were counted."""

    scans: int  # judged, with or without marks
    nodules: int  # in these scans
    detected: int  # nodules hit by at least one mark
    missed: int  # nodules hit by none
    marks: int  # judged: the three kinds below, and the best hit of each nodule
    false_positives: int  # marks that hit nothing
    doubled: int  # hits on a nodule beyond its best; a mark on two nodules is a hit of both
    excluded: int  # marks left out, since they hit an excluded finding and no nodule
    over_limit: int  # marks left out by the limit of marks a scan
    elsewhere: int  # marks left out, since their scan is not judged
    unjudged: int  # nodules left out for the same reason


@dataclass(frozen=True)
class Band:
    """Sensitivities of bootstrap samples of scans; each bound holds at its rate by itself."""

    rates: Floats  # (G,) false positives a scan, 1/8 to 8, evenly on a logarithmic scale
    mean: Floats  # (G,) over the samples
    low: Floats  # (G,)
    high: Floats  # (G,)
    at_rates: tuple[Interval, ...]  # at each of the seven `RATES`
    cpm: Interval  # of the mean over the seven rates
    resamples: int  # how many samples had a nodule, and so a sensitivity


@dataclass(frozen=True)
class Froc:
    """What a set of marks is worth; as text, what `labkit froc` prints."""

    sensitivity: Floats  # (7,) at `RATES`, linear between the curve's points
    cpm: float  # the challenge's score, the mean of the seven
    false_positives_per_scan: Floats  # (T,) of the curve, ascending from 0
    curve_sensitivity: Floats  # (T,) of the curve
    thresholds: Floats  # (T,) marks of at least this probability count; infinite at the start
    band: Band | None  # of the bootstrap over scans; None when none was asked for
    counts: Counts

    def at(self, rates: ArrayLike) -> Floats:
        """Return the sensitivity at any false positives a scan; it ends level."""
        x = np.asarray(rates, float)
        return np.interp(x, self.false_positives_per_scan, self.curve_sensitivity)

    def at_rates(self) -> pd.DataFrame:
        """Return seven rows: `false_positives_per_scan`, `sensitivity`, and with bands also `low`
        and `high`."""
        table = pd.DataFrame({"false_positives_per_scan": RATES, "sensitivity": self.sensitivity})
        if self.band is None:
            return table
        low, high = ([getattr(i, end) for i in self.band.at_rates] for end in ("low", "high"))
        return table.assign(low=low, high=high)

    def __str__(self) -> str:
        c = self.counts
        lines = [
            f"{c.scans} scans, {c.nodules} nodules: {c.detected} hit, {c.missed} missed",
            f"{c.marks} marks judged: {c.false_positives} false positives, {c.doubled} further "
            f"hits of a nodule, {c.excluded} on excluded findings",
        ]
        for left, what in ((c.over_limit, "marks beyond the limit of marks a scan"),
                           (c.elsewhere, "marks in scans that are not judged"),
                           (c.unjudged, "nodules in scans that are not judged")):  # fmt: skip
            lines += [f"{left} {what} were left out"] if left else []
        shown = self.at_rates().drop(columns="false_positives_per_scan")
        shown.insert(0, "false positives a scan", [str(Fraction(rate)) for rate in RATES])
        lines += ["", shown.to_string(index=False, float_format="{:.4f}".format), ""]
        cpm = f"CPM {self.cpm:.4f}"
        if self.band is not None:
            cpm += (f" ({self.band.cpm.low:.4f} to {self.band.cpm.high:.4f}), 95 % over scans, "
                    f"{self.band.resamples} bootstrap samples")  # fmt: skip
        return "\n".join([*lines, cpm])


def evaluate(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str], *, max_marks: int | None = MAX_MARKS, bootstraps: int = 1000,
    seed: int = 0,
) -> Froc:  # fmt: skip
    """Judge marks as the challenge does.

    Sensitivities, CPM, curve and counts are the script's own. Its bands come from scans drawn
    without a seed; given the same scans, these are the same, at 97 rates with the seven (the
    script takes 10,000 others, in single precision). Where the script divides by zero this is 0;
    samples without a nodule are left out. The order of any table's rows does not matter.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm` and `probability`.
        annotations, excluded: nodules, and findings whose marks do not count (perhaps none); the
            same positions and `diameter_mm`.
        series_uids: the scans judged, all of them.
        max_marks: most marks kept of a scan; None keeps all.
        bootstraps, seed: how many samples of scans the bands come from, 0 for no bands.

    Raises:
        InputError: a column is missing, a number is not finite, scans are none or doubled, no
            nodule or no mark is in them, or a limit that is none.
    """
    for name, value in (("bootstraps", bootstraps), ("seed", seed)):
        if value < 0:
            raise InputError(f"{name} is {value}; give 0 or more")
    judged = judge(candidates, annotations, excluded, sorted(series_uids), max_marks)
    ones = np.ones(len(judged.nodules))
    false, found = _counted(judged, ones, judged.last)
    # Points that the curve needs: its start, and those that scikit-learn's `roc_curve` keeps.
    bent = (np.diff(false[1:], 2) != 0) | (np.diff(found[1:], 2) != 0)
    corner = np.concatenate([[True, True], bent, [True]])[: len(false)]
    x, y = (values[corner] for values in _rates(judged, ones, false, found))
    thresholds = np.append(np.inf, judged.probability[judged.last])[corner]
    sensitivity = np.interp(RATES, x, y)
    band = _band(judged, sensitivity, bootstraps, seed) if bootstraps else None
    return Froc(sensitivity, float(sensitivity.mean()), x, y, thresholds, band, judged.counts)


def cpm_difference(
    first: pd.DataFrame, second: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str], *, max_marks: int | None = MAX_MARKS, bootstraps: int = 1000,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute CPM of the first marks less that of the second, with a 95 % percentile interval.

    Each bootstrap sample of scans, the same as `evaluate` draws, judges both, so that what makes a
    scan hard for both is in neither bound. Arguments and errors are `evaluate`'s.
    """
    if bootstraps < 1 or seed < 0:
        raise InputError(f"bootstraps is {bootstraps}, seed {seed}; give 1 or more and 0 or more")
    scans = sorted(series_uids)
    pair = [judge(marks, annotations, excluded, scans, max_marks) for marks in (first, second)]
    every = np.vstack([np.ones(len(scans)), _samples(pair[0], bootstraps, seed)])
    one, two = (resampled(j, every, np.array(RATES)).mean(axis=1) for j in pair)
    return percentile_interval(one - two, LEVEL)


# What each mark counts as, and the curve that follows from it.


@dataclass(frozen=True)
class Judged:
    """Marks sorted into nodules found and false positives: what a FROC curve is made of."""

    probability: Floats  # (R,) of each nodule's best hit and of each false positive, descending
    is_nodule: NDArray[np.bool_]  # (R,)
    scan: NDArray[np.int64]  # (R,) number of its scan
    last: NDArray[np.int64]  # (T,) rows after which the probability changes, one a threshold
    nodules: NDArray[np.int64]  # (scans,) nodules in each scan, detected or not
    found: NDArray[np.int64]  # (scans,) nodules detected in each scan
    false: NDArray[np.int64]  # (scans,) false positives in each scan
    counts: Counts


def judge(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str], max_marks: int | None,
) -> Judged:  # fmt: skip
    """Sort marks into nodules found and false positives; arguments and errors are `evaluate`'s."""
    for what, table, last in (("candidates", candidates, "probability"),
                              ("annotations", annotations, "diameter_mm"),
                              ("excluded findings", excluded, "diameter_mm")):  # fmt: skip
        columns = [*POSITION, last]
        if missing := [name for name in (SERIES, *columns) if name not in table]:
            raise InputError(f"the table of {what} lacks {', '.join(missing)}")
        bad = ~np.isfinite(table[columns].to_numpy(np.float64)).all(axis=1)
        if bad.any():
            raise InputError(f"row {bad.argmax()} of the {what} has a number that is not finite")
    given, scans = len(candidates), len(series_uids)
    named = candidates[SERIES].iloc[0] if given else ""
    if not scans or len(set(series_uids)) < scans:
        raise InputError("a scan stands twice in the list of scans; leave one out" if scans
                         else "there is no scan to judge; give at least one series")  # fmt: skip
    if max_marks is not None and max_marks < 1:
        raise InputError(f"max_marks is {max_marks}; give 1 or more, or None for no limit")

    place = {uid: k for k, uid in enumerate(series_uids)}

    def in_scans(table: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        own = table[SERIES].astype("category").cat
        number = np.array([place.get(uid, -1) for uid in own.categories] + [-1])[own.codes]
        return table[number >= 0], number[number >= 0].astype(np.int64)

    annotated = len(annotations)
    annotations, scan_of_nodule = in_scans(annotations)
    candidates, scan_of_mark = in_scans(candidates)
    excluded, _ = in_scans(excluded)
    if not len(annotations):
        raise InputError(f"no nodule is annotated in these {scans} scans, and sensitivity needs "
                         "one; check that annotations and scans belong together")  # fmt: skip
    if given and not len(candidates):
        raise InputError(f"none of the {given} marks is in one of these {scans} scans: marks name "
                         f"{named} and the like, the list {series_uids[0]}; write them alike"
                         )  # fmt: skip
    probability: Floats = candidates["probability"].to_numpy(np.float64)
    there = len(candidates)
    if max_marks is not None:
        # Kept are those strictly above the first one beyond the limit in their scan.
        marks = np.bincount(scan_of_mark, minlength=scans)
        crowded = marks > max_marks
        beyond = (np.cumsum(marks) - marks + max_marks)[crowded]
        floor = np.full(scans, -np.inf)
        floor[crowded] = probability[np.lexsort((-probability, scan_of_mark))[beyond]]
        kept = probability > floor[scan_of_mark]
        candidates, scan_of_mark = candidates[kept], scan_of_mark[kept]
        probability = probability[kept]

    on_nodules = hits(candidates, annotations)
    best = np.full(len(annotations), -np.inf)
    np.maximum.at(best, on_nodules.finding, probability[on_nodules.candidate])
    matches = np.bincount(on_nodules.finding, minlength=len(annotations))
    detected = matches > 0
    is_hit, is_excluded = np.zeros((2, len(candidates)), bool)
    is_hit[on_nodules.candidate] = True
    is_excluded[hits(candidates, excluded).candidate] = True
    is_false = ~is_hit & ~is_excluded
    scores = np.concatenate([best[detected], probability[is_false]])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    scan_found, scan_false = scan_of_nodule[detected], scan_of_mark[is_false]
    n_detected = len(scan_found)
    return Judged(
        probability=scores, is_nodule=order < n_detected,
        scan=np.concatenate([scan_found, scan_false])[order],
        last=np.flatnonzero(np.append(np.diff(scores) != 0, True)[: len(scores)]),
        nodules=np.bincount(scan_of_nodule, minlength=scans),
        found=np.bincount(scan_found, minlength=scans),
        false=np.bincount(scan_false, minlength=scans),
        counts=Counts(
            scans, len(annotations), n_detected, len(annotations) - n_detected, len(candidates),
            len(scan_false), int(matches.sum()) - n_detected, int((is_excluded & ~is_hit).sum()),
            over_limit=there - len(candidates), elsewhere=given - there,
            unjudged=annotated - len(annotations),
        ),
    )  # fmt: skip


def _counted(judged: Judged, weights: Floats, last: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Count false positives and nodules found at the thresholds `last`, the first of `judged`."""
    end = int(last[-1]) + 1 if len(last) else 0
    weight = weights[judged.scan[:end]]
    found = np.cumsum(weight * judged.is_nodule[:end])[last]
    false = np.cumsum(weight)[last] - found
    return np.append(0.0, false), np.append(0.0, found)


def _rates(judged: Judged, weights: Floats, false: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Return false positives a scan and sensitivity from `_counted`.

    Shares are taken and multiplied back, as the script does by way of scikit-learn's `roc_curve`:
    on which side of a jump at exactly 1/8 a sensitivity is read hangs on the last bit.
    """
    all_false, all_found = weights @ judged.false, weights @ judged.found
    nodules = weights @ judged.nodules
    x = false / all_false * all_false / len(weights) if all_false else np.zeros_like(false)
    y = found / all_found * all_found / nodules if all_found else np.zeros_like(found)
    return x, y


def resampled(judged: Judged, drawn: Floats, rates: Floats) -> Floats:
    """Compute (S, G) sensitivities of samples that hold each scan as often as `drawn` (S, scans).

    `rates` are (G,) false positives a scan in ascending order.
    """
    last = judged.last
    # Twice the false positives that the last rate needs are enough for nearly every sample.
    false = np.cumsum(~judged.is_nodule)[last]
    enough = int(np.searchsorted(false, 2 * rates[-1] * len(judged.nodules))) + 1
    heights = np.empty((len(drawn), len(rates)))
    for i, weights in enumerate(drawn):
        x, y = _rates(judged, weights, *_counted(judged, weights, last[:enough]))
        if x[-1] <= rates[-1] and enough < len(last):
            x, y = _rates(judged, weights, *_counted(judged, weights, last))
        heights[i] = np.interp(rates, x, y)
    return heights


def _samples(judged: Judged, bootstraps: int, seed: int) -> Floats:
    """Draw (S, scans): how often each sample holds each scan; those without a nodule left out."""
    drawn = resample_weights(len(judged.nodules), None, bootstraps, seed)
    drawn = drawn[drawn @ judged.nodules > 0]
    if not len(drawn):
        raise InputError(f"no nodule is in any of {bootstraps} samples of scans; ask for more")
    return drawn


def bounds(samples: Floats) -> tuple[Floats, Floats]:
    """Return bounds along the first axis: the sorted samples that the challenge's script picks."""
    tail = (1 - LEVEL) / 2
    ordered, n = np.sort(samples, axis=0), len(samples)
    return ordered[int(np.floor(tail * n))], ordered[int(np.floor((1 - tail) * n))]


def _band(judged: Judged, sensitivity: Floats, bootstraps: int, seed: int) -> Band:
    octaves = round(np.log2(RATES[-1] / RATES[0]))
    rates = RATES[0] * 2.0 ** (np.arange(octaves * _POINTS_AN_OCTAVE + 1) / _POINTS_AN_OCTAVE)
    seven = np.searchsorted(rates, RATES)
    heights = resampled(judged, _samples(judged, bootstraps, seed), rates)
    low, high = bounds(heights)
    cpm_low, cpm_high = bounds(heights[:, seven].mean(axis=1))
    at_rates = tuple(Interval(float(value), float(low[i]), float(high[i]), LEVEL)
                     for value, i in zip(sensitivity, seven, strict=True))  # fmt: skip
    cpm = Interval(float(sensitivity.mean()), float(cpm_low), float(cpm_high), LEVEL)
    return Band(rates, heights.mean(axis=0), low, high, at_rates, cpm, len(heights))


# One mark at a time: what each of a handful counts as, and where the curve goes.


FOUND, AGAIN, EXCLUDED, FALSE = "nodule found", "found again", "excluded", "false positive"


def steps(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """List the marks in the order in which a falling threshold meets them.

    Arguments and rules are `evaluate`'s, without a limit of marks a scan. One row a mark:
    `seriesuid`, `probability`, `counts_as` (one of the four kinds above), and after it `found`
    (nodules), `false` (marks), `sensitivity` and `false_positives_per_scan`.
    """
    counts = judge(candidates, annotations, excluded, sorted(series_uids), None).counts
    marks = candidates[candidates[SERIES].isin(list(series_uids))]
    marks = marks.sort_values("probability", ascending=False, kind="stable", ignore_index=True)
    on_nodules = hits(marks, annotations)
    # Of a nodule's hits the first in this order is its best.
    first = pd.Series(on_nodules.candidate).groupby(on_nodules.finding).min()
    newly = np.bincount(first.to_numpy(np.int64), minlength=len(marks))
    counts_as = np.full(len(marks), FALSE, dtype=object)
    counts_as[hits(marks, excluded).candidate] = EXCLUDED
    counts_as[on_nodules.candidate] = AGAIN
    counts_as[newly > 0] = FOUND
    found, false = np.cumsum(newly), np.cumsum(counts_as == FALSE)
    return marks[[SERIES, "probability"]].astype({SERIES: str, "probability": float}).assign(
        counts_as=counts_as, found=found, false=false, sensitivity=found / counts.nodules,
        false_positives_per_scan=false / counts.scans,
    )  # fmt: skip


# Operating points: how far one holds elsewhere, and the paper's own measures.


def transferred(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str], sensitivity: float, *, splits: int = 200, seed: int = 0,
    max_marks: int | None = MAX_MARKS,
) -> pd.DataFrame:  # fmt: skip
    """Choose a threshold on half of the scans, use it on the other half; so many times.

    `sensitivity` is wanted, in (0, 1]; other arguments are `evaluate`'s. Returns one row a split in
    which it can be reached and both halves have a nodule: `threshold`, `sensitivity_chosen`,
    `sensitivity_elsewhere`, and the same two of `false_positives`, a scan.
    """
    scans = sorted(series_uids)
    if len(scans) < 2 or splits < 1:
        raise InputError(f"{splits} splits of {len(scans)} scans; give 1 or more of 2 or more")
    judged = judge(candidates, annotations, excluded, scans, max_marks)
    thresholds = np.append(np.inf, judged.probability[judged.last])
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(splits):
        chosen = np.zeros(len(scans))
        chosen[rng.permutation(len(scans))[: len(scans) // 2]] = 1
        if not 0 < chosen @ judged.nodules < judged.counts.nodules:
            continue
        row: dict[str, Any] = {"threshold": thresholds}
        for half, weights in (("chosen", chosen), ("elsewhere", 1 - chosen)):
            false, found = _counted(judged, weights, judged.last)
            row[f"sensitivity_{half}"] = found / (weights @ judged.nodules)
            row[f"false_positives_{half}"] = false / weights.sum()
        reached = np.flatnonzero(row["sensitivity_chosen"] >= sensitivity - _ROUNDING)[:1]
        rows += [{name: values[i] for name, values in row.items()} for i in reached]
    if not rows:
        raise InputError(f"in none of {splits} splits can a sensitivity of {sensitivity:g} be "
                         "reached; take more scans or a lower one")  # fmt: skip
    measures = [f"{what}_{half}" for what in ("sensitivity", "false_positives")
                for half in ("chosen", "elsewhere")]  # fmt: skip
    return pd.DataFrame(rows)[["threshold", *measures]]


@dataclass(frozen=True)
class Screening:
    """The paper's measures over candidates (III-E); as text, what `labkit froc` prints."""

    threshold: float  # a candidate at or above it is called a nodule
    auc: float  # over candidates
    sensitivity: float  # share of the positive candidates called nodules; not of the nodules
    specificity: float  # share of the negative candidates not called
    false_positive_rate: float  # share of the negative candidates called nodules
    false_positives_per_scan: float  # the same, a scan
    positives: int
    negatives: int

    def __str__(self) -> str:
        return (
            f"{self.positives} marks on nodules and {self.negatives} others, those on excluded "
            f"findings among them; called a nodule from {self.threshold:g} on:\n"
            f"AUC {self.auc:.4f}, sensitivity {self.sensitivity:.4f} of the marks on nodules, "
            f"specificity {self.specificity:.4f}\n"
            f"false positive rate {self.false_positive_rate:.4f}, which is "
            f"{self.false_positives_per_scan:.2f} false positives a scan"
        )


def screening(
    classes: ArrayLike, probabilities: ArrayLike, scans: int, threshold: float = DEFAULT_THRESHOLD
) -> Screening:
    """Compute the paper's AUC and rates over candidates, and what they mean for a scan.

    `classes` are 1 for a candidate that is a nodule; `scans` counts those without a candidate, too.
    The paper's 3.2 %, of the 549,714 negatives in 888 scans, is 20 false positives a scan.
    InputError: vectors of other lengths, a class missing, no scan, or an infinite threshold.
    """
    if scans < 1 or not math.isfinite(threshold):
        raise InputError(f"scans is {scans}, threshold {threshold}; give a probability such as "
                         "0.5, and 1 scan or more")  # fmt: skip
    kinds = np.unique(np.asarray(classes))
    if len(kinds) < 2:
        which = "every one" if kinds.any() else "none"
        raise InputError(f"of the {np.size(classes)} marks in the scans judged, {which} hits a "
                         "nodule; AUC and rates need both kinds: judge without a threshold"
                         )  # fmt: skip
    y, s = statistics.checked(classes, probabilities)
    point = statistics.sensitivity_specificity(y, s, threshold)
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    wrongly = int((s[y == 0] >= threshold).sum())
    return Screening(
        threshold, statistics.roc_auc(y, s), point.sensitivity, point.specificity,
        wrongly / negatives, wrongly / scans, positives, negatives,
    )  # fmt: skip


# A run on LUNA-16's candidates, judged as a submission.


def marks(cohort: Cohort, predictions: pd.DataFrame, view: str = "fused") -> pd.DataFrame:
    """Return a run's predictions as marks: one row a candidate, the mean over repeats.

    `predictions` may be of some subsets only; `view` is "0" to "8", "fused" or "detector". Columns:
    seriesuid, x_mm, y_mm, z_mm (world), probability and label, in the cohort's order.
    """
    chosen = select_view(predictions, view)
    number, names = pd.factorize(chosen["nodule_id"])
    total = np.bincount(number, chosen["probability"].to_numpy(dtype=np.float64), len(names))
    mean = total / np.bincount(number, minlength=len(names))
    place = pd.Index(names).get_indexer(pd.Index(cohort.nodules["nodule_id"]))
    predicted = np.flatnonzero(place >= 0)
    table = cohort.nodules.iloc[predicted].reset_index(drop=True)
    table = table[["series_uid", *POSITION, "label"]].rename(columns={"series_uid": SERIES})
    table.insert(4, "probability", mean[place[predicted]])
    return table


def truth(cohort: Cohort, marked: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Read a cohort's nodules, excluded findings and scans, as `evaluate` takes them.

    The scans are all of the cohort's, or, where only some subsets were predicted, those in
    `marked`, the series of each candidate that was.
    """
    every, there = luna16.read_series(cohort.folder / "seriesuids.csv"), set(marked)
    return (
        luna16.read_annotations(cohort.folder / "annotations.csv"),
        luna16.read_excluded(cohort.folder / "annotations_excluded.csv"),
        every if len(marked) == len(cohort) else [uid for uid in every if uid in there],
    )


def evaluate_run(
    cohort: Cohort, predictions: pd.DataFrame, view: str = "fused", *, bootstraps: int = 1000
) -> Froc:
    """Judge a run on LUNA-16's candidates as the challenge judges a submission (see `marks`)."""
    of_run = marks(cohort, predictions, view)
    return evaluate(of_run, *truth(cohort, of_run[SERIES]), bootstraps=bootstraps)


def as_values(found: Froc) -> dict[str, Any]:
    """Return a result as JSON has it: the seven rates and CPM with intervals, a thinned curve."""

    def rounded(values: Any) -> list[float]:
        return [round(float(v), 6) for v in values]

    curve = np.geomspace(RATES[0], RATES[-1], 49)
    values: dict[str, Any] = {
        "rates": list(RATES), "sensitivity": rounded(found.sensitivity), "cpm": round(found.cpm, 6),
        "curve": {"rates": rounded(curve), "sensitivity": rounded(found.at(curve))},
        "scans": found.counts.scans, "nodules": found.counts.nodules,
    }  # fmt: skip
    if found.band is not None:
        values["cpm_low"], values["cpm_high"] = rounded((found.band.cpm.low, found.band.cpm.high))
        values |= {end: rounded(found.at_rates()[end]) for end in ("low", "high")}
    return values
