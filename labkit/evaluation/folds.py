"""Cross-validation folds: by patient, by nodule to show what that hides, or LUNA-16's subsets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from labkit.errors import InputError

SPLITS = ("patient", "nodule", "subset")


def make_folds(
    nodules: pd.DataFrame, folds: int, split: str = "patient", seed: int = 0
) -> NDArray[np.int64]:
    """Fold number of every labelled nodule, stratified by label.

    Args:
        nodules: labelled nodules, with `patient_id` and `label`.
        folds: how many.
        split: "patient" keeps the nodules of a patient together; "nodule" scatters them, as much
            of the literature does, so that a test nodule may have siblings in training; "subset"
            takes the column `subset`, LUNA-16's official folds, whatever the seed.
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
    if split == "subset":
        parts = _subsets(nodules, folds)
    elif split == "patient":
        by_patient = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = by_patient.split(labels, labels, patients)
    else:
        by_nodule = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = by_nodule.split(labels, labels)
    number = np.full(len(labels), -1, dtype=np.int64)
    for fold, (_, test) in enumerate(parts):
        if len(np.unique(labels[test])) < 2:
            cure = "use fewer folds or more patients"
            if split == "subset":
                cure = "LUNA-16's folds are its subsets, so build the cohort of more scans"
            raise InputError(f"fold {fold} would hold one class only; {cure}")
        number[test] = fold
    return number


def _subsets(
    nodules: pd.DataFrame, folds: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test rows of each subset, which is a fold."""
    if "subset" not in nodules or nodules["subset"].isna().any():
        raise InputError(
            "split 'subset' needs the column subset, which `labkit build luna16` makes; split by "
            "patient instead"
        )
    subset = nodules["subset"].to_numpy()
    there = np.unique(subset)
    named = "build the cohort again with --subsets FILE, or split by patient instead"
    if there[0] < 0 and len(there) > 1:
        raise InputError(
            f"some candidates are of no subset (-1), and subsets are the folds; {named}"
        )
    if len(there) < 2:
        cure = named if there[0] < 0 else "build the cohort of two or more"
        raise InputError(
            f"all candidates are of one subset ({there[0]}), and subsets are the folds; {cure}"
        )
    if (nodules.groupby("series_uid")["subset"].nunique() > 1).any():
        raise InputError("a scan lies in two subsets, so it would train and test; build it again")
    if len(there) != folds:
        raise InputError(f"the cohort has {len(there)} subsets: ask for {len(there)} folds")
    for one in there:
        yield np.flatnonzero(subset != one), np.flatnonzero(subset == one)
