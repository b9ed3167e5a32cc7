"""What an epoch shows when one class is rare: all positives, and negatives drawn afresh.

LUNA-16 has one nodule in five hundred candidates. A network that sees them as they come learns to
say no. So an epoch shows every positive plain and transformed, and for each of these images a
stated number of negatives, plain, drawn anew from all of them (III-D augments positives only). The
network then believes in the share of positives that it was shown; `prior_shift` says by how much
its log-odds have to move for the share that there is.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labkit.models.mtcnn import MTCNN, STCNN
from labkit.training import augment
from labkit.training.augment import Transforms
from labkit.training.config import TrainingConfig

MOST_VALIDATION_NEGATIVES = 20
"""For each positive: more would cost time and tell an epoch's loss and AUC no better."""


def shown_images(labels: NDArray[np.int64], config: TrainingConfig) -> int:
    """How many images an epoch shows of training images with these labels."""
    each = int(config.plain_copy) + config.augmented_copies
    if config.negatives_per_positive is None:
        return len(labels) * each
    positives = int((np.asarray(labels) == 1).sum()) * each
    return positives + round(positives * config.negatives_per_positive)


def draw_epoch(
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
        return augment.draw_epoch(len(labels), config, generator)
    there = torch.from_numpy(np.asarray(labels) == 1)
    positives, negatives = there.nonzero()[:, 0], (~there).nonzero()[:, 0]
    changed, which = augment.draw_epoch(len(positives), config, generator)
    wanted = shown_images(labels, config) - len(which)
    # Each of them once before any of them twice.
    rounds = math.ceil(wanted / len(negatives))
    drawn = [torch.randperm(len(negatives), generator=generator) for _ in range(rounds)]
    chosen = torch.cat(drawn)[:wanted] if drawn else torch.empty(0, dtype=torch.long)
    still = augment.identity(wanted)
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
