"""What chance decides in a network's training, drawn ahead for an epoch at a time.

`loop.train_view` draws as it goes. Networks side by side draw the same numbers from generators of
their own, each from its network's seed and in the same order, so that none depends on another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labkit.training import sampling
from labkit.training.config import TrainingConfig
from labkit.training.stack import FC_WIDTHS

DROPOUT = 0.5


@dataclass(frozen=True)
class Epoch:
    """One epoch of one network; S steps of B images, the last step filled up with image 0.

    Args:
        sample: (S, B), which training image is shown.
        transforms: (S, B, 4), how it is shown: `Transforms` field by field.
        share: (S, B), weight of an image in its step's mean loss: 1 / images, or 0 for filling.
        kept: what dropout keeps behind FC1 and FC2: (S, B, 256) and (S, B, 16) booleans, or None
            where nothing is dropped.
    """

    sample: Tensor
    transforms: Tensor
    share: Tensor
    kept: tuple[Tensor | None, Tensor | None]


def steps_of(labels: NDArray[np.int64], config: TrainingConfig) -> int:
    """Steps in an epoch of training images with these labels."""
    return math.ceil(sampling.shown_images(labels, config) / config.batch_size)


class Chance:
    """The random choices of one network, epoch by epoch.

    Args:
        seed: of the network, as `loop.train_view` takes it.
        labels: (n,) of the images it learns from, 1 positive.
        config: the protocol.
    """

    def __init__(self, seed: int, labels: NDArray[np.int64], config: TrainingConfig) -> None:
        self._labels, self._config = labels, config
        self._order = torch.Generator().manual_seed(seed)
        self._dropout = torch.Generator().manual_seed(seed)

    def epoch(self) -> Epoch:
        """The next epoch."""
        c, b = self._config, self._config.batch_size
        transforms, sample = sampling.draw_epoch(self._labels, c, self._order)
        shown, steps = len(sample), steps_of(self._labels, c)
        fields = torch.stack(
            [transforms.shift_row, transforms.shift_col, transforms.turns, transforms.mirror], dim=1
        )
        sizes = torch.full((steps, 1), b)
        sizes[-1] = shown - b * (steps - 1)
        share = torch.where(torch.arange(b) < sizes, 1.0 / sizes, 0.0)
        return Epoch(
            _filled(sample, steps * b).view(steps, b),
            _filled(fields, steps * b).view(steps, b, 4),
            share,
            self._kept(sizes.flatten().tolist()),
        )

    def _kept(self, sizes: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Step by step in the order in which the layers draw: FC1, then FC2."""
        dropped = (self._config.dropout_on != "none", self._config.dropout_on == "fc1+fc2")
        kept = [
            torch.zeros(len(sizes), self._config.batch_size, width, dtype=torch.bool)
            if drops else None
            for drops, width in zip(dropped, FC_WIDTHS, strict=True)
        ]  # fmt: skip
        for step, size in enumerate(sizes):
            for mask in kept:
                if mask is not None:
                    noise = torch.empty(size, mask.shape[-1])
                    mask[step, :size] = noise.bernoulli_(1 - DROPOUT, generator=self._dropout) > 0
        return kept[0], kept[1]


def _filled(values: Tensor, length: int) -> Tensor:
    """Zeros after the last row, up to a length."""
    rest = values.new_zeros(length - len(values), *values.shape[1:])
    return torch.cat([values, rest])
