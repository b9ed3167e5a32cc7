"""What each mark of a submission counts as: the challenge's rules, before any curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.data.luna16.hits import hits
from labkit.data.luna16.tables import POSITION, SERIES, series_codes
from labkit.errors import InputError


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
