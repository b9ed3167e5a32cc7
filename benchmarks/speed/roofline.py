"""What a training step asks of this machine, and what the machine can give: a measured roofline.

    python -m benchmarks.speed.roofline [--device auto|cpu|cuda] [--networks 9] [--batch-size 64]
                                  [--repeats 15] [--out FILE.json]

The roof: matrix products and copies so large that nothing else matters. Below it: every stage of a
step of one MT-CNN, forward and backward, by itself, its cost counted in `counting.py`.
Then the whole step, and what it costs merely to hand an operation to the device. A CPU is measured
on one thread, as labkit trains there, by the processor's time; a GPU by the clock, waiting for it
before and after, and kernel by kernel through PyTorch's profiler. Medians, after a warm-up.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import command
from benchmarks.speed import counting
from labkit.models.mtcnn import MTCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device, has_bf16, one_thread, provenance

NODULES = 512  # as many as a fold has, about, from which batches are drawn


class Clock(NamedTuple):
    """How seconds are taken on a device.

    `cuda` waits for the GPU and takes the time of day; else it is the time that this process
    computed, which another process does not lengthen. Of `repeats` timings the median counts, and
    work shorter than `least_s` is repeated within each.
    """

    cuda: bool
    repeats: int
    least_s: float = 0.02

    def now(self) -> float:
        """Return seconds, from any beginning."""
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def each(self, work: Callable[[], object]) -> list[float]:
        """Take the seconds of a call, one value a repeat, after two that warm up."""
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
    """Measure FLOP/s of large products by precision, bytes/s of large copies and triads.

    Every number is the best of its repeats: a roof is what the machine can, not what it usually
    does. On a CPU a library's convolution may beat its matrix product, so the roof is the higher
    of the two.
    """
    products = {}
    for name in _precisions(device):
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        with Device.choose(str(device), name).arithmetic():
            products[name] = _products(dtype, device, clock)
    elements = 2**28 if device.type == "cuda" else 2**26
    a, b, c = (torch.ones(elements, device=device) for _ in range(3))
    copy_s = min(clock.each(lambda: a.copy_(b)))
    triad_s = min(clock.each(lambda: torch.add(b, c, alpha=2.0, out=a)))
    return {
        "flop_per_s": {precision: max(tried.values()) for precision, tried in products.items()},
        "products": products,
        "bytes_per_s": {"copy": 8 * elements / copy_s, "triad": 12 * elements / triad_s},
        "array_bytes": 4 * elements,
    }


def _products(dtype: torch.dtype, device: torch.device, clock: Clock) -> dict[str, float]:
    """Measure FLOP/s of products of several sides and, on a CPU, of a large convolution."""
    tried = {}
    for side in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        # Values that differ: a GPU multiplies ones faster, since they take less power.
        a = torch.linspace(-1, 1, side**2, device=device).view(side, side).to(dtype)
        work = functools.partial(torch.mm, a, a.clone(), out=torch.empty_like(a))
        tried[f"product {side}"] = 2 * side**3 / min(clock.each(work))
    if device.type == "cpu":
        layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.ones(64, 64, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = min(clock.each(lambda: layer(x)))
        tried["convolution 64 to 64"] = 2 * 64 * 32**2 * layer.weight.numel() / seconds
    return tried


def _precisions(device: torch.device) -> list[str]:
    """List all that labkit trains at on this device."""
    if not has_bf16(device):
        return ["fp32"]
    return ["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32", "bf16"]


class Step:
    """A training step of one network, whole and in parts, as `labkit.training.loop` does it."""

    def __init__(self, device: Device, batch_size: int, seed: int = 0) -> None:
        self.device, self.config = device, TrainingConfig.paper(batch_size=batch_size)
        order = torch.Generator().manual_seed(seed)
        views = torch.randint(-1000, 400, (NODULES, 76, 76), generator=order, dtype=torch.int16)
        self.views = device.tensor(views)
        labels = torch.randint(0, 2, (NODULES,), generator=order)
        self.labels = device.tensor(labels)
        transforms, sample = batches.draw_epoch(labels.numpy(), self.config, order)
        self.transforms = transforms[:batch_size].to(device.torch_device)
        self.sample = device.tensor(sample[:batch_size])
        with device.seeded(seed):
            self.network = MTCNN(dropout_on=self.config.dropout_on)
        device.place(self.network)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4, fused=True)
        self.network.train()

    def images(self) -> Tensor:
        """Augment a batch anew: (B, 1, 64, 64)."""
        images = batches.transformed(self.views[self.sample], self.transforms)
        return images.contiguous(memory_format=torch.channels_last)

    def loss(self, logits: Tensor, drawn: Tensor | None, images: Tensor) -> Tensor:
        """Compute Eq. 1 of an MT-CNN."""
        assert drawn is not None
        cls = classification_loss(logits, self.labels[self.sample])
        return cls + self.config.alpha * reconstruction_loss(drawn, images)

    def whole(self) -> None:
        """Augment, forward, backward, optimise."""
        images = self.images()
        with self.device.autocast():
            logits, drawn = self.network.logits(images)
        loss = self.loss(logits, drawn, images)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def parts(self) -> Iterator[tuple[str, str, int, int, Callable[[], object]]]:
        """Yield every part: stage, kind, FLOP, least bytes, and the work itself."""
        images = self.images()
        loss = functools.partial(self.loss, images=images)
        kind = counting.ELEMENTWISE
        size = images.numel() * (2 + 4)  # a pixel is read as int16 and written as float32
        yield "augmentation", kind, counting.WINDOW_FLOP * images.numel(), size, self.images
        for call in counting.calls(self.network, images, self.device.autocast, loss):
            work = functools.partial(_forward_backward, call, self.device)
            yield call.stage, call.kind, call.flop, call.bytes, work
        with self.device.autocast():
            logits, drawn = self.network.logits(images)
        ends = [x.detach().requires_grad_() for x in (logits, drawn) if x is not None]
        # Logits are read forward and backward and get a gradient; images are read twice.
        size = sum(3 * end.numel() * end.element_size() for end in ends) + 8 * images.numel()
        flop = counting.BCE_FLOP * sum(end.numel() for end in ends)
        yield "losses", kind, flop, size, lambda: torch.autograd.grad(loss(*ends), ends)
        self.whole()  # leaves a gradient everywhere
        weights = sum(p.numel() for p in self.network.parameters())
        size = 4 * counting.ADAM_TENSORS * weights
        yield "optimiser", kind, counting.ADAM_FLOP * weights, size, self.optimiser.step


def _forward_backward(call: counting.Call, device: Device) -> None:
    x = call.x.requires_grad_(call.needs_gradient)
    with device.autocast():
        y = call.module(x)
    wanted = [*([x] if call.needs_gradient else []), *call.module.parameters()]
    torch.autograd.grad(y, wanted, call.gradients[0])


def step(device: Device, clock: Clock, batch_size: int) -> dict[str, Any]:
    """Measure one step at one precision: its stages, and the whole."""
    whole = Step(device, batch_size)
    stages: dict[str, dict[str, Any]] = {}
    for name, kind, flop, size, work in whole.parts():
        zero = {"kind": kind, "flop": 0, "flop_executed": 0, "bytes": 0, "seconds": 0.0}
        stage = stages.setdefault(name, zero)
        stage["flop"] += flop
        product = kind == counting.PRODUCT
        stage["flop_executed"] += counting.executed(work).product_flop if product else flop
        stage["bytes"] += size
        stage["seconds"] += median(clock.each(work))
        if clock.cuda:
            stage["kernel_seconds"] = stage.get("kernel_seconds", 0.0) + kernels(work)[1]
    found: dict[str, Any] = {
        "seconds": median(clock.each(whole.whole)),
        "flop": sum(stage["flop"] for stage in stages.values()),
        "flop_executed": sum(stage["flop_executed"] for stage in stages.values()),
        "operations": counting.executed(whole.whole).operations,
    }
    if clock.cuda:
        found["kernels"], found["kernel_seconds"] = kernels(whole.whole)
    return {**found, "stages": [{"stage": name, **stage} for name, stage in stages.items()]}


def kernels(work: Callable[[], object]) -> tuple[int, float]:
    """Count the kernels that a GPU ran for this work, and their seconds altogether."""
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return on_gpu(profiler.events())


def on_gpu(events: Any) -> tuple[int, float]:
    """Count the events that ran on a GPU, and their seconds; labels of time spans are none."""
    ran = [
        event
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Optimizer.", "ProfilerStep"))
    ]
    return len(ran), sum(event.time_range.elapsed_us() for event in ran) / 1e6


def launch(device: torch.device, clock: Clock, calls: int = 2000) -> float:
    """Take the seconds of the host's time that handing over one tiny operation takes.

    On a GPU the host does not wait for it; the time is the host's alone. On a CPU the operation
    itself, one addition, is part of it.
    """
    x = torch.zeros(1, device=device)
    for _ in range(100):
        x.add_(1.0)
    each = []
    for _ in range(clock.repeats):
        start = clock.now()
        for _ in range(calls):
            x.add_(1.0)
        stop = time.perf_counter() if clock.cuda else time.process_time()
        each.append((stop - start) / calls)
    return median(each)


def measure(
    *, device: str = "auto", networks: int = 9, batch_size: int = 64, repeats: int = 15
) -> dict[str, Any]:
    """Measure roof, steps by precision and launch cost of a device."""
    chosen = Device.choose(device, "fp32").torch_device
    clock = Clock(chosen.type == "cuda", repeats)
    # One thread on a CPU, as labkit trains there; a GPU's host keeps what it has.
    with nullcontext() if clock.cuda else one_thread():
        found: dict[str, Any] = {
            "what": "roof of a device, and the stages of one training step of one MT-CNN, forward "
            "and backward; FLOP by the layers' definition and of the products executed, bytes at "
            "least",
            **provenance(),
            "device": chosen.type,
            "clock": "time of day" if clock.cuda else "processor time of one thread",
            "batch_size": batch_size,
            "networks": networks,
            "roof": roof(chosen, clock),
            "launch_seconds": launch(chosen, clock),
            "steps": {},
        }
        for name in _precisions(chosen):
            at = Device.choose(str(chosen), name)
            with at.arithmetic():
                found["steps"][name] = step(at, clock, batch_size)
    return found


def report(found: dict[str, Any]) -> str:
    """Say the measurement in words and columns."""
    peaks, networks = found["roof"]["flop_per_s"], found["networks"]
    roofs = [f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items()]
    roofs += [f"{n} {value / 1e9:.1f} GB/s" for n, value in found["roof"]["bytes_per_s"].items()]
    lines = ["roof: " + ", ".join(roofs)]
    for precision, one in found["steps"].items():
        lines += [
            f"\n{precision}: a step of one network {1000 * one['seconds']:.2f} ms, "
            f"{one['flop'] / 1e9:.2f} GFLOP by definition, "
            f"{one['flop_executed'] / 1e9:.2f} executed",
            f"{'stage':26s} {'ms':>8s} {'MFLOP':>9s} {'executed':>9s} {'MB':>7s} "
            f"{'FLOP/byte':>9s} {'GFLOP/s':>8s}",
        ]
        for s in one["stages"]:
            done = s["flop_executed"]
            lines.append(
                f"{s['stage']:26s} {1000 * s['seconds']:8.3f} {s['flop'] / 1e6:9.1f} "
                f"{done / 1e6:9.1f} {s['bytes'] / 1e6:7.1f} {done / s['bytes']:9.2f} "
                f"{done / s['seconds'] / 1e9:8.1f}"
            )
        kind = "kernels" if "kernels" in one else "operations"
        number, each = networks * one[kind], found["launch_seconds"]
        lines.append(
            f"{networks} networks: {number} {kind}, {1000 * number * each:.2f} ms to hand over at "
            f"{1e6 * each:.1f} us each; their FLOP at the roof take "
            f"{1000 * networks * one['flop_executed'] / peaks[precision]:.2f} ms"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command(measure, __doc__, say=report))
