"""A scan: voxels in HU and where each of them lies in the world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

AIR_HU = -1000.0


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
