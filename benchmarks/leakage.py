"""Folds by patient against folds by nodule: how much do siblings give away?

    python -m benchmarks.leakage COHORT [COHORT ...] --runs FOLDER --out FILE.json

The same networks are trained twice on each cohort, ST-CNN on the axial view, once with folds by
patient and once with folds by nodule. The difference may come out as nothing; so beside it stand a
method that remembers patients and sees no image (`evaluation.leakage`), which says how much there
is to be had; the comparison within folds, which leaves out what pooling folds does by itself; and
an interval over repeats, since other trainings move a network's AUC more than other patients do.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from benchmarks.command import write_computed
from labkit import profiles
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval, statistics
from labkit.evaluation.crossval import SIZE_ONLY
from labkit.evaluation.statistics import Interval
from labkit.io import read_json
from labkit.paper.values import plain
from labkit.training.config import TrainingConfig
from labkit.training.machines import provenance

# What a nodule's siblings give away: the most that leakage by patient could be worth.
#
# Folds dealt by nodule put nodules of one patient on both sides. A network that recognised the
# patient could answer with the label of the sibling. `with_memory` is a method that does just that,
# with no image at all: it tells how much there is to be gained by leakage, and so what a difference
# between the two splits can and cannot be.


MEMORY, SIZE_AND_MEMORY = "memory", "size_and_memory"


def sibling_pairs(nodules: pd.DataFrame) -> dict[str, Any]:
    """How many nodules share a patient, and how alike siblings' labels are.

    Args:
        nodules: labelled ones with `patient_id` and `label`; `diameter_mm` where known.

    Returns:
        `nodules`, `patients`, `patients_with_several`, `nodules_with_siblings`, `pairs` of
        siblings, `same_label` (share of pairs), `same_label_by_chance` (share among any two
        nodules), and `likeness` of the labels (correlation over pairs of siblings: 0 as strangers,
        1 as copies) as they are, and `likeness_beyond_size` of what a logistic regression on the
        diameter leaves of them; None without diameters or without pairs.
    """
    y = nodules["label"].to_numpy(dtype=float)
    patient = nodules["patient_id"].to_numpy()
    rows_of = [np.flatnonzero(patient == p) for p in np.unique(patient)]
    several = [rows for rows in rows_of if len(rows) > 1]
    pairs = np.array([pair for rows in several for pair in combinations(rows, 2)], dtype=int)
    ill, n = float(y.sum()), len(y)
    values: dict[str, Any] = {
        "nodules": n,
        "patients": len(rows_of),
        "patients_with_several": len(several),
        "nodules_with_siblings": int(sum(map(len, several))),
        "pairs": len(pairs),
        "same_label": None,
        "same_label_by_chance": float(
            (ill * (ill - 1) + (n - ill) * (n - ill - 1)) / (n * (n - 1))
        ),
        "likeness": None,
        "likeness_beyond_size": None,
    }
    if len(pairs):
        values["same_label"] = float((y[pairs[:, 0]] == y[pairs[:, 1]]).mean())
        values["likeness"] = _likeness(y - y.mean(), pairs)
        if "diameter_mm" in nodules:
            x = np.log(nodules["diameter_mm"].to_numpy(dtype=float))[:, None]
            fitted = LogisticRegression().fit(x, y.astype(int)).predict_proba(x)[:, 1]
            values["likeness_beyond_size"] = _likeness(y - fitted, pairs)
    return values


def with_memory(predictions: pd.DataFrame, nodules: pd.DataFrame) -> pd.DataFrame:
    """Predictions with two more views, which know the labels of the patient's training nodules.

    "memory" answers with the mean label of the patient's nodules in training, counted together with
    one more nodule of the average label; a patient that training does not know gets that average.
    "size_and_memory" is a logistic regression on the log diameter and the logit of this, fitted on
    the training nodules, each with the memory of its siblings alone.

    Args:
        predictions: as `crossval.run` returns them; its folds are taken.
        nodules: nodule table with `nodule_id` and `diameter_mm`.

    Raises:
        InputError: no size-only predictions to stand on.
    """
    base = predictions[predictions["view"].astype(str) == SIZE_ONLY]
    if base.empty:
        raise InputError("no predictions for view 'size_only': the cohort knows no diameters")
    mm = nodules.set_index("nodule_id")["diameter_mm"]
    parts = [predictions]
    for _, repeat in base.groupby("repeat"):
        x = np.log(repeat["nodule_id"].map(mm).to_numpy(dtype=float))
        y = repeat["label"].to_numpy(dtype=np.int64)
        patient, fold = repeat["patient_id"].to_numpy(), repeat["fold"].to_numpy()
        memory, both = np.zeros(len(y)), np.zeros(len(y))
        for k in np.unique(fold):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            recalled = _recall(patient, y, train, test)
            own = _recall(patient, y, train, train)
            model = LogisticRegression().fit(np.stack([x[train], logit(own)], axis=1), y[train])
            memory[test] = recalled
            both[test] = model.predict_proba(np.stack([x[test], logit(recalled)], axis=1))[:, 1]
        parts += [
            repeat.assign(view=MEMORY, probability=memory),
            repeat.assign(view=SIZE_AND_MEMORY, probability=both),
        ]
    return pd.concat(parts, ignore_index=True)


def of_patients_with_several(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of nodules that have siblings, whom leakage can concern."""
    nodules = predictions.drop_duplicates("nodule_id")
    count = nodules.groupby("patient_id")["nodule_id"].nunique()
    return predictions[predictions["patient_id"].map(count) > 1]


def _recall(
    patient: NDArray[Any], y: NDArray[np.int64], train: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(asked,) mean label of each nodule's siblings in training, itself left out, and the prior."""
    known = pd.Series(y[train]).groupby(patient[train])
    total, count = known.sum(), known.size()
    ill = total.reindex(patient[asked], fill_value=0).to_numpy(dtype=float)
    seen = count.reindex(patient[asked], fill_value=0).to_numpy(dtype=float)
    itself = np.isin(asked, train)
    return (ill - itself * y[asked] + y[train].mean()) / (seen - itself + 1)


def _likeness(residual: NDArray[np.float64], pairs: NDArray[np.int64]) -> float:
    """Correlation over pairs, each pair counted both ways."""
    a, b = residual[pairs[:, 0]], residual[pairs[:, 1]]
    return float(np.mean(a * b) / np.mean((a**2 + b**2) / 2))


SPLITS = ("patient", "nodule")
NETWORK = "ST-CNN, axial view"
_VIEWS = {NETWORK: "0", "size only": crossval.SIZE_ONLY, "memory of patients": MEMORY,
          "size + memory": SIZE_AND_MEMORY}  # fmt: skip


def leakage(
    cohorts: list[Path],
    runs: Path,
    *,
    config: TrainingConfig | None = None,
    n_folds: int = 5,
    repeats: int = 3,
    resamples: int = 2000,
    jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train under both splits, or take up what is trained, and compare.

    Args:
        cohorts: folders, each with diameters.
        runs: folder for the runs, one a cohort and split.
        config: how networks are trained; None takes ST-CNN on the axial view as the `lab` profile.
        n_folds, repeats: of both splits.
        resamples: of the bootstraps over patients.
        jobs: networks trained at once; None takes one a core.
        progress: print an estimate and show bars.

    Returns:
        Numbers ready for JSON: `cohorts`: name -> `siblings`, `with_sibling` (share of test nodules
        by split), and `all` and `with_siblings`, each method -> split -> AUC and AUC within folds,
        and `nodule less patient` of both.

    Raises:
        InputError: two cohorts of one name, one without diameters, or a folder of other runs.
    """
    config = config or profiles.get("lab").training(model="st", views=(0,))
    opened = [Cohort.open(folder) for folder in cohorts]
    if len({c.name for c in opened}) < len(opened):
        raise InputError("two cohorts have the same name; their runs would share a folder")
    found = {}
    for cohort in opened:
        splits: dict[str, pd.DataFrame] = {}
        trained: dict[str, Any] = {}
        for split in SPLITS:
            out = runs / f"{cohort.name}_{split}"
            predictions = crossval.run(
                cohort, config, out, folds=n_folds, repeats=repeats, split=split, jobs=jobs,
                progress=progress,
            )  # fmt: skip
            splits[split] = with_memory(predictions, cohort.nodules)
            done = read_json(out / "metrics.json", "a finished run")
            trained[split] = {k: done[k] for k in ("hardware", "started", "training_seconds")}
            described = done["cohort"]
        found[cohort.name] = {
            "cohort": described,
            "trained": trained,
            "siblings": sibling_pairs(cohort.nodules.iloc[cohort.labelled]),
            "with_sibling": {s: _share_with_sibling(p) for s, p in splits.items()},
            "all": compare_splits(splits, resamples),
            "with_siblings": compare_splits(
                {s: of_patients_with_several(p) for s, p in splits.items()}, resamples
            ),
        }
    return {
        "about": (
            "The same networks with folds by patient and with folds by nodule, beside a method "
            "that remembers the labels of the patient's training nodules and sees no image."
        ),
        **provenance(),
        "config": config.as_dict(),
        "plan": {"folds": n_folds, "repeats": repeats, "splits": list(SPLITS)},
        "cohorts": found,
    }


def compare_splits(splits: dict[str, pd.DataFrame], resamples: int = 2000) -> dict[str, Any]:
    """AUC by split and by nodule less by patient, pooled and within folds, for every method.

    Args:
        splits: "patient" and "nodule" -> predictions of the same nodules.
        resamples: of the bootstraps over patients.
    """
    rows: dict[str, Any] = {}
    for method, view in _VIEWS.items():
        if view not in set(splits["patient"]["view"]):
            continue
        row: dict[str, Any] = {}
        for split, predictions in splits.items():
            labels, p, patients = statistics.scores(predictions, view)
            pooled = statistics.bootstrap_auc(labels, p, groups=patients, resamples=resamples)
            inside = statistics.within_folds_auc(predictions, view, resamples=resamples)
            row[split] = {"pooled": plain(pooled), "within_folds": plain(inside)}
            row[split]["by_repeat"] = _by_repeat(predictions, view)
        one, two = splits["nodule"], splits["patient"]
        labels, p, q, patients = statistics.paired_scores(one, two, view)
        pooled = statistics.bootstrap_auc_difference(
            labels, p, q, groups=patients, resamples=resamples
        )
        inside = statistics.within_folds_difference(one, two, view, resamples=resamples)
        row["nodule less patient"] = {"pooled": plain(pooled), "within_folds": plain(inside)}
        for way in ("pooled", "within_folds"):
            repeats = [row[split]["by_repeat"][way] for split in ("nodule", "patient")]
            row["nodule less patient"][f"{way}, over trainings"] = _over_trainings(*repeats)
        rows[method] = row
    return rows


def _by_repeat(predictions: pd.DataFrame, view: str) -> dict[str, list[float]]:
    """AUC of every repeat, pooled and within folds."""
    found: dict[str, list[float]] = {"pooled": [], "within_folds": []}
    for _, one in predictions.groupby("repeat"):
        labels, p, _ = statistics.scores(one, view)
        inside = statistics.within_folds_auc(one, view, resamples=1)
        found["pooled"].append(round(statistics.roc_auc(labels, p[0]), 6))
        found["within_folds"].append(round(inside.value, 6))
    return found


def _over_trainings(first: list[float], second: list[float]) -> dict[str, float] | None:
    """Mean of the first repeats less that of the second, with Welch's interval; None of one repeat.

    Repeats deal other folds and start from other weights, on the same nodules: what the bootstrap
    over patients takes as given.
    """
    if min(len(first), len(second)) < 2:
        return None
    value = float(np.mean(first) - np.mean(second))
    squared = [np.var(v, ddof=1) / len(v) for v in (first, second)]
    error = float(np.sqrt(sum(squared)))
    if error == 0:
        return plain(Interval(value, value, value))
    freedom = sum(squared) ** 2 / sum(
        s**2 / (len(v) - 1) for s, v in zip(squared, (first, second), strict=True)
    )
    half = float(stats.t.ppf(0.975, freedom)) * error
    return plain(Interval(value, value - half, value + half))


def _share_with_sibling(predictions: pd.DataFrame) -> float:
    """Share of test nodules with a sibling in training, mean over repeats."""
    one = predictions[predictions["view"] == crossval.SIZE_ONLY]
    spread = one.groupby(["repeat", "patient_id"])["fold"].transform("nunique")
    return float((spread > 1).mean())


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m benchmarks.leakage`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.leakage",
        description="Folds by patient against folds by nodule.",
    )
    parser.add_argument("cohorts", nargs="+", type=Path, help="cohort folders")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="networks at once (default: cores)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    return write_computed(
        parser.prog,
        options.out,
        lambda: leakage(
            options.cohorts, options.runs, n_folds=options.folds, repeats=options.repeats,
            jobs=options.jobs, progress=not options.quiet,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
