"""Can real and simulated be told apart? One number for all measures, and what gives it away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from labkit.evaluation import intervals, metrics
from labkit.realism.compare import rounded

_FOLDS = 5


def tell_apart(
    real: pd.DataFrame,
    simulated: pd.DataFrame,
    patients: ArrayLike,
    themes: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> dict[str, Any]:
    """AUC of classifiers that are to say which of two images is the simulated one.

    0.5 means that these measures see no difference. Folds are by patient, so that a nodule is
    never judged by what was learnt from its twin.

    Args:
        real: one row a nodule, measures as columns.
        simulated: the same of the simulated images.
        patients: (n,) of both.
        themes: name -> its measures; each theme is also judged by itself.
        seed: of the classifiers and the bootstrap.

    Returns:
        `logistic` and `boosting` (AUC with 95 % interval over patients), `by_theme` (AUC of
        boosting on these measures alone) and `by_measure` (AUC of the bare value: above 0.5 the
        simulated values are greater), farthest from 0.5 first.
    """
    table = pd.concat([real, simulated], ignore_index=True)
    truth = np.repeat([0, 1], [len(real), len(simulated)])
    groups = np.tile(np.asarray(patients), 2)
    logistic = make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=2000)
    )
    boosting = HistGradientBoostingClassifier(max_iter=150, random_state=seed)
    scores = {
        "logistic": _out_of_fold(logistic, table, truth, groups),
        "boosting": _out_of_fold(boosting, table, truth, groups),
    }
    result: dict[str, Any] = {}
    for name, score in scores.items():
        found = intervals.bootstrap_auc(truth, score, groups=groups, resamples=500, seed=seed)
        result[name] = {k: rounded(getattr(found, k)) for k in ("value", "low", "high")}
    result["by_theme"] = {
        theme: rounded(_auc(truth, _out_of_fold(boosting, table[list(names)], truth, groups)))
        for theme, names in themes.items()
    }
    alone = {name: _auc(truth, table[name].to_numpy(float)) for name in table}
    ordered = sorted(alone, key=lambda name: -abs(alone[name] - 0.5))
    result["by_measure"] = {name: rounded(alone[name]) for name in ordered}
    return result


def _out_of_fold(
    model: Any, table: pd.DataFrame, truth: NDArray[np.int64], groups: NDArray
) -> NDArray[np.float64]:
    score = np.empty(len(table))
    x = table.to_numpy(float)
    folds = min(_FOLDS, len(np.unique(groups)))
    for train, test in GroupKFold(folds).split(x, truth, groups):
        # The boosting's threads wait for each other, and for ever on a machine that is busy.
        with threadpool_limits(1):
            score[test] = model.fit(x[train], truth[train]).predict_proba(x[test])[:, 1]
    return score


def _auc(truth: NDArray[np.int64], score: NDArray[np.float64]) -> float:
    """AUC of the finite scores; 0.5 when they are all of one kind."""
    known = np.isfinite(score)
    return metrics.roc_auc(truth[known], score[known]) if len(np.unique(truth[known])) == 2 else 0.5
