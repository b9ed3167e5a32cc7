"""Nine trained networks as one classifier: fit, predict, fuse, save and load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

from labkit import __version__
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.io import (
    read_json,
    require_own_folder,
    require_place,
    sha256,
    whole_folder,
    write_csv,
    write_json,
)
from labkit.models.fusion import add_size, auc_weights, fuse, log_odds, moved, size_weights
from labkit.models.mtcnn import STCNN
from labkit.models.rivals import Rival, Split
from labkit.training.batches import Labels, thinned
from labkit.training.config import TrainingConfig
from labkit.training.loop import (
    Trained,
    build_network,
    network_seed,
    predict_view,
    reconstruct_view,
)
from labkit.training.machines import Device, default_jobs, one_thread, run
from labkit.training.progress import begin, finish, writer
from labkit.training.side_by_side import Outcome, Report, Task, train_many

_FORMAT = "labkit nine-view model 3"


def training_and_validation(
    nodules: pd.DataFrame, indices: Labels, config: TrainingConfig, seed: int
) -> tuple[Labels, Labels]:
    """Hold patients out for validation (`inner_split`), where sampled with fewer negatives."""
    train, val = inner_split(nodules, indices, config.validation_fraction, seed)
    if config.negatives_per_positive is None:
        return train, val
    return train, thinned(val, nodules["label"].iloc[val].to_numpy(dtype=np.int64), seed)


def inner_split(
    nodules: pd.DataFrame, indices: Labels, fraction: float, seed: int
) -> tuple[Labels, Labels]:
    """Part labelled nodules into training and validation, by patient and stratified by label.

    The share of validation is about `fraction`, since patients stay whole: of a few patients it is
    one. Returns sorted rows of each; InputError when there are too few patients, or nodules of one
    class, to have both on both sides.
    """
    indices = np.asarray(indices)
    chosen = nodules.iloc[indices]
    labels, patients = chosen["label"].to_numpy(dtype=int), chosen["patient_id"].to_numpy()
    smallest, count = min(np.bincount(labels, minlength=2)), len(np.unique(patients))
    if smallest < 2 or count < 2:
        raise InputError(f"{len(indices)} nodules of {count} patients ({smallest} in the rarer "
                         "class) are too few to hold a validation split out; use more nodules or "
                         "fewer folds")  # fmt: skip
    folds = min(max(2, min(round(1 / fraction), count)), smallest)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, val in splitter.split(labels, labels, patients):
        if len(np.unique(labels[train])) == len(np.unique(labels[val])) == 2:
            return np.sort(indices[train]), np.sort(indices[val])
    raise InputError("no split by patient has both classes in training and validation; use more "
                     "nodules")  # fmt: skip


def labels_of(cohort: Cohort, rows: Labels) -> Labels:
    """Return (n,) labels of labelled rows: 1 malignant, or a nodule in LUNA-16."""
    return cohort.nodules["label"].iloc[rows].to_numpy(dtype=np.int64)


def train_tasks(
    cohort: Cohort, tasks: Sequence[Task], config: TrainingConfig, device: Device,
    on_epoch: Report = lambda number, row: None,
) -> Iterator[Outcome]:  # fmt: skip
    """Train a network a task (`train_many`), or a method that takes nodules whole, one by one."""
    if not config.network.whole:
        labels = cohort.nodules["label"].fillna(0).to_numpy(dtype=np.int64)
        yield from train_many(cohort.views, labels, tasks, config, device, on_epoch)
        return
    for number, task in enumerate(tasks):
        on_epoch(number, None)
        try:
            report = partial(on_epoch, number)
            yield number, train_rival(cohort, task, config, device, report)
        except FloatingPointError as error:
            yield number, error


def train_rival(
    cohort: Cohort, task: Task, config: TrainingConfig, device: Device,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:  # fmt: skip
    """Fit a method that takes nodules whole; `on_epoch` is called with every row of its history.

    Where negatives are sampled, it learns from one sample, as large as one for validation
    (`batches.thinned`), and what it says is brought back to the share that there is in training.
    """
    train, shift, curve = task.train, 0.0, config.early_stopping()
    if config.negatives_per_positive is not None:
        labels = labels_of(cohort, train)
        train = thinned(train, labels, task.seed)
        shares = log_odds([labels.mean(), labels_of(cohort, train).mean()])
        shift = float(shares[0] - shares[1])

    def note(row: dict[str, Any]) -> None:
        curve.add(row)
        on_epoch(row)

    split = split_of(cohort, train, task.val, task.test)
    with one_thread(), device.arithmetic():
        rival = config.network.build(config=config, device=device, seed=task.seed)
        said = rival.fit(cohort, split, note)
    rival.prior_shift = shift
    auc = float(roc_auc_score(labels_of(cohort, task.val), said))
    held_out = pd.Series(said, task.val) if rival.held_out is None else rival.held_out
    return Trained(rival, curve.history, curve.best_epoch, moved(held_out.to_numpy(), shift), auc,
                   shift, held_out.index.values)  # fmt: skip


def split_of(cohort: Cohort, train: Labels, val: Labels, test: Labels) -> Split:
    """Return what a method that takes nodules whole may look at.

    Nodules without a label are of patients who are in neither the rows `val` nor `test`.
    """
    nodules = cohort.nodules
    there = set(nodules["patient_id"].iloc[np.concatenate([val, test])])
    free = nodules["label"].isna() & ~nodules["patient_id"].isin(there)
    return Split(train, val, np.flatnonzero(free.to_numpy()))


def predict_rows(
    network: STCNN | Rival, cohort: Cohort, rows: Labels, view: int, config: TrainingConfig,
    device: Device,
) -> NDArray[np.float64]:  # fmt: skip
    """Compute (n,) malignant probabilities of one view's network, or of a whole-nodule method."""
    with one_thread():
        if isinstance(network, Rival):
            return moved(network.predict(cohort, rows), network.prior_shift)
        return predict_view(network, cohort.views[rows, view], config, device)


@dataclass(frozen=True)
class NineViewModel:
    """One trained network a view, and the weights that fuse them; or one whole-nodule method."""

    config: TrainingConfig  # how they were trained, and of which views, in order
    networks: tuple[STCNN | Rival, ...]
    view_auc: tuple[float, ...]  # of each on the inner validation split
    history: pd.DataFrame  # learning curves, one row a view and epoch
    device: Device  # where predictions are computed
    prior_shift: float = 0.0  # what their log-odds gained, where negatives were sampled
    size_weights: tuple[float, ...] | None = None  # of what is put together with the diameter

    @property
    def weights(self) -> NDArray[np.float64]:
        """(views,) fusion weights, summing to one (Algorithm 1, line 7)."""
        return auc_weights(self.view_auc)

    def predict(self, cohort: Cohort, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Compute (n, views) malignant probabilities of these rows of a cohort, or of all of it."""
        rows = np.arange(len(cohort)) if indices is None else np.asarray(indices, dtype=np.int64)
        columns = [predict_rows(network, cohort, rows, view, self.config, self.device)
                   for view, network in self._by_view()]  # fmt: skip
        return np.stack(columns, axis=1)

    def fuse(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Compute (n,) fused probabilities from (n, views) (Eq. 4)."""
        return fuse(probabilities, self.weights, self.prior_shift)

    def fuse_with_size(
        self, probabilities: ArrayLike, diameters_mm: ArrayLike
    ) -> NDArray[np.float64]:
        """Compute (n,) fused probabilities, with the diameter where the model was trained so."""
        fused = self.fuse(probabilities)
        weights = self.size_weights
        return fused if weights is None else add_size(fused, diameters_mm, weights)

    def prediction_table(self, cohort: Cohort) -> pd.DataFrame:
        """Predict a whole cohort, one row a nodule.

        Returns:
            nodule_id, view_0 to view_8 (those there are), fused, and label where it is known.
        """
        probabilities = self.predict(cohort)
        columns = {f"view_{v}": probabilities[:, i] for i, v in enumerate(self.config.views)}
        table = cohort.nodules[["nodule_id"]].reset_index(drop=True)
        fused = self.fuse_with_size(probabilities, diameters(cohort, self.config))
        return table.assign(**columns, fused=fused,
                            label=cohort.nodules["label"].to_numpy())  # fmt: skip

    def reconstruct(self, cohort: Cohort, indices: ArrayLike) -> NDArray[np.float32]:
        """Compute (n, views, 64, 64) reconstructions in [0, 1]; an ST-CNN is an InputError."""
        network, rows = self.config.network, np.asarray(indices, dtype=np.int64)
        if not network.reconstructs:
            raise InputError(f"{network.name} reconstructs nothing; train with model='mt'")
        images = [reconstruct_view(one, cohort.views[rows, view], self.device)
                  for view, one in self._by_view() if isinstance(one, STCNN)]  # fmt: skip
        return np.stack(images, axis=1)

    def save(self, folder: str | Path) -> None:
        """Write config, weights (safetensors) and learning curves to a folder, whole or not at all.

        A folder that holds something else than a model is an InputError.
        """
        with whole_folder(Path(folder), _check_place) as new:
            for view, network in self._by_view():
                state = network.state() if isinstance(network, Rival) else network.state_dict()
                tensors = {k: torch.as_tensor(v).contiguous().cpu() for k, v in state.items()}
                (new / f"view_{view}.safetensors").write_bytes(save(tensors))
            write_csv(new / "history.csv", self.history)
            values = {"format": _FORMAT, "labkit": __version__, "config": self.config.as_dict(),
                      "view_auc": list(self.view_auc), "prior_shift": self.prior_shift,
                      "size_weights": self.size_weights and list(self.size_weights)}  # fmt: skip
            write_json(new / "model.json", {**values, "sha256": _checksums(new, values)})

    def _by_view(self) -> Iterator[tuple[int, STCNN | Rival]]:
        return zip(self.config.views, self.networks, strict=True)


def _check_place(folder: Path) -> None:
    require_own_folder(
        folder, "model.json", "a model",
        lambda name, _: name == "history.csv" or Path(name).match("view_*.safetensors"),
    )  # fmt: skip


def require_model_place(folder: Path, config: TrainingConfig) -> None:
    """Refuse a place where a model could not be saved, before it is trained for hours."""
    weights = [] if config.network.whole else [*build_network(config).parameters()]
    needs = 4 * len(config.views) * sum(w.numel() for w in weights)
    require_place(folder, _check_place, needs)


def _checksums(folder: Path, values: dict[str, Any]) -> dict[str, str]:
    """Compute checksums of a model's files, and of what model.json says beside them."""
    said = json.dumps({k: v for k, v in values.items() if k != "sha256"}, sort_keys=True)
    files = [*sorted(folder.glob("view_*.safetensors")), *folder.glob("history.csv")]
    own = hashlib.sha256(said.encode()).hexdigest()
    return {"model.json": own, **{file.name: sha256(file) for file in files}}


def load(folder: str | Path, device: str = "auto") -> NineViewModel:
    """Read a model that `NineViewModel.save` wrote; InputError if it is none, or damaged."""
    folder = Path(folder)
    values = read_json(folder / "model.json", "a labkit model")
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise InputError(f"{folder}/model.json: not a model of this version ({_FORMAT})")
    noted, found = values.get("sha256"), _checksums(folder, values)
    for name, content in {"model.json": "", **(noted if isinstance(noted, dict) else {})}.items():
        if found.get(name) != content:
            why = "damaged or changed since it was written" if name in found else "missing"
            raise InputError(f"{folder / name}: {why}; train the model again")
    config = TrainingConfig.from_dict(values["config"])
    chosen, networks, shift = Device.choose(device, config.precision), [], values["prior_shift"]
    for view in config.views:
        weights = load_file(folder / f"view_{view}.safetensors")
        if config.network.whole:
            rival = config.network.build(config=config, device=chosen, seed=config.seed)
            rival.restore({name: of.numpy() for name, of in weights.items()})
            rival.prior_shift = shift
            networks.append(rival)
            continue
        network = build_network(config)
        network.load_state_dict(weights)
        chosen.place(network)
        networks.append(network.eval())
    history, aucs = pd.read_csv(folder / "history.csv"), tuple(values["view_auc"])
    of_size = values["size_weights"] and tuple(values["size_weights"])
    return NineViewModel(config, tuple(networks), aucs, history, chosen, shift, of_size)


def fit(
    cohort: Cohort, indices: ArrayLike, config: TrainingConfig, *, device: str = "auto",
    place: tuple[int, ...] = (), jobs: int | None = None, progress: bool = True,
    live: str | Path | None = None,
) -> NineViewModel:  # fmt: skip
    """Train one network a view on labelled nodules of a cohort.

    Part of the patients is held out for early stopping and for the fusion weights.

    Args:
        cohort, indices, config: where the views are, labelled rows of it, and the protocol.
        device: "auto", "cpu" or "cuda".
        place: distinguishes runs that share `config.seed`, such as (repeat, fold).
        jobs: processes on a CPU; None takes one a core. A GPU trains all networks side by side.
        progress: show a bar.
        live: folder in which its epochs are noted as they come, for `plots.live.curves`.

    Raises:
        InputError: unlabelled rows, or too few to hold any out.
        FloatingPointError: a network's loss is no longer a number.
    """
    rows = np.asarray(indices, dtype=np.int64)
    if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= len(cohort):
        raise InputError(f"rows must be numbers from 0 to {len(cohort) - 1} of the cohort")
    unlabelled = int(cohort.nodules["label"].iloc[rows].isna().sum())
    if unlabelled:
        raise InputError(f"{unlabelled} of {len(rows)} nodules have no label (malignancy 3 is "
                         "uncertain); take rows from cohort.labelled")  # fmt: skip
    chosen = Device.choose(device, config.precision)
    train, val = training_and_validation(
        cohort.nodules, rows, config, network_seed(config.seed, *place)
    )
    tasks = [Task(v, train, val, network_seed(config.seed, *place, v)) for v in config.views]
    if live is not None:
        begin(live, [f"view{view}" for view in config.views])
    jobs, whole = min(jobs or default_jobs(chosen), len(tasks)), config.network.whole
    named = {"desc": config.network.name, "unit": "epoch"} if whole else {
        "desc": "training", "unit": "network", "total": len(tasks), "leave": False
    }  # fmt: skip
    results: dict[int, Trained] = {}
    with tqdm(**named, disable=not progress) as bar:

        def note(val_auc: float, **view: int) -> None:
            bar.set_postfix(**view, val_auc=f"{val_auc:.3f}", refresh=False)
            bar.update(1)

        if jobs > 1 and chosen.torch_device.type == "cpu":
            slim = replace(cohort, nodules=cohort.nodules[["label"]], cubes=None)
            calls = [(slim, [task], config, chosen, live) for task in tasks]
            finished: Iterator[tuple[int, Trained]] = run(_train_one_view, calls, jobs)
        else:
            finished = _train_views(cohort, tasks, config, chosen, live, note if whole else None)
        for view, result in finished:
            results[view] = result
            if not whole:
                note(result.val_auc, view=view)
    ordered = [results[view] for view in config.views]
    curves = [pd.DataFrame(results[v].history).assign(view=v) for v in config.views]
    model = NineViewModel(
        config, tuple(r.network for r in ordered), tuple(r.val_auc for r in ordered),
        pd.concat(curves, ignore_index=True), chosen, ordered[0].prior_shift,
    )  # fmt: skip
    if not config.with_size:
        return model
    held_out = val if ordered[0].val_rows is None else ordered[0].val_rows
    said = model.fuse(np.stack([r.val_probability for r in ordered], axis=1))
    mm = diameters(cohort, config)[held_out]
    return replace(model, size_weights=size_weights(said, mm, labels_of(cohort, held_out)))


def _train_views(
    cohort: Cohort, tasks: list[Task], config: TrainingConfig, device: Device,
    live: str | Path | None, of_epoch: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Trained]]:  # fmt: skip
    """Yield each view and its network, as they finish; `of_epoch` is told validation AUCs."""
    notes = {}

    def note(number: int, row: dict[str, Any] | None) -> None:
        if live is not None and row is None:
            notes[number] = writer(live, f"view{tasks[number].view}")
        elif live is not None and row is not None:
            notes[number](row)
        if of_epoch is not None and row is not None:
            of_epoch(row["val_auc"])

    for number, trained in train_tasks(cohort, tasks, config, device, note):
        if isinstance(trained, FloatingPointError):
            raise trained
        view = tasks[number].view
        if live is not None:
            finish(live, f"view{view}", trained.history)
        yield view, trained


def _train_one_view(*arguments: Any) -> tuple[int, Trained]:
    return next(_train_views(*arguments))


def diameters(cohort: Cohort, config: TrainingConfig) -> NDArray[np.float64]:
    """Return (N,) diameters in mm; InputError where `config` needs them and one is missing."""
    mm = pd.to_numeric(cohort.nodules["diameter_mm"], errors="coerce").to_numpy(dtype=float)
    if config.with_size and not (mm > 0).all():
        raise InputError(f"{cohort.folder}: {(~(mm > 0)).sum()} of {len(mm)} nodules have no "
                         f"diameter, which {config.model} needs")  # fmt: skip
    return mm
