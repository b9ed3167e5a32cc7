"""What around a nodule is body wall and what is lung, by the same rule on real and simulated CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

_TISSUE_HU = -300.0
_OPENING_MM = 2.5
_LEAST_WALL_MM2 = 250
_AIR_EDGE_HU, _AIR_HU = -960.0, -980.0
_CLEAR_MM = 3


@dataclass(frozen=True)
class Masks:
    """Parts of the slices around a nodule, each (n, 64, 64).

    Args:
        wall: chest wall, mediastinum, diaphragm and whatever else is wide; not the nodule.
        outside: air outside the body.
        lung: the rest, 3 mm clear of wall, outside air and nodule, vessels included.
        from_nodule_mm: distance to the consensus, mm.
    """

    wall: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    lung: NDArray[np.bool_]
    from_nodule_mm: Floats


def masks(hu: Floats, agreement: Floats) -> Masks:
    """Tell wall from lung: above -300 HU, and wide enough to survive an opening of 2.5 mm.

    The opening, slice by slice, takes away vessels up to 5 mm and the blurred rim of the nodule;
    what is left and measures 250 mm^2 or more in its slice is wall. The nodule is taken out first,
    so that one that touches the wall is no part of it.

    Args:
        hu: (n, 64, 64) HU.
        agreement: share of the readers who outlined the point.
    """
    nodule = agreement >= 0.5
    reach = np.arange(-3, 4)
    disc = np.hypot(reach[:, None], reach[None, :]) <= _OPENING_MM
    wall, outside = np.zeros_like(nodule), np.zeros_like(nodule)
    for z in range(len(hu)):
        # Noise must not perforate the wall.
        smooth = ndimage.gaussian_filter(hu[z], 0.7)
        tissue = (smooth > _TISSUE_HU) & ~nodule[z]
        wide = _opened(tissue, disc)
        wall[z] = _large(wide, _LEAST_WALL_MM2)
        outside[z] = _outside_air(smooth, wall[z])
    blocked = ndimage.binary_dilation(wall | outside, np.ones((1, 3, 3)), iterations=_CLEAR_MM)
    if nodule.any():
        far = ndimage.distance_transform_edt(~nodule).astype(np.float32)
    else:
        far = np.full(hu.shape, 64.0, np.float32)
    return Masks(wall, outside, ~blocked & (far > _CLEAR_MM), far)


def _opened(tissue: NDArray[np.bool_], disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Opening that takes what lies beyond the slice's edge for more of the same."""
    padded = np.pad(tissue, 4, mode="edge")
    return ndimage.binary_opening(padded, disc)[4:-4, 4:-4]


def _large(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= least)[labels]


def _outside_air(smooth: Floats, wall: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Air at the slice's corners, behind the wall: darker than any lung."""
    labels, count = ndimage.label((smooth < _AIR_EDGE_HU) & ~wall)
    if not count:
        return np.zeros_like(wall)
    corners = {int(labels[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
    found = np.isin(labels, list(corners))
    is_air = found.sum() >= 30 and float(smooth[found].mean()) < _AIR_HU
    return found if is_air else np.zeros_like(wall)
