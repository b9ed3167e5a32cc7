"""DeLong's components of an AUC and their variance, by nodules or summed over patients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from labkit.errors import InputError
from labkit.evaluation._patients import Patients
from labkit.evaluation.metrics import checked


def mean_components(y: NDArray, scores: ArrayLike) -> tuple[float, NDArray]:
    """AUC and components of one run, or their means over repeats (the AUC is linear in them)."""
    runs = [_components(y, checked(y, s)[1]) for s in np.atleast_2d(np.asarray(scores, float))]
    return float(np.mean([r[0] for r in runs])), np.mean([r[1] for r in runs], axis=0)


def _components(y: NDArray, s: NDArray) -> tuple[float, NDArray]:
    """AUC, and each nodule's share of wins against the other class (DeLong's components)."""
    malignant, benign = s[y == 1], s[y == 0]
    n_malignant, n_benign = len(malignant), len(benign)
    # Midranks give the wins with ties counted half, in n log n.
    all_ranks = stats.rankdata(np.concatenate([malignant, benign]))
    shares = np.empty(len(s))
    shares[y == 1] = (all_ranks[:n_malignant] - stats.rankdata(malignant)) / n_benign
    shares[y == 0] = 1 - (all_ranks[n_malignant:] - stats.rankdata(benign)) / n_malignant
    return float(shares[y == 1].mean()), shares


def variance(y: NDArray, shares: NDArray, groups: ArrayLike | None) -> float:
    """Variance of an AUC from its components, or of a difference from the components' differences.

    Args:
        y: (n,) 1 malignant, 0 benign.
        shares: (n,) of `mean_components`, or the difference of two methods'.
        groups: (n,) patient of each nodule (Obuchowski 1997); None treats nodules as independent.

    Raises:
        InputError: fewer than two nodules, or patients, of a class.
    """
    n1, n0 = int(y.sum()), int((1 - y).sum())
    centred = shares - np.where(y == 1, shares[y == 1].mean(), shares[y == 0].mean())
    if groups is None:
        if min(n1, n0) < 2:
            raise InputError("the test needs two or more nodules of each class")
        return float(centred[y == 1].var() / (n1 - 1) + centred[y == 0].var() / (n0 - 1))
    patients = Patients.of(groups, len(y))
    malignant, benign = (patients.total(centred * (y == label)) for label in (1, 0))
    with_malignant, with_benign = (patients.distinct(y == label) for label in (1, 0))
    if min(with_malignant, with_benign, patients.count) < 2:
        raise InputError("the test needs two or more patients with nodules of each class")
    s11 = with_malignant / ((with_malignant - 1) * n1) * np.sum(malignant**2)
    s00 = with_benign / ((with_benign - 1) * n0) * np.sum(benign**2)
    s10 = patients.count / (patients.count - 1) * np.sum(malignant * benign)
    return float(s11 / n1 + s00 / n0 + 2 * s10 / (n1 * n0))
