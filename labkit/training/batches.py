"""What a network is shown: which images an epoch holds, and how each is shifted, turned, mirrored.

Views are stored 76 pixels wide, so that a 64-pixel crop can move by 6 either way over real tissue.

Where one class is rare (LUNA-16 has one nodule in five hundred candidates) a network that sees them
as they come learns to say no. Then an epoch shows every positive plain and transformed, and for
each of these images a stated number of negatives, plain, drawn anew from all of them (III-D
augments positives only). `prior_shift` says by how much the network's log-odds then have to move.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labkit.models.mtcnn import IMAGE_SIZE, STCNN
from labkit.training.config import TrainingConfig

STORED_SIZE = 76
MARGIN = (STORED_SIZE - IMAGE_SIZE) // 2
MOST_VALIDATION_NEGATIVES = 20
"""For each positive: more would cost time and tell an epoch's loss and AUC no better."""
Pixels = NDArray[np.int16] | NDArray[np.uint8]
"""Views as cohorts store them: (n, ..., 76, 76) int16 HU, or uint8 in LUNA-16's (see `window`)."""
Labels = NDArray[np.int64]
"""(n,), 1 malignant; in LUNA-16, 1 a nodule."""


def draw_transforms(
    n: int, shift_px: int, generator: torch.Generator, symmetries: str = "all"
) -> Tensor:
    """Draw n random transformations (III-D), with `TrainingConfig`'s shifts and symmetries.

    Returns:
        (n, 4) integers: shift along the rows and along the columns, pixels; quarter turns,
        counter-clockwise, 0 to 3; mirror, 0 none, 1 left-right, 2 up-down, done before turning.
        All zeros is the plain central crop.
    """
    least = int(symmetries == "reflections")
    ranges = ((-shift_px, shift_px), (-shift_px, shift_px), (least, 3), (least, 2))
    drawn = [torch.randint(low, high + 1, (n,), generator=generator) for low, high in ranges]
    return torch.stack(drawn, dim=1)


def draw_epoch(
    labels: Labels, config: TrainingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw what one epoch shows of the images with these labels, in order (III-D).

    Returns:
        (shown, 4) transformations, and (shown,) which of the n training images each shows.
    """
    alike = config.negatives_per_positive is None
    positive = torch.from_numpy(np.asarray(labels) == 1)
    images = torch.arange(len(labels)) if alike else positive.nonzero()[:, 0]
    shown = len(images) * config.copies
    transforms = draw_transforms(shown, config.shift_px, generator, config.symmetries)
    if config.plain_copy:
        transforms[: len(images)] = 0
    order = torch.randperm(shown, generator=generator)
    transforms, sample = transforms[order], images[order % len(images)]
    if alike:
        return transforms, sample
    negatives = (~positive).nonzero()[:, 0]
    wanted = shown_images(labels, config) - shown
    # Each of them once before any of them twice.
    rounds = math.ceil(wanted / len(negatives))
    chosen = [torch.randperm(len(negatives), generator=generator) for _ in range(rounds)]
    sample = torch.cat([sample, negatives[torch.cat([order[:0], *chosen])[:wanted]]])
    transforms = torch.cat([transforms, transforms.new_zeros(wanted, 4)])
    order = torch.randperm(len(sample), generator=generator)
    return transforms[order], sample[order]


def batches(
    views_hu: Tensor, transforms: Tensor, sample: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make an epoch's images, as `draw_epoch` drew it, on the device where the views are.

    Yields:
        (B, 1, 64, 64) images in [0, 1], channels last; and (B,) which of the n views they show. The
        last step may have fewer images.
    """
    transforms, sample = transforms.to(views_hu.device), sample.to(views_hu.device)
    for how, which in zip(transforms.split(batch_size), sample.split(batch_size), strict=True):
        yield transformed(views_hu[which], how).contiguous(memory_format=torch.channels_last), which


def transformed(views_hu: Tensor, transforms: Tensor) -> Tensor:
    """Crop, shift, turn and mirror (n, 76, 76) views by (n, 4) numbers of `draw_transforms`.

    A quarter turn swaps rows and columns, and mirrors; what a pixel's row adds to its source does
    not depend on its column. So two short vectors an image, added in a grid, say where all its
    pixels lie among the 76 x 76.

    Returns:
        (n, 1, 64, 64) float32 in [0, 1] (see `window`).
    """
    shift_row, shift_col, turns, mirror = transforms.unsqueeze(2).unbind(1)
    # Twice the distance from the image's centre: integers, and a quarter turn is exact.
    axis = 2 * torch.arange(IMAGE_SIZE, device=turns.device) - (IMAGE_SIZE - 1)
    cosine = (turns == 0).long() - (turns == 2).long()
    sine = (turns == 1).long() - (turns == 3).long()
    across = 1 - 2 * (mirror == 1).long()
    down = 1 - 2 * (mirror == 2).long()
    half = (IMAGE_SIZE - 1) // 2 + MARGIN
    # An even turn keeps rows (sine is 0), an odd one makes them columns (cosine is 0).
    odd = turns % 2 == 1
    row_side = axis * torch.where(odd, sine, cosine) * down
    col_side = axis * torch.where(odd, -sine, cosine) * across
    row_side = ((row_side + 1) // 2 + half + shift_row) * STORED_SIZE
    col_side = (col_side + 1) // 2 + half + shift_col
    of_row = torch.where(odd, col_side, row_side)
    of_col = torch.where(odd, row_side, col_side)
    source = (of_row.unsqueeze(2) + of_col.unsqueeze(1)).flatten(1)
    pixels = views_hu.reshape(len(source), -1).gather(1, source)
    return window(pixels.view(len(source), 1, IMAGE_SIZE, IMAGE_SIZE))


def window(hu: Tensor) -> Tensor:
    """Rescale (-1000, 400) HU to (0, 1), clipped, as float32 (III-A).

    Images of 8 bits (LUNA-16's cohorts) were windowed when they were stored.
    """
    if hu.dtype == torch.uint8:
        return hu.float() / 255.0
    return ((hu.float() + 1000.0) / 1400.0).clamp_(0, 1)


def shown_images(labels: Labels, config: TrainingConfig) -> int:
    """Count the images that an epoch shows of training images with these labels."""
    if config.negatives_per_positive is None:
        return len(labels) * config.copies
    positives = int((np.asarray(labels) == 1).sum()) * config.copies
    return positives + round(positives * config.negatives_per_positive)


def shown_share(labels: Labels, config: TrainingConfig) -> float:
    """Compute the share of positives among the images that an epoch shows.

    >>> labels = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    >>> shown_share(labels, TrainingConfig(negatives_per_positive=3.0))
    0.25
    """
    positives = int((np.asarray(labels) == 1).sum()) * config.copies
    return positives / shown_images(labels, config)


def prior_shift(labels: Labels, config: TrainingConfig) -> float:
    """Compute what a network's log-odds lack to hold for the share of positives in `labels`.

    By Bayes' rule, the odds after seeing an image are the odds before times what the image says;
    only the odds before were changed by the sampling (King and Zeng 2001, "prior correction").

    >>> labels = np.array([1] * 10 + [0] * 990)
    >>> shift = prior_shift(labels, TrainingConfig(negatives_per_positive=1.0))
    >>> bool(np.isclose(1 / (1 + np.exp(-shift)), 0.01))  # a toss-up becomes one in a hundred
    True
    """
    if config.negatives_per_positive is None:
        return 0.0
    true, shown = float(np.mean(np.asarray(labels) == 1)), shown_share(labels, config)
    return math.log(true / (1 - true)) - math.log(shown / (1 - shown))


def class_shift(shift: float, output: str) -> tuple[float, float]:
    """Compute what both classes' logits gain when the log-odds gain `shift`.

    Two sigmoid neurons each state odds of their own; a softmax states one, by their difference.
    """
    each = shift if output == "sigmoid" else shift / 2
    return -each, each


def move_log_odds(network: STCNN, shift: float, output: str) -> None:
    """Shift a network's log-odds for good, by the biases of its last layer."""
    last = cast(nn.Linear, network.classify[-1])
    with torch.no_grad():
        last.bias.add_(last.bias.new_tensor(class_shift(shift, output)))


def balanced_weights(labels: Labels, positive_share: float) -> NDArray[np.float64]:
    """Compute (n,) weights that sum to 1 and give the positives this share."""
    positive = np.asarray(labels) == 1
    own, other = positive_share / max(1, positive.sum()), max(1, (~positive).sum())
    return np.where(positive, own, (1 - positive_share) / other)


def thinned(rows: Labels, labels: Labels, seed: int) -> Labels:
    """Choose validation rows: all positives, and at most so many negatives for each, in order."""
    negatives = np.flatnonzero(labels != 1)
    most = MOST_VALIDATION_NEGATIVES * int((labels == 1).sum())
    if len(negatives) <= most:
        return rows
    chosen = np.random.default_rng(seed).choice(negatives, most, replace=False)
    return np.sort(np.concatenate([rows[labels == 1], rows[chosen]]))
