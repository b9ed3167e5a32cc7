"""Labkit's training engine against the textbook loop, in one run, on the same data.

    python -m benchmarks.speed.training [--nodules 256] [--epochs 2] [--repeats 3] [--out FILE.json]

Nine networks, one a view, are trained for the same number of updates: by `textbook.py` one after
the other on all cores, and by labkit as it would (one process a core, one network each), in float32
and, where the processor has it, in bfloat16. Data are noise: only the cost matters; that the losses
of both agree is tested in `tests/training/test_loop.py`. Times are medians of repeats taken in
turn; processes are started before the clock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from benchmarks.common import command, in_turn
from benchmarks.speed import textbook
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, train_view
from labkit.training.machines import Device, default_jobs, has_bf16, one_thread

VIEWS = 9


def one_view(
    views: NDArray, labels: NDArray, config: TrainingConfig, device: Device, seed: int
) -> None:
    """Train one network by labkit; the few validation images cost next to nothing."""
    with one_thread():
        train_view(views, labels, views[:2], np.array([0, 1]), config, device, seed)


def measure(
    *, nodules: int = 256, epochs: int = 2, batch_size: int = 64,
    model: Literal["mt", "st"] = "mt", repeats: int = 3,
) -> dict[str, Any]:  # fmt: skip
    """Time every way to train nine networks."""
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (nodules, VIEWS, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1], dtype=np.int64), nodules)
    config = TrainingConfig.paper(
        model=model, epochs=epochs, batch_size=batch_size,
        augmented_copies=1, plain_copy=False, patience=epochs,
    )  # fmt: skip
    seeds = [network_seed(config.seed, view) for view in range(VIEWS)]
    jobs = default_jobs(Device.choose("cpu", "fp32"))

    def by_textbook() -> None:
        for view, seed in enumerate(seeds):
            textbook.train(views[:, view], labels, config, seed, epochs)

    with Parallel(n_jobs=jobs) as pool:

        def by_labkit(precision: str) -> Callable[[], Any]:
            device = Device.choose("cpu", precision)
            return lambda: pool(
                delayed(one_view)(views[:, view], labels, config, device, seed)
                for view, seed in enumerate(seeds)
            )

        ways = {"textbook, fp32": by_textbook, "labkit, fp32": by_labkit("fp32")}
        if has_bf16(torch.device("cpu")):
            ways["labkit, bf16"] = by_labkit("bf16")
        taken = in_turn(ways, repeats)
    seconds = {name: [round(t.clock_s, 3) for t in each] for name, each in taken.items()}
    slowest = median(seconds["textbook, fp32"])
    return {
        "model": model, "batch_size": batch_size, "jobs": jobs,
        "updates": VIEWS * epochs * int(np.ceil(nodules / batch_size)), "seconds": seconds,
        "ratio": {name: round(slowest / median(each), 2) for name, each in seconds.items()},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
