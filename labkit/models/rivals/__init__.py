"""The methods that Table 1 compares with, each in a file of its own, behind one interface.

A rival sees a nodule whole, not view by view: it is fitted on rows of a cohort (`Rival.fit`),
says a probability for others, and keeps what it has learnt as plain arrays. What it shares with
others is here: a classifier on features (`FeatureRival`), and a network with its training
(`NetworkRival`). It never sees the readers' diameter; `NAME+size` adds it afterwards.

One small budget of hyper-parameters for all: a classifier on features tries at most `TRIALS`, by
AUC in folds inside its training nodules. A network has one setting, as its paper prints it or as
its file says, and nothing of it is searched: its validation nodules choose when it stops.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from labkit.annotations import lidc
from labkit.cohorts.cohort import Cohort

if TYPE_CHECKING:
    from labkit.training.config import TrainingConfig
    from labkit.training.machines import Device

Floats = NDArray[Any]
Rows = NDArray[np.int64]
TRIALS = 8
"""Hyper-parameters that a method may try inside its training nodules, the same for all."""


Report = Callable[[dict[str, Any]], None]


class Split(NamedTuple):
    """Rows of a cohort that a method may look at."""

    train: Rows  # labelled, to learn from
    val: Rows  # labelled, of other patients: to stop by
    uncertain: Rows  # without a label, of patients that are in neither val nor test


class Rival(ABC):
    """A method that classifies whole nodules.

    Args:
        config: the protocol: its epochs, patience and schedule, where the method has a network.
        device: where its networks are trained, and at which precision.
        seed: of everything it draws.
    """

    held_out: pd.Series | None = None
    """Once it is fitted: what it said of labelled nodules, by row, by fits that had not learnt from
    them; None where these are the validation nodules alone."""

    prior_shift = 0.0  # what its log-odds lack, where it learnt from a sample of the negatives

    def __init__(self, config: TrainingConfig, device: Device, seed: int) -> None:
        self.config, self.device, self.seed = config, device, seed

    @abstractmethod
    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        """Learn from a cohort's nodules.

        Returns (n_val,) probabilities of the validation nodules by what did not learn from them.
        `on_epoch` is told each row of the learning curve: `epoch` (from 0), `learning_rate`,
        `train_cls`, `train_img` (None), `val_cls` and `val_auc`; a method without epochs has one.
        """

    @abstractmethod
    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        """Compute (n,) malignant probabilities of these rows."""

    @abstractmethod
    def state(self) -> dict[str, Floats]:
        """Return what was learnt, as arrays by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Floats]) -> None:
        """Take up what `state` returned."""


class FeatureRival(Rival):
    """A classifier on a table of features.

    It has no epochs, so that it learns from training and validation nodules alike. Folds by patient
    inside these choose its hyper-parameters (`grid`) by AUC, and make its score a probability by
    logistic regression (Platt 1999): `cross_fitted` is that of each nodule, by row, from a fit that
    saw no nodule of its patient. What it keeps are its features and what was chosen: a loaded one
    is fitted to them once more.
    """

    grid: Mapping[str, list[Any]] = {}
    _described: ClassVar[dict[tuple[Any, ...], Floats]] = {}

    def images(self, cohort: Cohort) -> Floats:
        """Return what `describe` is given, by row: the cubes (N, 64, 64, 64) HU."""
        return cohort.require_cubes()

    def describe(self, image: Floats) -> Floats:
        """Compute (features,) of one nodule, from its image alone."""
        raise NotImplementedError

    def features(self, cohort: Cohort, rows: Rows) -> Floats:
        """Compute (n, features) of nodules, each but once in a process (`describe`)."""
        images, found = self.images(cohort), []
        sums = [file["sha256"] for name, file in cohort.meta["files"].items() if "npy" in name]
        for row in rows:
            key = (type(self), *sums, int(row))
            if key not in self._described:
                self._described[key] = np.asarray(self.describe(images[row]), dtype=np.float32)
            found.append(self._described[key])
        return np.array(found)

    @abstractmethod
    def estimator(self) -> BaseEstimator:
        """Return an unfitted classifier or regressor of scikit-learn."""

    def target(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return (n,) what is learnt of each nodule: its label, or a number that rises with it."""
        return cohort.nodules["label"].iloc[rows].to_numpy(dtype=float)

    def learns_from(self, split: Split) -> Rows:
        """Return the rows to learn from; those of `split.val` have to be among them."""
        return np.concatenate([split.train, split.val])

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        rows = self.learns_from(split)
        table = cohort.nodules.iloc[rows]
        labels = table["label"].to_numpy(dtype=float)
        x, y = (np.asarray(of(cohort, rows), dtype=float) for of in (self.features, self.target))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        parts = list(folds.split(x, y > y.mean(), table["patient_id"].factorize()[0]))
        self._state, score = {"x": x, "y": y, "trial": np.zeros(1, dtype=int)}, np.empty(len(y))
        if self.grid:
            search = GridSearchCV(self.estimator(), self.grid, scoring=_auc, cv=parts, refit=False)
            self._state["trial"][0] = search.fit(x, y).best_index_
        for train, test in parts:
            score[test] = _score(self._fitted(x[train], y[train]), x[test])
        known, self._chosen = ~np.isnan(labels), self._fitted(x, y)
        platt = LogisticRegression(C=100).fit(score[known, None], labels[known])
        self._state["platt"] = np.append(platt.intercept_, platt.coef_[0])
        said = self._probability(score)
        self.cross_fitted = pd.Series(said, rows)
        self.held_out = self.cross_fitted[known]
        at = pd.Index(rows).get_indexer(pd.Index(split.val))
        on_epoch(only_row(said[at], labels[at]))
        return said[at]

    def _fitted(self, x: Floats, y: Floats) -> Any:
        """Return a classifier of the chosen hyper-parameters that has learnt."""
        estimator: Any = self.estimator()
        if self.grid:
            estimator.set_params(**ParameterGrid(self.grid)[int(self._state["trial"][0])])
        return clone(estimator).fit(x, y)  # the grid's own classifiers stay as they are

    def _probability(self, score: Floats) -> NDArray[np.float64]:
        constant, slope = self._state["platt"]
        return expit(constant + slope * score)

    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        return self._probability(_score(self._chosen, self.features(cohort, rows).astype(float)))

    def state(self) -> dict[str, Floats]:
        return self._state | {"seed": np.array([self.seed])}

    def restore(self, state: Mapping[str, Floats]) -> None:
        self.seed = int(state["seed"][0])
        self._state = {name: state[name] for name in ("x", "y", "trial", "platt")}
        self._chosen = self._fitted(state["x"], state["y"])


def of_features(
    describe: Callable[[Floats], Any], classifier: BaseEstimator | None = None
) -> type[FeatureRival]:
    """Make a method of a function: a cube (64, 64, 64) HU -> numbers, of each nodule as many.

    `classifier` is one of scikit-learn's; None is logistic regression on standardised numbers.
    """
    usual = make_pipeline(StandardScaler(), LogisticRegression())
    chosen = usual if classifier is None else classifier  # a forest without trees is false

    class Own(FeatureRival):
        def describe(self, image: Floats) -> Floats:
            return np.ravel(describe(image))

        def estimator(self) -> BaseEstimator:
            return clone(chosen)

    return Own


def _score(estimator: Any, x: Floats) -> Floats:
    """Return (n,) scores that rise with malignancy."""
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(x))
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(x)[:, 1])
    return np.asarray(estimator.predict(x))


def _auc(estimator: Any, x: Floats, y: Floats) -> float:
    return float(roc_auc_score(y > y.mean(), _score(estimator, x)))


def only_row(said: Floats, labels: Floats) -> dict[str, Any]:
    """Return the learning curve of what has no epochs, from its word on the validation nodules."""
    nothing = dict.fromkeys(("learning_rate", "train_cls", "train_img"))
    return {"epoch": 0, **nothing, **_on_validation(said, labels)}


def _on_validation(said: Floats, labels: Floats) -> dict[str, float]:
    return {"val_cls": float(log_loss(labels, np.clip(said, 1e-7, 1 - 1e-7))),
            "val_auc": float(roc_auc_score(labels, said))}  # fmt: skip


class NetworkRival(Rival):
    """A network and its training, by Adam, with early stopping on the validation nodules.

    Stopping and the learning rate's fall are the protocol's (`config.EarlyStopping`). A method says
    what goes in (`inputs`), the network, its loss and how its output becomes a probability.
    """

    network: Callable[[], nn.Module]  # builds it
    batch_size, learning_rate, weight_decay = 16, 1e-3, 0.0
    room = (38, 38, 38)  # mm of a cube that `inputs` returns
    size: tuple[int, ...] = (32, 32, 32)  # of what its network sees, cut from them
    reflections = False  # whether it says the mean of an image and its three reflections

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return float32 images (n, channels, ...) of nodules: here the middle of their cubes."""
        return unit(cubes_hu(cohort, rows, self.room))[:, None]

    def targets(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return (n, targets) float32 of what is learnt; NaN where it is not known."""
        label = cohort.nodules["label"].iloc[rows]
        return label.to_numpy(dtype=np.float32, na_value=np.nan)[:, None]

    def learns_from(self, split: Split) -> Rows:
        """Return the rows to learn from."""
        return split.train

    def cut(self, images: Tensor, by_lot: bool = False) -> Tensor:
        """Cut images to `size`, from their middle or from a place drawn for the batch."""
        for axis, size in enumerate(self.size, -len(self.size)):
            room = images.shape[axis] - size
            first = int(torch.randint(room + 1, ())) if by_lot else room // 2
            images = images.narrow(axis, first, size)
        return images

    def augment(self, images: Tensor) -> Tensor:
        """Return transformed images: shifted, turned and mirrored within a slice, upside down."""
        images = self.cut(images, by_lot=True)
        for axis in range(2, images.dim()):
            if torch.rand(()) < 0.5:
                images = images.flip(axis)
        return images.transpose(-1, -2) if torch.rand(()) < 0.5 else images

    def logits(self, output: Any) -> Tensor:
        """Return the logits in what the network returns, of several things the first."""
        return output[0] if isinstance(output, tuple) else output

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Compute the classification loss of a batch: cross-entropy, summed over outputs."""
        logits = self.logits(output)
        return logits.shape[1] * known_bce(logits, targets.expand_as(logits))

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        """Compute what is added to the loss, of other tasks."""
        return 0.0

    def probability(self, output: Any) -> Tensor:
        """Compute (n,) malignant probabilities of a batch."""
        return self.logits(output).float()[:, 0].sigmoid()

    def step(self, network: nn.Module, optimiser: Any, images: Tensor, targets: Tensor) -> Tensor:
        """Learn from a batch; return its classification loss."""
        with self.device.autocast():
            output = network(images)
        loss = self.loss(output, targets)
        optimiser.zero_grad(set_to_none=True)
        (loss + self.auxiliary(output, targets, images)).backward()
        optimiser.step()
        return loss.detach()

    def optimiser(self, network: nn.Module) -> Any:
        """Return what changes the weights."""
        return torch.optim.Adam(network.parameters(), self.learning_rate,
                                weight_decay=self.weight_decay)  # fmt: skip

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        rows, place = self.learns_from(split), self.device.torch_device
        images = torch.from_numpy(self.inputs(cohort, rows)).to(place)
        targets = torch.from_numpy(self.targets(cohort, rows)).to(place)
        val = torch.from_numpy(self.inputs(cohort, split.val)).to(place)
        labels = cohort.nodules["label"].iloc[split.val].to_numpy(dtype=float)
        stopping = self.config.early_stopping(self.learning_rate)
        with self.device.seeded(self.seed):
            self._network = self._placed()
            optimiser = self.optimiser(self._network)
            while not stopping.done:
                rate, epoch = stopping.rate, len(stopping.history)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                self._network.train()
                # A last batch of one nodule would have no spread for batch normalisation.
                parts = [p for p in torch.randperm(len(rows)).split(self.batch_size) if len(p) > 1]
                losses = [self.step(self._network, optimiser, self.augment(images[p]), targets[p])
                          for p in parts]  # fmt: skip
                train_cls = float(torch.stack(losses).mean())
                said = self._say(val)
                if not np.isfinite(train_cls) or not np.isfinite(said).all():
                    raise FloatingPointError(
                        f"the loss is not a number in epoch {epoch}: lower the learning rate "
                        f"(now {rate:g}) or use fp32"
                    )
                row = {"epoch": epoch, "learning_rate": rate, "train_cls": train_cls,
                       "train_img": None, **_on_validation(said, labels)}  # fmt: skip
                on_epoch(row)
                if stopping.add(row):
                    weights = copy.deepcopy(self._network.state_dict())
        self._network.load_state_dict(weights)
        return self._say(val)

    def _placed(self) -> nn.Module:
        """Return a new network, channels last, which makes 3-D convolutions much faster."""
        network = self.network().to(self.device.torch_device)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for weight in network.parameters():
            if weight.dim() in formats:
                weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])
        return network

    def _say(self, images: Tensor) -> NDArray[np.float64]:
        self._network.eval()
        with torch.inference_mode():  # at full precision, since bf16 logits would tie
            parts = [self._mean_of_reflections(part) for part in self.cut(images).split(32)]
        return torch.cat(parts).double().cpu().numpy()

    def _mean_of_reflections(self, images: Tensor) -> Tensor:
        axes = ((), (-1,), (-2,), (-1, -2)) if self.reflections else ((),)
        said = [self.probability(self._network(images.flip(axis))) for axis in axes]
        return torch.stack(said).mean(0)

    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        return self._say(torch.from_numpy(self.inputs(cohort, rows)).to(self.device.torch_device))

    def state(self) -> dict[str, Floats]:
        weights = self._network.state_dict().items()
        return {name: of.cpu().contiguous().numpy() for name, of in weights}

    def restore(self, state: Mapping[str, Floats]) -> None:
        self._network = self._placed()
        self._network.load_state_dict({name: torch.from_numpy(of) for name, of in state.items()})


def conv3d(
    inside: int, outside: int, kernel: int = 3, stride: int = 1,
    pool: int | tuple[int, int, int] = 1,
) -> nn.Sequential:  # fmt: skip
    """Build a "same" 3-D convolution, pooling, batch normalisation and ReLU.

    Pooling comes early, where it saves work: it commutes with ReLU, nearly so with the other.
    """
    layer = nn.Conv3d(inside, outside, kernel, stride, kernel // 2, bias=False)
    # Of small cohorts an epoch has few steps, with which the running statistics must keep up.
    pooling = nn.MaxPool3d(pool) if pool != 1 else nn.Identity()
    return nn.Sequential(layer, pooling, nn.BatchNorm3d(outside, momentum=0.3), nn.ReLU())


def conv2d(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    """Build a "same" 2-D convolution, pooling, batch normalisation and ReLU."""
    layer = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.MaxPool2d(2), nn.BatchNorm2d(outside), nn.ReLU())


def known_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of logits where the target, 0 to 1, is known (not NaN)."""
    known = targets.isfinite()
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    of = cross_entropy(logits.float(), targets.nan_to_num(), reduction="none")
    return (of * known).sum() / known.sum().clamp(min=1)


def cubes_hu(cohort: Cohort, rows: Rows, shape: tuple[int, int, int] = (64, 64, 64)) -> Floats:
    """Return (n, *shape) HU around nodules, axes (z, y, x), 1 mm."""
    cubes = cohort.require_cubes()
    part = (slice((64 - size) // 2, (64 + size) // 2) for size in shape)
    return np.asarray(cubes[(slice(None), *part)][rows])


def views_hu(cohort: Cohort, rows: Rows, size: int = 76) -> Floats:
    """Return (n, 9, size, size) HU of nodules' nine views, float32, 1 mm."""
    first = (76 - size) // 2
    views = cohort.views[:, :, first : first + size, first : first + size][rows]
    scale, offset = (1400 / 255, -1000) if views.dtype == np.uint8 else (1, 0)
    return views.astype(np.float32) * scale + offset


def mean_ratings(cohort: Cohort, names: Sequence[str]) -> Floats:
    """Return (N, names) readers' mean ratings of all nodules; NaN where there is none.

    Of nodules of LIDC-IDRI whose cohort has none, they are looked up in its tables.
    """
    table = cohort.nodules[list(names)]
    if table.isna().all(axis=None) and (ids := lidc.lidc_ids(cohort.nodules)).notna().any():
        table = lidc.annotations().groupby("nodule_id")[list(names)].mean().reindex(ids)
    return table.to_numpy(dtype=float)


def unit(hu: Floats) -> Floats:
    """Return HU from -1000 to 400 as float32 from 0 to 1, as Setio et al. (2016) and the paper.

    Images in uint8 are so already, but for a factor (`Cohort.views`).
    """
    if hu.dtype == np.uint8:
        return hu.astype(np.float32) / 255
    return ((np.clip(hu, -1000, 400) + 1000) / 1400).astype(np.float32)
