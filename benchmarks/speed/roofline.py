"""What a training step asks of this machine, and what the machine can give: a measured roofline.

    python -m benchmarks.speed.roofline [--device auto|cpu|cuda] [--networks 9] [--batch-size 64]
                                  [--repeats 15] [--out FILE.json]

The roof: matrix products and copies so large that nothing else matters. Below it: every stage of a
step of one MT-CNN, forward and backward, by itself. Then the whole step, and what it costs merely
to hand an operation to the device. A CPU is measured on one thread, as labkit trains there, by the
processor's time; a GPU by the clock, waiting for it before and after. Medians, after a warm-up.

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
import timeit
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.common import command
from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN
from labkit.training import batches
from labkit.training.config import TrainingConfig
from labkit.training.loss import classification_loss, reconstruction_loss
from labkit.training.machines import Device, has_bf16, one_thread

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
    weight, name = getattr(module, "weight", None), type(module).__name__
    if isinstance(weight, Tensor):
        # Every weight meets every place of the larger side once: "same" padding.
        places = max(x[0, 0].numel(), y[0, 0].numel()) if weight.dim() == 4 else 1
        flop = 2 * len(x) * places * weight.numel() * (3 if needs_gradient else 2)
        if _pools(x, y):
            flop += (_ELEMENTWISE["MaxPool2d"][1] + 1) * y.numel()
        size = (2 + needs_gradient) * x.nbytes + 2 * y.nbytes + 3 * weight.nbytes
        return PRODUCT, flop, size
    if name not in _ELEMENTWISE:
        raise InputError(f"{name}: nobody has stated what this layer costs; "
                         "say so in benchmarks/speed/roofline.py")  # fmt: skip
    _, forward, back = _ELEMENTWISE[name]
    return ELEMENTWISE, forward * y.numel() + back * x.numel(), 2 * x.nbytes + 3 * y.nbytes


def _pools(x: Tensor, y: Tensor) -> bool:
    return x.dim() == 4 and y.dim() == 4 and y.shape[-1] < x.shape[-1]


class Executed(TorchDispatchMode):
    """Count in a `with` block what PyTorch hands to the device.

    `operations` compute or move data; views and allocations are left out. `flop` are of products
    and convolutions, by PyTorch's formulas.

    >>> a = torch.ones(4, 4)
    >>> with Executed() as found:
    ...     _ = (a @ a).t().relu()
    >>> found.operations, found.flop
    (2, 128)
    """

    operations = flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        self.operations += not (func.is_view or name.startswith("empty") or name in _MOVES_NOTHING)
        if formula := flop_registry.get(func.overloadpacket):
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _waited() -> float:
    """Wait for the GPU, and return the time of day."""
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object], cuda: bool, repeats: int) -> list[float]:
    """Take the seconds of a call, one value a repeat, after two that warm up.

    On a GPU (`cuda`) of the clock, when it is done; else of this process's computing, which another
    process does not lengthen. Work shorter than 20 ms is done several times within each.
    """
    timer = timeit.Timer(work, timer=_waited if cuda else time.process_time)
    timer.timeit(1)
    inner = max(1, math.ceil(0.02 / max(timer.timeit(1), 1e-7)))
    return [each / inner for each in timer.repeat(repeats, inner)]


def launch(cuda: bool, repeats: int, calls: int = 2000) -> float:
    """Take the seconds of the host's time that handing over one tiny operation takes.

    On a GPU the host does not wait for it; the time is the host's alone. On a CPU the operation
    itself, one addition, is part of it.
    """
    x = torch.zeros(1, device="cuda" if cuda else "cpu")
    timer, setup = (time.perf_counter, torch.cuda.synchronize) if cuda else (time.process_time, "")
    each = timeit.Timer(lambda: x.add_(1.0), setup, timer).repeat(1 + repeats, calls)
    return median(each[1:]) / calls  # the first warms up


def roof(device: torch.device, repeats: int) -> dict[str, Any]:
    """Measure FLOP/s of large products by precision, bytes/s of large copies and triads.

    Every number is the best of its repeats: a roof is what the machine can, not what it usually
    does. On a CPU a library's convolution may beat its matrix product, so the roof is the higher
    of the two.
    """
    cuda, products = device.type == "cuda", {}

    def best(work: Callable[[], object]) -> float:
        return min(seconds(work, cuda, repeats))

    for name in _precisions(device):
        dtype, tried = torch.bfloat16 if name == "bf16" else torch.float32, {}
        with Device.choose(str(device), name).arithmetic(), torch.inference_mode():
            for side in (4096, 8192) if cuda else (1024, 2048):
                # Values that differ: a GPU multiplies ones faster, since they take less power.
                a = torch.linspace(-1, 1, side**2, device=device).view(side, side).to(dtype)
                work = partial(torch.mm, a, a.clone(), out=torch.empty_like(a))
                tried[f"product {side}"] = 2 * side**3 / best(work)
            if not cuda:
                layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(dtype)
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                x = torch.ones(64, 64, 32, 32, dtype=dtype)
                work = partial(layer, x.contiguous(memory_format=torch.channels_last))
                flop = 2 * 64 * 32**2 * layer.weight.numel()
                tried["convolution 64 to 64"] = flop / best(work)
        products[name] = tried
    elements = 2**28 if cuda else 2**26
    a, b, c = (torch.ones(elements, device=device) for _ in range(3))
    return {
        "flop_per_s": {precision: max(tried.values()) for precision, tried in products.items()},
        "products": products,
        "bytes_per_s": {"copy": 8 * elements / best(lambda: a.copy_(b)),
                        "triad": 12 * elements / best(lambda: torch.add(b, c, alpha=2.0, out=a))},
        "array_bytes": 4 * elements,
    }  # fmt: skip


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
        labels = torch.randint(0, 2, (NODULES,), generator=order)
        transforms, sample = batches.draw_epoch(labels.numpy(), self.config, order)
        self.transforms = transforms[:batch_size].to(device.torch_device)
        self.views, self.labels, self.sample = map(
            device.tensor, (views, labels, sample[:batch_size])
        )
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

    def layers(self) -> list[tuple[str, str, int, int, Callable[[], object]]]:
        """Note every layer of one step, in order, with its cost, as `parts` yields it.

        Layers without weights share one stage by their kind. An InputError if a weight is in no
        layer of a branch.
        """
        found: list[tuple[str, str, int, int, Callable[[], object]]] = []
        numbers: Counter[str] = Counter()
        covered: set[int] = set()

        def again(layer: nn.Module, x: Tensor, needs: bool, gradients: list[Tensor]) -> None:
            x = x.requires_grad_(needs)
            with self.device.autocast():
                y = layer(x)
            torch.autograd.grad(y, [*([x] if needs else []), *layer.parameters()], gradients[0])

        def note(branch: str, layer: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
            if isinstance(layer, nn.Flatten):
                return
            x, gradients = args[0], list[Tensor]()
            kind, flop, size = cost(layer, x, y, x.requires_grad)
            numbers[branch] += kind == PRODUCT
            stage = f"{branch} {numbers[branch]}{' + pooling' if _pools(x, y) else ''}"
            if kind == ELEMENTWISE:
                stage = _ELEMENTWISE[type(layer).__name__][0]
            work = partial(again, layer, x.detach(), x.requires_grad, gradients)
            found.append((stage, kind, flop, size, work))
            covered.update(map(id, layer.parameters()))
            y.register_hook(gradients.append)

        network, images = self.network, self.images()
        branches = {"conv": network.share, "FC": network.classify, "deconv": network.reconstruct}
        hooks = [layer.register_forward_hook(partial(note, branch))
                 for branch, layers in branches.items() for layer in layers]  # fmt: skip
        try:
            self.loss(*self.logits(images), images).backward()
        finally:
            for hook in hooks:
                hook.remove()
        if covered != set(map(id, network.parameters())):
            raise InputError("the network has weights outside its branches' layers; count them too")
        return found

    def parts(self) -> Iterator[tuple[str, str, int, int, Callable[[], object]]]:
        """Yield every part: stage, kind, FLOP, least bytes, and the work itself."""
        images, kind = self.images(), ELEMENTWISE
        size = images.numel() * (2 + 4)  # a pixel is read as int16 and written as float32
        yield "augmentation", kind, WINDOW_FLOP * images.numel(), size, self.images
        yield from self.layers()
        ends = [x.detach().requires_grad_() for x in self.logits(images)]
        # Logits are read forward and backward and get a gradient; images are read twice.
        size = sum(3 * end.nbytes for end in ends) + 8 * images.numel()
        flop = BCE_FLOP * sum(end.numel() for end in ends)
        work = lambda: torch.autograd.grad(self.loss(*ends, images), ends)  # noqa: E731
        yield "losses", kind, flop, size, work
        self.whole()  # leaves a gradient everywhere
        weights = sum(p.numel() for p in self.network.parameters())
        flop, size = ADAM_FLOP * weights, 4 * ADAM_TENSORS * weights
        yield "optimiser", kind, flop, size, self.optimiser.step


def step(device: Device, batch_size: int, repeats: int) -> dict[str, Any]:
    """Measure one step at one precision: its stages, and the whole."""
    whole, stages = Step(device, batch_size), {}
    cuda = device.torch_device.type == "cuda"
    for name, kind, flop, size, work in whole.parts():
        with Executed() as executed:
            work()
        stage = stages.setdefault(name, {"stage": name, "kind": kind})
        for key, value in {
            "flop": flop, "flop_executed": executed.flop if kind == PRODUCT else flop,
            "bytes": size, "seconds": median(seconds(work, cuda, repeats)),
        }.items():  # fmt: skip
            stage[key] = stage.get(key, 0) + value
    with Executed() as executed:
        whole.whole()
    return {
        "seconds": median(seconds(whole.whole, cuda, repeats)),
        **{key: sum(stage[key] for stage in stages.values()) for key in ("flop", "flop_executed")},
        "operations": executed.operations,
        "stages": list(stages.values()),
    }


def measure(
    *, device: str = "auto", networks: int = 9, batch_size: int = 64, repeats: int = 15
) -> dict[str, Any]:
    """Measure roof, steps by precision and launch cost of a device."""
    chosen = Device.choose(device, "fp32").torch_device
    cuda, steps = chosen.type == "cuda", {}
    # One thread on a CPU, as labkit trains there; a GPU's host keeps what it has.
    with nullcontext() if cuda else one_thread():
        top, launched = roof(chosen, repeats), launch(cuda, repeats)
        for name in _precisions(chosen):
            at = Device.choose(str(chosen), name)
            with at.arithmetic():
                steps[name] = step(at, batch_size, repeats)
    return {
        "device": chosen.type, "batch_size": batch_size, "networks": networks,
        "clock": "time of day" if cuda else "processor time of one thread",
        "roof": top, "launch_seconds": launched, "steps": steps,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
