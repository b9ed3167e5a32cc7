"""The network of one view: ShareNet, ClsNet and ImgNet (Zhai et al. 2020, Fig. 3).

    image 64x64 -> ShareNet -> features 64x8x8 -> ClsNet -> two logits (benign, malignant)
                                               -> ImgNet -> image 64x64

What the paper leaves open is decided here and nowhere else: "same" padding, so that three poolings
take 64 to 8; ImgNet mirrors ShareNet by nearest upsampling followed by a stride-1 transposed
convolution; layers beyond the third have 64 filters of 3x3.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Upsampling and deconvolution in one step, without making the upsampled image.
#
# Nearest upsampling by two repeats every pixel in a 2x2 block, so a deconvolution that follows it
# reads each low-resolution pixel several times with different weights. Adding those weights first
# saves products, and the full-size intermediate image. There are two ways to write what is left:
#
# - four 3x3 kernels, one for each place in the 2x2 block, that read the low-resolution image: 9
#   products for an output pixel, in place of 25 for a 5x5 kernel;
# - one transposed convolution of stride 2, whose kernel is the given one widened by the block: a
# 4x4
#   one for a 3x3 kernel, of which an output pixel meets 4 entries, in place of 9.
#
# The numbers are those of upsampling, then deconvolving, up to rounding.


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


IMAGE_SIZE = 64
FILTERS = (24, 32, 64, 64, 64)
KERNELS = (5, 3, 3, 3, 3)
MAX_DEPTH = len(FILTERS)
BENIGN, MALIGNANT = 0, 1
DROPOUT_PLACES = ("none", "fc1", "fc1+fc2")


def _check(depth: int, dropout_on: str) -> None:
    if depth not in range(1, MAX_DEPTH + 1):
        raise ValueError(f"depth must be 1 to {MAX_DEPTH}, not {depth}")
    if dropout_on not in DROPOUT_PLACES:
        raise ValueError(f"dropout_on must be one of {DROPOUT_PLACES}, not {dropout_on!r}")


def share_net(depth: int) -> nn.Sequential:
    """ShareNet: `depth` times convolution, ReLU and 2x2 max pooling (III-B)."""
    layers: list[nn.Module] = []
    channels = 1
    for filters, kernel in zip(FILTERS[:depth], KERNELS[:depth], strict=True):
        # The maximum and ReLU commute, and ReLU is cheaper after the pooling than before it.
        layers += [nn.Conv2d(channels, filters, kernel, padding="same"), nn.MaxPool2d(2), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers)


def cls_net(depth: int, dropout_on: str = "fc1+fc2") -> nn.Sequential:
    """ClsNet: fully connected layers of 256, 16 and 2 neurons, dropout 0.5 (III-B, III-D)."""
    side = IMAGE_SIZE >> depth
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(FILTERS[depth - 1] * side * side, 256),
        nn.ReLU(),
        nn.Dropout(0.5 if dropout_on != "none" else 0.0),
        nn.Linear(256, 16),
        nn.ReLU(),
        nn.Dropout(0.5 if dropout_on == "fc1+fc2" else 0.0),
        nn.Linear(16, 2),
    )


def img_net(depth: int) -> nn.Sequential:
    """ImgNet: ShareNet mirrored; its last layer gives logits, the sigmoid follows (III-B)."""
    layers: list[nn.Module] = []
    widths = (1, *FILTERS[:depth])
    for level in range(depth, 0, -1):
        layers.append(UpsampledDeconv(widths[level], widths[level - 1], KERNELS[level - 1]))
        if level > 1:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _initialise(network: nn.Module) -> None:
    """Kaiming-normal weights (He et al. 2015), zero biases (III-D).

    The gain is ReLU's; only the two output layers, which a sigmoid follows, have gain one. A
    transposed convolution of stride 1 sums over its input channels, which PyTorch calls fan-out.
    """
    convolutional = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    deconvolutional = [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d)]
    outputs = {id(layers[-1]) for layers in (convolutional, deconvolutional) if layers}
    for layer in convolutional + deconvolutional:
        nn.init.kaiming_normal_(
            layer.weight,
            mode="fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in",
            nonlinearity="linear" if id(layer) in outputs else "relu",
        )
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class MTCNN(nn.Module):
    """Multi-task network of one view: classifies the nodule and reconstructs its image.

    Args:
        depth: number of convolutions in ShareNet, 1 to 5 (the paper settles on 3, IV-D).
        dropout_on: "fc1+fc2" (III-D), "fc1" (IV-C) or "none".

    >>> logits, image = MTCNN(depth=3)(torch.zeros(2, 1, 64, 64))
    >>> tuple(logits.shape), tuple(image.shape)
    ((2, 2), (2, 1, 64, 64))
    """

    def __init__(self, depth: int = 3, dropout_on: str = "fc1+fc2") -> None:
        super().__init__()
        _check(depth, dropout_on)
        self.depth = depth
        # ImgNet comes last so that an ST-CNN of the same seed starts from the same weights.
        self.share = share_net(depth)
        self.classify = cls_net(depth, dropout_on)
        _initialise(nn.ModuleList([self.share, self.classify]))
        self.reconstruct = img_net(depth)
        _initialise(self.reconstruct)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both branches before their sigmoids: (B, 2) and (B, 1, 64, 64)."""
        features = self.share(images)
        return self.classify(features), self.reconstruct(features)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, 2) and reconstruction (B, 1, 64, 64) in (0, 1) of images in [0, 1]."""
        features = self.share(images)
        return self.classify(features), torch.sigmoid(self.reconstruct(features))


class STCNN(nn.Module):
    """Single-task network of one view: MT-CNN without its ImgNet branch (alpha = 0).

    Its forward pass returns `(logits, None)`, so that both networks are called alike.

    >>> logits, image = STCNN()(torch.zeros(2, 1, 64, 64))
    >>> tuple(logits.shape), image
    ((2, 2), None)
    """

    def __init__(self, depth: int = 3, dropout_on: str = "fc1+fc2") -> None:
        super().__init__()
        _check(depth, dropout_on)
        self.depth = depth
        self.share = share_net(depth)
        self.classify = cls_net(depth, dropout_on)
        _initialise(nn.ModuleList([self.share, self.classify]))

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class logits (B, 2) before the sigmoid, and None for the branch it lacks."""
        return self.classify(self.share(images)), None

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Class logits (B, 2) of images (B, 1, 64, 64) in [0, 1], and None."""
        return self.classify(self.share(images)), None
