"""Operating points of a detector: choosing one, what it costs, and how far it holds elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import _froc_curve, froc
from labkit.evaluation._marks import Judged, judge

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
    max_marks: int | None = froc.MAX_MARKS,
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
    max_marks: int | None = froc.MAX_MARKS,
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
    return np.append(np.inf, judged.probability[_froc_curve.last_of_tie(judged.probability)])


def _curve(
    judged: Judged, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positives a scan and sensitivity at every threshold, of scans that count so often."""
    last = _froc_curve.last_of_tie(judged.probability)
    false, found = _froc_curve.steps(judged, weights, last)
    return false / weights.sum(), found / (weights @ judged.nodules)


def _point(points: pd.DataFrame, row: int) -> Point:
    at = points.iloc[int(row)]
    return Point(
        float(at["threshold"]), float(at["false_positives_per_scan"]), float(at["sensitivity"])
    )
