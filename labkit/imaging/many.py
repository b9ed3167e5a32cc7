"""Nine views of each of many points of one scan, as a detector of nodules leaves them.

`views.nine_views` takes a point by itself and interpolates from the scan's voxels around it. Here
the spline's coefficients are computed once for all the points of a part of the scan, which makes
hundreds of points about five times as fast. The views are the same but for rounding (0.003 HU).

How a scan is divided keeps memory within bounds: the points are taken by their place along the
scan's first axis, as many at a time as lie in a box of 128 million voxels (512 MB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from labkit.errors import InputError
from labkit.imaging._coefficients import PAD, coefficients
from labkit.imaging._planes import PLANES, Plane
from labkit.imaging._sampling import Image, offsets, world_axes
from labkit.imaging._spline import MARGIN_VOXELS, bspline_weights, inside
from labkit.imaging.lungs import outside_as_wall
from labkit.imaging.volume import AIR_HU, Volume

_MOST_VOXELS = 128_000_000
_X, _Y, _Z = 0, 1, 2
_FOUR = np.arange(4)
_Floats = NDArray[np.float64]


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
