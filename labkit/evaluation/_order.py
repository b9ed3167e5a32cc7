"""AUC and ROC curve of any sample of patients, from sums over pairs of patients.

A sample that draws patient p twice and q three times compares p's malignant nodules with q's benign
ones six times. So the wins of every pair of nodules are summed over pairs of patients once, and the
AUC of a sample is a product with that table: no list of all pairs of nodules is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labkit.evaluation._patients import Floats, Measure, Patients, in_blocks

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
