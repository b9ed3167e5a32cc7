"""The descriptors of images that the paper's introduction names: HOG, LBP and SIFT; an SVM.

Histograms of oriented gradients (Dalal and Triggs, CVPR 2005; of nodules Chen et al., IEEE TMI
36:802, 2017), local binary patterns (Ojala et al., IEEE PAMI 24:971, 2002; of lungs Sørensen et
al., IEEE TMI 29:559, 2010) and SIFT (Lowe, IJCV 60:91, 2004; of nodules Zhang et al., ISBI 2014).
What makes it itself: nothing is segmented and nothing is learnt but the last step; a nodule is what
its edges and grains look like in the nine views.

Decided here: SIFT has one keypoint, the nodule's middle, at three scales, turned to its strongest
gradient; the rest sees the inner 48 mm; of the nine views a nodule keeps the mean and the spread of
each number. Where cubes hold the nodule's own slices alone, eight views have two straight edges to
air above and below it: these descriptors see edges, and so its height, before all else.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import hog, local_binary_pattern
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from labkit.cohorts.cohort import Cohort
from labkit.models.rivals import FeatureRival, Floats, unit


class Descriptors(FeatureRival):
    """A support vector machine with radial basis functions on the nine views' descriptors."""

    grid = {"svc__C": [0.3, 1, 10, 100]}  # noqa: RUF012

    def images(self, cohort: Cohort) -> Floats:
        return cohort.views

    def describe(self, image: Floats) -> Floats:
        found = []
        for view in unit(image)[:, 14:62, 14:62]:
            grains = np.rint(view * 255).astype(np.uint8)
            codes = [local_binary_pattern(grains, 8 * r, r, "uniform").ravel() for r in (1, 2)]
            found.append(np.concatenate([
                hog(view, 9, (12, 12), (2, 2)),
                *(np.bincount(c.astype(int), minlength=n) / c.size
                  for c, n in zip(codes, (10, 18), strict=True)),
                *(sift(view, width) for width in (12, 24, 44)),
            ]))  # fmt: skip
        return np.concatenate([np.mean(found, axis=0), np.std(found, axis=0)])

    def estimator(self) -> BaseEstimator:
        return make_pipeline(StandardScaler(), SVC())


def sift(image: Floats, width: float) -> Floats:
    """Compute SIFT's (128,) descriptor of the middle of an image, `width` pixels wide.

    Eight directions of gradients in 4 by 4 cells, weighed by a Gaussian, turned to the strongest
    direction of all, to length 1, none above 0.2 (Lowe 2004, sections 5 and 6).
    """
    smooth = ndimage.gaussian_filter(image, width / 16)
    slopes = np.gradient(smooth)
    v, u = (np.mgrid[:16, :16] - 7.5) / 8
    weight = np.exp(-(u**2 + v**2) / 2)
    middle = (np.array(image.shape) - 1) / 2

    def sampled(turn: float) -> tuple[Floats, Floats]:
        """Return weighted lengths and directions of the gradients on a turned grid."""
        rows = middle[0] + width / 2 * (v * np.cos(turn) + u * np.sin(turn))
        columns = middle[1] + width / 2 * (u * np.cos(turn) - v * np.sin(turn))
        dy, dx = (ndimage.map_coordinates(s, [rows, columns], order=1) for s in slopes)
        return np.hypot(dx, dy) * weight, (np.arctan2(dy, dx) - turn) % (2 * np.pi)

    length, angle = sampled(0.0)
    strongest = np.histogram(angle, 36, (0, 2 * np.pi), weights=length)[0].argmax()
    length, angle = sampled((strongest + 0.5) * np.pi / 18)
    at = np.column_stack([v.ravel(), u.ravel(), angle.ravel()])
    limits = [(-1, 1), (-1, 1), (0, 2 * np.pi)]
    found = np.histogramdd(at, (4, 4, 8), limits, weights=length.ravel())[0].ravel()
    found = np.minimum(found / max(np.linalg.norm(found), 1e-9), 0.2)
    return found / max(np.linalg.norm(found), 1e-9)
