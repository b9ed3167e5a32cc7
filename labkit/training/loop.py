"""Training the network of one view, from weights to early stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import batches
from labkit.training.batches import Pixels
from labkit.training.config import TrainingConfig
from labkit.training.loss import (
    classification_loss,
    classification_losses,
    decayed,
    malignant_probability,
    reconstruction_loss,
)
from labkit.training.machines import Device

# The three-step learning rate (III-D).


def learning_rate(epoch: int, epochs: int, initial: float) -> float:
    """Learning rate of an epoch (counted from 0): the first half, third quarter, last quarter.

    >>> [learning_rate(e, 150, 1e-4) for e in (0, 74, 75, 111, 112, 149)]
    [0.0001, 0.0001, 1e-05, 1e-05, 5e-06, 5e-06]
    """
    if epoch < epochs / 2:
        return initial
    if epoch < int(epochs * 0.75):
        return initial / 10
    return initial / 20


# The course of one network's training: its history, its best epoch, and when to stop.


Row = dict[str, float | int | None]
"""One epoch of a learning curve."""


class Course:
    """How one network has come along; judged on its validation images alone.

    Args:
        config: the protocol.
        val_labels: (n,) of the validation images, 1 malignant.
        train_labels: (n,) of the images it learns from. Where negatives are sampled, the
            validation loss gives the classes the share that training shows, and probabilities are
            brought back to the share that there is.
    """

    def __init__(
        self,
        config: TrainingConfig,
        val_labels: NDArray[np.int64],
        train_labels: NDArray[np.int64],
    ) -> None:
        self._config = config
        self._labels = np.asarray(val_labels, dtype=np.int64)
        self.prior_shift = batches.prior_shift(train_labels, config)
        self._weights: Tensor | None = None
        if config.negatives_per_positive is not None:
            share = batches.shown_share(train_labels, config)
            self._weights = torch.from_numpy(batches.balanced_weights(self._labels, share))
        self._best = math.inf
        self.history: list[Row] = []
        self.best_epoch = -1
        self.best_probability: NDArray[np.float64] = np.empty(0)

    @property
    def epoch(self) -> int:
        """Number of the epoch that comes next, from 0."""
        return len(self.history)

    @property
    def rate(self) -> float:
        """Learning rate of the epoch that comes next."""
        return learning_rate(self.epoch, self._config.epochs, self._config.learning_rate)

    @property
    def done(self) -> bool:
        """Whether training is over: all epochs run, or no better one for `patience` epochs."""
        return self.epoch >= self._config.epochs or (
            self.epoch > 0 and self.epoch - 1 - self.best_epoch >= self._config.patience
        )

    @property
    def best_auc(self) -> float:
        """Validation AUC of the best epoch."""
        return float(self.history[self.best_epoch]["val_auc"] or 0.0)

    def add(
        self, train_cls: float, train_img: float | None, logits: Tensor, lost: str | None = None
    ) -> bool:
        """Take in an epoch.

        Args:
            train_cls, train_img: mean losses of its steps.
            logits: (n, 2) of the validation images after it.
            lost: the batch whose loss was no number, in words, or None.

        Returns:
            whether it is the best so far, whose weights are to be kept.

        Raises:
            FloatingPointError: a loss is no longer a number.
        """
        config, logits = self._config, logits.float().cpu()
        labels = torch.from_numpy(self._labels)
        val_cls = self._loss(logits, labels)
        if lost is not None or not math.isfinite(val_cls):
            raise FloatingPointError(
                f"the loss is not a number in epoch {self.epoch}, "
                f"{lost or 'the validation images'}: lower the learning rate (now {self.rate:g}) "
                "or use fp32"
            )
        shift = logits.new_tensor(batches.class_shift(self.prior_shift, config.output))
        probability = malignant_probability(logits + shift, config.output).double().numpy()
        val_auc = float(roc_auc_score(self._labels, probability))
        value = val_cls if config.monitor == "loss" else -val_auc
        improved = value < self._best
        if improved:
            self._best, self.best_epoch, self.best_probability = value, self.epoch, probability
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": self.rate,
                "train_cls": train_cls,
                "train_img": train_img,
                "val_cls": val_cls,
                "val_auc": val_auc,
            }
        )
        return improved

    def _loss(self, logits: Tensor, labels: Tensor) -> float:
        if self._weights is None:
            return float(classification_loss(logits, labels, self._config.output))
        each = classification_losses(logits, labels, self._config.output)
        return float((each.double() * self._weights).sum())


def epoch_means(losses: Tensor, batch_size: int, shown: int) -> tuple[float, float]:
    """Means of an epoch's losses over its images.

    Args:
        losses: (S, 2) classification and reconstruction loss of every step.
        batch_size: images a step; the last may have fewer.
        shown: images in the epoch.
    """
    sizes = torch.full((len(losses), 1), float(batch_size), dtype=torch.float64)
    sizes[-1] = shown - batch_size * (len(losses) - 1)
    means = (losses.double() * sizes).sum(dim=0) / shown
    return float(means[0]), float(means[1])


def lost_batch(losses: Tensor, sample: Tensor, batch_size: int) -> str | None:
    """The first step whose loss is no number, in words, or None.

    Args:
        losses: (S, 2) of an epoch's steps.
        sample: (shown,) training rows in the order they were shown.
        batch_size: images a step.
    """
    bad = (~losses.isfinite()).any(dim=1).nonzero()
    if not len(bad):
        return None
    first = int(bad[0])
    shown = sample[first * batch_size : (first + 1) * batch_size]
    rows = ", ".join(map(str, shown[:8].tolist()))
    return f"batch {first + 1} of {len(losses)} (training rows {rows}, ...)"


# On a CPU larger batches of images leave the cache between layers.
_PREDICTION_BATCH = {"cpu": 64, "cuda": 1024}


@dataclass(frozen=True)
class Trained:
    """What training one view leaves.

    Args:
        network: with the weights of its best epoch, on the device it was trained on.
        history: one row an epoch: epoch, learning_rate, train_cls, train_img (None for ST-CNN),
            val_cls, val_auc.
        best_epoch: the epoch whose weights were kept.
        val_probability: (n_val,) malignant probability of the inner validation images.
        val_auc: AUC on them: the weight of this view in the fusion (Eq. 4).
        prior_shift: what its log-odds gained, since it was shown another share of positives.
    """

    network: MTCNN | STCNN
    history: list[Row]
    best_epoch: int
    val_probability: NDArray[np.float64]
    val_auc: float
    prior_shift: float = 0.0


def left_by(network: MTCNN | STCNN, course: Course, config: TrainingConfig) -> Trained:
    """What a network leaves at the end of its course, with its log-odds at the true share.

    Args:
        network: with the weights of its best epoch; its log-odds are moved in place.
        course: that it took.
        config: how it was trained.
    """
    batches.move_log_odds(network, course.prior_shift, config.output)
    return Trained(
        network,
        course.history,
        course.best_epoch,
        course.best_probability,
        course.best_auc,
        course.prior_shift,
    )


def build_network(config: TrainingConfig) -> MTCNN | STCNN:
    """The network that a configuration asks for, with weights from torch's current seed."""
    kind = MTCNN if config.model == "mt" else STCNN
    return kind(depth=config.depth, dropout_on=config.dropout_on)


def network_seed(seed: int, *place: int) -> int:
    """A seed for one network, from the run's seed and the network's place (repeat, fold, view).

    ST-CNN and MT-CNN at the same place share it, and with it their first weights, order and
    augmentation, so that comparing them is a paired comparison.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def train_view(
    train_views: Pixels,
    train_labels: NDArray[np.int64],
    val_views: Pixels,
    val_labels: NDArray[np.int64],
    config: TrainingConfig,
    device: Device,
    seed: int,
    on_epoch: Callable[[Row], None] | None = None,
) -> Trained:
    """Train the network of one view and keep the weights of its best validation epoch.

    Args:
        train_views: (n, 76, 76) of the view, int16 HU, or uint8 as LUNA-16's cohorts store it;
            labels: (n,), 1 malignant.
        val_views: the inner validation split, for stopping and for the fusion weight only.
        config: the protocol.
        device: where to compute.
        seed: of this network.
        on_epoch: called with every epoch's row of the history.

    Raises:
        FloatingPointError: the loss is no longer a number.
    """
    order = torch.Generator().manual_seed(seed)
    # Copied, since rows that come from another process may be read-only, which torch warns of.
    x_train = device.tensor(torch.from_numpy(np.array(train_views)))
    y_train = device.tensor(torch.from_numpy(np.asarray(train_labels, dtype=np.int64)))
    course = Course(config, val_labels, train_labels)
    best_state: dict[str, Tensor] = {}
    with device.seeded(seed), device.arithmetic():
        network = build_network(config)
        # Again, so that dropout does not depend on how many weights were drawn before.
        torch.manual_seed(seed)
        device.place(network)
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
        while not course.done:
            for group in optimiser.param_groups:
                group["lr"] = course.rate
            shown = batches.sampling_draw_epoch(train_labels, config, order)
            losses, sample = _one_epoch(network, optimiser, x_train, y_train, config, device, shown)
            cls, img = epoch_means(losses, config.batch_size, len(sample))
            lost = lost_batch(losses, sample, config.batch_size)
            logits = _eval_logits(network, val_views, device)
            if course.add(cls, img if config.model == "mt" else None, logits, lost):
                best_state = copy.deepcopy(network.state_dict())
            if on_epoch is not None:
                on_epoch(course.history[-1])
    network.load_state_dict(best_state)
    network.eval()
    return left_by(network, course, config)


def predict_view(
    network: MTCNN | STCNN,
    views: Pixels,
    config: TrainingConfig,
    device: Device,
) -> NDArray[np.float64]:
    """(n,) malignant probabilities of (n, 76, 76) views in HU, from their plain central crops."""
    if len(views) == 0:
        return np.empty(0)
    return _to_numpy(malignant_probability(_eval_logits(network, views, device), config.output))


def reconstruct_view(network: MTCNN, views: Pixels, device: Device) -> NDArray[np.float32]:
    """(n, 64, 64) reconstructions in [0, 1] of the central crops of (n, 76, 76) views in HU."""
    network.eval()
    images = []
    with torch.inference_mode(), device.arithmetic(), device.autocast():
        for part in _in_batches(views, device):
            x = _plain(part, device)
            images.append(network(x)[1].float().cpu()[:, 0])
    return torch.cat(images).numpy()


def _one_epoch(
    network: MTCNN | STCNN,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    config: TrainingConfig,
    device: Device,
    shown: tuple[batches.Transforms, Tensor],
) -> tuple[Tensor, Tensor]:
    """One pass over plain and transformed images, `shown` as `sampling.draw_epoch` drew them.

    Returns:
        (S, 2) losses of the steps, classification and reconstruction (0 for ST-CNN); and (shown,)
        training rows in the order they were shown.
    """
    transforms, sample = shown
    network.train()
    shrunk = _shrunk(network, config.l2_on) if config.l2 else []
    losses: list[Tensor] = []
    for images, rows in batches.batches(x, transforms, sample, config.batch_size):
        with device.autocast():
            logits, image_logits = network.logits(images)
        cls = classification_loss(logits, y[rows], config.output)
        img = (
            cls.new_zeros(()) if image_logits is None else reconstruction_loss(image_logits, images)
        )
        loss = cls + config.alpha * img
        if shrunk:
            loss = loss + config.l2 * torch.stack([w.square().sum() for w in shrunk]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(torch.stack([cls.detach(), img.detach()]))
    # One look at the device an epoch: a look every step would make the device wait.
    return torch.stack(losses).cpu(), sample


def _shrunk(network: MTCNN | STCNN, l2_on: str) -> list[Tensor]:
    """Weights on which l2 acts."""
    return [p for name, p in network.named_parameters() if decayed(name, l2_on)]


def _in_batches(views: Pixels, device: Device) -> Iterator[Pixels]:
    size = _PREDICTION_BATCH[device.torch_device.type]
    for start in range(0, len(views), size):
        yield views[start : start + size]


def _plain(views: Pixels, device: Device) -> Tensor:
    x = device.tensor(torch.from_numpy(np.array(views)))
    m = batches.MARGIN
    images = batches.window(x[:, None, m : x.shape[1] - m, m : x.shape[2] - m])
    return images.contiguous(memory_format=torch.channels_last)


def _eval_logits(network: MTCNN | STCNN, views: Pixels, device: Device) -> Tensor:
    """Class logits of the plain central crops; the decoder is left out."""
    network.eval()
    with torch.inference_mode(), device.arithmetic(), device.autocast():
        logits = [
            network.classify(network.share(_plain(part, device)))
            for part in _in_batches(views, device)
        ]
    return torch.cat(logits).float()


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()
