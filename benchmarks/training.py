"""Labkit's training engine against the textbook loop, in one run, on the same data.

    python -m benchmarks.training [--nodules 256] [--epochs 2] [--repeats 3] [--out FILE.json]

Nine networks, one a view, are trained for the same number of updates: by `benchmarks/textbook.py`
one after the other on all cores, and by labkit as it would (one process a core, one network each),
in float32 and, where the processor has it, in bfloat16. Data are noise: only the cost matters, and
that the losses of both agree is tested in `tests/training/test_textbook.py`. Times are medians of
repeats taken in turn; processes are started before the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from benchmarks import textbook
from labkit.errors import InputError
from labkit.io import write_json
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, train_view
from labkit.training.machines import Device, default_jobs, has_bf16, one_thread, provenance

VIEWS = 9


def by_textbook(views: NDArray, labels: NDArray, config: TrainingConfig, epochs: int) -> None:
    """Nine networks, one after the other."""
    for view in range(VIEWS):
        seed = network_seed(config.seed, view)
        textbook.train(views[:, view], labels, config, seed, epochs)


def one_view(
    views: NDArray, labels: NDArray, config: TrainingConfig, device: Device, seed: int
) -> None:
    """One network by labkit; the few validation images cost next to nothing."""
    with one_thread():
        train_view(views, labels, views[:2], np.array([0, 1]), config, device, seed)


def by_labkit(
    pool: Parallel, views: NDArray, labels: NDArray, config: TrainingConfig, device: Device
) -> None:
    """Nine networks, as many at once as the engine lays side by side."""
    pool(
        delayed(one_view)(views[:, v], labels, config, device, network_seed(config.seed, v))
        for v in range(VIEWS)
    )


def timed(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat of every way, taken in turn, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
                print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodules", type=int, default=256, help="training images a view")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", choices=("mt", "st"), default="mt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (options.nodules, VIEWS, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1], dtype=np.int64), options.nodules)
    try:
        config = TrainingConfig.paper(
            model=options.model, epochs=options.epochs, batch_size=options.batch_size,
            augmented_copies=1, plain_copy=False, patience=options.epochs,
        )  # fmt: skip
        device = Device.choose("cpu", "fp32")
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    jobs = default_jobs(device)
    with Parallel(n_jobs=jobs) as pool:
        ways: dict[str, Callable[[], None]] = {
            "textbook, fp32": lambda: by_textbook(views, labels, config, options.epochs),
            "labkit, fp32": lambda: by_labkit(pool, views, labels, config, device),
        }
        if has_bf16(torch.device("cpu")):
            half = Device.choose("cpu", "bf16")
            ways["labkit, bf16"] = lambda: by_labkit(pool, views, labels, config, half)
        seconds = timed(ways, options.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    updates = VIEWS * options.epochs * int(np.ceil(options.nodules / options.batch_size))
    slowest = median["textbook, fp32"]
    print(f"{'way':16s} {'seconds':>8s} {'updates/s':>10s} {'times':>6s}")
    for name, value in median.items():
        print(f"{name:16s} {value:8.2f} {updates / value:10.1f} {slowest / value:6.2f}")
    if options.out:
        write_json(
            options.out,
            {
                "what": "nine networks trained for the same updates; ratio is of the textbook's "
                "median time to the other's",
                **provenance(),
                "model": options.model,
                "batch_size": options.batch_size,
                "updates": updates,
                "jobs": jobs,
                "seconds": {n: [round(s, 3) for s in v] for n, v in seconds.items()},
                "ratio": {n: round(slowest / v, 2) for n, v in median.items()},
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
