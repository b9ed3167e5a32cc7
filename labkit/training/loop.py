"""Training the network of one view, from first weights to early stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from labkit.models.mtcnn import STCNN
from labkit.training import batches
from labkit.training.batches import Labels, Pixels
from labkit.training.config import EarlyStopping, TrainingConfig, learning_rate
from labkit.training.loss import (
    classification_loss,
    decayed,
    malignant_probability,
    reconstruction_loss,
)
from labkit.training.machines import Device

# On a CPU larger batches of images leave the cache between layers.
_PREDICTION_BATCH = {"cpu": 64, "cuda": 1024}


def network_seed(seed: int, *place: int) -> int:
    """Compute one network's seed, from the run's and the network's place (repeat, fold, view).

    ST-CNN and MT-CNN at the same place share it, and with it their first weights, order and
    augmentation, so that comparing them is a paired comparison.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def build_network(config: TrainingConfig) -> STCNN:
    """Build the network that a configuration names, with weights from torch's current seed."""
    return config.network.build(depth=config.depth, dropout_on=config.dropout_on)


@dataclass(frozen=True)
class Trained:
    """What training one view leaves.

    `history` has a row an epoch: epoch, learning_rate, train_cls, train_img (None for ST-CNN),
    val_cls, val_auc.
    """

    network: Any  # STCNN or Rival, with the weights of its best epoch, on its device
    history: list[dict[str, Any]]
    best_epoch: int
    val_probability: NDArray[np.float64]  # (n_val,) of images that it has not learnt from
    val_auc: float  # on them: the weight of this view in the fusion (Eq. 4)
    prior_shift: float = 0.0  # what its log-odds gained, where negatives were sampled
    val_rows: NDArray[np.int64] | None = None  # which those are; None: the inner validation split


class Validation(EarlyStopping):
    """Early stopping of one network by what it says of the validation images after every epoch.

    Where negatives are sampled, the validation loss gives the classes the share that they have in
    training, and probabilities are brought back to the share that there is in `train_labels`.
    """

    def __init__(self, config: TrainingConfig, val_labels: Labels, train_labels: Labels) -> None:
        super().__init__(config, config.learning_rate)
        self._labels = np.asarray(val_labels, dtype=np.int64)
        self._prior_shift = batches.prior_shift(train_labels, config)
        share = None
        if config.negatives_per_positive is not None:
            share = batches.shown_share(train_labels, config)
        self._weights = None if share is None else batches.balanced_weights(self._labels, share)
        self._probability = np.empty(0)

    def validate(self, losses: Tensor, sample: Tensor, logits: Tensor) -> bool:
        """Add an epoch to the curve; return whether it is the best, whose weights are to be kept.

        Losses and sample are as `train_epochs` yields them, logits (n, 2) of the validation images
        after it. FloatingPointError when a loss is no longer a number.
        """
        config, logits, epoch = self.config, logits.float().cpu(), len(self.history)
        labels = torch.from_numpy(self._labels)
        if self._weights is None:
            val_cls = float(classification_loss(logits, labels, config.output))
        else:
            each = classification_loss(logits, labels, config.output, reduction="none")
            val_cls = float((each.double() * torch.from_numpy(self._weights)).sum())
        lost = (~losses.isfinite()).any(dim=1).nonzero()
        if len(lost) or not math.isfinite(val_cls):
            where = "the validation images"
            if len(lost):
                first, size = int(lost[0]), config.batch_size
                rows = ", ".join(map(str, sample[first * size :][: min(8, size)].tolist()))
                where = f"batch {first + 1} of {len(losses)} (training rows {rows}, ...)"
            raise FloatingPointError(f"the loss is not a number in epoch {epoch}, {where}: lower "
                                     f"the learning rate (now {self.rate:g}) or use fp32"
                                     )  # fmt: skip
        train_cls, train_img = mean_losses(losses, len(sample), config.batch_size)
        shift = logits.new_tensor(batches.class_shift(self._prior_shift, config.output))
        probability = malignant_probability(logits + shift, config.output).double().numpy()
        row = {"epoch": epoch, "learning_rate": self.rate, "train_cls": train_cls,
               "train_img": train_img if config.network.reconstructs else None, "val_cls": val_cls,
               "val_auc": float(roc_auc_score(self._labels, probability))}  # fmt: skip
        if best := self.add(row):
            self._probability = probability
        return best

    def result(self, network: STCNN) -> Trained:
        """Move the best epoch's network to the true share of positives; return what is left."""
        batches.move_log_odds(network, self._prior_shift, self.config.output)
        val_auc = self.history[self.best_epoch]["val_auc"]
        return Trained(network, self.history, self.best_epoch, self._probability, val_auc,
                       self._prior_shift)  # fmt: skip


def mean_losses(losses: Tensor, shown: int, batch_size: int) -> tuple[float, float]:
    """Average an epoch's (S, 2) losses of steps over its images; the last step may have fewer."""
    sizes = torch.full((len(losses), 1), float(batch_size), dtype=torch.float64)
    sizes[-1] = shown - batch_size * (len(losses) - 1)
    cls, img = ((losses.double() * sizes).sum(dim=0) / shown).tolist()
    return cls, img


def train_view(
    train_views: Pixels, train_labels: Labels, val_views: Pixels, val_labels: Labels,
    config: TrainingConfig, device: Device, seed: int,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:  # fmt: skip
    """Train the network of one view and keep the weights of its best validation epoch.

    Views are (n, 76, 76), labels (n,), 1 malignant; validation serves stopping and the fusion
    weight only. `on_epoch` is called with every epoch's row of the history. FloatingPointError when
    the loss is no longer a number.
    """
    stopping = Validation(config, val_labels, train_labels)
    best_state: dict[str, Tensor] = {}
    with device.seeded(seed), device.arithmetic():
        network = begin_network(config, device, seed)
        for losses, sample in train_epochs(
            network, network.parameters(), train_views, train_labels, config, device, seed,
            rate=lambda epoch: stopping.rate,
        ):  # fmt: skip
            if stopping.validate(losses, sample, class_logits(network, val_views, device)):
                best_state = copy.deepcopy(network.state_dict())
            on_epoch(stopping.history[-1])
            if stopping.done:
                break
    network.load_state_dict(best_state)
    return stopping.result(network.eval())


def begin_network(config: TrainingConfig, device: Device, seed: int) -> STCNN:
    """Build a network on its device, with weights and then dropout from `seed`.

    Dropout does not depend on how many weights were drawn before.
    """
    torch.manual_seed(seed)
    network = build_network(config)
    torch.manual_seed(seed)
    device.place(network)
    return network


def train_epochs(
    network: STCNN, parameters: Iterable[nn.Parameter], views: Pixels, labels: Labels,
    config: TrainingConfig, device: Device, seed: int,
    on_step: Callable[[Tensor, Tensor], None] | None = None,
    rate: Callable[[int], float] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Train some parameters of a network epoch by epoch, by Adam (III-D).

    Views are (n, 76, 76), labels (n,), 1 malignant; `seed` is of order and augmentation. `on_step`
    is called with both losses before each step; `rate` gives each epoch's, the printed schedule's
    when it is None.

    Yields:
        (S, 2) losses of an epoch's steps, classification and reconstruction (0 for ST-CNN); and
        (shown,) training images in the order they were shown.
    """
    order = torch.Generator().manual_seed(seed)
    # Copied, since views that come from another process may be read-only, which torch warns of.
    x = device.tensor(torch.from_numpy(np.array(views)))
    y = device.tensor(torch.from_numpy(np.asarray(labels, dtype=np.int64)))
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    rate = rate or (lambda epoch: learning_rate(epoch, config.epochs, config.learning_rate))
    shrunk = [p for name, p in network.named_parameters() if decayed(name, config.l2_on)]
    for epoch in range(config.epochs):
        for group in optimiser.param_groups:
            group["lr"] = rate(epoch)
        network.train()
        losses: list[Tensor] = []
        transforms, sample = batches.draw_epoch(labels, config, order)
        for images, which in batches.batches(x, transforms, sample, config.batch_size):
            with device.autocast():
                logits, image_logits = network.logits(images)
            cls = classification_loss(logits, y[which], config.output)
            img = cls.new_zeros(())
            if image_logits is not None:
                img = reconstruction_loss(image_logits, images)
            if on_step is not None:
                on_step(cls, img)
            loss = cls + config.alpha * img
            if config.l2:
                loss = loss + config.l2 * torch.stack([w.square().sum() for w in shrunk]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(torch.stack([cls.detach(), img.detach()]))
        # One look at the device an epoch: a look every step would make the device wait.
        yield torch.stack(losses).cpu(), sample


def predict_view(
    network: STCNN, views: Pixels, config: TrainingConfig, device: Device
) -> NDArray[np.float64]:
    """Compute (n,) malignant probabilities of (n, 76, 76) views, from their central crops."""
    if len(views) == 0:
        return np.empty(0)
    logits = class_logits(network, views, device)
    return malignant_probability(logits, config.output).double().cpu().numpy()


def reconstruct_view(network: STCNN, views: Pixels, device: Device) -> NDArray[np.float32]:
    """Compute (n, 64, 64) reconstructions in [0, 1] of the central crops of (n, 76, 76) views."""
    return _on_crops(lambda x: network(x)[1].float()[:, 0], network, views, device).cpu().numpy()


def class_logits(network: STCNN, views: Pixels, device: Device) -> Tensor:
    """Compute class logits of the plain central crops; a decoder is left out."""
    return _on_crops(network.class_logits, network, views, device).float()


def _on_crops(
    compute: Callable[[Tensor], Tensor], network: STCNN, views: Pixels, device: Device
) -> Tensor:
    """Compute something of a network for the plain central crops, a batch at a time."""
    network.eval()
    found, inside = [], slice(batches.MARGIN, batches.STORED_SIZE - batches.MARGIN)
    size = _PREDICTION_BATCH[device.torch_device.type]
    with torch.inference_mode(), device.arithmetic(), device.autocast():
        for start in range(0, len(views), size):
            x = device.tensor(torch.from_numpy(np.array(views[start : start + size])))
            images = batches.window(x[:, None, inside, inside])
            found.append(compute(images.contiguous(memory_format=torch.channels_last)))
    return torch.cat(found)
