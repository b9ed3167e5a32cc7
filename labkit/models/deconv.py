"""Upsampling and deconvolution in one step, without making the upsampled image.

Nearest upsampling by two repeats every pixel in a 2x2 block, so a deconvolution that follows it
reads each low-resolution pixel several times with different weights. Adding those weights first
saves products, and the full-size intermediate image. There are two ways to write what is left:

- four 3x3 kernels, one for each place in the 2x2 block, that read the low-resolution image: 9
  products for an output pixel, in place of 25 for a 5x5 kernel;
- one transposed convolution of stride 2, whose kernel is the given one widened by the block: a 4x4
  one for a 3x3 kernel, of which an output pixel meets 4 entries, in place of 9.

The numbers are those of upsampling, then deconvolving, up to rounding.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@lru_cache
def _taps(kernel: int, device: torch.device) -> Tensor:
    """(2, 3, kernel) zeros and ones: which kernel entries fall on which low-resolution pixel.

    Output pixel 2 i + phase reads upsampled pixels 2 i + phase + k, k from -kernel // 2 to
    kernel // 2, which are copies of low-resolution pixels i - 1, i and i + 1. Kept, since a copy
    from the host is not allowed while a GPU's step is recorded.
    """
    half = kernel // 2
    gather = torch.zeros(2, 3, kernel)
    for phase in (0, 1):
        for k in range(-half, half + 1):
            gather[phase, (phase + k) // 2 + 1, k + half] = 1.0
    return gather.to(device)


def phase_kernels(weight: Tensor) -> Tensor:
    """(..., I, O, k, k) weights of a deconvolution to (..., 4 O, I, 3, 3) kernels, one a phase."""
    taps = _taps(weight.shape[-1], weight.device).to(weight.dtype)
    # A transposed convolution is a convolution with the kernel turned by 180 degrees.
    kernel = weight.flip(-2, -1).transpose(-4, -3)
    phases = torch.einsum("ati,bsj,...ocij->...oabcts", taps, taps, kernel)
    return phases.flatten(-6, -4)


def _widened(kernel: Tensor) -> Tensor:
    """(..., k, k) kernel, summed over the four places of a 2x2 block: (..., k + 1, k + 1)."""
    tall = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))


def upsampled_deconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest upsampling by 2, then a "same" transposed convolution of stride 1.

    Args:
        x: (B, I, H, W).
        weight: (I, O, k, k), k 3 or 5.
        bias: (O,), or None.

    Returns:
        (B, O, 2 H, 2 W).
    """
    # Faster where it was measured, on CPUs. A widened 5x5 kernel would save no product.
    if x.device.type == "cpu" and weight.shape[-1] == 3:
        return F.conv_transpose2d(x, _widened(weight), bias, stride=2, padding=1)
    return by_phases(x, weight, bias)


def by_phases(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`upsampled_deconv` by four 3x3 kernels, whatever the device."""
    repeated = None if bias is None else bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, phase_kernels(weight), repeated, padding=1), 2)


class UpsampledDeconv(nn.ConvTranspose2d):
    """`upsampled_deconv` as a layer.

    Its parameters are those of `nn.ConvTranspose2d(inputs, outputs, kernel, padding=kernel // 2)`.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the square kernel, 3 or 5.

    >>> tuple(UpsampledDeconv(64, 32, 3)(torch.zeros(1, 64, 8, 8)).shape)
    (1, 32, 16, 16)
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        if kernel not in (3, 5):
            raise ValueError(f"kernel must be 3 or 5, not {kernel}")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        return upsampled_deconv(x, self.weight, self.bias)
