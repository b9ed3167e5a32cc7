"""Table 1: our rows, single views and fewer views, and the ways to fuse nine (III-C, IV-A).

Everything is computed from two runs, ST-CNN's and MT-CNN's: their networks judged inner validation
and test nodules view by view, and every way to fuse them is computed from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from labkit.cohorts.cohort import Cohort
from labkit.evaluation.crossval import validation_predictions
from labkit.evaluation.predictions import DETECTOR, FUSED, SIZE_ONLY, select_view
from labkit.evaluation.size import with_diameter
from labkit.evaluation.statistics import area
from labkit.imaging.views import PLANES
from labkit.models import NETWORKS
from labkit.models.fusion import log_odds, moved
from labkit.models.rivals import mean_ratings
from labkit.paper.declared import OF_PAPERS, OTHERS, WITH_THE_DIAMETER, Experiment, Variant
from labkit.paper.values import Run, Runs, Values, cells, correct, cpm, is_luna

SIZE, SIZE_CALCIFICATION = "size only", "size + calcification"
DETECTORS = "detector's score"
"""The row beside ours for LUNA-16, where what is no nodule has no size."""
WITH_DETECTOR = "with the detector's score"
"""After a model's name: both opinions put together (`with_detector`)."""
_AS_INDEPENDENT = "log-odds of the fused views and of the detector added, as if independent"
_WITHOUT_CUBES = "without cubes the nine views' descriptors take radiomics' place"
_RULER = "the method's log-odds and the readers' log-diameter, weighed on held-out nodules"
READS_READERS = "reads the readers' ratings, which no image method is given"
_LIDC = ("auc", "sensitivity", "specificity", "accuracy")
_LUNA = (*_LIDC[:-1], "false_positive_rate", "false_positives_per_scan", "cpm")
_PUBLISHED_SCANS, _PUBLISHED_NEGATIVES = 888, 549_714  # 1,351 of 551,065 candidates are positive
_NEVER_CERTAIN = 1e-4
_PLACE = ["repeat", "fold", "nodule_id"]
ORTHOGONAL = (0, 1, 2)  # axial, coronal and sagittal
Floats = NDArray[np.float64]
Row = tuple[Run, str, str]  # predictions and view, in words how many views that is, and a note

# What is published of the same data, and each row's metrics beside it.


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
    data, found = ", LUNA-16" if is_luna(values) else ", LIDC-IDRI", {}
    for of in (of for of in values["published"] if of["what"].endswith(data)):
        what = of["what"].removesuffix(data)
        found[what, of["metric"]] = of["value"]
        if of["metric"] == "false_positive_rate":
            a_scan = of["value"] * _PUBLISHED_NEGATIVES / _PUBLISHED_SCANS
            found[what, "false_positives_per_scan"] = a_scan
    return found


def table(values: Values) -> pd.DataFrame:
    """Return the rows with intervals; published values of the same data in columns of their own."""
    names, printed, rows = _LUNA if is_luna(values) else _LIDC, published(values), values["rows"]
    papers, lines = {of.name: of.reference for of in NETWORKS.values()}, []
    for label in [*rows, *(sorted({what for what, _ in printed} - set(rows)) if rows else ())]:
        line: Values = {"method": label, "note": "as published"}
        if row := rows.get(label):
            line = {"method": label, "views": row["views"], "note": row["note"]}
            line |= cells({m: value(row["metrics"], m) for m in ("auc_within_folds", *names)})
            if is_luna(values):
                line["threshold"] = row["metrics"]["threshold"]
        line |= {f"{m}_as_published": printed.get((label, m)) for m in names}
        lines.append(line | {"reference": papers.get(label, "")})
    return pd.DataFrame(lines)


# Ways to make one probability of nine.


@dataclass(frozen=True, eq=False)
class Views:
    """What a run's networks said of its n test nodules, view by view, and what weighs it."""

    test: pd.DataFrame  # nodule_id, patient_id, repeat, fold, label of the n test nodules
    probability: Floats  # (n, views)
    val_auc: Floats  # (n, views) on the inner validation split of each one's fold
    # (n, 1) what the log-odds gained after training (`batches.prior_shift`): ways to fuse take it
    # off first and add it at the end.
    prior_shift: Floats
    # (repeat, fold) -> labels (m,) and probabilities (m, views), without what was gained, of its
    # inner validation nodules.
    validation: Mapping[tuple[int, int], tuple[NDArray[np.int64], Floats]]


def views_of_run(
    predictions: pd.DataFrame, networks: Mapping[tuple[int, int, int], Mapping[str, Any]],
    nodules: pd.DataFrame, views: Sequence[int],
) -> Views:  # fmt: skip
    """Collect what a run's networks said from its predictions and from what each network,
    (repeat, fold, view), left."""
    first, *others = (select_view(predictions, str(v)).reset_index(drop=True) for v in views)
    said = [of["probability"] for of in (first, *(_in_order(first, of) for of in others))]
    number, places = pd.factorize(pd.MultiIndex.from_frame(first[["repeat", "fold"]]), sort=True)
    label_of, validation, left = nodules.set_index("nodule_id")["label"], {}, []
    for repeat, fold in places:
        here = pd.DataFrame([networks[repeat, fold, v] for v in views])
        left.append([*here["val_auc"], here["prior_shift"][0]])
        labels = label_of.loc[here["val_nodule_id"][0]].to_numpy(dtype=np.int64)
        said_there = np.array(here["val_probability"].tolist()).T
        validation[repeat, fold] = (labels, moved(said_there, -left[-1][-1]))
    of_fold = np.array(left, dtype=float)[number]
    test = first[["nodule_id", "patient_id", "repeat", "fold", "label"]]
    probability = np.stack([of.to_numpy(dtype=float) for of in said], axis=1)
    return Views(test, probability, of_fold[:, :-1], of_fold[:, -1:], validation)


def _in_order(first: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The other view's predictions in the order of the first's."""
    if first[_PLACE].equals(other[_PLACE]):
        return other
    return first[_PLACE].merge(other, on=_PLACE, how="left", validate="one_to_one")


def by_auc(
    of: Views, columns: Sequence[int] | slice = slice(None), alike: bool = False
) -> Floats:  # fmt: skip
    """Fuse by the weights of Eq. 4, over some views or all; equally where every AUC is zero."""
    auc = of.val_auc[:, columns]
    total = np.zeros((len(auc), 1)) if alike else auc.sum(axis=1, keepdims=True)
    weights = np.divide(auc, total, np.full_like(auc, 1 / auc.shape[1]), where=total > 0)
    plain = moved(of.probability, -of.prior_shift)[:, columns]
    return moved((plain * weights).sum(axis=1), of.prior_shift[:, 0])


def equally(of: Views, columns: Sequence[int] | slice = slice(None)) -> Floats:
    """Fuse by the mean over some views or all."""
    return by_auc(of, columns, alike=True)


def stacked(of: Views) -> Floats:
    """Fuse by logistic regression on the views' logits, learnt on the inner validation split.

    Its ridge (C = 1) was not tuned. The validation nodules also stopped the networks, so their
    probabilities are a little better than a new nodule's.
    """
    test = log_odds(moved(of.probability, -of.prior_shift), _NEVER_CERTAIN)
    found = np.empty(len(test))
    for (repeat, fold), (labels, said) in of.validation.items():
        here = ((of.test["repeat"] == repeat) & (of.test["fold"] == fold)).to_numpy()
        learnt = LogisticRegression(max_iter=1000).fit(log_odds(said, _NEVER_CERTAIN), labels)
        found[here] = learnt.predict_proba(test[here])[:, 1]
    return found


def methods(of: Views) -> dict[str, Callable[[Views], Floats]]:
    """Return the ways to fuse all views, the printed one first."""
    ways: dict[str, Callable[[Views], Floats]] = {
        "AUC weights (Eq. 4)": by_auc,
        "equal weights": equally,
        "best view by validation": lambda of: of.probability[
            np.arange(len(of.test)), of.val_auc.argmax(axis=1)
        ],
        "logistic stacking": stacked,
    }
    if of.prior_shift.any():  # where the surest view rules the others
        ways["AUC weights, odds moved first"] = lambda of: (
            of.probability * of.val_auc / of.val_auc.sum(axis=1, keepdims=True)
        ).sum(axis=1)
    return ways


def fused(of: Views, method: Callable[[Views], Floats]) -> pd.DataFrame:
    """Return predictions of a way to fuse, in the form of `crossval.run`'s, as the view "fused"."""
    return of.test.assign(view=FUSED, probability=method(of))


def by_count(of: Views) -> list[dict[str, float]]:
    """Compute AUC against the number of views: every subset of each size, with equal weights.

    One row a size: views, subsets, worst, mean, best. The best subset is chosen by the result that
    is shown, so that only mean and worst can be believed.
    """
    plain = np.ascontiguousarray(moved(of.probability, -of.prior_shift).T)
    malignant, repeat = (of.test[name].to_numpy() for name in ("label", "repeat"))
    both = [[(repeat == r) & (malignant == c) for c in (1, 0)] for r in np.unique(repeat)]

    def auc(chosen: tuple[int, ...]) -> float:
        score = moved(plain[list(chosen)].mean(axis=0), of.prior_shift[:, 0])
        return float(np.mean([area(score[ill], score[well]) for ill, well in both]))

    rows = []
    for size in range(1, len(plain) + 1):
        aucs = [auc(chosen) for chosen in combinations(range(len(plain)), size)]
        found = {"worst": min(aucs), "mean": float(np.mean(aucs)), "best": max(aucs)}
        rows.append(
            {"views": size, "subsets": len(aucs)} | {k: round(v, 6) for k, v in found.items()}
        )
    return rows


# The other rows: the detector's opinion, and what the readers rated.


def with_detector(predictions: pd.DataFrame) -> pd.DataFrame:
    """Put the fused networks' opinion and the detector's together, as if they were independent.

    By Bayes' rule their log-odds add up, less those of the share of nodules among the training
    candidates, which both already count. Nothing is fitted for it.

    Takes predictions with the views "fused" and "detector" and returns the view "fused".
    """
    ours, theirs = (select_view(predictions, v).reset_index(drop=True) for v in (FUSED, DETECTOR))
    of_repeat, of_fold = ours.groupby("repeat")["label"], ours.groupby(["repeat", "fold"])["label"]
    positives = of_repeat.transform("sum") - of_fold.transform("sum")
    share = positives / (of_repeat.transform("size") - of_fold.transform("size"))
    news = log_odds(_in_order(ours, theirs)["probability"]) - log_odds(share)
    return ours.assign(probability=moved(ours["probability"], news))


def with_the_diameter(runs: Runs, variant: Variant) -> pd.DataFrame:
    """Put what a method says and the diameter together (`size.with_diameter`)."""
    held_out = validation_predictions(runs.run_folder(variant), runs.cohort)
    return with_diameter(runs.predictions(variant), held_out, runs.cohort.nodules)


def size_and_calcification(predictions: pd.DataFrame, cohort: Cohort) -> pd.DataFrame | None:
    """Fit logistic regression on log diameter and the readers' mean calcification, fold by fold.

    Cubes come without calcification; where every labelled nodule can be identified in LIDC-IDRI,
    it is looked up there. Returns the view "size_calcification", in the folds of "size_only"; None
    where a nodule has no such rating.
    """
    nodules = cohort.nodules.iloc[cohort.labelled].set_index("nodule_id")
    if (size := select_view(predictions, SIZE_ONLY)).empty:
        return None
    calcification = mean_ratings(cohort, ["calcification"])[cohort.labelled, 0]
    if np.isnan(calcification).any():
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
        `rows`: label -> views, metrics, note; `comparisons` and `family`; `together`, of LUNA-16:
        both opinions less each alone, which the paper does not ask for, a family of its own;
        `rivals`: MT-CNN less each method of another paper, of LUNA-16 less any other, another;
        `fusion`: model -> ways, views left out, AUC by number of views, weights; `trained`;
        `missing`: labels not finished.
    """
    there, missing = runs.finished(experiment)
    entries: dict[str, Row] = {}
    for variant in there.values():
        entries |= ({} if entries else _baselines(runs, variant)) | _of_model(runs, variant)
    of_each = {name: run for name, (run, _, _) in entries.items()}
    beside = {} if SIZE in entries else {SIZE: DETECTORS}
    rulers = ("",) if beside else ("", WITH_THE_DIAMETER)
    possible = {f"{v.label}{ruler}" for v in experiment.of(runs.profile) for ruler in rulers}
    pairs = [(a, beside.get(b, b)) for a, b in experiment.comparisons if a in possible]
    both = [(f"{a} {WITH_DETECTOR}", alone) for a in there for alone in (DETECTORS, a)]
    others = [v.label for v in OTHERS] if beside else OF_PAPERS
    rivals = [("MT-CNN", name) for name in others if name in possible]
    comparisons, together, ahead = (runs.compare_all(of_each, of) for of in (pairs, both, rivals))
    metrics = runs.measure_all(of_each)
    return {
        "rows": {
            name: {"views": views, "note": note, "metrics": metrics[name]}
            for name, (_, views, note) in entries.items()
        },
        "comparisons": comparisons,
        # All that is declared, as long as it is not known which of it these nodules allow.
        "family": correct(comparisons, len(pairs) if missing else len(comparisons)),
        "together": together,
        "together_family": correct(together),
        "rivals": ahead,
        "rivals_family": correct(ahead, len(rivals) if missing else len(ahead)),
        "fusion": {
            label: runs.once(("fusion", label), _fusion, runs, v)
            for label, v in there.items()
            if not v.config(runs.profile).network.whole
        },
        "trained": {label: runs.trained(v, runs.plan(v)) for label, v in there.items()},
        "missing": missing,
    }


def _baselines(runs: Runs, variant: Variant) -> dict[str, Row]:
    """What no network says: the diameter and calcification, or LUNA-16's detector."""
    predictions, luna = runs.predictions(variant), runs.cohort.task == "luna16"
    view, label = (DETECTOR, DETECTORS) if luna else (SIZE_ONLY, SIZE)
    if view not in set(predictions["view"]):
        return {}
    found: dict[str, Row] = {label: ((predictions, view), "none", "")}
    if not luna:
        rated = runs.once("calcification", size_and_calcification, predictions, runs.cohort)
        if rated is not None:
            found[SIZE_CALCIFICATION] = ((rated, "size_calcification"), "none", READS_READERS)
    return found


def _of_model(runs: Runs, variant: Variant) -> dict[str, Row]:
    predictions, views, label = runs.predictions(variant), runs.profile.paper_views, variant.label
    found: dict[str, Row] = {}
    count, note = {9: "nine"}.get(len(views), str(len(views))), ""
    if variant.config(runs.profile).network.whole:
        count = "whole nodule" if runs.cohort.cubes is not None else "nine"
        note = _WITHOUT_CUBES * (variant.changes["model"] == "best" and count == "nine")
    else:
        found = {f"{label}, {_plane(v)}": ((predictions, str(v)), "one", "") for v in views}
        if set(ORTHOGONAL) < set(views):
            three = partial(by_auc, columns=[views.index(v) for v in ORTHOGONAL])
            said = runs.once(("views", label), _views, runs, variant)
            run = (runs.once(("three", label), fused, said, three), FUSED)
            found[f"{label}, three orthogonal"] = (run, "three", "")
    found[label] = ((predictions, FUSED), count, note)
    if SIZE_ONLY in set(predictions["view"]):
        sized = runs.once(("with the diameter", label), with_the_diameter, runs, variant)
        found[f"{label}{WITH_THE_DIAMETER}"] = ((sized, FUSED), "and a ruler", _RULER)
    if DETECTOR in set(predictions["view"]):
        run = (runs.once(("with detector", label), with_detector, predictions), FUSED)
        found[f"{label} {WITH_DETECTOR}"] = (run, count, _AS_INDEPENDENT)
    return found


def _views(runs: Runs, variant: Variant) -> Views:
    networks, views = runs.networks(variant, runs.plan(variant)), runs.profile.paper_views
    return views_of_run(runs.predictions(variant), networks, runs.cohort.nodules, views)


def _plane(view: int) -> str:
    return PLANES[view].name.replace("_", " ")


def _fusion(runs: Runs, variant: Variant) -> Values:
    """Ways to fuse, each against Eq. 4; what is lost with each view; AUC by number of views."""
    of = runs.once(("views", variant.label), _views, runs, variant)
    planes = [_plane(v) for v in runs.profile.paper_views]
    ways = {name: (fused(of, way), FUSED) for name, way in methods(of).items()}
    printed, *others = ways
    against = {f"{n} less {printed}": runs.compare(ways[n], ways[printed]) for n in others}
    without = {}
    for k, plane in enumerate(planes):
        rest = partial(by_auc, columns=[i for i in range(len(planes)) if i != k])
        without[plane] = runs.compare((fused(of, rest), FUSED), ways[printed])
    measured = {name: runs.measure(run) for name, run in ways.items()}
    for metrics in measured.values():
        del metrics["roc"]
        metrics.get("froc", {}).pop("curve", None)
    auc = of.val_auc[~of.test.duplicated(["repeat", "fold"])]
    weights = auc / auc.sum(axis=1, keepdims=True)
    spread = {"mean": weights.mean(0), "lowest": weights.min(0), "highest": weights.max(0)}
    return {
        "ways": measured,
        "comparisons": against,
        "family": correct(against),
        "without_view": without,
        "without_view_family": correct(without),
        "by_count": by_count(of),
        "weights": {
            plane: {name: round(float(of_views[k]), 5) for name, of_views in spread.items()}
            for k, plane in enumerate(planes)
        },
    }
