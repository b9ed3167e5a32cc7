"""One view's predictions as arrays, one row a nodule: what every metric is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.errors import InputError

_COLUMNS = {"nodule_id", "patient_id", "repeat", "fold", "view", "probability", "label"}


@dataclass(frozen=True, eq=False)
class OneView:
    """Predictions of one view, by nodule in the order of their names.

    Args:
        nodules: (n,) their names, ascending.
        labels: (n,) 1 malignant, 0 benign.
        probabilities: (repeats, n).
        patients: (n,) whose each is.
        folds: (repeats, n) in which fold each was tested.
    """

    nodules: NDArray[Any]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    patients: NDArray[Any]
    folds: NDArray[np.int64]


def rows_of(predictions: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows of one view; the table itself where it has no other.

    >>> table = pd.DataFrame({"view": ["0", "fused", "0"]})
    >>> len(rows_of(table, "0"))
    2
    """
    chosen = (predictions["view"].astype(str) == view).to_numpy(dtype=bool)
    return predictions if chosen.all() else predictions[chosen]


def one_view(predictions: pd.DataFrame, view: str) -> OneView:
    """One view of predictions, checked to be complete.

    Args:
        predictions: the table that `crossval.run` returns.
        view: "0" to "8", "fused" or "size_only".

    Raises:
        InputError: no such view, a column missing, or a nodule missing from a repeat.
    """
    missing = _COLUMNS - set(predictions.columns)
    if missing:
        raise InputError(f"predictions lack the columns {', '.join(sorted(missing))}")
    chosen = rows_of(predictions, view)
    if chosen.empty:
        there = ", ".join(map(str, predictions["view"].unique()))
        raise InputError(f"no predictions for view {view!r}; there are {there}")
    # Counted by numbers rather than by names: LUNA-16 has half a million of them.
    number, names = pd.factorize(chosen["nodule_id"])
    repeat, repeats = pd.factorize(chosen["repeat"], sort=True)
    nodules = np.asarray(names, dtype=object)
    order = np.argsort(nodules, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    place = repeat * len(order) + rank[number]
    predicted = np.bincount(place, minlength=len(repeats) * len(order))
    if predicted.max() > 1:
        raise InputError("a nodule is predicted twice in one repeat")
    shape = (len(repeats), len(order))
    probability = np.full(shape, np.nan)
    probability.ravel()[place] = chosen["probability"].to_numpy(dtype=np.float64)
    if np.isnan(probability).any():
        raise InputError(
            "some nodules lack a prediction in some repeats; the run is not finished, or only "
            "part of its folds was asked for with more than one repeat"
        )
    folds = np.empty(shape, dtype=np.int64)
    folds.ravel()[place] = chosen["fold"].to_numpy(dtype=np.int64)
    first = np.empty(len(order), dtype=np.int64)
    first[number[::-1]] = np.arange(len(number))[::-1]
    return OneView(
        nodules[order],
        chosen["label"].to_numpy(dtype=np.int64)[first][order],
        probability,
        chosen["patient_id"].to_numpy()[first][order],
        folds,
    )


def paired(
    first: pd.DataFrame, second: pd.DataFrame, view: str, second_view: str | None = None
) -> tuple[OneView, OneView]:
    """A view of one run and of another, the same nodules in the same order.

    Args:
        first: predictions of a run.
        second: predictions of another run of the same nodules.
        view: of the first run.
        second_view: of the second run; None takes the same.

    Raises:
        InputError: the runs judge different nodules, or as `one_view`.
    """
    one, two = one_view(first, view), one_view(second, second_view or view)
    if (
        not np.array_equal(one.nodules, two.nodules)
        or np.any(one.labels != two.labels)
        or np.any(one.patients != two.patients)
    ):
        raise InputError("the runs judge different nodules: nothing to compare in pairs")
    return one, two
