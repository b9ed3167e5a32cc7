"""Table 1: our rows, single views and fewer views, and the ways to fuse nine (III-C, IV-A).

Everything is computed from two runs, ST-CNN's and MT-CNN's: their networks judged inner validation
and test nodules view by view, and every way to fuse them is computed from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.predictions import DETECTOR, FUSED, SIZE_ONLY, select_view
from labkit.evaluation.statistics import area
from labkit.imaging.views import PLANES
from labkit.models.fusion import auc_weights, fuse, log_odds, moved
from labkit.paper.declared import Experiment, Variant
from labkit.paper.values import Run, Runs, Values, cells, correct, cpm, is_luna

SIZE, SIZE_CALCIFICATION = "size only", "size + calcification"
DETECTORS = "detector's score"
"""The row beside ours for LUNA-16, where what is no nodule has no size."""
WITH_DETECTOR = "with the detector's score"
"""After a model's name: both opinions put together (`with_detector`)."""
_AS_INDEPENDENT = "log-odds of the fused views and of the detector added, as if independent"
_READS_READERS = "reads the readers' ratings, which no image method is given"
_LIDC = ("auc", "sensitivity", "specificity")
_LUNA = (*_LIDC, "false_positive_rate", "false_positives_per_scan", "cpm")
_PUBLISHED_SCANS, _PUBLISHED_NEGATIVES = 888, 549_714  # 1,351 of 551,065 candidates are positive
_NEVER_CERTAIN = 1e-4
ORTHOGONAL = (0, 1, 2)
"""Axial, coronal and sagittal."""
Floats = NDArray[np.float64]
Row = tuple[Run, str, str]
"""Predictions and view, in words how many views that is, and a note."""

# What is published of the same data, and each row's metrics beside it.


def metrics(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the metrics that are shown of each row.

    >>> metrics({"task": "malignancy"})
    ('auc', 'sensitivity', 'specificity')
    """
    return _LUNA if is_luna(values) else _LIDC


def value(of_row: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    """Return a row's metric with its interval; None where it could not be computed.

    False positives are those at the stated threshold: the share of negatives that the specificity
    leaves, and what that is a scan. So their intervals are the specificity's.
    """
    if metric == "cpm":
        return cpm(of_row)
    if not metric.startswith("false_positive"):
        of: Mapping[str, float] = of_row[metric]
        return of
    at, spared = of_row["screening"], of_row["specificity"]
    times = at["negatives"] / at["scans"] if metric.endswith("per_scan") else 1.0
    low, high = ((1 - spared[end]) * times for end in ("high", "low"))
    return {"value": at[metric], "low": round(low, 6), "high": round(high, 6)}


def published(values: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return (method, metric) -> value as published, of LUNA-16 or LIDC-IDRI as the values are.

    The published false positive rate also says how many a scan that is of LUNA-16's candidates.

    >>> rate = {"what": "MT-CNN, LUNA-16", "metric": "false_positive_rate", "value": 0.032}
    >>> found = published({"task": "luna16", "published": [rate]})
    >>> round(found["MT-CNN", "false_positives_per_scan"])
    20
    """
    data = ", LUNA-16" if is_luna(values) else ", LIDC-IDRI"
    found = {
        (p["what"].removesuffix(data), p["metric"]): p["value"]
        for p in values["published"]
        if p["what"].endswith(data)
    }
    scan = _PUBLISHED_NEGATIVES / _PUBLISHED_SCANS
    rates = {what: v for (what, metric), v in found.items() if metric == "false_positive_rate"}
    return found | {(what, "false_positives_per_scan"): v * scan for what, v in rates.items()}


def table(values: Values) -> pd.DataFrame:
    """Return the rows with intervals; published values of the same data in columns of their own."""
    names, printed = metrics(values), published(values)
    lines = []
    for label, row in values["rows"].items():
        line: Values = {"method": label, "views": row["views"], "note": row["note"]}
        for metric in names:
            line |= cells(metric, value(row["metrics"], metric))
        if is_luna(values):
            line["threshold"] = row["metrics"]["threshold"]
        lines.append(line | {f"{m}_as_published": printed.get((label, m)) for m in names})
    for what in sorted({what for what, _ in printed} - set(values["rows"])) if lines else ():
        theirs = {f"{m}_as_published": v for (w, m), v in printed.items() if w == what}
        lines.append({"method": what, "note": "as published", **theirs})
    return pd.DataFrame(lines)


# Ways to make one probability of nine.


@dataclass(frozen=True, eq=False)
class FoldViews:
    """What the networks of one fold said of its n test and its m inner validation nodules."""

    test: pd.DataFrame
    """nodule_id, patient_id, repeat, fold, label of the test nodules."""
    test_probability: Floats
    """(n, views)."""
    val_auc: Floats
    """(views,) on the inner validation split."""
    val_label: NDArray[np.int64]
    val_probability: Floats
    prior_shift: float = 0.0
    """What the log-odds of all these probabilities gained after training (`batches.prior_shift`);
    ways to fuse take it off first and add it at the end."""


def fold_views(
    predictions: pd.DataFrame,
    networks: Mapping[tuple[int, int, int], Mapping[str, Any]],
    nodules: pd.DataFrame,
    views: Sequence[int],
) -> list[FoldViews]:
    """Collect what a run's networks said, fold by fold, from its predictions and what each
    network, (repeat, fold, view), left."""
    label_of, folds = nodules.set_index("nodule_id")["label"], []
    by_view: list[dict[Any, pd.DataFrame]] = [
        dict(list(select_view(predictions, str(v)).groupby(["repeat", "fold"]))) for v in views
    ]
    for repeat, fold in sorted(by_view[0]):
        parts = [of_view[repeat, fold].set_index("nodule_id") for of_view in by_view]
        left = [networks[repeat, fold, v] for v in views]
        folds.append(
            FoldViews(
                parts[0].reset_index()[["nodule_id", "patient_id", "repeat", "fold", "label"]],
                np.stack([t["probability"].loc[parts[0].index] for t in parts], axis=1),
                np.array([of["val_auc"] for of in left]),
                label_of.loc[left[0]["val_nodule_id"]].to_numpy(dtype=np.int64),
                np.array([of["val_probability"] for of in left]).T,
                left[0]["prior_shift"],
            )
        )
    return folds


def by_auc(fold: FoldViews, columns: Sequence[int] | slice = slice(None)) -> Floats:
    """Fuse by the weights of Eq. 4, over some views or all; equally where every AUC is zero."""
    weights = auc_weights(fold.val_auc[columns])
    return fuse(fold.test_probability[:, columns], weights, fold.prior_shift)


def equally(fold: FoldViews, columns: Sequence[int] | slice = slice(None)) -> Floats:
    """Fuse by the mean over some views or all."""
    probability = fold.test_probability[:, columns]
    count = probability.shape[1]
    return fuse(probability, np.full(count, 1 / count), fold.prior_shift)


def stacked(fold: FoldViews) -> Floats:
    """Fuse by logistic regression on the views' logits, learnt on the inner validation split.

    Its ridge (C = 1) was not tuned. The validation nodules also stopped the networks, so their
    probabilities are a little better than a new nodule's.
    """
    val, test = (
        log_odds(moved(p, -fold.prior_shift), _NEVER_CERTAIN)
        for p in (fold.val_probability, fold.test_probability)
    )
    return LogisticRegression(max_iter=1000).fit(val, fold.val_label).predict_proba(test)[:, 1]


def methods(folds: Sequence[FoldViews]) -> dict[str, Callable[[FoldViews], Floats]]:
    """Return the ways to fuse all views, the printed one first."""
    ways: dict[str, Callable[[FoldViews], Floats]] = {
        "AUC weights (Eq. 4)": by_auc,
        "equal weights": equally,
        "best view by validation": lambda fold: fold.test_probability[:, fold.val_auc.argmax()],
        "logistic stacking": stacked,
    }
    if any(fold.prior_shift for fold in folds):  # where the surest view rules the others
        ways["AUC weights, odds moved first"] = lambda fold: fuse(
            fold.test_probability, auc_weights(fold.val_auc)
        )
    return ways


def fused(folds: Sequence[FoldViews], method: Callable[[FoldViews], Floats]) -> pd.DataFrame:
    """Return predictions of a way to fuse, in the form of `crossval.run`'s, as the view "fused"."""
    parts = [fold.test.assign(view=FUSED, probability=method(fold)) for fold in folds]
    return pd.concat(parts, ignore_index=True)


def by_count(folds: Sequence[FoldViews]) -> list[dict[str, float]]:
    """Compute AUC against the number of views: every subset of each size, with equal weights.

    Returns:
        One row a size: views, subsets, worst, mean, best. The best subset is chosen by the result
        that is shown, so that only mean and worst can be believed.
    """
    test = pd.concat([fold.test for fold in folds])
    shift = np.concatenate([np.full(len(fold.test), fold.prior_shift) for fold in folds])
    probability = np.concatenate(
        [moved(fold.test_probability, -fold.prior_shift) for fold in folds]
    ).T
    parts = []
    for repeat in np.unique(test["repeat"]):
        both = [((test["repeat"] == repeat) & (test["label"] == c)).to_numpy() for c in (1, 0)]
        parts.append([(probability[:, here], shift[here]) for here in both])
    rows = []
    for size in range(1, len(probability) + 1):
        aucs = []
        for chosen in map(list, combinations(range(len(probability)), size)):
            means = [[moved(p[chosen].mean(0), s) for p, s in both] for both in parts]
            aucs.append(float(np.mean([area(*both) for both in means])))
        found = {"worst": min(aucs), "mean": float(np.mean(aucs)), "best": max(aucs)}
        rounded = {name: round(value, 6) for name, value in found.items()}
        rows.append({"views": size, "subsets": len(aucs), **rounded})
    return rows


# The other rows: the detector's opinion, and what the readers rated.


def with_detector(predictions: pd.DataFrame) -> pd.DataFrame:
    """Put the fused networks' opinion and the detector's together, as if they were independent.

    By Bayes' rule their log-odds add up, less those of the share of nodules among the training
    candidates, which both already count. Nothing is fitted for it.

    Takes predictions with the views "fused" and "detector" and returns the view "fused".
    """
    ours = select_view(predictions, FUSED).reset_index(drop=True)
    theirs = select_view(predictions, DETECTOR).reset_index(drop=True)
    place = ["repeat", "fold", "nodule_id"]
    if not ours[place].equals(theirs[place]):
        theirs = ours[place].merge(theirs, on=place, how="left", validate="one_to_one")
    of_repeat, of_fold = ours.groupby("repeat")["label"], ours.groupby(["repeat", "fold"])["label"]
    positives = of_repeat.transform("sum") - of_fold.transform("sum")
    share = positives / (of_repeat.transform("size") - of_fold.transform("size"))
    news = log_odds(theirs["probability"]) - log_odds(share)
    return ours.assign(probability=moved(ours["probability"], news))


def size_and_calcification(predictions: pd.DataFrame, cohort: Cohort) -> pd.DataFrame | None:
    """Fit logistic regression on log diameter and the readers' mean calcification, fold by fold.

    Cubes come without the readers' opinion of calcification; where every labelled nodule can be
    identified in LIDC-IDRI, it is looked up there.

    Returns:
        Predictions as the view "size_calcification", in the folds of the view "size_only"; None
        where a nodule has no such rating.
    """
    nodules = cohort.nodules.iloc[cohort.labelled].set_index("nodule_id")
    size = predictions[predictions["view"].astype(str) == SIZE_ONLY]
    calcification = nodules["calcification"]
    if not size.empty and calcification.isna().all():
        known = lidc.annotations().groupby("nodule_id")["calcification"].mean()
        calcification = lidc.lidc_ids(nodules.reset_index()).map(known)
    if size.empty or calcification.isna().any():
        return None
    x = np.stack([np.log(nodules["diameter_mm"]), calcification], axis=1).astype(float)
    y = nodules["label"].to_numpy(dtype=np.int64)
    parts = []
    for _, part in size.groupby(["repeat", "fold"]):
        rows = nodules.index.get_indexer(pd.Index(part["nodule_id"]))
        train = np.setdiff1d(np.arange(len(y)), rows)
        probability = LogisticRegression().fit(x[train], y[train]).predict_proba(x[rows])[:, 1]
        parts.append(part.assign(view="size_calcification", probability=probability))
    return pd.concat(parts, ignore_index=True)


# The table.


def table1(experiment: Experiment, runs: Runs) -> Values:
    """Compute the rows, the paired comparisons, and the ways to fuse.

    Returns:
        `rows`: label -> method, views, metrics, note; `comparisons` of the experiment, and
        `family`; `together`, of LUNA-16: both opinions less each alone, which the paper does not
        ask for and which is a family of its own; `fusion`: model -> ways, views left out, AUC by
        number of views, weights; `trained`: on what; `missing`: labels not finished.
    """
    there, missing = runs.finished(experiment)
    entries: dict[str, Row] = {}
    for variant in there.values():
        entries |= ({} if entries else _baselines(runs, variant)) | _of_model(runs, variant)

    def compared(pairs: Iterable[tuple[str, str]]) -> dict[str, Values]:
        return {
            f"{a} less {b}": dict(
                runs.once(("pair", a, b), runs.compare, entries[a][0], entries[b][0])
            )
            for a, b in pairs
            if a in entries and b in entries
        }

    beside = {} if SIZE in entries else {SIZE: DETECTORS}
    comparisons = compared((a, beside.get(b, b)) for a, b in experiment.comparisons)
    together = compared((f"{a} {WITH_DETECTOR}", alone) for a in there for alone in (DETECTORS, a))
    # All that is declared, as long as it is not known which of it these nodules allow.
    family = len(experiment.comparisons) if missing else len(comparisons)
    rows = {
        name: {"views": views, "note": note, "metrics": runs.once(("row", name), runs.measure, run)}
        for name, (run, views, note) in entries.items()
    }
    return {
        "rows": rows,
        "comparisons": comparisons,
        "family": correct(comparisons, family),
        "together": together,
        "together_family": correct(together),
        "fusion": {
            label: runs.once(("fusion", label), _fusion, runs, v) for label, v in there.items()
        },
        "trained": {label: runs.trained(variant) for label, variant in there.items()},
        "missing": missing,
    }


def _baselines(runs: Runs, variant: Variant) -> dict[str, Row]:
    """What no network says: the diameter and calcification, or LUNA-16's detector."""
    predictions = runs.predictions(variant)
    found: dict[str, Row] = {}
    for view, label in ((SIZE_ONLY, SIZE), (DETECTOR, DETECTORS)):
        if view in set(predictions["view"]) and (view == DETECTOR) == (
            runs.cohort.task == "luna16"
        ):
            found[label] = ((predictions, view), "none", "")
    if SIZE in found:
        rated = runs.once("calcification", size_and_calcification, predictions, runs.cohort)
        if rated is not None:
            found[SIZE_CALCIFICATION] = ((rated, "size_calcification"), "none", _READS_READERS)
    return found


def _of_model(runs: Runs, variant: Variant) -> dict[str, Row]:
    predictions, views, label = runs.predictions(variant), runs.profile.paper_views, variant.label
    found: dict[str, Row] = {
        f"{label}, {_plane(v)}": ((predictions, str(v)), "one", "") for v in views
    }
    if set(ORTHOGONAL) < set(views):
        three = partial(by_auc, columns=[views.index(v) for v in ORTHOGONAL])
        run = (runs.once(("three", label), fused, _folds(runs, variant), three), FUSED)
        found[f"{label}, three orthogonal"] = (run, "three", "")
    count = "nine" if len(views) == len(PLANES) else str(len(views))
    found[label] = ((predictions, FUSED), count, "")
    if DETECTOR in set(predictions["view"]):
        run = (runs.once(("with detector", label), with_detector, predictions), FUSED)
        found[f"{label} {WITH_DETECTOR}"] = (run, count, _AS_INDEPENDENT)
    return found


def _folds(runs: Runs, variant: Variant) -> list[FoldViews]:
    def collect() -> list[FoldViews]:
        networks, views = runs.networks(variant, runs.plan(variant)), runs.profile.paper_views
        return fold_views(runs.predictions(variant), networks, runs.cohort.nodules, views)

    return runs.once(("folds", variant.label), collect)


def _plane(view: int) -> str:
    return PLANES[view].name.replace("_", " ")


def _fusion(runs: Runs, variant: Variant) -> Values:
    """Ways to fuse, each against Eq. 4; what is lost with each view; AUC by number of views."""
    folds, planes = _folds(runs, variant), [_plane(v) for v in runs.profile.paper_views]
    ways = {name: (fused(folds, way), FUSED) for name, way in methods(folds).items()}
    printed, *others = ways
    against = {f"{n} less {printed}": runs.compare(ways[n], ways[printed]) for n in others}
    without = {}
    for k, plane in enumerate(planes):
        rest = partial(by_auc, columns=[i for i in range(len(planes)) if i != k])
        without[plane] = runs.compare((fused(folds, rest), FUSED), ways[printed])
    weights = np.array([fold.val_auc / fold.val_auc.sum() for fold in folds])
    spread = {"mean": weights.mean(0), "lowest": weights.min(0), "highest": weights.max(0)}
    return {
        "ways": {name: _without_curves(runs.measure(run)) for name, run in ways.items()},
        "comparisons": against,
        "family": correct(against),
        "without_view": without,
        "without_view_family": correct(without),
        "by_count": by_count(folds),
        "weights": {
            plane: {name: round(float(of[k]), 5) for name, of in spread.items()}
            for k, plane in enumerate(planes)
        },
    }


def _without_curves(values: Mapping[str, Any]) -> Values:
    return {
        k: _without_curves(v) if isinstance(v, dict) else v
        for k, v in values.items()
        if k not in ("roc", "curve")
    }
