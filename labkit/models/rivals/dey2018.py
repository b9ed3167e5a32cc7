"""A 3-D multi-output DenseNet with two pathways (Dey, Lu and Hong, ISBI 2018: MoDenseNet).

What makes it itself: one pathway sees the nodule, the other four times its area; each is three
dense blocks (every layer sees all layers before it); and after every block there is an early output
on both pathways' features, so that the first layers are taught directly (deep supervision).

Decided here: 32x32x8 and 60x60x16 mm, the latter at 2 mm (it took 50x50x5 and 100x100x10 of a
scan's voxels); two layers a block and 8 channels a layer; all outputs weigh alike in the loss, and
the last one is the answer. With so few slices hardly any of air come in, but the tallest nodules
look alike.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.models.rivals import NetworkRival, conv3d

GROWTH, LAYERS, BLOCKS = 8, 2, 3


class DenseBlock(nn.Module):
    """Layers that each see all before them."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv3d(inside + i * GROWTH, GROWTH) for i in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        """Join each layer's channels to its input's."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class DeyNet(nn.Module):
    """Two pathways, three blocks each, an output after each pair of blocks.

    >>> tuple(DeyNet()(torch.zeros(2, 1, 16, 60, 60)).shape)
    (2, 3)
    """

    def __init__(self) -> None:
        super().__init__()
        channels, self.outputs = 12, nn.ModuleList()
        self.near, self.far = (
            nn.ModuleList([conv3d(1, channels, pool=(1, 2, 2))]) for _ in range(2)
        )
        for block in range(BLOCKS):
            # At last within slices: of maps of two slices torch's CPU gives gradients in bf16 that
            # are not numbers.
            shrink = nn.AvgPool3d(((1, 1, 1), (2, 2, 2), (1, 2, 2))[block])
            for pathway in (self.near, self.far):
                pathway.append(nn.Sequential(shrink, DenseBlock(channels)))
            channels += LAYERS * GROWTH
            self.outputs.append(nn.Linear(2 * channels, 1))

    def forward(self, cubes: Tensor) -> Tensor:
        """Compute (n, 3) logits, of the first to the last output."""
        near = self.near[0](cubes[:, :, 4:12, 14:46, 14:46])
        far = self.far[0](F.avg_pool3d(cubes, 2))
        logits = []
        for here, around, output in zip(self.near[1:], self.far[1:], self.outputs, strict=True):
            near, far = here(near), around(far)
            logits.append(output(torch.cat([x.mean((2, 3, 4)) for x in (near, far)], 1)))
        return torch.cat(logits, 1)


class Dey2018(NetworkRival):
    """A two-pathway 3-D DenseNet with early outputs."""

    network, room, size = DeyNet, (18, 64, 64), (16, 60, 60)

    def probability(self, output: Any) -> Tensor:
        return output.float()[:, -1].sigmoid()
