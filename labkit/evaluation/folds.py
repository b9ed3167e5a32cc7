"""Cross-validation folds: by patient, or by nodule to show what that hides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from labkit.errors import InputError

SPLITS = ("patient", "nodule")


def make_folds(
    nodules: pd.DataFrame, folds: int, split: str = "patient", seed: int = 0
) -> NDArray[np.int64]:
    """Fold number of every labelled nodule, stratified by label.

    Args:
        nodules: labelled nodules, with `patient_id` and `label`.
        folds: how many.
        split: "patient" keeps the nodules of a patient together; "nodule" scatters them, as much
            of the literature does, so that a test nodule may have siblings in training.
        seed: of the shuffling.

    Returns:
        (n,) integers from 0 to folds - 1.

    Raises:
        InputError: a fold without both classes, or more folds than there is data for.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {SPLITS}, not {split!r}")
    labels = nodules["label"].to_numpy(dtype=int)
    smallest = int(np.bincount(labels, minlength=2).min())
    if folds < 2 or smallest < folds:
        raise InputError(
            f"{folds} folds need at least 2 folds and {folds} nodules of each class; the rarer "
            f"class has {smallest}"
        )
    patients = nodules["patient_id"].to_numpy()
    if split == "patient" and len(np.unique(patients)) < folds:
        raise InputError(f"{folds} folds need {folds} patients; there are fewer")
    if split == "patient":
        by_patient = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = by_patient.split(labels, labels, patients)
    else:
        by_nodule = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = by_nodule.split(labels, labels)
    number = np.full(len(labels), -1, dtype=np.int64)
    for fold, (_, test) in enumerate(parts):
        if len(np.unique(labels[test])) < 2:
            raise InputError(
                f"fold {fold} would hold one class only; use fewer folds or more patients"
            )
        number[test] = fold
    return number
