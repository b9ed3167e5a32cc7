"""Fuse nine probabilities into one (Zhai et al. 2020, III-C), and add the diameter to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit


def auc_weights(view_auc: ArrayLike) -> NDArray[np.float64]:
    """Compute the views' weights, their AUCs divided by the sum (Algorithm 1, line 7).

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


def fuse(
    probabilities: ArrayLike, weights: ArrayLike, prior_shift: float = 0.0
) -> NDArray[np.float64]:
    """Compute the weighted mean of the views' probabilities (Eq. 4, of nine terms, not ten).

    Networks that were shown another share of positives than there is have had their log-odds moved
    (`training.batches.prior_shift`). The mean is of what they said before, as Eq. 4 has it, and is
    moved in their place: of probabilities nearly all close to 0 a mean would be the opinion of
    whichever view is surest. Where nearly all is negative it is too small, but in order.

    Args:
        probabilities, weights: (n, views), and (views,), summing to one.
        prior_shift: what was added to the log-odds of each view.

    >>> fuse([[1.0, 0.0]], [0.6, 0.4]).tolist()
    [0.6]
    >>> fuse([[0.01, 0.01]], [0.5, 0.5], prior_shift=-4.6).round(6).tolist()
    [0.01]
    """
    p = np.asarray(probabilities, dtype=float)
    w = np.asarray(weights, dtype=float)
    if p.ndim != 2 or p.shape[1] != len(w):
        raise ValueError(f"{p.shape} probabilities do not fit {len(w)} weights")
    if not np.isclose(w.sum(), 1):
        raise ValueError(f"the weights sum to {w.sum():.4f}, not to one")
    return moved(moved(p, -prior_shift) @ w, prior_shift)


def moved(probabilities: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """Add `shift` (one number, or one for each) to the log-odds of probabilities.

    Where nothing is added they stay the same to the last bit.
    """
    p = np.asarray(probabilities, dtype=float)
    gained = np.asarray(shift, dtype=float)
    return expit(log_odds(p) + gained) if gained.any() else p


def log_odds(probabilities: ArrayLike, least: float = 1e-12) -> NDArray[np.float64]:
    """Compute log-odds that stay finite: `least` stands for less, and for what is missing to 1.

    >>> log_odds([0.5, 0.0], least=0.2).round(3).tolist()
    [0.0, -1.386]
    """
    return logit(np.clip(np.asarray(probabilities, dtype=float), least, 1 - least))


def size_weights(
    probabilities: ArrayLike, diameters_mm: ArrayLike, labels: ArrayLike
) -> tuple[float, ...]:
    """Learn what an image adds to a ruler: logistic regression on log-odds and log-diameter.

    A ridge of 1 pulls it to the log-odds as they are: such nodules may be a few dozen, and folds
    that are each put together in another way cannot be pooled.

    Args:
        probabilities, diameters_mm, labels: (n,) of nodules that the network did not learn from.

    Returns:
        Constant, weight of the log-odds, weight of the log-diameter, for `add_size`.
    """
    x, y = _log_odds_and_size(probabilities, diameters_mm), np.asarray(labels, dtype=float)
    as_they_are = np.array([0.0, 1.0, 0.0])

    def loss(weights: NDArray[np.float64]) -> float:
        z = weights[0] + x @ weights[1:]
        apart = weights - as_they_are
        return float(np.sum(np.logaddexp(0, z) - y * z) + apart @ apart / 2)

    return tuple(minimize(loss, as_they_are).x.tolist())


def add_size(
    probabilities: ArrayLike, diameters_mm: ArrayLike, weights: ArrayLike
) -> NDArray[np.float64]:
    """Compute (n,) probabilities from a method's and the diameter, by `size_weights`.

    >>> add_size([0.5, 0.5], [10.0, 20.0], (0.0, 1.0, 2.0)).round(3).tolist()
    [0.5, 0.8]
    """
    constant, *of = np.asarray(weights, dtype=float)
    return expit(constant + _log_odds_and_size(probabilities, diameters_mm) @ of)


def _log_odds_and_size(probabilities: ArrayLike, diameters_mm: ArrayLike) -> NDArray[np.float64]:
    size = np.log(np.asarray(diameters_mm, dtype=float) / 10)
    return np.column_stack([log_odds(probabilities, 1e-3), size])
