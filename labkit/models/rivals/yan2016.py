"""Slices, a nodule in 2-D, a nodule in 3-D (Yan et al., ACCV workshops 2016), side by side.

What makes it itself: the same small network three ways. `yan2016-slice` judges every axial slice on
its own, and a nodule by their mean; `yan2016-2d` takes a nodule's slices as channels of one image;
`yan2016-3d` convolves along the scan's axis, too. The paper's question is what the third dimension
adds.

Decided here: 16 slices of 32x32 mm, two convolutions of 3x3(x3) with 16 and 32 filters, each with
batch normalisation and a pooling, then 64 neurons. A slice without anything but air is no slice of
the nodule: the first leaves it out; to the other two it tells the nodule's height, in cubes that
hold only the nodule's own slices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import Floats, NetworkRival, Rows, known_bce

SLICES, SIDE = 16, 32


def _network(dims: int, inside: int) -> nn.Sequential:
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d), (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
    )[dims - 2]  # fmt: skip
    layers: list[nn.Module] = []
    for a, b in ((inside, 16), (16, 32)):
        layers += [conv(a, b, 3, padding=1, bias=False), norm(b), nn.ReLU(), pool(2)]
    flat = 32 * (SIDE // 4) ** 2 * (SLICES // 4 if dims == 3 else 1)
    head = (nn.Flatten(), nn.Dropout(0.5), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 1))
    return nn.Sequential(*layers, *head)


class Yan2D(NetworkRival):
    """A nodule's slices as channels."""

    network: Callable[[], nn.Module] = staticmethod(partial(_network, 2, SLICES))
    room, size = (SLICES, SIDE + 6, SIDE + 6), (SIDE, SIDE)

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        return super().inputs(cohort, rows)[:, 0]


class Yan3D(NetworkRival):
    """A nodule as a volume."""

    network, room = staticmethod(partial(_network, 3, 1)), Yan2D.room
    size = (SLICES, SIDE, SIDE)


class SliceNet(nn.Module):
    """The 2-D network on each slice.

    >>> import torch
    >>> logits, full = SliceNet()(torch.zeros(2, 16, 32, 32))
    >>> tuple(logits.shape), full.sum().item()
    ((2, 16), 0)
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_slice = _network(2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute (n, 16) logits, and whether a slice has more than air."""
        logits = self.of_slice(images.flatten(0, 1)[:, None]).view(images.shape[:2])
        return logits, images.amax((2, 3)) > 0


class YanSlice(Yan2D):
    """Every slice on its own."""

    network = SliceNet

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        logits, full = output
        return known_bce(logits, targets.expand_as(logits).where(full, float("nan")))

    def probability(self, output: Any) -> Tensor:
        logits, full = output
        return (logits.float().sigmoid() * full).sum(1) / full.sum(1).clamp(min=1)
