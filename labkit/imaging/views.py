"""From a scan to what the networks see: a cube of 64 mm around a nodule, and nine views of it.

Every sample is one cubic B-spline interpolation of the scan's own voxels (paper, section III-A:
1 mm, "spline interpolation"), never an interpolation of an interpolation. Samples lie at
`(arange(size) - (size - 1) / 2) * spacing_mm` from the nodule's centre, which is therefore the
exact centre of every cube and image, half way between the two middle samples; a smaller cube or
view is the middle of a larger one. Directions are the world's (LPS), whatever the scan's own are.

The cube is indexed `cube[z, y, x]`, each growing with its world coordinate: to the head, to the
back, to the patient's left. The views are indexed `views[plane, row, column]` as `PLANES` says:
axial rows go to the back, in the other eight rows go to the feet. So, of equal size and spacing,

- `views[0]` lies half way between `cube[31]` and `cube[32]`,
- `views[1]` lies half way between `cube[::-1, 31]` and `cube[::-1, 32]`,
- `views[2]` lies half way between `cube[::-1, :, 31]` and `cube[::-1, :, 32]`.

A point more than half a voxel beyond the scan's outermost voxel centres is air, -1000 HU. Up to
there the scan is continued as its mirror image, as SimpleITK does. A cubic spline may overshoot
beside a sharp edge by some per cent of its height; such values are kept, since clipping them would
bend the interpolation everywhere: `window` clips, at the point where networks meet the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError
from labkit.imaging._planes import PLANES, Plane
from labkit.imaging._sampling import GridSampler, PointSampler, sampler
from labkit.imaging.lungs import outside_as_wall
from labkit.imaging.volume import Volume

__all__ = ["PLANES", "Plane", "cube", "cube_and_views", "nine_views", "window"]


def cube(
    volume: Volume,
    center_xyz_mm: ArrayLike,
    size: int = 64,
    spacing_mm: float = 1.0,
    lungs: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The cube around a nodule, resampled once from the scan's voxels (paper, section III-A).

    Args:
        volume: the scan, HU.
        center_xyz_mm: (3,) world position of the nodule's centre, mm, LPS.
        size: samples along each edge.
        spacing_mm: distance between samples, mm.
        lungs: (Z, Y, X) bool, the volume's shape: beyond it the scan becomes chest wall, as by
            `lungs.outside_as_wall`. Give the lungs with a margin, as `lungs.dilate` makes it.

    Returns:
        (size, size, size) float32 HU, axes (z, y, x) along the world's.

    Raises:
        InputError: a centre that is not three finite numbers, no positive size or spacing, or
            lungs of another shape.

    >>> scan = Volume(np.full((40, 80, 80), 30, np.int16), (0.7, 0.7, 2.0))
    >>> cube(scan, (28, 28, 40), size=16).round(2).mean(axis=(1, 2)).tolist()[:3]
    [30.0, 30.0, 30.0]
    """
    return _sampler(volume, center_xyz_mm, size, spacing_mm, lungs).cube(size, spacing_mm)


def nine_views(
    volume: Volume,
    center_xyz_mm: ArrayLike,
    size: int = 64,
    spacing_mm: float = 1.0,
    lungs: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The nine views of a nodule in the order of `PLANES` (paper, section III-A and Fig. 2b).

    Three planes parallel to the faces of the cube and six through two opposite edges each, as in
    Setio et al., IEEE TMI 35(5):1160, 2016. All are sampled at `spacing_mm` in both directions:
    a diagonal is not stretched by sqrt(2), as slicing an array along its diagonal would.

    Args:
        volume: the scan, HU.
        center_xyz_mm: (3,) world position of the nodule's centre, mm, LPS.
        size: pixels along each edge.
        spacing_mm: distance between pixels, mm.
        lungs: see `cube`.

    Returns:
        (9, size, size) float32 HU, axes (plane, row, column).

    Raises:
        InputError: as `cube` raises.
    """
    around = _sampler(volume, center_xyz_mm, size, spacing_mm, lungs)
    return around.planes(PLANES, size, spacing_mm)


def cube_and_views(
    volume: Volume,
    center_xyz_mm: ArrayLike,
    size: int = 64,
    view_size: int = 76,
    spacing_mm: float = 1.0,
    lungs: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`cube` of `size` and `nine_views` of `view_size`, as a cohort stores them.

    The views are wider than the networks' 64 pixels by 6 on each side, so that augmentation can
    shift them over real tissue.

    Returns:
        (size, size, size) and (9, view_size, view_size) float32 HU.
    """
    around = _sampler(volume, center_xyz_mm, min(size, view_size), spacing_mm, lungs)
    return around.cube(size, spacing_mm), around.planes(PLANES, view_size, spacing_mm)


def window(hu: ArrayLike, low: float = -1000.0, high: float = 400.0) -> NDArray[np.float32]:
    """HU rescaled from (low, high) to (0, 1) and clipped there (paper, section III-A).

    >>> window([-2000, -1000, -300, 400, 3000]).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if not high > low:
        raise InputError(f"a window needs low < high, not ({low}, {high})")
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0)


def _sampler(
    volume: Volume,
    center_xyz_mm: ArrayLike,
    size: int,
    spacing_mm: float,
    lungs: NDArray[np.bool_] | None,
) -> GridSampler | PointSampler:
    center = np.asarray(center_xyz_mm, dtype=np.float64)
    if center.shape != (3,) or not np.isfinite(center).all():
        raise InputError(
            f"a centre is three finite coordinates x, y, z in mm, not {center_xyz_mm!r}"
        )
    if size < 1 or not 0 < spacing_mm < np.inf:
        raise InputError(f"size {size} and spacing {spacing_mm} mm must both be above 0")
    return sampler(volume if lungs is None else outside_as_wall(volume, lungs), center)
