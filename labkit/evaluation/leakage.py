"""Measure what a nodule's siblings give away: the most that leakage by patient could be worth.

Folds by nodule put nodules of one patient on both sides, and a network that recognised the patient
could answer with the sibling's label. `with_memory` does just that, with no image at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import SIZE_ONLY, paired
from labkit.evaluation.statistics import RESAMPLES, Interval, plain

MEMORY, SIZE_AND_MEMORY = "memory", "size_and_memory"
NETWORK = "ST-CNN, axial view"
_VIEWS = {NETWORK: "0", "size only": SIZE_ONLY, "memory of patients": MEMORY,
          "size + memory": SIZE_AND_MEMORY}  # fmt: skip


def sibling_pairs(nodules: pd.DataFrame) -> dict[str, Any]:
    """Count nodules that share a patient, and how alike siblings' labels are.

    `same_label` is a share of pairs, `same_label_by_chance` that among any two nodules; `likeness`
    the correlation over pairs of siblings (0 as strangers, 1 as copies) of their labels, and
    `likeness_beyond_size` of what a logistic regression on `diameter_mm` leaves of them. None
    without diameters or without pairs.
    """
    y, n = nodules["label"].to_numpy(dtype=float), len(nodules)
    own = pd.DataFrame({"patient": nodules["patient_id"].to_numpy(), "row": np.arange(n)})
    pairs = own.merge(own, on="patient").query("row_x < row_y")[["row_x", "row_y"]].to_numpy()
    count, ill = own["patient"].value_counts(), float(y.sum())
    chance = (ill * (ill - 1) + (n - ill) * (n - ill - 1)) / (n * (n - 1))
    values: dict[str, Any] = {
        "nodules": n, "patients": len(count), "patients_with_several": int((count > 1).sum()),
        "nodules_with_siblings": int(count[count > 1].sum()), "pairs": len(pairs),
        "same_label": None, "same_label_by_chance": chance, "likeness": None,
        "likeness_beyond_size": None,
    }  # fmt: skip
    if len(pairs):
        values["same_label"] = float((y[pairs[:, 0]] == y[pairs[:, 1]]).mean())
        values["likeness"] = _likeness(y - y.mean(), pairs)
        if "diameter_mm" in nodules:
            x = np.log(nodules["diameter_mm"].to_numpy(dtype=float))[:, None]
            fitted = LogisticRegression().fit(x, y.astype(int)).predict_proba(x)[:, 1]
            values["likeness_beyond_size"] = _likeness(y - fitted, pairs)
    return values


def with_memory(predictions: pd.DataFrame, nodules: pd.DataFrame) -> pd.DataFrame:
    """Add two views to predictions, which know the labels of the patient's training nodules.

    "memory" answers with the mean label of the patient's nodules in training, counted together with
    one more nodule of the average label. "size_and_memory" is a logistic regression on the log
    diameter and the logit of this, fitted on the training nodules, each with the memory of its
    siblings alone. `predictions` need the view "size_only", `nodules` `nodule_id`, `diameter_mm`.
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
        parts += [repeat.assign(view=view, probability=p)
                  for view, p in ((MEMORY, memory), (SIZE_AND_MEMORY, both))]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def of_patients_with_several(predictions: pd.DataFrame) -> pd.DataFrame:
    """Select predictions of nodules that have siblings, whom leakage can concern."""
    count = predictions.groupby("patient_id")["nodule_id"].transform("nunique")
    return predictions[count > 1]


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


def compare_splits(splits: dict[str, pd.DataFrame], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Compute AUC by split, and by nodule less by patient, pooled and within folds, of each method.

    `splits` are "patient" and "nodule" -> predictions of the same nodules.
    """
    rows: dict[str, Any] = {}
    for method, view in _VIEWS.items():
        if view not in set(splits["patient"]["view"]):
            continue
        row: dict[str, Any] = {}
        for split, predictions in splits.items():
            labels, p, patients = statistics.scores(predictions, view)
            pooled = statistics.bootstrap_auc(labels, p, groups=patients, resamples=resamples)
            inside = statistics.within_folds_auc(predictions, view, resamples=resamples)
            row[split] = {"pooled": plain(pooled), "within_folds": plain(inside),
                          "by_repeat": _by_repeat(predictions, view)}  # fmt: skip
        pair = paired(splits["nodule"], splits["patient"], view)
        pooled = statistics.bootstrap_auc_difference(
            pair[0].labels, *(of.probabilities for of in pair), groups=pair[0].patients,
            resamples=resamples,
        )  # fmt: skip
        inside = statistics.within_folds_difference(*pair, resamples=resamples)
        apart = {"pooled": plain(pooled), "within_folds": plain(inside)}
        row["nodule less patient"] = apart | {
            f"{way}, over trainings": _over_trainings(
                *(row[split]["by_repeat"][way] for split in ("nodule", "patient")))
            for way in ("pooled", "within_folds")
        }  # fmt: skip
        rows[method] = row
    return rows


def _by_repeat(predictions: pd.DataFrame, view: str) -> dict[str, list[float]]:
    """AUC of every repeat, pooled and within folds."""
    parts = [one for _, one in predictions.groupby("repeat")]
    pooled = [statistics.roc_auc(*map(np.ravel, statistics.scores(one, view)[:2])) for one in parts]
    inside = [statistics.within_folds_auc(one, view, resamples=1).value for one in parts]
    found = {"pooled": pooled, "within_folds": inside}
    return {way: [round(auc, 6) for auc in aucs] for way, aucs in found.items()}


def _over_trainings(first: list[float], second: list[float]) -> dict[str, float] | None:
    """Mean of the first repeats less that of the second, with Welch's interval; None of one repeat.

    Repeats have other folds and weights, which the bootstrap over patients takes as given.
    """
    if min(len(first), len(second)) < 2:
        return None
    value = float(np.mean(first) - np.mean(second))
    if max(np.ptp(first), np.ptp(second)) == 0:
        return plain(Interval(value, value, value))
    bounds = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return plain(Interval(value, bounds.low, bounds.high))
