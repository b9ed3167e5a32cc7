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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import map_coordinates, spline_filter

from labkit.errors import InputError
from labkit.imaging.lungs import outside_as_wall
from labkit.imaging.volume import AIR_HU, Volume

# Cubic B-spline interpolation along one axis, as one small matrix from voxels to samples.
#
# Interpolating by a cubic B-spline takes two steps: a prefilter turns voxels into coefficients,
# then every sample is a weighted sum of four coefficients (Unser, IEEE Signal Processing Magazine
# 16(6):22, 1999). Both are linear, so along one axis they are one matrix. Its rows fall off by a
# factor of 0.27 a voxel, so a dozen voxels on either side of a sample are all that matter.


# The weight of a voxel k away is at most 1.73 * 0.268**k: at 12 voxels 2.4e-7, or 0.0005 HU of a
# 2,000 HU edge.
MARGIN_VOXELS = 12


def inside(positions: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    """Which fractional positions lie on one of `length` voxels, half a voxel to either side."""
    return (positions >= -0.5) & (positions <= length - 0.5)


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices folded back into 0..length-1 about the first and the last voxel (b a | b c)."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    return np.where(folded < length, folded, period - folded)


def bspline_weights(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (m, 4) of the coefficients at floor-1, floor, floor+1 and floor+2."""
    t = fraction
    return (
        np.stack(
            [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1
        )
        / 6.0
    )


def sampling_matrix(
    positions: NDArray[np.float64], length: int
) -> tuple[NDArray[np.float32], slice]:
    """The matrix that takes voxels along one axis to cubic-spline samples at `positions`.

    The signal goes on past both ends as its mirror image about the end voxel, as in SimpleITK
    and scipy's mode "mirror". Rows of positions that are not `inside` are zero.

    Args:
        positions: (m,) fractional voxel indices.
        length: number of voxels along the axis.

    Returns:
        (m, k) float32 matrix, and the slice of k voxels that it applies to (none, if all the
        positions are outside).

    >>> import numpy as np
    >>> matrix, span = sampling_matrix(np.array([50.0, 50.25]), 100)
    >>> span, (matrix @ (10.0 * np.arange(100))[span]).round(2).tolist()
    (slice(38, 64, None), [500.0, 502.5])
    """
    seen = inside(positions, length)
    if not seen.any():
        return np.zeros((len(positions), 0), np.float32), slice(0, 0)
    first = max(0, int(np.floor(positions[seen].min())) - MARGIN_VOXELS)
    last = min(length - 1, int(np.ceil(positions[seen].max())) + MARGIN_VOXELS)
    # Solving on twice the margin makes the mirror at an inner end invisible to the samples.
    low, high = max(0, first - MARGIN_VOXELS), min(length - 1, last + MARGIN_VOXELS)
    n = high - low + 1

    base = np.floor(positions[seen]).astype(np.int64)
    weights = bspline_weights(positions[seen] - base)
    from_coefficients = np.zeros((n, len(base)))
    columns = np.arange(len(base))
    for tap in range(4):
        np.add.at(from_coefficients, (_mirrored(base - 1 + tap - low, n), columns), weights[:, tap])
    # samples = weights . inverse(P) . voxels with P tridiagonal, so its transpose is solved for.
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = 1 / 6, 4 / 6, 1 / 6
    if n > 1:  # in P the end rows are (4, 2) / 6, so in its transpose the 2s stand in the columns
        bands[2, 0] = bands[0, -1] = 2 / 6
        solved = solve_banded((1, 1), bands, from_coefficients, check_finite=False)
    else:
        solved = np.ones((1, len(base)))
    matrix = np.zeros((len(positions), last - first + 1), np.float32)
    matrix[seen] = solved[first - low : last - low + 1].T
    return matrix, slice(first, last + 1)


# Cubic B-spline coefficients of many voxels at once, by matrix products.
#
# Along one axis the prefilter is a matrix whose entries fall off by a factor of 0.27 a voxel from
# the
# diagonal, so that a block of coefficients needs the voxels of the block and a dozen to either
# side.
# Such products are what processors do best: five times as fast as the usual recursion.


# A sample at half a voxel beyond the outermost voxel's centre reaches two coefficients beyond it.
PAD = 2
_BLOCK = 64
_ROWS = 8

_coefficients_Floats = NDArray[np.float32]


def coefficients(voxels: NDArray) -> _coefficients_Floats:
    """Spline coefficients of a box of voxels, continued by their mirror images.

    Args:
        voxels: (z, y, x) of any kind of number; its ends are mirrored about the end voxels.

    Returns:
        (z + 4, y + 4, x + 4) float32: coefficient [k + 2] belongs to voxel [k].

    >>> coefficients(np.full((3, 1, 40), 7)).round(3).mean(axis=(0, 1))[[0, 20, -1]].tolist()
    [7.0, 7.0, 7.0]
    """
    z, y, x = voxels.shape
    along = [_Prefilter.of(n) for n in (z, y, x)]
    padded = np.empty((z + 2 * PAD, y + 2 * PAD, x + 2 * PAD), np.float32)
    inner = padded[PAD:-PAD, PAD:-PAD, PAD:-PAD]
    for image, into in zip(voxels, inner, strict=True):
        turned = along[2](np.ascontiguousarray(image.T, dtype=np.float32))
        into[:] = along[1](np.ascontiguousarray(turned.T))
    for first in range(0, y, _ROWS):
        rows = inner[:, first : first + _ROWS]
        rows[:] = along[0](np.ascontiguousarray(rows).reshape(z, -1)).reshape(rows.shape)
    for axis, n in enumerate((z, y, x)):
        lines = np.moveaxis(padded, axis, 0)
        for k in range(1, PAD + 1):
            lines[PAD - k] = lines[PAD + _coefficients_mirrored(-k, n)]
            lines[PAD + n - 1 + k] = lines[PAD + _coefficients_mirrored(n - 1 + k, n)]
    return padded


@dataclass(frozen=True)
class _Prefilter:
    """The prefilter along an axis, in blocks: rows first:stop come from voxels low:high."""

    blocks: tuple[tuple[slice, slice, _coefficients_Floats], ...]

    @classmethod
    def of(cls, n: int) -> _Prefilter:
        blocks = []
        for first in range(0, n, _BLOCK):
            stop = min(first + _BLOCK, n)
            low, high = max(0, first - MARGIN_VOXELS), min(n, stop + MARGIN_VOXELS)
            # Twice the margin makes the mirror at an inner end invisible to the block.
            far_low, far_high = max(0, low - MARGIN_VOXELS), min(n, high + MARGIN_VOXELS)
            whole = _inverse(far_high - far_low)
            part = whole[first - far_low : stop - far_low, low - far_low : high - far_low]
            matrix = np.ascontiguousarray(part, dtype=np.float32)
            blocks.append((slice(first, stop), slice(low, high), matrix))
        return cls(tuple(blocks))

    def __call__(self, voxels: _coefficients_Floats) -> _coefficients_Floats:
        """Coefficients (n, m) of voxels (n, m) along the first axis."""
        result = np.empty_like(voxels)
        for rows, source, matrix in self.blocks:
            np.matmul(matrix, voxels[source], out=result[rows])
        return result


def _inverse(n: int) -> NDArray[np.float64]:
    """Inverse of the matrix that takes n coefficients to the n samples at the voxels."""
    if n == 1:
        return np.ones((1, 1))
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = 1 / 6, 4 / 6, 1 / 6
    bands[0, 1] = bands[2, -2] = 2 / 6  # the mirror doubles the one neighbour of an end
    return solve_banded((1, 1), bands, np.eye(n), check_finite=False)


def _coefficients_mirrored(index: int, n: int) -> int:
    """An index folded back into 0..n-1 about the first and the last voxel."""
    if n == 1:
        return 0
    folded = abs(index) % (2 * (n - 1))
    return folded if folded < n else 2 * (n - 1) - folded


# Cubic-spline samples of a scan on a cube and on planes around one point.
#
# Two ways to the same numbers. `GridSampler` is for scans whose axes run along the world's (nearly
# all): there a cube is a tensor product of three small matrices, and a plane through two edges of a
# cube ties only two axes together. `PointSampler` takes any direction, going point by point.


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


# The nine planes through a nodule: their names, their order and how each image lies in space.


_Vector = tuple[float, float, float]
_D = float(np.sqrt(0.5))


@dataclass(frozen=True)
class Plane:
    """One plane through the nodule's centre, seen as an image.

    Args:
        name: stable name, for figures and tables.
        row_xyz: world direction (unit vector, LPS) in which the row number grows: down the image.
        col_xyz: world direction in which the column number grows: to the right of the image.
    """

    name: str
    row_xyz: _Vector
    col_xyz: _Vector

    @property
    def normal_xyz(self) -> _Vector:
        """Unit normal, col x row, so that the viewer looks along it, into the image."""
        x, y, z = np.cross(self.col_xyz, self.row_xyz)
        return float(x), float(y), float(z)

    def points_xyz_mm(
        self, center_xyz_mm: ArrayLike, size: int = 64, spacing_mm: float = 1.0
    ) -> NDArray[np.float64]:
        """World positions (size, size, 3) of the image's pixels, mm, centred on the point.

        >>> PLANES[0].points_xyz_mm((0, 0, 5), size=2)[0].tolist()
        [[-0.5, -0.5, 5.0], [0.5, -0.5, 5.0]]
        """
        steps = offsets(size, spacing_mm)[:, None]
        rows = steps * np.asarray(self.row_xyz)
        columns = steps * np.asarray(self.col_xyz)
        return np.asarray(center_xyz_mm, dtype=float) + rows[:, None] + columns[None]


PLANES: tuple[Plane, ...] = (
    # Parallel to the faces of the cube, as radiologists look at them: the patient's left on the
    # right of the image (axial, coronal), the back on the right (sagittal), the head up.
    Plane("axial", (0, 1, 0), (1, 0, 0)),
    Plane("coronal", (0, 0, -1), (1, 0, 0)),
    Plane("sagittal", (0, 0, -1), (0, 1, 0)),
    # Through two opposite edges: along the named axis and one diagonal of the other two axes,
    # which grow together ("plus") or one as the other falls ("minus"). Head up in all six.
    Plane("diagonal_x_plus", (0, -_D, -_D), (1, 0, 0)),
    Plane("diagonal_x_minus", (0, _D, -_D), (1, 0, 0)),
    Plane("diagonal_y_plus", (-_D, 0, -_D), (0, 1, 0)),
    Plane("diagonal_y_minus", (_D, 0, -_D), (0, 1, 0)),
    Plane("diagonal_z_plus", (0, 0, -1), (_D, _D, 0)),
    Plane("diagonal_z_minus", (0, 0, -1), (_D, -_D, 0)),
)


# Nine views of each of many points of one scan, as a detector of nodules leaves them.
#
# `views.nine_views` takes a point by itself and interpolates from the scan's voxels around it. Here
# the spline's coefficients are computed once for all the points of a part of the scan, which makes
# hundreds of points about five times as fast. The views are the same but for rounding (0.003 HU).
#
# How a scan is divided keeps memory within bounds: the points are taken by their place along the
# scan's first axis, as many at a time as lie in a box of 128 million voxels (512 MB).


_MOST_VOXELS = 128_000_000

_FOUR = np.arange(4)


def nine_views_each(
    volume: Volume,
    centers_xyz_mm: ArrayLike,
    size: int = 64,
    spacing_mm: float = 1.0,
    lungs: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[int, Image]]:
    """The nine views of many points of one scan, a point after the other.

    Args:
        volume: the scan, HU.
        centers_xyz_mm: (n, 3) world positions, mm, LPS.
        size: pixels along each edge.
        spacing_mm: distance between pixels, mm.
        lungs: see `views.cube`.

    Yields:
        Number of the point, in the order in which it suits the scan, and its views
        (9, size, size) float32 HU, as `views.nine_views` gives them.

    Raises:
        InputError: centres that are not finite or not (n, 3); no positive size or spacing; lungs of
            another shape.

    >>> scan = Volume(np.full((40, 80, 80), 30, np.int16), (0.7, 0.7, 2.0))
    >>> for k, views in nine_views_each(scan, [(28, 28, 40), (27, 28, 39)], size=16):
    ...     print(k, views.shape, views.mean().round(2))
    1 (9, 16, 16) 30.0
    0 (9, 16, 16) 30.0
    """
    centers = np.asarray(centers_xyz_mm, dtype=np.float64)
    if centers.ndim != 2 or centers.shape[1] != 3 or not np.isfinite(centers).all():
        raise InputError(f"centres are (n, 3) finite coordinates x, y, z in mm, not an array of "
                         f"shape {centers.shape}, or some are not finite")  # fmt: skip
    if size < 1 or not 0 < spacing_mm < np.inf:
        raise InputError(f"size {size} and spacing {spacing_mm} mm must both be above 0")
    return _each(volume if lungs is None else outside_as_wall(volume, lungs), centers, size,
                 spacing_mm)  # fmt: skip


def _each(
    volume: Volume, centers: _Floats, size: int, spacing_mm: float
) -> Iterator[tuple[int, Image]]:
    aligned = world_axes(volume)
    half = (size - 1) / 2 * spacing_mm
    # Seen in the world's order (z, y, x), a falling axis only changes the sign of its step.
    order, signs = ([0, 1, 2], np.ones(3)) if aligned is None else aligned
    voxels = np.transpose(volume.voxels, order)
    index = volume.index_from_world(centers)[:, order]
    per_mm = signs / np.array(volume.spacing_zyx_mm)[order]
    reach = (half if aligned is not None else half * np.sqrt(2)) * np.abs(per_mm)
    for numbers, low, high in _parts(index, reach, np.array(voxels.shape)):
        found = coefficients(voxels[tuple(map(slice, low, high))])
        if aligned is None:
            for k in numbers:
                yield k, _points(found, low - PAD, volume, centers[k], size, spacing_mm)
            continue
        lengths = dict(enumerate(voxels.shape))
        box = _Box(found, {
            (a, step): _Taps.at(index[numbers, 2 - a], offsets(size, step) * per_mm[2 - a],
                                lengths[2 - a], int(low[2 - a]) - PAD)
            for plane in PLANES for a, step in enumerate(_steps(plane, spacing_mm))
        })  # fmt: skip
        for k, number in enumerate(numbers):
            yield number, box.nine(k, spacing_mm)


def _parts(
    index: _Floats, reach: _Floats, shape: NDArray[np.int64]
) -> list[tuple[list[int], NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers of points that are taken together, and first and last + 1 voxel of their box."""
    lows = np.floor(index - reach).astype(np.int64) - MARGIN_VOXELS
    highs = np.ceil(index + reach).astype(np.int64) + MARGIN_VOXELS + 1
    # A box beyond the scan keeps one voxel of it.
    lows, highs = np.clip(lows, 0, shape - 1), np.clip(highs, 1, shape)
    parts: list[tuple[list[int], NDArray, NDArray]] = []
    for k in np.argsort(index[:, 0], kind="stable").tolist():
        if parts:
            numbers, low, high = parts[-1]
            low, high = np.minimum(low, lows[k]), np.maximum(high, highs[k])
            if np.prod(high - low) <= _MOST_VOXELS:
                parts[-1] = ([*numbers, k], low, high)
                continue
        parts.append(([k], lows[k], highs[k]))
    alone = np.prod(highs - lows, axis=1).sum()
    if alone < sum(np.prod(high - low) for _, low, high in parts):  # few points far apart
        return [([k], lows[k], highs[k]) for k in range(len(index))]
    return parts


def _steps(plane: Plane, spacing_mm: float) -> tuple[float, float, float]:
    """How far along x, y and z a pixel is from the one before it, down or across, mm."""
    x, y, z = ((r + c) * spacing_mm for r, c in zip(plane.row_xyz, plane.col_xyz, strict=True))
    return x, y, z


@dataclass(frozen=True)
class _Taps:
    """Where the samples of n points along one axis fall among the coefficients.

    Args:
        first: (n, size) the first of each sample's four coefficients.
        weights: (n, size, 4) float32.
        outside: (n, size) bool, beyond the scan.
        beyond: whether any is.
    """

    first: NDArray[np.int64]
    weights: Image
    outside: NDArray[np.bool_]
    beyond: bool

    @classmethod
    def at(cls, center: _Floats, steps: _Floats, length: int, first: int) -> _Taps:
        index = center[:, None] + steps
        outside = ~inside(index, length)
        index = np.clip(index, -0.5, length - 0.5)
        base = np.floor(index)
        weights = bspline_weights(index - base).astype(np.float32)
        return cls(base.astype(np.int64) - 1 - first, weights, outside, bool(outside.any()))

    def span(self, k: int) -> slice:
        """The coefficients that point k needs."""
        return slice(int(self.first[k].min()), int(self.first[k].max()) + 4)

    def matrix(self, k: int) -> Image:
        """(size, coefficients in the span) of point k."""
        span = self.span(k)
        matrix = np.zeros((self.first.shape[1], span.stop - span.start), np.float32)
        columns = self.first[k][:, None] - span.start + _FOUR
        matrix[np.arange(len(matrix))[:, None], columns] = self.weights[k]
        return matrix


class _Box:
    """The coefficients of a box of an axis-aligned scan, and where the points' samples are."""

    def __init__(self, found: Image, taps: dict[tuple[int, float], _Taps]) -> None:
        self._found = found
        self._taps = taps
        self._size = next(iter(taps.values())).first.shape[1]

    def nine(self, k: int, spacing_mm: float) -> Image:
        """(9, size, size) HU of point k."""
        images = np.empty((len(PLANES), self._size, self._size), np.float32)
        for image, plane in zip(images, PLANES, strict=True):
            # In such a plane no coordinate changes both down the image and across it.
            down = [a for a in (_X, _Y, _Z) if plane.row_xyz[a]]
            across = [a for a in (_X, _Y, _Z) if plane.col_xyz[a]]
            steps = _steps(plane, spacing_mm)
            taps = [self._taps[a, steps[a]] for a in (_X, _Y, _Z)]
            if len(down) == len(across) == 1:
                image[:] = self._face(k, taps, down[0], across[0])
            elif len(across) == 1:
                image[:] = self._edge(k, taps, across[0])
            else:
                image[:] = self._edge(k, taps, down[0]).T
            for a in (_X, _Y, _Z):
                if taps[a].beyond:
                    lines = image.T if a in across else image
                    lines[taps[a].outside[k]] = AIR_HU
        return images

    def _face(self, k: int, taps: list[_Taps], down: int, across: int) -> Image:
        """An image along two axes: the four coefficients across it first."""
        (through,) = {_X, _Y, _Z} - {down, across}
        first = int(taps[through].first[k, 0])
        spans = [taps[a].span(k) for a in (_Z, _Y, _X)]
        spans[2 - through] = slice(first, first + 4)
        crop = self._found[tuple(spans)]
        w = taps[through].weights[k, 0]
        if through == _X:
            flat = crop @ w
        else:
            layers = crop if through == _Z else np.moveaxis(crop, 1, 0)
            flat = w[0] * layers[0] + w[1] * layers[1] + w[2] * layers[2] + w[3] * layers[3]
        high, low = max(down, across), min(down, across)
        image = taps[high].matrix(k) @ flat @ taps[low].matrix(k).T
        return image if down == high else image.T

    def _edge(self, k: int, taps: list[_Taps], lone: int) -> Image:
        """An image whose columns run along one axis and whose rows tie the other two together.

        Each row's 4 x 4 coefficients of the tied axes first, all along the lone axis; that axis
        is then a matrix product.
        """
        _, ny, nx = self._found.shape
        stride = {_Z: ny * nx, _Y: nx, _X: 1}
        high, low = (a for a in (_Z, _Y, _X) if a != lone)
        at = [(taps[a].first[k][:, None] + _FOUR) * stride[a] for a in (high, low)]
        at_16 = (at[0][:, :, None] + at[1][:, None, :]).reshape(self._size, 16)
        w_16 = taps[high].weights[k][:, :, None] * taps[low].weights[k][:, None, :]
        w_16 = w_16.reshape(self._size, 16)
        span, matrix = taps[lone].span(k), taps[lone].matrix(k)
        if lone == _X:
            lines = self._found.reshape(-1, nx)[:, span][at_16 // nx]
            summed = np.matmul(w_16[:, None, :], lines)[:, 0]
        elif lone == _Y:
            along = np.arange(span.start, span.stop) * nx
            lines = self._found.ravel().take(at_16[:, None, :] + along[None, :, None])
            summed = np.matmul(lines, w_16[:, :, None])[:, :, 0]
        else:
            lines = self._found.reshape(-1, ny * nx)[span].take(at_16.ravel(), axis=1)
            summed = np.einsum("zit,it->iz", lines.reshape(-1, self._size, 16), w_16)
        return summed @ matrix.T


def _points(
    found: Image,
    first: NDArray[np.int64],
    volume: Volume,
    center: _Floats,
    size: int,
    spacing_mm: float,
) -> Image:
    """The views in a scan of any direction, pixel by pixel from coefficients."""
    at = np.stack([plane.points_xyz_mm(center, size, spacing_mm) for plane in PLANES])
    index = volume.index_from_world(at)
    shape = np.array(volume.shape)
    seen = np.all((index >= -0.5) & (index <= shape - 0.5), axis=-1)
    values = np.full(seen.shape, AIR_HU, np.float32)
    values[seen] = map_coordinates(
        found, (index[seen] - first).T, order=3, mode="nearest", prefilter=False
    )
    return values


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
