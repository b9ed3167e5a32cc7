"""The multi-task loss (Zhai et al. 2020, Eq. 1 to 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.models.mtcnn import MALIGNANT

_DECAYED = {"share": ("share",), "img": ("reconstruct",), "both": ("share", "reconstruct")}


def classification_loss(logits: Tensor, labels: Tensor, output: str = "sigmoid") -> Tensor:
    """L_cls of Eq. 1: mean cross-entropy of the two output neurons.

    The printed Eq. 2 lacks its minus sign; maximising the likelihood needs it.

    Args:
        logits: (B, 2), benign and malignant.
        labels: (B,) integers, 1 malignant.
        output: "sigmoid" compares each neuron with the one-hot label by binary cross-entropy;
            "softmax" lets the two compete.
    """
    if output == "softmax":
        return F.cross_entropy(logits.float(), labels)
    return F.binary_cross_entropy_with_logits(logits.float(), F.one_hot(labels, 2).float())


def reconstruction_loss(image_logits: Tensor, images: Tensor) -> Tensor:
    """L_img of Eq. 3: binary cross-entropy of every pixel, averaged.

    Args:
        image_logits: (B, 1, 64, 64), the reconstruction before its sigmoid.
        images: (B, 1, 64, 64) in [0, 1]. Its own entropy is the floor that the loss cannot go
            below, so a good reconstruction has a loss well above zero.
    """
    return F.binary_cross_entropy_with_logits(image_logits.float(), images)


def decayed(name: str, l2_on: str) -> bool:
    """Whether l2 acts on the parameter of this name: convolution weights, no biases (IV-C).

    The paper does not say on which branches; `l2_on` does ("share", "img" or "both").

    >>> decayed("share.0.weight", "both"), decayed("share.0.bias", "both")
    (True, False)
    >>> decayed("share.0.weight", "img"), decayed("classify.1.weight", "both")
    (False, False)
    """
    return name.endswith(".weight") and name.split(".")[0] in _DECAYED[l2_on]


def malignant_probability(logits: Tensor, output: str = "sigmoid") -> Tensor:
    """(B,) score of a nodule: the sigmoid of the malignant neuron, or the softmax's share."""
    if output == "softmax":
        return torch.softmax(logits.float(), dim=1)[:, MALIGNANT]
    return torch.sigmoid(logits.float()[:, MALIGNANT])


def classification_losses(logits: Tensor, labels: Tensor, output: str = "sigmoid") -> Tensor:
    """`classification_loss` of every image: (..., 2) logits and (...) labels to (...)."""
    if output == "softmax":
        flat = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="none")
        return flat.view(labels.shape)
    # Not `one_hot`, which looks at the labels' values: a device would make the host wait for them.
    targets = torch.stack([1 - labels, labels], dim=-1).float()
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(-1)


def reconstruction_losses(image_logits: Tensor, images: Tensor) -> Tensor:
    """`reconstruction_loss` of every image: (..., 1, 64, 64) twice to (...)."""
    pixels = F.binary_cross_entropy_with_logits(image_logits.float(), images, reduction="none")
    return pixels.mean((-3, -2, -1))
