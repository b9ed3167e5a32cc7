"""What a nodule's siblings give away: the most that leakage by patient could be worth.

Folds dealt by nodule put nodules of one patient on both sides. A network that recognised the
patient could answer with the label of the sibling. `with_memory` is a method that does just that,
with no image at all: it tells how much there is to be gained by leakage, and so what a difference
between the two splits can and cannot be.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from labkit.errors import InputError
from labkit.evaluation.gather import SIZE_ONLY

MEMORY, SIZE_AND_MEMORY = "memory", "size_and_memory"


def sibling_pairs(nodules: pd.DataFrame) -> dict[str, Any]:
    """How many nodules share a patient, and how alike siblings' labels are.

    Args:
        nodules: labelled ones with `patient_id` and `label`; `diameter_mm` where known.

    Returns:
        `nodules`, `patients`, `patients_with_several`, `nodules_with_siblings`, `pairs` of
        siblings, `same_label` (share of pairs), `same_label_by_chance` (share among any two
        nodules), and `likeness` of the labels (correlation over pairs of siblings: 0 as strangers,
        1 as copies) as they are, and `likeness_beyond_size` of what a logistic regression on the
        diameter leaves of them; None without diameters or without pairs.
    """
    y = nodules["label"].to_numpy(dtype=float)
    patient = nodules["patient_id"].to_numpy()
    rows_of = [np.flatnonzero(patient == p) for p in np.unique(patient)]
    several = [rows for rows in rows_of if len(rows) > 1]
    pairs = np.array([pair for rows in several for pair in combinations(rows, 2)], dtype=int)
    ill, n = float(y.sum()), len(y)
    values: dict[str, Any] = {
        "nodules": n,
        "patients": len(rows_of),
        "patients_with_several": len(several),
        "nodules_with_siblings": int(sum(map(len, several))),
        "pairs": len(pairs),
        "same_label": None,
        "same_label_by_chance": float(
            (ill * (ill - 1) + (n - ill) * (n - ill - 1)) / (n * (n - 1))
        ),
        "likeness": None,
        "likeness_beyond_size": None,
    }
    if len(pairs):
        values["same_label"] = float((y[pairs[:, 0]] == y[pairs[:, 1]]).mean())
        values["likeness"] = _likeness(y - y.mean(), pairs)
        if "diameter_mm" in nodules:
            x = np.log(nodules["diameter_mm"].to_numpy(dtype=float))[:, None]
            fitted = LogisticRegression().fit(x, y.astype(int)).predict_proba(x)[:, 1]
            values["likeness_beyond_size"] = _likeness(y - fitted, pairs)
    return values


def with_memory(predictions: pd.DataFrame, nodules: pd.DataFrame) -> pd.DataFrame:
    """Predictions with two more views, which know the labels of the patient's training nodules.

    "memory" answers with the mean label of the patient's nodules in training, counted together with
    one more nodule of the average label; a patient that training does not know gets that average.
    "size_and_memory" is a logistic regression on the log diameter and the logit of this, fitted on
    the training nodules, each with the memory of its siblings alone.

    Args:
        predictions: as `crossval.run` returns them; its folds are taken.
        nodules: nodule table with `nodule_id` and `diameter_mm`.

    Raises:
        InputError: no size-only predictions to stand on.
    """
    base = predictions[predictions["view"].astype(str) == SIZE_ONLY]
    if base.empty:
        raise InputError("no predictions for view 'size_only': the cohort knows no diameters")
    mm = nodules.set_index("nodule_id")["diameter_mm"]
    parts = [predictions]
    for _, repeat in base.groupby("repeat"):
        x = np.log(repeat["nodule_id"].map(mm).to_numpy(dtype=float))
        y = repeat["label"].to_numpy(dtype=np.int64)
        patient, fold = repeat["patient_id"].to_numpy(), repeat["fold"].to_numpy()
        memory, both = np.zeros(len(y)), np.zeros(len(y))
        for k in np.unique(fold):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            recalled = _recall(patient, y, train, test)
            own = _recall(patient, y, train, train)
            model = LogisticRegression().fit(np.stack([x[train], logit(own)], axis=1), y[train])
            memory[test] = recalled
            both[test] = model.predict_proba(np.stack([x[test], logit(recalled)], axis=1))[:, 1]
        parts += [
            repeat.assign(view=MEMORY, probability=memory),
            repeat.assign(view=SIZE_AND_MEMORY, probability=both),
        ]
    return pd.concat(parts, ignore_index=True)


def of_patients_with_several(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of nodules that have siblings, whom leakage can concern."""
    nodules = predictions.drop_duplicates("nodule_id")
    count = nodules.groupby("patient_id")["nodule_id"].nunique()
    return predictions[predictions["patient_id"].map(count) > 1]


def _recall(
    patient: NDArray[Any], y: NDArray[np.int64], train: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(asked,) mean label of each nodule's siblings in training, itself left out, and the prior."""
    known = pd.Series(y[train]).groupby(patient[train])
    total, count = known.sum(), known.size()
    ill = total.reindex(patient[asked], fill_value=0).to_numpy(dtype=float)
    seen = count.reindex(patient[asked], fill_value=0).to_numpy(dtype=float)
    itself = np.isin(asked, train)
    return (ill - itself * y[asked] + y[train].mean()) / (seen - itself + 1)


def _likeness(residual: NDArray[np.float64], pairs: NDArray[np.int64]) -> float:
    """Correlation over pairs, each pair counted both ways."""
    a, b = residual[pairs[:, 0]], residual[pairs[:, 1]]
    return float(np.mean(a * b) / np.mean((a**2 + b**2) / 2))
