"""MT-CNN's idea (Zhai et al. 2020) in three dimensions, to see what nine views cost or gain.

    cube 32 mm -> three times convolution and pooling -> 32 x 4x4x4 -> malignant or not
                                                                    -> the cube again

Encoder, classifier and decoder of MT-CNN with 3-D kernels, fewer filters, batch normalisation,
deconvolutions of stride 2, and alpha 0.3 for the same reconstruction loss. Where a cube holds only
the nodule's own slices and air, the decoder learns to draw the air, and the height of the nodule is
seen from where it begins.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from labkit.models.rivals import NetworkRival, conv3d

ALPHA = 0.3


class MT3DNet(nn.Module):
    """Encoder, classifier and decoder of a cube.

    >>> import torch
    >>> logits, cube = MT3DNet()(torch.zeros(2, 1, 32, 32, 32))
    >>> tuple(logits.shape), tuple(cube.shape)
    ((2, 1), (2, 1, 32, 32, 32))
    """

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(*(conv3d(*w, pool=2) for w in ((1, 8), (8, 16), (16, 32))))
        self.classify = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 4**3, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        self.decode = nn.Sequential(
            nn.ConvTranspose3d(32, 16, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose3d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose3d(8, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute (n, 1) logits, and in training the logits of the (n, 1, 32, 32, 32) cube."""
        code = self.encode(cubes)
        return self.classify(code), self.decode(code) if self.training else cubes


class MT3D(NetworkRival):
    """A 3-D network that classifies a cube and draws it again."""

    network = MT3DNet

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        return ALPHA * F.binary_cross_entropy_with_logits(output[1].float(), images)
