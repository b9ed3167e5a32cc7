"""Our rows of Table 1, single views and fewer views, and the ways to fuse nine.

Everything here is computed from two runs, ST-CNN's and MT-CNN's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from labkit.data import identify, lidc
from labkit.data.cohort import Cohort
from labkit.evaluation.gather import DETECTOR, SIZE_ONLY
from labkit.experiments import combining, luna, measured
from labkit.experiments import rows as rows_of
from labkit.experiments.declared import Experiment
from labkit.experiments.finished import Finished
from labkit.experiments.rows import DETECTORS, WITH_DETECTOR
from labkit.experiments.variants import Variant
from labkit.imaging.views import PLANES

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
    return identify.lidc_ids(nodules).map(known)


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
    metrics, published = rows_of.metrics(values), rows_of.published(values)
    lines = []
    for label, row in values["rows"].items():
        line: dict[str, Any] = {"method": label, "views": row["views"], "note": row["note"]}
        for metric in metrics:
            line |= _cells(metric, rows_of.value(row["metrics"], metric))
        if luna.is_luna(values):
            line["threshold"] = row["metrics"]["threshold"]
        for metric in metrics:
            line[f"{metric}_as_published"] = published.get((label, metric))
        lines.append(line)
    if lines:
        other = {what for what, _ in published} - set(values["rows"])
        for what in sorted(other):
            lines.append(
                {
                    "method": what,
                    "note": "as published",
                    **{f"{m}_as_published": v for (w, m), v in published.items() if w == what},
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
    if set(combining.ORTHOGONAL) < set(views):
        name = f"{label}, three orthogonal"
        three = runs.once(
            ("three", label),
            lambda: combining.fused(_folds(runs, variant), combining.by_auc(combining.ORTHOGONAL)),
        )
        rows[name] = _row(runs, name, (three, "fused"), "three")
    count = "nine" if len(views) == 9 else str(len(views))
    rows[label] = _row(runs, label, entries[label], count)
    if DETECTORS in entries:
        name = f"{label} {WITH_DETECTOR}"
        entries[name] = runs.once(
            ("with detector", label), lambda: (combining.with_detector(predictions), "fused")
        )
        rows[name] = _row(runs, name, entries[name], count, AS_INDEPENDENT)
    return rows


def _folds(runs: Finished, variant: Variant) -> list[combining.FoldViews]:
    return runs.once(
        ("folds", variant.label),
        lambda: combining.fold_views(
            runs.predictions(variant),
            runs.units(variant, runs.amounts.plan(variant)),
            runs.cohort.nodules,
            runs.amounts.views,
        ),
    )


def _fusion(runs: Finished, variant: Variant) -> dict[str, Any]:
    """Ways to fuse, each against Eq. 4; what is lost with each view; AUC by number of views."""
    folds = _folds(runs, variant)
    ways = {name: combining.fused(folds, way) for name, way in combining.methods(folds).items()}
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
                combining.fused(
                    folds, combining.by_auc([v for v in runs.amounts.views if v != view])
                ),
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
        "by_count": combining.by_count(folds),
        "weights": {
            PLANES[view].name.replace("_", " "): {
                "mean": round(float(w.mean()), 5),
                "lowest": round(float(w.min()), 5),
                "highest": round(float(w.max()), 5),
            }
            for view, w in zip(runs.amounts.views, weights.T, strict=True)
        },
    }
