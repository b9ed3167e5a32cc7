"""Predictions of a run: read, cut at a threshold, and as arrays with one column a nodule.

The table has one row a nodule, repeat, fold and view; every metric, test and figure starts from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.io import read_json

COLUMNS = ("nodule_id", "patient_id", "repeat", "fold", "view", "probability", "label")
FUSED = "fused"
SIZE_ONLY = "size_only"
DETECTOR = "detector"
"""What the score of whatever proposed LUNA-16's candidates tells by itself, where it is known."""
DEFAULT_THRESHOLD = 0.5

_NAMES = ("nodule_id", "patient_id", "view")
_ROWS_AT_ONCE = 100_000


def read_predictions(out: str | Path, view: str | None = None) -> pd.DataFrame:
    """Read the predictions of a finished run, `out`/predictions.csv.

    With a `view`, of this one alone, so that no more of LUNA-16's millions is ever held than that
    and a part of the file. Raises InputError when there is no finished run in the folder.
    """
    file = Path(out) / "predictions.csv"
    if not file.is_file():
        raise InputError(f"{file}: missing; the run is not finished, start it again to go on")
    with pd.read_csv(
        file, dtype=dict.fromkeys(_NAMES, "category"), chunksize=_ROWS_AT_ONCE,
        keep_default_na=False, na_values={"probability": [""]},  # a patient "NA" stays a patient
    ) as parts:  # fmt: skip
        kept = [part if view is None else part[part["view"] == view] for part in parts]
    kept = [part for part in kept if len(part)] or kept[:1]
    names = {}
    for name in _NAMES:
        # Each name is kept once, though LUNA-16's predictions repeat it eleven times or more.
        values = union_categoricals([part[name] for part in kept])
        names[name] = values.categories.to_numpy(dtype=object)[values.codes]
    columns = list(kept[0].columns)
    numbers = pd.concat([part.drop(columns=list(_NAMES)) for part in kept], ignore_index=True)
    return numbers.assign(**names)[columns]


def read_threshold(out: str | Path) -> float:
    """Read where a finished run's probabilities are cut (`threshold`)."""
    values = read_json(Path(out) / "metrics.json", "a finished run")
    return float(values.get("threshold", DEFAULT_THRESHOLD))


def threshold(cohort: Cohort) -> float:
    """Return above which probability a nodule is called malignant, or a candidate a nodule.

    Half for malignancy. A candidate, hardly ever more likely a nodule than not, is called one when
    its image speaks for it: when its probability exceeds the share of nodules among the candidates.
    """
    if cohort.task != "luna16":
        return DEFAULT_THRESHOLD
    return float(cohort.nodules["label"].iloc[cohort.labelled].astype(float).mean())


@dataclass(frozen=True, eq=False)
class OneView:
    """Predictions of one view, by nodule in the order of their names."""

    nodules: NDArray[Any]  # (n,) names, ascending
    labels: NDArray[np.int64]  # (n,) 1 malignant, 0 benign
    probabilities: NDArray[np.float64]  # (repeats, n)
    patients: NDArray[Any]  # (n,) whose each is
    folds: NDArray[np.int64]  # (repeats, n) in which fold each was tested


def select_view(predictions: pd.DataFrame, view: str) -> pd.DataFrame:
    """Return the rows of one view; the table itself where it has no other."""
    chosen = (predictions["view"].astype(str) == view).to_numpy(dtype=bool)
    return predictions if chosen.all() else predictions[chosen]


def one_view(predictions: pd.DataFrame, view: str) -> OneView:
    """Return one view ("0" to "8", "fused" or a baseline) as arrays.

    Raises InputError for a view or a column that is not there, or a nodule missing from a repeat.
    """
    if missing := set(COLUMNS) - set(predictions.columns):
        raise InputError(f"predictions lack the columns {', '.join(sorted(missing))}")
    chosen = select_view(predictions, view)
    if chosen.empty:
        there = ", ".join(map(str, predictions["view"].unique()))
        raise InputError(f"no predictions for view {view!r}; there are {there}")
    # Counted by numbers rather than by names: LUNA-16 has half a million of them.
    number, names = pd.factorize(chosen["nodule_id"])
    repeat, repeats = pd.factorize(chosen["repeat"], sort=True)
    nodules = np.asarray(names, dtype=object)
    order = np.argsort(nodules, kind="stable")
    place = repeat * len(order) + np.argsort(order)[number]
    if np.bincount(place).max() > 1:
        raise InputError("a nodule is predicted twice in one repeat")
    shape = (len(repeats), len(order))
    probability, folds = np.full(shape, np.nan), np.empty(shape, dtype=np.int64)
    probability.ravel()[place] = chosen["probability"].to_numpy(dtype=np.float64)
    folds.ravel()[place] = chosen["fold"].to_numpy(dtype=np.int64)
    if np.isnan(probability).any():
        raise InputError("some nodules lack a prediction in some repeats; the run is not finished, "
                         "or only some of its folds were run more than once")  # fmt: skip
    first = np.flatnonzero(~pd.Series(number).duplicated())[order]
    labels = chosen["label"].to_numpy(dtype=np.int64)[first]
    patients = chosen["patient_id"].to_numpy()[first]
    return OneView(nodules[order], labels, probability, patients, folds)


def paired(
    first: pd.DataFrame, second: pd.DataFrame, view: str, second_view: str | None = None
) -> tuple[OneView, OneView]:
    """Return a view of one run and of another (None: the same), of the same nodules in order.

    Raises InputError when the runs judge different nodules, or as `one_view`.
    """
    one, two = one_view(first, view), one_view(second, second_view or view)
    if not all(np.array_equal(getattr(one, name), getattr(two, name))
               for name in ("nodules", "labels", "patients")):  # fmt: skip
        raise InputError("the runs judge different nodules: nothing to compare in pairs")
    return one, two
