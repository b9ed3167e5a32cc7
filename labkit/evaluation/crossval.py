"""Repeated cross-validation of nine-view networks, resumable network by network.

A run is a folder: `run.json` (what is run, on what), `units/` (one JSON file for every trained
network), and, when all are there, `predictions.csv`, `history.csv` and `metrics.json`. Everything
after `predictions.csv` can be computed again from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from numpy.typing import NDArray
from tqdm.auto import tqdm

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.estimate import seconds_alone
from labkit.evaluation.folds import make_folds
from labkit.evaluation.gather import FUSED, SIZE_ONLY, baselines, gather, size_only
from labkit.evaluation.runs import (
    Plan,
    claim,
    is_done,
    read_predictions,
    read_threshold,
    unit_file,
)
from labkit.evaluation.units import (
    Outcome,
    Unit,
    all_trained,
    in_tasks,
    sweep,
    train_units,
    wait_for,
)
from labkit.training import journal
from labkit.training.cluster import Cluster, connect
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.fit import labels_of
from labkit.training.hardware import describe_hardware, duration
from labkit.training.loop import network_seed
from labkit.training.split import training_and_validation
from labkit.training.workers import default_jobs, side_by_side

__all__ = [
    "FUSED", "SIZE_ONLY", "Plan", "read_predictions", "read_threshold", "run", "size_only",
]  # fmt: skip

Rows = NDArray[np.int64]
_ABANDONED_S = 600  # after which a half-written file is nobody's
_TOLD = 20  # lost networks that an error names


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
    scheduler: str | None = None,
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
        scheduler: address of a Dask scheduler, whose workers train rather than this machine, one
            task each; they must see the cohort and `out` by the same paths.
        keep_first_model: also keep the nine networks of the first fold, in `out`/model.
        progress: print an estimate and show bars.

    Returns:
        Predictions, one row a nodule, repeat, fold and view, with two more "views": "fused", and
        "size_only" (logistic regression on the logarithm of the diameter, on the same folds)
        where diameters are known. Columns: nodule_id, patient_id, repeat, fold, view,
        probability, label.

    Raises:
        InputError: the folder holds another run, the cohort will not do (see `check`), or the
            cluster cannot do it (see `training.cluster`).
        FloatingPointError: networks were lost since their loss was no number; all others are
            finished.
        KeyboardInterrupt: interrupted; the message says how far the run has come.
    """
    # Absolute, since other processes and machines may start elsewhere.
    out = Path(out).absolute()
    plan = Plan(folds, repeats, split, first_folds)
    _check_table(cohort)
    if scheduler is None:
        return _run(cohort, config, out, plan, _here(device, config, jobs), keep_first_model,
                    progress)  # fmt: skip
    if jobs is not None:
        raise InputError("jobs counts processes on this machine; on a cluster every worker trains, "
                         "so leave it out")  # fmt: skip
    with connect(scheduler) as cluster:
        hardware, on_gpu = cluster.hardware(device, config.precision)
        where = _Where(device, hardware, on_gpu, len(cluster.workers), cluster)
        return _run(cohort, config, out, plan, where, keep_first_model, progress)


def check(cohort: Cohort, config: TrainingConfig, plan: Plan) -> None:
    """Make sure, before anything is trained or written, that a cohort will do for a run.

    Args:
        cohort: its labelled nodules would be used.
        config: how each network would be trained.
        plan: what would be repeated.

    Raises:
        InputError: no label, too few nodules or patients for the folds or for the inner split of
            one of them, or a size or score that is no number.
    """
    _check_table(cohort)
    try:
        for _ in _splits(cohort, config, plan):
            pass
    except InputError as error:
        raise InputError(f"{cohort.folder}: {error}") from None


def _check_table(cohort: Cohort) -> None:
    if len(cohort.labelled) == 0:
        raise InputError(f"{cohort.folder}: no nodule has a label")
    baselines(cohort)


@dataclass(frozen=True)
class _Where:
    """Where networks are trained: so many tasks at once, here or by a cluster's workers."""

    device: str
    hardware: dict[str, Any]
    on_gpu: bool
    at_once: int
    cluster: Cluster | None


def _here(device: str, config: TrainingConfig, jobs: int | None) -> _Where:
    chosen = Device.choose(device, config.precision)
    hardware = {**describe_hardware(), "device": chosen.description}
    on_gpu = chosen.torch_device.type == "cuda"
    return _Where(device, hardware, on_gpu, jobs or default_jobs(chosen), None)


def _run(
    cohort: Cohort,
    config: TrainingConfig,
    out: Path,
    plan: Plan,
    where: _Where,
    keep_first_model: bool,
    progress: bool,
) -> pd.DataFrame:
    units = _units(cohort, config, plan, keep_first_model)
    claim(out, cohort, config, plan, where.hardware)
    if where.cluster is not None:
        shared = [cohort.folder.absolute() / "cohort.json", out / "run.json"]
        where.cluster.check_folders(shared, out)
    sweep(out, older_than_s=_ABANDONED_S)
    todo = [unit for unit in units if not is_done(out, *unit.place, keep_first_model)]
    # One GPU of this machine gets everything at once, so that none of its slots is ever empty.
    alone = where.on_gpu and where.cluster is None and where.at_once == 1
    tasks = [todo] if alone and todo else in_tasks(todo, where.on_gpu, where.at_once)
    at_once = max(1, min(where.at_once, len(tasks)))
    if progress and todo:
        print(
            _announcement(cohort, config, plan, where, len(todo), len(units), at_once), flush=True
        )
    lost: list[Outcome] = []
    try:
        with tqdm(
            total=len(units), initial=len(units) - len(todo), desc=f"{config.model.upper()}-CNN",
            unit="network", disable=not progress, smoothing=0.1,
        ) as bar:  # fmt: skip
            # As they finish; a kill loses only those under way.
            for outcome in _outcomes(cohort, config, out, where, tasks, at_once):
                if outcome.lost is None:
                    bar.set_postfix(val_auc=f"{outcome.val_auc:.3f}", refresh=False)
                else:
                    lost.append(outcome)
                bar.update(1)
    except KeyboardInterrupt:
        if where.cluster is None:  # whose workers, in contrast, finish what they have under way
            sweep(out, older_than_s=0)
            journal.clear(out)
        done = sum(is_done(out, *unit.place, keep_first_model) for unit in units)
        raise KeyboardInterrupt(
            f"{done} of {len(units)} networks are done and kept in {out}; the same command goes on"
        ) from None
    if lost:
        raise FloatingPointError(_lost_in_words(lost, len(units), out))
    if where.cluster is not None:
        wait_for(unit_file(out, *unit.place) for unit in units)
    journal.clear(out)
    return gather(cohort, config, out, units, keep_first_model)


def _announcement(
    cohort: Cohort,
    config: TrainingConfig,
    plan: Plan,
    where: _Where,
    todo: int,
    total: int,
    at_once: int,
) -> str:
    """What will be trained, and how long it takes at most, from timing it where it will be."""
    timing = (labels_of(cohort, cohort.labelled), config, plan, where.device)
    if where.cluster is None:
        alone, beside = seconds_alone(*timing), f"{at_once} at once"
    else:
        alone, beside = where.cluster.once(seconds_alone, *timing), f"by {at_once} workers"
    already = f", {total - todo} already there" if todo < total else ""
    timed = "" if where.cluster is None else " (timed on one of them)"
    return (
        f"{config.model.upper()}-CNN, {plan.repeats} x {plan.folds} folds x {len(config.views)} "
        f"views on {where.hardware['device']}: {todo} networks to train, {beside}{already}; at "
        f"most {duration(alone * todo / total / at_once)}{timed}, less when training stops early"
    )


def _units(
    cohort: Cohort, config: TrainingConfig, plan: Plan, keep_first_model: bool
) -> list[Unit]:
    """All networks of a run, in the order that they are trained."""
    units = []
    for (repeat, fold), train, val, test in _splits(cohort, config, plan):
        keep = keep_first_model and (repeat, fold) == (0, 0)
        units += [Unit(repeat, fold, v, train, val, test, keep) for v in config.views]
    return units


def _splits(
    cohort: Cohort, config: TrainingConfig, plan: Plan
) -> Iterator[tuple[tuple[int, int], Rows, Rows, Rows]]:
    """(repeat, fold) of each part, its rows to learn from, to stop by and to test."""
    rows = cohort.labelled
    fold_of = {
        repeat: make_folds(
            cohort.nodules.iloc[rows], plan.folds, plan.split, network_seed(config.seed, repeat)
        )
        for repeat in range(plan.repeats)
    }
    for repeat, fold in plan.places():
        tested = fold_of[repeat] == fold
        seed = network_seed(config.seed, repeat, fold)
        train, val = training_and_validation(cohort.nodules, rows[~tested], config, seed)
        yield (repeat, fold), train, val, rows[tested]


def _outcomes(
    cohort: Cohort,
    config: TrainingConfig,
    out: Path,
    where: _Where,
    tasks: list[list[Unit]],
    at_once: int,
) -> Iterator[Outcome]:
    """What becomes of each unit, as soon as it is known."""
    given = (cohort.folder.absolute(), config, out, where.device)
    if where.cluster is None and at_once == 1:
        for task in tasks:
            yield from train_units(*given, task)
        return
    calls = (delayed(all_trained)(*given, task) for task in tasks)
    for outcomes in side_by_side(calls, at_once, where.cluster):
        yield from outcomes


def _lost_in_words(lost: list[Outcome], total: int, out: Path) -> str:
    lost = sorted(lost, key=lambda outcome: outcome.place)
    told = []
    for outcome in lost:
        where, _, cure = (outcome.lost or "").partition(": ")
        told.append("repeat {}, fold {}, view {}: {}".format(*outcome.place, where))
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return (
        f"{len(lost)} of {total} networks were lost: {'; '.join(told[:_TOLD])}{more}. {cure}, with "
        f"another --out; the other networks are kept in {out}, and the same command tries only the "
        "lost ones again"
    )
