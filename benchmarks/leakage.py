"""Folds by patient against folds by nodule: how much do siblings give away?

    python -m benchmarks.leakage COHORT [COHORT ...] --runs FOLDER --out FILE.json

The same networks are trained twice on each cohort, ST-CNN on the axial view, once with folds by
patient and once with folds by nodule. The difference may come out as nothing; so beside it stand a
method that remembers patients and sees no image (`evaluation.leakage`), which says how much there
is to be had; the comparison within folds, which leaves out what pooling folds does by itself; and
an interval over repeats, since other trainings move a network's AUC more than other patients do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import command
from labkit import profiles
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import crossval
from labkit.evaluation import leakage as siblings
from labkit.io import read_json
from labkit.training.config import TrainingConfig

SPLITS = ("patient", "nodule")


def leakage(
    cohorts: list[Path], *, runs: Path, config: TrainingConfig | None = None, folds: int = 5,
    repeats: int = 3, resamples: int = 2000, jobs: int | None = None, progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Train under both splits, or take up what is trained, and compare.

    `runs` is a folder for the runs, one a cohort and split; `config` None takes ST-CNN on the axial
    view as the `lab` profile. An InputError for two cohorts of one name, or one without diameters.

    Returns:
        Numbers ready for JSON: `cohorts`: name -> `siblings`, `with_sibling` (share of test nodules
        by split), and `all` and `with_siblings`, each method -> split -> AUC and AUC within folds,
        and `nodule less patient` of both.
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
                cohort, config, out, folds=folds, repeats=repeats, split=split, jobs=jobs,
                progress=progress,
            )  # fmt: skip
            splits[split] = siblings.with_memory(predictions, cohort.nodules)
            done = read_json(out / "metrics.json", "a finished run")
            trained[split] = {k: done[k] for k in ("hardware", "started", "training_seconds")}
            described = done["cohort"]
        found[cohort.name] = {
            "cohort": described,
            "trained": trained,
            "siblings": siblings.sibling_pairs(cohort.nodules.iloc[cohort.labelled]),
            "with_sibling": {s: _share_with_sibling(p) for s, p in splits.items()},
            "all": siblings.compare_splits(splits, resamples),
            "with_siblings": siblings.compare_splits(
                {s: siblings.of_patients_with_several(p) for s, p in splits.items()}, resamples
            ),
        }
    return {
        "about": (
            "The same networks with folds by patient and with folds by nodule, beside a method "
            "that remembers the labels of the patient's training nodules and sees no image."
        ),
        "config": config.as_dict(),
        "plan": {"folds": folds, "repeats": repeats, "splits": list(SPLITS)},
        "cohorts": found,
    }


def _share_with_sibling(predictions: pd.DataFrame) -> float:
    """Compute the share of test nodules with a sibling in training, mean over repeats."""
    one = predictions[predictions["view"] == crossval.SIZE_ONLY]
    spread = one.groupby(["repeat", "patient_id"])["fold"].transform("nunique")
    return float((spread > 1).mean())


if __name__ == "__main__":
    sys.exit(command(leakage, __doc__))
