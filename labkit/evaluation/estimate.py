"""How long a cross-validation will take, from timing a few steps."""

from __future__ import annotations

import time

import numpy as np

from labkit.evaluation.runs import Plan
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.loop import train_view


def estimate_seconds(
    labelled: int, config: TrainingConfig, plan: Plan, device: Device, steps: int = 4
) -> float:
    """Seconds that a whole run takes at most on one device, from timing a few steps on noise.

    Args:
        labelled: nodules in the cross-validation.
        config: how each network is trained.
        plan: what is repeated.
        device: where.
        steps: how many steps to time.
    """
    copies = int(config.plain_copy) + config.augmented_copies
    batch = min(config.batch_size, labelled)
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (batch, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1]), batch)
    quick = TrainingConfig.from_dict(
        {**config.as_dict(), "epochs": 1, "augmented_copies": steps - 1, "plain_copy": True}
    )

    def once() -> float:
        start = time.perf_counter()
        train_view(views, labels, views, labels, quick, device, seed=0)
        return time.perf_counter() - start

    once()  # the first call also compiles kernels and fills caches
    a_step = once() / steps * config.batch_size / batch
    training = labelled * (1 - 1 / plan.folds) * (1 - config.validation_fraction)
    networks = len(list(plan.places())) * len(config.views)
    return float(a_step * networks * config.epochs * np.ceil(training * copies / config.batch_size))
