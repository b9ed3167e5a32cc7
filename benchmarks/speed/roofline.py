"""What a training step asks of this machine, and what the machine can give: a measured roofline.

    python -m benchmarks.speed.roofline [--device auto|cpu|cuda] [--networks 9] [--batch-size 64]
                                  [--repeats 15] [--out FILE.json]

The roof: matrix products and copies so large that nothing else matters. Below it: every stage of a
step of one MT-CNN, forward and backward, by itself. Then the whole step, and what it costs merely
to hand an operation to the device. A CPU is measured on one thread, as labkit trains there, by the
processor's time; a GPU by the clock, waiting for it before and after, and kernel by kernel through
PyTorch's profiler. Medians, after a warm-up.

FLOP are the textbook's: a layer's multiplications and additions by its definition, whatever trick
computes it; each addition, comparison, exponential or logarithm elsewhere is one. Beside them stand
the FLOP of the products that are executed, by PyTorch's own formulas: labkit's deconvolutions need
fewer than their definition says. Bytes are the least: every tensor is read or written once where it
is needed. Forward reads input and weights and writes the output; backward reads the output's
gradient and what was kept (input and weights of a product; of anything else as much as its output),
and writes the gradients.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.common import command
from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device, has_bf16, one_thread, provenance

NODULES = 512  # as many as a fold has, about, from which batches are drawn
PRODUCT, ELEMENTWISE = "product", "element-wise"
# Operations an element: binary cross-entropy with logits forward (maximum, product, two
# differences, absolute value, exponential, logarithm, sum) and backward (sigmoid, difference,
# scale); Adam a parameter (two running means, root, quotient, step); windowing a pixel.
BCE_FLOP, ADAM_FLOP, WINDOW_FLOP = 14, 13, 4
ADAM_TENSORS = 7  # parameter, gradient and both means are read; all but the gradient are written
# Name, and FLOP forward an output element and backward an input element.
_ELEMENTWISE = {"MaxPool2d": ("max pooling", 3, 1), "ReLU": ("ReLU", 1, 1),
                "Dropout": ("dropout", 2, 1)}  # fmt: skip
_MOVES_NOTHING = ("detach", "_unsafe_view", "lift_fresh")


def cost(module: nn.Module, x: Tensor, y: Tensor, needs_gradient: bool) -> tuple[str, int, int]:
    """Count kind, FLOP and least bytes of one layer, forward and backward.

    Args:
        module: with one weight (a convolution with "same" padding, pooled or not, a
            deconvolution, a fully connected layer), or a pooling, ReLU or dropout.
        x, y: its input and output.
        needs_gradient: whether x gets a gradient; the first layer's does not.

    Raises:
        InputError: a layer whose cost nobody has stated.

    >>> conv = nn.Conv2d(1, 24, 5, padding="same")
    >>> x = torch.zeros(64, 1, 64, 64)
    >>> cost(conv, x, conv(x), needs_gradient=False)[1] == 2 * (2 * 64 * 24 * 64 * 64 * 25)
    True
    """
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        # Every weight meets every place of the larger side once: "same" padding.
        places = max(x[0, 0].numel(), y[0, 0].numel()) if weight.dim() == 4 else 1
        flop = 2 * len(x) * places * weight.numel() * (3 if needs_gradient else 2)
        if _pools(x, y):
            flop += (_ELEMENTWISE["MaxPool2d"][1] + 1) * y.numel()
        size = (2 + needs_gradient) * x.nbytes + 2 * y.nbytes + 3 * weight.nbytes
        return PRODUCT, flop, size
    name = type(module).__name__
    if name not in _ELEMENTWISE:
        raise InputError(f"{name}: nobody has stated what this layer costs; "
                         "say so in benchmarks/speed/roofline.py")  # fmt: skip
    _, forward, back = _ELEMENTWISE[name]
    return ELEMENTWISE, forward * y.numel() + back * x.numel(), 2 * x.nbytes + 3 * y.nbytes


def _pools(x: Tensor, y: Tensor) -> bool:
    return x.dim() == 4 and y.dim() == 4 and y.shape[-1] < x.shape[-1]


class Executed(TorchDispatchMode):
    """Count in a `with` block what PyTorch hands to the device.

    `operations` compute or move data; views and allocations are left out. On a GPU each is a kernel
    or a few. `flop` are of products and convolutions, by PyTorch's formulas.

    >>> a = torch.ones(4, 4)
    >>> with Executed() as found:
    ...     _ = (a @ a).t().relu()
    >>> found.operations, found.flop
    (2, 128)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.operations += not (func.is_view or name.startswith("empty") or name in _MOVES_NOTHING)
        if func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out


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
        dtype, tried = torch.bfloat16 if name == "bf16" else torch.float32, {}
        with Device.choose(str(device), name).arithmetic():
            for side in (4096, 8192) if device.type == "cuda" else (1024, 2048):
                # Values that differ: a GPU multiplies ones faster, since they take less power.
                a = torch.linspace(-1, 1, side**2, device=device).view(side, side).to(dtype)
                work = partial(torch.mm, a, a.clone(), out=torch.empty_like(a))
                tried[f"product {side}"] = 2 * side**3 / min(clock.each(work))
            if device.type == "cpu":
                last = {"memory_format": torch.channels_last}
                layer = nn.Conv2d(64, 64, 3, padding=1, bias=False, dtype=dtype).to(**last)  # type: ignore[call-overload]
                x = torch.ones(64, 64, 32, 32, dtype=dtype).contiguous(**last)
                with torch.inference_mode():
                    seconds = min(clock.each(partial(layer, x)))
                tried["convolution 64 to 64"] = 2 * 64 * 32**2 * layer.weight.numel() / seconds
        products[name] = tried
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

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of classes and images, in the step's precision."""
        with self.device.autocast():
            logits, drawn = self.network.logits(images)
        assert drawn is not None
        return logits, drawn

    def loss(self, logits: Tensor, drawn: Tensor, images: Tensor) -> Tensor:
        """Compute Eq. 1 of an MT-CNN."""
        cls = classification_loss(logits, self.labels[self.sample])
        return cls + self.config.alpha * reconstruction_loss(drawn, images)

    def whole(self) -> None:
        """Augment, forward, backward, optimise."""
        images = self.images()
        loss = self.loss(*self.logits(images), images)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def layers(self) -> list[dict[str, Any]]:
        """Note every layer of one step, in order, with its cost.

        Of each its `stage` (those without weights share one by their kind), `kind`, `flop`, `bytes`
        of forward and backward together, the layer, its input x, whether that `needs` a gradient,
        and the `gradients` of its output. An InputError if a weight is in no layer of a branch.
        """
        found: list[dict[str, Any]] = []
        numbers: Counter[str] = Counter()

        def note(branch: str, layer: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
            (x,) = args
            if isinstance(layer, nn.Flatten):
                return
            kind, flop, size = cost(layer, x, y, x.requires_grad)
            numbers[branch] += kind == PRODUCT
            stage = f"{branch} {numbers[branch]}{' + pooling' if _pools(x, y) else ''}"
            if kind == ELEMENTWISE:
                stage = _ELEMENTWISE[type(layer).__name__][0]
            found.append({"stage": stage, "kind": kind, "flop": flop, "bytes": size, "layer": layer,
                          "x": x.detach(), "needs": x.requires_grad, "gradients": []})  # fmt: skip
            y.register_hook(found[-1]["gradients"].append)

        network, images = self.network, self.images()
        branches = {"conv": network.share, "FC": network.classify, "deconv": network.reconstruct}
        hooks = [layer.register_forward_hook(partial(note, branch))
                 for branch, layers in branches.items() for layer in layers]  # fmt: skip
        try:
            self.loss(*self.logits(images), images).backward()
        finally:
            for hook in hooks:
                hook.remove()
        covered = {id(p) for call in found for p in call["layer"].parameters()}
        if covered != {id(p) for p in network.parameters()}:
            raise InputError("the network has weights outside its branches' layers; count them too")
        return found

    def parts(self) -> Iterator[tuple[str, str, int, int, Callable[[], object]]]:
        """Yield every part: stage, kind, FLOP, least bytes, and the work itself."""
        images, kind = self.images(), ELEMENTWISE
        size = images.numel() * (2 + 4)  # a pixel is read as int16 and written as float32
        yield "augmentation", kind, WINDOW_FLOP * images.numel(), size, self.images
        for of in self.layers():
            work = partial(self._again, of)
            yield of["stage"], of["kind"], of["flop"], of["bytes"], work
        ends = [x.detach().requires_grad_() for x in self.logits(images)]
        # Logits are read forward and backward and get a gradient; images are read twice.
        size = sum(3 * end.nbytes for end in ends) + 8 * images.numel()
        flop = BCE_FLOP * sum(end.numel() for end in ends)
        work = lambda: torch.autograd.grad(self.loss(*ends, images), ends)  # noqa: E731
        yield "losses", kind, flop, size, work
        self.whole()  # leaves a gradient everywhere
        weights = sum(p.numel() for p in self.network.parameters())
        yield ("optimiser", kind, ADAM_FLOP * weights, 4 * ADAM_TENSORS * weights,
               self.optimiser.step)  # fmt: skip

    def _again(self, of: dict[str, Any]) -> None:
        """Take one layer forward and backward."""
        x = of["x"].requires_grad_(of["needs"])
        with self.device.autocast():
            y = of["layer"](x)
        wanted = [*([x] if of["needs"] else []), *of["layer"].parameters()]
        torch.autograd.grad(y, wanted, of["gradients"][0])


def step(device: Device, clock: Clock, batch_size: int) -> dict[str, Any]:
    """Measure one step at one precision: its stages, and the whole."""
    whole, stages = Step(device, batch_size), {}
    for name, kind, flop, size, work in whole.parts():
        with Executed() as executed:
            work()
        found = {"flop": flop, "flop_executed": executed.flop if kind == PRODUCT else flop,
                 "bytes": size, "seconds": median(clock.each(work))}  # fmt: skip
        if clock.cuda:
            found["kernel_seconds"] = kernels(work)[1]
        stage = stages.setdefault(name, {"stage": name, "kind": kind})
        stage |= {key: stage.get(key, 0) + value for key, value in found.items()}
    with Executed() as executed:
        whole.whole()
    of_whole = {
        "seconds": median(clock.each(whole.whole)),
        "flop": sum(stage["flop"] for stage in stages.values()),
        "flop_executed": sum(stage["flop_executed"] for stage in stages.values()),
        "operations": executed.operations,
    }
    if clock.cuda:
        of_whole["kernels"], of_whole["kernel_seconds"] = kernels(whole.whole)
    return {**of_whole, "stages": list(stages.values())}


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
    cuda = torch.autograd.DeviceType.CUDA
    ran = [
        event.time_range.elapsed_us()
        for event in events
        if event.device_type == cuda and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Optimizer.", "ProfilerStep"))
    ]  # fmt: skip
    return len(ran), sum(ran) / 1e6


def launch(device: torch.device, clock: Clock, calls: int = 2000) -> float:
    """Take the seconds of the host's time that handing over one tiny operation takes.

    On a GPU the host does not wait for it; the time is the host's alone. On a CPU the operation
    itself, one addition, is part of it.
    """
    x, each = torch.zeros(1, device=device), []
    for _ in range(1 + clock.repeats):  # the first warms up
        start = clock.now()
        for _ in range(calls):
            x.add_(1.0)
        stop = time.perf_counter() if clock.cuda else time.process_time()
        each.append((stop - start) / calls)
    return median(each[1:])


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


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
