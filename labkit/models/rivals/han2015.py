"""Texture of the nodule: co-occurrence in 3-D, Gabor filters and local binary patterns; an SVM.

Han, Wang, Zhang, Han, Song, Li, Moore, Lu, Zhao and Liang, J Digit Imaging 28:99, 2015. What makes
it itself: it sees the inside of the nodule alone, in every slice, and Haralick's features of the 13
directions in space. The paper compares the three kinds of texture one by one; here they are put
together.

Decided here, where no more than the abstract was at hand: 16 grey levels; of each Haralick feature
its mean and range over the directions; Gabor filters of three wavelengths and four directions, and
patterns of two radii (Ojala et al., IEEE PAMI 24:971, 2002), in the axial slices; the nodule is
segmented by `nodule.segment`, where the paper had a reader's outline. Where cubes hold its own
slices alone, nothing is missing: those are all that the method looks at.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.signal import fftconvolve
from skimage.feature import local_binary_pattern
from skimage.filters import gabor_kernel
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from labkit.models.rivals import FeatureRival, Floats
from labkit.models.rivals.nodule import Nodule, cooccurrence, haralick, segment


class Han2015(FeatureRival):
    """A support vector machine with radial basis functions on 78 features of texture."""

    grid = {"svc__C": [0.3, 1, 10, 100], "svc__gamma": [0.003, 0.012]}  # noqa: RUF012

    def describe(self, image: Floats) -> Floats:
        nodule = segment(image)
        of_pairs = haralick(cooccurrence(nodule))
        return np.concatenate([
            of_pairs.mean(axis=0), np.ptp(of_pairs, axis=0), gabor(nodule), patterns(nodule),
        ])  # fmt: skip

    def estimator(self) -> BaseEstimator:
        return make_pipeline(StandardScaler(), SVC())


@cache
def _kernels() -> list[Floats]:
    return [gabor_kernel(1 / length, np.pi * turn / 4, bandwidth=1)
            for length in (3, 6, 12) for turn in range(4)]  # fmt: skip


def gabor(nodule: Nodule) -> Floats:
    """Compute (24,) mean and spread of what 12 filters answer in the nodule's axial slices.

    Around the nodule is its own mean, so that its outline answers as little as can be.
    """
    hu = np.where(nodule.mask, nodule.hu - nodule.hu[nodule.mask].mean(), 0)
    said = [abs(fftconvolve(hu, kernel[None], mode="same", axes=(1, 2)))[nodule.mask]
            for kernel in _kernels()]  # fmt: skip
    return np.array([of(answer) for of in (np.mean, np.std) for answer in said])


def patterns(nodule: Nodule) -> Floats:
    """Compute (28,) shares of the rotation-invariant uniform patterns at radii of 1 and 2 mm."""
    found = []
    for radius in (1, 2):
        points = 8 * radius
        codes = np.array([local_binary_pattern(part, points, radius, "uniform")
                          for part in np.rint(nodule.hu).astype(np.int32)])  # fmt: skip
        counts = np.bincount(codes[nodule.mask].astype(int), minlength=points + 2)
        found.append(counts / counts.sum())
    return np.concatenate(found)
