"""Ways to train many small networks on one device, timed in one run on the same work.

    python -m benchmarks.layouts [--device auto] [--precision fp32] [--networks 9] [--out FILE.json]

One step of all networks, forward, backward and Adam, with the images cut out and transformed on the
device. On a CPU one thread is used, since labkit gives every core networks of its own. On a GPU
every way is timed twice, launched operation by operation and recorded as a CUDA graph; the first
row is what one would write first: one network after another, launched.

Every way computes the same (`tests/training/test_together.py`). Data are noise. A way that the
device refuses is named with the reason, and the others are timed.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch

from labkit.errors import InputError
from labkit.io import write_json
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device, duration, provenance
from labkit.training.side_by_side import GPU_WAYS, WAYS, step_flop, time_ways

# The paper's protocol for one configuration (III-D, III-E) on the 751 labelled nodules.
FOLDS, REPEATS, VIEWS, LABELLED = 10, 10, 9, 751


def protocol_seconds(config: TrainingConfig, networks: int, step_seconds: float) -> float:
    """Time of 10 x 10 folds x 9 views at this speed, if no network stops early."""
    training = LABELLED * (1 - 1 / FOLDS) * (1 - config.validation_fraction)
    steps = math.ceil(training * (1 + config.augmented_copies) / config.batch_size)
    rounds = FOLDS * REPEATS * VIEWS / networks
    return rounds * config.epochs * steps * step_seconds


def measure(
    config: TrainingConfig, device: Device, networks: int, repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Milliseconds and TFLOP/s of every way, and why others could not be timed."""
    on_gpu = device.torch_device.type == "cuda"
    found: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for record in (False, True) if on_gpu else (False,):
        for way in GPU_WAYS if on_gpu else WAYS:
            name = f"{way}, {'recorded' if record else 'launched'}" if on_gpu else way
            try:
                timed = time_ways(config, device, networks, (way,), 4, repeats, record).iloc[0]
            except RuntimeError as error:  # out of memory is one of these
                refused[name] = str(error).splitlines()[0]
                print(f"{name}: refused: {refused[name]}", flush=True)
                continue
            found[name] = {
                "ms_per_round": round(1e3 * float(timed["seconds"]), 3),
                "tflops": round(float(timed["tflops"]), 4),
            }
            if on_gpu:
                found[name]["memory_gb"] = round(float(timed["memory_gb"]), 2)
            print(f"{name}: {found[name]}", flush=True)
    return found, refused


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--networks", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", choices=("mt", "st"), default="mt")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    options = parser.parse_args()
    try:
        if options.networks < 1 or options.repeats < 1:
            raise InputError("--networks and --repeats must be 1 or more")
        config = TrainingConfig.paper(model=options.model, batch_size=options.batch_size)
        device = Device.choose(options.device, options.precision)
    except InputError as error:
        print(f"layouts: {error}", file=sys.stderr)
        return 2
    if device.torch_device.type == "cpu":
        torch.set_num_threads(1)
    found, refused = measure(config, device, options.networks, options.repeats)
    if not found:
        print("layouts: no way could be timed", file=sys.stderr)
        return 1
    slowest = next(iter(found.values()))["ms_per_round"]
    print(f"{'way':48s} {'ms':>9s} {'times':>6s} {'TFLOP/s':>8s}  10 x 10 folds, at most")
    for name, way in found.items():
        ms = way["ms_per_round"]
        whole = duration(protocol_seconds(config, options.networks, ms / 1e3))
        print(f"{name:48s} {ms:9.2f} {slowest / ms:6.2f} {way['tflops']:8.3f}  {whole}")
    if options.out:
        write_json(
            options.out,
            {
                "what": "one training step of all networks together, in every way; tflops counts "
                "the textbook's operations",
                **provenance(),
                "device": device.torch_device.type,
                "model": options.model,
                "networks": options.networks,
                "batch_size": options.batch_size,
                "precision": options.precision,
                "gflop_per_round": round(options.networks * step_flop(config) / 1e9, 1),
                "ways": found,
                "refused": refused,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
