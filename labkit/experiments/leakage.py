"""Folds by patient against folds by nodule: how much do siblings give away?

    python -m labkit.experiments.leakage COHORT [COHORT ...] --runs FOLDER --out FILE.json

The same networks are trained twice on each cohort, ST-CNN on the axial view, once with folds by
patient and once with folds by nodule. The difference may come out as nothing; so beside it stand a
method that remembers patients and sees no image (`evaluation.leakage`), which says how much there
is to be had; the comparison within folds, which leaves out what pooling folds does by itself; and
an interval over repeats, since other trainings move a network's AUC more than other patients do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from labkit import profiles
from labkit._command import write_computed
from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval, intervals, metrics, summary, within_folds
from labkit.evaluation.intervals import Interval
from labkit.evaluation.leakage import (
    MEMORY,
    SIZE_AND_MEMORY,
    of_patients_with_several,
    sibling_pairs,
    with_memory,
)
from labkit.experiments.measured import plain
from labkit.files import read_json
from labkit.training.config import TrainingConfig
from labkit.training.hardware import provenance

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
            labels, p, patients = summary.scores(predictions, view)
            pooled = intervals.bootstrap_auc(labels, p, groups=patients, resamples=resamples)
            inside = within_folds.within_folds_auc(predictions, view, resamples=resamples)
            row[split] = {"pooled": plain(pooled), "within_folds": plain(inside)}
            row[split]["by_repeat"] = _by_repeat(predictions, view)
        one, two = splits["nodule"], splits["patient"]
        labels, p, q, patients = summary.paired_scores(one, two, view)
        pooled = intervals.bootstrap_auc_difference(
            labels, p, q, groups=patients, resamples=resamples
        )
        inside = within_folds.within_folds_difference(one, two, view, resamples=resamples)
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
        labels, p, _ = summary.scores(one, view)
        inside = within_folds.within_folds_auc(one, view, resamples=1)
        found["pooled"].append(round(metrics.roc_auc(labels, p[0]), 6))
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
    """The command `python -m labkit.experiments.leakage`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit.experiments.leakage",
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
