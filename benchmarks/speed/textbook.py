"""The textbook training loop: what one would write first, and what labkit's engine is held against.

A `Dataset` that transforms one image at a time on the CPU, a `DataLoader`, one network after the
other in float32 and PyTorch's own layout, upsampling and transposed convolution as the paper names
them, and plain Adam. The random choices (order, shifts, turns, flips, first weights) are labkit's,
so that both ways see the same images in the same batches and their numbers can be compared.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, Dataset

from labkit.models.mtcnn import FILTERS, IMAGE_SIZE, KERNELS
from labkit.training import batches
from labkit.training.config import TrainingConfig, learning_rate
from labkit.training.loop import build_network


class AugmentedViews(Dataset):
    """One epoch's images, each cut, flipped and turned when it is asked for.

    `views_hu` is (n, 76, 76) HU of one view, `labels` (n,); `transforms` (shown, 4) are those of
    `batches.draw_transforms`, `sample` which view each of them shows.
    """

    def __init__(
        self, views_hu: NDArray[np.int16], labels: NDArray[np.int64], transforms: Tensor,
        sample: Tensor,
    ) -> None:  # fmt: skip
        self.views_hu, self.labels = views_hu, labels
        self.transforms, self.sample = transforms, sample

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        row = int(self.sample[item])
        shift_row, shift_col, turns, mirror = self.transforms[item].tolist()
        top, left = batches.MARGIN + shift_row, batches.MARGIN + shift_col
        image = self.views_hu[row][top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        if mirror:
            image = np.flip(image, axis=1 if mirror == 1 else 0)
        image = np.rot90(image, turns)
        scaled = np.clip((image.astype(np.float32) + 1000.0) / 1400.0, 0.0, 1.0)
        return torch.from_numpy(scaled.copy())[None], int(self.labels[row])


class TextbookMTCNN(nn.Module):
    """Fig. 3 layer by layer; without `reconstruct` it is the ST-CNN."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        depth, side = config.depth, IMAGE_SIZE >> config.depth
        widths, share, layers = (1, *FILTERS[:depth]), [], []
        for i in range(depth):
            layer = nn.Conv2d(widths[i], widths[i + 1], KERNELS[i], padding=KERNELS[i] // 2)
            share += [layer, nn.ReLU(), nn.MaxPool2d(2)]
        self.share = nn.Sequential(*share)
        self.classify = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[depth] * side * side, 256), nn.ReLU(),
            nn.Dropout(0.5 if config.dropout_on != "none" else 0.0),
            nn.Linear(256, 16), nn.ReLU(),
            nn.Dropout(0.5 if config.dropout_on == "fc1+fc2" else 0.0),
            nn.Linear(16, 2),
        )  # fmt: skip
        for i in reversed(range(depth if config.model == "mt" else 0)):
            half = KERNELS[i] // 2
            layer = nn.ConvTranspose2d(widths[i + 1], widths[i], KERNELS[i], padding=half)
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), layer, *([nn.ReLU()] * (i > 0))]
        self.reconstruct = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits (B, 2), and image logits (B, 1, 64, 64) or ST-CNN's features."""
        features = self.share(images)
        return self.classify(features), self.reconstruct(features)


def train(
    views_hu: NDArray[np.int16], labels: NDArray[np.int64], config: TrainingConfig, seed: int,
    epochs: int,
) -> tuple[TextbookMTCNN, list[float]]:  # fmt: skip
    """Train one network for some of `config.epochs`, with neither validation nor stopping.

    `views_hu` is (n, 76, 76) HU of one view, `labels` (n,); `seed` as `loop.train_view` takes it.
    Returns the network and the loss of every step.
    """
    order, losses = torch.Generator().manual_seed(seed), []
    with torch.random.fork_rng(devices=[]):
        network = TextbookMTCNN(config)
        torch.manual_seed(seed)
        # Labkit's network has the same layers in the same order.
        weights = parameters_to_vector(build_network(config).parameters())
        vector_to_parameters(weights, network.parameters())
        torch.manual_seed(seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        for epoch in range(epochs):
            rate = learning_rate(epoch, config.epochs, config.learning_rate)
            optimiser.param_groups[0]["lr"] = rate
            data = AugmentedViews(views_hu, labels, *batches.draw_epoch(labels, config, order))
            network.train()
            # A generator of its own: a loader draws a seed at every start, and would otherwise
            # take it from the numbers that dropout is drawn from.
            for images, targets in DataLoader(data, config.batch_size, generator=torch.Generator()):
                logits, drawn = network(images)
                loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(targets, 2).float())
                if config.model == "mt":
                    loss = loss + config.alpha * F.binary_cross_entropy_with_logits(drawn, images)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
    return network, losses
