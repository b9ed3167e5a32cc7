"""The test that counts: train on simulated CT, test on real CT of other patients.

Three networks are trained for every fold of the real patients, and all are tested on that fold's
real nodules: one on the real nodules of the other folds, one on all simulated nodules of patients
who are not in the fold, and one on the simulated twins of just those real nodules that the first
one saw. What the simulation lacks is the first less the second; the third takes the advantage of
greater numbers away.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.common import timed
from benchmarks.realism.measure import describe, match
from labkit import paths
from labkit.cohorts.cohort import Cohort
from labkit.evaluation.crossval import SIZE_ONLY, make_folds
from labkit.evaluation.size import by_one_number
from labkit.evaluation.statistics import compare, roc_auc, scores, summarise
from labkit.io import read_json, write_csv, write_json
from labkit.training import machines
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device, default_jobs, one_thread
from labkit.training.nine_views import fit

REAL, SIMULATED, SAME = "real", "simulated", "simulated_same"
ARMS = {
    REAL: "real nodules of the other folds",
    SIMULATED: "all simulated nodules of patients outside the test fold",
    SAME: "simulated twins of the real nodules of the other folds",
}
PAIRS = ((SIMULATED, REAL), (SAME, REAL), (SIMULATED, SAME), (SIMULATED, SIZE_ONLY),
         (REAL, SIZE_ONLY))  # fmt: skip
_KEPT = {"trained_on": ("nodules_a_fold", 1), "val_auc": ("validation_auc", 4),
         "epochs": ("epochs_a_network", 1), "seconds": ("seconds_a_network", 1)}  # fmt: skip
_Rows = NDArray[np.int64]


def transfer(
    real: Path, simulated: Path, *, seeds: int = 3, folds: int = 5, epochs: int = 40,
    jobs: int | None = None, progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Train on simulated and on real nodules, test on real ones of other patients.

    A run that was stopped goes on with the networks that are missing; more seeds add to it. It lies
    under `paths.runs()`, named after the cohorts' checksums and the settings. Of the real cubes the
    axial view alone is whole, so that networks see no other; `seeds` are repeats of everything,
    each with other folds and first weights. An InputError for cohorts the wrong way round.

    Returns:
        Numbers ready for JSON: AUC of every arm, pooled over folds, with intervals over patients,
        mean of the seeds and one by one, paired differences with DeLong's test by patient, and
        the AUC of the diameter alone.
    """
    cohort, source = Cohort.open(real), Cohort.open(simulated)
    config = TrainingConfig.brief(model="mt", views=(0,), epochs=epochs)
    device, rows = Device.choose("auto", config.precision), cohort.labelled
    pairs = match(cohort, source)
    twin_of = np.full(len(cohort), -1, dtype=np.int64)
    twin_of[pairs["real_row"].to_numpy()] = pairs["simulated_row"].to_numpy()
    described = {REAL: describe(cohort), SIMULATED: describe(source)}
    identity = json.dumps([described, config.as_dict(), folds], sort_keys=True)
    out = paths.runs() / f"transfer_{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    units = {}
    for seed in range(seeds):
        fold_of = make_folds(cohort.nodules.iloc[rows], folds, "patient", seed)
        for fold in range(folds):
            test = rows[fold_of == fold]
            for arm, train in training_sets(cohort, source, twin_of, rows, test).items():
                file = out / "units" / f"seed{seed}_fold{fold}_{arm}.json"
                units[file] = (seed, fold, arm, train, test)
    tasks = [(real, real if unit[2] == REAL else simulated, config, unit, file)
             for file, unit in units.items() if not file.is_file()]  # fmt: skip
    jobs = max(1, min(jobs or default_jobs(device), len(tasks)))
    done = machines.run(_train_unit, tasks, jobs)
    for _ in tqdm(done, total=len(tasks), desc="transfer", unit="network", disable=not progress):
        pass
    predictions, trained = _gather(cohort, units)
    write_csv(out / "predictions.csv", predictions)
    return {
        "about": (
            "MT-CNN on the axial view, tested on real nodules: trained on real nodules of other "
            "patients, or on simulated ones of other patients. No patient is on both sides."
        ),
        "hardware": {**machines.describe_hardware(), "device": device.description},
        "cohorts": described,
        "config": config.as_dict(),
        "plan": {"seeds": seeds, "folds": folds, "split": "patient"},
        "arms": {arm: {"trained_on": text, **trained[arm]} for arm, text in ARMS.items()},
        "metrics": summarise(predictions),
        "auc_by_seed": {arm: _auc_by_seed(predictions, arm) for arm in (*ARMS, SIZE_ONLY)},
        "differences": {f"{a} less {b}": compare(predictions, predictions, a, b) for a, b in PAIRS},
    }


def training_sets(
    real: Cohort, simulated: Cohort, twin_of: _Rows, rows: _Rows, test: _Rows
) -> dict[str, _Rows]:
    """Return training rows of every arm, in its own cohort, none of a patient who is tested.

    `twin_of` is (len(real),) the row of each real nodule's twin in the simulated cohort, or -1.
    """
    tested = set(real.nodules["patient_id"].iloc[test])
    others, possible = (
        part[~cohort.nodules["patient_id"].iloc[part].isin(tested).to_numpy()]
        for cohort, part in ((real, rows), (simulated, simulated.labelled))
    )
    return {REAL: others, SIMULATED: possible, SAME: np.intersect1d(twin_of[others], possible)}


def _train_unit(
    real_folder: Path, source_folder: Path, config: TrainingConfig, unit: Any, file: Path
) -> None:
    """Train one network, and write what it says of the test fold."""
    seed, fold, _, train, test = unit
    real, source = Cohort.open(real_folder), Cohort.open(source_folder)

    def trained() -> tuple[Any, NDArray]:
        place = {"place": (0, fold), "jobs": 1, "progress": False}
        model = fit(source, train, replace(config, seed=seed), **place)
        with one_thread():
            return model, model.predict(real, test)[:, 0]

    seconds, _, (model, probability) = timed(trained)
    write_json(file, {
        "trained_on": len(train), "val_auc": float(model.view_auc[0]), "epochs": len(model.history),
        "seconds": round(seconds, 2), "test_probability": probability.tolist(),
    })  # fmt: skip


def _gather(real: Cohort, units: dict[Path, Any]) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Gather predictions of all arms and of the diameter, and what was trained for each arm."""
    parts, notes = [], []
    for file, (seed, fold, arm, train, test) in units.items():
        unit = read_json(file, "a unit of transfer")
        columns = {arm: unit["test_probability"]}
        if arm == REAL:
            columns[SIZE_ONLY] = by_one_number(real.nodules, "diameter_mm", train, test).tolist()
        chosen = real.nodules[["nodule_id", "patient_id", "label"]].iloc[test]
        parts += [chosen.assign(repeat=seed, fold=fold, view=view, probability=said)
                  for view, said in columns.items()]  # fmt: skip
        notes.append({"arm": arm, **{name: unit[key] for key, (name, _) in _KEPT.items()}})
    means = pd.DataFrame(notes).groupby("arm").mean().round(dict(_KEPT.values()))
    return pd.concat(parts, ignore_index=True).astype({"label": int}), means.to_dict("index")


def _auc_by_seed(predictions: pd.DataFrame, arm: str) -> list[float]:
    """Compute the AUC pooled over the folds of each seed."""
    labels, probabilities, _ = scores(predictions, arm)
    return [round(roc_auc(labels, p), 5) for p in probabilities]
