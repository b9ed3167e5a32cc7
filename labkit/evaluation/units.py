"""The units of a cross-validation: one network each, trained, written and read.

A worker gets a task, which is a list of units: one on a CPU; on a GPU many, which are trained side
by side. Each unit leaves one file, so that a kill at any moment costs what was under way only.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.data.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation.runs import kept_folder, unit_file
from labkit.files import read_json, write_json
from labkit.training import journal
from labkit.training.config import TrainingConfig
from labkit.training.course import Row
from labkit.training.device import Device
from labkit.training.fit import NineViewModel, labels_of
from labkit.training.loop import Trained, network_seed, predict_view, train_view
from labkit.training.together import Task, train_many
from labkit.training.ways import MOST_SLOTS
from labkit.training.workers import one_thread

_SECONDS_TO_APPEAR = 60

# torch's random numbers belong to the process. Dask runs one task at a time in each, but for
# workers that were started otherwise while a run was under way: there, tasks take turns.
_ALONE = threading.Lock()


@dataclass(frozen=True, eq=False)
class Unit:
    """One network to train and to test.

    Args:
        repeat, fold, view: its place.
        train: rows of the cohort to learn from.
        val: rows to stop by, and from which the view's weight in the fusion comes.
        test: rows to predict.
        keep: whether the network is kept, too, and not only what it says.
    """

    repeat: int
    fold: int
    view: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    keep: bool = False

    @property
    def place(self) -> tuple[int, int, int]:
        """(repeat, fold, view)."""
        return self.repeat, self.fold, self.view


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Args:
        place: (repeat, fold, view).
        val_auc: on the inner validation split; None when the network was lost.
        lost: why it was, with the batch; None when it was not.
    """

    place: tuple[int, int, int]
    val_auc: float | None = None
    lost: str | None = None


def in_tasks(units: Sequence[Unit], on_gpu: bool, jobs: int) -> list[list[Unit]]:
    """Units as the lists that workers get: one each on a CPU, equal shares on GPUs.

    >>> nothing = np.empty(0, dtype=np.int64)
    >>> units = [Unit(0, fold, 0, nothing, nothing, nothing) for fold in range(10)]
    >>> [len(task) for task in in_tasks(units, on_gpu=True, jobs=3)]
    [4, 4, 2]
    """
    size = max(1, min(MOST_SLOTS, math.ceil(len(units) / jobs))) if on_gpu else 1
    return [list(units[i : i + size]) for i in range(0, len(units), size)]


def train_units(
    cohort_folder: Path,
    config: TrainingConfig,
    out: Path,
    device_name: str,
    units: Sequence[Unit],
) -> Iterator[Outcome]:
    """Train the networks of a task and write what each leaves, as soon as it is there.

    A network whose loss is no number is lost, and says so; the others go on.

    Args:
        cohort_folder: where the cohort lies.
        config: how each network is trained.
        out: folder of the run.
        device_name: "auto", "cpu" or "cuda", on the machine where this runs.
        units: the task.
    """
    cohort = Cohort.open(cohort_folder)
    device = Device.choose(device_name, config.precision)
    for unit, trained, seconds in _trained(cohort, config, out, device, units):
        if isinstance(trained, FloatingPointError):
            outcome = Outcome(unit.place, lost=str(trained))
        else:
            _write(unit, trained, seconds, cohort, config, out, device)
            outcome = Outcome(unit.place, val_auc=trained.val_auc)
        journal.finish(out, unit_file(out, *unit.place).stem)
        yield outcome


def all_trained(*arguments: Any) -> list[Outcome]:
    """What `train_units` yields, for workers, which return but once."""
    with _ALONE:
        return list(train_units(*arguments))


def wait_for(files: Iterable[Path], seconds: float = _SECONDS_TO_APPEAR) -> None:
    """Wait until files that other machines wrote are seen here, too.

    Raises:
        InputError: one is not, after so many seconds.
    """
    missing = set(files)
    deadline = time.monotonic() + seconds
    while True:
        # Listed anew, since network file systems keep a folder's list for half a minute or so.
        for folder in {file.parent for file in missing}:
            missing -= set(folder.iterdir())
        if not missing:
            return
        if time.monotonic() > deadline:
            raise InputError(
                f"{min(missing)}: written on another machine but not seen here after "
                f"{seconds:.0f} s; --out must lie on a file system that all machines share, then "
                "the same command goes on"
            )
        time.sleep(0.5)


def read_unit(out: Path, place: tuple[int, int, int]) -> dict[str, Any]:
    """What a trained network left.

    Returns:
        val_auc, best_epoch, seconds, test_probability, val_nodule_id, val_probability, history;
        prior_shift, 0 where an earlier version left none.

    Raises:
        InputError: its file is missing or damaged.
    """
    return {"prior_shift": 0.0, **read_json(unit_file(out, *place), "a unit of a run")}


def sweep(out: Path, older_than_s: float) -> None:
    """Remove what a killed process left half written in a run, if nothing changed it for so long.

    Nothing ever reads such files. What is younger may be another process's, at work right now.
    """
    for rest in (out / "units").glob(".*"):
        try:
            if time.time() - rest.stat().st_mtime < older_than_s:
                continue
            if rest.is_dir():
                shutil.rmtree(rest)
            else:
                rest.unlink()
        except FileNotFoundError:
            continue  # whoever wrote it has just finished


def _trained(
    cohort: Cohort, config: TrainingConfig, out: Path, device: Device, units: Sequence[Unit]
) -> Iterator[tuple[Unit, Trained | FloatingPointError, float]]:
    """Each unit with its network, or with why it was lost, and the seconds that it took.

    On a CPU one after another, each on one thread; on a GPU side by side.
    """
    if device.torch_device.type == "cuda":
        yield from _together(cohort, config, out, device, units)
    else:
        yield from _one_by_one(cohort, config, out, device, units)


def _one_by_one(
    cohort: Cohort, config: TrainingConfig, out: Path, device: Device, units: Sequence[Unit]
) -> Iterator[tuple[Unit, Trained | FloatingPointError, float]]:
    for unit in units:
        note = journal.writer(out, unit_file(out, *unit.place).stem)
        trained: Trained | FloatingPointError
        start = time.perf_counter()
        try:
            with one_thread():
                trained = train_view(
                    cohort.views[unit.train, unit.view], labels_of(cohort, unit.train),
                    cohort.views[unit.val, unit.view], labels_of(cohort, unit.val),
                    config, device, network_seed(config.seed, *unit.place), note,
                )  # fmt: skip
        except FloatingPointError as error:
            trained = error
        yield unit, trained, time.perf_counter() - start


def _together(
    cohort: Cohort, config: TrainingConfig, out: Path, device: Device, units: Sequence[Unit]
) -> Iterator[tuple[Unit, Trained | FloatingPointError, float]]:
    """The seconds are those since the network before was done: they sum to what all took."""
    tasks = [
        Task(unit.view, unit.train, unit.val, network_seed(config.seed, *unit.place))
        for unit in units
    ]
    labels = cohort.nodules["label"].fillna(0).to_numpy(dtype=np.int64)
    notes: dict[int, Callable[[Row], None]] = {}

    def note(number: int, row: Row) -> None:
        if number not in notes:
            notes[number] = journal.writer(out, unit_file(out, *units[number].place).stem)
        notes[number](row)

    start = time.perf_counter()
    for number, trained in train_many(cohort.views, labels, tasks, config, device, on_epoch=note):
        yield units[number], trained, time.perf_counter() - start
        start = time.perf_counter()


def _write(
    unit: Unit,
    trained: Trained,
    seconds: float,
    cohort: Cohort,
    config: TrainingConfig,
    out: Path,
    device: Device,
) -> None:
    """Predict the test rows and write the unit's file; the kept network before it."""
    with one_thread():
        test = predict_view(trained.network, cohort.views[unit.test, unit.view], config, device)
    if unit.keep:
        single = NineViewModel(
            TrainingConfig.from_dict({**config.as_dict(), "views": [unit.view]}),
            (trained.network,), (trained.val_auc,), pd.DataFrame(trained.history), device,
            trained.prior_shift,
        )  # fmt: skip
        single.save(kept_folder(out, unit.view))
    write_json(
        unit_file(out, *unit.place),
        {
            "val_auc": trained.val_auc,
            "prior_shift": trained.prior_shift,
            "best_epoch": trained.best_epoch,
            "seconds": seconds,
            "test_probability": test.tolist(),
            # From which other ways to fuse the views can be learnt without the test nodules.
            "val_nodule_id": cohort.nodules["nodule_id"].iloc[unit.val].tolist(),
            "val_probability": trained.val_probability.tolist(),
            "history": trained.history,
        },
    )
