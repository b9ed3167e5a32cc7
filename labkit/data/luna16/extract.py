"""The views of all candidates of a scan, as a LUNA-16 cohort stores them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.data._cohort_files import VIEW_SIZE
from labkit.errors import InputError
from labkit.imaging.many import nine_views_each
from labkit.imaging.volume import Volume

LOW_HU, HIGH_HU = -1000.0, 400.0


def as_u8(hu: ArrayLike) -> NDArray[np.uint8]:
    """HU as grey levels: v = round((HU + 1000) * 255 / 1400), clipped to 0..255.

    5.5 HU a level; networks see the window from -1000 to 400 HU and nothing beyond.

    >>> as_u8([-2000, -1000, -300, 399, 400, 3000]).tolist()
    [0, 0, 128, 255, 255, 255]
    """
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(LOW_HU)) * np.float32(
        255 / (HIGH_HU - LOW_HU)
    )
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def within(volume: Volume, centers_xyz_mm: ArrayLike) -> NDArray[np.bool_]:
    """Which points (n, 3) lie on a scan's voxels; only the volume's geometry is used."""
    index = volume.index_from_world(np.asarray(centers_xyz_mm, dtype=np.float64).reshape(-1, 3))
    return np.all((index >= -0.5) & (index <= np.array(volume.shape) - 0.5), axis=1)


def views_u8(
    volume: Volume, centers_xyz_mm: ArrayLike, lungs: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The nine views of each candidate of one scan.

    Args:
        volume: the scan, HU.
        centers_xyz_mm: (n, 3) world positions, mm, LPS; n may be 0.
        lungs: see `imaging.views.cube`.

    Returns:
        (n, 9, 76, 76) uint8, `as_u8` of `imaging.views.nine_views` of 76 pixels at 1 mm, in the
        order of the centres. They differ by at most one level where rounding is at its edge.

    Raises:
        InputError: a centre outside the scan, or not finite; lungs of another shape.
    """
    centers = np.asarray(centers_xyz_mm, dtype=np.float64).reshape(-1, 3)
    views = np.empty((len(centers), 9, VIEW_SIZE, VIEW_SIZE), np.uint8)
    for k, images in each_u8(volume, centers, lungs):
        views[k] = images
    return views


def each_u8(
    volume: Volume, centers_xyz_mm: NDArray[np.float64], lungs: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """`views_u8` a candidate at a time, with its number, in the order that suits the scan."""
    here = within(volume, centers_xyz_mm)
    if not here.all():
        k = int(np.argmin(here))
        raise InputError(outside(f"candidate {k}", centers_xyz_mm[k], volume))
    for k, images in nine_views_each(volume, centers_xyz_mm, VIEW_SIZE, lungs=lungs):
        yield k, as_u8(images)


def outside(candidate: str, center_xyz_mm: NDArray[np.float64], volume: Volume) -> str:
    """What to say of a candidate that is not in its scan."""
    ends = [(-0.5, n - 0.5) for n in volume.shape]  # as `within` has them
    corners = volume.world_from_index(list(itertools.product(*ends)))
    low, high = corners.min(axis=0), corners.max(axis=0)
    x, y, z = (f"{n:.1f}" if abs(n) < 1e5 else f"{n:.3g}" for n in center_xyz_mm)
    spans = ", ".join(f"{a:.1f} to {b:.1f}" for a, b in zip(low, high, strict=True))
    oblique = bool(np.all((low <= center_xyz_mm) & (center_xyz_mm <= high)))
    spans += " mm, obliquely, so that it does not fill them" if oblique else " mm"
    return (
        f"{candidate} at x {x}, y {y}, z {z} mm lies outside its scan "
        f"{volume.series_uid or ''}, which spans {spans}; check the table's world coordinates"
    )
