"""Nine probabilities become one (Zhai et al. 2020, III-C)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc_weights(view_auc: ArrayLike) -> NDArray[np.float64]:
    """Weights of the views, their AUCs divided by the sum (Algorithm 1, line 7).

    The paper takes AUCs "from the training phase"; here they come from the inner validation
    split, because on images it was trained on nearly every network has an AUC of one.

    Raises:
        ValueError: an AUC outside [0, 1].

    >>> auc_weights([0.9, 0.6]).round(6).tolist()
    [0.6, 0.4]
    """
    auc = np.asarray(view_auc, dtype=float)
    if auc.ndim != 1 or np.any(~np.isfinite(auc)) or np.any((auc < 0) | (auc > 1)):
        raise ValueError(f"AUCs must lie between 0 and 1, got {auc}")
    if auc.sum() == 0:
        # On a handful of validation nodules it happens; no view is then better than another.
        return np.full(len(auc), 1 / len(auc))
    return auc / auc.sum()


def fuse(probabilities: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Weighted mean of the views' probabilities (Eq. 4, over nine terms where it prints ten).

    Args:
        probabilities: (n, views).
        weights: (views,), summing to one.

    >>> fuse([[1.0, 0.0]], [0.6, 0.4]).tolist()
    [0.6]
    """
    p = np.asarray(probabilities, dtype=float)
    w = np.asarray(weights, dtype=float)
    if p.ndim != 2 or p.shape[1] != len(w):
        raise ValueError(f"{p.shape} probabilities do not fit {len(w)} weights")
    if not np.isclose(w.sum(), 1):
        raise ValueError(f"the weights sum to {w.sum():.4f}, not to one")
    return p @ w
