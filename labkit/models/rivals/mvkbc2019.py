"""MV-KBC: multi-view knowledge-based collaboration (Xie et al., IEEE Trans. Med. Imaging 38, 2019).

What makes it itself: nine views, and of each three images, for what is known to matter: the whole
appearance, the texture inside the nodule and nothing else, and its shape as a mask. Each of the 27
has a network of its own; three make a view's opinion, and nine opinions the answer, by weights
learnt with all else under one joint sigmoid. A missed malignant nodule costs twice.

Decided here: a backbone of three convolutions that trains on a CPU, in place of 27 ResNet-50 from
ImageNet; the mask is what exceeds -400 HU and hangs together with the middle, in place of a
U-Net's; patches of 32 mm that keep the size. Images are transformed in training only, after the
validation nodules are set aside (its published code transforms first, so that copies of a nodule
lie on both sides). Slices that are missing cut the mask straight in the oblique views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.imaging.planes import PLANES
from labkit.models.rivals import Floats, NetworkRival, Rows, conv2d, unit, views_hu

VIEWS, SIDE, FEATURES = len(PLANES), 32, 16


def patches(cohort: Cohort, rows: Rows) -> Floats:
    """Return (n, 27, 38, 38) from 0 to 1: nine views' appearance, then texture, then shape."""
    hu = views_hu(cohort, rows, SIDE + 6)
    masks = np.stack([_in_the_middle(image > -400) for image in hu.reshape(-1, *hu.shape[2:])])
    shape = masks.reshape(hu.shape).astype(np.float32)
    return np.concatenate([unit(hu), unit(hu) * shape, shape], axis=1)


def _in_the_middle(dense: Floats) -> Floats:
    """Keep the region that is nearest to the middle."""
    regions, count = ndimage.label(dense)
    if count == 0:
        return dense
    places = np.argwhere(dense)
    nearest = places[np.abs(places - (np.array(dense.shape) - 1) / 2).sum(1).argmin()]
    return regions == regions[tuple(nearest)]


class MVKBCNet(nn.Module):
    """27 small networks and two layers of weights.

    >>> tuple(MVKBCNet()(torch.zeros(2, 27, 32, 32)).shape)
    (2, 1)
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(self._backbone() for _ in range(3 * VIEWS))
        self.opinions = nn.ModuleList(nn.Linear(3 * FEATURES, 1) for _ in range(VIEWS))
        self.weigh = nn.Linear(VIEWS, 1)
        nn.init.ones_(self.weigh.weight)

    def _backbone(self) -> nn.Sequential:
        layers = [layer for of in ((1, 8), (8, 16), (16, 32)) for layer in conv2d(*of)]
        head = (nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * (SIDE // 8) ** 2, FEATURES))
        return nn.Sequential(*layers, *head, nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Compute (n, 1) logits."""
        seen = [net(images[:, i : i + 1]) for i, net in enumerate(self.backbones)]
        opinions = [say(torch.cat(seen[view::VIEWS], 1)) for view, say in enumerate(self.opinions)]
        return self.weigh(torch.cat(opinions, 1))


class MVKBC(NetworkRival):
    """Nine views, each in three images, weighed by a joint sigmoid."""

    network, size = MVKBCNet, (SIDE, SIDE)

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        return patches(cohort, rows)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        double = output.new_tensor([2.0], dtype=torch.float32)
        return F.binary_cross_entropy_with_logits(output.float(), targets, pos_weight=double)
