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

FOUND, AGAIN, EXCLUDED, FALSE = "nodule found", "found again", "excluded", "false positive"
"""What a mark counts as."""

_POINTS_AN_OCTAVE = 16  # of a band, between two of the seven rates
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
    low: Floats  # (G,)
    high: Floats  # (G,)
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
        seven = slice(None, None, _POINTS_AN_OCTAVE)
        return table.assign(low=self.band.low[seven], high=self.band.high[seven])

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
    sensitivity = np.interp(RATES, x, y)
    band = _band(judged, sensitivity, bootstraps, seed) if bootstraps else None
    cpm = float(sensitivity.mean())
    return Froc(sensitivity, cpm, x, y, judged.thresholds[corner], band, judged.counts)


def cpm_difference(
    first: pd.DataFrame, second: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str], *, bootstraps: int = 1000, seed: int = 0,
) -> Interval:  # fmt: skip
    """Compute CPM of the first marks less that of the second, with a 95 % percentile interval.

    Each bootstrap sample of scans, the same as `evaluate` draws, judges both, so that what makes a
    scan hard for both is in neither bound. Arguments and errors are `evaluate`'s.
    """
    if bootstraps < 1 or seed < 0:
        raise InputError(f"bootstraps is {bootstraps}, seed {seed}; give 1 or more and 0 or more")
    scans = sorted(series_uids)
    pair = [judge(marks, annotations, excluded, scans, MAX_MARKS) for marks in (first, second)]
    every = np.vstack([np.ones(len(scans)), _samples(pair[0], bootstraps, seed)])
    one, two = (resampled(j, every, np.array(RATES)).mean(axis=1) for j in pair)
    return percentile_interval(one - two, LEVEL)


# What each mark counts as, and the curve that follows from it.


@dataclass(frozen=True)
class Judged:
    """Marks sorted into nodules found and false positives: what a FROC curve is made of."""

    marks: (
        pd.DataFrame
    )  # by falling probability, with what each `counts_as` and nodules `newly` hit
    probability: Floats  # (R,) of the marks that count, descending
    newly: NDArray[np.int64]  # (R,) nodules that the mark finds; none where it is false
    scan: NDArray[np.int64]  # (R,) number of its scan
    last: NDArray[np.int64]  # (T,) rows after which the probability changes, one a threshold
    nodules: NDArray[np.int64]  # (scans,) nodules in each scan, detected or not
    found: NDArray[Any]  # (scans,) nodules detected in each scan
    false: NDArray[np.int64]  # (scans,) false positives in each scan
    counts: Counts

    @property
    def thresholds(self) -> Floats:
        """(1 + T,) falling probabilities at which marks count; at first none does."""
        return np.append(np.inf, self.probability[self.last])


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

    of_scan = pd.Index(series_uids)

    def in_scans(table: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        own = table[SERIES].astype("category").cat
        number = np.append(of_scan.get_indexer(own.categories), -1)[own.codes]
        return table[number >= 0], number[number >= 0]

    annotated = len(annotations)
    annotations, scan_of_nodule = in_scans(annotations)
    candidates, scan = in_scans(candidates)
    excluded, _ = in_scans(excluded)
    if not len(annotations):
        raise InputError(f"no nodule is annotated in these {scans} scans, and sensitivity needs "
                         "one; check that annotations and scans belong together")  # fmt: skip
    if given and not len(candidates):
        raise InputError(f"none of the {given} marks is in one of these {scans} scans: marks name "
                         f"{named} and the like, the list {series_uids[0]}; write them alike"
                         )  # fmt: skip
    there = len(candidates)
    order = np.argsort(-candidates["probability"].to_numpy(np.float64), kind="stable")
    marks, scan = candidates.iloc[order].reset_index(drop=True), scan[order]
    if max_marks is not None:
        # Kept are those strictly above the first one beyond the limit in their scan.
        beyond = (marks.groupby(scan).cumcount() == max_marks).to_numpy()
        said, floor = marks["probability"].to_numpy(np.float64), np.full(scans, -np.inf)
        floor[scan[beyond]] = said[beyond]
        kept = said > floor[scan]
        marks, scan = marks[kept].reset_index(drop=True), scan[kept]

    on_nodules = hits(marks, annotations)
    # Of a nodule's hits the first in this order is its best.
    best = pd.Series(on_nodules.candidate).groupby(on_nodules.finding).min()
    newly = np.bincount(best.to_numpy(np.int64), minlength=len(marks))
    counts_as = np.full(len(marks), FALSE, dtype=object)
    counts_as[hits(marks, excluded).candidate] = EXCLUDED
    counts_as[on_nodules.candidate] = AGAIN
    counts_as[newly > 0] = FOUND
    counted = (newly > 0) | (counts_as == FALSE)
    probability = marks["probability"].to_numpy(np.float64)[counted]
    of_false = np.bincount(scan[counts_as == FALSE], minlength=scans)
    return Judged(
        marks.assign(counts_as=counts_as, newly=newly), probability, newly[counted], scan[counted],
        last=np.flatnonzero(np.diff(probability, append=-np.inf)),
        nodules=np.bincount(scan_of_nodule, minlength=scans),
        found=np.bincount(scan, newly, minlength=scans), false=of_false,
        counts=Counts(
            scans, len(annotations), len(best), len(annotations) - len(best), len(marks),
            int(of_false.sum()), len(on_nodules.finding) - len(best),
            int((counts_as == EXCLUDED).sum()), over_limit=there - len(marks),
            elsewhere=given - there, unjudged=annotated - len(annotations),
        ),
    )  # fmt: skip


def _counted(judged: Judged, weights: Floats, last: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Count false positives and nodules found at the thresholds `last`, the first of `judged`."""
    end = int(last[-1]) + 1 if len(last) else 0
    weight, newly = weights[judged.scan[:end]], judged.newly[:end]
    found, false = np.cumsum(weight * newly)[last], np.cumsum(weight * (newly == 0))[last]
    return np.append(0.0, false), np.append(0.0, found)


def _rates(judged: Judged, weights: Floats, false: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Return false positives a scan and sensitivity from `_counted`."""
    # Shares are taken and multiplied back, as the script does by way of scikit-learn's `roc_curve`:
    # on which side of a jump at exactly 1/8 a sensitivity is read hangs on the last bit.
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
    false = np.cumsum(judged.newly == 0)[last]
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
    points = np.arange(_POINTS_AN_OCTAVE * (len(RATES) - 1) + 1)
    rates = RATES[0] * 2.0 ** (points / _POINTS_AN_OCTAVE)
    heights = resampled(judged, _samples(judged, bootstraps, seed), rates)
    low, high = bounds(heights)
    cpm_low, cpm_high = bounds(heights[:, ::_POINTS_AN_OCTAVE].mean(axis=1))
    cpm = Interval(float(sensitivity.mean()), float(cpm_low), float(cpm_high), LEVEL)
    return Band(rates, low, high, cpm, len(heights))


def steps(
    candidates: pd.DataFrame, annotations: pd.DataFrame, excluded: pd.DataFrame,
    series_uids: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """List the marks in the order in which a falling threshold meets them.

    Arguments and rules are `evaluate`'s, without a limit of marks a scan. One row a mark:
    `seriesuid`, `probability`, `counts_as` (one of the four kinds above), and after it `found`
    (nodules), `false` (marks), `sensitivity` and `false_positives_per_scan`.
    """
    judged = judge(candidates, annotations, excluded, sorted(series_uids), None)
    marks, counts = judged.marks[[SERIES, "probability", "counts_as"]], judged.counts
    found, false = judged.marks["newly"].cumsum(), (marks["counts_as"] == FALSE).cumsum()
    return marks.astype({SERIES: str, "probability": float}).assign(
        found=found, false=false, sensitivity=found / counts.nodules,
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
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(splits):
        chosen = np.zeros(len(scans))
        chosen[rng.permutation(len(scans))[: len(scans) // 2]] = 1
        if not 0 < chosen @ judged.nodules < judged.counts.nodules:
            continue
        row: dict[str, Any] = {"threshold": judged.thresholds}
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
            "{positives} marks on nodules and {negatives} others, those on excluded findings among "
            "them; called a nodule from {threshold:g} on:\n"
            "AUC {auc:.4f}, sensitivity {sensitivity:.4f} of the marks on nodules, specificity "
            "{specificity:.4f}\nfalse positive rate {false_positive_rate:.4f}, which is "
            "{false_positives_per_scan:.2f} false positives a scan"
        ).format(**vars(self))


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
    sensitivity, specificity, _ = statistics.sensitivity_specificity(y, s, threshold)
    called, negatives = s[y == 0] >= threshold, int((y == 0).sum())
    return Screening(
        threshold, statistics.roc_auc(y, s), sensitivity, specificity, float(called.mean()),
        int(called.sum()) / scans, len(y) - negatives, negatives,
    )  # fmt: skip


# A run on LUNA-16's candidates, judged as a submission.


def marks(cohort: Cohort, predictions: pd.DataFrame, view: str = "fused") -> pd.DataFrame:
    """Return a run's predictions as marks: one row a candidate, the mean over repeats.

    `predictions` may be of some subsets only; `view` is "0" to "8", "fused" or "detector". Columns:
    seriesuid, x_mm, y_mm, z_mm (world), probability and label, in the cohort's order.
    """
    said = select_view(predictions, view).groupby("nodule_id", sort=False)["probability"].mean()
    judged = cohort.nodules[cohort.nodules["nodule_id"].isin(said.index)].reset_index(drop=True)
    table = judged[["series_uid", *POSITION, "label"]].rename(columns={"series_uid": SERIES})
    table.insert(4, "probability", said.loc[judged["nodule_id"]].to_numpy())
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
