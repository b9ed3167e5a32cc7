"""Whether time grows linearly with the number of networks, and memory not at all.

    python -m benchmarks.speed.scaling [--networks 9 18 36 72] [--out FILE.json]

Trains more and more networks by labkit's engine on a CPU, one process and one thread. Side by side,
on a GPU, memory grows with the networks; `benchmarks.speed.layouts` has it. Data are noise.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import psutil

from benchmarks.common import command, timed
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, predict_view, train_view
from labkit.training.machines import Device, one_thread

NODULES = 128


def measure(*, networks: tuple[int, ...] = (9, 18, 36, 72)) -> dict[str, Any]:
    """Take processor seconds a network, and memory after training so many more."""
    config = TrainingConfig.paper(epochs=1, augmented_copies=1, plain_copy=False)
    device = Device.choose("cpu")
    noise = np.random.default_rng(0).integers(-1000, 400, (NODULES, 9, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1], dtype=np.int64), NODULES)

    def train(n: int) -> None:
        views, seed = noise[:, n % 9], network_seed(0, n)
        trained = train_view(views, labels, views[:16], labels[:16], config, device, seed)
        predict_view(trained.network, views[:16], config, device)

    rows = []
    with one_thread():
        train(0)  # compiles kernels and takes the memory that later ones use again
        for number in networks:
            seconds = timed(lambda number=number: [train(n) for n in range(number)]).cpu_s
            memory = psutil.Process().memory_info().rss / 1e6
            rows.append({"networks": number, "cpu_s_each": round(seconds / number, 3),
                         "memory_mb": round(memory, 3)})  # fmt: skip
    return {"batch_size": config.batch_size, "rows": rows}


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
