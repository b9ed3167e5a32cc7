"""What one training step asks of a machine, counted from shapes: FLOP, bytes, operations.

FLOP are the textbook's: a layer's multiplications and additions by its definition, whatever trick
computes it; each addition, comparison, exponential or logarithm elsewhere is one. Beside them stand
the FLOP of the products that are executed, by PyTorch's own formulas: labkit's deconvolutions need
fewer than their definition says. Bytes are the least: every tensor is read or written once where it
is needed. Forward reads input and weights and writes the output; backward reads the output's
gradient and what was kept (input and weights of a product; of anything else as much as its output),
and writes the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from labkit.errors import InputError
from labkit.models.mtcnn import MTCNN

PRODUCT, ELEMENTWISE = "product", "element-wise"
# Operations an element: binary cross-entropy with logits forward (maximum, product, two
# differences, absolute value, exponential, logarithm, sum) and backward (sigmoid, difference,
# scale); Adam a parameter (two running means, root, quotient, step); windowing a pixel.
BCE_FLOP, ADAM_FLOP, WINDOW_FLOP = 14, 13, 4
ADAM_TENSORS = 7  # parameter, gradient and both means are read; all but the gradient are written
# Forward an output element, backward an input element.
_FLOP_EACH = {"MaxPool2d": (3, 1), "ReLU": (1, 1), "Dropout": (2, 1)}
_NAMES = {"MaxPool2d": "max pooling", "ReLU": "ReLU", "Dropout": "dropout"}
_MOVES_NOTHING = ("detach", "_unsafe_view", "lift_fresh")


@dataclass(frozen=True)
class Call:
    """A layer as a step called it.

    Args:
        stage: the stage it belongs to; layers without weights share one by their kind.
        kind: "product" or "element-wise".
        module: the layer.
        x: what went in, on the device and at the precision of the step.
        gradient: of the loss with respect to what came out, laid out as it came.
        needs_gradient: whether a gradient has to flow on to what went in.
        flop: forward and backward.
        bytes: forward and backward, at least.
    """

    stage: str
    kind: str
    module: nn.Module
    x: Tensor
    gradient: Tensor
    needs_gradient: bool
    flop: int
    bytes: int


def calls(
    network: MTCNN,
    images: Tensor,
    autocast: Callable[[], Any],
    loss: Callable[[Tensor, Tensor | None], Tensor],
) -> list[Call]:
    """Every layer of one training step, in order, with its cost counted.

    Args:
        network: in training mode.
        images: (B, 1, 64, 64) in [0, 1].
        autocast: gives the context of the step's precision.
        loss: of class logits and image logits.

    Raises:
        InputError: a weight of the network is in no layer of its branches.
    """
    seen: list[_Seen] = []
    with _noted(network, seen):
        with autocast():
            logits, drawn = network.logits(images)
        loss(logits, drawn).backward()
    covered = {id(p) for one in seen for p in one.module.parameters()}
    if covered != {id(p) for p in network.parameters()}:
        raise InputError("the network has weights outside its branches' layers; count them, too")
    found: list[Call] = []
    numbers: dict[str, int] = {}
    for one in seen:
        kind, flop, size = cost(one.module, one.x, one.y, one.x.requires_grad)
        if kind == PRODUCT:
            numbers[one.branch] = numbers.get(one.branch, 0) + 1
            stage = f"{one.branch} {numbers[one.branch]}"
            if _pools(one.x, one.y):
                stage += " + pooling"
        else:
            stage = _NAMES[type(one.module).__name__]
        needed, gradient = one.x.requires_grad, one.gradients[0]
        found.append(Call(stage, kind, one.module, one.x.detach(), gradient, needed, flop, size))
    return found


def cost(module: nn.Module, x: Tensor, y: Tensor, needs_gradient: bool) -> tuple[str, int, int]:
    """Kind, FLOP and least bytes of one layer, forward and backward.

    Args:
        module: with one weight (a convolution with "same" padding, pooled or not, a
            deconvolution, a fully connected layer), or a pooling, ReLU or dropout.
        x: its input.
        y: its output.
        needs_gradient: whether x gets a gradient; the first layer's does not.

    Raises:
        InputError: a layer whose cost nobody has stated.

    >>> import torch
    >>> conv = nn.Conv2d(1, 24, 5, padding="same")
    >>> x = torch.zeros(64, 1, 64, 64)
    >>> cost(conv, x, conv(x), needs_gradient=False)[1] == 2 * (2 * 64 * 24 * 64 * 64 * 25)
    True
    """
    ends = _size(x) + _size(y)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        # Every weight meets every place of the larger side once: "same" padding.
        places = max(x[0, 0].numel(), y[0, 0].numel()) if weight.dim() == 4 else 1
        products = 2 * len(x) * places * weight.numel()
        flop = products * (3 if needs_gradient else 2)
        backward = _size(y) + _size(x) + 2 * _size(weight) + needs_gradient * _size(x)
        if _pools(x, y):
            flop += _FLOP_EACH["MaxPool2d"][0] * y.numel() + y.numel()
        return PRODUCT, flop, ends + _size(weight) + backward
    if type(module).__name__ not in _FLOP_EACH:
        raise InputError(
            f"{type(module).__name__}: nobody has stated what this layer costs; "
            "say so in benchmarks/counting.py"
        )
    forward, back = _FLOP_EACH[type(module).__name__]
    flop = forward * y.numel() + back * x.numel()
    return ELEMENTWISE, flop, ends + 2 * _size(y) + _size(x)


@dataclass(frozen=True)
class Executed:
    """What PyTorch handed to the device.

    Args:
        operations: that compute or move data; views and allocations are left out. On a GPU each
            is a kernel or a few.
        product_flop: of products and convolutions, by PyTorch's formulas.
    """

    operations: int
    product_flop: int


def executed(work: Callable[[], object]) -> Executed:
    """Do some work, and count what PyTorch handed to the device.

    >>> import torch
    >>> a = torch.ones(4, 4)
    >>> executed(lambda: (a @ a).t().relu())
    Executed(operations=2, product_flop=128)
    """
    with _Counter() as counter:
        work()
    return Executed(counter.operations, counter.flop)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = self.flop = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        idle = func.is_view or name.startswith("empty") or name in _MOVES_NOTHING
        self.operations += not idle
        if func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out


@dataclass(frozen=True)
class _Seen:
    branch: str
    module: nn.Module
    x: Tensor
    y: Tensor
    gradients: list[Tensor]  # of y, once backward has come by


@contextmanager
def _noted(network: MTCNN, seen: list[_Seen]) -> Iterator[None]:
    """Context in which every layer's branch, input, output and gradient are noted in `seen`."""
    branches = {
        "conv": network.share, "FC": network.classify, "deconv": network.reconstruct,
    }  # fmt: skip

    def note(branch: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        if not isinstance(module, nn.Flatten):
            seen.append(_Seen(branch, module, x, y, []))
            y.register_hook(seen[-1].gradients.append)

    hooks = [
        layer.register_forward_hook(
            lambda layer, args, y, branch=branch: note(branch, layer, args[0], y)
        )
        for branch, layers in branches.items()
        for layer in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _pools(x: Tensor, y: Tensor) -> bool:
    """Whether a layer makes images smaller."""
    return x.dim() == 4 and y.dim() == 4 and y.shape[-1] < x.shape[-1]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
