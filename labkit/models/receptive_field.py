"""Count and measure what one feature of ShareNet sees of the image: its receptive field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError
from labkit.models.mtcnn import IMAGE_SIZE, KERNELS, MAX_DEPTH, STCNN


class Field(NamedTuple):
    """The square that a feature sees, along one axis."""

    size_px: int  # its side
    step_px: int  # from one feature's square to its neighbour's
    first_px: int  # where that of feature 0 begins; negative where it looks over the image's edge

    def of(self, feature: int) -> tuple[int, int]:
        """Return the first pixel that a feature sees, and the one after its last."""
        start = self.first_px + feature * self.step_px
        return start, start + self.size_px


def receptive_field(depth: int) -> Field:
    """Compute the receptive field behind `depth` convolutions, each with its pooling.

    A kernel of k adds k - 1 steps to the field, a pooling one, and doubles the step. Pixels are
    1 mm (III-A).

    Raises:
        InputError: no such depth.

    >>> [receptive_field(depth).size_px for depth in (1, 2, 3, 4, 5)]
    [6, 12, 24, 48, 96]
    """
    if depth not in range(1, MAX_DEPTH + 1):
        raise InputError(f"depth must be 1 to {MAX_DEPTH}, not {depth}")
    size, step, first = 1, 1, 0
    for kernel in KERNELS[:depth]:
        first -= (kernel - 1) // 2 * step  # "same" padding
        size += (kernel - 1) * step + step
        step *= 2
    return Field(size, step, first)


def central(depth: int) -> int:
    """Return the row (and column) of the first feature behind the image's middle."""
    return (IMAGE_SIZE >> depth) // 2


def influence(network: STCNN, images: Tensor) -> NDArray[np.float64]:
    """Measure how much each pixel of images (B, 1, 64, 64) moves the central features.

    Returns:
        (64, 64) mean absolute gradient, summing to one. It is zero outside the receptive field.

    Raises:
        InputError: no feature answers to any image, so that there is no gradient.

    Reference: Luo et al., "Understanding the effective receptive field", NeurIPS 2016.
    """
    place = central(network.depth)
    device = next(network.parameters()).device
    x = images.detach().clone().to(device).requires_grad_()
    features = network.share(x)[:, :, place, place]
    moved = torch.zeros(images.shape[-2:], dtype=torch.float64)
    for channel in features.unbind(1):
        (gradient,) = torch.autograd.grad(channel.sum(), x, retain_graph=True)
        moved += gradient.abs().sum(dim=(0, 1)).double().cpu()
    total = moved.sum()
    if total == 0:
        raise InputError("no central feature answers to these images; give more, or others")
    return (moved / total).numpy()


def reach_px(moved: NDArray[np.float64], depth: int, share: float) -> int:
    """Compute the side of the smallest square about the field's middle that holds a share.

    `moved` (64, 64) is what `influence` gives of a network of this depth.

    >>> even = np.zeros((64, 64)); even[24:48, 24:48] = 1 / 24**2
    >>> reach_px(even, depth=3, share=1.0), reach_px(even, depth=3, share=0.25)
    (24, 12)
    """
    start, end = receptive_field(depth).of(central(depth))
    apart = np.abs(np.arange(len(moved)) - (start + end - 1) / 2)
    far = np.maximum(apart[:, None], apart)
    order = np.argsort(far, axis=None)
    held = np.cumsum(moved.ravel()[order])
    last = min(np.searchsorted(held, share - 1e-9), len(order) - 1)
    return int(2 * far.ravel()[order][last] + 1)
