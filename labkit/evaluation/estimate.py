"""How long a cross-validation will take, from timing a few steps."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from labkit.evaluation.runs import Plan
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.draws import steps_of
from labkit.training.loop import train_view
from labkit.training.ways import choose
from labkit.training.workers import one_thread


def seconds_alone(
    labels: NDArray[np.int64], config: TrainingConfig, plan: Plan, device_name: str
) -> float:
    """`estimate_seconds` for nodules with these labels, on one thread of this machine."""
    labels = np.asarray(labels, dtype=np.int64)
    with one_thread():
        return estimate_seconds(
            len(labels),
            config,
            plan,
            Device.choose(device_name, config.precision),
            positives=int((labels == 1).sum()),
        )


def estimate_seconds(
    labelled: int,
    config: TrainingConfig,
    plan: Plan,
    device: Device,
    steps: int = 4,
    positives: int = 0,
) -> float:
    """Seconds that a whole run takes at most on one device, from timing a few steps on noise.

    Args:
        labelled: nodules in the cross-validation.
        config: how each network is trained.
        plan: what is repeated.
        device: where.
        steps: how many steps to time.
        positives: of the labelled; needed where negatives are sampled.
    """
    networks = len(list(plan.places())) * len(config.views)
    if device.torch_device.type == "cuda":
        a_step = choose(config, device, networks).seconds
    else:
        a_step = _step_seconds(labelled, config, device, steps)
    steps_each = steps_an_epoch(labelled, config, plan.folds, positives)
    return float(a_step * networks * config.epochs * steps_each)


def steps_an_epoch(labelled: int, config: TrainingConfig, folds: int, positives: int = 0) -> int:
    """Steps in an epoch of one network, with what is left of the nodules for it to learn from.

    Args:
        labelled: nodules in the cross-validation.
        config: how the network is trained.
        folds: of the cross-validation, one of which is for testing.
        positives: of the labelled; needed where negatives are sampled.

    >>> steps_an_epoch(751, TrainingConfig(batch_size=64), folds=5)
    40
    """
    share = (1 - 1 / folds) * (1 - config.validation_fraction)
    training = np.arange(int(labelled * share)) < round(positives * share)
    return steps_of(training.astype(np.int64), config)


def _step_seconds(labelled: int, config: TrainingConfig, device: Device, steps: int) -> float:
    """Seconds of a step of one network alone."""
    batch = min(config.batch_size, labelled)
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (batch, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1]), batch)
    quick = TrainingConfig.from_dict(
        {
            **config.as_dict(),
            "epochs": 1,
            "augmented_copies": steps - 1,
            "plain_copy": True,
            "negatives_per_positive": None,
        }
    )

    def once() -> float:
        start = time.perf_counter()
        train_view(views, labels, views, labels, quick, device, seed=0)
        return time.perf_counter() - start

    once()  # the first call also compiles kernels and fills caches
    return once() / steps * config.batch_size / batch
