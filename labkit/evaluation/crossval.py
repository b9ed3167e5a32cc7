"""Repeated cross-validation of nine-view networks, resumable network by network.

A run is a folder: `run.json` (what is run, on what), `units/` (one JSON file for every trained
network), and, when all are there, `predictions.csv`, `history.csv` and `metrics.json`. Everything
after `predictions.csv` can be computed again from it.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from numpy.typing import NDArray
from pandas.api.types import union_categoricals
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm.auto import tqdm

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import candidates
from labkit.evaluation.statistics import DEFAULT_THRESHOLD, summarise
from labkit.io import read_json, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.training import progress
from labkit.training import progress as journal
from labkit.training.config import TrainingConfig
from labkit.training.loop import Row, Trained, network_seed, predict_view, train_view
from labkit.training.machines import (
    Cluster,
    Device,
    connect,
    default_jobs,
    describe_hardware,
    duration,
    now,
    one_thread,
    side_by_side,
)
from labkit.training.model import NineViewModel, labels_of, load_network, training_and_validation
from labkit.training.side_by_side import MOST_SLOTS, Task, choose, steps_of, train_many

# The folder of a cross-validation run: what is in it, and whose it is.


_NAMES = ("nodule_id", "patient_id", "view")
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Plan:
    """What a run repeats.

    Args:
        folds: of the cross-validation (III-E: 10).
        repeats: of the whole of it, with other folds (III-E: 10).
        split: "patient" or "nodule" (see `folds.make_folds`).
        first_folds: run only this many of the folds; None runs all.
    """

    folds: int = 10
    repeats: int = 1
    split: str = "patient"
    first_folds: int | None = None

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.folds < 2:
            raise InputError("there must be 1 or more repeats of 2 or more folds")
        if self.first_folds is not None and not 1 <= self.first_folds <= self.folds:
            raise InputError(f"first_folds must be 1 to {self.folds}, not {self.first_folds}")

    def places(self) -> Iterator[tuple[int, int]]:
        """(repeat, fold) of every part, in the order they are run."""
        for repeat in range(self.repeats):
            for fold in range(self.first_folds or self.folds):
                yield repeat, fold


def read_predictions(out: str | Path, view: str | None = None) -> pd.DataFrame:
    """The predictions of a finished run.

    Args:
        out: its folder.
        view: of this one alone, so that no more of LUNA-16's millions is ever held than that and a
            part of the file; None reads all.

    Raises:
        InputError: there is no finished run in the folder.
    """
    file = Path(out) / "predictions.csv"
    if not file.is_file():
        raise InputError(f"{file}: missing; the run is not finished, start it again to go on")
    with pd.read_csv(
        file,
        dtype=dict.fromkeys(_NAMES, "category"),
        keep_default_na=False,  # a patient called "NA" stays a patient
        na_values={"probability": [""]},
        chunksize=_ROWS_AT_ONCE,
    ) as parts:
        kept = [part if view is None else part[part["view"] == view] for part in parts]
    kept = [part for part in kept if len(part)] or kept[:1]
    names = {}
    for name in _NAMES:
        # Each name is kept once, though LUNA-16's predictions repeat it eleven times or more.
        values = union_categoricals([part[name] for part in kept])
        names[name] = values.categories.to_numpy(dtype=object)[values.codes]
    columns = list(kept[0].columns)
    numbers = pd.concat([part.drop(columns=list(_NAMES)) for part in kept], ignore_index=True)
    return numbers.assign(**names)[columns]


def read_threshold(out: str | Path) -> float:
    """Where a finished run's probabilities are cut: 0.5, or LUNA-16's share of nodules.

    Raises:
        InputError: there is no finished run in the folder.
    """
    values = read_json(Path(out) / "metrics.json", "a finished run")
    return float(values.get("threshold", DEFAULT_THRESHOLD))


def claim(
    out: Path, cohort: Cohort, config: TrainingConfig, plan: Plan, hardware: dict[str, Any]
) -> None:
    """Write what is run, and on what, to `run.json`; or make sure that the one there is the same.

    Raises:
        InputError: the folder holds another run, or other things.
    """
    identity = {
        "cohort": cohort.identity,
        "config": config.as_dict(),
        "plan": asdict(plan),
    }
    file = out / "run.json"
    if file.exists():
        there = read_json(file, "a run")
        if isinstance(there.get("config"), dict):
            # A run from before a setting existed was made with the setting's default.
            there["config"] = TrainingConfig.from_dict(there["config"]).as_dict()
        for part, values in identity.items():
            if there.get(part) != values:
                old, new = there.get(part) or {}, values
                changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
                raise InputError(
                    f"{out} holds another run: its {part} differs in {', '.join(changed)}; "
                    "choose another --out or delete it"
                )
        return
    # Another process may be claiming it now: lessons that share a run are tested side by side.
    if out.exists() and any(not p.name.startswith(f".{file.name}.") for p in out.iterdir()):
        raise InputError(f"{out}: not empty and not a run; choose another --out")
    write_json(file, {**identity, "hardware": hardware, "started": now()})


def unit_file(out: Path, repeat: int, fold: int, view: int) -> Path:
    """Where one trained network's results lie."""
    return out / "units" / f"repeat{repeat}_fold{fold}_view{view}.json"


def kept_folder(out: Path, view: int) -> Path:
    """Where the first fold's network of a view is kept."""
    return out / "units" / f"model_view{view}"


def is_done(out: Path, repeat: int, fold: int, view: int, keep_first_model: bool) -> bool:
    """Whether a network need not be trained again."""
    if not unit_file(out, repeat, fold, view).is_file():
        return False
    kept = kept_folder(out, view).is_dir() or (out / "model" / "model.json").is_file()
    return kept or not (keep_first_model and (repeat, fold) == (0, 0))


# What runs there are, how far each has come, and what the finished ones measured.


COLUMNS = (
    "run", "state", "networks", "under_way", "left", "cohort", "model", "protocol", "auc",
    "training", "last_change",
)  # fmt: skip

# A network is under way as long as it is heard of: an epoch may take this long, or as many times
# as long as its epochs took until now.
_SILENT_S = 180.0
_SILENT_EPOCHS = 5


def list_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Every cross-validation run in or below some folders, one row each, the newest last.

    A run is "running" while one of its networks was heard of in the last minutes: one that was
    killed is "stopped" after three minutes, or five epochs if these are longer.

    Args:
        folders: runs, or folders that hold runs at any depth.

    Returns:
        run (its folder, as seen from the current one), state ("finished", "running", "stopped", or
        "damaged: ..." with what to do), networks ("12 of 90" that are trained), under_way (how many
        are being trained, and how many epochs they have), left (time until it is finished, if all
        networks learn as those until now), cohort, model, protocol, auc (fused, with its 95 %
        interval), training (time that its networks took, summed), last_change (local time).

    Raises:
        InputError: a folder that is not there.
    """
    rows = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name one that holds runs")
        rows += [_row(file) for file in sorted(folder.rglob("run.json"))]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "_changed"])
    table = table.drop_duplicates("run").sort_values("_changed", kind="stable")
    return table.drop(columns="_changed").reset_index(drop=True)


def as_text(table: pd.DataFrame) -> str:
    """The list for a terminal of 120 columns: by cohort, finished runs above the others.

    Args:
        table: from `list_runs`.
    """
    damaged = table["state"].str.startswith("damaged")
    parts = []
    for cohort, runs in table[~damaged].groupby("cohort", sort=False):
        finished = runs["state"] == "finished"
        counted = runs["state"] + " " + runs["networks"]
        shown = pd.DataFrame(
            {
                "run": runs["run"],
                "state": runs["state"].where(finished, counted),
                "under way": runs["under_way"],
                "left": runs["left"],
                "net": runs["model"].str.upper(),
                "protocol": runs["protocol"].str.replace(", 9 views", ""),  # as in the paper
                "AUC": runs["auc"],
                "trained": runs["training"],
                "changed": runs["last_change"].str.slice(len("2000-")),
            }
        ).fillna("")
        tables = []
        for part, unneeded in ((shown[finished], []), (shown[~finished], ["trained"])):
            empty = [column for column in part if (part[column] == "").all()]
            if len(part):
                tables.append(_aligned(part.drop(columns=[*unneeded, *empty])))
        parts.append("\n".join([str(cohort), *tables]))
    parts += [f"{row['run']} {row['state']}" for row in table[damaged].to_dict("records")]
    return "\n\n".join(parts)


def _aligned(table: pd.DataFrame) -> str:
    """Columns two spaces apart, all to the left."""
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _row(file: Path) -> dict[str, Any]:
    out = file.parent
    entries = progress.entries(out)
    times = [_changed(f) for f in (file, *out.glob("*.csv"), *progress.finished(out))]
    changed = max([*times, *(e.changed for e in entries)])
    row: dict[str, Any] = {
        "run": _seen_from_here(out),
        "last_change": time.strftime("%Y-%m-%d %H:%M", time.localtime(changed)),
        "_changed": changed,
    }
    try:
        return {**row, **_described(out, read_json(file, "a run"), entries)}
    except (InputError, KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        return {**row, "state": f"damaged: {reason}; delete it or start it again elsewhere"}


def _seen_from_here(out: Path) -> str:
    whole, here = out.resolve(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(out)


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # a temporary file of a run at work


def _described(
    out: Path, values: dict[str, Any], entries: Sequence[progress.Entry]
) -> dict[str, Any]:
    config, plan = TrainingConfig.from_dict(values["config"]), Plan(**values["plan"])
    places = [(repeat, fold, v) for repeat, fold in plan.places() for v in config.views]
    files = [unit_file(out, *place) for place in places]
    done = [file for file in files if file.is_file()]
    by_nodule = "" if plan.split == "patient" else f" by {plan.split}"
    row: dict[str, Any] = {
        "networks": f"{len(done)} of {len(places)}",
        "cohort": values["cohort"]["name"],
        "model": config.model,
        "protocol": f"{plan.repeats}x{plan.folds} folds{by_nodule}, {len(config.views)} "
        f"view{'s' * (len(config.views) > 1)}, {config.epochs} epochs",
    }
    metrics = out / "metrics.json"
    if len(done) == len(places) and metrics.is_file() and (out / "predictions.csv").is_file():
        measured = read_json(metrics, "a finished run")
        auc = measured["metrics"]["fused"]["auc"]
        return {
            **row,
            "state": "finished",
            "auc": f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})",
            "training": duration(measured["training_seconds"]),
        }
    units = [read_json(file, "a unit of a run") for file in done]
    row["training"] = duration(sum(unit["seconds"] for unit in units))
    finished = {file.stem for file in done}
    alive = [e for e in entries if e.name not in finished and _is_heard_of(e)]
    if not alive:
        # No network is under way before the first and after the last, either.
        quiet = time.time() - max(_changed(f) for f in (out / "run.json", *done)) > _SILENT_S
        between = 0 < len(done) < len(places)
        return {**row, "state": "stopped" if quiet or between else "running"}
    epochs = sorted(len(e.rows) for e in alive)
    several = f"{epochs[0]} to {epochs[-1]}" if epochs[0] < epochs[-1] else f"{epochs[0]}"
    left = _seconds_left(units, alive, len(places) - len(done), config.epochs)
    return {
        **row,
        "state": "running",
        "under_way": f"{len(alive)}, {several} epoch{'s' * (epochs[-1] != 1)}",
        "left": "" if left is None else duration(left),
    }


def _is_heard_of(entry: progress.Entry) -> bool:
    """Whether its process seems to live."""
    epoch = entry.rows[-1]["seconds"] / len(entry.rows) if entry.rows else 0.0
    return time.time() - entry.changed < max(_SILENT_S, _SILENT_EPOCHS * epoch)


def _seconds_left(
    units: Sequence[dict[str, Any]],
    under_way: Sequence[progress.Entry],
    networks: int,
    most_epochs: int,
) -> float | None:
    """Time until all are trained, at the pace of now; None as long as no epoch is known.

    Counted in epochs, since networks stop early: one is taken to need as many as those finished
    did, on average. The pace is that of the networks under way together, however many are trained
    side by side and on however many machines.

    Args:
        units: the networks that are finished.
        under_way: those that are being trained.
        networks: how many are not finished.
        most_epochs: that a network may be trained.
    """
    need = sum(len(u["history"]) for u in units) / len(units) if units else float(most_epochs)
    begun = [e for e in under_way if e.rows]
    if not begun:
        return None
    each = sum(len(e.rows) / max(e.rows[-1]["seconds"], 1e-3) for e in begun) / len(begun)
    todo = need * (networks - len(under_way))
    todo += sum(max(need - len(e.rows), 1.0) for e in under_way)
    # As many at once as there are now, but for the last ones, which wait for the slowest.
    return todo / (each * len(under_way))


# How long a cross-validation will take, from timing a few steps.


def seconds_alone(
    labels: NDArray[np.int64], config: TrainingConfig, plan: Plan, device_name: str
) -> float:
    """`estimate_seconds` for nodules with these labels, on one thread of this machine."""
    labels = np.asarray(labels, dtype=np.int64)
    with one_thread():
        return estimate_seconds(
            len(labels),
            config,
            plan,
            Device.choose(device_name, config.precision),
            positives=int((labels == 1).sum()),
        )


def estimate_seconds(
    labelled: int,
    config: TrainingConfig,
    plan: Plan,
    device: Device,
    steps: int = 4,
    positives: int = 0,
) -> float:
    """Seconds that a whole run takes at most on one device, from timing a few steps on noise.

    Args:
        labelled: nodules in the cross-validation.
        config: how each network is trained.
        plan: what is repeated.
        device: where.
        steps: how many steps to time.
        positives: of the labelled; needed where negatives are sampled.
    """
    networks = len(list(plan.places())) * len(config.views)
    if device.torch_device.type == "cuda":
        a_step = choose(config, device, networks).seconds
    else:
        a_step = _step_seconds(labelled, config, device, steps)
    steps_each = steps_an_epoch(labelled, config, plan.folds, positives)
    return float(a_step * networks * config.epochs * steps_each)


def steps_an_epoch(labelled: int, config: TrainingConfig, folds: int, positives: int = 0) -> int:
    """Steps in an epoch of one network, with what is left of the nodules for it to learn from.

    Args:
        labelled: nodules in the cross-validation.
        config: how the network is trained.
        folds: of the cross-validation, one of which is for testing.
        positives: of the labelled; needed where negatives are sampled.

    >>> steps_an_epoch(751, TrainingConfig(batch_size=64), folds=5)
    40
    """
    share = (1 - 1 / folds) * (1 - config.validation_fraction)
    training = np.arange(int(labelled * share)) < round(positives * share)
    return steps_of(training.astype(np.int64), config)


def _step_seconds(labelled: int, config: TrainingConfig, device: Device, steps: int) -> float:
    """Seconds of a step of one network alone."""
    batch = min(config.batch_size, labelled)
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (batch, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1]), batch)
    quick = TrainingConfig.from_dict(
        {
            **config.as_dict(),
            "epochs": 1,
            "augmented_copies": steps - 1,
            "plain_copy": True,
            "negatives_per_positive": None,
        }
    )

    def once() -> float:
        start = time.perf_counter()
        train_view(views, labels, views, labels, quick, device, seed=0)
        return time.perf_counter() - start

    once()  # the first call also compiles kernels and fills caches
    return once() / steps * config.batch_size / batch


# The units of a cross-validation: one network each, trained, written and read.
#
# A worker gets a task, which is a list of units: one on a CPU; on a GPU many, which are trained
# side
# by side. Each unit leaves one file, so that a kill at any moment costs what was under way only.


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
        progress.finish(out, unit_file(out, *unit.place).stem)
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
        note = progress.writer(out, unit_file(out, *unit.place).stem)
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
            notes[number] = progress.writer(out, unit_file(out, *units[number].place).stem)
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


# What the networks of a cross-validation left, put together: predictions, curves, metrics.


FUSED = "fused"
SIZE_ONLY = "size_only"
DETECTOR = "detector"
"""What the score of whatever proposed LUNA-16's candidates tells by itself, where it is known."""
_BASELINES = {SIZE_ONLY: "diameter_mm", DETECTOR: "score"}


def by_one_number(
    nodules: pd.DataFrame, column: str, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_test,) probability from one positive number alone, such as the diameter.

    Logistic regression on its logarithm, fitted on the training rows; what every image method has
    to be set beside, since on LIDC the mean reader diameter alone has an AUC of 0.94.
    """
    x = np.log(nodules[column].to_numpy(dtype=float))[:, None]
    y = nodules["label"].to_numpy(dtype=float)
    model = LogisticRegression().fit(x[train], y[train].astype(int))
    return model.predict_proba(x[test])[:, 1]


def size_only(
    nodules: pd.DataFrame, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n_test,) malignant probability from the diameter alone (`by_one_number`)."""
    return by_one_number(nodules, "diameter_mm", train, test)


def baselines(cohort: Cohort) -> dict[str, str]:
    """The views that need no network, and the column that each is made of (`by_one_number`).

    A column is taken where all labelled nodules have a positive number in it. Not every nodule need
    have a diameter; but a detector that proposed a candidate has a score for it.

    Raises:
        InputError: a column that is not of numbers, or a score that some candidates lack; told
            before anything is trained for it.
    """
    table = cohort.nodules.iloc[cohort.labelled]
    found = {}
    for view, column in _BASELINES.items():
        if column not in table or table[column].isna().all():
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        values = numbers.to_numpy(dtype=float, na_value=np.nan)
        wrong = ~np.isfinite(values)
        if view != DETECTOR:  # a missing one is unknown, as long as it is not something else
            wrong &= table[column].notna().to_numpy()
        if wrong.any():
            first = table.iloc[int(wrong.argmax())]
            there = "missing" if pd.isna(first[column]) else repr(first[column])
            raise InputError(
                f"{cohort.folder / 'nodules.csv'}: {column} is no number in {int(wrong.sum())} of "
                f"{len(table)} rows, the first {first['nodule_id']}, where it is {there}; build "
                "the cohort with a number in each row, or without the column"
            )
        if (values > 0).all():
            found[view] = column
    return found


def gather(
    cohort: Cohort,
    config: TrainingConfig,
    out: Path,
    units: list[Unit],
    keep_first_model: bool,
) -> pd.DataFrame:
    """Write `predictions.csv`, `history.csv` and `metrics.json` of a run from its units.

    For LUNA-16 also `submission.csv`, as the challenge takes it.

    Args:
        cohort: its labelled nodules are predicted.
        config: how the networks were trained.
        out: folder of the run.
        units: all of them, ordered by place; their files are there.
        keep_first_model: also join the networks that the first fold kept, in `out`/model.

    Returns:
        The predictions, as `crossval.run` does.
    """
    rows = cohort.labelled
    of_numbers = baselines(cohort)
    parts: list[_Part] = []
    curves, seconds = [], 0.0
    for (repeat, fold), of_fold in groupby(units, key=lambda unit: unit.place[:2]):
        planned = list(of_fold)
        left = [read_unit(out, unit.place) for unit in planned]
        test = planned[0].test
        train = np.setdiff1d(rows, test)
        by_view = np.array([u["test_probability"] for u in left]).T
        columns = {str(v): by_view[:, i] for i, v in enumerate(config.views)}
        weights = auc_weights([u["val_auc"] for u in left])
        columns[FUSED] = fuse(by_view, weights, left[0]["prior_shift"])
        for view, column in of_numbers.items():
            columns[view] = by_one_number(cohort.nodules, column, train, test)
        parts += [_Part(test, repeat, fold, view, said) for view, said in columns.items()]
        for number, u in zip(config.views, left, strict=True):
            seconds += u["seconds"]
            curves.append(
                pd.DataFrame(u["history"]).assign(
                    repeat=repeat, fold=fold, view=number, best_epoch=u["best_epoch"]
                )
            )
    predictions = _table(cohort.nodules, parts)
    del parts
    if keep_first_model:
        _assemble_first_model(out, config)
    write_csv(out / "history.csv", pd.concat(curves, ignore_index=True))
    write_csv(out / "predictions.csv", predictions)
    if cohort.task == "luna16":
        write_csv(out / "submission.csv", candidates.submission(cohort, predictions, FUSED))
    cut = candidates.threshold(cohort)
    write_json(
        out / "metrics.json",
        {
            **read_json(out / "run.json", "a run"),
            "training_seconds": round(seconds, 1),
            "epochs_run": int(sum(len(c) for c in curves)),
            "threshold": round(cut, 8),
            "metrics": summarise(predictions, threshold=cut),
        },
    )
    return predictions


@dataclass(frozen=True, eq=False)
class _Part:
    """What one view's network of a fold said of its test rows."""

    rows: NDArray[np.int64]
    repeat: int
    fold: int
    view: str
    probability: NDArray[np.float64]


def _table(nodules: pd.DataFrame, parts: list[_Part]) -> pd.DataFrame:
    """The predictions, made column by column: of LUNA-16, a second copy would be gigabytes."""
    rows = np.concatenate([part.rows for part in parts])
    counts = [len(part.rows) for part in parts]
    columns = {
        "nodule_id": nodules["nodule_id"].to_numpy()[rows],
        "patient_id": nodules["patient_id"].to_numpy()[rows],
        "repeat": np.repeat([part.repeat for part in parts], counts),
        "fold": np.repeat([part.fold for part in parts], counts),
        "view": np.repeat(np.array([part.view for part in parts], dtype=object), counts),
        "probability": np.concatenate([part.probability for part in parts]),
        "label": nodules["label"].fillna(-1).to_numpy(dtype=np.int64)[rows],
    }
    return pd.DataFrame(columns, copy=False)


def _assemble_first_model(out: Path, config: TrainingConfig) -> None:
    """Join the networks that the first fold kept into one nine-view model."""
    device = Device.choose("cpu", config.precision)
    if (out / "model" / "model.json").is_file():
        return
    networks, aucs, curves = [], [], []
    shift = 0.0  # the same of all views, which learnt from the same nodules
    for view in config.views:
        folder = kept_folder(out, view)
        networks.append(load_network(folder / f"view_{view}.safetensors", config, device))
        model = read_json(folder / "model.json", "a labkit model")
        aucs.append(float(model["view_auc"][0]))
        shift = float(model.get("prior_shift", 0.0))
        curves.append(pd.read_csv(folder / "history.csv").assign(view=view))
    history = pd.concat(curves, ignore_index=True)
    joined = NineViewModel(config, tuple(networks), tuple(aucs), history, device, shift)
    joined.save(out / "model")


# What a run's networks said of the nodules that they were stopped by, as a table.
#
# These inner validation nodules are of other patients than those trained on (and, with folds by
# patient, than those tested), so that a temperature, or another way to fuse views, can be learnt
# from
# them without a look at the test nodules.


_IMAGINARY = (*4 * ((0.8, 1),), (0.8, 0), *4 * ((0.2, 0),), (0.2, 1))


def validation(run: Path, cohort: Cohort) -> pd.DataFrame:
    """A finished run's predictions of its inner validation nodules, single views and fused.

    Args:
        run: folder of the run.
        cohort: that it was trained on, for the labels.

    Returns:
        Columns as `crossval.run` returns them; `fold` is the fold whose training the nodule was
        held out of, so that a nodule comes in several folds.

    Raises:
        InputError: unfinished, of another cohort, or from before units kept these predictions.
    """
    values = read_json(run / "run.json", "a run")
    plan = Plan(**values["plan"])
    views = [int(v) for v in values["config"]["views"]]
    table = cohort.nodules.set_index("nodule_id")
    parts = []
    for repeat, fold in plan.places():
        units = [read_unit(run, (repeat, fold, view)) for view in views]
        if any("val_probability" not in unit for unit in units):
            raise InputError(
                f"{run}: its networks did not keep what they said of validation nodules; it is "
                "from an older version: train again in another folder"
            )
        ids = units[0]["val_nodule_id"]
        if not set(ids) <= set(table.index):
            raise InputError(f"{run}: was trained on other nodules than {cohort.folder} holds")
        by_view = np.array([unit["val_probability"] for unit in units], dtype=float).T
        columns = {str(view): by_view[:, k] for k, view in enumerate(views)}
        weights = auc_weights([unit["val_auc"] for unit in units])
        columns[FUSED] = fuse(by_view, weights, units[0]["prior_shift"])
        for view, probability in columns.items():
            part = table.loc[ids, ["patient_id", "label"]].reset_index()
            part["label"] = part["label"].astype(int)
            parts.append(part.assign(repeat=repeat, fold=fold, view=view, probability=probability))
    columns_in_order = [
        "nodule_id", "patient_id", "repeat", "fold", "view", "probability", "label",
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns_in_order]


def steadied(held_out: pd.DataFrame) -> pd.DataFrame:
    """The same table with ten imaginary nodules for each fold and view, perfectly calibrated.

    A few dozen validation nodules leave a temperature loose, and none at all is best where they
    happen to be separated entirely. Of the imaginary ones five have a probability of 0.8, of which
    four are malignant, and five of 0.2, of which one is: they pull the temperature towards 1, no
    further than ten nodules can.

    Args:
        held_out: as `validation` returns it.
    """
    parts = [held_out]
    for (repeat, fold, view), _ in held_out.groupby(["repeat", "fold", "view"]):
        for number, (probability, label) in enumerate(_IMAGINARY):
            name = f"imaginary-{number}"
            row = (name, name, repeat, fold, view, probability, label)
            parts.append(pd.DataFrame([row], columns=held_out.columns))
    return pd.concat(parts, ignore_index=True)


# Cross-validation folds: by patient, by nodule to show what that hides, or LUNA-16's subsets.


SPLITS = ("patient", "nodule", "subset")


def make_folds(
    nodules: pd.DataFrame, folds: int, split: str = "patient", seed: int = 0
) -> NDArray[np.int64]:
    """Fold number of every labelled nodule, stratified by label.

    Args:
        nodules: labelled nodules, with `patient_id` and `label`.
        folds: how many.
        split: "patient" keeps the nodules of a patient together; "nodule" scatters them, as much
            of the literature does, so that a test nodule may have siblings in training; "subset"
            takes the column `subset`, LUNA-16's official folds, whatever the seed.
        seed: of the shuffling.

    Returns:
        (n,) integers from 0 to folds - 1.

    Raises:
        InputError: a fold without both classes, or more folds than there is data for.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {SPLITS}, not {split!r}")
    labels = nodules["label"].to_numpy(dtype=int)
    smallest = int(np.bincount(labels, minlength=2).min())
    if folds < 2 or smallest < folds:
        raise InputError(
            f"{folds} folds need at least 2 folds and {folds} nodules of each class; the rarer "
            f"class has {smallest}"
        )
    patients = nodules["patient_id"].to_numpy()
    if split == "patient" and len(np.unique(patients)) < folds:
        raise InputError(f"{folds} folds need {folds} patients; there are fewer")
    if split == "subset":
        parts = _subsets(nodules, folds)
    elif split == "patient":
        by_patient = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = by_patient.split(labels, labels, patients)
    else:
        by_nodule = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = by_nodule.split(labels, labels)
    number = np.full(len(labels), -1, dtype=np.int64)
    for fold, (_, test) in enumerate(parts):
        if len(np.unique(labels[test])) < 2:
            cure = "use fewer folds or more patients"
            if split == "subset":
                cure = "LUNA-16's folds are its subsets, so build the cohort of more scans"
            raise InputError(f"fold {fold} would hold one class only; {cure}")
        number[test] = fold
    return number


def _subsets(
    nodules: pd.DataFrame, folds: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and test rows of each subset, which is a fold."""
    if "subset" not in nodules or nodules["subset"].isna().any():
        raise InputError(
            "split 'subset' needs the column subset, which `labkit build luna16` makes; split by "
            "patient instead"
        )
    subset = nodules["subset"].to_numpy()
    there = np.unique(subset)
    named = "build the cohort again with --subsets FILE, or split by patient instead"
    if there[0] < 0 and len(there) > 1:
        raise InputError(
            f"some candidates are of no subset (-1), and subsets are the folds; {named}"
        )
    if len(there) < 2:
        cure = named if there[0] < 0 else "build the cohort of two or more"
        raise InputError(
            f"all candidates are of one subset ({there[0]}), and subsets are the folds; {cure}"
        )
    if (nodules.groupby("series_uid")["subset"].nunique() > 1).any():
        raise InputError("a scan lies in two subsets, so it would train and test; build it again")
    if len(there) != folds:
        raise InputError(f"the cohort has {len(there)} subsets: ask for {len(there)} folds")
    for one in there:
        yield np.flatnonzero(subset != one), np.flatnonzero(subset == one)


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
