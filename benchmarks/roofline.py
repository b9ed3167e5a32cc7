"""What a training step asks of this machine, and what the machine can give: a measured roofline.

    python -m benchmarks.roofline [--device auto|cpu|cuda] [--networks 9] [--batch-size 64]
                                  [--repeats 15] [--out FILE.json]

The roof: matrix products and copies so large that nothing else matters. Below it: every stage of a
step of one MT-CNN, forward and backward, by itself, its cost counted in `benchmarks/counting.py`.
Then the whole step, and what it costs merely to hand an operation to the device. A CPU is measured
on one thread, as labkit trains there, by the processor's time; a GPU by the clock, waiting for it
before and after, and kernel by kernel through PyTorch's profiler. Medians, after a warm-up.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import counting
from benchmarks.one_step import Step
from labkit.errors import InputError
from labkit.io import write_json
from labkit.training.machines import Device, has_bf16, one_thread, provenance


@dataclass(frozen=True)
class Clock:
    """How seconds are taken on a device.

    Args:
        cuda: wait for the GPU and take the time of day; else the time that this process computed,
            which another process on the same machine does not lengthen.
        repeats: timings of which the median counts.
        least_s: work shorter than this is repeated within a timing.
    """

    cuda: bool
    repeats: int
    least_s: float = 0.02

    def now(self) -> float:
        """Seconds, from any beginning."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def seconds(self, work: Callable[[], object]) -> float:
        """Median seconds of one call."""
        return statistics.median(self.each(work))

    def best(self, work: Callable[[], object]) -> float:
        """Least seconds of one call."""
        return min(self.each(work))

    def each(self, work: Callable[[], object]) -> list[float]:
        """Seconds of a call, one value a repeat, after two that warm up."""
        work()
        start = self.now()
        work()
        inner = max(1, math.ceil(self.least_s / max(self.now() - start, 1e-7)))
        each = []
        for _ in range(self.repeats):
            start = self.now()
            for _ in range(inner):
                work()
            each.append((self.now() - start) / inner)
        return each


def roof(device: torch.device, clock: Clock) -> dict[str, Any]:
    """FLOP/s of large products by precision, bytes/s of large copies and triads.

    Every number is the best of its repeats: a roof is what the machine can, not what it usually
    does. On a CPU a library's convolution may beat its matrix product, so the roof is the higher
    of the two.
    """
    cuda = device.type == "cuda"
    products = {}
    for name in _precisions(device):
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        with Device.choose(str(device), name).arithmetic():
            products[name] = _products(dtype, device, clock)
    elements = 2**28 if cuda else 2**26
    a, b, c = (torch.ones(elements, device=device) for _ in range(3))
    copy_s = clock.best(lambda: a.copy_(b))
    triad_s = clock.best(lambda: torch.add(b, c, alpha=2.0, out=a))
    return {
        "flop_per_s": {precision: max(tried.values()) for precision, tried in products.items()},
        "products": products,
        "bytes_per_s": {"copy": 8 * elements / copy_s, "triad": 12 * elements / triad_s},
        "array_bytes": 4 * elements,
    }


def _products(dtype: torch.dtype, device: torch.device, clock: Clock) -> dict[str, float]:
    """FLOP/s of matrix products of several sides and, on a CPU, of a large convolution."""
    tried = {}
    for side in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        # Values that differ: a GPU multiplies ones faster, since they take less power.
        a = torch.linspace(-1, 1, side**2, device=device).view(side, side).to(dtype)
        work = functools.partial(torch.mm, a, a.clone(), out=torch.empty_like(a))
        tried[f"product {side}"] = 2 * side**3 / clock.best(work)
    if device.type == "cpu":
        layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.ones(64, 64, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = clock.best(lambda: layer(x))
        tried["convolution 64 to 64"] = 2 * 64 * 32**2 * layer.weight.numel() / seconds
    return tried


def _precisions(device: torch.device) -> list[str]:
    """All that labkit trains at on this device."""
    tf32 = ["tf32"] if device.type == "cuda" and has_bf16(device) else []
    return ["fp32", *tf32, *(["bf16"] if has_bf16(device) else [])]


def step(device: Device, clock: Clock, batch_size: int) -> dict[str, Any]:
    """One step at one precision: its stages, and the whole."""
    whole = Step(device, batch_size)
    stages: dict[str, dict[str, Any]] = {}
    for name, kind, flop, size, work in whole.parts():
        zero = {"kind": kind, "flop": 0, "flop_executed": 0, "bytes": 0, "seconds": 0.0}
        stage = stages.setdefault(name, zero)
        stage["flop"] += flop
        product = kind == counting.PRODUCT
        stage["flop_executed"] += counting.executed(work).product_flop if product else flop
        stage["bytes"] += size
        stage["seconds"] += clock.seconds(work)
        if clock.cuda:
            _, seconds = kernels(work)
            stage["kernel_seconds"] = stage.get("kernel_seconds", 0.0) + seconds
    found: dict[str, Any] = {
        "seconds": clock.seconds(whole.whole),
        "flop": sum(stage["flop"] for stage in stages.values()),
        "flop_executed": sum(stage["flop_executed"] for stage in stages.values()),
        "operations": counting.executed(whole.whole).operations,
    }
    if clock.cuda:
        found["kernels"], found["kernel_seconds"] = kernels(whole.whole)
    return {**found, "stages": [{"stage": name, **stage} for name, stage in stages.items()]}


def kernels(work: Callable[[], object]) -> tuple[int, float]:
    """Kernels that a GPU ran for this work, and their seconds altogether."""
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return on_gpu(profiler.events())


def on_gpu(events: Any) -> tuple[int, float]:
    """Number and seconds of the events that ran on a GPU; labels of time spans are no kernels."""
    ran = [
        event
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Optimizer.", "ProfilerStep"))
    ]
    return len(ran), sum(event.time_range.elapsed_us() for event in ran) / 1e6


def launch(device: torch.device, clock: Clock, calls: int = 2000) -> float:
    """Seconds of the host's time that handing over one tiny operation takes.

    On a GPU the host does not wait for it; the time is the host's alone. On a CPU the operation
    itself, one addition, is part of it.
    """
    x = torch.zeros(1, device=device)
    for _ in range(100):
        x.add_(1.0)
    each = []
    for _ in range(clock.repeats):
        if clock.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter() if clock.cuda else time.process_time()
        for _ in range(calls):
            x.add_(1.0)
        stop = time.perf_counter() if clock.cuda else time.process_time()
        each.append((stop - start) / calls)
    return statistics.median(each)


@contextmanager
def _threads(device: torch.device) -> Iterator[None]:
    """One thread on a CPU, as labkit trains there; a GPU's host keeps what it has."""
    if device.type == "cuda":
        yield
    else:
        with one_thread():
            yield


def measure(device: torch.device, batch_size: int, networks: int, repeats: int) -> dict[str, Any]:
    """Roof, steps by precision and launch cost of a device, as plain values."""
    clock = Clock(device.type == "cuda", repeats)
    with _threads(device):
        found: dict[str, Any] = {
            "what": "roof of a device, and the stages of one training step of one MT-CNN, forward "
            "and backward; FLOP by the layers' definition and of the products executed, bytes at "
            "least",
            **provenance(),
            "device": device.type,
            "clock": "time of day" if clock.cuda else "processor time of one thread",
            "batch_size": batch_size,
            "networks": networks,
            "roof": roof(device, clock),
            "launch_seconds": launch(device, clock),
            "steps": {},
        }
        for name in _precisions(device):
            at = Device.choose(str(device), name)
            with at.arithmetic():
                found["steps"][name] = step(at, clock, batch_size)
    return found


def report(found: dict[str, Any]) -> str:
    """The measurement in words and columns."""
    peaks, bytes_per_s = found["roof"]["flop_per_s"], found["roof"]["bytes_per_s"]
    lines = [
        "roof: "
        + ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items())
        + "; "
        + ", ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in bytes_per_s.items())
    ]
    for precision, one in found["steps"].items():
        lines += [
            f"\n{precision}: a step of one network {1000 * one['seconds']:.2f} ms, "
            f"{one['flop'] / 1e9:.2f} GFLOP by definition, "
            f"{one['flop_executed'] / 1e9:.2f} executed",
            f"{'stage':26s} {'ms':>8s} {'MFLOP':>9s} {'executed':>9s} {'MB':>7s} "
            f"{'FLOP/byte':>9s} {'GFLOP/s':>8s}",
        ]
        for s in one["stages"]:
            lines.append(
                f"{s['stage']:26s} {1000 * s['seconds']:8.3f} {s['flop'] / 1e6:9.1f} "
                f"{s['flop_executed'] / 1e6:9.1f} {s['bytes'] / 1e6:7.1f} "
                f"{s['flop_executed'] / s['bytes']:9.2f} "
                f"{s['flop_executed'] / s['seconds'] / 1e9:8.1f}"
            )
        count = found["networks"] * one.get("kernels", one["operations"])
        kind = "kernels" if "kernels" in one else "operations"
        arithmetic = found["networks"] * one["flop_executed"] / peaks[precision]
        lines.append(
            f"{found['networks']} networks: {count} {kind}, "
            f"{1000 * count * found['launch_seconds']:.2f} ms to hand over at "
            f"{1e6 * found['launch_seconds']:.1f} us each; their FLOP at the roof take "
            f"{1000 * arithmetic:.2f} ms"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--networks", type=int, default=9, help="in a round (9)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15, help="timings, median taken (15)")
    parser.add_argument("--out", type=Path, help="write the measurements here, as JSON")
    options = parser.parse_args()
    if min(options.networks, options.batch_size, options.repeats) < 1:
        parser.error("--networks, --batch-size and --repeats are at least 1")
    try:
        device = Device.choose(options.device, "fp32").torch_device
    except InputError as error:
        print(f"roofline: {error}", file=sys.stderr)
        return 2
    found = measure(device, options.batch_size, options.networks, options.repeats)
    print(report(found))
    if options.out:
        write_json(options.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
