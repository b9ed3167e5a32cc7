"""What a training costs: parameters, arithmetic, memory and time (IV-D's argument for three).

Memory is counted, not watched: what autograd keeps of a step for its backward pass, and four
numbers a parameter (weight, gradient, Adam's two means). So it is the same on every machine.
Time is measured, on one thread in processor time, configurations by turns, the fastest round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.models.mtcnn import IMAGE_SIZE
from labkit.training.config import TrainingConfig
from labkit.training.course import Row
from labkit.training.device import Device
from labkit.training.loop import build_network, train_view
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.ways import step_flop
from labkit.training.workers import one_thread

_EPOCHS = 5
_STEPS = 3
_VALIDATED = 4
_PARTS = ("ShareNet", "FC1", "FC2 and output", "ImgNet")
_ADAM_NUMBERS = 4
_BYTES = 4


def parameters(config: TrainingConfig) -> int:
    """Trained numbers of one network.

    >>> parameters(TrainingConfig(model="st")), parameters(TrainingConfig(model="mt"))
    (1079042, 1105043)
    """
    with torch.random.fork_rng(devices=[]):
        return sum(p.numel() for p in build_network(config).parameters())


def parameters_by_part(config: TrainingConfig) -> dict[str, int]:
    """Trained numbers of each part of one network; FC1 apart, since depth changes it most.

    >>> parameters_by_part(TrainingConfig(model="st"))
    {'ShareNet': 26064, 'FC1': 1048832, 'FC2 and output': 4146, 'ImgNet': 0}
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(config)
    share, classify, img = (
        sum(p.numel() for p in getattr(network, name).parameters()) if hasattr(network, name) else 0
        for name in ("share", "classify", "reconstruct")
    )
    fc1 = next(m for m in network.classify if isinstance(m, nn.Linear))
    first = sum(p.numel() for p in fc1.parameters())
    return dict(zip(_PARTS, (share, first, classify - first, img), strict=True))


def memory_mb(config: TrainingConfig) -> float:
    """Megabytes (10^6) of one network in training: what `kept_mb` counts, weights, Adam."""
    return kept_mb(config) + _ADAM_NUMBERS * _BYTES * parameters(config) / 1e6


def kept_mb(config: TrainingConfig) -> float:
    """Megabytes of images and features that a step keeps for its backward pass, in float32."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(config).train()
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # held by the graph, so that no address is used twice

    images = torch.zeros(config.batch_size, 1, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.arange(config.batch_size) % 2
    watch = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), watch:
        logits, image_logits = network.logits(images)
        loss = classification_loss(logits, labels, config.output)
        if image_logits is not None:
            loss = loss + config.alpha * reconstruction_loss(image_logits, images)
    return sum(kept.values()) / 1e6


def seconds_a_step(
    configs: Mapping[str, TrainingConfig], device: Device, rounds: int = 3
) -> dict[str, float]:
    """Seconds of one training step of each configuration, in the fastest of many short epochs.

    The time before an epoch's end is taken from the end of the one before. So neither the making
    of the network counts, which takes as long as several steps where FC1 is large, nor the
    keeping of its best weights, as not every epoch is the best so far.

    Args:
        configs: name -> configuration.
        device: where; on a CPU processor time of one thread is taken, on a GPU the clock.
        rounds: how often each is trained, by turns, so that a busy moment hits none alone.
    """
    clock = time.perf_counter if device.torch_device.type == "cuda" else time.process_time
    rng = np.random.default_rng(0)
    fastest = dict.fromkeys(configs, np.inf)
    with one_thread():
        for _ in range(rounds):
            for name, config in configs.items():
                n = config.batch_size
                views = rng.integers(-1000, 400, (n, 76, 76)).astype(np.int16)
                labels = np.resize(np.array([0, 1]), n)
                quick = TrainingConfig.from_dict(
                    {**config.as_dict(), "epochs": _EPOCHS, "patience": _EPOCHS,
                     "augmented_copies": _STEPS, "plain_copy": False}
                )  # fmt: skip
                ends: list[float] = []

                def note(_: Row, ends: list[float] = ends) -> None:
                    ends.append(clock())

                train_view(
                    views, labels, views[:_VALIDATED], labels[:_VALIDATED], quick, device, seed=0,
                    on_epoch=note,
                )  # fmt: skip
                fastest[name] = min(fastest[name], np.diff(ends).min() / _STEPS)
    return {name: float(seconds) for name, seconds in fastest.items()}


def costs(configs: Mapping[str, TrainingConfig], device: Device) -> dict[str, dict[str, Any]]:
    """Parameters, GFLOP and seconds a step, and memory of each configuration.

    Args:
        configs: name -> configuration.
        device: where time is measured.
    """
    seconds = seconds_a_step(configs, device)
    return {
        name: {
            "parameters": parameters(config),
            "gflop_a_step": round(step_flop(config) / 1e9, 3),
            "memory_mb": round(memory_mb(config), 2),
            "kept_mb": round(kept_mb(config), 2),
            "seconds_a_step": round(seconds[name], 5),
            "batch_size": config.batch_size,
        }
        for name, config in configs.items()
    }
