"""Cubic-spline samples of a scan on a cube and on planes around one point.

Two ways to the same numbers. `GridSampler` is for scans whose axes run along the world's (nearly
all): there a cube is a tensor product of three small matrices, and a plane through two edges of a
cube ties only two axes together. `PointSampler` takes any direction, going point by point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from labkit.imaging._spline import MARGIN_VOXELS, inside, sampling_matrix
from labkit.imaging.volume import AIR_HU, Volume

Image = NDArray[np.float32]
_Floats = NDArray[np.float64]
_X, _Y, _Z = 0, 1, 2


class _Plane(Protocol):
    @property
    def row_xyz(self) -> tuple[float, float, float]: ...

    @property
    def col_xyz(self) -> tuple[float, float, float]: ...

    def points_xyz_mm(self, center_xyz_mm: _Floats, size: int, spacing_mm: float) -> _Floats: ...


def offsets(size: int, spacing_mm: float) -> _Floats:
    """Distances (size,) of the samples from the centre, mm, symmetric about 0."""
    return np.arange(size, dtype=np.float64) * spacing_mm - (size - 1) / 2 * spacing_mm


def world_axes(volume: Volume) -> tuple[list[int], _Floats] | None:
    """Which array axis runs along the world's z, y and x, and in which sense; None if none does.

    Returns:
        Axes of the array (z, y, x) in the world's order z, y, x; and the signs of their steps.
    """
    # World axis -> axis of the index, both counted x, y, z.
    columns = np.argmax(np.abs(volume.direction), axis=1)
    signs = np.sign(volume.direction[np.arange(3), columns])
    straight = np.zeros((3, 3))
    straight[np.arange(3), columns] = signs
    # A tilt of 1e-6 moves the corner of a 76 mm view by 0.0001 mm.
    if np.abs(volume.direction - straight).max() > 1e-6 or len(set(columns)) < 3:
        return None
    return [2 - int(c) for c in columns[::-1]], signs[::-1]


def sampler(volume: Volume, center_xyz_mm: _Floats) -> GridSampler | PointSampler:
    """The faster sampler that is exact for this scan's direction."""
    aligned = world_axes(volume)
    if aligned is None:
        return PointSampler(volume, center_xyz_mm)
    axes_zyx, signs_zyx = aligned
    return GridSampler(volume, center_xyz_mm, axes_zyx[::-1], signs_zyx[::-1])


@dataclass(frozen=True)
class _Axis:
    """One world axis of an axis-aligned scan: where points along it fall among the voxels."""

    center_index: float
    voxels_per_mm: float
    length: int

    def indices(self, at_mm: _Floats) -> _Floats:
        return self.center_index + at_mm * self.voxels_per_mm


class GridSampler:
    """Samples around one centre of a scan whose axes run along the world's."""

    def __init__(
        self, volume: Volume, center_xyz_mm: _Floats, array_axes: list[int], signs: _Floats
    ) -> None:
        center_zyx = volume.index_from_world(center_xyz_mm)
        # Seen in the world's order (z, y, x), a falling axis only changes the sign of its step.
        self._voxels = np.transpose(volume.voxels, array_axes[::-1])
        self._axes = [
            _Axis(float(center_zyx[a]), sign / volume.spacing_zyx_mm[a], volume.shape[a])
            for a, sign in zip(array_axes, signs, strict=True)
        ]
        # The planes share these: matrices by axis, size and step, half-summed crops by axes.
        self._matrices: dict[tuple[int, int, float], tuple[Image, slice]] = {}
        self._halfway: dict[tuple[int, int, float], Image] = {}

    def cube(self, size: int, spacing_mm: float) -> Image:
        """(size, size, size) HU, axes (z, y, x)."""
        (mx, sx), (my, sy), (mz, sz) = (self._matrix(a, size, spacing_mm) for a in (_X, _Y, _Z))
        along_yx = my @ (self._crop(sz, sy, sx) @ mx.T)
        cube = (mz @ along_yx.reshape(len(along_yx), size * size)).reshape(size, size, size)
        for a in (_X, _Y, _Z):
            np.moveaxis(cube, 2 - a, 0)[self._outside(a, size, spacing_mm)] = AIR_HU
        return cube

    def planes(self, planes: Sequence[_Plane], size: int, spacing_mm: float) -> Image:
        """(len(planes), size, size) HU. Each plane contains one world axis at least."""
        images = np.empty((len(planes), size, size), np.float32)
        for image, plane in zip(images, planes, strict=True):
            # In such a plane no coordinate changes both down the image and across it.
            down = [a for a in (_X, _Y, _Z) if plane.row_xyz[a]]
            across = [a for a in (_X, _Y, _Z) if plane.col_xyz[a]]
            step = [(r + c) * spacing_mm for r, c in zip(plane.row_xyz, plane.col_xyz, strict=True)]
            if len(down) == len(across) == 1:
                image[:] = self._face_plane(size, step, down[0], across[0])
            elif len(across) == 1:
                image[:] = self._edge_plane(size, step, across[0])
            else:
                image[:] = self._edge_plane(size, step, down[0]).T
            for a in (_X, _Y, _Z):
                lines = image.T if a in across else image
                lines[self._outside(a, size, step[a])] = AIR_HU
        return images

    def _face_plane(self, size: int, step: list[float], down: int, across: int) -> Image:
        """An image along two axes: the axis across it first, over the few voxels that count."""
        (mx, sx), (my, sy), (mz, sz) = (
            self._matrix(a, size if step[a] else 1, step[a]) for a in (_X, _Y, _Z)
        )
        crop = self._crop(sz, sy, sx)
        if step[_Z] == 0:
            image = my @ np.tensordot(mz[0], crop, 1) @ mx.T
        elif step[_Y] == 0:
            image = mz @ (my[0] @ crop) @ mx.T
        else:
            image = mz @ (crop @ mx[0]) @ my.T
        return image if down > across else image.T  # above, rows follow the higher axis

    def _edge_plane(self, size: int, step: list[float], lone: int) -> Image:
        """An image whose columns run along one axis and whose rows tie the other two together.

        Along the lone axis the spline is a matrix product. Of the tied two, one is summed for all
        rows at once (which the other diagonal can share), and then the other row by row.
        """
        (mx, sx), (my, sy), (mz, sz) = (self._matrix(a, size, step[a]) for a in (_X, _Y, _Z))
        first = _X if lone == _Z else _Z
        key = (lone, size, step[first])
        if key not in self._halfway:
            crop = self._crop(sz, sy, sx)
            self._halfway[key] = crop @ mx.T if first == _X else np.tensordot(mz, crop, 1)
        summed = self._halfway[key]
        if lone == _X:
            return np.einsum("iy,iyx->ix", my, summed) @ mx.T
        if lone == _Y:
            return np.einsum("ix,iyx->iy", mx, summed) @ my.T
        return np.einsum("iy,zyi->iz", my, summed) @ mz.T

    def _matrix(self, axis: int, size: int, step_mm: float) -> tuple[Image, slice]:
        key = (axis, size, step_mm)
        if key not in self._matrices:
            along = self._axes[axis]
            self._matrices[key] = sampling_matrix(
                along.indices(offsets(size, step_mm)), along.length
            )
        return self._matrices[key]

    def _outside(self, axis: int, size: int, step_mm: float) -> NDArray[np.bool_]:
        along = self._axes[axis]
        return ~inside(along.indices(offsets(size, step_mm)), along.length)

    def _crop(self, z: slice, y: slice, x: slice) -> Image:
        return np.ascontiguousarray(self._voxels[z, y, x], dtype=np.float32)


class PointSampler:
    """Samples around one centre of a scan of any direction, point by point."""

    def __init__(self, volume: Volume, center_xyz_mm: _Floats) -> None:
        self._volume = volume
        self._center = center_xyz_mm

    def cube(self, size: int, spacing_mm: float) -> Image:
        """(size, size, size) HU, axes (z, y, x)."""
        at = offsets(size, spacing_mm)
        z, y, x = np.meshgrid(at, at, at, indexing="ij")
        return self._at(self._center + np.stack([x, y, z], axis=-1))

    def planes(self, planes: Sequence[_Plane], size: int, spacing_mm: float) -> Image:
        """(len(planes), size, size) HU."""
        points = [plane.points_xyz_mm(self._center, size, spacing_mm) for plane in planes]
        return self._at(np.stack(points))

    def _at(self, points_xyz_mm: _Floats) -> Image:
        """HU (...) at world points (..., 3)."""
        shape = np.asarray(self._volume.shape)
        index = self._volume.index_from_world(points_xyz_mm)
        seen = np.all((index >= -0.5) & (index <= shape - 0.5), axis=-1)
        values = np.full(seen.shape, AIR_HU, np.float32)
        if seen.any():
            index = index[seen]
            low = np.maximum(np.floor(index.min(axis=0)).astype(int) - MARGIN_VOXELS, 0)
            high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + MARGIN_VOXELS + 1, shape)
            crop = self._volume.voxels[tuple(map(slice, low, high))].astype(np.float64)
            coefficients = spline_filter(crop, order=3, mode="mirror")
            values[seen] = map_coordinates(
                coefficients, (index - low).T, order=3, mode="mirror", prefilter=False
            )
        return values
