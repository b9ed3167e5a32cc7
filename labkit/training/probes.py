"""Two looks into training: how hard each loss pulls at ShareNet, and what a new decoder can draw.

The two losses of Eq. 1 meet in ShareNet alone: what alpha weighs there is two gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training.batches import Labels, Pixels
from labkit.training.config import TrainingConfig
from labkit.training.loop import begin_network, mean_losses, train_epochs
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device


def with_new_decoder(
    network: STCNN, views: Pixels, config: TrainingConfig, device: Device, seed: int
) -> MTCNN:
    """Train a new ImgNet on top of a network that is held still (Eq. 3).

    MT-CNN's own reconstruction shows what ShareNet and ImgNet learned together. Whether the second
    task made ShareNet *keep* something is told by giving other ShareNets, ST-CNN's or an untrained
    one, a decoder as well. Of one seed, all decoders begin with the same weights and see the same
    images in the same order.

    All of `config`'s epochs are trained, on (n, 76, 76) HU. Returns an MT-CNN in evaluation mode,
    with the network's own ShareNet and ClsNet; FloatingPointError when the loss is no longer a
    number.
    """
    if len(views) == 0:
        raise InputError("a decoder needs views to learn from; there are none")
    config = replace(config, alpha=1.0, l2=0.0, negatives_per_positive=None)
    with device.seeded(seed), device.arithmetic():
        whole = MTCNN(network.depth)
        own = {k: w for k, w in network.state_dict().items() if not k.startswith("reconstruct")}
        whole.load_state_dict(own, strict=False)
        device.place(whole)
        whole.requires_grad_(False).reconstruct.requires_grad_(True)
        labels = np.zeros(len(views), dtype=np.int64)
        decoder = whole.reconstruct.parameters()
        curve = train_epochs(whole, decoder, views, labels, config, device, seed)
        for epoch, (losses, _) in enumerate(curve):
            if not losses[:, 1].isfinite().all():
                words = f"the loss is not a number in epoch {epoch}; try a smaller learning rate"
                raise FloatingPointError(words)
    whole.requires_grad_(True).eval()
    return whole


class Pull(NamedTuple):
    """Both losses' gradients on ShareNet's weights."""

    cls: float  # norm of the gradient of L_cls
    img: float  # norm of the gradient of L_img, not yet times alpha
    cosine: float  # of the angle between them: 1 the same way, 0 unrelated, -1 against each other


def pull(network: STCNN, images: Tensor, labels: Tensor) -> Pull:
    """Compute both losses' gradients on ShareNet's weights, for one batch.

    Images are (B, 1, 64, 64) in [0, 1], labels (B,) integers, 1 malignant. The network is measured
    in the mode it is in, and its own gradients are left alone.
    """
    logits, image_logits = network.logits(images)
    if image_logits is None:
        raise InputError("ST-CNN has no second loss; measure an MT-CNN")
    cls = classification_loss(logits, labels)
    return _pull(cls, reconstruction_loss(image_logits, images), list(network.share.parameters()))


def watch(
    views: Pixels, labels: Labels, config: TrainingConfig, device: Device, seed: int
) -> pd.DataFrame:
    """Train one MT-CNN as `train_view` does and measure both losses' gradients in every batch.

    Nothing is held out, and training does not stop early: it is for watching.

    Returns:
        One row an epoch: epoch (0 is the first), train_cls, train_img, and the medians over its
        batches of cls, img and cosine as in `Pull`, each before the step that it leads to.
    """
    if not config.network.reconstructs:
        raise InputError(f"{config.network.name} has no second loss; watch model='mt'")
    if config.l2:
        raise InputError("l2 pulls as well, and is not watched; set l2=0")
    rows, pulls = list[dict[str, float]](), list[Pull]()
    with device.seeded(seed), device.arithmetic():
        network = begin_network(config, device, seed)
        shared = list(network.share.parameters())
        for losses, sample in train_epochs(
            network, network.parameters(), views, labels, config, device, seed,
            on_step=lambda cls, img: pulls.append(_pull(cls, img, shared)),
        ):  # fmt: skip
            cls, img = mean_losses(losses, len(sample), config.batch_size)
            medians = pd.DataFrame(pulls, columns=list(Pull._fields)).median()
            rows.append({"epoch": len(rows), "train_cls": cls, "train_img": img, **medians})
            pulls.clear()
    return pd.DataFrame(rows)


def _pull(cls: Tensor, img: Tensor, weights: Sequence[Tensor]) -> Pull:
    """Compute the gradients of two losses of one forward pass, which is kept."""
    one, two = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)])
        for loss in (cls, img)
    )
    lengths = float(one.norm()), float(two.norm())
    tiny = torch.finfo(torch.float32).tiny
    return Pull(*lengths, float(one @ two) / max(lengths[0] * lengths[1], tiny))
