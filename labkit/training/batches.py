"""Translation, rotation and flip of a whole batch on the device (III-D).

Views are stored 76 pixels wide, so that a 64-pixel crop can move by 6 either way over real
tissue. Shift, quarter turn and mirror together only permute pixels: one gather does them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labkit.models.mtcnn import IMAGE_SIZE, MTCNN, STCNN
from labkit.training.config import TrainingConfig

STORED_SIZE = 76
MARGIN = (STORED_SIZE - IMAGE_SIZE) // 2
Pixels = NDArray[np.int16] | NDArray[np.uint8]
"""Views as cohorts store them: int16 HU, or uint8 in LUNA-16's (see `window`)."""


@dataclass(frozen=True)
class Transforms:
    """One transformation an image; all tensors are of shape (n,) and integer.

    Args:
        shift_row: translation in pixels along the rows, -6 to 6.
        shift_col: translation in pixels along the columns.
        turns: quarter turns, counter-clockwise, 0 to 3.
        mirror: 0 none, 1 left-right, 2 up-down; done before turning.
    """

    shift_row: Tensor
    shift_col: Tensor
    turns: Tensor
    mirror: Tensor

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, chosen: Tensor | slice) -> Transforms:
        return Transforms(
            self.shift_row[chosen], self.shift_col[chosen], self.turns[chosen], self.mirror[chosen]
        )

    def to(self, device: torch.device) -> Transforms:
        """The same on another device."""
        return Transforms(
            self.shift_row.to(device),
            self.shift_col.to(device),
            self.turns.to(device),
            self.mirror.to(device),
        )


def identity(n: int) -> Transforms:
    """n times: the plain central crop."""
    zero = torch.zeros(n, dtype=torch.long)
    return Transforms(zero, zero, zero, zero)


def draw(n: int, shift_px: int, generator: torch.Generator, symmetries: str = "all") -> Transforms:
    """Draw n random transformations (III-D).

    Args:
        n: how many.
        shift_px: shifts lie in [-shift_px, shift_px].
        generator: of all that chance decides.
        symmetries: "all" draws a turn of 0, 90, 180 or 270 degrees and a flip (none, left-right,
            up-down) independently, so that all eight symmetries of a square occur. "reflections"
            joins a turn of 90, 180 or 270 degrees with a flip always, as III-D can be read too:
            only mirrored images occur then, and no image as it will be tested.
    """
    least = {"all": 0, "reflections": 1}[symmetries]

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (n,), generator=generator)

    return Transforms(
        integers(-shift_px, shift_px),
        integers(-shift_px, shift_px),
        integers(least, 3),
        integers(least, 2),
    )


def draw_epoch(
    n: int, config: TrainingConfig, generator: torch.Generator
) -> tuple[Transforms, Tensor]:
    """Draw what one epoch shows of n images, in order (III-D).

    Args:
        n: images.
        config: the protocol, of which `augmented_copies`, `plain_copy`, `shift_px` and
            `symmetries` matter here.
        generator: of all that chance decides.

    Returns:
        a transformation for every image shown, and which of the n it is.
    """
    shown = n * (int(config.plain_copy) + config.augmented_copies)
    plain = torch.arange(shown) < (n if config.plain_copy else 0)
    changed = draw(shown, config.shift_px, generator, config.symmetries)
    still = identity(shown)
    transforms = Transforms(
        *(
            torch.where(plain, getattr(still, name), getattr(changed, name))
            for name in ("shift_row", "shift_col", "turns", "mirror")
        )
    )
    order = torch.randperm(shown, generator=generator)
    return transforms[order], order % n


def batches(
    views_hu: Tensor, transforms: Transforms, sample: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's images step by step, made on the device where the views are.

    Args:
        views_hu: (n, 76, 76) int16 HU, or uint8 (see `window`).
        transforms: one an image shown, on any device.
        sample: (shown,) which of the n each shows.
        batch_size: images a step; the last may have fewer.

    Yields:
        (B, 1, 64, 64) images in [0, 1], channels last; and (B,) rows that they show.
    """
    transforms, sample = transforms.to(views_hu.device), sample.to(views_hu.device)
    for start in range(0, len(sample), batch_size):
        batch = slice(start, start + batch_size)
        images = apply(views_hu[sample[batch]], transforms[batch])
        yield images.contiguous(memory_format=torch.channels_last), sample[batch]


def apply(views_hu: Tensor, transforms: Transforms) -> Tensor:
    """Crop, shift, turn and mirror every image, then window it.

    Args:
        views_hu: (n, 76, 76) int16 HU, or uint8 (see `window`).
        transforms: n transformations, on the same device.

    Returns:
        (n, 1, 64, 64) float32 in [0, 1].
    """
    flat = source_pixels(transforms)
    pixels = views_hu.reshape(len(flat), -1).gather(1, flat)
    return window(pixels.view(len(flat), 1, IMAGE_SIZE, IMAGE_SIZE))


def source_pixels(transforms: Transforms) -> Tensor:
    """(n, 4096): the stored pixel, counted along rows of 76, that each pixel of an image shows.

    A quarter turn swaps rows and columns, and mirrors; what a pixel's row adds to its source does
    not depend on its column. So two short vectors an image, added in a grid, say it all.
    """
    turns, mirror = transforms.turns.unsqueeze(1), transforms.mirror.unsqueeze(1)
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
    row_side = ((row_side + 1) // 2 + half + transforms.shift_row.unsqueeze(1)) * STORED_SIZE
    col_side = (col_side + 1) // 2 + half + transforms.shift_col.unsqueeze(1)
    of_row = torch.where(odd, col_side, row_side)
    of_col = torch.where(odd, row_side, col_side)
    return (of_row.unsqueeze(2) + of_col.unsqueeze(1)).flatten(1)


def window(hu: Tensor) -> Tensor:
    """Rescale (-1000, 400) HU to (0, 1), clipped, as float32 (III-A).

    Images of 8 bits (LUNA-16's cohorts) were windowed when they were stored.
    """
    if hu.dtype == torch.uint8:
        return hu.float() / 255.0
    return ((hu.float() + 1000.0) / 1400.0).clamp_(0, 1)


# What an epoch shows when one class is rare: all positives, and negatives drawn afresh.
#
# LUNA-16 has one nodule in five hundred candidates. A network that sees them as they come learns to
# say no. So an epoch shows every positive plain and transformed, and for each of these images a
# stated number of negatives, plain, drawn anew from all of them (III-D augments positives only).
# The
# network then believes in the share of positives that it was shown; `prior_shift` says by how much
# its log-odds have to move for the share that there is.


MOST_VALIDATION_NEGATIVES = 20
"""For each positive: more would cost time and tell an epoch's loss and AUC no better."""


def shown_images(labels: NDArray[np.int64], config: TrainingConfig) -> int:
    """How many images an epoch shows of training images with these labels."""
    each = int(config.plain_copy) + config.augmented_copies
    if config.negatives_per_positive is None:
        return len(labels) * each
    positives = int((np.asarray(labels) == 1).sum()) * each
    return positives + round(positives * config.negatives_per_positive)


def sampling_draw_epoch(
    labels: NDArray[np.int64], config: TrainingConfig, generator: torch.Generator
) -> tuple[Transforms, Tensor]:
    """What one epoch shows, in order.

    Args:
        labels: (n,) of the training images, 1 positive.
        config: the protocol.
        generator: of all that chance decides.

    Returns:
        a transformation for every image shown, and which of the n it is.
    """
    if config.negatives_per_positive is None:
        return draw_epoch(len(labels), config, generator)
    there = torch.from_numpy(np.asarray(labels) == 1)
    positives, negatives = there.nonzero()[:, 0], (~there).nonzero()[:, 0]
    changed, which = draw_epoch(len(positives), config, generator)
    wanted = shown_images(labels, config) - len(which)
    # Each of them once before any of them twice.
    rounds = math.ceil(wanted / len(negatives))
    drawn = [torch.randperm(len(negatives), generator=generator) for _ in range(rounds)]
    chosen = torch.cat(drawn)[:wanted] if drawn else torch.empty(0, dtype=torch.long)
    still = identity(wanted)
    names = ("shift_row", "shift_col", "turns", "mirror")
    both = Transforms(*(torch.cat([getattr(changed, n), getattr(still, n)]) for n in names))
    order = torch.randperm(len(both), generator=generator)
    sample = torch.cat([positives[which], negatives[chosen]])
    return both[order], sample[order]


def shown_share(labels: NDArray[np.int64], config: TrainingConfig) -> float:
    """Share of positives among the images that an epoch shows.

    >>> labels = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    >>> shown_share(labels, TrainingConfig(negatives_per_positive=3.0))
    0.25
    >>> shown_share(labels, TrainingConfig())
    0.1
    """
    positives = int((np.asarray(labels) == 1).sum())
    if config.negatives_per_positive is None:
        return positives / len(labels)
    shown = positives * (int(config.plain_copy) + config.augmented_copies)
    return shown / shown_images(labels, config)


def prior_shift(labels: NDArray[np.int64], config: TrainingConfig) -> float:
    """What to add to a network's log-odds so that they hold for the share of positives in `labels`.

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
    """What the logits of both classes gain when the log-odds gain `shift`.

    Two sigmoid neurons each state odds of their own; a softmax states one, by their difference.
    """
    each = shift if output == "sigmoid" else shift / 2
    return -each, each


def move_log_odds(network: MTCNN | STCNN, shift: float, output: str) -> None:
    """Shift a network's log-odds for good, by the biases of its last layer."""
    last = network.classify[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(last.bias.new_tensor(class_shift(shift, output)))


def balanced_weights(labels: NDArray[np.int64], positive_share: float) -> NDArray[np.float64]:
    """(n,) weights that sum to 1 and give the positives this share: validation as if sampled."""
    positive = np.asarray(labels) == 1
    return np.where(
        positive,
        positive_share / max(1, positive.sum()),
        (1 - positive_share) / max(1, (~positive).sum()),
    )


def thinned(rows: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Validation rows with all positives and at most so many negatives for each, in order.

    Args:
        rows: of the cohort.
        labels: (n,) of these rows.
        seed: of the choice.
    """
    rows, labels = np.asarray(rows), np.asarray(labels)
    negatives = np.flatnonzero(labels != 1)
    most = MOST_VALIDATION_NEGATIVES * int((labels == 1).sum())
    if len(negatives) <= most:
        return rows
    chosen = np.random.default_rng(seed).choice(negatives, most, replace=False)
    return np.sort(np.concatenate([rows[labels == 1], rows[chosen]]))
