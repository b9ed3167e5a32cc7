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
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.realism.measure import describe, match
from labkit import paths
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import statistics
from labkit.evaluation.crossval import SIZE_ONLY, Plan, estimate_seconds, make_folds, size_only
from labkit.evaluation.statistics import compare, scores, summarise
from labkit.io import read_json, write_csv, write_json
from labkit.training.config import TrainingConfig
from labkit.training.machines import (
    Device,
    default_jobs,
    describe_hardware,
    duration,
    now,
    one_thread,
    side_by_side,
)
from labkit.training.model import fit

REAL, SIMULATED, SAME = "real", "simulated", "simulated_same"
ARMS = {
    REAL: "real nodules of the other folds",
    SIMULATED: "all simulated nodules of patients outside the test fold",
    SAME: "simulated twins of the real nodules of the other folds",
}
_Rows = NDArray[np.int64]


def transfer(
    real_folder: Path,
    simulated_folder: Path,
    out: Path | None = None,
    *,
    seeds: int = 3,
    folds: int = 5,
    epochs: int = 40,
    device: str = "auto",
    jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train on simulated and on real nodules, test on real ones of other patients.

    A run that was stopped goes on with the networks that are missing; more seeds add to it.

    Args:
        real_folder: cohort of real cubes, whose axial views are whole; the other eight are not,
            so that networks see the axial view only.
        simulated_folder: cohort of simulated nodules, with as many patients as there are.
        out: folder for finished networks' predictions; None takes one under `paths.runs()`
            named after the cohorts' checksums and the settings.
        seeds: repeats of everything, each with other folds and first weights.
        folds: of the real patients.
        epochs: at most, with early stopping.
        device: "auto", "cpu" or "cuda".
        jobs: networks trained at once; None takes one a core on a CPU.
        progress: print an estimate and show a bar.

    Returns:
        Numbers ready for JSON: AUC of every arm, pooled over folds, with intervals over patients,
        mean of the seeds and one by one, paired differences with DeLong's test by patient, and
        the AUC of the diameter alone.

    Raises:
        InputError: cohorts the wrong way round or without twins, or a folder of another run.
    """
    real, simulated = Cohort.open(real_folder), Cohort.open(simulated_folder)
    config = TrainingConfig.brief(model="mt", views=(0,), epochs=epochs)
    chosen = Device.choose(device, config.precision)
    rows = real.labelled
    twin_of = _twin_rows(real, simulated)
    out = _claim(out, real, simulated, config, folds)

    places = []
    for seed in range(seeds):
        fold_of = make_folds(real.nodules.iloc[rows], folds, "patient", seed)
        for fold in range(folds):
            test = rows[fold_of == fold]
            for arm, train in _training_sets(real, simulated, twin_of, rows, test).items():
                places.append((seed, fold, arm, train, test))
    todo = [p for p in places if not _unit_file(out, *p[:3]).is_file()]
    jobs = max(1, min(jobs or default_jobs(chosen), len(todo)))
    if progress and todo:
        print(_announcement(todo, len(places), config, chosen, jobs), flush=True)
    tasks = (
        delayed(_train_unit)(
            real_folder, real_folder if arm == REAL else simulated_folder, config, device,
            (seed, fold), train, test, _unit_file(out, seed, fold, arm),
        )
        for seed, fold, arm, train, test in todo
    )  # fmt: skip
    with tqdm(
        total=len(places), initial=len(places) - len(todo), desc="transfer", unit="network",
        disable=not progress, smoothing=0.1,
    ) as bar:  # fmt: skip
        for val_auc in side_by_side(tasks, jobs):
            bar.set_postfix(val_auc=f"{val_auc:.3f}", refresh=False)
            bar.update(1)
    predictions, trained = _gather(real, rows, places, out)
    write_csv(out / "predictions.csv", predictions)
    return {
        "about": (
            "MT-CNN on the axial view, tested on real nodules: trained on real nodules of other "
            "patients, or on simulated ones of other patients. No patient is on both sides."
        ),
        "date": now(),
        "hardware": {**describe_hardware(), "device": chosen.description},
        "cohorts": {REAL: describe(real), SIMULATED: describe(simulated)},
        "config": config.as_dict(),
        "plan": {"seeds": seeds, "folds": folds, "split": "patient"},
        "arms": {arm: {"trained_on": text, **trained[arm]} for arm, text in ARMS.items()},
        "metrics": summarise(predictions),
        "auc_by_seed": {arm: _auc_by_seed(predictions, arm) for arm in (*ARMS, SIZE_ONLY)},
        "differences": {
            f"{a} less {b}": compare(predictions, predictions, a, b)
            for a, b in (
                (SIMULATED, REAL), (SAME, REAL), (SIMULATED, SAME), (SIMULATED, SIZE_ONLY),
                (REAL, SIZE_ONLY),
            )
        },
    }  # fmt: skip


def _twin_rows(real: Cohort, simulated: Cohort) -> _Rows:
    """(len(real),) row of each real nodule's twin in the simulated cohort, -1 without one."""
    pairs = match(real, simulated)
    twin_of = np.full(len(real), -1, dtype=np.int64)
    twin_of[pairs["real_row"].to_numpy()] = pairs["simulated_row"].to_numpy()
    return twin_of


def _training_sets(
    real: Cohort, simulated: Cohort, twin_of: _Rows, rows: _Rows, test: _Rows
) -> dict[str, _Rows]:
    """Training rows of every arm, in its own cohort, none of a patient who is tested."""
    tested = set(real.nodules["patient_id"].iloc[test])
    others = rows[~real.nodules["patient_id"].iloc[rows].isin(tested).to_numpy()]
    possible = simulated.labelled
    outside = ~simulated.nodules["patient_id"].iloc[possible].isin(tested).to_numpy()
    twins = twin_of[others]
    sets = {
        REAL: others,
        SIMULATED: possible[outside],
        SAME: np.sort(twins[np.isin(twins, possible)]),
    }
    for arm, train in sets.items():
        check_apart(real if arm == REAL else simulated, train, real, test)
    return sets


def check_apart(source: Cohort, train: _Rows, target: Cohort, test: _Rows) -> None:
    """Make sure that no patient is trained on and tested.

    Raises:
        RuntimeError: one is; results would be worthless.
    """
    trained = set(source.nodules["patient_id"].iloc[train])
    shared = trained & set(target.nodules["patient_id"].iloc[test])
    if shared:
        raise RuntimeError(f"{len(shared)} patients are trained on and tested: {sorted(shared)[0]}")


def _train_unit(
    real_folder: Path,
    source_folder: Path,
    config: TrainingConfig,
    device: str,
    place: tuple[int, int],
    train: _Rows,
    test: _Rows,
    file: Path,
) -> float:
    """Train one network, write what it says of the test fold, return its validation AUC."""
    real, source = Cohort.open(real_folder), Cohort.open(source_folder)
    check_apart(source, train, real, test)
    seed, fold = place
    start = time.perf_counter()
    seeded = TrainingConfig.from_dict({**config.as_dict(), "seed": seed})
    model = fit(source, train, seeded, device=device, place=(0, fold), jobs=1, progress=False)
    with one_thread():
        probability = model.predict(real, test)[:, 0]
    write_json(
        file,
        {
            "trained_on": len(train),
            "val_auc": float(model.view_auc[0]),
            "epochs": len(model.history),
            "seconds": round(time.perf_counter() - start, 2),
            "test_probability": probability.tolist(),
        },
    )
    return float(model.view_auc[0])


def _unit_file(out: Path, seed: int, fold: int, arm: str) -> Path:
    return out / "units" / f"seed{seed}_fold{fold}_{arm}.json"


def _claim(
    out: Path | None, real: Cohort, simulated: Cohort, config: TrainingConfig, folds: int
) -> Path:
    """The run's folder, with what it is written in it, or an error if it is another's."""
    identity = {
        "cohorts": {
            kind: {name: c.meta["files"][name]["sha256"] for name in ("nodules.csv", "views.npy")}
            for kind, c in ((REAL, real), (SIMULATED, simulated))
        },
        "config": config.as_dict(),
        "folds": folds,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    out = paths.runs() / f"transfer_{digest}" if out is None else out
    file = out / "transfer.json"
    if file.exists():
        if read_json(file, "a run of transfer") != identity:
            raise InputError(f"{out} holds a run on other images or settings; choose another --run")
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and not a run of transfer; choose another --run")
    else:
        write_json(file, identity)
    return out


def _announcement(
    todo: list[Any], total: int, config: TrainingConfig, device: Device, jobs: int
) -> str:
    """What is going to be trained, where, and how long it takes at most."""
    typical = int(np.mean([len(p[3]) for p in todo]))
    with one_thread():
        # Two folds train on half of what they are given, so on `typical` nodules each.
        pair = estimate_seconds(2 * typical, config, Plan(folds=2), device)
    done = total - len(todo)
    return (
        f"train on simulated, test on real: {len(todo)} networks on {device.description}, "
        f"{jobs} at once"
        + (f", {done} already there" if done else "")
        + f"; at most {duration(pair / 2 * len(todo) / jobs)}, less when training stops early"
    )


def _gather(
    real: Cohort, rows: _Rows, places: list[Any], out: Path
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Predictions of all arms and of the diameter, and what was trained for each arm."""
    parts, notes = [], []
    for seed, fold, arm, train, test in places:
        unit = read_json(_unit_file(out, seed, fold, arm), "a unit of transfer")
        columns = {arm: unit["test_probability"]}
        if arm == REAL:
            columns[SIZE_ONLY] = size_only(real.nodules, train, test).tolist()
        chosen = real.nodules.iloc[test]
        for view, probability in columns.items():
            part = chosen[["nodule_id", "patient_id"]].assign(
                repeat=seed, fold=fold, view=view, probability=probability,
                label=chosen["label"].astype(int),
            )  # fmt: skip
            parts.append(part)
        notes.append({"arm": arm, **unit})
    table = pd.DataFrame(notes).groupby("arm")
    trained = {
        str(arm): {
            "nodules_a_fold": round(float(group["trained_on"].mean()), 1),
            "validation_auc": round(float(group["val_auc"].mean()), 4),
            "epochs_a_network": round(float(group["epochs"].mean()), 1),
            "seconds_a_network": round(float(group["seconds"].mean()), 1),
        }
        for arm, group in table
    }
    return pd.concat(parts, ignore_index=True), trained


def _auc_by_seed(predictions: pd.DataFrame, arm: str) -> list[float]:
    """AUC pooled over the folds of each seed."""
    labels, probabilities, _ = scores(predictions, arm)
    return [round(statistics.roc_auc(labels, p), 5) for p in probabilities]
