"""Holding patients out: the inner validation split of a training set."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from labkit.errors import InputError
from labkit.training.config import TrainingConfig
from labkit.training.sampling import thinned


def training_and_validation(
    nodules: pd.DataFrame, indices: NDArray[np.int64], config: TrainingConfig, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`inner_split` as a protocol asks for it: rows to learn from, and rows to stop by.

    Where negatives are sampled, only part of the validation's are kept (`sampling.thinned`).
    """
    train, val = inner_split(nodules, indices, config.validation_fraction, seed)
    if config.negatives_per_positive is None:
        return train, val
    return train, thinned(val, nodules["label"].iloc[val].to_numpy(dtype=np.int64), seed)


def inner_split(
    nodules: pd.DataFrame, indices: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part labelled nodules into training and validation, by patient and stratified by label.

    Args:
        nodules: table with `patient_id` and `label`.
        indices: rows of it to part.
        fraction: share for validation, approximate since patients stay whole: of the few patients
            of a small cohort it is one.
        seed: of the shuffling of patients.

    Returns:
        Sorted training rows and validation rows.

    Raises:
        InputError: too few patients or nodules of one class to have both on both sides.
    """
    indices = np.asarray(indices)
    chosen = nodules.iloc[indices]
    labels = chosen["label"].to_numpy(dtype=int)
    patients = chosen["patient_id"].nunique()
    folds = max(2, min(round(1 / fraction), patients))
    smallest = min(np.bincount(labels, minlength=2))
    if smallest < 2 or patients < 2:
        raise InputError(
            f"{len(indices)} nodules of {patients} patients ({smallest} in the rarer class) are "
            "too few to hold a validation split out; use more nodules or fewer folds"
        )
    splitter = StratifiedGroupKFold(min(folds, smallest), shuffle=True, random_state=seed)
    for train, val in splitter.split(labels, labels, chosen["patient_id"].to_numpy()):
        if len(np.unique(labels[train])) == len(np.unique(labels[val])) == 2:
            return np.sort(indices[train]), np.sort(indices[val])
    raise InputError(
        "no split by patient has both classes in training and validation; use more nodules"
    )
