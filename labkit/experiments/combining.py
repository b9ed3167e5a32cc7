"""Ways to make one probability of nine, and what each view adds (III-C, V).

Nothing is trained for it: the networks of a run judged their inner validation nodules and their
test nodules view by view, and every way to fuse them is computed from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from labkit.evaluation._one_view import rows_of
from labkit.evaluation._order import area
from labkit.evaluation.gather import DETECTOR, FUSED
from labkit.models.fusion import auc_weights, fuse, log_odds, moved

ORTHOGONAL = (0, 1, 2)
"""Axial, coronal and sagittal."""
_NEVER_CERTAIN = 1e-4
_C = 1.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoldViews:
    """What the networks of one fold said of each nodule.

    Args:
        views: their numbers.
        test: nodule_id, patient_id, repeat, fold, label of the test nodules.
        test_probability: (n, views).
        val_auc: (views,) on the inner validation split.
        val_label: (m,) of the inner validation nodules; None where a run of an earlier version did
            not keep them.
        val_probability: (m, views), or None.
        prior_shift: what the log-odds of all these probabilities gained after training
            (`training.sampling`); ways to fuse take it off first and add it at the end.
    """

    views: tuple[int, ...]
    test: pd.DataFrame
    test_probability: Floats
    val_auc: Floats
    val_label: NDArray[np.int64] | None
    val_probability: Floats | None
    prior_shift: float = 0.0

    @property
    def as_trained(self) -> Floats:
        """(n, views) what the networks said of the test nodules, by the share they were shown."""
        return moved(self.test_probability, -self.prior_shift)


@dataclass(frozen=True, eq=False)
class _OfClass:
    """What the networks said of one class: as trained, (views, n), and their shifts, (n,)."""

    as_trained: Floats
    prior_shift: Floats

    def mean(self, chosen: Sequence[int]) -> Floats:
        """(n,) equal weights over some views."""
        return moved(self.as_trained[list(chosen)].mean(0), self.prior_shift)


Method = Callable[[FoldViews], Floats]


def fold_views(
    predictions: pd.DataFrame,
    units: Mapping[tuple[int, int, int], Mapping[str, Any]],
    nodules: pd.DataFrame,
    views: Sequence[int],
) -> list[FoldViews]:
    """What a run's networks said, fold by fold.

    Args:
        predictions: of the run.
        units: (repeat, fold, view) -> what each network left.
        nodules: the cohort's table.
        views: which were trained.
    """
    label_of = nodules.set_index("nodule_id")["label"]
    folds = []
    of_views = [_by_place(rows_of(predictions, str(v))) for v in views]
    for repeat, fold in sorted(of_views[0]):
        parts = [of_view[repeat, fold] for of_view in of_views]
        first = parts[0].reset_index(drop=True)
        ids = first["nodule_id"].to_numpy()
        here = [units[(repeat, fold, v)] for v in views]
        kept = all("val_nodule_id" in unit for unit in here)
        folds.append(
            FoldViews(
                tuple(views),
                first[["nodule_id", "patient_id", "repeat", "fold", "label"]],
                np.stack(
                    [t.set_index("nodule_id")["probability"].loc[ids] for t in parts],
                    axis=1,
                ),
                np.array([unit["val_auc"] for unit in here]),
                label_of.loc[here[0]["val_nodule_id"]].to_numpy(dtype=np.int64) if kept else None,
                np.array([unit["val_probability"] for unit in here]).T if kept else None,
                here[0]["prior_shift"],
            )
        )
    return folds


def by_auc(views: Sequence[int] | None = None) -> Method:
    """Weights of Eq. 4, over some views or all; equal ones where every AUC is zero."""

    def method(fold: FoldViews) -> Floats:
        columns = _columns(fold, views)
        weights = auc_weights(fold.val_auc[columns])
        return fuse(fold.test_probability[:, columns], weights, fold.prior_shift)

    return method


def equally(views: Sequence[int] | None = None) -> Method:
    """The mean over some views or all."""

    def method(fold: FoldViews) -> Floats:
        probability = fold.test_probability[:, _columns(fold, views)]
        count = probability.shape[1]
        return fuse(probability, np.full(count, 1 / count), fold.prior_shift)

    return method


def best_view(fold: FoldViews) -> Floats:
    """The one view whose AUC on the inner validation split is highest."""
    return fold.test_probability[:, int(fold.val_auc.argmax())]


def moved_first(fold: FoldViews) -> Floats:
    """Eq. 4's weights on probabilities whose odds have been moved: ruled by the surest view."""
    return fuse(fold.test_probability, auc_weights(fold.val_auc))


def stacked(fold: FoldViews) -> Floats:
    """Logistic regression on the views' logits, learnt on the inner validation split.

    Its ridge (C = 1) was not tuned. The validation nodules also stopped the networks, so their
    probabilities are a little better than a new nodule's.
    """
    if fold.val_probability is None or fold.val_label is None:
        raise ValueError("a run of an earlier version kept no validation probabilities")
    model = LogisticRegression(C=_C, max_iter=1000)
    learnt_from = moved(fold.val_probability, -fold.prior_shift)
    model.fit(log_odds(learnt_from, _NEVER_CERTAIN), fold.val_label)
    return model.predict_proba(log_odds(fold.as_trained, _NEVER_CERTAIN))[:, 1]


def methods(folds: Sequence[FoldViews]) -> dict[str, Method]:
    """The ways to fuse all views, the printed one first.

    Stacking is left out where a run of an earlier version kept nothing to learn it from; and what
    moving the odds before the mean makes of it, where no odds were moved.
    """
    ways: dict[str, Method] = {
        "AUC weights (Eq. 4)": by_auc(),
        "equal weights": equally(),
        "best view by validation": best_view,
    }
    if all(fold.val_probability is not None for fold in folds):
        ways["logistic stacking"] = stacked
    if any(fold.prior_shift for fold in folds):
        ways["AUC weights, odds moved first"] = moved_first
    return ways


def fused(folds: Sequence[FoldViews], method: Method) -> pd.DataFrame:
    """Predictions of a way to fuse, in the form of `crossval.run`'s, as the view "fused"."""
    parts = [fold.test.assign(view="fused", probability=method(fold)) for fold in folds]
    return pd.concat(parts, ignore_index=True)


def with_detector(predictions: pd.DataFrame) -> pd.DataFrame:
    """The fused networks' opinion and the detector's, put together as if they were independent.

    By Bayes' rule their log-odds add up, less those of the share of nodules among the training
    candidates, which both already count. Nothing is fitted for it.

    Args:
        predictions: of a run on LUNA-16's candidates, with the views "fused" and "detector".

    Returns:
        Predictions in the form of `crossval.run`'s, as the view "fused".
    """
    ours = rows_of(predictions, FUSED).reset_index(drop=True)
    theirs = rows_of(predictions, DETECTOR).reset_index(drop=True)
    place = ["repeat", "fold", "nodule_id"]
    if not ours[place].equals(theirs[place]):
        theirs = ours[place].merge(theirs, on=place, how="left", validate="one_to_one")
    of_repeat, of_fold = ours.groupby("repeat")["label"], ours.groupby(["repeat", "fold"])["label"]
    positives = of_repeat.transform("sum") - of_fold.transform("sum")
    share = positives / (of_repeat.transform("size") - of_fold.transform("size"))
    news = log_odds(theirs["probability"]) - log_odds(share)
    return ours.assign(probability=moved(ours["probability"], news))


def by_count(folds: Sequence[FoldViews]) -> list[dict[str, float]]:
    """AUC against the number of views: every subset of each size, with equal weights.

    Returns:
        One row a size: views, subsets, worst, mean, best. The best subset is chosen by the result
        that is shown, so that only mean and worst can be believed.
    """
    repeats = _by_repeat(folds)
    rows = []
    for size in range(1, len(folds[0].views) + 1):
        aucs = []
        for chosen in combinations(range(len(folds[0].views)), size):
            of_each = [area(ill.mean(chosen), well.mean(chosen)) for ill, well in repeats]
            aucs.append(float(np.mean(of_each)))
        rows.append(
            {
                "views": size,
                "subsets": len(aucs),
                "worst": round(min(aucs), 6),
                "mean": round(float(np.mean(aucs)), 6),
                "best": round(max(aucs), 6),
            }
        )
    return rows


def _by_place(of_view: pd.DataFrame) -> dict[tuple[int, int], pd.DataFrame]:
    """(repeat, fold) -> the rows that were tested in it."""
    places = of_view.groupby(["repeat", "fold"])
    return {cast(tuple[int, int], place): part for place, part in places}


def _by_repeat(folds: Sequence[FoldViews]) -> list[tuple[_OfClass, _OfClass]]:
    """Of each repeat what its networks said of the malignant nodules, and of the benign."""
    label = np.concatenate([fold.test["label"].to_numpy() for fold in folds])
    repeat = np.concatenate([fold.test["repeat"].to_numpy() for fold in folds])
    probability = np.concatenate([fold.as_trained for fold in folds]).T
    shift = np.concatenate([np.full(len(fold.test), fold.prior_shift) for fold in folds])

    def those(here: NDArray[np.bool_]) -> _OfClass:
        return _OfClass(probability[:, here], shift[here])

    return [
        (those((repeat == number) & (label == 1)), those((repeat == number) & (label == 0)))
        for number in np.unique(repeat)
    ]


def _columns(fold: FoldViews, views: Sequence[int] | None) -> list[int]:
    chosen = fold.views if views is None else views
    return [fold.views.index(v) for v in chosen]
