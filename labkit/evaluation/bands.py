"""Performance by size: what a method knows where the diameter alone says nothing.

On LIDC-IDRI large nodules are malignant and small ones benign, so over all sizes the diameter by
itself has an AUC of about 0.94. Within a band of sizes it has less to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import InputError
from labkit.evaluation import intervals
from labkit.evaluation._one_view import rows_of
from labkit.evaluation.intervals import Interval
from labkit.evaluation.metrics import roc_auc
from labkit.evaluation.summary import scores

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
            auc = intervals.small_sample_auc(y, runs, groups=patients, level=level)
        elif small:
            auc = Interval(float(np.mean([roc_auc(y, run) for run in runs])), np.nan, np.nan, level)
        else:
            auc = intervals.bootstrap_auc(y, runs, groups=patients, **seeded)
        found = {"auc": auc, **intervals.bootstrap_rates(y, runs, groups=patients, **seeded)}
        if by_class.min() < _FEWEST:
            found = {k: Interval(i.value, np.nan, np.nan, level) for k, i in found.items()}
    for metric in METRICS:
        interval = found[metric]
        row |= {metric: interval.value, f"{metric}_low": interval.low}
        row |= {f"{metric}_high": interval.high}
    return row
