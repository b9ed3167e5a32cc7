"""Repeated cross-validation of nine-view networks, resumable network by network.

A run is a folder: `run.json` (what is run, on what), `units/` (one JSON file for every trained
network), and, when all are there, `predictions.csv`, `history.csv` and `metrics.json`. Everything
after `predictions.csv` can be computed again from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.estimate import estimate_seconds
from labkit.evaluation.folds import make_folds
from labkit.evaluation.runs import (
    Plan,
    claim,
    is_done,
    kept_folder,
    read_predictions,
    unit_file,
)
from labkit.evaluation.summary import summarise
from labkit.files import read_json, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.fit import NineViewModel, load_network
from labkit.training.hardware import duration
from labkit.training.loop import network_seed, predict_view, train_view
from labkit.training.split import inner_split
from labkit.training.workers import default_jobs, one_thread, side_by_side

__all__ = ["FUSED", "SIZE_ONLY", "Plan", "read_predictions", "run", "size_only"]

FUSED = "fused"
SIZE_ONLY = "size_only"


def run(
    cohort: Cohort,
    config: TrainingConfig,
    out: str | Path,
    *,
    folds: int = 10,
    repeats: int = 1,
    split: str = "patient",
    first_folds: int | None = None,
    device: str = "auto",
    jobs: int | None = None,
    keep_first_model: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Cross-validate; a run that was stopped goes on with the networks that are missing.

    Args:
        cohort: its labelled nodules are used.
        config: how each network is trained.
        out: folder of the run.
        folds, repeats, split, first_folds: see `Plan`.
        device: "auto", "cpu" or "cuda".
        jobs: networks trained at once; None takes one a core on a CPU, one on a GPU.
        keep_first_model: also keep the nine networks of the first fold, in `out`/model.
        progress: print an estimate and show bars.

    Returns:
        Predictions, one row a nodule, repeat, fold and view, with two more "views": "fused", and
        "size_only" (logistic regression on the logarithm of the diameter, on the same folds)
        where diameters are known. Columns: nodule_id, patient_id, repeat, fold, view,
        probability, label.

    Raises:
        InputError: the folder holds another run, or the cohort is too small for the folds.
    """
    out = Path(out)
    plan = Plan(folds, repeats, split, first_folds)
    chosen = Device.choose(device, config.precision)
    rows = cohort.labelled
    if len(rows) == 0:
        raise InputError(f"{cohort.folder}: no nodule has a label")
    claim(out, cohort, config, plan, chosen)
    fold_of = [
        make_folds(cohort.nodules.iloc[rows], folds, split, network_seed(config.seed, repeat))
        for repeat in range(repeats)
    ]
    todo = [
        (repeat, fold, view)
        for repeat, fold in plan.places()
        for view in config.views
        if not is_done(out, repeat, fold, view, keep_first_model)
    ]
    total = len(list(plan.places())) * len(config.views)
    jobs = max(1, min(jobs or default_jobs(chosen), len(todo)))
    if progress and todo:
        done = total - len(todo)
        with one_thread():
            alone = estimate_seconds(len(rows), config, plan, chosen)
        seconds = alone * len(todo) / total / jobs
        print(
            f"{config.model.upper()}-CNN, {plan.repeats} x {plan.folds} folds x "
            f"{len(config.views)} views on {chosen.description}: {len(todo)} networks to train, "
            f"{jobs} at once"
            + (f", {done} already there" if done else "")
            + f"; at most {duration(seconds)}, less when training stops early",
            flush=True,
        )

    def unit(repeat: int, fold: int, view: int) -> Any:
        test = rows[fold_of[repeat] == fold]
        train = rows[fold_of[repeat] != fold]
        keep = keep_first_model and (repeat, fold) == (0, 0)
        return delayed(_train_unit)(
            cohort.folder, config, out, device, (repeat, fold, view), train, test, keep,
        )  # fmt: skip

    with tqdm(
        total=total, initial=total - len(todo), desc=f"{config.model.upper()}-CNN", unit="network",
        disable=not progress, smoothing=0.1,
    ) as bar:  # fmt: skip
        # Networks at hand come back as they finish; a kill loses only those under way.
        for val_auc in side_by_side((unit(*t) for t in todo), jobs):
            bar.set_postfix(val_auc=f"{val_auc:.3f}", refresh=False)
            bar.update(1)
    return _gather(cohort, config, plan, out, rows, fold_of, keep_first_model, chosen)


def size_only(
    nodules: pd.DataFrame, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_test,) malignant probability from the diameter alone.

    Logistic regression on log diameter, fitted on the training rows; what every image method has
    to be set beside, since on LIDC the mean reader diameter alone has an AUC of 0.94.
    """
    x = np.log(nodules["diameter_mm"].to_numpy(dtype=float))[:, None]
    y = nodules["label"].to_numpy(dtype=float)
    model = LogisticRegression().fit(x[train], y[train].astype(int))
    return model.predict_proba(x[test])[:, 1]


def _train_unit(
    cohort_folder: Path,
    config: TrainingConfig,
    out: Path,
    device_name: str,
    place: tuple[int, int, int],
    train_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
    keep: bool,
) -> float:
    """Train one network, write what it leaves, return its validation AUC."""
    cohort = Cohort.open(cohort_folder)
    device = Device.choose(device_name, config.precision)
    repeat, fold, view = place
    train, val = inner_split(
        cohort.nodules,
        train_rows,
        config.validation_fraction,
        network_seed(config.seed, repeat, fold),
    )
    labels = cohort.nodules["label"]
    y_train, y_val = (labels.iloc[r].to_numpy(dtype=np.int64) for r in (train, val))
    with one_thread():
        start = time.perf_counter()
        result = train_view(
            cohort.views[train, view], y_train, cohort.views[val, view], y_val,
            config, device, network_seed(config.seed, repeat, fold, view),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        test = predict_view(result.network, cohort.views[test_rows, view], config, device)
    if keep:
        single = NineViewModel(
            TrainingConfig.from_dict({**config.as_dict(), "views": [view]}),
            (result.network,), (result.val_auc,), pd.DataFrame(result.history), device,
        )  # fmt: skip
        single.save(kept_folder(out, view))
    write_json(
        unit_file(out, repeat, fold, view),
        {
            "val_auc": result.val_auc,
            "best_epoch": result.best_epoch,
            "seconds": seconds,
            "test_probability": test.tolist(),
            "history": result.history,
        },
    )
    return result.val_auc


def _gather(
    cohort: Cohort,
    config: TrainingConfig,
    plan: Plan,
    out: Path,
    rows: NDArray[np.int64],
    fold_of: list[NDArray[np.int64]],
    keep_first_model: bool,
    device: Device,
) -> pd.DataFrame:
    """Put the units together: predictions, learning curves, metrics."""
    has_size = "diameter_mm" in cohort.nodules and bool(
        (cohort.nodules["diameter_mm"].iloc[rows] > 0).all()
    )
    parts, curves, seconds = [], [], 0.0
    for repeat, fold in plan.places():
        units = [
            read_json(unit_file(out, repeat, fold, view), "a unit of a run")
            for view in config.views
        ]
        test, train = rows[fold_of[repeat] == fold], rows[fold_of[repeat] != fold]
        by_view = np.array([u["test_probability"] for u in units]).T
        columns = {str(v): by_view[:, i] for i, v in enumerate(config.views)}
        columns[FUSED] = fuse(by_view, auc_weights([u["val_auc"] for u in units]))
        if has_size:
            columns[SIZE_ONLY] = size_only(cohort.nodules, train, test)
        chosen = cohort.nodules.iloc[test]
        for view, probability in columns.items():
            parts.append(
                pd.DataFrame(
                    {
                        "nodule_id": chosen["nodule_id"].to_numpy(),
                        "patient_id": chosen["patient_id"].to_numpy(),
                        "repeat": repeat,
                        "fold": fold,
                        "view": view,
                        "probability": probability,
                        "label": chosen["label"].to_numpy(dtype=int),
                    }
                )
            )
        for number, u in zip(config.views, units, strict=True):
            seconds += u["seconds"]
            curves.append(
                pd.DataFrame(u["history"]).assign(
                    repeat=repeat, fold=fold, view=number, best_epoch=u["best_epoch"]
                )
            )
    predictions = pd.concat(parts, ignore_index=True)
    if keep_first_model:
        _assemble_first_model(out, config, device)
    write_csv(out / "history.csv", pd.concat(curves, ignore_index=True))
    write_csv(out / "predictions.csv", predictions)
    write_json(
        out / "metrics.json",
        {
            **read_json(out / "run.json", "a run"),
            "training_seconds": round(seconds, 1),
            "epochs_run": int(sum(len(c) for c in curves)),
            "metrics": summarise(predictions),
        },
    )
    return predictions


def _assemble_first_model(out: Path, config: TrainingConfig, device: Device) -> None:
    """Join the networks that the first fold kept into one nine-view model."""
    if (out / "model" / "model.json").is_file():
        return
    networks, aucs, curves = [], [], []
    for view in config.views:
        folder = kept_folder(out, view)
        networks.append(load_network(folder / f"view_{view}.safetensors", config, device))
        aucs.append(float(read_json(folder / "model.json", "a labkit model")["view_auc"][0]))
        curves.append(pd.read_csv(folder / "history.csv").assign(view=view))
    history = pd.concat(curves, ignore_index=True)
    NineViewModel(config, tuple(networks), tuple(aucs), history, device).save(out / "model")
