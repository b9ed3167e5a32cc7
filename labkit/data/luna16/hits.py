"""Which candidates hit which nodules, by the challenge's rule, and merging of near candidates.

A candidate hits a nodule when its squared distance from the nodule's centre is strictly less than
the square of half the nodule's diameter; a diameter below 0 (unknown) counts as 10 mm.

Reference: Setio et al., Med Image Anal 42:1-13, 2017, and the challenge's evaluation script.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from labkit.data.luna16.tables import POSITION, SERIES, series_codes
from labkit.errors import InputError

DIAMETER_OF_UNKNOWN_MM = 10.0
MERGE_WITHIN_MM = 5.0

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Hits:
    """All pairs of a candidate and a finding that it hits, by finding and then by candidate.

    Args:
        candidate: (P,) row of the candidate's table.
        finding: (P,) row of the findings' table.
        distance_mm: (P,) between their centres.
    """

    candidate: NDArray[np.int64]
    finding: NDArray[np.int64]
    distance_mm: NDArray[np.float64]


@np.errstate(over="ignore")  # what is too far for a number is too far for a hit
def hits(candidates: pd.DataFrame, findings: pd.DataFrame) -> Hits:
    """All hits of candidates on findings of the same series.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`.
        findings: the same columns and `diameter_mm`.

    Returns:
        The pairs; a candidate can be in several, and so can a finding.
    """
    ours, theirs = _rows(candidates[SERIES]), _rows(findings[SERIES])
    points, centers = _points(candidates), _points(findings)
    diameter = findings["diameter_mm"].to_numpy(np.float64)
    # The rule compares squares, and so does this: a root would move hits on the very rim.
    radius_squared = (np.where(diameter < 0, DIAMETER_OF_UNKNOWN_MM, diameter) / 2) ** 2
    found: list[tuple[NDArray, NDArray, NDArray]] = []
    for uid, rows in theirs.items():
        marks = ours.get(uid)
        if marks is None:
            continue
        step = max(1, _PAIRS_AT_ONCE // len(rows))
        for start in range(0, len(marks), step):
            some = marks[start : start + step]
            away = centers[rows][:, None, :] - points[some][None, :, :]
            squared = away[..., 0] ** 2 + away[..., 1] ** 2 + away[..., 2] ** 2
            finding, mark = np.nonzero(squared < radius_squared[rows][:, None])
            found.append((some[mark], rows[finding], np.sqrt(squared[finding, mark])))
    if not found:
        return Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    candidate, finding, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((candidate, finding))
    return Hits(candidate[order], finding[order], distance[order])


def label(candidates: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Say of every candidate whether it is a nodule.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`; others are kept.
        annotations: the same and `diameter_mm`: the nodules.

    Returns:
        A copy of `candidates` with the columns `class` (int8; 1 when it hits a nodule) and `nodule`
        (int64; row of `annotations`, of the nearest centre when it hits several; -1 for none).
    """
    found = hits(candidates, annotations)
    order = np.lexsort((found.finding, found.distance_mm, found.candidate))
    candidate, first = np.unique(found.candidate[order], return_index=True)
    nodule = np.full(len(candidates), -1, np.int64)
    nodule[candidate] = found.finding[order][first]
    labelled = candidates.copy()
    labelled["class"] = (nodule >= 0).astype(np.int8)
    labelled["nodule"] = nodule
    return labelled


def merge_within(candidates: pd.DataFrame, distance_mm: float = MERGE_WITHIN_MM) -> pd.DataFrame:
    """Merge candidates of a scan that lie within a distance of each other (paper, II; 5 mm).

    The paper and the challenge say that candidates at most 5 mm apart are merged, and not how.
    Here two candidates that are each other's nearest become one at their common centre (the mean of
    all that it was merged from), and again until no two are left within the distance: a row of
    candidates along a vessel does not collapse into one, as it would were all neighbours joined.
    The outcome does not depend on the order of rows.

    Args:
        candidates: columns `seriesuid`, `x_mm`, `y_mm`, `z_mm`; `class` and `probability`, if
            there, become the greatest of the merged; other columns are left out.
        distance_mm: merged when at most this far apart; positive.

    Returns:
        DataFrame by series and position, with the columns of `candidates` that were kept and
        `merged` (int64), how many candidates each row was made from.
    """
    if not distance_mm > 0:
        raise InputError(f"distance_mm is {distance_mm}; give a positive length")
    greatest = [name for name in ("class", "probability") if name in candidates]
    series, uids = series_codes(candidates[SERIES])
    points = _points(candidates)
    values = candidates[greatest].to_numpy(np.float64)
    # Means depend in their last bit on the order of summing, and ties on the order of rows.
    order = np.lexsort((*values.T, *points.T[::-1], series))
    series, points, values = series[order], points[order], values[order]
    count = np.ones(len(points), np.int64)
    while True:
        first, second = _mutual_neighbours(series, points, distance_mm)
        if not len(first):
            break
        weight = count[[first, second]] / (count[first] + count[second])
        points[first] = weight[0][:, None] * points[first] + weight[1][:, None] * points[second]
        values[first] = np.maximum(values[first], values[second])
        count[first] += count[second]
        keep = np.ones(len(points), bool)
        keep[second] = False
        series, points, values, count = (a[keep] for a in (series, points, values, count))
    order = np.lexsort((*values.T, *points.T[::-1], series))
    kinds = candidates.dtypes
    return pd.DataFrame(
        {
            SERIES: pd.Categorical.from_codes(series[order], categories=pd.Index(uids)),
            **dict(zip(POSITION, points[order].T, strict=True)),
            **{n: values[order, i].astype(kinds[n]) for i, n in enumerate(greatest)},
            "merged": count[order],
        }
    )


def _mutual_neighbours(
    series: NDArray[np.int64], points: NDArray[np.float64], distance_mm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of pairs, within the distance, that are each other's nearest; ties go to lower rows."""
    if not len(points):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # A fourth axis keeps scans apart, so that one tree serves all of them.
    tree = cKDTree(np.column_stack([points, series * (2 * distance_mm + 1)]))
    pairs = tree.query_pairs(distance_mm * (1 + 1e-9), output_type="ndarray")
    length = ((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(axis=1)
    near = length <= distance_mm**2
    pairs, length = pairs[near], length[near]
    here = np.concatenate([pairs[:, 0], pairs[:, 1]])
    there = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.lexsort((there, np.tile(length, 2), here))
    here, there = here[order], there[order]
    owner, first = np.unique(here, return_index=True)
    nearest = np.full(len(points), -1, np.int64)
    nearest[owner] = there[first]
    rows = np.flatnonzero(nearest >= 0)
    mutual = rows[(nearest[nearest[rows]] == rows) & (rows < nearest[rows])]
    return mutual, nearest[mutual]


def _points(table: pd.DataFrame) -> NDArray[np.float64]:
    return table[list(POSITION)].to_numpy(np.float64, copy=True)


def _rows(series: pd.Series) -> dict[str, NDArray[np.int64]]:
    """Rows of each series."""
    codes, uids = series_codes(series)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(uids)))
    parts = np.split(order, ends[:-1]) if len(uids) else []
    return dict(zip(uids, parts, strict=True))
