"""Multilevel contextual 3-D CNNs (Dou et al., IEEE Trans. Biomed. Eng. 64, 2017).

What makes it itself: three 3-D networks see the same place with ever more around it, 20x20x6,
30x30x10 and 40x40x26 voxels, and their probabilities are fused by fixed weights, 0.3, 0.4 and 0.3.
It won LUNA-16's false positive reduction; here it tells malignant from benign nodules. Layers as
printed: three "valid" convolutions of 5x5x3 (the last of the smallest 5x5x1), a pooling after the
first one of the larger two, fully connected layers of 150, 250 and 250 neurons, dropout 0.2.

Decided here: voxels of 1 mm (it took the scan's own); a quarter of its 64 filters, so that it
trains on a CPU; Adam in place of gradient descent. The sum of the three losses trains each network
as if alone, only that all stop at once. Slices of air beside a nodule's own reach it mostly in the
third network, of 26 slices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from labkit.models.rivals import NetworkRival

FUSION = (0.3, 0.4, 0.3)
# Shape (z, y, x), pooling after the first convolution, depth of the last kernel, neurons.
LEVELS = (
    ((6, 20, 20), (1, 1, 1), 1, 150),
    ((10, 30, 30), (1, 2, 2), 3, 250),
    ((26, 40, 40), (2, 2, 2), 3, 250),
)


class DouNet(nn.Module):
    """Three networks of three scopes.

    >>> tuple(DouNet()(torch.zeros(2, 1, 26, 40, 40)).shape)
    (2, 3)
    """

    def __init__(self, filters: int = 16) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for shape, pool, last, neurons in LEVELS:
            body = nn.Sequential(
                nn.Conv3d(1, filters, (3, 5, 5)), nn.ReLU(), nn.MaxPool3d(pool),
                nn.Conv3d(filters, filters, (3, 5, 5)), nn.ReLU(),
                nn.Conv3d(filters, filters, (last, 5, 5)), nn.ReLU(), nn.Flatten(),
            )  # fmt: skip
            flat = body(torch.zeros(1, 1, *shape)).shape[1]
            self.levels.append(nn.Sequential(
                body, nn.Linear(flat, neurons), nn.ReLU(), nn.Dropout(0.2), nn.Linear(neurons, 1)
            ))  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, cubes: Tensor) -> Tensor:
        """Compute (n, 3) logits of the smallest to the largest scope of (n, 1, 26, 40, 40)."""
        logits = []
        for (shape, *_), level in zip(LEVELS, self.levels, strict=True):
            part = cubes
            for axis, size in enumerate(shape, 2):
                part = part.narrow(axis, (part.shape[axis] - size) // 2, size)
            logits.append(level(part))
        return torch.cat(logits, 1)


class Dou2017(NetworkRival):
    """Three 3-D networks with ever more context, fused."""

    network, room, size = DouNet, (28, 44, 44), LEVELS[-1][0]

    def probability(self, output: Any) -> Tensor:
        return output.float().sigmoid() @ output.new_tensor(FUSION, dtype=torch.float32)
