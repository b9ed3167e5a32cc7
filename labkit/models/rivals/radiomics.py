"""What a clinic would use today: shape, density and texture of the segmented nodule, and trees.

In the manner of Aerts et al., Nat Commun 5:4006, 2014, and of the features that van Griethuysen et
al., Cancer Res 77:e104, 2017 (PyRadiomics) made common; extremely randomised trees as in Geurts et
al., Mach Learn 63:3, 2006. What makes it itself: it learns the mean malignancy that the readers
said, a number from 1 to 5, so that nodules without a label teach it, too.

Decided here: which features (shape; densities in the nodule, in its core, in its rim and in the
2 mm around it; volumes above ten densities; densities in shells about the middle; co-occurrence),
and that each split of 300 trees sees a third of them, with two nodules a leaf at least; nothing is
searched. Where cubes hold the nodule's own slices alone, rim and surroundings are those beside it,
not those above and below, and its height is what the readers marked.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesRegressor

from labkit.cohorts.cohort import Cohort
from labkit.errors import InputError
from labkit.models.rivals import FeatureRival, Floats, Rows, Split
from labkit.models.rivals.nodule import cooccurrence, haralick, segment, shape

_PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
_SHELLS_MM = (0, 2, 3, 4, 5, 6, 8, 10, 12)


class Radiomics(FeatureRival):
    """Extremely randomised trees on 86 features of the segmented nodule."""

    def describe(self, image: Floats) -> Floats:
        nodule = segment(image)
        hu, mask = nodule.hu, nodule.mask
        depth = ndimage.distance_transform_edt(mask)
        parts = [mask, depth > depth.max() / 2, mask & (depth <= 1.5),
                 ndimage.binary_dilation(mask, iterations=2) & ~mask & (hu > -1000)]  # fmt: skip
        densities = [np.percentile(hu[part] if part.any() else hu, _PERCENTILES) for part in parts]
        inside = hu[mask]
        above = [np.log1p((inside > level).sum()) for level in range(-600, 400, 100)]
        moments = [inside.mean(), inside.std(), np.cbrt(((inside - inside.mean()) ** 3).mean())]
        texture = haralick(cooccurrence(nodule))
        return np.concatenate([
            shape(mask), *densities, moments, above, [(inside > 200).mean()], _shells(image),
            texture.mean(axis=0),
        ])  # fmt: skip

    def estimator(self) -> BaseEstimator:
        return ExtraTreesRegressor(300, max_features=0.33, min_samples_leaf=2,
                                   random_state=self.seed)  # fmt: skip

    def learns_from(self, split: Split) -> Rows:
        return np.concatenate([super().learns_from(split), split.uncertain])

    def target(self, cohort: Cohort, rows: Rows) -> Floats:
        said = cohort.nodules["malignancy_mean"].iloc[rows].to_numpy(dtype=float)
        if np.isnan(said).any():
            raise InputError(f"{cohort.folder}: {np.isnan(said).sum()} of {len(said)} nodules have "
                             "no malignancy_mean, which this learns from")  # fmt: skip
        return said


def _shells(cube: Floats) -> Floats:
    """Compute the mean of HU, and the share above -400 HU, in shells about a cube's middle."""
    middle = cube[20:44, 20:44, 20:44].astype(np.float32)
    there = np.flatnonzero((middle > -1000).any(axis=(1, 2)))
    there = there if len(there) else np.array([11, 12])
    far = np.sqrt(sum((axis - 11.5) ** 2 for axis in np.ogrid[:24, :24, :24]))[there]
    parts = np.digitize(far, _SHELLS_MM)
    numbers = np.arange(1, len(_SHELLS_MM))
    return np.concatenate([ndimage.mean(middle[there], parts, numbers),
                           ndimage.mean(middle[there] > -400, parts, numbers)])  # fmt: skip
