"""The network of one view: ShareNet, ClsNet and ImgNet (Zhai et al. 2020, Fig. 3).

    image 64x64 -> ShareNet -> features 64x8x8 -> ClsNet -> two logits (benign, malignant)
                                               -> ImgNet -> image 64x64

What the paper leaves open is decided here and nowhere else: "same" padding, so that three poolings
take 64 to 8; ImgNet mirrors ShareNet by nearest upsampling followed by a stride-1 transposed
convolution; layers beyond the third have 64 filters of 3x3.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_SIZE = 64
FILTERS = (24, 32, 64, 64, 64)
KERNELS = (5, 3, 3, 3, 3)
MAX_DEPTH = len(FILTERS)
BENIGN, MALIGNANT = 0, 1
DROPOUT = 0.5  # its probability
DROPOUT_PLACES = ("none", "fc1", "fc1+fc2")

# Nearest upsampling repeats every pixel in a 2x2 block, so a deconvolution that follows it reads
# each low-resolution pixel several times with different weights. Adding those weights first saves
# products, and the full-size image in between: four 3x3 kernels, one for each place in the block,
# take 9 products for an output pixel in place of 25 for a 5x5 kernel; one transposed convolution of
# stride 2 with the kernel widened by the block takes 4 in place of 9 for a 3x3 kernel.


@lru_cache  # since a copy from the host is not allowed while a GPU's step is recorded
def _taps(kernel: int, device: torch.device) -> Tensor:
    """Return (2, 3, kernel) zeros and ones: which kernel entries fall on which coarse pixel.

    Output pixel 2 i + phase reads upsampled pixels 2 i + phase + k, k from -kernel // 2 to
    kernel // 2, which are copies of low-resolution pixels i - 1, i and i + 1.
    """
    taps = torch.zeros(2, 3, kernel)
    for phase, k in product((0, 1), range(kernel)):
        taps[phase, (phase + k - kernel // 2) // 2 + 1, k] = 1.0
    return taps.to(device)


def phase_kernels(weight: Tensor) -> Tensor:
    """Turn (..., I, O, k, k) weights of a deconvolution into (..., 4 O, I, 3, 3), one a phase."""
    taps = _taps(weight.shape[-1], weight.device).to(weight.dtype)
    # A transposed convolution is a convolution with the kernel turned by 180 degrees.
    kernel = weight.flip(-2, -1).transpose(-4, -3)
    phases = torch.einsum("ati,bsj,...ocij->...oabcts", taps, taps, kernel)
    return phases.flatten(-6, -4)


def by_phases(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `upsampled_deconv` by four 3x3 kernels, whatever the device."""
    repeated = None if bias is None else bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, phase_kernels(weight), repeated, padding=1), 2)


def upsampled_deconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Upsample by 2 (nearest), then apply a "same" transposed convolution of stride 1.

    From x (B, I, H, W), weight (I, O, k, k) with k 3 or 5 and bias (O,) to (B, O, 2 H, 2 W).
    """
    # Faster where it was measured, on CPUs. A widened 5x5 kernel would save no product.
    if x.device.type == "cpu" and weight.shape[-1] == 3:
        tall = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
        widened = F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))
        return F.conv_transpose2d(x, widened, bias, stride=2, padding=1)
    return by_phases(x, weight, bias)


class UpsampledDeconv(nn.ConvTranspose2d):
    """`upsampled_deconv` as a layer, with the parameters of a padded `nn.ConvTranspose2d`.

    >>> tuple(UpsampledDeconv(64, 32, 3)(torch.zeros(1, 64, 8, 8)).shape)
    (1, 32, 16, 16)
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        if kernel not in (3, 5):
            raise ValueError(f"kernel must be 3 or 5, not {kernel}")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Turn (B, inputs, H, W) into (B, outputs, 2 H, 2 W)."""
        return upsampled_deconv(x, self.weight, self.bias)


def _share_net(depth: int) -> nn.Sequential:
    """Build ShareNet: `depth` times convolution, ReLU and 2x2 max pooling (III-B)."""
    layers: list[nn.Module] = []
    for widths, kernel in zip(pairwise((1, *FILTERS[:depth])), KERNELS, strict=False):
        # The maximum and ReLU commute, and ReLU is cheaper after the pooling than before it.
        layers += [nn.Conv2d(*widths, kernel, padding="same"), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers)


def _cls_net(depth: int, dropout_on: str = "fc1+fc2") -> nn.Sequential:
    """Build ClsNet: fully connected layers of 256, 16 and 2 neurons, dropout 0.5 (III-B, III-D)."""
    side = IMAGE_SIZE >> depth
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(FILTERS[depth - 1] * side * side, 256),
        nn.ReLU(),
        nn.Dropout(DROPOUT if dropout_on != "none" else 0.0),
        nn.Linear(256, 16),
        nn.ReLU(),
        nn.Dropout(DROPOUT if dropout_on == "fc1+fc2" else 0.0),
        nn.Linear(16, 2),
    )


def _img_net(depth: int) -> nn.Sequential:
    """Build ImgNet: ShareNet mirrored; its last layer gives logits, the sigmoid follows (III-B)."""
    layers: list[nn.Module] = []
    widths = (1, *FILTERS[:depth])
    for level in range(depth, 0, -1):
        layers += [UpsampledDeconv(widths[level], widths[level - 1], KERNELS[level - 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _initialise(*branches: nn.Sequential) -> None:
    """Draw Kaiming-normal weights (He et al. 2015) and set biases to zero (III-D).

    The gain is ReLU's; only a branch's output layer, which a sigmoid follows, has gain one. A
    transposed convolution of stride 1 sums over its input channels, which PyTorch calls fan-out.
    """
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    layers = [m for branch in branches for m in branch if isinstance(m, kinds)]
    for layer in layers:
        nn.init.kaiming_normal_(
            layer.weight,
            mode="fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in",
            nonlinearity="linear" if layer is layers[-1] else "relu",
        )
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class STCNN(nn.Module):
    """Single-task network of one view: ShareNet and ClsNet (MT-CNN with alpha = 0).

    Args:
        depth: number of convolutions in ShareNet, 1 to 5 (the paper settles on 3, IV-D).
        dropout_on: "fc1+fc2" (III-D), "fc1" (IV-C) or "none".

    Its forward pass returns `(logits, None)`, so that both networks are called alike.

    >>> logits, image = STCNN()(torch.zeros(2, 1, 64, 64))
    >>> tuple(logits.shape), image
    ((2, 2), None)
    """

    def __init__(self, depth: int = 3, dropout_on: str = "fc1+fc2") -> None:
        super().__init__()
        if depth not in range(1, MAX_DEPTH + 1):
            raise ValueError(f"depth must be 1 to {MAX_DEPTH}, not {depth}")
        if dropout_on not in DROPOUT_PLACES:
            raise ValueError(f"dropout_on must be one of {DROPOUT_PLACES}, not {dropout_on!r}")
        self.depth = depth
        self.share = _share_net(depth)
        self.classify = _cls_net(depth, dropout_on)
        _initialise(self.share, self.classify)

    def class_logits(self, images: Tensor) -> Tensor:
        """Compute (B, 2) class logits of images (B, 1, 64, 64) in [0, 1]."""
        return self.classify(self.share(images))

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute all branches before their sigmoids: (B, 2), and (B, 1, 64, 64) or None."""
        return self.class_logits(images), None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute class logits (B, 2) and the reconstruction (B, 1, 64, 64) in (0, 1), or None."""
        logits, image_logits = self.logits(images)
        return logits, None if image_logits is None else torch.sigmoid(image_logits)


class MTCNN(STCNN):
    """Multi-task network of one view: classifies the nodule and reconstructs its image.

    >>> logits, image = MTCNN(depth=3)(torch.zeros(2, 1, 64, 64))
    >>> tuple(logits.shape), tuple(image.shape)
    ((2, 2), (2, 1, 64, 64))
    """

    def __init__(self, depth: int = 3, dropout_on: str = "fc1+fc2") -> None:
        super().__init__(depth, dropout_on)
        # ImgNet comes last so that an ST-CNN of the same seed starts from the same weights.
        self.reconstruct = _img_net(depth)
        _initialise(self.reconstruct)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute both branches before their sigmoids: (B, 2) and (B, 1, 64, 64)."""
        features = self.share(images)
        return self.classify(features), self.reconstruct(features)
