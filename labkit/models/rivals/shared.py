"""One network for all nine views: beyond Zhai et al. (2020), who name it as future work.

    view 40x40 mm -> the same encoder for all nine -> 64 features -> attention over views -> logit
                                                   -> decoder -> the view at half its resolution

What makes it itself: MT-CNN's two tasks, but each weight learns from nine views of a nodule in
place of one, and views are put together by gated attention (Ilse et al., ICML 2018) that is learnt
with all else, in place of weights from validation AUCs. Of 40 mm, since its nodules are of 32 mm at
most; with a second window of 0 to 1000 HU, since calcium lies beyond the paper's 400 HU (an image
of 8 bits ends there); the mean of four reflections is its word on a nodule. In cubes that hold
only the nodule's own slices, oblique views show where the slices end, and so its height.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.models.mtcnn import UpsampledDeconv
from labkit.models.rivals import Floats, NetworkRival, Rows, conv2d, views_hu

FEATURES, SIDE, ALPHA = 64, 40, 0.3


class SharedNet(nn.Module):
    """Encoder, decoder, attention and one linear head for all tasks.

    >>> said, image, target, weights = SharedNet(2)(torch.zeros(3, 9, 40, 40))
    >>> tuple(said.shape), tuple(image.shape), tuple(weights.shape)
    ((3, 2), (27, 1, 20, 20), (3, 9, 1))
    """

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.encode = nn.Sequential(*conv2d(2, 16, 5), *conv2d(16, 32), *conv2d(32, FEATURES))
        self.decode = nn.Sequential(
            UpsampledDeconv(FEATURES, 32, 3), nn.ReLU(), UpsampledDeconv(32, 1, 3)
        )
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(FEATURES * (SIDE // 8) ** 2, FEATURES),
            nn.ReLU(),
        )
        self.look, self.gate = nn.Linear(FEATURES, 32), nn.Linear(FEATURES, 32)
        self.weigh = nn.Linear(32, 1)
        self.say = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, outputs))

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute (n, outputs) logits, the views' logits and themselves at half size, and weights.

        `hu` is (n, 9, 40, 40), in 1000 HU.
        """
        lung, bone = ((hu + 1) / 1.4).clamp(0, 1).flatten(0, 1), hu.clamp(0, 1).flatten(0, 1)
        code = self.encode(torch.stack([lung, bone], 1))
        of_view = self.features(code).unflatten(0, hu.shape[:2])
        seen = self.weigh(self.look(of_view).tanh() * self.gate(of_view).sigmoid())
        weights = seen.float().softmax(1)
        image = self.decode(code) if self.training else code
        return self.say((weights * of_view).sum(1)), image, F.avg_pool2d(lung[:, None], 2), weights


class Shared(NetworkRival):
    """One encoder for nine views, attention, classification and reconstruction."""

    network: Callable[[], nn.Module] = SharedNet
    size, reflections, weight_decay = (SIDE, SIDE), True, 1e-4

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        return views_hu(cohort, rows, SIDE + 12) / 1000

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        _, drawn, views, _ = output
        return ALPHA * F.binary_cross_entropy_with_logits(drawn.float(), views)
