"""MK-SSAC: semi-supervised adversarial classification (Xie et al., Med. Image Anal. 57, 2019).

What makes it itself: an autoencoder R learns to draw nodules, labelled or not, against a critic
that tells drawn from real; transition layers hand what R's encoder sees at every depth to a
classifier C, which learns from the labelled ones. Three such models see a nodule's appearance,
texture and shape (`mvkbc2019`) in nine views. The unlabelled are nodules of uncertain malignancy,
of no patient who is tested or validated on; a cohort may have none.

Decided here: one model a kind of image for all nine views (the paper trains 27), small ones, all
trained at once; reconstruction and critic weigh 1 and 0.01. Of missing slices as `mvkbc2019`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.models.mtcnn import UpsampledDeconv
from labkit.models.rivals import Floats, NetworkRival, Rows, Split, conv2d
from labkit.models.rivals.mvkbc2019 import FEATURES, SIDE, VIEWS, patches

WIDTHS = ((1, 8), (8, 16), (16, 16))


class SSAC(nn.Module):
    """Autoencoder, critic, transition layers and classifier of one kind of image."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.ModuleList(conv2d(*width) for width in WIDTHS)
        self.decode = nn.Sequential(
            UpsampledDeconv(16, 16, 3), nn.ReLU(), UpsampledDeconv(16, 8, 3), nn.ReLU(),
            UpsampledDeconv(8, 1, 3), nn.Sigmoid(),
        )  # fmt: skip
        self.critic = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16 * (SIDE // 4) ** 2, 1),
        )  # fmt: skip
        self.classify = nn.ModuleList(conv2d(*width) for width in WIDTHS)
        self.transit = nn.ModuleList(nn.Conv2d(width[1], width[1], 1) for width in WIDTHS)
        self.features = nn.Linear(16 * (SIDE // 8) ** 2, FEATURES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute (n, 16) features and the images drawn again."""
        code = own = images
        for encode, classify, transit in zip(self.encode, self.classify, self.transit, strict=True):
            code = encode(code)
            own = classify(own) + transit(code)
        drawn = self.decode(code) if self.training else images
        return self.features(own.flatten(1)).relu(), drawn


class MKSSACNet(nn.Module):
    """Three models, and the weights of their features and of nine views.

    >>> logits, real, drawn = MKSSACNet()(torch.zeros(2, 27, 32, 32))
    >>> tuple(logits.shape), tuple(drawn[0].shape)
    ((2, 1), (18, 1, 32, 32))
    """

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleList(SSAC() for _ in range(3))
        self.opinion = nn.Sequential(nn.Dropout(0.3), nn.Linear(3 * FEATURES, 1))
        self.weigh = nn.Linear(VIEWS, 1)
        nn.init.ones_(self.weigh.weight)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Compute (n, 1) logits; return the images of three kinds, and as they are drawn."""
        kinds = [of.flatten(0, 1)[:, None] for of in images.split(VIEWS, 1)]
        seen, drawn = zip(*(model(of) for model, of in zip(self.models, kinds, strict=True)),
                          strict=True)  # fmt: skip
        opinions = self.opinion(torch.cat(seen, 1)).view(-1, VIEWS)
        return self.weigh(opinions), kinds, list(drawn)


class MKSSAC(NetworkRival):
    """Classifiers beside autoencoders that learn from uncertain nodules, too."""

    network, size = MKSSACNet, (SIDE, SIDE)

    def inputs(self, cohort: Cohort, rows: Rows) -> Floats:
        return patches(cohort, rows)

    def learns_from(self, split: Split) -> Rows:
        return np.sort(np.concatenate([split.train, split.uncertain]))

    def optimiser(self, network: nn.Module) -> Any:
        named = list(network.named_parameters())
        self._critics = [of.critic for of in network.modules() if isinstance(of, SSAC)]
        own = [of for name, of in named if ".critic." in name]
        self._train_critics = torch.optim.Adam(own, self.learning_rate)
        others = [of for name, of in named if ".critic." not in name]
        return torch.optim.Adam(others, self.learning_rate)

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        """Teach the critics; then compute how far drawn images are from real ones, and look it."""
        _, real, drawn = output
        drawn = [of.float() for of in drawn]
        judged = [self._judge(real, True), self._judge([of.detach() for of in drawn], False)]
        self._train_critics.zero_grad(set_to_none=True)
        torch.stack(judged).sum().backward()
        self._train_critics.step()
        apart = torch.stack([F.mse_loss(a, b) for a, b in zip(drawn, real, strict=True)]).mean()
        return apart + 0.01 * self._judge(drawn, True)

    def _judge(self, images: list[Tensor], real: bool) -> Tensor:
        said = torch.cat([judge(of) for judge, of in zip(self._critics, images, strict=True)])
        return F.binary_cross_entropy_with_logits(said, torch.full_like(said, float(real)))
