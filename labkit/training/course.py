"""The course of one network's training: its history, its best epoch, and when to stop."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from labkit.training import sampling
from labkit.training.config import TrainingConfig
from labkit.training.loss import (
    classification_loss,
    classification_losses,
    malignant_probability,
)
from labkit.training.schedule import learning_rate

Row = dict[str, float | int | None]
"""One epoch of a learning curve."""


class Course:
    """How one network has come along; judged on its validation images alone.

    Args:
        config: the protocol.
        val_labels: (n,) of the validation images, 1 malignant.
        train_labels: (n,) of the images it learns from. Where negatives are sampled, the
            validation loss gives the classes the share that training shows, and probabilities are
            brought back to the share that there is.
    """

    def __init__(
        self,
        config: TrainingConfig,
        val_labels: NDArray[np.int64],
        train_labels: NDArray[np.int64],
    ) -> None:
        self._config = config
        self._labels = np.asarray(val_labels, dtype=np.int64)
        self.prior_shift = sampling.prior_shift(train_labels, config)
        self._weights: Tensor | None = None
        if config.negatives_per_positive is not None:
            share = sampling.shown_share(train_labels, config)
            self._weights = torch.from_numpy(sampling.balanced_weights(self._labels, share))
        self._best = math.inf
        self.history: list[Row] = []
        self.best_epoch = -1
        self.best_probability: NDArray[np.float64] = np.empty(0)

    @property
    def epoch(self) -> int:
        """Number of the epoch that comes next, from 0."""
        return len(self.history)

    @property
    def rate(self) -> float:
        """Learning rate of the epoch that comes next."""
        return learning_rate(self.epoch, self._config.epochs, self._config.learning_rate)

    @property
    def done(self) -> bool:
        """Whether training is over: all epochs run, or no better one for `patience` epochs."""
        return self.epoch >= self._config.epochs or (
            self.epoch > 0 and self.epoch - 1 - self.best_epoch >= self._config.patience
        )

    @property
    def best_auc(self) -> float:
        """Validation AUC of the best epoch."""
        return float(self.history[self.best_epoch]["val_auc"] or 0.0)

    def add(
        self, train_cls: float, train_img: float | None, logits: Tensor, lost: str | None = None
    ) -> bool:
        """Take in an epoch.

        Args:
            train_cls, train_img: mean losses of its steps.
            logits: (n, 2) of the validation images after it.
            lost: the batch whose loss was no number, in words, or None.

        Returns:
            whether it is the best so far, whose weights are to be kept.

        Raises:
            FloatingPointError: a loss is no longer a number.
        """
        config, logits = self._config, logits.float().cpu()
        labels = torch.from_numpy(self._labels)
        val_cls = self._loss(logits, labels)
        if lost is not None or not math.isfinite(val_cls):
            raise FloatingPointError(
                f"the loss is not a number in epoch {self.epoch}, "
                f"{lost or 'the validation images'}: lower the learning rate (now {self.rate:g}) "
                "or use fp32"
            )
        shift = logits.new_tensor(sampling.class_shift(self.prior_shift, config.output))
        probability = malignant_probability(logits + shift, config.output).double().numpy()
        val_auc = float(roc_auc_score(self._labels, probability))
        value = val_cls if config.monitor == "loss" else -val_auc
        improved = value < self._best
        if improved:
            self._best, self.best_epoch, self.best_probability = value, self.epoch, probability
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": self.rate,
                "train_cls": train_cls,
                "train_img": train_img,
                "val_cls": val_cls,
                "val_auc": val_auc,
            }
        )
        return improved

    def _loss(self, logits: Tensor, labels: Tensor) -> float:
        if self._weights is None:
            return float(classification_loss(logits, labels, self._config.output))
        each = classification_losses(logits, labels, self._config.output)
        return float((each.double() * self._weights).sum())


def epoch_means(losses: Tensor, batch_size: int, shown: int) -> tuple[float, float]:
    """Means of an epoch's losses over its images.

    Args:
        losses: (S, 2) classification and reconstruction loss of every step.
        batch_size: images a step; the last may have fewer.
        shown: images in the epoch.
    """
    sizes = torch.full((len(losses), 1), float(batch_size), dtype=torch.float64)
    sizes[-1] = shown - batch_size * (len(losses) - 1)
    means = (losses.double() * sizes).sum(dim=0) / shown
    return float(means[0]), float(means[1])


def lost_batch(losses: Tensor, sample: Tensor, batch_size: int) -> str | None:
    """The first step whose loss is no number, in words, or None.

    Args:
        losses: (S, 2) of an epoch's steps.
        sample: (shown,) training rows in the order they were shown.
        batch_size: images a step.
    """
    bad = (~losses.isfinite()).any(dim=1).nonzero()
    if not len(bad):
        return None
    first = int(bad[0])
    shown = sample[first * batch_size : (first + 1) * batch_size]
    rows = ", ".join(map(str, shown[:8].tolist()))
    return f"batch {first + 1} of {len(losses)} (training rows {rows}, ...)"
