"""The references: the readers' diameter alone, and with the calcification that they see.

What every method has to be set beside (logistic regression on the log-diameter). The second reads
the readers' ratings, which no image method is given: calcified nodules are benign.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.models.rivals import FeatureRival, Floats, Rows, mean_ratings


class Size(FeatureRival):
    """Logistic regression on the logarithm of the diameter."""

    ratings: tuple[str, ...] = ()

    def features(self, cohort: Cohort, rows: Rows) -> Floats:
        mm = cohort.nodules["diameter_mm"].iloc[rows]
        ratings = [mean_ratings(cohort, self.ratings)[rows]] if self.ratings else []
        x = np.column_stack([np.log(mm), *ratings]).astype(float)
        if not np.isfinite(x).all():
            what = " and ".join(("diameter_mm", *self.ratings))
            raise InputError(f"{cohort.folder}: not every nodule has {what}, which this needs")
        return x

    def estimator(self) -> LogisticRegression:
        return LogisticRegression()


class SizeCalcified(Size):
    """Logistic regression on the log-diameter and the readers' mean rating of calcification."""

    ratings = ("calcification",)
