"""Whether time grows linearly with the number of networks, and memory not at all.

    python -m benchmarks.scaling [--networks 9 18 36 72] [--out FILE.json]

Trains more and more networks by labkit's engine on a CPU, one process and one thread, and reports
processor time a network and the process's memory. Side by side, on a GPU, memory grows with the
networks in the slots; `benchmarks/layouts.py` reports it there. Data are noise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from labkit.io import write_json
from labkit.training.config import TrainingConfig
from labkit.training.loop import network_seed, predict_view, train_view
from labkit.training.machines import Device, one_thread, provenance

NODULES = 128


def measure(counts: list[int], config: TrainingConfig, device: Device) -> list[dict[str, float]]:
    """Processor seconds and memory after training so many networks more."""
    rng = np.random.default_rng(0)
    views = rng.integers(-1000, 400, (NODULES, 9, 76, 76)).astype(np.int16)
    labels = np.resize(np.array([0, 1], dtype=np.int64), NODULES)
    rows = []
    with one_thread():
        # The first network compiles kernels and takes the memory that later ones use again.
        for count in [1, *counts]:
            start = time.process_time()
            for n in range(count):
                view, seed = n % 9, network_seed(0, n)
                trained = train_view(
                    views[:, view], labels, views[:16, view], labels[:16], config, device, seed
                )
                predict_view(trained.network, views[:16, view], config, device)
            seconds = time.process_time() - start
            memory = psutil.Process().memory_info().rss / 1e6
            rows.append({"networks": count, "cpu_s_each": seconds / count, "memory_mb": memory})
            if count > 1:
                print(f"{count:5d} networks: {seconds / count:.2f} s each, {memory:.0f} MB",
                      flush=True)  # fmt: skip
    return rows[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[9, 18, 36, 72])
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    options = parser.parse_args()
    if min(options.networks) < 2:
        parser.error("--networks: numbers above 1")
    config = TrainingConfig.paper(epochs=1, augmented_copies=1, plain_copy=False)
    rows = measure(options.networks, config, Device.choose("cpu"))
    seconds = [row["cpu_s_each"] for row in rows]
    growth = rows[-1]["memory_mb"] - rows[0]["memory_mb"]
    print(f"time a network: slowest {max(seconds) / min(seconds):.2f} times the fastest")
    print(f"memory: {growth:+.0f} MB from {options.networks[0]} to {options.networks[-1]} networks")
    if options.out:
        write_json(
            options.out,
            {
                "what": "processor time a network and memory of one process, by the number of "
                "networks trained",
                **provenance(),
                "batch_size": config.batch_size,
                "rows": [{k: round(v, 3) for k, v in row.items()} for row in rows],
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
