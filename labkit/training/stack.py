"""Many networks of one architecture as one: weights stacked, and ways to multiply with them.

A small network leaves a GPU idle: its kernels end sooner than the next one is launched. Networks
that differ in their weights and data alone (nine views, ten folds) can share every kernel, if the
kernel is told apart by network. There are several ways to do so, and which is fastest depends on
the device (`labkit.training.ways` measures it); all compute the same.

Shapes: M networks, B images each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.models.deconv import by_phases, phase_kernels, upsampled_deconv
from labkit.models.mtcnn import IMAGE_SIZE

FC_WIDTHS = (256, 16)

Weights = dict[str, Tensor]
"""Weights of M networks by their name in `MTCNN.state_dict`, each of shape (M, ...)."""


class Outputs(NamedTuple):
    """What M networks say of their images, before the sigmoids.

    Args:
        classes: (M, B, 2).
        images: (M, B, 1, 64, 64), or None for ST-CNN and when only classes were asked for.
    """

    classes: Tensor
    images: Tensor | None


class Forward(Protocol):
    """A way to compute all networks' outputs.

    Args:
        weights: of M networks.
        images: (M, B, 1, 64, 64) in [0, 1].
        kept: what dropout keeps behind FC1 and FC2, (M, B, 256) and (M, B, 16) booleans, or None
            where nothing is dropped.
        reconstruct: whether to run the decoder, where there is one.
    """

    def __call__(  # noqa: D102
        self, weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True
    ) -> Outputs: ...


Kept = tuple[Tensor | None, Tensor | None]
NOTHING_DROPPED: Kept = (None, None)


def layers(weights: Weights, branch: str) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of every layer of a branch ("share", "classify", "reconstruct"), in order."""
    names = [n for n in weights if n.startswith(f"{branch}.") and n.endswith(".weight")]
    return [(weights[n], weights[n.removesuffix("weight") + "bias"]) for n in names]


def classify(weights: Weights, features: Tensor, kept: Kept) -> Tensor:
    """ClsNet of M networks as batched matrix products: (M, B, F) to (M, B, 2)."""
    x = features
    hidden = layers(weights, "classify")
    for i, (weight, bias) in enumerate(hidden):
        x = torch.baddbmm(bias.unsqueeze(-2), x, weight.transpose(-1, -2))
        if i < len(FC_WIDTHS):
            x = _dropped(F.relu(x), kept[i])
    return x


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    """Dropout with probability 0.5: what is kept counts double."""
    return x if kept is None else x * (kept.to(x.dtype) * 2)


def one_network(
    weights: Weights, images: Tensor, kept: Kept, reconstruct: bool, under_vmap: bool = False
) -> tuple[Tensor, Tensor | None]:
    """One network, given its weights: (B, 1, 64, 64) to (B, 2) and (B, 1, 64, 64) or None."""

    def laid_out(kernel: Tensor) -> Tensor:
        return kernel if under_vmap else kernel.contiguous(memory_format=torch.channels_last)

    # What is fastest for one network, vmap turns into grouped transposed convolutions: very slow.
    deconv = by_phases if under_vmap else upsampled_deconv
    x = images
    if not under_vmap:
        # With a single channel both layouts are the same bytes; strides tell PyTorch which it is.
        side = x.shape[-1]
        x = x.as_strided(x.shape, (side * side, 1, side, 1))
    for weight, bias in layers(weights, "share"):
        # The maximum and ReLU commute, and ReLU is cheaper after the pooling than before it.
        x = F.conv2d(x, laid_out(weight), bias, padding=weight.shape[-1] // 2)
        x = F.relu(F.max_pool2d(x, 2))
    logits = x.flatten(1)
    for i, (weight, bias) in enumerate(layers(weights, "classify")):
        logits = F.linear(logits, weight, bias)
        if i < len(FC_WIDTHS):
            logits = _dropped(F.relu(logits), kept[i])
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = deconv(x, weight, bias)
        if i < len(decoder) - 1:
            x = F.relu(x)
    return logits, x if decoder else None


def looped(
    weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True, streams: int = 1
) -> Outputs:
    """One network after the other; on a GPU with several streams, so that kernels may overlap."""
    side = [torch.cuda.Stream(images.device) for _ in range(streams)] if streams > 1 else []
    rows = {name: w.unbind(0) for name, w in weights.items()}
    found = []
    for stream in side:
        stream.wait_stream(torch.cuda.current_stream(images.device))
    for m in range(len(images)):
        own = {name: w[m] for name, w in rows.items()}
        dropped = (_row(kept[0], m), _row(kept[1], m))
        with torch.cuda.stream(side[m % streams] if side else None):
            found.append(one_network(own, images[m], dropped, reconstruct))
    for stream in side:
        torch.cuda.current_stream(images.device).wait_stream(stream)
    pictures = [image for _, image in found if image is not None]
    return Outputs(torch.stack([c for c, _ in found]), torch.stack(pictures) if pictures else None)


def _row(tensor: Tensor | None, m: int) -> Tensor | None:
    return None if tensor is None else tensor[m]


def vmapped(weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True) -> Outputs:
    """`torch.vmap` over the networks."""
    kind = images.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        # Autocast does not reach every operation under vmap: cast here, once.
        dtype = torch.get_autocast_dtype(kind)
        cast = {name: w.to(dtype) for name, w in weights.items()}
        with torch.autocast(kind, enabled=False):
            return vmapped(cast, images.to(dtype), kept, reconstruct)
    names, stacked = list(weights), tuple(weights.values())
    masks = tuple(k for k in kept if k is not None)

    def single(rows: tuple[Tensor, ...], image: Tensor, *own: Tensor) -> tuple[Tensor, ...]:
        left = iter(own)
        dropped = tuple(None if k is None else next(left) for k in kept)
        logits, picture = one_network(
            dict(zip(names, rows, strict=True)), image, (dropped[0], dropped[1]), reconstruct,
            under_vmap=True,
        )  # fmt: skip
        return (logits,) if picture is None else (logits, picture)

    found = torch.vmap(single)(stacked, images, *masks)
    return Outputs(found[0], found[1] if len(found) == 2 else None)


def grouped(
    weights: Weights,
    images: Tensor,
    kept: Kept,
    reconstruct: bool = True,
    channels_last: bool = False,
) -> Outputs:
    """Grouped convolutions: the networks' channels side by side, (B, M C, H, W)."""
    m, b = images.shape[:2]

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        flat = kernels.flatten(0, 1)
        if channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, flat, bias.flatten(), padding=kernels.shape[-1] // 2, groups=m)

    x = images.transpose(0, 1).reshape(b, m, IMAGE_SIZE, IMAGE_SIZE)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for weight, bias in layers(weights, "share"):
        x = F.relu(F.max_pool2d(convolve(x, weight, bias), 2))
    features = x.contiguous().view(b, m, -1).transpose(0, 1)
    logits = classify(weights, features, kept)
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        x = F.pixel_shuffle(x, 2)
        if i < len(decoder) - 1:
            x = F.relu(x)
    if not decoder:
        return Outputs(logits, None)
    return Outputs(logits, x.reshape(b, m, 1, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 1))


def multiplied(weights: Weights, images: Tensor, kept: Kept, reconstruct: bool = True) -> Outputs:
    """Convolutions as batched matrix products of patches and kernels, channels last."""
    m, b = images.shape[:2]

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """(M, B, H, W, C) with kernels (M, O, C, k, k) to (M, B, H, W, O)."""
        _, _, h, w, c = x.shape
        side = kernels.shape[-1]
        half = side // 2
        padded = F.pad(x, (0, 0, half, half, half, half))
        patches = torch.cat(
            [padded[:, :, i : i + h, j : j + w] for i in range(side) for j in range(side)], dim=-1
        )
        matrix = kernels.permute(0, 3, 4, 2, 1).reshape(m, side * side * c, -1)
        product = torch.baddbmm(bias.unsqueeze(1), patches.view(m, b * h * w, -1), matrix)
        return product.view(m, b, h, w, -1)

    def planes(x: Tensor) -> Tensor:
        return x.flatten(0, 1).permute(0, 3, 1, 2)

    x = images.permute(0, 1, 3, 4, 2)
    for weight, bias in layers(weights, "share"):
        pooled = F.relu(F.max_pool2d(planes(convolve(x, weight, bias)), 2))
        x = pooled.permute(0, 2, 3, 1).unflatten(0, (m, b))
    features = x.permute(0, 1, 4, 2, 3).reshape(m, b, -1)
    logits = classify(weights, features, kept)
    decoder = layers(weights, "reconstruct") if reconstruct else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        _, _, h, w, _ = x.shape
        x = x.view(m, b, h, w, -1, 2, 2).permute(0, 1, 2, 5, 3, 6, 4)
        x = x.reshape(m, b, 2 * h, 2 * w, -1)
        if i < len(decoder) - 1:
            x = F.relu(x)
    return Outputs(logits, x.permute(0, 1, 4, 2, 3) if decoder else None)


ONE_AFTER_ANOTHER = "one after another"

WAYS: dict[str, Callable[..., Outputs]] = {
    ONE_AFTER_ANOTHER: looped,
    "vmap": vmapped,
    "grouped convolutions": grouped,
    "batched matrix products": multiplied,
}
"""The ways by name, on any device; each is a `Forward`."""

GPU_WAYS: dict[str, Callable[..., Outputs]] = {
    **WAYS,
    "one after another, 8 streams": partial(looped, streams=8),
    "grouped convolutions, channels last": partial(grouped, channels_last=True),
}
"""What is tried on a GPU: with two variants that mean nothing on a CPU, or are slower there."""
