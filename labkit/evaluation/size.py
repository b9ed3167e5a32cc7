"""Performance by size: what a method knows where the diameter alone says nothing.

On LIDC-IDRI large nodules are malignant and small ones benign, so over all sizes the diameter by
itself has an AUC of about 0.94. Within a band of sizes it has less to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.predictions import FUSED, select_view
from labkit.evaluation.statistics import RESAMPLES, Interval
from labkit.models.fusion import add_size, size_weights

EDGES_MM = (8.0, 15.0)
BANDS = ("under 8 mm", "8 to 15 mm", "over 15 mm", "all sizes")
METRICS = ("auc", "sensitivity", "specificity")
_FEWEST = 5


def by_one_number(
    nodules: pd.DataFrame, column: str, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Predict from one positive number alone, such as the diameter: (n_test,) probabilities.

    Logistic regression on its logarithm, fitted on the training rows; what every image method has
    to be set beside.
    """
    x = np.log(nodules[column].to_numpy(dtype=float))[:, None]
    y = nodules["label"].to_numpy(dtype=float)
    model = LogisticRegression().fit(x[train], y[train].astype(int))
    return model.predict_proba(x[test])[:, 1]


def with_diameter(
    predictions: pd.DataFrame, validation: pd.DataFrame, nodules: pd.DataFrame
) -> pd.DataFrame:
    """Put what a method says and the diameter together, fold by fold, as the view "fused".

    What both weigh is learnt from nodules that the method had not learnt from, inside the training
    nodules (`crossval.validation_predictions`, `fusion.size_weights`).
    """
    mm = nodules.set_index("nodule_id")["diameter_mm"]
    known = dict(list(select_view(validation, FUSED).groupby(["repeat", "fold"])))
    parts = []
    for place, part in select_view(predictions, FUSED).groupby(["repeat", "fold"]):
        val = known[place]
        weights = size_weights(val["probability"], mm[val["nodule_id"]], val["label"])
        said = add_size(part["probability"], mm[part["nodule_id"]], weights)
        parts.append(part.assign(probability=said))
    return pd.concat(parts)


def by_size(
    runs: Mapping[str, tuple[pd.DataFrame, str]], nodules: pd.DataFrame, *,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:  # fmt: skip
    """Compute AUC, sensitivity and specificity of methods in bands of diameter.

    Args:
        runs: method -> (predictions, view), such as {"size only": (table, "size_only")}.
        nodules: nodule table with `nodule_id` and `diameter_mm`.
        resamples: of the rates' bootstrap, over the patients with nodules in the band.

    Returns:
        One row a method and band of `BANDS`, whose middle one has both ends: `method`, `band`,
        `nodules`, `malignant`, `patients`, and for each of `METRICS` the value, its `_low` and its
        `_high`.
        The AUC's interval is the bootstrap's over all sizes, and in the bands, which are small,
        that of `statistics.small_sample_auc`. NaN where there is nothing to say: intervals where a
        class has fewer than 5 patients, and everything where there is one class.
    """
    low, high = EDGES_MM
    diameters = nodules.set_index("nodule_id")["diameter_mm"]
    if diameters.index.has_duplicates:
        raise InputError("the nodule table has a nodule twice")
    rows = []
    for method, (predictions, view) in runs.items():
        chosen = select_view(predictions, view)
        mm = chosen["nodule_id"].map(diameters)
        if chosen.empty or mm.isna().any():
            unknown = chosen.loc[mm.isna(), "nodule_id"].nunique()
            raise InputError(f"{method}: {unknown} predicted nodules have no diameter in the table"
                             if unknown else f"{method}: no predictions for view {view!r}"
                             )  # fmt: skip
        inside = [mm < low, mm.between(low, high), mm > high, pd.Series(True, mm.index)]
        rows += [
            {"method": method, "band": band,
             **_judged(chosen[there], view, resamples, band == BANDS[-1])}
            for band, there in zip(BANDS, inside, strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _judged(part: pd.DataFrame, view: str, resamples: int, whole: bool) -> dict[str, Any]:
    nodules = part.drop_duplicates("nodule_id")
    by_class = nodules.groupby("label")["patient_id"].nunique()
    found = dict.fromkeys(METRICS, Interval(np.nan, np.nan, np.nan))
    if len(by_class) == 2:
        y, runs, patients = statistics.scores(part, view)
        seeded: dict[str, Any] = {"groups": patients, "resamples": resamples}
        few = by_class.min() < _FEWEST
        auc = (statistics.bootstrap_auc(y, runs, **seeded) if whole or few
               else statistics.small_sample_auc(y, runs, groups=patients))  # fmt: skip
        found = {"auc": auc, **statistics.bootstrap_rates(y, runs, **seeded)}
        if few:
            found = {k: Interval(of.value, np.nan, np.nan) for k, of in found.items()}
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        "nodules": len(nodules), "malignant": int(nodules["label"].sum()),
        "patients": nodules["patient_id"].nunique(),
        **{f"{metric}{end}": getattr(found[metric], of)
           for metric in METRICS for end, of in ends.items()},
    }  # fmt: skip
