"""A scan: voxels in HU and where each of them lies in the world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.errors import InputError

AIR_HU = -1000.0
# Below it is no tissue and no air: pixels outside the reconstructed circle, -2000 or -3024 HU.
PADDING_BELOW_HU = -1200.0
_MOST_HU = 33_000  # of metal on an extended scale; beyond it is a negative number without its sign
_LEAST_MM, _MOST_MM = 0.05, 20.0  # of voxels; beyond them are metres or micrometres


@dataclass(frozen=True)
class Volume:
    """Voxels in HU with spacing, origin and direction in mm.

    World coordinates are LPS (x to the patient's left, y to the back, z to the head), as in
    DICOM and SimpleITK. Arrays are indexed (z, y, x); points are given (x, y, z).

    Raises:
        ValueError: a wrong shape, a spacing that is not positive, or a singular direction.
    """

    voxels: NDArray  # (Z, Y, X), HU
    spacing_xyz_mm: tuple[float, float, float]  # distances of neighbouring voxels
    origin_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of voxel (0, 0, 0)
    # (3, 3), its columns are the world directions of the x, y and z axes.
    direction: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    series_uid: str = ""  # DICOM SeriesInstanceUID; empty when the source has none

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        if voxels.ndim != 3 or voxels.size == 0:
            raise ValueError(f"a volume needs voxels of shape (z, y, x), not {voxels.shape}")
        spacing = np.asarray(self.spacing_xyz_mm, dtype=float)
        origin = np.asarray(self.origin_xyz_mm, dtype=float)
        direction = np.asarray(self.direction, dtype=float)
        if spacing.shape != (3,) or not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
            raise ValueError(f"spacing must be three positive lengths in mm, not {spacing}")
        if origin.shape != (3,) or not np.all(np.isfinite(origin)):
            raise ValueError(f"origin must be three finite coordinates in mm, not {origin}")
        if direction.shape != (3, 3) or abs(np.linalg.det(direction)) < 1e-6:
            raise ValueError("direction must be an invertible (3, 3) matrix")
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "spacing_xyz_mm", tuple(float(s) for s in spacing))
        object.__setattr__(self, "origin_xyz_mm", tuple(float(o) for o in origin))
        object.__setattr__(self, "direction", direction)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x)."""
        z, y, x = self.voxels.shape
        return z, y, x

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Spacing in the order of the array's axes, mm."""
        x, y, z = self.spacing_xyz_mm
        return z, y, x

    def world_from_index(self, index_zyx: ArrayLike) -> NDArray[np.float64]:
        """World positions (..., 3) as (x, y, z) in mm of (fractional) array indices (z, y, x).

        >>> v = Volume(np.zeros((4, 5, 6)), (0.5, 1.0, 2.0), (10.0, 20.0, 30.0))
        >>> v.world_from_index((1, 2, 3)).tolist()
        [11.5, 22.0, 32.0]
        """
        index_xyz = np.asarray(index_zyx, dtype=float)[..., ::-1]
        scaled = index_xyz * np.asarray(self.spacing_xyz_mm)
        return scaled @ self.direction.T + np.asarray(self.origin_xyz_mm)

    def index_from_world(self, point_xyz_mm: ArrayLike) -> NDArray[np.float64]:
        """Fractional array indices (..., 3) as (z, y, x) of world points (x, y, z) in mm."""
        offset = np.asarray(point_xyz_mm, dtype=float) - np.asarray(self.origin_xyz_mm)
        index_xyz = offset @ np.linalg.inv(self.direction).T / np.asarray(self.spacing_xyz_mm)
        return index_xyz[..., ::-1]


def require_spacing(spacing_mm: Iterable[float], who: str) -> None:
    """Refuse lengths (mm) of a voxel's edges that no CT has, and tell `who` has them."""
    edges = [float(mm) for mm in spacing_mm]
    if not all(_LEAST_MM <= mm <= _MOST_MM for mm in edges):
        raise InputError(f"{who}: voxels of {edges} mm, those of a CT are {_LEAST_MM:g} to "
                         f"{_MOST_MM:g} mm along each axis; give millimetres")  # fmt: skip


def require_hu(slices: Sequence[NDArray] | NDArray, who: str) -> None:
    """Refuse values that cannot be HU, of (Y, X) slices, and tell `who` they are and the cause.

    Makers pad with one or two values: the most frequent ones below -1200 HU, and that below air,
    tell nothing. What is left of a chest has air or lung, or tissue near 40 HU. Of a real scan none
    of 8,000 crops of 7 to 64 mm was refused, nor any of 750 nodules; 1,024 HU too high, the scan
    was and nine in ten of the largest crops.
    """
    thin = [np.asarray(s)[:: max(1, len(s) // 64), :: max(1, len(s[0]) // 64)] for s in slices]
    hu = np.concatenate([image.ravel() for image in thin])
    highest = max(float(image.max()) for image in slices)

    def frequent(values: NDArray, most: int) -> NDArray:
        found, counts = np.unique(values, return_counts=True)
        return found[np.argsort(counts, kind="stable")[-most:]]

    below_air = hu[(hu >= PADDING_BELOW_HU) & (hu < AIR_HU)]
    padding = [*frequent(hu[hu < PADDING_BELOW_HU], 2), *frequent(below_air, 1)]
    hu = hu[~np.isin(hu, padding)]
    if hu.size < 64:
        return

    def share(low: float, high: float) -> float:
        return float(np.mean((hu > low) & (hu < high)))

    tissue, cause = share(900, 1250), ""
    low, middle, high = np.percentile(hu, (1, 50, 99))
    least, most, many = float(hu.min()), float(hu.max()), len(np.unique(hu)) > 20
    if share(-4096, 4000) < 0.95 or highest > _MOST_HU:
        cause = "numbers of a wrong byte order or sign; write them as little-endian int16"
    elif share(-np.inf, PADDING_BELOW_HU) > 0.05:
        cause = "the rescale intercept applied twice; write HU, often 1024 more"
    elif share(-np.inf, -300) < 0.01 and (
        tissue > 0.5 or (share(-50, 400) > 0.2 and tissue > max(share(450, 900), 0.0005))
    ):
        cause = "not rescaled; write HU, often 1024 less"
    elif many and least >= 0 and 150 < most <= 255 and sum(map(np.size, slices)) > 20_000:
        cause = "grey levels of a window; write HU"
    elif many and most - least < 20:
        cause = "normalised, or attenuation; write HU"
    if cause:
        raise InputError(
            f"{who}: values from {low:g} to {max(high, highest):g}, half of them above {middle:g}, "
            f"cannot be HU (air is -1000, tissue about 40); they look like {cause}"
        )
