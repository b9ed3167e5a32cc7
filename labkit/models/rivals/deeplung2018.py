"""DeepLung's classifier (Zhu et al., WACV 2018): a 3-D dual-path network, then boosted stumps.

What makes it itself: blocks in which some channels are added to (as in a ResNet) and others joined
to (as in a DenseNet) what came before, on 32 mm; then gradient boosting with trees of depth 1 on
the network's features, the raw voxels and the nodule's diameter. `deeplung2018+diameter` is the
paper's; `deeplung2018` is what is left of it without the diameter, which readers measured.

Decided here: three stages of two blocks, 72 features in place of 2,560, no groups within a
convolution, and a pooling first, so that it trains on a CPU; voxels as means of 2x2x2; 100 trees.
As there, trees learn from nodules on which the network was trained, of whose features they think
too highly. Raw voxels tell which slices are air.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.models.rivals import Floats, NetworkRival, Report, Rows, Split, conv3d

STAGES = ((16, 16, 4), (24, 32, 8), (32, 48, 8))  # width within, channels added, channels joined
BLOCKS = 2


class DualPath(nn.Module):
    """A bottleneck block with both paths; the first of a stage brings the number of channels."""

    def __init__(
        self, inside: int, width: int, added: int, joined: int, first: bool, stride: int
    ) -> None:
        super().__init__()
        self.added = added
        self.body = nn.Sequential(
            conv3d(inside, width, 1), conv3d(width, width, 3, stride=stride),
            nn.Conv3d(width, added + joined, 1, bias=False), nn.BatchNorm3d(added + joined),
        )  # fmt: skip
        self.carry = nn.Sequential(
            nn.Conv3d(inside, added + joined, 1, stride=stride, bias=False),
            nn.BatchNorm3d(added + joined),
        ) if first else nn.Identity()  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Add to some channels, join others."""
        old, new = self.carry(x), self.body(x)
        summed = old[:, : self.added] + new[:, : self.added]
        return torch.cat([summed, old[:, self.added :], new[:, self.added :]], 1).relu()


class DeepLungNet(nn.Module):
    """The dual-path network.

    >>> logits, features = DeepLungNet()(torch.zeros(2, 1, 32, 32, 32))
    >>> tuple(logits.shape), tuple(features.shape)
    ((2, 1), (2, 72))
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3d(1, 8, pool=2)]
        inside = 8
        for stage, (width, added, joined) in enumerate(STAGES):
            for block in range(BLOCKS):
                first, stride = block == 0, 2 if stage > 0 and block == 0 else 1
                layers.append(DualPath(inside, width, added, joined, first, stride))
                inside = added + 2 * joined if first else inside + joined
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.say = nn.Linear(inside, 1)

    def forward(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute (n, 1) logits and (n, 72) features."""
        features = self.body(cubes)
        return self.say(features), features


class DeepLung(NetworkRival):
    """Boosted stumps on a dual-path network's features and on voxels."""

    network, with_diameter = DeepLungNet, False

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> NDArray[np.float64]:
        mm = cohort.nodules["diameter_mm"]
        if self.with_diameter and not (mm > 0).all():
            raise InputError(
                f"{cohort.folder}: not every nodule has a diameter_mm, which this needs"
            )
        super().fit(cohort, split, on_epoch)
        labels = cohort.nodules["label"].iloc[split.train].to_numpy(dtype=float)
        self._boost(self._table(cohort, split.train), labels)
        return self.predict(cohort, split.val)

    def _table(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return (n, features + 4096 voxels + the diameter) of nodules."""
        cubes = self.cut(torch.from_numpy(self.inputs(cohort, rows)))
        with torch.inference_mode():
            seen = [self._network(part.to(self.device.torch_device))[1] for part in cubes.split(32)]
            voxels = F.avg_pool3d(cubes, 2).flatten(1).numpy()
        mm = cohort.nodules["diameter_mm"].iloc[rows].to_numpy(dtype=float)
        of_size = [mm] if self.with_diameter else []
        return np.column_stack([torch.cat(seen).cpu().numpy(), voxels, *of_size])

    def _boost(self, x: Floats, y: Floats) -> None:
        self._x, self._y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        self._stumps = GradientBoostingClassifier(max_depth=1, random_state=0).fit(self._x, self._y)

    def predict(self, cohort: Cohort, rows: Rows) -> NDArray[np.float64]:
        return self._stumps.predict_proba(self._table(cohort, rows))[:, 1]

    def state(self) -> dict[str, Floats]:
        return {**super().state(), "stumps_x": self._x, "stumps_y": self._y}

    def restore(self, state: Mapping[str, Floats]) -> None:
        super().restore({name: of for name, of in state.items() if "stumps_" not in name})
        self._network.eval()
        self._boost(state["stumps_x"], state["stumps_y"])


class DeepLungDiameter(DeepLung):
    """The same with the diameter that readers measured (`diameter_mm`), as published."""

    with_diameter = True
