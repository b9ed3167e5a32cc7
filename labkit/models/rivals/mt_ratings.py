"""What readers say of a nodule, as further tasks: beyond Zhai et al. (2020).

As `shared`, but the classifier learns the readers' mean malignancy m as a soft label, (m - 1) / 4,
so that uncertain nodules teach, too; and from the same features it learns to say their eight other
ratings (calcification among them, which tells much that a size does not) and the log-diameter. They
are needed for training alone, and left out where a nodule has none (candidates of LUNA-16: their
label is then the target). Its probability is of the soft label's scale: less sure than a label's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from labkit.annotations.lidc import MEAN_RATINGS
from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import Floats, Rows, Split, known_bce, mean_ratings
from labkit.models.rivals.shared import Shared, SharedNet

RATED = MEAN_RATINGS[:-1]
BETA = 0.5  # weight of the mean loss of these tasks


class MTRatings(Shared):
    """`Shared` with the readers' ratings and the diameter as tasks, and soft labels."""

    def network(self) -> nn.Module:
        return SharedNet(2 + len(RATED))

    def learns_from(self, split: Split) -> Rows:
        return np.sort(np.concatenate([split.train, split.uncertain]))

    def targets(self, cohort: Cohort, rows: Rows) -> Floats:
        """Return (n, 10) from 0 to 1: malignancy, ratings, log-diameter from 2 to 60 mm."""
        table = cohort.nodules.iloc[rows]
        soft = (table["malignancy_mean"].fillna(1 + 4 * table["label"]) - 1) / 4
        mm = table["diameter_mm"].to_numpy(dtype=float)
        best = np.where([name == "calcification" for name in RATED], 6, 5)
        ratings = (mean_ratings(cohort, RATED)[rows] - 1) / (best - 1)
        of_size = np.clip(np.log(np.maximum(mm, 2) / 2) / np.log(30), 0, 1)
        first = soft.to_numpy(dtype=float, na_value=np.nan)
        return np.column_stack([first, ratings, of_size]).astype(np.float32)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        return known_bce(output[0][:, :1], targets[:, :1])

    def auxiliary(self, output: Any, targets: Tensor, images: Tensor) -> Tensor | float:
        others = known_bce(output[0][:, 1:], targets[:, 1:])
        return BETA * others + super().auxiliary(output, targets, images)
