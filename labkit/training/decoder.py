"""A new ImgNet on top of a ShareNet that is held still: what can be drawn from its features?

MT-CNN's own reconstruction shows what ShareNet and ImgNet learned together. Whether the second task
made ShareNet *keep* something is another question: it is answered by giving other ShareNets,
ST-CNN's or an untrained one, a decoder as well, trained the same way.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import augment
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.loss import reconstruction_loss
from labkit.training.schedule import learning_rate


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
    transforms, sample = augment.draw_epoch(len(stored), config, order)
    losses = []
    for images, _ in augment.batches(stored, transforms, sample, config.batch_size):
        with device.autocast():
            with torch.no_grad():
                features = whole.share(images)
            loss = reconstruction_loss(whole.reconstruct(features), images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())
