"""HSCNN: a hierarchical semantic CNN (Shen et al., Expert Systems with Applications 128, 2019).

What makes it itself: two modules of two 3-D convolutions see the nodule; five branches learn what
readers say of it (calcification, margin, subtlety, texture, sphericity, each yes or no), and their
hidden layers feed the malignancy beside the features themselves: a diagnosis that can be read. The
losses are weighted 0.1, 0.1, 0.2, 0.2, 0.1, and 1 for malignancy.

Decided here: the weights in the order above; yes is a mean rating above 3, of calcification one of
5 or less (6 is none); 32 mm in place of 52, 8 and 16 filters, branches of 64 and 16 neurons, so
that it trains on a CPU. Attributes are learnt from readers' ratings of training nodules alone, and
left out of the loss where there are none. Cubes of the nodule's own slices hide the margin of its
poles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import Floats, NetworkRival, Rows, conv3d, known_bce, mean_ratings

WEIGHTS = {"calcification": 0.1, "margin": 0.1, "subtlety": 0.2, "texture": 0.2, "sphericity": 0.1}


def _branch(inside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inside, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 16), nn.ReLU()
    )


class HSCNNNet(nn.Module):
    """Features, five attributes, malignancy.

    >>> tuple(HSCNNNet()(torch.zeros(2, 1, 32, 32, 32)).shape)
    (2, 6)
    """

    def __init__(self) -> None:
        super().__init__()
        flat = 16 * 8**3
        self.features = nn.Sequential(
            conv3d(1, 8), conv3d(8, 8, pool=2), conv3d(8, 16), conv3d(16, 16, pool=2), nn.Flatten()
        )
        self.branches = nn.ModuleList(_branch(flat) for _ in WEIGHTS)
        self.attributes = nn.ModuleList(nn.Linear(16, 1) for _ in WEIGHTS)
        self.malignancy = nn.Sequential(_branch(flat + 16 * len(WEIGHTS)), nn.Linear(16, 1))

    def forward(self, cubes: Tensor) -> Tensor:
        """Compute (n, 6) logits: malignancy and the five attributes."""
        seen = self.features(cubes)
        hidden = [branch(seen) for branch in self.branches]
        said = [say(of) for say, of in zip(self.attributes, hidden, strict=True)]
        return torch.cat([self.malignancy(torch.cat([seen, *hidden], 1)), *said], 1)


class HSCNN(NetworkRival):
    """A 3-D network whose malignancy follows from attributes that a reader would name."""

    network = HSCNNNet

    def targets(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return (n, 6) zeros and ones: malignancy and the five attributes."""
        rated = mean_ratings(cohort, list(WEIGHTS))[rows]
        calcified = np.arange(len(WEIGHTS)) == 0
        yes = np.where(calcified, rated <= 5, rated > 3).astype(np.float32)
        yes[np.isnan(rated)] = np.nan
        return np.column_stack([super().targets(cohort, rows), yes])

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        return known_bce(output[:, :1], targets[:, :1])

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        return sum(
            weight * known_bce(output[:, i], targets[:, i])
            for i, weight in enumerate(WEIGHTS.values(), 1)
        )
