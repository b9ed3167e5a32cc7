"""Performance by size: what a method knows where the diameter alone says nothing.

On LIDC-IDRI large nodules are malignant and small ones benign, so over all sizes the diameter by
itself has an AUC of about 0.94. Within a band of sizes it has less to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import one_view, rows_of
from labkit.evaluation.statistics import Interval, Patients, roc_auc, scores

# AUC among nodules of the same size: what a method knows beyond the diameter.
#
# Bands of sizes leave sizes to be told apart inside a band. Here a malignant nodule is compared
# only
# with benign ones whose diameters are nearly its own, so that the diameter has next to nothing to
# say
# and whatever orders such a pair must be something else.


RATIO = 1.1
"""The larger diameter of a pair may be this many times the smaller. Readers' own diameters of one
nodule differ by more than that."""


@dataclass(frozen=True)
class Matched:
    """What `matched_auc` finds.

    Args:
        auc: share of size-matched pairs in which the malignant nodule has the higher score.
        pairs: how many such pairs there are.
        malignant, benign: nodules that are in at least one of them.
    """

    auc: Interval
    pairs: int
    malignant: int
    benign: int


def matched_auc(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str = "fused",
    *,
    ratio: float = RATIO,
    within_folds: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Matched:
    """How often a malignant nodule outscores a benign one of nearly its diameter, ties half.

    Args:
        predictions: as `crossval.run` returns them.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        view: "0" to "8", "fused" or "size_only".
        ratio: of the diameters of a pair, at most.
        within_folds: compare only nodules that the same networks judged.
        resamples: of the bootstrap over patients, each with all nodules in all repeats.
        level: confidence.
        seed: of the bootstrap.

    Raises:
        InputError: no such view, a nodule without a diameter, a ratio below 1, or no pair at all.
    """
    samples, pair = _samples(predictions, nodules, view, ratio, within_folds, resamples, seed)
    return Matched(
        statistics.percentile(float(samples[0]), samples[1:], level),
        int(pair.sum()),
        int(pair.any(axis=1).sum()),
        int(pair.any(axis=0).sum()),
    )


def matched_difference(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str,
    second_view: str,
    *,
    ratio: float = RATIO,
    within_folds: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC of a view less that of another in pairs of one size, by paired bootstrap over patients.

    Args:
        predictions: of one run, which has both views.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        view, second_view: such as "fused" and "size_only".
        ratio, within_folds, resamples, level, seed: as in `matched_auc`.

    Raises:
        InputError: as `matched_auc`.
    """
    how = (ratio, within_folds, resamples, seed)
    one, _ = _samples(predictions, nodules, view, *how)
    other, _ = _samples(predictions, nodules, second_view, *how)
    return statistics.percentile(float(one[0] - other[0]), one[1:] - other[1:], level)


def _samples(
    predictions: pd.DataFrame,
    nodules: pd.DataFrame,
    view: str,
    ratio: float,
    within_folds: bool,
    resamples: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """AUC as measured and in every resample; and which (malignant, benign) pairs were compared."""
    if not (np.isfinite(ratio) and ratio >= 1):
        raise InputError(f"the larger diameter cannot be {ratio} times the smaller; give 1 or more")
    of = one_view(predictions, view)
    mm = nodules.set_index("nodule_id")["diameter_mm"].reindex(of.nodules).to_numpy(dtype=float)
    if not np.all(mm > 0):
        lost = of.nodules[~(mm > 0)][0]
        raise InputError(f"{lost}: no diameter in the nodule table; sizes cannot be matched")
    ill, well = np.flatnonzero(of.labels == 1), np.flatnonzero(of.labels == 0)
    distance = np.abs(np.log(mm[ill])[:, None] - np.log(mm[well])[None, :])
    close = distance <= np.log(ratio) + 1e-12
    won, counted = np.zeros((2, *close.shape))
    for run, fold in zip(of.probabilities, of.folds, strict=True):
        same = close & (fold[ill][:, None] == fold[well][None, :]) if within_folds else close
        won += same * (np.sign(run[ill][:, None] - run[well][None, :]) + 1) / 2
        counted += same
    if not counted.any():
        raise InputError("no malignant nodule has a benign one of its size: nothing to compare")
    patients = Patients.of(of.patients, len(of.labels))
    codes = patients.codes

    def share(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        w1, w0 = drawn[:, codes[ill]], drawn[:, codes[well]]
        with np.errstate(invalid="ignore"):
            return ((w1 @ won) * w0).sum(axis=1) / ((w1 @ counted) * w0).sum(axis=1)

    return patients.bootstrap(share, resamples, seed), counted > 0


EDGES_MM = (8.0, 15.0)
METRICS = ("auc", "sensitivity", "specificity")
_FEWEST = 5


def by_size(
    runs: Mapping[str, tuple[pd.DataFrame, str]],
    nodules: pd.DataFrame,
    *,
    edges_mm: tuple[float, ...] = EDGES_MM,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """AUC, sensitivity and specificity of methods in bands of diameter.

    Args:
        runs: method -> (predictions, view), such as {"MT-CNN": (table, "fused"), "size only":
            (table, "size_only")}.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        edges_mm: rising; (8, 15) makes "under 8 mm", "8 to 15 mm" (both ends) and "over 15 mm".
        resamples: of the rates' bootstrap, over the patients with nodules in the band.
        level: confidence.
        seed: of that bootstrap.

    Returns:
        One row a method and band, and one over "all sizes": `method`, `band`, `nodules`,
        `malignant`, `patients`, and for each of `METRICS` the value, its `_low` and its `_high`.
        The AUC's interval is the bootstrap's over all sizes, and in the bands, which are small,
        that of `intervals.small_sample_auc`. NaN where there is nothing to say: intervals where a
        class has fewer than 5 patients, and everything where there is one class.

    Raises:
        InputError: edges that do not rise, no such view, or a predicted nodule without a diameter.
    """
    if not runs:
        raise InputError("there is no run to judge by size")
    names = band_names(edges_mm)
    diameters = nodules.set_index("nodule_id")["diameter_mm"]
    if diameters.index.has_duplicates:
        raise InputError("the nodule table has a nodule twice")
    rows = []
    for method, (predictions, view) in runs.items():
        chosen = rows_of(predictions, view)
        if chosen.empty:
            raise InputError(f"{method}: no predictions for view {view!r}")
        mm = chosen["nodule_id"].map(diameters)
        if mm.isna().any():
            raise InputError(
                f"{method}: {chosen.loc[mm.isna(), 'nodule_id'].nunique()} predicted nodules have "
                "no diameter in the nodule table"
            )
        number = _band_of(mm.to_numpy(dtype=float), edges_mm)
        for band, name in enumerate((*names, "all sizes")):
            part = chosen if band == len(names) else chosen[number == band]
            rows.append(
                {
                    "method": method,
                    "band": name,
                    **_row(part, view, band < len(names), resamples, level, seed),
                }
            )
    return pd.DataFrame(rows)


def band_names(edges_mm: tuple[float, ...]) -> tuple[str, ...]:
    """What the bands between the edges are called.

    >>> band_names((8, 15))
    ('under 8 mm', '8 to 15 mm', 'over 15 mm')
    """
    edges = np.asarray(edges_mm, dtype=float)
    if len(edges) == 0 or np.any(~np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise InputError(f"edges of size bands must be rising numbers of mm, not {edges_mm}")
    between = [f"{a:g} to {b:g} mm" for a, b in pairwise(edges)]
    return (f"under {edges[0]:g} mm", *between, f"over {edges[-1]:g} mm")


def _band_of(diameter_mm: np.ndarray, edges_mm: tuple[float, ...]) -> np.ndarray:
    """Band number; a diameter on an edge is "under" nothing and "over" nothing."""
    edges = np.asarray(edges_mm, dtype=float)
    number = np.searchsorted(edges, diameter_mm, side="right")
    if len(edges) > 1:
        number[diameter_mm == edges[-1]] = len(edges) - 1
    return number


def _row(
    part: pd.DataFrame, view: str, small: bool, resamples: int, level: float, seed: int
) -> dict[str, Any]:
    nodules = part.drop_duplicates("nodule_id")
    by_class = nodules.groupby("label")["patient_id"].nunique()
    row: dict[str, Any] = {
        "nodules": len(nodules),
        "malignant": int(nodules["label"].sum()),
        "patients": nodules["patient_id"].nunique(),
    }
    found = dict.fromkeys(METRICS, Interval(np.nan, np.nan, np.nan, level))
    if len(by_class) == 2:
        y, runs, patients = scores(part, view)
        seeded: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
        if small and by_class.min() >= _FEWEST:
            auc = statistics.small_sample_auc(y, runs, groups=patients, level=level)
        elif small:
            auc = Interval(float(np.mean([roc_auc(y, run) for run in runs])), np.nan, np.nan, level)
        else:
            auc = statistics.bootstrap_auc(y, runs, groups=patients, **seeded)
        found = {"auc": auc, **statistics.bootstrap_rates(y, runs, groups=patients, **seeded)}
        if by_class.min() < _FEWEST:
            found = {k: Interval(i.value, np.nan, np.nan, level) for k, i in found.items()}
    for metric in METRICS:
        interval = found[metric]
        row |= {metric: interval.value, f"{metric}_low": interval.low}
        row |= {f"{metric}_high": interval.high}
    return row
