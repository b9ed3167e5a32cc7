"""Nine trained networks as one classifier: fit, predict, fuse, save and load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

from labkit import __version__
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.io import read_json, sha256, whole_folder, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.models.mtcnn import STCNN
from labkit.training.batches import Labels, Pixels, thinned
from labkit.training.config import TrainingConfig
from labkit.training.loop import (
    Trained,
    build_network,
    network_seed,
    predict_view,
    reconstruct_view,
)
from labkit.training.machines import Device, default_jobs, run
from labkit.training.progress import begin, finish, writer
from labkit.training.side_by_side import Task, train_many

_FORMAT = "labkit nine-view model 2"


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
        raise InputError(
            f"{len(indices)} nodules of {count} patients ({smallest} in the rarer class) are too "
            "few to hold a validation split out; use more nodules or fewer folds"
        )
    folds = min(max(2, min(round(1 / fraction), count)), smallest)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, val in splitter.split(labels, labels, patients):
        if len(np.unique(labels[train])) == len(np.unique(labels[val])) == 2:
            return np.sort(indices[train]), np.sort(indices[val])
    raise InputError(
        "no split by patient has both classes in training and validation; use more nodules"
    )


def labels_of(cohort: Cohort, rows: Labels) -> Labels:
    """Return (n,) labels of labelled rows: 1 malignant, or a nodule in LUNA-16."""
    return cohort.nodules["label"].iloc[rows].to_numpy(dtype=np.int64)


@dataclass(frozen=True)
class NineViewModel:
    """One trained network a view, and the weights that fuse them."""

    config: TrainingConfig  # how they were trained, and of which views, in order
    networks: tuple[STCNN, ...]
    view_auc: tuple[float, ...]  # of each on the inner validation split
    history: pd.DataFrame  # learning curves, one row a view and epoch
    device: Device  # where predictions are computed
    prior_shift: float = 0.0  # what their log-odds gained, where negatives were sampled

    @property
    def weights(self) -> NDArray[np.float64]:
        """(views,) fusion weights, summing to one (Algorithm 1, line 7)."""
        return auc_weights(self.view_auc)

    def predict(self, cohort: Cohort, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Compute (n, views) malignant probabilities of these rows of a cohort, or of all of it."""
        rows = np.arange(len(cohort)) if indices is None else np.asarray(indices, dtype=np.int64)
        columns = [predict_view(network, cohort.views[rows, view], self.config, self.device)
                   for view, network in self._by_view()]  # fmt: skip
        return np.stack(columns, axis=1)

    def fuse(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Compute (n,) fused probabilities from (n, views) (Eq. 4)."""
        return fuse(probabilities, self.weights, self.prior_shift)

    def prediction_table(self, cohort: Cohort) -> pd.DataFrame:
        """Predict a whole cohort, one row a nodule.

        Returns:
            nodule_id, view_0 to view_8 (those there are), fused, and label where it is known.
        """
        probabilities = self.predict(cohort)
        columns = {f"view_{v}": probabilities[:, i] for i, v in enumerate(self.config.views)}
        table = cohort.nodules[["nodule_id"]].reset_index(drop=True)
        return table.assign(**columns, fused=self.fuse(probabilities),
                            label=cohort.nodules["label"].to_numpy())  # fmt: skip

    def reconstruct(self, cohort: Cohort, indices: ArrayLike) -> NDArray[np.float32]:
        """Compute (n, views, 64, 64) reconstructions in [0, 1]; an ST-CNN is an InputError."""
        network, rows = self.config.network, np.asarray(indices, dtype=np.int64)
        if not network.reconstructs:
            raise InputError(f"{network.name} reconstructs nothing; train with model='mt'")
        images = [reconstruct_view(one, cohort.views[rows, view], self.device)
                  for view, one in self._by_view()]  # fmt: skip
        return np.stack(images, axis=1)

    def save(self, folder: str | Path) -> None:
        """Write config, weights (safetensors) and learning curves to a folder, whole or not at all.

        A folder that holds something else than a model is an InputError.
        """

        def check(there: Path) -> None:
            if there.exists() and not (there / "model.json").is_file() and any(there.iterdir()):
                raise InputError(f"{there}: not empty and not a model; choose another --out")

        with whole_folder(Path(folder), check) as new:
            for view, network in self._by_view():
                state = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
                save_file(state, new / f"view_{view}.safetensors")
            write_csv(new / "history.csv", self.history)
            values = {"format": _FORMAT, "labkit": __version__, "config": self.config.as_dict(),
                      "view_auc": list(self.view_auc), "prior_shift": self.prior_shift}  # fmt: skip
            write_json(new / "model.json", {**values, "sha256": _checksums(new, values)})

    def _by_view(self) -> Iterator[tuple[int, STCNN]]:
        return zip(self.config.views, self.networks, strict=True)


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
    chosen, networks = Device.choose(device, config.precision), []
    for view in config.views:
        network = build_network(config)
        network.load_state_dict(load_file(folder / f"view_{view}.safetensors"))
        chosen.place(network)
        networks.append(network.eval())
    history = pd.read_csv(folder / "history.csv")
    aucs, shift = tuple(values["view_auc"]), float(values["prior_shift"])
    return NineViewModel(config, tuple(networks), aucs, history, chosen, shift)


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
    labels = cohort.nodules["label"].fillna(0).to_numpy(dtype=np.int64)
    if live is not None:
        begin(live, [f"view{view}" for view in config.views])
    jobs = min(jobs or default_jobs(chosen), len(tasks))
    one_a_call = jobs > 1 and chosen.torch_device.type == "cpu"
    calls = [(cohort.views, labels, some, config, chosen, live)
             for some in ([[task] for task in tasks] if one_a_call else [tasks])]  # fmt: skip
    finished = run(_train_one_view, calls, jobs) if one_a_call else _train_views(*calls[0])
    results: dict[int, Trained] = {}
    with tqdm(finished, "training", len(tasks), False, unit="network", disable=not progress) as bar:
        for view, result in bar:
            results[view] = result
            bar.set_postfix(view=view, val_auc=f"{result.val_auc:.3f}", refresh=False)
    ordered = [results[view] for view in config.views]
    curves = [pd.DataFrame(results[v].history).assign(view=v) for v in config.views]
    networks, aucs = tuple(r.network for r in ordered), tuple(r.val_auc for r in ordered)
    history = pd.concat(curves, ignore_index=True)
    return NineViewModel(config, networks, aucs, history, chosen, ordered[0].prior_shift)


def _train_views(
    views: Pixels, labels: Labels, tasks: list[Task], config: TrainingConfig, device: Device,
    live: str | Path | None,
) -> Iterator[tuple[int, Trained]]:  # fmt: skip
    """Yield each view and its network, as they finish."""
    notes = {}

    def note(number: int, row: dict[str, Any] | None) -> None:
        if live is not None and row is None:
            notes[number] = writer(live, f"view{tasks[number].view}")
        elif live is not None and row is not None:
            notes[number](row)

    for number, trained in train_many(views, labels, tasks, config, device, note):
        if isinstance(trained, FloatingPointError):
            raise trained
        view = tasks[number].view
        if live is not None:
            finish(live, f"view{view}", trained.history)
        yield view, trained


def _train_one_view(*arguments: Any) -> tuple[int, Trained]:
    return next(_train_views(*arguments))
