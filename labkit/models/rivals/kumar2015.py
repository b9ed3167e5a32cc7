"""Deep features: an autoencoder of the nodule's slices, and a decision tree on its code.

Kumar, Wong and Clausi, Conference on Computer and Robot Vision, 2015, p. 133. What makes it itself:
its features are learnt without labels, by an autoencoder, and judged by a single tree.

Decided here, where no more than the abstract was at hand: a denoising autoencoder of 1,024 pixels,
256, 128 and 256 neurons and 1,024 pixels, from which a fifth of the pixels is hidden; Adam, 20
epochs; axial slices of 32 mm at 1 mm, as they are, so that the code may know the size; of each
nodule those that are no farther from its middle than its edge, eight at most. The code of a nodule
is the mean of its slices', so that it is one case for the tree, however high it is. The autoencoder
learns from uncertain nodules, too, since it needs no label. Where cubes hold the nodule's own
slices alone nothing is missing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import FeatureRival, Floats, Report, Rows, Split, unit
from labkit.models.rivals.nodule import segment

_SIDE, _SLICES, _EPOCHS, _BATCH = 32, 8, 20, 64


class Kumar2015(FeatureRival):
    """A decision tree on the 128 numbers of an autoencoder's code."""

    grid = {"max_depth": [2, 3, 5, 8], "min_samples_leaf": [5, 20]}  # noqa: RUF012

    def describe(self, image: Floats) -> Floats:
        """Return (8, 1024) slices, NaN where the nodule has fewer."""
        there = np.flatnonzero(segment(image).mask.any(axis=(1, 2)))
        height = min(len(there), _SLICES) / 2
        own = image[int(32 - height) : int(np.ceil(32 + height))]
        held = (own > -1000).any(axis=(1, 2))
        own = unit(own[held if held.any() else [0]][:_SLICES, 16:48, 16:48])
        slices = np.full((_SLICES, _SIDE**2), np.nan)
        slices[: len(own)] = own.reshape(len(own), -1)
        return slices

    def features(self, cohort: Cohort, rows: Rows) -> Floats:
        slices = torch.from_numpy(super().features(cohort, rows))
        with torch.inference_mode():
            code = self._coder[0](slices.nan_to_num().to(self.device.torch_device)).cpu()
        there = ~slices[:, :, :1].isnan()
        return ((code * there).sum(dim=1) / there.sum(dim=1)).numpy()

    def estimator(self) -> BaseEstimator:
        return DecisionTreeClassifier(random_state=self.seed)

    def fit(self, cohort: Cohort, split: Split, on_epoch: Report) -> Floats:
        rows = np.concatenate([self.learns_from(split), split.uncertain])
        slices = super().features(cohort, rows).reshape(-1, _SIDE**2)
        place = self.device.torch_device
        images = torch.from_numpy(slices[~np.isnan(slices[:, 0])]).to(place)
        with self.device.seeded(self.seed):
            self._coder = _autoencoder().to(place)
            optimiser = torch.optim.Adam(self._coder.parameters(), 3e-3)
            for _ in range(_EPOCHS):
                for part in torch.randperm(len(images)).split(_BATCH):
                    _step(self._coder, optimiser, images[part])
        return super().fit(cohort, split, on_epoch)

    def state(self) -> dict[str, Floats]:
        weights = {f"coder.{k}": v.cpu().numpy() for k, v in self._coder.state_dict().items()}
        return super().state() | weights

    def restore(self, state: Mapping[str, Floats]) -> None:
        self._coder = _autoencoder().to(self.device.torch_device)
        self._coder.load_state_dict({
            name.removeprefix("coder."): torch.from_numpy(of)
            for name, of in state.items() if name.startswith("coder.")
        })  # fmt: skip
        super().restore(state)


def _autoencoder() -> nn.Sequential:
    coder = nn.Sequential(nn.Linear(_SIDE**2, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
    return nn.Sequential(
        coder, nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, _SIDE**2), nn.Sigmoid()
    )


def _step(coder: nn.Sequential, optimiser: torch.optim.Optimizer, images: Tensor) -> None:
    noisy = nn.functional.dropout(images, 0.2) * 0.8
    loss = nn.functional.mse_loss(coder(noisy), images)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
