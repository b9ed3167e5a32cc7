"""Our rows of Table 1, single views and fewer views, and the ways to fuse nine.

Everything here is computed from two runs, ST-CNN's and MT-CNN's.
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

from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.crossval import DETECTOR, FUSED, SIZE_ONLY
from labkit.evaluation.predictions import rows_of
from labkit.evaluation.statistics import area
from labkit.imaging.views import PLANES
from labkit.models.fusion import auc_weights, fuse, log_odds, moved
from labkit.paper import values as luna
from labkit.paper import values as measured
from labkit.paper.declared import Experiment, Variant
from labkit.paper.finished import Finished

# Ways to make one probability of nine, and what each view adds (III-C, V).
#
# Nothing is trained for it: the networks of a run judged their inner validation nodules and their
# test nodules view by view, and every way to fuse them is computed from that.


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


# What Table 1's values have of each row, and what is published of the same data.


DETECTORS = "detector's score"
"""The row beside ours for LUNA-16, where what is no nodule has no size."""
WITH_DETECTOR = "with the detector's score"
"""After a model's name: both opinions put together (`combining.with_detector`)."""
_LIDC = ("auc", "sensitivity", "specificity")
_LUNA = (*_LIDC, "false_positive_rate", "false_positives_per_scan", "cpm")


def metrics(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the metrics that are shown of each row.

    >>> metrics({"task": "malignancy"})
    ('auc', 'sensitivity', 'specificity')
    """
    return _LUNA if luna.is_luna(values) else _LIDC


def value(of_row: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    """A row's metric with its interval; None where it could not be computed.

    False positives are those at the stated threshold: the share of negatives that the specificity
    leaves, and what that is a scan. So their intervals are the specificity's.

    Args:
        of_row: the row's metrics.
        metric: one of `metrics`.
    """
    if metric == "cpm":
        return luna.cpm(of_row)
    if not metric.startswith("false_positive"):
        of: Mapping[str, float] = of_row[metric]
        return of
    at, spared = of_row["screening"], of_row["specificity"]
    times = at["negatives"] / at["scans"] if metric.endswith("per_scan") else 1.0
    low, high = ((1 - spared[end]) * times for end in ("high", "low"))
    return {"value": at[metric], "low": round(low, 6), "high": round(high, 6)}


def published(values: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(method, metric) -> value as published, of LUNA-16 or of LIDC-IDRI as the values are.

    The published false positive rate also says how many a scan that is of LUNA-16's candidates.

    >>> rate = {"what": "MT-CNN, LUNA-16", "metric": "false_positive_rate", "value": 0.032}
    >>> found = published({"task": "luna16", "published": [rate]})
    >>> round(found["MT-CNN", "false_positives_per_scan"])
    20
    """
    data = ", LUNA-16" if luna.is_luna(values) else ", LIDC-IDRI"
    found = {
        (p["what"].removesuffix(data), p["metric"]): p["value"]
        for p in values["published"]
        if p["what"].endswith(data)
    }
    scan = luna.PUBLISHED_NEGATIVES / luna.PUBLISHED_SCANS
    rates = {what: v for (what, metric), v in found.items() if metric == "false_positive_rate"}
    return found | {(what, "false_positives_per_scan"): v * scan for what, v in rates.items()}


SIZE = "size only"
SIZE_CALCIFICATION = "size + calcification"
_CURVES = ("roc", "curve")
AS_INDEPENDENT = "log-odds of the fused views and of the detector added, as if independent"
READS_READERS = "reads the readers' ratings, which no image method is given"


def size_and_calcification(predictions: pd.DataFrame, cohort: Cohort) -> pd.DataFrame | None:
    """Logistic regression on log diameter and the readers' mean calcification, on the same folds.

    Cubes come without the readers' opinion of calcification; where every labelled nodule can be
    identified in LIDC-IDRI, it is looked up there.

    Args:
        predictions: of a run with the view "size_only", whose folds are taken.
        cohort: with the ratings, or with what identifies its nodules.

    Returns:
        Predictions as the view "size_calcification"; None where a nodule has no such rating.
    """
    table = cohort.nodules.iloc[cohort.labelled].set_index("nodule_id")
    size = predictions[predictions["view"].astype(str) == "size_only"]
    calcification = table["calcification"]
    if not size.empty and calcification.isna().all():
        calcification = _looked_up(table.reset_index())
    if size.empty or calcification.isna().any():
        return None
    x = np.stack([np.log(table["diameter_mm"]), calcification], axis=1).astype(float)
    y = table["label"].to_numpy(dtype=np.int64)
    parts = []
    for _, part in size.groupby(["repeat", "fold"]):
        tested = table.index.isin(part["nodule_id"])
        model = LogisticRegression().fit(x[~tested], y[~tested])
        rows = table.index.get_indexer(pd.Index(part["nodule_id"]))
        probability = model.predict_proba(x[rows])[:, 1]
        parts.append(part.assign(view="size_calcification", probability=probability))
    return pd.concat(parts, ignore_index=True)


def _looked_up(nodules: pd.DataFrame) -> pd.Series:
    """The readers' mean calcification of nodules that are LIDC-IDRI's, in their order."""
    known = lidc.annotations().groupby("nodule_id")["calcification"].mean()
    return lidc.lidc_ids(nodules).map(known)


def table1(experiment: Experiment, runs: Finished) -> dict[str, Any]:
    """The rows, the paired comparisons, and the ways to fuse.

    Returns:
        `rows`: label -> method, views, metrics, note; `comparisons` of the experiment, and
        `family`; `together`, of LUNA-16: both opinions less each alone, which the paper does not
        ask for and which is a family of its own; `fusion`: model -> ways, views left out, AUC by
        number of views, weights;
        `trained`: on what; `missing`: labels not finished.
    """
    there = {v.label: v for v in experiment.variants if runs.has(v)}
    rows: dict[str, dict[str, Any]] = {}
    entries: dict[str, measured.Run] = {}
    for label, variant in there.items():
        if not rows:
            rows |= _baseline_rows(runs, variant, entries)
        rows |= _model_rows(runs, label, variant, entries)
    comparisons = {
        f"{first} less {second}": dict(
            runs.once(
                ("table1", first, second),
                lambda first=first, second=second: runs.compare(entries[first], entries[second]),
            )
        )
        for first, second in _pairs(experiment, entries)
    }
    together = {
        f"{label} {WITH_DETECTOR} less {alone}": dict(
            runs.once(
                ("together", label, alone),
                lambda label=label, alone=alone: runs.compare(
                    entries[f"{label} {WITH_DETECTOR}"], entries[alone]
                ),
            )
        )
        for label in there
        for alone in (DETECTORS, label)
        if DETECTORS in entries
    }
    missing = [v.label for v in experiment.variants if v.label not in there]
    # All that is declared, as long as it is not known which of it these nodules allow.
    family = len(experiment.comparisons) if missing else len(comparisons)
    return {
        "rows": rows,
        "comparisons": comparisons,
        "family": measured.correct(comparisons, family),
        "together": together,
        "together_family": measured.correct(together),
        "fusion": {
            label: runs.once(("fusion", label), lambda variant=variant: _fusion(runs, variant))
            for label, variant in there.items()
        },
        "trained": {label: runs.trained(variant) for label, variant in there.items()},
        "missing": missing,
    }


def table(values: dict[str, Any]) -> pd.DataFrame:
    """The rows with their intervals; published values of the same data in columns of their own."""
    names, printed = metrics(values), published(values)
    lines = []
    for label, row in values["rows"].items():
        line: dict[str, Any] = {"method": label, "views": row["views"], "note": row["note"]}
        for metric in names:
            line |= _cells(metric, value(row["metrics"], metric))
        if luna.is_luna(values):
            line["threshold"] = row["metrics"]["threshold"]
        for metric in names:
            line[f"{metric}_as_published"] = printed.get((label, metric))
        lines.append(line)
    if lines:
        other = {what for what, _ in printed} - set(values["rows"])
        for what in sorted(other):
            lines.append(
                {
                    "method": what,
                    "note": "as published",
                    **{f"{m}_as_published": v for (w, m), v in printed.items() if w == what},
                }
            )
    return pd.DataFrame(lines)


def _cells(metric: str, of: Mapping[str, float] | None) -> dict[str, float | None]:
    ends = {"value": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    return {name: None if of is None else of[key] for key, name in ends.items()}


def _without_curves(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: _without_curves(v) if isinstance(v, dict) else v
        for k, v in values.items()
        if k not in _CURVES
    }


def _pairs(experiment: Experiment, entries: Mapping[str, measured.Run]) -> list[tuple[str, str]]:
    """Declared pairs of which both are there; the detector's score where there are no sizes."""
    stands_for = {SIZE: DETECTORS} if SIZE not in entries else {}
    pairs = [(first, stands_for.get(second, second)) for first, second in experiment.comparisons]
    return [(first, second) for first, second in pairs if first in entries and second in entries]


def _row(runs: Finished, key: Any, run: measured.Run, views: str, note: str = "") -> dict[str, Any]:
    metrics = runs.once(("row", key), lambda: runs.measure(run))
    return {"views": views, "note": note, "metrics": metrics}


def _baseline_rows(
    runs: Finished, variant: Variant, entries: dict[str, measured.Run]
) -> dict[str, dict[str, Any]]:
    predictions = runs.predictions(variant)
    if runs.cohort.task == "luna16":
        if DETECTOR not in set(predictions["view"]):
            return {}
        entries[DETECTORS] = (predictions, DETECTOR)
        return {DETECTORS: _row(runs, DETECTORS, entries[DETECTORS], "none")}
    if SIZE_ONLY not in set(predictions["view"]):
        return {}
    entries[SIZE] = (predictions, SIZE_ONLY)
    rows = {SIZE: _row(runs, SIZE, entries[SIZE], "none")}
    rated = runs.once("calcification", lambda: size_and_calcification(predictions, runs.cohort))
    if rated is not None:
        entries[SIZE_CALCIFICATION] = (rated, "size_calcification")
        rows[SIZE_CALCIFICATION] = _row(
            runs, SIZE_CALCIFICATION, entries[SIZE_CALCIFICATION], "none", READS_READERS
        )
    return rows


def _model_rows(
    runs: Finished, label: str, variant: Variant, entries: dict[str, measured.Run]
) -> dict[str, dict[str, Any]]:
    predictions, views = runs.predictions(variant), runs.amounts.views
    entries[label] = (predictions, "fused")
    rows = {}
    for view in views:
        name = f"{label}, {PLANES[view].name.replace('_', ' ')}"
        rows[name] = _row(runs, name, (predictions, str(view)), "one")
    if set(ORTHOGONAL) < set(views):
        name = f"{label}, three orthogonal"
        three = runs.once(
            ("three", label),
            lambda: fused(_folds(runs, variant), by_auc(ORTHOGONAL)),
        )
        rows[name] = _row(runs, name, (three, "fused"), "three")
    count = "nine" if len(views) == 9 else str(len(views))
    rows[label] = _row(runs, label, entries[label], count)
    if DETECTORS in entries:
        name = f"{label} {WITH_DETECTOR}"
        entries[name] = runs.once(
            ("with detector", label), lambda: (with_detector(predictions), "fused")
        )
        rows[name] = _row(runs, name, entries[name], count, AS_INDEPENDENT)
    return rows


def _folds(runs: Finished, variant: Variant) -> list[FoldViews]:
    return runs.once(
        ("folds", variant.label),
        lambda: fold_views(
            runs.predictions(variant),
            runs.units(variant, runs.amounts.plan(variant)),
            runs.cohort.nodules,
            runs.amounts.views,
        ),
    )


def _fusion(runs: Finished, variant: Variant) -> dict[str, Any]:
    """Ways to fuse, each against Eq. 4; what is lost with each view; AUC by number of views."""
    folds = _folds(runs, variant)
    ways = {name: fused(folds, way) for name, way in methods(folds).items()}
    printed = next(iter(ways))
    all_views = (ways[printed], "fused")
    against = {
        f"{name} less {printed}": runs.compare((table, "fused"), all_views)
        for name, table in ways.items()
        if name != printed
    }
    without = {
        PLANES[view].name.replace("_", " "): runs.compare(
            (
                fused(folds, by_auc([v for v in runs.amounts.views if v != view])),
                "fused",
            ),
            all_views,
        )
        for view in runs.amounts.views
    }
    weights = np.array([fold.val_auc / fold.val_auc.sum() for fold in folds])
    return {
        "ways": {
            name: _without_curves(runs.measure((table, "fused"))) for name, table in ways.items()
        },
        "comparisons": against,
        "family": measured.correct(against),
        "without_view": without,
        "without_view_family": measured.correct(without),
        "by_count": by_count(folds),
        "weights": {
            PLANES[view].name.replace("_", " "): {
                "mean": round(float(w.mean()), 5),
                "lowest": round(float(w.min()), 5),
                "highest": round(float(w.max()), 5),
            }
            for view, w in zip(runs.amounts.views, weights.T, strict=True)
        },
    }
