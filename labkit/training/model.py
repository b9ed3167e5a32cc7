"""Nine trained networks as one classifier: fit, predict, fuse, save and load."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

from labkit import __version__
from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.io import read_json, write_csv, write_json
from labkit.models.fusion import auc_weights, fuse
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import progress as journal
from labkit.training.batches import thinned
from labkit.training.config import TrainingConfig
from labkit.training.loop import (
    Row,
    Trained,
    build_network,
    network_seed,
    predict_view,
    reconstruct_view,
    train_view,
)
from labkit.training.machines import Device, default_jobs, one_thread, side_by_side
from labkit.training.side_by_side import Task, train_many

# Holding patients out: the inner validation split of a training set.


def training_and_validation(
    nodules: pd.DataFrame, indices: NDArray[np.int64], config: TrainingConfig, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`inner_split` as a protocol asks for it: rows to learn from, and rows to stop by.

    Where negatives are sampled, only part of the validation's are kept (`sampling.thinned`).
    """
    train, val = inner_split(nodules, indices, config.validation_fraction, seed)
    if config.negatives_per_positive is None:
        return train, val
    return train, thinned(val, nodules["label"].iloc[val].to_numpy(dtype=np.int64), seed)


def inner_split(
    nodules: pd.DataFrame, indices: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part labelled nodules into training and validation, by patient and stratified by label.

    Args:
        nodules: table with `patient_id` and `label`.
        indices: rows of it to part.
        fraction: share for validation, approximate since patients stay whole: of the few patients
            of a small cohort it is one.
        seed: of the shuffling of patients.

    Returns:
        Sorted training rows and validation rows.

    Raises:
        InputError: too few patients or nodules of one class to have both on both sides.
    """
    indices = np.asarray(indices)
    chosen = nodules.iloc[indices]
    labels = chosen["label"].to_numpy(dtype=int)
    patients = chosen["patient_id"].nunique()
    folds = max(2, min(round(1 / fraction), patients))
    smallest = min(np.bincount(labels, minlength=2))
    if smallest < 2 or patients < 2:
        raise InputError(
            f"{len(indices)} nodules of {patients} patients ({smallest} in the rarer class) are "
            "too few to hold a validation split out; use more nodules or fewer folds"
        )
    splitter = StratifiedGroupKFold(min(folds, smallest), shuffle=True, random_state=seed)
    for train, val in splitter.split(labels, labels, chosen["patient_id"].to_numpy()):
        if len(np.unique(labels[train])) == len(np.unique(labels[val])) == 2:
            return np.sort(indices[train]), np.sort(indices[val])
    raise InputError(
        "no split by patient has both classes in training and validation; use more nodules"
    )


_FORMAT = "labkit nine-view model 1"


@dataclass(frozen=True)
class NineViewModel:
    """One trained network a view, and the weights that fuse them.

    Args:
        config: how they were trained; `config.views` says which views there are, in order.
        networks: one a view.
        view_auc: AUC of each on the inner validation split.
        history: learning curves, one row a view and epoch.
        device: where predictions are computed.
        prior_shift: what the log-odds of each network gained after training, since negatives were
            sampled; 0 where all were shown.
    """

    config: TrainingConfig
    networks: tuple[MTCNN | STCNN, ...]
    view_auc: tuple[float, ...]
    history: pd.DataFrame
    device: Device
    prior_shift: float = 0.0

    @property
    def weights(self) -> NDArray[np.float64]:
        """(views,) fusion weights, summing to one (Algorithm 1, line 7)."""
        return auc_weights(self.view_auc)

    def predict(self, cohort: Cohort, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """(n, views) malignant probabilities of these rows of a cohort, or of all of it."""
        rows = np.arange(len(cohort)) if indices is None else np.asarray(indices, dtype=np.int64)
        columns = [
            predict_view(network, cohort.views[rows, view], self.config, self.device)
            for network, view in zip(self.networks, self.config.views, strict=True)
        ]
        return np.stack(columns, axis=1)

    def fuse(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """(n,) fused probabilities from (n, views) (Eq. 4)."""
        return fuse(probabilities, self.weights, self.prior_shift)

    def prediction_table(self, cohort: Cohort) -> pd.DataFrame:
        """Predictions of a whole cohort, one row a nodule.

        Returns:
            nodule_id, view_0 to view_8 (those there are), fused, and label where it is known.
        """
        probabilities = self.predict(cohort)
        columns = {f"view_{v}": probabilities[:, i] for i, v in enumerate(self.config.views)}
        return pd.DataFrame(
            {
                "nodule_id": cohort.nodules["nodule_id"].to_numpy(),
                **columns,
                "fused": self.fuse(probabilities),
                "label": cohort.nodules["label"].to_numpy(),
            }
        )

    def reconstruct(self, cohort: Cohort, indices: ArrayLike) -> NDArray[np.float32]:
        """(n, views, 64, 64) reconstructions in [0, 1]; only MT-CNN has them.

        Raises:
            InputError: the model is an ST-CNN.
        """
        rows = np.asarray(indices, dtype=np.int64)
        images = []
        for network, view in zip(self.networks, self.config.views, strict=True):
            if not isinstance(network, MTCNN):
                raise InputError("ST-CNN reconstructs nothing; train with model='mt'")
            images.append(reconstruct_view(network, cohort.views[rows, view], self.device))
        return np.stack(images, axis=1)

    def save(self, folder: str | Path) -> None:
        """Write config, weights (safetensors) and learning curves to a new folder, atomically.

        Raises:
            InputError: the folder holds something that is not a model.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "model.json").is_file() and any(folder.iterdir()):
            raise InputError(f"{folder}: not empty and not a model; choose another --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for view, network in zip(self.config.views, self.networks, strict=True):
                state = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
                save_file(state, temporary / f"view_{view}.safetensors")
            write_csv(temporary / "history.csv", self.history)
            write_json(
                temporary / "model.json",
                {
                    "format": _FORMAT,
                    "labkit": __version__,
                    "config": self.config.as_dict(),
                    "view_auc": list(self.view_auc),
                    "prior_shift": self.prior_shift,
                },
            )
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def load(folder: str | Path, device: str = "auto") -> NineViewModel:
    """Read a model that `NineViewModel.save` wrote.

    Raises:
        InputError: not a model, or damaged.
    """
    folder = Path(folder)
    values = read_json(folder / "model.json", "a labkit model")
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise InputError(f"{folder}/model.json: not a model of this version ({_FORMAT})")
    config = TrainingConfig.from_dict(values["config"])
    if len(values["view_auc"]) != len(config.views):
        raise InputError(f"{folder}/model.json: damaged, its weights do not fit its views")
    chosen = Device.choose(device, config.precision)
    networks = tuple(
        load_network(folder / f"view_{v}.safetensors", config, chosen) for v in config.views
    )
    history_file = folder / "history.csv"
    if not history_file.is_file():
        raise InputError(f"{history_file}: missing; the model is damaged, train it again")
    history = pd.read_csv(history_file)
    aucs, shift = tuple(values["view_auc"]), float(values.get("prior_shift", 0.0))
    return NineViewModel(config, networks, aucs, history, chosen, shift)


def load_network(file: Path, config: TrainingConfig, device: Device) -> MTCNN | STCNN:
    """Read one network's weights.

    Raises:
        InputError: missing, damaged, or of another architecture.
    """
    network = build_network(config)
    try:
        network.load_state_dict(load_file(file))
    except FileNotFoundError:
        raise InputError(f"{file}: missing; the model is damaged, train it again") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: damaged or of another network ({reason})") from None
    device.place(network)
    network.eval()
    return network


def fit(
    cohort: Cohort,
    indices: ArrayLike,
    config: TrainingConfig,
    *,
    device: str = "auto",
    place: tuple[int, ...] = (),
    jobs: int | None = None,
    progress: bool = True,
    live: str | Path | None = None,
) -> NineViewModel:
    """Train one network a view on labelled nodules of a cohort.

    Part of the patients is held out for early stopping and for the fusion weights.

    Args:
        cohort: where the views are.
        indices: labelled rows of it.
        config: the protocol.
        device: "auto", "cpu" or "cuda".
        place: distinguishes runs that share `config.seed`, such as (repeat, fold).
        jobs: processes on a CPU; None takes one a core. A GPU trains all networks side by side.
        progress: show a bar.
        live: folder in which its epochs are noted as they come, for `plots.live.curves`.

    Raises:
        InputError: unlabelled rows, or too few to hold any out.
        FloatingPointError: a network's loss is no longer a number.
    """
    rows = labelled_rows(cohort, indices)
    chosen = Device.choose(device, config.precision)
    train, val = training_and_validation(
        cohort.nodules, rows, config, network_seed(config.seed, *place)
    )
    y_train, y_val = labels_of(cohort, train), labels_of(cohort, val)
    jobs = max(1, min(jobs or default_jobs(chosen), len(config.views)))
    folder = None if live is None else Path(live)
    if folder is not None:
        journal.begin(folder, (_name(view) for view in config.views))
    tasks = (
        delayed(_fit_view)(
            view, folder, cohort.views[train, view], y_train, cohort.views[val, view], y_val,
            config, chosen, network_seed(config.seed, *place, view),
        )
        for view in config.views
    )  # fmt: skip
    results: dict[int, Trained] = {}
    with tqdm(
        total=len(config.views), desc="training", unit="network", disable=not progress, leave=False
    ) as bar:
        together = chosen.torch_device.type == "cuda"
        trained = (
            _together(cohort, train, val, config, chosen, place, folder)
            if together else side_by_side(tasks, jobs)
        )  # fmt: skip
        for view, result in trained:
            results[view] = result
            bar.set_postfix(view=view, val_auc=f"{result.val_auc:.3f}", refresh=False)
            bar.update(1)
    ordered = [results[view] for view in config.views]
    history = [
        pd.DataFrame(r.history).assign(view=view)
        for view, r in zip(config.views, ordered, strict=True)
    ]
    return NineViewModel(
        config,
        tuple(r.network for r in ordered),
        tuple(r.val_auc for r in ordered),
        pd.concat(history, ignore_index=True),
        chosen,
        ordered[0].prior_shift,
    )


def _fit_view(view: int, live: Path | None, *arguments: Any) -> tuple[int, Trained]:
    note = None if live is None else journal.writer(live, _name(view))
    with one_thread():
        trained = train_view(*(*arguments, note))
    if live is not None:
        journal.finish(live, _name(view), trained.history)
    return view, trained


def _together(
    cohort: Cohort,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    config: TrainingConfig,
    device: Device,
    place: tuple[int, ...],
    live: Path | None,
) -> Iterator[tuple[int, Trained]]:
    """All views' networks side by side on one device, as they finish."""
    views = config.views
    tasks = [Task(v, train, val, network_seed(config.seed, *place, v)) for v in views]
    notes = {} if live is None else {v: journal.writer(live, _name(v)) for v in views}

    def note(number: int, row: Row) -> None:
        if notes:
            notes[views[number]](row)

    labels = cohort.nodules["label"].fillna(0).to_numpy(dtype=np.int64)
    for number, trained in train_many(cohort.views, labels, tasks, config, device, on_epoch=note):
        if isinstance(trained, FloatingPointError):
            raise trained
        if live is not None:
            journal.finish(live, _name(views[number]), trained.history)
        yield views[number], trained


def _name(view: int) -> str:
    return f"view{view}"


def labels_of(cohort: Cohort, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) labels of labelled rows: 1 malignant, or a nodule in LUNA-16."""
    return cohort.nodules["label"].iloc[rows].to_numpy(dtype=np.int64)


def labelled_rows(cohort: Cohort, indices: ArrayLike) -> NDArray[np.int64]:
    """The rows as integers, checked to be in the cohort and labelled."""
    rows = np.asarray(indices, dtype=np.int64)
    if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= len(cohort):
        raise InputError(f"rows must be numbers from 0 to {len(cohort) - 1} of the cohort")
    missing = cohort.nodules["label"].iloc[rows].isna()
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} of {len(rows)} nodules have no label (malignancy 3 is "
            "uncertain); take rows from cohort.labelled"
        )
    return rows
