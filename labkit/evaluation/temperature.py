"""Temperature scaling: one number that makes a network less sure, or surer, and changes no order.

It is fitted on the inner validation nodules of each fold, never on what it is judged by. Reference:
Guo, Pleiss, Sun and Weinberger, ICML 2017.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from labkit.errors import InputError
from labkit.evaluation.metrics import checked
from labkit.models.fusion import log_odds

LOWEST, HIGHEST = 0.05, 20.0
_ALMOST = 1e-7  # a float32 sigmoid gives 0 and 1, whose logits are infinite


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The temperature with the least cross-entropy on validation nodules.

    Args:
        labels: (n,) 1 malignant, 0 benign.
        probabilities: (n,) between 0 and 1, of nodules that were not trained on.

    Returns:
        Above 1 when the network is too sure, below 1 when it is not sure enough.

    Raises:
        InputError: no temperature between 0.05 and 20 is best: the probabilities separate the
            classes entirely, or are no better than chance.

    >>> sure = [0.9] * 4 + [0.1] * 4
    >>> round(fit_temperature([1, 1, 1, 0, 0, 0, 0, 1], sure), 3)
    2.0
    """
    y, z = checked(labels, _logits(probabilities))
    sign = 2 * y - 1

    def entropy(log_slope: float) -> float:
        return float(np.logaddexp(0, -sign * z * np.exp(log_slope)).mean())

    # Convex in the slope 1 / T, so it has one valley on the scale of its logarithm, too.
    bounds = (-np.log(HIGHEST), -np.log(LOWEST))
    best = minimize_scalar(entropy, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    if min(best.x - bounds[0], bounds[1] - best.x) < 1e-3:
        reason = (
            "the surest probabilities are wrong about as often as right"
            if best.x - bounds[0] < 1e-3
            else "the probabilities separate the classes entirely"
        )
        raise InputError(
            f"no temperature between {LOWEST:g} and {HIGHEST:g} fits {len(y)} validation nodules: "
            f"{reason}; use a larger validation split"
        )
    return float(np.exp(-best.x))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities whose logits are divided by a temperature.

    >>> apply_temperature([0.5, 0.9], 2.0).round(3).tolist()
    [0.5, 0.75]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"a temperature of {temperature} is none; give a positive number")
    return expit(_logits(probabilities) / temperature)


def scale_run(
    predictions: pd.DataFrame, validation: pd.DataFrame, view: str = "fused"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scale a run's predictions, each fold with the temperature of its own validation nodules.

    The same nodules stopped the training early and gave the fusion its weights, so they look a
    little better than new ones and the temperature comes out a little too low.

    Args:
        predictions: as `crossval.run` returns them.
        validation: the same columns; `repeat` and `fold` say in which fold's training the nodule
            was held out for validation.
        view: which view is scaled.

    Returns:
        The view's predictions with scaled `probability`, and the temperatures: `repeat`, `fold`,
        `nodules` (of validation), `temperature`.

    Raises:
        InputError: a fold without validation nodules, or whose validation shares nodules with its
            test, or that no temperature fits.
    """
    tests, held_out = (t[t["view"].astype(str) == view] for t in (predictions, validation))
    if tests.empty:
        raise InputError(f"no predictions for view {view!r}")
    of_fold = dict(list(held_out.groupby(["repeat", "fold"])))
    scaled, found = [], []
    for place, test in tests.groupby(["repeat", "fold"]):
        where = f"repeat {place[0]}, fold {place[1]}"
        val = of_fold.get(place)
        if val is None:
            raise InputError(f"{where}: no validation predictions of view {view!r}")
        shared = set(val["nodule_id"]) & set(test["nodule_id"])
        if shared:
            raise InputError(
                f"{where}: {len(shared)} nodules are in its validation and in its test; scaling "
                "must not see what it is judged by"
            )
        try:
            temperature = fit_temperature(val["label"], val["probability"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        scaled.append(test.assign(probability=apply_temperature(test["probability"], temperature)))
        found.append((*place, len(val), temperature))
    columns = ["repeat", "fold", "nodules", "temperature"]
    return pd.concat(scaled).sort_index(), pd.DataFrame(found, columns=columns)


def _logits(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("a temperature scales probabilities between 0 and 1")
    return log_odds(p, _ALMOST)
