"""The network of one view: ShareNet, ClsNet and ImgNet (Zhai et al. 2020, Fig. 3).

    image 64x64 -> ShareNet -> features 64x8x8 -> ClsNet -> two logits (benign, malignant)
                                               -> ImgNet -> image 64x64

What the paper leaves open is decided here and nowhere else: "same" padding, so that three poolings
take 64 to 8; ImgNet mirrors ShareNet by nearest upsampling followed by a stride-1 transposed
convolution; layers beyond the third have 64 filters of 3x3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.models.deconv import UpsampledDeconv

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
