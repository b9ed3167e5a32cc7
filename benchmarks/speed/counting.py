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

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
# Name, and FLOP forward an output element and backward an input element.
_ELEMENTWISE = {"MaxPool2d": ("max pooling", 3, 1), "ReLU": ("ReLU", 1, 1),
                "Dropout": ("dropout", 2, 1)}  # fmt: skip
_MOVES_NOTHING = ("detach", "_unsafe_view", "lift_fresh")


class Call(NamedTuple):
    """A layer as a step called it, with what went in and what came back to what went out.

    Layers without weights share a stage by their kind; `gradients` are of the output, filled by
    the backward pass; FLOP and least bytes are of forward and backward together.
    """

    stage: str
    kind: str
    module: nn.Module
    x: Tensor
    gradients: list[Tensor]
    needs_gradient: bool
    flop: int
    bytes: int


def calls(
    network: MTCNN,
    images: Tensor,
    autocast: Callable[[], Any],
    loss: Callable[[Tensor, Tensor | None], Tensor],
) -> list[Call]:
    """Return every layer of one training step, in order, with its cost counted.

    Args:
        network: in training mode.
        images: (B, 1, 64, 64) in [0, 1].
        autocast: gives the context of the step's precision.
        loss: of class logits and image logits.

    Raises:
        InputError: a weight of the network is in no layer of its branches.
    """
    found: list[Call] = []
    numbers: Counter[str] = Counter()

    def note(branch: str, layer: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
        (x,) = args
        if isinstance(layer, nn.Flatten):
            return
        kind, flop, size = cost(layer, x, y, x.requires_grad)
        if kind == PRODUCT:
            numbers[branch] += 1
            stage = f"{branch} {numbers[branch]}{' + pooling' if _pools(x, y) else ''}"
        else:
            stage = _ELEMENTWISE[type(layer).__name__][0]
        found.append(Call(stage, kind, layer, x.detach(), [], x.requires_grad, flop, size))
        y.register_hook(found[-1].gradients.append)

    branches = {"conv": network.share, "FC": network.classify, "deconv": network.reconstruct}
    hooks = [
        layer.register_forward_hook(partial(note, branch))
        for branch, layers in branches.items()
        for layer in layers
    ]
    try:
        with autocast():
            logits, drawn = network.logits(images)
        loss(logits, drawn).backward()
    finally:
        for hook in hooks:
            hook.remove()
    covered = {id(p) for call in found for p in call.module.parameters()}
    if covered != {id(p) for p in network.parameters()}:
        raise InputError("the network has weights outside its branches' layers; count them, too")
    return found


def cost(module: nn.Module, x: Tensor, y: Tensor, needs_gradient: bool) -> tuple[str, int, int]:
    """Count kind, FLOP and least bytes of one layer, forward and backward.

    Args:
        module: with one weight (a convolution with "same" padding, pooled or not, a
            deconvolution, a fully connected layer), or a pooling, ReLU or dropout.
        x, y: its input and output.
        needs_gradient: whether x gets a gradient; the first layer's does not.

    Raises:
        InputError: a layer whose cost nobody has stated.

    >>> import torch
    >>> conv = nn.Conv2d(1, 24, 5, padding="same")
    >>> x = torch.zeros(64, 1, 64, 64)
    >>> cost(conv, x, conv(x), needs_gradient=False)[1] == 2 * (2 * 64 * 24 * 64 * 64 * 25)
    True
    """
    read, written = _size(x), _size(y)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        # Every weight meets every place of the larger side once: "same" padding.
        places = max(x[0, 0].numel(), y[0, 0].numel()) if weight.dim() == 4 else 1
        flop = 2 * len(x) * places * weight.numel() * (3 if needs_gradient else 2)
        if _pools(x, y):
            flop += (_ELEMENTWISE["MaxPool2d"][1] + 1) * y.numel()
        size = (2 + needs_gradient) * read + 2 * written + 3 * _size(weight)
        return PRODUCT, flop, size
    name = type(module).__name__
    if name not in _ELEMENTWISE:
        raise InputError(f"{name}: nobody has stated what this layer costs; "
                         "say so in benchmarks/speed/counting.py")  # fmt: skip
    _, forward, back = _ELEMENTWISE[name]
    return ELEMENTWISE, forward * y.numel() + back * x.numel(), 2 * read + 3 * written


def _pools(x: Tensor, y: Tensor) -> bool:
    """Tell whether a layer makes images smaller."""
    return x.dim() == 4 and y.dim() == 4 and y.shape[-1] < x.shape[-1]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class Executed(NamedTuple):
    """What PyTorch handed to the device.

    `operations` compute or move data; views and allocations are left out. On a GPU each is a kernel
    or a few. `product_flop` are of products and convolutions, by PyTorch's formulas.
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

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.operations += not (func.is_view or name.startswith("empty") or name in _MOVES_NOTHING)
        if func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out
