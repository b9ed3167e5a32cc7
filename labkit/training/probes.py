"""How hard each of the two losses pulls at ShareNet while a network is trained (Eq. 1).

The two losses meet in ShareNet alone: ClsNet gets no gradient from the image, ImgNet none from the
class. What alpha weighs there is not the size of two losses but the size of two gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loop import build_network, epoch_means, learning_rate
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device

# A new ImgNet on top of a ShareNet that is held still: what can be drawn from its features?
#
# MT-CNN's own reconstruction shows what ShareNet and ImgNet learned together. Whether the second
# task
# made ShareNet *keep* something is another question: it is answered by giving other ShareNets,
# ST-CNN's or an untrained one, a decoder as well, trained the same way.


def with_new_decoder(
    network: MTCNN | STCNN,
    views: NDArray[np.int16],
    config: TrainingConfig,
    device: Device,
    seed: int,
) -> MTCNN:
    """The network with a new ImgNet, the only part of it that is trained (Eq. 3).

    It sees as many images as the network did, by the same protocol: batches, augmentation and
    learning rate; there is no early stop. Of one seed, all decoders begin with the same weights
    and see the same images in the same order.

    Args:
        network: whose ShareNet is held still; it is not changed.
        views: (n, 76, 76) HU of the training nodules.
        config: epochs, batches, rates and augmentation.
        device: where to compute.
        seed: of the decoder's weights, the order and the augmentation.

    Returns:
        An MT-CNN in evaluation mode, with the network's own ShareNet and ClsNet.

    Raises:
        InputError: no views.
        FloatingPointError: the loss is no longer a number.
    """
    if len(views) == 0:
        raise InputError("a decoder needs views to learn from; there are none")
    order = torch.Generator().manual_seed(seed)
    stored = device.tensor(torch.from_numpy(np.array(views)))
    with device.seeded(seed), device.arithmetic():
        whole = MTCNN(network.depth)
        own = network.state_dict()
        kept = {k: own.get(k, weight) for k, weight in whole.state_dict().items()}
        fresh = {k: w for k, w in whole.state_dict().items() if k.startswith("reconstruct")}
        whole.load_state_dict(kept | fresh)
        device.place(whole)
        whole.eval()
        optimiser = torch.optim.Adam(
            whole.reconstruct.parameters(), lr=config.learning_rate, fused=True
        )
        for epoch in range(config.epochs):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(epoch, config.epochs, config.learning_rate)
            last = _one_epoch(whole, optimiser, stored, config, device, order)
            if not np.isfinite(last):
                raise FloatingPointError(
                    f"the loss is not a number in epoch {epoch}; try a smaller learning rate"
                )
    return whole


def _one_epoch(
    whole: MTCNN,
    optimiser: torch.optim.Optimizer,
    stored: torch.Tensor,
    config: TrainingConfig,
    device: Device,
    order: torch.Generator,
) -> float:
    """One pass; returns the mean loss of its steps."""
    transforms, sample = batches.draw_epoch(len(stored), config, order)
    losses = []
    for images, _ in batches.batches(stored, transforms, sample, config.batch_size):
        with device.autocast():
            with torch.no_grad():
                features = whole.share(images)
            loss = reconstruction_loss(whole.reconstruct(features), images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


@dataclass(frozen=True)
class Pull:
    """Gradients of both losses on ShareNet's weights.

    Args:
        cls: norm of the gradient of L_cls.
        img: norm of the gradient of L_img, not yet times alpha.
        cosine: of the angle between them: 1 the same way, 0 unrelated, -1 against each other.
    """

    cls: float
    img: float
    cosine: float


def pull(network: MTCNN, images: Tensor, labels: Tensor, output: str = "sigmoid") -> Pull:
    """Both losses' gradients on ShareNet's weights, for one batch and as the network stands.

    Args:
        network: in the mode in which it is to be measured; its own gradients are left alone.
        images: (B, 1, 64, 64) in [0, 1].
        labels: (B,) integers, 1 malignant.
        output: of `classification_loss`.
    """
    logits, image_logits = network.logits(images)
    if image_logits is None:
        raise InputError("ST-CNN has no second loss; measure an MT-CNN")
    cls = classification_loss(logits, labels, output)
    return _pull(cls, reconstruction_loss(image_logits, images), list(network.share.parameters()))


def watch(
    views: NDArray[np.int16],
    labels: NDArray[np.int64],
    config: TrainingConfig,
    device: Device,
    seed: int,
) -> pd.DataFrame:
    """Train one network as `train_view` does and measure the pulls of every epoch's batches.

    Nothing is held out, and training does not stop early: it is for watching.

    Args:
        views: (n, 76, 76) HU of one view.
        labels: (n,), 1 malignant.
        config: the protocol, of an MT-CNN.
        device: where to compute.
        seed: of the network.

    Returns:
        One row an epoch: epoch (0 is the first), train_cls, train_img, and the medians over its
        batches of cls, img and cosine as in `Pull`, each before the step that it leads to.
    """
    if config.model != "mt":
        raise InputError("ST-CNN has no second loss; watch model='mt'")
    if config.l2:
        raise InputError("l2 pulls as well, and is not watched; set l2=0")
    order = torch.Generator().manual_seed(seed)
    x = device.tensor(torch.from_numpy(np.array(views)))
    y = device.tensor(torch.from_numpy(np.asarray(labels, dtype=np.int64)))
    rows = []
    with device.seeded(seed), device.arithmetic():
        network = build_network(config)
        assert isinstance(network, MTCNN)
        torch.manual_seed(seed)  # as `train_view`: dropout does not depend on the weights drawn
        device.place(network)
        network.train()
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
        for epoch in range(config.epochs):
            rate = learning_rate(epoch, config.epochs, config.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate
            steps = _epoch(network, optimiser, x, y, config, device, order)
            shown = len(x) * (config.augmented_copies + config.plain_copy)
            cls, img = epoch_means(torch.tensor(steps)[:, :2], config.batch_size, shown)
            pulls = pd.DataFrame([step[2:] for step in steps], columns=["cls", "img", "cosine"])
            rows.append({"epoch": epoch, "train_cls": cls, "train_img": img, **pulls.median()})
    return pd.DataFrame(rows)


def _epoch(
    network: MTCNN,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    config: TrainingConfig,
    device: Device,
    order: torch.Generator,
) -> list[tuple[float, ...]]:
    """Of each step: both losses, both pulls, their cosine."""
    transforms, sample = batches.draw_epoch(len(x), config, order)
    shared = list(network.share.parameters())
    steps = []
    for images, rows in batches.batches(x, transforms, sample, config.batch_size):
        with device.autocast():
            logits, image_logits = network.logits(images)
        assert image_logits is not None
        cls = classification_loss(logits, y[rows], config.output)
        img = reconstruction_loss(image_logits, images)
        found = _pull(cls, img, shared)
        steps.append((cls.item(), img.item(), *astuple(found)))
        optimiser.zero_grad(set_to_none=True)
        (cls + config.alpha * img).backward()
        optimiser.step()
    return steps


def _pull(cls: Tensor, img: Tensor, weights: Sequence[Tensor]) -> Pull:
    """Gradients of two losses of one forward pass, which is kept for a further walk back."""
    one, two = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)])
        for loss in (cls, img)
    )
    lengths = float(one.norm()), float(two.norm())
    tiny = torch.finfo(torch.float32).tiny
    return Pull(*lengths, float(one @ two) / max(lengths[0] * lengths[1], tiny))
