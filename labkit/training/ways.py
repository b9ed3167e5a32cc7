"""Which way of laying networks side by side is fastest on a device: measured, not assumed.

On a CPU networks are trained one after another, in a process a core (`labkit.training.workers`);
every other way is slower there (`benchmarks/layouts.py` measures by how much). On a GPU the engine
times all ways for a moment before it starts, and takes the fastest.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from labkit.models.mtcnn import FILTERS, IMAGE_SIZE, KERNELS
from labkit.training.augment import STORED_SIZE
from labkit.training.config import TrainingConfig
from labkit.training.device import Device
from labkit.training.draws import Chance
from labkit.training.loop import build_network
from labkit.training.slots import Slots
from labkit.training.stack import FC_WIDTHS, GPU_WAYS, ONE_AFTER_ANOTHER, WAYS

MOST_SLOTS = 90
_SHARE_OF_MEMORY = 0.8


def step_flop(config: TrainingConfig) -> float:
    """Operations of one network's training step as the textbook counts them.

    Two for a multiplication and addition; convolutions at the size that Fig. 3 gives them, ImgNet's
    after its upsampling. The backward pass costs twice the forward one, but for the first layer,
    whose images need no gradient. Bias, ReLU, pooling, losses and Adam are left out.

    >>> round(9 * step_flop(TrainingConfig.paper()) / 1e9)  # nine MT-CNNs, batch 64
    99
    """
    widths = (1, *FILTERS[: config.depth])
    convolutions = [
        2 * (IMAGE_SIZE >> i) ** 2 * KERNELS[i] ** 2 * widths[i] * widths[i + 1]
        for i in range(config.depth)
    ]
    neurons = (widths[-1] * (IMAGE_SIZE >> config.depth) ** 2, *FC_WIDTHS, 2)
    full = sum(2 * a * b for a, b in pairwise(neurons))
    decoder = sum(convolutions) if config.model == "mt" else 0
    forward = sum(convolutions) + full + decoder
    return float(config.batch_size * (3 * forward - convolutions[0]))


def time_ways(
    config: TrainingConfig,
    device: Device,
    networks: int,
    ways: Iterable[str] | None = None,
    steps: int = 4,
    repeats: int = 3,
    record: bool | None = None,
) -> pd.DataFrame:
    """Time a training step of some networks in every way, on noise.

    Args:
        config: how they are trained.
        device: where.
        networks: how many side by side.
        ways: names from `stack.GPU_WAYS`; None takes all that make sense on the device.
        steps, repeats: the median of `repeats` runs of `steps` steps is taken.
        record: whether a step is recorded as a CUDA graph and replayed; None does so on a GPU.

    Returns:
        way, seconds (a step of all networks), tflops (textbook operations a second, in 10^12),
        memory_gb (most of the GPU's memory in use; missing on a CPU); the fastest first.
    """
    rng = np.random.default_rng(0)
    images = max(2, steps * config.batch_size // (config.plain_copy + config.augmented_copies))
    place = device.torch_device
    on_gpu = place.type == "cuda"
    noise = rng.integers(-1000, 400, (images, STORED_SIZE, STORED_SIZE)).astype(np.int16)
    views = device.tensor(torch.from_numpy(noise))
    labels = device.tensor(torch.arange(images) % 2)
    as_they_are = dataclasses.replace(config, negatives_per_positive=None)
    epoch = Chance(0, np.arange(images) % 2, as_they_are).epoch()
    rows = []
    for way in ways or (GPU_WAYS if on_gpu else WAYS):
        # One after another needs no more than one slot, and its memory.
        count = 1 if way == ONE_AFTER_ANOTHER else networks
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
        with device.arithmetic(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            slots = Slots(
                count, views, labels, config, device, GPU_WAYS[way], len(epoch.sample),
                record=on_gpu if record is None else record,
            )  # fmt: skip
            for m in range(count):
                slots.load(m, build_network(config))
                slots.write(m, torch.arange(images), epoch, config.learning_rate)
            slots.run(1)  # compiles kernels, records the graph
            seconds = [_timed(slots, steps, device) for _ in range(repeats)]
        memory = torch.cuda.max_memory_allocated(place) / 1e9 if on_gpu else None
        each = statistics.median(seconds) / steps * networks / count
        rows.append((way, each, networks * step_flop(config) / each / 1e12, memory))
        del slots
    table = pd.DataFrame(rows, columns=["way", "seconds", "tflops", "memory_gb"])
    return table.sort_values("seconds", ignore_index=True)


def _timed(slots: Slots, steps: int, device: Device) -> float:
    """Seconds of some steps, from an idle device to an idle device."""
    _wait(device)
    start = time.perf_counter()
    slots.run(steps)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: Device) -> None:
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize(device.torch_device)


class Choice(NamedTuple):
    """How the networks of a run are laid out on a GPU.

    Args:
        way: a name from `stack.GPU_WAYS`.
        slots: networks side by side.
        seconds: a step of one network among them, about.
    """

    way: str
    slots: int
    seconds: float


@lru_cache
def choose(config: TrainingConfig, device: Device, networks: int) -> Choice:
    """The fastest way on a GPU, and as many slots as its memory holds, at most 90.

    Args:
        config: how they are trained.
        device: a GPU.
        networks: how many there are to train in all.

    Raises:
        torch.OutOfMemoryError: its memory is too small for one network.
    """
    tried = min(networks, 9)
    while True:
        try:
            fastest = time_ways(config, device, tried, steps=2, repeats=2).iloc[0]
            break
        except torch.OutOfMemoryError:
            if tried == 1:
                raise
            tried //= 2
    free, _ = torch.cuda.mem_get_info(device.torch_device)
    fitting = int(_SHARE_OF_MEMORY * free / 1e9 / fastest["memory_gb"] * tried)
    one = fastest["way"] == ONE_AFTER_ANOTHER
    slots = 1 if one else max(1, min(networks, MOST_SLOTS, fitting))
    return Choice(str(fastest["way"]), slots, float(fastest["seconds"]) / tried)
