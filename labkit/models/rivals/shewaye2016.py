"""Geometry and HU histogram of the segmented nodule, linear and kernel classifiers.

Shewaye and Mekonnen, arXiv:1605.08350, 2016. What makes it itself: features that a reader can
check, each a length, an area, a ratio or a share, and many classifiers, linear and not, of which
the paper reports the best.

Decided here, where no more than the abstract was at hand: the best of eight is chosen by AUC inside
the training nodules, never on those that it is reported on; 15 shapes (`nodule.shape`) and 14 bins
of 100 HU; the nodule is segmented by `nodule.segment`. Where cubes hold the nodule's own slices
alone, its height and so its volume are what the readers marked.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from labkit.models.rivals import FeatureRival, Floats
from labkit.models.rivals.nodule import segment, shape


class Shewaye2016(FeatureRival):
    """The best of eight classifiers on 29 features of the segmented nodule."""

    grid = {"classifier": [  # noqa: RUF012
        LogisticRegression(C=0.1), LogisticRegression(C=10, max_iter=1000),
        LinearDiscriminantAnalysis(), SVC(C=0.1, kernel="linear"), SVC(C=1), SVC(C=10, gamma=0.01),
        KNeighborsClassifier(15), AdaBoostClassifier(n_estimators=100, random_state=0),
    ]}  # fmt: skip

    def describe(self, image: Floats) -> Floats:
        nodule = segment(image)
        inside = np.clip(nodule.hu[nodule.mask], -1000, 400)
        shares = np.histogram(inside, np.linspace(-1000, 400, 15))[0]
        return np.concatenate([shape(nodule.mask), shares / nodule.mask.sum()])

    def estimator(self) -> BaseEstimator:
        return Pipeline([("scale", StandardScaler()), ("classifier", LogisticRegression())])
