"""Cross-validate nine-view networks: folds, training network by network, and what they predict.

A run is a folder: `run.json` (what is run, on what), `units/` (one JSON file for every trained
network), and, when all are there, `predictions.csv`, `history.csv` and `metrics.json`. A run that
was stopped goes on with the networks that are missing, and everything after `predictions.csv` can
be computed again from it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby, starmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm.auto import tqdm

from labkit.annotations import luna16
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.evaluation import froc
from labkit.evaluation.predictions import (
    DETECTOR,
    FUSED,
    NETWORKS,
    SIZE_ONLY,
    convergence,
    run_folder,
    threshold,
)
from labkit.evaluation.size import by_one_number, with_diameter
from labkit.evaluation.statistics import summarise
from labkit.io import read_json, require_ids, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.models.rivals import Rival
from labkit.training import machines
from labkit.training import progress as live
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, train_view
from labkit.training.machines import Device, connect, describe_hardware, duration, one_thread
from labkit.training.nine_views import (
    NineViewModel,
    diameters,
    labels_of,
    load,
    predict_rows,
    split_of,
    train_tasks,
    training_and_validation,
)
from labkit.training.side_by_side import MOST_AT_ONCE, Task, choose, steps_of

Place = tuple[int, int, int]
"""Repeat, fold and view of a network."""
Indices = NDArray[np.int64]
SPLITS = ("patient", "nodule", "subset")

_BASELINES = {SIZE_ONLY: "diameter_mm", DETECTOR: "score"}
_ABANDONED_S = 600  # after which a half-written file is nobody's
_TIMED_STEPS = 4  # for an estimate
_TOLD = 20  # lost networks that an error names

# torch's random numbers belong to the process, where tasks of Dask, one at a time as they are but
# for workers that joined later with more threads, take turns.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Plan:
    """What a run repeats."""

    folds: int = 10  # of the cross-validation (III-E)
    repeats: int = 1  # of the whole of it, with other folds (III-E: 10)
    split: str = "patient"  # or "nodule" or "subset" (`make_folds`)
    first_folds: int | None = None  # run only this many of the folds; None runs all

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.folds < 2:
            raise InputError("there must be 1 or more repeats of 2 or more folds")
        if self.first_folds is not None and not 1 <= self.first_folds <= self.folds:
            raise InputError(f"first_folds must be 1 to {self.folds}, not {self.first_folds}")
        drawn_anew = self.repeats > 1 and self.split != "subset"
        if drawn_anew and self.first_folds not in (None, self.folds):
            raise InputError(f"the first {self.first_folds} of {self.folds} folds hold other "
                             "nodules in every repeat; run all folds, or one repeat")  # fmt: skip

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield (repeat, fold) of every part, in the order they are run."""
        for repeat in range(self.repeats):
            for fold in range(self.first_folds or self.folds):
                yield repeat, fold

    def networks(self, views: Iterable[int]) -> list[Place]:
        """List (repeat, fold, view) of every network, in the order they are trained."""
        views = list(views)
        return [(repeat, fold, view) for repeat, fold in self.places() for view in views]


def make_folds(nodules: pd.DataFrame, folds: int, split: str = "patient", seed: int = 0) -> Indices:
    """Number the fold of every labelled nodule, (n,) from 0 to folds - 1, stratified by label.

    By "patient" the nodules of a patient stay together; by "nodule" they are scattered, as in much
    of the literature; by "subset" LUNA-16's official folds are taken, whatever the seed.

    Raises:
        InputError: a fold without both classes, more folds than there is data for, or a patient
            whose id is spelled in two ways.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {SPLITS}, not {split!r}")
    if (nodules["patient_id"].isna() | (nodules["patient_id"].astype(str) == "")).any():
        raise InputError("a nodule is of no patient, so no fold can keep it with its siblings; "
                         "give a patient_id on every row")  # fmt: skip
    labels, patients = nodules["label"].to_numpy(dtype=int), nodules["patient_id"].astype(str)
    require_ids(patients.unique(), "patient_id", "the nodules")
    smallest = int(np.bincount(labels, minlength=2).min())
    if folds < 2 or smallest < folds:
        raise InputError(f"{folds} folds need at least 2 folds and {folds} nodules of each class; "
                         f"the rarer class has {smallest}")  # fmt: skip
    if split == "patient" and patients.nunique() < folds:
        raise InputError(f"{folds} folds need {folds} patients; there are fewer")
    cure = "use fewer folds or more patients"
    if split == "subset":
        number = _subsets(nodules, folds)
        cure = "LUNA-16's folds are its subsets, so build the cohort of more scans"
    else:
        splitter = {"patient": StratifiedGroupKFold, "nodule": StratifiedKFold}[split]
        groups = patients if split == "patient" else None
        number = np.empty(len(labels), dtype=np.int64)
        parts = splitter(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        for fold, (_, test) in enumerate(parts):
            number[test] = fold
    for fold in range(folds):
        if len(np.unique(labels[number == fold])) < 2:
            raise InputError(f"fold {fold} would hold one class only; {cure}")
    return number


def _subsets(nodules: pd.DataFrame, folds: int) -> Indices:
    """Number each candidate's subset, which is its fold."""
    if "subset" not in nodules or nodules["subset"].isna().any():
        raise InputError("split 'subset' needs the column subset, which `labkit build luna16` "
                         "makes; split by patient instead")  # fmt: skip
    there, number = np.unique(nodules["subset"].to_numpy(), return_inverse=True)
    if there[0] < 0 or len(there) < 2:
        which = "some" if len(there) > 1 else "all"
        raise InputError(f"{which} candidates are of one subset ({there[0]}), and subsets are the "
                         "folds; build the cohort of two or more, or with --subsets FILE, or split "
                         "by patient instead")  # fmt: skip
    if (nodules.groupby("series_uid")["subset"].nunique() > 1).any():
        raise InputError("a scan lies in two subsets, so it would train and test; build it again")
    if len(there) != folds:
        raise InputError(f"the cohort has {len(there)} subsets: ask for {len(there)} folds")
    return number.astype(np.int64)


def training_rows(cohort: Cohort, test: Indices, split: str) -> Indices:
    """Return the labelled rows that a fold may learn from, of no patient whom it tests.

    Only with folds by "nodule" are siblings left in. (One patient of LUNA-16, LIDC-IDRI-0332, has
    scans in two of its subsets.)
    """
    rows, patients = np.setdiff1d(cohort.labelled, test), cohort.nodules["patient_id"]
    if split == "nodule":
        return rows
    return rows[~patients.iloc[rows].isin(patients.iloc[test]).to_numpy()]


def run(
    cohort: Cohort, config: TrainingConfig, out: str | Path, *, folds: int = 10, repeats: int = 1,
    split: str = "patient", first_folds: int | None = None, device: str = "auto",
    jobs: int | None = None, scheduler: str | None = None, keep_first_model: bool = False,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Cross-validate; a run that was stopped goes on with the networks that are missing.

    Args:
        cohort: its labelled nodules are used.
        config: how each network is trained.
        out: folder of the run.
        folds, repeats, split, first_folds: what is repeated (`Plan`).
        device: "auto", "cpu" or "cuda".
        jobs: networks trained at once; None takes one a core on a CPU, one on a GPU.
        scheduler: address of a Dask scheduler, whose workers train instead, one task each; they
            must see the cohort and `out` by the same paths.
        keep_first_model: also keep the nine networks of the first fold, in `out`/model.
        progress: print an estimate and show bars.

    Returns:
        Predictions (`predictions.COLUMNS`), one row a nodule, repeat, fold and view, with "fused",
        and "size_only" and "detector" from one number each (`baselines`), as further views.

    Raises:
        InputError: the folder holds another run, or the cohort or the cluster cannot do it.
        FloatingPointError: networks whose loss was no number were lost; all others are finished.
        KeyboardInterrupt: interrupted; the message says how far the run has come.
    """
    out = Path(out).absolute()  # other processes and machines may start elsewhere
    plan, name = Plan(folds, repeats, split, first_folds), config.network.name
    if scheduler is not None and jobs is not None:
        raise InputError("jobs counts processes on this machine; on a cluster every worker trains, "
                         "so leave it out")  # fmt: skip
    networks = networks_of(cohort, config, plan, keep_first_model)
    with contextlib.nullcontext() if scheduler is None else connect(scheduler) as cluster:
        if cluster is None:
            chosen = Device.choose(device, config.precision)
            hardware = {**describe_hardware(), "device": chosen.description}
            on_gpu = chosen.torch_device.type == "cuda"
            at_once = jobs or machines.default_jobs(chosen)
        else:
            hardware, on_gpu = cluster.hardware(device, config.precision)
            at_once = len(cluster.workers)
        claim(out, cohort, config, plan, hardware)
        if cluster is not None:
            cluster.check_folders([cohort.folder.absolute() / "cohort.json", out / "run.json"], out)
        _remove_half_written(out, older_than_s=_ABANDONED_S)
        todo = [n for n in networks if not is_done(out, n.place, keep_first_model)]
        there = len(networks) - len(todo)
        # A CPU core gets one network at a time, GPUs get equal shares, and one of this machine all.
        alone = cluster is None and at_once == 1
        share = min(math.ceil(len(todo) / at_once), len(todo) if alone else MOST_AT_ONCE)
        share = max(1, share) if on_gpu else 1
        tasks = [todo[i : i + share] for i in range(0, len(todo), share)]
        at_once = max(1, min(at_once, len(tasks)))
        if progress and todo:
            timing = (labels_of(cohort, cohort.labelled), config, plan, device)
            seconds = (cluster.once(estimate_seconds, *timing) if cluster
                       else estimate_seconds(*timing))  # fmt: skip
            most = duration(seconds * len(todo) / len(networks) / at_once)
            print(f"{name}, {repeats} x {folds} folds x {len(config.views)} views on "
                  f"{hardware['device']}: {len(todo)} networks to train, "
                  f"{f'by {at_once} workers' if cluster else f'{at_once} at once'}"
                  f"{f', {there} already there' if there else ''}; "
                  f"{'about' if config.network.whole else 'at most'} {most}"
                  f"{' (timed on one of them)' if cluster else ''}, less when training stops early",
                  flush=True)  # fmt: skip
        calls = [(cohort.folder.absolute(), config, out, device, task) for task in tasks]
        results: Iterable[Iterable[_Outcome]] = (
            starmap(train_networks, calls) if cluster is None and at_once == 1
            else machines.run(_train_in_turn, calls, at_once, cluster)
        )  # fmt: skip
        lost = []
        try:
            with tqdm(total=len(networks), initial=there, unit="network", desc=name,
                      disable=not progress, smoothing=0.1) as bar:  # fmt: skip
                # As they finish; a kill loses only those under way.
                for place, outcome in chain.from_iterable(results):
                    if isinstance(outcome, str):
                        lost.append((place, outcome))
                    else:
                        bar.set_postfix(val_auc=f"{outcome:.3f}", refresh=False)
                    bar.update(1)
        except KeyboardInterrupt:
            if cluster is None:  # whose workers, in contrast, finish what they have under way
                _remove_half_written(out, older_than_s=0)
                live.clear(out)
            done = sum(is_done(out, n.place, keep_first_model) for n in networks)
            raise KeyboardInterrupt(f"{done} of {len(networks)} networks are done and kept in "
                                    f"{out}; the same command goes on") from None  # fmt: skip
        if lost:
            told = ["repeat {}, fold {}, view {}: {}".format(*place, reason.partition(": ")[0])
                    for place, reason in sorted(lost)]  # fmt: skip
            told[_TOLD:] = [f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []
            raise FloatingPointError(
                f"{len(lost)} of {len(networks)} networks were lost: {'; '.join(told)}. "
                f"{lost[0][1].partition(': ')[2]}, with another --out; the other networks are kept "
                f"in {out}, and the same command tries only the lost ones again"
            )
        if cluster is not None:
            wait_for(network_file(out, n.place) for n in networks)
    live.clear(out)
    return join_predictions(cohort, config, out, networks, keep_first_model)


def judge(cohort: Cohort, method: type[Rival], plan: Plan, seed: int = 0) -> pd.DataFrame:
    """Cross-validate a method of one's own, on the folds that `run` gives to all others.

    `method` is a class that need not be in `models.NETWORKS`, such as `rivals.of_features` makes.
    It is fitted in this process, and nothing is kept. Returns `run`'s predictions, without views.
    """
    config, columns = TrainingConfig.lab(model="size", seed=seed), baselines(cohort)
    device, parts = Device.choose("cpu", "fp32"), list[_Part]()
    for of in networks_of(cohort, config, plan):
        with one_thread():
            fitted = method(config, device, network_seed(seed, *of.place))
            fitted.fit(cohort, split_of(cohort, of.train, of.val, of.test), lambda row: None)
            says = {FUSED: fitted.predict(cohort, of.test)}
        says |= _by_one_number(cohort, columns, of.test, plan.split)
        parts.append((of.test, of.place[:2], says))
    return _table(cohort.nodules, parts)


# Networks: which there are, how one is trained, and what each leaves in its file.


@dataclass(frozen=True, eq=False)
class Network:
    """One network: its place in the run, and rows of the cohort."""

    place: Place
    train: Indices  # to learn from
    val: Indices  # to stop by, and from which the view's weight in the fusion comes
    test: Indices  # to predict
    keep: bool = False  # whether the network is kept, too, and not only what it says


_Outcome = tuple[Place, float | str]
"""A network's place, and its AUC on the inner validation split, or why it was lost."""


def networks_of(
    cohort: Cohort, config: TrainingConfig, plan: Plan, keep_first_model: bool = False
) -> list[Network]:
    """List all networks of a run, in the order that they are trained.

    Raises InputError for a cohort without labels, with too little for the folds or the inner split
    of one of them, or with a size or score that is no number.
    """
    chosen, nodules, networks = cohort.labelled, cohort.nodules, list[Network]()
    if len(chosen) == 0:
        raise InputError(f"{cohort.folder}: no nodule has a label")
    baselines(cohort)
    diameters(cohort, config)
    try:
        fold_of = [make_folds(nodules.iloc[chosen], plan.folds, plan.split,
                              network_seed(config.seed, r)) for r in range(plan.repeats)
                   ]  # fmt: skip
        for repeat, fold in plan.places():
            test, seed = chosen[fold_of[repeat] == fold], network_seed(config.seed, repeat, fold)
            rest = training_rows(cohort, test, plan.split)
            train, val = training_and_validation(nodules, rest, config, seed)
            keep = keep_first_model and (repeat, fold) == (0, 0)
            networks += [Network((repeat, fold, view), train, val, test, keep)
                         for view in config.views]  # fmt: skip
    except InputError as error:
        raise InputError(f"{cohort.folder}: {error}") from None
    return networks


def claim(
    out: Path, cohort: Cohort, config: TrainingConfig, plan: Plan, hardware: dict[str, Any]
) -> None:
    """Write what is run, and on what, to `run.json`.

    Raises InputError when the folder holds another run, or other things.
    """
    file = out / "run.json"
    identity = {"cohort": cohort.identity, "config": config.as_dict(), "plan": asdict(plan)}
    if file.exists():
        there = read_json(file, "a run")
        # A setting that came after a long run was begun has its default in it.
        there["config"] = TrainingConfig.from_dict(there.get("config") or {}).as_dict()
        for part, new in identity.items():
            old = there.get(part) or {}
            if changed := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
                raise InputError(f"{out} holds another run: its {part} differs in "
                                 f"{', '.join(changed)}; choose another --out or delete it"
                                 )  # fmt: skip
        return
    # Another process may be claiming it now: lessons that share a run are tested side by side.
    if out.exists() and any(not p.name.startswith(f".{file.name}.") for p in out.iterdir()):
        raise InputError(f"{out}: not empty and not a run; choose another --out")
    write_json(file, {**identity, "hardware": hardware, "started": machines.now()})


def network_file(out: Path, place: Place) -> Path:
    """Return where a trained network's results lie."""
    return out / "units" / "repeat{}_fold{}_view{}.json".format(*place)


def kept_folder(out: Path, view: int) -> Path:
    """Return where the first fold's network of a view is kept."""
    return out / "units" / f"model_view{view}"


def is_done(out: Path, place: Place, keep_first_model: bool) -> bool:
    """Tell whether a network need not be trained again."""
    if not network_file(out, place).is_file():
        return False
    kept = kept_folder(out, place[2]).is_dir() or (out / "model" / "model.json").is_file()
    return kept or not (keep_first_model and place[:2] == (0, 0))


def read_network(out: Path, place: Place) -> dict[str, Any]:
    """Read what a trained network left (`train_networks`), or raise InputError."""
    file = network_file(out, place)
    values = read_json(file, "a network of a run")
    if not {"prior_shift", "val_probability"} <= values.keys():
        raise InputError(f"{file}: from another version of labkit; train again in another folder")
    return dict(values)


def read_networks(run: Path, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
    """Read what networks of a run left, a packed one's less curves and test nodules."""
    with run_folder(run) as folder:
        if not (folder / NETWORKS).is_file():
            return {place: read_network(folder, place) for place in places}
        left = read_json(folder / NETWORKS, "a packed run")
    try:
        return {place: left[network_file(run, place).stem] for place in places}
    except KeyError as error:
        raise InputError(f"{run}: lacks the network {error}") from None


def train_networks(
    cohort_folder: Path, config: TrainingConfig, out: Path, device_name: str,
    networks: Sequence[Network],
) -> Iterator[_Outcome]:  # fmt: skip
    """Train networks, and write what each leaves as soon as it is there.

    A CPU (`device_name`, where this runs) trains one after another, a GPU side by side. A network
    whose loss is no number is lost, and says so; the others go on. The seconds of each are those
    since the one before was done: they sum to what all took.
    """
    cohort, device = Cohort.open(cohort_folder), Device.choose(device_name, config.precision)
    tasks = [Task(n.place[2], n.train, n.val, network_seed(config.seed, *n.place), n.test)
             for n in networks]  # fmt: skip
    files = [network_file(out, n.place) for n in networks]
    notes: dict[int, Callable[[Mapping[str, Any]], None]] = {}

    def note(number: int, row: dict[str, Any] | None) -> None:
        if row is None:
            notes[number] = live.writer(out, files[number].stem)
        else:
            notes[number](row)

    start = time.perf_counter()
    for number, trained in train_tasks(cohort, tasks, config, device, note):
        network, seconds = networks[number], time.perf_counter() - start
        if isinstance(trained, FloatingPointError):
            outcome: float | str = str(trained)
        else:
            outcome, view = trained.val_auc, network.place[2]
            test = predict_rows(trained.network, cohort, network.test, view, config, device)
            if network.keep:
                NineViewModel(
                    replace(config, views=(view,)), (trained.network,), (trained.val_auc,),
                    pd.DataFrame(trained.history), device, trained.prior_shift,
                ).save(kept_folder(out, view))  # fmt: skip
            held_out = network.val if trained.val_rows is None else trained.val_rows
            write_json(files[number], {
                "val_auc": trained.val_auc, "prior_shift": trained.prior_shift,
                "best_epoch": trained.best_epoch, "seconds": seconds,
                "test_probability": test.tolist(),
                # From which other ways to fuse the views can be learnt without the test nodules.
                "val_nodule_id": cohort.nodules["nodule_id"].iloc[held_out].tolist(),
                "val_probability": trained.val_probability.tolist(), "history": trained.history,
            })  # fmt: skip
        live.finish(out, files[number].stem)
        yield network.place, outcome
        start = time.perf_counter()


def _train_in_turn(*arguments: Any) -> list[_Outcome]:
    """List what `train_networks` yields, for workers, which return but once."""
    with _ONE_AT_A_TIME:
        return list(train_networks(*arguments))


def wait_for(files: Iterable[Path], seconds: float = 60.0) -> None:
    """Wait until files that other machines wrote are seen here, too, or raise InputError."""
    missing, deadline = set(files), time.monotonic() + seconds
    # Listed anew, since network file systems keep a folder's list for half a minute or so.
    while missing := missing.difference(
        *(folder.iterdir() for folder in {m.parent for m in missing})
    ):
        if time.monotonic() > deadline:
            raise InputError(f"{min(missing)}: written on another machine but not seen here after "
                             f"{seconds:.0f} s; --out must lie on a file system that all machines "
                             "share, then the same command goes on")  # fmt: skip
        time.sleep(0.5)


def _remove_half_written(out: Path, older_than_s: float) -> None:
    """Remove what a killed process left; what is younger may be another's, at work right now."""
    for rest in (out / "units").glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # whoever wrote it has just finished
            if time.time() - rest.stat().st_mtime >= older_than_s:
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()


# What the networks say, put together: predictions, curves, metrics.


def baselines(cohort: Cohort) -> dict[str, str]:
    """Return the views that need no network, and the column each is made of (`by_one_number`).

    A column counts where all labelled nodules have a positive number in it. Raises InputError for
    what is no number, and for a detector's score that is missing; a diameter may be unknown.
    """
    table, found = cohort.nodules.iloc[cohort.labelled], {}
    for view, column in _BASELINES.items():
        if column not in table or table[column].isna().all():
            continue
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float, na_value=np.nan)
        wrong = ~np.isfinite(values) & ((view == DETECTOR) | table[column].notna().to_numpy())
        if wrong.any():
            first = table.iloc[int(wrong.argmax())]
            there = "missing" if pd.isna(first[column]) else repr(first[column])
            raise InputError(
                f"{cohort.folder / 'nodules.csv'}: {column} is no number in {int(wrong.sum())} of "
                f"{len(table)} rows, the first {first['nodule_id']}, where it is {there}; build "
                "the cohort with a number in each row, or without the column")  # fmt: skip
        if (values > 0).all():
            found[view] = column
    return found


def join_predictions(
    cohort: Cohort, config: TrainingConfig, out: Path, networks: list[Network],
    keep_first_model: bool,
) -> pd.DataFrame:  # fmt: skip
    """Write `predictions.csv`, `history.csv` and `metrics.json` of a run, and return predictions.

    For LUNA-16 also `submission.csv`, as the challenge takes it. Of `keep_first_model`'s networks
    one model is made, in `out`/model.
    """
    columns, started = baselines(cohort), read_json(out / "run.json", "a run")
    parts, curves, seconds = list[_Part](), [], 0.0
    for place, of_fold in groupby(networks, key=lambda network: network.place[:2]):
        planned = list(of_fold)
        test, left = planned[0].test, [read_network(out, network.place) for network in planned]
        says = _by_view(left, config, "test_probability")
        says |= _by_one_number(cohort, columns, test, started["plan"]["split"])
        parts.append((test, place, says))
        seconds += sum(of["seconds"] for of in left)
        curves += [
            pd.DataFrame(of["history"]).assign(
                repeat=place[0], fold=place[1], view=view, best_epoch=of["best_epoch"]
            )
            for view, of in zip(config.views, left, strict=True)
        ]
    predictions = _table(cohort.nodules, parts)
    if config.with_size:
        both = with_diameter(predictions, validation_predictions(out, cohort), cohort.nodules)
        predictions.loc[both.index, "probability"] = both["probability"]
    if keep_first_model and not (out / "model" / "model.json").is_file():
        singles = [load(kept_folder(out, view), "cpu") for view in config.views]
        histories = [m.history.assign(view=m.config.views[0]) for m in singles]
        # The shift is the same of all views, which learnt from the same nodules.
        NineViewModel(
            config, tuple(m.networks[0] for m in singles), tuple(m.view_auc[0] for m in singles),
            pd.concat(histories, ignore_index=True), singles[0].device, singles[0].prior_shift,
        ).save(out / "model")  # fmt: skip
    write_csv(out / "history.csv", pd.concat(curves, ignore_index=True))
    write_csv(out / "predictions.csv", predictions)
    if cohort.task == "luna16":
        luna16.write(out / "submission.csv", froc.marks(cohort, predictions).drop(columns="label"))
    cut = threshold(cohort)
    write_json(out / "metrics.json", {
        **started, "training_seconds": round(seconds, 1),
        "epochs_run": sum(map(len, curves)), "threshold": round(cut, 8),
        "convergence": convergence(out), "metrics": summarise(predictions, threshold=cut),
    })  # fmt: skip
    return predictions


def _by_view(left: list[dict[str, Any]], config: TrainingConfig, what: str) -> dict[str, NDArray]:
    """Return probabilities by view of what the networks of a fold left, and fused (Eq. 4)."""
    by_view = np.array([of[what] for of in left], dtype=float).T
    weights = auc_weights([of["val_auc"] for of in left])
    fused = fuse(by_view, weights, left[0]["prior_shift"])
    return {**{str(view): by_view[:, k] for k, view in enumerate(config.views)}, FUSED: fused}


def _by_one_number(
    cohort: Cohort, columns: Mapping[str, str], test: Indices, split: str
) -> dict[str, NDArray]:
    """Return probabilities of a fold by view of `baselines`."""
    train = training_rows(cohort, test, split)
    return {view: by_one_number(cohort.nodules, column, train, test)
            for view, column in columns.items()}  # fmt: skip


_Part = tuple[Indices, tuple[int, int], Mapping[str, NDArray]]
"""Rows of the cohort, repeat and fold, and by view the probability of each row."""


def _table(nodules: pd.DataFrame, parts: list[_Part]) -> pd.DataFrame:
    """Return predictions, made column by column: of LUNA-16, a second copy would be gigabytes."""
    flat = [(rows, *place, view, p) for rows, place, says in parts for view, p in says.items()]
    of_rows, repeat, fold, view, probability = zip(*flat, strict=True)
    rows, counts = np.concatenate(of_rows), [len(rows) for rows in of_rows]
    columns = {
        **{name: nodules[name].to_numpy()[rows] for name in ("nodule_id", "patient_id")},
        "repeat": np.repeat(repeat, counts), "fold": np.repeat(fold, counts),
        "view": np.repeat(np.array(view, dtype=object), counts),
        "probability": np.concatenate(probability),
        "label": nodules["label"].fillna(-1).to_numpy(dtype=np.int64)[rows],
    }  # fmt: skip
    return pd.DataFrame(columns, copy=False)


def validation_predictions(out: Path, cohort: Cohort) -> pd.DataFrame:
    """Return a finished run's predictions of its inner validation nodules, single views and fused.

    No network has learnt from these nodules, so that a temperature, or another way to fuse views,
    can be learnt from them. (Of a method that is fitted to parts of its training nodules in turn
    they are all of these, each judged by a fit to the others.) Columns are `run`'s; `fold` is the
    one in whose training the nodule was held out, so that a nodule comes in several. InputError: an
    unfinished run, or another cohort.
    """
    with run_folder(out) as folder:
        values = read_json(folder / "run.json", "a run")
    plan, config = Plan(**values["plan"]), TrainingConfig.from_dict(values["config"])
    networks = read_networks(out, plan.networks(config.views))
    ids, parts = pd.Index(cohort.nodules["nodule_id"]), list[_Part]()
    for repeat, fold in plan.places():
        left = [networks[repeat, fold, view] for view in config.views]
        rows = ids.get_indexer(pd.Index(left[0]["val_nodule_id"]))
        if (rows < 0).any():
            raise InputError(f"{out}: was trained on other nodules than {cohort.folder} holds")
        parts.append((rows, (repeat, fold), _by_view(left, config, "val_probability")))
    return _table(cohort.nodules, parts)


def steadied(validation: pd.DataFrame) -> pd.DataFrame:
    """Add ten imaginary nodules, perfectly calibrated, to each fold and view of a table.

    A few dozen validation nodules leave a temperature loose; these, five of 0.8 (four malignant)
    and five of 0.2 (one malignant), pull it towards 1.
    """
    names = [f"imaginary-{k}" for k in range(10)]
    ten = pd.DataFrame({"nodule_id": names, "patient_id": names})
    ten = ten.assign(probability=np.repeat([0.8, 0.2], 5), label=[1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
    parts = validation[["repeat", "fold", "view"]].drop_duplicates()
    added = parts.sort_values(["repeat", "fold", "view"]).merge(ten, how="cross")
    return pd.concat([validation, added[validation.columns]], ignore_index=True)


# How long a run will take, from timing a few steps.


def estimate_seconds(
    labels: ArrayLike, config: TrainingConfig, plan: Plan, device_name: str
) -> float:
    """Estimate the seconds that a run of nodules with these labels takes at most on one device.

    From steps on noise; a CPU trains on one thread. Of methods that take nodules whole, what one
    core is known to take (`Network.seconds`), not the most.
    """
    y, networks = np.asarray(labels, dtype=np.int64), len(plan.networks(config.views))
    if config.network.whole:
        return config.network.seconds * networks * len(y) / 500
    device = Device.choose(device_name, config.precision)
    if device.torch_device.type == "cuda":
        a_step = choose(config, device, networks)[1]
    else:
        batch = min(config.batch_size, len(y))
        noise = np.random.default_rng(0).integers(-1000, 400, (batch, 76, 76)).astype(np.int16)
        halves = np.resize(np.array([0, 1]), batch)
        quick = replace(config, epochs=1, augmented_copies=_TIMED_STEPS - 1, plain_copy=True,
                        negatives_per_positive=None)  # fmt: skip
        for _ in range(2):  # the first time also compiles kernels and fills caches
            start = time.perf_counter()
            with one_thread():
                train_view(noise, halves, noise, halves, quick, device, seed=0)
            seconds = time.perf_counter() - start
        a_step = seconds / _TIMED_STEPS * config.batch_size / batch
    steps_each = steps_an_epoch(len(y), config, plan.folds, int((y == 1).sum()))
    return float(a_step * networks * config.epochs * steps_each)


def steps_an_epoch(labelled: int, config: TrainingConfig, folds: int, positives: int = 0) -> int:
    """Count the steps in an epoch of one network; `positives` are needed to sample negatives.

    >>> steps_an_epoch(751, TrainingConfig(batch_size=64), folds=5)
    40
    """
    share = (1 - 1 / folds) * (1 - config.validation_fraction)
    training = np.arange(int(labelled * share)) < round(positives * share)
    return steps_of(training.astype(np.int64), config)


# What runs there are, how far each has come, and what the finished ones measured.


RUN_COLUMNS = ("run", "state", "networks", "under_way", "cohort", "model", "protocol", "auc",
               "training", "last_change")  # fmt: skip
_SILENT_S, _SILENT_EPOCHS = 180.0, 5  # after which a network is no longer taken for under way


def list_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """List every cross-validation run in or below some folders, one row each, the newest last.

    Columns are `RUN_COLUMNS`: the folder as seen from here; "finished", "running", "stopped" or
    "damaged: ..."; "12 of 90" networks; how many are under way, with epochs; AUC fused, pooled.
    A run is "running" while one of its networks was heard of in the last three minutes, or five
    epochs if longer. Raises InputError for a folder that is not there.
    """
    rows, here = [], Path.cwd()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name one that holds runs")
        for out in (file.parent for file in sorted(folder.rglob("run.json"))):
            under_way, whole = live.entries(out), out.resolve()
            files = [out / "run.json", *out.glob("*.csv"), *live.finished(out)]
            changed = max([*map(_changed, files), *(entry.changed for entry in under_way)])
            try:
                row = _state(out, under_way)
            except (InputError, KeyError, TypeError) as error:
                reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                row = {"state": f"damaged: {reason}; delete it or start it again elsewhere"}
            row["run"] = str(whole.relative_to(here) if whole.is_relative_to(here) else out)
            row["last_change"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(changed))
            rows.append({**row, "changed": changed})
    table = pd.DataFrame(rows, columns=[*RUN_COLUMNS, "changed"]).drop_duplicates("run")
    return table.sort_values("changed", kind="stable", ignore_index=True).drop(columns="changed")


def _changed(file: Path) -> float:
    with contextlib.suppress(FileNotFoundError):  # a temporary file of a run at work
        return file.stat().st_mtime
    return 0.0


def _state(out: Path, under_way: Sequence[live.Entry]) -> dict[str, Any]:
    values = read_json(out / "run.json", "a run")
    config, plan, views = values["config"], Plan(**values["plan"]), values["config"]["views"]
    files = [network_file(out, place) for place in plan.networks(views)]
    done = [file for file in files if file.is_file()]
    by = "" if plan.split == "patient" else f" by {plan.split}"
    row: dict[str, Any] = {
        "networks": f"{len(done)} of {len(files)}", "model": config["model"],
        "cohort": values["cohort"]["name"],
        "protocol": f"{plan.repeats}x{plan.folds} folds{by}, {len(views)} "
        f"view{'s' * (len(views) > 1)}, {config['epochs']} epochs",
    }  # fmt: skip
    if done == files and all((out / f).is_file() for f in ("metrics.json", "predictions.csv")):
        found = read_json(out / "metrics.json", "a finished run")
        auc = "{value:.3f} ({low:.3f} to {high:.3f})".format(**found["metrics"]["fused"]["auc"])
        row["training"] = duration(found["training_seconds"])
        return row | {"state": "finished", "auc": auc}
    row["training"] = duration(sum(read_json(f, "a network of a run")["seconds"] for f in done))
    now, trained = time.time(), {file.stem for file in done}
    epochs = []
    for entry in under_way:
        epoch = entry.rows[-1]["seconds"] / len(entry.rows) if entry.rows else 0.0
        silent = now - entry.changed >= max(_SILENT_S, _SILENT_EPOCHS * epoch)
        if not silent and entry.name not in trained:
            epochs.append(len(entry.rows))
    if not epochs:  # none is under way before the first network and after the last, either
        quiet = now - max(map(_changed, (out / "run.json", *done))) > _SILENT_S
        return row | {"state": "stopped" if quiet or 0 < len(done) < len(files) else "running"}
    several = " to ".join(map(str, sorted({min(epochs), max(epochs)})))
    counted = f"{len(epochs)}, {several} epoch{'s' * (max(epochs) != 1)}"
    return row | {"state": "running", "under_way": counted}


def runs_as_text(table: pd.DataFrame) -> str:
    """Return `list_runs` for a terminal of 120 columns: by cohort, finished runs above others."""
    damaged, finished = table["state"].str.startswith("damaged"), table["state"] == "finished"
    shown = table.assign(
        state=table["state"].where(finished, table["state"] + " " + table["networks"]),
        model=table["model"].str.upper(),
        protocol=table["protocol"].str.replace(", 9 views", ""),  # as in the paper
        training=table["training"].where(finished),
        last_change=table["last_change"].str.slice(len("2000-")),
    ).drop(columns="networks")
    names = {"under_way": "under way", "model": "net", "auc": "AUC", "training": "trained",
             "last_change": "changed"}  # fmt: skip
    parts = []
    for cohort, runs in shown[~damaged].groupby("cohort", sort=False):
        lines = [str(cohort)]
        for part in (runs[finished[runs.index]], runs[~finished[runs.index]]):
            part = part.drop(columns="cohort").dropna(axis=1, how="all").rename(columns=names)
            cells = [list(part), *part.fillna("").to_numpy().tolist()] if len(part) else []
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        parts.append("\n".join(lines))
    parts += (table["run"] + " " + table["state"])[damaged].tolist()
    return "\n\n".join(parts)
