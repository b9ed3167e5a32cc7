"""Ways to train many small networks on one device, timed in one run on the same work.

    python -m benchmarks.speed.layouts [--device auto] [--precision fp32] [--networks 9] --out FILE

One step of all networks, forward, backward and Adam, with the images cut out and transformed on the
device. On a CPU one thread is used, since labkit gives every core networks of its own. On a GPU
every way is timed twice, launched operation by operation and recorded as a CUDA graph; the first
row is what one would write first: one network after another, launched.

Every way computes the same (`tests/training/test_side_by_side.py`). Data are noise. A way that the
device refuses is named with the reason, and the others are timed. The first two are labkit's; the
others are written by hand for MT-CNN and ST-CNN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import command
from labkit.errors import InputError
from labkit.models.mtcnn import IMAGE_SIZE, phase_kernels
from labkit.training.config import TrainingConfig
from labkit.training.machines import Device
from labkit.training.side_by_side import Outputs, stacked, step_flop, time_step


def _layers(weights: Mapping[str, Tensor], branch: str) -> list[tuple[Tensor, Tensor]]:
    """List (weight, bias) of every layer of a branch, in order."""
    names = [n for n in weights if n.startswith(f"{branch}.") and n.endswith(".weight")]
    return [(weights[n], weights[n.removesuffix("weight") + "bias"]) for n in names]


def _classify(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Compute ClsNet of M networks as batched matrix products: (M, B, F) to (M, B, 2)."""
    layers = _layers(weights, "classify")
    for i, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias.unsqueeze(-2), x, weight.transpose(-1, -2))
        if i < len(layers) - 1:
            x, kept = F.relu(x), weights.get(f"classify.{3 * i + 3}.kept")
            x = x if kept is None else x * (kept.to(x.dtype) * 2)
    return x


def grouped(
    network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, draws_images: bool = True,
    channels_last: bool = False,
) -> Outputs:  # fmt: skip
    """Compute grouped convolutions: the networks' channels side by side, (B, M C, H, W)."""
    m, b = images.shape[:2]
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        flat = kernels.flatten(0, 1).contiguous(memory_format=layout)
        return F.conv2d(x, flat, bias.flatten(), padding=kernels.shape[-1] // 2, groups=m)

    x = images.transpose(0, 1).reshape(b, m, IMAGE_SIZE, IMAGE_SIZE)
    x = x.contiguous(memory_format=layout)
    for weight, bias in _layers(weights, "share"):
        x = F.relu(F.max_pool2d(convolve(x, weight, bias), 2))
    logits = _classify(weights, x.contiguous().view(b, m, -1).transpose(0, 1))
    decoder = _layers(weights, "reconstruct") if draws_images else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        x = F.pixel_shuffle(x, 2)
        if i < len(decoder) - 1:
            x = F.relu(x)
    drawn = x.reshape(b, m, 1, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 1) if decoder else None
    return logits, drawn


def multiplied(
    network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, draws_images: bool = True
) -> Outputs:
    """Compute convolutions as batched matrix products of patches and kernels, channels last."""
    m, b = images.shape[:2]

    def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """(M, B, H, W, C) with kernels (M, O, C, k, k) to (M, B, H, W, O)."""
        _, _, h, w, c = x.shape
        side, half = kernels.shape[-1], kernels.shape[-1] // 2
        padded = F.pad(x, (0, 0, half, half, half, half))
        patches = torch.cat(
            [padded[:, :, i : i + h, j : j + w] for i in range(side) for j in range(side)], dim=-1
        )
        matrix = kernels.permute(0, 3, 4, 2, 1).reshape(m, side * side * c, -1)
        product = torch.baddbmm(bias.unsqueeze(1), patches.view(m, b * h * w, -1), matrix)
        return product.view(m, b, h, w, -1)

    x = images.permute(0, 1, 3, 4, 2)
    for weight, bias in _layers(weights, "share"):
        planes = convolve(x, weight, bias).flatten(0, 1).permute(0, 3, 1, 2)
        x = F.relu(F.max_pool2d(planes, 2)).permute(0, 2, 3, 1).unflatten(0, (m, b))
    logits = _classify(weights, x.permute(0, 1, 4, 2, 3).reshape(m, b, -1))
    decoder = _layers(weights, "reconstruct") if draws_images else []
    for i, (weight, bias) in enumerate(decoder):
        x = convolve(x, phase_kernels(weight), bias.repeat_interleave(4, dim=1))
        _, _, h, w, _ = x.shape
        x = x.view(m, b, h, w, -1, 2, 2).permute(0, 1, 2, 5, 3, 6, 4)
        x = x.reshape(m, b, 2 * h, 2 * w, -1)
        if i < len(decoder) - 1:
            x = F.relu(x)
    return logits, x.permute(0, 1, 4, 2, 3) if decoder else None


ONE_AFTER_ANOTHER = "one after another"
WAYS: dict[str, Callable[..., Outputs]] = {
    ONE_AFTER_ANOTHER: stacked,
    "vmap": stacked,
    "grouped convolutions": grouped,
    "batched matrix products": multiplied,
}
GPU_WAYS = {**WAYS, "grouped convolutions, channels last": partial(grouped, channels_last=True)}


def measure(
    *, device: str = "auto", precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    networks: int = 9, batch_size: int = 64, model: Literal["mt", "st"] = "mt", repeats: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """Measure milliseconds and TFLOP/s of every way, and why others could not be timed."""
    config = TrainingConfig.paper(model=model, batch_size=batch_size)
    chosen = Device.choose(device, precision)
    on_gpu = chosen.torch_device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for record in (False, True) if on_gpu else (False,):
        for way, forward in (GPU_WAYS if on_gpu else WAYS).items():
            name = f"{way}, {'recorded' if record else 'launched'}" if on_gpu else way
            try:
                timed = time_step(
                    config, chosen, networks, 1 if way == ONE_AFTER_ANOTHER else networks,
                    repeats=repeats, record=record, forward=forward,
                )  # fmt: skip
            except RuntimeError as error:  # out of memory is one of these
                refused[name] = str(error).splitlines()[0]
                continue
            found[name] = {"ms_per_round": round(1e3 * timed["seconds"], 3),
                           "tflops": round(timed["tflops"], 4)}  # fmt: skip
            if on_gpu:
                found[name]["memory_gb"] = round(timed["memory_gb"], 2)
    if not found:
        raise InputError(f"no way could be timed: {refused}")
    return {
        "device": chosen.torch_device.type, "model": model, "networks": networks,
        "batch_size": batch_size, "precision": precision,
        "gflop_per_round": round(networks * step_flop(config) / 1e9, 1),
        "ways": found, "refused": refused,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
