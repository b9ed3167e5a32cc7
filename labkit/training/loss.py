"""The multi-task loss of `loop` and `side_by_side` (Zhai et al. 2020, Eq. 1 to 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.models.mtcnn import MALIGNANT

_BRANCHES = {"share": ("share",), "img": ("reconstruct",), "both": ("share", "reconstruct")}


def classification_loss(
    logits: Tensor, labels: Tensor, output: str = "sigmoid", reduction: str = "mean"
) -> Tensor:
    """Compute L_cls of Eq. 1: cross-entropy of the two output neurons.

    The printed Eq. 2 lacks its minus sign; maximising the likelihood needs it.

    Args:
        logits, labels: (..., 2), benign and malignant; and (...) integers, 1 malignant.
        output: "sigmoid" compares each neuron with the one-hot label by binary cross-entropy;
            "softmax" lets the two compete.
        reduction: "mean" of all images, or "none" for (...) losses, one an image.
    """
    if output == "softmax":
        flat = logits.float().flatten(0, -2)
        loss = F.cross_entropy(flat, labels.flatten(), reduction=reduction)
        return loss if reduction == "mean" else loss.view(labels.shape)
    # Not `one_hot`, which looks at the labels' values: a GPU would make the host wait for them.
    targets = torch.stack([1 - labels, labels], dim=-1).float()
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction=reduction)
    return loss if reduction == "mean" else loss.mean(-1)


def reconstruction_loss(image_logits: Tensor, images: Tensor, reduction: str = "mean") -> Tensor:
    """Compute L_img of Eq. 3: binary cross-entropy of every pixel, averaged.

    Of (..., 1, 64, 64) logits, the reconstruction before its sigmoid, and images in [0, 1]. Their
    own entropy is the floor that the loss cannot go below: a good reconstruction has a loss well
    above zero. `reduction` as in `classification_loss`.
    """
    loss = F.binary_cross_entropy_with_logits(image_logits.float(), images, reduction=reduction)
    return loss if reduction == "mean" else loss.mean((-3, -2, -1))


def decayed(name: str, l2_on: str) -> bool:
    """Tell whether l2 acts on the parameter of this name: convolution weights, no biases (IV-C).

    The paper does not say on which branches; `l2_on` does ("share", "img" or "both").

    >>> decayed("share.0.weight", "both"), decayed("share.0.bias", "both")
    (True, False)
    >>> decayed("share.0.weight", "img"), decayed("classify.1.weight", "both")
    (False, False)
    """
    return name.endswith(".weight") and name.split(".")[0] in _BRANCHES[l2_on]


def malignant_probability(logits: Tensor, output: str = "sigmoid") -> Tensor:
    """Compute (B,) scores: the sigmoid of the malignant neuron, or the softmax's share."""
    if output == "softmax":
        return torch.softmax(logits.float(), dim=1)[:, MALIGNANT]
    return torch.sigmoid(logits.float()[:, MALIGNANT])
